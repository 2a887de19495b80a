//! What is played of one venue.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use ticker_feeds::keeper::AWAITING_SNAPSHOT;
use ticker_feeds::recording::{CONNECTIONS_MAX, Line, Player};
use ticker_feeds::{Fault, Out, Report, Update};
use ticker_market::{Channel, Data, Kind, Time};
use tokio::sync::mpsc;

use super::files::Group;
use super::reader::{self, Item};
use super::{Range, now};
use crate::IngestError;
use crate::feed::{Feed, Gone};
use crate::log_limit::LogLimit;
use crate::passed_over::PassedOver;
use crate::{progress, venue};

/// Two files whose times lie further apart are not one recording: connections do not go on from one to the other.
const CONTINUES_MAX_NANOS: i64 = 5_000_000_000;

/// Why connections are closed at the end of their file.
const FILE_ENDED: &str = "recording_ended";

/// Books that are named at the end because they never had a snapshot, at most.
const NAMED_MAX: usize = 50;

pub(super) struct Track {
    venue: String,
    player: Player,
    feed: Feed,
    progress: Arc<progress::Source>,
    chunks: mpsc::Receiver<Vec<Item>>,
    chunk: VecDeque<Item>,
    /// The next line; `None` at the end.
    next: Option<Line<'static>>,
    file: Arc<PathBuf>,
    files: usize,
    files_begun: usize,
    range: Range,
    /// What was read so far lies before the range.
    is_before: bool,
    /// The state at the beginning of the range is still to be told.
    state_due: bool,
    /// A file has begun, and the connections of the one before may still be open.
    at_seam: bool,
    conns: HashSet<String>,
    last_recorded: Option<Time>,
    /// When the last line happened, for the adapter.
    last_at: Option<Time>,
    log: LogLimit,
    passed_over: PassedOver,
    /// The instruments whose book was told from a snapshot on, by their numbers.
    whole: HashSet<u32>,
    out: Out,
}

impl Track {
    pub(super) fn new(
        group: &Group,
        range: Range,
        feed: Feed,
        progress: Arc<progress::Source>,
    ) -> Result<Self, IngestError> {
        Ok(Self {
            venue: group.venue.clone(),
            player: player(group)?,
            feed,
            progress,
            chunks: reader::read(&group.venue, group.files.clone())?,
            chunk: VecDeque::new(),
            next: None,
            file: Arc::default(),
            files: group.files.len(),
            files_begun: 0,
            range,
            is_before: range.from.is_some(),
            state_due: false,
            at_seam: false,
            conns: HashSet::new(),
            last_recorded: None,
            last_at: None,
            log: LogLimit::new(std::time::Instant::now()),
            passed_over: PassedOver::new(&group.venue),
            whole: HashSet::new(),
            out: Out::default(),
        })
    }

    /// Everything from its beginning, with an adapter that knows nothing.
    pub(super) fn begin_again(&mut self, group: &Group) -> Result<(), IngestError> {
        self.player = player(group)?;
        self.feed.forget_numbers();
        self.chunks = reader::read(&group.venue, group.files.clone())?;
        self.chunk.clear();
        self.conns.clear();
        self.whole.clear();
        self.passed_over.clear();
        (self.files_begun, self.at_seam, self.last_recorded) = (0, false, None);
        (self.is_before, self.state_due) = (self.range.from.is_some(), false);
        Ok(())
    }

    pub(super) fn venue(&self) -> &str {
        &self.venue
    }

    /// The next line, if there is one.
    pub(super) fn peek(&self) -> Option<&Line<'static>> {
        self.next.as_ref()
    }

    /// Takes the next line; [`Track::advance`] finds the one after it.
    pub(super) fn take(&mut self) -> Option<Line<'static>> {
        self.next.take()
    }

    /// Finds the next line. At the end every instrument is closed, for the reason `ending`.
    pub(super) async fn advance(&mut self, ending: &str) -> Result<(), Gone> {
        loop {
            let Some(item) = self.chunk.pop_front() else {
                match self.chunks.recv().await {
                    Some(chunk) => self.chunk = chunk.into(),
                    None => return self.finish(ending).await,
                }
                continue;
            };
            match item {
                Item::Line(line) => {
                    if self.range.to.zip(line.ts()).is_some_and(|(to, ts)| ts > to) {
                        self.chunks.close();
                        self.chunk.clear();
                        return self.finish(ending).await;
                    }
                    if self.is_before && self.range.from.zip(line.ts()).is_none_or(|(from, ts)| ts < from) {
                        // Read for the state that it makes.
                        let at = line.ts().or(self.last_at).unwrap_or(Time(0));
                        self.take_in(&line, at);
                        self.out.clear();
                        continue;
                    }
                    self.state_due |= std::mem::take(&mut self.is_before);
                    self.next = Some(line);
                    return Ok(());
                }
                Item::File(file) => {
                    self.file = file;
                    self.files_begun += 1;
                    self.at_seam = self.files_begun > 1;
                    let name = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    tracing::info!(venue = self.venue, file = name, "playing");
                    self.progress.set(true, format!("playing {name} ({} of {})", self.files_begun, self.files));
                }
                Item::Fault { line, why } => {
                    let detail = format!("{}, line {line}: {why}", self.file.display());
                    let report = Report { fault: Fault::Undecodable, native: None, detail };
                    venue::tell(&self.venue, &report, &mut self.log);
                }
            }
        }
    }

    /// Plays a line as something that happens at `at`.
    pub(super) async fn play(&mut self, line: &Line<'_>, at: Time, shift_nanos: i64) -> Result<(), Gone> {
        if std::mem::take(&mut self.state_due) {
            self.player.adapter().retell(at, &mut self.out);
        }
        self.take_in(line, at);
        // The venue's clock is moved with ours, so that the distance between the two stays as it was recorded.
        for update in &mut self.out.updates {
            update.ts = update.ts.map(|ts| ts.plus_nanos(shift_nanos));
        }
        self.settle().await
    }

    fn take_in(&mut self, line: &Line<'_>, at: Time) {
        if self.at_seam && !matches!(line, Line::Header { .. }) {
            self.at_seam = false;
            let apart = line.ts().zip(self.last_recorded).map(|(ts, last)| ts.since(last));
            if !apart.is_some_and(|nanos| (0..=CONTINUES_MAX_NANOS).contains(&nanos)) {
                self.close_all(at);
            }
        }
        self.last_recorded = line.ts().or(self.last_recorded);
        self.last_at = Some(at);
        match line {
            Line::Connect { conn, .. } | Line::Recv { conn, .. }
                if self.conns.len() < CONNECTIONS_MAX && !self.conns.contains(&**conn) =>
            {
                self.conns.insert(conn.to_string());
            }
            Line::Disconnect { conn, .. } => _ = self.conns.remove(&**conn),
            _ => {}
        }
        self.feed_line(line, at);
    }

    pub(super) async fn retell_wanted(&mut self) -> Result<(), Gone> {
        self.feed.retell_wanted().await
    }

    pub(super) async fn retell_if_wanted(&mut self) -> Result<(), Gone> {
        if !self.feed.is_retell_wanted() {
            return Ok(());
        }
        self.feed.retelling();
        self.player.adapter().retell(self.last_at.unwrap_or_else(now), &mut self.out);
        self.settle().await
    }

    /// Connections of another day's recording say nothing about this one's.
    fn close_all(&mut self, at: Time) {
        for conn in std::mem::take(&mut self.conns) {
            let line = Line::Disconnect { ts: None, conn: conn.into(), reason: Some(FILE_ENDED.into()) };
            self.feed_line(&line, at);
        }
    }

    fn feed_line(&mut self, line: &Line<'_>, at: Time) {
        if let Err(why) = self.player.feed(line, at, &mut self.out) {
            let detail = format!("{}: {why}", self.file.display());
            self.out.reports.push(Report { fault: Fault::Undecodable, native: None, detail });
        }
    }

    async fn finish(&mut self, ending: &str) -> Result<(), Gone> {
        if self.is_before {
            tracing::warn!(venue = self.venue, "the recording ends before the time to begin at: nothing is told");
            self.progress.set(false, "the recording ends before the time to begin at");
            return Ok(());
        }
        let at = self.last_at.unwrap_or_else(now);
        let never = self.never_whole(at);
        self.player.adapter_mut().end(ending, at, &mut self.out);
        self.progress.set(false, "the replay has ended");
        let passed_over = self.passed_over.told();
        tracing::info!(venue = self.venue, ending, passed_over, "the replay has ended");
        if !never.is_empty() {
            let (count, left_out) = (never.len(), never.len().saturating_sub(NAMED_MAX));
            let books = never[..count - left_out].join(", ");
            tracing::warn!(venue = self.venue, books, left_out, "books that never had a snapshot were not told");
        }
        self.settle().await
    }

    /// The instruments of whose books changes came, and never a snapshot.
    fn never_whole(&self, at: Time) -> Vec<String> {
        let mut out = Out::default();
        self.player.adapter().retell(at, &mut out);
        let awaits = |update: &Update| match &update.data {
            Data::Status(status) => status.reason.as_deref() == Some(AWAITING_SNAPSHOT),
            _ => false,
        };
        let never = out.updates.iter().filter(|u| awaits(u) && !self.whole.contains(&u.instrument));
        let names: BTreeMap<u32, &str> = out.instruments.iter().map(|(n, i)| (*n, i.symbol.as_str())).collect();
        never.filter_map(|u| names.get(&u.instrument)).map(|name| (*name).to_owned()).collect()
    }

    async fn settle(&mut self) -> Result<(), Gone> {
        for report in self.out.reports.drain(..) {
            venue::tell(&self.venue, &report, &mut self.log);
        }
        self.passed_over.take(&mut self.out);
        let begins =
            |u: &&Update| u.channel == Channel::Book && u.kind == Kind::Snapshot && matches!(u.data, Data::Book(_));
        self.whole.extend(self.out.updates.iter().filter(begins).map(|u| u.instrument));
        // A replay cannot ask anything of the venue.
        self.out.commands.clear();
        self.feed.publish(&mut self.out).await
    }
}

fn player(group: &Group) -> Result<Player, IngestError> {
    let unknown = || IngestError::UnknownVenue { venue: group.venue.clone() };
    Ok(Player::new(ticker_feeds::adapter(&group.venue, &[]).ok_or_else(unknown)?))
}
