//! Partials and changes of one book, and trades, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Time;

use super::{Change, Row, WireTrade};
use crate::scan::{Rows, Scan, fill};
use crate::wire::Number;

/// A partial of `orderBookL2`, or what comes between them, of one symbol.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    pub(super) action: &'a str,
    pub(super) symbol: &'a str,
    /// The latest of the rows' times.
    pub(super) ts: Option<Time>,
}

/// All but the rows, which are put in `rows`: to read them again when they are told would take as long as the first time.
/// `None` where the frame is not of the usual form.
pub(super) fn changes<'a>(bytes: &'a [u8], rows: &mut Vec<Change>) -> Option<Changes<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"table\":\"orderBookL2")?;
    let _ = scan.eat(b"_25");
    scan.eat(b"\",\"action\":\"")?;
    let action = scan.until_quote().filter(|action| *action != "partial")?;
    scan.eat(b",\"data\":")?;
    let (symbol, ts) = rows_of_one(&mut scan, rows)?;
    scan.eat(b"}")?;
    scan.end()?;
    Some(Changes { action, symbol: symbol?, ts })
}

/// A whole book: as [`changes`].
pub(super) fn partial<'a>(bytes: &'a [u8], rows: &mut Vec<Change>) -> Option<Changes<'a>> {
    let mut scan = Scan::new(bytes);
    if !bytes.starts_with(b"{\"table\":\"orderBookL2") {
        return None;
    }
    let (mut table, mut action, mut symbol, mut data) = (None, None, None, None);
    scan.fields(|scan, key| match key {
        b"table" => fill(&mut table, scan.text()),
        b"action" => fill(&mut action, scan.text()),
        b"filter" => scan.fields(|scan, key| match key {
            b"symbol" => fill(&mut symbol, scan.text()),
            _ => scan.pass_over(),
        }),
        b"data" => fill(&mut data, rows_of_one(scan, rows)),
        // What a table consists of.
        b"keys" => scan.list(Scan::pass_over),
        b"types" | b"foreignKeys" | b"attributes" => scan.fields(|scan, _| scan.pass_over()),
        _ => scan.pass_over(),
    })?;
    scan.end()?;
    let (action, symbol, (of, ts)) = (action?, symbol?, data?);
    let is_of_one = of.is_none_or(|of| of == symbol);
    (matches!(table?, "orderBookL2" | "orderBookL2_25") && action == "partial" && is_of_one).then_some(())?;
    Some(Changes { action, symbol, ts })
}

/// Rows of one symbol: which, and the latest of their times.
fn rows_of_one<'a>(scan: &mut Scan<'a>, rows: &mut Vec<Change>) -> Option<(Option<&'a str>, Option<Time>)> {
    let (mut symbol, mut ts) = (None, None);
    rows.clear();
    scan.list(|scan| {
        let row = row(scan)?;
        rows.push(Change::of(&row));
        ts = ts.max(Time::parse_rfc3339(&row.timestamp));
        let Cow::Borrowed(own) = row.symbol else { return None };
        (*symbol.get_or_insert(own) == own).then_some(())
    })?;
    Some((symbol, ts))
}

/// The trades of a frame that are new; `None` where it is not of the usual form.
pub(super) fn trades(bytes: &[u8]) -> Option<Rows<'_, WireTrade<'_>>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"table\":\"trade\",\"action\":\"insert\",\"data\":")?;
    scan.last_rows(trade, b"}")
}

fn trade<'a>(scan: &mut Scan<'a>) -> Option<WireTrade<'a>> {
    let (mut timestamp, mut symbol, mut side, mut size, mut price, mut id) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"timestamp" => fill(&mut timestamp, scan.text()),
        b"symbol" => fill(&mut symbol, scan.text()),
        b"side" => fill(&mut side, scan.text()),
        b"size" => fill(&mut size, scan.number()),
        b"price" => fill(&mut price, scan.number()),
        b"trdMatchID" => fill(&mut id, scan.text()),
        _ => scan.pass_over(),
    })?;
    Some(WireTrade {
        timestamp: Cow::Borrowed(timestamp?),
        symbol: Cow::Borrowed(symbol?),
        side: side.map(Cow::Borrowed),
        size: size.map(Number),
        price: Number(price?),
        id: Cow::Borrowed(id?),
    })
}

fn row<'a>(scan: &mut Scan<'a>) -> Option<Row<'a>> {
    if let Some(row) = scan.attempt(usual_row) {
        return Some(row);
    }
    let (mut symbol, mut id, mut side, mut size, mut price, mut timestamp) = (None, None, None, None, None, None);
    scan.fields(|scan, key| match key {
        b"symbol" => fill(&mut symbol, scan.text()),
        b"id" => fill(&mut id, scan.whole()),
        b"side" => fill(&mut side, scan.text()),
        b"size" => fill(&mut size, scan.number()),
        b"price" => fill(&mut price, scan.number()),
        b"timestamp" => fill(&mut timestamp, scan.text()),
        _ => scan.pass_over(),
    })?;
    Some(Row {
        symbol: Cow::Borrowed(symbol?),
        id: id?,
        side: Cow::Borrowed(side?),
        size: size.map(Number),
        price: price.map(Number),
        timestamp: Cow::Borrowed(timestamp.unwrap_or_default()),
    })
}

/// A row whose fields come in the order that the venue writes them in.
fn usual_row<'a>(scan: &mut Scan<'a>) -> Option<Row<'a>> {
    scan.eat(b"{\"symbol\":\"")?;
    let symbol = Cow::Borrowed(scan.until_quote()?);
    scan.eat(b",\"id\":")?;
    let id = scan.whole()?;
    scan.eat(b",\"side\":\"")?;
    let side = Cow::Borrowed(match scan.eat(b"Sell\"") {
        Some(()) => "Sell",
        None => scan.eat(b"Buy\"").map(|()| "Buy")?,
    });
    let (mut size, mut price, mut timestamp) = (None, None, "");
    if scan.eat(b",\"size\":").is_some() {
        size = Some(Number(scan.number()?));
    }
    if scan.eat(b",\"price\":").is_some() {
        price = Some(Number(scan.number()?));
    }
    if scan.eat(b",\"timestamp\":\"").is_some() {
        timestamp = scan.until_quote()?;
    }
    if scan.eat(b",\"transactTime\":").is_some() {
        scan.pass_over()?;
    }
    scan.eat(b"}")?;
    Some(Row { symbol, id, side, size, price, timestamp: Cow::Borrowed(timestamp) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitmex::Envelope;
    use crate::scan::tests::reads_what_serde_reads;

    fn shown(action: &str, symbol: &str, rows: &[Row<'_>]) -> String {
        assert!(rows.iter().all(|row| row.symbol == symbol));
        let ts = rows.iter().filter_map(|row| Time::parse_rfc3339(&row.timestamp)).max();
        let changes: Vec<Change> = rows.iter().map(Change::of).collect();
        format!("{:?} {changes:?}", Changes { action, symbol, ts })
    }

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/bitmex/session.jsonl");
        let is_change = |line: &&str| line.contains(r#""table":"orderBookL2"#) && !line.contains("partial");
        let frames: Vec<&str> = text.lines().filter(is_change).collect();
        let scan = |bytes: &[u8]| {
            let mut rows = Vec::new();
            Some(format!("{:?} {rows:?}", changes(bytes, &mut rows)?))
        };
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(matches!(&*envelope.table, "orderBookL2" | "orderBookL2_25") && envelope.error.is_none());
            let rows: Vec<Row<'_>> = serde_json::from_str(envelope.data?.get()).ok()?;
            Some(shown(&envelope.action, &rows.first()?.symbol, &rows))
        };
        reads_what_serde_reads(&frames, |bytes, _| scan(bytes), parse);
    }

    #[test]
    fn partials_are_read_as_serde_reads_them() {
        let text = include_str!("../../fixtures/bitmex/session.jsonl").replace("4.9999e4", "49999");
        let types = r#""types":{"symbol":"symbol","id":"long"},"foreignKeys":{"side":"side"},"attributes":{"id":"sorted"},"filter""#;
        let text = text.replacen(r#""filter""#, types, 1);
        let is_partial = |line: &&str| line.contains(r#""table":"orderBookL2"#) && line.contains("partial");
        let frames: Vec<&str> = text.lines().filter(is_partial).collect();
        let scan = |bytes: &[u8]| {
            let mut rows = Vec::new();
            Some(format!("{:?} {rows:?}", partial(bytes, &mut rows)?))
        };
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(matches!(&*envelope.table, "orderBookL2" | "orderBookL2_25") && envelope.error.is_none());
            assert_eq!(envelope.action, "partial");
            let rows: Vec<Row<'_>> = serde_json::from_str(envelope.data?.get()).ok()?;
            Some(shown(&envelope.action, &envelope.filter?.symbol, &rows))
        };
        reads_what_serde_reads(&frames, |bytes, _| scan(bytes), parse);
    }

    #[test]
    fn trades_are_read_as_serde_reads_them() {
        let text = include_str!("../../fixtures/bitmex/session.jsonl");
        let is_trade = |line: &&str| line.contains(r#""table":"trade","action":"insert""#);
        let frames: Vec<&str> = text.lines().filter(is_trade).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert_eq!((&*envelope.table, &*envelope.action, envelope.error), ("trade", "insert", None));
            let rows: Vec<WireTrade<'_>> = serde_json::from_str(envelope.data?.get()).ok()?;
            Some(format!("{rows:?}"))
        };
        let scan = |bytes: &[u8]| trades(bytes).map(|rows| format!("{:?}", rows.collect::<Vec<_>>()));
        reads_what_serde_reads(&frames, |bytes, _| scan(bytes), parse);
    }
}
