//! Key changes of which a batch has the first half so far.
//!
//! A row whose primary key changed is three records (delete, tombstone, create), one behind the other in their partition as
//! long as both keys lie there. Records of other partitions may come in between, so this is kept for each partition. Where
//! the keys lie in different ones nothing announces the create, and the next record of the delete's partition, which is
//! another row's, ends the waiting.

use std::collections::HashSet;
use std::sync::Arc;

use crate::change::TopicPartition;
use crate::kafka::Record;

/// Partitions whose newest record belongs to a key change and is not its end.
#[derive(Debug, Default)]
pub(super) struct OpenKeyChanges {
    partitions: HashSet<TopicPartition>,
}

impl OpenKeyChanges {
    /// Whether no key change is begun.
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Takes note of the next record of a partition.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        // The header is on the delete and its tombstone.
        let is_open = record.new_key.is_some();
        if !is_open && self.partitions.is_empty() {
            return;
        }
        let partition = TopicPartition::new(Arc::clone(record.topic), record.partition);
        if is_open {
            self.partitions.insert(partition);
        } else {
            self.partitions.remove(&partition);
        }
    }

    /// Waits for none of them any more.
    pub(super) fn clear(&mut self) {
        self.partitions.clear();
    }
}
