//! The frames of Bitfinex's WebSocket v2 (docs.bitfinex.com/docs/ws-general, …/reference/ws-public-books,
//! …/reference/ws-public-trades).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use ticker_market::{Decimal, Level};

use crate::wire::Number;

/// Parts of a channel's frame after its number: a word, data, the sequence, and (if asked for) the time.
const PARTS_MAX: usize = 4;

/// A channel's frame: `[232956,[0.0000249,0,1],977]`.
pub(super) struct ChannelFrame<'a> {
    pub(super) channel: u64,
    parts: [Option<&'a RawValue>; PARTS_MAX],
}

impl<'a> ChannelFrame<'a> {
    /// The word that says what it is: `hb`, `cs`, `te`, `tu`; none for a book's levels.
    pub(super) fn word(&self) -> Option<&'a str> {
        self.text(0).strip_prefix('"')?.strip_suffix('"')
    }

    /// What it carries; `null` if there is nothing.
    pub(super) fn data(&self) -> &'a str {
        self.text(usize::from(self.word().is_some()))
    }

    /// Its number in the connection's sequence, if that was asked for.
    pub(super) fn sequence(&self) -> Option<u64> {
        let at = match self.word() {
            None | Some("hb") => 1,
            Some(_) => 2,
        };
        self.text(at).parse().ok()
    }

    fn text(&self, at: usize) -> &'a str {
        self.parts[at].map_or("null", |raw| raw.get())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ChannelFrame<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = ChannelFrame<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list that begins with a channel's number")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let channel = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let mut parts = [None; PARTS_MAX];
                for part in &mut parts {
                    *part = seq.next_element::<&RawValue>()?;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(ChannelFrame { channel, parts })
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}

/// Price, count of orders, amount: below zero on the ask side; a count of zero removes the level.
#[derive(Deserialize, Debug)]
pub(super) struct WireLevel(pub(super) Number, pub(super) u64, pub(super) Number);

impl WireLevel {
    /// The level, and whether it is a bid.
    pub(super) fn level(&self) -> (Level, bool) {
        let size = if self.1 == 0 { Decimal::ZERO } else { self.2.0.abs() };
        (Level { price: self.0.0, size }, !self.2.0.is_sign_negative())
    }
}

/// Id, milliseconds, amount (what the taker bought, or below zero sold), price.
pub(super) struct WireTrade(pub(super) u64, pub(super) i64, pub(super) Number, pub(super) Number);

impl<'de> Deserialize<'de> for WireTrade {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = WireTrade;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of id, time, amount and price")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<WireTrade, A::Error> {
                let missing = |at| de::Error::invalid_length(at, &self);
                let id = seq.next_element()?.ok_or_else(|| missing(0))?;
                let made_ms = seq.next_element()?.ok_or_else(|| missing(1))?;
                let amount = seq.next_element()?.ok_or_else(|| missing(2))?;
                let price = seq.next_element()?.ok_or_else(|| missing(3))?;
                // Other rows of the venue have grown.
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(WireTrade(id, made_ms, amount, price))
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}

/// `{"event":…}`
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow)]
    pub(super) event: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) channel: Cow<'a, str>,
    #[serde(rename = "chanId", default)]
    pub(super) number: Option<u64>,
    #[serde(borrow, default)]
    pub(super) symbol: Cow<'a, str>,
    /// A book's precision.
    #[serde(borrow, default)]
    pub(super) prec: Cow<'a, str>,
    #[serde(default)]
    pub(super) flags: Option<u64>,
    #[serde(default)]
    pub(super) code: Option<i64>,
    #[serde(default)]
    pub(super) msg: Option<String>,
}
