//! Changes of books, one level each, scanned ([`crate::scan`]).

use super::wire::WireLevel;
use crate::scan::Scan;
use crate::wire::Number;

/// `[232956,[0.0000249,0,1],977]`
#[derive(Debug)]
pub(super) struct Change {
    pub(super) channel: u64,
    pub(super) level: WireLevel,
    /// Its number in the connection's sequence, if that was asked for.
    pub(super) sequence: Option<u64>,
}

/// `None` where the frame is not of the usual form.
pub(super) fn change(bytes: &[u8]) -> Option<Change> {
    let mut scan = Scan::new(bytes);
    scan.eat(b"[")?;
    let channel = scan.whole()?;
    scan.eat(b",[")?;
    let price = Number(scan.number()?);
    scan.eat(b",")?;
    let count = scan.whole()?;
    scan.eat(b",")?;
    let amount = Number(scan.signed_number()?);
    scan.eat(b"]")?;
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
    Some(Change { channel, level: WireLevel(price, count, amount), sequence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitfinex::wire::ChannelFrame;
    use crate::scan::tests::reads_what_serde_reads;

    #[test]
    fn a_scan_reads_what_serde_reads() {
        let frames = [
            "[232955,[0.0010148,1,120.45687689],836]",
            "[232956,[0.0000253,1,-66.58783643],839,1767607200000]",
            "[11,[50000,0,1]]",
        ];
        let parse = |bytes: &[u8]| {
            let frame: ChannelFrame<'_> = serde_json::from_slice(bytes).ok()?;
            assert!(frame.word().is_none());
            let level = serde_json::from_str(frame.data()).ok()?;
            Some(format!("{:?}", Change { channel: frame.channel, level, sequence: frame.sequence() }))
        };
        reads_what_serde_reads(&frames, |bytes, _| change(bytes).map(|f| format!("{f:?}")), parse);
    }
}
