//! Faults on purpose: what happens to some of the frames of market data. Seeded, so that a run can be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

use super::{Said, Session};

/// What is done to a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum InjectionKind {
    /// It is not sent.
    Drop,
    /// It is sent twice.
    Double,
    /// It is sent after the one that follows it, or after so many that do.
    Reorder,
    /// One of its bytes becomes one that JSON does not allow.
    Corrupt,
    /// One of its digits becomes another one: only a checksum can tell, and not all are covered by one.
    Alter,
    /// Nothing more is sent to those who were to get it; the connections stay open.
    Stall,
    /// It is not sent, and the connections of those who were to get it end.
    Disconnect,
}

impl InjectionKind {
    /// Every kind.
    pub const ALL: [InjectionKind; 7] = [
        InjectionKind::Drop,
        InjectionKind::Double,
        InjectionKind::Reorder,
        InjectionKind::Corrupt,
        InjectionKind::Alter,
        InjectionKind::Stall,
        InjectionKind::Disconnect,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            InjectionKind::Drop => "drop",
            InjectionKind::Double => "double",
            InjectionKind::Reorder => "reorder",
            InjectionKind::Corrupt => "corrupt",
            InjectionKind::Alter => "alter",
            InjectionKind::Stall => "stall",
            InjectionKind::Disconnect => "disconnect",
        }
    }
}

/// Which frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// The one of this number, from 1.
    At(u64),
    /// One of so many, on average.
    OneIn(u64),
}

/// One fault, as text `drop:17` (the 17th frame of market data) or `drop:1/500` (one of 500, on average). `reorder:17+12` is
/// sent after the twelve that follow it: where books of several instruments take turns, the next frame of the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    kind: InjectionKind,
    when: When,
    /// After how many more it is sent; for [`InjectionKind::Reorder`].
    late: u64,
}

/// Text that is no [`Injection`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InjectionError(String);

impl fmt::Display for InjectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = InjectionKind::ALL.map(InjectionKind::as_str).join(", ");
        write!(f, "`{}`: expected a fault such as drop:17 or drop:1/500; the faults are {kinds}", self.0)
    }
}

impl std::error::Error for InjectionError {}

impl FromStr for InjectionKind {
    type Err = InjectionError;

    fn from_str(text: &str) -> Result<Self, InjectionError> {
        let wrong = || InjectionError(text.chars().take(64).collect());
        InjectionKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(wrong)
    }
}

impl FromStr for Injection {
    type Err = InjectionError;

    fn from_str(text: &str) -> Result<Self, InjectionError> {
        let wrong = || InjectionError(text.chars().take(64).collect());
        let (kind, when) = text.split_once(':').ok_or_else(wrong)?;
        let kind = kind.parse().map_err(|_| wrong())?;
        let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(wrong);
        let (when, late) = match when.split_once('+') {
            Some((when, late)) if kind == InjectionKind::Reorder => (when, number(late)?),
            Some(_) => return Err(wrong()),
            None => (when, 1),
        };
        let when = match when.strip_prefix("1/") {
            Some(of) => When::OneIn(number(of)?),
            None => When::At(number(when)?),
        };
        Ok(Self { kind, when, late })
    }
}

#[derive(Debug)]
pub(super) struct Faults {
    injections: Vec<Injection>,
    next: Option<InjectionKind>,
    rng: Rng,
    frames: u64,
    /// Messages that wait for a frame of this number, after which they are sent.
    held: Vec<(u64, Vec<Said>)>,
    done: BTreeMap<&'static str, u64>,
}

impl Faults {
    pub(super) fn new(injections: Vec<Injection>, seed: u64) -> Self {
        let rng = Rng::with_seed(seed);
        Self { injections, next: None, rng, frames: 0, held: Vec::new(), done: BTreeMap::new() }
    }

    pub(super) fn inject(&mut self, kind: InjectionKind) {
        self.next = Some(kind);
    }

    pub(super) fn counts(&self) -> (u64, &BTreeMap<&'static str, u64>) {
        (self.frames, &self.done)
    }

    /// Passes on what a frame of market data became, or what is made of that.
    pub(super) fn pass(&mut self, told: Vec<Said>, said: &mut Vec<Said>) {
        self.frames += 1;
        let mut hit = self.next.take().map(|kind| (kind, 1));
        for injection in &self.injections {
            // Every injection draws, so that one does not change what another one does.
            let hits = match injection.when {
                When::At(number) => number == self.frames,
                When::OneIn(of) => self.rng.u64(..of) == 0,
            };
            hit = hit.or(hits.then_some((injection.kind, injection.late)));
        }
        if let Some((kind, _)) = hit {
            *self.done.entry(kind.as_str()).or_default() += 1;
        }
        match hit {
            None => said.extend(told),
            Some((InjectionKind::Drop, _)) => {}
            // Each by itself: what goes with a frame is a frame of its own.
            Some((InjectionKind::Double, _)) => said.extend(told.into_iter().flat_map(|s| [s.clone(), s])),
            Some((InjectionKind::Reorder, late)) => self.held.push((self.frames.saturating_add(late), told)),
            Some((InjectionKind::Corrupt, _)) => said.extend(told.into_iter().map(|s| self.spoil(s, corrupt))),
            Some((InjectionKind::Alter, _)) => said.extend(told.into_iter().map(|s| self.spoil(s, alter))),
            Some((InjectionKind::Stall, _)) => said.extend(sessions(&told).map(Said::Stall)),
            Some((InjectionKind::Disconnect, _)) => said.extend(sessions(&told).map(Said::Close)),
        }
        let frames = self.frames;
        said.extend(self.held.extract_if(.., |(after, _)| *after <= frames).flat_map(|(_, told)| told));
    }

    fn spoil(&mut self, said: Said, how: fn(&mut Rng, Vec<u8>) -> Vec<u8>) -> Said {
        match said {
            Said::Text(session, text) => {
                let bytes = how(&mut self.rng, text.into_bytes());
                Said::Text(session, String::from_utf8_lossy(&bytes).into_owned())
            }
            other => other,
        }
    }
}

/// Each of those who were to get something, once.
fn sessions(told: &[Said]) -> impl Iterator<Item = Session> {
    let of = |said: &Said| match said {
        Said::Text(session, _) => Some(*session),
        _ => None,
    };
    told.iter().filter_map(of).collect::<BTreeSet<Session>>().into_iter()
}

fn corrupt(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.is_empty() {
        let at = rng.usize(..bytes.len());
        bytes[at] = 0x01;
    }
    bytes
}

fn alter(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
    if !digits.is_empty() {
        let at = digits[rng.usize(..digits.len())];
        // Never 0: a number must not begin with one.
        let other = b'1' + rng.u8(..8);
        bytes[at] = if other >= bytes[at] { other + 1 } else { other };
    }
    bytes
}
