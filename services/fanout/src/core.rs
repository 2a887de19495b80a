//! What a fanout knows: the tape, the topics with their last events, the instruments with their books.
//!
//! No I/O and no clock: time is an argument. How events get in is in [`crate::append`], who sends them in
//! [`crate::sources`], how they are read in [`crate::reader`].

use std::sync::Arc;

use compact_str::CompactString;
use hashbrown::HashMap;
use ticker_market::topic::BEST;
use ticker_market::{
    Channel, Class, Data, Event, Instrument, Integrity, Interval, Kind, Pattern, State, Status, Time, Topic,
};
use ticker_session::catalogue::{Catalogue, Refusal as Unknown};
use ticker_tape::{Clock, Tape, TopicId};

use crate::append::Refusal;
use crate::depth::DepthBook;
use crate::derive::{Bests, Clocks, LeftOut, Trading};
use crate::sources::{SourceId, Sources};

/// Longest text of a name from outside (a venue's own name, a trade's id, a reason), in bytes.
pub const TEXT_BYTES_MAX: usize = 128;

/// Channels of one instrument.
const CHANNELS_MAX: usize = Channel::ALL.len();

/// How much a core holds, besides its tape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreLimits {
    /// Instruments of all venues.
    pub instruments_max: usize,
    /// Ingest services that are remembered.
    pub sources_max: usize,
    /// How long a source's stream may be away before its instruments are called stale, in nanoseconds.
    pub source_grace_nanos: i64,
}

/// An instrument's number: dense, from 0, in order of appearance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct InstrumentId(pub(crate) u32);

/// A topic and its newest event.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) topic: Arc<Topic>,
    /// Whose it is; `None` where it is made of several instruments.
    pub(crate) instrument: Option<InstrumentId>,
    /// The place at which it appeared. Rises with the topic's number.
    pub(crate) born: u64,
    /// Its last event; `None` if nothing has happened yet.
    pub(crate) last: Option<Arc<Event>>,
}

impl TopicState {
    /// The place of its last event; 0 if nothing has happened yet.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last.as_ref().map_or(0, |e| e.seq)
    }

    /// Has something been shown that can be trusted?
    pub(crate) fn is_valid(&self) -> bool {
        self.last.as_ref().is_some_and(|e| e.kind != Kind::Invalid)
    }
}

/// An instrument and what is known of it.
#[derive(Debug)]
pub(crate) struct InstrumentState {
    pub(crate) instrument: Arc<Instrument>,
    /// Who publishes it.
    pub(crate) owner: SourceId,
    topics: [Option<TopicId>; SERVED.len()],
    pub(crate) book: Option<Box<DepthBook>>,
    /// The last quote that its venue has not called invalid.
    pub(crate) quote: Option<Arc<Event>>,
    /// The status as its publisher told it.
    pub(crate) told: Option<Status>,
    /// Its book was found crossed and waits for a snapshot.
    pub(crate) crossed: bool,
    /// Its publisher is away.
    pub(crate) lost: bool,
    /// The clock that its bars go by.
    pub(crate) clock: Clock,
    /// What is derived from its trades, once there was one.
    pub(crate) trading: Option<Box<Trading>>,
    /// The consolidated quote that it has a part in, and which part.
    pub(crate) best: Option<(usize, usize)>,
}

/// The channels that topics are made of today.
const SERVED: [Channel; 12] = [
    Channel::Quote,
    Channel::Trade,
    Channel::Book,
    Channel::Book10,
    Channel::Book50,
    Channel::Status,
    Channel::Bar(Interval::S1),
    Channel::Bar(Interval::M1),
    Channel::Bar(Interval::M5),
    Channel::Bar(Interval::H1),
    Channel::Bar(Interval::D1),
    Channel::Stats,
];

impl InstrumentState {
    /// The topic of a channel, if the instrument has it.
    pub(crate) fn topic(&self, channel: Channel) -> Option<TopicId> {
        SERVED.iter().position(|c| *c == channel).and_then(|at| self.topics[at])
    }

    /// The status as it is shown: what the publisher told, unless we know worse.
    pub(crate) fn status(&self) -> Status {
        let told = self.told.clone().unwrap_or(Status {
            state: State::Connecting,
            integrity: Integrity::None,
            reason: None,
            last_verified: None,
        });
        // What its publisher closed had nothing more to come: a replay that has ended, say.
        if self.lost && told.state != State::Closed {
            return Status { state: State::Stale, reason: Some("publisher_lost".into()), ..told };
        }
        if self.crossed && told.state == State::Live {
            return Status { state: State::Resyncing, reason: Some("crossed".into()), ..told };
        }
        told
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Core {
    pub(crate) tape: Tape,
    pub(crate) topics: Vec<TopicState>,
    pub(crate) instruments: Vec<InstrumentState>,
    pub(crate) sources: Sources,
    topic_ids: HashMap<Arc<Topic>, TopicId>,
    instrument_ids: HashMap<(CompactString, CompactString), InstrumentId>,
    /// Which topics exist, for whoever asks for one that does not.
    catalogue: Catalogue,
    limits: CoreLimits,
    /// Events put on the tape, by place in [`Channel::ALL`].
    pub(crate) counts: [u64; Channel::ALL.len()],
    pub(crate) clocks: Clocks,
    /// The consolidated quotes, one a symbol.
    pub(crate) bests: Bests,
    /// Trades that bars leave out.
    pub(crate) left_out: LeftOut,
}

impl Core {
    /// A core that knows nothing yet.
    pub fn new(tape: Tape, limits: CoreLimits) -> Self {
        Self {
            tape,
            topics: Vec::new(),
            instruments: Vec::new(),
            sources: Sources::new(limits.sources_max),
            topic_ids: HashMap::new(),
            instrument_ids: HashMap::new(),
            catalogue: Catalogue::default(),
            limits,
            counts: [0; Channel::ALL.len()],
            clocks: Clocks::default(),
            bests: Bests::default(),
            left_out: LeftOut::default(),
        }
    }

    /// The tape.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// How many instruments are known.
    pub fn instruments_len(&self) -> usize {
        self.instruments.len()
    }

    /// How many topics are known.
    pub fn topics_len(&self) -> usize {
        self.topics.len()
    }

    /// The number of a topic, if it exists.
    pub fn topic_id(&self, topic: &Topic) -> Option<TopicId> {
        self.topic_ids.get(topic).copied()
    }

    /// The number of a topic that someone asks for; if it does not exist: why, and what may have been meant.
    pub fn known_topic(&self, topic: &Topic) -> Result<TopicId, Unknown> {
        self.catalogue.check(topic)?;
        self.topic_id(topic).ok_or_else(|| Unknown::new(ticker_proto::Code::UnknownTopic, format!("no topic {topic}")))
    }

    /// The topic of a number.
    ///
    /// # Panics
    /// Where the number is not from this core.
    pub fn topic(&self, id: TopicId) -> &Arc<Topic> {
        &self.topics[id.index()].topic
    }

    /// All topics that a pattern matches now.
    pub fn matching(&self, pattern: &Pattern) -> Vec<TopicId> {
        match pattern.exact() {
            Some(topic) => self.topic_id(&topic).into_iter().collect(),
            None => {
                (0..).zip(&self.topics).filter(|(_, t)| pattern.matches(&t.topic)).map(|(i, _)| TopicId(i)).collect()
            }
        }
    }

    /// All instruments, in order of appearance.
    pub fn instruments(&self) -> impl ExactSizeIterator<Item = &Arc<Instrument>> {
        self.instruments.iter().map(|i| &i.instrument)
    }

    /// All instruments with their status as it is shown.
    pub fn listed(&self) -> impl Iterator<Item = (&Arc<Instrument>, Status)> {
        self.instruments.iter().map(|i| (&i.instrument, i.status()))
    }

    /// The newest value of a state or book topic: a snapshot, or `invalid` where what was shown cannot be trusted. `prev`
    /// is 0 and `seq` that of the topic's last event. `None` for event channels, and where nothing has happened yet.
    pub fn snapshot(&self, id: TopicId) -> Option<Event> {
        let state = &self.topics[id.index()];
        let last = state.last.as_ref()?;
        let channel = state.topic.channel;
        if channel.class() == Class::Event {
            return None;
        }
        if last.kind == Kind::Invalid {
            return Some(Event { prev: 0, ..Event::clone(last) });
        }
        let book = state.instrument.and_then(|id| self.instruments[id.0 as usize].book.as_ref());
        let data = match (book, channel) {
            (Some(book), Channel::Book) => Data::Book(book.whole()),
            (Some(book), Channel::Book10) => Data::Book(book.ten()),
            (Some(book), Channel::Book50) => Data::Book(book.fifty()),
            _ => last.data.clone(),
        };
        Some(Event {
            topic: Arc::clone(&last.topic),
            seq: last.seq,
            prev: 0,
            kind: Kind::Snapshot,
            ts: last.ts,
            recv: last.recv,
            published: last.published,
            data,
        })
    }

    /// Does what time brings: forgets what is too old, calls stale what nobody publishes any more, closes bars. Returns
    /// whether something was put on the tape.
    pub fn sweep(&mut self, now: Time) -> bool {
        let head = self.tape.head();
        self.tape.evict(now);
        for source in self.sources.overdue(now, self.limits.source_grace_nanos) {
            self.lose(source, now);
        }
        self.pass_time(Clock::WALL, now, now);
        self.tape.head() > head
    }

    /// Makes an instrument known, or takes over what has changed of it. Its publisher is `owner` from here on.
    pub(crate) fn announce(
        &mut self,
        owner: SourceId,
        mut instrument: Instrument,
        now: Time,
    ) -> Result<InstrumentId, Refusal> {
        if instrument.venue == BEST {
            return Err(Refusal::Venue);
        }
        if instrument.native.len() > TEXT_BYTES_MAX {
            return Err(Refusal::Text);
        }
        if instrument.channels.len() > CHANNELS_MAX {
            return Err(Refusal::Channel);
        }
        instrument.channels.sort_unstable();
        instrument.channels.dedup();
        let key = (instrument.venue.clone(), instrument.symbol.clone());
        if let Some(id) = self.instrument_ids.get(&key).copied() {
            if self.instruments[id.0 as usize].owner != owner {
                self.take_over(id, owner, now);
            }
            let known = &mut self.instruments[id.0 as usize];
            if *known.instrument != instrument {
                self.catalogue.insert(instrument.clone());
                known.instrument = Arc::new(instrument);
                let seq = self.tape.announce(Arc::clone(&known.instrument), now);
                self.add_topics(id, seq);
            }
            return Ok(id);
        }
        if self.instruments.len() >= self.limits.instruments_max {
            return Err(Refusal::Instruments);
        }
        let id = InstrumentId(u32::try_from(self.instruments.len()).map_err(|_| Refusal::Instruments)?);
        self.catalogue.insert(instrument.clone());
        let instrument = Arc::new(instrument);
        let seq = self.tape.announce(Arc::clone(&instrument), now);
        let clock = self.sources.clock_of(owner);
        self.instruments.push(InstrumentState {
            instrument,
            owner,
            topics: [None; SERVED.len()],
            book: None,
            quote: None,
            told: None,
            crossed: false,
            lost: false,
            clock,
            trading: None,
            best: None,
        });
        self.instrument_ids.insert(key, id);
        self.add_topics(id, seq);
        Ok(id)
    }

    fn add_topics(&mut self, id: InstrumentId, born: u64) {
        let instrument = Arc::clone(&self.instruments[id.0 as usize].instrument);
        for topic in instrument.topics() {
            let Some(at) = SERVED.iter().position(|c| *c == topic.channel) else { continue };
            if self.instruments[id.0 as usize].topics[at].is_some() {
                continue;
            }
            let is_book = topic.channel == Channel::Book;
            let number = self.add_topic(topic, Some(id), born);
            let state = &mut self.instruments[id.0 as usize];
            state.topics[at] = Some(number);
            if is_book {
                state.book = Some(Box::new(DepthBook::new()));
            }
        }
        if let Some(topic) = instrument.best_topic()
            && self.instruments[id.0 as usize].best.is_none()
        {
            let number = match self.topic_id(&topic) {
                Some(number) => number,
                None => self.add_topic(topic, None, born),
            };
            self.join_best(id, number);
        }
    }

    fn add_topic(&mut self, topic: Topic, instrument: Option<InstrumentId>, born: u64) -> TopicId {
        // At most one for each channel of each of the instruments, and one for its symbol: well below the limit.
        let number = TopicId(u32::try_from(self.topics.len()).expect("instruments_max bounds the topics"));
        let topic = Arc::new(topic);
        self.topic_ids.insert(Arc::clone(&topic), number);
        self.topics.push(TopicState { topic, instrument, born, last: None });
        number
    }
}

#[cfg(test)]
mod tests;
