//! The frames of Bitget's public channels in v2, and where they cost no more than another name of a field, in v1 and v3
//! (bitget.com/api-doc, "Spot" and "Contract", "WebSocket", "Public"; "UTA" for v3); its lists.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

use crate::wire::{LevelPairs, MaybeQuoted, Quoted};

/// A whole number, quoted or not: v2 writes times in both ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Integer(pub(super) i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get().trim_matches('"');
        text.parse().map(Integer).map_err(|_| D::Error::custom("not a whole number"))
    }
}

/// A channel's data, or an event: the answer to an operation.
#[derive(serde::Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) arg: Option<Arg<'a>>,
    #[serde(borrow, default)]
    pub(super) action: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) event: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) code: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) msg: Option<String>,
}

#[derive(serde::Deserialize, Default, Debug)]
pub(super) struct Arg<'a> {
    #[serde(borrow, default, rename = "instType")]
    pub(super) inst_type: Cow<'a, str>,
    #[serde(borrow, default, alias = "topic")]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow, default, rename = "instId", alias = "symbol")]
    pub(super) native: Cow<'a, str>,
}

/// `books`, `books1`
#[derive(serde::Deserialize, Debug)]
pub(super) struct BookData {
    #[serde(default, alias = "a")]
    pub(super) asks: Option<LevelPairs>,
    #[serde(default, alias = "b")]
    pub(super) bids: Option<LevelPairs>,
    /// Zero where there is none.
    #[serde(default)]
    pub(super) checksum: Option<i64>,
    /// Rises; none in v1.
    #[serde(default)]
    pub(super) seq: Option<Integer>,
    /// The one before; zero in a snapshot, none in v1.
    #[serde(default)]
    pub(super) pseq: Option<Integer>,
    /// Milliseconds.
    #[serde(default)]
    pub(super) ts: Option<Integer>,
}

/// `trade`, in the order of v1, which sends lists without ids.
#[derive(serde::Deserialize, Debug)]
pub(super) struct WireTrade<'a> {
    /// Milliseconds.
    #[serde(alias = "T")]
    pub(super) ts: Integer,
    #[serde(alias = "p")]
    pub(super) price: Quoted,
    #[serde(alias = "v")]
    pub(super) size: Quoted,
    /// The taker's.
    #[serde(borrow, alias = "S")]
    pub(super) side: Cow<'a, str>,
    #[serde(borrow, default, rename = "tradeId", alias = "i")]
    pub(super) id: Option<Cow<'a, str>>,
}

/// `ticker`. v1's prices have other names, no sizes, and are rounded: nothing is read of them.
#[derive(serde::Deserialize)]
pub(super) struct Ticker {
    #[serde(default, rename = "bidPr", alias = "bid1Price")]
    pub(super) bid: Option<MaybeQuoted>,
    #[serde(default, rename = "bidSz", alias = "bid1Size")]
    pub(super) bid_size: Option<MaybeQuoted>,
    #[serde(default, rename = "askPr", alias = "ask1Price")]
    pub(super) ask: Option<MaybeQuoted>,
    #[serde(default, rename = "askSz", alias = "ask1Size")]
    pub(super) ask_size: Option<MaybeQuoted>,
    /// Milliseconds.
    #[serde(default)]
    pub(super) ts: Option<Integer>,
}

/// A REST answer.
#[derive(serde::Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub(super) code: Cow<'a, str>,
    #[serde(default)]
    pub(super) msg: Option<String>,
    #[serde(borrow, default)]
    pub(super) data: Option<Vec<Listed<'a>>>,
}

/// REST `spot/public/symbols` and `mix/market/contracts`
#[derive(serde::Deserialize)]
pub(super) struct Listed<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(borrow, rename = "baseCoin")]
    pub(super) base: Cow<'a, str>,
    #[serde(borrow, rename = "quoteCoin")]
    pub(super) quote: Cow<'a, str>,
    #[serde(borrow, default, alias = "symbolStatus")]
    pub(super) status: Cow<'a, str>,
    /// Digits after the point of a price.
    #[serde(default, rename = "pricePrecision", alias = "pricePlace")]
    pub(super) price_digits: Option<Integer>,
    /// A contract's tick, in units of its last digit.
    #[serde(default, rename = "priceEndStep")]
    pub(super) price_step: Option<Integer>,
    /// Digits after the point of a size; a contract has a lot as well.
    #[serde(default, rename = "quantityPrecision")]
    pub(super) size_digits: Option<Integer>,
    #[serde(default, rename = "sizeMultiplier")]
    pub(super) lot: Option<MaybeQuoted>,
    /// Milliseconds; empty for what is not delivered.
    #[serde(borrow, default, rename = "deliveryTime")]
    pub(super) delivery: Option<Cow<'a, str>>,
}
