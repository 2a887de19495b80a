//! Who subscribed to what, where a subscription is a topic and a book begins with a snapshot in its place among the frames.

use std::collections::BTreeMap;

use super::{SESSIONS_MAX, SUBSCRIPTIONS_MAX, Said, Session};

/// The sessions, and what each of them subscribed to, by topic.
#[derive(Debug, Default)]
pub(super) struct Readers {
    sessions: BTreeMap<Session, BTreeMap<String, Subscription>>,
}

#[derive(Debug)]
struct Subscription {
    /// As the reader called the topic.
    asked: String,
    begins: Begins,
}

/// From which frame on a subscription is played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begins {
    /// From any.
    Anywhere,
    /// A book, that waits for its snapshot.
    WithSnapshot,
    /// A book, that has had its snapshot.
    Already,
}

impl Begins {
    /// Of a book with a snapshot that is to be had already, or not; of anything else.
    pub(super) fn of(is_book: bool, has_snapshot: bool) -> Self {
        match (is_book, has_snapshot) {
            (false, _) => Self::Anywhere,
            (true, false) => Self::WithSnapshot,
            (true, true) => Self::Already,
        }
    }
}

impl Readers {
    /// False, and the connection ends, where there are too many.
    pub(super) fn open(&mut self, session: Session, said: &mut Vec<Said>) -> bool {
        let has_room = self.sessions.len() < SESSIONS_MAX;
        if has_room {
            self.sessions.insert(session, BTreeMap::new());
        } else {
            said.push(Said::Close(session));
        }
        has_room
    }

    pub(super) fn close(&mut self, session: Session) {
        self.sessions.remove(&session);
    }

    pub(super) fn has(&self, session: Session, topic: &str) -> bool {
        self.sessions.get(&session).is_some_and(|topics| topics.contains_key(topic))
    }

    /// The topics of one session, as it called them.
    pub(super) fn asked(&self, session: Session) -> impl Iterator<Item = (&str, &str)> {
        let topics = self.sessions.get(&session).into_iter().flatten();
        topics.map(|(topic, subscription)| (topic.as_str(), subscription.asked.as_str()))
    }

    /// False where the session has too many, or is gone.
    pub(super) fn subscribe(&mut self, session: Session, topic: &str, asked: &str, begins: Begins) -> bool {
        let Some(topics) = self.sessions.get_mut(&session).filter(|topics| topics.len() < SUBSCRIPTIONS_MAX) else {
            return false;
        };
        topics.insert(topic.to_owned(), Subscription { asked: asked.to_owned(), begins });
        true
    }

    /// Was it there?
    pub(super) fn unsubscribe(&mut self, session: Session, topic: &str) -> bool {
        self.sessions.get_mut(&session).is_some_and(|topics| topics.remove(topic).is_some())
    }

    /// Who gets a frame of this topic now, and how each called it. A snapshot begins a book for those who wait for it.
    pub(super) fn of<'a>(
        &'a mut self,
        topic: &'a str,
        is_snapshot: bool,
    ) -> impl Iterator<Item = (Session, &'a str)> + 'a {
        self.sessions.iter_mut().filter_map(move |(session, topics)| {
            let subscription = topics.get_mut(topic)?;
            if subscription.begins == Begins::WithSnapshot && is_snapshot {
                subscription.begins = Begins::Already;
            }
            (subscription.begins != Begins::WithSnapshot).then_some((*session, subscription.asked.as_str()))
        })
    }

    /// Plays a frame, as it is, to those who get it.
    pub(super) fn play(&mut self, topic: &str, is_snapshot: bool, text: &str, said: &mut Vec<Said>) {
        said.extend(self.of(topic, is_snapshot).map(|(session, _)| Said::Text(session, text.to_owned())));
    }

    /// Plays a frame that names its topic, as each of those who get it called it.
    pub(super) fn play_as(&mut self, (topic, told): (&str, &str), is_snapshot: bool, text: &str, said: &mut Vec<Said>) {
        said.extend(self.of(topic, is_snapshot).map(|(session, asked)| {
            let text = if asked == told { text.to_owned() } else { text.replacen(told, asked, 1) };
            Said::Text(session, text)
        }));
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = Session> + '_ {
        self.sessions.keys().copied()
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.sessions.values().any(|topics| !topics.is_empty())
    }

    /// What is played begins anew: so do books.
    pub(super) fn begin_again(&mut self) {
        for subscription in self.sessions.values_mut().flat_map(BTreeMap::values_mut) {
            if subscription.begins == Begins::Already {
                subscription.begins = Begins::WithSnapshot;
            }
        }
    }
}
