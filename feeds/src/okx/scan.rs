//! Frames of one book, or of its best prices, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::BookData;
use crate::Out;
use crate::scan::{Scan, fill};
use crate::wire::LevelPairs;

/// A frame of a channel of books.
#[derive(Debug)]
pub(super) struct BookFrame<'a> {
    pub(super) channel: &'a str,
    pub(super) native: &'a str,
    pub(super) action: &'a str,
    pub(super) book: BookData<'a>,
}

/// `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn book<'a>(bytes: &'a [u8], out: &mut Out) -> Option<BookFrame<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"arg\":{\"channel\":\"")?;
    let channel = scan.until_quote()?;
    if !channel.starts_with("b") {
        return None;
    }
    scan.eat(b",\"instId\":\"")?;
    let native = scan.until_quote()?;
    scan.eat(b"}")?;
    let action = match scan.eat(b",\"action\":\"") {
        Some(()) => scan.until_quote()?,
        None => "",
    };
    scan.eat(b",\"data\":[")?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match data(scan, &mut levels) {
        Some(book) => {
            let (asks, bids) = (LevelPairs(levels.asks), LevelPairs(levels.bids));
            Some(BookFrame { channel, native, action, book: BookData { asks, bids, ..book } })
        }
        None => {
            out.recycle(levels);
            None
        }
    }
}

/// All but the levels, which are in `levels`.
fn data<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<BookData<'a>> {
    let (mut asks, mut bids, mut ts, mut checksum, mut last, mut before) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"asks" => fill(&mut asks, scan.pairs(&mut levels.asks)),
        b"bids" => fill(&mut bids, scan.pairs(&mut levels.bids)),
        b"ts" => fill(&mut ts, scan.text()),
        b"checksum" => fill(&mut checksum, scan.integer()),
        b"seqId" => fill(&mut last, scan.integer()),
        b"prevSeqId" => fill(&mut before, scan.integer()),
        _ => scan.pass_over(),
    })?;
    scan.eat(b"]}")?;
    scan.end()?;
    let (asks, bids) = (LevelPairs::default(), LevelPairs::default());
    Some(BookData { asks, bids, ts: Cow::Borrowed(ts?), checksum, last, before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::okx::wire::Envelope;
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = concat!(
            include_str!("../../fixtures/okx/session.jsonl"),
            "
",
            include_str!("../../fixtures/okx/checksums.jsonl"),
            "
",
            r#"{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[["50000.1","2","0","4"]],"bids":[["50000","1","0","2"]],"ts":"1767607200000","seqId":1000}]}"#,
        );
        let is_book = |line: &&str| line.contains(r#"{"channel":"b"#) && line.contains("data");
        let frames: Vec<&str> = text.lines().filter(is_book).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(envelope.event.is_empty());
            let mut data: Vec<BookData<'_>> = serde_json::from_str(envelope.data?.get()).ok()?;
            let book = data.pop().filter(|_| data.is_empty())?;
            let (channel, native, action) = (&*envelope.arg.channel, &*envelope.arg.native, &*envelope.action);
            Some(format!("{:?}", BookFrame { channel, native, action, book }))
        };
        reads_what_serde_reads(&frames, |bytes, out| book(bytes, out).map(|f| format!("{f:?}")), parse);
    }
}
