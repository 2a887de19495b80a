//! Counts of durations in buckets that grow with the value: about 3 % wide, from 1 µs to days.

/// Buckets for each doubling.
const STEPS: u64 = 32;

/// A histogram of microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        // Up to 2^40 µs, which is twelve days.
        Self { counts: vec![0; (STEPS * 36) as usize], total: 0, max: 0 }
    }

    pub(crate) fn record(&mut self, micros: u64) {
        let last = self.counts.len() - 1;
        self.counts[index(micros).min(last)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// The value below which that part (0 to 1) of all values lie.
    pub(crate) fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.total as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(at).min(self.max);
            }
        }
        self.max
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// Below [`STEPS`] each value has its own bucket; above, each doubling has so many.
fn index(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let doublings = u64::from(value.ilog2() - STEPS.ilog2());
    (doublings * STEPS + (value >> doublings)) as usize
}

/// The greatest value of a bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let doublings = index / STEPS - 1;
    ((index - doublings * STEPS + 1) << doublings) - 1
}

/// Refuses to measure with a histogram that does not add up: a bench has no tests of its own.
pub(crate) fn check() {
    for value in (0..5_000).chain([1 << 20, (1 << 30) + 12_345, 1 << 39]) {
        let top = upper(index(value));
        assert!(top >= value && top <= value + value / STEPS, "{value} is in the bucket up to {top}");
    }
    let mut histogram = Histogram::new();
    (1..=1_000).for_each(|v| histogram.record(v));
    assert!((500..=516).contains(&histogram.quantile(0.5)), "{}", histogram.quantile(0.5));
    assert_eq!((histogram.quantile(1.0), histogram.total()), (1_000, 1_000));
}
