//! Numbers as text: eight digits at a time, and without branches where the form of a number is known.

use ticker_market::Decimal;

/// Digits that always fit an `i64`.
pub(super) const DIGITS_MAX: usize = 18;

/// What so many digits more make of a number.
pub(super) const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// A byte in each of eight.
pub(super) const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// A number that a text begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Number {
    pub(super) digits: u64,
    pub(super) scale: u32,
    /// Bytes of the text; zero where there is no number.
    pub(super) length: u32,
}

impl Number {
    pub(super) const NONE: Self = Self { digits: 0, scale: 0, length: 0 };

    /// Quicker than `Decimal::new`, which is no inline function.
    #[inline(always)]
    pub(super) fn decimal(self) -> Decimal {
        Decimal::from_parts(self.digits as u32, (self.digits >> 32) as u32, 0, false, self.scale)
    }
}

/// How many digits a number has before its point, and how many behind it.
#[derive(Clone, Copy, Default)]
pub(super) struct Shape {
    pub(super) whole: usize,
    pub(super) part: usize,
}

/// The digits that eight bytes begin with.
#[derive(Clone, Copy)]
pub(super) struct Digits {
    /// Each byte that is a digit is its value, the first the lowest.
    bytes: u64,
    pub(super) count: usize,
}

impl Digits {
    /// Of the eight bytes from there.
    #[inline(always)]
    pub(super) fn of(text: &[u8; 17], at: usize) -> Self {
        let bytes = digits_from(text, at);
        let marks = marks(bytes);
        let count = if marks == 0 { 8 } else { marks.trailing_zeros() as usize / 8 };
        Self { bytes, count }
    }

    /// Their value; there is at least one.
    #[inline(always)]
    pub(super) fn value(self) -> u64 {
        value_of_eight(right(self.bytes, self.count))
    }
}

/// Eight bytes, of which each that is a digit becomes its value.
#[inline(always)]
fn digits_from(text: &[u8; 17], at: usize) -> u64 {
    text[at..].first_chunk().map_or(0, |text| u64::from_le_bytes(*text)) ^ eight(b'0')
}

/// A bit for each byte that is no digit's value.
#[inline(always)]
fn marks(digits: u64) -> u64 {
    (((digits & eight(0x7f)) + eight(0x80 - 10)) | digits) & eight(0x80)
}

/// The first of eight digits, from one to all, with zeros before them to make them eight.
#[inline(always)]
fn right(digits: u64, count: usize) -> u64 {
    digits << (64 - 8 * count)
}

/// The value of eight digits (0 to 9 each), the first in the lowest byte: pairs, then fours, then all at once.
#[inline(always)]
fn value_of_eight(digits: u64) -> u64 {
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let low = (pairs >> 16 & PAIRS).wrapping_mul(1 + (10_000 << 32));
    high.wrapping_add(low) >> 32
}

/// Digits with at most one point among them.
#[inline(always)]
pub(super) fn number_of(text: &[u8]) -> Number {
    let Some(head) = text.first_chunk::<17>() else { return number_by_byte(text) };
    // Up to seven, a point, and up to eight.
    let whole = Digits::of(head, 0);
    if whole.count == 0 || whole.count == 8 {
        return number_by_byte(text);
    }
    if head[whole.count] != b'.' {
        return Number { digits: whole.value(), scale: 0, length: whole.count as u32 };
    }
    let part = Digits::of(head, whole.count + 1);
    let length = whole.count + 1 + part.count;
    if part.count == 0 || head[length].is_ascii_digit() {
        return number_by_byte(text);
    }
    let digits = whole.value() * POWERS[part.count] + part.value();
    Number { digits, scale: part.count as u32, length: length as u32 }
}

/// As [`number_of`], of that shape and with a quote behind it; `None` where it is not so.
#[inline(always)]
pub(super) fn number_as(text: &[u8; 17], Shape { whole, part }: Shape) -> Option<Number> {
    if !(1..8).contains(&whole) || !(1..=8).contains(&part) {
        return None;
    }
    let length = whole + 1 + part;
    let is_so = (text[whole] == b'.') & (text[length] == b'"');
    let (wrong, digits) = if whole + part <= 8 {
        // The point left out.
        let before = (1 << (8 * whole)) - 1;
        let both = right(digits_from(text, 0) & before | digits_from(text, 1) & !before, whole + part);
        (marks(both), value_of_eight(both))
    } else {
        let (high, low) = (right(digits_from(text, 0), whole), right(digits_from(text, whole + 1), part));
        (marks(high) | marks(low), value_of_eight(high) * POWERS[part] + value_of_eight(low))
    };
    (is_so & (wrong == 0)).then_some(Number { digits, scale: part as u32, length: length as u32 })
}

#[cold]
#[inline(never)]
pub(super) fn number_by_byte(text: &[u8]) -> Number {
    let mut number = 0u64;
    let mut at = 0;
    let mut point = None;
    loop {
        match text.get(at) {
            Some(c @ b'0'..=b'9') => number = number.wrapping_mul(10).wrapping_add(u64::from(c - b'0')),
            Some(b'.') if point.is_none() => point = Some(at + 1),
            _ => break,
        }
        at += 1;
    }
    let digits = at - usize::from(point.is_some());
    if digits == 0 || digits > DIGITS_MAX {
        return Number::NONE;
    }
    Number { digits: number, scale: point.map_or(0, |point| at - point) as u32, length: at as u32 }
}
