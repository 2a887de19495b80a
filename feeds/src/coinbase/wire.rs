//! The frames of Coinbase's Advanced Trade WebSocket, as its documents describe them
//! (docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Level, Levels};

use crate::wire::{MaybeQuoted, Quoted};

#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) timestamp: Cow<'a, str>,
    #[serde(default)]
    pub(super) sequence_num: Option<u64>,
    #[serde(borrow, default)]
    pub(super) events: Option<&'a RawValue>,
    /// `error` on frames without a channel.
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(default)]
    pub(super) message: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct BookEvent<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) product_id: Cow<'a, str>,
    #[serde(default)]
    pub(super) updates: Vec<BookChange>,
}

impl BookEvent<'_> {
    pub(super) fn levels(&self) -> Levels {
        let mut levels = Levels::default();
        for change in &self.updates {
            let level = Level { price: change.price_level.0, size: change.new_quantity.0 };
            match change.side {
                BookSide::Bid => levels.bids.push(level),
                BookSide::Offer => levels.asks.push(level),
            }
        }
        levels
    }
}

#[derive(Deserialize)]
pub(super) struct BookChange {
    pub(super) side: BookSide,
    pub(super) price_level: Quoted,
    pub(super) new_quantity: Quoted,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum BookSide {
    Bid,
    #[serde(alias = "ask")]
    Offer,
}

#[derive(Deserialize)]
pub(super) struct TradesEvent<'a> {
    #[serde(borrow, default)]
    pub(super) trades: Vec<WireTrade<'a>>,
}

#[derive(Deserialize, Debug)]
pub(super) struct WireTrade<'a> {
    #[serde(borrow)]
    pub(super) product_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) trade_id: Cow<'a, str>,
    pub(super) price: Quoted,
    pub(super) size: Quoted,
    #[serde(borrow, default)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) side: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct TickerEvent<'a> {
    #[serde(borrow, default)]
    pub(super) tickers: Vec<Ticker<'a>>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Ticker<'a> {
    #[serde(borrow)]
    pub(super) product_id: Cow<'a, str>,
    #[serde(default)]
    pub(super) best_bid: MaybeQuoted,
    #[serde(default)]
    pub(super) best_ask: MaybeQuoted,
    #[serde(default)]
    pub(super) best_bid_quantity: MaybeQuoted,
    #[serde(default)]
    pub(super) best_ask_quantity: MaybeQuoted,
}

#[derive(Deserialize)]
pub(super) struct SubscriptionsEvent {
    #[serde(default)]
    pub(super) subscriptions: Subscriptions,
}

#[derive(Deserialize, Default)]
pub(super) struct Subscriptions {
    #[serde(default)]
    pub(super) level2: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Products<'a> {
    #[serde(borrow)]
    pub(super) products: Vec<Product<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Product<'a> {
    #[serde(borrow)]
    pub(super) product_id: Cow<'a, str>,
    #[serde(default)]
    pub(super) price_increment: MaybeQuoted,
    #[serde(default)]
    pub(super) base_increment: MaybeQuoted,
    #[serde(default)]
    pub(super) trading_disabled: bool,
}
