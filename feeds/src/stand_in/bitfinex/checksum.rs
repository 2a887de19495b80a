//! The checksum of a book as the venue has it (docs.bitfinex.com/docs/ws-websocket-checksum): CRC-32 over price and amount
//! of the 25 best bids and asks in turn, joined by colons. JSON numbers of the venue are JavaScript's, as the checksum's are.

use crate::stand_in::mirror::{Level, Mirror};

/// Levels a side.
const LEVELS: usize = 25;

pub(super) fn checksum(mirror: &Mirror) -> i32 {
    let (mut bids, mut asks) = (mirror.bids().take(LEVELS), mirror.asks().take(LEVELS));
    let mut parts = Vec::with_capacity(4 * LEVELS);
    let mut add = |level: Option<&Level>| {
        let Some((price, (_, amount))) = level.and_then(|l| Some((&*l.price, l.size.split_once(',')?))) else {
            return false;
        };
        parts.extend([price.to_owned(), amount.to_owned()]);
        true
    };
    loop {
        let (bid, ask) = (add(bids.next()), add(asks.next()));
        if !bid && !ask {
            break;
        }
    }
    crc32fast::hash(parts.join(":").as_bytes()).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bids_and_asks_go_in_turn() {
        let mut mirror = Mirror::default();
        for (is_bid, price, size) in [(true, "6000", "2,1"), (true, "5900", "1,0.5"), (false, "6100", "1,-3e-7")] {
            mirror.put(is_bid, price, Some(size));
        }
        assert_eq!(checksum(&mirror), crc32fast::hash(b"6000:1:6100:-3e-7:5900:0.5").cast_signed());
        assert!(!mirror.is_crossed());
        mirror.put(true, "6100", Some("1,1"));
        assert!(mirror.is_crossed());
    }
}
