//! Promises 1 to 4: how subscriptions begin and resume.

use ticker_market::Kind;
use ticker_proto::message::Subscribe;
use ticker_proto::{Form, Notice};

use crate::scene::*;

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
fn promise_3_server_sent_events_have_no_id_before_all_that_resuming_would_not_bring_again_is_there() {
    for (held, cut) in [false, true].into_iter().flat_map(|held| (0..9).map(move |cut| (held, cut))) {
        let mut world = world();
        happen_well(&mut world, 5);
        if held {
            let keeper = world.reader("keeper", Form::Json);
            world.subscribe(keeper, to(&[BOOK, TRADE])).expect("good");
        }
        world.settle();
        let at = world.reader("r", Form::Sse);
        let request = Subscribe { conflate: Some(false), recent: Some(3), ..to(&[BOOK, TRADE]) };
        world.subscribe(at, request).expect("good");
        world.pass_cut(at, cut);
        let has_begun = seqs(&world, at, TRADE).len() == 3 && seqs(&world, at, BOOK).len() == 1;
        assert!(has_begun || world.readers[at].sse_id.is_none(), "held: {held}, {cut} messages");
        world.reconnect(at);
        world.converge();
        assert!(world.readers[at].views[&BOOK.parse().expect("a topic")].valid, "held: {held}, {cut} messages");
        assert!(world.readers[at].sse_id.is_some());
    }
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
        .map(|o| String::from_utf8(o.encoded().bytes.to_vec()).expect("text"))
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
fn promise_4_a_reader_who_resumes_is_not_led_back_by_a_snapshot_that_is_kept() {
    let mut world = world();
    happen_well(&mut world, 1);
    let first = world.reader("first", Form::Json);
    world.subscribe(first, to(&[BOOK])).expect("good");
    world.settle();
    happen_well(&mut world, 3);
    world.settle();
    let from = cursor(&world, head(&world));
    let again = world.reader("again", Form::Json);
    world.subscribe(again, Subscribe { from, ..to(&[BOOK]) }).expect("good");
    world.settle();
    let last = *on_tape(&world, BOOK).last().expect("it happened");
    assert_eq!(seqs(&world, again, BOOK), [last], "the whole book as it is now, and nothing from before");
}
