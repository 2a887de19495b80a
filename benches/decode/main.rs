//! How fast a venue's frames become events, on one core: each recording's frames of one kind through the venue's adapter,
//! beside what `serde_json` takes for the same frames as a `Value`, and as types made for them (text as it is: no
//! decimals, no book). ITCH and Databento are files without such baselines.
//!
//! With `TICKER_DECODE_ONLY=TEXT` in the environment only the recordings' cases with this in their name are loaded and
//! measured. With `TICKER_DECODE_MD=FILE` all figures go to that file, as a table; its path is from the
//! repository's root.
//!
//! The recordings are in `$TICKER_RECORDINGS`, or in `../shared/recordings` beside the repository; without them only ITCH
//! is measured.

#[path = "../../feeds/tests/allocations/counting.rs"]
mod counting;
mod day;
mod files;
mod report;
mod typed;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use serde_json::Value;
use ticker_feeds::recording::Line;
use ticker_feeds::{Conn, Out, adapter};
use ticker_market::Time;

use self::counting::allocations;
use self::report::{Report, Row};
use self::typed::{CASES, Case};

/// What an adapter is told.
enum Step {
    Open(Conn, String),
    Answer(String, Vec<u8>),
    Frame { conn: Conn, bytes: Vec<u8>, is_measured: bool },
}

/// A recording, as one case needs it.
struct Tape {
    steps: Vec<Step>,
    frames: u64,
    bytes: u64,
}

impl Tape {
    fn load(case: &Case, root: &Path) -> Option<Self> {
        let text = zstd::decode_all(std::fs::File::open(root.join(case.file)).ok()?).expect("a recording is zstd");
        let mut tape = Self { steps: Vec::new(), frames: 0, bytes: 0 };
        let mut conns: Vec<String> = Vec::new();
        for line in text.split(|c| *c == b'\n').filter(|line| !line.is_empty()) {
            match Line::parse(line).expect("a recording's line") {
                Line::Connect { conn, url, .. } => {
                    conns.push(conn.into_owned());
                    tape.steps.push(Step::Open(Conn(conns.len() as u32 - 1), url.into_owned()));
                }
                Line::Http { url, data, .. } => {
                    tape.steps.push(Step::Answer(url.into_owned(), data.bytes().to_vec()));
                }
                Line::Recv { conn, data, .. } => {
                    let at = conns.iter().rposition(|known| *known == conn).unwrap_or_else(|| {
                        conns.push(conn.clone().into_owned());
                        conns.len() - 1
                    });
                    let bytes = data.bytes().to_vec();
                    let is_measured = (case.is_measured)(std::str::from_utf8(&bytes).unwrap_or_default());
                    if is_measured {
                        tape.frames += 1;
                        tape.bytes += bytes.len() as u64;
                    }
                    if is_measured || !case.is_alone {
                        tape.steps.push(Step::Frame { conn: Conn(at as u32), bytes, is_measured });
                    }
                }
                _ => {}
            }
        }
        Some(tape)
    }

    /// Plays everything to a new adapter. Returns what the measured frames took, the events told in that time, and the
    /// allocations for each frame in its second half.
    fn play(&self, venue: &str) -> (Duration, u64, f64) {
        let (mut adapter, mut out) = (adapter(venue, &[]).expect("a venue of ours"), Out::default());
        let (mut took, mut events, mut seen, mut counted) = (Duration::ZERO, 0, 0u64, 0);
        let mut running: Option<(Instant, u64)> = None;
        for step in &self.steps {
            let is_measured = matches!(step, Step::Frame { is_measured: true, .. });
            // Frames in a row are measured together: the clock costs as much as a small frame.
            match (running, is_measured) {
                (Some((begun, before)), false) => {
                    took += begun.elapsed();
                    counted += if seen > self.frames / 2 { allocations() - before } else { 0 };
                    running = None;
                }
                (None, true) => running = Some((Instant::now(), allocations())),
                _ => {}
            }
            if is_measured {
                seen += 1;
                if seen == self.frames / 2 + 1
                    && let Some((_, before)) = &mut running
                {
                    *before = allocations();
                }
            }
            match step {
                Step::Open(conn, url) => adapter.opened(*conn, url, Time(0), &mut out),
                Step::Answer(url, body) => adapter.response(url, body, Time(0), &mut out),
                Step::Frame { conn, bytes, .. } => adapter.frame(*conn, bytes, Time(0), &mut out),
            }
            events += if is_measured { black_box(&out).updates.len() as u64 } else { 0 };
            out.clear();
        }
        if let Some((begun, before)) = running {
            took += begun.elapsed();
            counted += allocations() - before;
        }
        (took, events, counted as f64 / (self.frames - self.frames / 2).max(1) as f64)
    }

    fn measured(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match step {
            Step::Frame { bytes, is_measured: true, .. } => Some(&bytes[..]),
            _ => None,
        })
    }
}

fn bench_case(c: &mut Criterion, case: &Case, tape: &Tape, report: &mut Report) {
    let (_, events, allocations) = tape.play(case.venue);
    let name = format!("{} {}", case.venue, case.kind);
    let mut group = c.benchmark_group(&name);
    group.throughput(Throughput::Bytes(tape.bytes));
    group.bench_function("ours", |b| {
        b.iter_custom(|times| (0..times).map(|_| tape.play(case.venue).0).sum());
    });
    group.bench_function("value", |b| {
        b.iter(|| {
            for frame in tape.measured() {
                black_box(serde_json::from_slice::<Value>(frame).expect("a frame is JSON"));
            }
        });
    });
    group.bench_function("typed", |b| {
        b.iter(|| tape.measured().for_each(case.typed));
    });
    group.finish();
    report.rows.push(Row { name, frames: tape.frames, bytes: tape.bytes, events, allocations });
}

fn main() {
    let root = std::env::var_os("TICKER_RECORDINGS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/recordings"), PathBuf::from);
    let mut report = Report::new();
    let mut c = Criterion::default()
        .output_directory(&report.folder)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let only = std::env::var("TICKER_DECODE_ONLY").ok();
    let is_chosen =
        |case: &&Case| only.as_ref().is_none_or(|text| format!("{} {}", case.venue, case.kind).contains(text));
    for case in CASES.iter().filter(is_chosen) {
        match Tape::load(case, &root) {
            Some(tape) if tape.frames > 0 => bench_case(&mut c, case, &tape, &mut report),
            _ => report.missing.push(format!("{} {} ({})", case.venue, case.kind, case.file)),
        }
    }
    if only.is_none() {
        files::bench(&mut c, &root, &mut report);
    }
    c.final_summary();
    report.write();
}
