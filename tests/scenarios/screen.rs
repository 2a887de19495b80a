//! A reader, what it was told, and the laying of that against what was published.

use ticker_client::board::{Applied, Board};
use ticker_client::{Error, Options, Reader, Step, Subscription, connect};
use ticker_market::{Class, Cursor, Event, Kind, Topic};
use ticker_proto::{Message, Notice, Request};

use crate::rig::{PATIENCE, bounded};
use crate::source::Record;

/// An event, and the sum of the reader's book after it.
pub(crate) struct Got {
    pub(crate) event: Event,
    sum: Option<u32>,
    /// It came in so many parts; 0 where it came whole.
    pub(crate) parts: u32,
    /// Its JSON, or that of its last part, where the transport has JSON.
    pub(crate) raw: Option<String>,
}

/// See the module.
pub(crate) struct Screen {
    pub(crate) reader: Reader,
    pub(crate) board: Board,
    pub(crate) got: Vec<Got>,
    pub(crate) notices: Vec<Notice>,
    /// Connections that were lost and regained.
    pub(crate) resumed: u32,
}

impl Screen {
    pub(crate) async fn open(options: Options, subscription: Subscription) -> Self {
        let reader = bounded("a reader connects", connect(options, subscription)).await.expect("it is accepted");
        Self { reader, board: Board::new(), got: Vec::new(), notices: Vec::new(), resumed: 0 }
    }

    /// Takes the next message in, whatever it is.
    pub(crate) async fn step(&mut self) -> Result<bool, Error> {
        let over = format!("{:?}: a message after {} events, {:?}", self.reader, self.got.len(), self.notices.last());
        let message = match bounded(&over, self.reader.step()).await? {
            None => return Ok(false),
            Some(Step::Message(message)) => message,
            Some(Step::Lost { .. }) => return Ok(true),
            Some(Step::Resumed) => {
                self.resumed += 1;
                self.board.joining();
                return Ok(true);
            }
        };
        let applied = match self.board.apply(&message) {
            Ok(applied) => applied,
            Err(violation) => panic!("{violation}; the message is {message:?}"),
        };
        match (applied, message) {
            (Applied::Event(event), Message::Event(part)) => {
                let sum = self.board.book(&event.topic).map(ticker_market::Book::sum);
                self.got.push(Got { event, sum, parts: part.parts, raw: part.raw });
            }
            (_, Message::Notice(notice)) => self.notices.push(notice),
            _ => {}
        }
        Ok(true)
    }

    /// Reads until it is so.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_so(self) {
            let stepped = tokio::time::timeout_at(deadline, self.step()).await;
            let Ok(stepped) = stepped else {
                panic!("{what}: not within {PATIENCE:?}, after {} events and {:?}", self.got.len(), self.notices.last())
            };
            match stepped {
                Ok(true) => {}
                Ok(false) => panic!("the stream ended before {what}"),
                Err(error) => panic!("{error}, before {what}"),
            }
        }
    }

    /// Reads until the topic's event at that place, or a later one, is here.
    pub(crate) async fn until_has(&mut self, topic: &str, seq: u64) {
        let parsed: Topic = topic.parse().expect("a topic");
        let has = |s: &Self| s.board.last(&parsed).is_some_and(|e| e.seq >= seq);
        self.until(&format!("{topic} at {seq}"), has).await;
    }

    /// Reads until it has the last event of each of these topics, and each book is as it should be.
    pub(crate) async fn catch_up(&mut self, record: &Record, topics: &[&str]) {
        for name in topics {
            let topic: Topic = name.parse().expect("a topic");
            if topic.channel.class() == Class::Book {
                let sum = record.sum_at(name, u64::MAX);
                self.until(name, |s| s.board.book(&topic).map(ticker_market::Book::sum) == sum).await;
            } else if record.last(name) > 0 {
                self.until_has(name, record.last(name)).await;
            }
        }
    }

    /// Reads until a notice is such a one.
    pub(crate) async fn until_notice(&mut self, what: &str, is_it: impl Fn(&Notice) -> bool) {
        self.until(what, |s| s.notices.iter().any(&is_it)).await;
    }

    /// Sends a request of a duplex session.
    pub(crate) async fn send(&mut self, request: Request) {
        if matches!(request, Request::Subscribe(_)) {
            self.board.joining();
        }
        self.reader.send(request).await.expect("the session is open");
    }

    /// Where it would go on.
    pub(crate) fn cursor(&self) -> String {
        self.reader.cursor().expect("a cursor is known").to_owned()
    }

    /// The reader dies here: what it has of event channels beyond its cursor comes again. Returns the cursor and what
    /// counts.
    pub(crate) fn die(mut self) -> (String, Vec<Got>) {
        let text = self.cursor();
        let cursor: Cursor = text.parse().expect("a place");
        self.got.retain(|g| g.event.is_conflatable() || g.event.seq <= cursor.seq);
        (text, self.got)
    }

    /// The events of a topic.
    pub(crate) fn of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Event> {
        self.got.iter().map(|g| &g.event).filter(move |e| e.topic.to_string() == topic)
    }

    /// How often the service said `gap`.
    pub(crate) fn gaps(&self) -> Vec<(Option<&str>, &str)> {
        let gaps = self.notices.iter().filter_map(|n| match n {
            Notice::Gap { topic, reason } => Some((topic.as_deref(), reason.as_str())),
            _ => None,
        });
        gaps.collect()
    }

    /// The cursor of `subscribed`, where there is one.
    pub(crate) fn joined(&self) -> Option<u64> {
        self.notices.iter().find_map(|n| match n {
            Notice::Subscribed { cursor, .. } => cursor.parse::<Cursor>().ok().map(|c| c.seq),
            _ => None,
        })
    }

    /// Lays what came against what was published.
    pub(crate) fn lay(&self, record: &Record, begun: Begun) {
        let begun = match begun {
            Begun::Here => self.joined().map_or(Begun::Here, Begun::Joined),
            other => other,
        };
        lay(&self.got, record, begun, false);
        assert_eq!(self.gaps(), [], "there was no reason for a gap");
    }
}

/// Where a subscription began.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begun {
    /// After a cursor: every event of the event channels after it.
    After(u64),
    /// At the latest at this place, by `subscribed`.
    Joined(u64),
    /// Somewhere.
    Here,
}

/// Lays events against the record: nothing that was not published so, nothing twice, nothing missing between the first and
/// the last of an event channel (of all channels where `every` was asked for), every book the one that it should be.
pub(crate) fn lay(got: &[Got], record: &Record, begun: Begun, every: bool) {
    let mut topics: Vec<&Topic> = got.iter().map(|g| &*g.event.topic).collect();
    topics.sort_by_key(ToString::to_string);
    topics.dedup();
    for topic in topics {
        let (name, class) = (topic.to_string(), topic.channel.class());
        let of: Vec<&Got> = got.iter().filter(|g| *g.event.topic == *topic).collect();
        for g in &of {
            let seq = g.event.seq;
            match class {
                Class::Book => assert_eq!(g.sum, record.sum_at(&name, seq), "the book of {name} at {seq}"),
                _ => {
                    let published = record.at(&name, seq);
                    let published = published.unwrap_or_else(|| panic!("{name}: nothing was published at {seq}"));
                    assert_eq!(g.event.data, published.data, "{name} at {seq}");
                }
            }
        }
        let seqs: Vec<u64> = of.iter().filter(|g| g.event.kind != Kind::Snapshot).map(|g| g.event.seq).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{name}: {seqs:?} is not the order of the tape");
        if (class != Class::Event && !every) || topic.channel.derived_depth().is_some() {
            continue;
        }
        let all: Vec<u64> = record.of(&name).iter().map(|e| e.seq).collect();
        let begins = of[0].event.seq;
        let last = of[of.len() - 1].event.seq;
        let from = match begun {
            Begun::After(seq) => all.partition_point(|s| *s <= seq),
            _ => all.partition_point(|s| *s < begins),
        };
        if let Begun::Joined(joined) = begun {
            let first = all.get(from.saturating_sub(1)).filter(|_| from > 0);
            assert!(first.is_none_or(|before| *before <= joined), "{name}: something after {joined} is missing");
        }
        let until = all.partition_point(|s| *s <= last);
        let came: Vec<u64> = of.iter().map(|g| g.event.seq).collect();
        let mut came_once = came.clone();
        came_once.dedup();
        let wanted = &all[from..until];
        let missing: Vec<&u64> = wanted.iter().filter(|s| !came_once.contains(s)).collect();
        let more: Vec<&u64> = came_once.iter().filter(|s| !wanted.contains(s)).collect();
        let exact = if class == Class::Event { came.as_slice() == wanted } else { came_once.as_slice() == wanted };
        assert!(
            exact,
            "{name}, {begun:?}: missing {missing:?}, too many {more:?}, of {} came {}",
            wanted.len(),
            came.len()
        );
    }
}
