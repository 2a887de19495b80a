//! What a shard does for readers whose sockets are not its own (pipes), and for those who are answered once (polls).

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ticker_proto::message::{Limit, Request, Subscribe};
use ticker_proto::{Code, Form};
use ticker_session::catalogue::Refusal;
use ticker_session::{Beyond, Ending, Mode, Opening, Outgoing};
use tokio::sync::mpsc::error::TrySendError;

use crate::command::{Ask, Command, OpenPipe, PIPE_BATCH_BYTES, PipeId, Signal};
use crate::conn::Stage;
use crate::http1;
use crate::poll::{Asker, Pace, Poll};
use crate::shard::{Owner, PipeEnd, Shard, Timer};

impl Shard {
    pub(crate) fn open_pipe(&mut self, open: OpenPipe) {
        let opening = Opening { form: open.form, mode: Mode::Stream };
        let answer = match self.open_session(opening, open.subscribe) {
            Ok(session) => {
                if open.datagrams {
                    self.hub.allow_datagrams(session);
                }
                self.generations = self.generations.wrapping_add(1);
                let generation = self.generations;
                let end = PipeEnd {
                    generation,
                    session,
                    messages: open.messages,
                    state: open.state,
                    stalled: open.stalled,
                    blocked_since: None,
                    watched: false,
                };
                let key = self.pipes.insert(end) as u32;
                self.own(session, Owner::Pipe(key));
                Ok(PipeId { key, generation })
            }
            Err(refusal) => {
                self.counts.refused += 1;
                Err(refusal)
            }
        };
        let opened = answer.as_ref().ok().copied();
        if open.reply.send(answer).is_err()
            && let Some(id) = opened
        {
            self.drop_pipe(id.key);
        }
    }

    pub(crate) fn pipe_request(&mut self, pipe: PipeId, request: Result<Request, Refusal>) {
        let Some(session) = self.pipe(pipe).map(|p| p.session) else { return };
        let (name, result) = match request {
            Ok(request) => (Some(request.id()), self.hub.request(session, request, self.now)),
            Err(refusal) if refusal.code == Code::MessageTooLarge => {
                self.counts.refused += 1;
                return self.hub.end(session, Ending { code: refusal.code, message: refusal.message });
            }
            Err(refusal) => (None, Err(refusal)),
        };
        if let Err(refusal) = result {
            self.counts.refused += 1;
            self.hub.refuse(session, name, refusal);
        }
    }

    pub(crate) fn flush_pipe(&mut self, key: u32) {
        let Some(pipe) = self.pipes.get_mut(key as usize) else { return };
        let mut plan = std::mem::take(&mut self.plan);
        self.hub.plan(pipe.session, PIPE_BATCH_BYTES, self.now, &mut plan);
        if !plan.is_empty() {
            let batch: Vec<_> = plan.iter().map(Outgoing::for_pipe).collect();
            let mut result = pipe.messages.try_send(batch);
            if let Err(TrySendError::Full(batch)) = result {
                // Said before the second try: a reader who takes a batch in between sees it, and tells.
                pipe.state.blocked.store(true, Ordering::Release);
                result = pipe.messages.try_send(batch);
                if result.is_ok() {
                    pipe.state.blocked.store(false, Ordering::Release);
                }
            }
            let (session, state) = (pipe.session, Arc::clone(&pipe.state));
            match result {
                Ok(()) => {
                    pipe.blocked_since = None;
                    self.counts.messages += plan.len() as u64;
                    self.counts.bytes += plan.iter().map(|o| o.encoded().bytes.len() as u64).sum::<u64>();
                    let taken = plan.len();
                    if let Some(closing) = self.hub.commit(session, &mut plan, taken, false, self.now) {
                        if closing.ending.code == Code::SlowConsumer {
                            self.counts.slow += 1;
                        }
                        // Before the pipe closes, so that whoever finds it closed knows why.
                        let _ = state.closing.set(closing);
                        let due = self.now.plus_millis(self.write_timeout_ms);
                        self.last_words.push_back((due, state, pipe.stalled.clone()));
                        self.drop_pipe(key);
                    }
                }
                Err(TrySendError::Full(_)) => {
                    let since = *pipe.blocked_since.get_or_insert(self.now);
                    if !std::mem::replace(&mut pipe.watched, true) {
                        let timer = Timer::Pipe(key, pipe.generation);
                        self.timers.push(Reverse((since.plus_millis(self.write_timeout_ms), timer)));
                    }
                    self.counts.blocked += 1;
                    self.hub.commit(session, &mut plan, 0, true, self.now);
                }
                Err(TrySendError::Closed(_)) => self.drop_pipe(key),
            }
        }
        plan.clear();
        self.plan = plan;
    }

    /// A pipe was blocked a while ago. If its reader has taken nothing since then, it is ended without a word, since none
    /// reaches it. There is no cursor either: what waits in the pipe has not been received. The reader has its own.
    pub(crate) fn look_at_pipe(&mut self, id: PipeId) {
        if self.pipe(id).is_none() {
            return;
        }
        let pipe = &mut self.pipes[id.key as usize];
        pipe.watched = false;
        let Some(since) = pipe.blocked_since else { return };
        let due = since.plus_millis(self.write_timeout_ms);
        if due > self.now {
            pipe.watched = true;
            return self.timers.push(Reverse((due, Timer::Pipe(id.key, id.generation))));
        }
        self.counts.stalled += 1;
        pipe.stalled.tell();
        self.drop_pipe(id.key);
    }

    /// The same for readers of pipes whose session has ended: its last words wait behind what they do not take.
    pub(crate) fn look_at_last_words(&mut self) {
        while self.last_words.front().is_some_and(|(at, _, _)| *at <= self.now) {
            let Some((_, state, stalled)) = self.last_words.pop_front() else { return };
            if Arc::strong_count(&state) > 1 {
                self.counts.stalled += 1;
                stalled.tell();
            }
        }
    }

    pub(crate) fn drop_pipe(&mut self, key: u32) {
        if let Some(pipe) = self.pipes.try_remove(key as usize) {
            self.disown(pipe.session);
        }
    }

    /// Does what readers' signals need beyond the hub.
    pub(crate) fn carry(&mut self) {
        while let Some(beyond) = self.hub.take_beyond() {
            match beyond {
                Beyond::Name { session, request } => match self.switchboard.name(&self.handle, session) {
                    Some(name) => self.hub.named(session, request, &name),
                    None => {
                        let why = Refusal::new(Code::Internal, "there is no randomness for a name");
                        self.hub.refuse(session, Some(request), why);
                    }
                },
                Beyond::Forget(name) => self.switchboard.forget(&name),
                Beyond::Carry { session, request, from, to, data } => {
                    let refusal = match self.switchboard.find(&to) {
                        Some((shard, to)) => {
                            metrics::counter!("ticker_edge_signals_total").increment(1);
                            if shard.offer(Command::Signal(Box::new(Signal { to, from, data }))) {
                                continue;
                            }
                            Refusal::new(Code::RateLimited, "too much is under way; try again")
                        }
                        None => Refusal::new(Code::BadRequest, format!("nobody is reached as `{to}`, or not any more")),
                    };
                    self.counts.refused += 1;
                    self.hub.refuse(session, Some(request), refusal);
                }
            }
        }
    }

    pub(crate) fn deliver(&mut self, Signal { to, from, data }: Signal) {
        if !self.hub.deliver(to, &from, data, self.now) {
            metrics::counter!("ticker_edge_signals_dropped_total").increment(1);
        }
    }

    pub(crate) fn ask(&mut self, ask: Ask) {
        self.start_poll(Asker::Task(Some(ask.reply)), ask.subscribe, ask.wait);
    }

    pub(crate) fn start_poll(&mut self, asker: Asker, mut subscribe: Subscribe, wait: Duration) {
        let waits = subscribe.from.is_some();
        let pace = Pace::of(&mut subscribe, self.now);
        let opening = Opening { form: Form::Json, mode: Mode::Once };
        let session = match self.open_session(opening, Some(subscribe)) {
            Ok(session) => session,
            Err(refusal) => {
                self.counts.refused += 1;
                return self.tell(asker, Err(refusal));
            }
        };
        if pace.holds_bytes() {
            let none = Limit { max_kbps: Some(0.0), ..Limit::default() };
            // The session is new: it may ask for this, and there is nothing to be said of it.
            let _ = self.hub.request(session, Request::Limit(none), self.now);
        }
        self.generations = self.generations.wrapping_add(1);
        let millis = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let poll = Poll::new(session, self.generations, asker, self.now.plus_millis(millis), waits, pace);
        let (deadline, not_before) = (poll.deadline, pace.not_before(waits));
        let key = self.polls.insert(poll) as u32;
        self.own(session, Owner::Poll(key));
        if let Asker::Conn { key: conn, .. } = self.polls[key as usize].asker {
            self.conns[conn as usize].stage = Stage::Poll(key);
        }
        self.timers.push(Reverse((deadline, Timer::Poll(key, self.generations))));
        if not_before < deadline {
            self.timers.push(Reverse((not_before, Timer::Poll(key, self.generations))));
        }
        self.answer_poll(key);
    }

    /// Takes what a poll's session has, and answers if that is enough.
    pub(crate) fn answer_poll(&mut self, key: u32) {
        let draining = self.is_draining();
        let Some(poll) = self.polls.get_mut(key as usize) else { return };
        if let Some((at, body)) = poll.held.take() {
            if at > self.now && !draining {
                poll.held = Some((at, body));
                return;
            }
            return self.send_poll(key, body);
        }
        let mut plan = std::mem::take(&mut self.plan);
        self.hub.plan(poll.session, usize::MAX, self.now, &mut plan);
        poll.take(&plan);
        let taken = plan.len();
        let ended = self.hub.commit(poll.session, &mut plan, taken, false, self.now).is_some();
        self.plan = plan;
        if !ended && !poll.is_due(self.hub.is_settled(poll.session), self.now) {
            return;
        }
        let cursor = self.hub.cursor(poll.session).unwrap_or_default();
        let body = poll.body(&cursor);
        // `max_kbps` may want it to go out later.
        let at = poll.pace.send_at(body.len(), poll.waits);
        if at > self.now && !draining {
            poll.held = Some((at, body));
            self.timers.push(Reverse((at, Timer::Poll(key, poll.generation))));
            return;
        }
        self.send_poll(key, body);
    }

    fn send_poll(&mut self, key: u32, body: bytes::Bytes) {
        self.counts.messages += 1;
        self.counts.bytes += body.len() as u64;
        let poll = self.polls.remove(key as usize);
        self.disown(poll.session);
        self.tell(poll.asker, Ok(body));
    }

    fn tell(&mut self, asker: Asker, answer: Result<bytes::Bytes, Refusal>) {
        match asker {
            Asker::Task(reply) => {
                // Whoever asked may be gone.
                let _ = reply.map(|r| r.send(answer));
            }
            Asker::Conn { key, keep_alive } => match answer {
                Ok(body) => {
                    let keep_alive = keep_alive && !self.is_draining();
                    let whole = http1::json(200, "application/json", &body, keep_alive);
                    if !keep_alive {
                        self.conns[key as usize].stage = Stage::Closing;
                        return self.finish(key, whole);
                    }
                    self.next_request(key, whole);
                }
                Err(refusal) => self.finish(key, http1::problem(&refusal)),
            },
        }
    }

    /// A poll is answered: the connection waits for the next request.
    fn next_request(&mut self, key: u32, answer: Vec<u8>) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        conn.stage = Stage::Head;
        if conn.append(answer).is_err() {
            return self.drop_conn(key);
        }
        let deadline = self.now.plus_millis(IDLE_MILLIS_MAX);
        self.generations = self.generations.wrapping_add(1);
        let generation = self.generations;
        let conn = &mut self.conns[key as usize];
        // The head's timer of the last request must not end this one.
        conn.generation = generation;
        self.timers.push(Reverse((deadline, Timer::Conn(key, generation))));
        if !conn.head.is_empty() {
            let head = std::mem::take(&mut conn.head);
            self.again(key, head);
        }
    }
}

/// How long a connection may stay without a request after an answered poll.
const IDLE_MILLIS_MAX: i64 = 60_000;
