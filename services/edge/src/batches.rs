//! What waits in a pipe: batches of messages, from a shard to the task of their transport.
//!
//! tokio's channel would do, but keeps a block of 32 places even where nothing waits; most pipes are idle.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ticker_proto::Encoded;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::coop::cooperative;

/// Batches that wait, at most; beyond that the session counts as slow.
const WAITING_MAX: usize = 4;

/// Opens a queue.
pub(crate) fn queue() -> (Sender, Receiver) {
    let queue = Arc::<Mutex<Queue>>::default();
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Vec<Encoded>>,
    receiver: Option<Waker>,
    gathering: Option<Gathering>,
    /// One of the two ends is gone.
    closed: bool,
}

/// What a receiver waits for before it takes anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathering {
    /// Messages are enough once another like the last would not go into so much with them.
    pub(crate) room: usize,
    /// What a message takes of it.
    pub(crate) size: fn(&Encoded) -> usize,
}

impl Queue {
    /// Takes these into account, if more is waited for.
    fn gathered(&mut self, batch: &[Encoded]) {
        let Some(Gathering { room, size }) = &mut self.gathering else { return };
        let mut last = 0;
        for one in batch {
            last = size(one);
            *room = room.saturating_sub(last);
        }
        if *room < last {
            self.gathering = None;
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shard's end.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Mutex<Queue>>);

impl Sender {
    /// Gives the batch back if there is no room for it.
    pub(crate) fn try_send(&self, batch: Vec<Encoded>) -> Result<(), TrySendError<Vec<Encoded>>> {
        let mut queue = lock(&self.0);
        if queue.closed {
            return Err(TrySendError::Closed(batch));
        }
        let gathers = queue.gathering.is_some();
        queue.gathered(&batch);
        let is_full = queue.waiting.len() >= WAITING_MAX;
        if let Some(last) = queue.waiting.back_mut().filter(|_| gathers) {
            // One batch of them all.
            last.extend(batch);
        } else if is_full {
            return Err(TrySendError::Full(batch));
        } else {
            queue.waiting.push_back(batch);
        }
        if queue.gathering.is_some() {
            return Ok(());
        }
        let receiver = queue.receiver.take();
        drop(queue);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        queue.closed = true;
        let receiver = queue.receiver.take();
        drop(queue);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
    }
}

/// The transport's end.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Mutex<Queue>>);

impl Receiver {
    /// The next batch; `None` once the shard's end is gone and nothing waits. Safe to cancel: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Vec<Encoded>> {
        cooperative(poll_fn(|cx| self.poll(cx))).await
    }

    /// From here on nothing is received until that much waits, or [`Self::hurry`] is called, or the shard's end is gone.
    /// What waits already counts, and is one batch with what follows.
    pub(crate) fn gather(&self, gathering: Gathering) {
        let mut queue = lock(&self.0);
        queue.gathering = Some(gathering);
        let mut waiting = std::mem::take(&mut queue.waiting);
        waiting.iter().for_each(|batch| queue.gathered(batch));
        if let Some((first, rest)) = waiting.make_contiguous().split_first_mut() {
            rest.iter_mut().for_each(|batch| first.append(batch));
            waiting.truncate(1);
        }
        queue.waiting = waiting;
    }

    /// What waits is received now.
    pub(crate) fn hurry(&self) {
        lock(&self.0).gathering = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<Encoded>>> {
        let mut queue = lock(&self.0);
        if (queue.gathering.is_none() || queue.closed)
            && let Some(batch) = queue.waiting.pop_front()
        {
            return Poll::Ready(Some(batch));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.receiver = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        queue.closed = true;
        let (waiting, receiver) = (std::mem::take(&mut queue.waiting), queue.receiver.take());
        drop(queue);
        drop((waiting, receiver));
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn batch(text: &'static str) -> Vec<Encoded> {
        vec![Encoded::one(text.into())]
    }

    fn text(batch: &[Encoded]) -> &[u8] {
        &batch[0].bytes
    }

    #[test]
    fn a_full_queue_gives_the_batch_back() {
        let (sender, mut receiver) = queue();
        let all = ["a", "b", "c", "d"];
        for one in all {
            sender.try_send(batch(one)).expect("there is room");
        }
        assert!(matches!(sender.try_send(batch("e")), Err(TrySendError::Full(back)) if text(&back) == b"e"));
        let mut cx = Context::from_waker(Waker::noop());
        for one in all {
            assert!(matches!(receiver.poll(&mut cx), Poll::Ready(Some(next)) if text(&next) == one.as_bytes()));
        }
        assert!(receiver.poll(&mut cx).is_pending());
        sender.try_send(batch("e")).expect("there is room again");
    }

    #[test]
    fn a_receiver_that_gathers_is_given_enough_at_once() {
        let (sender, mut receiver) = queue();
        let mut cx = Context::from_waker(Waker::noop());
        let gathering = Gathering { room: 9, size: |one| one.bytes.len() };
        let mut next = |receiver: &mut Receiver| match receiver.poll(&mut cx) {
            Poll::Ready(Some(batch)) => batch.iter().flat_map(|one| one.bytes.to_vec()).collect(),
            Poll::Ready(None) => panic!("the sender lives"),
            Poll::Pending => Vec::new(),
        };
        sender.try_send(batch("aa")).expect("there is room");
        receiver.gather(gathering);
        sender.try_send(batch("bbb")).expect("there is room");
        assert_eq!(next(&mut receiver), b"", "another three would go with them");
        sender.try_send(batch("cc")).expect("there is room");
        assert_eq!(next(&mut receiver), b"");
        sender.try_send(batch("d")).expect("there is room");
        assert_eq!(next(&mut receiver), b"");
        sender.try_send(batch("e")).expect("there is room");
        assert_eq!(next(&mut receiver), b"aabbbccde", "it is full");
        receiver.gather(gathering);
        sender.try_send(batch("f")).expect("there is room");
        assert_eq!(next(&mut receiver), b"");
        receiver.hurry();
        assert_eq!(next(&mut receiver), b"f");
        receiver.gather(gathering);
        sender.try_send(batch("g")).expect("there is room");
        drop(sender);
        assert_eq!(next(&mut receiver), b"g", "nothing else will come");
    }

    #[tokio::test]
    async fn what_waits_is_received_after_the_sender_is_gone() {
        let (sender, mut receiver) = queue();
        sender.try_send(batch("a")).expect("there is room");
        drop(sender);
        assert!(receiver.next().await.is_some_and(|next| text(&next) == b"a"));
        assert!(receiver.next().await.is_none());
    }

    #[tokio::test]
    async fn a_receiver_is_woken_by_a_batch_and_by_the_end() {
        let (sender, mut receiver) = queue();
        let received = tokio::spawn(async move { (receiver.next().await.is_some(), receiver.next().await.is_none()) });
        tokio::task::yield_now().await;
        sender.try_send(batch("a")).expect("there is room");
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(received.await.expect("it does not panic"), (true, true));
    }

    #[test]
    fn a_sender_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = queue();
        drop(receiver);
        assert!(matches!(sender.try_send(batch("a")), Err(TrySendError::Closed(_))));
    }
}
