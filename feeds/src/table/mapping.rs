//! What the columns of a table mean.

use serde::Deserialize;
use ticker_market::{Decimal, Time, decimal, topic};

/// Why a mapping cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MappingError {
    /// The kind of row needs this column.
    #[error("`{0}` is missing: {1} rows need it")]
    Missing(&'static str, &'static str),
    /// Either is needed.
    #[error("either `symbol` or `symbol_column`")]
    Symbol,
    /// Not a venue's name in topics.
    #[error("`{0}` is not a venue: 1 to 32 of a-z0-9-")]
    Venue(String),
    /// Not a number.
    #[error("`{0}` is not a number")]
    Number(String),
    /// Not one byte of ASCII, or one that numbers or quoting need.
    #[error("`{0}` cannot be a delimiter")]
    Delimiter(char),
}

/// What the columns of a table mean. Read from TOML.
#[derive(Clone, PartialEq, Eq, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// What a row is.
    pub kind: Kind,
    /// How rows are written.
    #[serde(default)]
    pub format: Format,
    /// The venue's name in topics.
    pub venue: String,
    /// The instrument of every row.
    #[serde(default)]
    pub symbol: Option<String>,
    /// The column that names a row's instrument.
    #[serde(default)]
    pub symbol_column: Option<String>,
    /// The names of a CSV file's columns, where its first row does not say them.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// Between the cells of a CSV file.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// When it happened.
    pub time: TimeColumn,
    /// Price of a trade or level.
    #[serde(default)]
    pub price: Option<String>,
    /// Size of a trade or level.
    #[serde(default)]
    pub size: Option<String>,
    /// The taker's side of a trade; the side of a level.
    #[serde(default)]
    pub side: Option<SideWords>,
    /// A trade's id; without it, trades are counted.
    #[serde(default)]
    pub id: Option<String>,
    /// Best bid.
    #[serde(default)]
    pub bid: Option<String>,
    /// Its size.
    #[serde(default)]
    pub bid_size: Option<String>,
    /// Best ask.
    #[serde(default)]
    pub ask: Option<String>,
    /// Its size.
    #[serde(default)]
    pub ask_size: Option<String>,
    /// Is the row part of a whole book?
    #[serde(default)]
    pub snapshot: Option<String>,
    /// Smallest step of the price, as text.
    #[serde(default)]
    pub tick_size: Option<String>,
    /// Smallest step of the size, as text.
    #[serde(default)]
    pub lot_size: Option<String>,
}

fn comma() -> char {
    ','
}

/// What a row is.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A trade.
    Trade,
    /// The best prices.
    Quote,
    /// A level of a book.
    Book,
}

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// RFC 4180, with any delimiter. The first row names the columns.
    #[default]
    Csv,
    /// A JSON object a line.
    Jsonl,
}

/// A column of times.
#[derive(Clone, PartialEq, Eq, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct TimeColumn {
    /// The column.
    pub column: String,
    /// What its numbers count.
    pub unit: TimeUnit,
}

/// What times count, since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Seconds; a fraction is read exactly.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
    /// Text (`2026-01-05T10:00:00.123Z`).
    Rfc3339,
}

impl TimeUnit {
    /// A time, rounded down to nanoseconds.
    pub(super) fn read(self, cell: &str) -> Option<Time> {
        let nanos: i64 = match self {
            TimeUnit::S => 1_000_000_000,
            TimeUnit::Ms => 1_000_000,
            TimeUnit::Us => 1_000,
            TimeUnit::Ns => 1,
            TimeUnit::Rfc3339 => return Time::parse_rfc3339(cell),
        };
        let count = decimal::parse(cell)?.checked_mul(nanos.into())?;
        i64::try_from(count.floor()).ok().map(Time)
    }
}

/// A column of sides.
#[derive(Clone, PartialEq, Eq, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SideWords {
    /// The column.
    pub column: String,
    /// The words for buy, or the book's bids.
    pub buy: Vec<String>,
    /// The words for sell, or the book's asks.
    pub sell: Vec<String>,
}

impl Mapping {
    /// Smallest steps of price and size.
    pub(super) fn steps(&self) -> Result<(Option<Decimal>, Option<Decimal>), MappingError> {
        let step = |text: &Option<String>| match text {
            Some(text) => decimal::parse(text).map(Some).ok_or_else(|| MappingError::Number(text.clone())),
            None => Ok(None),
        };
        Ok((step(&self.tick_size)?, step(&self.lot_size)?))
    }

    /// Is everything there that its kind of row needs?
    pub(super) fn check(&self) -> Result<(), MappingError> {
        if !topic::is_venue(&self.venue) {
            return Err(MappingError::Venue(self.venue.chars().take(64).collect()));
        }
        if self.symbol.is_some() == self.symbol_column.is_some() {
            return Err(MappingError::Symbol);
        }
        let usable = self.delimiter.is_ascii() && !self.delimiter.is_ascii_alphanumeric();
        if !usable || "\"\r\n.-".contains(self.delimiter) {
            return Err(MappingError::Delimiter(self.delimiter));
        }
        let (kind, needed) = match self.kind {
            Kind::Trade => ("trade", vec![("price", self.price.is_some()), ("size", self.size.is_some())]),
            Kind::Quote => (
                "quote",
                vec![
                    ("bid", self.bid.is_some()),
                    ("bid_size", self.bid_size.is_some()),
                    ("ask", self.ask.is_some()),
                    ("ask_size", self.ask_size.is_some()),
                ],
            ),
            Kind::Book => (
                "book",
                vec![
                    ("price", self.price.is_some()),
                    ("size", self.size.is_some()),
                    ("side", self.side.is_some()),
                    ("snapshot", self.snapshot.is_some()),
                ],
            ),
        };
        match needed.into_iter().find(|(_, there)| !there) {
            Some((column, _)) => Err(MappingError::Missing(column, kind)),
            None => Ok(()),
        }
    }
}
