//! Readers who reach each other (contract: `signal`): who agrees is given a name that nobody can guess, and whoever was told
//! the name may send it an offer, an answer, a candidate. The owner of the hub gives names and carries what goes to other
//! hubs; here is who may, how much and how often.

use std::collections::HashSet;

use ticker_market::Time;
use ticker_proto::message::Signal;
use ticker_proto::{Code, Notice};

use crate::catalogue::Refusal;
use crate::hub::{Hub, SessionId};
use crate::session::Saying;

/// What one signal carries, in bytes of JSON: an SDP is a few kilobytes.
pub const DATA_BYTES_MAX: usize = 16 * 1024;

/// Signals that a reader may send in a minute, and that it is given in a minute: an offer and its candidates are some ten.
pub const PER_MINUTE_MAX: u32 = 120;

/// Others that one reader may reach in its life.
pub const REACHED_MAX: usize = 16;

/// Signals that wait for the hub's owner, at most.
const BEYOND_MAX: usize = 256;

/// Answers that wait for a reader, at most, when it is given another's signal: they must not end its session.
const WAITING_MAX: usize = 32;

const MINUTE_NANOS: i64 = 60_000_000_000;

/// What the owner of a hub does for it.
#[derive(Clone, PartialEq, Debug)]
pub enum Beyond {
    /// A reader agrees to be reached: it is to be given a name, by [`Hub::named`].
    Name {
        /// Which.
        session: SessionId,
        /// Its request.
        request: u64,
    },
    /// A name is nobody's any more.
    Forget(String),
    /// A signal for whoever has a name, by [`Hub::deliver`] of its hub; if nobody has, [`Hub::refuse`].
    Carry {
        /// Whose signal it is.
        session: SessionId,
        /// Its request.
        request: u64,
        /// Its own name.
        from: String,
        /// The other's.
        to: String,
        /// What is carried.
        data: serde_json::Value,
    },
}

/// How often something happened in this minute.
#[derive(Clone, Copy, Default, Debug)]
struct Window {
    since: Option<Time>,
    count: u32,
}

impl Window {
    fn take(&mut self, now: Time) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= MINUTE_NANOS) {
            *self = Window { since: Some(now), count: 0 };
        }
        self.count += 1;
        self.count <= PER_MINUTE_MAX
    }
}

/// A reader who has agreed to be reached.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// `None` until the owner has given one.
    name: Option<String>,
    sent: Window,
    given: Window,
    reached: HashSet<String>,
}

impl Hub {
    /// The owner does what [`Hub::take_beyond`] gives; otherwise readers are told that there is no such thing.
    pub fn carry_signals(&mut self) {
        self.beyond = Some(Default::default());
    }

    /// Something for the owner to do.
    pub fn take_beyond(&mut self) -> Option<Beyond> {
        self.beyond.as_mut()?.pop_front()
    }

    pub(crate) fn signal(&mut self, key: usize, signal: Signal, now: Time) -> Result<(), Refusal> {
        let Some(beyond) = &mut self.beyond else {
            return Err(Refusal::new(Code::NotImplemented, "`signal` is for sessions of an edge"));
        };
        if beyond.len() >= BEYOND_MAX {
            return Err(Refusal::new(Code::RateLimited, "too many signals at once"));
        }
        let session = &mut self.sessions[key];
        let id = SessionId { key: key as u32, generation: session.generation };
        match (signal.reachable, &mut session.reach) {
            (Some(true), None) => {
                session.reach = Some(Box::default());
                beyond.push_back(Beyond::Name { session: id, request: signal.id });
            }
            (Some(true), Some(reach)) => {
                let name = reach.name.clone().unwrap_or_default();
                self.say(key, Saying::Notice(Notice::signal_name(signal.id, name)));
            }
            (Some(false), reach) => {
                if let Some(name) = reach.take().and_then(|r| r.name) {
                    beyond.push_back(Beyond::Forget(name));
                }
            }
            (None, reach) => {
                let Some(reach) = reach else {
                    let why = "to reach others, agree to be reached: {\"op\":\"signal\",\"id\":1,\"reachable\":true}";
                    return Err(Refusal::new(Code::Forbidden, why));
                };
                let Some(from) = reach.name.clone() else {
                    return Err(Refusal::new(Code::BadRequest, "wait for the answer that tells your name"));
                };
                let to = signal.to.unwrap_or_default();
                let bytes = signal.data.to_string().len();
                if bytes > DATA_BYTES_MAX {
                    let why = format!("{bytes} bytes of data; at most {DATA_BYTES_MAX}");
                    return Err(Refusal::new(Code::BadRequest, why));
                }
                if !reach.reached.contains(&to) && reach.reached.len() >= REACHED_MAX {
                    let why = format!("a session reaches {REACHED_MAX} others at most");
                    return Err(Refusal::new(Code::Forbidden, why));
                }
                if !reach.sent.take(now) {
                    let why = format!("more than {PER_MINUTE_MAX} signals in a minute");
                    return Err(Refusal::new(Code::RateLimited, why));
                }
                reach.reached.insert(to.clone());
                let data = signal.data;
                beyond.push_back(Beyond::Carry { session: id, request: signal.id, from, to, data });
            }
        }
        Ok(())
    }

    /// The reader who agreed has this name from now on.
    pub fn named(&mut self, id: SessionId, request: u64, name: &str) {
        let Some(key) = self.key(id) else { return };
        if let Some(reach) = &mut self.sessions[key].reach {
            reach.name = Some(name.to_owned());
            self.say(key, Saying::Notice(Notice::signal_name(request, name.to_owned())));
        }
    }

    /// Gives a reader what another sent it. Returns whether it takes it: not if it has had too many, or does not read.
    pub fn deliver(&mut self, id: SessionId, from: &str, data: serde_json::Value, now: Time) -> bool {
        let Some(key) = self.key(id) else { return false };
        let session = &mut self.sessions[key];
        let Some(reach) = &mut session.reach else { return false };
        if session.after.len() >= WAITING_MAX || !reach.given.take(now) {
            return false;
        }
        // Whom one was reached by, one may answer.
        if reach.reached.len() < REACHED_MAX {
            reach.reached.insert(from.to_owned());
        }
        self.say(
            key,
            Saying::Notice(Notice::Signal { id: None, from: Some(from.to_owned()), peer: None, data: Some(data) }),
        );
        true
    }

    /// A session is over.
    pub(crate) fn forget_reach(&mut self, key: usize) {
        if let Some(name) = self.sessions[key].reach.take().and_then(|r| r.name)
            && let Some(beyond) = &mut self.beyond
        {
            // Above its limit too: a name must not outlive its reader.
            beyond.push_back(Beyond::Forget(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use ticker_proto::Form;
    use ticker_proto::message::Request;

    use super::*;
    use crate::{Limits, Mode, Opening};

    const NOW: Time = Time(1_700_000_000_000_000_000);

    fn hub() -> Hub {
        let mut hub = Hub::new(Limits::default());
        hub.opened("e1", 1, false, NOW);
        hub.carry_signals();
        hub
    }

    fn open(hub: &mut Hub) -> SessionId {
        hub.open(Opening { form: Form::Ndjson, mode: Mode::Stream }, NOW).expect("there is room")
    }

    fn ask(hub: &mut Hub, id: SessionId, text: &str, now: Time) -> Result<(), Code> {
        let request = Request::from_json(text.as_bytes()).expect("a request");
        hub.request(id, request, now).map_err(|refusal| refusal.code)
    }

    /// A reader that agrees, under that name.
    fn reachable(hub: &mut Hub, name: &str) -> SessionId {
        let id = open(hub);
        assert_eq!(ask(hub, id, r#"{"op":"signal","id":1,"reachable":true}"#, NOW), Ok(()));
        assert_eq!(hub.take_beyond(), Some(Beyond::Name { session: id, request: 1 }));
        hub.named(id, 1, name);
        id
    }

    /// What is said to a session now.
    fn said(hub: &mut Hub, id: SessionId) -> String {
        let (mut ready, mut plan) = (Vec::new(), Vec::new());
        hub.take_ready(&mut ready);
        hub.plan(id, 1 << 20, NOW, &mut plan);
        let text = plan.iter().map(|o| String::from_utf8_lossy(&o.encoded().bytes).into_owned()).collect();
        let taken = plan.len();
        hub.commit(id, &mut plan, taken, false, NOW);
        text
    }

    #[test]
    fn readers_who_agree_reach_each_other() {
        let mut hub = hub();
        let (a, b) = (reachable(&mut hub, "aaaa"), reachable(&mut hub, "bbbb"));
        assert!(said(&mut hub, a).ends_with("{\"op\":\"signal\",\"id\":1,\"peer\":\"aaaa\"}\n"));
        assert_eq!(ask(&mut hub, a, r#"{"op":"signal","id":2,"to":"bbbb","data":{"sdp":"x"}}"#, NOW), Ok(()));
        let Some(Beyond::Carry { session, request: 2, from, to, data }) = hub.take_beyond() else { panic!("a signal") };
        assert_eq!((session, from.as_str(), to.as_str()), (a, "aaaa", "bbbb"));
        assert!(hub.deliver(b, &from, data, NOW));
        assert!(said(&mut hub, b).ends_with("{\"op\":\"signal\",\"from\":\"aaaa\",\"data\":{\"sdp\":\"x\"}}\n"));
        hub.close(a);
        assert_eq!(hub.take_beyond(), Some(Beyond::Forget("aaaa".to_owned())));
        assert_eq!(ask(&mut hub, b, r#"{"op":"signal","id":3,"reachable":false}"#, NOW), Ok(()));
        assert_eq!(hub.take_beyond(), Some(Beyond::Forget("bbbb".to_owned())));
        assert!(!hub.deliver(b, "cccc", serde_json::Value::Null, NOW), "it has not agreed any more");
    }

    #[test]
    fn who_has_not_agreed_reaches_nobody_and_is_not_reached() {
        let mut hub = hub();
        let id = open(&mut hub);
        assert_eq!(ask(&mut hub, id, r#"{"op":"signal","id":2,"to":"bbbb","data":1}"#, NOW), Err(Code::Forbidden));
        assert!(!hub.deliver(id, "aaaa", serde_json::Value::Null, NOW));
        let mut plain = Hub::new(Limits::default());
        plain.opened("e1", 1, false, NOW);
        let id = open(&mut plain);
        assert_eq!(ask(&mut plain, id, r#"{"op":"signal","id":1,"reachable":true}"#, NOW), Err(Code::NotImplemented));
    }

    #[test]
    fn size_number_and_rate_have_limits() {
        let mut hub = hub();
        let id = reachable(&mut hub, "aaaa");
        let large = format!(r#"{{"op":"signal","id":2,"to":"b","data":"{}"}}"#, "x".repeat(DATA_BYTES_MAX));
        assert_eq!(ask(&mut hub, id, &large, NOW), Err(Code::BadRequest));
        let send = |hub: &mut Hub, to: usize, now| {
            let result = ask(hub, id, &format!(r#"{{"op":"signal","id":2,"to":"{to}","data":1}}"#), now);
            while hub.take_beyond().is_some() {}
            result
        };
        (0..REACHED_MAX).for_each(|to| assert_eq!(send(&mut hub, to, NOW), Ok(())));
        assert_eq!(send(&mut hub, REACHED_MAX, NOW), Err(Code::Forbidden));
        // Time goes on, so that it is not the limit of all requests that is met.
        let at = |n: usize| NOW.plus_millis(n as i64 * 20);
        (REACHED_MAX..PER_MINUTE_MAX as usize).for_each(|n| assert_eq!(send(&mut hub, 0, at(n)), Ok(())));
        assert_eq!(send(&mut hub, 0, at(200)), Err(Code::RateLimited));
        assert_eq!(send(&mut hub, 0, NOW.plus_millis(61_000)), Ok(()));
        // What is given is limited too, and never ends a session.
        let given = (0..1_000).filter(|_| hub.deliver(id, "bbbb", serde_json::Value::Null, NOW)).count();
        assert_eq!(given, WAITING_MAX - 1, "one answer waits already");
    }
}
