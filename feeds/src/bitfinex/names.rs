//! Bitfinex's names: `tBTCUSD`, `tAAVE:USD`, `tBTCF0:USTF0`.

use compact_str::{CompactString, format_compact};

/// Codes that differ from what the rest of the world says (the venue's own list is `conf/pub:map:currency:sym`).
const CODES: [(&str, &str); 8] = [
    ("ALG", "ALGO"),
    ("ATO", "ATOM"),
    ("DSH", "DASH"),
    ("IOT", "IOTA"),
    ("MNA", "MANA"),
    ("QTM", "QTUM"),
    ("UDC", "USDC"),
    ("UST", "USDT"),
];

/// The normal form of a name.
pub(super) fn normal(native: &str) -> CompactString {
    let pair = native.strip_prefix('t').unwrap_or(native);
    let split = pair.split_once(':').or_else(|| (pair.len() == 6).then(|| pair.split_at_checked(3)).flatten());
    let Some((base, quote)) = split else { return pair.into() };
    match (base.strip_suffix("F0"), quote.strip_suffix("F0")) {
        (Some(base), Some(quote)) => format_compact!("{}-{}-PERP", world(base), world(quote)),
        _ => format_compact!("{}-{}", world(base), world(quote)),
    }
}

/// Bitfinex's own name of a symbol in normal form.
pub(super) fn native(symbol: &str) -> CompactString {
    let (pair, perpetual) = symbol.strip_suffix("-PERP").map_or((symbol, false), |pair| (pair, true));
    let Some((base, quote)) = pair.split_once('-') else { return format_compact!("t{symbol}") };
    let (base, quote) = (venue(base), venue(quote));
    match (perpetual, base.len(), quote.len()) {
        (true, _, _) => format_compact!("t{base}F0:{quote}F0"),
        (false, 3, 3) => format_compact!("t{base}{quote}"),
        _ => format_compact!("t{base}:{quote}"),
    }
}

fn world(code: &str) -> &str {
    CODES.iter().find(|(ours, _)| *ours == code).map_or(code, |(_, world)| world)
}

fn venue(code: &str) -> &str {
    CODES.iter().find(|(_, world)| *world == code).map_or(code, |(ours, _)| ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (venue, symbol) in [
            ("tBTCUSD", "BTC-USD"),
            ("tBTCUST", "BTC-USDT"),
            ("tAAVE:USD", "AAVE-USD"),
            ("tTESTBTC:TESTUSD", "TESTBTC-TESTUSD"),
            ("tBTCF0:USTF0", "BTC-USDT-PERP"),
        ] {
            assert_eq!(normal(venue), symbol);
            assert_eq!(native(symbol), venue);
        }
        assert_eq!(normal("téééx"), "éééx");
    }
}
