//! Topics: `channel/venue/symbol`, and patterns in which `*` stands for one whole part.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;

use crate::Time;

/// Longest text of a topic or pattern, in bytes.
pub const TOPIC_BYTES_MAX: usize = 128;

/// The venue name of the consolidated market. `*` does not include it.
pub const BEST: &str = "best";

/// Length of a bar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Interval {
    /// One second.
    S1,
    /// One minute.
    M1,
    /// Five minutes.
    M5,
    /// One hour.
    H1,
    /// One day, UTC.
    D1,
}

impl Interval {
    /// Every interval, shortest first.
    pub const ALL: [Interval; 5] = [Interval::S1, Interval::M1, Interval::M5, Interval::H1, Interval::D1];

    /// The name in a channel and in a query.
    pub const fn as_str(self) -> &'static str {
        match self {
            Interval::S1 => "1s",
            Interval::M1 => "1m",
            Interval::M5 => "5m",
            Interval::H1 => "1h",
            Interval::D1 => "1d",
        }
    }

    /// The interval of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.as_str() == name)
    }

    /// Its length, in nanoseconds.
    pub const fn nanos(self) -> i64 {
        let seconds = match self {
            Interval::S1 => 1,
            Interval::M1 => 60,
            Interval::M5 => 300,
            Interval::H1 => 3_600,
            Interval::D1 => 86_400,
        };
        seconds * 1_000_000_000
    }

    /// When the interval began that `at` lies in: whole multiples of its length since the Unix epoch, so days are UTC.
    pub const fn start_of(self, at: Time) -> Time {
        Time(at.0.div_euclid(self.nanos()).saturating_mul(self.nanos()))
    }
}

/// The kind of data that a topic carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Channel {
    /// Best bid and ask.
    Quote,
    /// Trades.
    Trade,
    /// All price levels that the venue gives.
    Book,
    /// The ten best levels of each side, derived from the book.
    Book10,
    /// The fifty best levels of each side, derived from the book.
    Book50,
    /// Open, high, low, close and volume of an interval.
    Bar(Interval),
    /// Rolling 24 hours.
    Stats,
    /// Mark, index, funding, open interest.
    Deriv,
    /// Forced closures.
    Liquidation,
    /// Is this instrument live, and how far can its data be trusted?
    Status,
}

/// How a channel may be conflated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Each event matters; never conflated.
    Event,
    /// Only the newest value matters.
    State,
    /// A state of many levels: updates may be merged, never dropped.
    Book,
}

impl Channel {
    /// Every channel of the contract.
    pub const ALL: [Channel; 14] = [
        Channel::Quote,
        Channel::Trade,
        Channel::Book,
        Channel::Book10,
        Channel::Book50,
        Channel::Bar(Interval::S1),
        Channel::Bar(Interval::M1),
        Channel::Bar(Interval::M5),
        Channel::Bar(Interval::H1),
        Channel::Bar(Interval::D1),
        Channel::Stats,
        Channel::Deriv,
        Channel::Liquidation,
        Channel::Status,
    ];

    /// The name in a topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Channel::Quote => "quote",
            Channel::Trade => "trade",
            Channel::Book => "book",
            Channel::Book10 => "book-10",
            Channel::Book50 => "book-50",
            Channel::Bar(Interval::S1) => "bar-1s",
            Channel::Bar(Interval::M1) => "bar-1m",
            Channel::Bar(Interval::M5) => "bar-5m",
            Channel::Bar(Interval::H1) => "bar-1h",
            Channel::Bar(Interval::D1) => "bar-1d",
            Channel::Stats => "stats",
            Channel::Deriv => "deriv",
            Channel::Liquidation => "liquidation",
            Channel::Status => "status",
        }
    }

    /// The channel of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == name)
    }

    /// How it may be conflated. The closed bars of `bar-*` are events, its running bar is a state; the channel as a
    /// whole counts as a state.
    pub const fn class(self) -> Class {
        match self {
            Channel::Trade | Channel::Liquidation => Class::Event,
            Channel::Book | Channel::Book10 | Channel::Book50 => Class::Book,
            Channel::Quote | Channel::Bar(_) | Channel::Stats | Channel::Deriv | Channel::Status => Class::State,
        }
    }

    /// Is this channel served today? The others answer `not_implemented`.
    pub const fn is_served(self) -> bool {
        !matches!(self, Channel::Deriv | Channel::Liquidation)
    }

    /// Are some of its events states and others (the closed bars) events? See [`crate::Event::is_conflatable`].
    pub const fn is_bar(self) -> bool {
        matches!(self, Channel::Bar(_))
    }

    /// Best levels of each side that a derived book keeps; `None` where the channel is no derived book.
    pub const fn derived_depth(self) -> Option<usize> {
        match self {
            Channel::Book10 => Some(10),
            Channel::Book50 => Some(50),
            _ => None,
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One stream of events: `channel/venue/symbol`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Topic {
    /// The kind of data.
    pub channel: Channel,
    /// Where it comes from: 1 to 32 of `a-z0-9-`.
    pub venue: CompactString,
    /// The instrument in normal form: 1 to 64 of `A-Z0-9.-_`.
    pub symbol: CompactString,
}

/// Not a topic or pattern.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicError {
    /// Not three parts, or characters that no topic has.
    #[error(
        "`{0}` is not a topic: expected `channel/venue/symbol`, such as `quote/kraken/BTC-USD`; `*` stands for one whole part"
    )]
    Form(String),
    /// No channel of that name.
    #[error(
        "`{0}` is not a channel: expected one of quote, trade, book, book-10, book-50, bar-1s, bar-1m, bar-5m, bar-1h, bar-1d, stats, deriv, liquidation, status"
    )]
    Channel(String),
}

impl Topic {
    /// A topic of these parts.
    pub fn new(channel: Channel, venue: &str, symbol: &str) -> Result<Self, TopicError> {
        if is_venue(venue) && is_symbol(symbol) {
            Ok(Self { channel, venue: venue.into(), symbol: symbol.into() })
        } else {
            Err(TopicError::Form(shorten(&format!("{channel}/{venue}/{symbol}"))))
        }
    }

    /// The same instrument on another channel.
    #[must_use]
    pub fn with_channel(&self, channel: Channel) -> Self {
        Self { channel, ..self.clone() }
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let [channel, venue, symbol] = parts(text)?;
        let channel = Channel::from_name(channel).ok_or_else(|| TopicError::Channel(shorten(channel)))?;
        Self::new(channel, venue, symbol)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.channel, self.venue, self.symbol)
    }
}

/// What a reader asks for: a topic, or a topic with `*` for whole parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pattern {
    channel: Option<Channel>,
    venue: Option<CompactString>,
    symbol: Option<CompactString>,
}

impl Pattern {
    /// The topic, if no part is `*`.
    pub fn exact(&self) -> Option<Topic> {
        Some(Topic { channel: self.channel?, venue: self.venue.clone()?, symbol: self.symbol.clone()? })
    }

    /// The channel, if it is not `*`.
    pub fn channel(&self) -> Option<Channel> {
        self.channel
    }

    /// Does `topic` match? `*` never matches the venue `best`, nor a channel that is not served.
    pub fn matches(&self, topic: &Topic) -> bool {
        let channel = self.channel.map_or(topic.channel.is_served(), |c| c == topic.channel);
        let venue = self.venue.as_ref().map_or(topic.venue != BEST, |v| *v == topic.venue);
        channel && venue && self.symbol.as_ref().is_none_or(|s| *s == topic.symbol)
    }

    /// How many parts are named (0 to 3). Where several patterns match a topic, the most exact one's options hold.
    pub fn exactness(&self) -> u8 {
        u8::from(self.channel.is_some()) + u8::from(self.venue.is_some()) + u8::from(self.symbol.is_some())
    }
}

impl std::convert::From<Topic> for Pattern {
    fn from(topic: Topic) -> Self {
        Self { channel: Some(topic.channel), venue: Some(topic.venue), symbol: Some(topic.symbol) }
    }
}

impl FromStr for Pattern {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let [channel, venue, symbol] = parts(text)?;
        let named = |part: &str, ok: fn(&str) -> bool| match part {
            "*" => Ok(None),
            _ if ok(part) => Ok(Some(CompactString::from(part))),
            _ => Err(TopicError::Form(shorten(text))),
        };
        Ok(Self {
            channel: match channel {
                "*" => None,
                name => Some(Channel::from_name(name).ok_or_else(|| TopicError::Channel(shorten(name)))?),
            },
            venue: named(venue, is_venue)?,
            symbol: named(symbol, is_symbol)?,
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = |part: &Option<CompactString>| part.as_ref().map_or("*", |p| p.as_str()).to_owned();
        let channel = self.channel.map_or("*", |c| c.as_str());
        write!(f, "{channel}/{}/{}", star(&self.venue), star(&self.symbol))
    }
}

fn parts(text: &str) -> Result<[&str; 3], TopicError> {
    let mut split = text.split('/');
    match (split.next(), split.next(), split.next(), split.next()) {
        (Some(a), Some(b), Some(c), None) if text.len() <= TOPIC_BYTES_MAX => Ok([a, b, c]),
        _ => Err(TopicError::Form(shorten(text))),
    }
}

/// Is this a venue's name: 1 to 32 of `a-z0-9-`?
pub fn is_venue(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// Is this a symbol in normal form: 1 to 64 of `A-Z0-9.-_`?
pub fn is_symbol(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_'))
}

fn shorten(text: &str) -> String {
    text.chars().take(TOPIC_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_read_back_as_written() {
        for text in ["quote/coinbase/BTC-USD", "book-10/binance-usdm/BTC-USDT-PERP", "bar-1m/nasdaq/BRK.B"] {
            assert_eq!(text.parse::<Topic>().expect(text).to_string(), text);
        }
        for bad in [
            "",
            "quote",
            "quote/kraken",
            "quote/kraken/BTC-USD/x",
            "quote//BTC-USD",
            "qoute/kraken/BTC-USD",
            "quote/Kraken/BTC-USD",
            "quote/kraken/btc-usd",
            "quote/*/BTC-USD",
        ] {
            assert!(bad.parse::<Topic>().is_err(), "{bad}");
        }
    }

    #[test]
    fn intervals_begin_at_multiples_of_their_length() {
        let at = Time::parse_rfc3339("2026-08-09T21:05:49.5Z").expect("a time");
        for (interval, start) in Interval::ALL.into_iter().zip([
            "2026-08-09T21:05:49Z",
            "2026-08-09T21:05:00Z",
            "2026-08-09T21:05:00Z",
            "2026-08-09T21:00:00Z",
            "2026-08-09T00:00:00Z",
        ]) {
            assert_eq!(Some(interval.start_of(at)), Time::parse_rfc3339(start), "{}", interval.as_str());
            assert_eq!(Channel::from_name(&format!("bar-{}", interval.as_str())), Some(Channel::Bar(interval)));
            assert_eq!(Interval::from_name(interval.as_str()), Some(interval));
        }
        assert_eq!(Interval::S1.start_of(Time(-1)), Time(-1_000_000_000));
        assert_eq!(Interval::D1.start_of(Time(i64::MIN)), Time(i64::MIN), "whatever comes from outside");
    }

    #[test]
    fn a_star_stands_for_one_whole_part_and_not_for_best() {
        let topic = |t: &str| t.parse::<Topic>().expect("a topic");
        let pattern = |t: &str| t.parse::<Pattern>().expect("a pattern");
        assert!(pattern("trade/*/BTC-USD").matches(&topic("trade/kraken/BTC-USD")));
        assert!(!pattern("trade/*/BTC-USD").matches(&topic("trade/kraken/ETH-USD")));
        assert!(!pattern("quote/*/BTC-USD").matches(&topic("quote/best/BTC-USD")));
        assert!(pattern("quote/best/*").matches(&topic("quote/best/BTC-USD")));
        assert!(!pattern("*/kraken/*").matches(&topic("deriv/kraken/BTC-USD")), "not served yet");
        assert!(pattern("quote/kraken/*").exactness() > pattern("quote/*/*").exactness());
        for bad in ["quote/k*/BTC-USD", "**/kraken/BTC-USD", "quote/kraken/BTC-*"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
