//! One peer: str0m's state machines, driven by packets and time, and the session that its channels carry.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::Counter;
use ticker_proto::message::Request;
use ticker_proto::{Code, Encoded};
use ticker_rtc::agent::{self, LIVE, PACKET_BYTES, SESSION, message_bytes};
use ticker_rtc::str0m::channel::{ChannelData, ChannelId};
use ticker_rtc::str0m::net::{Protocol, Receive};
use ticker_rtc::str0m::{Event, Input, Output, Rtc, RtcError};
use ticker_rtc::{crypto, framing, stun};
use ticker_session::catalogue::Refusal;

use crate::batches::Gathering;
use crate::framing::Framing;
use crate::pipe::{Pipe, Requests};
use crate::rtc::socket::{Outgoing, Path};
use crate::rtc::tcp::Writer;
use crate::rtc::{Control, Over, Packet, Registration, inbox};

/// How long a peer may take to open the session's channel.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A message for the channel without retransmits is no larger, so that it is one packet.
const LIVE_BYTES_MAX: usize = 1_000;

/// Bytes that wait to be confirmed, at most, when more is taken from the session: what lies behind can still be conflated.
const SESSION_BYTES_MAX: usize = 32 * 1024;
const LIVE_WAITING_BYTES_MAX: usize = 16 * 1024;

/// While receipts are waited for, packets are taken together with the next messages, or after so long: a receipt comes for
/// every second packet, and to wake for each costs as much as to send.
const RECEIPTS_PAUSE: Duration = Duration::from_millis(40);

/// Where more than so many bytes are not confirmed, receipts may tell of losses (it takes three packets), or SCTP may wait
/// for them (it begins with a window of some four): then no longer than this, and the less the more time the process has.
const RECEIPTS_BYTES: usize = 3_000;
const RECEIPTS_PAUSE_SHORT: Duration = Duration::from_millis(3);

/// Messages that follow each other in less go together, up to a packet of them, where the process is as busy as it may be:
/// a packet costs as much as five messages. What comes after a pause goes at once.
const GATHERING_MAX: Duration = Duration::from_millis(20);

/// Packets that are taken at once, at most: what DTLS has read of them waits until all are taken.
const PACKETS_MAX: usize = crypto::RECORDS_MAX / 4;

/// Connections of TCP that one peer may have.
const CONNECTIONS_MAX: usize = 4;

/// How long a peer may take to confirm the last words, and the connection to end.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// How long it may take to confirm that the channel ends: longer than SCTP takes to say so again.
const CHANNEL_CLOSING_MAX: Duration = Duration::from_secs(4);

/// The end of a connection is confirmed by nobody: its packets, a few, are sent again after each of these pauses.
const LAST_PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
const LAST_MAX: usize = 4;

/// For so long after the beginning receipts are taken as they come: SCTP learns from them how long they take.
const RECEIPTS_AT_ONCE: Duration = Duration::from_secs(3);

/// A message that waits for its channel.
struct Message {
    bytes: Bytes,
    may_be_lost: bool,
}

/// How far the end has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The session lives.
    Running,
    /// Its last words are on their way; not longer than that.
    LastWords(Instant),
    /// The channel is being closed, likewise.
    ChannelCloses(Instant),
    /// The connection is.
    Closes(Instant),
}

/// See the module.
pub(super) struct Peer {
    registration: Registration,
    rtc: Rtc,
    inbox: inbox::Receiver<Packet>,
    control: inbox::Receiver<Control>,
    pipe: Pipe,
    framing: Framing,
    began: Instant,
    /// The handshake of DTLS is over. Channels that were agreed on may be open before.
    is_secure: bool,
    session: Option<ChannelId>,
    live: Option<ChannelId>,
    /// Taken from the session, and what it takes of packets.
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    /// What the reader asked for.
    asked: Vec<Result<Request, Refusal>>,
    out: Outgoing,
    /// The packets that end the connection, with where they go.
    last: Vec<(SocketAddr, Vec<u8>)>,
    /// The connections on which it has proven to be who it is, the last first, and packets for each.
    tcp: Vec<Connection>,
    /// str0m has been told the time since the last step.
    is_on_time: bool,
    live_messages: Counter,
    /// When something was heard, and when the reader was last sent something to confirm.
    heard: Instant,
    probed: Instant,
    opened_at: Option<Instant>,
    /// When the last message was given to a channel.
    wrote: Instant,
    /// Our address on the way to it, where the socket has several.
    local: Option<IpAddr>,
    /// Until it has chosen a path.
    unchosen: stun::Unchosen,
    /// Since ICE began anew: addresses that it was heard from, and the one that it wants last.
    anew: Option<Anew>,
    stage: Stage,
}

/// An address at the other end, and by what it is reached.
type Remote = (Protocol, SocketAddr);

#[derive(Default)]
struct Anew {
    heard: Vec<Remote>,
    wanted: Option<Remote>,
}

struct Connection {
    remote: SocketAddr,
    writer: Writer,
    packets: Vec<u8>,
}

impl Peer {
    pub(super) fn new(
        registration: Registration,
        rtc: Rtc,
        (inbox, control): (inbox::Receiver<Packet>, inbox::Receiver<Control>),
        (pipe, framing): (Pipe, Framing),
        password: String,
        now: Instant,
    ) -> Self {
        Self {
            registration,
            rtc,
            inbox,
            control,
            pipe,
            framing,
            began: now,
            is_secure: false,
            session: None,
            live: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            asked: Vec::new(),
            out: Outgoing::default(),
            last: Vec::new(),
            tcp: Vec::new(),
            is_on_time: false,
            live_messages: metrics::counter!("ticker_edge_rtc_live_messages_total"),
            heard: now,
            probed: now,
            opened_at: None,
            wrote: now,
            local: None,
            unchosen: stun::Unchosen::new(password),
            anew: None,
            stage: Stage::Running,
        }
    }

    /// Serves it to its end. Boxed, because what a future is given it keeps beside what becomes of it: a peer is 10 KiB.
    pub(super) async fn run(mut self: Box<Self>) {
        let requests = self.pipe.requests();
        loop {
            let wake = match self.step(Instant::now()) {
                Ok(Some(wake)) => wake,
                Ok(None) => return self.repeat_last().await,
                Err(error) => return tracing::debug!(%error, "a WebRTC peer has failed"),
            };
            self.ask(&requests).await;
            let (takes, patience) = self.readiness();
            let now = Instant::now();
            let mut wake = patience.map_or(wake, |patience| wake.min(now + patience));
            let mut gathers = Some(self.gathered_at()).filter(|due| takes && now < *due);
            match gathers {
                Some(_) => self.pipe.gather(Gathering { room: PACKET_BYTES - self.waiting_bytes, size: self.size() }),
                None if takes => self.pipe.hurry(),
                None => {}
            }
            loop {
                let mut first = None;
                tokio::select! {
                    biased;
                    control = self.control.next() => self.obey(control),
                    batch = self.pipe.next(), if takes => match batch {
                        Some(batch) => self.queue(&batch),
                        None => self.end(),
                    },
                    packet = self.inbox.next(), if patience.is_none() => first = Some(packet),
                    () = tokio::time::sleep_until(gathers.map_or(wake, |due| wake.min(due)).into()) => {
                        let now = Instant::now();
                        if gathers.take_if(|due| *due <= now).is_some() {
                            self.pipe.hurry();
                            // What waits here goes at any rate, together with what waits there.
                            wake = if self.waiting.is_empty() { wake } else { now };
                            continue;
                        }
                    }
                }
                if let Err(error) = self.take_all(first) {
                    return tracing::debug!(%error, "a WebRTC peer has failed");
                }
                break;
            }
        }
    }

    fn obey(&mut self, control: Control) {
        match control {
            Control::Restart { remote, local, done } => {
                self.registration.rename(&local.ufrag, &remote.ufrag);
                let mut api = self.rtc.direct_api();
                api.set_remote_ice_credentials(remote);
                api.set_local_ice_credentials(local);
                self.anew = Some(Anew::default());
                // Whoever asked may have gone.
                let _ = done.send(());
            }
            Control::End => self.end(),
        }
    }

    /// What a message of the session takes of a packet.
    fn size(&self) -> fn(&Encoded) -> usize {
        match self.framing {
            // Without the end of the line.
            Framing::Lines => |encoded| message_bytes(encoded.bytes.len().saturating_sub(1)),
            Framing::Lengths => |encoded| message_bytes(encoded.bytes.len()),
        }
    }

    /// Says what is to be said now. Returns when to come again; `None`: it is over.
    fn step(&mut self, now: Instant) -> Result<Option<Instant>, RtcError> {
        // A packet tells str0m the time as well.
        if !std::mem::take(&mut self.is_on_time) {
            self.rtc.handle_input(Input::Timeout(now))?;
        }
        self.write(now)?;
        let wake = loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => break at,
                Output::Transmit(packet) => {
                    match self.destination((packet.proto, packet.destination), &packet.contents) {
                        (Protocol::Udp, to) => {
                            if matches!(self.stage, Stage::Closes(_)) && self.last.len() < LAST_MAX {
                                self.last.push((to, packet.contents.to_vec()));
                            }
                            self.out.push(to, packet.contents.into());
                        }
                        (_, to) => {
                            if let Some(connection) = self.tcp.iter_mut().find(|c| c.remote == to) {
                                framing::put(&packet.contents, &mut connection.packets);
                            }
                        }
                    }
                }
                Output::Event(event) => {
                    agent::on_event(&mut self.rtc, &event)?;
                    self.on_event(event, now);
                    self.write(now)?;
                }
            }
        };
        self.out.send(&self.registration.service.socket, self.local);
        for connection in self.tcp.iter_mut().filter(|c| !c.packets.is_empty()) {
            connection.writer.write(std::mem::take(&mut connection.packets));
        }
        Ok(self.next_deadline(now).map(|at| at.min(wake)))
    }

    /// Ends what is due to end. Returns what is due next; `None`: it is over.
    fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.rtc.is_alive() {
            return None;
        }
        let silence = self.registration.service.limits.silence;
        let gone = self.heard + silence;
        if !self.is_open() && self.stage == Stage::Running && now >= self.began + CONNECT_MAX {
            metrics::counter!("ticker_edge_rtc_handshakes_failed_total").increment(1);
            return None;
        }
        if now >= gone {
            metrics::counter!("ticker_edge_rtc_vanished_total").increment(1);
            return None;
        }
        let probe = |peer: &Self| peer.heard.max(peer.probed) + silence / 3;
        if now >= probe(self) {
            self.probed = now;
            self.pipe.heartbeat();
        }
        let stage = match self.stage {
            Stage::Running if !self.is_open() => self.began + CONNECT_MAX,
            Stage::Running => gone,
            Stage::LastWords(until) => {
                if self.waiting.is_empty() && self.buffered() == (0, 0) || now >= until {
                    let until = now + CHANNEL_CLOSING_MAX;
                    match self.session {
                        Some(session) => {
                            // Its end arrives for certain, which that of the connection does not.
                            self.rtc.direct_api().close_data_channel(session);
                            self.stage = Stage::ChannelCloses(until);
                        }
                        None => self.close(now),
                    }
                    return Some(now);
                }
                until
            }
            Stage::ChannelCloses(until) | Stage::Closes(until) if now < until => until,
            Stage::ChannelCloses(_) => {
                self.close(now);
                return Some(now);
            }
            Stage::Closes(_) => return None,
        };
        Some(stage.min(gone).min(probe(self)))
    }

    /// The session is over: its last words go out, then the end of its channel, then that of the connection.
    fn end(&mut self) {
        if self.stage == Stage::Running {
            self.stage = Stage::LastWords(Instant::now() + CLOSING_MAX);
        }
    }

    /// Ends the connection; what DTLS has to say of that goes out with the next step.
    fn close(&mut self, now: Instant) {
        if !matches!(self.stage, Stage::Closes(_)) {
            self.stage = Stage::Closes(now + CLOSING_MAX);
            if self.rtc.close().is_err() {
                self.rtc.disconnect();
            }
        }
    }

    /// Says the end again: who has not heard it would wait for half a minute.
    async fn repeat_last(&mut self) {
        for pause in LAST_PAUSES.into_iter().filter(|_| !self.last.is_empty()) {
            tokio::time::sleep(pause).await;
            for (to, packet) in &self.last {
                self.out.push(*to, packet.clone());
            }
            self.out.send(&self.registration.service.socket, self.local);
        }
    }

    /// Takes a packet, and those that have come with it.
    fn take_all(&mut self, first: Option<Packet>) -> Result<(), RtcError> {
        let now = Instant::now();
        // Handshakes go step by step: dimpl is slow to take two flights in one packet.
        let most = if self.is_secure { PACKETS_MAX } else { 1 };
        let mut next = first;
        for _ in 0..most {
            let Some(packet) = next.take().or_else(|| self.inbox.try_next()) else { break };
            self.take(&packet, now)?;
        }
        Ok(())
    }

    fn take(&mut self, packet: &Packet, now: Instant) -> Result<(), RtcError> {
        let Packet { path: Path { remote, local }, over, bytes } = packet;
        let protocol = if matches!(over, Over::Udp) { Protocol::Udp } else { Protocol::Tcp };
        let destination = self.registration.service.destination(packet.path);
        let looked = stun::Packet::of(bytes);
        let Ok(received) = Receive::new(protocol, *remote, destination, bytes) else { return Ok(()) };
        let input = Input::Receive(now, received);
        if let stun::Packet::Check { nominates, .. } = looked {
            // It is proven here that its sender knows our password.
            if !self.rtc.accepts(&input) {
                metrics::counter!("ticker_edge_rtc_checks_refused_total").increment(1);
                return Ok(());
            }
            match over {
                Over::Udp => self.registration.bind(*remote),
                Over::Tcp(writer) => self.join(*remote, writer.as_ref()),
            }
            let remote = (protocol, *remote);
            if let Some(anew) = &mut self.anew {
                if !anew.heard.contains(&remote) {
                    anew.heard.push(remote);
                }
                anew.wanted = Some(remote).filter(|_| nominates).or(anew.wanted);
            }
        }
        if let Some(check) = self.unchosen.take(looked, (protocol, *remote), bytes)
            && let Ok(received) = Receive::new(protocol, *remote, destination, &check)
        {
            self.rtc.handle_input(Input::Receive(now, received))?;
        }
        (self.heard, self.is_on_time) = (now, true);
        if protocol == Protocol::Udp {
            self.local = *local;
        }
        self.rtc.handle_input(input)
    }

    /// It has proven to be at the other end of that connection.
    fn join(&mut self, remote: SocketAddr, writer: Option<&Writer>) {
        let Some(writer) = writer else { return };
        writer.prove();
        if self.tcp.first().is_none_or(|c| c.remote != remote || c.writer.is_closed()) {
            self.tcp.retain(|c| c.remote != remote && !c.writer.is_closed());
            // The oldest ends.
            self.tcp.truncate(CONNECTIONS_MAX - 1);
            self.tcp.insert(0, Connection { remote, writer: writer.clone(), packets: Vec::new() });
        }
    }

    /// Where a packet goes. After ICE has begun anew str0m may hold on to the old way for as long as that lives: what has
    /// not been heard from since is not the way any more (RFC 8445 §9).
    fn destination(&self, chosen: Remote, packet: &[u8]) -> Remote {
        let is_data = matches!(stun::Packet::of(packet), stun::Packet::Dtls);
        match &self.anew {
            Some(Anew { heard, wanted: Some(wanted) }) if is_data && !heard.contains(&chosen) => *wanted,
            _ => chosen,
        }
    }

    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::ChannelOpen(id, label) => match label.as_str() {
                SESSION if self.session.is_none() => {
                    self.session = Some(id);
                    self.opened(now);
                }
                LIVE if self.live.is_none() => self.live = Some(id),
                _ => self.rtc.direct_api().close_data_channel(id),
            },
            Event::Connected => {
                self.is_secure = true;
                self.opened(now);
            }
            Event::ChannelData(data) if Some(data.id) == self.session => self.on_message(&data),
            Event::ChannelClose(id) if Some(id) == self.session => {
                self.session = None;
                self.close(now);
            }
            Event::ChannelClose(id) if Some(id) == self.live => self.live = None,
            Event::Closed => self.stage = Stage::Closes(now + CLOSING_MAX),
            _ => {}
        }
    }

    /// Can the session's messages go out?
    fn is_open(&self) -> bool {
        self.is_secure && self.session.is_some()
    }

    /// Another of the things that it takes for that has come.
    fn opened(&mut self, now: Instant) {
        if self.is_open() {
            self.registration.connected();
            (self.opened_at, self.probed) = (Some(now), now);
            let took = now.saturating_duration_since(self.began).as_secs_f64();
            metrics::histogram!("ticker_edge_rtc_connect_seconds").record(took);
        }
    }

    fn on_message(&mut self, message: &ChannelData) {
        let request = match (self.framing, message.binary) {
            (Framing::Lines, false) => Request::from_json(&message.data),
            (Framing::Lengths, true) => Request::from_protobuf(&message.data),
            (framing, _) => {
                let why = match framing {
                    Framing::Lines => {
                        "a binary message; this session's are JSON text (offer with ?format=proto for protobuf)"
                    }
                    Framing::Lengths => "a text message; this session's are Protobuf (offer without format for JSON)",
                };
                return self.asked.push(Err(Refusal::new(Code::BadRequest, why)));
            }
        };
        self.asked.push(request.map_err(|e| Refusal::new(Code::BadRequest, e.to_string())));
    }

    /// Tells the session what its reader asked for.
    async fn ask(&mut self, requests: &Requests) {
        for request in std::mem::take(&mut self.asked) {
            requests.send(request).await;
        }
    }

    /// Puts messages before their channels.
    fn queue(&mut self, batch: &[Encoded]) {
        for encoded in batch {
            for message in encoded.messages() {
                let bytes = match self.framing {
                    Framing::Lines if message.ends_with(b"\n") => message.slice(..message.len() - 1),
                    _ => message,
                };
                self.waiting_bytes += message_bytes(bytes.len());
                self.waiting.push_back(Message { bytes, may_be_lost: encoded.by_datagram });
            }
        }
    }

    /// When what waits goes, even where it does not fill a packet.
    fn gathered_at(&self) -> Instant {
        self.wrote + self.registration.service.pace.gathering(GATHERING_MAX)
    }

    /// Gives the channels what is due, as far as they take it.
    fn write(&mut self, now: Instant) -> Result<(), RtcError> {
        let Some(session) = self.session.filter(|_| self.is_secure) else { return Ok(()) };
        let binary = self.framing == Framing::Lengths;
        let is_due = now >= self.gathered_at() || self.stage != Stage::Running;
        let mut room = 0;
        while let Some(Message { bytes, may_be_lost }) = self.waiting.front() {
            let size = message_bytes(bytes.len());
            if size > room && !is_due {
                // What does not fill a packet waits for what comes.
                if self.waiting_bytes + size <= PACKET_BYTES {
                    return Ok(());
                }
                room = PACKET_BYTES;
            }
            room = room.saturating_sub(size);
            let fits = bytes.len() <= LIVE_BYTES_MAX;
            let live = self.live.filter(|_| *may_be_lost && fits);
            let Some(mut channel) = self.rtc.channel(live.unwrap_or(session)) else { return Ok(()) };
            if !channel.write(binary, bytes)? {
                return Ok(());
            }
            self.wrote = now;
            match (live, *may_be_lost && self.live.is_some()) {
                (Some(_), _) => self.live_messages.increment(1),
                (None, true) => metrics::counter!("ticker_edge_rtc_live_too_large_total").increment(1),
                (None, false) => {}
            }
            self.waiting_bytes -= size;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Bytes that the reader has not confirmed: of the session, and of what may be lost.
    fn buffered(&mut self) -> (usize, usize) {
        let mut of = |id: Option<ChannelId>| {
            id.and_then(|id| self.rtc.channel(id).map(|mut channel| channel.buffered_amount())).unwrap_or(0)
        };
        (of(self.session), of(self.live))
    }

    /// Are messages of the session taken now, and how long may packets wait? `None`: not at all.
    fn readiness(&mut self) -> (bool, Option<Duration>) {
        if !self.is_open() || self.stage != Stage::Running {
            return (false, None);
        }
        let (session, live) = self.buffered();
        let takes = self.waiting_bytes < PACKET_BYTES && session < SESSION_BYTES_MAX && live < LIVE_WAITING_BYTES_MAX;
        let is_new = self.opened_at.is_none_or(|at| at.elapsed() < RECEIPTS_AT_ONCE);
        let patience = match session + live {
            0 => None,
            _ if is_new || !takes => None,
            n if n < RECEIPTS_BYTES => Some(RECEIPTS_PAUSE),
            _ => Some(self.registration.service.pace.gathering(RECEIPTS_PAUSE_SHORT)).filter(|pause| !pause.is_zero()),
        };
        (takes, patience)
    }
}
