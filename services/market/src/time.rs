//! A moment, in nanoseconds since the Unix epoch.

use crate::decimal;

/// Nanoseconds since the Unix epoch (UTC). Signed, so that the difference of two clocks is a plain subtraction: a
/// venue's clock may run ahead of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Time(pub i64);

impl Time {
    /// From whole microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// From whole milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch, rounded down: the unit of the JSON contract.
    pub const fn micros(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This moment, `nanos` later.
    #[must_use]
    pub const fn plus_nanos(self, nanos: i64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// This moment, `millis` later.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        self.plus_nanos(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds from `earlier` to this moment; negative when `earlier` is in fact later.
    pub const fn since(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As RFC 3339 in UTC with nanoseconds (`2026-08-09T21:05:49.020073000Z`): what [`Time::parse_rfc3339`] reads.
    pub fn to_rfc3339(self) -> String {
        let (seconds, nanos) = (self.0.div_euclid(1_000_000_000), self.0.rem_euclid(1_000_000_000));
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }

    /// Parses RFC 3339 in UTC (`2026-08-09T21:05:49.020073Z`), with 0 to 9 digits of a second's fraction; what is
    /// beyond nanoseconds is cut off. Numeric offsets are not accepted: no venue here sends them.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (head, mut rest) = text.as_bytes().split_first_chunk::<19>()?;
        let (date, clock) = head[..16].split_at(8);
        let mut clock = *clock.first_chunk()?;
        if clock[2] == b' ' {
            clock[2] = b'T';
        }
        let ([century, _, of_century, _, _, month, ..], [day, _, _, hour, _, _, minute, _]) =
            (DATE.numbers(*date.first_chunk()?)?, CLOCK.numbers(clock)?);
        let [b':', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = head[16..] else { return None };
        let (year, month, day) = (century * 100 + of_century, month, day);
        let second = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (mut nanos, mut places) = (0, decimal::POWERS.len() - 1);
        if let Some(fraction) = rest.strip_prefix(b".") {
            rest = fraction;
            while let Some((c @ b'0'..=b'9', after)) = rest.split_first() {
                if places > 0 {
                    (nanos, places) = (nanos * 10 + i64::from(c - b'0'), places - 1);
                }
                rest = after;
            }
            nanos *= decimal::POWERS[places];
        }
        if rest != b"Z" {
            return None;
        }
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        // Nanoseconds of a year beyond 2262 do not fit.
        Some(Self(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?))
    }
}

const DATE: Form = Form::new(*b"0000-00-");
const CLOCK: Form = Form::new(*b"00T00:00");

/// A text of eight bytes, with a zero for each digit.
struct Form {
    text: u64,
    /// What can be added to the difference of a byte that is as it should be, and leaves its highest bit clear.
    room: u64,
}

impl Form {
    const fn new(text: [u8; 8]) -> Self {
        let (mut room, mut at) = ([0x7f; 8], 0);
        while at < text.len() {
            if text[at] == b'0' {
                room[at] = 0x7f - 9;
            }
            at += 1;
        }
        Self { text: u64::from_le_bytes(text), room: u64::from_le_bytes(room) }
    }

    /// The numbers of two digits that begin at each byte, where the text has this form.
    #[inline]
    fn numbers(&self, text: [u8; 8]) -> Option<[i64; 8]> {
        const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
        let digits = u64::from_le_bytes(text) ^ self.text;
        let is_wrong = (((digits & !HIGH) + self.room) | digits) & HIGH != 0;
        (!is_wrong).then(|| (digits * 10 + (digits >> 8)).to_le_bytes().map(i64::from))
    }
}

/// Year, month and day of a number of days since 1970-01-01 (as [`days_from_civil`]).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, doe) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    (era * 400 + yoe + i64::from(month <= 2), month, day)
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms").
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_read_to_the_nanosecond() {
        assert_eq!(Time::parse_rfc3339("1970-01-01T00:00:00Z"), Some(Time(0)));
        assert_eq!(Time::parse_rfc3339("2026-08-09T21:05:49.051219529Z"), Some(Time(1_786_309_549_051_219_529)));
        assert_eq!(Time::parse_rfc3339("1999-12-31 23:59:59Z"), Some(Time(946_684_799_000_000_000)));
        assert_eq!(Time::parse_rfc3339("2026-08-09T21:05:38.50436Z"), Some(Time(1_786_309_538_504_360_000)));
        assert_eq!(Time::parse_rfc3339("1970-01-01T00:00:00.0000000019Z"), Some(Time(1)));
        assert_eq!(Time::parse_rfc3339("1970-01-01T00:00:00.Z"), Some(Time(0)));
        let bad = [
            "",
            "2026-08-09",
            "2026-13-09T21:05:49Z",
            "2026-08-09T21:05:49",
            "2026-08-09T21:05:49.1+01:00",
            "9026-08-09T21:05:49Z",
            "2026-08-09T21:05:4:Z",
            "2026-08-0/T21:05:49Z",
            "2026-08-09T21:05-49Z",
            "2026-08-09t21:05:49Z",
            "2026-08\u{ad}09T21:05:49Z",
        ];
        for bad in bad {
            assert_eq!(Time::parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn rfc3339_is_written_as_it_is_read() {
        for nanos in [0, 951_782_400_000_000_001, 1_786_309_549_051_219_529, -1, 4_102_444_799_999_999_999] {
            assert_eq!(Time::parse_rfc3339(&Time(nanos).to_rfc3339()), Some(Time(nanos)));
        }
        assert_eq!(Time(1_786_309_549_051_219_529).to_rfc3339(), "2026-08-09T21:05:49.051219529Z");
    }

    #[test]
    fn micros_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(Time(1_999).micros(), 1);
        assert_eq!(Time(-1).micros(), -1);
    }
}
