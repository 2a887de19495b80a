//! Bitget's names: `BTCUSDT` on spot and as a swap, `BTCPERP` in USDC, `BTCUSD` and `BTCUSDZ26` in the coin. Which of them
//! it is, only the kind of instrument beside it says.

use compact_str::{CompactString, format_compact};

use crate::symbols::{by_suffix, day_from_millis, joined};

/// The kinds of Bitget's instruments, whose names overlap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Spot,
    Usdt,
    Usdc,
    Coin,
}

/// The months that contracts are delivered in, by their letters.
const MONTHS: &[u8; 12] = b"FGHJKMNQUVXZ";

impl Kind {
    /// The kind that a frame is of, by `instType`; v1 calls all contracts one. None for those of demo trading.
    pub(super) fn of(inst_type: &str, native: &str) -> Option<Self> {
        let is = |name: &str| inst_type.eq_ignore_ascii_case(name);
        match () {
            () if is("SPOT") || is("SP") => Some(Kind::Spot),
            () if is("USDT-FUTURES") || (is("MC") && native.ends_with("USDT")) => Some(Kind::Usdt),
            () if is("USDC-FUTURES") || (is("MC") && native.ends_with("PERP")) => Some(Kind::Usdc),
            () if is("COIN-FUTURES") || is("MC") => Some(Kind::Coin),
            () => None,
        }
    }

    /// The kind that a symbol in normal form is of.
    pub(super) fn of_symbol(symbol: &str) -> Self {
        match symbol.split('-').nth(2).and_then(|_| symbol.split('-').nth(1)) {
            None => Kind::Spot,
            Some("USDT") => Kind::Usdt,
            Some("USDC") => Kind::Usdc,
            Some(_) => Kind::Coin,
        }
    }

    /// `instType` of a subscription, and `productType` of a list.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Spot => "SPOT",
            Kind::Usdt => "USDT-FUTURES",
            Kind::Usdc => "USDC-FUTURES",
            Kind::Coin => "COIN-FUTURES",
        }
    }

    /// The name with the kind before it: what an instrument is known by here.
    pub(super) fn key(self, native: &str) -> CompactString {
        let letter = match self {
            Kind::Spot => 's',
            Kind::Usdt => 't',
            Kind::Usdc => 'c',
            Kind::Coin => 'd',
        };
        format_compact!("{letter}{native}")
    }

    /// The normal form of a name that the list did not explain. The day of a delivery needs the list.
    pub(super) fn normal(self, native: &str) -> CompactString {
        if self == Kind::Usdc
            && let Some(base) = native.strip_suffix("PERP")
        {
            return format_compact!("{base}-USDC-PERP");
        }
        let pair = by_suffix(native);
        if self == Kind::Spot || !pair.contains('-') { pair } else { format_compact!("{pair}-PERP") }
    }

    /// The normal form by the list, which tells base, quote and the time of the delivery in milliseconds.
    pub(super) fn listed(self, base: &str, quote: &str, delivery: Option<i64>) -> CompactString {
        match delivery {
            _ if self == Kind::Spot => format_compact!("{base}-{quote}"),
            None => format_compact!("{base}-{quote}-PERP"),
            Some(millis) => format_compact!("{base}-{quote}-{}", day_from_millis(millis)),
        }
    }
}

/// Bitget's own name of a symbol in normal form.
pub(super) fn native(symbol: &str) -> CompactString {
    let mut parts = symbol.splitn(3, '-');
    let (Some(base), Some(quote), Some(delivery)) = (parts.next(), parts.next(), parts.next()) else {
        return joined(symbol);
    };
    match (delivery, quote) {
        ("PERP", "USDC") => format_compact!("{base}PERP"),
        ("PERP", _) => format_compact!("{base}{quote}"),
        (day, _) => {
            let month = day.get(4..6).and_then(|month| month.parse::<usize>().ok()?.checked_sub(1));
            match (day.get(2..4), month.and_then(|month| MONTHS.get(month))) {
                (Some(year), Some(letter)) => format_compact!("{base}{quote}{}{year}", char::from(*letter)),
                _ => joined(symbol),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (inst_type, venue, symbol) in [
            ("SPOT", "BTCUSDT", "BTC-USDT"),
            ("sp", "VVSUSDT", "VVS-USDT"),
            ("USDT-FUTURES", "BTCUSDT", "BTC-USDT-PERP"),
            ("mc", "UNIUSDT", "UNI-USDT-PERP"),
            ("usdc-futures", "BTCPERP", "BTC-USDC-PERP"),
            ("COIN-FUTURES", "BTCUSD", "BTC-USD-PERP"),
        ] {
            let kind = Kind::of(inst_type, venue).expect("a kind of theirs");
            assert_eq!(kind.normal(venue), symbol);
            assert_eq!(Kind::of_symbol(symbol), kind);
            assert_eq!(native(symbol), venue);
        }
        assert_eq!(Kind::of("SUSDT-FUTURES", "SBTCSUSDT"), None);
        assert_eq!(Kind::Coin.normal("BTCUSDZ26"), "BTCUSDZ26", "no day without the list");
        assert_eq!(Kind::Coin.listed("BTC", "USD", Some(1_798_185_600_000)), "BTC-USD-20261225");
        assert_eq!(native("BTC-USD-20261225"), "BTCUSDZ26");
        assert_eq!(native("BTC-USD-é"), "BTCUSDé");
    }
}
