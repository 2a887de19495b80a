//! OKX's names, which say everything: `BTC-USDT`, `BTC-USDT-SWAP`, `BTC-USD-260925`, `BTC-USD-260925-70000-C`.

use compact_str::{CompactString, format_compact};

/// The normal form of a name.
pub(super) fn normal(native: &str) -> CompactString {
    let Some((pair, rest)) = after_pair(native) else { return native.into() };
    match rest {
        "SWAP" => format_compact!("{pair}-PERP"),
        _ if is_day(rest, 6) => format_compact!("{pair}-20{rest}"),
        _ => native.into(),
    }
}

/// OKX's own name of a symbol in normal form.
pub(super) fn native(symbol: &str) -> CompactString {
    let Some((pair, rest)) = after_pair(symbol) else { return symbol.into() };
    match rest {
        "PERP" => format_compact!("{pair}-SWAP"),
        _ if is_day(rest, 8) => format_compact!("{pair}-{}", &rest[2..]),
        _ => symbol.into(),
    }
}

/// The list that has an instrument, as the query of its URL.
pub(super) fn list_of(native: &str) -> CompactString {
    match after_pair(native) {
        None => "SPOT".into(),
        Some((_, "SWAP")) => "SWAP".into(),
        Some((pair, rest)) if rest.contains('-') => format_compact!("OPTION&instFamily={pair}"),
        Some(_) => "FUTURES".into(),
    }
}

fn after_pair(name: &str) -> Option<(&str, &str)> {
    let second = name.match_indices('-').nth(1)?.0;
    Some((&name[..second], &name[second + 1..]))
}

/// Does it begin with a day of so many digits, alone or before an option's strike?
fn is_day(rest: &str, digits: usize) -> bool {
    let day = rest.split('-').next().unwrap_or_default();
    day.len() == digits && day.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for (venue, symbol, list) in [
            ("BTC-USDT", "BTC-USDT", "SPOT"),
            ("BTC-USDT-SWAP", "BTC-USDT-PERP", "SWAP"),
            ("BTC-USD-260925", "BTC-USD-20260925", "FUTURES"),
            ("BTC-USD-260925-70000-C", "BTC-USD-20260925-70000-C", "OPTION&instFamily=BTC-USD"),
        ] {
            assert_eq!(normal(venue), symbol);
            assert_eq!(native(symbol), venue);
            assert_eq!(list_of(venue), list);
        }
        assert_eq!(normal("A-B-é"), "A-B-é");
    }
}
