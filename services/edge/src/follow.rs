//! What the stream from a fanout says, put together: topics by number, large books from their parts, frames.

use std::collections::HashMap;
use std::sync::Arc;

use ticker_market::{Class, Cursor, Data, Event, Topic};
use ticker_proto::v1::{self, follow_response::Step};
use ticker_proto::{Frame, convert};

use crate::command::{AddedTopics, Upstream};

/// What a fanout must not say. The stream is opened anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    #[error("the fanout sent a cursor that is none: {0}")]
    Cursor(String),
    #[error("the fanout sent an event of a topic that it had not added: {0}")]
    Topic(u32),
    #[error("the fanout sent a topic that is none: {0}")]
    Name(#[from] ticker_market::TopicError),
    #[error("the fanout sent what means nothing: {0}")]
    Convert(#[from] convert::ConvertError),
    #[error("the fanout sent something before it opened the stream")]
    Early,
}

/// One life of the stream.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    epoch: Option<Arc<str>>,
    /// The stream goes on after a break, and has not said yet what it carries: that comes without snapshots.
    pub(crate) resuming: bool,
    /// The stream has not told its place yet: that ends its beginning, also where the place is the one it opened at.
    beginning: bool,
    /// Topics by the number that the stream gives them.
    topics: HashMap<u32, Arc<Topic>>,
    /// Topics whose snapshot is still to come, with the place of their last event.
    expected: HashMap<u32, u64>,
    /// The parts of a large event that came so far.
    parts: Option<Event>,
    /// Everything up to here has come.
    pub(crate) position: u64,
}

impl Follow {
    /// Takes a step; what it means for the shards is appended to `out`.
    pub(crate) fn step(&mut self, step: Step, out: &mut Vec<Upstream>) -> Result<(), FollowError> {
        match step {
            Step::Opened(opened) => {
                let cursor: Cursor = opened.cursor.parse().map_err(|_| FollowError::Cursor(opened.cursor))?;
                let epoch: Arc<str> = cursor.epoch.as_str().into();
                self.epoch = Some(Arc::clone(&epoch));
                (self.resuming, self.position, self.beginning) = (opened.resumed, cursor.seq, true);
                out.push(Upstream::Opened { epoch, seq: cursor.seq, resumed: opened.resumed });
            }
            Step::Instruments(list) => {
                let all = list.instruments.into_iter().map(convert::instrument_from_wire).collect::<Result<_, _>>()?;
                out.push(Upstream::Instruments(Arc::new(all)));
            }
            Step::Added(added) => self.added(added, out)?,
            Step::Removed(removed) => {
                let gone = removed.topics.iter().filter_map(|number| {
                    self.expected.remove(number);
                    self.topics.remove(number).map(|t| Topic::clone(&t))
                });
                out.push(Upstream::Removed(Arc::new(gone.collect())));
            }
            Step::Events(events) => {
                let mut frames = Vec::with_capacity(events.events.len());
                for numbered in events.events {
                    let topic = self.topics.get(&numbered.topic).ok_or(FollowError::Topic(numbered.topic))?;
                    let topic = Arc::clone(topic);
                    if let Some(event) = self.whole(topic, numbered.event.unwrap_or_default())? {
                        frames.push(self.frame(event)?);
                    }
                }
                self.resuming = false;
                self.position = self.position.max(events.seq);
                out.push(Upstream::Events { frames: Arc::new(frames), seq: events.seq });
            }
            Step::Progress(progress) => {
                // Shards are not woken to hear what they know.
                if std::mem::take(&mut self.beginning) || progress.seq > self.position {
                    out.push(Upstream::Progress(progress.seq));
                }
                self.resuming = false;
                self.position = self.position.max(progress.seq);
            }
        }
        Ok(())
    }

    fn added(&mut self, added: v1::Added, out: &mut Vec<Upstream>) -> Result<(), FollowError> {
        // Said before the topics are: whoever joins them joins at this place, and is told so.
        if added.seq > self.position {
            self.position = added.seq;
            out.push(Upstream::Progress(added.seq));
        }
        let mut ready: AddedTopics = Vec::new();
        for numbered in added.topics {
            let topic: Arc<Topic> = Arc::new(numbered.topic.parse()?);
            self.topics.insert(numbered.number, Arc::clone(&topic));
            let has_snapshot = topic.channel.class() != Class::Event && numbered.last > 0 && !self.resuming;
            if has_snapshot {
                self.expected.insert(numbered.number, numbered.last);
            } else {
                ready.push((Topic::clone(&topic), numbered.last, None));
            }
        }
        for numbered in added.snapshots {
            let topic = self.topics.get(&numbered.topic).ok_or(FollowError::Topic(numbered.topic))?;
            let topic = Arc::clone(topic);
            if let Some(event) = self.whole(Arc::clone(&topic), numbered.event.unwrap_or_default())?
                && let Some(last) = self.expected.remove(&numbered.topic)
            {
                ready.push((Topic::clone(&topic), last, Some(self.frame(event)?)));
            }
        }
        if !ready.is_empty() {
            out.push(Upstream::Added { topics: Arc::new(ready), resumed: self.resuming });
        }
        Ok(())
    }

    /// Puts the parts of a large event together.
    fn whole(&mut self, topic: Arc<Topic>, wire: v1::Event) -> Result<Option<Event>, FollowError> {
        let (part, parts) = (wire.part, wire.parts);
        let mut event = convert::event_from_wire(topic, wire)?;
        if parts <= 1 {
            return Ok(Some(event));
        }
        if part > 1
            && let Some(mut before) = self.parts.take()
            && let (Data::Book(all), Data::Book(more)) = (&mut before.data, &mut event.data)
        {
            all.bids.append(&mut more.bids);
            all.asks.append(&mut more.asks);
            event = before;
        }
        if part == parts {
            return Ok(Some(event));
        }
        self.parts = Some(event);
        Ok(None)
    }

    fn frame(&self, event: Event) -> Result<Arc<Frame>, FollowError> {
        let epoch = self.epoch.as_ref().ok_or(FollowError::Early)?;
        Ok(Arc::new(Frame::new(event, Arc::clone(epoch))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_market::{Channel, Kind, Quote, Time};

    fn added(number: u32, topic: &str, last: u64, seq: u64, with_snapshot: bool) -> Step {
        let event = Event {
            topic: Arc::new(topic.parse().expect("a topic")),
            seq: last,
            prev: 0,
            kind: Kind::Snapshot,
            ts: None,
            recv: Time(1),
            published: Time(1),
            data: Data::Quote(Quote::default()),
        };
        let snapshot = v1::NumberedEvent { topic: number, event: Some(convert::event_to_wire(&event)) };
        Step::Added(v1::Added {
            topics: vec![v1::NumberedTopic { number, topic: topic.to_owned(), last }],
            seq,
            snapshots: if with_snapshot { vec![snapshot] } else { Vec::new() },
        })
    }

    /// Of one step: whether it went on without a snapshot, and whether it has one.
    fn told(follow: &mut Follow, step: Step) -> (bool, bool) {
        let mut out = Vec::new();
        follow.step(step, &mut out).expect("a good step");
        let Some(Upstream::Added { topics, resumed }) = out.pop() else { panic!("topics were added") };
        assert_eq!(topics[0].0.channel, Channel::Quote);
        (resumed, topics[0].2.is_some())
    }

    #[test]
    fn only_what_a_resumed_stream_says_first_comes_without_snapshots() {
        let mut follow = Follow::default();
        let mut out = Vec::new();
        let opened = v1::Opened { cursor: "k3f9-10".into(), resumed: true };
        follow.step(Step::Opened(opened), &mut out).expect("a good step");
        assert_eq!(told(&mut follow, added(1, "quote/kraken/BTC-USD", 7, 10, false)), (true, false));
        follow.step(Step::Progress(v1::Progress { seq: 10, time: 1 }), &mut out).expect("a good step");
        // Asked for after the break, at the same place: nothing has happened since.
        assert_eq!(told(&mut follow, added(2, "quote/kraken/ETH-USD", 8, 10, true)), (false, true));
    }

    #[test]
    fn the_place_at_which_topics_are_joined_is_told_before_them() {
        let mut follow = Follow::default();
        let mut out = Vec::new();
        let opened = v1::Opened { cursor: "k3f9-10".into(), resumed: false };
        follow.step(Step::Opened(opened), &mut out).expect("a good step");
        out.clear();
        follow.step(added(1, "quote/kraken/BTC-USD", 17, 20, true), &mut out).expect("a good step");
        assert!(matches!(out[..], [Upstream::Progress(20), Upstream::Added { .. }]), "{out:?}");
        assert_eq!(follow.position, 20);
    }

    #[test]
    fn a_place_is_told_where_the_stream_begins_and_where_it_moves() {
        let mut follow = Follow::default();
        let mut out = Vec::new();
        let opened = v1::Opened { cursor: "k3f9-0".into(), resumed: false };
        follow.step(Step::Opened(opened), &mut out).expect("a good step");
        out.clear();
        for seq in [0, 0, 3, 3] {
            follow.step(Step::Progress(v1::Progress { seq, time: 1 }), &mut out).expect("a good step");
        }
        // The edge is ready with the first, also on an empty tape.
        let places: Vec<_> =
            out.iter().map(|told| matches!(told, Upstream::Progress(p) if [0, 3].contains(p))).collect();
        assert_eq!(places, [true, true], "{out:?}");
    }
}
