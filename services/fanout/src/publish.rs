//! The service `Ingest`: a stream of batches from each ingest service.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream as FutureStream;
use futures_util::stream;
use hashbrown::HashMap;
use ticker_market::{Channel, Event, Topic};
use ticker_proto::convert::{event_from_wire, instrument_from_wire};
use ticker_proto::v1::ingest_server::Ingest;
use ticker_proto::{Code, v1};
use ticker_tape::TopicId;
use tonic::{Request, Response, Status, Streaming};

use crate::append::Refusal;
use crate::core::{Core, InstrumentId};
use crate::sources::{Admission, SourceError, Stream};
use crate::{Fanout, draining, now, telemetry};

/// Refusals of one stream that are logged; all are counted.
const REFUSALS_LOGGED_MAX: u32 = 20;

/// The answers of one stream of batches.
pub type Answers = Pin<Box<dyn FutureStream<Item = Result<v1::PublishResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Ingest for Fanout {
    type PublishStream = Answers;

    async fn publish(&self, request: Request<Streaming<v1::PublishRequest>>) -> Result<Response<Answers>, Status> {
        if self.drain().is_started() {
            return Err(draining());
        }
        let publisher = Publisher {
            fanout: self.clone(),
            input: request.into_inner(),
            stream: None,
            name: String::new(),
            numbers: HashMap::new(),
            refusals: 0,
            ended: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(publisher, Publisher::next))))
    }
}

/// The channels that an ingest service publishes.
const CHANNELS: [Channel; 4] = [Channel::Quote, Channel::Trade, Channel::Book, Channel::Status];

/// An instrument as one stream names it: its topics, by place in [`CHANNELS`].
type Numbered = [Option<(TopicId, Arc<Topic>)>; CHANNELS.len()];

/// One stream of batches.
struct Publisher {
    fanout: Fanout,
    input: Streaming<v1::PublishRequest>,
    /// Once its first message has said whose it is.
    stream: Option<Stream>,
    name: String,
    numbers: HashMap<u32, Numbered>,
    refusals: u32,
    ended: bool,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(stream) = self.stream {
            self.fanout.core().detach(stream, now());
            tracing::info!(source = self.name, "a publisher's stream has ended");
        }
    }
}

impl Publisher {
    async fn next(mut self) -> Option<(Result<v1::PublishResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        let message = tokio::select! {
            message = self.input.message() => message,
            () = self.fanout.inner.drain.started() => Err(draining()),
        };
        let answer = match message {
            Ok(Some(request)) => self.batch(request),
            Ok(None) => return None,
            Err(status) => Err(status),
        };
        if let Err(status) = &answer {
            tracing::info!(source = self.name, code = ?status.code(), why = status.message(), "a publisher's stream ends");
            self.ended = true;
        }
        Some((answer, self))
    }

    /// Puts a batch on the tape.
    fn batch(&mut self, request: v1::PublishRequest) -> Result<v1::PublishResponse, Status> {
        let max = self.fanout.config().batch_events_max;
        if request.events.len() > max {
            let message = format!("{} events in one batch; at most {max}", request.events.len());
            return Err(Code::MessageTooLarge.status(message));
        }
        let (stream, admission, refused_instruments) = self.begin(&request)?;
        self.report(&refused_instruments);
        let events_len = request.events.len() as u64;
        let cursor = |core: &Core| core.tape().cursor().to_string();
        if admission == Admission::Known {
            metrics::counter!(telemetry::BATCHES_KNOWN).increment(1);
            let cursor = cursor(&self.fanout.core());
            return Ok(v1::PublishResponse { batch: request.batch, cursor, accepted: events_len, refused: 0 });
        }
        // Text becomes numbers outside of the lock.
        let mut refused = Vec::new();
        let mut events = Vec::with_capacity(request.events.len());
        for event in request.events {
            match self.convert(event) {
                Ok(event) => events.push(event),
                Err(why) => refused.push(why),
            }
        }
        let recv = events.first().map(|(_, e)| e.recv);
        let mut core = self.fanout.core();
        // Another stream of this source may have been quicker since.
        match core.admit(stream, request.batch).map_err(status_of)? {
            Admission::Next => {}
            Admission::Known => return Err(status_of(SourceError::Superseded)),
        }
        let now = now();
        for (topic, event) in events {
            if let Err(why) = core.put(topic, event, now) {
                refused.push((why, core.topic(topic).to_string()));
            }
        }
        core.admitted(stream, request.batch);
        let (cursor, head) = (cursor(&core), core.tape().head());
        drop(core);
        self.fanout.wake(head);
        metrics::histogram!(telemetry::BATCH_EVENTS).record(events_len as f64);
        if let Some(recv) = recv {
            metrics::histogram!(telemetry::PUBLISH_LATENCY).record(now.since(recv).max(0) as f64 / 1e9);
        }
        self.report(&refused);
        Ok(v1::PublishResponse {
            batch: request.batch,
            cursor,
            accepted: events_len - refused.len() as u64,
            refused: refused.len() as u64,
        })
    }

    /// Whose batch it is, whether it is the next one, and the instruments that it names.
    #[allow(clippy::type_complexity, reason = "the parts of one answer, used once")]
    fn begin(&mut self, request: &v1::PublishRequest) -> Result<(Stream, Admission, Vec<(Refusal, String)>), Status> {
        let instruments: Vec<_> = request
            .instruments
            .iter()
            .map(|n| (n.number, instrument_from_wire(n.instrument.clone().unwrap_or_default())))
            .collect();
        let now = now();
        let fanout = self.fanout.clone();
        let mut core = fanout.core();
        let stream = match self.stream {
            Some(_) if !request.source.is_empty() && request.source != self.name => {
                return Err(Code::BadRequest.status("a stream has one source"));
            }
            Some(stream) => stream,
            None => {
                let stream = core.attach(&request.source, request.batch, now).map_err(status_of)?;
                if request.recorded {
                    core.set_recorded(stream);
                }
                self.name.clone_from(&request.source);
                tracing::info!(source = self.name, batch = request.batch, "a publisher's stream has begun");
                self.stream = Some(stream);
                stream
            }
        };
        let admission = core.admit(stream, request.batch).map_err(status_of)?;
        let mut refused = Vec::new();
        for (number, instrument) in instruments {
            let known = match instrument {
                Ok(_)
                    if !self.numbers.contains_key(&number) && self.numbers.len() >= fanout.config().instruments_max =>
                {
                    Err((Refusal::Instruments, format!("instrument {number}")))
                }
                Ok(instrument) => {
                    let name = format!("instrument {}:{}", instrument.venue, instrument.symbol);
                    core.announce(stream.source, instrument, now).map_err(|why| (why, name))
                }
                Err(why) => Err((Refusal::Invalid, format!("instrument {number}: {why}"))),
            };
            match known {
                Ok(id) => {
                    self.numbers.insert(number, numbered(&core, id));
                }
                Err(why) => {
                    // Its events must not go to what the number stood for before.
                    self.numbers.remove(&number);
                    refused.push(why);
                }
            }
        }
        let head = core.tape().head();
        drop(core);
        fanout.wake(head);
        Ok((stream, admission, refused))
    }

    fn convert(&self, new: v1::NewEvent) -> Result<(TopicId, Event), (Refusal, String)> {
        let numbered = self
            .numbers
            .get(&new.instrument)
            .ok_or_else(|| (Refusal::Number, format!("{} of instrument {}", shorten(&new.channel), new.instrument)))?;
        let topic = CHANNELS.iter().position(|c| c.as_str() == new.channel).and_then(|at| numbered[at].as_ref());
        let (id, topic) = topic.ok_or_else(|| {
            let any = numbered.iter().flatten().next().map(|(_, t)| format!("{}:{}", t.venue, t.symbol));
            (Refusal::Channel, format!("{} of {}", shorten(&new.channel), any.unwrap_or_default()))
        })?;
        let event = new.event.ok_or_else(|| (Refusal::Invalid, topic.to_string()))?;
        let event =
            event_from_wire(Arc::clone(topic), event).map_err(|why| (Refusal::Invalid, format!("{topic}: {why}")))?;
        Ok((*id, event))
    }

    fn report(&mut self, refused: &[(Refusal, String)]) {
        for (why, what) in refused {
            metrics::counter!(telemetry::REFUSED, "cause" => why.cause()).increment(1);
            self.refusals = self.refusals.saturating_add(1);
            if self.refusals <= REFUSALS_LOGGED_MAX {
                tracing::warn!(source = self.name, cause = why.cause(), what, "refused: {why}");
            }
            if self.refusals == REFUSALS_LOGGED_MAX {
                tracing::warn!(source = self.name, "further refusals of this stream are counted and not logged");
            }
        }
    }
}

fn numbered(core: &Core, id: InstrumentId) -> Numbered {
    CHANNELS.map(|channel| {
        let topic = core.instruments[id.0 as usize].topic(channel)?;
        Some((topic, Arc::clone(core.topic(topic))))
    })
}

fn shorten(text: &str) -> String {
    text.chars().take(32).collect()
}

fn status_of(error: SourceError) -> Status {
    let message = error.to_string();
    match error {
        // The contract of Ingest: this status and how its message begins tell a source to begin anew.
        SourceError::Unknown { .. } => Status::failed_precondition(message),
        SourceError::Malformed => Code::BadRequest.status(message),
        SourceError::Superseded => Status::aborted(message),
        SourceError::TooMany(_) => Code::TooManySessions.status(message),
    }
}
