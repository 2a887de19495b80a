//! A venue's side of its protocol, so that ingest is tested over a socket as it runs live: whoever subscribes gets the
//! frames of a recording (or of the synthetic market), acknowledged, numbered and answered as the venue would. Without
//! I/O: the owner of the sockets says what happened, and does what it is told ([`Said`]).
//!
//! Each venue has a dialect of its own, which keeps what the books hold at this place of the recording, so that a
//! snapshot can be had at any time. Frames and levels are the recorded ones, digit for digit; what the venue makes for each
//! connection (acknowledgements, `sequence_num`, numbers of channels, checksums that the recorder did not ask for) is made
//! anew. What dialects share: `mirror`, a book as it was written; `readers`, who subscribed to what; `fetched`, books that
//! begin with a REST answer. They do not use the adapters, which are what is tested with them.
//!
//! Faults are injected on purpose ([`faults`]): a real recording holds none.

mod binance;
mod bitfinex;
mod bitget;
mod bitmex;
mod bitstamp;
mod bybit;
mod coinbase;
mod coinbase_exchange;
mod deribit;
pub mod faults;
mod fetched;
mod gateio;
mod gemini;
mod kraken;
mod kucoin;
mod mirror;
mod okx;
mod readers;

use std::collections::BTreeMap;

use ticker_market::Instrument;

use self::faults::{Faults, Injection, InjectionKind};
use crate::Update;
use crate::recording::{Line, Payload};

/// Sessions at a time, at most; more are refused.
pub const SESSIONS_MAX: usize = 256;

/// Subscriptions of one session, at most; more are left out.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

/// Answers of a recording that are kept, in bytes.
pub const BODIES_BYTES_MAX: usize = 256 << 20;

/// REST requests that wait for a snapshot, at most.
pub const WAITING_MAX: usize = 1_000;

/// Names a connection of somebody who reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Session(pub u32);

/// What the owner of the sockets is to do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// Send this text frame.
    Text(Session, String),
    /// Answer that request.
    Answer {
        /// As it was given to [`StandIn::asked`].
        request: u64,
        /// HTTP status.
        status: u16,
        /// The body, JSON.
        body: String,
    },
    /// Send nothing more on this connection, pings included, and keep it open.
    Stall(Session),
    /// Close this connection without a word.
    Close(Session),
}

/// A stand-in for one venue.
pub struct StandIn {
    dialect: Box<dyn Dialect>,
    faults: Faults,
    bodies: BTreeMap<String, String>,
    bodies_bytes: usize,
}

/// One venue's way of speaking.
trait Dialect: Send {
    /// A line of what will be played, told before anything is: what there is to subscribe to. A connection's again in its
    /// place.
    fn look(&mut self, line: &Line<'_>);
    fn opened(&mut self, session: Session, url: &str, said: &mut Vec<Said>);
    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>);
    fn closed(&mut self, session: Session);
    /// Plays a frame of that connection of the recording. False where it carries no market data: such frames are neither
    /// counted nor spoilt.
    fn recv(&mut self, conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool;
    /// Takes in a REST answer of the recording.
    fn http(&mut self, _url: &str, _body: &str, _said: &mut Vec<Said>) {}
    /// True if the request was answered, or will be.
    fn asked(&mut self, _request: u64, _path: &str, _said: &mut Vec<Said>) -> bool {
        false
    }
    /// The instruments, as the venue lists them by that path, where the recording holds no list.
    fn listed(&self, _path: &str) -> Option<String> {
        None
    }
    /// Is somebody there to play to?
    fn is_wanted(&self) -> bool;
    /// What is played begins anew.
    fn begun_again(&mut self);
    /// Something that the synthetic market told, as the venue would say it.
    fn tell(&mut self, _update: &Update, _instrument: &Instrument, _lines: &mut Vec<Line<'static>>) {}
}

impl StandIn {
    /// For the venue of that name, as in topics or as recordings name it. Every venue that has an adapter has one.
    pub fn new(venue: &str, injections: Vec<Injection>, seed: u64) -> Option<Self> {
        let dialect: Box<dyn Dialect> = match venue {
            "kraken" | "kraken-v2" => Box::new(kraken::Kraken::default()),
            "coinbase" | "coinbase-advanced" => Box::new(coinbase::Coinbase::default()),
            "coinbase-exchange" => Box::new(coinbase_exchange::CoinbaseExchange::default()),
            "binance" | "binance-spot" => Box::new(binance::Binance::default()),
            "binance-usdm" | "binance-coinm" => Box::new(binance::Binance::futures()),
            "bybit" | "bybit-v5" | "bybit-spot" | "bybit-linear" | "bybit-inverse" => Box::new(bybit::Bybit::default()),
            "bitfinex" => Box::new(bitfinex::Bitfinex::default()),
            "bitmex" => Box::new(bitmex::Bitmex::default()),
            "bitstamp" => Box::new(bitstamp::Bitstamp::default()),
            "deribit" => Box::new(deribit::Deribit::default()),
            "gateio" => Box::new(gateio::Gateio::default()),
            "gemini" => Box::new(gemini::Gemini::default()),
            "bitget" | "bitget-v1" => Box::new(bitget::Bitget::default()),
            "kucoin" => Box::new(kucoin::Kucoin::default()),
            "okx" => Box::new(okx::Okx::default()),
            _ => return None,
        };
        Some(Self { dialect, faults: Faults::new(injections, seed), bodies: BTreeMap::new(), bodies_bytes: 0 })
    }

    /// The venues that the synthetic market can be played as.
    pub const SYNTHETIC: [&'static str; 14] = [
        "binance",
        "bitfinex",
        "bitget",
        "bitmex",
        "bitstamp",
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

    /// A line of what will be played, told before anything is.
    pub fn look(&mut self, line: &Line<'_>) {
        if let Line::Http { url, data: Payload::Text(body), .. } = line
            && self.bodies_bytes + body.len() <= BODIES_BYTES_MAX
        {
            let path = path_of(url);
            // The first of each path, and of the path without its query.
            for key in [path, without_query(path)] {
                if !self.bodies.contains_key(key) {
                    self.bodies_bytes += body.len();
                    self.bodies.insert(key.to_owned(), body.clone().into_owned());
                }
            }
        }
        self.dialect.look(line);
    }

    /// A connection was made, with that path and query.
    pub fn opened(&mut self, session: Session, url: &str, said: &mut Vec<Said>) {
        self.dialect.opened(session, url, said);
    }

    /// A frame came from a reader.
    pub fn heard(&mut self, session: Session, bytes: &[u8], said: &mut Vec<Said>) {
        if let Ok(text) = std::str::from_utf8(bytes) {
            self.dialect.heard(session, text, said);
        }
    }

    /// A connection is gone.
    pub fn closed(&mut self, session: Session) {
        self.dialect.closed(session);
    }

    /// A REST request for that path and query. `request` names it in [`Said::Answer`].
    pub fn asked(&mut self, request: u64, path: &str, said: &mut Vec<Said>) {
        if self.dialect.asked(request, path, said) {
            return;
        }
        let recorded = self.bodies.get(path).or_else(|| self.bodies.get(without_query(path))).cloned();
        said.push(match recorded.or_else(|| self.dialect.listed(path)) {
            Some(body) => Said::Answer { request, status: 200, body },
            None => {
                let body = r#"{"error":"not in the recording"}"#.to_owned();
                Said::Answer { request, status: 404, body }
            }
        });
    }

    /// Plays the next line.
    pub fn line(&mut self, line: &Line<'_>, said: &mut Vec<Said>) {
        match line {
            Line::Connect { .. } => self.dialect.look(line),
            Line::Recv { conn, data, .. } => {
                let mut told = Vec::new();
                if self.dialect.recv(conn, data, &mut told) && !told.is_empty() {
                    self.faults.pass(told, said);
                } else {
                    said.append(&mut told);
                }
            }
            Line::Http { url, data: Payload::Text(body), .. } => self.dialect.http(path_of(url), body, said),
            _ => {}
        }
    }

    /// What is played begins anew.
    pub fn begun_again(&mut self) {
        self.dialect.begun_again();
    }

    /// Is somebody there to play to?
    pub fn is_wanted(&self) -> bool {
        self.dialect.is_wanted()
    }

    /// Does this to the next frame.
    pub fn inject(&mut self, kind: InjectionKind) {
        self.faults.inject(kind);
    }

    /// Frames of market data that were played to somebody, and what was done to some of them.
    pub fn counts(&self) -> (u64, &BTreeMap<&'static str, u64>) {
        self.faults.counts()
    }

    /// Something that the synthetic market told, as lines to play.
    pub fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        self.dialect.tell(update, instrument, lines);
    }
}

fn path_of(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, rest)| rest);
    after.find('/').map_or("/", |at| &after[at..])
}

/// The path alone. Whether it ends with a slash makes no difference to venues, and differs between programs.
fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or(path).trim_end_matches('/')
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always makes JSON")
}

fn recv(update: &Update, text: String) -> Line<'static> {
    Line::Recv { ts: Some(update.recv), conn: "synthetic".into(), data: Payload::Text(text.into()) }
}

#[cfg(test)]
#[path = "stand_in/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "stand_in/protocol_tests.rs"]
mod protocol_tests;
