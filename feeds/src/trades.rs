//! Which trades were seen, so that each is told once although snapshots and connections overlap.

use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashSet;

/// So many of the latest trade ids are remembered for each instrument. The largest overlap that a venue sends is
/// Coinbase's snapshot of 100 trades.
pub const TRADE_IDS_MAX: usize = 1_024;

/// The latest trade ids of one instrument, ascending. Ids rise at every venue here, but a late one may come after a
/// higher one.
#[derive(Clone, Default, Debug)]
pub struct SeenTrades {
    ids: VecDeque<u64>,
}

impl SeenTrades {
    /// Remembers an id. Returns whether it was new; what lies before everything remembered counts as seen, because it
    /// is history from before we joined.
    pub fn insert(&mut self, id: u64) -> bool {
        match (self.ids.front(), self.ids.back()) {
            (Some(first), _) if id < *first => return false,
            (_, Some(last)) if id <= *last => match self.ids.binary_search(&id) {
                Ok(_) => return false,
                Err(at) => self.ids.insert(at, id),
            },
            _ => self.ids.push_back(id),
        }
        if self.ids.len() > TRADE_IDS_MAX {
            self.ids.pop_front();
        }
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ids.clear();
    }
}

/// The latest trade ids of one instrument at a venue whose ids do not rise: random ones, of which nothing tells which
/// is older.
#[derive(Clone, Default, Debug)]
pub struct SeenNames {
    hashes: VecDeque<u64>,
    /// The same, to be found at once.
    seen: HashSet<u64, BuildHasherDefault<AsItIs>>,
}

/// Hashes what is a hash already.
#[derive(Clone, Copy, Default, Debug)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl SeenNames {
    /// Remembers an id. Returns whether it was new.
    pub fn insert(&mut self, id: &str) -> bool {
        let hash = hash(id.as_bytes());
        if self.seen.contains(&hash) {
            return false;
        }
        if self.hashes.len() >= TRADE_IDS_MAX
            && let Some(oldest) = self.hashes.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.hashes.push_back(hash);
        self.seen.insert(hash)
    }
}

/// Our own, because it must not differ from run to run: each eight bytes are multiplied, and both halves of the product
/// are used. Two of 1024 ids with one hash of 64 bits are too rare to matter.
fn hash(bytes: &[u8]) -> u64 {
    const BEGIN: u64 = 0x9e37_79b9_7f4a_7c15;
    const FACTOR: u64 = 0xbf58_476d_1ce4_e5b9;
    bytes.chunks(8).fold(BEGIN ^ bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let product = u128::from(hash ^ u64::from_le_bytes(word)) * u128::from(FACTOR);
        (product as u64 ^ (product >> 64) as u64).wrapping_add(BEGIN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_new_once_and_a_late_one_is_not_lost() {
        let mut seen = SeenTrades::default();
        let new: Vec<bool> = [10, 11, 13, 11, 12, 12, 9, 13, 14].into_iter().map(|id| seen.insert(id)).collect();
        assert_eq!(new, [true, true, true, false, true, false, false, false, true]);
    }

    #[test]
    fn names_are_new_once() {
        let mut seen = SeenNames::default();
        assert!(seen.insert("a9188a0a-82bc-50de-be60-03eedbe3cdd7"));
        assert!(seen.insert("a9188a0a-82bc-50de-be60-03eedbe3cdd8"));
        assert!(!seen.insert("a9188a0a-82bc-50de-be60-03eedbe3cdd7"));
        assert!((0..5_000).all(|i| seen.insert(&i.to_string())));
        assert_eq!(seen.hashes.len(), TRADE_IDS_MAX);
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = SeenTrades::default();
        assert!((0..5_000).all(|id| seen.insert(id)));
        assert_eq!(seen.ids.len(), TRADE_IDS_MAX);
        assert!(!seen.insert(17));
    }
}
