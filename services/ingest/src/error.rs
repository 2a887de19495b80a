//! Why an ingest service cannot run.

use std::path::PathBuf;

use ticker_proto::Code;

/// Why an ingest service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// No source is named.
    #[error("nothing to ingest: name venues, a replay, or the synthetic market")]
    NoSource,
    /// No adapter for a venue.
    #[error("`{venue}` is not a venue that ingest can read; the venues are {}", ticker_feeds::VENUES.join(", "))]
    UnknownVenue {
        /// What was named.
        venue: String,
    },
    /// A setting has a value that it cannot have.
    #[error("{setting}: {why}")]
    Setting {
        /// The setting's name.
        setting: String,
        /// What is wrong with it.
        why: String,
    },
    /// A recording cannot be read.
    #[error("cannot read the recording {}: {why}", path.display())]
    Recording {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason, or what the file is instead.
        why: String,
    },
    /// A recording cannot be written.
    #[error("cannot record in {}: {why}", path.display())]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// The operating system's reason.
        why: String,
    },
    /// A recording of a venue that has no adapter.
    #[error(
        "{} is a recording of `{venue}`, which cannot be replayed; the venues are {}",
        path.display(),
        ticker_feeds::VENUES.join(", ")
    )]
    UnsupportedRecording {
        /// The file.
        path: PathBuf,
        /// The venue that its header names.
        venue: String,
    },
    /// The fanout's address is none.
    #[error("fanout: `{uri}` is not an address such as http://127.0.0.1:50051: {why}")]
    Fanout {
        /// What was given.
        uri: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("TLS to the venues cannot be set up: {0}")]
    Tls(String),
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// A source ended that never should.
    #[error("the source {name} failed: {why}")]
    Source {
        /// Which.
        name: String,
        /// How.
        why: String,
    },
}

impl IngestError {
    /// The contract's code.
    pub const fn code(&self) -> Code {
        match self {
            IngestError::Tls(_)
            | IngestError::Thread(_)
            | IngestError::Unwritable { .. }
            | IngestError::Source { .. } => Code::Internal,
            _ => Code::BadRequest,
        }
    }
}

/// An error with its causes: the outermost alone rarely says anything.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
