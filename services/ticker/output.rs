//! What a person sees: events as aligned, coloured lines.

use std::io::{self, IsTerminal, Write};

use ticker_client::market::{Book, Data, Decimal, Event, Kind, Level, Side, State, Time, decimal};

/// Colours, where they are wanted: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For what goes to that stream.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self { on: stream.is_terminal() && !refused && !dumb }
    }

    /// No colours.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { on: false }
    }

    fn ansi(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.ansi("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.ansi("1", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.ansi("32", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.ansi("31", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.ansi("33", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.ansi("36", text)
    }
}

/// Writes events as lines whose columns grow as wide as they need to be, and then stay.
#[derive(Debug)]
pub(crate) struct Lines<W> {
    out: W,
    paint: Paint,
    topic_width: usize,
    number_width: usize,
}

impl<W: Write> Lines<W> {
    pub(crate) fn new(out: W, paint: Paint) -> Self {
        Self { out, paint, topic_width: 0, number_width: 0 }
    }

    /// One event; `book` is the whole book after it, where it is one.
    pub(crate) fn event(&mut self, event: &Event, book: Option<&Book>) -> io::Result<()> {
        let paint = self.paint;
        let topic = event.topic.to_string();
        self.topic_width = self.topic_width.max(topic.len());
        let text = match &event.data {
            Data::Invalid(reason) => {
                paint.red(&format!("invalid: {reason}; not to be trusted until its next snapshot"))
            }
            Data::Quote(q) => {
                let mut text = self.sides(q.bid, q.ask);
                if let (Some(bid), Some(ask)) = (&q.bid_venue, &q.ask_venue) {
                    text.push_str(&paint.dim(&format!("  {bid} | {ask}")));
                }
                text
            }
            Data::Trade(t) => {
                let (price, size) = (self.number(t.price), decimal::to_text(t.size));
                let done = match t.side {
                    Some(Side::Buy) => paint.green(&format!("▲ {price} × {size}")),
                    Some(Side::Sell) => paint.red(&format!("▼ {price} × {size}")),
                    None => format!("• {price} × {size}"),
                };
                let about = t.reference.as_deref().unwrap_or(&t.trade_id);
                match event.kind {
                    Kind::Correction => format!("{done}  {}", paint.yellow(&format!("corrects {about}"))),
                    Kind::Cancel => format!("{done}  {}", paint.yellow(&format!("cancels {about}"))),
                    _ => done,
                }
            }
            Data::Book(levels) => {
                let best = match book {
                    Some(book) => self.sides(book.best_bid(), book.best_ask()),
                    None => self.sides(levels.bids.first().copied(), levels.asks.first().copied()),
                };
                let (bids, asks) = book.map_or((0, 0), |b| (b.bids().len(), b.asks().len()));
                let what = match event.kind {
                    Kind::Snapshot => "snapshot".to_owned(),
                    _ => format!("{} changed", levels.bids.len() + levels.asks.len()),
                };
                format!("{best}  {}", paint.dim(&format!("{bids} bids, {asks} asks, {what}")))
            }
            Data::Bar(b) => {
                let [open, high, low, close] = [b.open, b.high, b.low, b.close].map(decimal::to_text);
                let text = format!("o {open}  h {high}  l {low}  c {close}  v {}", decimal::to_text(b.volume));
                let state = if b.closed { "closed" } else { "running" };
                format!("{text}  {}", paint.dim(&format!("{} trades, from {}, {state}", b.trades, clock(b.start))))
            }
            Data::Stats(s) => {
                let [last, change, volume] = [s.last, s.change, s.volume].map(decimal::to_text);
                let percent = s.change_pct.map(|p| format!(" ({}%)", decimal::to_text(p))).unwrap_or_default();
                let change = format!("{change}{percent}");
                let change = if s.change.is_sign_negative() { paint.red(&change) } else { paint.green(&change) };
                let range = format!("{} – {}", decimal::to_text(s.low), decimal::to_text(s.high));
                format!("{last}  {change}  {}", paint.dim(&format!("{range}, volume {volume}, {} trades", s.trades)))
            }
            Data::Status(s) => {
                let state = s.state.as_str();
                let state = match s.state {
                    State::Live => paint.green(state),
                    State::Connecting | State::Resyncing => paint.yellow(state),
                    State::Stale | State::Halted | State::Closed => paint.red(state),
                };
                let reason = s.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
                format!("{state}{reason}  {}", paint.dim(&format!("integrity: {}", s.integrity.as_str())))
            }
        };
        let time = paint.dim(&clock(event.ts.unwrap_or(event.published)));
        let topic = paint.cyan(&format!("{topic:<width$}", width = self.topic_width));
        writeln!(self.out, "{time}  {topic}  {text}")
    }

    /// A line that is no event: a hole, a lost connection.
    pub(crate) fn remark(&mut self, text: &str) -> io::Result<()> {
        let text = self.paint.yellow(&format!("-- {text}"));
        writeln!(self.out, "{text}")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn sides(&mut self, bid: Option<Level>, ask: Option<Level>) -> String {
        let none = "–".to_owned();
        let bid_size = bid.map_or(none.clone(), |l| decimal::to_text(l.size));
        let ask_size = ask.map_or(none.clone(), |l| decimal::to_text(l.size));
        let bid = bid.map_or(none.clone(), |l| decimal::to_text(l.price));
        let ask = ask.map_or(none, |l| decimal::to_text(l.price));
        self.number_width = self.number_width.max(bid.chars().count()).max(ask.chars().count());
        let width = self.number_width;
        let size_width = 10;
        let (bid, ask) = (format!("{bid:>width$}"), format!("{ask:>width$}"));
        format!(
            "{} × {bid_size:<size_width$} | {} × {ask_size:<size_width$}",
            self.paint.green(&bid),
            self.paint.red(&ask)
        )
        .trim_end()
        .to_owned()
    }

    fn number(&mut self, value: Decimal) -> String {
        let text = decimal::to_text(value);
        self.number_width = self.number_width.max(text.len());
        format!("{text:>width$}", width = self.number_width)
    }
}

/// The time of day, UTC, to the millisecond.
fn clock(time: Time) -> String {
    let millis = time.millis().rem_euclid(86_400_000);
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", millis / 1_000 % 60, millis % 1_000)
}

/// A count as people read it: 950, 12.3k, 4.5M.
pub(crate) fn count(n: f64) -> String {
    match n {
        n if n >= 9_999_500.0 => format!("{:.0}M", n / 1e6),
        n if n >= 999_500.0 => format!("{:.1}M", n / 1e6),
        n if n >= 9_999.5 => format!("{:.1}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_client::proto::{Message, json};

    fn line(lines: &mut Lines<Vec<u8>>, json: &str) -> String {
        let Message::Event(part) = json::read_message(json).expect(json) else { panic!("an event") };
        lines.event(&part.event, None).expect("memory");
        String::from_utf8(std::mem::take(&mut lines.out)).expect("text")
    }

    #[test]
    fn events_are_lines_with_aligned_columns() {
        let mut lines = Lines::new(Vec::new(), Paint::none());
        let quote = r#"{"topic":"quote/kraken/BTC-USD","seq":7,"prev":6,"kind":"update","ts":1716400000123456,"recv":1,"pub":2,"bid":"67123.45","bid_size":"0.523","ask":null}"#;
        assert_eq!(
            line(&mut lines, quote),
            "17:46:40.123  quote/kraken/BTC-USD  67123.45 × 0.523      |        – × –\n"
        );
        let trade = r#"{"topic":"trade/kraken/BTC-USD","seq":8,"prev":6,"kind":"update","ts":null,"recv":1,"pub":1716400000999999,"price":"9.5","size":"2","side":"sell","trade_id":"1"}"#;
        assert_eq!(line(&mut lines, trade), "17:46:40.999  trade/kraken/BTC-USD  ▼      9.5 × 2\n");
        let status = r#"{"topic":"status/kraken/BTC-USD","seq":9,"prev":6,"kind":"update","ts":null,"pub":0,"state":"stale","integrity":"verified","reason":"silent"}"#;
        assert!(line(&mut lines, status).ends_with("stale: silent  integrity: verified\n"));
        let invalid = r#"{"topic":"book/kraken/BTC-USD","seq":9,"prev":6,"kind":"invalid","ts":null,"pub":0,"reason":"checksum"}"#;
        assert!(line(&mut lines, invalid).contains("invalid: checksum"));
    }

    #[test]
    fn counts_are_short() {
        for (n, text) in [(0.4, "0"), (950.0, "950"), (9_999.0, "9999"), (12_345.0, "12.3k"), (4_500_000.0, "4.5M")] {
            assert_eq!(count(n), text);
        }
    }
}
