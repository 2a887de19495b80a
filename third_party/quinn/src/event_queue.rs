use std::{
    mem,
    sync::{Arc, Mutex},
    task::{Context, Waker},
};

use crate::ConnectionEvent;

/// Creates the queue through which an endpoint sends events to one of its connections
///
/// An unbounded channel of tokio keeps a block of 32 events, of some 200 bytes each, for as long as it lives. Here an empty
/// queue has no memory for events.
pub(crate) fn event_queue() -> (EventSender, EventReceiver) {
    let queue = Arc::new(Mutex::new(Queue {
        events: Vec::new(),
        waker: None,
        woken: false,
        closed: false,
    }));
    (EventSender(queue.clone()), EventReceiver(queue))
}

#[derive(Debug)]
struct Queue {
    events: Vec<ConnectionEvent>,
    /// Who handles them
    waker: Option<Waker>,
    /// Whether it has been woken since it last looked
    woken: bool,
    /// Whether one of the ends is gone
    closed: bool,
}

impl Queue {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.as_ref().filter(|_| !self.woken) {
            waker.wake_by_ref();
            self.woken = true;
        }
    }
}

#[derive(Debug)]
pub(crate) struct EventSender(Arc<Mutex<Queue>>);

impl EventSender {
    /// Sends an event, unless the connection is gone
    pub(crate) fn send(&self, event: ConnectionEvent) {
        let mut queue = self.0.lock().unwrap();
        if !queue.closed {
            queue.events.push(event);
            queue.wake();
        }
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        let mut queue = self.0.lock().unwrap();
        queue.closed = true;
        queue.wake();
    }
}

#[derive(Debug)]
pub(crate) struct EventReceiver(Arc<Mutex<Queue>>);

impl EventReceiver {
    /// Takes all events that have come, and sees to it that `cx` is woken by the next
    ///
    /// `None` if there are none, nor will be: the endpoint is gone.
    pub(crate) fn take(&mut self, cx: &mut Context<'_>) -> Option<Vec<ConnectionEvent>> {
        let mut queue = self.0.lock().unwrap();
        if queue.closed && queue.events.is_empty() {
            return None;
        }
        if queue.closed {
            // Nobody else will
            cx.waker().wake_by_ref();
        }
        queue.woken = false;
        match &mut queue.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Some(mem::take(&mut queue.events))
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        let mut queue = self.0.lock().unwrap();
        queue.closed = true;
        queue.events = Vec::new();
        queue.waker = None;
    }
}
