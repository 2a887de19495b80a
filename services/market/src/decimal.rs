//! Exact numbers and their one canonical text.
//!
//! Prices and sizes are [`rust_decimal::Decimal`]: 96 bits of digits and a scale of up to 28. The scale of the wire is
//! kept (`0.00005100` has scale 8), because checksums of some venues run over the wire's own digits; the text that
//! users see has no trailing zeros.

use crate::Decimal;

/// What so many digits more make of a number.
pub(crate) const POWERS: [i64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Appends the canonical text of `value`: no exponent, no trailing zeros after the point, `0` for zero.
pub fn write(out: &mut Vec<u8>, value: Decimal) {
    let mut scale = value.scale();
    let mut digits = value.mantissa().unsigned_abs();
    if digits == 0 {
        out.push(b'0');
        return;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    // The usual number fits 64 bits, where division is ten times cheaper than on 128.
    if let Ok(mut small) = u64::try_from(digits) {
        while scale > 0 && small.is_multiple_of(10) {
            small /= 10;
            scale -= 1;
        }
        return write_scaled(out, itoa::Buffer::new().format(small).as_bytes(), scale as usize);
    }
    while scale > 0 && digits.is_multiple_of(10) {
        digits /= 10;
        scale -= 1;
    }
    write_scaled(out, itoa::Buffer::new().format(digits).as_bytes(), scale as usize);
}

/// Appends the text of `value` with all the digits of its scale, as the wire had them.
pub fn write_as_is(out: &mut Vec<u8>, value: Decimal) {
    let digits = value.mantissa().unsigned_abs();
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let scale = value.scale() as usize;
    match u64::try_from(digits) {
        Ok(small) => write_scaled(out, itoa::Buffer::new().format(small).as_bytes(), scale),
        Err(_) => write_scaled(out, itoa::Buffer::new().format(digits).as_bytes(), scale),
    }
}

/// The canonical text of `value`; see [`write()`].
pub fn to_text(value: Decimal) -> String {
    let mut out = Vec::with_capacity(24);
    write(&mut out, value);
    String::from_utf8(out).expect("digits, point and sign are ASCII")
}

/// Parses a plain decimal (`-12.340`), keeping its scale. An exponent (`1e-7`, `5.1E-05`) is accepted, since some
/// venues write small JSON numbers that way. `None` if the text is no number or does not fit.
pub fn parse(text: &str) -> Option<Decimal> {
    let b = text.as_bytes();
    // The usual number: up to 18 digits and at most one point. Anything else goes the long way.
    let (negative, body) = match b.first()? {
        b'-' => (true, &b[1..]),
        _ => (false, b),
    };
    if body.is_empty() || body.len() > 19 {
        return parse_slow(text);
    }
    let mut digits = 0u64;
    let mut scale = 0u32;
    let mut point = false;
    for &c in body {
        match c {
            b'0'..=b'9' => {
                digits = digits * 10 + u64::from(c - b'0');
                scale += u32::from(point);
            }
            b'.' if !point => point = true,
            _ => return parse_slow(text),
        }
    }
    if body.len() - usize::from(point) == 0 || body.len() - usize::from(point) > 18 {
        return parse_slow(text);
    }
    let digits = i64::try_from(digits).ok()?;
    Some(Decimal::new(if negative { -digits } else { digits }, scale))
}

fn parse_slow(text: &str) -> Option<Decimal> {
    if text.starts_with('+') || text.contains('_') {
        return None;
    }
    if text.bytes().any(|c| c == b'e' || c == b'E') {
        return Decimal::from_scientific(text).ok();
    }
    Decimal::from_str_exact(text).ok()
}

fn write_scaled(out: &mut Vec<u8>, digits: &[u8], scale: usize) {
    if scale == 0 {
        out.extend_from_slice(digits);
    } else if digits.len() > scale {
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (scale - digits.len()), b'0');
        out.extend_from_slice(digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_canonical() {
        for (wire, text) in [
            ("0", "0"),
            ("0.000", "0"),
            ("-0.0", "0"),
            ("100", "100"),
            ("67123.450", "67123.45"),
            ("0.00005100", "0.000051"),
            ("-1.50", "-1.5"),
            ("79228162514264337593543950335", "79228162514264337593543950335"),
            ("0.0000000000000000000000000001", "0.0000000000000000000000000001"),
            ("12345678901234567890.12345000", "12345678901234567890.12345"),
            ("1e-7", "0.0000001"),
            ("5.1E-05", "0.000051"),
        ] {
            assert_eq!(to_text(parse(wire).expect(wire)), text, "{wire}");
        }
    }

    #[test]
    fn text_as_it_is_has_every_digit() {
        for text in ["0", "0.000", "100", "67123.450", "0.00005100", "-1.50", "12345678901234567890.12345000"] {
            let mut out = Vec::new();
            write_as_is(&mut out, parse(text).expect(text));
            assert_eq!(String::from_utf8(out).as_deref(), Ok(text));
        }
    }

    #[test]
    fn parse_agrees_with_rust_decimal_and_keeps_the_scale() {
        for text in
            ["1", "1.0", "0.00005100", "123456789.123456789", "999999999999999999", "9999999999999999999", ".5", "5."]
        {
            let parsed = parse(text).expect(text);
            let theirs: Decimal = text.parse().expect(text);
            assert_eq!(parsed, theirs, "{text}");
            assert_eq!(parsed.scale(), theirs.scale(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "-", ".", "-.", "1.2.3", "1,5", "NaN", "inf", "0x10", " 1", "1 ", "+1", "1_000", "--1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
