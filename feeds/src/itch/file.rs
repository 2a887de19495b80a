//! Files of ITCH messages.

use ticker_market::{Integrity, Time};

use super::{Counts, Itch, length};
use crate::Out;
use crate::archive::{Archive, ArchiveError, Pending, passed_over};

/// A file of messages, each behind its length in two bytes (BinaryFILE). A length of zero ends the file; some files
/// have zeros before every message all the same, and those are read by the lengths of their types.
#[derive(Debug)]
pub struct ItchFile {
    itch: Itch,
    pending: Pending,
}

impl ItchFile {
    /// For these symbols in normal form, none for all of them; `midnight` is that of the day in New York, which the file
    /// does not say.
    pub fn new(symbols: &[String], midnight: Time) -> Self {
        Self { itch: Itch::new(symbols, midnight, Integrity::Ordered), pending: Pending::default() }
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.itch.counts()
    }

    /// Books, trades and trading states.
    pub fn itch(&self) -> &Itch {
        &self.itch
    }
}

impl Archive for ItchFile {
    fn venue(&self) -> &str {
        super::VENUE
    }

    fn push(&mut self, bytes: &[u8]) {
        self.pending.push(bytes);
    }

    fn next(&mut self, out: &mut Out) -> Result<Option<Time>, ArchiveError> {
        loop {
            let (rest, at) = (self.pending.rest(), self.pending.at());
            let &[high, low, ref body @ ..] = rest else { return Ok(None) };
            let told = usize::from(u16::from_be_bytes([high, low]));
            let size = match (told, body.first()) {
                (0, None) => return Ok(None),
                (0, Some(kind)) => length(*kind).ok_or_else(|| ArchiveError::Format {
                    at,
                    why: format!("a length of zero, and {kind:#04x} is no message type"),
                })?,
                _ => told,
            };
            let Some(message) = body.get(..size) else { return Ok(None) };
            let taken = self.itch.message(message, None, out);
            self.pending.take(2 + size);
            match taken {
                Ok(ts) => return Ok(Some(ts)),
                // Its length is known: what comes after it can be read.
                Err(why) => passed_over(at, &why, out),
            }
        }
    }

    fn finish(&mut self) -> Result<(), ArchiveError> {
        if self.pending.rest() == [0, 0] {
            self.pending.take(2);
        }
        self.pending.finish()
    }

    fn retell(&self, now: Time, out: &mut Out) {
        self.itch.retell(now, out);
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.itch.end(reason, now, out);
    }
}
