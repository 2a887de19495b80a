//! The frames of Bitstamp's WebSocket v2 and its REST answers (bitstamp.net/websocket/v2, bitstamp.net/api).

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::value::RawValue;
use ticker_market::book::BookSide;

use crate::wire::{LevelPairs, Quoted};

#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub(super) event: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    /// Of `live_orders_<pair>`: the event's id, and that of the one before it.
    #[serde(borrow, default)]
    pub(super) event_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) pre_event_id: Cow<'a, str>,
}

/// `diff_order_book_<pair>`, and REST `order_book`.
#[derive(Deserialize, Debug)]
pub(super) struct BookData<'a> {
    #[serde(borrow)]
    pub(super) microtimestamp: Cow<'a, str>,
    #[serde(default)]
    pub(super) bids: LevelPairs,
    #[serde(default)]
    pub(super) asks: LevelPairs,
}

/// REST `order_book/<pair>/?group=2`
#[derive(Deserialize)]
pub(super) struct OrderBook<'a> {
    #[serde(borrow)]
    pub(super) microtimestamp: Cow<'a, str>,
    pub(super) bids: Vec<Resting>,
    pub(super) asks: Vec<Resting>,
}

/// `["79617.37","0.19000000","2043024885198848"]`
#[derive(Deserialize)]
pub(super) struct Resting {
    pub(super) price: Quoted,
    pub(super) size: Quoted,
    pub(super) id: OrderId,
}

/// An order's number, in quotes.
pub(super) struct OrderId(pub(super) u64);

impl<'de> Deserialize<'de> for OrderId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map(OrderId).map_err(|_| D::Error::custom("not an order's number"))
    }
}

/// `live_orders_<pair>`
#[derive(Deserialize)]
pub(super) struct WireOrder {
    pub(super) id: u64,
    /// 0 buys, 1 sells.
    pub(super) order_type: u8,
    pub(super) amount_str: Quoted,
    pub(super) price_str: Quoted,
}

impl WireOrder {
    pub(super) fn side(&self) -> BookSide {
        if self.order_type == 0 { BookSide::Bid } else { BookSide::Ask }
    }
}

/// `live_trades_<pair>`
#[derive(Deserialize)]
pub(super) struct WireTrade<'a> {
    pub(super) id: u64,
    pub(super) amount_str: Quoted,
    pub(super) price_str: Quoted,
    /// The taker's side: 0 buys, 1 sells.
    #[serde(rename = "type")]
    pub(super) side: u8,
    #[serde(borrow, default)]
    pub(super) microtimestamp: Cow<'a, str>,
}

/// `bts:error`
#[derive(Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) code: Option<u64>,
    #[serde(default)]
    pub(super) message: String,
}

/// REST `markets`; before it, `trading-pairs-info`.
#[derive(Deserialize)]
pub(super) struct Market<'a> {
    #[serde(borrow, alias = "url_symbol")]
    pub(super) market_symbol: Cow<'a, str>,
    /// `BTC/USD`
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) base_decimals: u32,
    pub(super) counter_decimals: u32,
    #[serde(borrow, default)]
    pub(super) trading: Cow<'a, str>,
}
