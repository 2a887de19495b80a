//! Workloads in which events flow: one topic to many readers, the market, growth, and light load.

use crate::crowd::Wish;
use crate::feed::Feed;
use crate::measure::{Measure, Times, flow, median};
use crate::report::{Goal, Section, millis};
use crate::servers::{Places, Subject};
use crate::wire::Over;

/// Connections that are being made at once, where it is not what is measured.
pub(crate) const CONNECTING_MAX: usize = 100;

/// How often and how long, and with whom beside us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) runs: usize,
    pub(crate) times: Times,
    pub(crate) peers: bool,
    /// Of readers over TLS, QUIC and WebRTC only the idle ones.
    pub(crate) idle_only: bool,
}

/// Each subject once in every round, so that what changes meanwhile meets all of them.
fn rounds(plan: Plan, at: &Places, all: &[(Subject, Wish, Feed)]) -> Result<Vec<(String, Vec<Measure>)>, String> {
    let mut rows: Vec<(String, Vec<Measure>)> = all.iter().map(|(s, ..)| (s.name(), Vec::new())).collect();
    for _ in 0..plan.runs {
        for ((subject, wish, feed), row) in all.iter().zip(&mut rows) {
            row.1.push(flow(*subject, wish, *feed, plan.times, at)?);
        }
    }
    Ok(rows)
}

fn everything(over: Over, readers: usize, topics_per_reader: usize, feed: &Feed) -> Wish {
    Wish { over, readers, topics_per_reader, topics: 0..feed.topics(), connecting_max: CONNECTING_MAX, snapshots: 0 }
}

fn cpu(rows: &[(String, Vec<Measure>)], subject: Subject) -> Option<f64> {
    let (_, runs) = rows.iter().find(|(name, _)| *name == subject.name())?;
    Some(median(runs, |r| r.cpu_per_event))
}

/// 1 topic, 100 events/s, 1,000 readers.
pub(crate) fn fanout(over: Over, plan: Plan, at: &Places) -> Result<Section, String> {
    let ws = over == Over::Ws;
    let (key, name) = if ws { ("fanout", "WebSocket") } else { ("sse", "SSE") };
    let mut section = Section::new(key, &format!("1 topic, 100 events/s, 1,000 {name} readers"));
    let feed = Feed::quotes(1, 100.0);
    let wish = everything(over, 1_000, 1, &feed);
    let mut all = vec![
        (Subject::Bare(1), wish.clone(), feed),
        (Subject::Ours, wish.clone(), feed),
        (Subject::OursByWrite, wish.clone(), feed),
    ];
    if ws {
        all.push((Subject::Send, wish.clone(), feed));
    }
    if plan.peers {
        if ws {
            all.push((Subject::Bun, wish.clone(), feed));
        }
        all.push((Subject::Nchan, wish.clone(), feed));
    }
    if ws {
        // Fifty writes a second to each reader: what batches are worth, at a load that one core bears.
        all.push((Subject::Bare(8), wish.clone(), Feed::quotes(1, 400.0)));
    }
    let rows = rounds(plan, at, &all)?;
    section.flows(&rows);
    let mut goal = |ours, subject, factor: f64, of: &str| {
        if let (Some(measured), Some(other)) = (cpu(&rows, ours), cpu(&rows, subject)) {
            let how = if ours == Subject::OursByWrite { ", by write()" } else { "" };
            let what = format!("{name}, 1,000 readers of 1 topic{how}: CPU an event");
            section.goal(&Goal { what, measured, limit: other * factor, unit: "µs", of: of.into() });
        }
    };
    if ws {
        goal(Subject::Ours, Subject::Bare(1), 0.9, "0.9 × bare loop");
        goal(Subject::OursByWrite, Subject::Bare(1), 1.05, "1.05 × bare loop");
        goal(Subject::Ours, Subject::Bun, 1.0, "Bun");
        goal(Subject::Ours, Subject::Nchan, 1.0, "nchan, not a goal");
    } else {
        goal(Subject::OursByWrite, Subject::Bare(1), 1.1, "1.10 × bare loop");
        goal(Subject::Ours, Subject::Nchan, 0.6, "0.6 × nchan");
    }
    Ok(section)
}

/// 200 topics, half quotes and half trades, 5,000 events/s.
pub(crate) const MARKET: Feed = Feed {
    quote_topics: 100,
    trade_topics: 100,
    quotes_per_second: 2_500.0,
    trades_per_second: 2_500.0,
    quiet_topics: 0,
    burst: 1,
};

/// [`MARKET`], 1,000 readers of 20 topics each.
pub(crate) fn market(plan: Plan, at: &Places) -> Result<Section, String> {
    let title = "Market: 200 topics (half quotes, half trades), 5,000 events/s, 1,000 readers of 20 topics each";
    let mut section = Section::new("market", title);
    let feed = MARKET;
    let wish = everything(Over::Ws, 1_000, 20, &feed);
    let mut all = vec![(Subject::Ours, wish.clone(), feed)];
    if plan.peers {
        all.push((Subject::Bun, wish.clone(), feed));
    }
    let rows = rounds(plan, at, &all)?;
    section.flows(&rows);
    let ours = &rows[0].1;
    if let Some((_, bun)) = rows.get(1) {
        let limit = 0.35 * median(bun, |r| r.cpu_per_event);
        let measured = median(ours, |r| r.cpu_per_event);
        let what = "market: CPU an event".to_owned();
        section.goal(&Goal { what, measured, limit, unit: "µs", of: "0.35 × Bun".into() });
        let (measured, limit) = (median(ours, |r| r.p99) / 1e3, median(bun, |r| r.p99) / 1e3);
        section.goal(&Goal { what: "market: p99".into(), measured, limit, unit: "ms", of: "Bun".into() });
    }
    lost("market", &mut section, ours);
    Ok(section)
}

fn lost(name: &str, section: &mut Section, runs: &[Measure]) {
    let lost: f64 = runs.iter().map(|r| r.trades_missing + r.ended).sum();
    let what = format!("{name}: trades lost, readers cut off");
    // One is the least that is too many.
    section.goal(&Goal { what, measured: lost, limit: 0.5, unit: "", of: "none".into() });
}

/// The market at 20,000 events/s, a tenth of them trades.
pub(crate) fn busy(plan: Plan, at: &Places) -> Result<Section, String> {
    let title =
        "Busy market: 200 topics, 20,000 events/s, a tenth trades, quotes conflatable, 1,000 readers of 20 topics each";
    let mut section = Section::new("busy", title);
    let feed = Feed {
        quote_topics: 100,
        trade_topics: 100,
        quotes_per_second: 18_000.0,
        trades_per_second: 2_000.0,
        quiet_topics: 0,
        burst: 1,
    };
    let wish = everything(Over::Ws, 1_000, 20, &feed);
    let rows = rounds(plan, at, &[(Subject::Ours, wish, feed)])?;
    section.flows(&rows);
    let ours = &rows[0].1;
    let measured = median(ours, |r| r.state_age_p99) / 1e3;
    section.line(format!(
        "How long the newest quote that a reader does not have yet has been out, over all readers and topics, every 50 ms: p99 {measured:.1} ms. \
         The publisher was at most {} ms late (p99), which counts.",
        millis(median(ours, |r| r.late_p99))
    ));
    section.goal(&Goal {
        what: "busy market: age of state, p99".into(),
        measured,
        limit: 100.0,
        unit: "ms",
        of: String::new(),
    });
    lost("busy market", &mut section, ours);
    Ok(section)
}

/// CPU for an event as readers and topics become more.
pub(crate) fn growth(plan: Plan, at: &Places) -> Result<Section, String> {
    let mut section = Section::new("growth", "Growth: 50,000 deliveries/s, more readers, then more topics");
    let mut rows = Vec::new();
    let by_readers = [100, 1_000, 15_000].map(|readers| {
        let feed = Feed::quotes(1, 50_000.0 / f64::from(readers));
        (format!("{readers} readers of 1 topic"), everything(Over::Ws, readers as usize, 1, &feed), feed)
    });
    // Each topic has a hundred readers and all topics together 500 events/s: only the tables grow.
    let by_topics = [10, 1_000, 10_000].map(|topics| {
        let (feed, each) = (Feed::quotes(topics, 500.0), topics / 10);
        (format!("{topics} topics, 1,000 readers of {each}"), everything(Over::Ws, 1_000, each, &feed), feed)
    });
    let bare = spread(Subject::Bare(1), &by_readers, plan, at, &mut rows)?;
    for (name, all) in [("readers", &by_readers), ("topics", &by_topics)] {
        let measured = spread(Subject::Ours, all, plan, at, &mut rows)?;
        let what = format!("growth of {name}: greatest CPU an event ÷ least");
        section.goal(&Goal { what, measured, limit: 1.15, unit: "", of: String::new() });
    }
    section.flows(&rows);
    section.line(format!(
        "The bare loop does nothing but write(): its own greatest ÷ least, as readers grow, is {bare:.2}. That much is the kernel's."
    ));
    Ok(section)
}

/// The greatest CPU for an event ÷ the least.
fn spread(
    subject: Subject,
    all: &[(String, Wish, Feed)],
    plan: Plan,
    at: &Places,
    rows: &mut Vec<(String, Vec<Measure>)>,
) -> Result<f64, String> {
    let mut runs: Vec<Vec<Measure>> = vec![Vec::new(); all.len()];
    for _ in 0..plan.runs {
        for ((_, wish, feed), runs) in all.iter().zip(&mut runs) {
            runs.push(flow(subject, wish, *feed, plan.times, at)?);
        }
    }
    let costs: Vec<f64> = runs.iter().map(|r| median(r, |m| m.cpu_per_event)).collect();
    let (least, most) = costs.iter().fold((f64::MAX, 0.0f64), |(a, b), c| (a.min(*c), b.max(*c)));
    rows.extend(all.iter().map(|(label, ..)| format!("{}, {label}", subject.name())).zip(runs));
    Ok(most / least)
}

/// 100 readers, 1,000 deliveries/s.
pub(crate) fn light(plan: Plan, at: &Places) -> Result<Section, String> {
    let mut section = Section::new("light", "Light load: 100 readers, 1,000 deliveries/s, from `pub` to receipt");
    let mut rows = Vec::new();
    let mut alone = f64::NAN;
    for (topics, per_second) in [(100, 1_000.0), (10, 100.0)] {
        let feed = Feed::quotes(topics, per_second);
        let wish = everything(Over::Ws, 100, 1, &feed);
        let mut runs = Vec::new();
        for _ in 0..plan.runs {
            runs.push(flow(Subject::Ours, &wish, feed, plan.times, at)?);
        }
        let p50 = median(&runs, |r| r.pub_p50);
        if topics == 100 {
            alone = p50;
        }
        rows.push(vec![
            format!("{topics} topics, {per_second:.0} events/s, each to {} readers", 100 / topics),
            format!("{p50:.0}"),
            format!("{:.0}", median(&runs, |r| r.pub_p99)),
            format!("{:.0}", median(&runs, |r| r.events_per_second)),
            runs.iter().map(|r| format!("{:.0}", r.pub_p50)).collect::<Vec<_>>().join(" "),
        ]);
    }
    section.table(&["feed", "p50 µs", "p99 µs", "events/s delivered", "p50 of each run"], &rows);
    section.goal(&Goal {
        what: "light load: p50, pub to receipt".into(),
        measured: alone,
        limit: 150.0,
        unit: "µs",
        of: String::new(),
    });
    Ok(section)
}
