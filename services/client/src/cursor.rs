//! When a reader's cursor moves: the contract's second promise, as a state machine without I/O.

use std::collections::HashMap;
use std::sync::Arc;

use ticker_market::{Cursor, Kind, Topic};
use ticker_proto::{Notice, Part};

use crate::board::EPOCH_CHANGED;

/// The place from which a reader can go on without loss.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    /// As text, `earliest` included.
    text: Option<String>,
    /// The same, once it is a place.
    place: Option<Cursor>,
    /// Requests that `subscribed` has not closed yet: until then backfill may come, and the cursor stays.
    joining: Vec<u64>,
    /// What came while it stayed: the last of each topic whose events are resumed one by one.
    ahead: HashMap<Arc<Topic>, u64>,
    /// The same of connections that were lost: going on from the cursor brings it again, and the caller has had it.
    had: HashMap<Arc<Topic>, u64>,
    /// Where they are: the place of the newest event. Another topic's event of the same place may still be to come (a book
    /// has one, and what is derived from it), so the cursor gets there only with what comes after it.
    newest: u64,
    /// Are the events of every channel resumed one by one (`conflate: false`)?
    every: bool,
    /// Does the transport tell the cursor itself (the `id` of server-sent events, the cursor of a poll)?
    told: bool,
}

impl Tracker {
    /// A reader that starts at `from`, if anywhere; `told` where the transport tells the cursor itself; `every` where no
    /// channel is conflated.
    pub(crate) fn new(from: Option<String>, told: bool, every: bool) -> Self {
        let place = from.as_deref().and_then(|f| f.parse().ok());
        Self { text: from, place, told, every, ..Self::default() }
    }

    /// The cursor as text.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// A request for topics goes out: until it is answered the cursor stays.
    pub(crate) fn joining(&mut self, id: u64) {
        self.joining.push(id);
    }

    /// The connection was lost: what was not answered never will be.
    pub(crate) fn lost(&mut self) {
        self.joining.clear();
        self.had.extend(self.ahead.drain());
    }

    /// The transport said so.
    pub(crate) fn set(&mut self, cursor: &str) {
        if self.text.as_deref() == Some(cursor) {
            return;
        }
        self.place = cursor.parse().ok();
        self.text = Some(cursor.to_owned());
        if let Some(place) = &self.place {
            let seq = place.seq;
            self.ahead.retain(|_, ahead| *ahead > seq);
        }
    }

    /// An event arrives. `false`: the caller has had it before the connection was lost.
    pub(crate) fn event(&mut self, part: &Part) -> bool {
        let event = &part.event;
        let stays = self.told || !self.joining.is_empty();
        // A part that is not the last must come again with the whole.
        if event.kind == Kind::Snapshot || part.part != part.parts {
            return true;
        }
        if self.every || !event.is_conflatable() {
            if let Some(had) = self.had.get(&event.topic) {
                if event.seq <= *had {
                    return false;
                }
                self.had.remove(&event.topic);
            }
            if stays {
                self.ahead.insert(Arc::clone(&event.topic), event.seq);
            }
        }
        if !stays && self.every {
            if event.seq > self.newest {
                self.advance(self.newest);
                self.ahead.clear();
                self.newest = event.seq;
            }
            self.ahead.insert(Arc::clone(&event.topic), event.seq);
        } else if !stays {
            self.advance(event.seq);
        }
        true
    }

    /// A notice arrives.
    pub(crate) fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Subscribed { id, .. } | Notice::Error { id: Some(id), .. } => {
                // Where there is only one subscription its answer has no id.
                self.joining.retain(|j| j != id && *id != 0);
            }
            Notice::Gap { topic: None, reason } if reason == EPOCH_CHANGED => self.begin_anew(),
            // The head of the tape, not a place that this reader has reached: it counts only for who has none yet, or
            // when older places mean nothing any more.
            Notice::Welcome { cursor, .. } => {
                let epoch = cursor.parse::<Cursor>().ok().map(|c| c.epoch);
                let other = self.place.as_ref().is_some_and(|p| Some(&p.epoch) != epoch.as_ref());
                if other {
                    self.begin_anew();
                }
                if !self.told && (self.text.is_none() || other) {
                    self.set(cursor);
                }
                return;
            }
            _ => {}
        }
        if self.told || !self.joining.is_empty() {
            return;
        }
        if let Some(cursor) = notice.cursor().and_then(|c| c.parse::<Cursor>().ok()) {
            match &self.place {
                Some(place) if place.epoch == cursor.epoch => self.advance(cursor.seq),
                _ => self.set(&cursor.to_string()),
            }
        }
        let place = self.place.as_ref().map_or(0, |p| p.seq);
        self.ahead.retain(|_, ahead| *ahead > place);
    }

    /// Places of the epoch before mean nothing any more.
    fn begin_anew(&mut self) {
        self.ahead.clear();
        self.had.clear();
        self.newest = 0;
    }

    fn advance(&mut self, seq: u64) {
        if let Some(place) = &mut self.place
            && seq > place.seq
        {
            place.seq = seq;
            self.text = Some(place.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_proto::{Message, json};

    fn event(topic: &str, seq: u64, kind: &str) -> Part {
        let text = format!(r#"{{"topic":"{topic}","seq":{seq},"prev":0,"kind":"{kind}","price":"1","size":"1"}}"#);
        match json::read_message(&text).expect("valid") {
            Message::Event(part) => *part,
            Message::Notice(_) => panic!("an event"),
        }
    }

    fn subscribed(id: u64, cursor: &str) -> Notice {
        Notice::Subscribed { id, topics: Vec::new(), cursor: cursor.into() }
    }

    fn welcome(cursor: &str) -> Notice {
        Notice::Welcome { version: "1".into(), epoch: "e".into(), cursor: cursor.into(), heartbeat_ms: 1 }
    }

    #[test]
    fn updates_move_it_snapshots_do_not() {
        let mut tracker = Tracker::new(None, false, false);
        tracker.notice(&welcome("e-5"));
        tracker.event(&event("quote/x/A", 9, "snapshot"));
        assert_eq!(tracker.text(), Some("e-5"));
        tracker.event(&event("quote/x/A", 11, "update"));
        tracker.event(&event("trade/x/A", 10, "update"));
        assert_eq!(tracker.text(), Some("e-11"));
        tracker.notice(&Notice::Heartbeat { cursor: "e-20".into(), conflated: 0 });
        assert_eq!(tracker.text(), Some("e-20"));
        tracker.notice(&Notice::Heartbeat { cursor: "e-19".into(), conflated: 0 });
        assert_eq!(tracker.text(), Some("e-20"), "it never goes back");
    }

    #[test]
    fn it_stays_during_a_backfill_and_nothing_comes_twice_after_a_loss() {
        let mut tracker = Tracker::new(Some("e-5".into()), false, false);
        tracker.joining(1);
        tracker.notice(&welcome("e-100"));
        assert!(tracker.event(&event("trade/x/A", 50, "update")));
        assert_eq!(tracker.text(), Some("e-5"));
        tracker.lost();
        tracker.joining(1);
        assert!(!tracker.event(&event("trade/x/A", 50, "update")), "had before");
        assert!(tracker.event(&event("trade/x/B", 7, "update")));
        assert!(tracker.event(&event("trade/x/A", 51, "update")));
        tracker.notice(&subscribed(1, "e-101"));
        assert_eq!(tracker.text(), Some("e-101"));
    }

    #[test]
    fn where_topics_share_a_place_the_cursor_waits_until_it_is_whole() {
        let mut tracker = Tracker::new(None, false, true);
        tracker.notice(&welcome("e-5"));
        assert!(tracker.event(&event("book/x/A", 11, "update")));
        assert_eq!(tracker.text(), Some("e-5"), "what is derived from it may be to come");
        assert!(tracker.event(&event("book-10/x/A", 11, "update")));
        assert!(tracker.event(&event("book/x/A", 12, "update")));
        assert_eq!(tracker.text(), Some("e-11"));
        tracker.lost();
        assert!(!tracker.event(&event("book/x/A", 12, "update")), "had before");
        assert!(tracker.event(&event("book-10/x/A", 12, "update")));
        tracker.notice(&Notice::Heartbeat { cursor: "e-12".into(), conflated: 0 });
        assert_eq!(tracker.text(), Some("e-12"));
    }

    #[test]
    fn a_cursor_that_is_told_follows_only_what_is_told() {
        let mut tracker = Tracker::new(None, true, false);
        tracker.event(&event("trade/x/A", 50, "update"));
        assert_eq!(tracker.text(), None);
        tracker.set("e-49");
        assert_eq!(tracker.text(), Some("e-49"));
        tracker.lost();
        assert!(!tracker.event(&event("trade/x/A", 50, "update")), "a told cursor may be behind what was had");
    }

    #[test]
    fn another_epoch_begins_anew() {
        let mut tracker = Tracker::new(Some("old-500".into()), false, false);
        tracker.notice(&welcome("e-3"));
        assert_eq!(tracker.text(), Some("e-3"));
    }

    #[test]
    fn earliest_gives_way_to_the_first_place() {
        let mut tracker = Tracker::new(Some("earliest".into()), false, false);
        tracker.joining(0);
        tracker.notice(&welcome("e-3"));
        assert_eq!(tracker.text(), Some("earliest"));
        tracker.notice(&subscribed(0, "e-4"));
        assert_eq!(tracker.text(), Some("e-4"));
    }
}
