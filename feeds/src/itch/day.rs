//! Midnight in New York, from which ITCH counts its time.

use ticker_market::Time;

const DAY_NANOS: i64 = 86_400_000_000_000;
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// The midnight with which a day such as `2020-01-30` begins in New York; `None` where that is no day. Daylight saving
/// time as it has been since 2007 (15 U.S.C. § 260a): ITCH 5.0 is younger.
pub fn midnight(day: &str) -> Option<Time> {
    let utc = Time::parse_rfc3339(&format!("{day}T00:00:00Z")).filter(|_| day.len() == 10)?;
    let year: i64 = day.get(..4)?.parse().ok()?;
    let days = utc.0 / DAY_NANOS;
    // From the second Sunday in March to the first Sunday in November, at two in the morning.
    let begins = sunday_from(&format!("{year:04}-03-08"))?;
    let ends = sunday_from(&format!("{year:04}-11-01"))?;
    let hours = if days > begins && days <= ends { 4 } else { 5 };
    Some(utc.plus_nanos(hours * HOUR_NANOS))
}

/// As [`midnight`], for a file that is named as Nasdaq does: `01302020.NASDAQ_ITCH50`.
pub fn midnight_of_file(name: &str) -> Option<Time> {
    let digits = name.get(..8).filter(|digits| digits.bytes().all(|c| c.is_ascii_digit()))?;
    midnight(&format!("{}-{}-{}", &digits[4..], &digits[..2], &digits[2..4]))
}

/// The first Sunday not before that day, in days since 1970-01-01, which was a Thursday.
fn sunday_from(day: &str) -> Option<i64> {
    let days = Time::parse_rfc3339(&format!("{day}T00:00:00Z"))?.0 / DAY_NANOS;
    Some(days + (3 - days).rem_euclid(7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midnight_is_that_of_new_york() {
        for (day, utc) in [
            ("2020-01-30", "2020-01-30T05:00:00Z"),
            ("2019-07-30", "2019-07-30T04:00:00Z"),
            ("2026-03-08", "2026-03-08T05:00:00Z"),
            ("2026-03-09", "2026-03-09T04:00:00Z"),
            ("2026-11-01", "2026-11-01T04:00:00Z"),
            ("2026-11-02", "2026-11-02T05:00:00Z"),
        ] {
            assert_eq!(midnight(day), Time::parse_rfc3339(utc), "{day}");
        }
        assert_eq!(midnight_of_file("01302020.NASDAQ_ITCH50.gz"), midnight("2020-01-30"));
        for bad in ["", "2020-13-01", "20200130", "2020-01-30Z", "é"] {
            assert_eq!(midnight(bad), None, "{bad}");
            assert_eq!(midnight_of_file(bad), None, "{bad}");
        }
    }
}
