//! Streams of the best levels (`btcusdt@depth20@100ms`), all of them each time; they are not subscribed to, but recordings
//! may have nothing else.

use serde::Deserialize;
use ticker_market::{Levels, Time};

use super::Binance;
use crate::keeper::Stamp;
use crate::wire::LevelPairs;
use crate::{Conn, Out};

/// The symbol, in small letters, and the levels a side.
pub(super) fn stream(name: &str) -> Option<(&str, usize)> {
    let (symbol, stream) = name.split_once('@')?;
    let depth = stream.strip_prefix("depth")?.split('@').next()?;
    Some((symbol, depth.parse().ok()?))
}

/// `<symbol>@depth<levels>`; on spot without a symbol and a time.
#[derive(Deserialize)]
struct PartialDepth {
    #[serde(rename = "E", default)]
    event_ms: Option<i64>,
    #[serde(alias = "b", default)]
    bids: LevelPairs,
    #[serde(alias = "a", default)]
    asks: LevelPairs,
}

impl Binance {
    pub(super) fn window(
        &mut self,
        conn: Conn,
        symbol: &str,
        depth: usize,
        payload: &str,
        recv: Time,
        out: &mut Out,
    ) -> Result<(), serde_json::Error> {
        let partial: PartialDepth = serde_json::from_str(payload)?;
        let levels = Levels { bids: partial.bids.0, asks: partial.asks.0, ..Levels::default() };
        let stamp = Stamp { ts: partial.event_ms.map(Time::from_millis), recv };
        if let Some((keeper, _)) = self.keep(&symbol.to_ascii_uppercase(), out) {
            keeper.window(conn, depth, &levels, stamp, out);
        }
        Ok(())
    }
}
