//! The frames of Bybit's public streams and its list of instruments (bybit-exchange.github.io/docs/v5/ws/connect,
//! …/websocket/public/orderbook, …/websocket/public/trade, …/market/instrument).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::{LevelPairs, MaybeQuoted, Quoted};

/// A topic's data, or the answer to an operation.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) topic: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    /// When the frame was made, in milliseconds.
    #[serde(default)]
    pub(super) ts: Option<i64>,
    /// When the matching engine made the book so, in milliseconds.
    #[serde(default)]
    pub(super) cts: Option<i64>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) op: Cow<'a, str>,
    #[serde(default)]
    pub(super) success: Option<bool>,
    #[serde(default)]
    pub(super) ret_msg: Option<String>,
}

/// `orderbook.<depth>.<symbol>`
#[derive(Deserialize, Debug)]
pub(super) struct BookData<'a> {
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(default)]
    pub(super) b: LevelPairs,
    #[serde(default)]
    pub(super) a: LevelPairs,
    pub(super) u: u64,
}

/// `publicTrade.<symbol>`
#[derive(Deserialize, Debug)]
pub(super) struct WireTrade<'a> {
    #[serde(rename = "T")]
    pub(super) trade_ms: i64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    /// The taker's side.
    #[serde(borrow, rename = "S")]
    pub(super) side: Cow<'a, str>,
    #[serde(rename = "v")]
    pub(super) size: Quoted,
    #[serde(rename = "p")]
    pub(super) price: Quoted,
    /// A number on spot, a UUID elsewhere.
    #[serde(borrow, rename = "i")]
    pub(super) id: Cow<'a, str>,
}

/// REST `instruments-info`
#[derive(Deserialize)]
pub(super) struct Instruments<'a> {
    #[serde(rename = "retCode")]
    pub(super) code: i64,
    #[serde(rename = "retMsg", default)]
    pub(super) message: String,
    #[serde(borrow, default)]
    pub(super) result: Page<'a>,
}

#[derive(Deserialize, Default)]
pub(super) struct Page<'a> {
    #[serde(borrow, default)]
    pub(super) list: Vec<Listed<'a>>,
    #[serde(rename = "nextPageCursor", default)]
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Listed<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) status: Cow<'a, str>,
    #[serde(borrow, rename = "baseCoin")]
    pub(super) base: Cow<'a, str>,
    #[serde(borrow, rename = "quoteCoin")]
    pub(super) quote: Cow<'a, str>,
    /// Milliseconds; `0` for perpetuals, missing on spot.
    #[serde(borrow, rename = "deliveryTime", default)]
    pub(super) delivery: Cow<'a, str>,
    #[serde(rename = "priceFilter", default)]
    pub(super) price: PriceFilter,
    #[serde(rename = "lotSizeFilter", default)]
    pub(super) lot: LotFilter,
}

#[derive(Deserialize, Default)]
pub(super) struct PriceFilter {
    #[serde(rename = "tickSize", default)]
    pub(super) tick: MaybeQuoted,
}

#[derive(Deserialize, Default)]
pub(super) struct LotFilter {
    #[serde(rename = "qtyStep", default)]
    pub(super) step: MaybeQuoted,
    /// The step on spot.
    #[serde(rename = "basePrecision", default)]
    pub(super) precision: MaybeQuoted,
}
