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
    pub(crate) resumed: bool,
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
                (self.resumed, self.position) = (opened.resumed, cursor.seq);
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
                self.position = self.position.max(events.seq);
                out.push(Upstream::Events { frames: Arc::new(frames), seq: events.seq });
            }
            Step::Progress(progress) => {
                self.position = self.position.max(progress.seq);
                out.push(Upstream::Progress(progress.seq));
            }
        }
        Ok(())
    }

    fn added(&mut self, added: v1::Added, out: &mut Vec<Upstream>) -> Result<(), FollowError> {
        let mut ready: AddedTopics = Vec::new();
        for numbered in added.topics {
            let topic: Arc<Topic> = Arc::new(numbered.topic.parse()?);
            self.topics.insert(numbered.number, Arc::clone(&topic));
            let has_snapshot =
                topic.channel.class() != Class::Event && numbered.last > 0 && !self.resumed_at(added.seq);
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
            out.push(Upstream::Added { topics: Arc::new(ready), resumed: self.resumed_at(added.seq) });
        }
        self.position = self.position.max(added.seq);
        Ok(())
    }

    /// Is this the first word about the topics of a stream that went on without a hole? They come without snapshots.
    fn resumed_at(&self, seq: u64) -> bool {
        self.resumed && seq == self.position && self.expected.is_empty() && self.parts.is_none()
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
