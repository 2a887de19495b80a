//! Updates of books and trades, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::{Level, Levels};

use super::wire::{Changes, WireTrade};
use crate::Out;
use crate::scan::{Rows, Scan, fill};
use crate::wire::Number;

/// An update of one book; `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn update<'a>(bytes: &'a [u8], out: &mut Out) -> Option<Changes<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"channel\":\"book\",\"type\":\"update\",\"data\":[{\"symbol\":\"")?;
    let symbol = scan.until_quote()?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match rest(scan, &mut levels) {
        Some((checksum, timestamp)) => Some(Changes { symbol, levels, checksum, timestamp }),
        None => {
            out.recycle(levels);
            None
        }
    }
}

fn rest<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<(u32, &'a str)> {
    scan.eat(b",\"bids\":[")?;
    side(&mut scan, &mut levels.bids)?;
    scan.eat(b",\"asks\":[")?;
    side(&mut scan, &mut levels.asks)?;
    scan.eat(b",\"checksum\":")?;
    let checksum = scan.whole().and_then(|number| u32::try_from(number).ok())?;
    scan.eat(b",\"timestamp\":\"")?;
    let timestamp = scan.until_quote()?;
    scan.eat(b"}]}")?;
    scan.end()?;
    Some((checksum, timestamp))
}

/// Levels, behind the `[` that was read.
fn side(scan: &mut Scan<'_>, list: &mut Vec<Level>) -> Option<()> {
    if scan.eat(b"]").is_some() {
        return Some(());
    }
    loop {
        scan.eat(b"{\"price\":")?;
        let price = scan.number()?;
        scan.eat(b",\"qty\":")?;
        let size = scan.number()?;
        scan.eat(b"}")?;
        list.push(Level { price, size });
        match scan.byte()? {
            b',' => {}
            b']' => return Some(()),
            _ => return None,
        }
    }
}

/// The trades of an update; `None` where it is not of the usual form.
pub(super) fn trades(bytes: &[u8]) -> Option<Rows<'_, WireTrade<'_>>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"channel\":\"trade\",\"type\":\"update\",\"data\":")?;
    scan.last_rows(trade, b"}")
}

fn trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    let (mut symbol, mut side, mut price, mut qty, mut trade_id, mut timestamp) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"symbol" => fill(&mut symbol, scan.text()),
        b"side" => fill(&mut side, scan.text()),
        b"price" => fill(&mut price, scan.number()),
        b"qty" => fill(&mut qty, scan.number()),
        b"trade_id" => fill(&mut trade_id, scan.whole()),
        b"timestamp" => fill(&mut timestamp, scan.text()),
        _ => scan.pass_over(),
    })?;
    Some(WireTrade {
        symbol: Cow::Borrowed(symbol?),
        side: Cow::Borrowed(side?),
        price: Number(price?),
        qty: Number(qty?),
        trade_id: trade_id?,
        timestamp: Cow::Borrowed(timestamp.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kraken::wire::{BookFrame, Envelope};
    use crate::scan::tests::{changed, reads_what_serde_reads};

    /// What a scan accepts, serde reads the same, digit for digit.
    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/kraken/book.jsonl");
        let is_update = |line: &&str| line.contains(r#""channel":"book","type":"update""#);
        let frames: Vec<&str> = text.lines().filter(is_update).collect();
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut out, mut whole, mut spoilt) = (Out::default(), 0, 0);
        for round in 0..2_000 {
            for frame in &frames {
                let bytes = if round == 0 { frame.as_bytes().to_vec() } else { changed(&mut rng, frame.as_bytes()) };
                let Some(scanned) = update(&bytes, &mut out) else { continue };
                *if round == 0 { &mut whole } else { &mut spoilt } += 1;
                let shown = String::from_utf8_lossy(&bytes);
                let envelope: Envelope<'_> = serde_json::from_slice(&bytes).expect(&shown);
                let data: Vec<BookFrame<'_>> = serde_json::from_str(envelope.data.expect(&shown).get()).expect(&shown);
                let [frame] = &data[..] else { panic!("one book: {shown}") };
                assert_eq!((&*envelope.channel, &*envelope.kind), ("book", "update"), "{shown}");
                assert_eq!(format!("{scanned:?}"), format!("{:?}", frame.changes()), "{shown}");
            }
        }
        assert!(whole * 2 > frames.len() && spoilt > 1_000, "{whole} {spoilt}");
    }

    #[test]
    fn trades_are_read_as_serde_reads_them() {
        let frames = [
            r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":64200.1,"qty":0.00250000,"ord_type":"limit","trade_id":4665906,"timestamp":"2026-01-05T10:00:00.123456Z"}]}"#,
            r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":64200,"qty":1.5,"ord_type":"market","trade_id":4665907,"timestamp":"2026-01-05T10:00:01.5Z"},{"symbol":"BTC/USD","side":"buy","price":64201.0,"qty":0.1,"ord_type":"market","trade_id":4665908,"timestamp":"2026-01-05T10:00:01.5Z"}]}"#,
        ];
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert_eq!((&*envelope.channel, &*envelope.kind), ("trade", "update"));
            let rows: Vec<WireTrade<'_>> = serde_json::from_str(envelope.data?.get()).ok()?;
            Some(format!("{rows:?}"))
        };
        let scan = |bytes: &[u8]| trades(bytes).map(|rows| format!("{:?}", rows.collect::<Vec<_>>()));
        reads_what_serde_reads(&frames, |bytes, _| scan(bytes), parse);
    }
}
