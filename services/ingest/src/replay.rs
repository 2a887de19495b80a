//! Recordings, through the same decoders as live frames; and [`archives`], files of market data, by decoders of their own.
//!
//! The files of one venue are played one after the other, through one decoder; several venues are merged by the time at
//! which their frames were received. What an adapter asks for cannot be done here: the recording holds what was answered.

mod archive_track;
pub(crate) mod archives;
pub(crate) mod files;
pub(crate) mod pace;
pub(crate) mod reader;
mod source;
mod track;

use std::sync::Arc;

use ticker_market::Time;
use ticker_runtime::{Drain, clock};
use tokio::time::{Instant, sleep_until};

use self::archive_track::ArchiveTrack;
use self::archives::ArchiveGroup;
use self::files::Group;
use self::pace::Pace;
use self::source::Source;
use self::track::Track;
use crate::IngestError;
use crate::config::{ReplayConfig, Speed};
use crate::feed::{Feed, Gone};
use crate::progress;

/// Why instruments are closed at the end.
const ENDED: &str = "replay_ended";

/// Why instruments are closed before a replay begins again.
const REPEATED: &str = "replay_repeated";

/// After how many lines a replay looks for requests, where it never waits.
const LINES_BETWEEN_LOOKS: u32 = 64;

/// How recordings are played.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct How {
    speed: Speed,
    repeat: bool,
    shift: bool,
    range: Range,
    exit: bool,
}

/// What of the recordings and archives is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Range {
    pub(crate) from: Option<Time>,
    pub(crate) to: Option<Time>,
}

impl From<&ReplayConfig> for How {
    fn from(config: &ReplayConfig) -> Self {
        let range = Range { from: config.from.map(|m| m.0), to: config.to.map(|m| m.0) };
        let ReplayConfig { speed, repeat, shift_to_now: shift, exit, .. } = *config;
        Self { speed, repeat, shift, range, exit }
    }
}

/// Several recordings as one.
pub(crate) struct Replay {
    groups: Vec<Group>,
    archives: Vec<ArchiveGroup>,
    how: How,
    /// Those of `groups`, then those of `archives`.
    sources: Vec<Source>,
}

impl Replay {
    /// `feeds` has one for each group, in their order.
    pub(crate) fn new(
        groups: Vec<Group>,
        how: How,
        feeds: Vec<(Feed, Arc<progress::Source>)>,
    ) -> Result<Self, IngestError> {
        let tracks =
            groups.iter().zip(feeds).map(|(group, (feed, progress))| Track::new(group, how.range, feed, progress));
        let sources =
            tracks.map(|track| Ok(Source::Recording(Box::new(track?)))).collect::<Result<_, IngestError>>()?;
        Ok(Self { groups, archives: Vec::new(), how, sources })
    }

    /// With these archives beside the recordings; `feeds` has one for each, in their order.
    pub(crate) fn with_archives(
        mut self,
        archives: Vec<ArchiveGroup>,
        feeds: Vec<(Feed, Arc<progress::Source>)>,
    ) -> Result<Self, IngestError> {
        for (group, (feed, progress)) in archives.iter().zip(feeds) {
            self.sources.push(Source::Archive(Box::new(ArchiveTrack::new(group, self.how.range, feed, progress)?)));
        }
        self.archives = archives;
        Ok(self)
    }

    /// Plays, then stays to tell everything again to a fanout that asks, until the drain begins ([`ReplayConfig::exit`]:
    /// or does not).
    pub(crate) async fn run(mut self, drain: Drain) -> Result<(), IngestError> {
        loop {
            let played = self.play(&drain).await;
            if played.is_err() || drain.is_started() {
                break;
            }
            if self.how.repeat {
                let (mut groups, mut archives) = (self.groups.iter(), self.archives.iter());
                for source in &mut self.sources {
                    match source {
                        Source::Recording(track) => groups.next().map_or(Ok(()), |group| track.begin_again(group))?,
                        Source::Archive(track) => archives.next().map_or(Ok(()), |group| track.begin_again(group))?,
                    }
                }
                continue;
            }
            if self.how.exit {
                break;
            }
            let far = async {
                loop {
                    self.wait(Instant::now() + std::time::Duration::from_secs(3_600)).await?;
                }
            };
            tokio::select! {
                () = drain.started() => break,
                gone = far => { let _gone: Result<(), Gone> = gone; break }
            }
        }
        Ok(())
    }

    /// Plays everything once, or until the drain begins.
    async fn play(&mut self, drain: &Drain) -> Result<(), Gone> {
        let mut pace = Pace::new(self.how.speed, self.how.shift);
        let ending = if self.how.repeat { REPEATED } else { ENDED };
        for source in &mut self.sources {
            source.advance(ending).await?;
        }
        let mut lines = 0u32;
        while let Some((at, ts)) = self.next() {
            let turn = pace.turn(ts, Instant::now(), now());
            if let Some(left_out) = turn.left_out {
                tracing::info!(
                    venue = self.sources[at].venue(),
                    ?left_out,
                    "a break in the recording: going on at once"
                );
            }
            if let Some(not_before) = turn.not_before.filter(|t| *t > Instant::now()) {
                tokio::select! {
                    () = drain.started() => {}
                    waited = self.wait(not_before) => waited?,
                }
            }
            lines = lines.wrapping_add(1);
            if lines.is_multiple_of(LINES_BETWEEN_LOOKS) {
                self.retell_if_wanted().await?;
            }
            if drain.is_started() {
                break;
            }
            self.sources[at].play(turn.at, turn.shift_nanos, ending).await?;
        }
        Ok(())
    }

    /// Whose turn it is, and the time of what is next of all. What has none goes first: it is played at once.
    fn next(&self) -> Option<(usize, Option<Time>)> {
        (0..self.sources.len()).filter_map(|i| Some((self.sources[i].next_ts()?, i))).min().map(|(ts, i)| (i, ts))
    }

    /// Waits until then, and meanwhile tells everything again when that is asked for.
    async fn wait(&mut self, until: Instant) -> Result<(), Gone> {
        loop {
            let Some(first) = self.sources.first_mut() else { return Ok(()) };
            tokio::select! {
                biased;
                // One request is for all sources.
                wanted = first.retell_wanted() => wanted?,
                () = sleep_until(until) => return Ok(()),
            }
            self.retell_if_wanted().await?;
        }
    }

    async fn retell_if_wanted(&mut self) -> Result<(), Gone> {
        for source in &mut self.sources {
            source.retell_if_wanted().await?;
        }
        Ok(())
    }
}

fn now() -> Time {
    Time(clock::now_nanos())
}

#[cfg(test)]
#[path = "replay/archive_tests.rs"]
mod archive_tests;
#[cfg(test)]
#[path = "replay/tests.rs"]
mod tests;
