use std::sync::atomic::AtomicU64;

use ticker_market::{Event, Kind};
use ticker_proto::convert::{event_to_wire, instrument_to_wire};
use ticker_proto::v1::ingest_client::IngestClient;
use ticker_proto::v1::market_data_client::MarketDataClient;
use ticker_proto::v1::relay_client::RelayClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::*;
use crate::Config;
use crate::fixture::*;

async fn follow(
    served: &Served,
    name: &str,
    interest: &[&str],
    cursor: &str,
) -> (Streaming<v1::FollowResponse>, Checker) {
    let request = v1::FollowRequest {
        stream: name.to_owned(),
        interest: interest.iter().map(|t| (*t).to_owned()).collect(),
        cursor: cursor.to_owned(),
    };
    let stream = RelayClient::new(served.channel().await).follow(request).await.expect("followed").into_inner();
    (stream, Checker::default())
}

async fn read_until(
    stream: &mut Streaming<v1::FollowResponse>,
    checker: &mut Checker,
    done: impl Fn(&Checker) -> bool,
) {
    while !done(checker) {
        checker.take(stream.message().await.expect("goes on").expect("goes on"));
    }
}

/// An ingest service that sends one batch after the other.
struct Publisher {
    requests: mpsc::Sender<v1::PublishRequest>,
    answers: Streaming<v1::PublishResponse>,
    batch: u64,
    name: String,
}

impl Publisher {
    async fn new(served: &Served, name: &str) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let mut client = IngestClient::new(served.channel().await);
        let answers = client.publish(ReceiverStream::new(receiver)).await.expect("taken").into_inner();
        Self { requests, answers, batch: 0, name: name.to_owned() }
    }

    async fn try_send(
        &mut self,
        symbols: &[usize],
        events: Vec<(usize, ticker_market::Event)>,
    ) -> Result<v1::PublishResponse, Status> {
        self.batch += 1;
        let named = |at: &usize| v1::NumberedInstrument {
            number: *at as u32,
            instrument: Some(instrument_to_wire(&instrument(&Venue::symbol(*at)))),
        };
        let request = v1::PublishRequest {
            source: self.name.clone(),
            batch: self.batch,
            instruments: symbols.iter().map(named).collect(),
            events: events
                .into_iter()
                .map(|(at, event)| v1::NewEvent {
                    instrument: at as u32,
                    channel: event.topic.channel.as_str().to_owned(),
                    event: Some(event_to_wire(&event)),
                })
                .collect(),
            ..Default::default()
        };
        self.requests.send(request).await.expect("open");
        Ok(self.answers.message().await?.expect("an answer for each batch"))
    }

    async fn send(&mut self, symbols: &[usize], events: Vec<(usize, ticker_market::Event)>) -> v1::PublishResponse {
        let answer = self.try_send(symbols, events).await.expect("taken");
        assert_eq!((answer.batch, answer.refused), (self.batch, 0));
        answer
    }
}

fn seq(cursor: &str) -> u64 {
    cursor.parse::<Cursor>().expect("a cursor").seq
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_miss_nothing_while_everything_changes() {
    let served = Served::new(Config::default());
    let mut publisher = Publisher::new(&served, "s1").await;
    publisher.send(&[0, 1], vec![]).await;
    let end = Arc::new(AtomicU64::new(u64::MAX));
    let mut followers = Vec::new();
    for n in 0..3u64 {
        let name = format!("edge-{n}");
        let interest: &[&str] = [&["*/*/*"][..], &["trade/*/*"][..], &[][..]][n as usize];
        let (mut stream, mut checker) = follow(&served, &name, interest, "").await;
        let mut relay = RelayClient::new(served.channel().await);
        let end = Arc::clone(&end);
        followers.push(tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(n);
            let patterns =
                ["*/kraken/*", "book/*/*", "trade/*/*", "book-50/kraken/S1-USD", "quote/*/*", "status/*/S0-USD"];
            while checker.position < end.load(Ordering::Relaxed) {
                checker.take(stream.message().await.expect("goes on").expect("goes on"));
                if n > 0 && rng.u8(..8) == 0 {
                    let one = || vec![patterns[fastrand::usize(..patterns.len())].to_owned()];
                    let (add, remove) = if rng.bool() { (one(), vec![]) } else { (vec![], one()) };
                    let request = v1::SetInterestRequest { stream: name.clone(), add, remove };
                    relay.set_interest(request).await.expect("taken");
                }
            }
            checker
        }));
    }
    let mut venue = Venue::new(5, 2);
    let mut last = String::new();
    for batch in 0..300 {
        let events = (0..10).map(|_| venue.say()).collect();
        let new: Vec<usize> = if batch % 50 == 49 {
            venue.add_symbol();
            vec![2 + batch / 50]
        } else {
            vec![]
        };
        last = publisher.send(&new, events).await.cursor;
    }
    end.store(seq(&last), Ordering::Relaxed);
    for follower in followers {
        let checker = follower.await.expect("does not panic");
        checker.check(&served.fanout.core());
    }
    check_tape(&served.fanout.core());
}

#[tokio::test]
async fn a_stream_resumes_where_it_was() {
    let served = Served::new(Config::default());
    let mut publisher = Publisher::new(&served, "s1").await;
    let mut venue = Venue::new(6, 1);
    let middle = publisher.send(&[0], (0..50).map(|_| venue.say()).collect()).await.cursor;
    let last = publisher.send(&[], (0..50).map(|_| venue.say()).collect()).await.cursor;
    let (mut stream, mut checker) = follow(&served, "edge", &["*/*/*"], &middle).await;
    read_until(&mut stream, &mut checker, |c| c.position == seq(&last)).await;
    assert!(checker.opened.as_ref().expect("opened").resumed);
    assert!(checker.events >= 50);
    checker.check(&served.fanout.core());
    let (mut stream, mut checker) = follow(&served, "other", &["*/*/*"], "zz-5").await;
    read_until(&mut stream, &mut checker, |c| c.is_carried("book/kraken/S0-USD")).await;
    assert!(!checker.opened.as_ref().expect("opened").resumed);
    checker.check(&served.fanout.core());
}

#[tokio::test]
async fn a_newer_stream_takes_the_name_and_the_older_ends() {
    let served = Served::new(Config { streams_max: 1, ..Config::default() });
    let (mut first, _) = follow(&served, "edge", &[], "").await;
    let (mut second, mut checker) = follow(&served, "edge", &[], "").await;
    read_until(&mut second, &mut checker, |c| c.opened.is_some()).await;
    let end = loop {
        match first.message().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), tonic::Code::Aborted);
    let mut relay = RelayClient::new(served.channel().await);
    let full = relay.follow(v1::FollowRequest { stream: "more".into(), ..Default::default() }).await;
    assert_eq!(full.expect_err("full").code(), tonic::Code::ResourceExhausted);
    let unknown = relay.set_interest(v1::SetInterestRequest { stream: "nobody".into(), ..Default::default() }).await;
    assert_eq!(unknown.expect_err("unknown").code(), tonic::Code::NotFound);
    let add = vec!["quote/kraken".to_owned()];
    let bad = relay.set_interest(v1::SetInterestRequest { stream: "edge".into(), add, remove: vec![] }).await;
    assert_eq!(bad.expect_err("no topic").code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn quiet_streams_hear_of_progress_and_draining_ends_them() {
    let served = Served::new(Config::default());
    let (mut stream, mut checker) = follow(&served, "edge", &["trade/*/*"], "").await;
    let mut publisher = Publisher::new(&served, "s1").await;
    let mut venue = Venue::new(7, 1);
    let quotes = std::iter::repeat_with(|| venue.say()).filter(|(_, e)| e.topic.channel.as_str() == "quote").take(5);
    let last = publisher.send(&[0], quotes.collect()).await.cursor;
    read_until(&mut stream, &mut checker, |c| c.position == seq(&last)).await;
    assert_eq!(checker.events, 0);
    served.drain.start("test");
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), tonic::Code::Unavailable);
    let end = publisher.answers.message().await.expect_err("ends too");
    assert_eq!(end.metadata().get("ticker-code").map(|c| c.as_bytes()), Some(&b"draining"[..]));
    drop((stream, publisher));
    served.server.await.expect("does not panic").expect("ends well");
}

#[tokio::test]
async fn batches_sent_again_are_left_out_and_gaps_are_told() {
    let served = Served::new(Config::default());
    let mut venue = Venue::new(8, 1);
    let mut publisher = Publisher::new(&served, "s1").await;
    publisher.send(&[0], (0..5).map(|_| venue.say()).collect()).await;
    let two: Vec<_> = (0..5).map(|_| venue.say()).collect();
    let before = publisher.send(&[], two.clone()).await.cursor;
    // The answer was lost, say: the second batch comes again on a new stream, with the instruments it needs.
    let mut again = Publisher { batch: 1, ..Publisher::new(&served, "s1").await };
    let answer = again.send(&[0], two).await;
    assert_eq!((&answer.cursor, answer.accepted), (&before, 5));
    let after = again.send(&[], vec![venue.say()]).await.cursor;
    assert!(seq(&after) > seq(&answer.cursor));
    again.batch += 1;
    let gap = again.try_send(&[], vec![]).await.expect_err("a gap");
    assert_eq!(gap.code(), tonic::Code::FailedPrecondition);
    assert!(gap.message().starts_with("unknown source"), "{}", gap.message());
    let mut stranger = Publisher { batch: 3, ..Publisher::new(&served, "s2").await };
    let unknown = stranger.try_send(&[], vec![]).await.expect_err("unknown");
    assert_eq!(unknown.code(), tonic::Code::FailedPrecondition);
    // What is wrong is counted, and what is right goes on.
    let mut other = Publisher::new(&served, "s3").await;
    let (_, mut wrong) = venue.say();
    wrong.kind = ticker_market::Kind::Cancel;
    let quote = event(&topic("quote/kraken/S0-USD"), ticker_market::Kind::Update, quote(1, 2));
    let answer = other.try_send(&[0], vec![(9, wrong), (0, quote)]).await.expect("taken");
    assert_eq!((answer.accepted, answer.refused), (1, 1));
}

#[tokio::test]
async fn older_events_and_snapshots_are_given_on_request() {
    let served = Served::new(Config { backfill_events_max: 10, ..Config::default() });
    let mut publisher = Publisher::new(&served, "s1").await;
    let mut venue = Venue::new(9, 1);
    let last = publisher.send(&[0], (0..200).map(|_| venue.say()).collect()).await.cursor;
    let mut relay = RelayClient::new(served.channel().await);
    let mut from = "earliest".to_owned();
    let mut events = Vec::new();
    let topics = vec!["trade/kraken/S0-USD".to_owned(), "book-10/kraken/S0-USD".to_owned()];
    while from != last {
        let request = v1::BackfillRequest { topics: topics.clone(), from: from.clone(), recent: 0, limit: 0 };
        let page = relay.backfill(request).await.expect("given").into_inner();
        assert!(page.events.len() <= 11 && page.expired.is_empty());
        events.extend(page.events.into_iter().map(|e| (e.seq, e.topic)));
        from = page.through;
    }
    {
        let core = served.fanout.core();
        let ids: Vec<_> = topics.iter().map(|t| core.topic_id(&topic(t)).expect("known")).collect();
        let all: Vec<_> = core.tape().events_of(&ids, 0).map(|(_, e)| (e.seq, e.topic.to_string())).collect();
        assert_eq!(events, all);
    }
    let request = v1::BackfillRequest { topics: topics[..1].to_vec(), from: String::new(), recent: 2, limit: 0 };
    assert_eq!(relay.backfill(request).await.expect("given").into_inner().events.len(), 2);

    let mut market = MarketDataClient::new(served.channel().await);
    let get = |topics: &[&str]| v1::GetSnapshotRequest { topics: topics.iter().map(|t| (*t).to_owned()).collect() };
    let all = market.get_snapshot(get(&["*/kraken/*"])).await.expect("given").into_inner();
    assert_eq!((all.cursor, all.events.len()), (last, 5));
    assert!(all.events.iter().all(|e| e.prev == 0));
    for (topics, code) in [
        (vec!["quote/kraken/X-USD"], "unknown_topic"),
        (vec!["trade/kraken/S0-USD"], "bad_request"),
        (vec!["deriv/kraken/S0-USD"], "not_implemented"),
        (vec!["quote"], "bad_request"),
        (vec![], "bad_request"),
    ] {
        let status = market.get_snapshot(get(&topics)).await.expect_err("refused");
        assert_eq!(status.metadata().get("ticker-code").map(|c| c.as_bytes()), Some(code.as_bytes()), "{topics:?}");
    }
    let listed = market.list_instruments(v1::ListInstrumentsRequest::default()).await.expect("given").into_inner();
    assert_eq!(listed.instruments.len(), 1);
}

#[tokio::test]
async fn history_is_given_by_time_in_pages() {
    let served = Served::new(Config::default());
    let mut publisher = Publisher::new(&served, "s1").await;
    let now = crate::now();
    let events = (0..50).map(|i| {
        let named = topic("trade/kraken/S0-USD");
        (0, Event { ts: Some(now.plus_millis(i - 100)), ..event(&named, Kind::Update, trade(i as u64)) })
    });
    publisher.send(&[0], events.collect()).await;
    let mut market = MarketDataClient::new(served.channel().await);
    let (venue, symbol) = ("kraken".to_owned(), "S0-USD".to_owned());
    let (start, end) = (now.plus_millis(-90).0, now.plus_millis(-60).0);
    let mut asked = v1::GetTradesRequest { venue, symbol, start, end, limit: 20, cursor: String::new() };
    let first = market.get_trades(asked.clone()).await.expect("given").into_inner();
    asked.cursor = first.next;
    let second = market.get_trades(asked.clone()).await.expect("given").into_inner();
    assert_eq!((first.events.len(), second.events.len(), second.next.as_str()), (20, 10, ""));
    assert!(first.events.iter().chain(&second.events).is_sorted_by_key(|e| e.ts));
    let refused = [
        v1::GetTradesRequest { cursor: "e0-5".into(), ..asked.clone() },
        v1::GetTradesRequest { cursor: "five".into(), ..asked.clone() },
        v1::GetTradesRequest { end: start, cursor: String::new(), ..asked.clone() },
        v1::GetTradesRequest { venue: "Kraken".into(), cursor: String::new(), ..asked.clone() },
    ];
    for request in refused {
        let status = market.get_trades(request.clone()).await.expect_err("refused");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{request:?}");
    }
    let unknown = v1::GetTradesRequest { symbol: "S1-USD".into(), cursor: String::new(), ..asked.clone() };
    assert_eq!(market.get_trades(unknown).await.expect_err("unknown").code(), tonic::Code::NotFound);
    let (venue, symbol) = (asked.venue, asked.symbol);
    let bars = v1::GetBarsRequest { venue, symbol, interval: "1m".into(), ..Default::default() };
    let given = market.get_bars(bars.clone()).await.expect("given").into_inner();
    assert_eq!((given.events.len(), given.next.as_str()), (0, ""), "none is closed yet");
    let bars = market.get_bars(v1::GetBarsRequest { interval: "2m".into(), ..bars }).await.expect_err("no such");
    assert_eq!(bars.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn health_and_both_reflections_are_served() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let served = Served::new(Config::default());
    let channel = served.channel().await;
    let request = HealthCheckRequest { service: "ticker.v1.Relay".into() };
    let health = HealthClient::new(channel.clone()).check(request).await.expect("known").into_inner();
    assert_eq!(health.status, 1, "SERVING");

    macro_rules! services {
        ($pb:ident) => {{
            use tonic_reflection::pb::$pb::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$pb::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$pb::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            };
            let list = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(channel.clone());
            let mut answers =
                client.server_reflection_info(tokio_stream::once(list)).await.expect("served").into_inner();
            let answer = answers.message().await.expect("an answer").expect("an answer");
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("a list") };
            list.service.into_iter().map(|s| s.name).collect::<Vec<_>>()
        }};
    }
    for services in [services!(v1), services!(v1alpha)] {
        for name in ["ticker.v1.Ingest", "ticker.v1.Relay", "ticker.v1.MarketData", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|s| s == name), "{name} in {services:?}");
        }
    }
}
