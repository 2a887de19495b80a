//! Names without a separator: `BTCUSDT` is `BTC-USDT` in normal form, which the name alone does not say. And what the
//! URLs say that such names come in.

use compact_str::{CompactString, format_compact};

/// Assets that prices are quoted in, for names that no list of the venue explained. The longest one that a name ends
/// with is taken.
pub const QUOTE_ASSETS: [&str; 42] = [
    "USDT", "FDUSD", "USDC", "BUSD", "TUSD", "USDP", "USDS", "USD1", "AEUR", "EURI", "PAX", "DAI", "UST", "USD", "BTC",
    "ETH", "BNB", "SOL", "XRP", "TRX", "DOGE", "DOT", "EUR", "GBP", "TRY", "BRL", "AUD", "RUB", "UAH", "NGN", "ZAR",
    "PLN", "RON", "ARS", "COP", "CZK", "MXN", "JPY", "IDRT", "BIDR", "BVND", "BKRW",
];

/// The normal form of a name, by the list alone; the name itself where the list does not help.
pub(crate) fn by_suffix(native: &str) -> CompactString {
    let quote = QUOTE_ASSETS
        .into_iter()
        .filter(|quote| native.len() > quote.len() && native.ends_with(quote))
        .max_by_key(|quote| quote.len());
    match quote {
        Some(quote) => format_compact!("{}-{quote}", &native[..native.len() - quote.len()]),
        None => native.into(),
    }
}

/// A symbol in normal form without its separators.
pub(crate) fn joined(symbol: &str) -> CompactString {
    symbol.chars().filter(|c| *c != '-').collect()
}

/// The value of a parameter in a URL's query.
pub(crate) fn query<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = url.split_once('?')?;
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_the_longest_quote_asset() {
        for (native, symbol) in [
            ("BTCUSDT", "BTC-USDT"),
            ("BTCFDUSD", "BTC-FDUSD"),
            ("RENBTCETH", "RENBTC-ETH"),
            ("BTCSTUSDT", "BTCST-USDT"),
            ("ETHBRL", "ETH-BRL"),
            ("USDTTRY", "USDT-TRY"),
            ("TUSDUSDT", "TUSD-USDT"),
            ("AXSBNB", "AXS-BNB"),
            ("BTC", "BTC"),
            ("FOOBAR", "FOOBAR"),
        ] {
            assert_eq!(by_suffix(native), symbol);
        }
    }

    #[test]
    fn queries_are_read() {
        let url = "https://www.binance.com/api/v1/depth?symbol=BTCUSDT&limit=1000";
        assert_eq!(query(url, "symbol"), Some("BTCUSDT"));
        assert_eq!(query(url, "sym"), None);
        assert_eq!(query("no query", "symbol"), None);
    }
}
