//! One measurement: a server, a crowd, a feed, for a few seconds.

use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Report, Wish};
use crate::feed::Feed;
use crate::process::{machine_cpu_micros, own_cpu_micros, say};
use crate::publish::Publisher;
use crate::servers::{Places, Rig, Subject};

/// A run in which others used more of the machine than this part of one core is made again, a few times.
const FOREIGN_MAX: f64 = 0.10;
const AGAIN_MAX: usize = 1;
/// How long others are waited for before each run.
const CALM_WITHIN: Duration = Duration::from_secs(20);
/// How long all readers may take to be served.
const SERVE_WITHIN: Duration = Duration::from_secs(90);

/// What was found. Times in microseconds.
#[derive(Clone, Default, Debug)]
pub(crate) struct Measure {
    pub(crate) cpu_per_event: f64,
    pub(crate) events_per_second: f64,
    /// Of what was asked for: events a second × readers of each.
    pub(crate) part_delivered: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) pub_p50: f64,
    pub(crate) pub_p99: f64,
    pub(crate) state_age_p99: f64,
    pub(crate) trades_missing: f64,
    pub(crate) quotes_missing: f64,
    pub(crate) ended: f64,
    pub(crate) bytes_per_event: f64,
    /// Parts of one core.
    pub(crate) server_cpu: f64,
    pub(crate) crowd_cpu: f64,
    pub(crate) foreign_cpu: f64,
    /// How late the publisher was, p99.
    pub(crate) late_p99: f64,
    pub(crate) why_ended: Option<String>,
}

/// How long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
}

/// CPU that neither the server nor the bench used, as a part of one core.
pub(crate) struct Foreign {
    machine: u64,
    known: u64,
    since: Instant,
}

impl Foreign {
    pub(crate) fn begin(rig: &Rig) -> Self {
        Self { machine: machine_cpu_micros(), known: known(rig), since: Instant::now() }
    }

    pub(crate) fn end(&self, rig: &Rig) -> f64 {
        let (machine, known) = (machine_cpu_micros() - self.machine, known(rig).saturating_sub(self.known));
        machine.saturating_sub(known) as f64 / self.since.elapsed().as_micros() as f64
    }
}

/// Waits until the rest of the machine has been quiet for a second, but not for long.
pub(crate) fn wait_for_calm() {
    let until = Instant::now() + CALM_WITHIN;
    while Instant::now() < until {
        let (machine, own) = (machine_cpu_micros(), own_cpu_micros());
        std::thread::sleep(Duration::from_secs(1));
        let others = (machine_cpu_micros() - machine).saturating_sub(own_cpu_micros() - own);
        if others as f64 / 1e6 < FOREIGN_MAX {
            return;
        }
    }
}

fn known(rig: &Rig) -> u64 {
    rig.measured.usage().cpu_micros + rig.others().cpu_micros + own_cpu_micros()
}

/// Measures, again if others disturbed it.
pub(crate) fn flow(subject: Subject, wish: &Wish, feed: Feed, times: Times, at: &Places) -> Result<Measure, String> {
    let mut best: Option<Measure> = None;
    for _ in 0..=AGAIN_MAX {
        let one = once(subject, wish, feed, times, at).map_err(|e| format!("{}: {e}", subject.name()))?;
        say(&format!(
            "  {:<44} {:6.2} µs an event, {:7.0}/s ({:3.0} %), p50 {:.2} ms, p99 {:.2} ms (from pub {:.2}, {:.2}; publisher late {:.2}), server {:.0} %, readers {:.0} %, others {:.0} %",
            subject.name(),
            one.cpu_per_event,
            one.events_per_second,
            one.part_delivered * 100.0,
            one.p50 / 1e3,
            one.p99 / 1e3,
            one.pub_p50 / 1e3,
            one.pub_p99 / 1e3,
            one.late_p99 / 1e3,
            one.server_cpu * 100.0,
            one.crowd_cpu * 100.0,
            one.foreign_cpu * 100.0
        ));
        if one.ended > 0.0 {
            say(&format!("    {} readers ended: {}", one.ended, one.why_ended.as_deref().unwrap_or_default()));
        }
        let calm = one.foreign_cpu <= FOREIGN_MAX;
        if best.as_ref().is_none_or(|b| one.foreign_cpu < b.foreign_cpu) {
            best = Some(one);
        }
        if calm {
            break;
        }
    }
    Ok(best.expect("the loop runs at least once"))
}

fn once(subject: Subject, wish: &Wish, feed: Feed, times: Times, at: &Places) -> Result<Measure, String> {
    wait_for_calm();
    let mut rig = Rig::start(subject, feed, wish.over, wish.readers, at)?;
    let crowd = Crowd::start(rig.readers_at, wish.clone(), feed)?;
    crowd.wait_served(wish.readers, SERVE_WITHIN)?;
    let publisher = rig.target().map(|target| Publisher::start(feed, target)).transpose()?;
    std::thread::sleep(times.warm_up);
    crowd.reset()?;
    let (foreign, before) = (Foreign::begin(&rig), rig.measured.usage());
    std::thread::sleep(times.measure);
    let report = crowd.report()?;
    let after = rig.measured.usage();
    let foreign_cpu = foreign.end(&rig);
    let late = publisher.map(Publisher::stop).transpose()?.map(|(_, late)| late);
    let asked =
        feed.events_per_second() * wish.readers as f64 * wish.topics_per_reader as f64 / wish.topics.len() as f64;
    let mut measure = of(&report, (after.cpu_micros - before.cpu_micros) as f64, asked);
    measure.foreign_cpu = foreign_cpu;
    measure.late_p99 = late.map_or(0.0, |l| l.quantile(0.99) as f64);
    Ok(measure)
}

/// The figures of a report. `asked` is in events a second over all readers.
pub(crate) fn of(report: &Report, server_cpu_micros: f64, asked: f64) -> Measure {
    let (tally, micros) = (&report.tally, report.seconds * 1e6);
    let events = tally.events() as f64;
    Measure {
        cpu_per_event: server_cpu_micros / events.max(1.0),
        events_per_second: events / report.seconds,
        part_delivered: events / report.seconds / asked,
        p50: tally.from_schedule.quantile(0.5) as f64,
        p99: tally.from_schedule.quantile(0.99) as f64,
        pub_p50: tally.from_pub.quantile(0.5) as f64,
        pub_p99: tally.from_pub.quantile(0.99) as f64,
        state_age_p99: tally.state_age.quantile(0.99) as f64,
        trades_missing: tally.trades_missing as f64,
        quotes_missing: tally.quotes_missing as f64,
        ended: report.ended as f64,
        bytes_per_event: tally.bytes as f64 / events.max(1.0),
        server_cpu: server_cpu_micros / micros,
        crowd_cpu: report.cpu_micros as f64 / micros,
        foreign_cpu: 0.0,
        late_p99: 0.0,
        why_ended: report.why.clone(),
    }
}

/// The median of a figure over runs.
pub(crate) fn median(runs: &[Measure], of: impl Fn(&Measure) -> f64) -> f64 {
    let mut all: Vec<f64> = runs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    match all.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => all[n / 2],
        n => (all[n / 2 - 1] + all[n / 2]) / 2.0,
    }
}

/// What idle readers cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) kib_per_reader: f64,
    /// Microseconds of CPU a second for each reader.
    pub(crate) cpu_per_reader: f64,
    pub(crate) resident_before_kib: f64,
    pub(crate) foreign_cpu: f64,
}

/// Readers of one quiet topic, which are only kept.
pub(crate) fn idle(subject: Subject, wish: &Wish, window: Duration, at: &Places) -> Result<Idle, String> {
    let feed = Feed::quotes(wish.topics.len(), 0.0);
    wait_for_calm();
    let mut rig = Rig::start(subject, feed, wish.over, wish.readers, at)?;
    // The publisher's connection stays, and says nothing.
    let target = rig.target();
    let before = rig.measured.usage();
    let crowd = Crowd::start(rig.readers_at, wish.clone(), feed)?;
    crowd.wait_served(wish.readers, SERVE_WITHIN).map_err(|e| format!("{}: {e}", subject.name()))?;
    // What connecting has left behind may settle.
    std::thread::sleep(Duration::from_secs(5));
    let (foreign, joined, since) = (Foreign::begin(&rig), rig.measured.usage(), Instant::now());
    std::thread::sleep(window);
    let after = rig.measured.usage();
    let report = crowd.report()?;
    if report.ended > 0 {
        say(&format!("    {} readers ended: {}", report.ended, report.why.as_deref().unwrap_or_default()));
    }
    let readers = wish.readers as f64;
    let idle = Idle {
        kib_per_reader: (after.resident_kib as f64 - before.resident_kib as f64) / readers,
        cpu_per_reader: (after.cpu_micros - joined.cpu_micros) as f64 / since.elapsed().as_secs_f64() / readers,
        resident_before_kib: before.resident_kib as f64,
        foreign_cpu: foreign.end(&rig),
    };
    say(&format!(
        "  {:<44} {:5.2} KiB and {:5.2} µs/s a reader, {} served in {:.1} s, others {:.0} %",
        format!("{} {:?}", subject.name(), wish.over),
        idle.kib_per_reader,
        idle.cpu_per_reader,
        report.served,
        report.served_micros as f64 / 1e6,
        idle.foreign_cpu * 100.0
    ));
    drop(target);
    Ok(idle)
}
