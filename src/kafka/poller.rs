//! The loop of the polling thread.
//!
//! One turn: answer rebalances, do what is due, hand a full or old chunk over, then poll for a burst of records.
//! Everything that touches the client happens here, so no state of the loop is shared but [`Shared`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::caught_up::CaughtUp;
use super::consumer::{Lag, Shared, lock};
use super::context::Context;
use super::cursor::Cursor;
use super::drain::Drain;
use super::faults::{Fault, Quiet, Refusals};
use super::identity::Identities;
use super::native::cached_watermarks;
use super::queue::{Closed, EventSender};
use super::subscription::Subscription;
use super::{ChunkBuilder, ConsumerError, ConsumerOptions, Event, HeaderBuffer, Positions, Record};
use crate::change::{TopicIdentity, TopicPartition};

/// Age at which a chunk is handed over even if it is small.
const MAX_AGE: Duration = Duration::from_millis(20);
/// Longest wait for a record, and so for a stop to be seen.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// Records polled between two looks at everything else.
const BURST: usize = 1024;
/// Time between two rounds of chores.
const CHORES: Duration = Duration::from_millis(100);
/// Time between two commits of positions to Kafka.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which the lane is told that it is idle.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Why the loop ends.
pub(super) enum Stop {
    /// The handle, or the lane by dropping its end.
    Asked,
    /// An error.
    Failed(ConsumerError),
}

/// A call to the client that should not fail has failed.
impl From<KafkaError> for Stop {
    fn from(error: KafkaError) -> Self {
        Self::Failed(ConsumerError::Fatal { reason: error.to_string() })
    }
}

impl From<ConsumerError> for Stop {
    fn from(error: ConsumerError) -> Self {
        Self::Failed(error)
    }
}

impl From<Closed> for Stop {
    fn from(Closed: Closed) -> Self {
        Self::Asked
    }
}

/// A partition that is read here.
pub(super) struct Assigned {
    pub(super) identity: TopicIdentity,
    pub(super) start: i64,
    pub(super) paused: bool,
    /// What the client gave as its position when it was assigned, and when that was.
    pub(super) before: (Option<i64>, Instant),
}

/// How long a client may need to forget the position that a partition had in an assignment before.
const FORGETTING: Duration = Duration::from_secs(10);

impl Assigned {
    /// Whether `position` may be that of an earlier assignment: the client forgets it in a thread of its own.
    fn is_stale(&self, position: i64) -> bool {
        let (before, at) = self.before;
        before == Some(position) && at.elapsed() < FORGETTING
    }
}

/// State of the polling thread.
pub(super) struct Poller {
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) options: ConsumerOptions,
    pub(super) positions: Arc<dyn Positions>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: EventSender,
    pub(super) builder: ChunkBuilder,
    pub(super) headers: HeaderBuffer,
    /// When the first record of the chunk was read.
    pub(super) opened: Option<Instant>,
    pub(super) assigned: BTreeMap<TopicPartition, Assigned>,
    pub(super) last_rebalance: Instant,
    pub(super) cursor: Cursor,
    pub(super) identities: Identities,
    /// Whether reading waits for the lane.
    pub(super) held: bool,
    pub(super) last_chunk: Instant,
    /// Whether the lane was told of the silence since then.
    pub(super) idle: bool,
    pub(super) caught_up: CaughtUp,
    pub(super) drains: Vec<Drain>,
    subscription: Subscription,
    refusals: Refusals,
    quiet: Quiet,
    next_chores: Instant,
    next_commit: Instant,
}

impl Poller {
    pub(super) fn new(
        consumer: BaseConsumer<Context>,
        options: ConsumerOptions,
        subscription: Subscription,
        positions: Arc<dyn Positions>,
        shared: Arc<Shared>,
        events: EventSender,
    ) -> Self {
        let now = Instant::now();
        Self {
            consumer: Arc::new(consumer),
            positions,
            shared,
            events,
            builder: ChunkBuilder::new(options.chunk_bytes),
            headers: HeaderBuffer::default(),
            opened: None,
            assigned: BTreeMap::new(),
            last_rebalance: now,
            cursor: Cursor::default(),
            identities: Identities::new(options.identity, options.metadata_refresh),
            held: false,
            last_chunk: now,
            idle: false,
            subscription,
            caught_up: CaughtUp::new(now),
            drains: Vec::new(),
            refusals: Refusals::default(),
            quiet: Quiet::default(),
            next_chores: now,
            next_commit: now,
            options,
        }
    }

    /// Reads until told to stop or until something fails; then leaves the group.
    pub(super) fn run(mut self) {
        let stop = loop {
            if let Err(stop) = self.turn() {
                break stop;
            }
        };
        if let Stop::Failed(error) = stop {
            tracing::error!(group = self.options.group_id, %error, "reading from Kafka has stopped");
            // A lane that is gone has no use for the reason.
            let _ = self.events.send(Event::Failed(error));
        }
        self.commit();
        self.consumer.context().close();
        self.identities.close();
    }

    fn turn(&mut self) -> Result<(), Stop> {
        if self.shared.stopping() {
            return Err(Stop::Asked);
        }
        self.answer_rebalances()?;
        if self.shared.topics_changed.swap(false, Ordering::AcqRel) {
            self.apply_pauses()?;
        }
        let now = Instant::now();
        if now >= self.next_chores {
            self.chores(now)?;
        }
        let age = self.opened.map(|opened| opened.elapsed());
        if self.held || self.builder.is_full() || age.is_some_and(|age| age >= MAX_AGE) {
            self.hand_over()?;
        }
        let wait = match age {
            // Rounded up: the client takes whole milliseconds, and would spin through the last one.
            Some(age) if !self.held => MAX_AGE.saturating_sub(age).max(Duration::from_millis(1)),
            _ => IDLE_POLL,
        };
        self.poll(if self.held { Duration::from_millis(1) } else { wait })
    }

    fn poll(&mut self, mut wait: Duration) -> Result<(), Stop> {
        let consumer = Arc::clone(&self.consumer);
        for _ in 0..BURST {
            match consumer.poll(wait) {
                None => return Ok(()),
                Some(Ok(message)) => self.read(&message),
                Some(Err(error)) => return self.fault(&error),
            }
            if self.builder.is_full() {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn read(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        let Some(topic) = self.cursor.accept(message.topic(), partition, offset) else { return };
        let (mut new_key, mut old_key) = (None, None);
        self.headers.clear();
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            match header.key {
                "__debezium.newkey" => new_key = header.value,
                "__debezium.oldkey" => old_key = header.value,
                _ => {}
            }
            self.headers.push(header.key, header.value);
        }
        let timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
        let (key, value) = (message.key(), message.payload());
        let headers = self.headers.headers();
        self.builder.push(&Record {
            topic,
            partition,
            offset,
            timestamp_ms,
            key,
            value,
            new_key,
            old_key,
            headers,
        });
        if self.opened.is_none() {
            self.opened = Some(Instant::now());
        }
    }

    fn fault(&mut self, error: &KafkaError) -> Result<(), Stop> {
        let (now, reason) = (Instant::now(), self.consumer.context().last_reason());
        let class = match Fault::of(error) {
            Fault::Position => return self.recover_positions(reason),
            Fault::Unreadable => return Err(ConsumerError::Unreadable { reason }.into()),
            Fault::Fatal => return Err(ConsumerError::Fatal { reason }.into()),
            Fault::Refusal(class) if self.refusals.lasted(now) => {
                return Err(ConsumerError::Refusal { class, reason }.into());
            }
            Fault::Refusal(class) | Fault::Transient(class) => class,
        };
        self.shared.count_error(class);
        if let Some(suppressed) = self.quiet.pass(now) {
            tracing::warn!(class, suppressed, %error, "Kafka: {reason}");
        }
        Ok(())
    }

    /// What is due now and then; nothing here waits long.
    fn chores(&mut self, now: Instant) -> Result<(), Stop> {
        self.next_chores = now + CHORES;
        if now >= self.next_commit {
            self.next_commit = now + COMMIT_INTERVAL;
            self.commit();
        }
        self.compare_topic_ids(now)?;
        let positions = self.read_positions();
        self.drain(&positions)?;
        self.tell_caught_up(&positions, now)?;
        self.note_lags(&positions);
        self.tell_idle(positions, now)
    }

    fn tell_caught_up(&mut self, positions: &HashMap<TopicPartition, i64>, now: Instant) -> Result<(), Stop> {
        self.caught_up.look(&self.consumer, &self.subscription, now);
        let CaughtUp::Following(ends) = &self.caught_up else { return Ok(()) };
        // A partition that nobody was seen to get for longer than a refresh takes is read by another member.
        let settled = self.last_rebalance.elapsed() > self.options.metadata_refresh + Duration::from_secs(5);
        let stopped = lock(&self.shared.stopped_topics).clone();
        let position = |partition: &TopicPartition| positions.get(partition).copied();
        if ends.reached(position, |topic| stopped.contains(topic), settled) {
            self.caught_up = CaughtUp::Reached;
            self.hand_over_now()?;
            self.send(Event::CaughtUp)?;
        }
        Ok(())
    }

    fn tell_idle(&mut self, positions: HashMap<TopicPartition, i64>, now: Instant) -> Result<(), Stop> {
        let silent = self.opened.is_none() && now.duration_since(self.last_chunk) >= IDLE_AFTER;
        if silent && !self.idle {
            self.idle = true;
            self.send(Event::Idle { positions: positions.into_iter().collect() })?;
        }
        Ok(())
    }

    /// The next offset of each assigned partition: behind what was read, and behind what is never delivered.
    pub(super) fn read_positions(&self) -> HashMap<TopicPartition, i64> {
        let mut positions: HashMap<_, _> =
            self.assigned.iter().map(|(partition, assigned)| (partition.clone(), assigned.start)).collect();
        let Ok(list) = self.consumer.position() else { return positions };
        for element in list.elements() {
            if let Offset::Offset(position) = element.offset() {
                let partition = TopicPartition::new(element.topic(), element.partition());
                if self.assigned.get(&partition).is_some_and(|assigned| !assigned.is_stale(position)) {
                    positions.entry(partition).and_modify(|known| *known = position.max(*known));
                }
            }
        }
        positions
    }

    fn note_lags(&self, positions: &HashMap<TopicPartition, i64>) {
        let lags = positions.iter().map(|(partition, &position)| {
            let cached = cached_watermarks(&self.consumer, &partition.topic, partition.partition);
            let end = cached.map_or(position, |(_, high)| high.max(position));
            (partition.clone(), Lag { end, position })
        });
        *lock(&self.shared.lags) = lags.collect();
    }

    /// Commits to Kafka what the lane has asked for, of partitions that are still ours.
    fn commit(&self) {
        let commits = std::mem::take(&mut *lock(&self.shared.commits));
        let mut list = TopicPartitionList::new();
        for (partition, next) in commits.iter().filter(|(partition, _)| self.assigned.contains_key(partition))
        {
            let added =
                list.add_partition(&partition.topic, partition.partition).set_offset(Offset::Offset(*next));
            if let Err(error) = added {
                tracing::debug!(%partition, next, %error, "not a position to commit");
                return;
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            self.shared.count_error("commit");
            tracing::debug!(%error, "positions were not committed to Kafka");
        }
    }

    pub(super) fn send(&self, event: Event) -> Result<(), Stop> {
        Ok(self.events.send(event)?)
    }
}
