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

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// A day of delivery in normal form, `20260925`, from `25SEP26` or `5SEP26`.
pub(crate) fn day_from_name(name: &str) -> Option<CompactString> {
    let day = name.strip_suffix(|c: char| c.is_ascii_digit())?.strip_suffix(|c: char| c.is_ascii_digit())?;
    let year = &name[day.len()..];
    let month = MONTHS.iter().position(|month| day.ends_with(month))? + 1;
    let day = day[..day.len() - 3].parse::<u8>().ok().filter(|day| (1..=31).contains(day))?;
    Some(format_compact!("20{year}{month:02}{day:02}"))
}

/// The name of a day, `25SEP26`, from its normal form.
pub(crate) fn name_from_day(day: &str) -> Option<CompactString> {
    if day.len() != 8 || !day.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let month = MONTHS.get(day[4..6].parse::<usize>().ok()?.checked_sub(1)?)?;
    Some(format_compact!("{}{month}{}", day[6..].trim_start_matches('0'), &day[2..4]))
}

/// A day in normal form from milliseconds since the Unix epoch (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
pub(crate) fn day_from_millis(millis: i64) -> CompactString {
    let days = millis.div_euclid(86_400_000) + 719_468;
    let (era, doe) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    format_compact!("{:04}{month:02}{day:02}", era * 400 + yoe + i64::from(month <= 2))
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
    fn days_are_named_there_and_back() {
        for (name, day) in [("25SEP26", "20260925"), ("5JAN30", "20300105"), ("29FEB28", "20280229")] {
            assert_eq!(day_from_name(name).as_deref(), Some(day));
            assert_eq!(name_from_day(day).as_deref(), Some(name));
        }
        for bad in ["", "25", "SEP26", "25FOO26", "99SEP26", "é26", "0925"] {
            assert_eq!(day_from_name(bad), None, "{bad}");
        }
        assert_eq!(name_from_day("20261301"), None);
        assert_eq!(day_from_millis(1_786_694_400_000), "20260814");
        assert_eq!(day_from_millis(951_782_400_000), "20000229");
    }

    #[test]
    fn queries_are_read() {
        let url = "https://www.binance.com/api/v1/depth?symbol=BTCUSDT&limit=1000";
        assert_eq!(query(url, "symbol"), Some("BTCUSDT"));
        assert_eq!(query(url, "sym"), None);
        assert_eq!(query("no query", "symbol"), None);
    }
}
