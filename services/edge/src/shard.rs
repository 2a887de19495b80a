//! A shard: one thread with its own listener, its own readers' sockets, its own hub. Nothing in it is locked, and no task
//! is woken for a message: what happens marks readers, and the end of each pass writes once to each marked one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use mio::{Events, Interest, Token};
use slab::Slab;
use ticker_market::Time;
use ticker_session::{Ending, Hub, Limits, Outgoing, SessionId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::batches;
use crate::clock::Clock;
use crate::command::{COMMANDS_MAX, Command, Needs, PipeId, PipeState, ShardHandle, Stalled, Upstream};
use crate::conn::Conn;
use crate::poll::Poll;
use crate::ring::Ring;
use crate::round::Prepared;
use crate::switchboard::Switchboard;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// Connections that one pass accepts, at most, so that those who are here are not kept waiting.
const ACCEPTS_PER_PASS: usize = 64;

/// Sockets that one pass looks at, at most, likewise: when thousands come at once, each asks for much.
const EVENTS_PER_PASS: usize = 256;

/// Reads of one socket in a pass, at most, each as large as the shard's buffer, likewise.
pub(crate) const READS_PER_PASS: usize = 4;

/// Commands that one pass takes, at most, likewise.
const COMMANDS_PER_PASS: usize = 1_024;

/// Readers are written to again after as much time as the last round took, so that under load a round finds several
/// messages for each: one write of eight costs little more than one write of one. The pause is no longer than this, though.
const PAUSE_NANOS_MAX: i64 = 8_000_000;

/// A round that takes less needs no pause: the loop is far from busy, and every message goes out at once.
const SHORT_ROUND_NANOS: i64 = 500_000;

/// Bytes that one pass plans for a reader, so that one large snapshot does not hold up the others.
pub(crate) const PLAN_BYTES: usize = 128 * 1024;

/// How long a request's head may take.
pub(crate) const HEAD_MILLIS_MAX: i64 = 10_000;

/// How long a reader may take to go once all has been said.
pub(crate) const CLOSING_MILLIS_MAX: i64 = 2_000;

/// Needs that upstream had no room for are told after so long.
const NEEDS_RETRY_MILLIS: i64 = 10;

/// How long readers have to take their goodbye when the edge drains.
const DRAIN_MILLIS_MAX: i64 = 3_000;

/// The kernel keeps no more than this unsent for a reader: what lies behind it can still be conflated.
pub(crate) const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;

/// A connection for the HTTP library, with the bytes that were read from it.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) head: Vec<u8>,
}

/// Whose session it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Nobody,
    Conn(u32),
    Pipe(u32),
    Poll(u32),
}

/// A session whose messages go into a pipe.
#[derive(Debug)]
pub(crate) struct PipeEnd {
    pub(crate) generation: u32,
    pub(crate) session: SessionId,
    pub(crate) messages: batches::Sender,
    pub(crate) state: Arc<PipeState>,
    pub(crate) stalled: Stalled,
    /// Since when its reader has taken nothing, while messages wait.
    pub(crate) blocked_since: Option<Time>,
    /// There is a timer for it.
    pub(crate) watched: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    Conn(u32, u32),
    Poll(u32, u32),
    Pipe(u32, u32),
}

/// See the module.
pub(crate) struct Shard {
    index: usize,
    poll: mio::Poll,
    listener: Option<mio::net::TcpListener>,
    commands: Receiver<Command>,
    woken: Arc<AtomicBool>,
    /// Never used here, but kept: closing it takes back a wake-up that the kernel has not told yet.
    _waker: Arc<mio::Waker>,
    needs: Needs,
    pub(crate) http: mpsc::Sender<Handover>,
    pub(crate) hub: Hub,
    pub(crate) conns: Slab<Conn>,
    pub(crate) pipes: Slab<PipeEnd>,
    pub(crate) polls: Slab<Poll>,
    /// By [`SessionId::index`].
    owners: Vec<Owner>,
    pub(crate) timers: BinaryHeap<Reverse<(Time, Timer)>>,
    pub(crate) generations: u32,
    pub(crate) clock: Clock,
    pub(crate) now: Time,
    pub(crate) plan: Vec<Outgoing>,
    pub(crate) scratch: Vec<u8>,
    /// Sockets (and their generations) that are read on in the next pass.
    pub(crate) unread: Vec<(u32, u32)>,
    /// What one batch of a round sends; see [`crate::round`].
    pub(crate) batch: Vec<Prepared>,
    pub(crate) results: Vec<io::Result<usize>>,
    /// Where the kernel gives one; opened by the shard's own thread, to which it belongs.
    pub(crate) ring: Option<Ring>,
    uses_ring: bool,
    pub(crate) counts: Counts,
    gauges: Gauges,
    /// When readers are written to again.
    next_round: Time,
    draining: Option<(Time, String)>,
    drain_spread_ms: u32,
    /// Readers who offer permessage-deflate get it.
    pub(crate) deflate: bool,
    /// How long the reader of a pipe may take nothing, in milliseconds.
    pub(crate) write_timeout_ms: i64,
    /// Sessions of pipes that have ended, for as long as their reader has to take the last words; the oldest first.
    pub(crate) last_words: VecDeque<(Time, Arc<PipeState>, Stalled)>,
    pub(crate) switchboard: Arc<Switchboard>,
    /// The way to this shard, for others' signals to its readers.
    pub(crate) handle: ShardHandle,
}

/// What a shard counts between two looks at the metrics.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) writes: u64,
    pub(crate) blocked: u64,
    pub(crate) slow: u64,
    pub(crate) stalled: u64,
    pub(crate) refused: u64,
    deflated_events: u64,
    deflated_from: u64,
    deflated_to: u64,
    needs_full: u64,
}

impl Counts {
    /// Counts what of these is compressed.
    pub(crate) fn deflated(&mut self, sent: &[Outgoing]) {
        for encoded in sent.iter().map(Outgoing::encoded).filter(|e| e.is_compressed()) {
            self.deflated_events += 1;
            self.deflated_from += encoded.uncompressed_bytes() as u64;
            self.deflated_to += encoded.bytes.len() as u64;
        }
    }
}

/// The shard's metrics, registered once.
struct Gauges {
    sessions: metrics::Gauge,
    connections: metrics::Gauge,
    messages: metrics::Counter,
    bytes: metrics::Counter,
    writes: metrics::Counter,
    blocked: metrics::Counter,
    slow: metrics::Counter,
    stalled: metrics::Counter,
    refused: metrics::Counter,
    deflated_events: metrics::Counter,
    deflated_from: metrics::Counter,
    deflated_to: metrics::Counter,
    needs_full: metrics::Counter,
    /// All shards' sessions, for whoever shows them.
    readers: Arc<AtomicUsize>,
    readers_before: usize,
}

impl Gauges {
    fn new(index: usize, readers: Arc<AtomicUsize>) -> Self {
        let shard = index.to_string();
        Self {
            sessions: metrics::gauge!("ticker_edge_sessions", "shard" => shard.clone()),
            connections: metrics::gauge!("ticker_edge_connections", "shard" => shard.clone()),
            messages: metrics::counter!("ticker_edge_messages_total", "shard" => shard.clone()),
            bytes: metrics::counter!("ticker_edge_bytes_total", "shard" => shard.clone()),
            writes: metrics::counter!("ticker_edge_writes_total", "shard" => shard.clone()),
            blocked: metrics::counter!("ticker_edge_writes_blocked_total", "shard" => shard.clone()),
            slow: metrics::counter!("ticker_edge_slow_consumers_total", "shard" => shard.clone()),
            stalled: metrics::counter!("ticker_edge_write_timeouts_total", "shard" => shard.clone()),
            refused: metrics::counter!("ticker_edge_requests_refused_total", "shard" => shard.clone()),
            deflated_events: metrics::counter!("ticker_edge_deflated_events_total", "shard" => shard.clone()),
            deflated_from: metrics::counter!("ticker_edge_deflated_from_bytes_total", "shard" => shard.clone()),
            deflated_to: metrics::counter!("ticker_edge_deflated_to_bytes_total", "shard" => shard.clone()),
            needs_full: metrics::counter!("ticker_edge_needs_full_total", "shard" => shard),
            readers,
            readers_before: 0,
        }
    }

    fn publish(&mut self, counts: &mut Counts, sessions: usize, connections: usize) {
        let counts = std::mem::take(counts);
        self.messages.increment(counts.messages);
        self.bytes.increment(counts.bytes);
        self.writes.increment(counts.writes);
        self.blocked.increment(counts.blocked);
        self.slow.increment(counts.slow);
        self.stalled.increment(counts.stalled);
        self.refused.increment(counts.refused);
        self.deflated_events.increment(counts.deflated_events);
        self.deflated_from.increment(counts.deflated_from);
        self.deflated_to.increment(counts.deflated_to);
        self.needs_full.increment(counts.needs_full);
        self.sessions.set(sessions as f64);
        self.connections.set(connections as f64);
        self.readers.fetch_add(sessions.wrapping_sub(self.readers_before), Ordering::Relaxed);
        self.readers_before = sessions;
    }
}

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) limits: Limits,
    /// Write by io_uring.
    pub(crate) uses_ring: bool,
    pub(crate) needs: Needs,
    pub(crate) http: mpsc::Sender<Handover>,
    pub(crate) readers: Arc<AtomicUsize>,
    pub(crate) drain_spread_ms: u32,
    pub(crate) deflate: bool,
    pub(crate) write_timeout_ms: u32,
    pub(crate) switchboard: Arc<Switchboard>,
}

impl Shard {
    /// A shard, and the way to it. [`Shard::run`] is its thread.
    pub(crate) fn new(parts: Parts) -> io::Result<(Self, ShardHandle)> {
        let poll = mio::Poll::new()?;
        let waker = Arc::new(mio::Waker::new(poll.registry(), WAKER)?);
        let (sender, commands) = sync_channel(COMMANDS_MAX);
        let woken = Arc::new(AtomicBool::new(false));
        parts.listener.set_nonblocking(true)?;
        let mut listener = mio::net::TcpListener::from_std(parts.listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let clock = Clock::start();
        let handle = ShardHandle::new(sender, Arc::clone(&waker), Arc::clone(&woken));
        let mut hub = Hub::new(parts.limits);
        hub.carry_signals();
        let shard = Self {
            index: parts.index,
            poll,
            listener: Some(listener),
            commands,
            woken,
            _waker: waker,
            needs: parts.needs,
            http: parts.http,
            hub,
            conns: Slab::new(),
            pipes: Slab::new(),
            polls: Slab::new(),
            owners: Vec::new(),
            timers: BinaryHeap::new(),
            generations: 0,
            now: clock.now(),
            clock,
            plan: Vec::new(),
            scratch: vec![0; 64 * 1024],
            unread: Vec::new(),
            batch: Vec::new(),
            results: Vec::new(),
            ring: None,
            uses_ring: parts.uses_ring,
            counts: Counts::default(),
            gauges: Gauges::new(parts.index, parts.readers),
            next_round: Time(0),
            draining: None,
            drain_spread_ms: parts.drain_spread_ms,
            deflate: parts.deflate,
            write_timeout_ms: parts.write_timeout_ms.into(),
            last_words: VecDeque::new(),
            switchboard: parts.switchboard,
            handle: handle.clone(),
        };
        Ok((shard, handle))
    }

    /// Runs until it has drained.
    pub(crate) fn run(mut self) -> io::Result<()> {
        if self.uses_ring {
            self.ring = Some(Ring::open()?);
        }
        let mut events = Events::with_capacity(EVENTS_PER_PASS);
        let mut ready = Vec::new();
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            self.now = self.clock.now();
            let mut accept = false;
            for event in &events {
                match event.token() {
                    LISTENER => accept = true,
                    WAKER => {}
                    Token(key) => self.on_event(key as u32, event),
                }
            }
            self.read_on();
            self.take_commands();
            self.carry();
            if accept {
                self.accept();
            }
            self.fire_timers();
            self.hub.tick(self.now);
            if self.now >= self.next_round {
                let began = self.now;
                self.hub.take_ready(&mut ready);
                // Always in one order, so that nobody waits for almost two rounds: late in one, early in the next.
                ready.sort_unstable_by_key(|id: &SessionId| id.index());
                self.round(&ready);
                self.now = self.clock.now();
                let took = self.now.since(began);
                let pause = if took < SHORT_ROUND_NANOS { 0 } else { took.min(PAUSE_NANOS_MAX) };
                self.next_round = self.now.plus_nanos(pause);
            }
            self.tell_needs();
            self.gauges.publish(&mut self.counts, self.hub.sessions(), self.conns.len());
            if self.is_drained() {
                return Ok(());
            }
        }
    }

    /// Tells upstream what readers need, as far as there is room: a shard never waits for it.
    fn tell_needs(&mut self) {
        while self.hub.has_needs() {
            match self.needs.try_reserve() {
                Ok(room) => room.send((self.index, self.hub.take_need().expect("there is one"))),
                Err(TrySendError::Full(())) => {
                    self.counts.needs_full += 1;
                    return;
                }
                // Upstream outlives its shards but for the very end.
                Err(TrySendError::Closed(())) => drop(self.hub.take_needs()),
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if self.woken.load(Ordering::Acquire) || !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        let round = self.hub.has_ready().then_some(self.next_round);
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let last_words = self.last_words.front().map(|(at, _, _)| *at);
        let drain = self.draining.as_ref().map(|(at, _)| *at);
        // Nobody tells a shard that there is room for its needs again.
        let needs = self.hub.has_needs().then(|| self.now.plus_millis(NEEDS_RETRY_MILLIS));
        let next = timer
            .into_iter()
            .chain(last_words)
            .chain(self.hub.next_timer())
            .chain(drain)
            .chain(round)
            .chain(needs)
            .min()?;
        let nanos = u64::try_from(next.since(self.clock.now())).unwrap_or(0);
        // The kernel counts in milliseconds: rounded up, so that the time has come when it wakes us.
        Some(Duration::from_millis(nanos.div_ceil(1_000_000)))
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_PER_PASS {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    return;
                }
            }
        }
        // There may be more; the listener tells only what is new.
        self.woken.store(true, Ordering::Release);
        if let Some(listener) = &mut self.listener {
            let _ = self.poll.registry().reregister(listener, LISTENER, Interest::READABLE);
        }
    }

    fn admit(&mut self, mut stream: mio::net::TcpStream) {
        let _ = stream.set_nodelay(true);
        let socket = socket2::SockRef::from(&stream);
        let _ = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES);
        let _ = socket.set_keepalive(true);
        self.generations = self.generations.wrapping_add(1);
        let generation = self.generations;
        let entry = self.conns.vacant_entry();
        let key = entry.key();
        // Both at once, since events are told on their edges only: a socket says that it is writable when it was not.
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, Token(key), interest) {
            tracing::warn!(%error, "a connection could not be registered");
            return;
        }
        entry.insert(Conn::new(stream, generation));
        self.timers.push(Reverse((self.now.plus_millis(HEAD_MILLIS_MAX), Timer::Conn(key as u32, generation))));
        // The request may be here already.
        self.read(key as u32);
    }

    pub(crate) fn take_commands(&mut self) {
        // Must be seen before the queue is looked at (a plain store could be seen after): whoever adds a command that this
        // look misses finds the flag down, and wakes us.
        self.woken.swap(false, Ordering::SeqCst);
        for taken in 0.. {
            if taken == COMMANDS_PER_PASS {
                self.woken.store(true, Ordering::Release);
                return;
            }
            match self.commands.try_recv() {
                Ok(command) => self.on_command(command),
                Err(_) => return,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now;
        match command {
            Command::Upstream(Upstream::Opened { epoch, seq, resumed }) => self.hub.opened(&epoch, seq, resumed, now),
            Command::Upstream(Upstream::Instruments(all)) => self.hub.instruments(Vec::clone(&all), now),
            Command::Upstream(Upstream::Added { topics, resumed }) => {
                self.hub.added(Vec::clone(&topics), resumed, now);
            }
            Command::Upstream(Upstream::Removed(topics)) => self.hub.removed(&topics),
            Command::Upstream(Upstream::Events { frames, seq }) => {
                self.hub.publish(&frames, now);
                self.hub.progress(seq, now);
            }
            Command::Upstream(Upstream::Progress(seq)) => self.hub.progress(seq, now),
            Command::Backfilled { ticket, page } => self.hub.backfilled(ticket, page, now),
            Command::Open(open) => self.open_pipe(*open),
            Command::Request { pipe, request } => self.pipe_request(pipe, request),
            Command::End { pipe, ending } => {
                if let Some(session) = self.pipe(pipe).map(|p| p.session) {
                    self.hub.end(session, ending);
                }
            }
            Command::Writable(pipe) => {
                if let Some(session) = self.pipe(pipe).map(|p| p.session) {
                    self.hub.writable(session);
                }
            }
            Command::Signal(signal) => self.deliver(*signal),
            Command::Heartbeat(pipe) => {
                if let Some(session) = self.pipe(pipe).map(|p| p.session) {
                    self.hub.heartbeat(session);
                }
            }
            Command::Lossy { pipe, is_lossy } => {
                if let Some(session) = self.pipe(pipe).map(|p| p.session) {
                    self.hub.path_is_lossy(session, is_lossy);
                }
            }
            Command::Close(pipe) => {
                if self.pipe(pipe).is_some() {
                    self.drop_pipe(pipe.key);
                }
            }
            Command::Ask(ask) => self.ask(*ask),
            Command::Reached(reply) => drop(reply.send(())),
            Command::Drain { reason } => self.drain(reason),
        }
    }

    fn drain(&mut self, reason: String) {
        if let Some(mut listener) = self.listener.take() {
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.hub.goodbye(&reason, self.drain_spread_ms, |below| fastrand::u32(0..below));
        self.draining = Some((self.now.plus_millis(DRAIN_MILLIS_MAX), reason));
        let parked: Vec<u32> = self.polls.iter().map(|(k, _)| k as u32).collect();
        for key in parked {
            self.polls[key as usize].deadline = self.now;
            self.answer_poll(key);
        }
    }

    fn is_drained(&mut self) -> bool {
        let Some((deadline, reason)) = &self.draining else { return false };
        if self.conns.is_empty() && self.pipes.is_empty() {
            return true;
        }
        let (late, reason) = (self.now >= *deadline, reason.clone());
        // Whoever has had the goodbye is closed; in the end everybody is.
        let sessions: Vec<SessionId> = self
            .conns
            .iter()
            .filter_map(|(_, c)| c.session.filter(|s| !c.blocked && self.hub.is_settled(*s)))
            .chain(self.pipes.iter().map(|(_, p)| p.session).filter(|s| self.hub.is_settled(*s)))
            .collect();
        for id in sessions {
            self.hub.end(
                id,
                Ending { code: ticker_proto::Code::Draining, message: format!("the edge goes away: {reason}") },
            );
        }
        let heads: Vec<u32> = self.conns.iter().filter(|(_, c)| c.session.is_none()).map(|(k, _)| k as u32).collect();
        for key in heads {
            let head = matches!(self.conns[key as usize].stage, crate::conn::Stage::Head);
            if head || late {
                self.drop_conn(key);
            }
        }
        if late {
            let all: Vec<u32> = self.conns.iter().map(|(k, _)| k as u32).collect();
            all.into_iter().for_each(|key| self.drop_conn(key));
            let all: Vec<u32> = self.pipes.iter().map(|(k, _)| k as u32).collect();
            all.into_iter().for_each(|key| self.drop_pipe(key));
        }
        self.conns.is_empty() && self.pipes.is_empty()
    }

    fn fire_timers(&mut self) {
        self.look_at_last_words();
        while let Some(Reverse((_, timer))) = self.timers.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
            self.timers.pop();
            match timer {
                Timer::Conn(key, generation) => self.conn_timer(key, generation),
                Timer::Poll(key, generation) => {
                    if self.polls.get(key as usize).is_some_and(|p| p.generation == generation) {
                        self.answer_poll(key);
                    }
                }
                Timer::Pipe(key, generation) => self.look_at_pipe(PipeId { key, generation }),
            }
        }
    }

    /// Whose session it is.
    pub(crate) fn owner(&self, id: SessionId) -> Owner {
        self.owners.get(id.index()).copied().unwrap_or(Owner::Nobody)
    }

    pub(crate) fn own(&mut self, id: SessionId, owner: Owner) {
        if self.owners.len() <= id.index() {
            self.owners.resize(id.index() + 1, Owner::Nobody);
        }
        self.owners[id.index()] = owner;
    }

    /// A session is over.
    pub(crate) fn disown(&mut self, id: SessionId) {
        self.own(id, Owner::Nobody);
        self.hub.close(id);
    }

    pub(crate) fn pipe(&self, id: PipeId) -> Option<&PipeEnd> {
        self.pipes.get(id.key as usize).filter(|p| p.generation == id.generation)
    }

    pub(crate) fn deregister(&mut self, stream: &mut mio::net::TcpStream) {
        let _ = self.poll.registry().deregister(stream);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }
}
