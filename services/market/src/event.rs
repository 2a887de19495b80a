//! One thing that happened to one topic.

use std::sync::Arc;

use compact_str::CompactString;

use crate::{Bar, Channel, Class, Decimal, Stats, Time, Topic};

/// What an event does to what the reader holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Something happened.
    Update,
    /// The whole state of a topic; it replaces what the reader had.
    Snapshot,
    /// What was shown can no longer be trusted, until the next snapshot.
    Invalid,
    /// The venue changed an earlier trade.
    Correction,
    /// The venue took an earlier trade back.
    Cancel,
}

impl Kind {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Update => "update",
            Kind::Snapshot => "snapshot",
            Kind::Invalid => "invalid",
            Kind::Correction => "correction",
            Kind::Cancel => "cancel",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Kind::Update, Kind::Snapshot, Kind::Invalid, Kind::Correction, Kind::Cancel]
            .into_iter()
            .find(|k| k.as_str() == name)
    }
}

/// Which side took.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// The taker bought.
    Buy,
    /// The taker sold.
    Sell,
}

/// A price and how much is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    /// Price, in the instrument's quote currency.
    pub price: Decimal,
    /// Size, in the instrument's base currency; zero removes the level.
    pub size: Decimal,
}

/// The best bid and ask.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Quote {
    /// Best bid; `None` where that side is empty.
    pub bid: Option<Level>,
    /// Best ask; `None` where that side is empty.
    pub ask: Option<Level>,
    /// On the consolidated quote: whose bid it is.
    pub bid_venue: Option<CompactString>,
    /// On the consolidated quote: whose ask it is.
    pub ask_venue: Option<CompactString>,
}

/// A trade, or (by the event's kind) a correction of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trade {
    /// Price.
    pub price: Decimal,
    /// Size.
    pub size: Decimal,
    /// The taker's side; `None` where the venue does not tell.
    pub side: Option<Side>,
    /// The venue's id of the trade.
    pub trade_id: CompactString,
    /// On a correction or cancellation: the id of the trade that it changes.
    pub reference: Option<CompactString>,
}

/// Price levels: all of them in a snapshot, the changed ones in an update. Best first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Levels {
    /// Bids, highest price first.
    pub bids: Vec<Level>,
    /// Asks, lowest price first.
    pub asks: Vec<Level>,
    /// CRC-32 of the ten best levels after this event; see [`crate::Book::crc`].
    pub crc: u32,
    /// Sum over all levels after this event; see [`crate::Book::sum`].
    pub sum: u32,
}

/// Is an instrument live?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Events come, and can be trusted as far as `integrity` says.
    Live,
    /// The connection to the venue is being made.
    Connecting,
    /// Nothing was heard for too long.
    Stale,
    /// The book was found wrong and is being fetched anew.
    Resyncing,
    /// The venue halted trading.
    Halted,
    /// No more will come.
    Closed,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [State::Live, State::Connecting, State::Stale, State::Resyncing, State::Halted, State::Closed];

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Live => "live",
            State::Connecting => "connecting",
            State::Stale => "stale",
            State::Resyncing => "resyncing",
            State::Halted => "halted",
            State::Closed => "closed",
        }
    }
}

/// What proves an instrument's book.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Integrity {
    /// The venue's checksum, on every message.
    Verified,
    /// A sequence without holes.
    Sequenced,
    /// Order alone: a hole could not be seen.
    Ordered,
    /// Nothing.
    None,
}

impl Integrity {
    /// Every integrity.
    pub const ALL: [Integrity; 4] = [Integrity::Verified, Integrity::Sequenced, Integrity::Ordered, Integrity::None];

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Integrity::Verified => "verified",
            Integrity::Sequenced => "sequenced",
            Integrity::Ordered => "ordered",
            Integrity::None => "none",
        }
    }
}

/// Is this instrument live, and how far can its data be trusted?
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Is it live?
    pub state: State,
    /// What proves its book.
    pub integrity: Integrity,
    /// Why the state is not `live`, as a short stable word (`gap`, `checksum`, `silent`, `replay_ended`).
    pub reason: Option<CompactString>,
    /// When the book was last proven.
    pub last_verified: Option<Time>,
}

/// What an event carries beside its place and times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    /// For [`Kind::Invalid`]: why (`gap`, `checksum`, `crossed`, `stale`).
    Invalid(CompactString),
    /// `quote`.
    Quote(Quote),
    /// `trade`.
    Trade(Trade),
    /// `book`, `book-10`, `book-50`.
    Book(Levels),
    /// `bar-*`.
    Bar(Bar),
    /// `stats`. Boxed: it is larger than the others, and rare.
    Stats(Box<Stats>),
    /// `status`.
    Status(Status),
}

impl Data {
    /// Does this data belong on that channel?
    pub const fn fits(&self, channel: Channel) -> bool {
        match self {
            Data::Invalid(_) => true,
            Data::Quote(_) => matches!(channel, Channel::Quote),
            Data::Trade(_) => matches!(channel, Channel::Trade),
            Data::Book(_) => matches!(channel, Channel::Book | Channel::Book10 | Channel::Book50),
            Data::Bar(_) => channel.is_bar(),
            Data::Stats(_) => matches!(channel, Channel::Stats),
            Data::Status(_) => matches!(channel, Channel::Status),
        }
    }
}

/// An event with its place on the tape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The topic.
    pub topic: Arc<Topic>,
    /// Its place on the tape; a derived event has that of its cause.
    pub seq: u64,
    /// The topic's previous event; 0 for a snapshot and for a topic's first event.
    pub prev: u64,
    /// What it does.
    pub kind: Kind,
    /// The venue's time; `None` where it gives none.
    pub ts: Option<Time>,
    /// When ingest received it.
    pub recv: Time,
    /// When it got its place on the tape (`pub` in JSON).
    pub published: Time,
    /// What it carries.
    pub data: Data,
}

impl Event {
    /// Is it a closed bar that happened here (and no snapshot)?
    pub fn is_closed_bar(&self) -> bool {
        matches!(&self.data, Data::Bar(bar) if bar.closed) && self.kind != Kind::Snapshot
    }

    /// May a reader do without it where a later one has come? Not if it is of an event channel, or a closed bar.
    pub fn is_conflatable(&self) -> bool {
        self.topic.channel.class() != Class::Event && !self.is_closed_bar()
    }

    /// Bytes that it holds in memory, roughly: what the tape's limit counts.
    pub fn memory_bytes(&self) -> usize {
        let own = match &self.data {
            Data::Book(levels) => (levels.bids.len() + levels.asks.len()) * size_of::<Level>(),
            Data::Stats(_) => size_of::<Stats>(),
            _ => 0,
        };
        size_of::<Event>() + own
    }
}
