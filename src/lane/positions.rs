//! Where a partition starts, asked on the polling thread and answered by the task that owns the sink.
//!
//! The sink is read again for each assignment: while a partition was somebody else's, its position moved.

use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::change::{StoredPosition, TopicPartition};
use crate::kafka::Positions;

/// How long the polling thread waits; below the poll interval after which the group would evict us.
const PATIENCE: Duration = Duration::from_secs(25);

type Answer = Result<HashMap<TopicPartition, StoredPosition>, String>;

/// A question of the polling thread.
pub(super) struct PositionRequest {
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) reply: SyncSender<Answer>,
}

/// The polling thread's end.
pub(super) struct PositionBridge {
    requests: mpsc::Sender<PositionRequest>,
}

impl PositionBridge {
    /// The bridge and the receiver that the sink's owner reads.
    pub(super) fn new() -> (Self, mpsc::Receiver<PositionRequest>) {
        let (requests, receiver) = mpsc::channel(4);
        (Self { requests }, receiver)
    }
}

impl Positions for PositionBridge {
    fn start(&self, partitions: &[TopicPartition]) -> Answer {
        let (reply, answer) = sync_channel(1);
        self.requests
            .blocking_send(PositionRequest { partitions: partitions.to_vec(), reply })
            .map_err(|_| "the lane is stopping".to_owned())?;
        answer.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => "the sink did not answer in time".to_owned(),
                RecvTimeoutError::Disconnected => "the lane is stopping".to_owned(),
            })
        })
    }
}
