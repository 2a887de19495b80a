//! Frames of books, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::BookData;
use crate::Out;
use crate::scan::{Scan, fill};
use crate::wire::LevelPairs;

/// A frame of a book's topic.
#[derive(Debug)]
pub(super) struct BookFrame<'a> {
    pub(super) topic: &'a str,
    pub(super) kind: &'a str,
    pub(super) ts: Option<i64>,
    pub(super) cts: Option<i64>,
    pub(super) book: BookData<'a>,
}

/// `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn book<'a>(bytes: &'a [u8], out: &mut Out) -> Option<BookFrame<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"topic\":\"")?;
    let topic = scan.until_quote()?;
    if !topic.starts_with("orderbook.") {
        return None;
    }
    scan.eat(b",\"type\":\"")?;
    let kind = scan.until_quote()?;
    scan.eat(b",\"ts\":")?;
    let ts = Some(scan.signed()?);
    scan.eat(b",\"data\":")?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match rest(scan, &mut levels) {
        Some((book, cts)) => {
            let book = BookData { b: LevelPairs(levels.bids), a: LevelPairs(levels.asks), ..book };
            Some(BookFrame { topic, kind, ts, cts, book })
        }
        None => {
            out.recycle(levels);
            None
        }
    }
}

/// The data, all but the levels, which are in `levels`; and the time behind it.
fn rest<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<(BookData<'a>, Option<i64>)> {
    let (mut s, mut bids, mut asks, mut u) = (None, None, None, None);
    scan.fields(|scan, key| match key {
        b"s" => fill(&mut s, scan.text()),
        b"b" => fill(&mut bids, scan.pairs(&mut levels.bids)),
        b"a" => fill(&mut asks, scan.pairs(&mut levels.asks)),
        b"u" => fill(&mut u, scan.whole()),
        _ => scan.pass_over(),
    })?;
    let cts = match scan.eat(b",\"cts\":") {
        Some(()) => Some(scan.signed()?),
        None => None,
    };
    scan.eat(b"}")?;
    scan.end()?;
    let (b, a) = (LevelPairs::default(), LevelPairs::default());
    Some((BookData { s: Cow::Borrowed(s?), b, a, u: u? }, cts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bybit::wire::Envelope;
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/bybit/session.jsonl");
        let frames: Vec<&str> = text.lines().filter(|line| line.contains(r#""topic":"orderbook."#)).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            let book = serde_json::from_str(envelope.data?.get()).ok()?;
            let (topic, kind) = (&*envelope.topic, &*envelope.kind);
            Some(format!("{:?}", BookFrame { topic, kind, ts: envelope.ts, cts: envelope.cts, book }))
        };
        reads_what_serde_reads(&frames, |bytes, out| book(bytes, out).map(|f| format!("{f:?}")), parse);
    }
}
