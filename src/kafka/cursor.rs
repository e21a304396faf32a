//! The offset that each assigned partition has been read up to.
//!
//! Keeps the first invariant of the module: within an assignment, offsets of a partition strictly increase. The client
//! may deliver a record again after a pause or a seek, and may deliver records of a partition that was just revoked;
//! neither gets past here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::TopicPartition;

/// No record of a partition that is not assigned is accepted.
const NOT_ASSIGNED: i64 = i64::MAX;

/// Next expected offsets, by topic and partition.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    index: HashMap<Arc<str>, usize>,
    topics: Vec<(Arc<str>, Vec<i64>)>,
    last: usize,
}

impl Cursor {
    /// Notes a record; gives the shared name of its topic if the record is the next one of its partition.
    pub(super) fn accept(&mut self, topic: &str, partition: i32, offset: i64) -> Option<&Arc<str>> {
        let index = match self.topics.get(self.last) {
            // Records come in runs of one partition.
            Some((name, _)) if **name == *topic => self.last,
            _ => *self.index.get(topic)?,
        };
        self.last = index;
        let (name, next) = self.topics.get_mut(index)?;
        let next = next.get_mut(usize::try_from(partition).ok()?)?;
        if offset < *next {
            return None;
        }
        *next = offset + 1;
        Some(name)
    }

    /// From now on records of `partition` from `start` on are accepted.
    pub(super) fn begin(&mut self, partition: &TopicPartition, start: i64) {
        let name = self.intern(&partition.topic);
        let index = self.index.get(&name).copied().unwrap_or_default();
        let Ok(number) = usize::try_from(partition.partition) else { return };
        if let Some((_, next)) = self.topics.get_mut(index) {
            if next.len() <= number {
                next.resize(number + 1, NOT_ASSIGNED);
            }
            if let Some(slot) = next.get_mut(number) {
                *slot = start;
            }
        }
    }

    /// From now on no record of `partition` is accepted.
    pub(super) fn end(&mut self, partition: &TopicPartition) {
        self.begin(partition, NOT_ASSIGNED);
    }

    /// The shared name of a topic.
    pub(super) fn intern(&mut self, topic: &str) -> Arc<str> {
        if let Some((name, _)) = self.index.get(topic).and_then(|&index| self.topics.get(index)) {
            return Arc::clone(name);
        }
        let name: Arc<str> = topic.into();
        self.index.insert(Arc::clone(&name), self.topics.len());
        self.topics.push((Arc::clone(&name), Vec::new()));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_increasing_offsets_of_assigned_partitions_only() {
        let mut cursor = Cursor::default();
        let partition = TopicPartition::new("t", 1);
        assert!(cursor.accept("t", 1, 0).is_none(), "not assigned");
        cursor.begin(&partition, 10);
        for (offset, expected) in [(9, false), (10, true), (10, false), (15, true), (14, false), (16, true)] {
            assert_eq!(cursor.accept("t", 1, offset).is_some(), expected, "offset {offset}");
        }
        assert!(cursor.accept("t", 0, 100).is_none(), "another partition");
        assert!(cursor.accept("u", 1, 100).is_none(), "another topic");
        cursor.end(&partition);
        assert!(cursor.accept("t", 1, 17).is_none(), "revoked");
        cursor.begin(&partition, 3);
        assert!(cursor.accept("t", 1, 3).is_some(), "assigned again");
    }
}
