//! Whether the hub's indexes agree with each other: what tests ask after each step.

use hashbrown::HashMap;
use ticker_market::Pattern;

use crate::hub::Hub;

impl Hub {
    /// Looks at everything that is kept twice. It takes time in proportion to all that the hub holds: for tests.
    ///
    /// # Errors
    /// What does not agree, for people.
    pub fn audit(&self) -> Result<(), String> {
        let ensure = |ok: bool, what: &str, key: usize| if ok { Ok(()) } else { Err(format!("{what}, session {key}")) };
        let mut retain = vec![0; self.topics.len()];
        let mut wants: HashMap<Pattern, u32> = HashMap::new();
        let mut tickets = 0;
        let mut want = |pattern: Pattern| *wants.entry(pattern).or_insert(0) += 1;
        for (key, session) in &self.sessions {
            for (at, sub) in session.subs.iter().enumerate() {
                let topic = &self.topics[sub.topic as usize];
                let reader = topic.readers.get(sub.slot as usize);
                let mutual = reader.is_some_and(|r| (r.session as usize, r.sub as usize) == (key, at));
                ensure(mutual, "a topic does not know its reader", key)?;
                let marks = session.dirty.iter().filter(|d| **d as usize == at).count();
                ensure(marks == usize::from(sub.dirty), "a mark and the list of marks differ", key)?;
                ensure(sub.dirty || sub.place >= topic.end(), "news without a mark", key)?;
                ensure(topic.held, "a subscription to a topic that is not held", key)?;
                retain[sub.topic as usize] += u32::from(session.options_of(at).wants_every(topic.class));
                if sub.exactness == 3 {
                    want(topic.topic.as_ref().clone().into());
                }
            }
            for join in &session.joins {
                ensure(!join.topics.is_empty() || join.id.is_some() || join.ticket.is_some(), "an empty join", key)?;
                if let Some(ticket) = join.ticket {
                    tickets += 1;
                    ensure(self.tickets.get(&ticket) == Some(&key), "a ticket that nobody knows", key)?;
                }
                for wanted in &join.topics {
                    let topic = &self.topics[wanted.topic as usize];
                    retain[wanted.topic as usize] += u32::from(wanted.options.wants_every(topic.class));
                    if wanted.exactness == 3 {
                        want(topic.topic.as_ref().clone().into());
                    }
                    let waits = topic.held
                        || join.ticket.is_some()
                        || self.ahead.contains(&key)
                        || topic.waiting.contains(&(key as u32));
                    ensure(waits, "a join that will not be woken", key)?;
                }
            }
            session.wishes.iter().for_each(|w| want(w.pattern.clone()));
            ensure(session.next_at.len() <= session.subs.len(), "too many times to send at", key)?;
            let all = session.subs.len() + session.joins.iter().map(|j| j.topics.len()).sum::<usize>();
            ensure(self.topics_of(key).len() == all, "a topic twice", key)?;
            let listed = self.ready.iter().any(|id| id.key as usize == key && id.generation == session.generation);
            ensure(session.listed == listed, "listed or not", key)?;
            let sorted = session.backlog.iter().is_sorted_by_key(|(f, _)| f.event.seq);
            ensure(sorted, "a backlog out of order", key)?;
        }
        ensure(tickets == self.tickets.len(), "tickets of nobody", tickets)?;
        for (topic, retain) in self.topics.iter().zip(retain) {
            if topic.retain != retain {
                return Err(format!("{} counts {} who want every event, of {retain}", topic.topic, topic.retain));
            }
        }
        if wants != self.wants {
            return Err(format!("{:?} is wanted, and {wants:?} should be", self.wants));
        }
        Ok(())
    }
}
