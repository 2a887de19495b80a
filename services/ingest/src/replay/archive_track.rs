//! What is played of the archives of one venue.

use std::path::PathBuf;
use std::sync::Arc;

use ticker_feeds::archive::Archive;
use ticker_feeds::{Fault, Out, Report};
use ticker_market::Time;
use tokio::sync::mpsc;

use super::archives::{self, ArchiveGroup, Kind};
use super::{Range, now};
use crate::IngestError;
use crate::feed::{Feed, Gone};
use crate::log_limit::LogLimit;
use crate::{progress, venue};

/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;

/// Why instruments are closed at the end of a file that is not the last.
const FILE_ENDED: &str = "recording_ended";

/// What is read.
enum Item {
    /// A file begins.
    File(PathBuf, Kind),
    Bytes(Vec<u8>),
    /// The file ends; with what was wrong, if it should not have.
    End(Option<String>),
}

pub(super) struct ArchiveTrack {
    venue: String,
    feed: Feed,
    progress: Arc<progress::Source>,
    range: Range,
    /// What was read so far lies before the range.
    is_before: bool,
    /// What comes now lies after it.
    is_past: bool,
    items: mpsc::Receiver<Item>,
    archive: Option<Box<dyn Archive>>,
    /// The time of the record in `out`, which is played next; `None` at the end.
    next: Option<Option<Time>>,
    /// The file has ended.
    is_read: bool,
    /// Nothing more of the file is decoded: only its state is kept, to be told again.
    is_over: bool,
    file: PathBuf,
    files: usize,
    files_begun: usize,
    last_at: Option<Time>,
    log: LogLimit,
    out: Out,
}

impl ArchiveTrack {
    pub(super) fn new(
        group: &ArchiveGroup,
        range: Range,
        feed: Feed,
        progress: Arc<progress::Source>,
    ) -> Result<Self, IngestError> {
        Ok(Self {
            venue: group.venue.clone(),
            feed,
            progress,
            range,
            is_before: range.from.is_some(),
            is_past: false,
            items: read(group)?,
            archive: None,
            next: None,
            is_read: false,
            is_over: false,
            file: PathBuf::new(),
            files: group.files.len(),
            files_begun: 0,
            last_at: None,
            log: LogLimit::new(std::time::Instant::now()),
            out: Out::default(),
        })
    }

    /// Everything from its beginning.
    pub(super) fn begin_again(&mut self, group: &ArchiveGroup) -> Result<(), IngestError> {
        self.items = read(group)?;
        self.archive = None;
        self.files_begun = 0;
        (self.is_before, self.is_past) = (self.range.from.is_some(), false);
        Ok(())
    }

    pub(super) fn venue(&self) -> &str {
        &self.venue
    }

    /// When the next record was recorded, if there is one and it has a time.
    pub(super) fn next_ts(&self) -> Option<Option<Time>> {
        self.next
    }

    /// Finds the next record that tells something. At the end every instrument is closed, for the reason `ending`.
    pub(super) async fn advance(&mut self, ending: &str) -> Result<(), Gone> {
        loop {
            if let Some(archive) = self.archive.as_mut().filter(|_| !self.is_over) {
                match archive.next(&mut self.out) {
                    Ok(Some(_)) if self.out.updates.is_empty() && self.out.instruments.is_empty() => {
                        self.tell_reports();
                        continue;
                    }
                    Ok(Some(at)) => {
                        // Zero is where the file gives none.
                        let at = Some(at).filter(|at| at.0 != 0);
                        if self.range.to.zip(at).is_some_and(|(to, at)| at > to) {
                            self.out.clear();
                            self.pass_by(ending).await?;
                            continue;
                        }
                        if self.is_before && self.range.from.zip(at).is_none_or(|(from, at)| at < from) {
                            // Read for the state that it makes.
                            self.tell_reports();
                            self.out.clear();
                            continue;
                        }
                        if std::mem::take(&mut self.is_before) {
                            self.state_first(at.unwrap_or_else(now));
                        }
                        self.next = Some(at);
                        return Ok(());
                    }
                    Ok(None) if self.is_read => self.close(ending).await?,
                    Ok(None) => {}
                    Err(why) => {
                        // What comes after this cannot be found: the file ends here.
                        self.wrong(&why.to_string());
                        self.close(ending).await?;
                    }
                }
            }
            match self.items.recv().await {
                Some(Item::File(..)) if self.is_past => {}
                Some(Item::File(path, kind)) => self.begin(path, &kind),
                Some(Item::Bytes(bytes)) => {
                    if let Some(archive) = self.archive.as_mut().filter(|_| !self.is_over) {
                        archive.push(&bytes);
                    }
                }
                Some(Item::End(why)) => {
                    self.is_read = true;
                    let archive = self.archive.as_mut().filter(|_| !self.is_over);
                    let finished = archive.map_or(Ok(()), |archive| archive.finish());
                    if let Some(why) = why.or(finished.err().map(|why| why.to_string())) {
                        self.wrong(&why);
                    }
                }
                None if self.is_before => {
                    tracing::warn!(venue = self.venue, "the file ends before the time to begin at: nothing is told");
                    self.progress.set(false, "the file ends before the time to begin at");
                    return Ok(());
                }
                None => {
                    self.progress.set(false, "the replay has ended");
                    tracing::info!(venue = self.venue, ending, "the replay has ended");
                    return self.settle().await;
                }
            }
        }
    }

    /// Plays the record that was found, as something that happens at `at`.
    pub(super) async fn play(&mut self, at: Time, shift_nanos: i64) -> Result<(), Gone> {
        self.next = None;
        self.last_at = Some(at);
        for update in &mut self.out.updates {
            update.recv = at;
            update.ts = update.ts.map(|ts| ts.plus_nanos(shift_nanos));
        }
        self.settle().await
    }

    pub(super) async fn retell_wanted(&mut self) -> Result<(), Gone> {
        self.feed.retell_wanted().await
    }

    pub(super) async fn retell_if_wanted(&mut self) -> Result<(), Gone> {
        if !self.feed.is_retell_wanted() {
            return Ok(());
        }
        self.feed.retelling();
        if self.is_before {
            return Ok(());
        }
        let mut state = Out::default();
        if let Some(archive) = &self.archive {
            archive.retell(self.last_at.unwrap_or_else(now), &mut state);
        }
        // What was decoded already and is not played yet is part of it, and comes once more with its record: levels are
        // absolute, so that it does no harm.
        self.feed.publish(&mut state).await
    }

    fn begin(&mut self, path: PathBuf, kind: &Kind) {
        self.feed.forget_numbers();
        self.files_begun += 1;
        (self.is_read, self.is_over) = (false, false);
        self.file = path;
        match kind.decoder() {
            Ok(archive) => self.archive = Some(archive),
            Err(why) => {
                self.archive = None;
                self.wrong(&why);
            }
        }
        let name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tracing::info!(venue = self.venue, file = name, "playing");
        self.progress.set(true, format!("playing {name} ({} of {})", self.files_begun, self.files));
    }

    /// The state before the record in `out`, with which the range begins. What the record says is part of it, and comes
    /// once more with it: levels are absolute, so that it does no harm.
    fn state_first(&mut self, at: Time) {
        let mut state = Out::default();
        if let Some(archive) = &self.archive {
            archive.retell(at, &mut state);
        }
        state.updates.append(&mut self.out.updates);
        state.instruments.append(&mut self.out.instruments);
        (self.out.updates, self.out.instruments) = (state.updates, state.instruments);
    }

    /// The range is over: of this file, and of those after it.
    async fn pass_by(&mut self, ending: &str) -> Result<(), Gone> {
        self.is_past = true;
        self.files_begun = self.files;
        self.items.close();
        self.close(ending).await
    }

    /// The file is over.
    async fn close(&mut self, ending: &str) -> Result<(), Gone> {
        let is_last = self.files_begun == self.files;
        if let Some(archive) = &mut self.archive {
            archive.end(if is_last { ending } else { FILE_ENDED }, self.last_at.unwrap_or_else(now), &mut self.out);
        }
        if self.is_before {
            // Nothing of it was told.
            self.out.clear();
        }
        self.settle().await?;
        self.is_over = true;
        Ok(())
    }

    fn wrong(&mut self, why: &str) {
        let detail = format!("{}: {why}", self.file.display());
        self.out.reports.push(Report { fault: Fault::Undecodable, native: None, detail });
        self.tell_reports();
    }

    fn tell_reports(&mut self) {
        for report in self.out.reports.drain(..) {
            venue::tell(&self.venue, &report, &mut self.log);
        }
    }

    async fn settle(&mut self) -> Result<(), Gone> {
        self.tell_reports();
        self.out.commands.clear();
        self.feed.publish(&mut self.out).await
    }
}

/// Reads these files, one after the other, in a thread: decompressing blocks, and takes time. It ends with the files, or
/// when the receiver is gone.
fn read(group: &ArchiveGroup) -> Result<mpsc::Receiver<Item>, IngestError> {
    let (items, reading) = mpsc::channel(CHUNKS_AHEAD);
    let files = group.files.clone();
    let body = move || {
        for (path, kind) in files {
            if read_file(path, kind, &items).is_none() {
                return;
            }
        }
    };
    let name = format!("read-{}", group.venue);
    std::thread::Builder::new().name(name).spawn(body).map_err(IngestError::Thread)?;
    Ok(reading)
}

fn read_file(path: PathBuf, kind: Kind, items: &mpsc::Sender<Item>) -> Option<()> {
    let opened = archives::open(&path);
    items.blocking_send(Item::File(path, kind)).ok()?;
    let mut reader = match opened {
        Ok(reader) => reader,
        Err(why) => return items.blocking_send(Item::End(Some(why.to_string()))).ok(),
    };
    loop {
        match archives::read_chunk(&mut reader) {
            Ok(bytes) if bytes.is_empty() => return items.blocking_send(Item::End(None)).ok(),
            Ok(bytes) => items.blocking_send(Item::Bytes(bytes)).ok()?,
            Err(why) => return items.blocking_send(Item::End(Some(why.to_string()))).ok(),
        }
    }
}
