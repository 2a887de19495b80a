//! Bars, made anew from the trades that a reader received: plainly, and without the product's own code for them.

use std::collections::BTreeMap;

use ticker_market::{Bar, Channel, Data, Decimal, Event, Interval, Kind};

const SECOND: i64 = 1_000_000_000;

/// A bar waits so long for late trades.
const GRACE: i64 = 2 * SECOND;

/// A trade's time may lie ahead by so much.
const AHEAD: i64 = 10 * SECOND;

/// Where more time passes at once, nothing is made up in between.
const LEAP: i64 = 300 * SECOND;

#[derive(Clone, Debug, PartialEq)]
struct Row {
    prices: [Decimal; 4],
    volume: Decimal,
    turnover: Decimal,
    trades: u64,
}

/// What came, and what should have.
#[derive(Default)]
pub(crate) struct Bars {
    /// The greatest time of receipt so far.
    now: i64,
    rows: BTreeMap<(String, Interval), BTreeMap<i64, Row>>,
    closed: BTreeMap<(String, Interval), Vec<Bar>>,
}

impl Bars {
    /// Takes every event, in the order of the tape.
    pub(crate) fn take(&mut self, event: &Event) {
        if event.kind != Kind::Invalid && event.topic.channel != Channel::Status {
            self.now = self.now.max(event.recv.0);
        }
        let symbol = event.topic.symbol.to_string();
        match (&event.data, event.topic.channel) {
            (Data::Trade(trade), _) if event.kind == Kind::Update => {
                let at = event.ts.unwrap_or(event.recv).0;
                for interval in Interval::ALL {
                    let start = at - at.rem_euclid(interval.nanos());
                    if start + interval.nanos() + GRACE <= self.now || at > self.now + AHEAD {
                        continue;
                    }
                    let (price, size) = (trade.price, trade.size);
                    let zero = Row { prices: [price; 4], volume: 0.into(), turnover: 0.into(), trades: 0 };
                    let rows = self.rows.entry((symbol.clone(), interval)).or_default();
                    let row = rows.entry(start).or_insert(zero);
                    let [_, high, low, close] = &mut row.prices;
                    (*high, *low, *close) = (price.max(*high), price.min(*low), price);
                    row.volume += size;
                    row.turnover += price * size;
                    row.trades += 1;
                }
            }
            (Data::Bar(bar), Channel::Bar(interval)) if event.is_closed_bar() => {
                self.closed.entry((symbol, interval)).or_default().push(bar.clone());
            }
            _ => {}
        }
    }

    /// Returns how many bars with trades there were.
    pub(crate) fn check(&self) -> Result<usize, String> {
        let mut traded = 0;
        for ((symbol, interval), rows) in &self.rows {
            let what = format!("bar-{} of {symbol}", interval.as_str());
            let none = Vec::new();
            let closed = self.closed.get(&(symbol.clone(), *interval)).unwrap_or(&none);
            let due = |start: i64| start + interval.nanos() + GRACE <= self.now;
            let mut expected: BTreeMap<i64, &Row> =
                rows.iter().filter(|(s, _)| due(**s)).map(|(s, r)| (*s, r)).collect();
            for pair in closed.windows(2) {
                let step = pair[1].start.since(pair[0].start);
                if step != interval.nanos() && step < LEAP {
                    return Err(format!("{what}: {:?} follows {:?}", pair[1], pair[0]));
                }
            }
            for bar in closed {
                match expected.remove(&bar.start.0) {
                    None if bar.trades == 0 && bar.volume.is_zero() && bar.vwap.is_none() => {}
                    None => return Err(format!("{what}: nothing was traded in {bar:?}")),
                    Some(row) => {
                        traded += 1;
                        let Row { prices, volume, turnover, trades } = row;
                        let same = ([bar.open, bar.high, bar.low, bar.close], bar.volume, bar.trades)
                            == (*prices, *volume, *trades);
                        // Rounded to 15 digits.
                        let off = bar.vwap.map(|vwap| (vwap * volume - turnover).abs());
                        if !same || off.is_some_and(|off| off > turnover * Decimal::new(1, 14)) {
                            return Err(format!("{what}: {bar:?} is not {row:?}"));
                        }
                    }
                }
            }
            if let Some(start) = expected.keys().next() {
                return Err(format!("{what}: {} bars are missing, the first at {start}", expected.len()));
            }
        }
        Ok(traded)
    }
}
