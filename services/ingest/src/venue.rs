//! A live venue: drives its adapter with what comes over sockets, and does what the adapter asks for.
//!
//! One task for each venue. While it waits for room at the publisher it does not read, so a fanout that is away stops
//! the venue's socket, by TCP, and nothing grows.

pub(crate) mod care;
pub(crate) mod fetch;
mod link;
pub(crate) mod meters;
mod sends;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use rustls::ClientConfig;
use ticker_feeds::{Adapter, Command, Conn, Out, Report, Rules};
use ticker_market::Time;
use ticker_runtime::{Component, Drain, clock};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::{Error, Message};

use self::care::{Silences, Skew, Turns};
use self::fetch::{FetchError, Fetcher};
use self::link::{Link, NoSocket, Socket, next_message};
use self::meters::Meters;
use crate::backoff::Backoff;
use crate::config::ConnectionConfig;
use crate::error::told;
use crate::feed::{Feed, Gone};
use crate::log_limit::LogLimit;
use crate::passed_over::PassedOver;
use crate::record::Tap;
use crate::{IngestError, progress};

/// Waits between tries to connect: Binance allows one a second for each address.
const BACKOFF_FLOOR: Duration = Duration::from_millis(100);
/// See [`BACKOFF_FLOOR`].
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// See [`BACKOFF_FLOOR`].
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A connection that held so long was a good one: the next try is a first one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// REST requests under way at a time.
const FETCHES_MAX: usize = 8;
/// REST requests that wait for their turn.
const FETCHES_WAITING_MAX: usize = 1_000;

/// A wait at the publisher of this length says nothing about the venue's silence.
const HELD_UP_MIN: Duration = Duration::from_millis(200);

/// What is ready when one live venue is connected.
#[derive(Debug)]
pub(crate) struct VenuesHealth {
    component: Component,
    connected: AtomicUsize,
}

impl VenuesHealth {
    pub(crate) fn new(component: Component) -> Self {
        component.set_waiting("a venue");
        Self { component, connected: AtomicUsize::new(0) }
    }

    fn up(&self) {
        self.connected.fetch_add(1, Ordering::SeqCst);
        self.component.set_ready();
    }

    fn down(&self, why: &str) {
        if self.connected.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.component.set_waiting(format!("a venue: {why}"));
        }
    }
}

/// Another server than the venue's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    pub(crate) websocket: Option<Uri>,
    pub(crate) rest: Option<Uri>,
}

type Fetched = (String, Result<Bytes, FetchError>);

/// What a try to connect came to.
enum Made {
    /// A ticket for a connection ([`Rules::ticket_url`](ticker_feeds::Rules::ticket_url)).
    Ticket(Fetched),
    Socket(Result<Box<Socket>, NoSocket>),
}

pub(crate) struct Venue {
    adapter: Box<dyn Adapter>,
    /// The adapter's, as they were when it connected last: to ask with each frame would cost more than to decode it.
    rules: Rules,
    name: String,
    servers: Servers,
    config: ConnectionConfig,
    tls: Arc<ClientConfig>,
    feed: Feed,
    progress: Arc<progress::Source>,
    health: Arc<VenuesHealth>,
    meters: Meters,
    log: LogLimit,
    passed_over: PassedOver,
    fetcher: Fetcher,
    /// Oldest first; two only while one replaces the other.
    links: Vec<Link>,
    connecting: Option<BoxFuture<'static, Made>>,
    fetching: FuturesUnordered<BoxFuture<'static, Fetched>>,
    fetches: VecDeque<String>,
    backoff: Backoff,
    conns: u32,
    turns: Arc<Turns>,
    silences: Silences,
    skew: Skew,
    /// Writes down what the sockets carry, where somebody records.
    tap: Option<Tap>,
    out: Out,
}

impl Venue {
    pub(crate) fn new(
        adapter: Box<dyn Adapter>,
        servers: Servers,
        tls: Arc<ClientConfig>,
        feed: Feed,
        progress: Arc<progress::Source>,
        health: Arc<VenuesHealth>,
    ) -> Self {
        let name = progress.name().to_owned();
        Self {
            meters: Meters::new(&name),
            log: LogLimit::new(std::time::Instant::now()),
            passed_over: PassedOver::new(&name),
            fetcher: Fetcher::new(&tls, servers.rest.clone()),
            links: Vec::with_capacity(2),
            connecting: None,
            fetching: FuturesUnordered::new(),
            fetches: VecDeque::new(),
            backoff: Backoff::new(BACKOFF_FLOOR, BACKOFF_FIRST, BACKOFF_MAX),
            conns: 0,
            turns: Arc::new(Turns::new(Duration::ZERO)),
            silences: Silences::default(),
            skew: Skew::new(Instant::now()),
            tap: None,
            out: Out::default(),
            rules: adapter.rules(),
            config: ConnectionConfig::default(),
            adapter,
            name,
            servers,
            tls,
            feed,
            progress,
            health,
        }
    }

    /// With its connections looked after in this way.
    pub(crate) fn configured(mut self, config: ConnectionConfig) -> Self {
        self.config = config;
        self
    }

    /// Connects in turn with others.
    pub(crate) fn in_turn(mut self, turns: Arc<Turns>) -> Self {
        self.turns = turns;
        self
    }

    /// With everything that its sockets carry written down.
    pub(crate) fn recorded(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// Runs until the drain begins, or until what is recorded cannot be written.
    pub(crate) async fn run(mut self, drain: Drain) -> Result<(), IngestError> {
        self.meters.connected.set(0.0);
        let turn = self.turns.take(Instant::now());
        tokio::select! {
            () = drain.started() => return Ok(()),
            () = async { sleep_until(turn).await; self.list().await } => {}
        }
        if self.settle().await.is_ok() {
            self.connect_at(Instant::now());
            while !drain.is_started() {
                if self.step(&drain).await.is_err() || self.flush_due().await.is_err() {
                    break;
                }
            }
        }
        self.progress.set(false, "ended");
        for link in std::mem::take(&mut self.links) {
            if let Some(tap) = &mut self.tap {
                tap.disconnect(link.conn, "drained", now());
            }
            link.close().await;
        }
        match &mut self.tap {
            Some(tap) => tap.flush().await,
            None => Ok(()),
        }
    }

    async fn flush_due(&mut self) -> Result<(), IngestError> {
        match &mut self.tap {
            Some(tap) => tap.flush_due().await,
            None => Ok(()),
        }
    }

    /// Waits for the next thing that happens, and does all that follows from it.
    async fn step(&mut self, drain: &Drain) -> Result<(), Gone> {
        let due = self.next_due();
        tokio::select! {
            () = drain.started() => return Ok(()),
            wanted = self.feed.retell_wanted() => {
                wanted?;
                self.feed.retelling();
                self.adapter.retell(now(), &mut self.out);
            }
            (at, message) = next_message(&mut self.links) => self.received(at, message),
            Some((url, result)) = self.fetching.next() => self.fetched(url, result),
            made = made(&mut self.connecting) => self.made(made),
            () = sleep_until(due) => {}
        }
        // Also while frames never stop coming.
        self.due().await;
        self.settle().await
    }

    /// The instruments are fetched before the first connection, which subscribes by them. The adapter goes without them,
    /// and asks again, if they do not come.
    async fn list(&mut self) {
        let Some(url) = self.rules.instruments_url.clone() else { return };
        self.progress.set(false, "fetching the list of instruments");
        let result = self.fetcher.fetch(&url).await;
        self.fetched(url, result);
    }

    /// Connects after that time, when it is our turn.
    fn connect(&mut self, wait: Duration) {
        let at = self.turns.take(Instant::now() + wait);
        self.connect_at(at);
    }

    /// With a ticket, where the venue wants one.
    fn connect_at(&mut self, at: Instant) {
        let Some(url) = self.rules.ticket_url else { return self.dial(at) };
        let fetcher = self.fetcher.clone();
        self.connecting = Some(Box::pin(async move {
            sleep_until(at).await;
            Made::Ticket((url.to_owned(), fetcher.post(url).await))
        }));
    }

    fn dial(&mut self, at: Instant) {
        self.rules = self.adapter.rules();
        let uri = fetch::rebase(&self.rules.websocket_url, self.servers.websocket.as_ref());
        let tls = Arc::clone(&self.tls);
        self.connecting = Some(Box::pin(async move {
            sleep_until(at).await;
            let socket = match uri {
                Ok(uri) => link::connect(uri, tls).await,
                Err(why) => Err(why.into()),
            };
            Made::Socket(socket.map(Box::new))
        }));
    }

    fn made(&mut self, made: Made) {
        match made {
            Made::Socket(result) => self.connected(result.map(|socket| *socket)),
            Made::Ticket((url, result)) => {
                let failed = result.as_ref().err().map(|why| format!("no ticket for a connection: {why}"));
                self.fetched(url, result);
                match failed {
                    None => self.dial(Instant::now()),
                    Some(why) => {
                        self.meters.disconnected("ticket");
                        self.try_again(&why, Duration::ZERO);
                    }
                }
            }
        }
    }

    fn connected(&mut self, result: Result<Socket, NoSocket>) {
        match result {
            Ok(socket) => {
                let (conn, now_wall) = (Conn(self.conns), now());
                self.conns = self.conns.wrapping_add(1);
                if self.links.is_empty() {
                    self.health.up();
                }
                self.links.push(Link::new(conn, socket, &self.rules, Instant::now()));
                self.meters.connected.set(1.0);
                self.progress.set(true, "connected");
                tracing::info!(venue = self.name, "connected");
                if let Some(tap) = &mut self.tap {
                    tap.connect(conn, &self.rules.websocket_url, now_wall);
                }
                self.adapter.opened(conn, &self.rules.websocket_url, now_wall, &mut self.out);
            }
            Err(NoSocket { why, wait }) => {
                self.meters.disconnected("connect");
                self.try_again(&why, wait.unwrap_or_default());
            }
        }
    }

    fn try_again(&mut self, why: &str, at_least: Duration) {
        let wait = self.backoff.next().max(at_least);
        tracing::warn!(venue = self.name, why, ?wait, "no connection");
        if self.links.is_empty() {
            self.progress.set(false, format!("connecting again in {:.1} s: {why}", wait.as_secs_f64()));
        }
        self.connect(wait);
    }

    /// Gives a connection up. `cause` is a short stable word, `why` for a person.
    fn disconnect(&mut self, at: usize, cause: &'static str, why: &str) {
        let link = self.links.remove(at);
        self.meters.disconnected(cause);
        if link.opened.elapsed() >= HEALTHY_AFTER {
            self.backoff.reset();
        }
        let at = now();
        if let Some(tap) = &mut self.tap {
            tap.disconnect(link.conn, cause, at);
        }
        self.adapter.closed(link.conn, cause, at, &mut self.out);
        if self.links.is_empty() {
            self.health.down(&format!("{} {why}", self.name));
            self.fetches.clear();
            if self.connecting.is_none() {
                self.try_again(why, Duration::ZERO);
            } else {
                self.progress.set(false, format!("connecting: {why}"));
            }
        } else {
            self.meters.connected.set(1.0);
            tracing::info!(venue = self.name, cause, "a connection has ended, the other goes on");
        }
    }

    fn received(&mut self, at: usize, message: Option<Result<Message, Error>>) {
        let Some(link) = self.links.get_mut(at) else { return };
        let bytes = match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message.into_data(),
            Some(Ok(Message::Ping(_))) => return link.hear(Instant::now(), &mut self.silences),
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => return,
            Some(Ok(Message::Close(frame))) => {
                let why =
                    frame.map_or_else(|| "closed by the venue".to_owned(), |f| format!("closed by the venue: {f}"));
                return self.disconnect(at, "closed", &why);
            }
            Some(Err(why @ Error::Capacity(_))) => return self.disconnect(at, "too_large", &why.to_string()),
            Some(Err(why)) => return self.disconnect(at, "error", &told(&why)),
            None => return self.disconnect(at, "eof", "the connection ended"),
        };
        link.hear(Instant::now(), &mut self.silences);
        self.meters.frames.increment(1);
        self.meters.bytes.increment(bytes.len() as u64);
        let (conn, recv) = (link.conn, now());
        if let Some(tap) = &mut self.tap {
            tap.recv(conn, &bytes, recv);
        }
        self.adapter.frame(conn, &bytes, recv, &mut self.out);
        self.meters.decode_seconds.record(link.heard.elapsed().as_secs_f64());
        let (at, updates) = (link.heard, &self.out.updates[..]);
        link.channels.updates(updates, at, &mut self.silences);
        if let Some(ts) = updates.last().and_then(|u| u.ts) {
            self.meters.lag_seconds.set(recv.since(ts) as f64 / 1e9);
        }
        if let Some(nanos) = self.skew.updates(updates, at) {
            self.meters.skew_seconds.set(nanos as f64 / 1e9);
        }
    }

    fn fetched(&mut self, url: String, result: Result<Bytes, FetchError>) {
        match result {
            Ok(body) => {
                self.meters.fetched("ok");
                let recv = now();
                if let Some(tap) = &mut self.tap {
                    tap.http(&url, &body, recv);
                }
                self.adapter.response(&url, &body, recv, &mut self.out);
            }
            Err(why) => {
                self.meters.fetched(why.cause());
                tracing::warn!(venue = self.name, url, %why, "a fetch failed");
                self.adapter.failed(&url, now(), &mut self.out);
            }
        }
    }

    /// When [`Venue::due`] has something to do next.
    fn next_due(&self) -> Instant {
        let (rules, at) = (&self.rules, Instant::now());
        // Nothing is due for long: wake up now and then all the same.
        let mut next = at + Duration::from_secs(60);
        next = self.tap.as_ref().map_or(next, |tap| next.min(tap.flush_at()));
        for link in &self.links {
            let patience = link.patience(rules, &self.config, &self.silences);
            next = next.min(link.heard + patience).min(link.ping_at(rules));
            next = link.sends.next_at().map_or(next, |t| next.min(t));
        }
        if let Some(timer) = self.adapter.next_timer() {
            next = next.min(at + Duration::from_nanos(u64::try_from(timer.since(now())).unwrap_or(0)));
        }
        match &self.links[..] {
            [_, new, ..] => next.min(new.opened + self.config.handover()),
            [link] if self.connecting.is_none() => {
                let old = self.config.age_max(rules.age_max).map(|age| link.opened + age);
                let mute = link.channels.mute_at(&self.config, &self.silences);
                old.into_iter().chain(mute).fold(next, Instant::min)
            }
            _ => next,
        }
    }

    /// Does all that time demands.
    async fn due(&mut self) {
        let at = Instant::now();
        let mut i = 0;
        while i < self.links.len() {
            let link = &mut self.links[i];
            let patience = link.patience(&self.rules, &self.config, &self.silences);
            if link.heard + patience <= at {
                self.silences.of_all(at - link.heard);
                let (conn, why) = (link.conn, format!("nothing was heard for {patience:?}"));
                self.adapter.silent(conn, now(), &mut self.out);
                self.disconnect(i, "silent", &why);
                continue;
            }
            let (conn, tap) = (link.conn, &mut self.tap);
            let mut wrote = |text: &str| {
                if let Some(tap) = tap {
                    tap.send(conn, text, now());
                }
            };
            let mut sent = link.send_due(at, &mut wrote).await;
            if link.ping_at(&self.rules) <= at && sent.is_ok() {
                sent = link.ping(&self.rules, at).await.map(|()| 1);
                self.rules.ping_text.into_iter().for_each(wrote);
            }
            match sent {
                Ok(sent) => {
                    self.meters.sends.increment(sent);
                    i += 1;
                }
                Err(why) => self.disconnect(i, "error", &told(&why)),
            }
        }
        if self.links.len() > 1 && self.links[1].opened + self.config.handover() <= at {
            self.disconnect(0, "replaced", "a newer connection took over");
        }
        self.replace_due(at);
        if self.adapter.next_timer().is_some_and(|t| t <= now()) {
            self.adapter.timer(now(), &mut self.out);
        }
    }

    /// Makes a new connection beside one that is too old, or mute on a channel.
    fn replace_due(&mut self, at: Instant) {
        let ([link], None) = (&mut self.links[..], &self.connecting) else { return };
        let mute = link.channels.mute(&self.config, &mut self.silences, at);
        let is_old = self.config.age_max(self.rules.age_max).is_some_and(|age| link.opened + age <= at);
        for channel in &mute {
            self.meters.mute(*channel);
            tracing::warn!(venue = self.name, %channel, "a channel is silent: its connection is replaced");
        }
        if is_old || !mute.is_empty() {
            self.connect(Duration::ZERO);
        }
    }

    /// Publishes what the adapter told, and does what it asked for, until it asks for nothing more.
    async fn settle(&mut self) -> Result<(), Gone> {
        loop {
            for report in self.out.reports.drain(..) {
                tell(&self.name, &report, &mut self.log);
            }
            self.passed_over.take(&mut self.out);
            self.meters.refreshes.increment(u64::from(std::mem::take(&mut self.out.refreshes)));
            let before = Instant::now();
            self.feed.publish(&mut self.out).await?;
            if before.elapsed() >= HELD_UP_MIN {
                // We did not listen: the venue was not silent.
                let at = Instant::now();
                for link in &mut self.links {
                    link.heard = at;
                    link.channels.pause(at);
                }
            }
            let commands = std::mem::take(&mut self.out.commands);
            if commands.is_empty() {
                break;
            }
            for command in commands {
                self.command(command);
            }
        }
        while self.fetching.len() < FETCHES_MAX
            && let Some(url) = self.fetches.pop_front()
        {
            let fetcher = self.fetcher.clone();
            self.fetching.push(Box::pin(async move {
                let result = fetcher.fetch(&url).await;
                (url, result)
            }));
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Send(conn, text) => {
                // A connection that is gone meanwhile needs nothing sent: the next one subscribes by itself.
                let Some(at) = self.links.iter().position(|l| l.conn == conn) else { return };
                if !self.links[at].sends.push(text) {
                    self.disconnect(at, "sends", "too many messages wait to be sent");
                }
            }
            Command::Fetch(url) if self.fetches.len() >= FETCHES_WAITING_MAX => {
                self.meters.fetched("too_many");
                self.adapter.failed(&url, now(), &mut self.out);
            }
            Command::Fetch(url) => self.fetches.push_back(url),
            Command::Reconnect(conn, reason) => {
                if let Some(at) = self.links.iter().position(|l| l.conn == conn) {
                    self.disconnect(at, reason, reason);
                }
            }
        }
    }
}

/// What the try to connect came to; never, if there is none.
async fn made(connecting: &mut Option<BoxFuture<'static, Made>>) -> Made {
    match connecting {
        Some(future) => {
            let result = future.await;
            *connecting = None;
            result
        }
        None => std::future::pending().await,
    }
}

pub(crate) fn now() -> Time {
    Time(clock::now_nanos())
}

/// Counts and logs what an adapter found wrong.
pub(crate) fn tell(venue: &str, report: &Report, log: &mut LogLimit) {
    meters::fault(venue, report.fault);
    if let Some(left_out) = log.admit(std::time::Instant::now()) {
        let (cause, detail) = (report.fault.as_str(), &report.detail);
        let native = report.native.as_deref().unwrap_or_default();
        tracing::warn!(venue, cause, native, detail, left_out, "the venue's data was wrong");
    }
}

#[cfg(test)]
#[path = "venue/stand_in_tests.rs"]
mod stand_in_tests;
#[cfg(test)]
#[path = "venue/tests.rs"]
mod tests;
