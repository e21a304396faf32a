//! The way from the polling thread to the lane: ordered, bounded in chunks of records.
//!
//! Only records count against the bound, and only the sender's own patience enforces it: a revocation must reach a
//! lane that is behind, and must not overtake the records before it. So the bound can be exceeded by the one chunk
//! that a rebalance hands over early.

use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Event;

/// Chunks that were sent and not taken yet.
#[derive(Default)]
struct Gate {
    waiting: Mutex<usize>,
    taken: Condvar,
}

/// The lane's end.
pub struct Events {
    receiver: Receiver<Event>,
    gate: Arc<Gate>,
}

/// The polling thread's end.
pub(super) struct EventSender {
    sender: Sender<Event>,
    gate: Arc<Gate>,
    capacity: usize,
}

/// The lane has dropped its end.
#[derive(Debug)]
pub(super) struct Closed;

pub(super) fn queue(capacity: usize) -> (EventSender, Events) {
    let (sender, receiver) = channel();
    let gate = Arc::new(Gate::default());
    (EventSender { sender, gate: Arc::clone(&gate), capacity: capacity.max(1) }, Events { receiver, gate })
}

impl Events {
    /// The next event; an error when the consumer has ended and everything was taken.
    pub fn recv(&self) -> Result<Event, RecvError> {
        self.receiver.recv().inspect(|event| self.count(event))
    }

    /// The next event, if it comes in time.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Event, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout).inspect(|event| self.count(event))
    }

    /// The next event, if it is there.
    pub fn try_recv(&self) -> Result<Event, TryRecvError> {
        self.receiver.try_recv().inspect(|event| self.count(event))
    }

    fn count(&self, event: &Event) {
        if matches!(event, Event::Records(_)) {
            let mut waiting = self.gate.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            *waiting = waiting.saturating_sub(1);
            self.gate.taken.notify_all();
        }
    }
}

impl EventSender {
    /// Sends at once, whether there is room or not.
    pub(super) fn send(&self, event: Event) -> Result<(), Closed> {
        if matches!(event, Event::Records(_)) {
            *self.gate.waiting.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        self.sender.send(event).map_err(|_| Closed)
    }

    /// Waits until another chunk may be sent; `false` when the time is over.
    pub(super) fn wait_for_room(&self, timeout: Duration) -> bool {
        let waiting = self.gate.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (waiting, _) = self
            .gate
            .taken
            .wait_timeout_while(waiting, timeout, |waiting| *waiting >= self.capacity)
            .unwrap_or_else(PoisonError::into_inner);
        *waiting < self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Chunk;

    #[test]
    fn records_take_room_until_they_are_taken_and_other_events_do_not() {
        let (sender, events) = queue(2);
        for _ in 0..5 {
            sender.send(Event::Idle { positions: Vec::new() }).unwrap();
        }
        sender.send(Event::Records(Chunk::default())).unwrap();
        assert!(sender.wait_for_room(Duration::ZERO));
        sender.send(Event::Records(Chunk::default())).unwrap();
        assert!(!sender.wait_for_room(Duration::ZERO));
        for _ in 0..6 {
            events.try_recv().unwrap();
        }
        assert!(sender.wait_for_room(Duration::ZERO));
    }

    #[test]
    fn sending_to_a_lane_that_is_gone_says_so() {
        let (sender, events) = queue(1);
        drop(events);
        assert!(sender.send(Event::Idle { positions: Vec::new() }).is_err());
    }
}
