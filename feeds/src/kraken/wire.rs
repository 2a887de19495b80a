//! The frames of Kraken's WebSocket v2, as its documents describe them (docs.kraken.com/api/docs/websocket-v2).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Level, Levels};

use crate::wire::Number;

/// What every frame has: a channel's data, or the answer to a method.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Cow<'a, str>,
    #[serde(default)]
    pub(super) success: Option<bool>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) symbol: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Ack {
    pub(super) channel: String,
    #[serde(default)]
    pub(super) symbol: Option<String>,
    #[serde(default)]
    pub(super) depth: Option<usize>,
}

#[derive(Deserialize)]
pub(super) struct SystemStatus<'a> {
    #[serde(borrow)]
    pub(super) system: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct BookFrame<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(default)]
    pub(super) bids: Vec<WireLevel>,
    #[serde(default)]
    pub(super) asks: Vec<WireLevel>,
    pub(super) checksum: u32,
    #[serde(borrow, default)]
    pub(super) timestamp: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct WireLevel {
    price: Number,
    qty: Number,
}

/// What a book's frame says.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    pub(super) symbol: &'a str,
    pub(super) levels: Levels,
    pub(super) checksum: u32,
    pub(super) timestamp: &'a str,
}

impl BookFrame<'_> {
    pub(super) fn changes(&self) -> Changes<'_> {
        let list = |list: &[WireLevel]| list.iter().map(|l| Level { price: l.price.0, size: l.qty.0 }).collect();
        Changes {
            symbol: &self.symbol,
            levels: Levels { bids: list(&self.bids), asks: list(&self.asks), ..Levels::default() },
            checksum: self.checksum,
            timestamp: &self.timestamp,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Ticker<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    pub(super) bid: Option<Number>,
    pub(super) bid_qty: Option<Number>,
    pub(super) ask: Option<Number>,
    pub(super) ask_qty: Option<Number>,
    #[serde(borrow, default)]
    pub(super) timestamp: Cow<'a, str>,
}

#[derive(Deserialize, Debug)]
pub(super) struct WireTrade<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) side: Cow<'a, str>,
    pub(super) price: Number,
    pub(super) qty: Number,
    pub(super) trade_id: u64,
    #[serde(borrow, default)]
    pub(super) timestamp: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct Instruments<'a> {
    #[serde(borrow, default)]
    pub(super) pairs: Vec<Pair<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Pair<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) status: Cow<'a, str>,
    #[serde(default)]
    pub(super) price_increment: Option<Number>,
    #[serde(default)]
    pub(super) qty_increment: Option<Number>,
}
