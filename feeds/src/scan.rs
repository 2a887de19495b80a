//! Reads the few forms of frames that a venue sends most, straight from their bytes.
//!
//! A scan knows less than JSON: no spaces, no escapes, no exponents, keys that it was told of. Where something is not as
//! it expects, it gives up with `None`, and the frame is decoded the general way, by serde. What it does accept, it reads
//! as serde would: each venue that scans has a test that holds the two against each other, on frames as they come and on
//! frames of which some bytes are others.
//!
//! Nothing is built in between, which is what makes it several times as fast (`benches/DECODE.md`).

use ticker_market::{Decimal, Level, Levels};

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

    /// A time in nanoseconds, which has a digit more than [`Scan::signed`] takes.
    #[inline]
    pub(crate) fn nanos(&mut self) -> Option<i64> {
        let (head, tail) = self.rest.split_at_checked(DIGITS_MAX)?;
        let number = Scan::new(head).signed().filter(|_| head.iter().all(u8::is_ascii_digit))?;
        match tail.split_first()? {
            (c @ b'0'..=b'9', rest) if !rest.first().is_some_and(u8::is_ascii_digit) => {
                self.rest = rest;
                number.checked_mul(10)?.checked_add(i64::from(c - b'0'))
            }
            _ => None,
        }
    }

    /// A number without point and exponent.
    #[inline]
    pub(crate) fn integer(&mut self) -> Option<i64> {
        match self.eat(b"-") {
            None => self.signed(),
            // serde reads `-0` as a float.
            Some(()) => self.signed().filter(|number| *number != 0).map(|number| -number),
        }
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

    /// As [`Scan::number`], where it may be below zero.
    #[inline]
    pub(crate) fn signed_number(&mut self) -> Option<Decimal> {
        let is_below = self.eat(b"-").is_some();
        let number = self.number()?;
        Some(if is_below && !number.is_zero() { -number } else { number })
    }

    /// Digits with at most one point among them, and their length. Most of a scan's time is spent here.
    #[inline(always)]
    fn digits(&mut self) -> Option<(Decimal, usize)> {
        let Some(head) = self.rest.first_chunk::<16>() else { return self.digits_by_byte() };
        // Sixteen bytes at once; a digit is its value, and what is none has a mark.
        let text = u128::from_le_bytes(*head) ^ sixteen(b'0');
        let marks = (((text & sixteen(0x7f)) + sixteen(0x80 - 10)) | text) & sixteen(0x80);
        if marks == 0 {
            return self.digits_by_byte();
        }
        let first = marks.trailing_zeros() / 8;
        let (digits, count, length, scale) = if self.rest.get(first as usize) == Some(&b'.') {
            let length = (marks & (marks - 1)).trailing_zeros() / 8;
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

    /// The elements of a list: `each` reads one.
    #[inline]
    pub(crate) fn list(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.eat(b"[")?;
        if self.eat(b"]").is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            match self.byte()? {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// The elements of a list, for later: all are read by `read` now, to know that they can be, and each again when its
    /// turn comes. So nothing is told of a frame that is not understood to its end, and nothing is kept meanwhile.
    /// `each` may look at them now, and refuse one.
    pub(crate) fn rows<T>(
        &mut self,
        read: fn(&mut Self) -> Option<T>,
        mut each: impl FnMut(T) -> Option<()>,
    ) -> Option<Rows<'a, T>> {
        let rows = Rows { scan: *self, read };
        self.list(|scan| each(read(scan)?))?;
        Some(rows)
    }

    /// A string that holds a decimal, or nothing.
    #[inline]
    pub(crate) fn maybe_quoted(&mut self) -> Option<Option<Decimal>> {
        match self.eat(b"\"\"") {
            Some(()) => Some(None),
            None => self.quoted().map(Some),
        }
    }

    /// Levels as `[["price","size", …],…]`, behind those that `into` has; what follows the size is passed over.
    #[inline]
    pub(crate) fn pairs(&mut self, into: &mut Vec<Level>) -> Option<()> {
        self.list(|scan| {
            scan.eat(b"[\"")?;
            into.push(scan.pair()?);
            while scan.eat(b",").is_some() {
                scan.pass_over()?;
            }
            scan.eat(b"]")
        })
    }

    /// Changes as `[["buy","price","size"],…]`, behind those that `into` has.
    #[inline]
    pub(crate) fn sided(&mut self, into: &mut Levels) -> Option<()> {
        self.list(|scan| {
            scan.eat(b"[\"")?;
            let list = match scan.eat(b"buy\",\"") {
                Some(()) => &mut into.bids,
                None => scan.eat(b"sell\",\"").map(|()| &mut into.asks)?,
            };
            list.push(scan.pair()?);
            scan.eat(b"]")
        })
    }

    /// `price","size"`, of which the quote before it was read.
    #[inline(always)]
    pub(crate) fn pair(&mut self) -> Option<Level> {
        let (price, _) = self.digits()?;
        self.eat(b"\",\"")?;
        let (size, _) = self.digits()?;
        self.eat(b"\"")?;
        Some(Level { price, size })
    }

    /// A value that nobody wants: a string, a number, true, false or null.
    #[inline]
    pub(crate) fn pass_over(&mut self) -> Option<()> {
        match self.rest.first()? {
            b'"' => self.text().map(drop),
            b't' | b'f' => self.flag().map(drop),
            b'n' => self.eat(b"null"),
            _ => self.signed_number().map(drop),
        }
    }

    /// The fields of an object: `each` reads the value of the key that it is given.
    #[inline]
    pub(crate) fn fields(&mut self, mut each: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.eat(b"{\"")?;
        loop {
            let at = self.rest.iter().position(|c| !matches!(c, 0x20..=0x7e) || matches!(c, b'"' | b'\\'))?;
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

/// The elements of a list that can be read ([`Scan::rows`]).
#[derive(Debug)]
pub(crate) struct Rows<'a, T> {
    scan: Scan<'a>,
    read: fn(&mut Scan<'a>) -> Option<T>,
}

impl<T> Clone for Rows<'_, T> {
    fn clone(&self) -> Self {
        Self { scan: self.scan, read: self.read }
    }
}

/// Elements that [`Rows::reversed`] gives, at most.
const REVERSED_MAX: usize = 32;

impl<'a, T> Rows<'a, T> {
    /// From the last to the first; `None` where there are more than [`REVERSED_MAX`].
    pub(crate) fn reversed(self) -> Option<impl Iterator<Item = T>> {
        let Rows { scan, read } = self;
        let (mut rest, mut starts, mut count) = (self, [scan; REVERSED_MAX], 0);
        loop {
            let start = rest.scan;
            if rest.next().is_none() {
                break;
            }
            *starts.get_mut(count)? = start;
            count += 1;
        }
        Some(starts.into_iter().take(count).rev().filter_map(move |scan| Rows { scan, read }.next()))
    }
}

impl<T> Iterator for Rows<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        // Before each stands `[` or `,`; behind the last, and in an empty list, `]`.
        if self.scan.byte()? == b']' || self.scan.rest.first() == Some(&b']') {
            self.scan.rest = &[];
            return None;
        }
        (self.read)(&mut self.scan)
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
    use crate::Out;
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

    /// What a scan accepts, serde reads the same, digit for digit: frames as they come, and frames of which some bytes are
    /// others. Both ways give what they read as text.
    pub(crate) fn reads_what_serde_reads(
        frames: &[&str],
        scan: impl Fn(&[u8], &mut Out) -> Option<String>,
        parse: impl Fn(&[u8]) -> Option<String>,
    ) {
        let mut rng = fastrand::Rng::with_seed(13);
        let (mut out, mut whole, mut spoilt) = (Out::default(), 0, 0);
        for round in 0..1 + 12_000 / frames.len() {
            for frame in frames {
                let bytes = if round == 0 { frame.as_bytes().to_vec() } else { changed(&mut rng, frame.as_bytes()) };
                let Some(scanned) = scan(&bytes, &mut out) else { continue };
                *if round == 0 { &mut whole } else { &mut spoilt } += 1;
                assert_eq!(Some(scanned), parse(&bytes), "{}", String::from_utf8_lossy(&bytes));
            }
        }
        assert!(whole * 2 > frames.len() && spoilt > 500, "{whole} of {}, {spoilt}", frames.len());
    }

    #[test]
    fn numbers_below_zero_are_those_of_the_general_way() {
        for text in ["-1", "-0", "-0.0", "-1.50", "1", "--1", "-", "-01", "-.5", "-1e5"] {
            let mut scan = Scan::new(text.as_bytes());
            if let Some(found) = scan.signed_number().filter(|_| scan.end().is_some()) {
                let general: Number = serde_json::from_str(text).expect(text);
                assert_eq!(format!("{found:?}"), format!("{:?}", general.0), "{text}");
                assert_eq!(found.is_sign_negative(), general.0.is_sign_negative(), "{text}");
            }
            let mut scan = Scan::new(text.as_bytes());
            if let Some(found) = scan.integer().filter(|_| scan.end().is_some()) {
                assert_eq!(found, serde_json::from_str::<i64>(text).expect(text));
            }
        }
    }

    #[test]
    fn rows_are_read_when_their_turn_comes() {
        for (text, rows) in [("[]", &[][..]), ("[7]", &[7u64]), ("[7,8,90]", &[7, 8, 90])] {
            let mut scan = Scan::new(text.as_bytes());
            let found = scan.rows(Scan::whole, |_| Some(())).expect(text);
            assert!(scan.end().is_some() && found.clone().eq(rows.iter().copied()), "{text}");
            assert!(found.reversed().expect("few").eq(rows.iter().rev().copied()), "{text}");
        }
        for bad in ["[7,x]", "[7,", "[8]"] {
            assert!(Scan::new(bad.as_bytes()).rows(Scan::whole, |n| (n == 7).then_some(())).is_none());
        }
        let many = format!("[{}1]", "1,".repeat(REVERSED_MAX));
        let rows = Scan::new(many.as_bytes()).rows(Scan::whole, |_| Some(())).expect("a list");
        assert_eq!((rows.clone().count(), rows.reversed().is_none()), (REVERSED_MAX + 1, true));
    }

    #[test]
    fn strings_end_at_the_first_quote() {
        let mut rng = fastrand::Rng::with_seed(17);
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..rng.usize(..40))
                .map(|_| if rng.u8(..20) == 0 { rng.u8(..) } else { rng.u8(b' '..=b'~') })
                .collect();
            let mut scan = Scan::new(&text);
            let end = text.iter().position(|c| !(0x20..0x7f).contains(c) || b"\"\\".contains(c));
            let expected = end.filter(|end| text[*end] == b'"').map(|end| &text[..end]);
            assert_eq!(scan.until_quote().map(str::as_bytes), expected);
        }
    }

    #[test]
    fn digits_are_the_same_in_any_company() {
        let mut rng = fastrand::Rng::with_seed(19);
        for _ in 0..50_000 {
            let mut text = Vec::new();
            for _ in 0..rng.usize(..22) {
                text.push(if rng.u8(..12) == 0 { b'.' } else { rng.u8(b'0'..=b'9') });
            }
            let length = text.len();
            text.extend([b'"', rng.u8(..)]);
            text.resize(length + rng.usize(1..30), rng.u8(..));
            let (mut at_once, mut by_byte) = (Scan::new(&text), Scan::new(&text));
            let [one, other] = [at_once.digits(), by_byte.digits_by_byte()];
            assert_eq!((format!("{one:?}"), at_once.rest), (format!("{other:?}"), by_byte.rest));
        }
    }

    #[test]
    fn levels_are_those_of_the_general_way() {
        let mut rng = fastrand::Rng::with_seed(11);
        let frame =
            br#"[["61737.63000000","0.00000000"],["61730.17","12"],["12","0","0","2"],[".5","5.",-1.5,null,true]]"#;
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
