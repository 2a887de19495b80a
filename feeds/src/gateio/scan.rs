//! Changes of books, scanned ([`crate::scan`]).

use std::borrow::Cow;

use ticker_market::Levels;

use super::DepthUpdate;
use crate::Out;
use crate::scan::{Scan, fill};
use crate::wire::LevelPairs;

/// `None` where the frame is not of the usual form. The vectors of its levels are of `out`.
pub(super) fn update<'a>(bytes: &'a [u8], out: &mut Out) -> Option<DepthUpdate<'a>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"{\"time\":")?;
    scan.whole()?;
    if scan.eat(b",\"time_ms\":").is_some() {
        scan.whole()?;
    }
    scan.eat(b",\"channel\":\"spot.order_book_update\",\"event\":\"update\",\"result\":")?;
    let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
    match result(scan, &mut levels) {
        Some(update) => Some(DepthUpdate { b: LevelPairs(levels.bids), a: LevelPairs(levels.asks), ..update }),
        None => {
            out.recycle(levels);
            None
        }
    }
}

/// All but the levels, which are in `levels`.
fn result<'a>(mut scan: Scan<'a>, levels: &mut Levels) -> Option<DepthUpdate<'a>> {
    let (mut time_ms, mut s, mut first, mut last, mut full) = (None, None, None, None, None);
    let (mut bids, mut asks) = (None, None);
    scan.fields(|scan, key| match key {
        b"t" => fill(&mut time_ms, scan.signed()),
        b"s" => fill(&mut s, scan.text()),
        b"U" => fill(&mut first, scan.whole()),
        b"u" => fill(&mut last, scan.whole()),
        b"full" => fill(&mut full, scan.flag()),
        b"b" => fill(&mut bids, scan.pairs(&mut levels.bids)),
        b"a" => fill(&mut asks, scan.pairs(&mut levels.asks)),
        _ => scan.pass_over(),
    })?;
    scan.eat(b"}")?;
    scan.end()?;
    let (b, a) = (LevelPairs::default(), LevelPairs::default());
    let full = full.unwrap_or_default();
    Some(DepthUpdate { time_ms: time_ms?, s: Cow::Borrowed(s?), first: first?, last: last?, full, b, a })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateio::Envelope;
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let text = include_str!("../../fixtures/gateio/session.jsonl");
        let is_update = |line: &&str| line.contains(r#""spot.order_book_update","event":"update""#);
        let frames: Vec<&str> = text.lines().filter(is_update).collect();
        let parse = |bytes: &[u8]| {
            let envelope: Envelope<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(envelope.error.is_none());
            assert_eq!((&*envelope.channel, &*envelope.event), ("spot.order_book_update", "update"));
            Some(format!("{:?}", serde_json::from_str::<DepthUpdate<'_>>(envelope.result?.get()).ok()?))
        };
        reads_what_serde_reads(&frames, |bytes, out| update(bytes, out).map(|f| format!("{f:?}")), parse);
    }
}
