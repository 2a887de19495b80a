//! The files of a recording: `<venue>-<time>.jsonl.zst`, one zstd frame a flush.
//!
//! Frames are independent, so whatever a kill leaves behind can be read up to the last one that is whole. The next
//! recorder cuts off the rest and goes on in the same file.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ticker_feeds::recording::Line;
use ticker_market::Time;

/// zstd's level: 3 is its own default.
const LEVEL: i32 = 3;

/// One flush is not larger when unpacked: what a damaged file says of itself must not fill the memory.
const FRAME_BYTES_MAX: u64 = 256 << 20;

/// Why connections that a killed recorder left open have ended.
const KILLED: &str = "recorder_ended";

/// When a new file is begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rotation {
    /// A file that has so many bytes is not added to.
    pub(crate) bytes_max: u64,
    /// A file that was begun so long ago is not added to.
    pub(crate) age_max: Duration,
}

/// The file that is being written.
#[derive(Debug)]
pub(crate) struct RecordFile {
    folder: PathBuf,
    venue: String,
    rotation: Rotation,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    bytes: u64,
    begun: Time,
}

/// What a file holds, as far as its frames are whole.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The end of the last whole frame.
    pub(super) bytes: u64,
    /// What lies after it.
    pub(super) cut: u64,
    first: Option<Time>,
    last: Option<Time>,
    connections: BTreeSet<String>,
}

impl RecordFile {
    /// Goes on in the newest file of this venue in `folder`, or begins with none.
    pub(crate) fn resume(folder: &Path, venue: &str, rotation: Rotation, now: Time) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut this = Self { folder: folder.to_owned(), venue: venue.to_owned(), rotation, open: None };
        let Some(path) = this.newest()? else { return Ok(this) };
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let held = look(&file)?;
        if held.cut > 0 {
            tracing::warn!(
                file = %path.display(),
                bytes = held.cut,
                "the last recorder was stopped within a write: the unfinished end is cut off"
            );
            file.set_len(held.bytes)?;
        }
        file.seek(SeekFrom::Start(held.bytes))?;
        this.open = Some(Open { path, file, bytes: held.bytes, begun: held.first.unwrap_or(now) });
        // They ended when nothing more came from them, not when somebody noticed.
        let ts = held.last.or(Some(now));
        let mut ends = Vec::new();
        for conn in held.connections {
            Line::Disconnect { ts, conn: conn.into(), reason: Some(KILLED.into()) }.write(&mut ends);
        }
        if !ends.is_empty() {
            this.write(&ends)?;
        }
        Ok(this)
    }

    /// Writes whole lines, and has them on the disk when it returns.
    pub(crate) fn append(&mut self, lines: &[u8], now: Time) -> io::Result<()> {
        let Rotation { bytes_max, age_max } = self.rotation;
        let is_full = |open: &Open| {
            open.bytes >= bytes_max || u128::try_from(now.since(open.begun)).is_ok_and(|age| age >= age_max.as_nanos())
        };
        if self.open.as_ref().is_none_or(is_full) {
            self.open = Some(self.begin(now)?);
        }
        if self.open.as_ref().is_some_and(|open| open.bytes == 0) {
            let note = concat!("recorded by ticker ", env!("CARGO_PKG_VERSION"));
            let mut first = Vec::with_capacity(lines.len() + 128);
            Line::Header { venue: self.venue.as_str().into(), note: Some(note.into()) }.write(&mut first);
            first.extend_from_slice(lines);
            return self.write(&first);
        }
        self.write(lines)
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.write_all(lines)?;
        let frame = encoder.finish()?;
        let named = |why: io::Error| io::Error::new(why.kind(), format!("{}: {why}", open.path.display()));
        open.file.write_all(&frame).and_then(|()| open.file.sync_data()).map_err(named)?;
        open.bytes += frame.len() as u64;
        Ok(())
    }

    fn begin(&self, now: Time) -> io::Result<Open> {
        let mut begun = now;
        loop {
            let path = self.folder.join(format!("{}-{}.jsonl.zst", self.venue, stamp(begun)));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Open { path, file, bytes: 0, begun: now }),
                // Two in one millisecond.
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => begun = begun.plus_millis(1),
                Err(why) => return Err(why),
            }
        }
    }

    fn newest(&self) -> io::Result<Option<PathBuf>> {
        let mut newest: Option<(String, PathBuf)> = None;
        for entry in self.folder.read_dir()? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let rest = name.strip_prefix(&self.venue).and_then(|rest| rest.strip_prefix('-'));
            // `binance-` is also how the files of `binance-usdm` begin.
            let ours =
                rest.is_some_and(|rest| rest.ends_with(".jsonl.zst") && rest.starts_with(|c: char| c.is_ascii_digit()));
            if ours && newest.as_ref().is_none_or(|(n, _)| *n < name) {
                newest = Some((name, path));
            }
        }
        Ok(newest.map(|(_, path)| path))
    }
}

/// Reads a file's frames, until the end or until one is not whole.
pub(super) fn look(file: &File) -> io::Result<Held> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut held = Held::default();
    loop {
        if reader.fill_buf()?.is_empty() {
            break;
        }
        let mut lines = Vec::new();
        let frame = zstd::Decoder::with_buffer(&mut reader).and_then(|decoder| {
            let mut decoder = decoder.single_frame();
            decoder.by_ref().take(FRAME_BYTES_MAX + 1).read_to_end(&mut lines)
        });
        if lines.len() as u64 > FRAME_BYTES_MAX || frame.as_ref().is_err_and(|why| held.bytes == 0 && !is_cut(why)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of this recorder: move it elsewhere"));
        }
        if frame.is_err() {
            break;
        }
        held.bytes = reader.stream_position()?;
        for line in lines.split(|c| *c == b'\n').filter(|l| !l.is_empty()) {
            let Ok(line) = Line::parse(line) else { continue };
            held.first = held.first.or(line.ts());
            held.last = line.ts().or(held.last);
            match line {
                Line::Connect { conn, .. } => _ = held.connections.insert(conn.into_owned()),
                Line::Disconnect { conn, .. } => _ = held.connections.remove(&*conn),
                _ => {}
            }
        }
    }
    held.cut = length.saturating_sub(held.bytes);
    Ok(held)
}

fn is_cut(why: &io::Error) -> bool {
    why.kind() == io::ErrorKind::UnexpectedEof
}

/// `20260801T025352.693Z`: sorts as time does, and is allowed in names everywhere.
fn stamp(at: Time) -> String {
    let text = at.to_rfc3339();
    let to_millis = &text[..text.len() - "000000Z".len()];
    to_millis.replace(['-', ':'], "") + "Z"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::files;
    use ticker_feeds::recording::Payload;

    const NOW: Time = Time(1_785_552_832_693_693_000);
    const NEVER: Rotation = Rotation { bytes_max: u64::MAX, age_max: Duration::MAX };

    fn frame(i: i64) -> Vec<u8> {
        let mut line = Vec::new();
        let data = Payload::Text(format!("frame {i}").into());
        Line::Recv { ts: Some(NOW.plus_millis(i)), conn: "ws0".into(), data }.write(&mut line);
        line
    }

    fn only_file(folder: &Path) -> PathBuf {
        let mut all: Vec<_> = folder.read_dir().expect("a folder").map(|e| e.expect("an entry").path()).collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// What a replay reads, and the error that ends it.
    fn read(path: &Path) -> (Vec<String>, Option<String>) {
        let mut lines = Vec::new();
        let mut reader = match files::open(path) {
            Ok(reader) => reader,
            Err(why) => return (lines, Some(why.to_string())),
        };
        let mut line = Vec::new();
        loop {
            match files::read_line(&mut reader, &mut line) {
                Ok(false) => return (lines, None),
                Ok(true) => lines.push(String::from_utf8(line.clone()).expect("text")),
                Err(why) => return (lines, Some(why.to_string())),
            }
        }
    }

    #[test]
    fn names_sort_as_time_does() {
        assert_eq!(stamp(NOW), "20260801T025352.693Z");
        assert_eq!(stamp(Time(0)), "19700101T000000.000Z");
        assert_eq!(stamp(Time::from_millis(951_782_400_000)), "20000229T000000.000Z");
    }

    #[test]
    fn wherever_a_kill_cuts_what_was_flushed_is_read_and_gone_on_from() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = RecordFile::resume(folder.path(), "kraken", NEVER, NOW).expect("begun");
        let mut ends = Vec::new();
        let mut connect = Vec::new();
        Line::Connect { ts: Some(NOW), conn: "ws0".into(), url: "wss://x".into() }.write(&mut connect);
        record.append(&connect, NOW).expect("written");
        let path = only_file(folder.path());
        for i in 0..3 {
            record.append(&frame(i), NOW).expect("written");
            ends.push(path.metadata().expect("there").len());
        }
        drop(record);
        let whole = std::fs::read(&path).expect("read");
        assert_eq!(read(&path).0.len(), 5, "header, connect, three frames");
        for length in 0..whole.len() as u64 {
            std::fs::write(&path, &whole[..usize::try_from(length).expect("small")]).expect("written");
            let flushed = ends.iter().filter(|end| **end <= length).count();
            let (lines, error) = read(&path);
            let frames = lines.iter().filter(|l| l.contains("frame")).count();
            // A frame that is cut behind its last block gives its lines all the same.
            assert!(frames >= flushed && frames <= 3, "{length}: {frames} of {flushed}");
            assert_eq!(
                error.is_some(),
                !(length == 0 || look(&File::open(&path).expect("there")).expect("read").cut == 0)
            );
            let mut again = RecordFile::resume(folder.path(), "kraken", NEVER, NOW.plus_millis(9)).expect("resumed");
            again.append(&frame(7), NOW.plus_millis(10)).expect("written");
            let (lines, error) = read(&only_file(folder.path()));
            assert_eq!(error, None, "{length}");
            assert!(lines[0].contains("mdrec/1"));
            assert_eq!(lines.iter().filter(|l| l.contains("frame")).count(), flushed + 1, "{length}");
            assert_eq!(
                lines.iter().filter(|l| l.contains(KILLED)).count(),
                usize::from(lines.iter().any(|l| l.contains("wss")))
            );
        }
    }

    #[test]
    fn a_full_or_old_file_is_followed_by_a_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let rotation = Rotation { bytes_max: 1, age_max: Duration::MAX };
        let mut record = RecordFile::resume(folder.path(), "binance", rotation, NOW).expect("begun");
        for i in 0..3 {
            record.append(&frame(i), NOW).expect("written");
        }
        let other = Rotation { bytes_max: u64::MAX, age_max: Duration::from_secs(60) };
        let mut usdm = RecordFile::resume(folder.path(), "binance-usdm", other, NOW).expect("begun");
        usdm.append(&frame(3), NOW).expect("written");
        usdm.append(&frame(4), NOW.plus_millis(59_000)).expect("written");
        usdm.append(&frame(5), NOW.plus_millis(61_000)).expect("written");
        let groups = files::find(&[folder.path().to_owned()]).expect("recordings");
        let counts: Vec<_> = groups.iter().map(|g| (g.venue.as_str(), g.files.len())).collect();
        assert_eq!(counts, [("binance", 3), ("binance-usdm", 2)]);
        let record = RecordFile::resume(folder.path(), "binance", rotation, NOW).expect("resumed");
        assert!(record.open.is_some_and(|o| o.path.ends_with("binance-20260801T025352.695Z.jsonl.zst")));
    }
}
