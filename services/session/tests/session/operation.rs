//! What may happen to a world: what the simulation and the fuzzer choose from.

use bolero::TypeGenerator;
use ticker_market::{Channel, Interval, Topic};
use ticker_proto::message::Subscribe;
use ticker_proto::{Code, Form};
use ticker_session::Mode;

use crate::tape::instrument;
use crate::world::{INSTRUMENTS, World};

/// What may happen. Bytes choose among what there is at that moment.
#[derive(Clone, Debug, TypeGenerator)]
pub(crate) enum Operation {
    Happen { topic: u8, times: u8 },
    Deliver(u8),
    Change,
    Backfill { which: u8, fails: u8 },
    Open { form: u8, topics: u16, from: u8, options: u8 },
    Subscribe { reader: u8, topics: u16, from: u8, options: u8 },
    Unsubscribe { reader: u8, topics: u16 },
    Limit { reader: u8, limit: u8 },
    Pass,
    Transport { reader: u8, budget: u8, takes: u8, frozen: bool },
    Thaw(u8),
    Cut { reader: u8, messages: u8 },
    Close(u8),
    Poll { reader: u8, topics: u16, wait: u8 },
    Time(u8),
    Resume,
    Anew,
    Epoch(u8),
    Announce,
    Evict { topic: u8, keep: u8 },
    Settle,
    Goodbye,
}

const CHANNELS: [Channel; 6] =
    [Channel::Trade, Channel::Quote, Channel::Book, Channel::Book10, Channel::Status, Channel::Bar(Interval::M1)];

impl World {
    fn names(&self) -> Vec<Topic> {
        let all = self.tape_ref().instruments.iter();
        all.flat_map(|i| i.topics().filter(|t| CHANNELS.contains(&t.channel)).collect::<Vec<_>>()).collect()
    }

    fn some_topics(&self, mut bits: u16, patterns: bool) -> Vec<String> {
        let mut texts: Vec<String> = self
            .hub
            .catalogue()
            .instruments()
            .flat_map(|i| i.topics().map(|t| t.to_string()).collect::<Vec<_>>())
            .collect();
        texts.retain(|t| t.parse().is_ok_and(|t: Topic| CHANNELS.contains(&t.channel)));
        if patterns {
            for pattern in ["trade/*/AAA", "*/va/*", "trade/vb/*", "quote/*/*", "*/*/CCC"] {
                texts.insert(0, pattern.to_owned());
            }
        }
        if texts.is_empty() {
            return texts;
        }
        let mut chosen = Vec::new();
        for _ in 0..(bits & 3) + 1 {
            bits = bits.rotate_right(5) ^ 0x2f;
            chosen.push(texts[usize::from(bits) % texts.len()].clone());
        }
        chosen
    }

    fn some_from(&self, at: usize, from: u8) -> Option<String> {
        let head = self.tape_ref().head;
        let place = |n: u64| Some(format!("{}-{n}", self.epoch));
        match from % 8 {
            0 => Some("earliest".to_owned()),
            1 => place(head),
            2 => place(head.saturating_sub(u64::from(from / 8))),
            3 => place(self.upstream.told.saturating_sub(u64::from(from))),
            4 => self.readers[at].cursor.map(|c| format!("{}-{c}", self.readers[at].epoch)),
            5 if from == 5 => Some("old-7".to_owned()),
            _ => None,
        }
    }

    pub(crate) fn apply(&mut self, operation: &Operation) {
        let some = |n: u8, of: usize| usize::from(n) % of.max(1);
        match *operation {
            Operation::Happen { topic, times } => {
                let names = self.names();
                let now = self.now;
                for i in 0..some(times, 12) + 1 {
                    let topic = &names[(usize::from(topic) + i * 7 * usize::from(topic % 3)) % names.len()];
                    self.tape().happen(topic, now);
                }
            }
            Operation::Deliver(places) => self.deliver(some(places, 24) + 1),
            Operation::Change => self.change(),
            Operation::Backfill { which, fails } => self.backfill(usize::from(which), fails < 30),
            Operation::Open { form, topics, from, options } => {
                if self.readers.len() < 5 {
                    self.named += 1;
                    let name = format!("r{}", self.named);
                    match form % 4 {
                        0 => drop(self.reader(&name, Form::Sse)),
                        1 => drop(self.reader(&name, Form::Protobuf)),
                        2 => drop(self.poller(&name)),
                        _ => drop(self.reader(&name, Form::Json)),
                    }
                    let reader = self.readers.len() as u8 - 1;
                    self.apply(&Operation::Subscribe { reader, topics, from, options });
                }
            }
            Operation::Subscribe { reader, topics, from, options } => {
                let Some(at) = self.pick(reader) else { return };
                let reader = &self.readers[at];
                if reader.mode == Mode::Once
                    || (reader.form == Form::Sse
                        && (reader.heard || !reader.views.is_empty() || !reader.wishes.is_empty()))
                {
                    return;
                }
                let topics = self.some_topics(topics, options & 64 == 0);
                if topics.is_empty() {
                    return;
                }
                let request = Subscribe {
                    topics,
                    from: self.some_from(at, from),
                    recent: (options & 12 == 4).then_some(u32::from(from % 12)),
                    max_rate: (options & 48 == 16).then_some(f64::from(from % 3) * 5.0),
                    fields: (options & 48 == 32).then(|| vec!["bid".to_owned(), "price".to_owned()]),
                    conflate: (options & 3 == 3).then_some(false),
                    ..Subscribe::default()
                };
                if let Err(why) = self.subscribe(at, request) {
                    assert_eq!(why.code, Code::TooManyTopics, "{why:?}");
                }
            }
            Operation::Unsubscribe { reader, topics } => {
                let Some(at) = self.pick(reader) else { return };
                if self.readers[at].form == Form::Sse || self.readers[at].mode == Mode::Once {
                    return;
                }
                let topics = self.some_topics(topics, true);
                let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
                self.unsubscribe(at, &topics);
            }
            Operation::Limit { reader, limit } => {
                let Some(at) = self.pick(reader) else { return };
                if self.readers[at].mode == Mode::Stream {
                    let rate = (limit & 3 == 1).then_some(f64::from(limit % 5) * 4.0);
                    let kbps = (limit & 12 == 4).then_some(f64::from(limit % 4) * 100.0);
                    self.limit(at, rate, kbps);
                }
            }
            Operation::Pass => drop(self.pass()),
            Operation::Transport { reader, budget, takes, frozen } => {
                let Some(at) = self.pick(reader) else { return };
                self.thaw(at);
                let reader = &mut self.readers[at];
                reader.budget = if budget % 2 == 0 { 64 * 1024 } else { usize::from(budget) * 10 };
                reader.takes = if takes % 2 == 0 { usize::MAX } else { usize::from(takes % 9) + 1 };
                reader.frozen = frozen;
            }
            Operation::Thaw(reader) => {
                if let Some(at) = self.pick(reader) {
                    self.thaw(at);
                }
            }
            Operation::Cut { reader, messages } => {
                if let Some(at) = self.pick(reader) {
                    self.cut(at, usize::from(messages % 16));
                }
            }
            Operation::Close(reader) => {
                let Some(at) = self.pick(reader) else { return };
                if let Some(id) = self.readers[at].id.take() {
                    self.hub.close(id);
                }
                self.readers.remove(at);
                self.polls.remove(at);
            }
            Operation::Poll { reader, topics, wait } => {
                let Some(at) = self.pick(reader) else { return };
                if self.readers[at].mode == Mode::Once {
                    let known: Vec<String> = self.readers[at].views.keys().map(ToString::to_string).collect();
                    let topics = if known.is_empty() { self.some_topics(topics, true) } else { known };
                    if !topics.is_empty() {
                        self.poll(at, topics, i64::from(wait) * 4);
                    }
                }
            }
            Operation::Time(millis) => self.pass_time(i64::from(millis)),
            Operation::Resume => self.resume(),
            Operation::Anew => self.anew(),
            Operation::Epoch(instruments) => self.new_epoch(some(instruments, INSTRUMENTS.len()) + 1),
            Operation::Announce => {
                let n = self.tape().instruments.len();
                if let Some((venue, symbol)) = INSTRUMENTS.get(n) {
                    self.tape().announce(instrument(venue, symbol));
                }
            }
            Operation::Evict { topic, keep } => {
                let names = self.names();
                let topic = &names[some(topic, names.len())];
                let tape = self.tape();
                let events = tape.events_of(topic);
                if let Some(frame) = events.len().checked_sub(usize::from(keep) + 1).and_then(|n| events.get(n)) {
                    // What the hub's stream has not told yet is always kept.
                    let seq = frame.event.seq;
                    if seq <= self.upstream.told {
                        let evicted = self.tape().evicted.entry(topic.clone()).or_default();
                        *evicted = seq.max(*evicted);
                    }
                }
            }
            Operation::Settle => self.settle(),
            Operation::Goodbye => self.hub.goodbye("test", 100, |n| n / 2),
        }
        self.audit();
    }

    fn pick(&self, reader: u8) -> Option<usize> {
        (!self.readers.is_empty()).then(|| usize::from(reader) % self.readers.len())
    }
}
