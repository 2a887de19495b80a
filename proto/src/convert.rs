//! From and to the market's types.

use std::sync::Arc;

use ticker_market::{
    Bar, Channel, Data, Decimal, Event, Instrument, Integrity, Kind, Level, Levels, Quote, Side, State, Stats, Status,
    Time, Topic, Trade, decimal,
};

use crate::message::{Message, Notice, Part};
use crate::{Code, v1};

/// A wire message that means nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} is not valid: `{value}`")]
pub struct ConvertError {
    what: &'static str,
    value: String,
}

fn wrong(what: &'static str, value: impl std::fmt::Display) -> ConvertError {
    ConvertError { what, value: value.to_string().chars().take(100).collect() }
}

/// The event on the wire, its topic left empty: whoever names topics by number sends it so.
pub fn event_to_wire(event: &Event) -> v1::Event {
    use v1::event::Data as D;
    let mut reason = String::new();
    let data = match &event.data {
        Data::Invalid(why) => {
            reason = why.to_string();
            None
        }
        Data::Quote(q) => Some(D::Quote(v1::Quote {
            bid: q.bid.map(|l| decimal::to_text(l.price)),
            bid_size: q.bid.map(|l| decimal::to_text(l.size)),
            ask: q.ask.map(|l| decimal::to_text(l.price)),
            ask_size: q.ask.map(|l| decimal::to_text(l.size)),
            bid_venue: q.bid_venue.as_deref().unwrap_or_default().to_owned(),
            ask_venue: q.ask_venue.as_deref().unwrap_or_default().to_owned(),
        })),
        Data::Trade(t) => Some(D::Trade(v1::Trade {
            price: decimal::to_text(t.price),
            size: decimal::to_text(t.size),
            side: match t.side {
                Some(Side::Buy) => v1::Side::Buy,
                Some(Side::Sell) => v1::Side::Sell,
                None => v1::Side::Unspecified,
            } as i32,
            trade_id: t.trade_id.to_string(),
            r#ref: t.reference.as_deref().unwrap_or_default().to_owned(),
        })),
        Data::Book(l) => Some(D::Book(v1::Book {
            bids: l.bids.iter().map(level_to_wire).collect(),
            asks: l.asks.iter().map(level_to_wire).collect(),
            crc: l.crc,
            sum: l.sum,
        })),
        Data::Bar(b) => Some(D::Bar(bar_to_wire(b))),
        Data::Stats(s) => Some(D::Stats(stats_to_wire(s))),
        Data::Status(s) => Some(D::Status(status_to_wire(s))),
    };
    v1::Event {
        topic: String::new(),
        seq: event.seq,
        prev: event.prev,
        kind: match event.kind {
            Kind::Update => v1::Kind::Update,
            Kind::Snapshot => v1::Kind::Snapshot,
            Kind::Invalid => v1::Kind::Invalid,
            Kind::Correction => v1::Kind::Correction,
            Kind::Cancel => v1::Kind::Cancel,
        } as i32,
        ts: event.ts.map_or(0, |t| t.0),
        recv: event.recv.0,
        r#pub: event.published.0,
        part: 0,
        parts: 0,
        reason,
        data,
    }
}

/// The event of a wire message whose topic is `topic`.
pub fn event_from_wire(topic: Arc<Topic>, wire: v1::Event) -> Result<Event, ConvertError> {
    use v1::event::Data as D;
    let kind = match wire.kind() {
        v1::Kind::Update => Kind::Update,
        v1::Kind::Snapshot => Kind::Snapshot,
        v1::Kind::Invalid => Kind::Invalid,
        v1::Kind::Correction => Kind::Correction,
        v1::Kind::Cancel => Kind::Cancel,
        v1::Kind::Unspecified => return Err(wrong("kind", wire.kind)),
    };
    let data = match wire.data {
        _ if kind == Kind::Invalid => Data::Invalid(wire.reason.into()),
        None => return Err(wrong("data", "nothing")),
        Some(D::Quote(q)) => Data::Quote(Quote {
            bid: optional_level(q.bid, q.bid_size)?,
            ask: optional_level(q.ask, q.ask_size)?,
            bid_venue: (!q.bid_venue.is_empty()).then(|| q.bid_venue.into()),
            ask_venue: (!q.ask_venue.is_empty()).then(|| q.ask_venue.into()),
        }),
        Some(D::Trade(t)) => Data::Trade(Trade {
            side: match t.side() {
                v1::Side::Buy => Some(Side::Buy),
                v1::Side::Sell => Some(Side::Sell),
                v1::Side::Unspecified => None,
            },
            price: decimal_from_wire(&t.price)?,
            size: decimal_from_wire(&t.size)?,
            trade_id: t.trade_id.into(),
            reference: (!t.r#ref.is_empty()).then(|| t.r#ref.into()),
        }),
        Some(D::Book(b)) => Data::Book(Levels {
            bids: b.bids.iter().map(level_from_wire).collect::<Result<_, _>>()?,
            asks: b.asks.iter().map(level_from_wire).collect::<Result<_, _>>()?,
            crc: b.crc,
            sum: b.sum,
        }),
        Some(D::Bar(b)) => Data::Bar(bar_from_wire(&b)?),
        Some(D::Stats(s)) => Data::Stats(Box::new(stats_from_wire(&s)?)),
        Some(D::Status(s)) => Data::Status(status_from_wire(&s)),
    };
    if !data.fits(topic.channel) {
        return Err(wrong("data on this channel", &topic));
    }
    Ok(Event {
        topic,
        seq: wire.seq,
        prev: wire.prev,
        kind,
        ts: (wire.ts != 0).then_some(Time(wire.ts)),
        recv: Time(wire.recv),
        published: Time(wire.r#pub),
        data,
    })
}

/// A message of a session, from the wire.
pub fn message_from_wire(wire: v1::SessionResponse) -> Result<Message, ConvertError> {
    use v1::session_response::Message as M;
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(Message::Notice(match wire.message.ok_or_else(|| wrong("message", "empty"))? {
        M::Event(mut event) => {
            fill(&mut event);
            let topic: Topic = event.topic.parse().map_err(|_| wrong("topic", &event.topic))?;
            let (part, parts) = (event.part, event.parts);
            let event = event_from_wire(Arc::new(topic), event)?;
            return Ok(Message::Event(Box::new(Part { event, part, parts, raw: None })));
        }
        M::Welcome(w) => {
            Notice::Welcome { version: w.version, epoch: w.epoch, cursor: w.cursor, heartbeat_ms: w.heartbeat_ms }
        }
        M::Subscribed(s) => Notice::Subscribed { id: s.id, topics: s.topics, cursor: s.cursor },
        M::Unsubscribed(u) => Notice::Unsubscribed { id: u.id, topics: u.topics },
        M::Error(e) => Notice::Error {
            id: (e.id != 0).then_some(e.id),
            code: Code::from_wire(e.code).as_str().to_owned(),
            message: e.message,
            cursor: some(e.cursor),
        },
        M::Gap(g) => Notice::Gap { topic: some(g.topic), reason: g.reason },
        M::Heartbeat(h) => Notice::Heartbeat { cursor: h.cursor, conflated: h.conflated },
        M::Pong(p) => Notice::Pong { id: p.id },
        M::Goodbye(g) => Notice::Goodbye { reason: g.reason, cursor: g.cursor, retry_ms: g.retry_ms },
        M::Signal(s) => Notice::Signal {
            id: (s.id != 0).then_some(s.id),
            peer: (!s.peer.is_empty()).then_some(s.peer),
            from: (!s.from.is_empty()).then_some(s.from),
            data: (!s.data.is_empty()).then(|| crate::message::json_of(s.data)),
        },
    }))
}

/// A reader who keeps only some fields gets events without the others: as in JSON, numbers are 0 then. (From an ingest
/// service such an event would be a fault, so this is not for [`event_from_wire`].)
fn fill(event: &mut v1::Event) {
    use v1::event::Data as D;
    let texts: Vec<&mut String> = match &mut event.data {
        Some(D::Trade(t)) => vec![&mut t.price, &mut t.size],
        Some(D::Bar(b)) => vec![&mut b.open, &mut b.high, &mut b.low, &mut b.close, &mut b.volume],
        Some(D::Stats(s)) => {
            let prices = [&mut s.last, &mut s.open, &mut s.high, &mut s.low];
            prices.into_iter().chain([&mut s.volume, &mut s.quote_volume, &mut s.change]).collect()
        }
        _ => Vec::new(),
    };
    for text in texts.into_iter().filter(|t| t.is_empty()) {
        "0".clone_into(text);
    }
}

/// The instrument on the wire.
pub fn instrument_to_wire(i: &Instrument) -> v1::Instrument {
    v1::Instrument {
        venue: i.venue.to_string(),
        symbol: i.symbol.to_string(),
        native: i.native.to_string(),
        tick_size: i.tick_size.map(decimal::to_text).unwrap_or_default(),
        lot_size: i.lot_size.map(decimal::to_text).unwrap_or_default(),
        channels: i.channels.iter().map(|c| c.as_str().to_owned()).collect(),
    }
}

/// The instrument of a wire message.
pub fn instrument_from_wire(w: v1::Instrument) -> Result<Instrument, ConvertError> {
    if !ticker_market::topic::is_venue(&w.venue) {
        return Err(wrong("venue", w.venue));
    }
    if !ticker_market::topic::is_symbol(&w.symbol) {
        return Err(wrong("symbol", w.symbol));
    }
    let step = |text: &str| if text.is_empty() { Ok(None) } else { decimal_from_wire(text).map(Some) };
    Ok(Instrument {
        tick_size: step(&w.tick_size)?,
        lot_size: step(&w.lot_size)?,
        channels: w
            .channels
            .iter()
            .map(|name| Channel::from_name(name).ok_or_else(|| wrong("channel", name)))
            .collect::<Result<_, _>>()?,
        venue: w.venue.into(),
        symbol: w.symbol.into(),
        native: w.native.into(),
    })
}

/// The status on the wire.
pub fn status_to_wire(s: &Status) -> v1::Status {
    v1::Status {
        state: match s.state {
            State::Live => v1::State::Live,
            State::Connecting => v1::State::Connecting,
            State::Stale => v1::State::Stale,
            State::Resyncing => v1::State::Resyncing,
            State::Halted => v1::State::Halted,
            State::Closed => v1::State::Closed,
        } as i32,
        integrity: match s.integrity {
            Integrity::Verified => v1::Integrity::Verified,
            Integrity::Sequenced => v1::Integrity::Sequenced,
            Integrity::Ordered => v1::Integrity::Ordered,
            Integrity::None => v1::Integrity::None,
        } as i32,
        reason: s.reason.as_deref().unwrap_or_default().to_owned(),
        last_verified: s.last_verified.map_or(0, |t| t.0),
    }
}

/// The status of a wire message.
pub fn status_from_wire(s: &v1::Status) -> Status {
    Status {
        state: match s.state() {
            v1::State::Live => State::Live,
            v1::State::Connecting | v1::State::Unspecified => State::Connecting,
            v1::State::Stale => State::Stale,
            v1::State::Resyncing => State::Resyncing,
            v1::State::Halted => State::Halted,
            v1::State::Closed => State::Closed,
        },
        integrity: match s.integrity() {
            v1::Integrity::Verified => Integrity::Verified,
            v1::Integrity::Sequenced => Integrity::Sequenced,
            v1::Integrity::Ordered => Integrity::Ordered,
            v1::Integrity::None | v1::Integrity::Unspecified => Integrity::None,
        },
        reason: (!s.reason.is_empty()).then(|| s.reason.as_str().into()),
        last_verified: (s.last_verified != 0).then_some(Time(s.last_verified)),
    }
}

fn bar_to_wire(b: &Bar) -> v1::Bar {
    v1::Bar {
        start: b.start.0,
        open: decimal::to_text(b.open),
        high: decimal::to_text(b.high),
        low: decimal::to_text(b.low),
        close: decimal::to_text(b.close),
        volume: decimal::to_text(b.volume),
        vwap: b.vwap.map(decimal::to_text),
        trades: b.trades,
        closed: b.closed,
    }
}

fn bar_from_wire(b: &v1::Bar) -> Result<Bar, ConvertError> {
    Ok(Bar {
        start: Time(b.start),
        open: decimal_from_wire(&b.open)?,
        high: decimal_from_wire(&b.high)?,
        low: decimal_from_wire(&b.low)?,
        close: decimal_from_wire(&b.close)?,
        volume: decimal_from_wire(&b.volume)?,
        vwap: b.vwap.as_deref().map(decimal_from_wire).transpose()?,
        trades: b.trades,
        closed: b.closed,
    })
}

fn stats_to_wire(s: &Stats) -> v1::Stats {
    v1::Stats {
        last: decimal::to_text(s.last),
        open: decimal::to_text(s.open),
        high: decimal::to_text(s.high),
        low: decimal::to_text(s.low),
        volume: decimal::to_text(s.volume),
        quote_volume: decimal::to_text(s.quote_volume),
        vwap: s.vwap.map(decimal::to_text),
        change: decimal::to_text(s.change),
        change_pct: s.change_pct.map(decimal::to_text),
        trades: s.trades,
    }
}

fn stats_from_wire(s: &v1::Stats) -> Result<Stats, ConvertError> {
    Ok(Stats {
        last: decimal_from_wire(&s.last)?,
        open: decimal_from_wire(&s.open)?,
        high: decimal_from_wire(&s.high)?,
        low: decimal_from_wire(&s.low)?,
        volume: decimal_from_wire(&s.volume)?,
        quote_volume: decimal_from_wire(&s.quote_volume)?,
        vwap: s.vwap.as_deref().map(decimal_from_wire).transpose()?,
        change: decimal_from_wire(&s.change)?,
        change_pct: s.change_pct.as_deref().map(decimal_from_wire).transpose()?,
        trades: s.trades,
    })
}

fn level_to_wire(level: &Level) -> v1::Level {
    v1::Level { price: decimal::to_text(level.price), size: decimal::to_text(level.size) }
}

fn level_from_wire(level: &v1::Level) -> Result<Level, ConvertError> {
    Ok(Level { price: decimal_from_wire(&level.price)?, size: decimal_from_wire(&level.size)? })
}

fn optional_level(price: Option<String>, size: Option<String>) -> Result<Option<Level>, ConvertError> {
    let Some(price) = price else { return Ok(None) };
    let size = size.as_deref().map_or(Ok(Decimal::ZERO), decimal_from_wire)?;
    Ok(Some(Level { price: decimal_from_wire(&price)?, size }))
}

fn decimal_from_wire(text: &str) -> Result<Decimal, ConvertError> {
    decimal::parse(text).ok_or_else(|| wrong("decimal", text))
}
