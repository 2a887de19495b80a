//! Events as JSON: written by hand, since this is what an edge does for each event; read with serde.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{
    Bar, Channel, Data, Decimal, Event, Integrity, Kind, Level, Levels, Quote, Side, State, Stats, Status, Time, Topic,
    Trade, decimal,
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
        Data::Bar(b) => bar(out, b, fields),
        Data::Stats(s) => stats(out, s, fields),
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

fn numbers(out: &mut Vec<u8>, fields: Fields, list: &[(&str, Option<Decimal>)]) {
    for (name, value) in list.iter().filter(|(name, _)| fields.has(name)) {
        key(out, name);
        number(out, *value);
    }
}

fn trades(out: &mut Vec<u8>, trades: u64, fields: Fields) {
    if fields.has("trades") {
        key(out, "trades");
        integer(out, trades);
    }
}

fn bar(out: &mut Vec<u8>, b: &Bar, fields: Fields) {
    if fields.has("start") {
        key(out, "start");
        integer(out, b.start.micros());
    }
    let prices = [("open", Some(b.open)), ("high", Some(b.high)), ("low", Some(b.low)), ("close", Some(b.close))];
    numbers(out, fields, &prices);
    numbers(out, fields, &[("volume", Some(b.volume)), ("vwap", b.vwap)]);
    trades(out, b.trades, fields);
    // Always: it says whether this is a state or an event.
    out.extend_from_slice(if b.closed { b",\"closed\":true" } else { b",\"closed\":false".as_slice() });
}

fn stats(out: &mut Vec<u8>, s: &Stats, fields: Fields) {
    let prices = [("last", Some(s.last)), ("open", Some(s.open)), ("high", Some(s.high)), ("low", Some(s.low))];
    numbers(out, fields, &prices);
    let volumes = [("volume", Some(s.volume)), ("quote_volume", Some(s.quote_volume)), ("vwap", s.vwap)];
    numbers(out, fields, &volumes);
    numbers(out, fields, &[("change", Some(s.change)), ("change_pct", s.change_pct)]);
    trades(out, s.trades, fields);
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
    #[serde(default)]
    start: i64,
    #[serde(default)]
    open: Option<String>,
    #[serde(default)]
    high: Option<String>,
    #[serde(default)]
    low: Option<String>,
    #[serde(default)]
    close: Option<String>,
    #[serde(default)]
    volume: Option<String>,
    #[serde(default)]
    vwap: Option<String>,
    #[serde(default)]
    trades: u64,
    #[serde(default)]
    closed: bool,
    #[serde(default)]
    last: Option<String>,
    #[serde(default)]
    quote_volume: Option<String>,
    #[serde(default)]
    change: Option<String>,
    #[serde(default)]
    change_pct: Option<String>,
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
    let data = match topic.channel {
        _ if kind == Kind::Invalid => Data::Invalid(w.reason.unwrap_or_default().into()),
        Channel::Quote => Data::Quote(Quote {
            bid: level(&w.bid, &w.bid_size)?,
            ask: level(&w.ask, &w.ask_size)?,
            bid_venue: w.bid_venue.map(Into::into),
            ask_venue: w.ask_venue.map(Into::into),
        }),
        Channel::Trade => Data::Trade(Trade {
            price: decimal_or_zero(&w.price)?,
            size: decimal_or_zero(&w.size)?,
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
        Channel::Bar(_) => Data::Bar(Bar {
            start: Time::from_micros(w.start),
            open: decimal_or_zero(&w.open)?,
            high: decimal_or_zero(&w.high)?,
            low: decimal_or_zero(&w.low)?,
            close: decimal_or_zero(&w.close)?,
            volume: decimal_or_zero(&w.volume)?,
            vwap: w.vwap.as_deref().map(decimal_of).transpose()?,
            trades: w.trades,
            closed: w.closed,
        }),
        Channel::Stats => Data::Stats(Box::new(Stats {
            last: decimal_or_zero(&w.last)?,
            open: decimal_or_zero(&w.open)?,
            high: decimal_or_zero(&w.high)?,
            low: decimal_or_zero(&w.low)?,
            volume: decimal_or_zero(&w.volume)?,
            quote_volume: decimal_or_zero(&w.quote_volume)?,
            vwap: w.vwap.as_deref().map(decimal_of).transpose()?,
            change: decimal_or_zero(&w.change)?,
            change_pct: w.change_pct.as_deref().map(decimal_of).transpose()?,
            trades: w.trades,
        })),
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

/// What a reader's `fields` left out counts as 0.
fn decimal_or_zero(text: &Option<String>) -> Result<Decimal, JsonError> {
    text.as_deref().map_or(Ok(Decimal::ZERO), decimal_of)
}

fn decimal_of(text: &str) -> Result<Decimal, JsonError> {
    decimal::parse(text).ok_or(JsonError::Value("a decimal"))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use ticker_market::Interval;

    use super::*;
    use crate::{Form, Frame, convert, v1};

    fn event(channel: Channel, data: Data) -> Event {
        Event {
            topic: Arc::new(Topic::new(channel, "kraken", "BTC-USD").expect("valid")),
            seq: 9,
            prev: 7,
            kind: Kind::Update,
            ts: None,
            recv: Time(1_716_400_000_000_000_000),
            published: Time(1_716_400_000_000_001_000),
            data,
        }
    }

    fn number(text: &str) -> Decimal {
        decimal::parse(text).expect(text)
    }

    /// The event's JSON, after its head; both encodings have been read back.
    fn rest(event: Event) -> String {
        let frame = Frame::new(event.clone(), "k3f9".into());
        let text = String::from_utf8(frame.encoded(Form::Json).bytes.to_vec()).expect("text");
        let Message::Event(part) = read_message(&text).expect("reads back") else { panic!("an event") };
        assert_eq!(part.event, event);
        let wire = v1::SessionResponse::decode(frame.encoded(Form::Protobuf).bytes.clone()).expect("reads back");
        let Message::Event(part) = convert::message_from_wire(wire).expect("valid") else { panic!("an event") };
        assert_eq!(part.event, event);
        text.split_once(r#""pub":1716400000000001,"#).expect("a head").1.to_owned()
    }

    fn bar() -> Event {
        let bar = Bar {
            start: Time(1_716_399_960_000_000_000),
            open: number("67000.0"),
            high: number("67123.45"),
            low: number("66999.9"),
            close: number("67100"),
            volume: number("12.50"),
            vwap: Some(number("67050.25")),
            trades: 42,
            closed: true,
        };
        event(Channel::Bar(Interval::M1), Data::Bar(bar))
    }

    #[test]
    fn bars_and_statistics_have_the_contracts_fields() {
        assert_eq!(
            rest(bar()),
            r#""start":1716399960000000,"open":"67000","high":"67123.45","low":"66999.9","close":"67100","volume":"12.5","vwap":"67050.25","trades":42,"closed":true}"#
        );
        let stats = Stats {
            last: number("67100"),
            open: number("66000"),
            high: number("68000"),
            low: number("65000.5"),
            volume: number("1234.5"),
            quote_volume: number("82345678.9"),
            vwap: None,
            change: number("1100"),
            change_pct: Some(number("1.6667")),
            trades: 99,
        };
        assert_eq!(
            rest(event(Channel::Stats, Data::Stats(Box::new(stats)))),
            r#""last":"67100","open":"66000","high":"68000","low":"65000.5","volume":"1234.5","quote_volume":"82345678.9","vwap":null,"change":"1100","change_pct":"1.6667","trades":99}"#
        );
        let level = |p| Some(Level { price: number(p), size: number("1") });
        let (bid, ask) = (level("1"), level("2"));
        let quote = Quote { bid, ask, bid_venue: Some("kraken".into()), ask_venue: Some("coinbase".into()) };
        assert_eq!(
            rest(event(Channel::Quote, Data::Quote(quote))),
            r#""bid":"1","bid_size":"1","ask":"2","ask_size":"1","bid_venue":"kraken","ask_venue":"coinbase"}"#
        );
    }

    #[test]
    fn only_the_fields_of_a_bar_that_are_asked_for_are_kept() {
        let frame = Frame::new(bar(), "k3f9".into());
        let fields = Fields::of(&["start", "close"]).expect("known");
        let narrow = frame.narrowed(Form::Json, fields).expect("less");
        let head = r#"{"topic":"bar-1m/kraken/BTC-USD","seq":9,"prev":7,"kind":"update","#;
        let text = format!(r#"{head}"start":1716399960000000,"close":"67100","closed":true}}"#);
        assert_eq!(std::str::from_utf8(&narrow.bytes).expect("text"), text);
        let wire = frame.narrowed(Form::Protobuf, fields).expect("less");
        let wire = v1::SessionResponse::decode(wire.bytes).expect("reads back");
        let Message::Event(part) = convert::message_from_wire(wire).expect("valid") else { panic!("an event") };
        let Data::Bar(bar) = part.event.data else { panic!("a bar") };
        assert_eq!((bar.close, bar.open, bar.trades, bar.closed), (number("67100"), Decimal::ZERO, 0, true));
    }
}
