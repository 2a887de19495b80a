//! WebRTC: an offer by HTTP, then a session on data channels, one JSON object a message. Both ends have agreed on the two:
//! the session's, and that of what may be lost, on which comes what is subscribed to with `delivery: datagram`.
//!
//! str0m on this side too, as at the edge: one implementation to know, and a client that is no heavier than the others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ticker_proto::{Message, Request, json};
use ticker_rtc::agent::{self, AgentError, Certificate, Local, Role};
use ticker_rtc::sdp::Description;
use ticker_rtc::str0m::channel::ChannelId;
use ticker_rtc::str0m::net::{Protocol, Receive};
use ticker_rtc::str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcError};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::http::{self, Connection};
use crate::newest::Newest;
use crate::options::{Options, Subscription};
use crate::transport::{FIRST_ID, Item};

/// Messages that wait for the caller, at most; then nothing more is taken from the network.
const MESSAGES_MAX: usize = 1_024;

/// Requests that wait for the network, at most.
const REQUESTS_MAX: usize = 16;

/// A packet is no larger.
const PACKET_BYTES_MAX: usize = 2_000;

/// How long the last packets may take.
const CLOSING_MAX: Duration = Duration::from_millis(500);

/// The connection, which a task serves.
pub(crate) struct WebRtc {
    messages: mpsc::Receiver<Result<Message, Error>>,
    /// The task ends the connection when this is dropped.
    requests: mpsc::Sender<String>,
    /// For topics that come on the channel of what may be lost as well.
    newest: Option<Newest>,
}

impl WebRtc {
    pub(crate) async fn open(options: &Options, subscription: &Subscription) -> Result<Self, Error> {
        let opening = async {
            let driver = connect(options).await?;
            let (sender, messages) = mpsc::channel(MESSAGES_MAX);
            let (requests, asked) = mpsc::channel(REQUESTS_MAX);
            let (opened, is_open) = oneshot::channel();
            tokio::spawn(driver.run(asked, sender, opened));
            is_open.await.map_err(|_| Error::Lost("the connection could not be made".into()))?;
            Ok(Self { messages, requests, newest: Newest::of(subscription) })
        };
        let late = || Error::Lost(format!("no connection to {} in {:?}", options.http, options.connect_timeout));
        let mut rtc = tokio::time::timeout(options.connect_timeout, opening).await.map_err(|_| late())??;
        if !subscription.topics.is_empty() {
            rtc.send(&Request::Subscribe(Subscription { id: FIRST_ID, ..subscription.clone() })).await?;
        }
        Ok(rtc)
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), Error> {
        let text = serde_json::to_string(request).map_err(|e| Error::Options(format!("not a request: {e}")))?;
        self.requests.send(text).await.map_err(|_| Error::Lost("the session has ended".into()))
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Item>, Error> {
        while let Some(message) = self.messages.recv().await {
            let item = Item::from(message?);
            if self.newest.as_mut().is_none_or(|newest| newest.admits(&item)) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }
}

/// Offers, and begins the connection to whoever answers.
async fn connect(options: &Options) -> Result<Driver, Error> {
    let failed = |error: AgentError| Error::Options(error.to_string());
    let certificate = Certificate::generate(SystemTime::now()).map_err(failed)?;
    let mut local = Local::new(certificate).map_err(failed)?;
    let offer = local.offer().map_err(failed)?;
    let mut http = Connection::open(options).await?;
    let body = Bytes::from(offer.to_string());
    let response = http.post("/v1/rtc?negotiated=true", "application/sdp", body).await?;
    let answer = http::read_whole(http::expect(response, 201).await?).await?;
    let answer = std::str::from_utf8(&answer).map_err(|e| Error::Protocol(e.to_string()))?;
    let answer = Description::parse(answer).map_err(|e| Error::Protocol(e.to_string()))?;
    let first = answer.candidates.first().ok_or_else(|| Error::Protocol("an answer without an address".into()))?;
    let lost = |error: io::Error| Error::Lost(error.to_string());
    let any: IpAddr = if first.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(lost)?;
    let from = SocketAddr::new(route(*first).map_err(lost)?, socket.local_addr().map_err(lost)?.port());
    let mut rtc = agent::begin(local, &answer, Role::Client, true, Instant::now()).map_err(failed)?;
    rtc.add_local_candidate(Candidate::host(from, "udp").map_err(|e| Error::Protocol(e.to_string()))?);
    for address in answer.candidates.iter().filter(|a| a.is_ipv4() == first.is_ipv4()) {
        rtc.add_remote_candidate(Candidate::host(*address, "udp").map_err(|e| Error::Protocol(e.to_string()))?);
    }
    Ok(Driver { rtc, socket, from, is_secure: false, session: None })
}

/// Which of our addresses leads there; nothing is sent.
fn route(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

struct Driver {
    rtc: Rtc,
    socket: UdpSocket,
    /// Our address, as ICE knows it.
    from: SocketAddr,
    /// The handshake of DTLS is over: the channel, on which both ends have agreed, is open before.
    is_secure: bool,
    session: Option<ChannelId>,
}

/// How a step ended.
enum Stepped {
    /// Nothing more is to be said before then.
    Until(Instant),
    /// The other end closed.
    Closed,
}

impl Driver {
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<String>,
        messages: mpsc::Sender<Result<Message, Error>>,
        opened: oneshot::Sender<()>,
    ) {
        let mut opened = Some(opened);
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let ended = loop {
            let wake = match self.step(&messages, &mut opened).await {
                Ok(Stepped::Until(wake)) => wake,
                Ok(Stepped::Closed) => break Ok(()),
                Err(error) => break Err(error),
            };
            let took = tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.take(from, &buffer[..length]),
                    // What an earlier packet met with is told here (RFC 1122 §4.1.3.3).
                    Err(_) => Ok(()),
                },
                request = requests.recv(), if opened.is_none() => match request {
                    Some(text) => self.write(&text),
                    // The reader is gone.
                    None => return self.close().await,
                },
                () = messages.closed() => return self.close().await,
                () = tokio::time::sleep_until(wake.into()) => self.rtc.handle_input(Input::Timeout(Instant::now())),
            };
            if let Err(error) = took {
                break Err(Error::Lost(error.to_string()));
            }
        };
        if let Err(error) = ended {
            // Nobody may be there to hear it.
            let _ = messages.send(Err(error)).await;
        }
        self.close().await;
    }

    fn take(&mut self, from: SocketAddr, packet: &[u8]) -> Result<(), RtcError> {
        match Receive::new(Protocol::Udp, from, self.from, packet) {
            Ok(received) => self.rtc.handle_input(Input::Receive(Instant::now(), received)),
            // Not a packet of WebRTC.
            Err(_) => Ok(()),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), RtcError> {
        let Some(mut channel) = self.session.and_then(|id| self.rtc.channel(id)) else { return Ok(()) };
        if channel.write(false, text.as_bytes())? {
            return Ok(());
        }
        Err(RtcError::Io(io::Error::new(io::ErrorKind::OutOfMemory, "too much waits to be sent")))
    }

    async fn step(
        &mut self,
        messages: &mpsc::Sender<Result<Message, Error>>,
        opened: &mut Option<oneshot::Sender<()>>,
    ) -> Result<Stepped, Error> {
        loop {
            let output = self.rtc.poll_output().map_err(|e| Error::Lost(e.to_string()))?;
            let event = match output {
                Output::Timeout(wake) if self.rtc.is_alive() => return Ok(Stepped::Until(wake)),
                Output::Timeout(_) => return Ok(Stepped::Closed),
                Output::Transmit(packet) => {
                    // What cannot be sent is lost, as it may be anywhere on the way.
                    let _ = self.socket.send_to(&packet.contents, packet.destination).await;
                    continue;
                }
                Output::Event(event) => event,
            };
            agent::on_event(&mut self.rtc, &event).map_err(|e| Error::Lost(e.to_string()))?;
            match event {
                Event::ChannelOpen(id, label) if label == agent::SESSION => self.session = Some(id),
                Event::Connected => self.is_secure = true,
                Event::ChannelData(data) => {
                    let text = std::str::from_utf8(&data.data).map_err(|e| Error::Protocol(e.to_string()))?;
                    let message = json::read_message(text).map_err(|e| Error::Protocol(e.to_string()))?;
                    // Its end is seen when something is next waited for.
                    let _ = messages.send(Ok(message)).await;
                }
                Event::ChannelClose(id) if Some(id) == self.session => return Ok(Stepped::Closed),
                Event::Closed => return Ok(Stepped::Closed),
                Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                    return Err(Error::Lost("the other end does not answer any more".into()));
                }
                _ => {}
            }
            if self.is_secure
                && self.session.is_some()
                && let Some(opened) = opened.take()
            {
                // Whoever waited may have gone.
                let _ = opened.send(());
            }
        }
    }

    /// Tells the other end that this one is gone.
    async fn close(mut self) {
        if self.rtc.close().is_err() {
            return;
        }
        let until = Instant::now() + CLOSING_MAX;
        while let Ok(output) = self.rtc.poll_output() {
            match output {
                Output::Transmit(packet) => {
                    let _ = self.socket.send_to(&packet.contents, packet.destination).await;
                }
                Output::Event(_) => {}
                Output::Timeout(wake) if self.rtc.is_alive() && wake < until => {
                    tokio::time::sleep_until(wake.into()).await;
                    if self.rtc.handle_input(Input::Timeout(Instant::now())).is_err() {
                        return;
                    }
                }
                Output::Timeout(_) => return,
            }
        }
    }
}
