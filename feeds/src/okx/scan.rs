//! Frames of one book, or of its best prices, and of trades, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::{BookData, WireTrade};
use crate::Out;
use crate::scan::{Rows, Scan, fill};
use crate::wire::{LevelPairs, Quoted};

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

/// The trades of a frame; `None` where it is not of the usual form.
pub(super) fn trades(bytes: &[u8]) -> Option<Rows<'_, WireTrade<'_>>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"arg\":{\"channel\":\"trades")?;
    let _ = scan.eat(b"-all");
    scan.eat(b"\",\"instId\":\"")?;
    scan.until_quote()?;
    scan.eat(b"},\"data\":")?;
    scan.last_rows(trade, b"}")
}

fn trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    let (mut native, mut id, mut price, mut size, mut side, mut ts) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"instId" => fill(&mut native, scan.text()),
        b"tradeId" => fill(&mut id, scan.text()),
        b"px" => fill(&mut price, scan.quoted()),
        b"sz" => fill(&mut size, scan.quoted()),
        b"side" => fill(&mut side, scan.text()),
        b"ts" => fill(&mut ts, scan.text()),
        _ => scan.pass_over(),
    })?;
    Some(WireTrade {
        native: Cow::Borrowed(native?),
        id: Cow::Borrowed(id?),
        price: Quoted(price?),
        size: Quoted(size?),
        side: Cow::Borrowed(side?),
        ts: Cow::Borrowed(ts?),
    })
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

    #[test]
    fn trades_are_read_as_serde_reads_them() {
        let text = include_str!("../../fixtures/okx/session.jsonl");
        let is_trade = |line: &&str| line.contains(r#"{"channel":"trades"#) && line.contains("data");
        let frames: Vec<&str> = text.lines().filter(is_trade).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(envelope.event.is_empty() && matches!(&*envelope.arg.channel, "trades" | "trades-all"));
            let rows: Vec<WireTrade<'_>> = serde_json::from_str(envelope.data?.get()).ok()?;
            Some(format!("{rows:?}"))
        };
        let scan = |bytes: &[u8]| trades(bytes).map(|rows| format!("{:?}", rows.collect::<Vec<_>>()));
        reads_what_serde_reads(&frames, |bytes, _| scan(bytes), parse);
    }
}
