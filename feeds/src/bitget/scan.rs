//! Frames of one book, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::{Arg, BookData, Integer};
use crate::Out;
use crate::scan::{Scan, fill};
use crate::wire::LevelPairs;

/// A frame of the channel `books`.
#[derive(Debug)]
pub(super) struct BookFrame<'a> {
    pub(super) arg: Arg<'a>,
    pub(super) action: &'a str,
    pub(super) book: BookData,
}

/// `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn book<'a>(bytes: &'a [u8], out: &mut Out) -> Option<BookFrame<'a>> {
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match frame(Scan::new(bytes), &mut levels) {
        Some(frame) => {
            let (asks, bids) = (Some(LevelPairs(levels.asks)), Some(LevelPairs(levels.bids)));
            Some(BookFrame { book: BookData { asks, bids, ..frame.book }, ..frame })
        }
        None => {
            out.recycle(levels);
            None
        }
    }
}

/// All but the levels, which are in `levels`.
fn frame<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<BookFrame<'a>> {
    let (mut arg, mut action, mut book) = (None, None, None);
    scan.fields(|scan, key| match key {
        b"action" => fill(&mut action, scan.text()),
        b"arg" => fill(&mut arg, topic(scan)),
        // What other channels carry is of no use.
        b"data" if arg.is_some() => {
            scan.eat(b"[")?;
            fill(&mut book, data(scan, levels))?;
            scan.eat(b"]")
        }
        b"ts" => scan.pass_over(),
        _ => None,
    })?;
    scan.end()?;
    Some(BookFrame { arg: arg?, action: action?, book: book? })
}

fn topic<'a>(scan: &mut Scan<'a>) -> Option<Arg<'a>> {
    let (mut inst_type, mut channel, mut native) = (None, None, None);
    scan.fields(|scan, key| match key {
        b"instType" => fill(&mut inst_type, scan.text()),
        b"channel" | b"topic" => fill(&mut channel, scan.one_of(&["books"])),
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
}
