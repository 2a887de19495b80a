use std::collections::BTreeMap;

use ticker_market::bar::GRACE_NANOS;
use ticker_market::{Bar, Decimal, Side, Stats, Topic, Trade};
use ticker_tape::{Limits, Record};

use super::*;
use crate::fixture::*;
use crate::history::Range;

const SECOND: i64 = 1_000_000_000;

/// A moment at the beginning of an hour.
const HOUR: Time = Time(1_786_309_200 * SECOND);

fn trade_of(price: i64, size: i64) -> Data {
    let (price, size) = (Decimal::new(price, 2), Decimal::new(size, 3));
    Data::Trade(Trade { price, size, side: Some(Side::Buy), trade_id: "t".into(), reference: None })
}

/// A core whose source is live, at that moment.
fn live(symbols: &[&str]) -> Published {
    let mut published = Published::new(core(), &[]);
    published.now = HOUR;
    symbols.iter().for_each(|s| published.announce(s));
    published
}

impl Published {
    fn trade(&mut self, text: &str, at: Time, price: i64, size: i64) {
        self.put_at(text, Kind::Update, trade_of(price, size), Some(at), self.now);
    }

    fn put_at(&mut self, text: &str, kind: Kind, data: Data, ts: Option<Time>, recv: Time) {
        let named = topic(text);
        let id = self.core.topic_id(&named).expect("announced");
        let event = Event { ts, recv, ..event(&named, kind, data) };
        self.core.put(id, event, self.now).expect("good");
    }

    fn pass(&mut self, nanos: i64) {
        self.now = self.now.plus_nanos(nanos);
        self.core.sweep(self.now);
    }

    fn events(&self, text: &str) -> Vec<Arc<Event>> {
        self.core.tape().events_of(&[self.id(text)], 0).map(|(_, e)| Arc::clone(e)).collect()
    }

    fn closed(&self, text: &str) -> Vec<Bar> {
        self.events(text).iter().filter(|e| e.is_closed_bar()).map(|e| bar_of(e)).collect()
    }
}

fn bar_of(event: &Event) -> Bar {
    match &event.data {
        Data::Bar(bar) => bar.clone(),
        other => panic!("{other:?}"),
    }
}

fn stats_of(event: &Event) -> Stats {
    match &event.data {
        Data::Stats(stats) => Stats::clone(stats),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trade_moves_its_bars_and_ticks_close_them() {
    let mut p = live(&["A-USD"]);
    let now = p.now;
    p.trade("trade/kraken/A-USD", now, 10_000, 500);
    let trade = p.last("trade/kraken/A-USD");
    for interval in Interval::ALL {
        let event = p.last(&format!("bar-{}/kraken/A-USD", interval.as_str()));
        assert_eq!((event.seq, event.kind, event.published), (trade.seq, Kind::Snapshot, trade.published));
        let bar = bar_of(&event);
        assert_eq!(
            (bar.start, bar.trades, bar.closed, bar.open),
            (interval.start_of(HOUR), 1, false, Decimal::new(10_000, 2))
        );
    }
    assert_eq!(stats_of(&p.last("stats/kraken/A-USD")).trades, 1);
    // At once behind it: told with the next tick, at the latest.
    p.pass(SECOND / 10);
    let now = p.now;
    p.trade("trade/kraken/A-USD", now, 10_100, 500);
    assert_eq!(bar_of(&p.last("bar-1m/kraken/A-USD")).trades, 1);
    p.pass(SECOND);
    let event = p.last("bar-1m/kraken/A-USD");
    assert_eq!((bar_of(&event).trades, event.kind), (2, Kind::Update));
    assert!(event.seq > p.last("trade/kraken/A-USD").seq && event.recv == p.now && event.ts.is_none());
    assert_eq!(stats_of(&p.last("stats/kraken/A-USD")).trades, 2);
    for _ in 0..70 {
        p.pass(SECOND);
    }
    let seconds = p.closed("bar-1s/kraken/A-USD");
    assert_eq!((seconds[0].start, seconds[0].trades, seconds[0].close), (HOUR, 2, Decimal::new(10_100, 2)));
    assert!(seconds.len() > 65 && seconds[1..].iter().all(|b| b.trades == 0 && b.open == Decimal::new(10_100, 2)));
    assert!(seconds.windows(2).all(|w| w[1].start.since(w[0].start) == SECOND));
    let minutes = p.closed("bar-1m/kraken/A-USD");
    assert_eq!(minutes.len(), 1);
    assert_eq!((minutes[0].volume, minutes[0].vwap), (Decimal::ONE, Some(Decimal::new(10_050, 2))));
    check_tape(&p.core);
}

#[test]
fn late_trades_are_counted_and_left_out() {
    let mut p = live(&["A-USD"]);
    let start = p.now;
    p.trade("trade/kraken/A-USD", start, 100, 1);
    p.pass(60 * SECOND + GRACE_NANOS - 1);
    p.trade("trade/kraken/A-USD", start.plus_nanos(59 * SECOND), 200, 1);
    p.pass(1);
    p.trade("trade/kraken/A-USD", start.plus_nanos(59 * SECOND), 300, 1);
    p.trade("trade/kraken/A-USD", p.now.plus_nanos(60 * SECOND), 400, 1);
    p.pass(SECOND);
    let bar = p.closed("bar-1m/kraken/A-USD").remove(0);
    assert_eq!((bar.trades, bar.close), (2, Decimal::new(200, 2)));
    assert_eq!(p.core.left_out.late, [1, 1, 0, 0, 0]);
    assert_eq!(p.core.left_out.ahead, [1; 5]);
    assert_eq!(stats_of(&p.last("stats/kraken/A-USD")).trades, 3, "of statistics a late one is a part");
    check_tape(&p.core);
}

#[test]
fn nothing_trades_nothing_ticks() {
    let mut p = live(&["A-USD"]);
    p.put("quote/kraken/A-USD", Kind::Update, quote(1, 2)).expect("good");
    let head = p.core.tape().head();
    p.pass(100 * SECOND);
    assert_eq!(p.core.tape().head(), head);
}

#[test]
fn corrections_and_cancellations_change_no_bar() {
    let mut p = live(&["A-USD"]);
    let now = p.now;
    p.trade("trade/kraken/A-USD", now, 100, 1);
    let Data::Trade(mut cancelled) = trade_of(100, 1) else { panic!("a trade") };
    cancelled.reference = Some("t".into());
    p.put_at("trade/kraken/A-USD", Kind::Cancel, Data::Trade(cancelled), Some(now), now);
    p.pass(3 * SECOND);
    assert_eq!(p.closed("bar-1s/kraken/A-USD")[0].trades, 1);
}

/// Some trades at random, with the moments at which they are received.
fn market(seed: u64) -> Vec<(usize, Time, Time, i64, i64)> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut recv = HOUR;
    let one = |rng: &mut fastrand::Rng, recv: Time| {
        let at = recv.plus_millis(rng.i64(-4_000..500));
        (rng.usize(..3), at, recv, rng.i64(900..1_100), rng.i64(1..50))
    };
    (0..600)
        .map(|_| {
            recv = recv.plus_millis(if rng.u8(..20) == 0 { rng.i64(0..30_000) } else { rng.i64(0..400) });
            one(&mut rng, recv)
        })
        .collect()
}

/// What the tape alone says of closed bars, made anew from its trades and ticks.
fn rebuilt(core: &Core, text: &str, interval: Interval) -> Vec<(Time, u64, Decimal, Decimal, Decimal, Decimal)> {
    let named: Topic = topic(text);
    // Before the first tick, the first trade of all tells the time.
    let (mut time, mut bars) = (None, BTreeMap::<Time, Vec<(Decimal, Decimal)>>::new());
    for entry in core.tape().since(0).expect("nothing was forgotten") {
        match &entry.record {
            Record::Tick(_, at) => time = Some(*at),
            Record::Event(_, event) if event.topic.channel == Channel::Trade => {
                let now = *time.get_or_insert(event.recv);
                let Data::Trade(trade) = &event.data else { panic!("a trade") };
                let start = interval.start_of(event.ts.expect("told"));
                if *event.topic == named && start.plus_nanos(interval.nanos() + GRACE_NANOS) > now {
                    bars.entry(start).or_default().push((trade.price, trade.size));
                }
            }
            _ => {}
        }
    }
    let ticked = time.expect("there were trades");
    bars.retain(|start, _| start.plus_nanos(interval.nanos() + GRACE_NANOS) <= ticked);
    let row = |(start, list): (Time, Vec<(Decimal, Decimal)>)| {
        let prices = || list.iter().map(|(p, _)| *p);
        let (high, low) = (prices().max().expect("some"), prices().min().expect("some"));
        (start, list.len() as u64, list[0].0, high, low, list.iter().map(|(_, s)| s).sum())
    };
    bars.into_iter().map(row).collect()
}

#[test]
fn bars_equal_an_independent_rebuild_from_the_tape_live_and_recorded() {
    for (seed, recorded) in (0..8).zip([false, true].into_iter().cycle()) {
        let symbols = ["A-USD", "B-USD", "C-USD"];
        let limits = Limits { age_nanos_max: i64::MAX, ..Limits::default() };
        let mut p = Published::new(core_with(limits), &[]);
        if recorded {
            p.core.set_recorded(p.stream);
        }
        symbols.iter().for_each(|s| p.announce(s));
        for (which, at, recv, price, size) in market(seed) {
            // The wall's clock is elsewhere while a recording is played.
            p.now = if recorded { Time(5) } else { recv };
            let text = format!("trade/kraken/{}", symbols[which]);
            p.put_at(&text, Kind::Update, trade_of(price, size), Some(at), recv);
        }
        check_tape(&p.core);
        for symbol in symbols {
            for interval in [Interval::S1, Interval::M1, Interval::M5] {
                let closed = p.closed(&format!("bar-{}/kraken/{symbol}", interval.as_str()));
                let starts: Vec<Time> = closed.iter().map(|b| b.start).collect();
                assert!(starts.windows(2).all(|w| w[1].since(w[0]) == interval.nanos()), "{interval:?}");
                let traded = closed.iter().filter(|b| b.trades > 0);
                let rows: Vec<_> = traded.map(|b| (b.start, b.trades, b.open, b.high, b.low, b.volume)).collect();
                assert_eq!(rows, rebuilt(&p.core, &format!("trade/kraken/{symbol}"), interval), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_recording_that_begins_again_begins_its_bars_again() {
    let mut p = Published::new(core(), &[]);
    p.core.set_recorded(p.stream);
    p.announce("A-USD");
    for _ in 0..2 {
        for second in 0..130 {
            let at = HOUR.plus_nanos(second * SECOND);
            p.put_at("trade/kraken/A-USD", Kind::Update, trade_of(100 + second, 1), Some(at), at);
        }
    }
    let minutes = p.closed("bar-1m/kraken/A-USD");
    assert_eq!(minutes.iter().map(|b| (b.start, b.trades)).collect::<Vec<_>>(), {
        let minute = |n: i64| HOUR.plus_nanos(n * 60 * SECOND);
        [(minute(0), 60), (minute(1), 60), (minute(0), 60), (minute(1), 60)]
    });
    check_tape(&p.core);
}

#[test]
fn the_consolidated_quote_drops_a_venue_the_moment_it_is_not_live() {
    let mut p = live(&["A-USD"]);
    let other = ticker_market::Instrument { venue: "coinbase".into(), ..instrument("A-USD") };
    p.core.announce(p.stream.source, other, p.now).expect("fits");
    let best = "quote/best/A-USD";
    let sides = |p: &Published| match p.last(best).data {
        Data::Quote(q) => (q.bid_venue.map(|v| v.to_string()), q.ask_venue.map(|v| v.to_string())),
        other => panic!("{other:?}"),
    };
    let of = |v: &str| Some(v.to_owned());
    p.put("quote/kraken/A-USD", Kind::Update, quote(99, 103)).expect("good");
    assert!(p.events(best).is_empty(), "kraken has not said that it is live");
    p.put("status/kraken/A-USD", Kind::Update, status(State::Live)).expect("good");
    assert_eq!((sides(&p), p.last(best).kind), ((of("kraken"), of("kraken")), Kind::Snapshot));
    assert_eq!(p.last(best).seq, p.last("status/kraken/A-USD").seq, "the place of its cause");
    p.put("status/coinbase/A-USD", Kind::Update, status(State::Live)).expect("good");
    p.put("quote/coinbase/A-USD", Kind::Update, quote(98, 102)).expect("good");
    assert_eq!(sides(&p), (of("kraken"), of("coinbase")));
    let told = p.events(best).len();
    p.put("quote/coinbase/A-USD", Kind::Update, quote(97, 102)).expect("good");
    assert_eq!(p.events(best).len(), told, "what does not change is not told");
    for state in [State::Stale, State::Resyncing, State::Closed, State::Halted, State::Connecting] {
        p.put("status/kraken/A-USD", Kind::Update, status(state)).expect("good");
        assert_eq!(sides(&p), (of("coinbase"), of("coinbase")), "{state:?}");
        assert_eq!(p.last(best).seq, p.last("status/kraken/A-USD").seq);
        p.put("status/kraken/A-USD", Kind::Update, status(State::Live)).expect("good");
        assert_eq!(sides(&p), (of("kraken"), of("coinbase")));
    }
    p.put("quote/kraken/A-USD", Kind::Invalid, Data::Invalid("gap".into())).expect("good");
    assert_eq!(sides(&p), (of("coinbase"), of("coinbase")));
    p.core.detach(p.stream, p.now);
    p.core.sweep(p.now.plus_nanos(LIMITS.source_grace_nanos));
    assert_eq!(sides(&p), (None, None), "nobody is live");
    assert!(p.core.known_topic(&topic("quote/best/B-USD")).is_err());
    assert!(p.core.matching(&"quote/*/A-USD".parse().expect("a pattern")).len() == 2, "`*` is not `best`");
    check_tape(&p.core);
}

#[test]
fn history_is_given_a_page_at_a_time() {
    let mut p = live(&["A-USD"]);
    for _ in 0..40 {
        let now = p.now;
        p.trade("trade/kraken/A-USD", now, 100, 1);
        p.pass(SECOND);
    }
    let id = p.id("bar-1s/kraken/A-USD");
    let all = p.core.bars(id, &Range::new(0, 0, 0));
    assert_eq!((all.events.len(), all.next), (38, None));
    let range = |start: i64, end: i64, limit| {
        let at = |n: i64| HOUR.plus_nanos(n * SECOND).0;
        Range::new(at(start), at(end), limit)
    };
    let starts =
        |events: &[Arc<Event>]| -> Vec<i64> { events.iter().map(|e| bar_of(e).start.since(HOUR) / SECOND).collect() };
    let mut asked = range(5, 15, 4);
    let (mut got, mut pages) = (Vec::new(), 0);
    loop {
        let page = p.core.bars(id, &asked);
        got.extend(starts(&page.events));
        pages += 1;
        asked.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!((got, pages), ((5..15).collect(), 3));
    let newest = p.core.bars(id, &Range { start: None, ..range(0, 15, 3) });
    assert_eq!((starts(&newest.events), newest.next), (vec![12, 13, 14], None), "without a beginning the newest");
    let trades = p.id("trade/kraken/A-USD");
    let page = p.core.trades(trades, &range(3, 9, 4));
    assert_eq!((page.events.len(), page.next), (4, page.events.last().map(|e| e.seq)));
    let page = p.core.trades(trades, &Range { after: page.next, ..range(3, 9, 4) });
    assert_eq!((page.events.len(), page.next), (2, None));
    let recent = p.core.recent(&[id, trades], 3);
    assert_eq!(recent.events.len(), 6);
    assert!(recent.events.is_sorted_by_key(|e| e.seq));
    assert_eq!(recent.events.iter().filter(|e| e.is_closed_bar()).count(), 3, "of bars the closed ones");
}
