//! A reader on WebRTC data channels, with the same state machines as the edge's. What comes is counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Instant, SystemTime};

use prost::Message as _;
use ticker_proto::v1::{self, session_response};
use ticker_rtc::agent::{self, Certificate, Local, Role};
use ticker_rtc::sdp::Description;
use ticker_rtc::str0m::channel::ChannelId;
use ticker_rtc::str0m::net::{Protocol, Receive};
use ticker_rtc::str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::secure_crowd::{Channels, Shared, lock};

/// A packet is no larger.
const PACKET_BYTES_MAX: usize = 2_000;

/// Offers to that edge, and reads these topics.
pub(crate) async fn read(
    http: SocketAddr,
    topics: &[String],
    channels: Channels,
    shared: &Shared,
    served: impl FnOnce(),
) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(text)?;
    let from = socket.local_addr().map_err(text)?;
    let mut rtc = connect(http, from, channels.protobuf).await?;
    let ask = Some(subscription(topics, channels));
    let mut reader = Reader { session: None, is_secure: false, protobuf: channels.protobuf, ask, is_served: false };
    let (mut buffer, mut served) = (vec![0; PACKET_BYTES_MAX], Some(served));
    loop {
        let wake = loop {
            match rtc.poll_output().map_err(|e| e.to_string())? {
                Output::Timeout(at) => break at,
                // What the kernel has no room for is lost, as it may be anywhere on the way.
                Output::Transmit(packet) => drop(socket.try_send_to(&packet.contents, packet.destination)),
                Output::Event(event) => {
                    agent::on_event(&mut rtc, &event).map_err(|e| e.to_string())?;
                    if !reader.take(&mut rtc, event, shared)? {
                        return Ok(());
                    }
                }
            }
        };
        if let Some(served) = served.take_if(|_| reader.is_served) {
            served();
        }
        // What came together is polled for one by one: a browser confirms every second packet, not a batch.
        let input = match socket.try_recv_from(&mut buffer) {
            Ok((length, at)) => Some((length, at)),
            Err(_) => tokio::select! {
                received = socket.recv_from(&mut buffer) => Some(received.map_err(text)?),
                () = tokio::time::sleep_until(wake.into()) => None,
            },
        };
        let now = Instant::now();
        let input = match input {
            None => Input::Timeout(now),
            Some((length, at)) => match Receive::new(Protocol::Udp, at, from, &buffer[..length]) {
                Ok(received) => Input::Receive(now, received),
                Err(error) => return Err(error.to_string()),
            },
        };
        rtc.handle_input(input).map_err(|e| e.to_string())?;
    }
}

fn subscription(topics: &[String], Channels { live, protobuf }: Channels) -> Vec<u8> {
    if protobuf {
        let delivery = if live { "datagram" } else { "" }.to_owned();
        let subscribe = v1::Subscribe { id: 1, topics: topics.to_vec(), delivery, ..v1::Subscribe::default() };
        let message = Some(v1::session_request::Message::Subscribe(subscribe));
        return v1::SessionRequest { message }.encode_to_vec();
    }
    let mut ask = serde_json::json!({"op": "subscribe", "id": 1, "topics": topics});
    if live {
        ask["delivery"] = "datagram".into();
    }
    ask.to_string().into_bytes()
}

struct Reader {
    session: Option<ChannelId>,
    is_secure: bool,
    protobuf: bool,
    /// The subscription, until it is sent.
    ask: Option<Vec<u8>>,
    is_served: bool,
}

impl Reader {
    /// Returns whether the connection goes on.
    fn take(&mut self, rtc: &mut Rtc, event: Event, shared: &Shared) -> Result<bool, String> {
        match event {
            Event::ChannelOpen(id, label) if label == agent::SESSION => self.session = Some(id),
            Event::Connected => self.is_secure = true,
            Event::ChannelData(data) => {
                let mut seen = lock(shared);
                seen.bytes += data.data.len() as u64;
                if self.protobuf {
                    let message = v1::SessionResponse::decode(&data.data[..]).map_err(|e| e.to_string())?.message;
                    if let Some(session_response::Message::Event(event)) = message {
                        // Nanoseconds here, microseconds in JSON.
                        seen.take_one(event.r#pub / 1_000);
                    }
                } else {
                    seen.take(&data.data);
                }
                self.is_served = self.ask.is_none();
            }
            Event::ChannelClose(_) | Event::Closed => return Ok(false),
            _ => {}
        }
        if let Some(id) = self.session.filter(|_| self.is_secure)
            && let Some(ask) = self.ask.take()
        {
            let mut channel = rtc.channel(id).ok_or("the channel is not open")?;
            channel.write(self.protobuf, &ask).map_err(|e| e.to_string())?;
        }
        Ok(true)
    }
}

async fn connect(http: SocketAddr, from: SocketAddr, protobuf: bool) -> Result<Rtc, String> {
    let certificate = Certificate::generate(SystemTime::now()).map_err(|e| e.to_string())?;
    let mut local = Local::new(certificate).map_err(|e| e.to_string())?;
    let offer = local.offer().map_err(|e| e.to_string())?;
    let answer = post(http, if protobuf { "&format=proto" } else { "" }, &offer.to_string()).await?;
    let answer = Description::parse(&answer).map_err(|e| e.to_string())?;
    let mut rtc = agent::begin(local, &answer, Role::Client, true, Instant::now()).map_err(|e| e.to_string())?;
    rtc.add_local_candidate(Candidate::host(from, "udp").map_err(|e| e.to_string())?);
    for address in answer.candidates {
        rtc.add_remote_candidate(Candidate::host(address, "udp").map_err(|e| e.to_string())?);
    }
    Ok(rtc)
}

async fn post(http: SocketAddr, wish: &str, offer: &str) -> Result<String, String> {
    let text = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect(http).await.map_err(text)?;
    let head = format!(
        "POST /v1/rtc?negotiated=true{wish} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/sdp\r\n\
         content-length: {}\r\n\r\n",
        offer.len()
    );
    stream.write_all([head.as_bytes(), offer.as_bytes()].concat().as_slice()).await.map_err(text)?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.map_err(text)?;
    match response.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 201 ") => Ok(body.to_owned()),
        _ => Err(format!("the offer was answered with {:?}", response.lines().next())),
    }
}
