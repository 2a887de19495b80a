//! Subscriptions that change, upstreams that fail, long polls, wake-ups.

use ticker_market::Kind;
use ticker_proto::message::Subscribe;
use ticker_proto::{Code, Form, Notice};
use ticker_session::Limits;

use crate::scene::*;
use crate::tape::instrument;
use crate::world::World;

#[test]
fn a_venue_that_comes_back_late_after_a_restart_holds_up_its_own_topics_only() {
    let mut world = world();
    world.new_epoch(3);
    let at = world.reader("r", Form::Json);
    world.subscribe(at, to(&[TRADE, "trade/vb/AAA", "quote/vb/AAA"])).expect("good");
    world.settle();
    world.new_epoch(2);
    happen(&mut world, 3);
    world.settle();
    assert_eq!(seqs(&world, at, TRADE).len(), 3);
    world.pass_time(20_000);
    let beat = world.readers[at].notices.iter().rev().find_map(Notice::cursor).map(str::to_owned);
    assert_eq!(beat, cursor(&world, head(&world)), "the cursor moves on");
    world.tape().announce(crate::tape::instrument("vb", "AAA"));
    world.happen("trade/vb/AAA");
    world.happen("quote/vb/AAA");
    world.converge();
    assert_eq!(seqs(&world, at, "trade/vb/AAA").len(), 1);
}

#[test]
fn patterns_bring_instruments_that_appear_later_from_their_first_event_on() {
    let mut world = world();
    let at = world.reader("r", Form::Sse);
    world.subscribe(at, to(&["trade/*/AAA", "*/vb/*"])).expect("good");
    world.settle();
    world.tape().announce(crate::tape::instrument("vb", "AAA"));
    ["trade/vb/AAA", "quote/vb/AAA", "trade/vb/AAA"].iter().for_each(|t| world.happen(t));
    world.settle();
    assert_eq!(seqs(&world, at, "trade/vb/AAA").len(), 2);
    assert_eq!(world.readers[at].log.iter().find(|(t, ..)| t == "quote/vb/AAA").expect("a quote").2, Kind::Snapshot);
    world.converge();
    world.leave();
}

#[test]
fn the_most_exact_pattern_rules_and_the_others_take_over_when_it_leaves() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, to(&["trade/*/AAA"])).expect("good");
    world.subscribe(at, Subscribe { fields: Some(vec!["price".into()]), ..to(&[TRADE]) }).expect("good");
    world.subscribe(at, Subscribe { fields: Some(vec!["size".into()]), ..to(&["trade/va/*"]) }).expect("good");
    world.settle();
    happen(&mut world, 2);
    world.settle();
    world.unsubscribe(at, &[TRADE]);
    happen(&mut world, 2);
    world.settle();
    world.unsubscribe(at, &["trade/va/*"]);
    happen(&mut world, 2);
    world.settle();
    assert_eq!(seqs(&world, at, TRADE), on_tape(&world, TRADE)[10..], "each event once, throughout");
    world.unsubscribe(at, &["trade/*/AAA"]);
    happen(&mut world, 2);
    world.converge();
    assert_eq!(seqs(&world, at, TRADE).len(), 6);
    world.leave();
}

#[test]
fn subscribing_again_replaces_the_options_and_loses_nothing() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, to(&[TRADE, QUOTE])).expect("good");
    world.settle();
    for i in 0..600 {
        happen(&mut world, 1);
        world.deliver(usize::MAX);
        // Far more kinds of options than a session keeps at once.
        let fields = Some(vec!["price".to_owned()]);
        let max_rate = Some(f64::from(i + 1));
        world.subscribe(at, Subscribe { fields, max_rate, ..to(&[TRADE, QUOTE]) }).expect("good");
        if i % 7 == 0 {
            world.passes();
        }
        world.now = world.now.plus_millis(11);
    }
    world.converge();
    assert_eq!(seqs(&world, at, TRADE), on_tape(&world, TRADE)[10..]);
    world.leave();
}

#[test]
fn a_topic_that_upstream_removes_and_adds_again_has_no_hole() {
    let mut world = world();
    let (at, other) = (world.reader("r", Form::Json), world.reader("other", Form::Json));
    world.subscribe(other, to(&["trade/va/BBB"])).expect("good");
    world.subscribe(at, to(&[TRADE, QUOTE, BOOK])).expect("good");
    world.settle();
    // Its only reader leaves, and another comes before upstream hears of it.
    world.reconnect(at);
    happen(&mut world, 2);
    world.settle();
    world.converge();
    assert_eq!(seqs(&world, at, TRADE), on_tape(&world, TRADE)[10..]);
    world.leave();
}

#[test]
fn a_same_epoch_restart_loses_nothing_that_a_frozen_reader_was_still_to_get() {
    for form in [Form::Json, Form::Sse] {
        let mut world = world();
        let at = world.reader("r", form);
        world.subscribe(at, to(&["*/va/*"])).expect("good");
        world.settle();
        world.readers[at].frozen = true;
        for _ in 0..3 {
            happen(&mut world, 5);
            world.happen("trade/va/BBB");
            world.deliver(usize::MAX);
            world.passes();
            happen(&mut world, 5);
            world.anew();
            world.passes();
        }
        world.converge();
        assert_eq!(seqs(&world, at, TRADE), on_tape(&world, TRADE)[10..]);
        assert_eq!(seqs(&world, at, "trade/va/BBB").len(), 3);
    }
}

#[test]
fn older_events_that_cannot_be_fetched_are_asked_for_again_and_in_the_end_close_the_session() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    let from = cursor(&world, 55);
    world.subscribe(at, Subscribe { from, ..to(&[TRADE]) }).expect("good");
    world.change();
    for _ in 0..3 {
        world.backfill(0, true);
        assert!(world.upstream.backfills.is_empty(), "not at once");
        world.pass_time(3_200);
        assert_eq!(world.upstream.backfills.len(), 1);
    }
    for _ in 0..3 {
        world.backfill(0, true);
        world.pass_time(10_000);
    }
    let closing = world.readers[at].closing.clone().expect("closed");
    assert_eq!(closing.ending.code, Code::Internal);
    assert_eq!(Some(closing.cursor), cursor(&world, 55));
    world.reconnect(at);
    world.converge();
    world.leave();
}

#[test]
fn a_session_that_is_closed_while_a_page_is_on_its_way_leaves_nothing_behind() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    let from = cursor(&world, 55);
    world.subscribe(at, Subscribe { from, ..to(&[TRADE]) }).expect("good");
    world.change();
    assert_eq!(world.upstream.backfills.len(), 1);
    world.hub.close(world.readers[at].id.take().expect("open"));
    let other = world.reader("other", Form::Json);
    world.backfill(0, false);
    world.passes();
    assert!(seqs(&world, other, TRADE).is_empty());
    world.leave();
}

#[test]
fn a_long_poll_gives_what_there_is_and_else_the_first_that_comes() {
    let mut world = world();
    let at = world.poller("poll");
    let topics = || vec![QUOTE.to_owned(), TRADE.to_owned()];
    let read = |world: &mut World| std::mem::take(&mut world.readers[at].log).len();
    world.poll(at, topics(), 25_000);
    world.settle();
    assert!(world.readers[at].id.is_none(), "answered");
    assert_eq!(read(&mut world), 1, "a quote's snapshot");
    world.poll(at, topics(), 25_000);
    world.settle();
    world.pass_time(1_000);
    assert!(world.readers[at].id.is_some(), "parked");
    world.happen(TRADE);
    world.settle();
    assert!(world.readers[at].id.is_none(), "answered");
    assert_eq!(read(&mut world), 1);
    happen(&mut world, 3);
    world.poll(at, topics(), 25_000);
    world.settle();
    assert_eq!(read(&mut world), 4, "three trades, the newest quote");
    world.poll(at, topics(), 25_000);
    world.pass_time(25_000);
    assert!(world.readers[at].id.is_none(), "answered with nothing");
    assert_eq!(read(&mut world), 0);
    for _ in 0..20 {
        happen(&mut world, 2);
        world.poll(at, topics(), 10);
        world.deliver(3);
        world.pass_time(20);
    }
    world.poll(at, topics(), 10);
    world.settle();
    world.pass_time(1_000);
    world.poll(at, topics(), 10);
    world.settle();
    let pos = world.readers[at].views[&TRADE.parse().expect("a topic")].pos;
    assert!(pos >= on_tape(&world, TRADE).last().copied());
    world.leave();
}

#[test]
fn a_long_poll_that_waits_begins_with_a_snapshot_of_a_book_that_changes() {
    let mut world = world();
    happen_well(&mut world, 1);
    let at = world.poller("poll");
    let topics = || vec![BOOK.to_owned()];
    let kinds = |world: &mut World| -> Vec<_> {
        std::mem::take(&mut world.readers[at].log).into_iter().map(|(_, _, kind)| kind).collect()
    };
    world.poll(at, topics(), 25_000);
    world.settle();
    assert_eq!(kinds(&mut world), [Kind::Snapshot]);
    // Its cursor may have come from a reader who did not hold it.
    world.poll(at, topics(), 25_000);
    world.settle();
    assert!(world.readers[at].id.is_some(), "parked: there is nothing new");
    happen_well(&mut world, 1);
    world.settle();
    assert!(world.readers[at].id.is_none(), "answered");
    assert!(kinds(&mut world).iter().all(|kind| *kind != Kind::Update));
    world.leave();
}

#[test]
fn nobody_waits_for_ever_for_a_wake_up() {
    for budget in [1, 300, 100_000] {
        for takes in [1, 3, usize::MAX] {
            // No heartbeat comes to the rescue.
            let mut world = World::new(Limits { heartbeat_ms: 3_600_000, ..Limits::default() });
            happen(&mut world, 10);
            world.deliver(usize::MAX);
            let at = world.reader("r", Form::Json);
            let request = Subscribe { max_rate: Some(5.0), max_kbps: Some(100.0), ..to(&["*/va/*"]) };
            world.subscribe(at, request).expect("good");
            world.settle();
            (world.readers[at].budget, world.readers[at].takes) = (budget, takes);
            happen(&mut world, 40);
            world.settle();
            world.pass_time(10_000);
            // Without anything new coming, it has all that there is.
            let reader = &world.readers[at];
            reader.converged(&world.tapes, &world.epoch, false);
        }
    }
}

#[test]
fn a_poll_that_meets_a_new_epoch_waits_until_its_topics_are_known_again() {
    let mut world = world();
    let at = world.poller("p");
    world.poll(at, vec![QUOTE.into()], 0);
    world.settle();
    assert!(world.readers[at].id.is_none(), "a first poll is answered at once");
    world.poll(at, vec![QUOTE.into()], 60_000);
    world.settle();
    // The fanout has begun anew, and no venue has come back to it yet.
    world.new_epoch(0);
    world.passes();
    assert!(world.readers[at].id.is_some(), "an answer now would say that it has seen what it has not");
    world.tape().announce(instrument("va", "AAA"));
    world.happen(QUOTE);
    world.settle();
    assert!(world.readers[at].id.is_none());
    world.poll(at, vec![QUOTE.into()], 0);
    world.settle();
    assert_eq!(seqs(&world, at, QUOTE).last(), on_tape(&world, QUOTE).last());
}
