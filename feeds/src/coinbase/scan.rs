//! Frames of one event, scanned ([`crate::scan`]): `l2_data`, which is nine in ten bytes that the venue sends, trades and
//! tickers.

use std::borrow::Cow;

use ticker_market::{Level, Levels};

use super::wire::{Ticker, WireTrade};
use crate::Out;
use crate::scan::{Reversed, Rows, Scan, fill};
use crate::wire::{MaybeQuoted, Quoted};

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
    let (timestamp, sequence_num) = head(&mut scan)?;
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

/// From behind the channel to the type of the only event: when the frame was made, and its number.
fn head<'a>(scan: &mut Scan<'a>) -> Option<(&'a str, u64)> {
    // Documented, and not always sent.
    let _ = scan.eat(b",\"client_id\":\"\"");
    scan.eat(b",\"timestamp\":\"")?;
    let timestamp = scan.until_quote()?;
    scan.eat(b",\"sequence_num\":")?;
    let sequence_num = scan.whole()?;
    scan.eat(b",\"events\":[{\"type\":")?;
    Some((timestamp, sequence_num))
}

/// A frame with one event, which is a list.
#[derive(Debug)]
pub(super) struct ListFrame<'a, R> {
    pub(super) timestamp: &'a str,
    pub(super) sequence_num: u64,
    pub(super) rows: R,
}

/// A frame of trades, of which the newest come first: the oldest of these rows does. `None` where it is not of the usual
/// form.
pub(super) fn trades(bytes: &[u8]) -> Option<ListFrame<'_, Reversed<'_, WireTrade<'_>>>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"channel\":\"market_trades\"")?;
    list(scan, b",\"trades\":", |scan| scan.reversed(trade, |_| Some(())))
}

/// From behind the channel to the end: the list under that key.
fn list<'a, R>(
    mut scan: Scan<'a>,
    key: &[u8],
    rows: impl FnOnce(&mut Scan<'a>) -> Option<R>,
) -> Option<ListFrame<'a, R>> {
    let (timestamp, sequence_num) = head(&mut scan)?;
    scan.text()?;
    scan.eat(key)?;
    let rows = rows(&mut scan)?;
    scan.eat(b"}]}")?;
    scan.end()?;
    Some(ListFrame { timestamp, sequence_num, rows })
}

fn trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    scan.attempt(usual_trade).or_else(|| any_trade(scan))
}

/// With its fields in the order that they come in.
fn usual_trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    scan.eat(b"{\"product_id\":")?;
    let product_id = scan.text()?;
    scan.eat(b",\"trade_id\":")?;
    let trade_id = scan.text()?;
    scan.eat(b",\"price\":")?;
    let price = scan.quoted()?;
    scan.eat(b",\"size\":")?;
    let size = scan.quoted()?;
    scan.eat(b",\"time\":")?;
    let time = scan.text()?;
    scan.eat(b",\"side\":")?;
    let side = scan.text()?;
    scan.eat(b"}")?;
    Some(WireTrade {
        product_id: Cow::Borrowed(product_id),
        trade_id: Cow::Borrowed(trade_id),
        price: Quoted(price),
        size: Quoted(size),
        time: Cow::Borrowed(time),
        side: Cow::Borrowed(side),
    })
}

fn any_trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    let (mut product_id, mut trade_id, mut price, mut size, mut time, mut side) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"product_id" => fill(&mut product_id, scan.text()),
        b"trade_id" => fill(&mut trade_id, scan.text()),
        b"price" => fill(&mut price, scan.quoted()),
        b"size" => fill(&mut size, scan.quoted()),
        b"time" => fill(&mut time, scan.text()),
        b"side" => fill(&mut side, scan.text()),
        _ => scan.pass_over(),
    })?;
    Some(WireTrade {
        product_id: Cow::Borrowed(product_id?),
        trade_id: Cow::Borrowed(trade_id?),
        price: Quoted(price?),
        size: Quoted(size?),
        time: Cow::Borrowed(time.unwrap_or_default()),
        side: Cow::Borrowed(side.unwrap_or_default()),
    })
}

/// A frame of tickers; `None` where it is not of the usual form.
pub(super) fn tickers(bytes: &[u8]) -> Option<ListFrame<'_, Rows<'_, Ticker<'_>>>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"channel\":\"ticker")?;
    let _ = scan.eat(b"_batch");
    scan.eat(b"\"")?;
    list(scan, b",\"tickers\":", |scan| scan.rows(ticker))
}

fn ticker<'a>(scan: &mut Scan<'a>) -> Option<Ticker<'a>> {
    let (mut product_id, mut bid, mut ask, mut bid_size, mut ask_size) = (None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"product_id" => fill(&mut product_id, scan.text()),
        b"best_bid" => fill(&mut bid, scan.maybe_quoted()),
        b"best_ask" => fill(&mut ask, scan.maybe_quoted()),
        b"best_bid_quantity" => fill(&mut bid_size, scan.maybe_quoted()),
        b"best_ask_quantity" => fill(&mut ask_size, scan.maybe_quoted()),
        _ => scan.pass_over(),
    })?;
    Some(Ticker {
        product_id: Cow::Borrowed(product_id?),
        best_bid: MaybeQuoted(bid.flatten()),
        best_ask: MaybeQuoted(ask.flatten()),
        best_bid_quantity: MaybeQuoted(bid_size.flatten()),
        best_ask_quantity: MaybeQuoted(ask_size.flatten()),
    })
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
            let same = scan.attempt(|scan| scan.eat(time.as_bytes()).and_then(|()| scan.eat(b"\"")));
            if same.is_none() {
                time = scan.until_quote()?;
            }
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
    use crate::coinbase::wire::{BookEvent, Envelope, TickerEvent, TradesEvent};
    use crate::scan::tests::{changed, reads_what_serde_reads};

    #[test]
    fn lists_are_read_as_serde_reads_them() {
        let text = include_str!("../../fixtures/coinbase/session.jsonl");
        let of = |channel: &str| text.lines().filter(|l| l.contains(channel)).collect::<Vec<_>>();
        reads_what_serde_reads(
            &of(r#""channel":"market_trades""#),
            |bytes, _| {
                let frame = trades(bytes)?;
                let mut rows: Vec<WireTrade<'_>> = frame.rows.collect();
                rows.reverse();
                Some(format!("{:?}", (frame.timestamp, frame.sequence_num, rows)))
            },
            |bytes| {
                let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
                let mut events: Vec<TradesEvent<'_>> = serde_json::from_str(envelope.events?.get()).ok()?;
                let event = events.pop().filter(|_| events.is_empty())?;
                assert_eq!(envelope.channel, "market_trades");
                Some(format!("{:?}", (&*envelope.timestamp, envelope.sequence_num?, event.trades)))
            },
        );
        reads_what_serde_reads(
            &of(r#""channel":"ticker"#),
            |bytes, _| {
                let frame = tickers(bytes)?;
                Some(format!("{:?}", (frame.timestamp, frame.sequence_num, frame.rows.collect::<Vec<_>>())))
            },
            |bytes| {
                let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
                let mut events: Vec<TickerEvent<'_>> = serde_json::from_str(envelope.events?.get()).ok()?;
                let event = events.pop().filter(|_| events.is_empty())?;
                assert!(matches!(&*envelope.channel, "ticker" | "ticker_batch"));
                Some(format!("{:?}", (&*envelope.timestamp, envelope.sequence_num?, event.tickers)))
            },
        );
    }

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
