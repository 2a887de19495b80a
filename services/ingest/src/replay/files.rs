//! Finds recordings and looks at their beginnings, before anything starts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ticker_feeds::recording::Line;
use ticker_market::Time;

use crate::IngestError;

/// A line is not longer: the largest frame in the recordings has 5.8 MB, as text within JSON a few more.
pub(super) const LINE_BYTES_MAX: u64 = 64 << 20;

/// Files of one replay, at most.
pub(crate) const FILES_MAX: usize = 10_000;

/// The first recorded time is looked for in so many lines.
const LOOK_LINES_MAX: usize = 100;

/// The recordings of one venue, in the order of their time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    /// The venue's name in topics.
    pub(crate) venue: String,
    /// The files.
    pub(crate) files: Vec<PathBuf>,
}

pub(crate) type Reader = BufReader<Box<dyn Read + Send>>;

/// Opens a recording, compressed or not: by its content, whatever its name.
pub(crate) fn open(path: &Path) -> std::io::Result<Reader> {
    const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let mut file = BufReader::new(File::open(path)?);
    let head = file.fill_buf()?;
    // A file that was cut off within its first bytes is one all the same.
    let compressed = !head.is_empty() && ZSTD_MAGIC.starts_with(&head[..head.len().min(ZSTD_MAGIC.len())]);
    let plain: Box<dyn Read + Send> =
        if compressed { Box::new(zstd::Decoder::with_buffer(file)?) } else { Box::new(file) };
    Ok(BufReader::with_capacity(256 * 1024, plain))
}

/// Reads one line into `line`, without its line feed. False at the end.
pub(crate) fn read_line(reader: &mut Reader, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let read = reader.take(LINE_BYTES_MAX + 1).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read as u64 > LINE_BYTES_MAX {
        let why = format!("a line is longer than {LINE_BYTES_MAX} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
    }
    Ok(read > 0)
}

/// The recordings at these paths, by venue; each must be there, and of a venue that can be replayed.
pub(crate) fn find(paths: &[PathBuf]) -> Result<Vec<Group>, IngestError> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |why: std::io::Error| IngestError::Recording { path: path.clone(), why: why.to_string() };
        if !path.metadata().map_err(failed)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in path.read_dir().map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if (name.ends_with(".jsonl") || name.ends_with(".jsonl.zst")) && file.is_file() {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            let why = "the folder holds no recordings (*.jsonl, *.jsonl.zst)".to_owned();
            return Err(IngestError::Recording { path: path.clone(), why });
        }
        inside.sort();
        files.append(&mut inside);
    }
    if files.len() > FILES_MAX {
        let why = format!("{} files, at most {FILES_MAX}", files.len());
        return Err(IngestError::Setting { setting: "replay.paths".to_owned(), why });
    }
    // In the order of the names, where times are equal or not recorded.
    let mut groups: BTreeMap<String, Vec<(Option<Time>, usize, PathBuf)>> = BTreeMap::new();
    for (at, path) in files.into_iter().enumerate() {
        let (venue, first) = look(&path)?;
        groups.entry(venue).or_default().push((first, at, path));
    }
    Ok(groups
        .into_iter()
        .map(|(venue, mut files)| {
            files.sort();
            Group { venue, files: files.into_iter().map(|(_, _, path)| path).collect() }
        })
        .collect())
}

/// A recording's venue (as in topics), and its first recorded time.
fn look(path: &Path) -> Result<(String, Option<Time>), IngestError> {
    let no = |why: String| IngestError::Recording { path: path.to_owned(), why };
    let mut reader = open(path).map_err(|why| no(why.to_string()))?;
    let mut line = Vec::new();
    if !read_line(&mut reader, &mut line).map_err(|why| no(why.to_string()))? {
        return Err(no("the file is empty".to_owned()));
    }
    let venue = match Line::parse(&line) {
        Ok(Line::Header { venue, .. }) => venue.into_owned(),
        Ok(_) => return Err(no("the first line is not a header of mdrec/1".to_owned())),
        Err(why) => return Err(no(format!("not a recording of the format mdrec/1: {why}"))),
    };
    let Some(adapter) = ticker_feeds::adapter(&venue, &[]) else {
        return Err(IngestError::UnsupportedRecording { path: path.to_owned(), venue });
    };
    let mut first = None;
    for _ in 0..LOOK_LINES_MAX {
        // What is wrong further on is told when it is played.
        let Ok(true) = read_line(&mut reader, &mut line) else { break };
        first = Line::parse(&line).ok().and_then(|l| l.ts());
        if first.is_some() {
            break;
        }
    }
    Ok((adapter.rules().venue.to_owned(), first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(venue: &str, ts: i64) -> String {
        format!(
            "{{\"t\":\"header\",\"format\":\"mdrec/1\",\"venue\":\"{venue}\"}}\n{{\"t\":\"recv\",\"ts\":{ts},\"conn\":\"a\",\"data\":\"x\"}}\n"
        )
    }

    #[test]
    fn files_are_grouped_by_venue_and_sorted_by_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).expect("room");
        write("a.jsonl", recording("kraken-v2", 20).as_bytes());
        let packed = zstd::encode_all(recording("kraken-v2", 10).as_bytes(), 1).expect("packs");
        write("b.jsonl.zst", &packed);
        write("c.jsonl", recording("kraken", 0).as_bytes());
        write("d.jsonl", recording("binance-spot", 5).as_bytes());
        write("notes.txt", b"no recording");
        let groups = find(&[folder.path().to_owned()]).expect("all are recordings");
        let names: Vec<_> = groups
            .iter()
            .map(|g| (g.venue.as_str(), g.files.iter().filter_map(|f| f.file_name()?.to_str()).collect::<Vec<_>>()))
            .collect();
        assert_eq!(names, [("binance", vec!["d.jsonl"]), ("kraken", vec!["c.jsonl", "b.jsonl.zst", "a.jsonl"])]);
    }

    #[test]
    fn what_cannot_be_replayed_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.jsonl");
        let error = |path: &Path| find(&[path.to_owned()]).expect_err("refused").to_string();
        assert!(error(&path).contains("x.jsonl"), "missing");
        assert!(error(folder.path()).contains("no recordings"));
        for (text, said) in [
            ("", "empty"),
            ("hello\n", "mdrec/1"),
            ("{\"t\":\"recv\",\"conn\":\"a\",\"data\":\"\"}\n", "header"),
            ("{\"t\":\"header\",\"format\":\"mdrec/2\",\"venue\":\"kraken\"}\n", "mdrec/2"),
            ("{\"t\":\"header\",\"format\":\"mdrec/1\",\"venue\":\"nyse\"}\n", "`nyse`"),
        ] {
            std::fs::write(&path, text).expect("room");
            let error = error(&path);
            assert!(error.contains("x.jsonl") && error.contains(said), "{error}");
        }
    }
}
