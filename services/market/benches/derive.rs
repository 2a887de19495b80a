//! What a trade and a quote cost in bars, statistics and the consolidated quote, without telling anyone.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ticker_market::bar::BarSeries;
use ticker_market::best::Best;
use ticker_market::stats::RollingStats;
use ticker_market::{Decimal, Interval, Level, Quote, Time};

fn derive(c: &mut Criterion) {
    let mut group = c.benchmark_group("derive");
    let start = Time(1_786_309_200_000_000_000);

    let mut series = Interval::ALL.map(BarSeries::new);
    let mut stats = RollingStats::default();
    let mut n = 0i64;
    group.bench_function("a trade in five bars and the statistics", |b| {
        b.iter(|| {
            n += 1;
            let at = start.plus_millis(10 * n);
            let (price, size) = (Decimal::new(6_700_000 + n % 977, 2), Decimal::new(1 + n % 9_973, 8));
            for bars in &mut series {
                while let Some(bar) = bars.close(at) {
                    black_box(bar);
                }
                black_box(bars.trade(at, price, size, at));
            }
            black_box(stats.trade(at, price, size, at));
        });
    });
    group.bench_function("five running bars and the statistics, to be told", |b| {
        b.iter(|| black_box((series.each_ref().map(BarSeries::running), stats.stats())));
    });

    let mut best = Best::default();
    for venue in ["a", "b", "c", "d", "e"] {
        let at = best.join(venue);
        best.set_live(at, true);
    }
    group.bench_function("a quote in the consolidated one of five venues", |b| {
        b.iter(|| {
            n += 1;
            let level = |price| Some(Level { price: Decimal::new(price, 2), size: Decimal::new(n, 8) });
            let quote = Quote { bid: level(6_700_000 - n % 7), ask: level(6_700_001 + n % 5), ..Quote::default() };
            best.set_quote((n % 5) as usize, Some(&quote));
            black_box(best.quote())
        });
    });
    group.finish();
}

criterion_group!(benches, derive);
criterion_main!(benches);
