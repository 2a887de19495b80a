//! Venue adapters without I/O: a venue's bytes in, market events out.
//!
//! An [`Adapter`] is a state machine for one venue. Whoever owns the sockets (the ingest service, a replay, a test, a
//! fuzzer) tells it what happened ([`Adapter::opened`], [`Adapter::frame`], [`Adapter::response`], …) and does what it
//! asks for in [`Out`]. Time is an argument everywhere, so a recording decodes the same today as on the day it was made.
//!
//! Layout: one file a venue ([`binance`], [`bitfinex`], [`bitget`], [`bitmex`], [`bitstamp`], [`bybit`], [`coinbase`],
//! [`coinbase_exchange`], [`deribit`], [`gateio`], [`gemini`], [`kraken`], [`kucoin`], [`okx`]; their wire forms beside
//! them); [`synthetic`], a simulated market; [`recording`], the format of raw recordings; [`stand_in`], a venue's side of its
//! protocol; [`keeper`], what every adapter keeps of an instrument: its book, the quote that follows from it, its status; [`depth`], differences and the snapshot
//! that they continue; [`resync`], when to ask for a book again; `scan`, the quick way through the frames that come most; [`trades`], which trades were seen; [`symbols`], names
//! that need splitting; [`split`], several markets in one recording.
//!
//! Beside adapters there are [`archive`]s: files that hold market data by themselves ([`itch`], whose packets are read
//! too; [`databento`]; [`table`], CSV and JSONL). Their books are built [order by order](by_order).
//!
//! Deliberately absent: sockets, files, clocks, threads, JSON for users. Prices never pass through a float.

pub mod archive;
mod audit;
pub mod binance;
pub mod bitfinex;
pub mod bitget;
pub mod bitmex;
pub mod bitstamp;
pub mod by_order;
pub mod bybit;
pub mod coinbase;
pub mod coinbase_exchange;
pub mod databento;
pub mod depth;
pub mod deribit;
pub mod gateio;
pub mod gemini;
pub mod itch;
pub mod keeper;
pub mod kraken;
pub mod kucoin;
pub mod okx;
#[cfg(test)]
mod passed_over_tests;
pub mod recording;
mod rest_books;
pub mod resync;
#[cfg(test)]
mod rig;
mod roster;
mod scan;
mod sequence;
pub mod split;
pub mod stand_in;
pub mod symbols;
pub mod synthetic;
pub mod table;
pub mod trades;
mod wire;
mod written;

pub use roster::{INSTRUMENTS_MAX, LISTED_MAX};

use std::time::Duration;

use compact_str::CompactString;
use hashbrown::HashSet;
use ticker_market::{Channel, Data, Instrument, Kind, Level, Levels, Time, Trade};

/// Names a connection among those that an adapter was told of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Conn(pub u32);

/// Something that happened, before it has a place on the tape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// The instrument's number in this adapter, as [`Out::instruments`] gave it before.
    pub instrument: u32,
    /// The channel.
    pub channel: Channel,
    /// What it does to what a reader holds.
    pub kind: Kind,
    /// The venue's time; `None` where it gives none.
    pub ts: Option<Time>,
    /// When the frame that caused it was received.
    pub recv: Time,
    /// What it carries. Books come without `crc` and `sum`: the fanout computes both.
    pub data: Data,
}

/// Something that an adapter wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Send this text on that connection.
    Send(Conn, String),
    /// Fetch this URL by GET, and give the body to [`Adapter::response`], or the failure to [`Adapter::failed`].
    Fetch(String),
    /// Close that connection and open a new one: it cannot be mended otherwise.
    Reconnect(Conn, &'static str),
}

/// Why something was wrong: the label `cause` of the metrics that count it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// A frame that could not be decoded.
    Undecodable,
    /// A hole in the venue's sequence.
    Gap,
    /// A checksum that did not match.
    Checksum,
    /// A crossed book.
    Crossed,
    /// A book that another word of the venue contradicts: a snapshot of it, or the best prices of the same moment.
    Mismatch,
    /// The venue answered a request with an error.
    Refused,
}

impl Fault {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::Undecodable => "undecodable",
            Fault::Gap => "gap",
            Fault::Checksum => "checksum",
            Fault::Crossed => "crossed",
            Fault::Mismatch => "mismatch",
            Fault::Refused => "refused",
        }
    }
}

/// A fault, told to the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// What kind.
    pub fault: Fault,
    /// The venue's own name of the instrument, if it concerns one.
    pub native: Option<String>,
    /// What happened, what was expected; for a frame that could not be decoded, its first [`REPORT_BYTES`] bytes.
    pub detail: String,
}

/// How much of a frame that could not be decoded is told to the log.
pub const REPORT_BYTES: usize = 200;

/// What came out of an adapter. One is used again and again, so that its vectors keep their capacity.
#[derive(Default, Debug)]
pub struct Out {
    /// Instruments, to be known before the updates that name their numbers. One that comes again with the same number
    /// replaces what was said of it: its tick or lot size became known.
    pub instruments: Vec<(u32, Instrument)>,
    /// Events, in order.
    pub updates: Vec<Update>,
    /// What is to be done.
    pub commands: Vec<Command>,
    /// What was wrong.
    pub reports: Vec<Report>,
    /// Books that were asked for again although nothing is known to be wrong with them ([`resync::Refresh`]).
    pub refreshes: u32,
    /// The kinds of frames that nothing was made of, one for each: a channel or an event that is unknown, or not read. At
    /// most [`KIND_BYTES_MAX`] letters, digits and `._-` each.
    pub passed_over: Vec<CompactString>,
    /// Empty vectors, for the levels of books that change: [`Out::recycle`] brings them back.
    pub spares: Vec<Vec<Level>>,
    /// Empty text with room, for ids of trades that are too long to be without: [`Out::take_back`] brings it back.
    pub spare_ids: Vec<CompactString>,
}

/// Vectors of levels that [`Out`] keeps, at most, and as many ids.
pub const SPARES_MAX: usize = 64;

/// A vector with room for more levels than this is not kept: only snapshots are so large.
pub const SPARE_LEVELS_MAX: usize = 4_096;

/// How much is told of the kind of a frame that nothing was made of.
pub const KIND_BYTES_MAX: usize = 24;

impl Out {
    /// Nothing is made of a frame, whose kind the venue calls so.
    pub(crate) fn pass_over(&mut self, kind: &str) {
        let plain = |c: u8| if c.is_ascii_alphanumeric() || b"._-".contains(&c) { char::from(c) } else { '_' };
        self.passed_over.push(kind.bytes().take(KIND_BYTES_MAX).map(plain).collect());
    }

    /// Forgets everything, and keeps the capacity.
    pub fn clear(&mut self) {
        self.instruments.clear();
        self.commands.clear();
        self.reports.clear();
        self.passed_over.clear();
        self.refreshes = 0;
        while let Some(update) = self.updates.pop() {
            self.take_back(update.data);
        }
    }

    /// Takes what was told, and is needed no more, for the memory that is in it.
    pub fn take_back(&mut self, data: Data) {
        match data {
            Data::Book(levels) => self.recycle(levels),
            Data::Trade(Trade { trade_id: mut id, .. })
                if id.is_heap_allocated() && self.spare_ids.len() < SPARES_MAX =>
            {
                id.clear();
                self.spare_ids.push(id);
            }
            _ => {}
        }
    }

    /// Takes the vectors of levels that are needed no more, so that the next change of a book allocates nothing.
    pub fn recycle(&mut self, levels: Levels) {
        for mut list in [levels.bids, levels.asks] {
            if self.spares.len() < SPARES_MAX && (1..=SPARE_LEVELS_MAX).contains(&list.capacity()) {
                list.clear();
                self.spares.push(list);
            }
        }
    }

    /// The id of a trade, in memory that is there if it is a long one.
    pub(crate) fn id(&mut self, text: &str) -> CompactString {
        if text.len() <= size_of::<CompactString>() {
            return CompactString::from(text);
        }
        let mut id = self.spare_ids.pop().unwrap_or_default();
        id.push_str(text);
        id
    }

    /// An empty vector, with some capacity if there is one.
    pub(crate) fn spare(&mut self) -> Vec<Level> {
        self.spares.pop().unwrap_or_default()
    }
}

/// What the owner of the sockets must know of a venue.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The venue's name in topics.
    pub venue: &'static str,
    /// Where the WebSocket is. May carry the subscription in its path.
    pub websocket_url: String,
    /// Where instruments are listed, fetched before the first connection and given to [`Adapter::response`].
    pub instruments_url: Option<String>,
    /// After so long without any frame the connection counts as mute: stale, and it is made anew.
    pub silence_max: Duration,
    /// Text to send when nothing was sent for `ping_every`; `None` where WebSocket pings are enough.
    pub ping_text: Option<&'static str>,
    /// How often to ping.
    pub ping_every: Duration,
    /// The venue cuts connections at this age: one is replaced before.
    pub age_max: Option<Duration>,
    /// At most so many messages a second from us.
    pub sends_per_second_max: u32,
    /// Where a ticket for a connection is had: by a POST without a body, before each connection. The answer is given to
    /// [`Adapter::response`]; after that `websocket_url` has it in it.
    pub ticket_url: Option<&'static str>,
    /// Symbols on one connection, at most. For more there are several adapters ([`adapters`]).
    pub symbols_max: Option<usize>,
}

/// One venue's decoder: a state machine without I/O.
pub trait Adapter: Send {
    /// What the owner of the sockets must know.
    fn rules(&self) -> Rules;

    /// So many adapters, from 1, share what the venue allows one address.
    fn share(&mut self, _adapters: usize) {}

    /// A connection is open: subscribes on it.
    fn opened(&mut self, conn: Conn, url: &str, now: Time, out: &mut Out);

    /// A text or binary frame came.
    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out);

    /// The answer to a [`Command::Fetch`], or to the instruments' URL, came.
    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out);

    /// A [`Command::Fetch`] failed. It is asked for again, not before [`Adapter::timer`]'s time.
    fn failed(&mut self, url: &str, now: Time, out: &mut Out);

    /// A connection is gone: what came by it can no longer be trusted. `reason` is a short stable word.
    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out);

    /// The owner found a connection mute for [`Rules::silence_max`]: its instruments are stale, and the adapter asks for
    /// [`Command::Reconnect`].
    fn silent(&mut self, conn: Conn, now: Time, out: &mut Out) {
        self.closed(conn, "silent", now, out);
        out.commands.push(Command::Reconnect(conn, "silent"));
    }

    /// When [`Adapter::timer`] wants to be called next.
    fn next_timer(&self) -> Option<Time>;

    /// It is `now`: resyncs that waited for their turn are asked for.
    fn timer(&mut self, now: Time, out: &mut Out);

    /// Tells everything again, as a receiver needs it who knows nothing (a fanout that was restarted): every instrument,
    /// and for each its status, its quote and a snapshot of its book (or `invalid`, while the book is not good).
    fn retell(&self, now: Time, out: &mut Out);

    /// No more will come (the end of a recording): every instrument is closed for `reason`.
    fn end(&mut self, reason: &str, now: Time, out: &mut Out);
}

/// An adapter for the venue of that name (as in topics, or as recordings name it: `kraken-v2`), for these symbols in
/// normal form. An empty list means whatever comes: for replays, which subscribe to nothing.
pub fn adapter(venue: &str, symbols: &[String]) -> Option<Box<dyn Adapter>> {
    match venue {
        "coinbase" | "coinbase-advanced" => Some(Box::new(coinbase::Coinbase::new(symbols))),
        "coinbase-exchange" => Some(Box::new(coinbase_exchange::CoinbaseExchange::new(symbols))),
        "gemini" => Some(Box::new(gemini::Gemini::new(symbols))),
        "kraken" | "kraken-v2" => Some(Box::new(kraken::Kraken::new(symbols))),
        "binance" | "binance-spot" => Some(Box::new(binance::Binance::new(symbols))),
        "binance-usdm" => Some(Box::new(binance::Binance::of(binance::Market::UsdM, symbols))),
        "binance-coinm" => Some(Box::new(binance::Binance::of(binance::Market::CoinM, symbols))),
        "bitfinex" => Some(Box::new(bitfinex::Bitfinex::new(symbols))),
        "bitget" | "bitget-v1" => Some(Box::new(bitget::Bitget::new(symbols))),
        "bitstamp" => Some(Box::new(bitstamp::Bitstamp::new(symbols))),
        "bybit" | "bybit-v5" => Some(Box::new(bybit::all())),
        "bybit-spot" => Some(Box::new(bybit::Bybit::new(bybit::Category::Spot, symbols))),
        "bybit-linear" => Some(Box::new(bybit::Bybit::new(bybit::Category::Linear, symbols))),
        "bybit-inverse" => Some(Box::new(bybit::Bybit::new(bybit::Category::Inverse, symbols))),
        "okx" => Some(Box::new(okx::Okx::new(symbols))),
        "bitmex" => Some(Box::new(bitmex::Bitmex::new(symbols))),
        "deribit" => Some(Box::new(deribit::Deribit::new(symbols))),
        "gateio" => Some(Box::new(gateio::Gateio::new(symbols))),
        "kucoin" => Some(Box::new(kucoin::Kucoin::new(symbols))),
        _ => None,
    }
}

/// As [`adapter`], for symbols that may be more than one connection bears ([`Rules::symbols_max`], or fewer where `most`
/// says so): as many adapters as that takes, each for a connection of its own.
pub fn adapters(venue: &str, symbols: &[String], most: Option<usize>) -> Option<Vec<Box<dyn Adapter>>> {
    let whole = adapter(venue, symbols)?;
    let mut seen = HashSet::new();
    let symbols: Vec<String> = symbols.iter().filter(|symbol| seen.insert(symbol.as_str())).cloned().collect();
    let most = whole.rules().symbols_max.into_iter().chain(most).min().unwrap_or(usize::MAX).max(1);
    if symbols.len() <= most {
        return Some(vec![whole]);
    }
    let mut parts = symbols.chunks(most).map(|part| adapter(venue, part)).collect::<Option<Vec<_>>>()?;
    let count = parts.len();
    parts.iter_mut().for_each(|part| part.share(count));
    Some(parts)
}

/// The venues that [`adapter`] knows, by their names in topics.
pub const VENUES: &[&str] = &[
    "binance",
    "binance-coinm",
    "binance-usdm",
    "bitfinex",
    "bitget",
    "bitmex",
    "bitstamp",
    "bybit-inverse",
    "bybit-linear",
    "bybit-spot",
    "coinbase",
    "coinbase-exchange",
    "deribit",
    "gateio",
    "gemini",
    "kraken",
    "kucoin",
    "okx",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_at_a_websocket_is_a_path() {
        for venue in VENUES {
            let url = adapter(venue, &[]).expect("a venue of ours").rules().websocket_url;
            let rest = url.strip_prefix("wss://").expect("over TLS");
            // A query behind the host alone would be sent as it is, and is no target of a request.
            assert!(!rest.split('/').next().unwrap_or(rest).contains('?'), "{url}");
        }
    }

    #[test]
    fn symbols_beyond_one_connection_are_another_adapters() {
        let symbols: Vec<String> = (0..30).map(|i| format!("A{}-USD", i % 29)).collect();
        let parts = adapters("bitfinex", &symbols, Some(500)).expect("a venue of ours");
        assert_eq!(parts.len(), 3);
        let mut asked = 0;
        for mut part in parts {
            let mut out = Out::default();
            part.opened(Conn(0), "", Time(0), &mut out);
            assert!(out.reports.is_empty(), "{:?}", out.reports);
            asked += out.instruments.len();
        }
        assert_eq!(asked, 29, "each symbol once");
        assert_eq!(adapters("kraken", &symbols, None).expect("a venue of ours").len(), 1);
        assert_eq!(adapters("kraken", &symbols, Some(10)).expect("a venue of ours").len(), 3);
        assert!(adapters("nyse", &symbols, None).is_none());
    }

    #[test]
    fn every_venue_has_an_adapter_of_its_name() {
        assert!(VENUES.is_sorted());
        for venue in VENUES {
            let rules = adapter(venue, &["BTC-USD".to_owned()]).expect(venue).rules();
            assert_eq!(rules.venue, *venue);
            assert!(rules.websocket_url.starts_with("wss://"));
            assert!(rules.silence_max > Duration::ZERO && rules.sends_per_second_max > 0);
            assert!(rules.symbols_max.is_none_or(|most| most > 0));
        }
        let named = "bybit-v5".to_owned();
        assert!(!VENUES.contains(&named.as_str()) && adapter(&named, &[]).is_some(), "a recording's name");
    }
}
