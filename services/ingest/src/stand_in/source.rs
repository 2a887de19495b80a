//! What is played: the lines of recordings at their pace, or the synthetic market as its venue would tell it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use ticker_feeds::Out;
use ticker_feeds::recording::Line;
use ticker_feeds::stand_in::StandIn;
use ticker_feeds::synthetic::Synthetic;
use ticker_market::Time;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::IngestError;
use crate::config::{Speed, SyntheticConfig};
use crate::replay::files::{self, Group};
use crate::replay::pace::Pace;
use crate::replay::reader::{self, Item};
use crate::venue::now;

/// How often the synthetic market moves on.
const STEP: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) enum Played {
    Recording(Group),
    Synthetic(SyntheticConfig),
}

/// What is played, one line after the other.
#[derive(Debug)]
pub(super) struct Source {
    kind: Kind,
    /// The next line, and when it is due; `None` for at once.
    next: Option<(Line<'static>, Option<Instant>)>,
}

#[derive(Debug)]
enum Kind {
    Recording(Recording),
    Synthetic(Box<Market>),
}

#[derive(Debug)]
struct Recording {
    group: Group,
    chunks: mpsc::Receiver<Vec<Item>>,
    chunk: VecDeque<Item>,
    speed: Speed,
    repeat: bool,
    pace: Pace,
}

#[derive(Debug)]
struct Market {
    market: Synthetic,
    /// By how much the market's time lies behind the clock: it stands still while nobody reads.
    lost_nanos: i64,
    time: Time,
    lines: VecDeque<Line<'static>>,
}

/// Something for the hub to do.
#[derive(Debug)]
pub(super) enum Next {
    Line(Line<'static>),
    /// The recording begins again.
    Again,
    /// It has ended.
    End,
}

/// Tells the stand-in what the recordings hold, before anything is played.
pub(super) fn look(paths: &[PathBuf], stand_in: &mut StandIn) -> Result<(), IngestError> {
    for path in paths {
        let failed = |why: std::io::Error| IngestError::Recording { path: path.clone(), why: why.to_string() };
        let mut reader = files::open(path).map_err(failed)?;
        let mut line = Vec::new();
        // What cannot be read is told when it is played.
        while let Ok(true) = files::read_line(&mut reader, &mut line) {
            if let Ok(line) = Line::parse(&line) {
                stand_in.look(&line);
            }
        }
    }
    Ok(())
}

impl Source {
    pub(super) fn new(played: Played, speed: Speed, repeat: bool, stand_in: &mut StandIn) -> Result<Self, IngestError> {
        let kind = match played {
            Played::Recording(group) => {
                let chunks = reader::read(&group.venue, group.files.clone())?;
                let (chunk, pace) = (VecDeque::new(), Pace::new(speed, false));
                Kind::Recording(Recording { group, chunks, chunk, speed, repeat, pace })
            }
            Played::Synthetic(SyntheticConfig { instruments, updates_per_second, seed }) => {
                let market = Synthetic::new(seed, instruments, updates_per_second);
                let mut market = Market { market, lost_nanos: 0, time: now(), lines: VecDeque::new() };
                market.advance(stand_in);
                Kind::Synthetic(Box::new(market))
            }
        };
        Ok(Self { kind, next: None })
    }

    /// Somebody reads again: the time in between did not pass.
    pub(super) fn go_on(&mut self) {
        match &mut self.kind {
            Kind::Recording(recording) => {
                recording.pace = Pace::new(recording.speed, false);
                if let Some((line, due)) = &mut self.next {
                    *due = recording.pace.turn(line.ts(), Instant::now(), now()).not_before;
                }
            }
            Kind::Synthetic(market) => market.lost_nanos = now().since(market.time),
        }
    }

    /// Waits for what is next. Whoever drops this future loses nothing.
    pub(super) async fn next(&mut self, stand_in: &mut StandIn) -> Next {
        let recording = match &mut self.kind {
            Kind::Recording(recording) => recording,
            Kind::Synthetic(market) => return Next::Line(market.next(stand_in).await),
        };
        while self.next.is_none() {
            match recording.chunk.pop_front() {
                Some(Item::Line(line)) => {
                    let due = recording.pace.turn(line.ts(), Instant::now(), now()).not_before;
                    self.next = Some((line, due));
                }
                Some(Item::File(path)) => tracing::info!(file = %path.display(), "playing"),
                Some(Item::Fault { line, why }) => tracing::warn!(line, why, "a line cannot be played"),
                None => match recording.chunks.recv().await {
                    Some(chunk) => recording.chunk = chunk.into(),
                    None if recording.repeat && recording.begin().is_ok() => return Next::Again,
                    None => return Next::End,
                },
            }
        }
        if let Some((_, Some(due))) = &self.next {
            sleep_until(*due).await;
        }
        match self.next.take() {
            Some((line, _)) => Next::Line(line),
            None => Next::End,
        }
    }
}

impl Recording {
    fn begin(&mut self) -> Result<(), IngestError> {
        self.chunks = reader::read(&self.group.venue, self.group.files.clone())?;
        self.chunk.clear();
        self.pace = Pace::new(self.speed, false);
        Ok(())
    }
}

impl Market {
    async fn next(&mut self, stand_in: &mut StandIn) -> Line<'static> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return line;
            }
            sleep(STEP).await;
            self.time = self.time.max(now().plus_nanos(-self.lost_nanos));
            self.advance(stand_in);
        }
    }

    fn advance(&mut self, stand_in: &mut StandIn) {
        let (mut out, mut lines) = (Out::default(), Vec::new());
        self.market.advance(self.time, &mut out);
        for update in &out.updates {
            if let Some(instrument) = self.market.instruments().get(update.instrument as usize) {
                stand_in.tell(update, instrument, &mut lines);
            }
        }
        self.lines.extend(lines);
    }
}
