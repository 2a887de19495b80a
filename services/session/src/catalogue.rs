//! Which topics exist.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;
use ticker_market::topic::BEST;
use ticker_market::{Channel, Instrument, Pattern, Topic};
use ticker_proto::Code;

/// Why a topic cannot be subscribed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The contract's code.
    pub code: Code,
    /// What happened, what was expected, what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// All instruments, by venue and symbol.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    instruments: BTreeMap<(CompactString, CompactString), Instrument>,
    /// Symbols with a consolidated quote.
    best: BTreeSet<CompactString>,
}

impl Catalogue {
    /// Adds or changes an instrument. Returns whether it is new or has changed.
    pub fn insert(&mut self, instrument: Instrument) -> bool {
        let key = (instrument.venue.clone(), instrument.symbol.clone());
        if self.instruments.get(&key) == Some(&instrument) {
            return false;
        }
        self.best.extend(instrument.best_topic().map(|t| t.symbol));
        self.instruments.insert(key, instrument);
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.instruments.clear();
        self.best.clear();
    }

    /// All instruments, by venue, then by symbol.
    pub fn instruments(&self) -> impl Iterator<Item = &Instrument> {
        self.instruments.values()
    }

    /// The symbols of which there is a consolidated quote, in order.
    pub fn consolidated(&self) -> impl Iterator<Item = &str> {
        self.best.iter().map(CompactString::as_str)
    }

    /// All topics that a pattern matches now.
    pub fn matching<'a>(&'a self, pattern: &'a Pattern) -> impl Iterator<Item = Topic> + 'a {
        let best =
            |symbol: &CompactString| Topic { channel: Channel::Quote, venue: BEST.into(), symbol: symbol.clone() };
        let topics = self.instruments.values().flat_map(Instrument::topics).chain(self.best.iter().map(best));
        topics.filter(move |t| pattern.matches(t))
    }

    /// Is this a topic that can be subscribed to? If not: why, and what may have been meant.
    pub fn check(&self, topic: &Topic) -> Result<(), Refusal> {
        if !topic.channel.is_served() {
            return Err(not_served(topic.channel));
        }
        if topic.venue == BEST {
            return self.check_best(topic);
        }
        let Some(instrument) = self.instruments.get(&(topic.venue.clone(), topic.symbol.clone())) else {
            return Err(self.unknown(topic));
        };
        if instrument.topics().any(|t| t.channel == topic.channel) {
            return Ok(());
        }
        let channels: Vec<&str> = instrument.topics().map(|t| t.channel.as_str()).collect();
        Err(Refusal::new(
            Code::UnknownTopic,
            format!(
                "{}:{} has no channel `{}`; it has {}",
                topic.venue,
                topic.symbol,
                topic.channel,
                channels.join(", ")
            ),
        ))
    }

    fn check_best(&self, topic: &Topic) -> Result<(), Refusal> {
        let message = match topic.channel {
            Channel::Quote if self.best.contains(&topic.symbol) => return Ok(()),
            Channel::Quote => match nearest(topic.symbol.as_str(), self.best.iter().map(CompactString::as_str)) {
                Some(near) => format!("no venue quotes {}; did you mean {near}?", topic.symbol),
                None => format!("no venue quotes {}; GET /v1/instruments lists what there is", topic.symbol),
            },
            channel => format!("the consolidated venue `{BEST}` has no channel `{channel}`; it has quote"),
        };
        Err(Refusal::new(Code::UnknownTopic, message))
    }

    fn unknown(&self, topic: &Topic) -> Refusal {
        let mut venues: Vec<&str> = self.instruments.keys().map(|(v, _)| v.as_str()).collect();
        venues.dedup();
        let message = if venues.is_empty() {
            format!("no instrument {}:{}; no venue has announced its instruments yet", topic.venue, topic.symbol)
        } else if !venues.contains(&topic.venue.as_str()) {
            match nearest(topic.venue.as_str(), venues.iter().copied().chain([BEST])) {
                Some(near) => format!("no venue {}; did you mean {near}?", topic.venue),
                None => format!("no venue {}; there are {}", topic.venue, venues.join(", ")),
            }
        } else {
            let symbols = self.instruments.keys().filter(|(v, _)| *v == topic.venue).map(|(_, s)| s.as_str());
            match nearest(topic.symbol.as_str(), symbols) {
                Some(near) => format!("no instrument {}:{}; did you mean {near}?", topic.venue, topic.symbol),
                None => format!(
                    "no instrument {}:{}; GET /v1/instruments?venue={} lists what there is",
                    topic.venue, topic.symbol, topic.venue
                ),
            }
        };
        Refusal::new(Code::UnknownTopic, message)
    }
}

/// The refusal of a channel that comes with a later version.
pub fn not_served(channel: Channel) -> Refusal {
    Refusal::new(Code::NotImplemented, format!("the channel `{channel}` is not implemented yet"))
}

/// The candidate that differs least, if it differs by at most a third of its length.
fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.map(|c| (distance(text, c), c)).min().filter(|(d, c)| *d <= c.len().div_ceil(3)).map(|(_, c)| c)
}

/// Levenshtein distance. Names are at most 64 bytes long.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_topic_says_what_may_have_been_meant() {
        let mut catalogue = Catalogue::default();
        for symbol in ["BTC-USD", "ETH-USD"] {
            catalogue.insert(Instrument {
                venue: "coinbase".into(),
                symbol: symbol.into(),
                native: symbol.into(),
                tick_size: None,
                lot_size: None,
                channels: vec![Channel::Quote, Channel::Trade],
            });
        }
        let check = |t: &str| catalogue.check(&t.parse().expect("a topic")).map_err(|r| r.message);
        assert_eq!(check("quote/coinbase/BTC-USD"), Ok(()));
        assert_eq!(check("status/coinbase/BTC-USD"), Ok(()));
        assert_eq!(
            check("quote/coinbase/BTC-USX"),
            Err("no instrument coinbase:BTC-USX; did you mean BTC-USD?".to_owned())
        );
        assert_eq!(check("quote/coinbse/BTC-USD"), Err("no venue coinbse; did you mean coinbase?".to_owned()));
        assert!(check("book/coinbase/BTC-USD").expect_err("no book").contains("has no channel `book`"));
        assert!(check("deriv/coinbase/BTC-USD").expect_err("later").contains("not implemented"));
        for text in ["bar-1m/coinbase/BTC-USD", "stats/coinbase/BTC-USD", "quote/best/BTC-USD"] {
            assert_eq!(check(text), Ok(()), "{text}: derived");
        }
        assert_eq!(check("quote/best/BTC-USX"), Err("no venue quotes BTC-USX; did you mean BTC-USD?".to_owned()));
        assert!(check("trade/best/BTC-USD").expect_err("quotes only").contains("it has quote"));
        assert_eq!(check("quote/bets/BTC-USD"), Err("no venue bets; did you mean best?".to_owned()));
        assert_eq!(catalogue.consolidated().collect::<Vec<_>>(), ["BTC-USD", "ETH-USD"]);
        let matching = |p: &str| catalogue.matching(&p.parse().expect("a pattern")).count();
        assert_eq!((matching("quote/*/*"), matching("quote/best/*"), matching("bar-1m/*/BTC-USD")), (2, 2, 1));
    }
}
