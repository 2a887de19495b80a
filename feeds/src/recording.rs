//! mdrec/1, the format of raw recordings, and the player that feeds one to an adapter. Without I/O: the caller reads and
//! writes lines, compresses them, and knows their numbers.
//!
//! The first line is a header (`{"t":"header","format":"mdrec/1","venue":…}`), then comes one JSON object a line in the
//! order of the local clock: `t` is one of `connect`, `disconnect`, `send`, `recv`, `http`; `ts` the local clock in
//! nanoseconds since the Unix epoch (0: not recorded); `conn` names the connection; the frame itself is verbatim in
//! `data`, or in `b64` where it is binary.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use ticker_market::Time;

use crate::{Adapter, Conn, Out};

/// The format's name in a header.
pub const FORMAT: &str = "mdrec/1";

/// Connections in one recording, at most; frames of more are refused.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Why a line could not be read. The caller knows the line's number.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not a JSON object with the fields of the format.
    #[error("not a line of {FORMAT}: {0}")]
    Json(#[from] serde_json::Error),
    /// A kind of line that the format does not have.
    #[error("unknown kind of line `{0}`")]
    Kind(String),
    /// A header of another format.
    #[error("the format is `{0}`, expected `{FORMAT}`")]
    Format(String),
    /// A field that this kind of line needs is missing.
    #[error("a line of kind `{kind}` without `{field}`")]
    Missing {
        /// The line's kind.
        kind: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// `b64` that is no Base64.
    #[error("`b64` is not Base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// More connections than [`CONNECTIONS_MAX`].
    #[error("more than {CONNECTIONS_MAX} connections")]
    TooManyConnections,
}

/// A frame as it was on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// A text frame.
    Text(Cow<'a, str>),
    /// A binary frame.
    Binary(Cow<'a, [u8]>),
}

impl Payload<'_> {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::Text(text) => text.as_bytes(),
            Payload::Binary(bytes) => bytes,
        }
    }
}

/// One line of a recording. A time of `None` was not recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// The first line: whose frames these are.
    Header {
        /// The venue, as recordings name it (`kraken-v2`).
        venue: Cow<'a, str>,
        /// What a reader should know.
        note: Option<Cow<'a, str>>,
    },
    /// A connection was opened.
    Connect {
        /// When.
        ts: Option<Time>,
        /// The connection's name.
        conn: Cow<'a, str>,
        /// Where to.
        url: Cow<'a, str>,
    },
    /// A connection is gone.
    Disconnect {
        /// When.
        ts: Option<Time>,
        /// The connection's name.
        conn: Cow<'a, str>,
        /// Why, as a short stable word.
        reason: Option<Cow<'a, str>>,
    },
    /// A frame that we sent.
    Send {
        /// When.
        ts: Option<Time>,
        /// The connection's name.
        conn: Cow<'a, str>,
        /// The frame.
        data: Payload<'a>,
    },
    /// A frame that we received.
    Recv {
        /// When.
        ts: Option<Time>,
        /// The connection's name.
        conn: Cow<'a, str>,
        /// The frame.
        data: Payload<'a>,
    },
    /// A REST answer.
    Http {
        /// When it was received.
        ts: Option<Time>,
        /// The connection's name.
        conn: Cow<'a, str>,
        /// What was asked for.
        url: Cow<'a, str>,
        /// The body.
        data: Payload<'a>,
    },
}

#[derive(Serialize, Deserialize, Default)]
struct Fields<'a> {
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    format: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    venue: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    note: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ts: Option<i64>,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    conn: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    url: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    reason: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    b64: Option<String>,
}

/// Text that borrows where the line holds it without escapes; an `Option<Cow<str>>` alone would never borrow.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

impl<'a> Line<'a> {
    /// Reads a line, with or without its line feed.
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let fields: Fields<'a> = serde_json::from_slice(line)?;
        let ts = fields.ts.filter(|ts| *ts != 0).map(Time);
        let conn = fields.conn;
        let filled = |text: Cow<'a, str>| (!text.is_empty()).then_some(text);
        let payload = |kind| match (fields.data, fields.b64) {
            (Some(Text(text)), _) => Ok(Payload::Text(text)),
            (None, Some(text)) => Ok(Payload::Binary(Cow::Owned(STANDARD.decode(text)?))),
            (None, None) => Err(LineError::Missing { kind, field: "data" }),
        };
        match &*fields.t {
            "header" if fields.format != FORMAT => Err(LineError::Format(fields.format.chars().take(64).collect())),
            "header" => Ok(Line::Header { venue: fields.venue, note: filled(fields.note) }),
            "connect" => Ok(Line::Connect { ts, conn, url: fields.url }),
            "disconnect" => Ok(Line::Disconnect { ts, conn, reason: filled(fields.reason) }),
            "send" => Ok(Line::Send { ts, conn, data: payload("send")? }),
            "recv" => Ok(Line::Recv { ts, conn, data: payload("recv")? }),
            "http" => Ok(Line::Http { ts, conn, url: fields.url, data: payload("http")? }),
            other => Err(LineError::Kind(other.chars().take(64).collect())),
        }
    }

    /// Appends the line, with its line feed.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::default();
        let place = |fields: &mut Fields<'_>, t: &'static str, ts: &Option<Time>| {
            fields.t = Cow::Borrowed(t);
            fields.ts = Some(ts.map_or(0, |ts| ts.0));
        };
        let carry = |fields: &mut Fields<'a>, data: &Payload<'a>| match data {
            Payload::Text(text) => fields.data = Some(Text(text.clone())),
            Payload::Binary(bytes) => fields.b64 = Some(STANDARD.encode(bytes)),
        };
        match self {
            Line::Header { venue, note } => {
                fields.t = Cow::Borrowed("header");
                fields.format = Cow::Borrowed(FORMAT);
                fields.venue = venue.clone();
                fields.note = note.clone().unwrap_or_default();
            }
            Line::Connect { ts, conn, url } => {
                place(&mut fields, "connect", ts);
                fields.conn = conn.clone();
                fields.url = url.clone();
            }
            Line::Disconnect { ts, conn, reason } => {
                place(&mut fields, "disconnect", ts);
                fields.conn = conn.clone();
                fields.reason = reason.clone().unwrap_or_default();
            }
            Line::Send { ts, conn, data } => {
                place(&mut fields, "send", ts);
                fields.conn = conn.clone();
                carry(&mut fields, data);
            }
            Line::Recv { ts, conn, data } => {
                place(&mut fields, "recv", ts);
                fields.conn = conn.clone();
                carry(&mut fields, data);
            }
            Line::Http { ts, conn, url, data } => {
                place(&mut fields, "http", ts);
                fields.conn = conn.clone();
                fields.url = url.clone();
                carry(&mut fields, data);
            }
        }
        serde_json::to_writer(&mut *out, &fields).expect("strings and numbers always make JSON, and a Vec takes it");
        out.push(b'\n');
    }

    /// When it happened, by the local clock of the recording.
    pub fn ts(&self) -> Option<Time> {
        match self {
            Line::Header { .. } => None,
            Line::Connect { ts, .. }
            | Line::Disconnect { ts, .. }
            | Line::Send { ts, .. }
            | Line::Recv { ts, .. }
            | Line::Http { ts, .. } => *ts,
        }
    }
}

/// Feeds the lines of a recording to an adapter. What the adapter asks for ([`Out::commands`]) cannot be done in a
/// replay: the recording holds whatever was answered on its day.
pub struct Player {
    adapter: Box<dyn Adapter>,
    conns: HashMap<String, Conn>,
    opened: u32,
}

impl Player {
    /// Plays to that adapter.
    pub fn new(adapter: Box<dyn Adapter>) -> Self {
        Self { adapter, conns: HashMap::new(), opened: 0 }
    }

    /// The adapter.
    pub fn adapter(&self) -> &dyn Adapter {
        self.adapter.as_ref()
    }

    /// The adapter, to call its timer or end it.
    pub fn adapter_mut(&mut self) -> &mut dyn Adapter {
        self.adapter.as_mut()
    }

    /// Feeds one line. `at` is when it happens for the adapter: [`Line::ts`], or whatever the caller makes of it where
    /// none was recorded or times are shifted.
    pub fn feed(&mut self, line: &Line<'_>, at: Time, out: &mut Out) -> Result<(), LineError> {
        match line {
            Line::Header { .. } | Line::Send { .. } => {}
            Line::Connect { conn, url, .. } => {
                if let Some(old) = self.conns.remove(&**conn) {
                    self.adapter.closed(old, "reconnected", at, out);
                }
                self.open(conn, url, at, out)?;
            }
            Line::Disconnect { conn, reason, .. } => {
                if let Some(old) = self.conns.remove(&**conn) {
                    self.adapter.closed(old, reason.as_deref().unwrap_or("closed"), at, out);
                }
            }
            Line::Recv { conn, data, .. } => {
                let conn = match self.conns.get(&**conn) {
                    Some(conn) => *conn,
                    // Recordings that begin in the middle have no `connect`.
                    None => self.open(conn, "", at, out)?,
                };
                self.adapter.frame(conn, data.bytes(), at, out);
            }
            Line::Http { url, data, .. } => self.adapter.response(url, data.bytes(), at, out),
        }
        Ok(())
    }

    fn open(&mut self, name: &str, url: &str, at: Time, out: &mut Out) -> Result<Conn, LineError> {
        if self.conns.len() >= CONNECTIONS_MAX {
            return Err(LineError::TooManyConnections);
        }
        let conn = Conn(self.opened);
        self.opened = self.opened.wrapping_add(1);
        self.conns.insert(name.to_owned(), conn);
        self.adapter.opened(conn, url, at, out);
        Ok(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kraken::Kraken;

    #[test]
    fn lines_read_back_as_written() {
        let ts = Some(Time(1_785_552_832_693_693_000));
        let lines = [
            Line::Header { venue: "kraken-v2".into(), note: Some("ours".into()) },
            Line::Connect { ts, conn: "ws1".into(), url: "wss://ws.kraken.com/v2".into() },
            Line::Send { ts, conn: "ws1".into(), data: Payload::Text("{\"method\":\"ping\"}".into()) },
            Line::Recv { ts: None, conn: "ws1".into(), data: Payload::Binary(Cow::Borrowed(&[0, 255, 10])) },
            Line::Http { ts, conn: "http".into(), url: "https://x/y?a=b".into(), data: Payload::Text("".into()) },
            Line::Disconnect { ts, conn: "ws1".into(), reason: Some("eof".into()) },
        ];
        let mut text = Vec::new();
        for line in &lines {
            line.write(&mut text);
        }
        let read: Vec<Line<'_>> =
            text.split(|c| *c == b'\n').filter(|l| !l.is_empty()).map(|l| Line::parse(l).expect("a line")).collect();
        assert_eq!(read, lines);
        assert_eq!(read[1].ts(), ts);
    }

    #[test]
    fn what_is_no_line_is_told() {
        for (line, said) in [
            (r#"{"t":"header","format":"mdrec/9"}"#, "mdrec/9"),
            (r#"{"t":"rescv"}"#, "rescv"),
            (r#"{"t":"recv","ts":1,"conn":"a"}"#, "without `data`"),
            (r#"{"t":"recv","ts":1,"conn":"a","b64":"!"}"#, "Base64"),
            (r#"{"t":"recv","ts":"#, "not a line"),
            ("[]", "not a line"),
        ] {
            let error = Line::parse(line.as_bytes()).expect_err(line).to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_recording_without_connect_lines_plays() {
        let mut player = Player::new(Box::new(Kraken::new(&[])));
        let mut out = Out::default();
        let frame = r#"{"channel":"ticker","type":"snapshot","data":[{"symbol":"BTC/USD","bid":10.0,"bid_qty":1,"ask":10.1,"ask_qty":2}]}"#;
        let line = Line::Recv { ts: None, conn: "x".into(), data: Payload::Text(frame.into()) };
        player.feed(&line, Time(5), &mut out).expect("fed");
        assert_eq!(out.instruments.len(), 1);
        assert!(out.reports.is_empty());
        let gone = Line::Disconnect { ts: None, conn: "x".into(), reason: None };
        out.clear();
        player.feed(&gone, Time(6), &mut out).expect("fed");
        assert_eq!(out.updates.len(), 2, "quote invalid, status stale: {:?}", out.updates);
    }
}
