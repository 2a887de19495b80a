//! Reads the few forms of frames that a venue sends most, straight from their bytes.
//!
//! A scan knows less than JSON: no spaces, no escapes, no exponents, keys that it was told of. Where something is not as
//! it expects, it gives up with `None`, and the frame is decoded the general way, by serde. What it does accept, it reads
//! as serde would: each venue that scans has a test that holds the two against each other, on frames as they come and on
//! frames of which some bytes are others.
//!
//! Nothing is built in between, which is what makes it several times as fast (`benches/DECODE.md`).

mod number;

use ticker_market::{Decimal, Level, Levels};

use self::number::{DIGITS_MAX, Digits, Number, POWERS, Shape, eight, number_as, number_of};

/// The rest of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a> {
    rest: &'a [u8],
    /// How the frame begins, which is looked at as text once: quicker than for each string.
    text: &'a str,
    /// Bytes of the frame.
    length: usize,
}

/// Bytes that a frame's strings are nearly all within.
const TEXT_MAX: usize = 1_024;

/// Elements that [`Scan::reversed`] gives, at most.
const REVERSED_MAX: usize = 128;

impl<'a> Scan<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let text = std::str::from_utf8(&bytes[..bytes.len().min(TEXT_MAX)]).unwrap_or_default();
        Self { rest: bytes, text, length: bytes.len() }
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

    /// What `read` reads; where it reads nothing, everything is still to be read.
    #[inline]
    pub(crate) fn attempt<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let rest = self.rest;
        let found = read(self);
        if found.is_none() {
            self.rest = rest;
        }
        found
    }

    /// The end of the frame.
    pub(crate) fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }

    /// The rest of a string, of which the quote before it was read: visible ASCII without escapes.
    #[inline]
    pub(crate) fn until_quote(&mut self) -> Option<&'a str> {
        let start = self.length - self.rest.len();
        let bytes = self.bytes_until_quote()?;
        self.text.get(start..start + bytes.len()).or_else(|| std::str::from_utf8(bytes).ok())
    }

    #[inline]
    fn bytes_until_quote(&mut self) -> Option<&'a [u8]> {
        // Eight at a time: the lowest marked byte is the first that is no visible ASCII, or a quote, or a backslash. A
        // mark may be wrong only above a right one.
        let mut at = 0;
        let end = loop {
            let Some(chunk) = self.rest[at..].first_chunk::<8>() else {
                let is_end = |c: &u8| !matches!(c, 0x20..=0x7e) || matches!(c, b'"' | b'\\');
                break at + self.rest[at..].iter().position(is_end)?;
            };
            let text = u64::from_le_bytes(*chunk);
            let is_zero = |bytes: u64| bytes.wrapping_sub(eight(1)) & !bytes;
            let below = text.wrapping_sub(eight(b' ')) & !text;
            let marks =
                text | below | is_zero(text ^ eight(b'"')) | is_zero(text ^ eight(b'\\')) | is_zero(text ^ eight(0x7f));
            match marks & eight(0x80) {
                0 => at += 8,
                marks => break at + marks.trailing_zeros() as usize / 8,
            }
        };
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    /// A string.
    #[inline]
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        self.eat(b"\"")?;
        self.until_quote()
    }

    /// A string that is one of these.
    #[inline]
    pub(crate) fn one_of(&mut self, words: &[&'static str]) -> Option<&'static str> {
        self.eat(b"\"")?;
        let text = self.bytes_until_quote()?;
        words.iter().find(|word| word.as_bytes() == text).copied()
    }

    /// A number without sign, point and exponent.
    #[inline]
    pub(crate) fn whole(&mut self) -> Option<u64> {
        let (number, digits) = match self.rest.first_chunk::<17>().map(|head| (head, Digits::of(head, 0))) {
            Some((head, first)) if first.count == 8 => match Digits::of(head, 8) {
                // Times and numbers of updates, mostly.
                next if (1..8).contains(&next.count) => {
                    (first.value() * POWERS[next.count] + next.value(), 8 + next.count)
                }
                _ => self.whole_by_byte(),
            },
            Some((_, first)) if first.count > 0 => (first.value(), first.count),
            _ => self.whole_by_byte(),
        };
        // JSON has no leading zeros.
        if digits == 0 || digits > DIGITS_MAX || digits > 1 && self.rest[0] == b'0' {
            return None;
        }
        self.rest = &self.rest[digits..];
        Some(number)
    }

    #[cold]
    #[inline(never)]
    fn whole_by_byte(&self) -> (u64, usize) {
        let mut number = 0u64;
        let mut digits = 0;
        while let Some(c @ b'0'..=b'9') = self.rest.get(digits) {
            number = number.wrapping_mul(10).wrapping_add(u64::from(c - b'0'));
            digits += 1;
        }
        (number, digits)
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
        let number = Scan { rest: head, ..*self }.signed().filter(|_| head.iter().all(u8::is_ascii_digit))?;
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
        let number = self.digits()?;
        self.eat(b"\"")?;
        Some(number.decimal())
    }

    /// A number that is kept with its digits.
    #[inline]
    pub(crate) fn number(&mut self) -> Option<Decimal> {
        let start = self.rest;
        let number = self.digits()?;
        // JSON has digits on both sides of the point, and no leading zeros.
        let text = &start[..number.length as usize];
        let is_json = match text {
            [b'.', ..] | [.., b'.'] => false,
            [b'0', second, ..] => *second == b'.',
            _ => true,
        };
        is_json.then_some(number.decimal())
    }

    /// As [`Scan::number`], where it may be below zero.
    #[inline]
    pub(crate) fn signed_number(&mut self) -> Option<Decimal> {
        let is_below = self.eat(b"-").is_some();
        let number = self.number()?;
        Some(if is_below && !number.is_zero() { -number } else { number })
    }

    /// Digits with at most one point among them. Most of a scan's time is spent here.
    ///
    /// Not as a `Decimal`: that is written in four parts, and to read it as a whole right after is slow.
    #[inline(always)]
    fn digits(&mut self) -> Option<Number> {
        let number = number_of(self.rest);
        if number.length == 0 {
            return None;
        }
        self.rest = &self.rest[number.length as usize..];
        Some(number)
    }

    /// As [`Scan::digits`], with a quote behind them, where most are of the shape of the one before. What is guessed
    /// need not be waited for, so that the next number is begun before this one's end is found.
    #[inline(always)]
    fn digits_like(&mut self, shape: &mut Shape) -> Option<Number> {
        if let Some(head) = self.rest.first_chunk::<17>()
            && let Some(number) = number_as(head, *shape)
        {
            self.rest = &self.rest[number.length as usize + 1..];
            return Some(number);
        }
        let number = self.digits()?;
        let part = number.scale as usize;
        *shape = Shape { whole: (number.length as usize).saturating_sub(part + 1), part };
        self.eat(b"\"")?;
        Some(number)
    }

    /// As [`Scan::digits_like`], where only what is behind the point is as before.
    #[inline(always)]
    fn digits_ending_like(&mut self, shape: &mut Shape) -> Option<Number> {
        if let Some(head) = self.rest.first_chunk::<17>() {
            shape.whole = Digits::of(head, 0).count;
        }
        self.digits_like(shape)
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
    pub(crate) fn rows<T>(&mut self, read: fn(&mut Self) -> Option<T>) -> Option<Rows<'a, T>> {
        let rows = Rows { scan: *self, read };
        self.list(|scan| read(scan).map(drop))?;
        Some(rows)
    }

    /// As [`Scan::rows`], of the list that a frame ends with, but for what closes it.
    pub(crate) fn last_rows<T>(mut self, read: fn(&mut Self) -> Option<T>, closing: &[u8]) -> Option<Rows<'a, T>> {
        let rows = self.rows(read)?;
        self.eat(closing)?;
        self.end()?;
        Some(rows)
    }

    /// As [`Scan::rows`], from the last to the first; `None` also where there are more than [`REVERSED_MAX`]. `each` may
    /// look at them now, and refuse one.
    pub(crate) fn reversed<T>(
        &mut self,
        read: fn(&mut Self) -> Option<T>,
        mut each: impl FnMut(T) -> Option<()>,
    ) -> Option<Reversed<'a, T>> {
        let (list, mut starts, mut left) = (*self, [0; REVERSED_MAX], 0);
        self.list(|scan| {
            *starts.get_mut(left)? = u32::try_from(list.rest.len() - scan.rest.len()).ok()?;
            left += 1;
            each(read(scan)?)
        })?;
        Some(Reversed { list, starts, first: 0, left, read })
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
        self.eat(b"[")?;
        if self.eat(b"]").is_some() {
            return Some(());
        }
        let (mut price_shape, mut size_shape) = (Shape::default(), Shape::default());
        self.eat(b"[\"")?;
        loop {
            let price = self.digits_like(&mut price_shape)?;
            self.eat(b",\"")?;
            let size = self.digits_ending_like(&mut size_shape)?;
            into.push(Level { price: price.decimal(), size: size.decimal() });
            // The usual end, which one comparison knows.
            if self.eat(b"],[\"").is_some() {
                continue;
            }
            while self.eat(b",").is_some() {
                self.pass_over()?;
            }
            self.eat(b"]")?;
            match self.byte()? {
                b',' => self.eat(b"[\"")?,
                b']' => return Some(()),
                _ => return None,
            }
        }
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
        let price = self.digits()?;
        self.eat(b"\",\"")?;
        let size = self.digits()?;
        self.eat(b"\"")?;
        Some(Level { price: price.decimal(), size: size.decimal() })
    }

    /// A value that nobody wants: a string, a number, true, false or null.
    #[inline]
    pub(crate) fn pass_over(&mut self) -> Option<()> {
        match self.rest.first()? {
            b'"' => {
                self.eat(b"\"")?;
                self.bytes_until_quote().map(drop)
            }
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
            // Byte by byte: keys come in one order, so that the processor knows where each ends before it has looked.
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

/// The elements of a list that can be read, from the last to the first ([`Scan::reversed`]).
#[derive(Debug)]
pub(crate) struct Reversed<'a, T> {
    list: Scan<'a>,
    starts: [u32; REVERSED_MAX],
    /// The first that is left, and the one behind the last.
    first: usize,
    left: usize,
    read: fn(&mut Scan<'a>) -> Option<T>,
}

impl<T> Reversed<'_, T> {
    fn at(&self, place: usize) -> Option<T> {
        let start = *self.starts.get(place)?;
        (self.read)(&mut Scan { rest: self.list.rest.get(start as usize..)?, ..self.list })
    }
}

impl<T> Iterator for Reversed<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1).filter(|left| *left >= self.first)?;
        self.at(self.left)
    }
}

impl<T> DoubleEndedIterator for Reversed<'_, T> {
    fn next_back(&mut self) -> Option<T> {
        let place = Some(self.first).filter(|first| *first < self.left)?;
        self.first += 1;
        self.at(place)
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
#[path = "scan/tests.rs"]
pub(crate) mod tests;
