//! An event encoded once for each form, however many readers it goes to.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use prost::Message as _;
use ticker_market::{Data, Event, Level};

use crate::deflate::{DEFLATE_BYTES_MIN, deflated};
use crate::message::Notice;
use crate::{MESSAGE_BYTES_MAX, convert, json, v1};

/// The names that a reader's `fields` may keep, besides `topic`, `seq`, `prev` and `kind`, which always stay, as does the
/// `closed` of a bar.
const FIELD_NAMES: [&str; 31] = [
    "ts",
    "recv",
    "pub",
    "bid",
    "bid_size",
    "ask",
    "ask_size",
    "bid_venue",
    "ask_venue",
    "price",
    "size",
    "side",
    "trade_id",
    "ref",
    "state",
    "integrity",
    "reason",
    "last_verified",
    "start",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "vwap",
    "trades",
    "closed",
    "last",
    "quote_volume",
    "change",
    "change_pct",
];

// A place of its own for each in the mask, and one left over, so that all names together are not `Fields::ALL`.
const _: () = assert!(FIELD_NAMES.len() < u32::BITS as usize);

/// Which fields a reader keeps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fields(u32);

impl Fields {
    /// Every field.
    pub const ALL: Fields = Fields(u32::MAX);

    /// The fields of those names; `Err` with the first name that no event has.
    pub fn of<S: AsRef<str>>(names: &[S]) -> Result<Self, String> {
        let mut mask = 0;
        for name in names {
            let name = name.as_ref();
            match FIELD_NAMES.iter().position(|f| *f == name) {
                Some(at) => mask |= 1 << at,
                None if matches!(name, "topic" | "seq" | "prev" | "kind") => {}
                None => return Err(name.to_owned()),
            }
        }
        Ok(Self(mask))
    }

    /// Is this field kept?
    pub fn has(self, name: &str) -> bool {
        self == Self::ALL || FIELD_NAMES.iter().position(|f| *f == name).is_some_and(|at| self.0 & (1 << at) != 0)
    }
}

/// How a message is laid out on a transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// JSON alone.
    Json,
    /// JSON in an unmasked WebSocket text frame (RFC 6455 §5.2).
    WebSocketJson,
    /// A server-sent event with the cursor as its `id`.
    Sse,
    /// A server-sent event without `id`: it does not move the reader's cursor.
    SseNoId,
    /// JSON and a line feed.
    Ndjson,
    /// `ticker.v1.SessionResponse`, which has the same bytes as `SubscribeResponse`.
    Protobuf,
    /// The same in an unmasked WebSocket binary frame.
    WebSocketProtobuf,
    /// [`Form::WebSocketJson`] where permessage-deflate was agreed on: large messages are compressed.
    WebSocketJsonDeflate,
    /// [`Form::WebSocketProtobuf`], likewise.
    WebSocketProtobufDeflate,
}

/// Forms without compression.
const FORMS: usize = 7;

impl Form {
    /// For a form that compresses what is large: the same without, and its place among such forms.
    fn uncompressed(self) -> Option<(Form, usize)> {
        match self {
            Form::WebSocketJsonDeflate => Some((Form::WebSocketJson, 0)),
            Form::WebSocketProtobufDeflate => Some((Form::WebSocketProtobuf, 1)),
            _ => None,
        }
    }
}

/// One event or notice in one form: a message, or (for a large book) several, one after the other.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// All messages.
    pub bytes: Bytes,
    /// Where each message but the last ends; `None` where there is only one.
    ends: Option<Arc<[u32]>>,
    /// What all messages would take without compression, in bytes.
    uncompressed: u32,
    /// For this reader it goes by an unreliable way, if it fits there.
    pub by_datagram: bool,
}

impl Encoded {
    /// One message.
    pub fn one(bytes: Bytes) -> Self {
        let uncompressed = bytes.len();
        Self::compressed(bytes, Vec::new(), uncompressed)
    }

    /// Messages that end at `ends` (but for the last), and would take `uncompressed` bytes without compression.
    pub(crate) fn compressed(bytes: Bytes, ends: Vec<u32>, uncompressed: usize) -> Self {
        Self {
            bytes,
            ends: (!ends.is_empty()).then(|| ends.into()),
            uncompressed: uncompressed as u32,
            by_datagram: false,
        }
    }

    /// What all messages would take without compression, in bytes.
    pub fn uncompressed_bytes(&self) -> usize {
        self.uncompressed as usize
    }

    /// Is some message of it compressed?
    pub fn is_compressed(&self) -> bool {
        self.uncompressed_bytes() != self.bytes.len()
    }

    /// The messages one by one, for transports that keep message bounds themselves.
    pub fn messages(&self) -> impl Iterator<Item = Bytes> + '_ {
        let ends = self.ends.as_deref().unwrap_or_default();
        let starts = std::iter::once(0).chain(ends.iter().map(|e| *e as usize));
        let stops = ends.iter().map(|e| *e as usize).chain(std::iter::once(self.bytes.len()));
        starts.zip(stops).map(|(from, to)| self.bytes.slice(from..to))
    }
}

/// Narrowed encodings of one event, by the fields that are kept.
type Narrow = Mutex<Vec<(Fields, Form, Encoded)>>;

/// An event, and what it looks like in each form that some reader has asked for.
pub struct Frame {
    /// The event.
    pub event: Event,
    epoch: Arc<str>,
    forms: [OnceLock<Box<Encoded>>; FORMS],
    /// Few events are large enough.
    deflated: OnceLock<Box<[OnceLock<Encoded>; 2]>>,
    narrow: OnceLock<Box<Narrow>>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("event", &self.event).finish_non_exhaustive()
    }
}

impl Frame {
    /// A frame of that event, on the tape of that epoch.
    pub fn new(event: Event, epoch: Arc<str>) -> Self {
        Self { event, epoch, forms: Default::default(), deflated: OnceLock::new(), narrow: OnceLock::new() }
    }

    /// The epoch's name.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The event in a form; encoded when it is first asked for.
    pub fn encoded(&self, form: Form) -> &Encoded {
        let Some((form, at)) = form.uncompressed() else {
            return self.forms[form as usize]
                .get_or_init(|| Box::new(encode(&self.event, &self.epoch, form, Fields::ALL)));
        };
        let plain = self.encoded(form);
        if plain.bytes.len() < DEFLATE_BYTES_MIN {
            return plain;
        }
        self.deflated.get_or_init(Default::default)[at].get_or_init(|| deflated(plain))
    }

    /// The same with only some fields, if that is less. Books keep all of theirs.
    pub fn narrowed(&self, form: Form, fields: Fields) -> Option<Encoded> {
        if fields == Fields::ALL || matches!(self.event.data, Data::Book(_)) {
            return None;
        }
        // Only books are large.
        let form = form.uncompressed().map_or(form, |(plain, _)| plain);
        // A panic cannot leave the list half written, so a poisoned lock is as good as any.
        let mut list = self.narrow.get_or_init(Default::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, encoded)) = list.iter().find(|(f, o, _)| *f == fields && *o == form) {
            return Some(encoded.clone());
        }
        let encoded = encode(&self.event, &self.epoch, form, fields);
        if list.len() < NARROWED_MAX {
            list.push((fields, form, encoded.clone()));
        }
        Some(encoded)
    }
}

/// Narrowed encodings that one event keeps; more are made anew each time.
const NARROWED_MAX: usize = 16;

/// Room that the fields of a book event take besides its levels.
const BOOK_HEAD_BYTES: usize = 512;

/// Encodes a notice. Its cursor is its `id` in [`Form::Sse`]. It is never compressed: that would serve one reader only.
pub fn encode_notice(form: Form, notice: &Notice) -> Bytes {
    let form = form.uncompressed().map_or(form, |(plain, _)| plain);
    let mut out = Vec::with_capacity(160);
    let payload = match form {
        Form::Protobuf | Form::WebSocketProtobuf => notice.to_wire().encode_to_vec(),
        _ => notice.to_json(),
    };
    match form {
        Form::Sse | Form::SseNoId => {
            out.extend_from_slice(b"event: notice\n");
            if let Some(cursor) = notice.cursor().filter(|_| form == Form::Sse) {
                out.extend_from_slice(b"id: ");
                out.extend_from_slice(cursor.as_bytes());
                out.push(b'\n');
            }
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(&payload);
            out.extend_from_slice(b"\n\n");
        }
        _ => wrap(&mut out, form, &payload),
    }
    out.into()
}

fn encode(event: &Event, epoch: &str, form: Form, fields: Fields) -> Encoded {
    let chunks = chunks(event);
    let mut out = Vec::with_capacity(256);
    let mut ends = Vec::new();
    let mut payload = Vec::with_capacity(256);
    let parts = chunks.len().max(1) as u32;
    for i in 0..parts {
        let part = (parts > 1).then_some((i + 1, parts));
        let levels = chunks.get(i as usize).copied();
        payload.clear();
        match form {
            Form::Protobuf | Form::WebSocketProtobuf => protobuf(&mut payload, event, fields, part, levels),
            _ => json::write_event(&mut payload, event, fields, part, levels),
        }
        match form {
            // Only the last part moves the cursor: what is cut off before it must come again.
            Form::Sse if i + 1 == parts => {
                out.extend_from_slice(b"id: ");
                out.extend_from_slice(epoch.as_bytes());
                out.push(b'-');
                out.extend_from_slice(itoa::Buffer::new().format(event.seq).as_bytes());
                out.extend_from_slice(b"\ndata: ");
                out.extend_from_slice(&payload);
                out.extend_from_slice(b"\n\n");
            }
            _ => wrap(&mut out, form, &payload),
        }
        if i + 1 < parts {
            ends.push(out.len() as u32);
        }
    }
    out.shrink_to_fit();
    let uncompressed = out.len();
    Encoded::compressed(out.into(), ends, uncompressed)
}

fn wrap(out: &mut Vec<u8>, form: Form, payload: &[u8]) {
    match form {
        Form::Json | Form::Protobuf => out.extend_from_slice(payload),
        Form::Ndjson => {
            out.extend_from_slice(payload);
            out.push(b'\n');
        }
        Form::Sse | Form::SseNoId => {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(payload);
            out.extend_from_slice(b"\n\n");
        }
        Form::WebSocketJson | Form::WebSocketJsonDeflate => websocket_frame(out, 0x1, payload),
        Form::WebSocketProtobuf | Form::WebSocketProtobufDeflate => websocket_frame(out, 0x2, payload),
    }
}

/// Appends a whole, unmasked WebSocket frame (RFC 6455 §5.2): what a server sends. `opcode` may have reserved bits.
pub fn websocket_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        n @ 0..=125 => out.push(n as u8),
        n @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

type Chunk<'a> = (&'a [Level], &'a [Level]);

/// Cuts a book's levels so that no message is larger than [`MESSAGE_BYTES_MAX`]; empty where one message is enough.
fn chunks(event: &Event) -> Vec<Chunk<'_>> {
    let Data::Book(levels) = &event.data else { return Vec::new() };
    // The longest level there can be has two numbers of 31 characters.
    if (levels.bids.len() + levels.asks.len()) * 70 < MESSAGE_BYTES_MAX - BOOK_HEAD_BYTES {
        return Vec::new();
    }
    let mut scratch = Vec::with_capacity(64);
    let mut chunks: Vec<Chunk<'_>> = Vec::new();
    let (mut bids_from, mut asks_from, mut room) = (0, 0, MESSAGE_BYTES_MAX - BOOK_HEAD_BYTES);
    for (i, level) in levels.bids.iter().chain(&levels.asks).enumerate() {
        let bytes = json::level_bytes(level, &mut scratch);
        if bytes > room {
            let (bids_to, asks_to) = (i.min(levels.bids.len()), i.saturating_sub(levels.bids.len()));
            chunks.push((&levels.bids[bids_from..bids_to], &levels.asks[asks_from..asks_to]));
            (bids_from, asks_from, room) = (bids_to, asks_to, MESSAGE_BYTES_MAX - BOOK_HEAD_BYTES);
        }
        room -= bytes;
    }
    if chunks.is_empty() {
        return chunks;
    }
    chunks.push((&levels.bids[bids_from..], &levels.asks[asks_from..]));
    chunks
}

fn protobuf(out: &mut Vec<u8>, event: &Event, fields: Fields, part: Option<(u32, u32)>, levels: Option<Chunk<'_>>) {
    let mut wire = match levels {
        Some((bids, asks)) => {
            let Data::Book(all) = &event.data else { unreachable!("only books come in parts") };
            let part = Event {
                data: Data::Book(ticker_market::Levels { bids: bids.to_vec(), asks: asks.to_vec(), ..*all }),
                ..event.clone()
            };
            convert::event_to_wire(&part)
        }
        None => convert::event_to_wire(event),
    };
    wire.topic = event.topic.to_string();
    (wire.part, wire.parts) = part.unwrap_or((0, 0));
    if fields != Fields::ALL {
        narrow(&mut wire, fields);
    }
    let message = v1::SessionResponse { message: Some(v1::session_response::Message::Event(wire)) };
    message.encode(out).expect("a vector has room");
}

/// Leaves out what the reader does not keep: on the wire an absent field and its default are one.
fn narrow(wire: &mut v1::Event, fields: Fields) {
    use v1::event::Data as D;
    fn keep<T: Default>(fields: Fields, name: &str, value: &mut T) {
        if !fields.has(name) {
            *value = T::default();
        }
    }
    keep(fields, "ts", &mut wire.ts);
    keep(fields, "recv", &mut wire.recv);
    keep(fields, "pub", &mut wire.r#pub);
    keep(fields, "reason", &mut wire.reason);
    match &mut wire.data {
        Some(D::Quote(q)) => {
            keep(fields, "bid", &mut q.bid);
            keep(fields, "bid_size", &mut q.bid_size);
            keep(fields, "ask", &mut q.ask);
            keep(fields, "ask_size", &mut q.ask_size);
            keep(fields, "bid_venue", &mut q.bid_venue);
            keep(fields, "ask_venue", &mut q.ask_venue);
        }
        Some(D::Trade(t)) => {
            keep(fields, "price", &mut t.price);
            keep(fields, "size", &mut t.size);
            keep(fields, "side", &mut t.side);
            keep(fields, "trade_id", &mut t.trade_id);
            keep(fields, "ref", &mut t.r#ref);
        }
        Some(D::Status(s)) => {
            keep(fields, "state", &mut s.state);
            keep(fields, "integrity", &mut s.integrity);
            keep(fields, "reason", &mut s.reason);
            keep(fields, "last_verified", &mut s.last_verified);
        }
        Some(D::Bar(b)) => {
            keep(fields, "start", &mut b.start);
            keep(fields, "open", &mut b.open);
            keep(fields, "high", &mut b.high);
            keep(fields, "low", &mut b.low);
            keep(fields, "close", &mut b.close);
            keep(fields, "volume", &mut b.volume);
            keep(fields, "vwap", &mut b.vwap);
            // `closed` stays: it says whether this is a state or an event.
            keep(fields, "trades", &mut b.trades);
        }
        Some(D::Stats(s)) => {
            keep(fields, "last", &mut s.last);
            keep(fields, "open", &mut s.open);
            keep(fields, "high", &mut s.high);
            keep(fields, "low", &mut s.low);
            keep(fields, "volume", &mut s.volume);
            keep(fields, "quote_volume", &mut s.quote_volume);
            keep(fields, "vwap", &mut s.vwap);
            keep(fields, "change", &mut s.change);
            keep(fields, "change_pct", &mut s.change_pct);
            keep(fields, "trades", &mut s.trades);
        }
        Some(D::Book(_)) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use ticker_market::{Book, Channel, Decimal, Kind, Levels, Quote, Time, Topic, decimal};

    fn quote() -> Event {
        let level = |p, s| Some(Level { price: decimal::parse(p).expect(p), size: decimal::parse(s).expect(s) });
        Event {
            topic: Arc::new(Topic::new(Channel::Quote, "coinbase", "BTC-USD").expect("valid")),
            seq: 184467,
            prev: 184460,
            kind: Kind::Update,
            ts: Some(Time(1716400000123456789)),
            recv: Time(1716400000125001000),
            published: Time(1716400000125042999),
            data: Data::Quote(Quote {
                bid: level("67123.450", "0.523"),
                ask: level("67123.46", "1.2042"),
                ..Quote::default()
            }),
        }
    }

    fn book(levels: usize) -> Event {
        let side = |sign: i64| {
            (0..levels as i64)
                .map(|i| Level { price: Decimal::new(5_000_000 + sign * (i + 1), 2), size: Decimal::new(i + 1, 8) })
                .collect()
        };
        let mut book = Book::new();
        book.replace(&Levels { bids: side(-1), asks: side(1), ..Levels::default() }).expect("fits");
        let topic = Arc::new(Topic::new(Channel::Book, "coinbase", "BTC-USD").expect("valid"));
        Event { topic, kind: Kind::Snapshot, prev: 0, data: Data::Book(book.to_levels()), ..quote() }
    }

    #[test]
    fn json_is_the_contracts_to_the_letter() {
        let frame = Frame::new(quote(), "k3f9".into());
        assert_eq!(
            std::str::from_utf8(&frame.encoded(Form::Json).bytes).expect("text"),
            r#"{"topic":"quote/coinbase/BTC-USD","seq":184467,"prev":184460,"kind":"update","ts":1716400000123456,"recv":1716400000125001,"pub":1716400000125042,"bid":"67123.45","bid_size":"0.523","ask":"67123.46","ask_size":"1.2042"}"#
        );
        let narrow = frame.narrowed(Form::Json, Fields::of(&["bid", "ask"]).expect("known")).expect("less");
        assert_eq!(
            std::str::from_utf8(&narrow.bytes).expect("text"),
            r#"{"topic":"quote/coinbase/BTC-USD","seq":184467,"prev":184460,"kind":"update","bid":"67123.45","ask":"67123.46"}"#
        );
        assert_eq!(Fields::of(&["bdi"]), Err("bdi".to_owned()));
    }

    #[test]
    fn every_form_carries_the_same_event() {
        let frame = Frame::new(quote(), "k3f9".into());
        let text = |form| String::from_utf8(frame.encoded(form).bytes.to_vec()).expect("text");
        let json = text(Form::Json);
        assert_eq!(text(Form::Ndjson), format!("{json}\n"));
        assert_eq!(text(Form::Sse), format!("id: k3f9-184467\ndata: {json}\n\n"));
        assert_eq!(text(Form::SseNoId), format!("data: {json}\n\n"));
        let ws = &frame.encoded(Form::WebSocketJson).bytes;
        assert_eq!((ws[0], ws[1], &ws[4..]), (0x81, 126, json.as_bytes()));
        let Message::Event(part) = json::read_message(&json).expect("reads back") else { panic!("an event") };
        let wire = v1::SessionResponse::decode(frame.encoded(Form::Protobuf).bytes.clone()).expect("reads back");
        let Message::Event(proto) = convert::message_from_wire(wire).expect("valid") else { panic!("an event") };
        assert_eq!(proto.event, quote());
        assert_eq!(part.event.data, proto.event.data);
    }

    #[test]
    fn a_large_event_is_compressed_once_and_a_small_one_is_shared() {
        let small = Frame::new(quote(), "k3f9".into());
        let deflate = small.encoded(Form::WebSocketJsonDeflate);
        assert!(std::ptr::eq(deflate, small.encoded(Form::WebSocketJson)));
        let narrow = small.narrowed(Form::WebSocketJsonDeflate, Fields::of(&["bid"]).expect("known")).expect("less");
        assert!(!narrow.is_compressed());
        let large = Frame::new(book(5_000), "k3f9".into());
        for (form, plain) in [
            (Form::WebSocketJsonDeflate, Form::WebSocketJson),
            (Form::WebSocketProtobufDeflate, Form::WebSocketProtobuf),
        ] {
            let (deflate, plain) = (large.encoded(form), large.encoded(plain));
            assert!(deflate.is_compressed() && deflate.bytes.len() * 2 < plain.bytes.len());
            assert!(std::ptr::eq(deflate, large.encoded(form)));
            assert_eq!(deflate.messages().count(), plain.messages().count());
            assert!(deflate.messages().all(|m| m[0] & 0x40 != 0));
        }
        let notice = encode_notice(Form::WebSocketJsonDeflate, &Notice::Pong { id: 5 });
        assert_eq!(notice, encode_notice(Form::WebSocketJson, &Notice::Pong { id: 5 }));
    }

    #[test]
    fn a_large_book_comes_in_parts_that_add_up() {
        let event = book(5_000);
        let frame = Frame::new(event.clone(), "k3f9".into());
        for form in [Form::Json, Form::Protobuf, Form::WebSocketJson] {
            let messages: Vec<Bytes> = frame.encoded(form).messages().collect();
            assert!(messages.len() > 3);
            assert!(messages.iter().all(|m| m.len() <= MESSAGE_BYTES_MAX), "{form:?}");
        }
        let mut levels = Levels::default();
        let messages: Vec<Bytes> = frame.encoded(Form::Json).messages().collect();
        for (i, message) in messages.iter().enumerate() {
            let text = std::str::from_utf8(message).expect("text");
            let Message::Event(part) = json::read_message(text).expect("reads back") else { panic!("an event") };
            assert_eq!((part.part as usize, part.parts as usize), (i + 1, messages.len()));
            let Data::Book(some) = part.event.data else { panic!("a book") };
            levels.bids.extend(some.bids);
            levels.asks.extend(some.asks);
            (levels.crc, levels.sum) = (some.crc, some.sum);
        }
        assert_eq!(Data::Book(levels), event.data);
        let sse = String::from_utf8(frame.encoded(Form::Sse).bytes.to_vec()).expect("text");
        assert_eq!(sse.matches("id: ").count(), 1);
    }

    #[test]
    fn a_small_book_is_one_message_without_part() {
        let frame = Frame::new(book(10), "k3f9".into());
        assert_eq!(frame.encoded(Form::Json).messages().count(), 1);
        assert!(!String::from_utf8_lossy(&frame.encoded(Form::Json).bytes).contains("part"));
    }

    #[test]
    fn fields_are_left_out_of_protobuf_too() {
        let fields = Fields::of(&["bid", "recv"]).expect("names");
        let frame = Frame::new(quote(), "e".into());
        let bytes = frame.narrowed(Form::Protobuf, fields).expect("less").bytes;
        let wire = v1::SessionResponse::decode(bytes).expect("protobuf");
        let Some(v1::session_response::Message::Event(event)) = &wire.message else { panic!("an event") };
        let Some(v1::event::Data::Quote(q)) = &event.data else { panic!("a quote") };
        assert_eq!((q.bid.as_deref(), &q.bid_size, &q.ask, &q.ask_size), (Some("67123.45"), &None, &None, &None));
        assert_eq!((event.seq, event.ts, event.r#pub), (184467, 0, 0));
        assert_ne!(event.recv, 0);
        // A reader of ours takes it, as it takes the JSON.
        let Message::Event(part) = convert::message_from_wire(wire).expect("readable") else { panic!("an event") };
        let Data::Quote(q) = part.event.data else { panic!("a quote") };
        assert_eq!((q.bid.map(|l| l.size), q.ask), (Some(Decimal::ZERO), None));
    }
}
