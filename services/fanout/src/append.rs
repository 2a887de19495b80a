//! How an event gets its place on the tape, and what is derived from it there.

use std::sync::Arc;

use compact_str::CompactString;
use ticker_market::{Channel, Class, Data, Event, Kind, Level, Levels, Time};
use ticker_tape::{Clock, TopicId};

use crate::core::{Core, InstrumentId, TEXT_BYTES_MAX};
use crate::depth::{BookChange, BookFault};

/// Why something from an ingest service was not put on the tape.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// The stream has not said which instrument has that number.
    #[error("no instrument has this number on this stream")]
    Number,
    /// The instrument has no such channel, or it is not an ingest service's to publish.
    #[error("the instrument was not announced with this channel, or the channel is derived here")]
    Channel,
    /// The venue's name is ours.
    #[error("the venue `best` is derived here")]
    Venue,
    /// The message means nothing.
    #[error("the message is not valid")]
    Invalid,
    /// This channel has no events of that kind.
    #[error("the channel has no events of this kind")]
    Kind,
    /// A size below zero.
    #[error("a size is negative")]
    Size,
    /// A text beyond [`TEXT_BYTES_MAX`].
    #[error("a text is longer than {TEXT_BYTES_MAX} bytes")]
    Text,
    /// A correction or cancellation that names no trade.
    #[error("a correction or cancellation names no trade")]
    Reference,
    /// The book waits for a snapshot.
    #[error("the book waits for a snapshot")]
    BookWaits,
    /// The levels cannot be applied.
    #[error("the levels cannot be applied to the book")]
    Levels,
    /// The book is crossed after it.
    #[error("the best bid is not below the best ask after it")]
    Crossed,
    /// No more instruments are taken.
    #[error("the limit of instruments is reached")]
    Instruments,
}

impl Refusal {
    /// A short stable word, for metrics.
    pub const fn cause(self) -> &'static str {
        match self {
            Refusal::Number => "number",
            Refusal::Channel => "channel",
            Refusal::Venue => "venue",
            Refusal::Invalid => "invalid",
            Refusal::Kind => "kind",
            Refusal::Size => "size",
            Refusal::Text => "text",
            Refusal::Reference => "reference",
            Refusal::BookWaits => "book_waits",
            Refusal::Levels => "levels",
            Refusal::Crossed => "crossed",
            Refusal::Instruments => "instruments",
        }
    }
}

/// The times of a cause, for what follows from it.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) ts: Option<Time>,
    pub(crate) recv: Time,
}

impl Core {
    /// Puts an event on the tape, and behind it what is derived from it. `seq`, `prev` and `published` are set here, and
    /// the sums of books.
    ///
    /// The first event of a quote or status topic, and the first after an `invalid`, becomes a snapshot: a state topic
    /// begins with one, and only a snapshot ends an `invalid`.
    pub fn put(&mut self, topic: TopicId, event: Event, now: Time) -> Result<(), Refusal> {
        let state = &self.topics[topic.index()];
        let (instrument, channel) = (state.instrument.ok_or(Refusal::Venue)?, state.topic.channel);
        let clock = self.instruments[instrument.0 as usize].clock;
        match clock {
            Clock::WALL => self.pass_time(clock, now, now),
            // How an instrument is, ingest says by itself, at times of its own clock.
            _ if channel != Channel::Status && event.kind != Kind::Invalid => self.pass_time(clock, event.recv, now),
            _ => {}
        }
        match channel {
            Channel::Quote => self.put_quote(topic, instrument, event, now),
            Channel::Trade => self.put_trade(topic, instrument, event, now),
            Channel::Book => self.put_book(topic, instrument, event, now),
            Channel::Status => self.put_status(topic, instrument, event, now),
            _ => Err(Refusal::Channel),
        }
    }

    fn put_quote(&mut self, topic: TopicId, id: InstrumentId, event: Event, now: Time) -> Result<(), Refusal> {
        let quote = match (&event.data, event.kind) {
            (Data::Invalid(reason), Kind::Invalid) => {
                check_text(reason)?;
                let (reason, times) = (reason.clone(), Times { ts: event.ts, recv: event.recv });
                self.instruments[id.0 as usize].quote = None;
                self.invalidate(topic, &reason, times, now);
                return Ok(());
            }
            (Data::Quote(quote), Kind::Update | Kind::Snapshot) => quote,
            _ => return Err(Refusal::Kind),
        };
        if quote.bid.iter().chain(&quote.ask).any(is_negative) {
            return Err(Refusal::Size);
        }
        if quote.bid_venue.is_some() || quote.ask_venue.is_some() {
            return Err(Refusal::Invalid);
        }
        let event = self.append_state(topic, event, now);
        self.instruments[id.0 as usize].quote = Some(event);
        Ok(())
    }

    fn put_trade(&mut self, topic: TopicId, id: InstrumentId, event: Event, now: Time) -> Result<(), Refusal> {
        let Data::Trade(trade) = &event.data else { return Err(Refusal::Kind) };
        match event.kind {
            Kind::Update => {}
            Kind::Correction | Kind::Cancel if trade.reference.is_none() => return Err(Refusal::Reference),
            Kind::Correction | Kind::Cancel => {}
            Kind::Snapshot | Kind::Invalid => return Err(Refusal::Kind),
        }
        if trade.size.is_sign_negative() && !trade.size.is_zero() {
            return Err(Refusal::Size);
        }
        check_text(&trade.trade_id)?;
        check_text(trade.reference.as_deref().unwrap_or_default())?;
        self.begin_trading(id);
        self.append(topic, event, now);
        Ok(())
    }

    fn put_status(&mut self, topic: TopicId, id: InstrumentId, mut event: Event, now: Time) -> Result<(), Refusal> {
        let Data::Status(status) = &event.data else { return Err(Refusal::Kind) };
        if !matches!(event.kind, Kind::Update | Kind::Snapshot) {
            return Err(Refusal::Kind);
        }
        check_text(status.reason.as_deref().unwrap_or_default())?;
        let state = &mut self.instruments[id.0 as usize];
        state.told = Some(status.clone());
        event.data = Data::Status(state.status());
        self.append_state(topic, event, now);
        Ok(())
    }

    fn put_book(&mut self, topic: TopicId, id: InstrumentId, mut event: Event, now: Time) -> Result<(), Refusal> {
        let times = Times { ts: event.ts, recv: event.recv };
        let state = &mut self.instruments[id.0 as usize];
        let book = state.book.as_mut().ok_or(Refusal::Channel)?;
        let levels = match (event.data, event.kind) {
            (Data::Invalid(reason), Kind::Invalid) => {
                check_text(&reason)?;
                book.spoil();
                self.invalidate_book(id, &reason, times, now);
                return Ok(());
            }
            (Data::Book(levels), Kind::Update | Kind::Snapshot) => levels,
            _ => return Err(Refusal::Kind),
        };
        let changed = match event.kind {
            Kind::Snapshot => book.replace(levels),
            _ if !book.is_good() => return Err(Refusal::BookWaits),
            _ => book.apply(levels),
        };
        let change = match changed {
            Ok(change) => change,
            Err(fault) => return Err(self.spoiled(id, fault, times, now)),
        };
        let BookChange { book, ten, fifty } = change;
        let mended = event.kind == Kind::Snapshot && std::mem::take(&mut state.crossed);
        event.data = Data::Book(book);
        let kind = event.kind;
        self.append(topic, event, now);
        self.derive_books(id, kind, ten, fifty, times);
        if mended {
            self.show_status(id, times, now);
        }
        Ok(())
    }

    /// A change made the book wrong: it is called invalid, and the change is not told.
    fn spoiled(&mut self, id: InstrumentId, fault: BookFault, times: Times, now: Time) -> Refusal {
        let (reason, refusal) = match fault {
            BookFault::Crossed => ("crossed", Refusal::Crossed),
            BookFault::Levels(_) => ("gap", Refusal::Levels),
        };
        self.invalidate_book(id, reason, times, now);
        if fault == BookFault::Crossed {
            self.instruments[id.0 as usize].crossed = true;
            self.show_status(id, times, now);
        }
        refusal
    }

    /// Puts the derived books of the last event on the tape, behind it.
    pub(crate) fn derive_books(
        &mut self,
        id: InstrumentId,
        kind: Kind,
        ten: Option<Levels>,
        fifty: Option<Levels>,
        times: Times,
    ) {
        for (channel, levels) in [(Channel::Book10, ten), (Channel::Book50, fifty)] {
            let Some(topic) = self.instruments[id.0 as usize].topic(channel) else { continue };
            if let Some(levels) = levels {
                let event = self.event(topic, kind, times, Data::Book(levels));
                self.derive(topic, event);
            }
        }
    }

    /// Calls a book and its derived ones invalid, where they have been shown. They share one place.
    pub(crate) fn invalidate_book(&mut self, id: InstrumentId, reason: &str, times: Times, now: Time) {
        let topics =
            [Channel::Book, Channel::Book10, Channel::Book50].map(|c| self.instruments[id.0 as usize].topic(c));
        let mut first = true;
        for topic in topics.into_iter().flatten() {
            if !self.topics[topic.index()].is_valid() {
                continue;
            }
            let event = self.event(topic, Kind::Invalid, times, Data::Invalid(reason.into()));
            if std::mem::take(&mut first) {
                self.append(topic, event, now);
            } else {
                self.derive(topic, event);
            }
        }
    }

    /// Calls a topic invalid, where it has been shown.
    pub(crate) fn invalidate(&mut self, topic: TopicId, reason: &str, times: Times, now: Time) {
        if self.topics[topic.index()].is_valid() {
            let event = self.event(topic, Kind::Invalid, times, Data::Invalid(CompactString::from(reason)));
            self.append(topic, event, now);
        }
    }

    /// Tells an instrument's status, where it differs from what was told last.
    pub(crate) fn show_status(&mut self, id: InstrumentId, times: Times, now: Time) {
        let state = &self.instruments[id.0 as usize];
        let Some(topic) = state.topic(Channel::Status) else { return };
        let data = Data::Status(state.status());
        if self.topics[topic.index()].last.as_ref().is_none_or(|last| last.data != data) {
            let event = self.event(topic, Kind::Update, times, data);
            self.append_state(topic, event, now);
        }
    }

    /// An event of ours.
    pub(crate) fn event(&self, topic: TopicId, kind: Kind, times: Times, data: Data) -> Event {
        Event {
            topic: Arc::clone(&self.topics[topic.index()].topic),
            seq: 0,
            prev: 0,
            kind,
            ts: times.ts,
            recv: times.recv,
            published: Time(0),
            data,
        }
    }

    fn append_state(&mut self, topic: TopicId, mut event: Event, now: Time) -> Arc<Event> {
        if event.kind == Kind::Update && !self.topics[topic.index()].is_valid() {
            event.kind = Kind::Snapshot;
        }
        self.append(topic, event, now)
    }

    pub(crate) fn append(&mut self, topic: TopicId, mut event: Event, now: Time) -> Arc<Event> {
        event.prev = self.prev(topic, event.kind);
        self.count(&event);
        let event = self.tape.append(topic, event, now);
        self.topics[topic.index()].last = Some(Arc::clone(&event));
        self.follow(topic, &event);
        event
    }

    /// Puts an event behind the last one on the tape, which caused it.
    pub(crate) fn derive(&mut self, topic: TopicId, mut event: Event) -> Arc<Event> {
        event.prev = self.prev(topic, event.kind);
        self.count(&event);
        let event = self.tape.derive(topic, event);
        self.topics[topic.index()].last = Some(Arc::clone(&event));
        event
    }

    fn count(&mut self, event: &Event) {
        if let Some(at) = Channel::ALL.iter().position(|c| *c == event.topic.channel) {
            self.counts[at] += 1;
        }
    }

    fn prev(&self, topic: TopicId, kind: Kind) -> u64 {
        let state = &self.topics[topic.index()];
        debug_assert!(state.topic.channel.class() != Class::Event || kind != Kind::Snapshot);
        if kind == Kind::Snapshot { 0 } else { state.last_seq() }
    }
}

fn check_text(text: &str) -> Result<(), Refusal> {
    if text.len() > TEXT_BYTES_MAX { Err(Refusal::Text) } else { Ok(()) }
}

fn is_negative(level: &Level) -> bool {
    level.size.is_sign_negative() && !level.size.is_zero()
}
