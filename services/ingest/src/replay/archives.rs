//! Files that hold market data by themselves: which are among those to be replayed, and what is needed to decode them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ticker_feeds::archive::Archive;
use ticker_feeds::databento::DbnFile;
use ticker_feeds::itch::{self, ItchFile};
use ticker_feeds::recording::Line;
use ticker_feeds::table::{Mapping, TableFile};
use ticker_feeds::{Out, archive};
use ticker_market::Time;

use super::files::{self, Group};
use crate::IngestError;
use crate::config::ReplayConfig;

/// How much is read at a time.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// The first time in a file is looked for in so many bytes: a DBN file of many instruments begins with their names.
const LOOK_BYTES_MAX: usize = 256 << 20;

/// What the first bytes of a recording are looked for in.
const HEAD_BYTES_MAX: u64 = 4_096;

/// What files in a folder are named, before `.zst` or `.gz`. Tables need a mapping beside them there.
const NAMES: [&str; 4] = [".dbn", ".itch", ".NASDAQ_ITCH50", ".csv"];

/// Files of one venue and kind, in the order of their time.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ArchiveGroup {
    /// The venue's name in topics.
    pub(crate) venue: String,
    pub(crate) files: Vec<(PathBuf, Kind)>,
}

/// What a file is, with what it does not say itself.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Kind {
    Itch {
        /// Of the day in New York.
        midnight: Time,
        symbols: Vec<String>,
    },
    Dbn,
    Table(Box<Mapping>),
}

impl Kind {
    pub(super) fn decoder(&self) -> Result<Box<dyn Archive>, String> {
        Ok(match self {
            Kind::Itch { midnight, symbols } => Box::new(ItchFile::new(symbols, *midnight)),
            Kind::Dbn => Box::new(DbnFile::new()),
            Kind::Table(mapping) => Box::new(TableFile::new(Mapping::clone(mapping)).map_err(|why| why.to_string())?),
        })
    }
}

/// What is to be replayed: the recordings of frames, and the archives.
pub(crate) fn find(config: &ReplayConfig) -> Result<(Vec<Group>, Vec<ArchiveGroup>), IngestError> {
    let (mut recordings, mut archives) = (Vec::new(), Vec::new());
    for path in &config.paths {
        if path.is_dir() {
            let mut inside = archives_in(path, config)?;
            // A folder of neither is refused as one without recordings.
            if inside.is_empty() || holds_recordings(path) {
                recordings.push(path.clone());
            }
            archives.append(&mut inside);
        } else {
            match recognise(path, config)? {
                Some(kind) => archives.push((path.clone(), kind)),
                None => recordings.push(path.clone()),
            }
        }
    }
    let recordings = if recordings.is_empty() { Vec::new() } else { files::find(&recordings)? };
    if archives.len() > files::FILES_MAX {
        let why = format!("{} files, at most {}", archives.len(), files::FILES_MAX);
        return Err(IngestError::Setting { setting: "replay.paths".to_owned(), why });
    }
    Ok((recordings, grouped(archives)?))
}

fn holds_recordings(folder: &Path) -> bool {
    let is_one = |name: &str| name.ends_with(".jsonl") || name.ends_with(".jsonl.zst");
    folder.read_dir().into_iter().flatten().flatten().any(|e| is_one(&e.file_name().to_string_lossy()))
}

fn archives_in(folder: &Path, config: &ReplayConfig) -> Result<Vec<(PathBuf, Kind)>, IngestError> {
    let failed = |why: std::io::Error| IngestError::Recording { path: folder.to_owned(), why: why.to_string() };
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".zst").trim_end_matches(".gz");
        if NAMES.iter().any(|end| name.ends_with(end))
            && path.is_file()
            && let Some(kind) = recognise(&path, config)?
        {
            found.push((path, kind));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// What the file is by its first bytes; `None` for a recording of frames, or what is to be refused as one.
fn recognise(path: &Path, config: &ReplayConfig) -> Result<Option<Kind>, IngestError> {
    let no = |why: String| IngestError::Recording { path: path.to_owned(), why };
    let mut head = Vec::new();
    let reader = open(path).map_err(|why| no(why.to_string()))?;
    reader.take(HEAD_BYTES_MAX).read_to_end(&mut head).map_err(|why| no(why.to_string()))?;
    // One of zstd's skippable frames, which holds the metadata, before the records.
    if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, _, _, _, _, b'D', b'B', b'Z', ..] = head[..] {
        return Err(no(
            "a DBZ file, Databento's form before DBN, which is not read: turn it into DBN (by the program \
                       `dbn` up to 0.3, or by asking Databento for it again)"
                .to_owned(),
        ));
    }
    if head.starts_with(b"DBN") {
        return Ok(Some(Kind::Dbn));
    }
    // A system event message of 12 bytes behind its length, or behind zeros in its place.
    if let [0, 0 | 12, b'S', ..] = head[..] {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let midnight = match &config.day {
            Some(day) => itch::midnight(day).ok_or_else(|| IngestError::Setting {
                setting: "replay.day".to_owned(),
                why: format!("`{day}` is not a day such as 2019-12-30"),
            })?,
            None => itch::midnight_of_file(&name).ok_or_else(|| {
                no("an ITCH file does not say its day, nor does this one's name (01302020.NASDAQ_ITCH50): set \
                    replay.day to it (2020-01-30)"
                    .to_owned())
            })?,
        };
        return Ok(Some(Kind::Itch { midnight, symbols: config.symbols.clone() }));
    }
    let first = head.split(|c| *c == b'\n').next().unwrap_or_default();
    if matches!(Line::parse(first), Ok(Line::Header { .. })) {
        return Ok(None);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".toml");
    let beside = PathBuf::from(beside);
    let Some(description) = beside.is_file().then_some(&beside).or(config.mapping.as_ref()) else { return Ok(None) };
    let said = |why: String| IngestError::Recording { path: description.clone(), why };
    let text = std::fs::read_to_string(description).map_err(|why| said(why.to_string()))?;
    let mapping: Mapping = toml::from_str(&text).map_err(|why| said(why.to_string()))?;
    Ok(Some(Kind::Table(Box::new(mapping))))
}

/// Files of one venue are played one after the other; but each table beside the others: quotes and trades of one venue
/// are two tables.
fn grouped(archives: Vec<(PathBuf, Kind)>) -> Result<Vec<ArchiveGroup>, IngestError> {
    let mut groups: Vec<(ArchiveGroup, Vec<Option<Time>>)> = Vec::new();
    for (path, kind) in archives {
        let (venue, first) = look(&path, &kind)?;
        let same = |g: &ArchiveGroup| {
            let of = &g.files[0].1;
            g.venue == venue
                && !matches!(kind, Kind::Table(_))
                && std::mem::discriminant(of) == std::mem::discriminant(&kind)
        };
        match groups.iter_mut().find(|(group, _)| same(group)) {
            Some((group, times)) => {
                let at = times.partition_point(|time| *time <= first);
                times.insert(at, first);
                group.files.insert(at, (path, kind));
            }
            None => groups.push((ArchiveGroup { venue, files: vec![(path, kind)] }, vec![first])),
        }
    }
    Ok(groups.into_iter().map(|(group, _)| group).collect())
}

/// The file's venue, and its first time.
fn look(path: &Path, kind: &Kind) -> Result<(String, Option<Time>), IngestError> {
    let no = |why: String| IngestError::Recording { path: path.to_owned(), why };
    let mut archive = kind.decoder().map_err(no)?;
    let mut reader = open(path).map_err(|why| no(why.to_string()))?;
    let (mut out, mut looked, mut first) = (Out::default(), 0, None);
    while first.is_none() && looked < LOOK_BYTES_MAX {
        let chunk = read_chunk(&mut reader).map_err(|why| no(why.to_string()))?;
        looked += chunk.len();
        archive.push(&chunk);
        let is_end = chunk.is_empty();
        if is_end {
            archive.finish().map_err(|why| no(why.to_string()))?;
        }
        first = archive.next(&mut out).map_err(|why: archive::ArchiveError| no(why.to_string()))?;
        if is_end {
            break;
        }
    }
    match archive.venue() {
        "" => Err(no("nothing in it says its venue".to_owned())),
        venue => Ok((venue.to_owned(), first)),
    }
}

/// Opens a file, compressed by zstd or gzip or not: by its content, whatever its name.
pub(super) fn open(path: &Path) -> std::io::Result<Box<dyn BufRead + Send>> {
    const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
    let mut reader = files::open(path)?;
    if reader.fill_buf()?.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(reader))));
    }
    Ok(Box::new(reader))
}

/// The next bytes; none at the end.
pub(super) fn read_chunk(reader: &mut Box<dyn BufRead + Send>) -> std::io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    reader.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}
