//! Promises 5 to 9: slow readers, limits, heartbeats, epochs, goodbyes.

use ticker_market::Kind;
use ticker_proto::message::Subscribe;
use ticker_proto::{Code, Form, Notice};
use ticker_session::Ending;

use crate::scene::*;

#[test]
fn promise_5_a_frozen_reader_gets_the_newest_state_and_a_merged_book_once_it_takes_again() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, to(&[QUOTE, BOOK, TEN])).expect("good");
    happen_well(&mut world, 1);
    world.settle();
    world.readers[at].frozen = true;
    world.readers[at].log.clear();
    for _ in 0..20 {
        world.happen(QUOTE);
        world.happen(BOOK);
        world.deliver(usize::MAX);
        world.passes();
    }
    world.thaw(at);
    world.passes();
    assert_eq!(seqs(&world, at, QUOTE), on_tape(&world, QUOTE)[on_tape(&world, QUOTE).len() - 1..]);
    assert_eq!(seqs(&world, at, BOOK), on_tape(&world, BOOK)[on_tape(&world, BOOK).len() - 1..]);
    // The same over thousands of updates: a snapshot instead of the merged ones.
    world.readers[at].frozen = true;
    for _ in 0..1_000 {
        world.happen(BOOK);
        world.deliver(usize::MAX);
        world.pass();
    }
    world.thaw(at);
    world.converge();
}

#[test]
fn promise_5_readers_who_keep_up_miss_no_state_that_comes_between_their_turns() {
    let mut world = world();
    let readers = ["first", "second", "third"].map(|name| world.reader(name, Form::Json));
    for at in readers {
        world.subscribe(at, to(&[QUOTE])).expect("good");
    }
    happen_well(&mut world, 1);
    world.settle();
    let before = on_tape(&world, QUOTE).len();
    readers.iter().for_each(|at| world.readers[*at].log.clear());
    (world.interrupting, world.interruptions) = (Some(QUOTE), 100);
    world.happen(QUOTE);
    world.settle();
    assert_eq!(world.interruptions, 0);
    for at in readers {
        assert_eq!(seqs(&world, at, QUOTE), on_tape(&world, QUOTE)[before..]);
    }
}

#[test]
fn promise_5_a_reader_whose_event_channels_outgrow_their_limit_is_closed_with_a_cursor_that_works() {
    let mut world = world();
    let at = world.reader("r", Form::Sse);
    let quick = world.reader("quick", Form::Json);
    world.subscribe(at, to(&[TRADE, QUOTE])).expect("good");
    world.subscribe(quick, to(&[TRADE])).expect("good");
    world.settle();
    happen(&mut world, 10);
    world.settle();
    world.readers[at].frozen = true;
    for _ in 0..110 {
        happen(&mut world, 10);
        world.deliver(usize::MAX);
        world.passes();
    }
    assert!(world.readers[at].id.is_some(), "as long as it is blocked, nothing can be said to it");
    world.thaw(at);
    world.passes();
    let closing = world.readers[at].closing.clone().expect("closed");
    assert_eq!(closing.ending.code, Code::SlowConsumer);
    assert!(
        matches!(world.readers[at].notices.last(), Some(Notice::Error { id: None, cursor: Some(c), .. }) if *c == closing.cursor)
    );
    world.reconnect(at);
    world.converge();
    let trades = on_tape(&world, TRADE);
    assert!(seqs(&world, at, TRADE) == trades[10..], "each once, whatever happened");
    assert!(seqs(&world, quick, TRADE) == trades[10..], "who is quick is not held back");
}

#[test]
fn promise_5_who_asks_and_never_reads_is_closed() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.readers[at].frozen = true;
    world.passes();
    let id = world.readers[at].id.expect("open");
    for i in 0..300 {
        let refusal = ticker_session::catalogue::Refusal::new(Code::BadRequest, "no");
        world.hub.refuse(id, Some(i), refusal);
    }
    world.thaw(at);
    world.readers[at].id = Some(id);
    let mut plan = Vec::new();
    world.hub.plan(id, usize::MAX, world.now, &mut plan);
    assert!(plan.len() < 300);
    let taken = plan.len();
    let closing = world.hub.commit(id, &mut plan, taken, false, world.now).expect("closed");
    assert_eq!(closing.ending.code, Code::SlowConsumer);
}

#[test]
fn promise_6_max_rate_is_kept_and_ends_at_the_newest() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, Subscribe { max_rate: Some(4.0), ..to(&[QUOTE, BOOK, TRADE]) }).expect("good");
    world.settle();
    world.readers[at].log.clear();
    for _ in 0..1_000 {
        happen(&mut world, 1);
        world.deliver(usize::MAX);
        world.pass_time(10);
    }
    let n = seqs(&world, at, QUOTE).len();
    assert!((39..=41).contains(&n), "{n} quotes in 10 s at 4 a second");
    assert_eq!(seqs(&world, at, TRADE).len(), 1_000, "event channels have no rate");
    world.converge();
    // Changed while it runs.
    world.limit(at, Some(20.0), None);
    world.readers[at].log.clear();
    for _ in 0..200 {
        happen(&mut world, 1);
        world.deliver(usize::MAX);
        world.pass_time(10);
    }
    let n = seqs(&world, at, QUOTE).len();
    assert!((38..=42).contains(&n), "{n} quotes in 2 s at 20 a second");
    world.limit(at, Some(0.0), None);
    world.settle();
    world.readers[at].log.clear();
    happen(&mut world, 5);
    world.settle();
    assert_eq!(seqs(&world, at, QUOTE).len(), 5);
    world.converge();
}

#[test]
fn promise_6_max_kbps_is_kept_on_average_events_first_and_states_in_turn() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, Subscribe { max_kbps: Some(64.0), ..to(&["*/va/*"]) }).expect("good");
    world.settle();
    let bytes = world.readers[at].bytes;
    let names = [QUOTE, "quote/va/BBB", BOOK, "book/va/BBB", "status/va/AAA", "status/va/BBB"];
    for i in 0..2_000 {
        names.iter().for_each(|t| world.happen(t));
        if i % 4 == 0 {
            world.happen(TRADE);
        }
        world.deliver(usize::MAX);
        world.pass_time(10);
    }
    let used = world.readers[at].bytes - bytes;
    let allowed = 20 * 8_000 + 8_000;
    assert!(used <= allowed + 4_000, "{used} bytes in 20 s, of {allowed}");
    assert!(used >= allowed * 8 / 10, "{used} bytes in 20 s, of {allowed}");
    assert_eq!(seqs(&world, at, TRADE).len(), 500);
    let least = names.iter().map(|t| seqs(&world, at, t).len()).min();
    assert!(least >= Some(10), "every topic has its turn: {least:?}");
    world.converge();
}

#[test]
fn promise_6_max_kbps_holds_for_older_events_too() {
    let mut world = world();
    happen(&mut world, 3_000);
    world.deliver(usize::MAX);
    let at = world.reader("r", Form::Sse);
    let from = cursor(&world, 60);
    world.subscribe(at, Subscribe { from, max_kbps: Some(80.0), ..to(&[TRADE]) }).expect("good");
    world.settle();
    assert!(world.readers[at].bytes <= 10_000 + 1_000, "{} at once", world.readers[at].bytes);
    world.pass_time(5_000);
    let bytes = world.readers[at].bytes;
    assert!((50_000..=61_000).contains(&bytes), "{bytes} bytes in 5 s at 10,000 a second");
    world.limit(at, None, Some(0.0));
    world.converge();
}

#[test]
fn promise_7_heartbeats_come_at_the_interval_and_move_a_quiet_readers_cursor() {
    let mut world = world();
    let at = world.reader("r", Form::Sse);
    world.subscribe(at, to(&["trade/vb/*", "quote/va/BBB"])).expect("good");
    world.settle();
    for beats in 1..=10 {
        happen(&mut world, 3);
        world.settle();
        world.pass_time(15_000);
        let notices = &world.readers[at].notices;
        let heard: Vec<&Notice> = notices.iter().filter(|n| matches!(n, Notice::Heartbeat { .. })).collect();
        assert_eq!(heard.len(), beats);
        assert_eq!(heard[beats - 1].cursor(), cursor(&world, head(&world)).as_deref());
    }
}

#[test]
fn promise_7_conflation_is_never_silent() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, Subscribe { max_rate: Some(2.0), ..to(&[QUOTE, BOOK, TEN, "status/va/AAA"]) }).expect("good");
    world.settle();
    for i in 0..700 {
        world.readers[at].frozen = i % 100 < 30;
        if i % 100 == 30 {
            world.thaw(at);
        }
        [QUOTE, BOOK, "status/va/AAA"].iter().for_each(|t| world.happen(t));
        world.deliver(usize::MAX);
        world.pass_time(37);
    }
    // That what the heartbeats told is what the model saw is part of this:
    assert!(world.readers[at].countable);
    world.converge();
    assert!(world.readers[at].conflated_told > 1_000);
}

#[test]
fn promise_8_a_new_epoch_is_a_gap_then_welcome_then_snapshots() {
    let mut world = world();
    let at = world.reader("r", Form::Sse);
    world.subscribe(at, to(&[QUOTE, TRADE, BOOK])).expect("good");
    world.settle();
    happen(&mut world, 5);
    world.settle();
    world.readers[at].notices.clear();
    world.readers[at].log.clear();
    world.new_epoch(2);
    happen(&mut world, 4);
    world.settle();
    let notices = &world.readers[at].notices;
    assert!(matches!(&notices[0], Notice::Gap { topic: None, reason } if reason == "epoch_changed"), "{notices:?}");
    assert!(matches!(&notices[1], Notice::Welcome { epoch, .. } if *epoch == world.epoch), "{notices:?}");
    assert_eq!(notices.len(), 2);
    assert_eq!(seqs(&world, at, TRADE).len(), 4, "nothing of the new epoch is missed");
    let first = world.readers[at].log.iter().find(|(t, ..)| t == QUOTE).expect("a quote");
    assert_eq!(first.2, Kind::Snapshot);
    world.converge();
}

#[test]
fn promise_8_many_epochs_while_a_reader_is_frozen_cost_nothing_more() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, to(&[QUOTE, TRADE])).expect("good");
    world.settle();
    world.readers[at].frozen = true;
    world.readers[at].notices.clear();
    for _ in 0..50 {
        world.new_epoch(2);
        happen(&mut world, 2);
        world.settle();
    }
    world.converge();
    assert_eq!(ops(&world, at), ["Gap", "Welcome"]);
}

#[test]
fn promise_9_goodbye_carries_a_cursor_and_a_delay_that_differs_for_each() {
    let mut world = world();
    for i in 0..200 {
        let at = world.reader(&i.to_string(), Form::Json);
        world.subscribe(at, to(&[TRADE])).expect("good");
    }
    world.settle();
    happen(&mut world, 1);
    world.deliver(usize::MAX);
    world.hub.goodbye("draining", 5_000, |below| below / 2);
    world.passes();
    let mut delays: Vec<u32> = Vec::new();
    for reader in &world.readers {
        let Some(Notice::Goodbye { reason, cursor, retry_ms }) = reader.notices.last() else { panic!("no goodbye") };
        assert_eq!((reason.as_str(), Some(cursor.clone())), ("draining", self::cursor(&world, head(&world))));
        delays.push(*retry_ms);
    }
    delays.sort_unstable();
    delays.dedup();
    assert_eq!(delays.len(), 200);
    assert!(delays[0] >= 250 && delays[199] <= 5_250);
}

#[test]
fn promise_9_an_ending_right_after_the_goodbye_does_not_swallow_it() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, to(&[TRADE])).expect("good");
    world.settle();
    world.hub.goodbye("draining", 100, |_| 0);
    let id = world.readers[at].id.expect("open");
    world.hub.end(id, Ending { code: Code::Draining, message: "the edge goes away".into() });
    world.hub.end(id, Ending { code: Code::Internal, message: "not this one".into() });
    world.passes();
    assert_eq!(ops(&world, at), ["Welcome", "Subscribed", "Goodbye", "Error"]);
    assert_eq!(world.readers[at].closing.as_ref().expect("closed").ending.code, Code::Draining);
}

#[test]
fn promise_5_a_burst_of_one_state_comes_to_its_end_without_waiting_for_anything_else() {
    for form in [Form::Json, Form::Sse, Form::Protobuf] {
        let mut world = world();
        let at = world.reader("r", form);
        world.subscribe(at, to(&[QUOTE])).expect("good");
        happen_well(&mut world, 1);
        world.settle();
        world.readers[at].log.clear();
        for _ in 0..600 {
            world.happen(QUOTE);
        }
        world.deliver(usize::MAX);
        world.passes();
        let last = *on_tape(&world, QUOTE).last().expect("it happened");
        assert_eq!(seqs(&world, at, QUOTE).last(), Some(&last), "{form:?}");
    }
}
