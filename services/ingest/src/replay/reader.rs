//! Reads the recordings of one venue in a thread of its own: decompressing blocks, and takes time.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use ticker_feeds::recording::{Line, Payload};
use tokio::sync::mpsc;

use super::files::{open, read_line};
use crate::IngestError;

/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;

/// A chunk is closed when it has so many bytes or lines; one line may be more.
const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// See [`CHUNK_BYTES_MAX`].
const CHUNK_LINES_MAX: usize = 1_024;

/// What is read.
#[derive(Debug)]
pub(crate) enum Item {
    /// A file begins.
    File(Arc<PathBuf>),
    /// A line of it.
    Line(Line<'static>),
    /// Something in it cannot be read: which line, and what is wrong.
    Fault {
        /// From 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
}

/// Reads these files, one after the other. The thread ends with the files, or when the receiver is gone.
pub(crate) fn read(name: &str, files: Vec<PathBuf>) -> Result<mpsc::Receiver<Vec<Item>>, IngestError> {
    let (chunks, reading) = mpsc::channel(CHUNKS_AHEAD);
    let body = move || {
        for path in files {
            // The receiver is gone: nobody wants the rest.
            if read_file(path, &chunks).is_none() {
                return;
            }
        }
    };
    std::thread::Builder::new().name(format!("read-{name}")).spawn(body).map_err(IngestError::Thread)?;
    Ok(reading)
}

fn read_file(path: PathBuf, chunks: &mpsc::Sender<Vec<Item>>) -> Option<()> {
    let mut items = vec![Item::File(Arc::new(path.clone()))];
    let mut bytes = 0;
    let mut number = 0;
    let mut reader = match open(&path) {
        Ok(reader) => reader,
        Err(why) => {
            items.push(Item::Fault { line: 0, why: why.to_string() });
            return chunks.blocking_send(items).ok();
        }
    };
    let mut line = Vec::new();
    loop {
        number += 1;
        match read_line(&mut reader, &mut line) {
            Ok(false) => break,
            Ok(true) if line.is_empty() => continue,
            Ok(true) => {}
            Err(why) => {
                // What comes after this cannot be found: the file ends here.
                let why = match why.kind() {
                    std::io::ErrorKind::UnexpectedEof => {
                        "the recording was cut off here, within what was being written; all before it is played"
                            .to_owned()
                    }
                    _ => why.to_string(),
                };
                items.push(Item::Fault { line: number, why });
                break;
            }
        }
        bytes += line.len();
        items.push(match Line::parse(&line) {
            Ok(parsed) => Item::Line(owned(parsed)),
            Err(why) => Item::Fault { line: number, why: why.to_string() },
        });
        if bytes >= CHUNK_BYTES_MAX || items.len() >= CHUNK_LINES_MAX {
            chunks.blocking_send(std::mem::take(&mut items)).ok()?;
            bytes = 0;
        }
    }
    chunks.blocking_send(items).ok()
}

/// The line, without the text that it was read from. Frames hold quotes, which JSON escapes, so they are owned already.
fn owned(line: Line<'_>) -> Line<'static> {
    let text = |t: Cow<'_, str>| Cow::Owned(t.into_owned());
    let payload = |p: Payload<'_>| match p {
        Payload::Text(t) => Payload::Text(Cow::Owned(t.into_owned())),
        Payload::Binary(b) => Payload::Binary(Cow::Owned(b.into_owned())),
    };
    match line {
        Line::Header { venue, note } => Line::Header { venue: text(venue), note: note.map(text) },
        Line::Connect { ts, conn, url } => Line::Connect { ts, conn: text(conn), url: text(url) },
        Line::Disconnect { ts, conn, reason } => Line::Disconnect { ts, conn: text(conn), reason: reason.map(text) },
        Line::Send { ts, conn, data } => Line::Send { ts, conn: text(conn), data: payload(data) },
        Line::Recv { ts, conn, data } => Line::Recv { ts, conn: text(conn), data: payload(data) },
        Line::Http { ts, conn, url, data } => Line::Http { ts, conn: text(conn), url: text(url), data: payload(data) },
    }
}
