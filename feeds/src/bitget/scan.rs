//! Frames of one book, and of trades, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::order;
use super::wire::{Arg, BookData, Integer, WireTrade};
use crate::Out;
use crate::scan::{Reversed, Scan, fill};
use crate::wire::{LevelPairs, Quoted};

/// A frame of the channel `books`.
#[derive(Debug)]
pub(super) struct BookFrame<'a> {
    pub(super) arg: Arg<'a>,
    pub(super) action: &'a str,
    pub(super) book: BookData,
}

/// A frame of trades.
#[derive(Debug)]
pub(super) struct TradesFrame<'a> {
    pub(super) arg: Arg<'a>,
    pub(super) action: &'a str,
    /// From the last to the first.
    pub(super) trades: Reversed<'a, WireTrade<'a>>,
    pub(super) is_newest_first: bool,
}

/// `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn book<'a>(bytes: &'a [u8], out: &mut Out) -> Option<BookFrame<'a>> {
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    let read = |scan: &mut Scan<'a>| {
        scan.eat(b"[")?;
        let book = data(scan, &mut levels)?;
        scan.eat(b"]").map(|()| book)
    };
    match frame(bytes, &["books"], read) {
        Some((arg, action, book)) => {
            let (asks, bids) = (Some(LevelPairs(levels.asks)), Some(LevelPairs(levels.bids)));
            Some(BookFrame { arg, action, book: BookData { asks, bids, ..book } })
        }
        None => {
            out.recycle(levels);
            None
        }
    }
}

/// `None` where the frame is not of the usual form.
pub(super) fn trades(bytes: &[u8]) -> Option<TradesFrame<'_>> {
    let (mut first, mut last) = (None, None);
    let (arg, action, trades) = frame(bytes, &["trade", "publicTrade"], |scan| {
        scan.reversed(trade, |trade| {
            let order = order(&trade);
            (first, last) = (first.or(Some(order)), Some(order));
            Some(())
        })
    })?;
    // As most are; both are none of an empty list.
    Some(TradesFrame { arg, action, trades, is_newest_first: first > last })
}

/// A frame of one of these channels, whose data is read by `data`.
fn frame<'a, T>(
    bytes: &'a [u8],
    channels: &[&'static str],
    mut data: impl FnMut(&mut Scan<'a>) -> Option<T>,
) -> Option<(Arg<'a>, &'a str, T)> {
    let (mut scan, mut arg, mut action, mut read) = (Scan::new(bytes), None, None, None);
    scan.fields(|scan, key| match key {
        b"action" => fill(&mut action, scan.text()),
        b"arg" => fill(&mut arg, topic(scan, channels)),
        // What other channels carry is of no use.
        b"data" if arg.is_some() => fill(&mut read, data(scan)),
        b"ts" => scan.pass_over(),
        _ => None,
    })?;
    scan.end()?;
    Some((arg?, action?, read?))
}

fn topic<'a>(scan: &mut Scan<'a>, channels: &[&'static str]) -> Option<Arg<'a>> {
    let (mut inst_type, mut channel, mut native) = (None, None, None);
    scan.fields(|scan, key| match key {
        b"instType" => fill(&mut inst_type, scan.text()),
        b"channel" | b"topic" => fill(&mut channel, scan.one_of(channels)),
        b"instId" | b"symbol" => fill(&mut native, scan.text()),
        _ => None,
    })?;
    let [inst_type, channel, native] = [inst_type?, channel?, native?].map(Cow::Borrowed);
    Some(Arg { inst_type, channel, native })
}

fn data(scan: &mut Scan<'_>, levels: &mut Levels) -> Option<BookData> {
    let (mut asks, mut bids, mut checksum, mut seq, mut pseq, mut ts) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"asks" | b"a" => fill(&mut asks, scan.pairs(&mut levels.asks)),
        b"bids" | b"b" => fill(&mut bids, scan.pairs(&mut levels.bids)),
        b"checksum" => fill(&mut checksum, scan.integer()),
        b"seq" => fill(&mut seq, integer(scan)),
        b"pseq" => fill(&mut pseq, integer(scan)),
        b"ts" => fill(&mut ts, integer(scan)),
        _ => scan.pass_over(),
    })?;
    Some(BookData { asks: None, bids: None, checksum, seq, pseq, ts })
}

/// As an object, or, in v1, as a list of time, price, size and side.
fn trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    let (mut ts, mut price, mut size, mut side, mut id) = (None, None, None, None, None);
    if scan.eat(b"[").is_some() {
        ts = Some(integer(scan)?);
        scan.eat(b",")?;
        price = Some(scan.quoted()?);
        scan.eat(b",")?;
        size = Some(scan.quoted()?);
        scan.eat(b",")?;
        side = Some(scan.text()?);
        scan.eat(b"]")?;
    } else {
        scan.fields(|scan, key| match key {
            b"ts" | b"T" => fill(&mut ts, integer(scan)),
            b"price" | b"p" => fill(&mut price, scan.quoted()),
            b"size" | b"v" => fill(&mut size, scan.quoted()),
            b"side" | b"S" => fill(&mut side, scan.text()),
            b"tradeId" | b"i" => fill(&mut id, scan.text()),
            _ => scan.pass_over(),
        })?;
    }
    let (price, size) = (Quoted(price?), Quoted(size?));
    Some(WireTrade { ts: ts?, price, size, side: Cow::Borrowed(side?), id: id.map(Cow::Borrowed) })
}

/// Quoted or not; some have nineteen digits.
fn integer(scan: &mut Scan<'_>) -> Option<Integer> {
    let is_quoted = scan.eat(b"\"").is_some();
    let number = scan.attempt(Scan::nanos).or_else(|| scan.integer())?;
    if is_quoted {
        scan.eat(b"\"")?;
    }
    Some(Integer(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitget::wire::Envelope;
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/bitget/session.jsonl");
        let is_book = |line: &&str| line.contains(r#":"books","#) && line.contains("data");
        let frames: Vec<&str> = text.lines().filter(is_book).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(envelope.event.is_empty());
            let mut data: Vec<BookData> = serde_json::from_str(envelope.data?.get()).ok()?;
            let book = data.pop().filter(|_| data.is_empty())?;
            let (bids, asks) = (book.bids.or(Some(LevelPairs::default())), book.asks.or(Some(LevelPairs::default())));
            let (arg, action) = (envelope.arg?, &*envelope.action);
            Some(format!("{:?}", BookFrame { arg, action, book: BookData { bids, asks, ..book } }))
        };
        reads_what_serde_reads(&frames, |bytes, out| book(bytes, out).map(|f| format!("{f:?}")), parse);
    }

    #[test]
    fn trades_are_read_as_serde_reads_them() {
        let text = include_str!("../../fixtures/bitget/session.jsonl");
        let is_trade = |line: &&str| line.contains(r#":"trade","#) || line.contains(r#":"publicTrade","#);
        let frames: Vec<&str> = text.lines().filter(is_trade).collect();
        let scan = |bytes: &[u8]| {
            let TradesFrame { arg, action, trades, is_newest_first } = trades(bytes)?;
            let trades: Vec<_> = trades.rev().collect();
            Some(format!("{:?}", (arg, action, trades, is_newest_first)))
        };
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(envelope.event.is_empty());
            let (arg, action) = (envelope.arg?, &*envelope.action);
            assert!(matches!(&*arg.channel, "trade" | "publicTrade"));
            let trades: Vec<WireTrade<'_>> = serde_json::from_str(envelope.data?.get()).ok()?;
            let is_newest_first = trades.first().map(order) > trades.last().map(order);
            Some(format!("{:?}", (arg, action, trades, is_newest_first)))
        };
        reads_what_serde_reads(&frames, |bytes, _| scan(bytes), parse);
    }
}
