//! Changes of books, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::wire::BookUpdate;
use crate::Out;
use crate::scan::{Scan, fill};
use crate::wire::Sided;

/// `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn update<'a>(bytes: &'a [u8], out: &mut Out) -> Option<BookUpdate<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"type\":\"l2update\",\"product_id\":\"")?;
    let product_id = Cow::Borrowed(scan.until_quote()?);
    scan.eat(b",\"changes\":")?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match rest(scan, &mut levels) {
        Some(time) => Some(BookUpdate { product_id, changes: Sided(levels), time: Cow::Borrowed(time) }),
        None => {
            out.recycle(levels);
            None
        }
    }
}

fn rest<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<&'a str> {
    scan.sided(levels)?;
    let mut time = None;
    while scan.eat(b",").is_some() {
        match scan.eat(b"\"time\":") {
            Some(()) => fill(&mut time, scan.text())?,
            None => return None,
        }
    }
    scan.eat(b"}")?;
    scan.end()?;
    Some(time.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coinbase_exchange::wire::Head;
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/coinbase-exchange/session.jsonl");
        let frames: Vec<&str> = text.lines().filter(|line| line.contains("l2update")).collect();
        let parse = |bytes: &[u8]| {
            let head: Head<'_> = serde_json::from_slice(bytes).ok()?;
            assert_eq!(head.kind, "l2update");
            Some(format!("{:?}", serde_json::from_slice::<BookUpdate<'_>>(bytes).ok()?))
        };
        reads_what_serde_reads(&frames, |bytes, out| update(bytes, out).map(|f| format!("{f:?}")), parse);
    }
}
