//! Long polls and snapshots: a session that is read once, and its answer.

use bytes::Bytes;
use ticker_market::Time;
use ticker_proto::Encoded;
use ticker_session::catalogue::Refusal;
use ticker_session::{Outgoing, SessionId};
use tokio::sync::oneshot;

/// Events that one answer holds, at most, unless they are snapshots: a reader who is further behind goes on from the
/// answer's cursor.
pub(crate) const POLL_EVENTS_MAX: usize = 20_000;

/// Who waits for the answer.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A connection of the shard, and whether it stays open.
    Conn { key: u32, keep_alive: bool },
    /// A task of the HTTP library.
    Task(Option<oneshot::Sender<Result<Bytes, Refusal>>>),
}

/// A session that is read once.
#[derive(Debug)]
pub(crate) struct Poll {
    pub(crate) session: SessionId,
    pub(crate) generation: u32,
    pub(crate) asker: Asker,
    /// When it is answered with nothing.
    pub(crate) deadline: Time,
    /// The reader holds something already: there is no answer until there is news.
    pub(crate) waits: bool,
    events: Vec<Encoded>,
    notices: Vec<Encoded>,
}

impl Poll {
    pub(crate) fn new(session: SessionId, generation: u32, asker: Asker, deadline: Time, waits: bool) -> Self {
        Self { session, generation, asker, deadline, waits, events: Vec::new(), notices: Vec::new() }
    }

    /// Takes what the session gives.
    pub(crate) fn take(&mut self, plan: &[Outgoing]) {
        for item in plan {
            if item.is_event {
                self.events.push(item.encoded().clone());
            } else if !item.encoded().bytes.starts_with(b"{\"op\":\"subscribed\"") {
                // `subscribed` would say nothing that the answer's cursor does not.
                self.notices.push(item.encoded().clone());
            }
        }
    }

    /// Is there an answer? `settled`: the session has begun all that it asked for.
    pub(crate) fn is_due(&self, settled: bool, now: Time) -> bool {
        let news = !self.events.is_empty() || !self.notices.is_empty();
        (settled && (news || !self.waits)) || now >= self.deadline || self.events.len() >= POLL_EVENTS_MAX
    }

    /// The answer's body.
    pub(crate) fn body(&self, cursor: &str) -> Bytes {
        let bytes: usize = self.events.iter().chain(&self.notices).map(|e| e.bytes.len() + 1).sum();
        let mut out = Vec::with_capacity(bytes + 64);
        out.extend_from_slice(b"{\"cursor\":\"");
        out.extend_from_slice(cursor.as_bytes());
        out.extend_from_slice(b"\",\"events\":[");
        join(&mut out, &self.events);
        out.extend_from_slice(b"],\"notices\":[");
        join(&mut out, &self.notices);
        out.extend_from_slice(b"]}");
        out.into()
    }
}

fn join(out: &mut Vec<u8>, list: &[Encoded]) {
    for (i, message) in list.iter().flat_map(Encoded::messages).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&message);
    }
}
