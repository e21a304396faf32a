//! Where in Kafka a record lies, and how far a sink has got.
//!
//! A position is only meaningful together with the identity of the log it counts in: a topic that was deleted and
//! created again has other records at the same offsets. So a stored position carries the cluster's and the topic's id.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

/// `topic/partition`.
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Which log a position counts in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicIdentity {
    /// Id of the Kafka cluster, or `-` where the broker has none.
    pub cluster_id: Arc<str>,
    /// Id of the topic in URL-safe base64 (it changes when a topic is deleted and created again), or `-`.
    pub topic_id: Arc<str>,
}

impl TopicIdentity {
    /// The identity of a log on a broker that gives neither id (the embedded broker of the demo).
    pub fn unknown() -> Self {
        Self { cluster_id: "-".into(), topic_id: "-".into() }
    }
}

/// A position that a sink has durably stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPosition {
    /// The log it counts in.
    pub identity: TopicIdentity,
    /// The next offset to read: all before it are in the sink.
    pub next_offset: i64,
}

/// How far a sink has got in each partition that it has ever stored.
pub type Progress = BTreeMap<TopicPartition, StoredPosition>;

/// The offsets of one partition that a batch covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The log the offsets count in.
    pub identity: TopicIdentity,
    /// The position before the batch: the offset of its first record, or a lower one where offsets have gaps.
    pub first: i64,
    /// The position after the batch.
    pub next: i64,
}
