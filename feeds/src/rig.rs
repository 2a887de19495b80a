//! What the tests drive adapters with: time that moves on by itself, a reader's books beside the adapter's, and updates
//! as short text.

use std::collections::HashMap;

use ticker_market::{Book, Channel, Data, Kind, Level, Side, Time, decimal};

use crate::{Adapter, Command, Conn, Out, Update};

/// The frames of a fixture, one a line.
pub(crate) fn frames(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty()).collect()
}

pub(crate) struct Rig<A> {
    pub(crate) adapter: A,
    pub(crate) now: Time,
    pub(crate) out: Out,
    symbols: HashMap<u32, String>,
    /// A reader's book; none while it is not to be trusted.
    books: HashMap<u32, Option<Book>>,
}

impl<A: Adapter> Rig<A> {
    pub(crate) fn new(adapter: A) -> Self {
        let now = Time::from_millis(1_767_607_200_000);
        Self { adapter, now, out: Out::default(), symbols: HashMap::new(), books: HashMap::new() }
    }

    /// Does something to the adapter a millisecond later, and returns what it told.
    pub(crate) fn step(&mut self, act: impl FnOnce(&mut A, Time, &mut Out)) -> Vec<String> {
        self.now = self.now.plus_millis(1);
        self.out.clear();
        act(&mut self.adapter, self.now, &mut self.out);
        for (number, instrument) in &self.out.instruments {
            self.symbols.insert(*number, instrument.symbol.to_string());
        }
        let told = self.out.updates.iter().map(|u| self.text(u)).collect();
        for update in &self.out.updates {
            assert!(update.data.fits(update.channel), "{update:?}");
            let book = self.books.entry(update.instrument).or_default();
            match (&update.data, update.kind, update.channel) {
                (Data::Book(levels), Kind::Snapshot, _) => {
                    let mut new = Book::new();
                    new.replace(levels).expect("a good snapshot");
                    *book = Some(new);
                }
                (Data::Book(levels), _, _) => {
                    book.as_mut().expect("a snapshot comes first").apply(levels).expect("good changes");
                }
                (Data::Invalid(_), _, Channel::Book) => *book = None,
                _ => {}
            }
        }
        self.check();
        told
    }

    /// The reader's books are the adapter's.
    fn check(&self) {
        let mut out = Out::default();
        self.adapter.retell(self.now, &mut out);
        for update in out.updates.iter().filter(|u| u.channel == Channel::Book) {
            let ours = self.books.get(&update.instrument).and_then(Option::as_ref);
            match &update.data {
                Data::Book(levels) => {
                    let ours = ours.expect("the adapter's book is live");
                    assert!(ours.bids().eq(&levels.bids) && ours.asks().eq(&levels.asks));
                    assert!(!ours.is_crossed());
                }
                _ => assert!(ours.is_none(), "the adapter's book is not live"),
            }
        }
    }

    pub(crate) fn open(&mut self, conn: u32, url: &str) -> Vec<String> {
        self.step(|a, now, out| a.opened(Conn(conn), url, now, out))
    }

    pub(crate) fn frame(&mut self, conn: u32, text: &str) -> Vec<String> {
        self.step(|a, now, out| a.frame(Conn(conn), text.as_bytes(), now, out))
    }

    pub(crate) fn response(&mut self, url: &str, text: &str) -> Vec<String> {
        self.step(|a, now, out| a.response(url, text.as_bytes(), now, out))
    }

    /// Lets time pass to the adapter's next timer.
    pub(crate) fn wait(&mut self) -> Vec<String> {
        self.now = self.adapter.next_timer().expect("it waits for something");
        self.step(|a, now, out| a.timer(now, out))
    }

    /// What it asked for in the last step, sends as their text.
    pub(crate) fn asked(&self) -> Vec<String> {
        let text = |command: &Command| match command {
            Command::Send(conn, text) => format!("send {}: {text}", conn.0),
            Command::Fetch(url) => format!("fetch {url}"),
            Command::Reconnect(conn, why) => format!("reconnect {}: {why}", conn.0),
        };
        self.out.commands.iter().map(text).collect()
    }

    /// The faults reported in the last step.
    pub(crate) fn faults(&self) -> Vec<&'static str> {
        self.out.reports.iter().map(|r| r.fault.as_str()).collect()
    }

    pub(crate) fn book(&self, symbol: &str) -> Option<&Book> {
        let number = self.symbols.iter().find(|(_, s)| *s == symbol)?.0;
        self.books.get(number)?.as_ref()
    }

    fn text(&self, update: &Update) -> String {
        let what = match &update.data {
            Data::Invalid(reason) => format!("invalid {reason}"),
            Data::Bar(_) | Data::Stats(_) => unreachable!("derived from the tape, not told by a venue"),
            Data::Quote(quote) => {
                let again = if update.kind == Kind::Snapshot { "anew " } else { "" };
                format!("{again}{} {}", side(quote.bid), side(quote.ask))
            }
            Data::Trade(trade) => {
                let taker = match trade.side {
                    Some(Side::Buy) => "buy",
                    Some(Side::Sell) => "sell",
                    None => "-",
                };
                let (price, size) = (decimal::to_text(trade.price), decimal::to_text(trade.size));
                format!("{} {taker} {size}@{price}", trade.trade_id)
            }
            Data::Book(levels) if update.kind == Kind::Snapshot => {
                format!("snapshot {}/{}", levels.bids.len(), levels.asks.len())
            }
            Data::Book(levels) => {
                let list = |levels: &[Level]| levels.iter().map(|l| side(Some(*l))).collect::<Vec<_>>().join(",");
                format!("[{}] [{}]", list(&levels.bids), list(&levels.asks))
            }
            Data::Status(status) => {
                format!("{} {}", status.state.as_str(), status.reason.as_deref().unwrap_or("-"))
            }
        };
        format!("{} {} {what}", self.symbols[&update.instrument], update.channel)
    }
}

fn side(level: Option<Level>) -> String {
    level.map_or("-".to_owned(), |l| format!("{}@{}", decimal::to_text(l.size), decimal::to_text(l.price)))
}
