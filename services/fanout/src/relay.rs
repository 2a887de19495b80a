//! The service `Relay`: how edges follow the tape.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, stream};
use hashbrown::{HashMap, HashSet};
use ticker_market::{Cursor, Pattern, Topic};
use ticker_proto::convert::event_to_wire;
use ticker_proto::v1::follow_response::Step;
use ticker_proto::v1::relay_server::Relay;
use ticker_proto::{Code, v1};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::reader::{Change, Piece, Reader};
use crate::{Fanout, draining, steps, telemetry};

/// How soon a stream tells its place after it has moved. The contract of Relay says 100 ms at most; a timer may be late.
const PROGRESS_EVERY: Duration = Duration::from_millis(80);

/// How often a stream tells its place while it does not move: to show that it lives.
const PROGRESS_QUIET_EVERY: Duration = Duration::from_secs(1);

/// Longest name of a stream, in bytes.
const STREAM_NAME_BYTES_MAX: usize = 128;

/// What one edge is sent.
pub type Followed = Pin<Box<dyn Stream<Item = Result<v1::FollowResponse, Status>> + Send>>;

/// All streams, by name.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    by_name: Mutex<HashMap<String, Arc<Handle>>>,
}

impl Streams {
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Handle>>> {
        // Every change is one insertion or removal.
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How requests reach a stream.
#[derive(Debug, Default)]
struct Handle {
    interest: Mutex<Interest>,
    /// Something changed.
    changed: Notify,
    /// Another stream has taken the name.
    superseded: AtomicBool,
}

#[derive(Debug, Default)]
struct Interest {
    wanted: HashSet<Pattern>,
    changes: VecDeque<Change>,
}

impl Handle {
    fn interest(&self) -> MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Relay for Fanout {
    type FollowStream = Followed;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Followed>, Status> {
        if self.drain().is_started() {
            return Err(draining());
        }
        let request = request.into_inner();
        let follower = Follower::open(self.clone(), request).map_err(counted)?;
        Ok(Response::new(Box::pin(stream::unfold(follower, Follower::next))))
    }

    async fn set_interest(
        &self,
        request: Request<v1::SetInterestRequest>,
    ) -> Result<Response<v1::SetInterestResponse>, Status> {
        self.change_interest(request.into_inner()).map_err(counted)?;
        Ok(Response::new(v1::SetInterestResponse {}))
    }

    async fn backfill(&self, request: Request<v1::BackfillRequest>) -> Result<Response<v1::BackfillResponse>, Status> {
        self.older_events(request.into_inner()).map(Response::new).map_err(counted)
    }
}

impl Fanout {
    fn change_interest(&self, request: v1::SetInterestRequest) -> Result<(), Status> {
        let add = patterns(&request.add)?;
        let remove = patterns(&request.remove)?;
        let handle = self.streams().lock().get(&request.stream).cloned();
        let handle = handle.ok_or_else(|| Status::not_found("no such stream: call Follow first"))?;
        let max = self.config().interest_max;
        let mut interest = handle.interest();
        // Both the set and what is still to be taken in are bounded: a stream that stands still must not collect changes.
        if interest.changes.len() + add.len() + remove.len() > 2 * max {
            return Err(Code::RateLimited.status("the stream has not taken in earlier changes yet"));
        }
        for pattern in remove {
            if interest.wanted.remove(&pattern) {
                interest.changes.push_back(Change::Remove(pattern));
            }
        }
        let mut full = false;
        for pattern in add {
            if interest.wanted.contains(&pattern) {
                continue;
            }
            if interest.wanted.len() >= max {
                full = true;
                break;
            }
            interest.wanted.insert(pattern.clone());
            interest.changes.push_back(Change::Add(pattern));
        }
        drop(interest);
        handle.changed.notify_one();
        if full {
            return Err(Code::TooManyTopics.status(format!("a stream carries at most {max} topics and patterns")));
        }
        Ok(())
    }

    fn older_events(&self, request: v1::BackfillRequest) -> Result<v1::BackfillResponse, Status> {
        let max = self.config().request_topics_max;
        if request.topics.len() > max {
            return Err(Code::TooManyTopics.status(format!("{} topics; at most {max}", request.topics.len())));
        }
        let topics = request
            .topics
            .iter()
            .map(|t| t.parse::<Topic>().map_err(|why| Code::BadRequest.status(why.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let limit = match request.limit as usize {
            0 => self.config().backfill_events_max,
            n => n.min(self.config().backfill_events_max),
        };
        let from = match (request.from.as_str(), request.recent) {
            ("", 0) => return Err(Code::BadRequest.status("from and recent are both missing")),
            ("", _) => None,
            (_, 1..) => return Err(Code::BadRequest.status("from and recent exclude each other")),
            (text, 0) => {
                Some(text.parse().map_err(|why: ticker_market::CursorError| Code::BadRequest.status(why.to_string()))?)
            }
        };
        let core = self.core();
        let mut ids = topics
            .iter()
            .map(|t| core.known_topic(t).map_err(|why| why.code.status(why.message)))
            .collect::<Result<Vec<_>, _>>()?;
        ids.sort_unstable();
        ids.dedup();
        let page = match from {
            Some(from) => core
                .backfill(&ids, &from, limit)
                .ok_or_else(|| Code::BadRequest.status("the cursor is ahead of the tape"))?,
            None => core.recent(&ids, request.recent as usize),
        };
        let through = core.tape().cursor_at(page.through).to_string();
        let expired = page.expired.iter().map(|id| core.topic(*id).to_string()).collect();
        drop(core);
        metrics::counter!(telemetry::BACKFILL_EVENTS).increment(page.events.len() as u64);
        let events = page.events.iter().map(|e| v1::Event { topic: e.topic.to_string(), ..event_to_wire(e) }).collect();
        Ok(v1::BackfillResponse { events, through, expired })
    }
}

/// One edge's stream.
struct Follower {
    fanout: Fanout,
    name: String,
    handle: Arc<Handle>,
    reader: Reader,
    changes: VecDeque<Change>,
    pieces: Vec<Piece>,
    out: VecDeque<v1::FollowResponse>,
    head: watch::Receiver<u64>,
    /// When the stream's place is told next.
    progress: Pin<Box<Sleep>>,
    /// When it was told last, and which.
    told: Option<(Instant, u64)>,
    ended: bool,
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut streams = self.fanout.streams().lock();
        if streams.get(&self.name).is_some_and(|known| Arc::ptr_eq(known, &self.handle)) {
            streams.remove(&self.name);
        }
        tracing::info!(stream = self.name, "an edge's stream has ended");
    }
}

impl Follower {
    fn open(fanout: Fanout, request: v1::FollowRequest) -> Result<Self, Status> {
        if request.stream.is_empty() || request.stream.len() > STREAM_NAME_BYTES_MAX {
            return Err(Code::BadRequest.status("a stream has a name of 1 to 128 bytes"));
        }
        let wanted: HashSet<Pattern> = patterns(&request.interest)?.into_iter().collect();
        let max = fanout.config().interest_max;
        if wanted.len() > max {
            return Err(Code::TooManyTopics.status(format!("a stream carries at most {max} topics and patterns")));
        }
        let cursor = match request.cursor.as_str() {
            "" => None,
            text => Some(text.parse::<Cursor>().map_err(|why| Code::BadRequest.status(why.to_string()))?),
        };
        let handle = Arc::new(Handle::default());
        handle.interest().wanted.clone_from(&wanted);
        {
            let max = fanout.config().streams_max;
            let mut streams = fanout.streams().lock();
            if streams.len() >= max && !streams.contains_key(&request.stream) {
                return Err(Code::TooManySessions.status(format!("{max} edges follow already: the limit")));
            }
            if let Some(old) = streams.insert(request.stream.clone(), Arc::clone(&handle)) {
                old.superseded.store(true, Ordering::Relaxed);
                old.changed.notify_one();
            }
        }
        let head = fanout.head();
        let mut follower = Self {
            name: request.stream,
            handle,
            reader: Reader::default(),
            changes: VecDeque::new(),
            pieces: Vec::new(),
            out: VecDeque::new(),
            head,
            progress: Box::pin(sleep_until(Instant::now())),
            told: None,
            ended: false,
            fanout,
        };
        follower.begin(wanted, cursor);
        Ok(follower)
    }

    fn begin(&mut self, wanted: HashSet<Pattern>, cursor: Option<Cursor>) {
        let fanout = self.fanout.clone();
        let core = fanout.core();
        let resumed = cursor.filter(|c| c.epoch == *core.tape().epoch()).and_then(|cursor| {
            // Where the tape does not reach back (or the cursor is not of this tape), the stream begins anew.
            Reader::resume(&core, cursor.seq, wanted.iter().cloned().collect()).ok()
        });
        let is_resumed = resumed.is_some();
        match resumed {
            Some((reader, added)) => {
                self.reader = reader;
                self.pieces.extend(added);
            }
            None => {
                self.reader = Reader::at_head(&core);
                self.changes.extend(wanted.into_iter().map(Change::Add));
            }
        }
        let cursor = core.tape().cursor_at(self.reader.position()).to_string();
        let instruments: Vec<_> = core.instruments().cloned().collect();
        drop(core);
        tracing::info!(stream = self.name, cursor, resumed = is_resumed, "an edge follows");
        steps::push(&mut self.out, Step::Opened(v1::Opened { cursor, resumed: is_resumed }));
        steps::instruments(&instruments, &mut self.out);
        steps::encode(&mut self.pieces, self.reader.position(), &mut self.out);
    }

    async fn next(mut self) -> Option<(Result<v1::FollowResponse, Status>, Self)> {
        loop {
            if let Some(message) = self.out.pop_front() {
                return Some((Ok(message), self));
            }
            if self.ended {
                return None;
            }
            match self.pass() {
                Err(status) => {
                    self.ended = true;
                    return Some((Err(status), self));
                }
                // A stream that wants little may go by a lot of tape: others must get their turn.
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) if self.out.is_empty() => self.wait().await,
                Ok(false) => {}
            }
        }
    }

    /// Takes what is new from the tape. Returns whether there is more at once.
    fn pass(&mut self) -> Result<bool, Status> {
        if self.handle.superseded.load(Ordering::Relaxed) {
            return Err(ended("superseded", Status::aborted("another stream has taken this name")));
        }
        if self.changes.is_empty() {
            self.changes.append(&mut self.handle.interest().changes);
        }
        // Seen before the core is read: what is put on the tape after that wakes this stream again.
        self.head.borrow_and_update();
        let more = {
            let core: MutexGuard<'_, Core> = self.fanout.core();
            self.reader.pass(&core, &mut self.changes, &mut self.pieces)
        };
        let more = more.map_err(|why| ended("slow_consumer", Code::SlowConsumer.status(why.to_string())))?;
        let position = self.reader.position();
        steps::encode(&mut self.pieces, position, &mut self.out);
        self.tell_progress(position);
        if !more && self.out.is_empty() && self.fanout.drain().is_started() {
            return Err(ended("draining", draining()));
        }
        Ok(more)
    }

    /// Tells the stream's place if that is due, and sees to it that it will be.
    fn tell_progress(&mut self, position: u64) {
        let now = Instant::now();
        let mut due = match self.told {
            Some((at, told)) if position > told => at + PROGRESS_EVERY,
            Some((at, _)) => at + PROGRESS_QUIET_EVERY,
            None => now,
        };
        if due <= now {
            self.told = Some((now, position));
            due = now + PROGRESS_QUIET_EVERY;
            steps::push(&mut self.out, Step::Progress(v1::Progress { seq: position, time: crate::now().0 }));
        }
        if self.progress.deadline() != due {
            self.progress.as_mut().reset(due);
        }
    }

    /// Waits until another pass makes sense.
    async fn wait(&mut self) {
        tokio::select! {
            // The fanout holds the sender for as long as this stream holds the fanout.
            _ = self.head.changed() => {}
            () = self.handle.changed.notified() => {}
            () = self.progress.as_mut() => {}
            () = self.fanout.inner.drain.started() => {}
        }
    }
}

fn patterns(texts: &[String]) -> Result<Vec<Pattern>, Status> {
    texts.iter().map(|t| t.parse::<Pattern>().map_err(|why| Code::BadRequest.status(why.to_string()))).collect()
}

fn ended(reason: &'static str, status: Status) -> Status {
    metrics::counter!(telemetry::STREAMS_ENDED, "reason" => reason).increment(1);
    status
}

/// Counts a refused request.
pub(crate) fn counted(status: Status) -> Status {
    let code = status.metadata().get("ticker-code").and_then(|c| c.to_str().ok()).unwrap_or("other").to_owned();
    metrics::counter!(telemetry::REQUESTS_REFUSED, "code" => code).increment(1);
    status
}

#[cfg(test)]
mod tests;
