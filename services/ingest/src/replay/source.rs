//! One of the sources that a replay merges.

use ticker_market::Time;

use super::archive_track::ArchiveTrack;
use super::track::Track;
use crate::feed::Gone;

/// What is played of one venue: recordings of frames, or files that hold market data by themselves.
pub(super) enum Source {
    Recording(Box<Track>),
    Archive(Box<ArchiveTrack>),
}

impl Source {
    pub(super) fn venue(&self) -> &str {
        match self {
            Source::Recording(track) => track.venue(),
            Source::Archive(track) => track.venue(),
        }
    }

    /// When what comes next was recorded, if anything comes and it has a time.
    pub(super) fn next_ts(&self) -> Option<Option<Time>> {
        match self {
            Source::Recording(track) => track.peek().map(|line| line.ts()),
            Source::Archive(track) => track.next_ts(),
        }
    }

    /// Plays what comes next, as something that happens at `at`, and finds what comes after it. At the end every
    /// instrument is closed, for the reason `ending`.
    pub(super) async fn play(&mut self, at: Time, shift_nanos: i64, ending: &str) -> Result<(), Gone> {
        match self {
            Source::Recording(track) => {
                if let Some(line) = track.take() {
                    track.play(&line, at, shift_nanos).await?;
                }
            }
            Source::Archive(track) => track.play(at, shift_nanos).await?,
        }
        self.advance(ending).await
    }

    pub(super) async fn advance(&mut self, ending: &str) -> Result<(), Gone> {
        match self {
            Source::Recording(track) => track.advance(ending).await,
            Source::Archive(track) => track.advance(ending).await,
        }
    }

    pub(super) async fn retell_wanted(&mut self) -> Result<(), Gone> {
        match self {
            Source::Recording(track) => track.retell_wanted().await,
            Source::Archive(track) => track.retell_wanted().await,
        }
    }

    pub(super) async fn retell_if_wanted(&mut self) -> Result<(), Gone> {
        match self {
            Source::Recording(track) => track.retell_if_wanted().await,
            Source::Archive(track) => track.retell_if_wanted().await,
        }
    }
}
