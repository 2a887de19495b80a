//! What differs between Binance's markets: where they are, how their differences are joined, how instruments are named.

use compact_str::{CompactString, format_compact};

use crate::depth::Rule;
use crate::symbols;

/// Levels a side in a fetched snapshot of spot: the most that the venue gives.
pub const SNAPSHOT_LEVELS: usize = 5_000;

/// Levels a side in a fetched snapshot of futures: the most that the venue gives.
pub const FUTURES_SNAPSHOT_LEVELS: usize = 1_000;

/// One of Binance's markets, each with a feed of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Market {
    /// Spot.
    Spot,
    /// Futures and perpetuals that are settled in a dollar coin.
    UsdM,
    /// Futures and perpetuals that are settled in the base coin; sizes are contracts.
    CoinM,
}

impl Market {
    /// The venue's name in topics.
    pub const fn venue(self) -> &'static str {
        match self {
            Market::Spot => "binance",
            Market::UsdM => "binance-usdm",
            Market::CoinM => "binance-coinm",
        }
    }

    pub(super) const fn rest(self) -> &'static str {
        match self {
            Market::Spot => "https://api.binance.com/api/v3",
            Market::UsdM => "https://fapi.binance.com/fapi/v1",
            Market::CoinM => "https://dapi.binance.com/dapi/v1",
        }
    }

    /// Of USD-M's two entry points, `public` carries what the matching engine pushes: trades, books, best prices.
    pub(super) const fn websocket(self) -> &'static str {
        match self {
            Market::Spot => "wss://stream.binance.com:9443/stream",
            Market::UsdM => "wss://fstream.binance.com/public/stream",
            Market::CoinM => "wss://dstream.binance.com/stream",
        }
    }

    /// Spot joins `U` to the last `u`. On the futures markets, whose update ids are shared by all symbols, `pu` names
    /// the last `u`.
    pub(super) const fn rule(self) -> Rule {
        match self {
            Market::Spot => Rule::Ranges,
            Market::UsdM | Market::CoinM => Rule::Chain,
        }
    }

    /// Levels a side in a fetched snapshot: the most that the market gives.
    pub(super) const fn snapshot_levels(self) -> usize {
        match self {
            Market::Spot => SNAPSHOT_LEVELS,
            Market::UsdM | Market::CoinM => FUTURES_SNAPSHOT_LEVELS,
        }
    }

    /// Where a book's snapshot is.
    pub(super) fn snapshot_url(self, native: &str) -> String {
        format!("{}/depth?symbol={native}&limit={}", self.rest(), self.snapshot_levels())
    }

    /// Symbols on one connection, at three streams each.
    pub(super) const fn symbols_max(self) -> usize {
        match self {
            Market::Spot | Market::UsdM => super::SYMBOLS_MAX,
            Market::CoinM => super::COINM_SYMBOLS_MAX,
        }
    }

    /// The normal form of a name that the market's list did not explain.
    pub(super) fn by_name(self, native: &str) -> CompactString {
        if self == Market::Spot {
            return symbols::by_suffix(native);
        }
        let (pair, delivery) = native.split_once('_').unwrap_or((native, "PERP"));
        contract(&symbols::by_suffix(pair), delivery)
    }

    /// The normal form of a name that the list explains.
    pub(super) fn by_assets(self, native: &str, base: &str, quote: &str) -> CompactString {
        let pair = format_compact!("{base}-{quote}");
        match self {
            Market::Spot => pair,
            Market::UsdM | Market::CoinM => contract(&pair, native.split_once('_').map_or("PERP", |(_, d)| d)),
        }
    }

    /// Binance's own name of a symbol in normal form.
    pub(super) fn native(self, symbol: &str) -> CompactString {
        if self == Market::Spot {
            return symbols::joined(symbol);
        }
        let Some((pair, delivery)) = symbol.rsplit_once('-') else { return symbol.into() };
        let pair = symbols::joined(pair);
        match (delivery, self) {
            ("PERP", Market::UsdM) => pair,
            ("PERP", _) => format_compact!("{pair}_PERP"),
            _ => format_compact!("{pair}_{}", delivery.strip_prefix("20").unwrap_or(delivery)),
        }
    }
}

/// `PERP`, or the day of delivery as `260925`.
fn contract(pair: &str, delivery: &str) -> CompactString {
    match delivery {
        "PERP" => format_compact!("{pair}-PERP"),
        _ => format_compact!("{pair}-20{delivery}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contracts_are_named_there_and_back() {
        for (market, native, symbol) in [
            (Market::Spot, "BTCUSDT", "BTC-USDT"),
            (Market::UsdM, "BTCUSDT", "BTC-USDT-PERP"),
            (Market::UsdM, "1000PEPEUSDC", "1000PEPE-USDC-PERP"),
            (Market::UsdM, "BTCUSDT_260925", "BTC-USDT-20260925"),
            (Market::CoinM, "BTCUSD_PERP", "BTC-USD-PERP"),
            (Market::CoinM, "ETHUSD_210924", "ETH-USD-20210924"),
        ] {
            assert_eq!(market.by_name(native), symbol);
            assert_eq!(market.native(symbol), native);
        }
        assert_eq!(Market::UsdM.by_assets("FOOBAR_260925", "FOO", "BAR"), "FOO-BAR-20260925");
    }
}
