//! Places on the tape: epoch, sequence number, cursor.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;

/// The name of one life of a tape: 1 to 16 of `a-z0-9`. A new epoch begins when older sequence numbers no longer mean
/// anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Epoch(CompactString);

/// Longest name of an epoch.
pub const EPOCH_CHARS_MAX: usize = 16;

impl Epoch {
    /// An epoch of that name.
    pub fn new(name: &str) -> Result<Self, CursorError> {
        let ok = (1..=EPOCH_CHARS_MAX).contains(&name.len())
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if ok { Ok(Self(name.into())) } else { Err(CursorError(name.chars().take(64).collect())) }
    }

    /// An epoch named after a number (base 36), such as seconds since 1970 followed by random bits.
    pub fn from_number(mut n: u64) -> Self {
        let mut text = [b'0'; 13];
        let mut at = text.len();
        loop {
            at -= 1;
            text[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(n % 36) as usize];
            n /= 36;
            if n == 0 {
                break;
            }
        }
        Self(std::str::from_utf8(&text[at..]).expect("base 36 is ASCII").into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place on a tape, as text `<epoch>-<seq>`: everything up to and including `seq` has been seen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// The tape's life.
    pub epoch: Epoch,
    /// The last sequence number that has been seen.
    pub seq: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// Not a cursor.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not a cursor: expected `<epoch>-<seq>` as a server gave it, such as `k3f9-184460`, or `earliest`")]
pub struct CursorError(String);

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let wrong = || CursorError(text.chars().take(64).collect());
        let (epoch, seq) = text.split_once('-').ok_or_else(wrong)?;
        if seq.is_empty() || !seq.bytes().all(|c| c.is_ascii_digit()) {
            return Err(wrong());
        }
        Ok(Self { epoch: Epoch::new(epoch).map_err(|_| wrong())?, seq: seq.parse().map_err(|_| wrong())? })
    }
}

/// Where a reader wants to go on from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum From {
    /// With everything that the tape still holds (`earliest`).
    Earliest,
    /// With what comes after that cursor.
    After(Cursor),
}

impl FromStr for From {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text == "earliest" { Ok(Self::Earliest) } else { text.parse().map(Self::After) }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::After(cursor) => cursor.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_as_written() {
        let cursor: Cursor = "k3f9-184460".parse().expect("a cursor");
        assert_eq!((cursor.epoch.as_str(), cursor.seq), ("k3f9", 184_460));
        assert_eq!(cursor.to_string(), "k3f9-184460");
        assert_eq!("earliest".parse(), Ok(From::Earliest));
        for bad in
            ["", "-", "k3f9", "k3f9-", "-1", "K3F9-1", "k3f9-1-2", "k3f9-+1", "k3f9-99999999999999999999999", "a b-1"]
        {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn epochs_from_numbers_are_short_and_valid() {
        for n in [0, 35, 36, u64::MAX] {
            assert!(Epoch::new(Epoch::from_number(n).as_str()).is_ok(), "{n}");
        }
        assert_eq!(Epoch::from_number(36).as_str(), "10");
    }
}
