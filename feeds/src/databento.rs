//! Databento's files, DBN versions 1 to 3 (databento.com/docs/standards-and-conventions/databento-binary-encoding, and
//! …/schemas-and-data-formats/mbo for what the actions do to a book).
//!
//! - `mbo`: books built order by order. An event of the venue is several records; books are told at its end (`F_LAST`),
//!   because in between an order and what it trades against stand in the book together. Nothing is shown before a book
//!   is complete: it begins with a clear (`R`), and perhaps a snapshot. A file that begins without one is told with
//!   integrity `none`.
//! - `mbp-10`: books of ten levels, quotes and trades.
//! - `mbp-1`, `tbbo`, `bbo-*`, `cmbp-1`, `cbbo-*`: the best prices as quotes; the first two trades too.
//! - `trades`: trades. `status`: halts. `definition`: tick and lot sizes.
//! - Everything else is passed over.
//!
//! What proves a book is Databento's own watch over the venue's sequence: after a hole it sets `F_MAYBE_BAD_BOOK`, and
//! the book is not shown before the next clear.
//!
//! A crossed book is no fault before the open, when orders are collected for the auction. Where no status record says
//! whether there is trading, the first trade does.

mod instrument;

use dbn::decode::dbn::fsm::{DbnFsm, ProcessResult};
use dbn::{
    BboMsg, CbboMsg, Cmbp1Msg, HasRType, InstrumentDefMsg, MboMsg, Mbp1Msg, Mbp10Msg, Metadata, Record, RecordRef,
    Schema, StatusMsg, TradeMsg, TsSymbolMap, VersionUpgradePolicy,
};
use hashbrown::HashMap;
use ticker_market::{Channel, Time};

use self::instrument::{BestPair, Order, Tracked, Traded};
use crate::archive::{Archive, ArchiveError, symbol_of};
use crate::keeper::Stamp;
use crate::{Fault, Out, Report};

/// Instruments in one file, at most; records of others are passed over, and one report says so.
pub const INSTRUMENTS_MAX: usize = 20_000;

/// Bytes of a file's metadata, at most: a day of all options' names has some 40 million.
pub const METADATA_BYTES_MAX: usize = 256 << 20;

/// What was counted. None of it is told one by one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Records decoded.
    pub records: u64,
    /// Records that named an order from before the start.
    pub unknown_orders: u64,
    /// Records of a kind that tells nothing here, such as bars and statistics.
    pub passed_over: u64,
}

/// A DBN file, decompressed.
#[derive(Debug)]
pub struct DbnFile {
    fsm: DbnFsm,
    state: State,
    /// Bytes pushed so far.
    pushed: u64,
    failed: bool,
}

/// Everything but the bytes.
#[derive(Default)]
struct State {
    venue: String,
    schema: Option<Schema>,
    symbols: Option<TsSymbolMap>,
    tracked: Vec<Tracked>,
    /// By publisher and instrument id.
    numbers: HashMap<(u16, u32), u32>,
    full: bool,
    counts: Counts,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("venue", &self.venue).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl DbnFile {
    /// A file from its beginning.
    pub fn new() -> Self {
        let fsm = DbnFsm::builder().upgrade_policy(VersionUpgradePolicy::AsIs).build();
        Self {
            fsm: fsm.expect("the policy is one that this state machine has"),
            state: State { venue: "databento".to_owned(), ..State::default() },
            pushed: 0,
            failed: false,
        }
    }

    /// A part of a file that has no metadata, of that DBN version. Its instruments have no names but their numbers.
    pub fn fragment(version: u8) -> Result<Self, ArchiveError> {
        let builder = DbnFsm::builder().upgrade_policy(VersionUpgradePolicy::AsIs).skip_metadata(true);
        let fsm = builder.input_dbn_version(Some(version)).and_then(|b| b.build());
        let fsm = fsm.map_err(|error| ArchiveError::Format { at: 0, why: error.to_string() })?;
        Ok(Self { fsm, ..Self::new() })
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.state.counts
    }

    fn at(&self) -> u64 {
        self.pushed - self.fsm.data().len() as u64
    }
}

impl Default for DbnFile {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive for DbnFile {
    fn venue(&self) -> &str {
        &self.state.venue
    }

    fn push(&mut self, bytes: &[u8]) {
        if !self.failed {
            self.pushed += bytes.len() as u64;
            self.fsm.write_all(bytes);
        }
    }

    fn next(&mut self, out: &mut Out) -> Result<Option<Time>, ArchiveError> {
        let failed = |at, why| Err(ArchiveError::Format { at, why });
        loop {
            if self.failed {
                return failed(self.pushed, "it could not be read further before".to_owned());
            }
            match self.fsm.process() {
                ProcessResult::ReadMore(bytes) if bytes > METADATA_BYTES_MAX => {
                    self.failed = true;
                    return failed(self.at(), format!("metadata of more than {METADATA_BYTES_MAX} bytes"));
                }
                ProcessResult::ReadMore(_) => return Ok(None),
                ProcessResult::Metadata(metadata) => self.state.metadata(&metadata, out),
                ProcessResult::Record(()) => {
                    // Records are read where they lie. Those of a good file all have lengths of a multiple of eight.
                    if self.fsm.data().as_ptr().align_offset(RECORD_ALIGNMENT) != 0 {
                        self.failed = true;
                        return failed(self.at(), format!("a record at no multiple of {RECORD_ALIGNMENT} bytes"));
                    }
                    let Some(record) = self.fsm.last_record() else { continue };
                    return Ok(self.state.record(record, out));
                }
                ProcessResult::Err(error) => {
                    self.failed = true;
                    return failed(self.at(), error.to_string());
                }
            }
        }
    }

    fn finish(&mut self) -> Result<(), ArchiveError> {
        match self.fsm.data().len() {
            0 => Ok(()),
            left => Err(ArchiveError::Cut(left)),
        }
    }

    fn retell(&self, now: Time, out: &mut Out) {
        for tracked in &self.state.tracked {
            tracked.retell(now, out);
        }
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        for tracked in &mut self.state.tracked {
            tracked.end(reason, now, out);
        }
    }
}

/// Of the layouts that records are read by, in bytes.
const RECORD_ALIGNMENT: usize = 8;

impl State {
    fn metadata(&mut self, metadata: &Metadata, out: &mut Out) {
        // `GLBX.MDP3` is `glbx-mdp3` in topics.
        let venue: String = metadata
            .dataset
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(32)
            .collect();
        if !venue.is_empty() {
            self.venue = venue;
        }
        self.schema = metadata.schema;
        match TsSymbolMap::from_metadata(metadata) {
            Ok(symbols) => self.symbols = Some(symbols),
            Err(error) => {
                let detail = format!("the instruments' names could not be read: {error}");
                out.reports.push(Report { fault: Fault::Undecodable, native: None, detail });
            }
        }
    }

    /// Takes a record. Returns when it was received, or, where that is not told, when it happened; nothing for one that
    /// is shorter than its kind.
    fn record(&mut self, record: RecordRef<'_>, out: &mut Out) -> Option<Time> {
        self.counts.records += 1;
        let header = record.header();
        let event = time(header.ts_event);
        let stamp = |ts_recv: u64| Stamp { ts: event, recv: time(ts_recv).or(event).unwrap_or(Time(0)) };
        let key = (header.publisher_id, header.instrument_id);
        if let Some(m) = get::<MboMsg>(record) {
            let stamp = stamp(m.ts_recv);
            let order = Order {
                id: m.order_id,
                action: m.action as u8,
                side: m.side as u8,
                price: m.price,
                size: m.size,
                flags: m.flags.raw(),
                sequence: m.sequence,
            };
            if let Some(tracked) = self.keep(key, m.ts_recv, out) {
                let unknown = tracked.order(order, stamp, out);
                self.counts.unknown_orders += unknown;
            }
            return Some(stamp.recv);
        }
        if let Some(m) = get::<TradeMsg>(record) {
            let trade = Traded { price: m.price, size: m.size, side: m.side as u8, sequence: m.sequence };
            let stamp = stamp(m.ts_recv);
            if let Some(tracked) = self.keep(key, m.ts_recv, out) {
                tracked.trade(trade, stamp, out);
            }
            return Some(stamp.recv);
        }
        if let Some(m) = get::<Mbp1Msg>(record) {
            let trade = Traded { price: m.price, size: m.size, side: m.side as u8, sequence: m.sequence };
            let stamp = stamp(m.ts_recv);
            let trade = (m.action as u8 == b'T').then_some(trade);
            self.best(key, m.ts_recv, BestPair::of(&m.levels[0]), trade, stamp, out);
            return Some(stamp.recv);
        }
        if let Some(m) = get::<Mbp10Msg>(record) {
            let trade = Traded { price: m.price, size: m.size, side: m.side as u8, sequence: m.sequence };
            let stamp = stamp(m.ts_recv);
            if let Some(tracked) = self.keep(key, m.ts_recv, out) {
                if m.action as u8 == b'T' {
                    tracked.trade(trade, stamp, out);
                }
                tracked.levels(&m.levels, m.flags.raw(), stamp, out);
            }
            return Some(stamp.recv);
        }
        // A sample's price and size are those of the last trade of its interval, not of every one.
        if let Some(m) = get::<BboMsg>(record) {
            let stamp = stamp(m.ts_recv);
            self.best(key, m.ts_recv, BestPair::of(&m.levels[0]), None, stamp, out);
            return Some(stamp.recv);
        }
        if let Some(m) = get::<Cmbp1Msg>(record) {
            let stamp = stamp(m.ts_recv);
            self.best(key, m.ts_recv, BestPair::consolidated(&m.levels[0]), None, stamp, out);
            return Some(stamp.recv);
        }
        if let Some(m) = get::<CbboMsg>(record) {
            let stamp = stamp(m.ts_recv);
            self.best(key, m.ts_recv, BestPair::consolidated(&m.levels[0]), None, stamp, out);
            return Some(stamp.recv);
        }
        if let Some(m) = get::<StatusMsg>(record) {
            let stamp = stamp(m.ts_recv);
            if let Some(tracked) = self.keep(key, m.ts_recv, out) {
                tracked.status(m.action, m.is_trading as u8, stamp, out);
            }
            return Some(stamp.recv);
        }
        if record.record_size() == size_of::<InstrumentDefMsg>()
            && let Some(m) = get::<InstrumentDefMsg>(record)
        {
            // Only of what has other data: a definition alone tells no event.
            if let Some(number) = self.numbers.get(&key) {
                self.tracked[*number as usize].define(m.min_price_increment, m.min_lot_size, out);
            }
            return Some(stamp(m.ts_recv).recv);
        }
        self.counts.passed_over += 1;
        Some(stamp(u64::MAX).recv)
    }

    fn best(&mut self, key: (u16, u32), at: u64, best: BestPair, trade: Option<Traded>, stamp: Stamp, out: &mut Out) {
        let Some(tracked) = self.keep(key, at, out) else { return };
        if let Some(trade) = trade {
            tracked.trade(trade, stamp, out);
        }
        tracked.best(best, stamp, out);
    }

    /// The instrument of a record, announced now if it is new.
    fn keep(&mut self, key: (u16, u32), at: u64, out: &mut Out) -> Option<&mut Tracked> {
        if let Some(&number) = self.numbers.get(&key) {
            return self.tracked.get_mut(number as usize);
        }
        if self.full {
            return None;
        }
        if self.tracked.len() >= INSTRUMENTS_MAX {
            self.full = true;
            let detail = format!("more than {INSTRUMENTS_MAX} instruments: the rest is passed over");
            out.reports.push(Report { fault: Fault::Refused, native: None, detail });
            return None;
        }
        let (publisher, id) = key;
        let native =
            self.symbols.as_ref().and_then(|s| s.get_for_ts(at, id)).cloned().unwrap_or_else(|| id.to_string());
        let mut symbol = symbol_of(native.as_bytes())?;
        // Several venues of one dataset, or one name for two numbers (a rolled contract): the first has the name alone.
        for extra in [format!(".{publisher}"), format!(".{id}")] {
            if self.tracked.iter().any(|t| t.symbol() == symbol) {
                symbol = symbol_of(format!("{native}{extra}").as_bytes())?;
            }
        }
        let channels = match self.schema {
            None | Some(Schema::Mbo | Schema::Mbp10) => vec![Channel::Quote, Channel::Trade, Channel::Book],
            Some(Schema::Trades) => vec![Channel::Trade],
            Some(Schema::Mbp1 | Schema::Tbbo) => vec![Channel::Quote, Channel::Trade],
            Some(Schema::Status) => vec![],
            Some(_) => vec![Channel::Quote],
        };
        let number = u32::try_from(self.tracked.len()).expect("INSTRUMENTS_MAX fits u32");
        self.numbers.insert(key, number);
        self.tracked.push(Tracked::new(number, &self.venue, symbol, &native, channels, out));
        self.tracked.last_mut()
    }
}

/// The record as one of that kind; none where it says that it is shorter.
/// The kinds asked for are laid out alike in all versions but for definitions, of which only the newest form is read.
fn get<T: HasRType<Header = dbn::RecordHeader>>(record: RecordRef<'_>) -> Option<&T> {
    // Not `try_get`, which writes an error's text for every record of another kind; and `get` alone panics at a short one.
    if record.has::<T>() && record.record_size() >= size_of::<T>() { record.get::<T>() } else { None }
}

fn time(nanos: u64) -> Option<Time> {
    // Undefined is the greatest number.
    i64::try_from(nanos).ok().map(Time)
}

#[cfg(test)]
#[path = "databento/tests.rs"]
mod tests;
