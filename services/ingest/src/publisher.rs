//! One bidirectional gRPC stream to the fanout, made again whenever it breaks.

mod codec;
mod meters;
mod outbox;

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use ticker_runtime::Component;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

pub(crate) use self::meters::describe;

use self::codec::PublishCodec;
use self::outbox::Outbox;
use crate::backoff::Backoff;
use crate::config::Limits;
use crate::error::told;
use crate::feed::{Intake, Numbers, QUEUE_BUNDLES_MAX};
use crate::progress::Progress;

/// What the fanout's status begins with when it does not have a source's earlier batches: it has been restarted, say.
pub(crate) const UNKNOWN_SOURCE: &str = "unknown source";

/// Waits between tries to reach the fanout.
const BACKOFF_FLOOR: Duration = Duration::from_millis(20);
/// See [`BACKOFF_FLOOR`].
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// See [`BACKOFF_FLOOR`].
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A batch that the fanout refuses so often as malformed or too large will never be taken.
const REFUSALS_MAX: u32 = 3;

/// Sends what is handed in.
#[derive(Debug)]
pub(crate) struct Publisher {
    outbox: Arc<Outbox>,
    retell: watch::Sender<u64>,
    health: Component,
}

impl Publisher {
    /// A publisher, and where sources hand in to it. `recorded`: what they tell has the times of a recording.
    pub(crate) fn new(
        name: &str,
        recorded: bool,
        limits: Limits,
        progress: &Progress,
        health: Component,
    ) -> (Self, Intake) {
        let (queue, waiting) = mpsc::channel(QUEUE_BUNDLES_MAX);
        let (retell, wanted) = watch::channel(0);
        let numbers = Arc::new(Numbers::default());
        let room_bytes = limits.queue_bytes_max;
        let room = Arc::new(Semaphore::new(room_bytes));
        let queue_of = (waiting, Arc::clone(&room));
        let outbox = Outbox::new((name, recorded), limits, queue_of, Arc::clone(&numbers), progress.clone());
        let intake = Intake { queue, room, room_bytes, numbers, retell: wanted };
        health.set_waiting("the fanout's first answer");
        (Self { outbox: Arc::new(outbox), retell, health }, intake)
    }

    /// Publishes until all sources have ended and everything that they told is on the tape.
    pub(crate) async fn run(&self, channel: Channel) {
        let mut backoff = Backoff::new(BACKOFF_FLOOR, BACKOFF_FIRST, BACKOFF_MAX);
        let mut refusals = 0;
        while !self.outbox.is_done() {
            let mut answered = false;
            let ended = self.stream(channel.clone(), &mut answered).await;
            self.outbox.disconnected();
            if self.outbox.is_done() {
                break;
            }
            if answered {
                backoff.reset();
                refusals = 0;
            }
            let status = ended.err().unwrap_or_else(|| Status::unavailable("the fanout ended the stream"));
            match status.code() {
                Code::FailedPrecondition if status.message().starts_with(UNKNOWN_SOURCE) => {
                    self.begin_anew("the fanout does not know what was sent before");
                }
                Code::InvalidArgument | Code::OutOfRange => {
                    refusals += 1;
                    if refusals >= REFUSALS_MAX {
                        refusals = 0;
                        let why = status.message();
                        tracing::error!(why, "the fanout refuses a batch again and again: it is given up");
                        self.begin_anew("the fanout refuses a batch");
                    }
                }
                _ => {}
            }
            let wait = backoff.next();
            let why = status.message();
            tracing::warn!(code = ?status.code(), why, ?wait, "no stream to the fanout: sources wait once the queue is full");
            self.health.set_waiting(format!("the fanout: {why}"));
            tokio::time::sleep(wait).await;
        }
        self.health.set_waiting("nothing: all sources have ended");
    }

    /// Have all sources ended, and is everything that they told on the tape?
    pub(crate) fn is_done(&self) -> bool {
        self.outbox.is_done()
    }

    /// Events that are sent and not on the tape.
    pub(crate) fn unacked_events(&self) -> usize {
        self.outbox.unacked_events()
    }

    /// One stream, from its beginning to its end.
    async fn stream(&self, channel: Channel, answered: &mut bool) -> Result<(), Status> {
        self.outbox.meters.streams.increment(1);
        let mut grpc = Grpc::new(channel);
        grpc.ready().await.map_err(|why| Status::unavailable(told(&why)))?;
        let path = PathAndQuery::from_static("/ticker.v1.Ingest/Publish");
        let requests = Request::new(self.outbox.stream());
        let mut answers = grpc.streaming(requests, path, PublishCodec).await.map_err(with_cause)?.into_inner();
        while let Some(ack) = answers.message().await.map_err(with_cause)? {
            self.outbox.acked(&ack);
            if !std::mem::replace(answered, true) {
                tracing::info!(cursor = ack.cursor, "publishing to the fanout");
                self.health.set_ready();
            }
            if self.outbox.is_done() {
                break;
            }
        }
        Ok(())
    }

    fn begin_anew(&self, why: &str) {
        let (generation, dropped) = self.outbox.reset();
        self.outbox.meters.resets.increment(1);
        tracing::warn!(why, dropped, "telling everything again, as a new source");
        self.retell.send_replace(generation);
    }
}

/// A transport error's own message says only "transport error": what caused it is what a person needs.
fn with_cause(status: Status) -> Status {
    match std::error::Error::source(&status) {
        Some(cause) => Status::new(status.code(), told(cause)),
        None => status,
    }
}

#[cfg(test)]
#[path = "publisher/tests.rs"]
mod tests;
