//! A round: all readers with news are written to, each once.
//!
//! Where the kernel gives the shard a [`Ring`](crate::ring::Ring), readers are written to in batches, with one system call
//! for each batch: first what goes to each is planned and put together, then all of it is sent, then each session is told
//! what its socket took. Between two batches the shard takes in what has come, so that the last reader of a long round is
//! not sent what was new at its beginning.

use std::os::fd::AsFd as _;

use ticker_session::{Outgoing, SessionId};

use crate::conn::Conn;
use crate::ring::BATCH;
use crate::shard::{Owner, PLAN_BYTES, Shard};

/// A batch of so few is written one by one: a submission costs about as much as a write saves.
const BATCH_MIN: usize = 4;

/// What goes to one reader. A shard keeps a batch of them, so that their memory is used again.
#[derive(Default)]
pub(crate) struct Prepared {
    key: u32,
    plan: Vec<Outgoing>,
    /// See [`Conn::gather`].
    joined: Vec<u8>,
    gathered: usize,
}

/// Room for joined messages that is kept from one round to the next.
const JOINED_KEPT: usize = 16 * 1024;

impl Shard {
    /// Sends each of these sessions what is due.
    pub(crate) fn round(&mut self, ready: &[SessionId]) {
        let mut batch = std::mem::take(&mut self.batch);
        let mut prepared = 0;
        for id in ready {
            match self.owner(*id) {
                Owner::Nobody => {}
                Owner::Pipe(key) => self.flush_pipe(key),
                Owner::Poll(key) => self.answer_poll(key),
                Owner::Conn(key) => {
                    if batch.len() == prepared {
                        batch.push(Prepared::default());
                    }
                    prepared += usize::from(self.prepare(key, *id, &mut batch[prepared]));
                    if prepared == BATCH {
                        self.send(&mut batch[..prepared]);
                        prepared = 0;
                        // Whoever comes later in the round is given what came meanwhile; a thread that has it in hand may
                        // wait for this core.
                        std::thread::yield_now();
                        self.now = self.clock.now();
                        self.take_commands();
                    }
                }
            }
        }
        self.send(&mut batch[..prepared]);
        self.batch = batch;
    }

    /// Plans what a reader is sent, and puts it together. Returns whether there is anything.
    fn prepare(&mut self, key: u32, id: SessionId, out: &mut Prepared) -> bool {
        let Some(conn) = self.conns.get_mut(key as usize) else { return false };
        if !conn.is_flushed() {
            // It is written to again when the socket says so.
            self.hub.commit(id, &mut out.plan, 0, true, self.now);
            return false;
        }
        self.hub.plan(id, PLAN_BYTES, self.now, &mut out.plan);
        out.key = key;
        out.gathered = Conn::gather(&out.plan, &mut out.joined);
        out.gathered > 0
    }

    fn send(&mut self, batch: &mut [Prepared]) {
        match &mut self.ring {
            Some(ring) if batch.len() >= BATCH_MIN => {
                let jobs: Vec<_> = batch
                    .iter()
                    .map(|one| {
                        let conn = &self.conns[one.key as usize];
                        (conn.stream.as_fd(), Conn::gathered(&one.plan, &one.joined))
                    })
                    .collect();
                let mut results = std::mem::take(&mut self.results);
                ring.send(&jobs, &mut results);
                for (one, result) in batch.iter_mut().zip(results.drain(..)) {
                    self.sent(one, result);
                }
                self.results = results;
            }
            _ => {
                for one in batch {
                    let result = self.conns[one.key as usize].write(Conn::gathered(&one.plan, &one.joined));
                    self.sent(one, result);
                }
            }
        }
    }

    /// Tells a session what its socket took.
    fn sent(&mut self, one: &mut Prepared, result: std::io::Result<usize>) {
        let conn = &mut self.conns[one.key as usize];
        let length = Conn::gathered(&one.plan, &one.joined).len();
        match (conn.wrote(&one.plan, one.gathered, length, result), conn.session) {
            (Ok(written), Some(id)) => {
                self.counts.writes += 1;
                self.counts.messages += written.taken as u64;
                self.counts.bytes += written.bytes as u64;
                self.counts.blocked += u64::from(written.blocked);
                if conn.deflates() {
                    self.counts.deflated(&one.plan[..written.taken]);
                }
                if let Some(closing) = self.hub.commit(id, &mut one.plan, written.taken, written.blocked, self.now) {
                    self.close_session(one.key, &closing);
                }
            }
            (Err(_), _) => self.drop_conn(one.key),
            (Ok(_), None) => {}
        }
        one.plan.clear();
        one.joined.shrink_to(JOINED_KEPT);
    }
}
