//! Each promise of CONTRACT.md by its number, alone.

use ticker_market::Kind;
use ticker_proto::message::Subscribe;
use ticker_proto::{Code, Form, Notice};
use ticker_session::Ending;

use crate::world::World;

const QUOTE: &str = "quote/va/AAA";
const TRADE: &str = "trade/va/AAA";
const BOOK: &str = "book/va/AAA";
const TEN: &str = "book-10/va/AAA";

fn to(topics: &[&str]) -> Subscribe {
    Subscribe { topics: topics.iter().map(|t| (*t).to_owned()).collect(), ..Subscribe::default() }
}

/// A usual world in which something has happened already.
fn world() -> World {
    let mut world = World::usual();
    happen(&mut world, 10);
    world.deliver(usize::MAX);
    world
}

/// `rounds` times a trade, a quote and a change of the book.
fn happen(world: &mut World, rounds: usize) {
    for _ in 0..rounds {
        [TRADE, QUOTE, BOOK].iter().for_each(|t| world.happen(t));
    }
}

/// The same, until the book's last event can be trusted.
fn happen_well(world: &mut World, rounds: usize) {
    happen(world, rounds);
    while world.tape_ref().events_of(&BOOK.parse().expect("a topic")).last().expect("some").event.kind == Kind::Invalid
    {
        happen(world, 1);
    }
}

fn seqs(world: &World, at: usize, topic: &str) -> Vec<u64> {
    world.readers[at].log.iter().filter(|(t, ..)| t == topic).map(|(_, seq, _)| *seq).collect()
}

fn on_tape(world: &World, topic: &str) -> Vec<u64> {
    world.tape_ref().events_of(&topic.parse().expect("a topic")).iter().map(|f| f.event.seq).collect()
}

fn head(world: &World) -> u64 {
    world.tape_ref().head
}

fn cursor(world: &World, seq: u64) -> Option<String> {
    Some(format!("{}-{seq}", world.epoch))
}

fn ops(world: &World, at: usize) -> Vec<String> {
    let name = |n: &Notice| format!("{n:?}").split([' ', '{']).next().expect("a name").to_owned();
    world.readers[at].notices.iter().map(name).filter(|n| n != "Heartbeat").collect()
}

#[test]
fn promise_1_a_snapshot_first_then_updates_and_recent_events_of_event_channels() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, Subscribe { recent: Some(3), ..to(&[QUOTE, TRADE, BOOK, TEN]) }).expect("good");
    world.settle();
    let trades = on_tape(&world, TRADE);
    assert_eq!(seqs(&world, at, TRADE), trades[trades.len() - 3..]);
    assert_eq!(world.upstream.fetched, 1);
    for topic in [QUOTE, BOOK, TEN] {
        assert_eq!(seqs(&world, at, topic), on_tape(&world, topic)[on_tape(&world, topic).len() - 1..], "{topic}");
    }
    assert_eq!(ops(&world, at), ["Welcome", "Subscribed"]);
    happen(&mut world, 20);
    world.converge();
    assert_eq!(seqs(&world, at, TRADE).len(), 23);
    // The next one finds enough in the ring.
    let other = world.reader("s", Form::Protobuf);
    world.subscribe(other, Subscribe { recent: Some(7), ..to(&[TRADE]) }).expect("good");
    world.settle();
    assert_eq!((seqs(&world, other, TRADE).len(), world.upstream.fetched), (7, 1));
}

#[test]
fn promise_2_a_reader_cut_off_anywhere_goes_on_without_loss_or_repetition() {
    for form in [Form::Sse, Form::Json, Form::Protobuf] {
        for conflate in [None, Some(false)] {
            for cut in 0..60 {
                let mut world = world();
                let at = world.reader("r", form);
                let from = cursor(&world, 55);
                world.subscribe(at, Subscribe { from, conflate, ..to(&["*/va/AAA"]) }).expect("good");
                world.change();
                world.backfill(0, false);
                world.readers[at].budget = 1_000;
                world.pass();
                happen(&mut world, 10);
                world.deliver(usize::MAX);
                world.cut(at, cut);
                happen(&mut world, 5);
                world.converge();
                world.leave();
            }
        }
    }
}

#[test]
fn promise_3_resuming_gives_every_event_after_the_cursor_from_the_ring_or_page_by_page() {
    let mut world = world();
    let keeper = world.reader("keeper", Form::Json);
    world.subscribe(keeper, to(&[TRADE])).expect("good");
    world.settle();
    for _ in 0..30 {
        happen(&mut world, 100);
        world.settle();
    }
    let trades = on_tape(&world, TRADE);
    for (after, pages) in [(trades[3_000], 0), (trades[100], 2)] {
        let fetched = world.upstream.fetched;
        let at = world.reader("r", Form::Sse);
        let from = cursor(&world, after);
        world.subscribe(at, Subscribe { from, ..to(&[TRADE, QUOTE]) }).expect("good");
        world.settle();
        let expected: Vec<u64> = trades.iter().copied().filter(|t| *t > after).collect();
        assert_eq!(seqs(&world, at, TRADE), expected);
        assert_eq!(world.upstream.fetched - fetched, pages);
        assert_eq!(seqs(&world, at, QUOTE).len(), 1, "a state begins with a snapshot");
    }
    world.converge();
}

#[test]
fn promise_3_what_the_tape_has_lost_is_a_gap_but_for_who_asks_for_all_there_is() {
    let mut world = world();
    let lost = on_tape(&world, TRADE)[4];
    world.tape().evicted.insert(TRADE.parse().expect("a topic"), lost);
    let (at, all) = (world.reader("r", Form::Json), world.reader("all", Form::Json));
    let from = cursor(&world, 1);
    world.subscribe(at, Subscribe { from, recent: Some(5), ..to(&[TRADE]) }).expect("good");
    world.subscribe(all, Subscribe { from: Some("earliest".into()), ..to(&[TRADE]) }).expect("good");
    world.converge();
    assert_eq!(ops(&world, at), ["Welcome", "Gap", "Subscribed"]);
    assert_eq!(ops(&world, all), ["Welcome", "Subscribed"]);
    assert_eq!(seqs(&world, at, TRADE), on_tape(&world, TRADE)[5..]);
    assert_eq!(seqs(&world, all, TRADE), on_tape(&world, TRADE)[5..]);
}

#[test]
fn promise_3_a_conflate_false_state_whose_events_are_lost_has_a_gap_and_a_snapshot() {
    let mut world = world();
    let lost = on_tape(&world, QUOTE)[4];
    world.tape().evicted.insert(QUOTE.parse().expect("a topic"), lost);
    let at = world.reader("r", Form::Json);
    let from = cursor(&world, 1);
    world.subscribe(at, Subscribe { from, conflate: Some(false), ..to(&[QUOTE]) }).expect("good");
    world.converge();
    assert_eq!(ops(&world, at), ["Welcome", "Gap", "Subscribed"]);
    assert_eq!(seqs(&world, at, QUOTE).len(), 1);
}

#[test]
fn promise_3_a_cursor_of_another_epoch_is_a_gap_on_all() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    world.subscribe(at, Subscribe { from: Some("other-7".into()), ..to(&[TRADE, QUOTE]) }).expect("good");
    world.converge();
    assert_eq!(ops(&world, at), ["Welcome", "Gap", "Subscribed"]);
}

#[test]
fn promise_3_a_cursor_from_an_edge_that_is_ahead_is_waited_for_and_refused_if_it_never_comes() {
    let mut world = world();
    happen(&mut world, 5);
    let at = world.reader("r", Form::Sse);
    let from = cursor(&world, head(&world) - 3);
    world.subscribe(at, Subscribe { from, ..to(&[TRADE]) }).expect("good");
    world.pass_time(1_000);
    assert!(seqs(&world, at, TRADE).is_empty());
    world.converge();
    assert_eq!(seqs(&world, at, TRADE).len(), 1);
    let bad = world.reader("bad", Form::Json);
    let from = cursor(&world, head(&world) + 1_000);
    world.subscribe(bad, Subscribe { from, ..to(&[TRADE, "trade/*/BBB"]) }).expect("waits");
    world.settle();
    world.pass_time(6_000);
    let error = world.readers[bad].notices.iter().find(|n| matches!(n, Notice::Error { .. }));
    assert!(matches!(error, Some(Notice::Error { id: Some(_), code, .. }) if code == "bad_request"), "{error:?}");
    world.audit();
    world.leave();
}

#[test]
fn promise_3_a_book_that_the_reader_holds_gives_the_updates_since() {
    let mut world = world();
    let keeper = world.reader("keeper", Form::Json);
    world.subscribe(keeper, to(&[BOOK])).expect("good");
    happen_well(&mut world, 5);
    world.settle();
    let held = *on_tape(&world, BOOK).last().expect("some");
    world.happen(BOOK);
    world.happen(BOOK);
    world.settle();
    let since = seqs(&world, keeper, BOOK).len();
    let cold = world.reader("cold", Form::Json);
    let from = cursor(&world, held);
    let have = [(BOOK.to_owned(), held)].into();
    let request = Subscribe { from, have, ..to(&[BOOK]) };
    let id = world.readers[cold].id.expect("open");
    world.hub.request(id, ticker_proto::Request::Subscribe(request), world.now).expect("good");
    let mut plan = Vec::new();
    world.hub.plan(id, 1 << 20, world.now, &mut plan);
    let text: Vec<String> = plan
        .iter()
        .map(|o| String::from_utf8(o.encoded.bytes.to_vec()).expect("text"))
        .filter(|t| t.contains(BOOK))
        .collect();
    assert!(since > 0 && text.iter().filter(|t| t.contains("\"kind\"")).all(|t| !t.contains("snapshot")), "{text:?}");
    assert!(text[0].contains(&format!("\"prev\":{held}")), "{text:?}");
    world.hub.close(id);
    world.readers[cold].id = None;
    // A place that this hub does not know gives a snapshot.
    let far = world.reader("far", Form::Json);
    let (from, have) = (cursor(&world, held), [(BOOK.to_owned(), held + 1_000)].into());
    world.subscribe(far, Subscribe { from, have, ..to(&[BOOK]) }).expect("good");
    world.settle();
    assert_eq!(world.readers[far].log[0].2, Kind::Snapshot);
}

#[test]
fn promise_3_conflate_false_delivers_and_resumes_every_event_of_every_channel() {
    let mut world = world();
    let at = world.reader("r", Form::Json);
    let all = Subscribe { conflate: Some(false), max_rate: Some(1.0), ..to(&[QUOTE, TRADE, BOOK]) };
    world.subscribe(at, all).expect("good");
    world.settle();
    world.readers[at].log.clear();
    let from = head(&world);
    world.readers[at].frozen = true;
    for _ in 0..30 {
        happen(&mut world, 3);
        world.deliver(usize::MAX);
        world.passes();
    }
    world.thaw(at);
    world.converge();
    for topic in [QUOTE, TRADE, BOOK] {
        let expected: Vec<u64> = on_tape(&world, topic).into_iter().filter(|s| *s > from).collect();
        assert_eq!(seqs(&world, at, topic), expected, "{topic}");
    }
    happen(&mut world, 50);
    world.cut(at, 17);
    world.converge();
}

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
fn nobody_waits_for_ever_for_a_wake_up() {
    for budget in [1, 300, 100_000] {
        for takes in [1, 3, usize::MAX] {
            let mut world = world();
            let at = world.reader("r", Form::Json);
            let request = Subscribe { max_rate: Some(5.0), max_kbps: Some(100.0), ..to(&["*/va/*"]) };
            world.subscribe(at, request).expect("good");
            world.settle();
            (world.readers[at].budget, world.readers[at].takes) = (budget, takes);
            happen(&mut world, 40);
            world.settle();
            world.pass_time(16_000);
            // Without anything new coming, it has all that there is.
            let reader = &world.readers[at];
            reader.converged(&world.tapes, &world.epoch);
        }
    }
}
