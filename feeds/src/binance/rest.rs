//! What is fetched by REST: snapshots of books, and the list of symbols (`exchangeInfo`).

use compact_str::{CompactString, ToCompactString};
use ticker_market::{Levels, Time};

use super::wire::{DepthSnapshot, ExchangeInfo, Refusal, SymbolInfo};
use super::{Binance, SYMBOLS_KNOWN_MAX};
use crate::roster::Steps;
use crate::symbols::query;
use crate::wire::undecodable;
use crate::{Fault, Out, Report, audit, rest_books};

impl Binance {
    pub(super) fn snapshot(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        let Ok(snapshot) = serde_json::from_slice::<DepthSnapshot>(body) else {
            return self.refused(url, body, out);
        };
        // Recordings may not know the URL; it is clear whose snapshot it is where only one book waits for one.
        let native: Option<CompactString> = query(url, "symbol").map(CompactString::from).or_else(|| {
            let mut waiting = self.roster.iter().filter(|k| {
                self.own.get(k.number() as usize).is_some_and(|own| own.sync.is_buffering() && !own.sync.is_synced())
            });
            let first = waiting.next()?.instrument().native.clone();
            waiting.next().is_none().then_some(first)
        });
        let Some((keeper, own)) = native.and_then(|native| self.keep(&native, out)) else { return };
        let levels = Levels { bids: snapshot.bids.0, asks: snapshot.asks.0, ..Levels::default() };
        if own.sync.is_audited() && keeper.is_live() {
            audit::answered(&mut own.sync, keeper, (snapshot.id, levels), recv, out);
            return self.fetch_due(recv, out);
        }
        if own.sync.is_synced() || keeper.is_stale() {
            // An answer to a question asked twice, or one that came too late.
            return;
        }
        match rest_books::begin(&mut own.sync, keeper, (snapshot.id, &levels, None), recv, out) {
            Ok(()) => self.refresh.begin(recv),
            Err(misfit) => rest_books::misfits(keeper, misfit, recv, out),
        }
        self.fetch_due(recv, out);
    }

    pub(super) fn exchange_info(&mut self, body: &[u8], recv: Time, out: &mut Out) {
        let Ok(info) = serde_json::from_slice::<ExchangeInfo<'_>>(body) else {
            return self.refused("exchangeInfo", body, out);
        };
        self.list.done();
        for symbol in &info.symbols {
            let normal = self.market.by_assets(&symbol.symbol, &symbol.base, &symbol.quote);
            if !self.roster.wants(&normal) {
                continue;
            }
            let steps = steps(symbol);
            if self.known.len() < SYMBOLS_KNOWN_MAX || self.known.contains_key(&*symbol.symbol) {
                self.known.insert(symbol.symbol.to_compact_string(), (normal, steps));
            }
            if let Some(keeper) = self.roster.by_native(&symbol.symbol) {
                keeper.describe(steps.tick, steps.lot, out);
                let halted = matches!(&*symbol.status, "HALT" | "BREAK" | "PENDING_TRADING" | "SETTLING" | "CLOSE");
                keeper.halt(halted.then_some("halt"), recv, out);
            }
        }
    }

    fn refused(&self, url: &str, body: &[u8], out: &mut Out) {
        let native = query(url, "symbol").map(str::to_owned);
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => {
                let detail = format!("{}: {}", refusal.code, refusal.msg);
                out.reports.push(Report { fault: Fault::Refused, native, detail });
            }
            Err(_) => undecodable(body, out),
        }
    }

    /// Fetches a snapshot of the live book whose turn it is, to hold the two against each other: the sequence proves that
    /// nothing is missing, not what it says.
    pub(super) fn refresh_due(&mut self, now: Time, out: &mut Out) {
        let market = self.market;
        let turn = self
            .roster
            .audit_due(&mut self.refresh, &mut self.snapshots, now, out, |native| market.snapshot_url(native));
        if let Some(own) = turn.and_then(|number| self.own.get_mut(number)) {
            own.sync.begin_audit();
        }
    }

    /// Fetches the snapshots that are due, as far as the venue's limit allows.
    pub(super) fn fetch_due(&mut self, now: Time, out: &mut Out) {
        let market = self.market;
        self.roster.fetch_due(&mut self.snapshots, now, out, |native| market.snapshot_url(native));
    }
}

fn steps(symbol: &SymbolInfo<'_>) -> Steps {
    let filter = |kind: &str| symbol.filters.iter().find(|f| f.kind == kind);
    Steps {
        tick: filter("PRICE_FILTER").and_then(|f| f.tick).map(|n| n.0),
        lot: filter("LOT_SIZE").and_then(|f| f.step).map(|n| n.0),
    }
}
