use ticker_market::{Decimal, From};
use ticker_tape::Limits;

use super::*;
use crate::fixture::*;
use crate::sources::{Admission, SourceError};

const BOOK: &str = "book/kraken/A-USD";

fn walk(seed: u64, events: usize) -> Published {
    let symbols: Vec<String> = (0..4).map(Venue::symbol).collect();
    let mut published = Published::new(core(), &symbols.iter().map(String::as_str).collect::<Vec<_>>());
    let mut venue = Venue::new(seed, 4);
    for _ in 0..events {
        let (_, event) = venue.say();
        published.now = published.now.plus_nanos(1);
        let id = published.core.topic_id(&event.topic).expect("announced");
        published.core.put(id, event, published.now).expect("a good venue");
    }
    published
}

#[test]
fn the_tape_of_a_random_walk_equals_an_independent_recomputation() {
    for seed in 0..8 {
        let published = walk(seed, 1_500);
        check_tape(&published.core);
        let head = published.core.tape().head();
        for number in 0..published.core.topics_len() {
            let id = TopicId(number as u32);
            assert_eq!(published.core.snapshot(id), value_at(&published.core, id, head), "seed {seed}");
        }
    }
}

#[test]
fn chains_go_on_through_snapshots_and_invalids() {
    let mut p = Published::new(core(), &["A-USD"]);
    let chain = |p: &Published| (p.last(BOOK).prev, p.last(BOOK).kind);
    p.put(BOOK, Kind::Snapshot, levels(&[(99, 1)], &[(101, 1)])).expect("good");
    let first = p.last(BOOK).seq;
    assert_eq!(chain(&p), (0, Kind::Snapshot));
    p.put(BOOK, Kind::Update, levels(&[(98, 1)], &[])).expect("good");
    assert_eq!(chain(&p), (first, Kind::Update));
    let second = p.last(BOOK).seq;
    p.put(BOOK, Kind::Invalid, Data::Invalid("gap".into())).expect("good");
    assert_eq!(chain(&p), (second, Kind::Invalid));
    assert_eq!(p.last("book-10/kraken/A-USD").kind, Kind::Invalid);
    let head = p.core.tape().head();
    p.put(BOOK, Kind::Invalid, Data::Invalid("gap".into())).expect("taken, but nothing new");
    assert_eq!(p.core.tape().head(), head);
    assert_eq!(p.put(BOOK, Kind::Update, levels(&[(97, 1)], &[])), Err(Refusal::BookWaits));
    p.put(BOOK, Kind::Snapshot, levels(&[(99, 1)], &[(101, 1)])).expect("good");
    p.put("quote/kraken/A-USD", Kind::Update, quote(99, 101)).expect("good");
    assert_eq!(p.last("quote/kraken/A-USD").kind, Kind::Snapshot, "a state topic begins with a snapshot");
    p.put("quote/kraken/A-USD", Kind::Update, quote(98, 101)).expect("good");
    assert_eq!(p.last("quote/kraken/A-USD").kind, Kind::Update);
    check_tape(&p.core);
}

#[test]
fn a_crossed_book_is_never_shown() {
    let mut p = Published::new(core(), &["A-USD"]);
    p.put("status/kraken/A-USD", Kind::Update, status(State::Live)).expect("good");
    p.put(BOOK, Kind::Snapshot, levels(&[(99, 1)], &[(101, 1)])).expect("good");
    assert_eq!(p.put(BOOK, Kind::Update, levels(&[(101, 1)], &[])), Err(Refusal::Crossed));
    for book in [BOOK, "book-10/kraken/A-USD", "book-50/kraken/A-USD"] {
        assert_eq!(p.last(book).data, Data::Invalid("crossed".into()));
    }
    let shown = |p: &Published| match p.last("status/kraken/A-USD").data {
        Data::Status(s) => (s.state, s.reason.map(|r| r.to_string())),
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(&p), (State::Resyncing, Some("crossed".into())));
    assert_eq!(p.put(BOOK, Kind::Update, levels(&[(98, 1)], &[])), Err(Refusal::BookWaits));
    p.put(BOOK, Kind::Snapshot, levels(&[(99, 1)], &[(101, 1)])).expect("good");
    assert_eq!(shown(&p), (State::Live, None));
    check_tape(&p.core);
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut p = Published::new(core(), &["A-USD"]);
    p.put(BOOK, Kind::Snapshot, levels(&[(99, 1)], &[(101, 1)])).expect("good");
    let head = p.core.tape().head();
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let mut negative = trade(1);
    if let Data::Trade(t) = &mut negative {
        t.size = Decimal::NEGATIVE_ONE;
    }
    for (topic, kind, data, why) in [
        ("quote/kraken/A-USD", Kind::Cancel, quote(1, 2), Refusal::Kind),
        ("quote/kraken/A-USD", Kind::Update, trade(1), Refusal::Kind),
        ("quote/kraken/A-USD", Kind::Invalid, Data::Invalid(long.into()), Refusal::Text),
        ("trade/kraken/A-USD", Kind::Snapshot, trade(1), Refusal::Kind),
        ("trade/kraken/A-USD", Kind::Cancel, trade(1), Refusal::Reference),
        ("trade/kraken/A-USD", Kind::Update, negative, Refusal::Size),
        ("book-10/kraken/A-USD", Kind::Snapshot, levels(&[], &[]), Refusal::Channel),
        ("status/kraken/A-USD", Kind::Invalid, Data::Invalid("x".into()), Refusal::Kind),
    ] {
        assert_eq!(p.put(topic, kind, data), Err(why), "{topic} {kind:?}");
    }
    assert_eq!(p.core.tape().head(), head);
    assert_eq!(p.put(BOOK, Kind::Update, levels(&[(98, -1)], &[])), Err(Refusal::Levels));
    assert_eq!(p.last(BOOK).data, Data::Invalid("gap".into()));
    let best = Instrument { venue: BEST.into(), ..instrument("A-USD") };
    assert_eq!(p.core.announce(p.stream.source, best, Time(0)).map(|_| ()), Err(Refusal::Venue));
}

#[test]
fn batches_are_taken_once_and_without_a_gap() {
    let mut core = core();
    assert!(matches!(core.attach("a", 7, Time(0)), Err(SourceError::Unknown { batch: 7, last: 0, .. })));
    assert!(core.attach("a", 7, Time(0)).expect_err("unknown").to_string().starts_with("unknown source"));
    let stream = core.attach("a", 1, Time(0)).expect("new");
    assert_eq!(core.admit(stream, 1), Ok(Admission::Next));
    core.admitted(stream, 1);
    assert_eq!(core.admit(stream, 1), Ok(Admission::Known));
    assert!(matches!(core.admit(stream, 3), Err(SourceError::Unknown { last: 1, .. })));
    let newer = core.attach("a", 1, Time(0)).expect("a known batch");
    assert_eq!(core.admit(newer, 2), Ok(Admission::Next));
    assert_eq!(core.admit(stream, 2), Err(SourceError::Superseded));
    assert!(matches!(core.attach("a", 3, Time(0)), Err(SourceError::Unknown { .. })));
    assert_eq!(core.attach("", 1, Time(0)), Err(SourceError::Malformed));
    assert_eq!(core.attach("b", 0, Time(0)), Err(SourceError::Malformed));
    for name in ["b", "c", "d"] {
        core.attach(name, 1, Time(0)).expect("fits");
    }
    assert_eq!(core.attach("e", 1, Time(0)), Err(SourceError::TooMany(4)));
    core.detach(newer, Time(0));
    core.sweep(Time(LIMITS.source_grace_nanos));
    core.attach("e", 1, Time(0)).expect("in the place of the one that is lost");
    assert!(matches!(core.attach("a", 2, Time(0)), Err(SourceError::Unknown { .. })), "forgotten");
}

#[test]
fn a_lost_publisher_makes_its_instruments_stale_until_it_goes_on() {
    let mut p = Published::new(core(), &["A-USD", "B-USD"]);
    p.core.admitted(p.stream, 1);
    p.put("status/kraken/A-USD", Kind::Update, status(State::Live)).expect("good");
    p.put(BOOK, Kind::Snapshot, levels(&[(99, 1)], &[(101, 1)])).expect("good");
    p.put(BOOK, Kind::Update, levels(&[(98, 2)], &[])).expect("good");
    p.put("quote/kraken/A-USD", Kind::Update, quote(99, 101)).expect("good");
    let book = p.core.snapshot(p.id(BOOK)).expect("a book");
    p.core.detach(p.stream, Time(0));
    let grace = LIMITS.source_grace_nanos;
    assert!(!p.core.sweep(Time(grace - 1)), "it may be back in time");
    assert!(p.core.sweep(Time(grace)));
    assert!(!p.core.sweep(Time(2 * grace)), "told once");
    for topic in [BOOK, "book-10/kraken/A-USD", "book-50/kraken/A-USD", "quote/kraken/A-USD"] {
        assert_eq!(p.last(topic).data, Data::Invalid("stale".into()), "{topic}");
    }
    let shown = |p: &Published, of: &str| match p.last(of).data {
        Data::Status(s) => (s.state, s.integrity, s.reason.map(|r| r.to_string())),
        other => panic!("{other:?}"),
    };
    let lost = Some("publisher_lost".to_owned());
    assert_eq!(shown(&p, "status/kraken/A-USD"), (State::Stale, Integrity::Sequenced, lost.clone()));
    assert_eq!(shown(&p, "status/kraken/B-USD"), (State::Stale, Integrity::None, lost));

    p.stream = p.core.attach("s1", 2, Time(3 * grace)).expect("it goes on");
    assert_eq!(shown(&p, "status/kraken/A-USD"), (State::Live, Integrity::Sequenced, None));
    let again = p.core.snapshot(p.id(BOOK)).expect("a book");
    assert_eq!((again.kind, again.data), (Kind::Snapshot, book.data));
    for topic in [BOOK, "book-10/kraken/A-USD", "book-50/kraken/A-USD", "quote/kraken/A-USD"] {
        assert_eq!(p.last(topic).kind, Kind::Snapshot, "{topic}");
    }
    p.put(BOOK, Kind::Update, levels(&[(98, 0)], &[])).expect("goes on from what was there");
    check_tape(&p.core);
}

#[test]
fn what_was_closed_stays_closed_without_its_publisher() {
    let mut p = Published::new(core(), &["A-USD"]);
    p.put("status/kraken/A-USD", Kind::Update, status(State::Closed)).expect("good");
    p.core.detach(p.stream, Time(0));
    assert!(!p.core.sweep(Time(LIMITS.source_grace_nanos)), "there is nothing to tell");
    assert!(matches!(p.last("status/kraken/A-USD").data, Data::Status(s) if s.state == State::Closed));
    check_tape(&p.core);
}

#[test]
fn another_publisher_begins_every_book_anew() {
    let mut p = Published::new(core(), &["A-USD"]);
    p.put(BOOK, Kind::Snapshot, levels(&[(99, 1)], &[(101, 1)])).expect("good");
    p.put("quote/kraken/A-USD", Kind::Update, quote(99, 101)).expect("good");
    p.stream = p.core.attach("s2", 1, Time(9)).expect("new");
    p.announce("A-USD");
    assert_eq!(p.last(BOOK).data, Data::Invalid("stale".into()));
    assert_eq!(p.last("quote/kraken/A-USD").kind, Kind::Invalid);
    assert_eq!(p.put(BOOK, Kind::Update, levels(&[(98, 1)], &[])), Err(Refusal::BookWaits));
    let head = p.core.tape().head();
    p.announce("A-USD");
    assert_eq!(p.core.tape().head(), head, "the same again is nothing new");
    p.put("quote/kraken/A-USD", Kind::Update, quote(98, 101)).expect("good");
    assert_eq!(p.last("quote/kraken/A-USD").kind, Kind::Snapshot, "only a snapshot ends an invalid");
    check_tape(&p.core);
}

#[test]
fn backfill_pages_add_up_and_never_cut_a_place() {
    let p = walk(3, 800);
    let ids: Vec<TopicId> = p.core.matching(&"*/kraken/*".parse().expect("a pattern"));
    assert_eq!(ids.len(), 48);
    let all: Vec<_> = p.core.tape().events_of(&ids, 100).map(|(_, e)| Arc::clone(e)).collect();
    let mut paged = Vec::new();
    let mut from = From::After(p.core.tape().cursor_at(100));
    loop {
        let page = p.core.backfill(&ids, &from, 7).expect("not ahead");
        assert!(page.events.len() < 7 + 24 && page.expired.is_empty());
        paged.extend(page.events);
        if page.through == p.core.tape().head() {
            break;
        }
        from = From::After(p.core.tape().cursor_at(page.through));
    }
    assert_eq!(paged, all);
    let recent = p.core.recent(&ids[..2], 3);
    assert_eq!((recent.events.len(), recent.through), (6, p.core.tape().head()));
    assert_eq!(p.core.backfill(&ids, &From::After(p.core.tape().cursor_at(1 << 40)), 7), None);
    let foreign = p.core.backfill(&ids, &From::After("zz-5".parse().expect("a cursor")), 7).expect("told");
    assert_eq!((foreign.events.len(), foreign.expired), (0, ids));
}

#[test]
fn expired_topics_are_told_exactly() {
    let mut p =
        Published::new(core_with(Limits { age_nanos_max: 10_000_000, ..Limits::default() }), &["A-USD", "B-USD"]);
    let ids = [p.id("trade/kraken/A-USD"), p.id("trade/kraken/B-USD")];
    p.put("trade/kraken/B-USD", Kind::Update, trade(1)).expect("good");
    let early = From::After(p.core.tape().cursor());
    for i in 0..50 {
        p.put("trade/kraken/A-USD", Kind::Update, trade(i)).expect("good");
    }
    let page = p.core.backfill(&ids, &early, 1_000).expect("not ahead");
    assert_eq!(page.expired, [ids[0]], "B has had nothing since");
    assert_eq!(page.events.first().map(|e| e.seq), p.core.tape().oldest(), "what is kept is given");
    assert_eq!(p.core.backfill(&ids, &From::Earliest, 1_000).expect("not ahead").expired, []);
}
