//! Server-sent events (WHATWG HTML §9.2) and NDJSON: both are lines in the body of a GET.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use ticker_proto::json;

use crate::error::Error;
use crate::http::{Connection, expect_ok};
use crate::options::{Options, Over, Subscription, query};
use crate::transport::Item;

/// A line, or an event, is at most so long: far above the contract's 64 KiB.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) struct Lines {
    // Dropping it would close the connection under the body.
    _connection: Connection,
    body: Incoming,
    parser: Parser,
    sse: bool,
}

impl Lines {
    pub(crate) async fn open(options: &Options, subscription: &Subscription) -> Result<Self, Error> {
        let sse = options.over == Over::Sse;
        let accept = if sse { "text/event-stream" } else { "application/x-ndjson" };
        let mut connection = Connection::open(options).await?;
        let path = format!("/v1/stream{}", query(subscription, "from"));
        let response = connection.get(&path, Some(accept), None).await?;
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("nothing").to_owned();
        let body = expect_ok(response).await?;
        if !kind.starts_with(accept) {
            return Err(Error::Protocol(format!("content-type {kind} instead of {accept}")));
        }
        Ok(Self { _connection: connection, body, parser: Parser::default(), sse })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            let block = if self.sse { self.parser.event()? } else { self.parser.line()?.map(Block::of_line) };
            if let Some(Block { data, id }) = block {
                if data.is_empty() {
                    // NDJSON's blank lines keep a connection warm; an event with an id alone moves the cursor.
                    if id.is_some() {
                        return Ok(Some(Item { message: None, cursor: id }));
                    }
                    continue;
                }
                let message = json::read_message(&data).map_err(|e| Error::Protocol(e.to_string()))?;
                return Ok(Some(Item { message: Some(message), cursor: id }));
            }
            match self.body.frame().await {
                // A body that ends in good order; what is not a whole event yet is thrown away, as the standard says.
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.parser.push(&data);
                    }
                }
                Some(Err(error)) => return Err(Error::lost(&error)),
            }
        }
    }
}

/// One server-sent event, or one line.
#[derive(PartialEq, Eq, Debug, Default)]
struct Block {
    data: String,
    /// The event's `id`, if it has one.
    id: Option<String>,
}

impl Block {
    fn of_line(line: String) -> Self {
        Self { data: line, id: None }
    }
}

/// Cuts bytes into lines, and lines into events, wherever the bytes were cut on their way.
#[derive(Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    /// Up to here the bytes are used up.
    start: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    /// The event that is being put together.
    block: Block,
    lines: usize,
}

impl Parser {
    pub(crate) fn push(&mut self, data: &Bytes) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(data);
    }

    pub(crate) fn line(&mut self) -> Result<Option<String>, Error> {
        let Some(at) = self.bytes[self.searched..].iter().position(|b| *b == b'\n') else {
            self.searched = self.bytes.len();
            if self.bytes.len() - self.start > LINE_BYTES_MAX {
                return Err(Error::Protocol(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            return Ok(None);
        };
        let end = self.searched + at;
        let line = &self.bytes[self.start..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|e| Error::Protocol(e.to_string()))?.to_owned();
        (self.start, self.searched) = (end + 1, end + 1);
        Ok(Some(text))
    }

    fn event(&mut self) -> Result<Option<Block>, Error> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                self.lines = 0;
                let block = std::mem::take(&mut self.block);
                if block != Block::default() {
                    return Ok(Some(block));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => {
                    if self.lines > 0 {
                        self.block.data.push('\n');
                    }
                    self.lines += 1;
                    self.block.data.push_str(value);
                    if self.block.data.len() > LINE_BYTES_MAX {
                        return Err(Error::Protocol(format!("an event of more than {LINE_BYTES_MAX} bytes")));
                    }
                }
                "id" if !value.contains('\0') => self.block.id = Some(value.to_owned()),
                // `event` says only whether it is a notice, which the JSON says too; a comment has an empty field.
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\r\n\r\nretry: 1000\n\nevent: notice\nid: e-5\ndata: {\"op\":\"x\"}\n\ndata: {\"a\":1}\n\n\
                          id: e-7\ndata: {\"ü\":\ndata: 2}\n\nid: e-8\n\ndata: cut off";

    fn expected() -> Vec<Block> {
        let block = |data: &str, id: Option<&str>| Block { data: data.into(), id: id.map(Into::into) };
        vec![
            block("{\"op\":\"x\"}", Some("e-5")),
            block("{\"a\":1}", None),
            block("{\"ü\":\n2}", Some("e-7")),
            block("", Some("e-8")),
        ]
    }

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for chunk in STREAM.as_bytes().chunks(size) {
                parser.push(&Bytes::copy_from_slice(chunk));
                while let Some(event) = parser.event().expect("text") {
                    events.push(event);
                }
            }
            assert_eq!(events, expected(), "in pieces of {size}");
        }
    }

    #[test]
    fn lines_are_found_wherever_the_bytes_are_cut() {
        let text = "{\"a\":1}\r\n\n{\"b\":2}\n{\"c\"";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut lines = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                parser.push(&Bytes::copy_from_slice(chunk));
                while let Some(line) = parser.line().expect("text") {
                    lines.push(line);
                }
            }
            assert_eq!(lines, ["{\"a\":1}", "", "{\"b\":2}"], "in pieces of {size}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        let mut parser = Parser::default();
        parser.push(&Bytes::from_static(b"data: \xff\n\n"));
        assert!(matches!(parser.event(), Err(Error::Protocol(_))));
    }
}
