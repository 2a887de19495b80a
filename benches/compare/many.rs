//! Workloads of many readers: idle ones, and all of them at once.

use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Wish};
use crate::feed::Feed;
use crate::flows::{CONNECTING_MAX, Plan};
use crate::measure::{Idle, idle as keep, wait_for_calm};
use crate::process::{LOAD_CORE, Started, say, tail};
use crate::publish::Publisher;
use crate::report::{Goal, Section, millis};
use crate::servers::{Places, Rig, Subject};
use crate::wire::Over;

/// As many as one process may have files for, with some to spare.
const READERS: usize = 15_000;

/// 15,000 readers to whom nothing but heartbeats is sent.
pub(crate) fn idle(plan: Plan, window: Duration, at: &Places) -> Result<Section, String> {
    let mut section = Section::new("idle", "Idle: 15,000 readers of quiet topics");
    let mut rows = Vec::new();
    let mut one = |subject: Subject, over: Over, each: usize| -> Result<Idle, String> {
        let topics = if each == 1 { 1 } else { 200 };
        let wish = Wish {
            over,
            readers: READERS,
            topics_per_reader: each,
            topics: 0..topics,
            connecting_max: CONNECTING_MAX,
            snapshots: 0,
        };
        let idle = keep(subject, &wish, window, at)?;
        rows.push(vec![
            format!("{}, {over:?}, {each} of {topics}", subject.name()),
            format!("**{:.2}**", idle.kib_per_reader),
            format!("**{:.2}**", idle.cpu_per_reader),
            format!("{:.0}", idle.resident_before_kib / 1024.0),
            format!("{:.0} %", idle.foreign_cpu * 100.0),
        ]);
        Ok(idle)
    };
    let ws = one(Subject::Ours, Over::Ws, 1)?;
    one(Subject::Ours, Over::Ws, 20)?;
    let sse = one(Subject::Ours, Over::Sse, 1)?;
    let poll = one(Subject::Ours, Over::Poll, 1)?;
    if plan.peers {
        one(Subject::Bun, Over::Ws, 1)?;
        one(Subject::Bun, Over::Ws, 20)?;
        one(Subject::Nchan, Over::Ws, 1)?;
        one(Subject::Nchan, Over::Sse, 1)?;
    }
    section.table(
        &[
            "server, transport, topics of each reader",
            "resident KiB a reader",
            "CPU µs/s a reader",
            "resident MiB before",
            "others' CPU",
        ],
        &rows,
    );
    section.line(format!(
        "Over {} s. Ours: a heartbeat each 15 s (polls: an answer and the next request each 25 s); peers: their own pings, as near to it as they can be set.",
        window.as_secs()
    ));
    let mut goal = |what: &str, measured, limit, unit| {
        section.goal(&Goal { what: format!("idle: {what}"), measured, limit, unit, of: String::new() });
    };
    goal("WebSocket, memory a reader", ws.kib_per_reader, 2.0, "KiB");
    goal("WebSocket, CPU a reader", ws.cpu_per_reader, 1.0, "µs/s");
    goal("SSE, memory a reader", sse.kib_per_reader, 2.0, "KiB");
    goal("long poll, memory a reader", poll.kib_per_reader, 2.0, "KiB");
    Ok(section)
}

/// 100,000 readers on seven edges: as many as their files allow, and no more than that is on one.
pub(crate) fn hundred(window: Duration, at: &Places) -> Result<Section, String> {
    const EDGES: usize = 7;
    const ALL: usize = 100_000;
    let mut section =
        Section::new("hundred", "Idle: 100,000 WebSocket readers of a quiet topic, on seven edges of one fanout");
    let feed = Feed::quotes(1, 0.0);
    wait_for_calm();
    let mut rig = Rig::start(Subject::Ours, feed, Over::Ws, 0, at)?;
    let target = rig.target();
    let mut others = Vec::new();
    for number in 1..EDGES {
        others.push(rig.another_edge(number, at)?);
    }
    let usage = || {
        let mut all = rig.measured.usage();
        for (edge, _) in &others {
            let one = edge.usage();
            all.cpu_micros += one.cpu_micros;
            all.resident_kib += one.resident_kib;
        }
        all
    };
    let (before, begun) = (usage(), Instant::now());
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut crowds = Vec::new();
    let addresses = std::iter::once(rig.readers_at).chain(others.iter().map(|(_, addr)| *addr));
    for (number, addr) in addresses.enumerate() {
        let readers = ALL * (number + 1) / EDGES - ALL * number / EDGES;
        let log = at.scratch.join(format!("crowd-{number}.log"));
        let args = ["--crowd".to_owned(), addr.to_string(), readers.to_string()];
        crowds.push((Started::new(&own.to_string_lossy(), &args, LOAD_CORE, &log)?, log));
    }
    for (crowd, log) in &mut crowds {
        let served = || std::fs::read_to_string(&*log).is_ok_and(|text| text.contains(SERVED));
        crowd.wait_until("has not all its readers", served).map_err(|e| format!("{e}: {}", tail(log)))?;
    }
    let served = begun.elapsed().as_secs_f64();
    // What connecting has left behind may settle.
    std::thread::sleep(Duration::from_secs(5));
    let (joined, since) = (usage(), Instant::now());
    std::thread::sleep(window);
    let (after, seconds) = (usage(), since.elapsed().as_secs_f64());
    for (crowd, log) in &mut crowds {
        // It ends when a reader of it does.
        crowd.wait_until("is gone", || true).map_err(|e| format!("{e}: {}", tail(log)))?;
    }
    let kib = (after.resident_kib as f64 - before.resident_kib as f64) / ALL as f64;
    let cpu = (after.cpu_micros - joined.cpu_micros) as f64 / seconds / ALL as f64;
    say(&format!("  {kib:.2} KiB and {cpu:.2} µs/s a reader, all served in {served:.1} s"));
    section.table(
        &["readers", "edges", "resident KiB a reader", "CPU µs/s a reader", "all served within s"],
        &[vec![
            ALL.to_string(),
            EDGES.to_string(),
            format!("**{kib:.2}**"),
            format!("**{cpu:.2}**"),
            format!("{served:.1}"),
        ]],
    );
    section.line(format!("Over {} s, with a heartbeat each 15 s. All seven edges share one core.", window.as_secs()));
    let mut goal = |what: &str, measured, limit, unit| {
        section.goal(&Goal { what: format!("100,000 idle: {what}"), measured, limit, unit, of: String::new() });
    };
    goal("memory a reader", kib, 2.0, "KiB");
    goal("CPU a reader", cpu, 1.0, "µs/s");
    drop(target);
    Ok(section)
}

/// What a process of readers says once all are served.
const SERVED: &str = "all are served";

/// A process of idle readers, until it is ended.
pub(crate) fn crowd(at: &str, readers: &str) -> Result<(), String> {
    let target = at.parse().map_err(|e| format!("{at}: {e}"))?;
    let readers = readers.parse().map_err(|e| format!("{readers}: {e}"))?;
    let wish = Wish {
        over: Over::Ws,
        readers,
        topics_per_reader: 1,
        topics: 0..1,
        connecting_max: CONNECTING_MAX,
        snapshots: 0,
    };
    let crowd = Crowd::start(target, wish, Feed::quotes(1, 0.0))?;
    crowd.wait_served(readers, Duration::from_secs(120))?;
    say(SERVED);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let report = crowd.report()?;
        if report.ended > 0 {
            return Err(format!("{} readers ended: {}", report.ended, report.why.unwrap_or_default()));
        }
    }
}

/// 15,000 readers connect at once, each with snapshots of 20 topics, while others read live.
pub(crate) fn cold(plan: Plan, at: &Places) -> Result<Section, String> {
    const LIVE: usize = 100;
    const TOPICS: usize = 20;
    let title = "Cold start: 15,000 readers at once, snapshots of 20 topics each; meanwhile 100 live readers of 20 other topics, 100 events/s";
    let mut section = Section::new("cold", title);
    // The newcomers' topics are quiet: what is measured is their coming.
    let feed = Feed { quiet_topics: 200, ..Feed::quotes(TOPICS, 100.0) };
    let mut rows = Vec::new();
    let (mut times, mut delays) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        wait_for_calm();
        let mut rig = Rig::start(Subject::Ours, feed, Over::Ws, READERS, at)?;
        let live = Wish {
            over: Over::Ws,
            readers: LIVE,
            topics_per_reader: TOPICS,
            topics: 0..TOPICS,
            connecting_max: CONNECTING_MAX,
            snapshots: TOPICS as u32,
        };
        let live = Crowd::start(rig.readers_at, live, feed)?;
        live.wait_served(LIVE, Duration::from_secs(20))?;
        let publisher = rig.target().map(|t| Publisher::start(feed, t)).transpose()?;
        std::thread::sleep(plan.times.warm_up);
        live.reset()?;
        let (before, begun) = (rig.measured.usage(), Instant::now());
        let wish = Wish {
            over: Over::Ws,
            readers: READERS,
            topics_per_reader: TOPICS,
            topics: TOPICS..feed.topics(),
            connecting_max: READERS,
            snapshots: TOPICS as u32,
        };
        let crowd = Crowd::start(rig.readers_at, wish, feed)?;
        let served = crowd.wait_served(READERS, Duration::from_secs(90))?;
        let (report, after) = (live.report()?, rig.measured.usage());
        let seconds = served.served_micros as f64 / 1e6;
        let p99 = report.tally.from_schedule.quantile(0.99) as f64;
        say(&format!("  all served in {seconds:.2} s, live p99 {:.1} ms", p99 / 1e3));
        times.push(seconds);
        delays.push(p99 / 1e3);
        rows.push(vec![
            format!("{seconds:.2}"),
            millis(report.tally.from_schedule.quantile(0.5) as f64),
            millis(p99),
            millis(report.tally.from_schedule.max() as f64),
            format!("{}", served.ended + report.ended),
            format!("{:.0}", (after.cpu_micros - before.cpu_micros) as f64 / READERS as f64),
            format!("{:.1}", (after.resident_kib as f64 - before.resident_kib as f64) / READERS as f64),
            format!("{:.1}", begun.elapsed().as_secs_f64()),
        ]);
        drop(crowd);
        publisher.map(Publisher::stop).transpose()?;
    }
    let header = [
        "all served within s",
        "live p50 ms",
        "live p99 ms",
        "live max ms",
        "readers ended",
        "CPU µs a newcomer",
        "resident KiB a newcomer",
        "seconds looked at",
    ];
    section.table(&header, &rows);
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    section.goal(&Goal {
        what: "cold start: all served".into(),
        measured: middle(times),
        limit: 10.0,
        unit: "s",
        of: String::new(),
    });
    section.goal(&Goal {
        what: "cold start: live readers' p99 meanwhile".into(),
        measured: middle(delays),
        limit: 50.0,
        unit: "ms",
        of: String::new(),
    });
    Ok(section)
}
