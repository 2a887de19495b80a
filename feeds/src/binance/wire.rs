//! The payloads of Binance's streams and REST answers; futures have a few fields more
//! (developers.binance.com/docs/binance-spot-api-docs/web-socket-streams and …/rest-api/market-data-endpoints).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::{LevelPairs, Quoted};

/// A combined stream's frame, an answer to a method, or (without `stream`) a raw stream's payload.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) stream: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    /// The event's name, on raw streams.
    #[serde(borrow, default)]
    pub(super) e: Cow<'a, str>,
    #[serde(default)]
    pub(super) error: Option<Refusal>,
}

/// Only what a payload is.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default)]
    pub(super) e: Cow<'a, str>,
}

/// A frame of a stream that we read.
#[derive(Debug)]
pub(super) enum Frame<'a> {
    Depth(DepthUpdate<'a>),
    Ticker(BookTicker<'a>),
    Trade(WireTrade<'a>),
    Aggregate(AggTrade<'a>),
}

/// What a frame is.
pub(super) enum Parsed<'a> {
    Frame(Frame<'a>),
    /// An answer, a notice, or a frame of a stream that we do not read: with its payload.
    Other(Envelope<'a>, &'a str),
}

/// Reads any frame.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, serde_json::Error> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
    let payload = match envelope.data {
        Some(data) => data.get(),
        None => serde_json::from_slice::<&RawValue>(bytes)?.get(),
    };
    let stream = envelope.stream.split_once('@').map_or("", |(_, stream)| stream);
    Ok(Parsed::Frame(match (stream, &*envelope.e) {
        (stream, _) if is_depth(stream) => Frame::Depth(serde_json::from_str(payload)?),
        ("", "depthUpdate") => Frame::Depth(serde_json::from_str(payload)?),
        ("bookTicker", _) | ("", "bookTicker") => Frame::Ticker(serde_json::from_str(payload)?),
        // Those of all symbols in one stream.
        ("", "") if envelope.stream == "!bookTicker" => Frame::Ticker(serde_json::from_str(payload)?),
        ("trade", _) | ("", "trade") => Frame::Trade(serde_json::from_str(payload)?),
        ("aggTrade", _) | ("", "aggTrade") => Frame::Aggregate(serde_json::from_str(payload)?),
        _ => return Ok(Parsed::Other(envelope, payload)),
    }))
}

/// Is this the part of a stream's name behind the symbol's for differences of a book?
pub(super) fn is_depth(stream: &str) -> bool {
    matches!(stream, "depth" | "depth@100ms" | "depth@0ms" | "depth@250ms" | "depth@500ms")
}

/// `<symbol>@depth@100ms`
#[derive(Deserialize, Debug)]
pub(super) struct DepthUpdate<'a> {
    #[serde(rename = "E")]
    pub(super) event_ms: i64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(rename = "U")]
    pub(super) first: u64,
    #[serde(rename = "u")]
    pub(super) last: u64,
    /// `u` of the difference before; on the futures markets alone.
    #[serde(rename = "pu", default)]
    pub(super) before: Option<u64>,
    #[serde(default)]
    pub(super) b: LevelPairs,
    #[serde(default)]
    pub(super) a: LevelPairs,
}

/// `<symbol>@bookTicker`
#[derive(Deserialize, Debug)]
pub(super) struct BookTicker<'a> {
    pub(super) u: u64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(rename = "b")]
    pub(super) bid: Quoted,
    #[serde(rename = "B")]
    pub(super) bid_size: Quoted,
    #[serde(rename = "a")]
    pub(super) ask: Quoted,
    #[serde(rename = "A")]
    pub(super) ask_size: Quoted,
    /// When the matching engine made it so; on the futures markets alone.
    #[serde(rename = "T", default)]
    pub(super) made_ms: Option<i64>,
}

/// `<symbol>@trade`
#[derive(Deserialize, Debug)]
pub(super) struct WireTrade<'a> {
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    pub(super) t: u64,
    pub(super) p: Quoted,
    pub(super) q: Quoted,
    #[serde(rename = "T")]
    pub(super) trade_ms: i64,
    /// Is the buyer the maker?
    pub(super) m: bool,
    /// What kind of trade it is; on the futures markets alone.
    #[serde(borrow, rename = "X", default)]
    pub(super) kind: Option<Cow<'a, str>>,
}

impl WireTrade<'_> {
    /// Was it made in the market? The stream carries what the insurance fund and the deleveraging take over as well, and
    /// placeholders of size zero.
    pub(super) fn is_of_the_market(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == "MARKET")
    }
}

/// `<symbol>@aggTrade`
#[derive(Deserialize, Debug)]
pub(super) struct AggTrade<'a> {
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    pub(super) a: u64,
    pub(super) p: Quoted,
    pub(super) q: Quoted,
    #[serde(rename = "T")]
    pub(super) trade_ms: i64,
    /// Is the buyer the maker?
    pub(super) m: bool,
}

/// REST `depth`
#[derive(Deserialize)]
pub(super) struct DepthSnapshot {
    #[serde(rename = "lastUpdateId")]
    pub(super) id: u64,
    pub(super) bids: LevelPairs,
    pub(super) asks: LevelPairs,
}

/// An error, from REST or from a method.
#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) code: i64,
    #[serde(default)]
    pub(super) msg: String,
}

/// REST `exchangeInfo`
#[derive(Deserialize)]
pub(super) struct ExchangeInfo<'a> {
    #[serde(borrow)]
    pub(super) symbols: Vec<SymbolInfo<'a>>,
}

#[derive(Deserialize)]
pub(super) struct SymbolInfo<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(borrow, default, alias = "contractStatus")]
    pub(super) status: Cow<'a, str>,
    #[serde(borrow, rename = "baseAsset")]
    pub(super) base: Cow<'a, str>,
    #[serde(borrow, rename = "quoteAsset")]
    pub(super) quote: Cow<'a, str>,
    #[serde(default)]
    pub(super) filters: Vec<Filter>,
}

#[derive(Deserialize)]
pub(super) struct Filter {
    #[serde(rename = "filterType")]
    pub(super) kind: String,
    #[serde(default, rename = "tickSize")]
    pub(super) tick: Option<Quoted>,
    #[serde(default, rename = "stepSize")]
    pub(super) step: Option<Quoted>,
}
