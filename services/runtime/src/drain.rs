//! Ending in good order: whoever holds a [`Drain`] stops taking on work once it has begun, finishes, and returns.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// The exit code of a process that a second signal ended at once: that of a shell's Ctrl-C.
pub const EXIT_AT_ONCE: i32 = 130;

/// Says when to end. Clones are the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins. The first reason holds.
    pub fn start(&self, reason: &str) {
        if self.reason.set(reason.to_owned()).is_ok() {
            tracing::info!(reason, "draining");
        }
        self.token.cancel();
    }

    /// Completes once it has begun; at once if it already has.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// Has it begun?
    pub fn is_started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Why it began; `None` before.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// The token that is cancelled when it begins, for what takes one.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

/// Begins `drain` at the first SIGINT or SIGTERM; a second one ends the process at once with [`EXIT_AT_ONCE`].
///
/// The handlers are in place when this returns; it must be called inside a tokio runtime. The error is that of the
/// operating system.
#[cfg(unix)]
pub fn signals(drain: Drain) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = interrupt.recv() => "SIGINT",
                Some(()) = terminate.recv() => "SIGTERM",
                else => return,
            };
            if drain.is_started() {
                tracing::warn!(signal = name, "asked to end a second time: ending at once");
                std::process::exit(EXIT_AT_ONCE);
            }
            drain.start(name);
        }
    });
    Ok(())
}

/// Begins `drain` at the first Ctrl-C; a second one ends the process at once with [`EXIT_AT_ONCE`].
#[cfg(not(unix))]
pub fn signals(drain: Drain) -> std::io::Result<()> {
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if drain.is_started() {
                std::process::exit(EXIT_AT_ONCE);
            }
            drain.start("ctrl-c");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_holds_and_every_clone_hears_of_it() {
        let drain = Drain::new();
        let other = drain.clone();
        assert!(!drain.is_started() && drain.reason().is_none());
        let waiting = tokio::spawn(async move {
            other.started().await;
            other.reason().map(str::to_owned)
        });
        drain.start("SIGTERM");
        drain.start("later");
        assert_eq!(waiting.await.expect("does not panic").as_deref(), Some("SIGTERM"));
        assert!(drain.is_started());
        drain.started().await;
    }
}
