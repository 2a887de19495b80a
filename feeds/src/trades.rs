//! Which trades were seen, so that each is told once although snapshots and connections overlap.

use std::collections::VecDeque;

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
    fn memory_is_bounded() {
        let mut seen = SeenTrades::default();
        assert!((0..5_000).all(|id| seen.insert(id)));
        assert_eq!(seen.ids.len(), TRADE_IDS_MAX);
        assert!(!seen.insert(17));
    }
}
