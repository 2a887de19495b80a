//! Frames of books and trades, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::{BookData, WireTrade};
use crate::Out;
use crate::scan::{Rows, Scan, fill};
use crate::wire::{LevelPairs, Quoted};

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
    let (topic, kind, ts) = head(&mut scan, "orderbook.")?;
    let ts = Some(ts);
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

/// From the beginning to the data: a topic that begins so, what kind of frame it is, and when it was made.
fn head<'a>(scan: &mut Scan<'a>, of: &str) -> Option<(&'a str, &'a str, i64)> {
    scan.eat(b"{\"topic\":\"")?;
    let topic = scan.until_quote().filter(|topic| topic.starts_with(of))?;
    let (mut kind, mut ts) = (None, None);
    // Spot has these the other way round.
    for _ in 0..2 {
        match scan.eat(b",\"type\":") {
            Some(()) => fill(&mut kind, scan.text())?,
            None => scan.eat(b",\"ts\":").and_then(|()| fill(&mut ts, scan.signed()))?,
        }
    }
    scan.eat(b",\"data\":")?;
    Some((topic, kind?, ts?))
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

/// The trades of a frame; `None` where it is not of the usual form.
pub(super) fn trades(bytes: &[u8]) -> Option<Rows<'_, WireTrade<'_>>> {
    let mut scan = Scan::new(bytes);
    head(&mut scan, "publicTrade.")?;
    scan.last_rows(trade, b"}")
}

fn trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    let (mut trade_ms, mut s, mut side, mut size, mut price, mut id) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"T" => fill(&mut trade_ms, scan.signed()),
        b"s" => fill(&mut s, scan.text()),
        b"S" => fill(&mut side, scan.text()),
        b"v" => fill(&mut size, scan.quoted()),
        b"p" => fill(&mut price, scan.quoted()),
        b"i" => fill(&mut id, scan.text()),
        _ => scan.pass_over(),
    })?;
    Some(WireTrade {
        trade_ms: trade_ms?,
        s: Cow::Borrowed(s?),
        side: Cow::Borrowed(side?),
        size: Quoted(size?),
        price: Quoted(price?),
        id: Cow::Borrowed(id?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bybit::wire::Envelope;
    use crate::scan::tests::reads_what_serde_reads;

    /// As spot sends them.
    const SPOT: [&str; 2] = [
        r#"{"topic":"orderbook.200.ETHUSDT","ts":1767607200010,"type":"delta","data":{"s":"ETHUSDT","b":[],"a":[["1923.33","0"],["1923.41","0.08941"]],"u":56726500,"seq":178477360951},"cts":1767607200004}"#,
        r#"{"topic":"publicTrade.BTCUSDT","ts":1767607200010,"type":"snapshot","data":[{"i":"2290000000000000001","T":1767607200004,"p":"50000.5","v":"0.000552","S":"Buy","seq":9100,"s":"BTCUSDT","BT":false,"RPI":false}]}"#,
    ];

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/bybit/session.jsonl");
        let frames: Vec<&str> = text.lines().chain(SPOT).filter(|l| l.contains(r#""topic":"orderbook."#)).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            let book = serde_json::from_str(envelope.data?.get()).ok()?;
            let (topic, kind) = (&*envelope.topic, &*envelope.kind);
            Some(format!("{:?}", BookFrame { topic, kind, ts: envelope.ts, cts: envelope.cts, book }))
        };
        reads_what_serde_reads(&frames, |bytes, out| book(bytes, out).map(|f| format!("{f:?}")), parse);
    }

    #[test]
    fn trades_are_read_as_serde_reads_them() {
        let text = include_str!("../../fixtures/bybit/session.jsonl");
        let frames: Vec<&str> = text.lines().chain(SPOT).filter(|l| l.contains(r#""topic":"publicTrade."#)).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(envelope.topic.starts_with("publicTrade."));
            let rows: Vec<WireTrade<'_>> = serde_json::from_str(envelope.data?.get()).ok()?;
            Some(format!("{rows:?}"))
        };
        let scan = |bytes: &[u8]| trades(bytes).map(|rows| format!("{:?}", rows.collect::<Vec<_>>()));
        reads_what_serde_reads(&frames, |bytes, _| scan(bytes), parse);
    }
}
