use ticker_market::{Book, Kind, State};
use ticker_proto::convert::message_from_wire;
use ticker_proto::v1::market_data_client::MarketDataClient;
use ticker_proto::{Message, Notice};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::Config;
use crate::fixture::{self, Served, Venue, trade};

/// Puts events on a fanout's tape, as an ingest service would.
fn put(fanout: &Fanout, events: impl IntoIterator<Item = Event>) {
    let mut core = fanout.core();
    for event in events {
        let id = core.topic_id(&event.topic).expect("announced");
        core.put(id, event, now()).expect("good");
    }
    let head = core.tape().head();
    drop(core);
    fanout.wake(head);
}

fn announce(fanout: &Fanout, symbol: &str) {
    let mut core = fanout.core();
    let stream = core.attach("s1", 1, now()).expect("known or new");
    core.announce(stream.source, fixture::instrument(symbol), now()).expect("fits");
    let head = core.tape().head();
    drop(core);
    fanout.wake(head);
}

fn read(message: v1::SubscribeResponse) -> Message {
    let bytes = prost::Message::encode_to_vec(&message);
    let same: v1::SessionResponse = prost::Message::decode(&bytes[..]).expect("the same bytes");
    message_from_wire(same).expect("valid")
}

async fn subscribe(served: &Served, topics: &[&str], from: &str) -> tonic::Streaming<v1::SubscribeResponse> {
    let request = v1::SubscribeRequest {
        topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        from: from.to_owned(),
        conflate: Some(false),
        ..Default::default()
    };
    MarketDataClient::new(served.channel().await).subscribe(request).await.expect("taken").into_inner()
}

#[tokio::test]
async fn a_subscription_gives_a_snapshot_then_every_update_and_resumes() {
    let served = Served::new(Config::default());
    announce(&served.fanout, &Venue::symbol(0));
    let mut venue = Venue::new(21, 1);
    put(&served.fanout, (0..200).map(|_| venue.say().1));
    let topic = format!("book/kraken/{}", Venue::symbol(0));
    let mut stream = subscribe(&served, &[&topic, "trade/*/*"], "").await;
    let (mut book, mut good, mut events, mut cursor) = (Book::new(), false, 0, String::new());
    for round in 0..20 {
        while events < round * 10 || cursor.is_empty() {
            match read(stream.message().await.expect("goes on").expect("goes on")) {
                Message::Event(part) => {
                    if part.event.topic.to_string() == topic {
                        fixture::apply(&mut book, &mut good, &part.event);
                    }
                    events += 1;
                }
                Message::Notice(Notice::Subscribed { cursor: at, .. }) => cursor = at,
                Message::Notice(_) => {}
            }
        }
        put(&served.fanout, (0..60).map(|_| venue.say().1));
    }
    // Every trade after the cursor comes again to who resumes there, and no other.
    let after = cursor.parse::<ticker_market::Cursor>().expect("a cursor").seq;
    let expected: Vec<u64> = {
        let core = served.fanout.core();
        let id = core.topic_id(&fixture::topic(&format!("trade/kraken/{}", Venue::symbol(0)))).expect("known");
        core.tape().events_of(&[id], after).map(|(_, e)| e.seq).collect()
    };
    let mut stream = subscribe(&served, &["trade/*/*"], &cursor).await;
    let mut got = Vec::new();
    while got.len() < expected.len() {
        if let Message::Event(part) = read(stream.message().await.expect("goes on").expect("goes on")) {
            got.push(part.event.seq);
        }
    }
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_session_changes_its_subscriptions_and_hears_of_errors() {
    let served = Served::new(Config::default());
    announce(&served.fanout, "A-USD");
    put(
        &served.fanout,
        [fixture::event(&fixture::topic("status/kraken/A-USD"), Kind::Update, fixture::status(State::Live))],
    );
    let (requests, receiver) = mpsc::channel(4);
    let mut client = MarketDataClient::new(served.channel().await);
    let mut answers = client.session(ReceiverStream::new(receiver)).await.expect("open").into_inner();
    let mut next = async || {
        let message = answers.message().await.expect("goes on").expect("goes on");
        message_from_wire(message).expect("valid")
    };
    assert!(matches!(next().await, Message::Notice(Notice::Welcome { .. })));
    let subscribe = |id, topic: &str| v1::SessionRequest {
        message: Some(v1::session_request::Message::Subscribe(v1::Subscribe {
            id,
            topics: vec![topic.to_owned()],
            ..Default::default()
        })),
    };
    requests.send(subscribe(1, "quote/kraken/A-USX")).await.expect("open");
    let Message::Notice(Notice::Error { id, code, message, .. }) = next().await else { panic!("an error") };
    assert_eq!((id, code.as_str()), (Some(1), "unknown_topic"));
    assert!(message.contains("did you mean A-USD?"), "{message}");
    requests.send(subscribe(2, "status/kraken/*")).await.expect("open");
    let Message::Event(part) = next().await else { panic!("a snapshot") };
    assert_eq!(part.event.kind, Kind::Snapshot);
    assert!(matches!(next().await, Message::Notice(Notice::Subscribed { id: 2, .. })));
    // The caller has nothing more to say: the session goes on, also with instruments that appear later.
    drop(requests);
    announce(&served.fanout, "B-USD");
    let later = fixture::topic("status/kraken/B-USD");
    put(&served.fanout, [fixture::event(&later, Kind::Update, fixture::status(State::Live))]);
    let Message::Event(part) = next().await else { panic!("an event") };
    assert_eq!(*part.event.topic, later);
    served.drain.start("test");
    assert!(matches!(next().await, Message::Notice(Notice::Goodbye { .. })));
    assert_eq!(answers.message().await.expect_err("ends").code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn a_subscription_that_cannot_be_is_refused() {
    let served = Served::new(Config { sessions_max: 1, ..Config::default() });
    announce(&served.fanout, "A-USD");
    let mut client = MarketDataClient::new(served.channel().await);
    for (topic, code) in
        [("quote/kraken/X-USD", "unknown_topic"), ("quote", "bad_request"), ("deriv/*/*", "not_implemented")]
    {
        let request = v1::SubscribeRequest { topics: vec![topic.to_owned()], ..Default::default() };
        let status = client.subscribe(request).await.expect_err("refused");
        assert_eq!(status.metadata().get("ticker-code").map(|c| c.as_bytes()), Some(code.as_bytes()));
    }
    let _one = subscribe(&served, &["trade/*/*"], "").await;
    let request = v1::SubscribeRequest { topics: vec!["trade/*/*".to_owned()], ..Default::default() };
    let status = client.subscribe(request).await.expect_err("full");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    put(&served.fanout, [fixture::event(&fixture::topic("trade/kraken/A-USD"), Kind::Update, trade(1))]);
}
