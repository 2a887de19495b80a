//! What waits for a peer, given by others: packets, and words.
//!
//! tokio's channel would do, but keeps a block of 32 places even where nothing waits; most peers are idle.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::task::coop::cooperative;

/// Memory for so many is kept while nothing waits.
const PLACES_KEPT: usize = 8;

/// Opens a queue of so many at most.
pub(super) fn queue<T>(max: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { waiting: VecDeque::new(), receiver: None, closed: false };
    let queue = Arc::new(Queue { state: Mutex::new(state), max });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

#[derive(Debug)]
struct Queue<T> {
    state: Mutex<State<T>>,
    max: usize,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    receiver: Option<Waker>,
    /// The receiver is gone.
    closed: bool,
}

impl<T> Queue<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<T> {
        let next = self.waiting.pop_front();
        if self.waiting.is_empty() && self.waiting.capacity() > PLACES_KEPT {
            self.waiting = VecDeque::new();
        }
        next
    }
}

/// The end of whoever has something for the peer.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Queue<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Sender<T> {
    /// Gives it back if there is no room, or nobody any more.
    pub(super) fn try_send(&self, one: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if state.closed || state.waiting.len() >= self.0.max {
            return Err(one);
        }
        state.waiting.push_back(one);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Ok(())
    }

    /// Do both lead to the same peer?
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The peer's end. Others can always send to it: they find its other end in the table, where the peer has put it.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Queue<T>>);

impl<T> Receiver<T> {
    /// The next one. Safe to cancel: nothing is lost.
    pub(super) async fn next(&mut self) -> T {
        cooperative(poll_fn(|cx| self.poll(cx))).await
    }

    /// The next one, if it is there.
    pub(super) fn try_next(&mut self) -> Option<T> {
        self.0.lock().take()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock();
        if let Some(one) = state.take() {
            return Poll::Ready(one);
        }
        if !state.receiver.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            state.receiver = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let (waiting, receiver) = (std::mem::take(&mut state.waiting), state.receiver.take());
        drop(state);
        drop((waiting, receiver));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_a_limit_and_gives_in_order() {
        let (sender, mut receiver) = queue(20);
        assert!((0..20).all(|n| sender.try_send(n).is_ok()));
        assert_eq!(sender.try_send(20), Err(20));
        let mut cx = Context::from_waker(Waker::noop());
        assert!((0..19).all(|n| receiver.poll(&mut cx) == Poll::Ready(n)));
        assert_eq!((receiver.try_next(), receiver.try_next()), (Some(19), None));
        assert!(receiver.poll(&mut cx).is_pending());
        assert!(receiver.0.lock().waiting.capacity() <= PLACES_KEPT, "what is over takes no memory");
        assert_eq!(sender.try_send(21), Ok(()));
        let waits = Arc::new(());
        let (other, gone) = queue(1);
        assert!(other.try_send(Arc::clone(&waits)).is_ok() && !other.same(&queue(1).0) && other.same(&other.clone()));
        drop(gone);
        assert_eq!(Arc::strong_count(&waits), 1, "nobody will take it");
        assert!(other.try_send(waits).is_err());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let (sender, mut receiver) = queue(1);
        let received = tokio::spawn(async move { receiver.next().await });
        tokio::task::yield_now().await;
        sender.try_send(7).expect("there is room");
        assert_eq!(received.await.expect("it does not panic"), 7);
    }
}
