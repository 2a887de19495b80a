//! The messages of a subscription, its cursor, and going on after a lost connection.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ticker_proto::message::Limit;
use ticker_proto::{Code, Message, Notice, Request};
use tokio::time::Sleep;

use crate::cursor::Tracker;
use crate::error::Error;
use crate::options::{Options, Over, Resume, Subscription};
use crate::transport::{FIRST_ID, Item, Transport};

/// Connects, and asks for the subscription. Over WebSocket and gRPC an error may also come with the first
/// [`Reader::next`]. A duplex reader may begin without topics.
///
/// # Errors
/// [`Error::Connect`] if nobody answers, [`Error::Refused`] with the service's code, [`Error::Options`] if the options
/// make no sense. The first connection is never tried twice, whatever [`Options::resume`] says.
pub async fn connect(options: Options, subscription: Subscription) -> Result<Reader, Error> {
    if subscription.topics.is_empty() && !options.over.is_duplex() {
        return Err(Error::Options("no topics: name at least one, such as quote/kraken/BTC-USD".into()));
    }
    let transport = Transport::open(&options, &subscription).await?;
    let every = subscription.conflate == Some(false);
    let told = matches!(options.over, Over::Sse | Over::Poll);
    let mut tracker = Tracker::new(subscription.from.clone(), told, every);
    if !subscription.topics.is_empty() {
        tracker.joining(first_id(&options));
    }
    Ok(Reader {
        limit: Limit { id: 0, max_rate: None, max_kbps: subscription.max_kbps },
        subscriptions: vec![Subscription { id: FIRST_ID, ..subscription }],
        options,
        tracker,
        phase: Phase::Live(transport),
        failures: 0,
        retry: None,
        resumed: 0,
        established: false,
    })
}

/// A subscription's messages, one by one.
pub struct Reader {
    options: Options,
    /// What is asked for again after a lost connection: the first one, and those of [`Reader::send`].
    subscriptions: Vec<Subscription>,
    /// The session's limits, as far as they were changed.
    limit: Limit,
    tracker: Tracker,
    phase: Phase,
    /// Attempts that failed since the last message.
    failures: u32,
    /// The server's word on when to come back.
    retry: Option<Duration>,
    resumed: u64,
    /// Has the service ever accepted the subscription?
    established: bool,
}

enum Phase {
    Live(Transport),
    Waiting(Pin<Box<Sleep>>),
    Connecting(Pin<Box<dyn Future<Output = Result<Transport, Error>> + Send>>),
    Ended,
}

/// One step of a reader's life.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// A message.
    Message(Message),
    /// The connection was lost, or could not be made again; the next attempt comes after `retry`.
    Lost {
        /// Why.
        error: Error,
        /// How long until the next attempt.
        retry: Duration,
    },
    /// Connected again; messages go on from the cursor.
    Resumed,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("over", &self.options.over)
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// The next message; `None` when the server ended the stream in good order. Safe to cancel: nothing is lost.
    ///
    /// # Errors
    /// When the stream ends otherwise, unless [`Options::resume`] goes on; the reader is at its end then.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        loop {
            match self.step().await? {
                None => return Ok(None),
                Some(Step::Message(message)) => return Ok(Some(message)),
                Some(Step::Lost { .. } | Step::Resumed) => {}
            }
        }
    }

    /// As [`Reader::next`], but tells of lost and regained connections too.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn step(&mut self) -> Result<Option<Step>, Error> {
        loop {
            match &mut self.phase {
                Phase::Ended => return Ok(None),
                Phase::Live(transport) => match transport.next().await {
                    Ok(Some(item)) => {
                        if let Some(step) = self.take(item)? {
                            return Ok(Some(step));
                        }
                    }
                    Ok(None) => {
                        return match self.options.resume {
                            Resume::Never => {
                                self.phase = Phase::Ended;
                                Ok(None)
                            }
                            Resume::Backoff { .. } => {
                                self.lost(Error::Lost("the server ended the stream".into())).map(Some)
                            }
                        };
                    }
                    // After a goodbye the end is no surprise, however it comes.
                    Err(Error::Lost(_)) if self.retry.is_some() && self.options.resume == Resume::Never => {
                        self.phase = Phase::Ended;
                        return Ok(None);
                    }
                    Err(error) => return self.lost(error).map(Some),
                },
                Phase::Waiting(sleep) => {
                    sleep.await;
                    self.phase = Phase::Connecting(Box::pin(self.reopen()));
                }
                Phase::Connecting(connecting) => match connecting.await {
                    Ok(transport) => {
                        self.phase = Phase::Live(transport);
                        self.resumed += 1;
                        for subscription in &self.subscriptions {
                            let first = subscription.id == FIRST_ID;
                            self.tracker.joining(if first { first_id(&self.options) } else { subscription.id });
                        }
                        return Ok(Some(Step::Resumed));
                    }
                    Err(error) => return self.lost(error).map(Some),
                },
            }
        }
    }

    /// The place from which any reader, over any transport, can go on without loss: the greatest `seq` of the updates, or
    /// the cursor of the notices, that [`Reader::next`] has given. Snapshots never move it, nor does a backfill before
    /// its `subscribed`. For server-sent events it is the last `id`; for polls it moves with each update where an answer
    /// is in the order of the tape, and at the end of the answer. `None` before the first place is known.
    pub fn cursor(&self) -> Option<&str> {
        self.tracker.text()
    }

    /// How often the connection was lost and regained.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Sends a request, where the transport is duplex. Subscriptions, limits and tokens are remembered, and renewed after
    /// a lost connection. Ids must differ from each other, and from 0 and 1.
    ///
    /// # Errors
    /// [`Error::Options`] where the transport has no back channel, [`Error::Lost`] if the connection is gone.
    pub async fn send(&mut self, request: Request) -> Result<(), Error> {
        if !self.options.over.is_duplex() {
            return Err(Error::Options(format!(
                "{} has no back channel: connect again with the cursor",
                self.options.over
            )));
        }
        if let Phase::Live(transport) = &mut self.phase {
            transport.send(&request).await?;
            if let Request::Subscribe(subscription) = &request {
                self.tracker.joining(subscription.id);
            }
        } else if matches!(self.phase, Phase::Ended) {
            return Err(Error::Lost("the session has ended".into()));
        } else if let Phase::Connecting(_) = self.phase {
            // What that attempt asks for is out of date: begin it again, with this request.
            self.phase = Phase::Waiting(Box::pin(tokio::time::sleep(Duration::ZERO)));
        }
        match request {
            Request::Subscribe(subscription) => self.subscriptions.push(subscription),
            Request::Unsubscribe(gone) => {
                for subscription in &mut self.subscriptions {
                    subscription.topics.retain(|t| !gone.topics.contains(t));
                }
                self.subscriptions.retain(|s| !s.topics.is_empty());
            }
            Request::Limit(limit) => {
                self.limit.max_rate = limit.max_rate.or(self.limit.max_rate);
                self.limit.max_kbps = limit.max_kbps.or(self.limit.max_kbps);
            }
            Request::Auth(auth) => self.options.token = Some(auth.token),
            Request::Ping(_) | Request::Signal(_) => {}
        }
        Ok(())
    }

    /// Takes what arrived; `None` if the caller need not see it.
    fn take(&mut self, item: Item) -> Result<Option<Step>, Error> {
        let wanted = match &item.message {
            Some(Message::Event(part)) => self.tracker.event(part),
            Some(Message::Notice(notice)) => {
                self.tracker.notice(notice);
                match notice {
                    Notice::Goodbye { retry_ms, .. } => {
                        self.retry = Some(Duration::from_millis(u64::from(*retry_ms)));
                    }
                    Notice::Subscribed { .. } => self.established = true,
                    Notice::Error { id, code, message, cursor } if id.is_none_or(|id| id <= FIRST_ID) => {
                        let code = Code::from_name(code).unwrap_or(Code::Internal);
                        let (message, cursor) = (message.clone(), cursor.clone());
                        return self.lost(Error::Refused { code, message, cursor, retry: None }).map(Some);
                    }
                    _ => {}
                }
                true
            }
            None => false,
        };
        if let Some(cursor) = item.cursor {
            self.tracker.set(&cursor);
        }
        if matches!(item.message, Some(Message::Event(_))) {
            self.failures = 0;
            self.established = true;
        }
        Ok(item.message.filter(|_| wanted).map(Step::Message))
    }

    /// The connection is gone: an error for the caller, or another attempt.
    fn lost(&mut self, error: Error) -> Result<Step, Error> {
        self.tracker.lost();
        // After a restart a service may not know its instruments yet.
        let again = error.is_transient() || self.established && error.code() == Some(Code::UnknownTopic);
        let Resume::Backoff { first_ms, max_ms } = self.options.resume else {
            self.phase = Phase::Ended;
            return Err(error);
        };
        if !again {
            self.phase = Phase::Ended;
            return Err(error);
        }
        let told = match &error {
            Error::Refused { retry, .. } => *retry,
            _ => None,
        };
        let wait = told.or(self.retry.take()).unwrap_or_else(|| {
            let most = first_ms.saturating_mul(1 << self.failures.min(16)).clamp(1, max_ms.max(1));
            Duration::from_millis(fastrand::u64(most.div_ceil(2)..=most))
        });
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Waiting(Box::pin(tokio::time::sleep(wait)));
        Ok(Step::Lost { error, retry: wait })
    }

    /// A new connection that asks for everything that this reader wants, from the cursor on.
    fn reopen(&self) -> impl Future<Output = Result<Transport, Error>> + Send + use<> {
        let options = self.options.clone();
        let cursor = self.cursor().map(str::to_owned);
        let renew = move |subscription: &Subscription| {
            let mut subscription = subscription.clone();
            if cursor.is_some() {
                // The caller's books may have moved on; a snapshot is always right.
                subscription.have.clear();
                subscription.recent = None;
                subscription.from = cursor.clone();
            }
            subscription
        };
        let mut subscriptions: Vec<Subscription> = self.subscriptions.iter().map(renew).collect();
        let limit = self.limit.clone();
        async move {
            let first = match subscriptions.iter().position(|s| s.id == FIRST_ID) {
                Some(at) => subscriptions.swap_remove(at),
                None => Subscription::default(),
            };
            let mut transport = Transport::open(&options, &first).await?;
            if options.over.is_duplex() {
                for subscription in subscriptions {
                    transport.send(&Request::Subscribe(subscription)).await?;
                }
                if limit != Limit::default() {
                    transport.send(&Request::Limit(limit)).await?;
                }
            }
            Ok(transport)
        }
    }
}

/// The id with which the first subscription is answered.
fn first_id(options: &Options) -> u64 {
    if options.over.is_duplex() { FIRST_ID } else { 0 }
}

#[cfg(test)]
mod tests;
