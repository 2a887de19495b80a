//! `l2_data` frames, scanned ([`crate::scan`]): nine in ten bytes that the venue sends.

use ticker_market::{Level, Levels};

use crate::Out;
use crate::scan::Scan;

/// A frame with one event.
#[derive(Debug)]
pub(super) struct BookFrame<'a> {
    pub(super) timestamp: &'a str,
    pub(super) sequence_num: u64,
    pub(super) is_snapshot: bool,
    pub(super) product_id: &'a str,
    pub(super) levels: Levels,
}

/// A frame of the book's channel; `None` where it is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn book<'a>(bytes: &'a [u8], out: &mut Out) -> Option<BookFrame<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"channel\":\"l2_data\"")?;
    // Documented, and not always sent.
    let _ = scan.eat(b",\"client_id\":\"\"");
    scan.eat(b",\"timestamp\":\"")?;
    let timestamp = scan.until_quote()?;
    scan.eat(b",\"sequence_num\":")?;
    let sequence_num = scan.whole()?;
    scan.eat(b",\"events\":[{\"type\":")?;
    let is_snapshot = match scan.text()? {
        "snapshot" => true,
        "update" => false,
        _ => return None,
    };
    scan.eat(b",\"product_id\":\"")?;
    let product_id = scan.until_quote()?;
    scan.eat(b",\"updates\":[")?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    if changes(scan, &mut levels).is_none() {
        out.recycle(levels);
        return None;
    }
    Some(BookFrame { timestamp, sequence_num, is_snapshot, product_id, levels })
}

/// `[`, which was read, the changes, and the end of the frame.
fn changes(mut scan: Scan<'_>, levels: &mut Levels) -> Option<()> {
    if scan.eat(b"]").is_none() {
        // Most changes of a frame have one time.
        let mut time = "";
        loop {
            scan.eat(b"{\"side\":\"")?;
            let list = match scan.eat(b"bid\"") {
                Some(()) => &mut levels.bids,
                None => scan.eat(b"offer\"").map(|()| &mut levels.asks)?,
            };
            scan.eat(b",\"event_time\":\"")?;
            let mut same = scan;
            scan = match same.eat(time.as_bytes()).and_then(|()| same.eat(b"\"")) {
                Some(()) => same,
                None => {
                    time = scan.until_quote()?;
                    scan
                }
            };
            scan.eat(b",\"price_level\":")?;
            let price = scan.quoted()?;
            scan.eat(b",\"new_quantity\":")?;
            let size = scan.quoted()?;
            scan.eat(b"}")?;
            list.push(Level { price, size });
            match scan.byte()? {
                b',' => {}
                b']' => break,
                _ => return None,
            }
        }
    }
    scan.eat(b"}]}")?;
    scan.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coinbase::wire::{BookEvent, Envelope};
    use crate::scan::tests::changed;

    /// What a scan accepts, serde reads the same, digit for digit.
    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/coinbase/session.jsonl");
        let frames: Vec<&str> = text.lines().filter(|l| l.contains("l2_data")).collect();
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut out, mut whole, mut spoilt) = (Out::default(), 0, 0);
        for round in 0..2_000 {
            for frame in &frames {
                let bytes = if round == 0 { frame.as_bytes().to_vec() } else { changed(&mut rng, frame.as_bytes()) };
                let Some(scanned) = book(&bytes, &mut out) else { continue };
                *if round == 0 { &mut whole } else { &mut spoilt } += 1;
                let shown = String::from_utf8_lossy(&bytes);
                let envelope: Envelope<'_> = serde_json::from_slice(&bytes).expect(&shown);
                let events = envelope.events.expect(&shown).get();
                let events: Vec<BookEvent<'_>> = serde_json::from_str(events).expect(&shown);
                let [event] = &events[..] else { panic!("one event: {shown}") };
                let parsed = BookFrame {
                    timestamp: &envelope.timestamp,
                    sequence_num: envelope.sequence_num.expect(&shown),
                    is_snapshot: event.kind == "snapshot",
                    product_id: &event.product_id,
                    levels: event.levels(),
                };
                assert_eq!((&*envelope.channel, format!("{scanned:?}")), ("l2_data", format!("{parsed:?}")), "{shown}");
            }
        }
        assert!(whole * 2 > frames.len() && spoilt > 1_000, "{whole} {spoilt}");
    }
}
