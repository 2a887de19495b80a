//! Tests of the parent module, against a stand-in venue on a local socket.

use std::sync::Mutex;

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use ticker_feeds::{Fault, Rules, Update};
use ticker_market::{Channel, Data, Decimal, Instrument, Kind, Trade};
use ticker_proto::v1;
use ticker_runtime::Health;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::{WebSocketStream, accept_async};

use super::*;
use crate::feed::{Bundle, Intake, Numbers};
use crate::progress::{Progress, SourceKind};

/// An adapter that tells each frame as a trade, and writes down all that it hears. A frame `do …` makes it ask for that.
struct Plain {
    heard: Arc<Mutex<Vec<String>>>,
    rules: Rules,
}

impl Plain {
    fn hear(&self, what: String) {
        self.heard.lock().expect("not poisoned").push(what);
    }
}

impl Adapter for Plain {
    fn rules(&self) -> Rules {
        self.rules.clone()
    }

    fn opened(&mut self, conn: Conn, _: &str, _: Time, out: &mut Out) {
        self.hear(format!("opened {}", conn.0));
        let instrument = Instrument {
            venue: "plain".into(),
            symbol: "BTC-USD".into(),
            native: "btcusd".into(),
            tick_size: None,
            lot_size: None,
            channels: vec![Channel::Trade],
        };
        out.instruments.push((0, instrument));
        out.commands.push(Command::Send(conn, format!("subscribe {}", conn.0)));
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        match text.strip_prefix("do ") {
            Some("reconnect") => out.commands.push(Command::Reconnect(conn, "asked")),
            Some("report") => {
                out.reports.push(Report { fault: Fault::Undecodable, native: None, detail: "x".to_owned() });
            }
            Some(url) => out.commands.push(Command::Fetch(url.to_owned())),
            None => {
                let trade = Trade {
                    price: Decimal::ONE,
                    size: Decimal::ONE,
                    side: None,
                    trade_id: text.into(),
                    reference: None,
                };
                let (channel, kind, data) = (Channel::Trade, Kind::Update, Data::Trade(trade));
                out.updates.push(Update { instrument: 0, channel, kind, ts: None, recv, data });
            }
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        self.hear(format!("response {url}"));
        if Some(url) == self.rules.ticket_url {
            self.rules.websocket_url = String::from_utf8_lossy(body).into_owned();
            return;
        }
        self.frame(Conn(0), body, recv, out);
    }

    fn failed(&mut self, url: &str, _: Time, _: &mut Out) {
        self.hear(format!("failed {url}"));
    }

    fn closed(&mut self, conn: Conn, reason: &str, _: Time, _: &mut Out) {
        self.hear(format!("closed {} {reason}", conn.0));
    }

    fn silent(&mut self, conn: Conn, _: Time, _: &mut Out) {
        self.hear(format!("silent {}", conn.0));
    }

    fn next_timer(&self) -> Option<Time> {
        None
    }

    fn timer(&mut self, _: Time, _: &mut Out) {}

    fn retell(&self, recv: Time, out: &mut Out) {
        let trade =
            Trade { price: Decimal::ONE, size: Decimal::ONE, side: None, trade_id: "again".into(), reference: None };
        let (channel, kind, data) = (Channel::Trade, Kind::Update, Data::Trade(trade));
        out.updates.push(Update { instrument: 0, channel, kind, ts: None, recv, data });
    }

    fn end(&mut self, _: &str, _: Time, _: &mut Out) {}
}

struct World {
    listener: TcpListener,
    bundles: mpsc::Receiver<Bundle>,
    retell: watch::Sender<u64>,
    heard: Arc<Mutex<Vec<String>>>,
    drain: Drain,
    running: JoinHandle<Result<(), IngestError>>,
    health: Health,
}

type Server = WebSocketStream<TcpStream>;

impl World {
    async fn new(change: impl FnOnce(&mut Rules)) -> Self {
        Self::configured(ConnectionConfig::default(), change).await
    }

    async fn configured(config: ConnectionConfig, change: impl FnOnce(&mut Rules)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server: Uri = format!("ws://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
        let rest: Uri = server.to_string().replace("ws:", "http:").parse().expect("a URL");
        let mut rules = Rules {
            venue: "plain",
            websocket_url: "wss://venue.example/path".to_owned(),
            instruments_url: None,
            silence_max: Duration::from_secs(600),
            ping_text: None,
            ping_every: Duration::from_secs(600),
            age_max: None,
            sends_per_second_max: 1_000,
            ticket_url: None,
            symbols_max: None,
        };
        change(&mut rules);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let adapter = Box::new(Plain { heard: Arc::clone(&heard), rules });
        let (queue, bundles) = mpsc::channel(64);
        let (retell, wanted) = watch::channel(0);
        let room_bytes = 1 << 20;
        let room = Arc::new(Semaphore::new(room_bytes));
        let intake = Intake { queue, room, room_bytes, numbers: Arc::new(Numbers::default()), retell: wanted };
        let source = Progress::new().source("plain", SourceKind::Venue);
        let (drain, health) = (Drain::new(), Health::new());
        let venues = Arc::new(VenuesHealth::new(health.component("venues")));
        let servers = Servers { websocket: Some(server), rest: Some(rest) };
        let tls = fetch::tls().expect("ring is there");
        let venue = Venue::new(adapter, servers, tls, intake.feed(source.clone()), source, venues).configured(config);
        let running = tokio::spawn(venue.run(drain.clone()));
        Self { listener, bundles, retell, heard, drain, running, health }
    }

    /// Accepts a connection and reads its subscription.
    async fn accept(&self, conn: u32) -> Server {
        self.accept_at(conn).await.0
    }

    /// As [`World::accept`], and the path that it was asked for at.
    async fn accept_at(&self, conn: u32) -> (Server, String) {
        let (socket, _) = self.listener.accept().await.expect("listens");
        let mut head = [0; 256];
        let peeked = socket.peek(&mut head).await.expect("a request");
        let path = String::from_utf8_lossy(&head[..peeked]).split(' ').nth(1).unwrap_or_default().to_owned();
        let mut server = accept_async(socket).await.expect("a WebSocket");
        let text = server.next().await.expect("open").expect("a frame");
        assert_eq!(text.into_text().expect("text").as_str(), format!("subscribe {conn}"));
        (server, path)
    }

    /// Answers one HTTP request, and returns its first line.
    async fn answer(&self, answer: &str) -> String {
        let (mut socket, _) = self.listener.accept().await.expect("listens");
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(socket.read_u8().await.expect("a request"));
        }
        socket.write_all(answer.as_bytes()).await.expect("open");
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
    }

    /// The next trade that is published.
    async fn trade(&mut self) -> String {
        loop {
            let bundle = self.bundles.recv().await.expect("the venue runs");
            let request = v1::PublishRequest::decode(bundle.fields).expect("encoded");
            for event in request.events {
                if let Some(v1::event::Data::Trade(trade)) = event.event.and_then(|e| e.data) {
                    return trade.trade_id;
                }
            }
        }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("not poisoned").clone()
    }

    async fn end(self) {
        self.drain.start("test");
        self.running.await.expect("does not panic").expect("ends well");
    }
}

async fn say(server: &mut Server, text: &str) {
    server.send(Message::text(text)).await.expect("open");
}

#[tokio::test]
async fn frames_become_events_and_a_lost_connection_is_made_again() {
    let mut world = World::new(|_| {}).await;
    let mut server = world.accept(0).await;
    say(&mut server, "1").await;
    assert_eq!(world.trade().await, "1");
    assert!(world.health.readiness().ready);
    say(&mut server, "do report").await;
    say(&mut server, "2").await;
    assert_eq!(world.trade().await, "2", "a frame that makes no sense harms nothing");
    drop(server);
    let mut server = world.accept(1).await;
    say(&mut server, "do reconnect").await;
    let mut server = world.accept(2).await;
    say(&mut server, "3").await;
    assert_eq!(world.trade().await, "3");
    server.close(None).await.expect("open");
    let _server = world.accept(3).await;
    let heard = world.heard();
    assert_eq!(heard[0], "opened 0");
    assert!(heard[1].starts_with("closed 0 e"), "eof or error: {heard:?}");
    assert_eq!(heard[2..], ["opened 1", "closed 1 asked", "opened 2", "closed 2 closed", "opened 3"]);
    world.end().await;
}

#[tokio::test]
async fn a_mute_connection_is_stale_and_made_again_but_pings_are_a_sign_of_life() {
    let mut world = World::new(|r| r.silence_max = Duration::from_millis(300)).await;
    let mut server = world.accept(0).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(600) {
        server.send(Message::Ping(Vec::new().into())).await.expect("open");
        let pong = server.next().await.expect("open").expect("a frame");
        assert!(pong.is_pong(), "{pong:?}");
    }
    say(&mut server, "1").await;
    assert_eq!(world.trade().await, "1");
    assert_eq!(world.heard(), ["opened 0"]);
    let _server = world.accept(1).await;
    assert_eq!(world.heard(), ["opened 0", "silent 0", "closed 0 silent", "opened 1"]);
    world.end().await;
}

#[tokio::test]
async fn pings_go_in_the_form_that_the_venue_wants() {
    let world = World::new(|r| r.ping_every = Duration::from_millis(5)).await;
    let mut server = world.accept(0).await;
    assert!(server.next().await.expect("open").expect("a frame").is_ping());
    world.end().await;
    let change = |r: &mut Rules| (r.ping_every, r.ping_text) = (Duration::from_millis(5), Some("hello?"));
    let world = World::new(change).await;
    let mut server = world.accept(0).await;
    assert_eq!(server.next().await.expect("open").expect("a frame").into_text().expect("text").as_str(), "hello?");
    world.end().await;
}

#[tokio::test]
async fn an_old_connection_is_replaced_without_a_hole() {
    let mut world = World::new(|r| r.age_max = Some(Duration::from_millis(30))).await;
    let mut old = world.accept(0).await;
    let mut new = world.accept(1).await;
    say(&mut old, "by the old one").await;
    assert_eq!(world.trade().await, "by the old one");
    say(&mut new, "by the new one").await;
    assert_eq!(world.trade().await, "by the new one");
    assert_eq!(world.heard(), ["opened 0", "opened 1"]);
    drop(old);
    say(&mut new, "still").await;
    assert_eq!(world.trade().await, "still");
    world.end().await;
}

#[tokio::test]
async fn a_connection_with_a_mute_channel_is_replaced_and_a_quiet_one_stays() {
    let config =
        ConnectionConfig { channel_silence_ms: Some(300), handover_ms: Some(800), ..ConnectionConfig::default() };
    let mut world = World::configured(config, |_| {}).await;
    let mut old = world.accept(0).await;
    // A channel that was never heard is none that is silent.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        old.send(Message::Ping(Vec::new().into())).await.expect("open");
        assert!(old.next().await.expect("open").expect("a frame").is_pong());
    }
    assert_eq!(world.heard(), ["opened 0"]);
    say(&mut old, "1").await;
    assert_eq!(world.trade().await, "1");
    let mut new = world.accept(1).await;
    say(&mut old, "late, by the old one").await;
    assert_eq!(world.trade().await, "late, by the old one");
    say(&mut new, "2").await;
    assert_eq!(world.trade().await, "2");
    assert!(old.next().await.is_none_or(|closed| !matches!(closed, Ok(Message::Text(_)))));
    assert_eq!(world.heard(), ["opened 0", "opened 1", "closed 0 replaced"]);
    world.end().await;
}

#[tokio::test]
async fn the_list_is_fetched_first_and_answers_come_back_by_their_own_url() {
    let mut world = World::new(|r| r.instruments_url = Some("https://venue.example/list?a=b".to_owned())).await;
    let line = world.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlist").await;
    assert_eq!(line, "GET /list?a=b HTTP/1.1");
    // What the list told before any instrument was known is left out; `depth` below is the first trade.
    let mut server = world.accept(0).await;
    assert_eq!(world.heard(), ["response https://venue.example/list?a=b", "opened 0"]);
    say(&mut server, "do https://venue.example/depth").await;
    let line = world.answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\ndepth").await;
    assert_eq!((line.as_str(), world.trade().await.as_str()), ("GET /depth HTTP/1.1", "depth"));
    say(&mut server, "do https://venue.example/no").await;
    world.answer("HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    say(&mut server, "1").await;
    assert_eq!(world.trade().await, "1");
    world.end().await;
}

#[tokio::test]
async fn everything_is_told_again_when_the_publisher_asks() {
    let mut world = World::new(|_| {}).await;
    let _server = world.accept(0).await;
    world.retell.send_replace(1);
    assert_eq!(world.trade().await, "again");
    world.end().await;
}

#[tokio::test]
async fn a_ticket_is_had_before_each_connection_and_names_the_socket() {
    const TICKET: &str = "https://venue.example/ticket";
    let mut world = World::new(|r| r.ticket_url = Some(TICKET)).await;
    let line = world.answer("HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    assert_eq!(line, "POST /ticket HTTP/1.1");
    for conn in 0..2 {
        let url = format!("wss://socket.example/{conn}?token=t{conn}");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{url}", url.len());
        assert_eq!(world.answer(&answer).await, "POST /ticket HTTP/1.1");
        let (mut server, path) = world.accept_at(conn).await;
        assert_eq!(path, format!("/{conn}?token=t{conn}"));
        say(&mut server, &conn.to_string()).await;
        assert_eq!(world.trade().await, conn.to_string());
        server.close(None).await.expect("open");
    }
    assert_eq!(
        world.heard()[..4],
        ["failed https://venue.example/ticket", "response https://venue.example/ticket", "opened 0", "closed 0 closed"]
    );
    world.end().await;
}
