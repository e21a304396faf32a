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

    /// The identity of this log from `offset` on, after it was cut off below a stored position.
    ///
    /// The topic keeps its id then, but offsets from there on hold other records: positions from before the cut must
    /// not be compared with them, as little as those of another topic.
    pub fn cut_at(&self, offset: i64) -> Self {
        let cuts = self.cut().map_or(0, |(cuts, _)| cuts) + 1;
        let topic_id = format!("{}{CUT}{cuts}.{offset}", self.whole_topic_id()).into();
        Self { cluster_id: self.cluster_id.clone(), topic_id }
    }

    /// The topic's id as the broker gives it.
    pub fn whole_topic_id(&self) -> &str {
        self.topic_id.split_once(CUT).map_or(&*self.topic_id, |(whole, _)| whole)
    }

    /// Where this log was cut; `None` where it never was.
    pub fn begins_at(&self) -> Option<i64> {
        self.cut().map(|(_, offset)| offset)
    }

    fn cut(&self) -> Option<(u64, i64)> {
        let (cuts, offset) = self.topic_id.split_once(CUT)?.1.split_once('.')?;
        Some((cuts.parse().ok()?, offset.parse().ok()?))
    }
}

/// Separates a topic's id from the cut that the log has had; no base64 letter.
const CUT: char = '~';

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cut_gives_a_log_of_its_own_that_knows_its_topic_and_where_it_begins() {
        let whole = TopicIdentity { cluster_id: "c".into(), topic_id: "q8yD2yiaRPa5bDmMoVAdUQ".into() };
        assert_eq!((whole.begins_at(), whole.whole_topic_id()), (None, "q8yD2yiaRPa5bDmMoVAdUQ"));
        let once = whole.cut_at(55);
        let twice = once.cut_at(55);
        assert_eq!((once.begins_at(), once.whole_topic_id()), (Some(55), "q8yD2yiaRPa5bDmMoVAdUQ"));
        assert_eq!((twice.begins_at(), twice.whole_topic_id()), (Some(55), "q8yD2yiaRPa5bDmMoVAdUQ"));
        assert!(whole != once && once != twice, "{once:?} {twice:?}");
    }
}
