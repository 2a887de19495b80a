//! `ticker record`: what venues send, as it came, in files.
//!
//! The sockets are those of a live venue, driven by its adapter, which subscribes, pings, fetches and connects again as
//! it always does; what it decodes goes nowhere. Each venue writes its own files, one zstd frame a flush ([`file`]), and
//! reads on while the disk takes it, so that a slow disk does not show in the times of receipt. Where a second flush is
//! full before the first is on the disk, it waits: what is not written yet is bounded by the two and one frame.

mod file;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ticker_feeds::Conn;
use ticker_feeds::recording::{Line, Payload};
use ticker_market::Time;
use ticker_runtime::{Drain, Health};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use self::file::{RecordFile, Rotation};
use crate::IngestError;
use crate::config::{Config, VenueConfig};
use crate::feed::{Intake, Numbers};
use crate::progress::Progress;
use crate::service::live_venue;
use crate::venue::{VenuesHealth, fetch, now};

/// Lines that wait are written early when they have so many bytes.
const FLUSH_BYTES: usize = 8 << 20;

/// What is decoded beside the recording and thrown away waits in this many bytes.
const UNUSED_BYTES: usize = 8 << 20;

/// What is recorded, and where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordConfig {
    /// The folder that the files are in; made where it is missing. One recorder at a time.
    pub folder: PathBuf,
    /// Live venues.
    pub venues: Vec<String>,
    /// What is particular for a venue, by its name.
    pub venue: BTreeMap<String, VenueConfig>,
    /// Lines reach the disk after so long: a kill loses no more.
    pub flush_every: Duration,
    /// A file that has so many bytes is followed by a new one.
    pub file_bytes_max: u64,
    /// A file that was begun so long ago is followed by a new one.
    pub file_age_max: Duration,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("."),
            venues: Vec::new(),
            venue: BTreeMap::new(),
            flush_every: Duration::from_secs(1),
            file_bytes_max: 64 << 20,
            file_age_max: Duration::from_secs(3_600),
        }
    }
}

/// A recorder that has not been started. Everything in its configuration that can be checked has been.
#[derive(Debug)]
pub struct Recorder {
    config: RecordConfig,
    progress: Progress,
}

impl Recorder {
    /// Checks the configuration.
    pub fn new(config: RecordConfig) -> Result<Self, IngestError> {
        Config { venues: config.venues.clone(), venue: config.venue.clone(), ..Config::default() }.check()?;
        let why = "it takes at least a millisecond, and files at least a second and 64 KiB";
        if config.flush_every.is_zero() || config.file_age_max.as_secs() == 0 || config.file_bytes_max < 1 << 16 {
            return Err(IngestError::Setting { setting: "flush, rotation".to_owned(), why: why.to_owned() });
        }
        Ok(Self { config, progress: Progress::new() })
    }

    /// How its venues do.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Records until `drain` begins, or until a file cannot be written.
    pub async fn run(self, health: Health, drain: Drain) -> Result<(), IngestError> {
        crate::describe_metrics();
        let Self { config, progress } = self;
        let (queue, mut unused) = mpsc::channel(64);
        let (_never, retell) = watch::channel(0);
        let room = Arc::new(Semaphore::new(UNUSED_BYTES));
        let intake = Intake { queue, room, room_bytes: UNUSED_BYTES, numbers: Arc::new(Numbers::default()), retell };
        let unused = tokio::spawn(async move { while unused.recv().await.is_some() {} });
        let ingest = Config { venue: config.venue.clone(), ..Config::default() };
        let tls = fetch::tls()?;
        let venues_health = Arc::new(VenuesHealth::new(health.component("venues")));
        let mut running = JoinSet::new();
        for name in &config.venues {
            let live = live_venue(name, &ingest)?;
            let tap = Tap::open(&config, name)?;
            for (number, venue) in (1..).zip(live.connections(&progress, &intake, &tls, &venues_health)?) {
                running.spawn(venue.recorded(tap.of_connection(number)).run(drain.clone()));
            }
        }
        drop(intake);
        let mut failed = None;
        while let Some(ended) = running.join_next().await {
            let ended =
                ended.unwrap_or_else(|why| Err(IngestError::Source { name: "task".to_owned(), why: why.to_string() }));
            if let Err(why) = ended {
                drain.start("a recording cannot be written");
                failed.get_or_insert(why);
            }
        }
        unused.abort();
        failed.map_or(Ok(()), Err)
    }
}

/// A flush gives everything back, and how it went.
type Flushed = (RecordFile, Vec<u8>, std::io::Result<()>);

/// Writes down what a venue's sockets carry: several connections into one file, in the order in which it came.
#[derive(Debug)]
pub(crate) struct Tap {
    shared: Arc<Shared>,
    /// Which of the venue's connections, from 1.
    number: u32,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    writer: tokio::sync::Mutex<Writer>,
    every: Duration,
}

/// What waits for the next flush.
#[derive(Debug)]
struct Waiting {
    lines: Vec<u8>,
    flush_at: Instant,
}

#[derive(Debug)]
struct Writer {
    folder: PathBuf,
    /// `None` while a flush has it.
    file: Option<RecordFile>,
    flushing: Option<JoinHandle<Flushed>>,
    /// Empty, with its capacity.
    spare: Vec<u8>,
}

impl Tap {
    fn open(config: &RecordConfig, venue: &str) -> Result<Self, IngestError> {
        let rotation = Rotation { bytes_max: config.file_bytes_max, age_max: config.file_age_max };
        let file = RecordFile::resume(&config.folder, venue, rotation, now());
        let file = file.map_err(|why| unwritable(&config.folder, &why))?;
        let (every, flush_at) = (config.flush_every, Instant::now() + config.flush_every);
        let waiting = Mutex::new(Waiting { lines: Vec::new(), flush_at });
        let writer = Writer { folder: config.folder.clone(), file: Some(file), flushing: None, spare: Vec::new() };
        Ok(Self { shared: Arc::new(Shared { waiting, writer: writer.into(), every }), number: 1 })
    }

    /// For another connection to the same venue.
    fn of_connection(&self, number: u32) -> Self {
        Self { shared: Arc::clone(&self.shared), number }
    }

    pub(crate) fn connect(&mut self, conn: Conn, url: &str, at: Time) {
        self.write(&Line::Connect { ts: Some(at), conn: self.name(conn), url: url.into() });
    }

    pub(crate) fn disconnect(&mut self, conn: Conn, reason: &str, at: Time) {
        self.write(&Line::Disconnect { ts: Some(at), conn: self.name(conn), reason: Some(reason.into()) });
    }

    pub(crate) fn send(&mut self, conn: Conn, text: &str, at: Time) {
        self.write(&Line::Send { ts: Some(at), conn: self.name(conn), data: Payload::Text(text.into()) });
    }

    pub(crate) fn recv(&mut self, conn: Conn, bytes: &[u8], at: Time) {
        self.write(&Line::Recv { ts: Some(at), conn: self.name(conn), data: payload(bytes) });
    }

    pub(crate) fn http(&mut self, url: &str, body: &[u8], at: Time) {
        self.write(&Line::Http { ts: Some(at), conn: "http".into(), url: url.into(), data: payload(body) });
    }

    fn write(&self, line: &Line<'_>) {
        line.write(&mut self.waiting().lines);
    }

    /// A connection's name in the file. They begin at 0 with each recorder, which first ends those of the one before.
    fn name(&self, conn: Conn) -> Cow<'static, str> {
        Cow::Owned(match self.number {
            1 => format!("ws{}", conn.0),
            number => format!("ws{number}.{}", conn.0),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Whole lines are written under it, by code that does not panic.
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When [`Tap::flush_due`] has something to do.
    pub(crate) fn flush_at(&self) -> Instant {
        self.waiting().flush_at
    }

    /// Has what is due written to the disk, and goes on; waits only where too much would come together.
    pub(crate) async fn flush_due(&mut self) -> Result<(), IngestError> {
        let is_full = {
            let waiting = self.waiting();
            let is_full = waiting.lines.len() >= FLUSH_BYTES;
            if !is_full && Instant::now() < waiting.flush_at {
                return Ok(());
            }
            is_full
        };
        let mut writer = self.shared.writer.lock().await;
        if is_full || writer.flushing.as_ref().is_some_and(JoinHandle::is_finished) {
            writer.flushed().await?;
        }
        let spare = std::mem::take(&mut writer.spare);
        let (lines, file) = {
            let mut waiting = self.waiting();
            waiting.flush_at = Instant::now() + self.shared.every;
            let file = if waiting.lines.is_empty() { None } else { writer.file.take() };
            match file {
                Some(file) => (std::mem::replace(&mut waiting.lines, spare), file),
                None => {
                    writer.spare = spare;
                    return Ok(());
                }
            }
        };
        writer.flushing = Some(tokio::task::spawn_blocking(move || {
            let mut file = file;
            let written = file.append(&lines, now());
            (file, lines, written)
        }));
        Ok(())
    }

    /// Writes everything to the disk, and waits for it.
    pub(crate) async fn flush(&mut self) -> Result<(), IngestError> {
        self.shared.writer.lock().await.flushed().await?;
        self.waiting().flush_at = Instant::now();
        self.flush_due().await?;
        self.shared.writer.lock().await.flushed().await
    }
}

impl Writer {
    /// Waits until the flush that is under way has ended.
    async fn flushed(&mut self) -> Result<(), IngestError> {
        let Some(flushing) = self.flushing.take() else { return Ok(()) };
        let (file, mut lines, written) = flushing.await.map_err(|why| unwritable(&self.folder, &why))?;
        self.file = Some(file);
        lines.clear();
        self.spare = lines;
        written.map_err(|why| unwritable(&self.folder, &why))
    }
}

fn unwritable(folder: &std::path::Path, why: &dyn std::error::Error) -> IngestError {
    IngestError::Unwritable { path: folder.to_owned(), why: why.to_string() }
}

/// Text where it is text: a binary frame that holds text decodes the same.
fn payload(bytes: &[u8]) -> Payload<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Payload::Text(text.into()),
        Err(_) => Payload::Binary(bytes.into()),
    }
}
