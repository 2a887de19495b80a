//! The way to the fanout: one stream for the whole edge, with what its readers want.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ticker_market::{Data, Instrument, Pattern, Status, Topic};
use ticker_proto::v1::relay_client::RelayClient;
use ticker_proto::v1::{self};
use ticker_proto::{Frame, convert};
use ticker_runtime::Drain;
use ticker_runtime::health::Component;
use ticker_session::catalogue::Catalogue;
use ticker_session::{Need, Page};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::command::{AddedTopics, Command, ShardHandle, Upstream};
use crate::follow::{Follow, FollowError};

/// Largest message from a fanout, in bytes: it keeps its own below 1 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Backfills under way at once; more wait.
const BACKFILLS_MAX: usize = 16;

/// Changes of interest that wait while one is on its way; what changes beyond them is put together.
const INTERESTS_MAX: usize = 1;

/// Delay before the stream is opened again: doubled each time, up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A stream that says nothing for so long is dead: a fanout tells its progress every second at least.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What the edge itself follows: whether each instrument is live, for the lists.
const OWN_INTEREST: &str = "status/*/*";

/// All instruments, and whether they are live: what the lists show.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) catalogue: Catalogue,
    statuses: HashMap<(String, String), Status>,
}

impl Directory {
    /// Is this instrument live? `None` while nothing was heard of it.
    pub(crate) fn status(&self, instrument: &Instrument) -> Option<&Status> {
        self.statuses.get(&(instrument.venue.to_string(), instrument.symbol.to_string()))
    }
}

/// The directory, shared.
pub(crate) type SharedDirectory = Arc<RwLock<Directory>>;

/// What the fanout has not been told yet: whether the stream is to carry a pattern. Never more than the patterns that
/// readers want or wanted.
#[derive(Debug, Default)]
struct Changes(HashMap<Pattern, bool>);

impl Changes {
    fn put(&mut self, pattern: Pattern, carry: bool) {
        // What was to be told, and is no longer so, is not told at all.
        if self.0.get(&pattern).is_some_and(|before| *before != carry) {
            self.0.remove(&pattern);
        } else if carry || pattern.to_string() != OWN_INTEREST {
            self.0.insert(pattern, carry);
        }
    }
}

/// One change of interest, on its way to the fanout.
struct Interest {
    add: Vec<String>,
    remove: Vec<String>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the fanout ended the stream: {0}")]
    Status(#[from] Box<tonic::Status>),
    #[error("the fanout ended the stream without a word")]
    End,
    #[error("the fanout said nothing for {} s", SILENCE_MAX.as_secs())]
    Silence,
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("a shard is gone")]
    Shard,
}

/// The edge's side of the stream, across its lives.
pub(crate) struct Link {
    pub(crate) client: RelayClient<Channel>,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) needs: mpsc::Receiver<(usize, Need)>,
    pub(crate) directory: SharedDirectory,
    pub(crate) linger: Duration,
    drain: Drain,
    /// How many shards want each pattern.
    wants: HashMap<Pattern, u32>,
    /// Patterns that no shard wants any more, and until when they are held all the same.
    lingering: HashMap<Pattern, Instant>,
    /// Patterns of which the fanout has sent something, and has not said that it no longer does: after a break the stream
    /// goes on with those, also with what nobody wants any more, since the shards hold it until they hear that it is
    /// removed. What was wanted and had not come yet is asked for anew, since a stream that goes on gives no snapshots.
    carried: HashSet<Pattern>,
    epoch: Option<Arc<str>>,
    position: u64,
    backfills: Arc<Semaphore>,
}

impl Link {
    pub(crate) fn new(
        channel: Channel,
        shards: Vec<ShardHandle>,
        needs: mpsc::Receiver<(usize, Need)>,
        directory: SharedDirectory,
        linger: Duration,
        drain: Drain,
    ) -> Self {
        Self {
            client: RelayClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
            shards,
            needs,
            directory,
            linger,
            drain,
            wants: HashMap::new(),
            lingering: HashMap::new(),
            carried: HashSet::new(),
            epoch: None,
            position: 0,
            backfills: Arc::new(Semaphore::new(BACKFILLS_MAX)),
        }
    }

    /// Follows the fanout until the edge has drained, or for as long as the future is polled.
    pub(crate) async fn run(mut self, component: Component) {
        let mut retry = RETRY_MIN;
        component.set_waiting("no stream from the fanout yet");
        loop {
            let began = Instant::now();
            let error = match self.follow(&component).await {
                Ok(never) => match never {},
                // There is nobody left to follow it for.
                Err(StreamError::Shard) if self.drain.is_started() => return,
                Err(error) => error,
            };
            metrics::gauge!("ticker_edge_upstream_connected").set(0.0);
            metrics::counter!("ticker_edge_upstream_reconnects_total").increment(1);
            if began.elapsed() > RETRY_MAX {
                retry = RETRY_MIN;
            }
            component.set_waiting(format!("{error}; trying again"));
            tracing::warn!(%error, retry_ms = retry.as_millis() as u64, "the stream from the fanout ended");
            // Spread over half the delay, so that many edges do not come back at once.
            let delay = retry.mul_f64(0.5 + fastrand::f64() / 2.0);
            let until = Instant::now() + delay;
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => break,
                    Some((shard, need)) = self.needs.recv() => {
                        // What is wanted is asked for when the stream opens.
                        self.take_need(shard, need, &mut Changes::default());
                    }
                }
            }
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    async fn follow(&mut self, component: &Component) -> Result<std::convert::Infallible, StreamError> {
        let name = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let cursor = self.epoch.as_ref().map(|e| format!("{e}-{}", self.position)).unwrap_or_default();
        let wanted = || self.wants.keys().chain(self.lingering.keys());
        let mut interest = vec![OWN_INTEREST.to_owned()];
        let mut changes = Changes::default();
        if cursor.is_empty() {
            interest.extend(wanted().map(Pattern::to_string));
        } else {
            interest.extend(self.carried.iter().map(Pattern::to_string));
            wanted().filter(|p| !self.carried.contains(*p)).for_each(|p| changes.put(p.clone(), true));
            let is_wanted = |p: &Pattern| self.wants.contains_key(p) || self.lingering.contains_key(p);
            self.carried.iter().filter(|p| !is_wanted(p)).for_each(|p| changes.put(p.clone(), false));
        }
        let request = v1::FollowRequest { stream: name.clone(), interest, cursor };
        let mut stream = self.client.follow(request).await.map_err(Box::new)?.into_inner();
        let (interest, wanted) = mpsc::channel(INTERESTS_MAX);
        // Begins when the stream has said what it carries: until then an answer could not be told from that.
        let (begin, begun) = oneshot::channel();
        let set_interest = tokio::spawn(set_interest(self.client.clone(), name, begun, wanted));
        let result = self.steps(&mut stream, &mut changes, &interest, begin, component).await;
        set_interest.abort();
        result
    }

    async fn steps(
        &mut self,
        stream: &mut tonic::Streaming<v1::FollowResponse>,
        changes: &mut Changes,
        interest: &mpsc::Sender<Interest>,
        begin: oneshot::Sender<()>,
        component: &Component,
    ) -> Result<std::convert::Infallible, StreamError> {
        let mut follow = Follow::default();
        let mut out = Vec::new();
        let mut fresh = false;
        let mut begin = Some(begin);
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        let lag = metrics::histogram!("ticker_edge_upstream_lag_seconds");
        let events_total = metrics::counter!("ticker_edge_upstream_events_total");
        let position = metrics::gauge!("ticker_edge_position");
        let interest_full = metrics::counter!("ticker_edge_interest_full_total");
        loop {
            tokio::select! {
                // What came is passed on before anything else is asked for.
                biased;
                message = tokio::time::timeout(SILENCE_MAX, stream.message()) => {
                    let message = message.map_err(|_| StreamError::Silence)?.map_err(Box::new)?.ok_or(StreamError::End)?;
                    let Some(step) = message.step else { continue };
                    follow.step(step, &mut out)?;
                    for told in out.drain(..) {
                        match &told {
                            Upstream::Added { topics, .. } => self.note_carried(topics),
                            Upstream::Removed(topics) => self.note_removed(topics),
                            Upstream::Opened { epoch, resumed, .. } => {
                                if !resumed {
                                    self.carried.clear();
                                }
                                self.epoch = Some(Arc::clone(epoch));
                                metrics::gauge!("ticker_edge_upstream_connected").set(1.0);
                                tracing::info!(%epoch, resumed, "following the fanout");
                            }
                            Upstream::Events { frames, .. } => {
                                events_total.increment(frames.len() as u64);
                                if let Some(first) = frames.first() {
                                    let nanos = ticker_runtime::clock::now_nanos() - first.event.published.0;
                                    lag.record(nanos.max(0) as f64 / 1e9);
                                }
                            }
                            _ => {}
                        }
                        self.note(&told);
                        let mut gone = 0;
                        for shard in &self.shards {
                            gone += usize::from(!shard.tell(Command::Upstream(told.clone())).await);
                        }
                        // In a drain they go one by one, and readers of the others are served to the end.
                        if gone == self.shards.len() || gone > 0 && !self.drain.is_started() {
                            return Err(StreamError::Shard);
                        }
                        match told {
                            Upstream::Opened { .. } => fresh = true,
                            Upstream::Instruments(_) => {}
                            // The first word after the stream's beginning: epoch and instruments are known.
                            _ if std::mem::take(&mut fresh) => {
                                self.reach_shards().await;
                                component.set_ready();
                            }
                            _ => {}
                        }
                    }
                    if !follow.resuming
                        && !fresh
                        && let Some(begin) = begin.take()
                    {
                        // The task is there for as long as this one.
                        let _ = begin.send(());
                    }
                    self.position = follow.position;
                    position.set(self.position as f64);
                }
                Some((shard, need)) = self.needs.recv() => {
                    self.take_need(shard, need, changes);
                    while let Ok((shard, need)) = self.needs.try_recv() {
                        self.take_need(shard, need, changes);
                    }
                    if !changes.0.is_empty() && interest.capacity() == 0 {
                        interest_full.increment(1);
                    }
                }
                Ok(room) = interest.reserve(), if !changes.0.is_empty() => {
                    let (add, remove): (Vec<_>, Vec<_>) = changes.0.drain().partition(|(_, carry)| *carry);
                    for (pattern, _) in &remove {
                        // Where another pattern keeps its topic, nobody will say that it is removed.
                        let topic = pattern.exact();
                        let mut others = self.wants.keys().chain(self.lingering.keys()).filter(|p| *p != pattern);
                        if topic.is_some_and(|t| others.any(|p| p.matches(&t))) {
                            self.carried.remove(pattern);
                        }
                    }
                    let texts = |list: Vec<(Pattern, bool)>| list.iter().map(|(p, _)| p.to_string()).collect();
                    room.send(Interest { add: texts(add), remove: texts(remove) });
                }
                _ = sweep.tick() => {
                    let now = Instant::now();
                    let over: Vec<Pattern> =
                        self.lingering.iter().filter(|(_, until)| **until <= now).map(|(p, _)| p.clone()).collect();
                    if !over.is_empty() {
                        self.lingering.retain(|_, until| *until > now);
                        over.into_iter().for_each(|p| changes.put(p, false));
                    }
                    metrics::gauge!("ticker_edge_interest").set(self.wants.len() as f64);
                    metrics::gauge!("ticker_edge_interest_lingering").set(self.lingering.len() as f64);
                }
            }
        }
    }

    fn note_carried(&mut self, topics: &AddedTopics) {
        let wanted: Vec<&Pattern> = self.wants.keys().chain(self.lingering.keys()).collect();
        let come = wanted.into_iter().filter(|p| topics.iter().any(|(topic, ..)| p.matches(topic)));
        let come: Vec<Pattern> = come.filter(|p| !self.carried.contains(*p)).cloned().collect();
        self.carried.extend(come);
    }

    fn note_removed(&mut self, topics: &[Topic]) {
        for topic in topics {
            self.carried.remove(&Pattern::from(topic.clone()));
        }
        self.carried.retain(|p| p.exactness() == 3 || !topics.iter().any(|t| p.matches(t)));
    }

    /// Waits until every shard has taken in what it was told: only then can readers be sent here.
    async fn reach_shards(&self) {
        for shard in &self.shards {
            let (reply, reached) = oneshot::channel();
            shard.tell(Command::Reached(reply)).await;
            // A shard that is gone says so at the next word.
            let _ = reached.await;
        }
    }

    /// Takes a need in; a pattern that the stream does not carry yet is put into `changes`. What nobody wants any more
    /// lingers, and is let go by the sweep.
    fn take_need(&mut self, shard: usize, need: Need, changes: &mut Changes) {
        match need {
            Need::Want(pattern) => {
                let held = self.lingering.remove(&pattern).is_some();
                let count = self.wants.entry(pattern.clone()).or_insert(0);
                *count += 1;
                if *count == 1 && !held {
                    changes.put(pattern, true);
                }
            }
            Need::Unwant(pattern) => {
                if let Some(count) = self.wants.get_mut(&pattern) {
                    *count -= 1;
                    if *count == 0 {
                        self.wants.remove(&pattern);
                        self.lingering.insert(pattern, Instant::now() + self.linger);
                    }
                }
            }
            Need::Backfill { ticket, topics, from, recent, limit } => {
                let request = v1::BackfillRequest {
                    topics: topics.iter().map(|t| t.to_string()).collect(),
                    from: from.unwrap_or_default(),
                    recent,
                    limit,
                };
                let (mut client, shard) = (self.client.clone(), self.shards[shard].clone());
                let permits = Arc::clone(&self.backfills);
                metrics::counter!("ticker_edge_backfills_total").increment(1);
                tokio::spawn(async move {
                    let _permit = permits.acquire_owned().await;
                    let page = match client.backfill(request).await {
                        Ok(answer) => page_of(answer.into_inner(), &topics),
                        Err(status) => Err(status.message().to_owned()),
                    };
                    shard.tell(Command::Backfilled { ticket, page }).await;
                });
            }
        }
    }

    /// Keeps the directory.
    fn note(&self, told: &Upstream) {
        let lock = || self.directory.write().unwrap_or_else(PoisonError::into_inner);
        let status = |directory: &mut Directory, frame: &Frame| {
            if let Data::Status(status) = &frame.event.data {
                let topic = &frame.event.topic;
                directory.statuses.insert((topic.venue.to_string(), topic.symbol.to_string()), status.clone());
            }
        };
        match told {
            Upstream::Opened { resumed: false, .. } => *lock() = Directory::default(),
            Upstream::Instruments(all) => {
                let mut directory = lock();
                for instrument in all.iter() {
                    directory.catalogue.insert(Instrument::clone(instrument));
                }
            }
            Upstream::Added { topics, .. } => {
                let mut directory = lock();
                topics.iter().filter_map(|(_, _, frame)| frame.as_ref()).for_each(|f| status(&mut directory, f));
            }
            Upstream::Events { frames, .. } if frames.iter().any(|f| matches!(f.event.data, Data::Status(_))) => {
                let mut directory = lock();
                frames.iter().for_each(|f| status(&mut directory, f));
            }
            _ => {}
        }
    }
}

/// Tells the fanout what the stream is to carry, one change after the other.
async fn set_interest(
    mut client: RelayClient<Channel>,
    stream: String,
    begun: oneshot::Receiver<()>,
    mut changes: mpsc::Receiver<Interest>,
) {
    if begun.await.is_err() {
        return;
    }
    while let Some(Interest { add, remove }) = changes.recv().await {
        let request = v1::SetInterestRequest { stream: stream.clone(), add, remove };
        if let Err(status) = client.set_interest(request).await {
            // The stream's own end follows, and its next life asks for everything again.
            tracing::warn!(error = %status.message(), "the fanout did not take a change of interest");
        }
    }
}

fn page_of(answer: v1::BackfillResponse, topics: &[Arc<Topic>]) -> Result<Page, String> {
    let through: ticker_market::Cursor =
        answer.through.parse().map_err(|e: ticker_market::CursorError| e.to_string())?;
    let epoch: Arc<str> = through.epoch.as_str().into();
    let find = |name: &str| topics.iter().find(|t| t.to_string() == name).cloned();
    let mut page = Page { through: through.seq, ..Page::default() };
    page.expired = answer.expired.iter().filter_map(|t| find(t)).collect();
    for wire in answer.events {
        let topic = find(&wire.topic).ok_or_else(|| format!("an event of {}, which was not asked for", wire.topic))?;
        // A page holds whole events: it is a message of its own, not a stream that others wait behind.
        let event = convert::event_from_wire(topic, wire).map_err(|e| e.to_string())?;
        page.frames.push(Arc::new(Frame::new(event, Arc::clone(&epoch))));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_undo_each_other_are_not_told() {
        let pattern = |text: &str| text.parse::<Pattern>().expect("a pattern");
        let (quotes, trades) = (pattern("quote/*/*"), pattern("trade/*/*"));
        let mut changes = Changes::default();
        for _ in 0..1_000 {
            changes.put(quotes.clone(), true);
            changes.put(quotes.clone(), false);
            changes.put(trades.clone(), false);
            changes.put(trades.clone(), true);
        }
        assert!(changes.0.is_empty());
        changes.put(quotes.clone(), true);
        changes.put(trades.clone(), false);
        // The edge itself goes on with what it follows for its lists.
        changes.put(pattern(OWN_INTEREST), false);
        assert_eq!(changes.0, HashMap::from([(quotes, true), (trades, false)]));
    }
}
