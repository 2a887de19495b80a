//! Changes of books, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::{DepthUpdate, L2Updates, V2Trade};
use crate::Out;
use crate::scan::{Scan, fill};
use crate::wire::{LevelPairs, Quoted, Sided};

/// A change of a book, of either protocol.
#[derive(Debug)]
pub(super) enum Update<'a> {
    Depth(DepthUpdate<'a>),
    /// Of Market Data v2.
    L2(L2Updates<'a>),
}

/// `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn update<'a>(bytes: &'a [u8], out: &mut Out) -> Option<Update<'a>> {
    let is_depth = bytes.starts_with(b"{\"e\":\"depthUpdate\",");
    let begins = [&b"{\"changes\":["[..], b"{\"auction_events\":[", b"{\"type\":\"l2_updates\""];
    if !is_depth && !begins.iter().any(|begin| bytes.starts_with(begin)) {
        return None;
    }
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    if is_depth {
        if let Some(update) = depth(Scan::new(bytes), &mut levels) {
            let (b, a) = (LevelPairs(levels.bids), LevelPairs(levels.asks));
            return Some(Update::Depth(DepthUpdate { b, a, ..update }));
        }
    } else if let Some(updates) = l2_updates(Scan::new(bytes), &mut levels) {
        return Some(Update::L2(L2Updates { changes: Sided(levels), ..updates }));
    }
    out.recycle(levels);
    None
}

/// All but the levels, which are in `levels`.
fn depth<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<DepthUpdate<'a>> {
    let (mut kind, mut event_ns, mut s, mut before, mut last) = (None, None, None, None, None);
    let (mut bids, mut asks) = (None, None);
    scan.fields(|scan, key| match key {
        b"e" => fill(&mut kind, scan.text()),
        b"E" => fill(&mut event_ns, scan.nanos()),
        b"s" => fill(&mut s, scan.text()),
        b"U" => fill(&mut before, scan.whole()),
        b"u" => fill(&mut last, scan.whole()),
        b"b" => fill(&mut bids, scan.pairs(&mut levels.bids)),
        b"a" => fill(&mut asks, scan.pairs(&mut levels.asks)),
        _ => None,
    })?;
    scan.end()?;
    let (b, a) = (LevelPairs::default(), LevelPairs::default());
    Some(DepthUpdate { event_ns: event_ns?, s: Cow::Borrowed(s?), before: before?, last: last?, b, a })
}

/// All but the changes, which are in `levels`.
fn l2_updates<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<L2Updates<'a>> {
    let (mut changes, mut symbol, mut kind, mut auctions, mut trades) = (None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"changes" => fill(&mut changes, scan.sided(levels)),
        b"symbol" => fill(&mut symbol, scan.text()),
        b"type" => fill(&mut kind, scan.text()),
        // Of a snapshot.
        b"auction_events" => fill(&mut auctions, scan.eat(b"[]")),
        b"trades" => {
            let mut list = Vec::new();
            scan.list(|scan| trade(scan).map(|trade| list.push(trade)))?;
            fill(&mut trades, Some(list))
        }
        _ => None,
    })?;
    scan.end()?;
    changes.filter(|()| kind == Some("l2_updates"))?;
    Some(L2Updates { symbol: Cow::Borrowed(symbol?), changes: Sided::default(), trades })
}

fn trade<'a>(scan: &mut Scan<'a>) -> Option<V2Trade<'a>> {
    let (mut symbol, mut event_id, mut timestamp) = (None, None, None);
    let (mut price, mut quantity, mut side) = (None, None, None);
    scan.fields(|scan, key| match key {
        b"symbol" => fill(&mut symbol, scan.text()),
        b"event_id" => fill(&mut event_id, scan.whole()),
        b"timestamp" => fill(&mut timestamp, scan.signed()),
        b"price" => fill(&mut price, scan.quoted()),
        b"quantity" => fill(&mut quantity, scan.quoted()),
        b"side" => fill(&mut side, scan.text()),
        _ => scan.pass_over(),
    })?;
    Some(V2Trade {
        symbol: Cow::Borrowed(symbol?),
        event_id: event_id?,
        timestamp: timestamp?,
        price: Quoted(price?),
        quantity: Quoted(quantity?),
        side: Cow::Borrowed(side?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemini::wire::Head;
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = concat!(
            include_str!("../../fixtures/gemini/session.jsonl"),
            "\n",
            include_str!("../../fixtures/gemini/v2.jsonl")
        );
        let is_update = |line: &&str| line.contains("depthUpdate") || line.contains("l2_updates");
        let frames: Vec<&str> = text.lines().filter(is_update).collect();
        let parse = |bytes: &[u8]| {
            let head: Head<'_> = serde_json::from_slice(bytes).ok()?;
            let update = match (&*head.e, &*head.kind) {
                ("depthUpdate", _) => Update::Depth(serde_json::from_slice(bytes).ok()?),
                ("", "l2_updates") => Update::L2(serde_json::from_slice(bytes).ok()?),
                _ => return None,
            };
            Some(format!("{update:?}"))
        };
        reads_what_serde_reads(&frames, |bytes, out| update(bytes, out).map(|f| format!("{f:?}")), parse);
    }
}
