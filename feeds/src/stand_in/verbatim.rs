//! Any venue: the recorded frames, to whoever subscribes.

use std::collections::BTreeMap;

use super::{Dialect, SESSIONS_MAX, Said, Session};
use crate::recording::{Line, Payload};

/// Any venue.
#[derive(Debug, Default)]
pub(super) struct Verbatim {
    /// Is it subscribed?
    sessions: BTreeMap<Session, bool>,
    /// The recorded side subscribed by messages, not by its URL.
    by_message: bool,
    has_played: bool,
}

impl Verbatim {
    fn subscribe(&mut self, session: Session, said: &mut Vec<Said>) {
        let alone = self.sessions.iter().all(|(s, subscribed)| *s == session || !subscribed);
        if let Some(subscribed) = self.sessions.get_mut(&session) {
            *subscribed = true;
        }
        // Its books begin with a snapshot, which is at the beginning alone.
        if alone && self.has_played {
            self.has_played = false;
            said.push(Said::Rewind);
        }
    }
}

impl Dialect for Verbatim {
    fn look(&mut self, line: &Line<'_>) {
        self.by_message |= matches!(line, Line::Send { .. });
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        if self.sessions.len() >= SESSIONS_MAX {
            return said.push(Said::Close(session));
        }
        self.sessions.insert(session, false);
        if !self.by_message {
            self.subscribe(session, said);
        }
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        if text == "ping" {
            return said.push(Said::Text(session, "pong".to_owned()));
        }
        let lower = text.to_ascii_lowercase();
        let subscribes = lower.contains("sub") && !lower.contains("unsub");
        let known = self.sessions.get(&session).copied();
        // Several messages make one subscription: only the first one after something was played begins anew.
        if subscribes && (known == Some(false) || self.has_played) {
            self.subscribe(session, said);
        }
    }

    fn closed(&mut self, session: Session) {
        self.sessions.remove(&session);
    }

    fn recv(&mut self, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        self.has_played = true;
        for (session, _) in self.sessions.iter().filter(|(_, subscribed)| **subscribed) {
            said.push(match data {
                Payload::Text(text) => Said::Text(*session, text.clone().into_owned()),
                Payload::Binary(bytes) => Said::Binary(*session, bytes.clone().into_owned()),
            });
        }
        true
    }

    fn is_wanted(&self) -> bool {
        self.sessions.values().any(|subscribed| *subscribed)
    }

    fn begun_again(&mut self) {
        self.has_played = false;
    }
}
