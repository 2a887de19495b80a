//! Every limit, and every request that cannot be done.

use ticker_market::Time;
use ticker_proto::message::{Limit, Ping, Request, Subscribe, Unsubscribe};
use ticker_proto::{Code, Form};
use ticker_session::{Hub, Limits, Mode, Need, Opening, SessionId};

use crate::tape::instrument;

const NOW: Time = Time(1_700_000_000_000_000_000);

fn hub(limits: Limits) -> (Hub, SessionId) {
    let mut hub = Hub::new(limits);
    let opening = Opening { form: Form::Json, mode: Mode::Stream };
    let refusal = hub.open(opening, NOW).expect_err("no epoch yet");
    assert_eq!(refusal.code, Code::Draining);
    hub.opened("e1", 7, false, NOW);
    hub.instruments(["AAA", "BBB", "CCC"].iter().map(|s| instrument("kraken", s)).collect(), NOW);
    let id = hub.open(opening, NOW).expect("room");
    (hub, id)
}

fn subscribe(topics: &[&str]) -> Subscribe {
    Subscribe { topics: topics.iter().map(|t| (*t).to_owned()).collect(), ..Subscribe::default() }
}

fn refused(hub: &mut Hub, id: SessionId, request: Subscribe) -> (Code, String) {
    hub.take_needs();
    let refusal = hub.request(id, Request::Subscribe(request), NOW).expect_err("refused");
    assert!(hub.take_needs().is_empty(), "what is refused changes nothing");
    hub.audit().expect("whole");
    (refusal.code, refusal.message)
}

#[test]
fn bad_requests_say_what_is_wrong_and_change_nothing() {
    let (mut hub, id) = hub(Limits::default());
    let bad = |topics: &[&str], change: &dyn Fn(&mut Subscribe)| {
        let mut request = subscribe(topics);
        change(&mut request);
        request
    };
    let cases: Vec<(Subscribe, Code, &str)> = vec![
        (subscribe(&[]), Code::BadRequest, "no topics"),
        (subscribe(&["quote"]), Code::BadRequest, "is not a topic"),
        (subscribe(&["qoute/kraken/AAA"]), Code::BadRequest, "is not a channel"),
        (subscribe(&["quote/kraken/AAA", "quote/kraken/AAX"]), Code::UnknownTopic, "did you mean AAA?"),
        (subscribe(&["quote/krakn/AAA"]), Code::UnknownTopic, "did you mean kraken?"),
        (subscribe(&["deriv/kraken/AAA"]), Code::NotImplemented, "deriv"),
        (subscribe(&["quote/kraken/*", "liquidation/*/*"]), Code::NotImplemented, "liquidation"),
        (bad(&["quote/kraken/AAA"], &|s| s.from = Some("x".into())), Code::BadRequest, "cursor"),
        (bad(&["quote/kraken/AAA"], &|s| s.max_rate = Some(-1.0)), Code::BadRequest, "max_rate"),
        (bad(&["quote/kraken/AAA"], &|s| s.max_rate = Some(f64::NAN)), Code::BadRequest, "max_rate"),
        (bad(&["quote/kraken/AAA"], &|s| s.max_kbps = Some(0.5)), Code::BadRequest, "max_kbps"),
        (bad(&["quote/kraken/AAA"], &|s| s.max_kbps = Some(f64::INFINITY)), Code::BadRequest, "max_kbps"),
        (bad(&["quote/kraken/AAA"], &|s| s.fields = Some(vec!["bdi".into()])), Code::BadRequest, "bdi"),
        (bad(&["quote/kraken/AAA"], &|s| s.delivery = Some("pigeon".into())), Code::BadRequest, "delivery"),
        (bad(&["book/kraken/AAA"], &|s| s.have = [("x".into(), 1)].into()), Code::BadRequest, "is not a topic"),
    ];
    for (request, code, says) in cases {
        let (got, message) = refused(&mut hub, id, request.clone());
        assert_eq!(got, code, "{request:?}: {message}");
        assert!(message.contains(says), "{message}");
    }
    let wrong = Limit { id: 1, max_rate: Some(5.0), max_kbps: Some(-3.0) };
    assert_eq!(hub.request(id, Request::Limit(wrong), NOW).expect_err("refused").code, Code::BadRequest);
    let wrong = Unsubscribe { id: 1, topics: vec!["quote/kraken/AAA".into(), "nonsense".into()] };
    assert_eq!(hub.request(id, Request::Unsubscribe(wrong), NOW).expect_err("refused").code, Code::BadRequest);
}

#[test]
fn too_many_topics_patterns_and_sessions_are_refused() {
    let limits = Limits { session_topics_max: 6, session_patterns_max: 2, sessions_max: 2, ..Limits::default() };
    let (mut hub, id) = hub(limits);
    let ok = |hub: &mut Hub, topics: &[&str]| hub.request(id, Request::Subscribe(subscribe(topics)), NOW);
    assert_eq!(refused(&mut hub, id, subscribe(&["x"; 7])).0, Code::TooManyTopics);
    assert_eq!(refused(&mut hub, id, subscribe(&["*/kraken/AAA", "trade/kraken/BBB"])).0, Code::TooManyTopics);
    ok(&mut hub, &["quote/kraken/*", "trade/kraken/*"]).expect("six topics");
    // What the session has already counts once.
    ok(&mut hub, &["quote/kraken/*", "trade/kraken/*", "quote/kraken/AAA"]).expect("the same six");
    hub.take_needs();
    assert_eq!(refused(&mut hub, id, subscribe(&["book/kraken/AAA"])).0, Code::TooManyTopics);
    assert_eq!(refused(&mut hub, id, subscribe(&["quote/*/*"])).0, Code::TooManyTopics);
    // One that appears later is one too many, and the reader is told.
    hub.instruments(vec![instrument("kraken", "DDD")], NOW);
    let mut plan = Vec::new();
    hub.plan(id, usize::MAX, NOW, &mut plan);
    let last = String::from_utf8(plan.last().expect("an error").encoded().bytes.to_vec()).expect("text");
    assert!(last.contains("too_many_topics") && last.contains("appeared"), "{last}");
    hub.audit().expect("whole");
    let opening = Opening { form: Form::Json, mode: Mode::Once };
    let second = hub.open(opening, NOW).expect("room for two");
    assert_eq!(hub.open(opening, NOW).expect_err("full").code, Code::TooManySessions);
    hub.close(second);
    hub.open(opening, NOW).expect("room again");
    assert_eq!(hub.sessions(), 2);
}

#[test]
fn more_requests_than_a_second_allows_are_refused_until_it_is_over() {
    let (mut hub, id) = hub(Limits { requests_per_second_max: 3, ..Limits::default() });
    let mut ping = |at: Time| hub.request(id, Request::Ping(Ping { id: 1 }), at).map_err(|r| r.code);
    for _ in 0..3 {
        assert_eq!(ping(NOW), Ok(()));
    }
    assert_eq!(ping(NOW.plus_millis(999)), Err(Code::RateLimited));
    assert_eq!(ping(NOW.plus_millis(1_000)), Ok(()));
}

#[test]
fn what_is_not_there_yet_says_so() {
    let (mut hub, id) = hub(Limits::default());
    let auth = Request::Auth(ticker_proto::message::Auth { id: 1, token: "t".into() });
    assert_eq!(hub.request(id, auth, NOW).expect_err("later").code, Code::NotImplemented);
}

#[test]
fn a_session_that_is_gone_is_nobody() {
    let (mut hub, id) = hub(Limits::default());
    hub.close(id);
    hub.close(id);
    hub.writable(id);
    assert_eq!(hub.request(id, Request::Subscribe(subscribe(&["quote/kraken/AAA"])), NOW), Ok(()));
    let mut plan = Vec::new();
    hub.plan(id, usize::MAX, NOW, &mut plan);
    assert!(plan.is_empty());
    assert_eq!(hub.commit(id, &mut plan, 0, false, NOW), None);
    assert_eq!((hub.cursor(id), hub.is_settled(id), hub.sessions()), (None, false, 0));
    assert!(hub.take_needs().is_empty());
    // A new one in its place is not mistaken for it.
    let new = hub.open(Opening { form: Form::Json, mode: Mode::Stream }, NOW).expect("room");
    assert_ne!(new, id);
    hub.close(id);
    assert_eq!(hub.sessions(), 1);
}

#[test]
fn needs_that_nobody_takes_are_bounded_and_say_the_same() {
    let (mut hub, _) = hub(Limits::default());
    let opening = Opening { form: Form::Json, mode: Mode::Stream };
    let topics = ["quote/kraken/AAA", "trade/kraken/AAA", "trade/*/BBB"];
    let mut wanted = std::collections::BTreeMap::<String, i32>::new();
    let mut taken = 0;
    for round in 0..5_000 {
        let id = hub.open(opening, NOW).expect("room");
        hub.request(id, Request::Subscribe(subscribe(&topics[round % 3..])), NOW).expect("good");
        let last = round == 4_999;
        if !last {
            hub.close(id);
        }
        // Now and then somebody takes a few, and all in the end.
        let most = if last { usize::MAX } else { 7 * usize::from(round % 1_000 == 500) };
        for _ in 0..most {
            taken += 1;
            match hub.take_need() {
                Some(Need::Want(p)) => *wanted.entry(p.to_string()).or_default() += 1,
                Some(Need::Unwant(p)) => *wanted.entry(p.to_string()).or_default() -= 1,
                Some(Need::Backfill { .. }) => {}
                None => break,
            }
            assert!(wanted.values().all(|n| (0..=1).contains(n)), "wanted twice, or not wanted: {wanted:?}");
        }
    }
    assert!(taken <= 1_100, "{taken} needs");
    let wanted: Vec<&str> = wanted.iter().filter(|(_, n)| **n == 1).map(|(p, _)| p.as_str()).collect();
    assert_eq!(wanted, ["trade/*/BBB", "trade/kraken/AAA"], "what the last reader wants");
}
