//! A session whose messages go to a transport that a task serves: HTTP/2 and HTTP/3, gRPC, WebSocket over TLS.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ticker_proto::message::{Request, Subscribe};
use ticker_proto::{Code, Encoded, Form};
use ticker_session::catalogue::Refusal;
use ticker_session::{Closing, Ending};
use tokio::sync::oneshot;

use crate::batches::{self, Gathering};
use crate::command::{Command, OpenPipe, PipeId, PipeState, ShardHandle, Stalled};

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
    /// The shard is to be told that there is room.
    owes: bool,
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
        Ok(Self { shard, id, messages, state, stalled, held: None, owes: false })
    }

    /// The next messages; `None` when the session is over. Safe to cancel: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Vec<Encoded>> {
        if self.held.is_none() {
            self.held = self.messages.next().await;
        }
        self.owes |= self.state.blocked.swap(false, Ordering::AcqRel);
        if self.owes {
            // Apart, since only the pipe of a slow reader does this.
            Box::pin(self.shard.tell(Command::Writable(self.id))).await;
            self.owes = false;
        }
        self.held.take()
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
