use ticker_market::{Channel, Data, Decimal, Kind, Topic, Trade};

use super::*;

fn event(topic: u32) -> Event {
    Event {
        topic: Arc::new(Topic::new(Channel::Trade, "kraken", &format!("T{topic}")).expect("valid")),
        seq: 0,
        prev: 0,
        kind: Kind::Update,
        ts: None,
        recv: Time(0),
        published: Time(0),
        data: Data::Trade(Trade {
            price: Decimal::ONE,
            size: Decimal::ONE,
            side: None,
            trade_id: "1".into(),
            reference: None,
        }),
    }
}

fn tape(limits: Limits) -> Tape {
    Tape::new(Epoch::from_number(7), limits)
}

fn small() -> Limits {
    Limits { bytes_max: 10 * (event(0).memory_bytes() + ENTRY_BYTES), age_nanos_max: i64::MAX }
}

#[test]
fn places_rise_by_one_and_derived_events_share_them() {
    let mut tape = tape(Limits::default());
    assert_eq!((tape.head(), tape.oldest(), tape.is_empty()), (0, None, true));
    assert_eq!(tape.append(TopicId(0), event(0), Time(5)).seq, 1);
    assert_eq!(tape.derive(TopicId(1), event(1)).seq, 1);
    let instrument = Instrument {
        venue: "kraken".into(),
        symbol: "T0".into(),
        native: "T0".into(),
        tick_size: None,
        lot_size: None,
        channels: vec![],
    };
    assert_eq!(tape.announce(Arc::new(instrument), Time(6)), 2);
    let third = tape.append(TopicId(0), event(0), Time(4));
    assert_eq!((third.seq, third.published), (3, Time(6)), "a clock that steps back does not");
    let seqs = |after| tape.since(after).expect("held").map(|e| e.seq).collect::<Vec<_>>();
    assert_eq!(seqs(0), [1, 1, 2, 3]);
    assert_eq!(seqs(1), [2, 3]);
    assert_eq!(seqs(3), Vec::<u64>::new());
    assert_eq!(tape.since(4).map(|_| ()), Err(TapeError::Ahead { after: 4, head: 3 }));
    assert_eq!(tape.cursor().to_string(), "7-3");
}

#[test]
fn bytes_evict_the_oldest_and_whole_places() {
    let mut tape = tape(small());
    for i in 0..20 {
        tape.append(TopicId(0), event(0), Time(i));
        tape.derive(TopicId(1), event(1));
    }
    assert!(tape.bytes() <= small().bytes_max + 2 * (event(0).memory_bytes() + ENTRY_BYTES));
    let oldest = tape.oldest().expect("held");
    assert_eq!(tape.evicted(), oldest - 1);
    assert_eq!(tape.entries.iter().filter(|e| e.seq == oldest).count(), 2);
    assert_eq!(tape.since(oldest - 1).expect("just reaches").next().map(|e| e.seq), Some(oldest));
    assert!(matches!(tape.since(oldest - 2).map(|_| ()), Err(TapeError::Expired { .. })));
}

#[test]
fn age_evicts_but_never_the_newest() {
    let mut tape = tape(Limits { age_nanos_max: 100, ..Limits::default() });
    tape.append(TopicId(0), event(0), Time(0));
    tape.append(TopicId(0), event(0), Time(50));
    tape.evict(Time(100));
    assert_eq!(tape.oldest(), Some(1));
    tape.evict(Time(101));
    assert_eq!(tape.oldest(), Some(2));
    tape.evict(Time(10_000));
    assert_eq!((tape.oldest(), tape.len()), (Some(2), 1));
}

#[test]
fn a_quiet_topic_does_not_expire_because_of_a_busy_one() {
    let mut tape = tape(small());
    tape.append(TopicId(1), event(1), Time(0));
    for _ in 0..5 {
        tape.append(TopicId(0), event(0), Time(0));
    }
    let cursor = tape.head();
    for _ in 0..20 {
        tape.append(TopicId(0), event(0), Time(0));
    }
    assert!(tape.is_complete(TopicId(1), cursor), "its only event is before the cursor");
    assert!(tape.is_complete(TopicId(1), 1));
    assert!(!tape.is_complete(TopicId(1), 0), "its event was forgotten");
    assert!(!tape.is_complete(TopicId(0), cursor));
    assert!(tape.is_complete(TopicId(0), tape.evicted()));
    assert!(tape.is_complete(TopicId(9), 0), "a topic that never had an event lacks none");
    assert_eq!((tape.last_at(TopicId(1), cursor), tape.last_at(TopicId(1), 0)), (1, 0));
}

#[test]
fn topics_are_walked_as_a_scan_of_everything_would() {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut tape = tape(Limits { bytes_max: 300 * (event(0).memory_bytes() + ENTRY_BYTES), age_nanos_max: i64::MAX });
    for i in 0..1_000 {
        tape.append(TopicId(rng.u32(0..8)), event(0), Time(i));
        if rng.bool() {
            tape.derive(TopicId(8), event(8));
        }
    }
    let scan = |topics: &[TopicId], after: u64| {
        tape.entries
            .iter()
            .filter_map(|e| match &e.record {
                Record::Event(t, _) if topics.contains(t) && e.seq > after => Some((e.seq, *t)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    for topics in [vec![TopicId(0)], vec![TopicId(1), TopicId(8)], (0..9).map(TopicId).collect(), vec![TopicId(70)]] {
        for after in [0, tape.evicted(), tape.head() - 100, tape.head() - 1, tape.head()] {
            let walked: Vec<_> = tape.events_of(&topics, after).map(|(t, e)| (e.seq, t)).collect();
            assert_eq!(walked, scan(&topics, after));
            for topic in &topics {
                let last = scan(&[*topic], 0).into_iter().rfind(|(seq, _)| *seq <= after);
                if let Some((seq, _)) = last {
                    assert_eq!(tape.last_at(*topic, after), seq);
                }
            }
        }
        let last: Vec<_> = tape.last_of(&topics[..1], 3).map(|(t, e)| (e.seq, t)).collect();
        let all = scan(&topics[..1], 0);
        assert_eq!(last, all[all.len().saturating_sub(3)..]);
    }
    for after in tape.evicted()..=tape.head() {
        let held = tape.since(after).expect("held").next().map(|e| e.seq);
        assert_eq!(held, (after < tape.head()).then_some(after + 1));
    }
}
