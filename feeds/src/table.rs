//! Tables of market data, one row a line: CSV (RFC 4180) and JSON objects (JSONL), with a declared mapping of their
//! columns.
//!
//! ```toml
//! kind = "trade"                # or quote, book
//! venue = "nyse"
//! symbol = "IBM"                # or symbol_column = "sym"
//! time = { column = "ts", unit = "us" }
//! price = "px"
//! size = "qty"
//! side = { column = "aggressor", buy = ["B"], sell = ["S"] }
//! id = "trade_no"
//! ```
//!
//! A quote needs `bid`, `bid_size`, `ask`, `ask_size`; an empty cell is an empty side. A book's row is one level: `side`
//! (whose words name the book's side), `price`, `size` (zero removes), and `snapshot`, a column that is true (`true`,
//! `1`) in the rows of a whole book. Rows of one time are one event. A book that crosses, or that is changed before its
//! snapshot, is not shown until the next one.

mod mapping;
mod row;

use compact_str::{CompactString, ToCompactString};
use ticker_market::book::BookSide;
use ticker_market::{Channel, Decimal, Instrument, Integrity, Level, Levels, Side, Time, Trade};

pub use self::mapping::{Format, Kind, Mapping, MappingError, SideWords, TimeColumn, TimeUnit};

use self::row::Rows;
use crate::archive::{Archive, ArchiveError, Pending, RECORD_BYTES_MAX, passed_over, symbol_of};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::wire::side_of_quote;
use crate::{Conn, Fault, Out, Report};

/// Instruments in one file, at most; rows of others are passed over, and one report says so.
pub const INSTRUMENTS_MAX: usize = 4_096;

/// Why a row tells nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum RowError {
    #[error("no column `{0}`")]
    Missing(String),
    #[error("`{0}` in column `{1}`")]
    Value(String, String),
    #[error("a quote of nothing")]
    Nothing,
    #[error("not a row: {0}")]
    Form(String),
}

/// What a row says, before it is known of whom.
enum Said {
    Trade { price: Decimal, size: Decimal, side: Option<Side>, id: Option<CompactString> },
    Quote { bid: Option<Level>, ask: Option<Level> },
    Level { side: BookSide, level: Level, snapshot: bool },
}

/// One instrument.
#[derive(Debug)]
struct Tracked {
    keeper: Keeper,
    /// Levels of the event that is not over.
    open: Option<(Time, bool, Levels)>,
    /// Rows told as trades, for those that have no id.
    trades: u64,
    last: Time,
}

/// A file of rows.
#[derive(Debug)]
pub struct TableFile {
    mapping: Mapping,
    /// Smallest steps of price and size.
    steps: (Option<Decimal>, Option<Decimal>),
    rows: Rows,
    pending: Pending,
    tracked: Vec<Tracked>,
    /// The instrument whose levels are being gathered.
    gathering: Option<usize>,
    full: bool,
    finished: bool,
}

impl TableFile {
    /// A file with that mapping.
    pub fn new(mapping: Mapping) -> Result<Self, MappingError> {
        mapping.check()?;
        let steps = mapping.steps()?;
        Ok(Self {
            steps,
            rows: Rows::new(&mapping),
            mapping,
            pending: Pending::default(),
            tracked: Vec::new(),
            gathering: None,
            full: false,
            finished: false,
        })
    }

    /// Reads a row, and tells what it says. Returns its time.
    fn row(&mut self, row: &[u8], out: &mut Out) -> Result<Option<Time>, RowError> {
        if !self.rows.read(row)? {
            // The names of the columns, or an empty line.
            return Ok(None);
        }
        let at = self.time()?;
        let native = match (&self.mapping.symbol, &self.mapping.symbol_column) {
            (Some(symbol), _) => symbol.clone(),
            (None, column) => self.rows.cell(column.as_deref().unwrap_or_default())?.to_owned(),
        };
        let said = self.said()?;
        let Some(index) = self.keep(&native, at, out) else { return Ok(Some(at)) };
        if self.gathering.is_some_and(|gathering| gathering != index) {
            self.settle(out);
        }
        let stamp = Stamp { ts: Some(at), recv: at };
        let tracked = &mut self.tracked[index];
        tracked.last = at;
        match said {
            Said::Trade { price, size, side, id } => {
                tracked.trades += 1;
                let trade_id = id.unwrap_or_else(|| tracked.trades.to_compact_string());
                tracked.keeper.new_trade(Trade { price, size, side, trade_id, reference: None }, stamp, out);
            }
            Said::Quote { bid, ask } => tracked.keeper.ticker(bid, ask, stamp, out),
            Said::Level { side, level, snapshot } => {
                if tracked.open.as_ref().is_some_and(|open| (open.0, open.1) != (at, snapshot)) {
                    tracked.settle(out);
                }
                self.gathering = Some(index);
                let open = tracked.open.get_or_insert_with(|| (at, snapshot, Levels::default()));
                match side {
                    BookSide::Bid => open.2.bids.push(level),
                    BookSide::Ask => open.2.asks.push(level),
                }
            }
        }
        Ok(Some(at))
    }

    /// The event whose rows were gathered is over.
    fn settle(&mut self, out: &mut Out) {
        if let Some(tracked) = self.gathering.take().and_then(|index| self.tracked.get_mut(index)) {
            tracked.settle(out);
        }
    }

    fn time(&self) -> Result<Time, RowError> {
        let cell = self.rows.cell(&self.mapping.time.column)?;
        self.mapping.time.unit.read(cell).ok_or_else(|| wrong(cell, &self.mapping.time.column))
    }

    fn said(&self) -> Result<Said, RowError> {
        let mapping = &self.mapping;
        let side = |column: &SideWords| {
            let cell = self.rows.cell(&column.column)?;
            Ok::<_, RowError>(match cell {
                _ if column.buy.iter().any(|word| word == cell) => Some(Side::Buy),
                _ if column.sell.iter().any(|word| word == cell) => Some(Side::Sell),
                _ => None,
            })
        };
        match mapping.kind {
            Kind::Trade => Ok(Said::Trade {
                price: self.number(&mapping.price)?,
                size: self.number(&mapping.size)?,
                side: mapping.side.as_ref().map(side).transpose()?.flatten(),
                id: mapping.id.as_ref().map(|column| self.rows.cell(column)).transpose()?.map(CompactString::from),
            }),
            Kind::Quote => {
                let level =
                    |price, size| Ok(self.maybe(price)?.zip(self.maybe(size)?).and_then(|(p, s)| side_of_quote(p, s)));
                let (bid, ask) = (level(&mapping.bid, &mapping.bid_size)?, level(&mapping.ask, &mapping.ask_size)?);
                if bid.is_none() && ask.is_none() { Err(RowError::Nothing) } else { Ok(Said::Quote { bid, ask }) }
            }
            Kind::Book => {
                let words = mapping.side.as_ref().ok_or_else(|| RowError::Missing("side".to_owned()))?;
                let side = side(words)?
                    .ok_or_else(|| wrong(self.rows.cell(&words.column).unwrap_or_default(), &words.column))?;
                let snapshot = match &mapping.snapshot {
                    Some(column) => matches!(self.rows.cell(column)?, "true" | "True" | "TRUE" | "1"),
                    None => false,
                };
                Ok(Said::Level {
                    side: if side == Side::Buy { BookSide::Bid } else { BookSide::Ask },
                    level: Level { price: self.number(&mapping.price)?, size: self.number(&mapping.size)? },
                    snapshot,
                })
            }
        }
    }

    fn number(&self, column: &Option<String>) -> Result<Decimal, RowError> {
        let name = column.as_deref().unwrap_or_default();
        self.maybe(column)?.ok_or_else(|| wrong("", name))
    }

    /// A number; `None` where the cell is empty.
    fn maybe(&self, column: &Option<String>) -> Result<Option<Decimal>, RowError> {
        let name = column.as_deref().unwrap_or_default();
        let cell = self.rows.cell(name)?;
        if cell.is_empty() {
            return Ok(None);
        }
        ticker_market::decimal::parse(cell).map(Some).ok_or_else(|| wrong(cell, name))
    }

    fn keep(&mut self, native: &str, at: Time, out: &mut Out) -> Option<usize> {
        if let Some(index) = self.tracked.iter().position(|t| t.keeper.instrument().native == native) {
            return Some(index);
        }
        if self.full {
            return None;
        }
        if self.tracked.len() >= INSTRUMENTS_MAX {
            self.full = true;
            let detail = format!("more than {INSTRUMENTS_MAX} instruments: the rest is passed over");
            out.reports.push(Report { fault: Fault::Refused, native: Some(native.to_owned()), detail });
            return None;
        }
        let index = self.tracked.len();
        let instrument = Instrument {
            venue: self.mapping.venue.as_str().into(),
            symbol: symbol_of(native.as_bytes())?,
            native: native.into(),
            tick_size: self.steps.0,
            lot_size: self.steps.1,
            channels: match self.mapping.kind {
                Kind::Trade => vec![Channel::Trade],
                Kind::Quote => vec![Channel::Quote],
                Kind::Book => vec![Channel::Quote, Channel::Book],
            },
        };
        // Nothing in a table says whether a row is missing.
        let ways = Ways { integrity: Integrity::Ordered, quotes: QuoteSource::Ticker };
        let mut keeper = Keeper::new(u32::try_from(index).ok()?, instrument, ways, out);
        if self.mapping.kind != Kind::Book {
            keeper.without_book();
        }
        keeper.heard(Conn(0), at, out);
        self.tracked.push(Tracked { keeper, open: None, trades: 0, last: at });
        Some(index)
    }
}

impl Tracked {
    fn settle(&mut self, out: &mut Out) {
        let Some((at, snapshot, levels)) = self.open.take() else { return };
        let stamp = Stamp { ts: Some(at), recv: at };
        if snapshot {
            self.keeper.snapshot(Conn(0), levels, |_| Ok(()), stamp, out);
        } else if self.keeper.is_live() {
            self.keeper.update(&levels, |_| Ok(()), stamp, out);
        } else if !self.keeper.resync.is_asked() {
            // Told once, not with each row.
            self.keeper.resync.asked(at);
            let detail = "levels before a snapshot".to_owned();
            self.keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out);
            self.keeper.resync.asked(at);
        }
    }
}

fn wrong(cell: &str, column: &str) -> RowError {
    RowError::Value(cell.chars().take(64).collect(), column.to_owned())
}

impl Archive for TableFile {
    fn venue(&self) -> &str {
        &self.mapping.venue
    }

    fn push(&mut self, bytes: &[u8]) {
        self.pending.push(bytes);
    }

    fn next(&mut self, out: &mut Out) -> Result<Option<Time>, ArchiveError> {
        loop {
            let (rest, at) = (self.pending.rest(), self.pending.at());
            let length = match self.rows.length(rest) {
                Some(length) => length,
                None if rest.len() > RECORD_BYTES_MAX => {
                    let why = format!("a row of more than {RECORD_BYTES_MAX} bytes");
                    return Err(ArchiveError::Format { at, why });
                }
                None if self.finished && !rest.is_empty() => rest.len(),
                None => {
                    if self.finished {
                        self.settle(out);
                    }
                    return Ok(None);
                }
            };
            let row = rest[..length].to_vec();
            self.pending.take(length);
            match self.row(&row, out) {
                Ok(Some(time)) => return Ok(Some(time)),
                Ok(None) => {}
                // Without the names of its columns nothing of a file can be read.
                Err(why) if !self.rows.is_named() => return Err(ArchiveError::Format { at, why: why.to_string() }),
                Err(why) => passed_over(at, &why, out),
            }
        }
    }

    /// After this, `next` tells the last row, and the last event of a book.
    fn finish(&mut self) -> Result<(), ArchiveError> {
        self.finished = true;
        Ok(())
    }

    fn retell(&self, now: Time, out: &mut Out) {
        for tracked in &self.tracked {
            tracked.keeper.retell(now, out);
        }
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.settle(out);
        for tracked in &mut self.tracked {
            tracked.keeper.end(reason, now, out);
        }
    }
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
