//! What a source hands to the publisher: encoded at once, by the source, and only when there is room.
//!
//! A `PublishRequest` is encoded in pieces, which protobuf allows: the fields of two encoded messages, one behind the
//! other, are one message that has the fields of both. So an event is encoded once, in its source's own task; a batch is
//! made by copying, and sent again without encoding.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use prost::Message;
use ticker_feeds::{Out, Update};
use ticker_market::{Channel, Data, Event, Instrument, Time, Topic};
use ticker_proto::{convert, v1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::log_limit::LogLimit;
use crate::progress;

/// Bundles that wait, at most; their bytes are limited by [`crate::config::Limits::queue_bytes_max`].
pub(crate) const QUEUE_BUNDLES_MAX: usize = 8_192;

/// A bundle is closed when it has so many events or bytes: what is told at once may be more.
const BUNDLE_EVENTS_MAX: usize = 1_024;
/// See [`BUNDLE_EVENTS_MAX`].
const BUNDLE_BYTES_MAX: usize = 128 * 1024;

/// Instruments of one process, at most: all are told at the start of a stream, in one message.
pub(crate) const INSTRUMENTS_MAX: usize = 20_000;

/// Some events, in order, as the encoded fields of a `PublishRequest`.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) fields: Bytes,
    pub(crate) events: usize,
    /// Which retelling its source had made before.
    pub(crate) generation: u64,
    pub(crate) made: Instant,
    /// Gives its room in the queue back when it is dropped.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// The numbers of all instruments of this process. They stay as they are while it runs.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<(String, String), u32>,
    list: Vec<v1::NumberedInstrument>,
}

impl Numbers {
    /// The instrument's number and form on the wire; `None` beyond [`INSTRUMENTS_MAX`].
    fn define(&self, instrument: &Instrument) -> Option<v1::NumberedInstrument> {
        let mut inner = self.lock();
        let next = inner.list.len();
        let key = (instrument.venue.to_string(), instrument.symbol.to_string());
        let number = match inner.by_name.get(&key) {
            Some(number) => *number,
            None if next >= INSTRUMENTS_MAX => return None,
            None => {
                let number = u32::try_from(next).ok()?;
                inner.by_name.insert(key, number);
                inner.list.push(v1::NumberedInstrument::default());
                number
            }
        };
        let numbered = v1::NumberedInstrument { number, instrument: Some(convert::instrument_to_wire(instrument)) };
        inner.list[number as usize] = numbered.clone();
        Some(numbered)
    }

    /// All of them, for the start of a stream.
    pub(crate) fn all(&self) -> Vec<v1::NumberedInstrument> {
        self.lock().list.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A number is in the map before the list has it only within one call, which does not panic between the two.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where sources hand in what they tell. Makes a [`Feed`] for each.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    pub(crate) queue: mpsc::Sender<Bundle>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) room_bytes: usize,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) retell: watch::Receiver<u64>,
}

/// One source's way to the publisher.
#[derive(Debug)]
pub(crate) struct Feed {
    intake: Intake,
    generation: u64,
    /// The process's number by the adapter's. An adapter numbers from 0.
    numbers: Vec<Option<u32>>,
    progress: Arc<progress::Source>,
    events: metrics::Counter,
    dropped: metrics::Counter,
    log: LogLimit,
    request: v1::PublishRequest,
    buffer: BytesMut,
    topic: Arc<Topic>,
}

/// The publisher is gone: nothing can be told any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

impl Intake {
    pub(crate) fn feed(&self, progress: Arc<progress::Source>) -> Feed {
        let source = progress.name().to_owned();
        let mut retell = self.retell.clone();
        let generation = *retell.borrow_and_update();
        Feed {
            intake: Intake { retell, ..self.clone() },
            generation,
            numbers: Vec::new(),
            events: metrics::counter!("ticker_ingest_events_total", "source" => source.clone()),
            dropped: metrics::counter!("ticker_ingest_events_dropped_total", "source" => source, "cause" => "instruments"),
            progress,
            log: LogLimit::new(Instant::now()),
            request: v1::PublishRequest::default(),
            buffer: BytesMut::new(),
            // Topics are named by number on this stream, so the event's own is left out.
            topic: Arc::new(Topic { channel: Channel::Status, venue: "none".into(), symbol: "NONE".into() }),
        }
    }
}

impl Feed {
    /// Hands in what an adapter told ([`Out::instruments`], [`Out::updates`]), and waits while there is no room.
    pub(crate) async fn publish(&mut self, out: &mut Out) -> Result<(), Gone> {
        for (number, instrument) in out.instruments.drain(..) {
            self.define(number, &instrument);
        }
        let mut events = 0;
        let mut updates = std::mem::take(&mut out.updates);
        for update in updates.drain(..) {
            let (encoded, data) = self.encode(update);
            events += usize::from(encoded);
            out.take_back(data);
            if events >= BUNDLE_EVENTS_MAX || self.buffer.len() >= BUNDLE_BYTES_MAX {
                self.hand_in(std::mem::take(&mut events)).await?;
            }
        }
        out.updates = updates;
        if events > 0 || !self.buffer.is_empty() { self.hand_in(events).await } else { Ok(()) }
    }

    /// Completes when everything is to be told again: the fanout knows nothing any more.
    pub(crate) async fn retell_wanted(&mut self) -> Result<(), Gone> {
        self.intake.retell.wait_for(|g| *g != self.generation).await.map(|_| ()).map_err(|_| Gone)
    }

    /// Is everything to be told again?
    pub(crate) fn is_retell_wanted(&self) -> bool {
        *self.intake.retell.borrow() != self.generation
    }

    /// What is handed in from here on is told again.
    pub(crate) fn retelling(&mut self) {
        self.generation = *self.intake.retell.borrow_and_update();
    }

    /// The adapter is a new one: it numbers anew.
    pub(crate) fn forget_numbers(&mut self) {
        self.numbers.clear();
    }

    fn define(&mut self, local: u32, instrument: &Instrument) {
        let at = local as usize;
        let numbered = if at < INSTRUMENTS_MAX { self.intake.numbers.define(instrument) } else { None };
        let Some(numbered) = numbered else {
            if let Some(left_out) = self.log.admit(Instant::now()) {
                let (venue, symbol) = (&instrument.venue, &instrument.symbol);
                tracing::error!(%venue, %symbol, INSTRUMENTS_MAX, left_out, "too many instruments: not published");
            }
            return;
        };
        if self.numbers.len() <= at {
            self.numbers.resize(at + 1, None);
        }
        if self.numbers[at].replace(numbered.number).is_none() {
            self.progress.instruments.fetch_add(1, Relaxed);
        }
        self.request.instruments.push(numbered);
        self.append_request();
    }

    /// Encodes an event behind those before it, and gives back what it carried. False if its instrument has no number:
    /// it is then counted as dropped.
    fn encode(&mut self, update: Update) -> (bool, Data) {
        let Some(instrument) = self.numbers.get(update.instrument as usize).copied().flatten() else {
            self.dropped.increment(1);
            return (false, update.data);
        };
        let channel = update.channel.as_str().to_owned();
        let event = Event {
            topic: Arc::clone(&self.topic),
            seq: 0,
            prev: 0,
            kind: update.kind,
            ts: update.ts,
            recv: update.recv,
            published: Time(0),
            data: update.data,
        };
        let wire = Some(convert::event_to_wire(&event));
        self.request.events.push(v1::NewEvent { instrument, channel, event: wire });
        self.append_request();
        (true, event.data)
    }

    fn append_request(&mut self) {
        self.request.encode(&mut self.buffer).expect("a BytesMut grows");
        self.request.instruments.clear();
        self.request.events.clear();
    }

    async fn hand_in(&mut self, events: usize) -> Result<(), Gone> {
        let fields = self.buffer.split().freeze();
        let made = Instant::now();
        // What is larger than the whole queue takes all of it.
        let room = u32::try_from(fields.len().min(self.intake.room_bytes)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.intake.room).acquire_many_owned(room).await.map_err(|_| Gone)?;
        let bundle = Bundle { fields, events, generation: self.generation, made, _room: room };
        self.intake.queue.send(bundle).await.map_err(|_| Gone)?;
        self.events.increment(events as u64);
        self.progress.events.fetch_add(events as u64, Relaxed);
        Ok(())
    }
}
