//! The frames of OKX's public channels and its REST answers (okx.com/docs-v5/en, "Order Book Trading", "Market Data" and
//! "Public Data").

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::{LevelPairs, MaybeQuoted, Quoted};

/// A channel's data, or an event: the answer to an operation, a notice.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    pub(super) arg: Arg<'a>,
    #[serde(borrow, default)]
    pub(super) action: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) event: Cow<'a, str>,
    #[serde(default)]
    pub(super) code: Option<String>,
    #[serde(default)]
    pub(super) msg: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct Arg<'a> {
    #[serde(borrow, default)]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow, default, rename = "instId")]
    pub(super) native: Cow<'a, str>,
}

/// `books`, `books-l2-tbt`, `books50-l2-tbt`, `bbo-tbt`, and REST `market/books`.
#[derive(Deserialize, Debug)]
pub(super) struct BookData<'a> {
    #[serde(default)]
    pub(super) asks: LevelPairs,
    #[serde(default)]
    pub(super) bids: LevelPairs,
    /// Milliseconds.
    #[serde(borrow)]
    pub(super) ts: Cow<'a, str>,
    /// Zero, or none, since it was given up in 2026.
    #[serde(default)]
    pub(super) checksum: Option<i64>,
    /// None before 2023.
    #[serde(rename = "seqId", default)]
    pub(super) last: Option<i64>,
    /// -1 in a snapshot.
    #[serde(rename = "prevSeqId", default)]
    pub(super) before: Option<i64>,
}

/// `trades`
#[derive(Deserialize, Debug)]
pub(super) struct WireTrade<'a> {
    #[serde(borrow, rename = "instId")]
    pub(super) native: Cow<'a, str>,
    #[serde(borrow, rename = "tradeId")]
    pub(super) id: Cow<'a, str>,
    #[serde(rename = "px")]
    pub(super) price: Quoted,
    #[serde(rename = "sz")]
    pub(super) size: Quoted,
    /// The taker's.
    #[serde(borrow)]
    pub(super) side: Cow<'a, str>,
    /// Milliseconds.
    #[serde(borrow)]
    pub(super) ts: Cow<'a, str>,
}

/// A REST answer.
#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub(super) code: Cow<'a, str>,
    #[serde(default)]
    pub(super) msg: String,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

/// REST `public/instruments`
#[derive(Deserialize)]
pub(super) struct Listed<'a> {
    #[serde(borrow, rename = "instId")]
    pub(super) native: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) state: Cow<'a, str>,
    #[serde(rename = "tickSz", default)]
    pub(super) tick: MaybeQuoted,
    #[serde(rename = "lotSz", default)]
    pub(super) lot: MaybeQuoted,
}
