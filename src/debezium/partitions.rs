//! What is remembered of each partition: the offsets of the running batch, whether a tombstone is expected, and its
//! place in the source's order.
//!
//! Debezium sends a tombstone directly after each delete. So the key of a partition's last record, if that was a
//! delete, tells a tombstone that only repeats it from one that is a delete of its own. This outlives batches: a batch
//! may end between the two.

use std::collections::{BTreeMap, HashMap};

use crate::change::{Span, TopicIdentity, TopicPartition};

use super::RecordRef;
use super::order::Order;

/// What the record before a tombstone was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Predecessor {
    /// Not seen by this decoder, which goes on right behind it: whoever stored the position has read it.
    ReadBefore,
    /// Not seen by this decoder; it may be gone.
    Unknown,
    /// A delete of the same key.
    SameDelete,
    /// Anything else.
    Other,
}

#[derive(Debug)]
struct State {
    partition: TopicPartition,
    topic: usize,
    /// Index in the running batch.
    in_batch: Option<u32>,
    /// Position after the last record, or the one that was set.
    position: Option<i64>,
    span: Option<Span>,
    seen: bool,
    after_delete: bool,
    deleted_key: Vec<u8>,
    order: Order,
    log: LogPlace,
}

/// How far in the source's log the changes of a partition have come; 0 where none of them said.
#[derive(Debug, Clone, Copy, Default)]
struct LogPlace {
    /// The first that was seen since the partition's position was set: those before are no newer.
    first: i64,
    newest: i64,
    /// The newest that earlier batches have, if they were seen.
    stored: Option<i64>,
}

impl LogPlace {
    /// Whether an earlier batch may hold a change that is newer than `lsn`.
    fn may_have_stored_newer(self, lsn: i64) -> bool {
        match self.stored {
            Some(stored) => stored == 0 || stored > lsn,
            None => self.first == 0 || self.first > lsn,
        }
    }
}

/// All partitions that this decoder has seen.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    states: Vec<State>,
    index: HashMap<TopicPartition, usize>,
    last: usize,
    batch: Vec<usize>,
}

impl Partitions {
    /// Index of a record's partition; `topic` gives the index of its topic where it is new.
    pub(super) fn locate(&mut self, record: &RecordRef<'_>, topic: impl FnOnce() -> usize) -> usize {
        let is_last = self.states.get(self.last).is_some_and(|state| {
            state.partition.partition == record.partition
                && std::sync::Arc::ptr_eq(&state.partition.topic, record.topic)
        });
        if !is_last {
            let partition =
                TopicPartition { topic: std::sync::Arc::clone(record.topic), partition: record.partition };
            self.last = self.find_or_add(partition, topic);
        }
        self.last
    }

    fn find_or_add(&mut self, partition: TopicPartition, topic: impl FnOnce() -> usize) -> usize {
        if let Some(&index) = self.index.get(&partition) {
            return index;
        }
        let index = self.states.len();
        self.index.insert(partition.clone(), index);
        self.states.push(State {
            partition,
            topic: topic(),
            in_batch: None,
            position: None,
            span: None,
            seen: false,
            after_delete: false,
            deleted_key: Vec::new(),
            order: Order::default(),
            log: LogPlace::default(),
        });
        index
    }

    /// Index of the partition's topic.
    pub(super) fn topic(&self, at: usize) -> usize {
        self.states.get(at).map_or(0, |state| state.topic)
    }

    /// Sets the position of a partition and forgets what came before it.
    pub(super) fn begin(&mut self, partition: TopicPartition, position: i64, topic: impl FnOnce() -> usize) {
        let at = self.find_or_add(partition, topic);
        if let Some(state) = self.states.get_mut(at) {
            state.position = Some(position);
            state.seen = false;
            state.after_delete = false;
            state.order = Order::default();
            state.log = LogPlace::default();
        }
    }

    /// Where the partition stands in the source's order.
    pub(super) fn order(&mut self, at: usize) -> Option<&mut Order> {
        self.states.get_mut(at).map(|state| &mut state.order)
    }

    /// Notes where in the source's log the newest change of a partition lies.
    pub(super) fn note_lsn(&mut self, at: usize, lsn: i64) {
        let Some(state) = self.states.get_mut(at).filter(|_| lsn > 0) else { return };
        if state.log.first == 0 {
            state.log.first = lsn;
        }
        state.log.newest = state.log.newest.max(lsn);
    }

    /// Whether earlier batches may hold changes from other partitions of the topic that are newer than `lsn`.
    pub(super) fn newer_was_stored(&self, at: usize, lsn: i64) -> bool {
        let Some(topic) = self.states.get(at).map(|state| state.topic) else { return true };
        let others =
            self.states.iter().enumerate().filter(|(other, state)| *other != at && state.topic == topic);
        let mut others = others.map(|(_, state)| state.log);
        lsn <= 0 || others.any(|order| order.may_have_stored_newer(lsn))
    }

    /// The index that the partition has in the running batch, or will have once a record of it is accepted.
    pub(super) fn in_batch(&self, at: usize) -> u32 {
        self.states.get(at).and_then(|state| state.in_batch).unwrap_or(self.batch.len() as u32)
    }

    /// What came before a tombstone with this key.
    pub(super) fn predecessor(
        &self,
        at: usize,
        key: &[u8],
        offset: i64,
        identity: &TopicIdentity,
    ) -> Predecessor {
        match self.states.get(at) {
            Some(state) if state.after_delete && state.deleted_key == key => Predecessor::SameDelete,
            Some(state) if state.seen => Predecessor::Other,
            // A record that is replayed is nobody's successor.
            Some(state) if state.position.is_none() => Predecessor::Other,
            // Where a log was cut, nobody has read what lay before.
            Some(state) if state.position == Some(offset) && identity.begins_at() != Some(offset) => {
                Predecessor::ReadBefore
            }
            _ => Predecessor::Unknown,
        }
    }

    /// Accepts a record into the batch. `deleted_key` is its key where it is a delete.
    pub(super) fn accept(
        &mut self,
        at: usize,
        offset: i64,
        identity: &TopicIdentity,
        deleted_key: Option<&[u8]>,
    ) {
        self.extend(at, offset, offset.saturating_add(1), identity);
        let Some(state) = self.states.get_mut(at) else { return };
        state.seen = true;
        state.after_delete = deleted_key.is_some();
        if let Some(key) = deleted_key {
            state.deleted_key.clear();
            state.deleted_key.extend_from_slice(key);
        }
    }

    /// Extends the span of a partition that is being read up to `next`, if that is further; whether it is.
    pub(super) fn reach(&mut self, partition: &TopicPartition, next: i64, identity: &TopicIdentity) -> bool {
        let Some(&at) = self.index.get(partition) else { return false };
        let position = self.states.get(at).and_then(|state| state.position);
        let Some(position) = position.filter(|position| *position < next) else { return false };
        self.extend(at, position, next, identity);
        true
    }

    /// Has the batch cover a partition from `from`, or from where it stands, to `next`.
    fn extend(&mut self, at: usize, from: i64, next: i64, identity: &TopicIdentity) {
        let next_index = self.batch.len() as u32;
        let Some(state) = self.states.get_mut(at) else { return };
        if let Some(span) = &mut state.span {
            span.next = next;
        } else {
            let first = state.position.map_or(from, |position| position.min(from));
            state.span = Some(Span { identity: identity.clone(), first, next });
            state.in_batch = Some(next_index);
            self.batch.push(at);
        }
        state.position = Some(next);
    }

    /// Ends the batch: its partitions in the order of their index, and their spans.
    pub(super) fn finish(&mut self) -> (Vec<TopicPartition>, BTreeMap<TopicPartition, Span>) {
        let mut partitions = Vec::with_capacity(self.batch.len());
        let mut spans = BTreeMap::new();
        for at in self.batch.drain(..) {
            let Some(state) = self.states.get_mut(at) else { continue };
            state.in_batch = None;
            if state.log.newest > 0 {
                state.log.stored = Some(state.log.newest);
            }
            partitions.push(state.partition.clone());
            if let Some(span) = state.span.take() {
                spans.insert(state.partition.clone(), span);
            }
        }
        (partitions, spans)
    }
}
