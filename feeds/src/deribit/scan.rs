//! Frames of books and trades, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::{Decimal, Level, Levels};

use super::{Rows, WireBook, WireTrade};
use crate::Out;
use crate::scan::{self, Scan, fill};
use crate::wire::Number;

/// `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn book<'a>(bytes: &'a [u8], out: &mut Out) -> Option<WireBook<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"jsonrpc\":\"2.0\",\"method\":\"subscription\",\"params\":{\"channel\":\"book.")?;
    scan.until_quote()?;
    scan.eat(b",\"data\":")?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match data(scan, &mut levels) {
        Some(book) => Some(WireBook { bids: Rows(levels.bids), asks: Rows(levels.asks), ..book }),
        None => {
            out.recycle(levels);
            None
        }
    }
}

/// All but the levels, which are in `levels`.
fn data<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<WireBook<'a>> {
    let (mut kind, mut time_ms, mut name, mut change_id, mut before) = (None, None, None, None, None);
    let (mut bids, mut asks) = (None, None);
    scan.fields(|scan, key| match key {
        b"type" => fill(&mut kind, scan.text()),
        b"timestamp" => fill(&mut time_ms, scan.signed()),
        b"instrument_name" => fill(&mut name, scan.text()),
        b"change_id" => fill(&mut change_id, scan.whole()),
        b"prev_change_id" => fill(&mut before, scan.whole()),
        b"bids" => fill(&mut bids, side(scan, &mut levels.bids)),
        b"asks" => fill(&mut asks, side(scan, &mut levels.asks)),
        _ => scan.pass_over(),
    })?;
    scan.eat(b"}}")?;
    scan.end()?;
    Some(WireBook {
        kind: Cow::Borrowed(kind?),
        time_ms: time_ms?,
        name: Cow::Borrowed(name?),
        change_id: change_id?,
        prev_change_id: before,
        bids: Rows::default(),
        asks: Rows::default(),
    })
}

fn side(scan: &mut Scan<'_>, list: &mut Vec<Level>) -> Option<()> {
    scan.list(|scan| {
        scan.eat(b"[")?;
        let is_gone = scan.text()? == "delete";
        scan.eat(b",")?;
        let price = scan.number()?;
        scan.eat(b",")?;
        let size = scan.number()?;
        scan.eat(b"]")?;
        list.push(Level { price, size: if is_gone { Decimal::ZERO } else { size } });
        Some(())
    })
}

/// The trades of a frame; `None` where it is not of the usual form.
pub(super) fn trades(bytes: &[u8]) -> Option<scan::Rows<'_, WireTrade<'_>>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"jsonrpc\":\"2.0\",\"method\":\"subscription\",\"params\":{\"channel\":\"trades.")?;
    scan.until_quote()?;
    scan.eat(b",\"data\":")?;
    scan.last_rows(trade, b"}}")
}

fn trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    let (mut time_ms, mut name, mut price, mut amount) = (None, None, None, None);
    let (mut direction, mut sequence, mut trade_id) = (None, None, None);
    scan.fields(|scan, key| match key {
        b"timestamp" => fill(&mut time_ms, scan.signed()),
        b"instrument_name" => fill(&mut name, scan.text()),
        b"price" => fill(&mut price, scan.number()),
        b"amount" => fill(&mut amount, scan.number()),
        b"direction" => fill(&mut direction, scan.text()),
        b"trade_seq" => fill(&mut sequence, scan.whole()),
        b"trade_id" => fill(&mut trade_id, scan.text()),
        _ => scan.pass_over(),
    })?;
    Some(WireTrade {
        time_ms: time_ms?,
        name: Cow::Borrowed(name?),
        price: Number(price?),
        amount: Number(amount?),
        direction: Cow::Borrowed(direction?),
        sequence: sequence?,
        trade_id: Cow::Borrowed(trade_id?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deribit::{Envelope, Params};
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/deribit/session.jsonl");
        let is_plain = |line: &&str| {
            let has_exponent = ["5e4", "5E0"].iter().any(|number| line.contains(number));
            line.contains(r#""channel":"book."#) && !has_exponent
        };
        let frames: Vec<&str> = text.lines().filter(is_plain).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(envelope.error.is_none() && envelope.method == "subscription");
            let params: Params<'_> = serde_json::from_str(envelope.params?.get()).ok()?;
            assert_eq!(params.channel.split('.').next(), Some("book"));
            Some(format!("{:?}", serde_json::from_str::<WireBook<'_>>(params.data?.get()).ok()?))
        };
        reads_what_serde_reads(&frames, |bytes, out| book(bytes, out).map(|f| format!("{f:?}")), parse);
    }

    #[test]
    fn trades_are_read_as_serde_reads_them() {
        let text = include_str!("../../fixtures/deribit/session.jsonl").replace("1e1", "10.0");
        let frames: Vec<&str> = text.lines().filter(|line| line.contains(r#""channel":"trades."#)).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(envelope.error.is_none() && envelope.method == "subscription");
            let params: Params<'_> = serde_json::from_str(envelope.params?.get()).ok()?;
            assert_eq!(params.channel.split('.').next(), Some("trades"));
            Some(format!("{:?}", serde_json::from_str::<Vec<WireTrade<'_>>>(params.data?.get()).ok()?))
        };
        let scan = |bytes: &[u8]| trades(bytes).map(|rows| format!("{:?}", rows.collect::<Vec<_>>()));
        reads_what_serde_reads(&frames, |bytes, _| scan(bytes), parse);
    }
}
