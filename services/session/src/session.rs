//! One reader: what it subscribed to, where it stands, what it is told next.

use std::collections::VecDeque;
use std::sync::Arc;

use ticker_market::{Channel, Class, Pattern, Time, Topic};
use ticker_proto::{Code, Fields, Form, Frame, Notice};

use crate::join::Join;
use crate::signal::Reach;
use crate::unreliable::Unreliable;

/// How a session is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Messages go out as they come.
    Stream,
    /// One answer: what there is, or else the first that comes (long polling).
    Once,
}

/// What a reader's transport says when it opens a session.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// How messages are laid out.
    pub form: Form,
    /// How the session is read.
    pub mode: Mode,
}

/// Why and how a session ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    /// The contract's code; the transport's close code follows from it.
    pub code: Code,
    /// For people.
    pub message: String,
}

/// What a reader asked of some of its topics.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Options {
    /// Nanoseconds between two updates of one state or book topic; 0 for no limit.
    pub(crate) interval_nanos: i64,
    pub(crate) fields: Fields,
    pub(crate) conflate: bool,
    /// By an unreliable way, where the transport has one.
    pub(crate) datagram: bool,
}

impl Options {
    /// Does a reader with these options get every event of such a topic?
    pub(crate) fn wants_every(&self, class: Class) -> bool {
        class == Class::Event || !self.conflate
    }

    /// Does such a reader go on after a place, because there are events of the topic that it must not miss?
    pub(crate) fn goes_on(&self, channel: Channel) -> bool {
        self.wants_every(channel.class()) || channel.is_bar()
    }
}

/// One topic of one reader.
#[derive(Clone, Debug)]
pub(crate) struct Sub {
    /// The ordinal of the next event that the reader has not been sent.
    pub(crate) place: u64,
    /// The topic's index in the hub.
    pub(crate) topic: u32,
    /// Where the topic's list of readers names this subscription.
    pub(crate) slot: u32,
    /// The index of its [`Options`].
    pub(crate) options: u16,
    /// How exact the pattern was that brought it; see [`Pattern::exactness`].
    pub(crate) exactness: u8,
    /// There is news.
    pub(crate) dirty: bool,
    /// The reader must be given a snapshot first.
    pub(crate) fresh: bool,
}

/// A pattern with `*`, for instruments that appear later.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) pattern: Pattern,
    pub(crate) options: Options,
    /// The reader wants all that its topics bring after this place on the tape.
    pub(crate) since: u64,
}

/// Something to say before the data that is due.
#[derive(Debug)]
pub(crate) enum Beginning {
    /// `welcome`, with the cursor as it is when it is said.
    Welcome,
    /// `gap`: on that topic, because the tape no longer reaches back; or on all, because the epoch has changed.
    Gap(Option<Arc<Topic>>),
}

/// Something to say after the data that is due.
#[derive(Debug)]
pub(crate) enum Saying {
    /// As it stands.
    Notice(Notice),
    /// `subscribed`, with the cursor as it is when it is said.
    Subscribed { id: u64, topics: Vec<String> },
    /// `goodbye`, likewise.
    Goodbye { reason: String, retry_ms: u32 },
}

/// Bytes that a session may send: a bucket that fills with time (`max_kbps`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    bytes_per_second: f64,
    level: f64,
    at: Time,
}

impl Bucket {
    /// How long a quiet session may save up.
    const DEPTH_SECONDS: f64 = 1.0;

    pub(crate) fn new(kilobits_per_second: f64, now: Time) -> Self {
        let bytes_per_second = kilobits_per_second * 1_000.0 / 8.0;
        Self { bytes_per_second, level: bytes_per_second * Self::DEPTH_SECONDS, at: now }
    }

    /// Takes in what time has brought.
    pub(crate) fn fill(&mut self, now: Time) {
        let seconds = now.since(self.at).max(0) as f64 / 1e9;
        self.level = (self.level + seconds * self.bytes_per_second).min(self.bytes_per_second * Self::DEPTH_SECONDS);
        self.at = self.at.max(now);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.level > 0.0
    }

    /// A message may take more than there is; the next waits the longer for it.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.level -= bytes as f64;
    }

    /// When there is room again.
    pub(crate) fn room_at(&self) -> Time {
        let seconds = (-self.level / self.bytes_per_second).max(0.0) + 0.001;
        self.at.plus_nanos((seconds * 1e9) as i64)
    }
}

/// A reader.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) generation: u32,
    pub(crate) opening: Opening,
    pub(crate) subs: Vec<Sub>,
    /// Distinct options; few, and most readers have one.
    pub(crate) options: Vec<Options>,
    pub(crate) wishes: Vec<Wish>,
    /// Subscriptions that have not begun yet. Boxed: most readers have none.
    #[allow(clippy::vec_box, reason = "a join is large, and an idle session must be small")]
    pub(crate) joins: Vec<Box<Join>>,
    /// Indexes of the subscriptions with news, in the order in which the news came.
    pub(crate) dirty: Vec<u32>,
    /// For sessions with a rate limit: when each subscription may send again.
    pub(crate) next_at: Vec<Time>,
    /// Older events of joins, in tape order.
    pub(crate) backlog: VecDeque<(Arc<Frame>, Fields)>,
    /// To be said before the data.
    pub(crate) before: VecDeque<Beginning>,
    /// To be said after the data.
    pub(crate) after: VecDeque<Saying>,
    pub(crate) bucket: Option<Box<Bucket>>,
    /// The transport has an unreliable way.
    pub(crate) unreliable: Option<Box<Unreliable>>,
    /// The reader has agreed to be reached by others.
    pub(crate) reach: Option<Box<Reach>>,
    /// Requests that are still allowed in this second, and when the second began.
    pub(crate) requests_left: u32,
    pub(crate) requests_since: Time,
    /// The reader's cursor as the messages sent so far make it (contract, promise 2); before any: where it began.
    pub(crate) cursor: u64,
    /// What the reader has had may reach up to this place: a snapshot must not lead it back.
    pub(crate) floor: u64,
    /// Events conflated since the last heartbeat.
    pub(crate) conflated: u64,
    /// When a limit lets it send again; `Time(i64::MAX)` if none is waited for.
    pub(crate) wake_at: Time,
    /// A heartbeat is due.
    pub(crate) heartbeat: bool,
    /// The session is in the hub's list of ready ones.
    pub(crate) listed: bool,
    /// The last plan left something out because of its budget.
    pub(crate) more: bool,
    /// Its transport takes nothing more for now.
    pub(crate) blocked: bool,
    /// It was blocked, and has not caught up since: state channels give only their newest.
    pub(crate) behind: bool,
    /// Why it ends, once it does.
    pub(crate) ending: Option<Box<Ending>>,
    /// The ending has been handed to the transport.
    pub(crate) ended: bool,
}

impl Session {
    pub(crate) fn new(generation: u32, opening: Opening, position: u64, now: Time) -> Self {
        Self {
            generation,
            opening,
            subs: Vec::new(),
            options: Vec::new(),
            wishes: Vec::new(),
            joins: Vec::new(),
            dirty: Vec::new(),
            next_at: Vec::new(),
            backlog: VecDeque::new(),
            before: VecDeque::new(),
            after: VecDeque::new(),
            bucket: None,
            unreliable: None,
            reach: None,
            requests_left: 0,
            requests_since: now,
            cursor: position,
            floor: 0,
            conflated: 0,
            wake_at: Time(i64::MAX),
            heartbeat: false,
            listed: false,
            more: false,
            blocked: false,
            behind: false,
            ending: None,
            ended: false,
        }
    }

    /// The index of these options, added if they are new. Options that no subscription has any more make room.
    pub(crate) fn option_index(&mut self, options: Options) -> u16 {
        if let Some(at) = self.options.iter().position(|o| *o == options) {
            return at as u16;
        }
        let mut used = vec![false; self.options.len()];
        for sub in &self.subs {
            used[usize::from(sub.options)] = true;
        }
        if let Some(at) = used.iter().position(|u| !u) {
            self.options[at] = options;
            return at as u16;
        }
        self.options.reserve_exact(1);
        self.options.push(options);
        (self.options.len() - 1) as u16
    }

    /// The options of the subscription at `at`.
    pub(crate) fn options_of(&self, at: usize) -> Options {
        self.options[usize::from(self.subs[at].options)]
    }

    /// The session ends as soon as its transport takes the last words; what only a living session hears is dropped.
    pub(crate) fn end(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some(Box::new(ending));
            self.heartbeat = false;
            self.after.retain(|s| !matches!(s, Saying::Subscribed { .. }));
        }
    }

    /// Its first words have not been said yet.
    pub(crate) fn is_unwelcomed(&self) -> bool {
        matches!(self.before.front(), Some(Beginning::Welcome)) || (self.opening.mode == Mode::Once)
    }

    /// Is there something to send, as far as can be told without looking closer?
    pub(crate) fn has_news(&self) -> bool {
        !self.dirty.is_empty()
            || !self.backlog.is_empty()
            || !self.before.is_empty()
            || !self.after.is_empty()
            || self.heartbeat
            || (self.ending.is_some() && !self.ended)
    }
}
