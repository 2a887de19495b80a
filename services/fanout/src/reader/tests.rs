use ticker_market::Time;
use ticker_tape::Limits;

use super::*;
use crate::fixture::*;
use crate::steps;
use ticker_market::Kind;

fn pattern(text: &str) -> Pattern {
    text.parse().expect(text)
}

/// Runs passes until the reader has nothing more, and tells the checker.
fn run(reader: &mut Reader, core: &Core, changes: &mut VecDeque<Change>, checker: &mut Checker) {
    let mut pieces = Vec::new();
    let mut out = VecDeque::new();
    loop {
        let more = reader.pass(core, changes, &mut pieces).expect("the tape reaches back");
        steps::encode(&mut pieces, reader.position(), &mut out);
        out.drain(..).for_each(|m| checker.take(m));
        checker.position = reader.position();
        if !more {
            return;
        }
    }
}

/// A checker that was told of everything the core knows.
fn opened(core: &Core) -> Checker {
    Checker {
        instruments: core.instruments().map(|i| i.symbol.to_string()).collect(),
        position: core.tape().head(),
        ..Checker::default()
    }
}

#[test]
fn there_is_no_seam_whenever_interest_changes() {
    for seed in 0..12 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut venue = Venue::new(seed, 1);
        let mut p = Published::new(core(), &[&Venue::symbol(0)]);
        let mut readers: Vec<_> =
            (0..3).map(|_| (Reader::at_head(&p.core), VecDeque::new(), opened(&p.core))).collect();
        for _ in 0..1_500 {
            let (_, event) = venue.say();
            let id = p.core.topic_id(&event.topic).expect("announced");
            p.core.put(id, event, Time(1)).expect("good");
            if rng.u8(..100) == 0 {
                let symbol = venue.add_symbol();
                p.announce(&symbol);
            }
            for (reader, changes, checker) in &mut readers {
                if rng.u8(..40) == 0 {
                    let symbol = Venue::symbol(rng.usize(..6));
                    let patterns = ["*/kraken/*", "book/*/*", "trade/*/*", "book-10/kraken/*", "quote/*/*"];
                    let text = match rng.usize(..8) {
                        n if n < patterns.len() => patterns[n].to_owned(),
                        _ => format!("book/kraken/{symbol}"),
                    };
                    let change = if rng.bool() { Change::Add(pattern(&text)) } else { Change::Remove(pattern(&text)) };
                    changes.push_back(change);
                }
                if rng.u8(..10) == 0 {
                    run(reader, &p.core, changes, checker);
                }
            }
        }
        for (reader, changes, checker) in &mut readers {
            run(reader, &p.core, changes, checker);
            assert!(checker.events > 0, "seed {seed}");
            checker.check(&p.core);
        }
        check_tape(&p.core);
    }
}

#[test]
fn a_pattern_takes_a_later_topic_before_its_first_event() {
    let mut p = Published::new(core(), &["A-USD"]);
    let mut reader = Reader::at_head(&p.core);
    let mut checker = opened(&p.core);
    let mut changes = VecDeque::from([Change::Add(pattern("trade/*/*")), Change::Add(pattern("quote/kraken/B-USD"))]);
    run(&mut reader, &p.core, &mut changes, &mut checker);
    assert!(checker.is_carried("trade/kraken/A-USD"));
    p.announce("B-USD");
    p.put("trade/kraken/B-USD", Kind::Update, trade(1)).expect("good");
    p.put("quote/kraken/B-USD", Kind::Update, quote(1, 2)).expect("good");
    run(&mut reader, &p.core, &mut changes, &mut checker);
    assert_eq!(checker.last_given("trade/kraken/B-USD"), Some(0));
    assert_eq!(checker.last_given("quote/kraken/B-USD"), Some(0), "one that was asked for before it existed");
    assert_eq!((checker.events, checker.instruments.len()), (2, 2));
    checker.check(&p.core);
}

#[test]
fn a_reader_resumes_or_is_told_that_it_cannot() {
    let mut p = Published::new(core(), &["A-USD"]);
    let cursor = |p: &Published| p.core.tape().head();
    p.put("trade/kraken/A-USD", Kind::Update, trade(1)).expect("good");
    p.put("book/kraken/A-USD", Kind::Snapshot, levels(&[(99, 1)], &[(101, 1)])).expect("good");
    let after = cursor(&p);
    p.put("trade/kraken/A-USD", Kind::Update, trade(2)).expect("good");
    p.announce("B-USD");
    p.put("trade/kraken/B-USD", Kind::Update, trade(3)).expect("good");
    p.put("book/kraken/A-USD", Kind::Snapshot, levels(&[(98, 1)], &[(101, 1)])).expect("good");
    let (mut reader, added) = Reader::resume(&p.core, after, vec![pattern("*/kraken/*")]).expect("held");
    let Some(Piece::Added { seq, topics, snapshots }) = &added else { panic!("{added:?}") };
    assert_eq!((*seq, topics.len(), snapshots.len()), (after, 12, 0), "B-USD is still to come");
    let mut checker = Checker {
        opened: Some(ticker_proto::v1::Opened { cursor: format!("e1-{after}"), resumed: true }),
        position: after,
        ..opened(&p.core)
    };
    let mut out = VecDeque::new();
    steps::encode(&mut added.into_iter().collect(), after, &mut out);
    out.drain(..).for_each(|m| checker.take(m));
    run(&mut reader, &p.core, &mut VecDeque::new(), &mut checker);
    assert_eq!(checker.last_given("trade/kraken/B-USD"), Some(0));
    let derived = "five bars and the statistics from the first trade of B";
    assert_eq!(checker.events, 2 + 3 + 6, "trades, the book with its derived ones, {derived}");
    checker.check(&p.core);
    assert!(matches!(Reader::resume(&p.core, 99, vec![]), Err(TapeError::Ahead { .. })));
}

#[test]
fn a_reader_that_falls_off_the_end_is_told() {
    let mut p = Published::new(core_with(Limits { bytes_max: 4_000, ..Limits::default() }), &["A-USD"]);
    let mut reader = Reader::at_head(&p.core);
    let mut changes = VecDeque::from([Change::Add(pattern("trade/*/*"))]);
    for i in 0..100 {
        p.put("trade/kraken/A-USD", Kind::Update, trade(i)).expect("good");
    }
    let end = reader.pass(&p.core, &mut changes, &mut Vec::new());
    assert!(matches!(end, Err(TapeError::Expired { .. })));
    let early = Reader::resume(&p.core, 1, vec![]).map(|_| ());
    assert!(matches!(early, Err(TapeError::Expired { .. })));
}

#[test]
fn many_topics_are_joined_over_several_passes() {
    let symbols: Vec<String> = (0..300).map(Venue::symbol).collect();
    let mut p = Published::new(core(), &symbols.iter().map(String::as_str).collect::<Vec<_>>());
    for symbol in &symbols {
        p.put(&format!("quote/kraken/{symbol}"), Kind::Update, quote(1, 2)).expect("good");
    }
    let mut reader = Reader::at_head(&p.core);
    let mut changes = VecDeque::from([Change::Add(pattern("*/kraken/*"))]);
    let mut pieces = Vec::new();
    assert!(reader.pass(&p.core, &mut changes, &mut pieces).expect("held"), "there is more");
    assert_eq!(pieces.len(), 1);
    let mut checker = opened(&p.core);
    let mut out = VecDeque::new();
    steps::encode(&mut pieces, reader.position(), &mut out);
    out.drain(..).for_each(|m| checker.take(m));
    // Meanwhile the world goes on, also for topics that are still pending.
    p.put("quote/kraken/S299-USD", Kind::Update, quote(3, 4)).expect("good");
    p.put("quote/kraken/S0-USD", Kind::Update, quote(3, 4)).expect("good");
    run(&mut reader, &p.core, &mut changes, &mut checker);
    assert!(symbols.iter().all(|s| checker.is_carried(&format!("status/kraken/{s}"))));
    assert_eq!(checker.events, 1, "S0-USD live; S299-USD in its snapshot");
    checker.check(&p.core);
}
