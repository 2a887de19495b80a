//! Changes of books, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::BookData;
use crate::Out;
use crate::scan::{Scan, fill};
use crate::wire::LevelPairs;

/// The pair, and what changed; `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn diff<'a>(bytes: &'a [u8], out: &mut Out) -> Option<(&'a str, BookData<'a>)> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"data\":{\"timestamp\":\"")?;
    scan.until_quote()?;
    scan.eat(b",\"microtimestamp\":\"")?;
    let microtimestamp = Cow::Borrowed(scan.until_quote()?);
    scan.eat(b",\"bids\":")?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match rest(scan, &mut levels) {
        Some(native) => {
            let (bids, asks) = (LevelPairs(levels.bids), LevelPairs(levels.asks));
            Some((native, BookData { microtimestamp, bids, asks }))
        }
        None => {
            out.recycle(levels);
            None
        }
    }
}

fn rest<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<&'a str> {
    scan.pairs(&mut levels.bids)?;
    scan.eat(b",\"asks\":")?;
    scan.pairs(&mut levels.asks)?;
    scan.eat(b"}")?;
    let (mut channel, mut event) = (None, None);
    while scan.eat(b",").is_some() {
        match scan.eat(b"\"channel\":") {
            Some(()) => fill(&mut channel, scan.text())?,
            None => fill(&mut event, scan.eat(b"\"event\":").and_then(|()| scan.text()))?,
        }
    }
    scan.eat(b"}")?;
    scan.end()?;
    channel.filter(|_| event == Some("data"))?.strip_prefix("diff_order_book_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitstamp::wire::Envelope;
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/bitstamp/session.jsonl");
        let is_diff = |line: &&str| line.contains("diff_order_book_") && line.contains("bids");
        let frames: Vec<&str> = text.lines().filter(is_diff).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert_eq!(envelope.event, "data");
            let native = envelope.channel.strip_prefix("diff_order_book_")?;
            Some(format!("{:?}", (native, serde_json::from_str::<BookData<'_>>(envelope.data?.get()).ok()?)))
        };
        reads_what_serde_reads(&frames, |bytes, out| diff(bytes, out).map(|f| format!("{f:?}")), parse);
    }
}
