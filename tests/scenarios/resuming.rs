//! Going on from a cursor, wherever it was gained and however the connection before it ended.

use std::time::Duration;

use ticker_client::{Options, Resume, Subscription};
use ticker_market::{Class, Kind};
use ticker_proto::{Code, Notice};

use crate::beginnings::ALL;
use crate::rig::{Setup, Stage, of};
use crate::screen::{Begun, Screen, lay};
use crate::transport::{TRANSPORTS, Transport, code_of};
use crate::valve::Valve;

/// How often the connection is cut.
const CUTS: usize = 8;

const EVENTS: [&str; 2] = ["trade/alpha/A-USD", "trade/alpha/B-USD"];

/// The connection is cut again and again, after as many bytes as it happens: every trade comes once, every state is right.
pub(crate) async fn resume(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.begin_books(60).await;
    let begun = Begun::After(stage.source.record.cursor.as_ref().expect("a place").seq);
    let from = Some(stage.source.record.cursor());
    let valve = Valve::before(&stage).await;
    let resume = Resume::Backoff { first_ms: 1, max_ms: 5 };
    // A QUIC connection that is cut says nothing of it.
    let options = Options { resume, quic_idle: Duration::from_millis(1_500), ..valve.options(&stage) };
    let mut screen = Screen::open(options, Subscription { from, ..of(&ALL) }).await;
    let mut rng = fastrand::Rng::with_seed(transport.name.len() as u64);
    stage.source.bustle(20).await;
    screen.until("something", |s| s.got.len() > 5).await;
    // The first connection ends with whatever is on its way, the others after as many bytes as it happens.
    valve.cut_after((0..CUTS).map(|_| rng.usize(50..30_000)).collect());
    valve.cut();
    while valve.cuts_left() > 0 {
        stage.source.bustle(10).await;
        screen.catch_up(&stage.source.record, &EVENTS).await;
    }
    stage.source.bustle(30).await;
    screen.catch_up(&stage.source.record, &ALL).await;
    screen.lay(&stage.source.record, begun);
    drop(screen);
    stage.stop().await;
}

/// A cursor that one transport gave goes on over every other.
pub(crate) async fn resume_elsewhere(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.begin_books(20).await;
    let begun = Begun::After(stage.source.record.cursor.as_ref().expect("a place").seq);
    let mut from = Some(stage.source.record.cursor());
    let (mut all, mut last) = (Vec::new(), None);
    let at = TRANSPORTS.iter().position(|t| t.name == transport.name).expect("it is in the table");
    for next in TRANSPORTS.iter().cycle().skip(at).take(TRANSPORTS.len() + 1) {
        stage.source.bustle(25).await;
        let mut screen = Screen::open(stage.options_of(next), Subscription { from: from.take(), ..of(&ALL) }).await;
        stage.source.bustle(25).await;
        let has = stage.source.rng.usize(5..40);
        screen.until("some of it", |s| s.got.len() >= has && s.reader.cursor().is_some()).await;
        assert_eq!(screen.gaps(), [], "over {}", next.name);
        let (cursor, got) = screen.die();
        from = Some(cursor);
        all.extend(got);
        last = Some(next);
    }
    let last = last.expect("there are transports");
    let mut screen = Screen::open(stage.options_of(last), Subscription { from, ..of(&ALL) }).await;
    screen.catch_up(&stage.source.record, &ALL).await;
    all.extend(std::mem::take(&mut screen.got).into_iter().filter(|g| g.event.topic.channel.class() == Class::Event));
    all.retain(|g| g.event.topic.channel.class() == Class::Event);
    lay(&all, &stage.source.record, begun, false);
    for topic in EVENTS {
        let came = all.iter().filter(|g| g.event.topic.to_string() == topic).count();
        assert_eq!(came, stage.source.record.of(topic).len(), "every trade of {topic}");
    }
    drop(screen);
    stage.stop().await;
}

/// `earliest` gives all that the tape holds.
pub(crate) async fn earliest(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.begin_books(20).await;
    stage.source.bustle(200).await;
    let mut screen = stage.open(Subscription { from: Some("earliest".into()), ..of(&ALL) }).await;
    stage.source.bustle(50).await;
    screen.catch_up(&stage.source.record, &ALL).await;
    screen.lay(&stage.source.record, Begun::After(0));
    drop(screen);
    stage.stop().await;
}

/// Where the tape no longer reaches back to the cursor, `gap` names the topics that have a hole, and only those.
pub(crate) async fn expired_cursor(transport: &'static Transport) {
    let mut setup = Setup::default();
    setup.fanout.tape_bytes_max = 300_000;
    let mut stage = Stage::with(transport, setup).await;
    let [busy, quiet] = EVENTS;
    let trade = stage.source.trade();
    stage.source.put(quiet, Kind::Update, trade).await;
    let from = Some(stage.source.record.cursor());
    let trades = stage.source.trades(busy, 5_000);
    stage.source.flood(trades).await;
    let mut screen = stage.open(Subscription { from, ..of(&EVENTS) }).await;
    let trades = stage.source.trades(quiet, 3);
    stage.source.flood(trades).await;
    screen.catch_up(&stage.source.record, &EVENTS).await;
    assert_eq!(screen.gaps(), [(Some(busy), "cursor_expired")]);
    let gap = screen.notices.iter().position(|n| matches!(n, Notice::Gap { .. }));
    let subscribed = screen.notices.iter().position(|n| matches!(n, Notice::Subscribed { .. }));
    assert!(subscribed.is_none() || gap < subscribed, "the hole is told before the subscription is confirmed");
    lay(&screen.got, &stage.source.record, Begun::Here, false);
    let kept = screen.of(busy).count();
    assert!((100..5_000).contains(&kept), "{kept} of 5,000 trades are still there");
    assert_eq!(screen.of(quiet).count(), 3, "nothing of it is missing");
    drop(screen);
    stage.stop().await;
}

/// A cursor of another epoch means nothing here: the reader is told, and begins anew.
pub(crate) async fn other_epoch(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.begin_books(20).await;
    stage.source.bustle(60).await;
    let mut screen = stage.open(Subscription { from: Some("elsewhere-5".into()), ..of(&ALL) }).await;
    screen.until_notice("a gap", |n| matches!(n, Notice::Gap { .. })).await;
    assert_eq!(screen.gaps(), [(None, "epoch_changed")]);
    screen.catch_up(&stage.source.record, &["quote/alpha/A-USD", "book/alpha/A-USD", "book-10/alpha/B-USD"]).await;
    stage.source.bustle(40).await;
    screen.catch_up(&stage.source.record, &ALL).await;
    let begun = screen.joined().map_or(Begun::Here, Begun::Joined);
    lay(&screen.got, &stage.source.record, begun, false);
    assert!(screen.cursor().starts_with("first-"), "{}", screen.cursor());
    drop(screen);
    stage.stop().await;
}

/// A cursor that the tape has not reached is waited for; if it is never reached the request is refused.
pub(crate) async fn cursor_ahead(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let now = stage.source.record.cursor.clone().expect("a place").seq;
    let soon = Some(format!("first-{}", now + 3));
    let options = stage.options();
    let reading = async {
        let mut screen = Screen::open(options, Subscription { from: soon, ..of(&EVENTS) }).await;
        screen.until_has(EVENTS[0], now + 5).await;
        screen
    };
    let source = &mut stage.source;
    let publishing = async {
        for _ in 0..6 {
            let trade = source.trade();
            source.put(EVENTS[0], Kind::Update, trade).await;
        }
    };
    let (screen, ()) = tokio::join!(reading, publishing);
    // Time is on the tape too: a tick may stand between.
    let after = stage.source.record.of(EVENTS[0]).iter().map(|e| e.seq).find(|seq| *seq > now + 3);
    assert_eq!(screen.of(EVENTS[0]).next().map(|e| e.seq), after, "it begins after the cursor");
    drop(screen);
    let never = Some(format!("first-{}", now + 1_000_000));
    let subscription = Subscription { from: never, ..of(&EVENTS) };
    // A poll that is answered before five seconds are over asks again.
    let options = Options { poll_wait_s: 8, ..stage.options() };
    let error = match ticker_client::connect(options, subscription).await {
        Err(error) => error,
        Ok(mut reader) => loop {
            match crate::rig::bounded("an answer", reader.next()).await {
                Ok(message) => assert!(message.is_some(), "it ended without a word"),
                Err(error) => break error,
            }
        },
    };
    assert_eq!(code_of(&error).0, Some(Code::BadRequest), "{error}");
    stage.stop().await;
}

/// The fanout begins anew in mid-session: `gap`, `welcome`, snapshots, and it goes on.
pub(crate) async fn epoch_changes(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.begin_books(20).await;
    stage.source.bustle(40).await;
    let from = Some(stage.source.record.cursor());
    let mut screen = stage.open(Subscription { from, ..of(&ALL) }).await;
    stage.source.bustle(80).await;
    screen.catch_up(&stage.source.record, &ALL).await;
    screen.lay(&stage.source.record, Begun::Here);
    let (had, notices) = (screen.got.len(), screen.notices.len());
    // It reads meanwhile: a poll is under way when it happens.
    let reading = screen.until_notice("a gap", |n| matches!(n, Notice::Gap { .. }));
    tokio::join!(reading, stage.restart_fanout());
    stage.source.begin_books(30).await;
    stage.source.bustle(60).await;
    // Of the event channels it gets what happens once the new tape is followed; the gap says so.
    let states: Vec<&str> = ALL.into_iter().filter(|t| !EVENTS.contains(t)).collect();
    screen.catch_up(&stage.source.record, &states).await;
    stage.source.bustle(60).await;
    screen.catch_up(&stage.source.record, &ALL).await;
    assert_eq!(screen.gaps(), [(None, "epoch_changed")]);
    if !transport.is_polled() {
        let then = screen.notices[notices..].iter().skip_while(|n| !matches!(n, Notice::Gap { .. })).nth(1);
        assert!(matches!(then, Some(Notice::Welcome { epoch, .. }) if epoch == "second"), "{then:?}");
    }
    lay(&screen.got[had..], &stage.source.record, Begun::Here, false);
    assert!(screen.cursor().starts_with("second-"), "{}", screen.cursor());
    drop(screen);
    stage.stop().await;
}
