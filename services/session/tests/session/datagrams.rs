//! What goes by an unreliable way: whole snapshots, repeated after a quiet time; the rest goes in order as ever.

use std::sync::Arc;

use ticker_market::{Channel, Data, Event, Kind, Level, Levels, Quote, Time, Topic, decimal};
use ticker_proto::message::{Request, Subscribe, Unsubscribe};
use ticker_proto::{Form, Frame};
use ticker_session::{Hub, Limits, Mode, Opening, SessionId};

use crate::tape::instrument;

const START: Time = Time(1_700_000_000_000_000_000);

/// A hub with one reader, and the time.
struct Scene {
    hub: Hub,
    id: SessionId,
    now: Time,
}

fn topic(channel: Channel) -> Topic {
    Topic::new(channel, "kraken", "AAA").expect("valid")
}

fn level(price: &str, size: &str) -> Level {
    Level { price: decimal::parse(price).expect(price), size: decimal::parse(size).expect(size) }
}

fn frame(channel: Channel, seq: u64, kind: Kind, data: Data) -> Arc<Frame> {
    let topic = Arc::new(topic(channel));
    let event = Event { topic, seq, prev: seq - 1, kind, ts: None, recv: START, published: START, data };
    Arc::new(Frame::new(event, "e1".into()))
}

fn quote(seq: u64, bid: &str) -> Arc<Frame> {
    let data = Data::Quote(Quote { bid: Some(level(bid, "1")), ..Quote::default() });
    frame(Channel::Quote, seq, Kind::Update, data)
}

fn book(seq: u64, kind: Kind, bid: &str) -> Arc<Frame> {
    frame(Channel::Book10, seq, kind, Data::Book(Levels { bids: vec![level(bid, "1")], ..Levels::default() }))
}

impl Scene {
    fn new(topics: &[&str], max_rate: Option<f64>) -> Self {
        let mut hub = Hub::new(Limits::default());
        hub.opened("e1", 7, false, START);
        hub.instruments(vec![instrument("kraken", "AAA")], START);
        let id = hub.open(Opening { form: Form::Json, mode: Mode::Stream }, START).expect("room");
        hub.allow_datagrams(id);
        let topics = topics.iter().map(|t| (*t).to_owned()).collect();
        let subscribe = Subscribe { topics, max_rate, delivery: Some("datagram".into()), ..Subscribe::default() };
        hub.request(id, Request::Subscribe(subscribe), START).expect("a good request");
        let added = [quote(7, "1"), book(6, Kind::Snapshot, "1")];
        let added = added.map(|f| (Topic::clone(&f.event.topic), f.event.seq, Some(f))).to_vec();
        hub.added(added, false, START);
        Self { hub, id, now: START }
    }

    /// All that is sent now: whether by datagram, and the text.
    fn sent(&mut self) -> Vec<(bool, String)> {
        let (mut ready, mut plan, mut all) = (Vec::new(), Vec::new(), Vec::new());
        self.hub.tick(self.now);
        loop {
            self.hub.take_ready(&mut ready);
            if ready.is_empty() {
                self.hub.audit().expect("whole");
                return all;
            }
            self.hub.plan(self.id, 1 << 20, self.now, &mut plan);
            let text = |b: &[u8]| String::from_utf8(b.to_vec()).expect("text");
            all.extend(plan.iter().map(|o| (o.is_datagram, text(&o.encoded().bytes))));
            let taken = plan.len();
            self.hub.commit(self.id, &mut plan, taken, false, self.now);
        }
    }

    fn publish(&mut self, frames: &[Arc<Frame>]) {
        self.hub.publish(frames, self.now);
    }

    fn pass(&mut self, millis: i64) {
        self.now = self.now.plus_millis(millis);
    }

    /// When something is sent in the next `seconds`, in milliseconds from now; heartbeats left out.
    fn times(&mut self, seconds: i64) -> Vec<i64> {
        let (from, mut times) = (self.now, Vec::new());
        let end = from.plus_millis(seconds * 1_000);
        while let Some(at) = self.hub.next_timer().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            if self.sent().iter().any(|(datagram, _)| *datagram) {
                times.push(self.now.since(from) / 1_000_000);
            }
        }
        self.now = end;
        times
    }
}

#[test]
fn the_beginning_comes_in_order_and_what_follows_as_whole_snapshots() {
    let mut scene = Scene::new(&["quote/kraken/AAA", "book-10/kraken/AAA"], None);
    let first = scene.sent();
    assert_eq!(first.len(), 4, "welcome, two snapshots, subscribed: {first:?}");
    assert!(first.iter().all(|(datagram, _)| !datagram));
    scene.publish(&[quote(8, "2"), quote(9, "3"), book(9, Kind::Update, "2"), book(10, Kind::Update, "3")]);
    let next = scene.sent();
    assert_eq!(next.len(), 2, "{next:?}");
    for (datagram, text) in &next {
        assert!(*datagram && text.contains(r#""prev":0,"kind":"snapshot""#), "{text}");
    }
    assert!(next[0].1.contains(r#""bid":"3""#), "{next:?}");
    assert!(next[1].1.contains(r#""bids":[["3","1"],["2","1"],["1","1"]]"#), "{next:?}");
    // What was left out is told with the next heartbeat.
    scene.pass(15_000);
    let told = scene.sent();
    assert!(told.iter().any(|(_, t)| t.contains(r#""op":"heartbeat","cursor":"e1-10","conflated":2"#)), "{told:?}");
}

#[test]
fn the_newest_value_is_repeated_less_and_less_often_until_there_is_news() {
    let mut scene = Scene::new(&["quote/kraken/AAA"], None);
    scene.sent();
    assert_eq!(scene.times(60), Vec::<i64>::new(), "what came in order is not repeated");
    scene.publish(&[quote(8, "2")]);
    assert_eq!(scene.sent().len(), 1);
    assert_eq!(scene.times(60), [200, 1_200, 3_200, 7_200, 15_200, 30_200, 45_200]);
    scene.publish(&[quote(9, "3")]);
    assert_eq!(scene.sent().len(), 1);
    assert_eq!(scene.times(2), [200, 1_200]);
    let leave = Unsubscribe { id: 1, topics: vec!["quote/kraken/AAA".into()] };
    scene.hub.request(scene.id, Request::Unsubscribe(leave), scene.now).expect("a good request");
    scene.sent();
    assert_eq!(scene.times(60), Vec::<i64>::new());
}

#[test]
fn over_a_path_that_loses_packets_it_is_repeated_soon() {
    let mut scene = Scene::new(&["quote/kraken/AAA"], None);
    scene.sent();
    scene.hub.path_is_lossy(scene.id, true);
    scene.publish(&[quote(8, "2")]);
    assert_eq!(scene.sent().len(), 1);
    assert_eq!(scene.times(4), [5, 205, 1_205, 3_205]);
    scene.hub.path_is_lossy(scene.id, false);
    scene.publish(&[quote(9, "3")]);
    assert_eq!(scene.sent().len(), 1);
    assert_eq!(scene.times(2), [200, 1_200]);
}

#[test]
fn that_nothing_can_be_trusted_is_never_lost() {
    let mut scene = Scene::new(&["quote/kraken/AAA"], None);
    scene.sent();
    let invalid = frame(Channel::Quote, 8, Kind::Invalid, Data::Invalid("gap".into()));
    scene.publish(&[invalid]);
    let sent = scene.sent();
    assert!(sent.len() == 1 && !sent[0].0 && sent[0].1.contains(r#""kind":"invalid""#), "{sent:?}");
    assert_eq!(scene.times(60), Vec::<i64>::new());
}

#[test]
fn a_rate_limit_holds_for_datagrams_too() {
    let mut scene = Scene::new(&["quote/kraken/AAA"], Some(1.0));
    scene.sent();
    scene.publish(&[quote(8, "2")]);
    assert_eq!(scene.sent().len(), 0, "the beginning was a moment ago");
    scene.pass(400);
    scene.publish(&[quote(9, "3")]);
    assert_eq!(scene.sent().len(), 0);
    scene.pass(600);
    let sent = scene.sent();
    assert!(sent.len() == 1 && sent[0].0 && sent[0].1.contains(r#""bid":"3""#), "{sent:?}");
}
