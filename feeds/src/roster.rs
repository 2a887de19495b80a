//! The instruments of one adapter, by the venue's own name.

use compact_str::CompactString;
use hashbrown::HashMap;
use ticker_market::{Channel, Decimal, Instrument, Time, topic};

use crate::keeper::{Keeper, Stamp, Ways, Wrong};
use crate::resync::{Budget, RENEWAL_MAX_MS, Refresh};
use crate::{Command, Conn, Fault, Out, Report};

/// Instruments that one adapter keeps at most; frames of others are passed over, and one report says so.
pub const INSTRUMENTS_MAX: usize = 4_096;

/// What a venue's list says of the steps of an instrument.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Steps {
    pub(crate) tick: Option<Decimal>,
    pub(crate) lot: Option<Decimal>,
}

/// Instruments of a venue's list that are remembered.
pub const LISTED_MAX: usize = 20_000;

/// What a venue's list says of its instruments, by the venue's own names.
#[derive(Default, Debug)]
pub(crate) struct Listing {
    by_native: HashMap<CompactString, (CompactString, Steps)>,
}

impl Listing {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_native.is_empty()
    }

    pub(crate) fn insert(&mut self, native: &str, symbol: CompactString, steps: Steps) {
        if self.by_native.len() < LISTED_MAX || self.by_native.contains_key(native) {
            self.by_native.insert(native.into(), (symbol, steps));
        }
    }

    /// Symbol and steps of a name; the symbol is `otherwise` where the list does not have it.
    pub(crate) fn describe(&self, native: &str, otherwise: impl FnOnce() -> CompactString) -> (CompactString, Steps) {
        self.by_native.get(native).cloned().unwrap_or_else(|| (otherwise(), Steps::default()))
    }

    /// The venue's names of these symbols, for a subscription: those of the list, if there is one, because one unknown
    /// name makes some venues refuse all that were asked for with it. The others are reported.
    pub(crate) fn natives(
        &self,
        symbols: &[CompactString],
        native: impl Fn(&str) -> CompactString,
        out: &mut Out,
    ) -> Vec<CompactString> {
        if self.is_empty() {
            return symbols.iter().map(|symbol| native(symbol)).collect();
        }
        let mut listed: HashMap<&str, &CompactString> = HashMap::with_capacity(self.by_native.len());
        for (native, (symbol, _)) in &self.by_native {
            // Of two names with one symbol always the same one.
            listed.entry(symbol).and_modify(|first| *first = native.min(first)).or_insert(native);
        }
        let mut found = Vec::with_capacity(symbols.len());
        for symbol in symbols {
            match listed.get(symbol.as_str()) {
                Some(native) => found.push((*native).clone()),
                None => {
                    let detail = "not in the venue's list of instruments".to_owned();
                    out.reports.push(Report { fault: Fault::Refused, native: Some(symbol.to_string()), detail });
                }
            }
        }
        found
    }
}

/// The instruments of one adapter.
#[derive(Debug)]
pub(crate) struct Roster {
    venue: &'static str,
    ways: Ways,
    /// Symbols in normal form; empty for whatever comes.
    wanted: Vec<CompactString>,
    unusable: Vec<String>,
    keepers: Vec<Keeper>,
    by_native: HashMap<CompactString, u32>,
    full: bool,
}

impl Roster {
    pub(crate) fn new(venue: &'static str, ways: Ways, symbols: &[String]) -> Self {
        let mut wanted: Vec<CompactString> = Vec::new();
        let mut unusable = Vec::new();
        for symbol in symbols {
            if !topic::is_symbol(symbol) || wanted.len() >= INSTRUMENTS_MAX {
                unusable.push(symbol.clone());
            } else if !wanted.iter().any(|w| w == symbol) {
                wanted.push(symbol.into());
            }
        }
        Self { venue, ways, wanted, unusable, keepers: Vec::new(), by_native: HashMap::new(), full: false }
    }

    /// The symbols that were asked for, in normal form; empty for whatever comes.
    pub(crate) fn wanted(&self) -> &[CompactString] {
        &self.wanted
    }

    /// Is this symbol, in normal form, one to keep?
    pub(crate) fn wants(&self, symbol: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|w| w == symbol)
    }

    /// Reports, once, the symbols that no venue can have.
    pub(crate) fn report_unusable(&mut self, out: &mut Out) {
        for symbol in self.unusable.drain(..) {
            let detail = "not a symbol, or too many of them".to_owned();
            out.reports.push(Report { fault: Fault::Refused, native: Some(symbol), detail });
        }
    }

    pub(crate) fn by_native(&mut self, native: &str) -> Option<&mut Keeper> {
        let number = *self.by_native.get(native)?;
        self.keepers.get_mut(number as usize)
    }

    /// The instrument of that name, announced now if it is new and wanted.
    pub(crate) fn keep(
        &mut self,
        native: &str,
        describe: impl FnOnce() -> (CompactString, Steps),
        out: &mut Out,
    ) -> Option<&mut Keeper> {
        self.keep_as(native, native, describe, out)
    }

    /// As [`Roster::keep`], at a venue whose names are not unique: `key` is what it is known by here.
    pub(crate) fn keep_as(
        &mut self,
        key: &str,
        native: &str,
        describe: impl FnOnce() -> (CompactString, Steps),
        out: &mut Out,
    ) -> Option<&mut Keeper> {
        if let Some(&number) = self.by_native.get(key) {
            return self.keepers.get_mut(number as usize);
        }
        if self.full {
            return None;
        }
        let (symbol, steps) = describe();
        // Two names of the venue must not share one topic: the first has it.
        let taken = || self.keepers.iter().any(|k| k.instrument().symbol == symbol);
        if !topic::is_symbol(&symbol) || native.len() > 64 || !self.wants(&symbol) || taken() {
            return None;
        }
        if self.keepers.len() >= INSTRUMENTS_MAX {
            self.full = true;
            let detail = format!("more than {INSTRUMENTS_MAX} instruments: the rest is passed over");
            out.reports.push(Report { fault: Fault::Refused, native: Some(native.to_owned()), detail });
            return None;
        }
        let number = u32::try_from(self.keepers.len()).expect("INSTRUMENTS_MAX fits u32");
        let instrument = Instrument {
            venue: self.venue.into(),
            symbol,
            native: native.into(),
            tick_size: steps.tick,
            lot_size: steps.lot,
            channels: vec![Channel::Quote, Channel::Trade, Channel::Book],
        };
        self.by_native.insert(key.into(), number);
        self.keepers.push(Keeper::new(number, instrument, self.ways, out));
        self.keepers.last_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Keeper> {
        self.keepers.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Keeper> {
        self.keepers.iter_mut()
    }

    pub(crate) fn at(&mut self, number: usize) -> Option<&mut Keeper> {
        self.keepers.get_mut(number)
    }

    /// What came by that connection can no longer be trusted.
    pub(crate) fn lost(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        for keeper in self.keepers.iter_mut().filter(|k| k.owner() == Some(conn)) {
            keeper.lost(reason, now, out);
        }
    }

    /// A frame of that connection could not be decoded. Where nothing later would show what it changed, every book that
    /// it may have been of is to be asked for again.
    pub(crate) fn suspect(&mut self, conn: Conn, now: Time, out: &mut Out) {
        for keeper in self.keepers.iter_mut().filter(|k| k.owner() == Some(conn) && k.is_live()) {
            keeper.invalidate(Fault::Undecodable.as_str(), now, out);
            keeper.resync.request(now);
        }
    }

    pub(crate) fn retell(&self, now: Time, out: &mut Out) {
        for keeper in &self.keepers {
            keeper.retell(now, out);
        }
    }

    pub(crate) fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        for keeper in &mut self.keepers {
            keeper.end(reason, now, out);
        }
    }

    /// Asks, by `ask`, for the books that are due. A live one was asked for already, and did not come.
    pub(crate) fn resync_due(&mut self, now: Time, out: &mut Out, mut ask: impl FnMut(Conn, &Keeper, &mut Out)) {
        for keeper in self.keepers.iter_mut().filter(|k| k.resync.is_due(now)) {
            if keeper.is_live() {
                let detail = "the book was asked for again, and did not come".to_owned();
                keeper.fault(Wrong { fault: Fault::Gap, detail }, Stamp::here(now), out);
                if !keeper.resync.is_due(now) {
                    continue;
                }
            }
            keeper.resync.asked(now);
            if let Some(conn) = keeper.owner() {
                ask(conn, keeper, out);
            }
        }
    }

    /// Asks, by `ask`, for the live book whose turn it is, if it is among the `doubtful`: what is shown stays good for the
    /// moment until it comes, but not for longer.
    pub(crate) fn refresh_due(
        &mut self,
        refresh: &mut Refresh,
        now: Time,
        out: &mut Out,
        doubtful: impl FnOnce(&Keeper) -> bool,
        ask: impl FnOnce(Conn, &Keeper, &mut Out),
    ) {
        let Some(keeper) = refresh.take(self.keepers.len(), now).and_then(|turn| self.keepers.get_mut(turn)) else {
            return;
        };
        if let Some(conn) = keeper.owner().filter(|_| keeper.is_live() && doubtful(keeper)) {
            keeper.resync.expect(now.plus_millis(RENEWAL_MAX_MS));
            out.refreshes += 1;
            ask(conn, keeper, out);
        }
    }

    /// Fetches, from `url` of the venue's name, a snapshot of the live book whose turn it is, to hold the two against each
    /// other. Returns that book's number.
    pub(crate) fn audit_due(
        &self,
        refresh: &mut Refresh,
        snapshots: &mut Budget,
        now: Time,
        out: &mut Out,
        url: impl FnOnce(&str) -> String,
    ) -> Option<usize> {
        let keeper = self.keepers.get(refresh.take(self.keepers.len(), now)?).filter(|keeper| keeper.is_live())?;
        if !snapshots.take(now) {
            return None;
        }
        out.refreshes += 1;
        out.commands.push(Command::Fetch(url(&keeper.instrument().native)));
        Some(keeper.number() as usize)
    }

    /// Fetches likewise the snapshots that are due, as far as the venue's limit allows.
    pub(crate) fn fetch_due(&mut self, snapshots: &mut Budget, now: Time, out: &mut Out, url: impl Fn(&str) -> String) {
        for keeper in self.keepers.iter_mut().filter(|k| k.resync.is_due(now)) {
            if !snapshots.take(now) {
                break;
            }
            keeper.resync.asked(now);
            out.commands.push(Command::Fetch(url(&keeper.instrument().native)));
        }
    }

    /// When the next resync of a book is due.
    pub(crate) fn next_resync(&self) -> Option<Time> {
        self.keepers.iter().filter_map(|k| k.resync.at()).min()
    }
}
