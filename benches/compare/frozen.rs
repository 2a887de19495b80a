//! Readers that stop reading: what they cost, what the others feel of them, and how soon they are up to date again.

use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Wish};
use crate::flows::{CONNECTING_MAX, MARKET, Plan};
use crate::measure::{Foreign, wait_for_calm};
use crate::process::say;
use crate::publish::Publisher;
use crate::report::{Goal, Section};
use crate::servers::{Places, Rig, Subject};
use crate::wire::Over;

const READERS: usize = 1_000;
const FROZEN: usize = READERS / 5;

/// What a frozen reader's socket holds at this load (a hundred thousand bytes a second) is full by then.
const FILLS_WITHIN: Duration = Duration::from_secs(3);

/// The edge keeps the last 1,024 events of each trade topic for whoever resumes or lags; at 25 a second they are all there
/// by then, and memory grows no more by itself.
const BACKLOGS_FULL_WITHIN: Duration = Duration::from_secs(44);

/// How long frozen readers may take to have the newest state.
const FRESH_WITHIN: Duration = Duration::from_secs(20);

/// One run.
struct Run {
    before_p99: f64,
    after_p99: f64,
    kib_a_frozen: f64,
    /// How much memory grew by itself in as much time before, counted likewise.
    kib_drift: f64,
    fresh_millis: f64,
    missing: f64,
    ended: f64,
    foreign: f64,
}

/// The market with all readers reading, then with a fifth of them frozen, then with all again.
pub(crate) fn frozen(plan: Plan, at: &Places) -> Result<Section, String> {
    let mut section = Section::new("frozen", "Frozen readers: the market, and 200 of its 1,000 readers stop reading");
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        let run = once(plan, at)?;
        say(&format!(
            "  p99 {:.2} ms, with frozen readers {:.2} ms; {:.2} KiB a frozen reader (drift {:.2}); fresh {:.0} ms after the thaw; others {:.0} %",
            run.before_p99,
            run.after_p99,
            run.kib_a_frozen,
            run.kib_drift,
            run.fresh_millis,
            run.foreign * 100.0
        ));
        runs.push(run);
    }
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|r| {
            vec![
                format!("{:.2}", r.before_p99),
                format!("**{:.2}**", r.after_p99),
                format!("{:.2}", r.after_p99 / r.before_p99),
                format!("**{:.2}**", r.kib_a_frozen),
                format!("{:.2}", r.kib_drift),
                format!("**{:.0}**", r.fresh_millis),
                format!("{:.0}", r.missing),
                format!("{:.0}", r.ended),
                format!("{:.0} %", r.foreign * 100.0),
            ]
        })
        .collect();
    let header = [
        "p99 ms, all reading",
        "p99 ms of the others",
        "÷",
        "resident KiB a frozen reader",
        "the same before the freeze",
        "ms from thaw to newest state, last reader",
        "trades missing",
        "readers ended",
        "others' CPU",
    ];
    section.table(&header, &rows);
    section.line(
        "Memory is the edge's own (resident, smaps), with the frozen readers' sockets full, less what it was before; its growth in as \
         much time before the freeze is given beside it, not taken off. Fresh: \
         every formerly frozen reader has, of each of its quote topics, an event that was due after the thaw.",
    );
    let middle = |of: fn(&Run) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let mut goal = |what: &str, measured, limit, unit, of: &str| {
        section.goal(&Goal { what: format!("frozen readers: {what}"), measured, limit, unit, of: of.into() });
    };
    goal(
        "p99 of the others",
        middle(|r| r.after_p99),
        middle(|r| r.before_p99) * 1.1,
        "ms",
        "1.1 × that of all reading",
    );
    goal("memory of each", middle(|r| r.kib_a_frozen), 8.0, "KiB", "");
    goal("trades lost, readers cut off", middle(|r| r.missing + r.ended), 0.5, "", "none");
    Ok(section)
}

fn once(plan: Plan, at: &Places) -> Result<Run, String> {
    wait_for_calm();
    let mut rig = Rig::start(Subject::Ours, MARKET, Over::Ws, READERS, at)?;
    let wish = Wish {
        over: Over::Ws,
        readers: READERS,
        topics_per_reader: 20,
        topics: 0..MARKET.topics(),
        connecting_max: CONNECTING_MAX,
        snapshots: 0,
    };
    let crowd = Crowd::start(rig.readers_at, wish, MARKET)?;
    crowd.wait_served(READERS, Duration::from_secs(60))?;
    let publisher = rig.target().map(|t| Publisher::start(MARKET, t)).transpose()?;
    std::thread::sleep(BACKLOGS_FULL_WITHIN);
    let earlier = rig.measured.usage().resident_kib;
    std::thread::sleep(FILLS_WITHIN);
    let foreign = Foreign::begin(&rig);
    crowd.reset()?;
    std::thread::sleep(plan.times.measure);
    let (before, resident) = (crowd.report()?, rig.measured.usage().resident_kib);
    crowd.freeze(FROZEN)?;
    std::thread::sleep(FILLS_WITHIN);
    crowd.reset()?;
    std::thread::sleep(plan.times.measure);
    let (after, full) = (crowd.report()?, rig.measured.usage().resident_kib);
    let foreign = foreign.end(&rig);
    crowd.thaw()?;
    let thawed = Instant::now();
    let end = loop {
        let report = crowd.report()?;
        if report.behind == 0 {
            break report;
        }
        if thawed.elapsed() > FRESH_WITHIN {
            return Err(format!("{} readers have not the newest state after {FRESH_WITHIN:?}", report.behind));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let fresh_millis = thawed.elapsed().as_secs_f64() * 1e3;
    publisher.map(Publisher::stop).transpose()?;
    let p99 = |report: &crate::crowd::Report| report.tally.from_schedule.quantile(0.99) as f64 / 1e3;
    Ok(Run {
        before_p99: p99(&before),
        after_p99: p99(&after),
        kib_a_frozen: (full as f64 - resident as f64) / FROZEN as f64,
        kib_drift: (resident as f64 - earlier as f64) / FROZEN as f64,
        fresh_millis,
        missing: end.tally.trades_missing as f64,
        ended: end.ended as f64,
        foreign,
    })
}
