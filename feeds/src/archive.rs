//! Files that hold market data by themselves, instead of frames of a connection: ITCH, DBN, tables.
//!
//! An [`Archive`] decodes one file. Its owner reads (and decompresses) the file and hands over the bytes as they come;
//! the archive hands out one record after the other, each with its time, so that several files can be merged by time,
//! and played as fast as they happened. As with an [`Adapter`](crate::Adapter), nothing here does I/O or reads a clock.
//!
//! ```text
//! loop {
//!     while let Some(at) = archive.next(&mut out)? { play(at, &mut out) }
//!     match file.read(&mut chunk)? { 0 => break, n => archive.push(&chunk[..n]) }
//! }
//! archive.finish()?;
//! while let Some(at) = archive.next(&mut out)? { play(at, &mut out) }
//! archive.end("replay_ended", last, &mut out);
//! ```

use std::fmt::Write;

use compact_str::CompactString;
use ticker_market::{Time, topic};

use crate::{Fault, Out, Report};

/// Bytes that wait for the rest of their record, at most; more in one record is no file of ours.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Why a file cannot be read any further. What can be passed over is a [`Report`] instead.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes are not of the format.
    #[error("at byte {at}: {why}")]
    Format {
        /// Offset in the (decompressed) file.
        at: u64,
        /// What was found, what was expected.
        why: String,
    },
    /// The file ends within a record.
    #[error("the file ends within a record: {0} bytes are left over")]
    Cut(usize),
}

/// One file's decoder: a state machine without I/O.
pub trait Archive: Send {
    /// The venue in topics, where the file or its description says it by now.
    fn venue(&self) -> &str;

    /// More bytes of the file.
    fn push(&mut self, bytes: &[u8]);

    /// Decodes the next record: appends what it says to `out`, and returns its time. `None`: more bytes are needed.
    fn next(&mut self, out: &mut Out) -> Result<Option<Time>, ArchiveError>;

    /// There are no more bytes. What is left over is an error, but for a last row without its line feed: `next` tells it.
    fn finish(&mut self) -> Result<(), ArchiveError>;

    /// Tells everything again; as [`Adapter::retell`](crate::Adapter::retell).
    fn retell(&self, now: Time, out: &mut Out);

    /// No more will come: every instrument is closed for `reason`.
    fn end(&mut self, reason: &str, now: Time, out: &mut Out);
}

/// Bytes of a file that were not decoded yet.
#[derive(Default, Debug)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    /// Decoded already.
    taken: usize,
    /// The offset in the file of the first byte here.
    offset: u64,
}

impl Pending {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        // Moved together only when more comes, not with each record.
        self.bytes.drain(..self.taken);
        self.offset += self.taken as u64;
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    pub(crate) fn take(&mut self, count: usize) {
        self.taken = (self.taken + count).min(self.bytes.len());
    }

    /// The offset in the file of the next byte.
    pub(crate) fn at(&self) -> u64 {
        self.offset + self.taken as u64
    }

    pub(crate) fn finish(&self) -> Result<(), ArchiveError> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(ArchiveError::Cut(left)),
        }
    }
}

/// The normal form of a venue's own name: itself, with `_` and two hexadecimal digits for what a symbol cannot have
/// (`ABC+`, a warrant at Nasdaq, is `ABC_2B`), so that no two names share one. `None` where it would be too long.
pub(crate) fn symbol_of(native: &[u8]) -> Option<CompactString> {
    let mut symbol = CompactString::default();
    for &byte in native {
        match byte {
            b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => symbol.push(char::from(byte)),
            _ => write!(symbol, "_{byte:02X}").ok()?,
        }
    }
    topic::is_symbol(&symbol).then_some(symbol)
}

/// Reports a record that was passed over.
pub(crate) fn passed_over(at: u64, why: &dyn std::fmt::Display, out: &mut Out) {
    let detail = format!("at byte {at}: {why}");
    out.reports.push(Report { fault: Fault::Undecodable, native: None, detail });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_in_normal_form_are_never_shared() {
        let normal = |native: &[u8]| symbol_of(native).map(|s| s.to_string());
        assert_eq!(normal(b"BRK.A").as_deref(), Some("BRK.A"));
        assert_eq!(normal(b"ABC+").as_deref(), Some("ABC_2B"));
        assert_eq!(normal(b"ESM4 C4250").as_deref(), Some("ESM4_20C4250"));
        assert_eq!(normal(b"ab_\xff").as_deref(), Some("_61_62_5F_FF"));
        assert_eq!(normal(b""), None);
        assert_eq!(normal(&[b' '; 30]), None, "too long");
    }

    #[test]
    fn bytes_come_in_parts() {
        let mut pending = Pending::default();
        pending.push(b"abc");
        pending.take(2);
        pending.push(b"de");
        assert_eq!((pending.rest(), pending.at()), (&b"cde"[..], 2));
        assert!(matches!(pending.finish(), Err(ArchiveError::Cut(3))));
        pending.take(9);
        assert_eq!(pending.at(), 5);
        assert!(pending.finish().is_ok());
    }
}
