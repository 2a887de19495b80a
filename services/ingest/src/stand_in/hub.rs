//! The one order of things: what is played, what readers ask, what they get.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use ticker_feeds::stand_in::faults::InjectionKind;
use ticker_feeds::stand_in::{Said, Session, StandIn};
use ticker_runtime::Drain;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::source::{Next, Source};
use crate::IngestError;

/// Frames that wait for one reader; when they are too many, everybody waits.
pub(super) const FRAMES_MAX: usize = 256;

/// A reader takes a frame within so long, or is given up.
const SEND_MAX: Duration = Duration::from_secs(30);

/// How often readers get a WebSocket ping, so that a recording that stands still or has ended does not look mute.
const PING_EVERY: Duration = Duration::from_secs(1);

/// What the pings say once all is played: whoever answers such a one has read all that came before it.
const ENDED: Bytes = Bytes::from_static(b"ended");

/// A reader subscribes channel by channel, as slowly as the venue's limit allows (five messages a second at Binance). What
/// is played begins when nothing more was asked for so long, so that it is heard from its first frame on every channel.
const SUBSCRIBED_AFTER: Duration = Duration::from_millis(400);

/// REST requests that wait for their answer, at most.
const REQUESTS_MAX: usize = 1_024;

/// What a connection has to say.
#[derive(Debug)]
pub(super) enum Ask {
    Opened { session: Session, url: String, frames: mpsc::Sender<Message> },
    Heard { session: Session, bytes: Bytes },
    Ponged { session: Session, bytes: Bytes },
    Closed { session: Session },
    Fetch { path: String, answer: oneshot::Sender<(u16, String)> },
    Inject { kind: InjectionKind },
    Show { answer: oneshot::Sender<(u16, String)> },
}

pub(super) struct Hub {
    stand_in: StandIn,
    source: Source,
    asks: mpsc::Receiver<Ask>,
    sessions: HashMap<Session, Reader>,
    requests: HashMap<u64, oneshot::Sender<(u16, String)>>,
    asked: u64,
    play: Play,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Play {
    /// Nobody is subscribed.
    Still,
    /// Somebody is, and may not be done with it before then.
    Soon(Instant),
    On,
}

#[derive(Debug)]
struct Reader {
    frames: mpsc::Sender<Message>,
    stalled: bool,
    /// It has read the recording to its end.
    has_all: bool,
}

impl Hub {
    pub(super) fn new(stand_in: StandIn, source: Source, asks: mpsc::Receiver<Ask>) -> Self {
        let (sessions, requests) = (HashMap::new(), HashMap::new());
        Self { stand_in, source, asks, sessions, requests, asked: 0, play: Play::Still, ended: false }
    }

    pub(super) async fn run(mut self, drain: &Drain) -> Result<(), IngestError> {
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let at = Instant::now();
            self.play = match self.play {
                _ if !self.stand_in.is_wanted() => Play::Still,
                Play::Still => Play::Soon(at + SUBSCRIBED_AFTER),
                Play::Soon(then) if then <= at => {
                    self.source.go_on();
                    Play::On
                }
                as_before => as_before,
            };
            let soon = if let Play::Soon(then) = self.play { then } else { at };
            let mut said = Vec::new();
            tokio::select! {
                biased;
                () = drain.started() => return Ok(()),
                Some(ask) = self.asks.recv() => self.take(ask, &mut said),
                _ = pings.tick() => self.ping(),
                () = sleep_until(soon), if soon > at => {}
                next = self.source.next(&mut self.stand_in), if self.play == Play::On && !self.ended => match next {
                    Next::Line(line) => self.stand_in.line(&line, &mut said),
                    Next::Again => self.stand_in.begun_again(),
                    Next::End => {
                        tracing::info!("the recording has ended; readers are still answered");
                        self.ended = true;
                        self.ping();
                    }
                },
            }
            for said in said {
                self.carry_out(said).await;
            }
        }
    }

    fn take(&mut self, ask: Ask, said: &mut Vec<Said>) {
        match ask {
            Ask::Opened { session, url, frames } => {
                tracing::info!(session = session.0, url, "connected");
                self.sessions.insert(session, Reader { frames, stalled: false, has_all: false });
                self.stand_in.opened(session, &url, said);
            }
            Ask::Heard { session, bytes } => {
                if let Play::Soon(_) = self.play {
                    self.play = Play::Soon(Instant::now() + SUBSCRIBED_AFTER);
                }
                self.stand_in.heard(session, &bytes, said);
            }
            Ask::Ponged { session, bytes } => {
                if let Some(reader) = self.sessions.get_mut(&session) {
                    reader.has_all |= self.ended && bytes == ENDED;
                }
            }
            Ask::Closed { session } => self.forget(session),
            Ask::Fetch { path, answer } => {
                self.requests.retain(|_, waiting| !waiting.is_closed());
                if self.requests.len() >= REQUESTS_MAX {
                    // Whoever waits for the answer is gone, if anybody.
                    let _ = answer.send((503, r#"{"error":"too many requests wait"}"#.to_owned()));
                    return;
                }
                self.asked += 1;
                self.requests.insert(self.asked, answer);
                self.stand_in.asked(self.asked, &path, said);
            }
            Ask::Inject { kind } => self.stand_in.inject(kind),
            Ask::Show { answer } => {
                let (frames, faults) = self.stand_in.counts();
                let faults: Vec<String> = faults.iter().map(|(kind, n)| format!("\"{kind}\":{n}")).collect();
                let (sessions, ended, faults) = (self.sessions.len(), self.ended, faults.join(","));
                let read = sessions > 0 && self.sessions.values().all(|reader| reader.has_all);
                let body = format!(
                    r#"{{"frames":{frames},"sessions":{sessions},"ended":{ended},"read":{read},"faults":{{{faults}}}}}"#
                );
                // As above.
                let _ = answer.send((200, body));
            }
        }
    }

    fn forget(&mut self, session: Session) {
        if self.sessions.remove(&session).is_some() {
            tracing::info!(session = session.0, "disconnected");
            self.stand_in.closed(session);
        }
    }

    fn ping(&self) {
        for reader in self.sessions.values().filter(|r| !r.stalled) {
            // A reader whose queue is full hears enough.
            let _ = reader.frames.try_send(Message::Ping(if self.ended { ENDED } else { Bytes::new() }));
        }
    }

    async fn carry_out(&mut self, said: Said) {
        match said {
            Said::Text(session, text) => self.send(session, Message::text(text)).await,
            Said::Answer { request, status, body } => {
                if let Some(answer) = self.requests.remove(&request) {
                    // As above.
                    let _ = answer.send((status, body));
                }
            }
            Said::Stall(session) => {
                if let Some(reader) = self.sessions.get_mut(&session) {
                    reader.stalled = true;
                }
            }
            Said::Close(session) => self.forget(session),
        }
    }

    async fn send(&mut self, session: Session, message: Message) {
        let Some(reader) = self.sessions.get(&session).filter(|r| !r.stalled) else { return };
        if !matches!(timeout(SEND_MAX, reader.frames.send(message)).await, Ok(Ok(()))) {
            self.forget(session);
        }
    }
}
