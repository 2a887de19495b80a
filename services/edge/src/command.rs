//! What a shard is told by others: upstream, and the transports of the HTTP library.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ticker_market::{Instrument, Topic};
use ticker_proto::message::{Request, Subscribe};
use ticker_proto::{Form, Frame};
use ticker_session::catalogue::Refusal;
use ticker_session::{Closing, Ending, Need, Page, SessionId};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::batches;

/// Commands that wait for a shard, at most; who has more waits.
pub(crate) const COMMANDS_MAX: usize = 4_096;

/// Bytes of one batch, about: with those before it in the transport's own buffers, what a reader who takes nothing costs.
/// What lies behind them can still be conflated.
pub(crate) const PIPE_BATCH_BYTES: usize = 32 * 1024;

/// Topics with the place of their last event and their newest value.
pub(crate) type AddedTopics = Vec<(Topic, u64, Option<Arc<Frame>>)>;

/// Told to every shard.
#[derive(Clone, Debug)]
pub(crate) enum Upstream {
    Opened { epoch: Arc<str>, seq: u64, resumed: bool },
    Instruments(Arc<Vec<Instrument>>),
    Added { topics: Arc<AddedTopics>, resumed: bool },
    Removed(Arc<Vec<Topic>>),
    Events { frames: Arc<Vec<Arc<Frame>>>, seq: u64 },
    Progress(u64),
}

/// Told to one shard.
#[derive(Debug)]
pub(crate) enum Command {
    Upstream(Upstream),
    Backfilled {
        ticket: u64,
        page: Result<Page, String>,
    },
    /// A session whose messages go into a pipe.
    Open(Box<OpenPipe>),
    /// A request of such a session.
    Request {
        pipe: PipeId,
        request: Result<Request, Refusal>,
    },
    /// Such a session ends: its reader's requests cannot be read any more.
    End {
        pipe: PipeId,
        ending: Ending,
    },
    /// The reader of a pipe takes messages again.
    Writable(PipeId),
    /// A reader has been sent something by another.
    Signal(Box<Signal>),
    /// The reader of a pipe is to hear a heartbeat now.
    Heartbeat(PipeId),
    /// The path to the reader of a pipe loses packets, or does so no more.
    Lossy {
        pipe: PipeId,
        is_lossy: bool,
    },
    /// The reader of a pipe is gone.
    Close(PipeId),
    /// One answer (a long poll or a snapshot), as JSON.
    Ask(Box<Ask>),
    /// Answered once everything that was told before has been taken in.
    Reached(oneshot::Sender<()>),
    /// No more readers; say goodbye to those who are here.
    Drain {
        reason: String,
    },
}

/// Names a pipe among those of its shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PipeId {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

/// What both ends of a pipe see.
#[derive(Debug, Default)]
pub(crate) struct PipeState {
    /// The shard had messages for which there was no room.
    pub(crate) blocked: AtomicBool,
    /// How the session ended, if its last words are in the pipe or its reader takes nothing.
    pub(crate) closing: OnceLock<Closing>,
}

/// Told when a reader has taken nothing for too long: whoever writes to it must give up, since no word reaches it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stalled(Arc<Notify>);

impl Stalled {
    pub(crate) fn tell(&self) {
        // Kept for whoever waits later: there is one.
        self.0.notify_one();
    }

    pub(crate) async fn told(&self) {
        self.0.notified().await;
    }
}

/// See [`Command::Open`].
#[derive(Debug)]
pub(crate) struct OpenPipe {
    pub(crate) form: Form,
    pub(crate) subscribe: Option<Subscribe>,
    /// Its transport has an unreliable way.
    pub(crate) datagrams: bool,
    pub(crate) messages: batches::Sender,
    pub(crate) state: Arc<PipeState>,
    pub(crate) stalled: Stalled,
    pub(crate) reply: oneshot::Sender<Result<PipeId, Refusal>>,
}

/// See [`Command::Signal`].
#[derive(Debug)]
pub(crate) struct Signal {
    pub(crate) to: SessionId,
    pub(crate) from: String,
    pub(crate) data: serde_json::Value,
}

/// See [`Command::Ask`].
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) subscribe: Subscribe,
    pub(crate) wait: Duration,
    pub(crate) reply: oneshot::Sender<Result<Bytes, Refusal>>,
}

/// The way to a shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardHandle {
    commands: SyncSender<Command>,
    waker: Arc<mio::Waker>,
    /// The shard has been woken and has not looked yet.
    woken: Arc<AtomicBool>,
}

impl ShardHandle {
    pub(crate) fn new(commands: SyncSender<Command>, waker: Arc<mio::Waker>, woken: Arc<AtomicBool>) -> Self {
        Self { commands, waker, woken }
    }

    /// Tells the shard; waits while its queue is full. Returns false if the shard is gone.
    pub(crate) async fn tell(&self, mut command: Command) -> bool {
        loop {
            match self.commands.try_send(command) {
                Ok(()) => return self.wake().is_ok(),
                Err(TrySendError::Full(back)) => {
                    command = back;
                    metrics::counter!("ticker_edge_shard_queue_full_total").increment(1);
                    // Apart: every session waits for this place somewhere, and hardly any ever needs it.
                    Box::pin(tokio::time::sleep(Duration::from_millis(1))).await;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
    }

    /// Tells the shard if there is room: for what may be told late or not at all.
    pub(crate) fn hint(&self, command: Command) {
        let _ = self.offer(command);
    }

    /// The same; says whether there was room.
    pub(crate) fn offer(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok() && self.wake().is_ok()
    }

    fn wake(&self) -> io::Result<()> {
        // One wake-up serves all commands that come before the shard looks.
        if self.woken.swap(true, Ordering::SeqCst) { Ok(()) } else { self.waker.wake() }
    }
}

/// Needs of all shards that wait for upstream, at most; beyond that they wait in their shard's hub, which keeps no more of
/// them than its sessions have topics and requests.
pub(crate) const NEEDS_MAX: usize = 4_096;

/// What a shard tells upstream: who it is, and what it needs.
pub(crate) type Needs = mpsc::Sender<(usize, Need)>;
