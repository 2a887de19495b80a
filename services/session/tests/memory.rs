//! What a session costs in memory: idle, and frozen while thousands of events go by.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};

use ticker_market::{Channel, Data, Decimal, Event, Instrument, Kind, Level, Levels, Quote, Time, Topic, Trade};
use ticker_proto::message::{Request, Subscribe};
use ticker_proto::{Form, Frame};
use ticker_session::{Hub, Limits, Mode, Opening, Outgoing, SessionId};

struct Counting;

static HEAP_BYTES: AtomicIsize = AtomicIsize::new(0);

#[allow(unsafe_code, reason = "a global allocator cannot be written without; it only counts")]
// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP_BYTES.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HEAP_BYTES.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// With the first one, which warms up what all share, a power of two: vectors are full then.
const SESSIONS: usize = 2_047;
const NOW: Time = Time(1_700_000_000_000_000_000);

fn instrument(symbol: &str) -> Instrument {
    let channels = vec![Channel::Quote, Channel::Trade, Channel::Book];
    let (venue, native) = ("kraken".into(), symbol.into());
    Instrument { venue, symbol: symbol.into(), native, tick_size: None, lot_size: None, channels }
}

fn frame(topic: &Arc<Topic>, seq: u64, prev: u64, kind: Kind) -> Arc<Frame> {
    let level = Level { price: Decimal::new(100_000 + (seq % 50) as i64, 2), size: Decimal::from(seq % 7 + 1) };
    let data = match topic.channel {
        Channel::Trade => Data::Trade(Trade {
            price: level.price,
            size: level.size,
            side: None,
            trade_id: "1".into(),
            reference: None,
        }),
        Channel::Book => Data::Book(Levels { bids: vec![level], ..Levels::default() }),
        _ => Data::Quote(Quote { bid: Some(level), ask: Some(level), ..Quote::default() }),
    };
    let topic = Arc::clone(topic);
    let event = Event { topic, seq, prev, kind, ts: None, recv: NOW, published: NOW, data };
    Arc::new(Frame::new(event, "e1".into()))
}

/// Sends every session what is due, or (`blocked`) finds that its transport takes nothing.
fn pass(hub: &mut Hub, plan: &mut Vec<Outgoing>, ids: &mut Vec<SessionId>, blocked: bool) {
    hub.take_ready(ids);
    for id in ids.iter() {
        hub.plan(*id, 64 * 1024, NOW, plan);
        let taken = if blocked { 0 } else { plan.len() };
        hub.commit(*id, plan, taken, blocked, NOW);
    }
}

#[test]
fn an_idle_session_is_small_and_a_frozen_one_costs_little_more() {
    let mut hub = Hub::new(Limits { backlog_events_max: 100_000, ..Limits::default() });
    hub.opened("e1", 1, false, NOW);
    let symbols = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG"];
    hub.instruments(symbols.iter().map(|s| instrument(s)).collect(), NOW);
    let topics: Vec<Arc<Topic>> = symbols
        .iter()
        .flat_map(|s| [Channel::Quote, Channel::Book, Channel::Trade].map(|c| Topic::new(c, "kraken", s)))
        .map(|t| Arc::new(t.expect("a topic")))
        .take(20)
        .collect();
    let names: Vec<String> = topics.iter().map(ToString::to_string).collect();
    let (mut plan, mut ids) = (Vec::new(), Vec::new());
    let mut seq = 1;
    let mut last = vec![0; topics.len()];
    let mut publish = |hub: &mut Hub, first: bool| {
        for (i, topic) in topics.iter().enumerate() {
            seq += 1;
            let kind = if first && topic.channel == Channel::Book { Kind::Snapshot } else { Kind::Update };
            hub.publish(&[frame(topic, seq, last[i], kind)], NOW);
            last[i] = seq;
        }
    };
    hub.added(topics.iter().map(|t| (Topic::clone(t), 0, None)).collect(), false, NOW);
    publish(&mut hub, true);

    let open = |hub: &mut Hub| {
        let id = hub.open(Opening { form: Form::WebSocketJson, mode: Mode::Stream }, NOW).expect("room");
        let request = Subscribe { topics: names.clone(), ..Subscribe::default() };
        hub.request(id, Request::Subscribe(request), NOW).expect("good");
        hub.take_needs();
    };
    open(&mut hub);
    pass(&mut hub, &mut plan, &mut ids, false);
    let before = HEAP_BYTES.load(Ordering::Relaxed);
    (0..SESSIONS).for_each(|_| open(&mut hub));
    while hub.has_ready() {
        pass(&mut hub, &mut plan, &mut ids, false);
    }
    // Some life, so that what is kept from busier moments counts too.
    for _ in 0..50 {
        publish(&mut hub, false);
        while hub.has_ready() {
            pass(&mut hub, &mut plan, &mut ids, false);
        }
    }
    let idle = (HEAP_BYTES.load(Ordering::Relaxed) - before) / SESSIONS as isize;
    println!("an idle session with {} topics: {idle} bytes", topics.len());
    assert!(idle <= 1_229, "{idle} bytes for an idle session");

    // Nobody's transport takes anything, and thousands of events go by. (What the topics keep is in it, shared by all.)
    publish(&mut hub, false);
    pass(&mut hub, &mut plan, &mut ids, true);
    let before = HEAP_BYTES.load(Ordering::Relaxed);
    for _ in 0..500 {
        publish(&mut hub, false);
        pass(&mut hub, &mut plan, &mut ids, true);
    }
    let frozen = (HEAP_BYTES.load(Ordering::Relaxed) - before) / SESSIONS as isize;
    println!("frozen while 10,000 events pass: {frozen} bytes more");
    assert!(frozen <= 8 * 1024, "{frozen} bytes more for a frozen session");
}
