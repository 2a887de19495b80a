//! The frames that come most, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::{AggTrade, BookTicker, DepthUpdate, Frame, WireTrade, is_depth};
use crate::Out;
use crate::scan::{Scan, fill};
use crate::wire::{LevelPairs, Quoted};

/// A frame of a combined stream; `None` where it is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn frame<'a>(bytes: &'a [u8], out: &mut Out) -> Option<Frame<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"stream\":\"")?;
    let name = scan.until_quote()?;
    // Quicker than `split_once`, for so short a text.
    let symbol = name.bytes().position(|c| c == b'@')?;
    scan.eat(b",\"data\":")?;
    match &name[symbol + 1..] {
        "bookTicker" => ticker(scan).map(Frame::Ticker),
        "trade" => trade(scan).map(Frame::Trade),
        "aggTrade" => aggregate(scan).map(Frame::Aggregate),
        stream if is_depth(stream) => {
            let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
            let Some(update) = depth(scan, &mut levels) else {
                out.recycle(levels);
                return None;
            };
            Some(Frame::Depth(DepthUpdate { b: LevelPairs(levels.bids), a: LevelPairs(levels.asks), ..update }))
        }
        _ => None,
    }
}

fn ends(mut scan: Scan<'_>) -> Option<()> {
    scan.eat(b"}")?;
    scan.end()
}

fn ticker(mut scan: Scan<'_>) -> Option<BookTicker<'_>> {
    let (mut u, mut s, mut made_ms) = (None, None, None);
    let [mut bid, mut bid_size, mut ask, mut ask_size] = [None; 4];
    scan.fields(|scan, key| match key {
        b"u" => fill(&mut u, scan.whole()),
        b"s" => fill(&mut s, scan.text()),
        b"b" => fill(&mut bid, scan.quoted()),
        b"B" => fill(&mut bid_size, scan.quoted()),
        b"a" => fill(&mut ask, scan.quoted()),
        b"A" => fill(&mut ask_size, scan.quoted()),
        b"T" => fill(&mut made_ms, scan.signed()),
        b"e" | b"E" | b"ps" => scan.pass_over(),
        _ => None,
    })?;
    ends(scan)?;
    Some(BookTicker {
        u: u?,
        s: Cow::Borrowed(s?),
        bid: Quoted(bid?),
        bid_size: Quoted(bid_size?),
        ask: Quoted(ask?),
        ask_size: Quoted(ask_size?),
        made_ms,
    })
}

fn trade(mut scan: Scan<'_>) -> Option<WireTrade<'_>> {
    let (mut s, mut t, mut p, mut q, mut trade_ms, mut m, mut kind) = (None, None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"s" => fill(&mut s, scan.text()),
        b"t" => fill(&mut t, scan.whole()),
        b"p" => fill(&mut p, scan.quoted()),
        b"q" => fill(&mut q, scan.quoted()),
        b"T" => fill(&mut trade_ms, scan.signed()),
        b"m" => fill(&mut m, scan.flag()),
        b"X" => fill(&mut kind, scan.text()),
        b"e" | b"E" | b"M" | b"a" | b"b" | b"ps" => scan.pass_over(),
        _ => None,
    })?;
    ends(scan)?;
    Some(WireTrade {
        s: Cow::Borrowed(s?),
        t: t?,
        p: Quoted(p?),
        q: Quoted(q?),
        trade_ms: trade_ms?,
        m: m?,
        kind: kind.map(Cow::Borrowed),
    })
}

fn aggregate(mut scan: Scan<'_>) -> Option<AggTrade<'_>> {
    let (mut s, mut a, mut p, mut q, mut trade_ms, mut m) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"s" => fill(&mut s, scan.text()),
        b"a" => fill(&mut a, scan.whole()),
        b"p" => fill(&mut p, scan.quoted()),
        b"q" => fill(&mut q, scan.quoted()),
        b"T" => fill(&mut trade_ms, scan.signed()),
        b"m" => fill(&mut m, scan.flag()),
        b"e" | b"E" | b"M" | b"f" | b"l" | b"ps" => scan.pass_over(),
        _ => None,
    })?;
    ends(scan)?;
    Some(AggTrade { s: Cow::Borrowed(s?), a: a?, p: Quoted(p?), q: Quoted(q?), trade_ms: trade_ms?, m: m? })
}

/// All but the levels, which are in `levels`.
fn depth<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<DepthUpdate<'a>> {
    let (mut event_ms, mut s, mut first, mut last, mut before) = (None, None, None, None, None);
    let (mut bids, mut asks) = (None, None);
    scan.fields(|scan, key| match key {
        b"E" => fill(&mut event_ms, scan.signed()),
        b"s" => fill(&mut s, scan.text()),
        b"U" => fill(&mut first, scan.whole()),
        b"u" => fill(&mut last, scan.whole()),
        b"pu" => fill(&mut before, scan.whole()),
        b"b" => fill(&mut bids, scan.pairs(&mut levels.bids)),
        b"a" => fill(&mut asks, scan.pairs(&mut levels.asks)),
        b"T" => scan.signed().map(drop),
        b"e" | b"ps" => scan.pass_over(),
        _ => None,
    })?;
    ends(scan)?;
    let (b, a) = (LevelPairs::default(), LevelPairs::default());
    Some(DepthUpdate { event_ms: event_ms?, s: Cow::Borrowed(s?), first: first?, last: last?, before, b, a })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binance::wire::{Parsed, parse};
    use crate::scan::tests::changed;

    const FRAMES: &[&str] = &[
        include_str!("../../fixtures/binance/session.jsonl"),
        include_str!("../../fixtures/binance-usdm/session.jsonl"),
    ];

    /// What a scan accepts, serde reads the same, digit for digit.
    #[test]
    fn a_scan_reads_what_serde_reads() {
        let frames: Vec<&str> = FRAMES.iter().flat_map(|f| f.lines()).filter(|l| !l.is_empty()).collect();
        let mut rng = fastrand::Rng::with_seed(3);
        let (mut out, mut whole, mut spoilt) = (Out::default(), 0, 0);
        for round in 0..1_000 {
            for frame in &frames {
                let bytes = if round == 0 { frame.as_bytes().to_vec() } else { changed(&mut rng, frame.as_bytes()) };
                let Some(scanned) = super::frame(&bytes, &mut out) else { continue };
                *if round == 0 { &mut whole } else { &mut spoilt } += 1;
                let Ok(Parsed::Frame(parsed)) = parse(&bytes) else {
                    panic!("only a scan reads {}", String::from_utf8_lossy(&bytes));
                };
                assert_eq!(format!("{scanned:?}"), format!("{parsed:?}"), "{}", String::from_utf8_lossy(&bytes));
            }
        }
        assert!(whole * 2 > frames.len() && spoilt > 1_000, "{whole} {spoilt}");
    }
}
