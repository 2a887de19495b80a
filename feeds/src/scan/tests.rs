use ticker_market::decimal;

use super::number::number_by_byte;
use super::*;
use crate::Out;
use crate::wire::{self, LevelPairs, Quoted};

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
            let general: wire::Number = serde_json::from_str(text).expect(text);
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
            let general: wire::Number = serde_json::from_str(text).expect(text);
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
        let found = scan.rows(Scan::whole).expect(text);
        assert!(scan.end().is_some() && found.eq(rows.iter().copied()), "{text}");
        let mut scan = Scan::new(text.as_bytes());
        let found = scan.reversed(Scan::whole, |_| Some(())).expect(text);
        assert!(scan.end().is_some() && found.eq(rows.iter().rev().copied()), "{text}");
        let found = Scan::new(text.as_bytes()).reversed(Scan::whole, |_| Some(())).expect(text);
        assert!(found.rev().eq(rows.iter().copied()), "{text}");
    }
    for bad in ["[7,x]", "[7,", "[7]]"] {
        let mut scan = Scan::new(bad.as_bytes());
        assert!(scan.rows(Scan::whole).and_then(|_| scan.end()).is_none());
    }
    for bad in ["[7,x]", "[7,", "[8]"] {
        assert!(Scan::new(bad.as_bytes()).reversed(Scan::whole, |n| (n == 7).then_some(())).is_none());
    }
    for (more, is_given) in [(0, true), (1, false)] {
        let many = format!("[{}1]", "1,".repeat(REVERSED_MAX - 1 + more));
        let rows = Scan::new(many.as_bytes()).rows(Scan::whole).expect("a list");
        assert_eq!(rows.count(), REVERSED_MAX + more);
        assert_eq!(Scan::new(many.as_bytes()).reversed(Scan::whole, |_| Some(())).is_some(), is_given);
    }
}

#[test]
fn strings_are_text_wherever_they_are() {
    for length in TEXT_MAX - 20..TEXT_MAX + 20 {
        // What is looked at may end within a letter.
        for before in [String::new(), "ä".repeat(5)] {
            let frame = format!("{}{before}[\"BTC-USDT\"", " ".repeat(length - before.len()));
            let mut scan = Scan::new(frame.as_bytes());
            while scan.eat(b"[").is_none() {
                scan.byte();
            }
            assert_eq!(scan.text(), Some("BTC-USDT"));
        }
    }
}

#[test]
fn strings_end_at_the_first_quote() {
    let mut rng = fastrand::Rng::with_seed(17);
    for _ in 0..20_000 {
        let text: Vec<u8> =
            (0..rng.usize(..40)).map(|_| if rng.u8(..20) == 0 { rng.u8(..) } else { rng.u8(b' '..=b'~') }).collect();
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
        let expected = number_by_byte(&text);
        assert_eq!(number_of(&text), expected, "{}", String::from_utf8_lossy(&text));
        // Whatever was guessed: also where the guess is right.
        let right = (expected.length as usize).saturating_sub(expected.scale as usize + 1);
        for shape in [
            Shape { whole: rng.usize(..10), part: rng.usize(..10) },
            Shape { whole: right, part: expected.scale as usize },
        ] {
            let is_quoted = expected.length > 0 && text.get(expected.length as usize) == Some(&b'"');
            let rest = is_quoted.then(|| &text[expected.length as usize + 1..]);
            let like = |read: fn(&mut Scan<'_>, &mut Shape) -> Option<Number>| {
                let mut scan = Scan::new(&text);
                let number = read(&mut scan, &mut { shape });
                assert_eq!(
                    (number, number.map(|_| scan.rest.to_vec())),
                    (rest.map(|_| expected), rest.map(<[u8]>::to_vec))
                );
            };
            like(|scan, shape| scan.digits_like(shape));
            like(|scan, shape| scan.digits_ending_like(shape));
        }
        let mut whole = Scan::new(&text);
        let (number, digits) = whole.whole_by_byte();
        let is_whole = (1..=DIGITS_MAX).contains(&digits) && (digits == 1 || text[0] != b'0');
        assert_eq!(whole.whole(), is_whole.then_some(number));
    }
}

#[test]
fn levels_are_those_of_the_general_way() {
    let mut rng = fastrand::Rng::with_seed(11);
    let frame = br#"[["61737.63000000","0.00000000"],["61730.17","12"],["12","0","0","2"],[".5","5.",-1.5,null,true]]"#;
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
