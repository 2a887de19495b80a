//! The frames of Coinbase Exchange's feed and its list of products
//! (docs.cdp.coinbase.com/exchange/websocket-feed/channels, …/exchange/rest-api).

use std::borrow::Cow;

use serde::Deserialize;

use crate::wire::{LevelPairs, Quoted, Sided};

/// What every frame has.
#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// `snapshot`
#[derive(Deserialize)]
pub(super) struct Snapshot<'a> {
    #[serde(borrow)]
    pub(super) product_id: Cow<'a, str>,
    pub(super) bids: LevelPairs,
    pub(super) asks: LevelPairs,
    #[serde(borrow, default)]
    pub(super) time: Cow<'a, str>,
}

/// `l2update`
#[derive(Deserialize, Debug)]
pub(super) struct BookUpdate<'a> {
    #[serde(borrow)]
    pub(super) product_id: Cow<'a, str>,
    pub(super) changes: Sided,
    #[serde(borrow, default)]
    pub(super) time: Cow<'a, str>,
}

/// `match`, `last_match`
#[derive(Deserialize)]
pub(super) struct Match<'a> {
    #[serde(borrow)]
    pub(super) product_id: Cow<'a, str>,
    pub(super) trade_id: u64,
    pub(super) price: Quoted,
    pub(super) size: Quoted,
    /// The maker's.
    #[serde(borrow)]
    pub(super) side: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) time: Cow<'a, str>,
}

/// `heartbeat`
#[derive(Deserialize)]
pub(super) struct Heartbeat<'a> {
    #[serde(borrow)]
    pub(super) product_id: Cow<'a, str>,
    pub(super) last_trade_id: u64,
}

/// REST `products`
#[derive(Deserialize)]
pub(super) struct Product<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(default)]
    pub(super) quote_increment: Option<Quoted>,
    #[serde(default)]
    pub(super) base_increment: Option<Quoted>,
    #[serde(default)]
    pub(super) trading_disabled: bool,
}
