//! Which reader of which shard has which name, for the signals that readers of one edge send each other.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ticker_session::SessionId;

use crate::command::ShardHandle;

/// Characters of a name: 5 bits each, so that nobody is reached by guessing.
const NAME_CHARS: usize = 26;

/// See the module. It has no more names than the edge has sessions.
#[derive(Debug, Default)]
pub(crate) struct Switchboard(Mutex<HashMap<String, (ShardHandle, SessionId)>>);

impl Switchboard {
    /// Gives a reader a name; `None` if the system has no randomness.
    pub(crate) fn name(&self, shard: &ShardHandle, session: SessionId) -> Option<String> {
        let name = ticker_rtc::agent::name::<NAME_CHARS>().ok()?;
        self.names().insert(name.clone(), (shard.clone(), session));
        Some(name)
    }

    pub(crate) fn forget(&self, name: &str) {
        self.names().remove(name);
    }

    /// Who has that name.
    pub(crate) fn find(&self, name: &str) -> Option<(ShardHandle, SessionId)> {
        self.names().get(name).cloned()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, (ShardHandle, SessionId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
