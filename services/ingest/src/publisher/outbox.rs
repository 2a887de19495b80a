//! What is to be sent, and what is sent and not yet on the tape.
//!
//! The stream of requests is polled by the connection itself, straight from the queue: whenever the connection can take
//! something, it gets one batch of all that waits then. No task stands between, and nothing waits for company.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use prost::Message;
use ticker_proto::v1;
use tokio::sync::{Semaphore, mpsc};

use super::codec::Encoded;
use super::meters::Meters;
use crate::config::Limits;
use crate::feed::{Bundle, Numbers};
use crate::progress::Progress;

/// A batch is closed when it has so many bytes or events.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// See [`BATCH_BYTES_MAX`].
const BATCH_EVENTS_MAX: usize = 4_096;

/// Everything about batches, shared by the stream that sends them and the loop that hears of them.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// What the queue has left of its bytes.
    room: Arc<Semaphore>,
    numbers: Arc<Numbers>,
    limits: Limits,
    name: String,
    recorded: bool,
    progress: Progress,
    pub(super) meters: Meters,
}

#[derive(Debug)]
struct State {
    queue: mpsc::Receiver<Bundle>,
    /// The queue has ended: sources are gone.
    closed: bool,
    source: String,
    generation: u64,
    next: u64,
    unacked: VecDeque<Batch>,
    unacked_bytes: usize,
    /// How many of `unacked` this stream has sent.
    sent: usize,
    /// The stream whose turn it is; older ones end.
    stream: u64,
    /// What this stream's first request begins with.
    header: Option<Bytes>,
    /// The stream, where it waits for more than the queue.
    waker: Option<Waker>,
    connected: bool,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    body: Bytes,
    events: usize,
    /// When the oldest of its events was handed in.
    made: Instant,
}

impl Outbox {
    pub(super) fn new(
        (name, recorded): (&str, bool),
        limits: Limits,
        (queue, room): (mpsc::Receiver<Bundle>, Arc<Semaphore>),
        numbers: Arc<Numbers>,
        progress: Progress,
    ) -> Self {
        let state = State {
            queue,
            closed: false,
            source: source_name(name),
            generation: 0,
            next: 1,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            sent: 0,
            stream: 0,
            header: None,
            waker: None,
            connected: false,
        };
        let meters = Meters::new();
        meters.waiting.set(1.0);
        Self { state: Mutex::new(state), room, numbers, limits, name: name.to_owned(), recorded, progress, meters }
    }

    /// Begins a stream: everything that is not on the tape is sent again on it.
    pub(super) fn stream(self: &Arc<Self>) -> Outgoing {
        let instruments = self.numbers.all();
        let mut state = self.lock();
        let source = state.source.clone();
        let recorded = self.recorded;
        let header = v1::PublishRequest { source, instruments, recorded, ..v1::PublishRequest::default() };
        state.header = Some(Bytes::from(header.encode_to_vec()));
        state.sent = 0;
        state.stream += 1;
        // An older stream that still waits must see that it is over.
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        Outgoing { outbox: Arc::clone(self), id: state.stream }
    }

    /// The stream broke.
    pub(super) fn disconnected(&self) {
        let mut state = self.lock();
        state.connected = false;
        state.stream += 1;
        // The connection may still hold the request stream: it must see that it is over, and let go.
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        self.show(&state);
    }

    /// Everything up to that batch is on the tape.
    pub(super) fn acked(&self, ack: &v1::PublishResponse) {
        let now = Instant::now();
        let mut state = self.lock();
        state.connected = true;
        // What this stream has not sent is not on the tape, whatever the answer says.
        while state.sent > 0 && state.unacked.front().is_some_and(|b| b.number <= ack.batch) {
            let Some(batch) = state.unacked.pop_front() else { break };
            state.sent -= 1;
            state.unacked_bytes -= batch.body.len();
            if batch.events > 0 {
                self.meters.publish_seconds.record(now.saturating_duration_since(batch.made).as_secs_f64());
            }
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        self.show(&state);
        drop(state);
        self.meters.accepted.increment(ack.accepted);
        self.meters.refused.increment(ack.refused);
        let publisher = self.progress.publisher();
        publisher.accepted.fetch_add(ack.accepted, Relaxed);
        publisher.refused.fetch_add(ack.refused, Relaxed);
    }

    /// Begins anew, as a source that nobody knows; what was sent and not acknowledged is dropped. Returns the generation
    /// of the retelling that makes up for it, and how many events were dropped.
    pub(super) fn reset(&self) -> (u64, usize) {
        let mut state = self.lock();
        let dropped = state.unacked.iter().map(|b| b.events).sum();
        state.unacked.clear();
        (state.unacked_bytes, state.sent, state.next) = (0, 0, 1);
        state.source = source_name(&self.name);
        state.generation += 1;
        state.stream += 1;
        self.meters.dropped.increment(dropped as u64);
        self.show(&state);
        (state.generation, dropped)
    }

    /// Have all sources ended, and is everything that they told on the tape?
    pub(super) fn is_done(&self) -> bool {
        let mut state = self.lock();
        state.closed = state.closed || (state.queue.is_closed() && state.queue.is_empty());
        state.closed && state.unacked.is_empty()
    }

    /// Events that are sent and not on the tape.
    pub(super) fn unacked_events(&self) -> usize {
        self.lock().unacked.iter().map(|b| b.events).sum()
    }

    fn is_full(&self, state: &State) -> bool {
        state.unacked.len() >= self.limits.unacked_batches_max || state.unacked_bytes >= self.limits.unacked_bytes_max
    }

    fn show(&self, state: &State) {
        self.meters.waiting.set(if state.connected && !self.is_full(state) { 0.0 } else { 1.0 });
        self.meters.unacked_batches.set(state.unacked.len() as f64);
        self.meters.unacked_bytes.set(state.unacked_bytes as f64);
        self.meters.queue_bundles.set(state.queue.len() as f64);
        let queued = self.limits.queue_bytes_max.saturating_sub(self.room.available_permits());
        self.meters.queue_bytes.set(queued as f64);
        let publisher = self.progress.publisher();
        publisher.connected.store(state.connected, Relaxed);
        publisher.unacked_bytes.store(state.unacked_bytes as u64, Relaxed);
    }

    /// Takes what waits into one batch. `None` if nothing does.
    fn collect(&self, state: &mut State, cx: &mut Context<'_>) -> Option<Batch> {
        // A stream begins with a request even where nothing happened, so that the fanout hears who is there, and we
        // hear whether it knows us.
        let hello = state.header.is_some();
        let mut first: Option<Bundle> = None;
        let mut body = BytesMut::new();
        let (mut events, mut made) = (0, Instant::now());
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX && events < BATCH_EVENTS_MAX {
            let mut bundle = match state.queue.poll_recv(cx) {
                Poll::Ready(Some(bundle)) => bundle,
                Poll::Ready(None) => {
                    state.closed = true;
                    break;
                }
                Poll::Pending => break,
            };
            if bundle.generation < state.generation {
                self.strip_books(&mut bundle);
            }
            events += bundle.events;
            bytes += bundle.fields.len();
            match &first {
                None => {
                    made = bundle.made;
                    body = BytesMut::with_capacity(bundle.fields.len() + 16);
                    put_number(&mut body, state.next);
                    body.extend_from_slice(&bundle.fields);
                    first = Some(bundle);
                }
                Some(_) => body.extend_from_slice(&bundle.fields),
            }
        }
        if first.is_none() {
            if !hello || state.closed {
                return None;
            }
            put_number(&mut body, state.next);
        }
        let batch = Batch { number: state.next, body: body.freeze(), events, made };
        state.next += 1;
        self.meters.batches.increment(1);
        self.meters.batch_events.record(events as f64);
        Some(batch)
    }

    /// What a source told before it told everything again: its books stand on nothing that the new fanout has, and the
    /// snapshots that follow hold the same and more.
    fn strip_books(&self, bundle: &mut Bundle) {
        let Ok(mut request) = v1::PublishRequest::decode(bundle.fields.clone()) else { return };
        request.events.retain(|e| e.channel != ticker_market::Channel::Book.as_str());
        self.meters.superseded.increment((bundle.events - request.events.len()) as u64);
        bundle.events = request.events.len();
        bundle.fields = Bytes::from(request.encode_to_vec());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics but for a lack of memory, after which the process ends.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever restarts has another name: its batches begin at 1 again.
fn source_name(name: &str) -> String {
    format!("{name}-{:08x}", fastrand::u32(..))
}

fn put_number(body: &mut BytesMut, batch: u64) {
    v1::PublishRequest { batch, ..v1::PublishRequest::default() }.encode(body).expect("a BytesMut grows");
}

/// The requests of one stream.
#[derive(Debug)]
pub(super) struct Outgoing {
    outbox: Arc<Outbox>,
    id: u64,
}

impl Stream for Outgoing {
    type Item = Encoded;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        let outbox = &self.outbox;
        let mut state = outbox.lock();
        if state.stream != self.id {
            return Poll::Ready(None);
        }
        if state.sent == state.unacked.len() {
            if outbox.is_full(&state) {
                state.waker = Some(cx.waker().clone());
                outbox.show(&state);
                return Poll::Pending;
            }
            match outbox.collect(&mut state, cx) {
                Some(batch) => {
                    state.unacked_bytes += batch.body.len();
                    state.unacked.push_back(batch);
                    outbox.show(&state);
                }
                None if state.closed => return Poll::Ready(None),
                None => {
                    state.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        let body = state.unacked[state.sent].body.clone();
        state.sent += 1;
        Poll::Ready(Some(Encoded { header: state.header.take().unwrap_or_default(), body }))
    }
}
