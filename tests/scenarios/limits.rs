//! What a reader asks to be held to: updates a second, kilobits a second.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ticker_client::Subscription;
use ticker_market::Topic;
use ticker_proto::Request;
use ticker_proto::message::Limit;

use crate::rig::{Stage, of};
use crate::screen::{Begun, Screen};
use crate::source::Source;
use crate::transport::Transport;
use crate::valve::Valve;

const QUOTE: &str = "quote/alpha/A-USD";

/// Publishes quotes on `topics` without a pause for as long as the reader reads.
async fn while_it_reads(source: &mut Source, topics: &[String], read: impl Future<Output = ()>) {
    let done = Cell::new(false);
    let publish = async {
        while !done.get() {
            for topic in topics {
                let quotes = source.quotes(topic, 5);
                source.flood(quotes).await;
            }
        }
    };
    let read = async {
        read.await;
        done.set(true);
    };
    tokio::join!(publish, read);
}

/// When each of the next `count` events of the topic came.
async fn times(screen: &mut Screen, topic: &str, count: usize) -> Vec<Instant> {
    let mut times = Vec::new();
    while times.len() < count {
        let had = screen.got.len();
        assert!(screen.step().await.expect("it goes on"), "it goes on");
        let came = screen.got[had..].iter().filter(|g| g.event.topic.to_string() == topic).count();
        times.extend(std::iter::repeat_n(Instant::now(), came));
    }
    times
}

/// In no time that passed did more come than the rate allows. What is late by some milliseconds makes the next look early.
fn keeps_to(rate: f64, times: &[Instant]) {
    for (i, from) in times.iter().enumerate() {
        for (more, to) in times[i..].iter().enumerate() {
            let allowed = (to.duration_since(*from).as_secs_f64() + 0.02) * rate + 1.0;
            assert!(more as f64 <= allowed, "{more} events in {:?} after {i}", to.duration_since(*from));
        }
    }
}

/// Not more than so many updates a second, and the newest at the end.
pub(crate) async fn max_rate(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let quotes = stage.source.quotes(QUOTE, 1);
    stage.source.flood(quotes).await;
    let mut screen = stage.open(Subscription { max_rate: Some(20.0), ..of(&[QUOTE, "trade/alpha/A-USD"]) }).await;
    let mut came = Vec::new();
    while_it_reads(&mut stage.source, &[QUOTE.into()], async { came = times(&mut screen, QUOTE, 10).await }).await;
    keeps_to(20.0, &came);
    // It is for states: trades come all.
    let trades = stage.source.trades("trade/alpha/A-USD", 200);
    stage.source.flood(trades).await;
    screen.catch_up(&stage.source.record, &[QUOTE, "trade/alpha/A-USD"]).await;
    screen.lay(&stage.source.record, Begun::Here);
    assert_eq!(screen.of("trade/alpha/A-USD").count(), 200);
    drop(screen);
    stage.stop().await;
}

/// The bytes of the session keep to the limit, and no topic starves.
pub(crate) async fn max_kbps(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let symbols: Vec<String> = (0..20).map(|i| format!("S{i}-USD")).collect();
    for symbol in &symbols {
        stage.source.announce(symbol).await;
    }
    let topics: Vec<String> = symbols.iter().map(|s| format!("quote/alpha/{s}")).collect();
    for topic in &topics {
        let quotes = stage.source.quotes(topic, 1);
        stage.source.flood(quotes).await;
    }
    stage.until_known("S19-USD").await;
    let valve = Valve::before(&stage).await;
    let options = valve.options(&stage);
    const BYTES_PER_SECOND: f64 = 20_000.0;
    let subscription = Subscription { max_kbps: Some(160.0), topics: topics.clone(), ..Subscription::default() };
    let began = Instant::now();
    let mut screen = Screen::open(options, subscription).await;
    let reading = async {
        let enough = |_: &Screen| valve.bytes() > 50_000;
        screen.until("fifty kilobytes", enough).await;
    };
    while_it_reads(&mut stage.source, &topics, reading).await;
    let (bytes, took) = (valve.bytes() as f64, began.elapsed().as_secs_f64());
    // A quiet session may save up a second's worth; the transport's own bytes are not counted: some per cent, but with TLS
    // almost half a small message for each.
    let overhead = if transport.secure { 1.8 } else { 1.3 };
    let allowed = (took + 1.0) * BYTES_PER_SECOND * overhead;
    assert!(bytes < allowed, "{bytes} bytes in {took} s");
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    screen.catch_up(&stage.source.record, &names).await;
    screen.lay(&stage.source.record, Begun::Here);
    drop(screen);
    stage.stop().await;
}

/// A limit changes while the session runs; where there is no back channel the reader connects again with its cursor.
pub(crate) async fn changing_limits(transport: &'static Transport) {
    const RATE: f64 = 10.0;
    let mut stage = Stage::start(transport).await;
    let quotes = stage.source.quotes(QUOTE, 1);
    stage.source.flood(quotes).await;
    let mut screen = stage.watch(&[QUOTE]).await;
    screen.catch_up(&stage.source.record, &[QUOTE]).await;
    screen = limited(&stage, screen, RATE).await;
    let mut came = Vec::new();
    while_it_reads(&mut stage.source, &[QUOTE.into()], async { came = times(&mut screen, QUOTE, 8).await }).await;
    // What was on its way before the limit held comes at once.
    keeps_to(RATE, &came[2..]);
    screen = limited(&stage, screen, 0.0).await;
    while_it_reads(&mut stage.source, &[QUOTE.into()], async { came = times(&mut screen, QUOTE, 60).await }).await;
    let took = came[59].duration_since(came[0]);
    assert!(took < Duration::from_secs_f64(59.0 / RATE), "the limit still holds: 60 updates took {took:?}");
    screen.catch_up(&stage.source.record, &[QUOTE]).await;
    let topic: Topic = QUOTE.parse().expect("a topic");
    assert_eq!(screen.board.last(&topic).map(|e| e.seq), Some(stage.source.record.last(QUOTE)));
    drop(screen);
    stage.stop().await;
}

async fn limited(stage: &Stage, mut screen: Screen, rate: f64) -> Screen {
    if stage.transport.is_duplex() {
        screen.send(Request::Limit(Limit { id: 7, max_rate: Some(rate), max_kbps: None })).await;
        return screen;
    }
    let from = Some(screen.cursor());
    let mut again = stage.open(Subscription { from, max_rate: Some(rate), ..of(&[QUOTE]) }).await;
    // A poll goes on with updates where nothing has happened since.
    again.board = screen.board;
    again.board.joining();
    again
}
