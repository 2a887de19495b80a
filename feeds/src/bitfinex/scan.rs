//! Frames of books, scanned ([`crate::scan`]).

use super::wire::WireLevel;
use crate::scan::{Rows, Scan};
use crate::wire::Number;

/// `[232956,[0.0000249,0,1],977]`
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) channel: u64,
    pub(super) body: Body<'a>,
    /// Its number in the connection's sequence, if that was asked for.
    pub(super) sequence: Option<u64>,
}

/// What a frame carries.
#[derive(Debug)]
pub(super) enum Body<'a> {
    Level(WireLevel),
    List(Rows<'a, WireLevel>),
    Checksum(i64),
    Heartbeat,
}

/// `None` where the frame is not of the usual form, or not of a book.
pub(super) fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"[")?;
    let channel = scan.whole()?;
    scan.eat(b",")?;
    let body = body(&mut scan)?;
    let sequence = match scan.eat(b",") {
        Some(()) => Some(scan.whole()?),
        None => None,
    };
    // The time, if that was asked for.
    if sequence.is_some() && scan.eat(b",").is_some() {
        scan.whole()?;
    }
    scan.eat(b"]")?;
    scan.end()?;
    Some(Frame { channel, body, sequence })
}

fn body<'a>(scan: &mut Scan<'a>) -> Option<Body<'a>> {
    if scan.eat(b"\"hb\"").is_some() {
        return Some(Body::Heartbeat);
    }
    if scan.eat(b"\"cs\",").is_some() {
        return scan.integer().map(Body::Checksum);
    }
    match scan.attempt(level) {
        Some(level) => Some(Body::Level(level)),
        None => scan.rows(level).map(Body::List),
    }
}

fn level(scan: &mut Scan<'_>) -> Option<WireLevel> {
    scan.eat(b"[")?;
    let price = Number(scan.number()?);
    scan.eat(b",")?;
    let count = scan.whole()?;
    scan.eat(b",")?;
    let amount = Number(scan.signed_number()?);
    scan.eat(b"]")?;
    Some(WireLevel(price, count, amount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitfinex::wire::ChannelFrame;
    use crate::scan::tests::reads_what_serde_reads;

    /// In one form, whoever read it.
    type Read = (u64, Vec<WireLevel>, Option<i64>, Option<u64>);

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let frames = [
            "[232955,[0.0010148,1,120.45687689],836]",
            "[232956,[0.0000253,1,-66.58783643],839,1767607200000]",
            "[11,[50000,0,1]]",
            "[11,[[50000,2,1.5],[49999,1,0.25],[50001,1,-3]],7]",
            "[11,[],8]",
            "[11,\"cs\",-1234567890,9]",
            "[11,\"hb\",10]",
        ];
        let scan = |bytes: &[u8]| -> Option<Read> {
            let Frame { channel, body, sequence } = frame(bytes)?;
            Some(match body {
                Body::Level(level) => (channel, vec![level], None, sequence),
                Body::List(levels) => (channel, levels.collect(), None, sequence),
                Body::Checksum(checksum) => (channel, Vec::new(), Some(checksum), sequence),
                Body::Heartbeat => (channel, Vec::new(), None, sequence),
            })
        };
        let parse = |bytes: &[u8]| -> Option<Read> {
            let frame: ChannelFrame<'_> = serde_json::from_slice(bytes).ok()?;
            let data = frame.data();
            let (levels, checksum) = match frame.word() {
                Some("hb") => (Vec::new(), None),
                Some("cs") => (Vec::new(), Some(serde_json::from_str(data).ok()?)),
                None if data.starts_with("[[") || data == "[]" => (serde_json::from_str(data).ok()?, None),
                None => (vec![serde_json::from_str(data).ok()?], None),
                Some(word) => panic!("{word} is not scanned"),
            };
            Some((frame.channel, levels, checksum, frame.sequence()))
        };
        let shown = |read: Option<Read>| read.map(|read| format!("{read:?}"));
        reads_what_serde_reads(&frames, |bytes, _| shown(scan(bytes)), |bytes| shown(parse(bytes)));
    }
}
