//! What comes from the server, read with as little work as can be: the generator shares the machine with what it measures.
//! Frames are cut, events counted, and of each event only `kind` and `pub` are read.

use crate::histogram::Histogram;

/// What becomes of what is cut from the bytes.
pub(crate) trait Sink {
    /// So many bytes came.
    fn bytes(&mut self, count: usize);
    /// One object, many lines, or the answer of a poll. `now` is in microseconds.
    fn json(&mut self, text: &[u8], now: i64);
    /// A `ticker.v1.SubscribeResponse`.
    fn protobuf(&mut self, message: &[u8], now: i64);
}

/// What all readers have received.
pub(crate) struct Tally {
    pub(crate) events: u64,
    pub(crate) snapshots: u64,
    pub(crate) bytes: u64,
    pub(crate) latency: Histogram,
    kind: memchr::memmem::Finder<'static>,
    published: memchr::memmem::Finder<'static>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            events: 0,
            snapshots: 0,
            bytes: 0,
            latency: Histogram::new(),
            kind: memchr::memmem::Finder::new(b"\"kind\":\""),
            published: memchr::memmem::Finder::new(b"\"pub\":"),
        }
    }

    /// `published` and `now` are microseconds. Snapshots tell of earlier events, so their age is no latency.
    fn count(&mut self, snapshot: bool, published: i64, now: i64) {
        if snapshot {
            self.snapshots += 1;
        } else {
            self.events += 1;
            self.latency.record(u64::try_from(now - published).unwrap_or(0));
        }
    }
}

impl Sink for Tally {
    fn bytes(&mut self, count: usize) {
        self.bytes += count as u64;
    }

    /// Counts the events in that JSON: one object, many lines, or the answer of a poll.
    fn json(&mut self, mut text: &[u8], now: i64) {
        while let Some(at) = self.kind.find(text) {
            text = &text[at + 8..];
            let snapshot = text.first() == Some(&b's');
            let Some(at) = self.published.find(text) else { return };
            text = &text[at + 6..];
            self.count(snapshot, number(text), now);
        }
    }

    /// Counts the event in a `ticker.v1.SubscribeResponse`.
    fn protobuf(&mut self, message: &[u8], now: i64) {
        // Field 1 is the event; anything else is a notice.
        let Some((0x0a, rest)) = message.split_first().map(|(tag, rest)| (*tag, rest)) else { return };
        let mut rest = rest;
        varint(&mut rest);
        let (mut kind, mut published) = (0, 0);
        while let Some((tag, after)) = rest.split_first() {
            rest = after;
            match tag & 7 {
                0 => {
                    let value = varint(&mut rest);
                    match tag >> 3 {
                        4 => kind = value,
                        7 => published = value as i64,
                        _ => {}
                    }
                }
                2 if tag >> 3 == 1 => {
                    let length = varint(&mut rest) as usize;
                    rest = rest.get(length..).unwrap_or_default();
                }
                // What follows the times is not of interest.
                _ => break,
            }
        }
        self.count(kind == 2, published / 1_000, now);
    }
}

/// The digits at the beginning.
pub(crate) fn number(text: &[u8]) -> i64 {
    let digits = text.iter().take_while(|c| c.is_ascii_digit());
    digits.fold(0i64, |n, c| n.wrapping_mul(10).wrapping_add(i64::from(c - b'0')))
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { return value };
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// How bytes become events on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    Ws,
    Sse,
    Poll,
    Grpc,
}

/// One connection's reader: what is left of the last bytes, and what is to be answered.
pub(crate) struct Parser {
    over: Over,
    head: bool,
    body: Body,
    /// Bytes of a frame, chunk or head that is not whole yet.
    left: Vec<u8>,
    /// Bytes of a line or message that is not whole yet, below chunks or HTTP/2 frames.
    inner: Vec<u8>,
    /// What must be written: pongs, acknowledgements.
    pub(crate) reply: Vec<u8>,
    /// Something came that shows that the subscription was accepted.
    pub(crate) joined: bool,
    /// A poll was answered, with this cursor.
    pub(crate) polled: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Body {
    UntilClose,
    Chunked,
    Length(usize),
}

type Used = Result<usize, String>;

impl Parser {
    pub(crate) fn new(over: Over) -> Self {
        Self {
            over,
            // HTTP/2 has frames from its first byte.
            head: over != Over::Grpc,
            body: Body::UntilClose,
            left: Vec::new(),
            inner: Vec::new(),
            reply: Vec::new(),
            joined: false,
            polled: None,
        }
    }

    /// The server has accepted the request.
    #[allow(dead_code, reason = "the comparison, which shares this file, waits for it")]
    pub(crate) fn is_open(&self) -> bool {
        !self.head
    }

    /// Takes bytes as they came.
    pub(crate) fn feed(&mut self, bytes: &[u8], now: i64, tally: &mut impl Sink) -> Result<(), String> {
        tally.bytes(bytes.len());
        // Most reads end at the end of a frame: then nothing is copied.
        let mut kept = std::mem::take(&mut self.left);
        if kept.is_empty() {
            let used = self.all(bytes, now, tally)?;
            self.left.extend_from_slice(&bytes[used..]);
        } else {
            kept.extend_from_slice(bytes);
            let used = self.all(&kept, now, tally)?;
            kept.drain(..used);
            self.left = kept;
        }
        Ok(())
    }

    fn all(&mut self, bytes: &[u8], now: i64, tally: &mut impl Sink) -> Used {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let step = match (self.head, self.over) {
                (true, _) => self.take_head(rest)?,
                (_, Over::Ws) => self.websocket(rest, now, tally)?,
                (_, Over::Grpc) => self.http2(rest, now, tally)?,
                (_, Over::Sse) => self.stream(rest, now, tally)?,
                (_, Over::Poll) => self.answer(rest, now, tally)?,
            };
            if step == 0 {
                return Ok(used);
            }
            used += step;
        }
    }

    fn take_head(&mut self, bytes: &[u8]) -> Used {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.get(9..12).unwrap_or_default();
        let expected = if self.over == Over::Ws { "101" } else { "200" };
        if status != expected {
            let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
            return Err(format!("HTTP status {status}: {body}"));
        }
        let header = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        self.body = match header("content-length:").and_then(|v| v.parse().ok()) {
            Some(length) => Body::Length(length),
            None if header("transfer-encoding:") == Some("chunked") => Body::Chunked,
            None => Body::UntilClose,
        };
        self.head = false;
        Ok(end + 4)
    }

    fn websocket(&mut self, bytes: &[u8], now: i64, tally: &mut impl Sink) -> Used {
        let [first, second, ..] = *bytes else { return Ok(0) };
        let (start, length) = match (second, bytes) {
            (126, [_, _, a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            (127, [_, _, long @ ..]) if long.len() >= 8 => {
                let long: [u8; 8] = long[..8].try_into().expect("eight bytes were counted");
                (10, u64::from_be_bytes(long) as usize)
            }
            (126.., _) => return Ok(0),
            (n, _) => (2, usize::from(n)),
        };
        let Some(payload) = bytes.get(start..start + length) else { return Ok(0) };
        match first & 0x0f {
            8 => return Err(format!("closed: {}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default()))),
            9 => {
                // A client's frames are masked (RFC 6455 §5.3); a mask of zeros leaves the payload as it is.
                self.reply.extend_from_slice(&[0x8a, 0x80 | length as u8, 0, 0, 0, 0]);
                self.reply.extend_from_slice(payload);
            }
            1 | 2 => {
                if memchr::memmem::find(payload, b"\"op\":\"error\"").is_some() {
                    return Err(String::from_utf8_lossy(payload).into_owned());
                }
                self.joined = true;
                tally.json(payload, now);
            }
            _ => {}
        }
        Ok(start + length)
    }

    fn stream(&mut self, bytes: &[u8], now: i64, tally: &mut impl Sink) -> Used {
        self.joined = true;
        match self.body {
            Body::Chunked => {
                let Some((data, used)) = chunk(bytes)? else { return Ok(0) };
                if data.is_empty() {
                    return Err("the server ended the stream".to_owned());
                }
                self.lines(data, now, tally);
                Ok(used)
            }
            _ => {
                self.lines(bytes, now, tally);
                Ok(bytes.len())
            }
        }
    }

    fn lines(&mut self, data: &[u8], now: i64, tally: &mut impl Sink) {
        let Some(end) = memchr::memrchr(b'\n', data) else { return self.inner.extend_from_slice(data) };
        if self.inner.is_empty() {
            tally.json(&data[..end], now);
        } else {
            self.inner.extend_from_slice(&data[..end]);
            tally.json(&self.inner, now);
            self.inner.clear();
        }
        self.inner.extend_from_slice(&data[end + 1..]);
    }

    fn answer(&mut self, bytes: &[u8], now: i64, tally: &mut impl Sink) -> Used {
        let used = match self.body {
            Body::Length(length) => {
                let Some(body) = bytes.get(..length) else { return Ok(0) };
                self.inner.extend_from_slice(body);
                length
            }
            Body::Chunked => {
                let Some((data, used)) = chunk(bytes)? else { return Ok(0) };
                self.inner.extend_from_slice(data);
                if !data.is_empty() {
                    return Ok(used);
                }
                used
            }
            Body::UntilClose => return Err("an answer without a length".to_owned()),
        };
        tally.json(&self.inner, now);
        let cursor = memchr::memmem::find(&self.inner, b"\"cursor\":\"").map(|at| &self.inner[at + 10..]);
        let cursor = cursor.and_then(|c| Some(&c[..memchr::memchr(b'"', c)?]));
        self.polled = Some(String::from_utf8_lossy(cursor.ok_or("an answer without a cursor")?).into_owned());
        self.inner.clear();
        self.joined = true;
        self.head = true;
        // An empty body would look like no progress.
        Ok(used.max(1))
    }

    /// One HTTP/2 frame (RFC 9113 §4.1).
    fn http2(&mut self, bytes: &[u8], now: i64, tally: &mut impl Sink) -> Used {
        let Some(header) = bytes.get(..9) else { return Ok(0) };
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let Some(payload) = bytes.get(9..9 + length) else { return Ok(0) };
        let (kind, flags) = (header[3], header[4]);
        match kind {
            // DATA: no padding is ever sent by gRPC servers.
            0 => {
                self.inner.extend_from_slice(payload);
                let inner = std::mem::take(&mut self.inner);
                let mut rest = inner.as_slice();
                while let [_, a, b, c, d, after @ ..] = rest {
                    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                    let Some(message) = after.get(..length) else { break };
                    tally.protobuf(message, now);
                    rest = &after[length..];
                }
                self.inner = rest.to_vec();
                self.joined = true;
            }
            // HEADERS that end the stream carry the status.
            1 if flags & 1 != 0 => {
                return Err(format!("the stream ended: {}", String::from_utf8_lossy(payload).escape_default()));
            }
            3 | 7 => return Err(format!("the connection ended (HTTP/2 frame {kind})")),
            4 if flags & 1 == 0 => self.reply.extend_from_slice(&[0, 0, 0, 4, 1, 0, 0, 0, 0]),
            6 if flags & 1 == 0 => {
                self.reply.extend_from_slice(&[0, 0, 8, 6, 1, 0, 0, 0, 0]);
                self.reply.extend_from_slice(payload);
            }
            _ => {}
        }
        Ok(9 + length)
    }
}

/// One chunk (RFC 9112 §7.1) and the bytes that it took; `None` if it is not whole yet.
fn chunk(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, String> {
    let Some(line) = memchr::memmem::find(bytes, b"\r\n") else { return Ok(None) };
    let digits = bytes[..line].iter().take_while(|c| c.is_ascii_hexdigit()).count();
    let size = std::str::from_utf8(&bytes[..digits]).ok().and_then(|d| usize::from_str_radix(d, 16).ok());
    let size = size.ok_or("a chunk without a size")?;
    let start = line + 2;
    Ok(bytes.get(start..start + size + 2).map(|data| (&data[..size], start + size + 2)))
}

/// The bytes with which a reader begins.
pub(crate) fn request(over: Over, authority: &str, topics: &[String]) -> Vec<u8> {
    let joined = topics.join(",");
    let get = |path: String, more: &str| format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n{more}\r\n").into_bytes();
    match over {
        Over::Ws => get(
            format!("/v1/ws?topics={joined}"),
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
        Over::Sse => get(format!("/v1/stream?topics={joined}"), "accept: text/event-stream\r\n"),
        Over::Poll => get(format!("/v1/poll?topics={joined}"), ""),
        Over::Grpc => grpc(authority, topics),
    }
}

/// The next poll.
pub(crate) fn poll_again(authority: &str, topics: &[String], cursor: &str) -> Vec<u8> {
    let joined = topics.join(",");
    format!("GET /v1/poll?topics={joined}&cursor={cursor}&wait=25 HTTP/1.1\r\nhost: {authority}\r\n\r\n").into_bytes()
}

/// An HTTP/2 connection with one call: preface, windows so large that no update is needed, HEADERS in plain HPACK
/// (RFC 7541 §6.2.2), and the request.
fn grpc(authority: &str, topics: &[String]) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    }
    fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[kind, flags, 0, 0, 0, stream]);
        out.extend_from_slice(payload);
    }
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE, then the connection's window.
    frame(&mut out, 4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    frame(&mut out, 8, 0, 0, &(0x7fff_ffffu32 - 65_535).to_be_bytes());
    // :method POST, :scheme http, then :path, :authority, content-type by the static table's names.
    let mut headers = vec![0x83, 0x86, 0x04];
    text(&mut headers, "/ticker.v1.MarketData/Subscribe");
    headers.push(0x01);
    text(&mut headers, authority);
    headers.extend_from_slice(&[0x0f, 0x10]);
    text(&mut headers, "application/grpc");
    headers.push(0x00);
    text(&mut headers, "te");
    text(&mut headers, "trailers");
    frame(&mut out, 1, 0x4, 1, &headers);
    let mut message = Vec::new();
    for topic in topics {
        // Field 1, and a length below 128: topics are no longer than that.
        message.push(0x0a);
        if topic.len() == 128 {
            message.extend_from_slice(&[0x80, 0x01]);
        } else {
            message.push(topic.len() as u8);
        }
        message.extend_from_slice(topic.as_bytes());
    }
    let mut data = vec![0];
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.extend_from_slice(&message);
    frame(&mut out, 0, 1, 1, &data);
    out
}
