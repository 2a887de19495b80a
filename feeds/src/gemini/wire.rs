//! The frames of Gemini's WebSocket (developer.gemini.com/websocket/streams) and of its archived Market Data v2
//! (docs.gemini.com/websocket/market-data/v2), and its REST answers.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::wire::{LevelPairs, MaybeQuoted, Number, Quoted, Sided};

/// What tells the frames apart.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    /// The event's name, on depth streams.
    #[serde(borrow, default)]
    pub(super) e: Cow<'a, str>,
    #[serde(default)]
    pub(super) t: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) u: Option<IgnoredAny>,
    /// Of an answer to a method: text or a number, as it was asked.
    #[serde(default)]
    pub(super) id: Option<RequestId>,
    #[serde(default)]
    pub(super) error: Option<Refusal>,
    /// The event's name in Market Data v2.
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RequestId {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) code: i64,
    #[serde(default)]
    pub(super) msg: String,
}

/// `{symbol}@depth@100ms`
#[derive(Deserialize, Debug)]
pub(super) struct DepthUpdate<'a> {
    /// Nanoseconds.
    #[serde(rename = "E")]
    pub(super) event_ns: i64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    /// The `u` of the frame before.
    #[serde(rename = "U")]
    pub(super) before: u64,
    #[serde(rename = "u")]
    pub(super) last: u64,
    #[serde(default)]
    pub(super) b: LevelPairs,
    #[serde(default)]
    pub(super) a: LevelPairs,
}

/// `{symbol}@bookTicker`; a side without orders is missing.
#[derive(Deserialize)]
pub(super) struct BookTicker<'a> {
    #[serde(rename = "E")]
    pub(super) event_ns: i64,
    pub(super) u: u64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(rename = "b", default)]
    pub(super) bid: MaybeQuoted,
    #[serde(rename = "B", default)]
    pub(super) bid_size: MaybeQuoted,
    #[serde(rename = "a", default)]
    pub(super) ask: MaybeQuoted,
    #[serde(rename = "A", default)]
    pub(super) ask_size: MaybeQuoted,
}

/// `{symbol}@trade`
#[derive(Deserialize)]
pub(super) struct WireTrade<'a> {
    #[serde(rename = "E")]
    pub(super) event_ns: i64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    pub(super) t: u64,
    pub(super) p: Quoted,
    pub(super) q: Quoted,
    /// Is the buyer the maker?
    pub(super) m: bool,
}

/// `l2_updates` of Market Data v2: the first one is a snapshot, and has the trades before it.
#[derive(Deserialize, Debug)]
pub(super) struct L2Updates<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    pub(super) changes: Sided,
    #[serde(borrow, default)]
    pub(super) trades: Option<Vec<V2Trade<'a>>>,
}

/// `trade` of Market Data v2.
#[derive(Deserialize, Debug)]
pub(super) struct V2Trade<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    pub(super) event_id: u64,
    /// Milliseconds.
    pub(super) timestamp: i64,
    pub(super) price: Quoted,
    pub(super) quantity: Quoted,
    /// The taker's.
    #[serde(borrow)]
    pub(super) side: Cow<'a, str>,
}

/// REST `v1/symbols/details/{symbol}`
#[derive(Deserialize)]
pub(super) struct Details<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) base_currency: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) quote_currency: Cow<'a, str>,
    /// `spot` or `swap`
    #[serde(borrow, default)]
    pub(super) product_type: Cow<'a, str>,
    /// The step of the price.
    pub(super) quote_increment: Number,
    /// The step of the size.
    pub(super) tick_size: Number,
    #[serde(borrow, default)]
    pub(super) status: Cow<'a, str>,
}
