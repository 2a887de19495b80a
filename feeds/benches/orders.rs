//! What an ITCH message costs: decoded alone, built into books, and told as updates.

#[path = "../../benches/decode/day.rs"]
mod day;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ticker_feeds::Out;
use ticker_feeds::by_order::{ORDERS_EXPECTED, OrderBooks};
use ticker_feeds::itch::{Itch, decode};
use ticker_market::{Integrity, Time};

use self::day::{Day, build};

fn itch(c: &mut Criterion) {
    let day = Day::new();
    let count = day.messages().count() as u64;
    let mut group = c.benchmark_group("itch");
    group.throughput(Throughput::Elements(count)).sample_size(10);
    group.bench_function("decoded", |b| {
        b.iter(|| {
            for message in day.messages() {
                black_box(decode(message).expect("a message"));
            }
        });
    });
    group.bench_function("built into books", |b| {
        let empty = || {
            let mut books = OrderBooks::new();
            books.reserve(ORDERS_EXPECTED);
            books
        };
        b.iter_batched_ref(empty, |books| build(books, &day), BatchSize::PerIteration);
    });
    group.bench_function("told as quotes, trades and books", |b| {
        b.iter_batched_ref(
            || Itch::new(&[], Time(0), Integrity::Sequenced),
            |itch| {
                let (mut out, mut updates) = (Out::default(), 0);
                for message in day.messages() {
                    itch.message(message, None, &mut out).expect("a message");
                    assert!(out.reports.is_empty(), "{:?}", out.reports);
                    updates += out.updates.len();
                    out.clear();
                }
                updates
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, itch);
criterion_main!(benches);
