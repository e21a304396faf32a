//! What a consumer tells its lane, and what it asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::{Chunk, ConsumerError};
use crate::change::{StoredPosition, TopicIdentity, TopicPartition};

/// Answers where partitions start: the sink's stored progress.
pub trait Positions: Send + Sync + 'static {
    /// The stored positions of `partitions`; one that is missing in the answer starts at the beginning of its log.
    ///
    /// Called on the polling thread whenever partitions are assigned. It may block, for up to about 30 s: the group
    /// waits meanwhile. An error stops the consumer.
    fn start(&self, partitions: &[TopicPartition])
    -> Result<HashMap<TopicPartition, StoredPosition>, String>;
}

/// A partition that this consumer reads from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub partition: TopicPartition,
    /// The log that its offsets count in.
    pub identity: TopicIdentity,
    /// The first offset that will be read, or a lower one where offsets have gaps.
    pub start: i64,
}

/// What happened, in order.
#[derive(Debug)]
pub enum Event {
    /// Records were read.
    Records(Chunk),
    /// Partitions are read from the given positions on: newly assigned ones, or, with
    /// [`OnDataLoss::Continue`](super::OnDataLoss::Continue), ones that had to move. Partitions that were assigned
    /// before and are not named go on as they were.
    Assigned(Vec<Assignment>),
    /// Partitions go to another member of the group; all records that were read of them stand before this event.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Whether another member may read them already, so that what is in flight should be dropped.
        lost: bool,
        /// To be answered when what was read is committed or abandoned. Unless `lost`, the polling thread waits for
        /// the answer, or for this to be dropped, up to a deadline before it lets go.
        done: SyncSender<()>,
    },
    /// Everything that was on Kafka when the first assignment came has been read; sent once.
    CaughtUp,
    /// What a lane asked for by [`Consumer::drain`](super::Consumer::drain): all that the topic's partitions held when it
    /// asked stands before this event, but for those that the lane holds.
    Drained {
        /// The topic.
        topic: Arc<str>,
        /// The number of the question.
        question: u64,
        /// How many partitions the topic has.
        partitions: usize,
        /// Partitions that are not read here: then nothing was waited for.
        elsewhere: Vec<i32>,
    },
    /// Nothing was read for a second; sent once until records come again.
    Idle {
        /// The next offset of each assigned partition, behind what is never delivered: markers of transactions and
        /// records that were rolled back.
        positions: Vec<(TopicPartition, i64)>,
    },
    /// The consumer has stopped. The last event.
    Failed(ConsumerError),
}
