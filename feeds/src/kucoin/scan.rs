//! Changes of books, scanned ([`crate::scan`]).

use ticker_market::{Level, Levels};

use crate::Out;
use crate::scan::{Scan, fill};

/// The changes `first` to `last`, each side in their order.
#[derive(Debug)]
pub(super) struct Level2<'a> {
    pub(super) symbol: &'a str,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Without those of a price of zero, which change nothing.
    pub(super) levels: Levels,
    pub(super) time_ms: Option<i64>,
}

/// `None` where the frame is not of the usual form, or its changes are not in the order of their numbers. The vectors of
/// its levels are of `out`.
pub(super) fn level2<'a>(bytes: &'a [u8], out: &mut Out) -> Option<Level2<'a>> {
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match frame(Scan::new(bytes), &mut levels) {
        Some(update) => Some(Level2 { levels, ..update }),
        None => {
            out.recycle(levels);
            None
        }
    }
}

/// All but the levels, which are in `levels`.
fn frame<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<Level2<'a>> {
    let (mut update, mut subject, mut topic, mut kind) = (None, None, None, None);
    scan.fields(|scan, key| match key {
        b"data" => fill(&mut update, data(scan, levels)),
        b"subject" => fill(&mut subject, scan.one_of(&["trade.l2update"])),
        b"topic" => fill(&mut topic, scan.text()),
        b"type" => fill(&mut kind, scan.one_of(&["message"])),
        _ => None,
    })?;
    scan.end()?;
    update.filter(|_| kind.is_some() && subject.is_some())
}

fn data<'a>(scan: &mut Scan<'a>, levels: &mut Levels) -> Option<Level2<'a>> {
    let (mut symbol, mut first, mut last, mut time_ms, mut numbers) = (None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"symbol" => fill(&mut symbol, scan.text()),
        b"sequenceStart" => fill(&mut first, scan.whole()),
        b"sequenceEnd" => fill(&mut last, scan.whole()),
        b"time" => fill(&mut time_ms, scan.signed()),
        b"changes" => fill(&mut numbers, changes(scan, levels)),
        _ => None,
    })?;
    let (first, last, (least, greatest)) = (first?, last?, numbers?);
    if least < first || greatest > last || first > last {
        return None;
    }
    Some(Level2 { symbol: symbol?, first, last, levels: Levels::default(), time_ms })
}

/// The least and the greatest number of a change.
fn changes(scan: &mut Scan<'_>, levels: &mut Levels) -> Option<(u64, u64)> {
    let (mut bids, mut asks, mut least, mut greatest) = (None, None, u64::MAX, 0);
    scan.fields(|scan, key| match key {
        b"bids" => fill(&mut bids, side(scan, &mut levels.bids, &mut least, &mut greatest)),
        b"asks" => fill(&mut asks, side(scan, &mut levels.asks, &mut least, &mut greatest)),
        _ => None,
    })?;
    Some((least, greatest))
}

fn side(scan: &mut Scan<'_>, list: &mut Vec<Level>, least: &mut u64, greatest: &mut u64) -> Option<()> {
    let mut before = 0;
    scan.list(|scan| {
        scan.eat(b"[\"")?;
        let level = scan.pair()?;
        scan.eat(b",\"")?;
        let number = scan.whole().filter(|number| *number >= before)?;
        scan.eat(b"\"]")?;
        before = number;
        (*least, *greatest) = ((*least).min(number), (*greatest).max(number));
        if !level.price.is_zero() {
            list.push(level);
        }
        Some(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Conn;
    use crate::kucoin::{Envelope, diffs};
    use crate::scan::tests::reads_what_serde_reads;

    /// As one difference, which a frame that continues the book is.
    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/kucoin/session.jsonl");
        let frames: Vec<&str> = text.lines().filter(|line| line.contains("trade.l2update")).collect();
        let scan = |bytes: &[u8], out: &mut Out| {
            let u = level2(bytes, out)?;
            Some(format!("{:?}", (u.symbol, u.first, u.last, u.levels, u.time_ms)))
        };
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert_eq!((&*envelope.kind, &*envelope.subject), ("message", "trade.l2update"));
            let update: crate::kucoin::Level2<'_> = serde_json::from_str(envelope.data?.get()).ok()?;
            let (symbol, first, time_ms) = (update.symbol.to_string(), update.first, update.time_ms);
            let [diff] = &diffs(update, Conn(0), true)?[..] else { return None };
            Some(format!("{:?}", (symbol, first, diff.last, &diff.levels, time_ms)))
        };
        reads_what_serde_reads(&frames, scan, parse);
    }
}
