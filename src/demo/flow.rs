//! Flow control between the shop and the sinks, because the embedded broker keeps 5 MiB a partition and no more.
//!
//! Invariant: of each partition, the records that some lane has not stored yet take at most the limit, unless it is a
//! single record. The limit counts bytes before compression, so it holds whatever the codec makes of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::change::TopicPartition;

/// Bytes in flight a partition: what the broker retains (5 MiB), less room for records that are on their way.
pub const LIMIT: u64 = 3_500_000;

/// Counts what each partition has in flight.
#[derive(Debug)]
pub struct FlowControl {
    limit: u64,
    lanes: usize,
    partitions: Mutex<BTreeMap<TopicPartition, Partition>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Partition {
    /// Sizes of the records from offset `first` on, oldest first.
    sizes: VecDeque<u64>,
    first: i64,
    bytes: u64,
    /// Next offset of each lane.
    sunk: Vec<i64>,
}

impl Partition {
    fn end(&self) -> i64 {
        self.first + self.sizes.len() as i64
    }
}

impl FlowControl {
    /// Flow control for topics that are empty at the start and that `lanes` lanes read, with at most `limit` bytes in
    /// flight a partition.
    pub fn new(limit: u64, lanes: usize) -> Self {
        let partitions = Mutex::default();
        Self { limit, lanes: lanes.max(1), partitions, changed: Condvar::new() }
    }

    /// Waits until a record of `bytes` fits into the partition; `false` if it did not within `patience`.
    pub fn wait_for_room(&self, partition: &TopicPartition, bytes: u64, patience: Duration) -> bool {
        self.wait(patience, |partitions| {
            partitions.get(partition).is_none_or(|flow| flow.bytes == 0 || flow.bytes + bytes <= self.limit)
        })
    }

    /// The next record of the partition is `bytes` long.
    pub fn produced(&self, partition: &TopicPartition, bytes: u64) {
        let mut partitions = self.lock();
        if let Some(flow) = partitions.get_mut(partition) {
            flow.sizes.push_back(bytes);
            flow.bytes += bytes;
        } else {
            let sunk = vec![0; self.lanes];
            let flow = Partition { sizes: [bytes].into(), first: 0, bytes, sunk };
            partitions.insert(partition.clone(), flow);
        }
    }

    /// A lane (counted from 0) has stored all records of the partition before `next_offset`. Positions that go back
    /// are ignored, as are lanes and partitions that do not exist.
    pub fn sunk(&self, lane: usize, partition: &TopicPartition, next_offset: i64) {
        let mut partitions = self.lock();
        let Some(flow) = partitions.get_mut(partition) else { return };
        let Some(sunk) = flow.sunk.get_mut(lane) else { return };
        *sunk = next_offset.max(*sunk);
        let everywhere = flow.sunk.iter().copied().min().unwrap_or(0);
        while flow.first < everywhere
            && let Some(bytes) = flow.sizes.pop_front()
        {
            flow.first += 1;
            flow.bytes -= bytes;
        }
        drop(partitions);
        self.changed.notify_all();
    }

    /// The position after the newest record of each partition.
    pub fn end(&self) -> BTreeMap<TopicPartition, i64> {
        self.lock().iter().map(|(partition, flow)| (partition.clone(), flow.end())).collect()
    }

    /// Records that some lane has not stored yet.
    pub fn in_flight(&self) -> u64 {
        self.lock().values().map(|flow| flow.sizes.len() as u64).sum()
    }

    fn wait(&self, patience: Duration, until: impl Fn(&BTreeMap<TopicPartition, Partition>) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut partitions = self.lock();
        while !until(&partitions) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(partitions, left);
            partitions = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(guard, _)| guard);
        }
        true
    }

    /// A thread that panicked while it held the lock left whole numbers behind: every change is one step.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn a_partition_is_full_until_the_slowest_lane_has_stored_something() {
        let flow = FlowControl::new(100, 2);
        let (full, other) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        for _ in 0..2 {
            assert!(flow.wait_for_room(&full, 50, NOW));
            flow.produced(&full, 50);
        }
        assert!(!flow.wait_for_room(&full, 1, NOW), "100 of 100 bytes are taken");
        assert!(flow.wait_for_room(&other, 1, NOW), "another partition has room");
        flow.sunk(0, &full, 2);
        assert!(!flow.wait_for_room(&full, 1, NOW), "the second lane has stored nothing");
        flow.sunk(1, &full, 1);
        assert!(flow.wait_for_room(&full, 50, NOW));
        assert_eq!(flow.in_flight(), 1, "the second lane has one record to store");
        flow.sunk(1, &full, 2);
        assert_eq!(flow.in_flight(), 0, "every lane has stored every record");
        assert_eq!(flow.end(), BTreeMap::from([(full, 2)]));
    }

    #[test]
    fn a_record_beyond_the_limit_passes_alone() {
        let flow = FlowControl::new(100, 1);
        let partition = TopicPartition::new("t", 0);
        assert!(flow.wait_for_room(&partition, 1_000, NOW));
        flow.produced(&partition, 1_000);
        assert!(!flow.wait_for_room(&partition, 1, NOW));
        flow.sunk(0, &partition, 1);
        assert!(flow.wait_for_room(&partition, 1_000, NOW));
    }
}
