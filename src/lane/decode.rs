//! The decoding stage: from copied records to batches, on a thread of its own.
//!
//! A batch closes when it is full, or when it is old enough *and* the committing stage is free: while a commit runs,
//! the next batch grows up to its limits instead of queueing, so at most one batch is being decoded and one being
//! committed. It does not close between the records of one primary-key change (delete, tombstone, create), whatever of
//! other partitions lies among them, because the create's absent columns are found in the deleted row. The create may lie
//! in another partition, where nothing announces it: so a batch waits until it is twice as old as others become, or half as
//! large again, and what is cut then is put together by the sink's ledger.
//!
//! A record that cannot be decoded is set aside, or stops its topic in this lane ([`super::refuse`]): then the batch ends
//! before it, and records of the topic that are already on their way are dropped unread; they stay in Kafka.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::barrier::Barrier;
use super::key_changes::OpenKeyChanges;
use super::limits::BatchLimits;
use super::originals::KeptChunks;
use super::refuse::Refusals;
use crate::change::{Batch, RecordError, Span, TopicIdentity, TopicPartition};
use crate::debezium::{Decoder, Drained, Outcome, RecordRef};
use crate::kafka::{Assignment, Chunk, Consumer, ConsumerError, Event, Events, Record};

/// Records that are no changes, by topic and rule.
pub(super) type Filtered = HashMap<(Arc<str>, &'static str), u64>;

/// What the decoding stage hands to the committing stage, in order.
pub(super) enum Staged {
    Batch {
        batch: Box<Batch>,
        filtered: Filtered,
        decoding: Duration,
        /// Given back when the batch is committed: its owner is the one batch in the committing stage.
        permit: OwnedSemaphorePermit,
    },
    /// Partitions and the positions that they are read from.
    Assigned(Vec<(TopicPartition, i64)>),
    Revoked {
        partitions: Vec<TopicPartition>,
        done: SyncSender<()>,
    },
    RecordStopped(RecordError),
    /// A limit of the quarantine is reached.
    TooManyBad(String),
    CaughtUp,
    Failed(ConsumerError),
    /// The decoder contradicted itself: a bug, which must not look like progress.
    Broken(String),
}

/// What the stage asks of the consumer.
pub(super) trait Reading: Send {
    /// Stops a topic's records at their source, for good.
    fn pause_topic(&self, topic: &str);
    /// Stops a partition's records, or lets them go on.
    fn hold(&self, partition: &TopicPartition, hold: bool);
    /// Asks for [`Event::Drained`].
    fn drain(&self, topic: &Arc<str>, question: u64);
}

/// Not an owner: a decoding thread that ends late must not be the one who closes the consumer, unseen.
impl Reading for Weak<Consumer> {
    fn pause_topic(&self, topic: &str) {
        if let Some(consumer) = self.upgrade() {
            consumer.pause_topic(topic);
        }
    }

    fn hold(&self, partition: &TopicPartition, hold: bool) {
        if let Some(consumer) = self.upgrade() {
            consumer.hold(partition, hold);
        }
    }

    fn drain(&self, topic: &Arc<str>, question: u64) {
        if let Some(consumer) = self.upgrade() {
            consumer.drain(topic, question);
        }
    }
}

pub(super) struct DecodeStage {
    pub(super) decoder: Decoder,
    pub(super) refusals: Refusals,
    /// Chunks that the running batch is made of, where they are kept.
    kept: Vec<Arc<Chunk>>,
    limits: BatchLimits,
    staged: mpsc::Sender<Staged>,
    committer: Arc<Semaphore>,
    runtime: Handle,
    pub(super) reading: Box<dyn Reading>,
    pub(super) barrier: Barrier,
    /// Whether the end was reached while a truncate waits: it is behind that.
    caught_up: bool,
    identities: HashMap<TopicPartition, TopicIdentity>,
    pub(super) stopped_topics: HashSet<Arc<str>>,
    filtered: Filtered,
    decoding: Duration,
    /// Time spent waiting for the committing stage, since the start.
    waiting: Duration,
    opened: Option<Instant>,
    key_changes: OpenKeyChanges,
}

/// The committing stage has gone: there is nobody left to decode for.
pub(super) struct CommitterGone;

impl DecodeStage {
    pub(super) fn new(
        decoder: Decoder,
        refusals: Refusals,
        limits: BatchLimits,
        staged: mpsc::Sender<Staged>,
        committer: Arc<Semaphore>,
        runtime: Handle,
        reading: Box<dyn Reading>,
    ) -> Self {
        Self {
            decoder,
            refusals,
            kept: Vec::new(),
            limits,
            staged,
            committer,
            runtime,
            reading,
            barrier: Barrier::default(),
            caught_up: false,
            identities: HashMap::new(),
            stopped_topics: HashSet::new(),
            filtered: Filtered::new(),
            decoding: Duration::ZERO,
            waiting: Duration::ZERO,
            opened: None,
            key_changes: OpenKeyChanges::default(),
        }
    }

    /// Decodes until the consumer or the committer ends.
    pub(super) fn run(mut self, events: &Events) {
        loop {
            let step = match events.recv_timeout(self.patience()) {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if step.and_then(|()| self.close_if_due()).is_err() {
                return;
            }
        }
    }

    /// How long to wait for records before looking at the clock again.
    fn patience(&self) -> Duration {
        const TICK: Duration = Duration::from_millis(20);
        match self.opened {
            Some(opened) => self.limits.max_delay.saturating_sub(opened.elapsed()).max(TICK),
            None => Duration::from_millis(500),
        }
    }

    pub(super) fn handle(&mut self, event: Event) -> Result<(), CommitterGone> {
        match event {
            Event::Records(chunk) => self.decode(&Arc::new(chunk)),
            Event::Assigned(partitions) => {
                // A partition may start over in another log (`on_data_loss = "continue"`): one batch never holds both.
                self.close()?;
                let cut: BTreeMap<TopicPartition, Span> = partitions.iter().filter_map(new_cut).collect();
                self.let_go(partitions.iter().map(|assigned| &assigned.partition));
                for assigned in &partitions {
                    self.identities.insert(assigned.partition.clone(), assigned.identity.clone());
                    self.decoder.begin_partition(assigned.partition.clone(), assigned.start);
                }
                let starts = partitions.into_iter().map(|assigned| (assigned.partition, assigned.start));
                self.send(Staged::Assigned(starts.collect()))?;
                if cut.is_empty() { Ok(()) } else { self.store_positions(cut) }
            }
            Event::Revoked { partitions, done, .. } => {
                // Also where the partitions are lost: what is decoded may still be committed, because the sink
                // compares positions and refuses it where the new owner was faster.
                self.close()?;
                self.let_go(partitions.iter());
                self.send(Staged::Revoked { partitions, done })
            }
            Event::CaughtUp => {
                self.caught_up = true;
                self.tell_caught_up()
            }
            Event::Drained { topic, question, partitions, elsewhere } => {
                self.drained(&topic, question, partitions, &elsewhere)
            }
            Event::Idle { positions } => {
                self.reach(&positions);
                Ok(())
            }
            Event::Failed(error) => {
                self.close()?;
                self.send(Staged::Failed(error))
            }
        }
    }

    /// Has the next batch end behind what Kafka never delivers. A position that stayed before it would fall out of
    /// the log with retention, and look like a loss.
    fn reach(&mut self, positions: &[(TopicPartition, i64)]) {
        for (partition, next) in positions {
            let Some(identity) = self.identities.get(partition) else { continue };
            if !self.stopped_topics.contains(&partition.topic)
                && !self.barrier.holds(&partition.topic, partition.partition)
                && self.decoder.reach(partition, *next, identity)
            {
                self.opened.get_or_insert_with(Instant::now);
            }
        }
    }

    fn decode(&mut self, chunk: &Arc<Chunk>) -> Result<(), CommitterGone> {
        let started = Instant::now();
        let waited = self.waiting;
        // Records come in runs of one partition: its identity is looked up once a run.
        let mut run: Option<(TopicPartition, TopicIdentity)> = None;
        for record in chunk.iter() {
            self.decode_record(&record, chunk, &mut run, None)?;
        }
        self.decoding += started.elapsed().saturating_sub(self.waiting.saturating_sub(waited));
        Ok(())
    }

    /// Decodes one record of a chunk; with `drained` a truncate whose topic was read to its end.
    pub(super) fn decode_record(
        &mut self,
        record: &Record<'_>,
        chunk: &Arc<Chunk>,
        run: &mut Option<(TopicPartition, TopicIdentity)>,
        drained: Option<Drained>,
    ) -> Result<(), CommitterGone> {
        if !self.stopped_topics.is_empty() && self.stopped_topics.contains(record.topic) {
            return Ok(());
        }
        if self.barrier.holds(record.topic, record.partition) {
            self.barrier.keep(record);
            return Ok(());
        }
        let same_run = |(at, _): &&(TopicPartition, TopicIdentity)| {
            at.partition == record.partition && Arc::ptr_eq(&at.topic, record.topic)
        };
        let identity = match run.as_ref().filter(same_run) {
            Some((_, identity)) => identity.clone(),
            None => self.begin_run(run, record.topic, record.partition),
        };
        let reference = RecordRef {
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            value: record.value,
            new_key: record.new_key,
            old_key: record.old_key,
            headers: &record.headers,
        };
        let outcome = match drained {
            None => self.decoder.push(reference, &identity),
            Some(drained) => self.decoder.truncate(reference, &identity, drained),
        };
        if let Ok(Outcome::Truncate { lsn }) = outcome {
            self.wait_for_topic(record, lsn);
            return Ok(());
        }
        self.opened.get_or_insert_with(Instant::now);
        self.key_changes.note(record);
        match outcome {
            Ok(Outcome::Change(_) | Outcome::Truncate { .. }) => self.refusals.limiter.good(),
            Ok(Outcome::Filtered(reason)) => {
                self.refusals.limiter.good();
                *self.filtered.entry((Arc::clone(record.topic), reason)).or_default() += 1;
            }
            Err(error) => self.refuse(error, &reference, record, &identity)?,
        }
        self.keep(chunk);
        self.close_if_full()
    }

    fn begin_run(
        &self,
        run: &mut Option<(TopicPartition, TopicIdentity)>,
        topic: &Arc<str>,
        partition: i32,
    ) -> TopicIdentity {
        let partition = TopicPartition::new(Arc::clone(topic), partition);
        let identity = self.identities.get(&partition).cloned().unwrap_or_else(TopicIdentity::unknown);
        *run = Some((partition, identity.clone()));
        identity
    }

    /// Keeps the chunk that the newest record of the batch lies in.
    fn keep(&mut self, chunk: &Arc<Chunk>) {
        if self.refusals.keep_originals && !self.kept.last().is_some_and(|last| Arc::ptr_eq(last, chunk)) {
            self.kept.push(Arc::clone(chunk));
        }
    }

    fn close_if_full(&mut self) -> Result<(), CommitterGone> {
        let size = (self.decoder.records(), self.decoder.bytes());
        let may_cut = self.key_changes.is_empty() || self.limits.are_far_exceeded_by(size);
        if self.limits.are_reached_by(size) && may_cut { self.close() } else { Ok(()) }
    }

    fn close_if_due(&mut self) -> Result<(), CommitterGone> {
        let Some(opened) = self.opened else { return Ok(()) };
        let age = opened.elapsed();
        let may_cut = self.key_changes.is_empty() || age >= self.limits.longest_delay();
        if age < self.limits.max_delay || !may_cut {
            return Ok(());
        }
        if let Ok(permit) = Arc::clone(&self.committer).try_acquire_owned() {
            self.close_with(permit)
        } else {
            Ok(())
        }
    }

    /// Says that the end was reached, once no truncate waits any more.
    pub(super) fn tell_caught_up(&mut self) -> Result<(), CommitterGone> {
        if !self.caught_up || !self.barrier.is_empty() {
            return Ok(());
        }
        self.caught_up = false;
        self.close()?;
        self.send(Staged::CaughtUp)
    }

    /// Closes the batch, waiting for the committing stage.
    pub(super) fn close(&mut self) -> Result<(), CommitterGone> {
        if self.opened.is_none() {
            return Ok(());
        }
        let committer = Arc::clone(&self.committer);
        let started = Instant::now();
        let permit = self.runtime.block_on(committer.acquire_owned()).map_err(|_| CommitterGone)?;
        self.waiting += started.elapsed();
        self.close_with(permit)
    }

    fn close_with(&mut self, permit: OwnedSemaphorePermit) -> Result<(), CommitterGone> {
        let started = Instant::now();
        let mut batch = match self.decoder.finish() {
            Ok(batch) => batch,
            Err(error) => return self.send(Staged::Broken(error.to_string())),
        };
        let kept = std::mem::take(&mut self.kept);
        if !kept.is_empty() {
            batch.originals = Some(Arc::new(KeptChunks::new(kept)));
        }
        let decoding = std::mem::take(&mut self.decoding) + started.elapsed();
        self.opened = None;
        // What is cut by now is not waited for in the next batch.
        self.key_changes.clear();
        let filtered = std::mem::take(&mut self.filtered);
        self.send(Staged::Batch { batch: Box::new(batch), filtered, decoding, permit })
    }

    /// Hands over positions without records. A log that was cut may grow beyond the former position before its first
    /// record is read, and then nobody could tell that it was cut.
    fn store_positions(&mut self, spans: BTreeMap<TopicPartition, Span>) -> Result<(), CommitterGone> {
        let committer = Arc::clone(&self.committer);
        let permit = self.runtime.block_on(committer.acquire_owned()).map_err(|_| CommitterGone)?;
        let batch = Batch { spans, ..Batch::default() };
        let (filtered, decoding) = (Filtered::new(), Duration::ZERO);
        self.send(Staged::Batch { batch: Box::new(batch), filtered, decoding, permit })
    }

    pub(super) fn send(&self, staged: Staged) -> Result<(), CommitterGone> {
        self.staged.blocking_send(staged).map_err(|_| CommitterGone)
    }
}

/// The position of a partition that starts where its log was cut.
fn new_cut(assigned: &Assignment) -> Option<(TopicPartition, Span)> {
    let Assignment { partition, identity, start } = assigned;
    let span = Span { identity: identity.clone(), first: *start, next: *start };
    (identity.begins_at() == Some(*start)).then(|| (partition.clone(), span))
}
