//! Truncates that wait until the other partitions of their topic have been read.
//!
//! A truncate stands in no order to the rows of other partitions, so it is a barrier: its partition stops before it, the
//! others are read up to where they end now, and only then is it taken. What was read of its partition behind it is
//! kept here meanwhile, which is little, because the consumer pauses the partition.
//!
//! Invariant: the position of a partition stays before a truncate that waits. A process that ends while one waits finds
//! it again, with the other partitions further on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decode::{CommitterGone, DecodeStage};
use crate::change::{RecordError, RecordErrorKind, TopicPartition};
use crate::debezium::Drained;
use crate::kafka::{Chunk, ChunkBuilder, Record};

/// Bytes that are set aside for the records behind a truncate to begin with.
const FIRST: usize = 4 << 10;

/// A truncate and the records behind it.
struct Held {
    /// Its place in the source's log.
    lsn: i64,
    records: ChunkBuilder,
}

/// All truncates that wait.
#[derive(Default)]
pub(super) struct Barrier {
    held: BTreeMap<TopicPartition, Held>,
    /// By topic, the number of the newest question for its end; answers to older ones do not count.
    asked: BTreeMap<Arc<str>, u64>,
    questions: u64,
}

impl Barrier {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether records of this partition have to wait.
    pub(super) fn holds(&self, topic: &Arc<str>, partition: i32) -> bool {
        !self.held.is_empty() && self.held.contains_key(&TopicPartition::new(Arc::clone(topic), partition))
    }

    /// Lets a truncate wait.
    pub(super) fn hold(&mut self, truncate: &Record<'_>, lsn: i64) {
        let mut held = Held { lsn, records: ChunkBuilder::new(FIRST) };
        held.records.push(truncate);
        self.held.insert(TopicPartition::new(Arc::clone(truncate.topic), truncate.partition), held);
    }

    /// Keeps a record behind a truncate.
    pub(super) fn keep(&mut self, record: &Record<'_>) {
        let partition = TopicPartition::new(Arc::clone(record.topic), record.partition);
        if let Some(held) = self.held.get_mut(&partition) {
            held.records.push(record);
        }
    }

    /// A new question for the end of a topic, if one of its truncates waits.
    pub(super) fn ask(&mut self, topic: &Arc<str>) -> Option<u64> {
        if !self.held.keys().any(|partition| partition.topic == *topic) {
            self.asked.remove(topic);
            return None;
        }
        self.questions += 1;
        self.asked.insert(Arc::clone(topic), self.questions);
        Some(self.questions)
    }

    /// Whether this is the answer that is waited for.
    pub(super) fn is_answer(&self, topic: &Arc<str>, question: u64) -> bool {
        self.asked.get(topic) == Some(&question)
    }

    /// Takes the first truncate of a topic, by the source's log, and the records behind it.
    ///
    /// Behind another one that waits there is nothing that is older than this one.
    pub(super) fn take(&mut self, topic: &Arc<str>) -> Option<(TopicPartition, Chunk)> {
        let of_topic = self.held.iter().filter(|(partition, _)| partition.topic == *topic);
        let first = of_topic.min_by_key(|(_, held)| held.lsn).map(|(partition, _)| partition.clone())?;
        let mut held = self.held.remove(&first)?;
        Some((first, held.records.take()))
    }

    /// Forgets what waits in these partitions; gives the topics in which truncates still wait.
    pub(super) fn forget<'p>(
        &mut self,
        partitions: impl Iterator<Item = &'p TopicPartition>,
    ) -> Vec<Arc<str>> {
        let mut topics = Vec::new();
        for partition in partitions {
            self.held.remove(partition);
            if !topics.contains(&partition.topic) {
                topics.push(Arc::clone(&partition.topic));
            }
        }
        topics.retain(|topic| self.held.keys().any(|partition| partition.topic == *topic));
        topics
    }

    /// Forgets what waits in a topic; gives its partitions.
    pub(super) fn forget_topic(&mut self, topic: &str) -> Vec<TopicPartition> {
        let of_topic = self.held.keys().filter(|partition| *partition.topic == *topic);
        let partitions: Vec<TopicPartition> = of_topic.cloned().collect();
        self.forget(partitions.iter());
        partitions
    }
}

impl DecodeStage {
    /// Lets a truncate wait until the other partitions of its topic have been read.
    pub(super) fn wait_for_topic(&mut self, truncate: &Record<'_>, lsn: i64) {
        let partition = TopicPartition::new(Arc::clone(truncate.topic), truncate.partition);
        tracing::info!(%partition, offset = truncate.offset, "a truncate waits for the other partitions of its topic");
        self.barrier.hold(truncate, lsn);
        self.reading.hold(&partition, true);
        self.ask_for_end(truncate.topic);
    }

    fn ask_for_end(&mut self, topic: &Arc<str>) {
        if let Some(question) = self.barrier.ask(topic) {
            self.reading.drain(topic, question);
        }
    }

    /// Takes the first truncate of a topic that was read to its end, and what is behind it.
    pub(super) fn drained(
        &mut self,
        topic: &Arc<str>,
        question: u64,
        partitions: usize,
        elsewhere: &[i32],
    ) -> Result<(), CommitterGone> {
        if !self.barrier.is_answer(topic, question) {
            return Ok(());
        }
        let Some((partition, records)) = self.barrier.take(topic) else { return Ok(()) };
        let records = Arc::new(records);
        self.reading.hold(&partition, false);
        let mut run = None;
        let mut drained = Some(Drained { partitions });
        for record in records.iter() {
            if !elsewhere.is_empty() && drained.is_some() {
                return self.stop_topic(read_elsewhere(&partition, record.offset, elsewhere));
            }
            self.decode_record(&record, &records, &mut run, drained.take())?;
        }
        self.ask_for_end(topic);
        self.tell_caught_up()
    }

    /// Forgets truncates of partitions that are read by others from now on, or from another position.
    pub(super) fn let_go<'p>(&mut self, partitions: impl Iterator<Item = &'p TopicPartition> + Clone) {
        if self.barrier.is_empty() {
            return;
        }
        partitions.clone().for_each(|partition| self.reading.hold(partition, false));
        // Where a truncate still waits, the end is asked for again: some of it may be read elsewhere now.
        for topic in self.barrier.forget(partitions) {
            self.ask_for_end(&topic);
        }
    }

    /// Forgets the truncates of a topic that has stopped.
    pub(super) fn forget_truncates(&mut self, topic: &str) {
        for partition in self.barrier.forget_topic(topic) {
            self.reading.hold(&partition, false);
        }
    }
}

fn read_elsewhere(partition: &TopicPartition, offset: i64, elsewhere: &[i32]) -> RecordError {
    let numbers: Vec<String> = elsewhere.iter().map(ToString::to_string).collect();
    RecordError {
        partition: partition.clone(),
        offset,
        kind: RecordErrorKind::Truncate,
        detail: format!(
            "a truncate has to wait for the topic's other partitions, and another instance reads some of them ({}): stop the \
             other instances, start this one again, and start them when it has gone on; or give the topic one partition",
            numbers.join(", ")
        ),
    }
}
