//! Several markets of one venue in one recording: each connection and each answer goes to the market that its URL names.

use hashbrown::HashMap;
use ticker_market::Time;

use crate::{Adapter, Conn, Out, Rules};

/// Adapters side by side, as one. For replays: live, each market has an adapter of its own.
pub struct Split {
    venue: &'static str,
    parts: Vec<Part>,
    conns: HashMap<Conn, usize>,
    instruments: u32,
}

struct Part {
    /// What a URL of this market has in it: a connection's, or an answer's.
    marks: &'static [&'static str],
    adapter: Box<dyn Adapter>,
    /// The numbers of its instruments among all, by its own.
    numbers: Vec<u32>,
}

impl Split {
    /// The parts, each with what its URLs have in them. What no URL tells goes to the first. `venue` is the name that
    /// all have together; their instruments keep their own.
    pub fn new(venue: &'static str, parts: Vec<(&'static [&'static str], Box<dyn Adapter>)>) -> Self {
        let parts = parts.into_iter().map(|(marks, adapter)| Part { marks, adapter, numbers: Vec::new() }).collect();
        Self { venue, parts, conns: HashMap::new(), instruments: 0 }
    }

    fn by_url(&self, url: &str) -> usize {
        self.parts.iter().position(|part| part.marks.iter().any(|mark| url.contains(mark))).unwrap_or(0)
    }

    fn by_conn(&self, conn: Conn) -> usize {
        self.conns.get(&conn).copied().unwrap_or(0)
    }

    /// Lets one part act, and gives what it tells its number among all.
    fn act(&mut self, index: usize, out: &mut Out, act: impl FnOnce(&mut dyn Adapter, &mut Out)) {
        let (instruments, updates) = (out.instruments.len(), out.updates.len());
        let part = &mut self.parts[index];
        act(part.adapter.as_mut(), out);
        for (number, _) in &mut out.instruments[instruments..] {
            if *number as usize == part.numbers.len() {
                part.numbers.push(self.instruments);
                self.instruments += 1;
            }
            *number = part.number(*number);
        }
        for update in &mut out.updates[updates..] {
            update.instrument = part.number(update.instrument);
        }
    }

    fn act_each(&mut self, out: &mut Out, act: impl Fn(&mut dyn Adapter, &mut Out)) {
        for index in 0..self.parts.len() {
            self.act(index, out, &act);
        }
    }
}

impl Part {
    fn number(&self, own: u32) -> u32 {
        *self.numbers.get(own as usize).expect("adapters number instruments from 0 on, and announce them first")
    }
}

impl Adapter for Split {
    fn rules(&self) -> Rules {
        let first = self.parts.first().expect("a split has parts");
        Rules { venue: self.venue, ..first.adapter.rules() }
    }

    fn opened(&mut self, conn: Conn, url: &str, now: Time, out: &mut Out) {
        let index = self.by_url(url);
        self.conns.insert(conn, index);
        self.act(index, out, |a, out| a.opened(conn, url, now, out));
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        self.act(self.by_conn(conn), out, |a, out| a.frame(conn, bytes, recv, out));
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        self.act(self.by_url(url), out, |a, out| a.response(url, body, recv, out));
    }

    fn failed(&mut self, url: &str, now: Time, out: &mut Out) {
        self.act(self.by_url(url), out, |a, out| a.failed(url, now, out));
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        self.act(self.by_conn(conn), out, |a, out| a.closed(conn, reason, now, out));
        self.conns.remove(&conn);
    }

    fn silent(&mut self, conn: Conn, now: Time, out: &mut Out) {
        self.act(self.by_conn(conn), out, |a, out| a.silent(conn, now, out));
    }

    fn next_timer(&self) -> Option<Time> {
        self.parts.iter().filter_map(|part| part.adapter.next_timer()).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        self.act_each(out, |a, out| a.timer(now, out));
    }

    fn retell(&self, now: Time, out: &mut Out) {
        for part in &self.parts {
            let (instruments, updates) = (out.instruments.len(), out.updates.len());
            part.adapter.retell(now, out);
            for (number, _) in &mut out.instruments[instruments..] {
                *number = part.number(*number);
            }
            for update in &mut out.updates[updates..] {
                update.instrument = part.number(update.instrument);
            }
        }
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.act_each(out, |a, out| a.end(reason, now, out));
    }
}
