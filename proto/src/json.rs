//! Events as JSON: written by hand, since this is what an edge does for each event; read with serde.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{
    Data, Decimal, Event, Integrity, Kind, Level, Levels, Quote, Side, State, Status, Time, Topic, Trade, decimal,
};

use crate::frame::Fields;
use crate::message::{Message, Notice, Part};

/// Not a message of a session.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or a field is missing or of another type.
    #[error("not a message: {0}")]
    Json(#[from] serde_json::Error),
    /// A field has a value that it cannot have.
    #[error("not an event: {0}")]
    Value(&'static str),
}

/// Appends the event as one JSON object. `part` is `(part, parts)` where there are several; `levels` replaces the
/// event's own levels then.
pub fn write_event(
    out: &mut Vec<u8>,
    event: &Event,
    fields: Fields,
    part: Option<(u32, u32)>,
    levels: Option<(&[Level], &[Level])>,
) {
    out.extend_from_slice(b"{\"topic\":\"");
    out.extend_from_slice(event.topic.channel.as_str().as_bytes());
    out.push(b'/');
    out.extend_from_slice(event.topic.venue.as_bytes());
    out.push(b'/');
    out.extend_from_slice(event.topic.symbol.as_bytes());
    out.extend_from_slice(b"\",\"seq\":");
    integer(out, event.seq);
    out.extend_from_slice(b",\"prev\":");
    integer(out, event.prev);
    out.extend_from_slice(b",\"kind\":\"");
    out.extend_from_slice(event.kind.as_str().as_bytes());
    out.push(b'"');
    if let Some((part, parts)) = part {
        out.extend_from_slice(b",\"part\":");
        integer(out, part);
        out.extend_from_slice(b",\"parts\":");
        integer(out, parts);
    }
    if fields.has("ts") {
        out.extend_from_slice(b",\"ts\":");
        match event.ts {
            Some(ts) => integer(out, ts.micros()),
            None => out.extend_from_slice(b"null"),
        }
    }
    if fields.has("recv") {
        out.extend_from_slice(b",\"recv\":");
        integer(out, event.recv.micros());
    }
    if fields.has("pub") {
        out.extend_from_slice(b",\"pub\":");
        integer(out, event.published.micros());
    }
    match &event.data {
        Data::Invalid(reason) => text(out, "reason", reason),
        Data::Quote(q) => quote(out, q, fields),
        Data::Trade(t) => trade(out, t, fields),
        Data::Book(l) => {
            let (bids, asks) = levels.unwrap_or((&l.bids, &l.asks));
            out.extend_from_slice(b",\"bids\":[");
            side(out, bids);
            out.extend_from_slice(b"],\"asks\":[");
            side(out, asks);
            out.extend_from_slice(b"],\"crc\":");
            integer(out, l.crc);
            out.extend_from_slice(b",\"sum\":");
            integer(out, l.sum);
        }
        Data::Status(s) => status(out, s, fields),
    }
    out.push(b'}');
}

/// Bytes that a level takes in JSON, with the comma after it: at most as many as in protobuf.
pub fn level_bytes(level: &Level, scratch: &mut Vec<u8>) -> usize {
    scratch.clear();
    decimal::write(scratch, level.price);
    decimal::write(scratch, level.size);
    scratch.len() + 8
}

fn integer(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn number(out: &mut Vec<u8>, value: Option<Decimal>) {
    match value {
        Some(value) => {
            out.push(b'"');
            decimal::write(out, value);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// A text that may need escapes: reasons and trade ids come from outside.
fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    key(out, name);
    if value.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'"' && c != b'\\') {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, value).expect("writing a string to memory cannot fail");
    }
}

fn quote(out: &mut Vec<u8>, q: &Quote, fields: Fields) {
    for (price, size, level) in [("bid", "bid_size", q.bid), ("ask", "ask_size", q.ask)] {
        if fields.has(price) {
            key(out, price);
            number(out, level.map(|l| l.price));
        }
        if fields.has(size) {
            key(out, size);
            number(out, level.map(|l| l.size));
        }
    }
    for (name, venue) in [("bid_venue", &q.bid_venue), ("ask_venue", &q.ask_venue)] {
        if let Some(venue) = venue
            && fields.has(name)
        {
            text(out, name, venue);
        }
    }
}

fn trade(out: &mut Vec<u8>, t: &Trade, fields: Fields) {
    for (name, value) in [("price", t.price), ("size", t.size)] {
        if fields.has(name) {
            key(out, name);
            number(out, Some(value));
        }
    }
    if fields.has("side") {
        out.extend_from_slice(match t.side {
            Some(Side::Buy) => b",\"side\":\"buy\"",
            Some(Side::Sell) => b",\"side\":\"sell\"".as_slice(),
            None => b",\"side\":null",
        });
    }
    if fields.has("trade_id") {
        text(out, "trade_id", &t.trade_id);
    }
    if let Some(reference) = &t.reference
        && fields.has("ref")
    {
        text(out, "ref", reference);
    }
}

fn side(out: &mut Vec<u8>, levels: &[Level]) {
    for (i, level) in levels.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"[\"" } else { b",[\"" });
        decimal::write(out, level.price);
        out.extend_from_slice(b"\",\"");
        decimal::write(out, level.size);
        out.extend_from_slice(b"\"]");
    }
}

fn status(out: &mut Vec<u8>, s: &Status, fields: Fields) {
    if fields.has("state") {
        text(out, "state", s.state.as_str());
    }
    if fields.has("integrity") {
        text(out, "integrity", s.integrity.as_str());
    }
    if fields.has("reason") {
        match &s.reason {
            Some(reason) => text(out, "reason", reason),
            None => out.extend_from_slice(b",\"reason\":null"),
        }
    }
    if fields.has("last_verified") {
        key(out, "last_verified");
        match s.last_verified {
            Some(time) => integer(out, time.micros()),
            None => out.extend_from_slice(b"null"),
        }
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default)]
    op: Option<&'a str>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    topic: String,
    seq: u64,
    prev: u64,
    kind: &'a str,
    #[serde(default)]
    part: u32,
    #[serde(default)]
    parts: u32,
    #[serde(default)]
    ts: Option<i64>,
    #[serde(default)]
    recv: i64,
    #[serde(default, rename = "pub")]
    published: i64,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    bid: Option<String>,
    #[serde(default)]
    bid_size: Option<String>,
    #[serde(default)]
    ask: Option<String>,
    #[serde(default)]
    ask_size: Option<String>,
    #[serde(default)]
    bid_venue: Option<String>,
    #[serde(default)]
    ask_venue: Option<String>,
    #[serde(default)]
    price: Option<String>,
    #[serde(default)]
    size: Option<String>,
    #[serde(default)]
    side: Option<&'a str>,
    #[serde(default)]
    trade_id: Option<String>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    bids: Vec<(String, String)>,
    #[serde(default)]
    asks: Vec<(String, String)>,
    #[serde(default)]
    crc: u32,
    #[serde(default)]
    sum: u32,
    #[serde(default)]
    state: Option<&'a str>,
    #[serde(default)]
    integrity: Option<&'a str>,
    #[serde(default)]
    last_verified: Option<i64>,
}

/// Reads what an edge says to a reader.
pub fn read_message(json: &str) -> Result<Message, JsonError> {
    let head: Head<'_> = serde_json::from_str(json)?;
    if head.op.is_some() {
        return Ok(Message::Notice(serde_json::from_str::<Notice>(json)?));
    }
    Ok(Message::Event(Box::new(read_event(json)?)))
}

/// Reads messages from `{"events":[…],"notices":[…]}` of a long poll or a snapshot: `(cursor, messages)`.
pub fn read_poll(json: &str) -> Result<(String, Vec<Message>), JsonError> {
    #[derive(Deserialize)]
    struct Poll<'a> {
        cursor: String,
        #[serde(borrow, default)]
        events: Vec<&'a RawValue>,
        #[serde(borrow, default)]
        notices: Vec<&'a RawValue>,
    }
    let poll: Poll<'_> = serde_json::from_str(json)?;
    let all = poll.events.iter().chain(&poll.notices);
    let messages = all.map(|raw| read_message(raw.get())).collect::<Result<_, _>>()?;
    Ok((poll.cursor, messages))
}

fn read_event(json: &str) -> Result<Part, JsonError> {
    let w: Wire<'_> = serde_json::from_str(json)?;
    let topic: Topic = w.topic.parse().map_err(|_| JsonError::Value("topic"))?;
    let kind = Kind::from_name(w.kind).ok_or(JsonError::Value("kind"))?;
    let level = |price: &Option<String>, size: &Option<String>| -> Result<Option<Level>, JsonError> {
        let Some(price) = price else { return Ok(None) };
        let size = size.as_deref().map_or(Ok(Decimal::ZERO), decimal_of)?;
        Ok(Some(Level { price: decimal_of(price)?, size }))
    };
    let levels = |list: &[(String, String)]| -> Result<Vec<Level>, JsonError> {
        list.iter().map(|(p, s)| Ok(Level { price: decimal_of(p)?, size: decimal_of(s)? })).collect()
    };
    use ticker_market::Channel;
    let data = match topic.channel {
        _ if kind == Kind::Invalid => Data::Invalid(w.reason.unwrap_or_default().into()),
        Channel::Quote => Data::Quote(Quote {
            bid: level(&w.bid, &w.bid_size)?,
            ask: level(&w.ask, &w.ask_size)?,
            bid_venue: w.bid_venue.map(Into::into),
            ask_venue: w.ask_venue.map(Into::into),
        }),
        Channel::Trade => Data::Trade(Trade {
            price: w.price.as_deref().map_or(Ok(Decimal::ZERO), decimal_of)?,
            size: w.size.as_deref().map_or(Ok(Decimal::ZERO), decimal_of)?,
            side: match w.side {
                Some("buy") => Some(Side::Buy),
                Some("sell") => Some(Side::Sell),
                _ => None,
            },
            trade_id: w.trade_id.unwrap_or_default().into(),
            reference: w.reference.map(Into::into),
        }),
        Channel::Book | Channel::Book10 | Channel::Book50 => {
            Data::Book(Levels { bids: levels(&w.bids)?, asks: levels(&w.asks)?, crc: w.crc, sum: w.sum })
        }
        Channel::Status => Data::Status(Status {
            state: State::ALL.into_iter().find(|s| Some(s.as_str()) == w.state).unwrap_or(State::Live),
            integrity: Integrity::ALL.into_iter().find(|i| Some(i.as_str()) == w.integrity).unwrap_or(Integrity::None),
            reason: w.reason.map(Into::into),
            last_verified: w.last_verified.map(Time::from_micros),
        }),
        _ => return Err(JsonError::Value("a channel that this version does not know")),
    };
    let event = Event {
        topic: Arc::new(topic),
        seq: w.seq,
        prev: w.prev,
        kind,
        ts: w.ts.map(Time::from_micros),
        recv: Time::from_micros(w.recv),
        published: Time::from_micros(w.published),
        data,
    };
    Ok(Part { event, part: w.part, parts: w.parts, raw: Some(json.to_owned()) })
}

fn decimal_of(text: &str) -> Result<Decimal, JsonError> {
    decimal::parse(text).ok_or(JsonError::Value("a decimal"))
}
