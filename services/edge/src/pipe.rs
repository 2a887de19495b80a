//! A session whose messages go to a transport that a task serves: HTTP/2 and HTTP/3, gRPC, WebSocket over TLS.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ticker_proto::message::{Request, Subscribe};
use ticker_proto::{Code, Encoded, Form};
use ticker_session::catalogue::Refusal;
use ticker_session::{Closing, Ending};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::batches::{self, Gathering};
use crate::command::{Command, OpenPipe, PipeId, PipeState, ShardHandle, Stalled};
use crate::pace::{PACKET_BYTES, Pace, QUIC_MAX};

/// A session, read as batches of messages.
#[derive(Debug)]
pub(crate) struct Pipe {
    shard: ShardHandle,
    id: PipeId,
    messages: batches::Receiver,
    state: Arc<PipeState>,
    stalled: Stalled,
    /// Taken out, and not given yet.
    held: Option<Vec<Encoded>>,
    /// How messages are gathered, where they go in packets of QUIC.
    pace: Option<Arc<Pace>>,
    /// When messages were last taken out, where they are gathered.
    taken: Option<Instant>,
    /// The shard is to be told that there is room.
    owes: bool,
    /// The shard has been told that the path loses packets.
    is_lossy: bool,
}

impl Pipe {
    /// Opens a session on a shard. Its transport gives up when `stalled` is told.
    pub(crate) async fn open(
        shard: ShardHandle,
        form: Form,
        subscribe: Option<Subscribe>,
        stalled: Stalled,
    ) -> Result<Self, Refusal> {
        Self::begin(shard, form, subscribe, false, stalled).await
    }

    /// The same for a transport that has an unreliable way: see [`Encoded::by_datagram`].
    pub(crate) async fn open_with_datagrams(
        shard: ShardHandle,
        form: Form,
        subscribe: Option<Subscribe>,
    ) -> Result<Self, Refusal> {
        Self::begin(shard, form, subscribe, true, Stalled::default()).await
    }

    async fn begin(
        shard: ShardHandle,
        form: Form,
        subscribe: Option<Subscribe>,
        datagrams: bool,
        stalled: Stalled,
    ) -> Result<Self, Refusal> {
        let (sender, messages) = batches::queue();
        let (reply, answer) = oneshot::channel();
        let state = Arc::<PipeState>::default();
        let open = OpenPipe {
            form,
            subscribe,
            datagrams,
            messages: sender,
            state: Arc::clone(&state),
            stalled: stalled.clone(),
            reply,
        };
        let gone = || Refusal::new(Code::Draining, "the edge is going away");
        if !shard.tell(Command::Open(Box::new(open))).await {
            return Err(gone());
        }
        let id = answer.await.map_err(|_| gone())??;
        let (held, pace, taken) = (None, None, None);
        Ok(Self { shard, id, messages, state, stalled, held, pace, taken, owes: false, is_lossy: false })
    }

    /// The next messages; `None` when the session is over. Safe to cancel: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Vec<Encoded>> {
        if self.held.is_none() {
            self.held = self.taken_out().await;
        }
        self.owes |= self.state.blocked.swap(false, Ordering::AcqRel);
        if self.owes {
            // Apart, since only the pipe of a slow reader does this.
            Box::pin(self.shard.tell(Command::Writable(self.id))).await;
            self.owes = false;
        }
        self.held.take()
    }

    /// The same for a transport whose messages go in packets. What follows the last messages closely is then given together,
    /// up to a packet of it, as the pace says; what comes after a pause at once.
    pub(crate) fn paced(mut self, pace: &Option<Arc<Pace>>) -> Self {
        self.pace.clone_from(pace);
        self
    }

    async fn taken_out(&mut self) -> Option<Vec<Encoded>> {
        let Some(pace) = &self.pace else { return self.messages.next().await };
        let due = self.taken.map(|taken| taken + pace.gathering(QUIC_MAX)).filter(|due| Instant::now() < *due);
        let gathered = match due {
            Some(due) => {
                self.messages.gather(Gathering { room: PACKET_BYTES, size: |one| one.bytes.len() });
                tokio::time::timeout_at(due, self.messages.next()).await.ok()
            }
            None => None,
        };
        let next = match gathered {
            Some(next) => next,
            None => {
                // Also where this was cancelled while it gathered.
                self.messages.hurry();
                self.messages.next().await
            }
        };
        self.taken = Some(Instant::now());
        next
    }

    /// [`Pipe::next`] is to wait for that much, until [`Pipe::hurry`].
    pub(crate) fn gather(&self, gathering: Gathering) {
        self.messages.gather(gathering);
    }

    /// [`Pipe::next`] gives what there is.
    pub(crate) fn hurry(&self) {
        self.messages.hurry();
    }

    /// The reader is to hear a heartbeat soon.
    pub(crate) fn heartbeat(&self) {
        self.shard.hint(Command::Heartbeat(self.id));
    }

    /// The path to the reader loses packets, or does so no more.
    pub(crate) fn path_is_lossy(&mut self, is_lossy: bool) {
        if self.is_lossy != is_lossy && self.shard.offer(Command::Lossy { pipe: self.id, is_lossy }) {
            self.is_lossy = is_lossy;
            metrics::counter!("ticker_edge_lossy_paths_total").increment(u64::from(is_lossy));
        }
    }

    /// Told when the reader has taken nothing for too long. [`Pipe::closing`] says the rest.
    pub(crate) fn stalled(&self) -> Stalled {
        self.stalled.clone()
    }

    /// How the session ended, once [`Pipe::next`] has given `None`; `None` if it did not end by itself: the edge goes.
    pub(crate) fn closing(&self) -> Option<&Closing> {
        self.state.closing.get()
    }

    /// A way to send requests into the session, from another task.
    pub(crate) fn requests(&self) -> Requests {
        Requests { shard: self.shard.clone(), id: self.id }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // If the queue is full, the shard finds the pipe closed at its next message or heartbeat.
        self.shard.hint(Command::Close(self.id));
    }
}

/// See [`Pipe::requests`].
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    shard: ShardHandle,
    id: PipeId,
}

impl Requests {
    /// Sends a request, or the refusal of what could not be read.
    pub(crate) async fn send(&self, request: Result<Request, Refusal>) {
        self.shard.tell(Command::Request { pipe: self.id, request }).await;
    }

    /// Ends the session: what its reader sends cannot be read.
    pub(crate) async fn end(&self, ending: Ending) {
        self.shard.tell(Command::End { pipe: self.id, ending }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    /// A pipe of a busy process, and the shard's end of it.
    fn paced() -> (batches::Sender, Pipe, Duration) {
        let poll = mio::Poll::new().expect("the kernel has one more");
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("likewise");
        let (commands, _) = sync_channel(1);
        let pace = Arc::<Pace>::default();
        (0..32).for_each(|_| pace.used(1.0));
        let shard = ShardHandle::new(commands, Arc::new(waker), Arc::<AtomicBool>::default());
        let (sender, messages) = batches::queue();
        let (state, stalled) = (Arc::default(), Stalled::default());
        let id = PipeId { key: 0, generation: 0 };
        let (gathering, pace) = (pace.gathering(QUIC_MAX), Some(pace));
        let (held, taken) = (None, None);
        (
            sender,
            Pipe { shard, id, messages, state, stalled, held, pace, taken, owes: false, is_lossy: false },
            gathering,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_closely_goes_together_and_what_comes_after_a_pause_at_once() {
        let (sender, mut pipe, gathering) = paced();
        let send = |text: &'static str| sender.try_send(vec![Encoded::one(text.into())]).expect("there is room");
        let mut next = async || {
            let began = Instant::now();
            let bytes: Vec<u8> =
                pipe.next().await.expect("it goes on").iter().flat_map(|one| one.bytes.to_vec()).collect();
            (String::from_utf8(bytes).expect("text"), began.elapsed())
        };
        send("a");
        assert_eq!(next().await, ("a".into(), Duration::ZERO));
        send("b");
        send("c");
        let (text, took) = next().await;
        assert_eq!(text, "bc");
        // Timers count in milliseconds.
        assert!(took >= gathering && took <= gathering + Duration::from_millis(1), "{took:?}");
        tokio::time::advance(Duration::from_millis(100)).await;
        send("d");
        assert_eq!(next().await, ("d".into(), Duration::ZERO));
        // Whoever gave up in the midst of it finds no wait left behind.
        assert!(tokio::time::timeout(Duration::ZERO, next()).await.is_err());
        tokio::time::advance(Duration::from_millis(100)).await;
        send("e");
        assert_eq!(next().await, ("e".into(), Duration::ZERO));
    }
}
