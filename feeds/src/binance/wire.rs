//! The payloads of Binance's spot streams and REST answers
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

/// `<symbol>@depth@100ms`
#[derive(Deserialize)]
pub(super) struct DepthUpdate<'a> {
    #[serde(rename = "E")]
    pub(super) event_ms: i64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(rename = "U")]
    pub(super) first: u64,
    #[serde(rename = "u")]
    pub(super) last: u64,
    #[serde(default)]
    pub(super) b: LevelPairs,
    #[serde(default)]
    pub(super) a: LevelPairs,
}

/// `<symbol>@bookTicker`
#[derive(Deserialize)]
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
}

/// `<symbol>@trade`
#[derive(Deserialize)]
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
}

/// `<symbol>@aggTrade`
#[derive(Deserialize)]
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
    #[serde(borrow, default)]
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
