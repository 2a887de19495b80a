//! What is no frame of JSON: ITCH messages and Databento's files.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput};
use ticker_feeds::Out;
use ticker_feeds::archive::Archive;
use ticker_feeds::by_order::{ORDERS_EXPECTED, OrderBooks};
use ticker_feeds::databento::DbnFile;
use ticker_feeds::itch::{Itch, decode};
use ticker_market::{Integrity, Time};

use super::allocations;
use super::day::{Day, build};
use super::report::{Report, Row};

const DBN: &str = "databento-dbn/nautilus/esh4-glbx-mdp3-20231225.mbo.dbn.zst";

/// As a reader would hand over a file.
const CHUNK_BYTES: usize = 256 * 1024;

pub(crate) fn bench(c: &mut Criterion, root: &Path, report: &mut Report) {
    let day = Day::new();
    let (count, bytes) = day.messages().fold((0, 0), |(n, bytes), m| (n + 1, bytes + m.len() as u64));
    let row =
        |name: &str, events, allocations| Row { name: name.to_owned(), frames: count, bytes, events, allocations };

    let mut group = c.benchmark_group("nasdaq ITCH decoded");
    group.throughput(Throughput::Elements(count));
    group.bench_function("ours", |b| {
        b.iter(|| {
            for message in day.messages() {
                black_box(decode(message).expect("a message"));
            }
        });
    });
    group.finish();
    report.rows.push(row("nasdaq ITCH decoded", count, 0.0));

    let empty = || {
        let mut books = OrderBooks::new();
        books.reserve(ORDERS_EXPECTED);
        books
    };
    let mut group = c.benchmark_group("nasdaq ITCH built into books");
    group.throughput(Throughput::Elements(count));
    group.bench_function("ours", |b| b.iter_batched_ref(empty, |books| build(books, &day), BatchSize::PerIteration));
    group.finish();
    let mut books = empty();
    let before = allocations();
    build(&mut books, &day);
    report.rows.push(row("nasdaq ITCH built into books", 0, (allocations() - before) as f64 / count as f64));
    drop(books);

    let mut group = c.benchmark_group("nasdaq ITCH told as events");
    group.throughput(Throughput::Elements(count));
    group.bench_function("ours", |b| {
        b.iter_batched_ref(
            || Itch::new(&[], Time(0), Integrity::Sequenced),
            |itch| tell(itch, &day),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    let mut itch = Itch::new(&[], Time(0), Integrity::Sequenced);
    let before = allocations();
    let events = tell(&mut itch, &day);
    report.rows.push(row("nasdaq ITCH told as events", events, (allocations() - before) as f64 / count as f64));

    let Ok(file) = std::fs::File::open(root.join(DBN)) else { return };
    let bytes = zstd::decode_all(file).expect("it is zstd");
    let before = allocations();
    let (records, events) = read(&bytes);
    let allocations = (allocations() - before) as f64 / records as f64;
    let mut group = c.benchmark_group("databento MBO told as events");
    group.throughput(Throughput::Elements(records));
    group.bench_function("ours", |b| b.iter(|| read(&bytes)));
    group.finish();
    let name = "databento MBO told as events".to_owned();
    report.rows.push(Row { name, frames: records, bytes: bytes.len() as u64, events, allocations });
}

fn tell(itch: &mut Itch, day: &Day) -> u64 {
    let (mut out, mut events) = (Out::default(), 0);
    for message in day.messages() {
        itch.message(message, None, &mut out).expect("a message");
        assert!(out.reports.is_empty(), "{:?}", out.reports);
        events += out.updates.len() as u64;
        out.clear();
    }
    events
}

/// Records and events.
fn read(bytes: &[u8]) -> (u64, u64) {
    let (mut file, mut out) = (DbnFile::new(), Out::default());
    let (mut records, mut events) = (0, 0);
    for chunk in bytes.chunks(CHUNK_BYTES) {
        file.push(chunk);
        while let Some(time) = file.next(&mut out).expect("a whole file") {
            black_box(time);
            records += 1;
            events += out.updates.len() as u64;
            out.clear();
        }
    }
    (records, events)
}
