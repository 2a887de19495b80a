//! Updates of books, scanned ([`crate::scan`]).

use ticker_market::{Level, Levels};

use super::wire::Changes;
use crate::Out;
use crate::scan::Scan;

/// An update of one book; `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn update<'a>(bytes: &'a [u8], out: &mut Out) -> Option<Changes<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"channel\":\"book\",\"type\":\"update\",\"data\":[{\"symbol\":\"")?;
    let symbol = scan.until_quote()?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match rest(scan, &mut levels) {
        Some((checksum, timestamp)) => Some(Changes { symbol, levels, checksum, timestamp }),
        None => {
            out.recycle(levels);
            None
        }
    }
}

fn rest<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<(u32, &'a str)> {
    scan.eat(b",\"bids\":[")?;
    side(&mut scan, &mut levels.bids)?;
    scan.eat(b",\"asks\":[")?;
    side(&mut scan, &mut levels.asks)?;
    scan.eat(b",\"checksum\":")?;
    let checksum = scan.whole().and_then(|number| u32::try_from(number).ok())?;
    scan.eat(b",\"timestamp\":\"")?;
    let timestamp = scan.until_quote()?;
    scan.eat(b"}]}")?;
    scan.end()?;
    Some((checksum, timestamp))
}

/// Levels, behind the `[` that was read.
fn side(scan: &mut Scan<'_>, list: &mut Vec<Level>) -> Option<()> {
    if scan.eat(b"]").is_some() {
        return Some(());
    }
    loop {
        scan.eat(b"{\"price\":")?;
        let price = scan.number()?;
        scan.eat(b",\"qty\":")?;
        let size = scan.number()?;
        scan.eat(b"}")?;
        list.push(Level { price, size });
        match scan.byte()? {
            b',' => {}
            b']' => return Some(()),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kraken::wire::{BookFrame, Envelope};
    use crate::scan::tests::changed;

    /// What a scan accepts, serde reads the same, digit for digit.
    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/kraken/book.jsonl");
        let is_update = |line: &&str| line.contains(r#""channel":"book","type":"update""#);
        let frames: Vec<&str> = text.lines().filter(is_update).collect();
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut out, mut whole, mut spoilt) = (Out::default(), 0, 0);
        for round in 0..2_000 {
            for frame in &frames {
                let bytes = if round == 0 { frame.as_bytes().to_vec() } else { changed(&mut rng, frame.as_bytes()) };
                let Some(scanned) = update(&bytes, &mut out) else { continue };
                *if round == 0 { &mut whole } else { &mut spoilt } += 1;
                let shown = String::from_utf8_lossy(&bytes);
                let envelope: Envelope<'_> = serde_json::from_slice(&bytes).expect(&shown);
                let data: Vec<BookFrame<'_>> = serde_json::from_str(envelope.data.expect(&shown).get()).expect(&shown);
                let [frame] = &data[..] else { panic!("one book: {shown}") };
                assert_eq!((&*envelope.channel, &*envelope.kind), ("book", "update"), "{shown}");
                assert_eq!(format!("{scanned:?}"), format!("{:?}", frame.changes()), "{shown}");
            }
        }
        assert!(whole * 2 > frames.len() && spoilt > 1_000, "{whole} {spoilt}");
    }
}
