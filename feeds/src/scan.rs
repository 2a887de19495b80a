//! Reads the few forms of frames that a venue sends most, straight from their bytes.
//!
//! A scan knows less than JSON: no spaces, no escapes, no exponents, keys that it was told of. Where something is not as
//! it expects, it gives up with `None`, and the frame is decoded the general way, by serde. What it does accept, it reads
//! as serde would: each venue that scans has a test that holds the two against each other, on frames as they come and on
//! frames of which some bytes are others.
//!
//! Nothing is built in between, which is what makes it several times as fast (`benches/DECODE.md`).

use ticker_market::{Decimal, Level};

/// The rest of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    rest: &'a [u8],
}

/// Digits that always fit an `i64`.
const DIGITS_MAX: usize = 18;

/// A byte in each of eight, or of sixteen.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}
const fn sixteen(byte: u8) -> u128 {
    u128::from_ne_bytes([byte; 16])
}

/// The value of eight digits (0 to 9 each), the first in the lowest byte: pairs, then fours, then all at once.
#[inline]
fn value_of_eight(digits: u64) -> u64 {
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let low = (pairs >> 16 & PAIRS).wrapping_mul(1 + (10_000 << 32));
    high.wrapping_add(low) >> 32
}

impl<'a> Scan<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Exactly these bytes.
    #[inline]
    pub(crate) fn eat(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// Any byte.
    #[inline]
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// The end of the frame.
    pub(crate) fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }

    /// The rest of a string, of which the quote before it was read: visible ASCII without escapes.
    #[inline]
    pub(crate) fn until_quote(&mut self) -> Option<&'a str> {
        // Eight at a time: the lowest marked byte is the first that is no visible ASCII, or a quote, or a backslash. A
        // mark may be wrong only above a right one.
        let mut at = 0;
        while let Some(chunk) = self.rest[at..].first_chunk::<8>() {
            let text = u64::from_le_bytes(*chunk);
            let is_zero = |bytes: u64| bytes.wrapping_sub(eight(1)) & !bytes;
            let below = text.wrapping_sub(eight(b' ')) & !text;
            let marks =
                text | below | is_zero(text ^ eight(b'"')) | is_zero(text ^ eight(b'\\')) | is_zero(text ^ eight(0x7f));
            match marks & eight(0x80) {
                0 => at += 8,
                marks => {
                    at += marks.trailing_zeros() as usize / 8;
                    break;
                }
            }
        }
        at += self.rest[at..].iter().position(|c| !matches!(c, 0x20..=0x7e) || matches!(c, b'"' | b'\\'))?;
        let (text, rest) = self.rest.split_at(at);
        self.rest = rest.strip_prefix(b"\"")?;
        std::str::from_utf8(text).ok()
    }

    /// A string.
    #[inline]
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        self.eat(b"\"")?;
        self.until_quote()
    }

    /// A number without sign, point and exponent.
    #[inline]
    pub(crate) fn whole(&mut self) -> Option<u64> {
        let mut number = 0u64;
        let mut digits = 0;
        while let Some(c @ b'0'..=b'9') = self.rest.get(digits) {
            number = number.wrapping_mul(10).wrapping_add(u64::from(c - b'0'));
            digits += 1;
        }
        // JSON has no leading zeros.
        if digits == 0 || digits > DIGITS_MAX || digits > 1 && self.rest[0] == b'0' {
            return None;
        }
        self.rest = &self.rest[digits..];
        Some(number)
    }

    /// As [`Scan::whole`], where the field is signed.
    #[inline]
    pub(crate) fn signed(&mut self) -> Option<i64> {
        self.whole().and_then(|number| i64::try_from(number).ok())
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        if self.eat(b"true").is_some() {
            return Some(true);
        }
        self.eat(b"false").map(|()| false)
    }

    /// A string that holds a decimal, as [`decimal::parse`](ticker_market::decimal::parse) reads it.
    #[inline]
    pub(crate) fn quoted(&mut self) -> Option<Decimal> {
        self.eat(b"\"")?;
        let (number, _) = self.digits()?;
        self.eat(b"\"")?;
        Some(number)
    }

    /// A number that is kept with its digits.
    #[inline]
    pub(crate) fn number(&mut self) -> Option<Decimal> {
        let start = self.rest;
        let (number, length) = self.digits()?;
        // JSON has digits on both sides of the point, and no leading zeros.
        let text = &start[..length];
        let is_json = match text {
            [b'.', ..] | [.., b'.'] => false,
            [b'0', second, ..] => *second == b'.',
            _ => true,
        };
        is_json.then_some(number)
    }

    /// Digits with at most one point among them, and their length. Most of a scan's time is spent here.
    #[inline(always)]
    fn digits(&mut self) -> Option<(Decimal, usize)> {
        let Some(head) = self.rest.first_chunk::<16>() else { return self.digits_by_byte() };
        // Sixteen bytes at once; a digit is its value, and what is none has a mark.
        let text = u128::from_le_bytes(*head) ^ sixteen(b'0');
        let marks = ((text & sixteen(0x7f)) + sixteen(0x80 - 10) | text) & sixteen(0x80);
        if marks == 0 {
            return self.digits_by_byte();
        }
        let first = marks.trailing_zeros() / 8;
        let (digits, count, length, scale) = if self.rest.get(first as usize) == Some(&b'.') {
            let length = (marks & marks - 1).trailing_zeros() / 8;
            let whole = (1u128 << (8 * first)) - 1;
            // What is behind the point moves into its place.
            (text & whole | text >> 8 & !whole, length - 1, length, length - 1 - first)
        } else {
            (text, first, first, 0)
        };
        if length >= 16 {
            return self.digits_by_byte();
        }
        if count == 0 {
            return None;
        }
        // Zeros before, to make them sixteen.
        let digits = digits << (8 * (16 - count));
        let number = value_of_eight(digits as u64) * 100_000_000 + value_of_eight((digits >> 64) as u64);
        self.rest = &self.rest[length as usize..];
        // Quicker than `Decimal::new`, which is no inline function.
        Some((Decimal::from_parts(number as u32, (number >> 32) as u32, 0, false, scale), length as usize))
    }

    fn digits_by_byte(&mut self) -> Option<(Decimal, usize)> {
        let mut number = 0u64;
        let mut at = 0;
        let mut point = None;
        loop {
            match self.rest.get(at) {
                Some(c @ b'0'..=b'9') => number = number.wrapping_mul(10).wrapping_add(u64::from(c - b'0')),
                Some(b'.') if point.is_none() => point = Some(at + 1),
                _ => break,
            }
            at += 1;
        }
        let digits = at - usize::from(point.is_some());
        if digits == 0 || digits > DIGITS_MAX {
            return None;
        }
        let scale = point.map_or(0, |point| at - point);
        self.rest = &self.rest[at..];
        Some((Decimal::new(i64::try_from(number).ok()?, u32::try_from(scale).ok()?), at))
    }

    /// Levels as `[["price","size"],…]`, behind those that `into` has.
    #[inline]
    pub(crate) fn pairs(&mut self, into: &mut Vec<Level>) -> Option<()> {
        self.eat(b"[")?;
        if self.eat(b"]").is_some() {
            return Some(());
        }
        loop {
            self.eat(b"[\"")?;
            let (price, _) = self.digits()?;
            self.eat(b"\",\"")?;
            let (size, _) = self.digits()?;
            self.eat(b"\"]")?;
            into.push(Level { price, size });
            match self.byte()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// A value that nobody wants: a string, a number, true or false.
    #[inline]
    pub(crate) fn pass_over(&mut self) -> Option<()> {
        match self.rest.first()? {
            b'"' => self.text().map(drop),
            b't' | b'f' => self.flag().map(drop),
            _ => self.whole().map(drop),
        }
    }

    /// The fields of an object: `each` reads the value of the key that it is given.
    #[inline]
    pub(crate) fn fields(&mut self, mut each: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.eat(b"{\"")?;
        loop {
            let at = self.rest.iter().position(|c| *c == b'"')?;
            let (key, rest) = self.rest.split_at(at);
            self.rest = rest.strip_prefix(b"\":")?;
            each(self, key)?;
            match self.byte()? {
                b',' => self.eat(b"\"")?,
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }
}

/// Fills a field. A second one of that name is for serde to refuse.
#[inline]
pub(crate) fn fill<T>(field: &mut Option<T>, value: Option<T>) -> Option<()> {
    match field.replace(value?) {
        None => Some(()),
        Some(_) => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ticker_market::decimal;

    use super::*;
    use crate::wire::{LevelPairs, Number, Quoted};

    /// A frame with some of its bytes others, the way that numbers, strings and structure break.
    pub(crate) fn changed(rng: &mut fastrand::Rng, frame: &[u8]) -> Vec<u8> {
        const OTHERS: &[u8] = b"0123456789.-+eE\"\\,:[]{} \x00\x7f\xc3ntf";
        let mut bytes = frame.to_vec();
        for _ in 0..rng.usize(1..4) {
            if bytes.is_empty() {
                break;
            }
            let at = rng.usize(..bytes.len());
            let other = OTHERS[rng.usize(..OTHERS.len())];
            match rng.u8(..4) {
                0 => bytes[at] = other,
                1 => bytes.insert(at, other),
                2 => _ = bytes.remove(at),
                _ => {
                    // A piece comes twice: a field, a level, half a number.
                    let end = rng.usize(at..bytes.len().min(at + 24));
                    let piece = bytes[at..=end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }

    #[test]
    fn numbers_are_those_of_the_general_way() {
        let texts = [
            "0",
            "00",
            "01",
            "1",
            "1.0",
            "0.00005100",
            ".5",
            "5.",
            ".",
            "",
            "1.2.3",
            "123456789012345678",
            "1e5",
            "-1",
            "1234567890123456789",
            "0.123456789012345678",
            "999999999999999999",
            "12345678.123456789012",
            "0.",
            "00.1",
        ];
        for text in texts {
            let quoted = format!("\"{text}\"");
            if let Some(found) = Scan::new(quoted.as_bytes()).quoted() {
                let general: Quoted = serde_json::from_str(&quoted).expect(text);
                assert_eq!(format!("{found:?}"), format!("{:?}", general.0), "{text}");
            }
            let mut scan = Scan::new(text.as_bytes());
            if let Some(found) = scan.number().filter(|_| scan.end().is_some()) {
                let general: Number = serde_json::from_str(text).expect(text);
                assert_eq!(format!("{found:?}"), format!("{:?}", general.0), "{text}");
            }
            let mut scan = Scan::new(text.as_bytes());
            if let Some(found) = scan.whole().filter(|_| scan.end().is_some()) {
                assert_eq!(found, serde_json::from_str::<u64>(text).expect(text));
            }
        }
        let usual = Scan::new(br#""61737.63000000""#).quoted();
        assert_eq!(usual.map(|d| (d, d.scale())), decimal::parse("61737.63000000").map(|d| (d, 8)));
    }

    #[test]
    fn levels_are_those_of_the_general_way() {
        let mut rng = fastrand::Rng::with_seed(11);
        let frame = br#"[["61737.63000000","0.00000000"],["61730.17","12"],[".5","5."]]"#;
        let mut accepted = 0;
        for _ in 0..20_000 {
            let bytes = changed(&mut rng, frame);
            let (mut scan, mut levels) = (Scan::new(&bytes), Vec::new());
            if scan.pairs(&mut levels).and_then(|()| scan.end()).is_some() {
                accepted += 1;
                let general: LevelPairs = serde_json::from_slice(&bytes).expect("what a scan accepts is JSON");
                assert_eq!(format!("{levels:?}"), format!("{:?}", general.0));
            }
        }
        assert!(accepted > 1_000, "{accepted}");
    }
}
