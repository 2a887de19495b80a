//! The streams of the service `MarketData`: a subscription, and a session whose subscriptions change.
//!
//! Each is a session of its own hub (crate `ticker-session`, the same that edges run), fed from the tape by a
//! [`Reader`]. This is for a consumer next to the fanout; many readers belong on an edge, which encodes once for all.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, stream};
use ticker_market::{Event, Topic};
use ticker_proto::message::{Request, Subscribe};
use ticker_proto::{Code, EncodedMessage, Form, Frame, v1};
use ticker_session::catalogue::Refusal;
use ticker_session::{Ending, Hub, Limits, Mode, Need, Opening, Outgoing, Page, SessionId};
use ticker_tape::TopicId;
use tokio::sync::watch;
use tonic::{Status, Streaming};

use crate::reader::{Change, Piece, Reader};
use crate::{Fanout, backfill, draining, now};

/// What a subscription or a session is sent.
pub type Messages = Pin<Box<dyn Stream<Item = Result<EncodedMessage, Status>> + Send>>;

/// Bytes that are made ready for a reader at once.
const PLAN_BYTES: usize = 64 << 10;

/// Readers told to go come back within this time.
const GOODBYE_SPREAD_MS: u32 = 5_000;

/// Where nothing is due, a session looks again after this long.
const IDLE: Duration = Duration::from_secs(60);

/// How many sessions there are.
pub(crate) type SessionCount = Arc<AtomicUsize>;

impl Fanout {
    /// One subscription, until the caller ends it.
    pub(crate) fn open_subscription(&self, request: v1::SubscribeRequest) -> Result<Messages, Status> {
        let mut session = Session::open(self.clone(), None)?;
        session.request(Request::Subscribe(Subscribe::from(request))).map_err(status_of)?;
        Ok(Box::pin(stream::unfold(session, Session::next)))
    }

    /// A session whose subscriptions change while it runs. It goes on when the caller has nothing more to say.
    pub(crate) fn open_session(&self, requests: Streaming<v1::SessionRequest>) -> Result<Messages, Status> {
        let session = Session::open(self.clone(), Some(requests))?;
        Ok(Box::pin(stream::unfold(session, Session::next)))
    }
}

/// One reader of this fanout.
struct Session {
    fanout: Fanout,
    hub: Hub,
    id: SessionId,
    reader: Reader,
    changes: VecDeque<Change>,
    pieces: Vec<Piece>,
    epoch: Arc<str>,
    head: watch::Receiver<u64>,
    /// `None` once the caller has nothing more to say.
    requests: Option<Streaming<v1::SessionRequest>>,
    planned: Vec<Outgoing>,
    /// What the hub planned, message by message.
    out: VecDeque<EncodedMessage>,
    goodbye_said: bool,
    /// How the stream ends, once all is sent.
    ending: Option<Status>,
    ended: bool,
    _counted: Counted,
}

/// Counts a session for as long as it lives.
struct Counted(SessionCount);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    fn open(fanout: Fanout, requests: Option<Streaming<v1::SessionRequest>>) -> Result<Self, Status> {
        if fanout.drain().is_started() {
            return Err(draining());
        }
        let max = fanout.config().sessions_max;
        let counted = Counted(Arc::clone(fanout.session_count()));
        if counted.0.fetch_add(1, Ordering::Relaxed) >= max {
            return Err(Code::TooManySessions.status(format!("there are {max} sessions here already")));
        }
        let head = fanout.head();
        let config = fanout.config();
        let mut hub = Hub::new(Limits {
            session_topics_max: config.session_topics_max,
            backlog_events_max: config.backlog_events_max,
            heartbeat_ms: config.heartbeat_ms,
            ..Limits::default()
        });
        let (reader, epoch, instruments) = {
            let core = fanout.core();
            let instruments: Vec<_> = core.instruments().cloned().collect();
            (Reader::at_head(&core), Arc::<str>::from(core.tape().epoch().as_str()), instruments)
        };
        hub.opened(&epoch, reader.position(), false, now());
        hub.instruments(instruments.iter().map(|i| (**i).clone()).collect(), now());
        let id = hub.open(Opening { form: Form::Protobuf, mode: Mode::Stream }, now()).map_err(status_of)?;
        Ok(Self {
            hub,
            id,
            reader,
            changes: VecDeque::new(),
            pieces: Vec::new(),
            epoch,
            head,
            requests,
            planned: Vec::new(),
            out: VecDeque::new(),
            goodbye_said: false,
            ending: None,
            ended: false,
            _counted: counted,
            fanout,
        })
    }

    fn request(&mut self, request: Request) -> Result<(), Refusal> {
        self.hub.request(self.id, request, now())
    }

    async fn next(mut self) -> Option<(Result<EncodedMessage, Status>, Self)> {
        loop {
            if let Some(message) = self.out.pop_front() {
                return Some((Ok(message), self));
            }
            if self.ended {
                return None;
            }
            if let Some(status) = self.ending.take() {
                self.ended = true;
                return Some((Err(status), self));
            }
            match self.catch_up().await {
                Err(status) => {
                    self.ended = true;
                    return Some((Err(status), self));
                }
                Ok(()) => self.plan(),
            }
            if self.out.is_empty() && self.ending.is_none() {
                self.wait().await;
            }
        }
    }

    /// Tells the hub everything up to the tape's head.
    async fn catch_up(&mut self) -> Result<(), Status> {
        let mut passes = 0;
        loop {
            let needs = self.hub.take_needs();
            let needed = !needs.is_empty();
            needs.into_iter().for_each(|need| self.need(need));
            // Seen before the core is read: what is put on the tape after that wakes this stream again.
            self.head.borrow_and_update();
            let more = {
                let core = self.fanout.core();
                self.reader.pass(&core, &mut self.changes, &mut self.pieces)
            };
            let more = more.map_err(|why| Code::SlowConsumer.status(why.to_string()))?;
            self.feed();
            if !more && !needed {
                break;
            }
            passes += usize::from(more);
            tokio::task::yield_now().await;
        }
        if passes > 0 {
            // The tape has moved on by more than a pass since this reader last took something: it is slow, and gets of
            // each state only the newest.
            self.hub.commit(self.id, &mut Vec::new(), 0, true, now());
            self.hub.writable(self.id);
        }
        self.hub.tick(now());
        Ok(())
    }

    fn need(&mut self, need: Need) {
        match need {
            Need::Want(pattern) => self.changes.push_back(Change::Add(pattern)),
            Need::Unwant(pattern) => self.changes.push_back(Change::Remove(pattern)),
            Need::Backfill { ticket, topics, from, recent, limit } => {
                let page = self.backfill(&topics, from.as_deref(), recent, limit);
                self.hub.backfilled(ticket, page, now());
            }
        }
    }

    fn backfill(&self, topics: &[Arc<Topic>], from: Option<&str>, recent: u32, limit: u32) -> Result<Page, String> {
        let from = from.map(str::parse::<ticker_market::From>).transpose().map_err(|why| why.to_string())?;
        let limit = (limit as usize).min(self.fanout.config().backfill_events_max);
        let core = self.fanout.core();
        let ids: Vec<TopicId> = topics.iter().filter_map(|t| core.topic_id(t)).collect();
        let page: backfill::Page = match from {
            Some(from) => core.backfill(&ids, &from, limit).ok_or("the cursor is ahead of the tape")?,
            None => core.recent(&ids, recent as usize),
        };
        let expired = page.expired.iter().map(|id| Arc::clone(core.topic(*id))).collect();
        drop(core);
        Ok(Page { frames: page.events.iter().map(|e| self.frame(e)).collect(), through: page.through, expired })
    }

    /// Tells the hub what the reader has found.
    fn feed(&mut self) {
        let now = now();
        let mut frames = Vec::new();
        for piece in std::mem::take(&mut self.pieces) {
            if let Piece::Event(_, event) = &piece {
                frames.push(self.frame(event));
                continue;
            }
            if !frames.is_empty() {
                self.hub.publish(&frames, now);
                frames.clear();
            }
            match piece {
                Piece::Event(..) => {}
                Piece::Instrument(_, instrument) => self.hub.instruments(vec![(*instrument).clone()], now),
                Piece::Added { topics, snapshots, .. } => {
                    let mut snapshots = snapshots.into_iter().peekable();
                    let topics = topics
                        .into_iter()
                        .map(|joined| {
                            let snapshot = snapshots.next_if(|(id, _)| *id == joined.id);
                            let frame = snapshot.map(|(_, e)| Arc::new(Frame::new(e, Arc::clone(&self.epoch))));
                            (Topic::clone(&joined.topic), joined.last, frame)
                        })
                        .collect();
                    self.hub.added(topics, false, now);
                }
                Piece::Removed(ids) => {
                    let core = self.fanout.core();
                    let topics: Vec<Topic> = ids.iter().map(|id| Topic::clone(core.topic(*id))).collect();
                    drop(core);
                    self.hub.removed(&topics);
                }
            }
        }
        if !frames.is_empty() {
            self.hub.publish(&frames, now);
        }
        self.hub.progress(self.reader.position(), now);
    }

    fn frame(&self, event: &Arc<Event>) -> Arc<Frame> {
        Arc::new(Frame::new(Event::clone(event), Arc::clone(&self.epoch)))
    }

    /// Takes over what the hub wants to send.
    fn plan(&mut self) {
        let mut ready = Vec::new();
        self.hub.take_ready(&mut ready);
        if ready.contains(&self.id) {
            let now = now();
            self.hub.plan(self.id, PLAN_BYTES, now, &mut self.planned);
            for outgoing in &self.planned {
                self.out.extend(outgoing.encoded().messages().map(EncodedMessage::new));
            }
            let taken = self.planned.len();
            if let Some(closing) = self.hub.commit(self.id, &mut self.planned, taken, false, now) {
                self.ending = Some(closing.ending.code.status(closing.ending.message));
            }
        }
        if self.fanout.drain().is_started() && !self.hub.has_ready() {
            if self.goodbye_said {
                self.ending.get_or_insert_with(draining);
            } else {
                self.goodbye_said = true;
                self.hub.goodbye("draining", GOODBYE_SPREAD_MS, |below| fastrand::u32(..below));
            }
        }
    }

    /// Waits until something may be due.
    async fn wait(&mut self) {
        if self.hub.has_ready() {
            return;
        }
        let timer = self
            .hub
            .next_timer()
            .map_or(IDLE, |at| Duration::from_nanos(u64::try_from(at.since(now())).unwrap_or(0)).min(IDLE));
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        let request = tokio::select! {
            request = request => request,
            // The fanout holds the sender for as long as this stream holds the fanout.
            _ = self.head.changed() => return,
            () = tokio::time::sleep(timer) => return,
            () = self.fanout.inner.drain.started() => return,
        };
        match request {
            Ok(Some(request)) => self.take_request(request),
            Ok(None) => self.requests = None,
            Err(status) => {
                self.requests = None;
                self.hub
                    .end(self.id, Ending { code: Code::of_unreadable(&status), message: status.message().to_owned() });
            }
        }
    }

    fn take_request(&mut self, request: v1::SessionRequest) {
        let Some(request) = Request::from_wire(request) else {
            self.hub.refuse(self.id, None, Refusal::new(Code::BadRequest, "the request is empty"));
            return;
        };
        let id = request.id();
        if let Err(why) = self.request(request) {
            self.hub.refuse(self.id, Some(id), why);
        }
    }
}

fn status_of(why: Refusal) -> Status {
    why.code.status(why.message)
}

#[cfg(test)]
mod tests;
