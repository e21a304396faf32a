//! The handle of a consumer, and what it shares with its polling thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::context::Context;
use super::options::creation_error;
use super::poller::Poller;
use super::queue::queue;
use super::subscription::Subscription;
use super::{ConsumerError, ConsumerOptions, Events, Positions};
use crate::change::TopicPartition;

/// How long stopping waits for the polling thread. A broker that does not answer can hold it longer; it then ends by
/// itself, without touching anything of ours.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// A running consumer. Stops when dropped.
pub struct Consumer {
    shared: Arc<Shared>,
    pub(super) thread: Option<JoinHandle<()>>,
}

/// How far a partition is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// End offset of the log, as the last fetch reported it.
    pub end: i64,
    /// Next offset to be read by this consumer (what its sink has committed is at most this).
    pub position: i64,
}

impl Consumer {
    /// Joins the group and starts reading. Events come through the second value; when that is dropped, the consumer
    /// stops as well.
    pub fn start(
        options: ConsumerOptions,
        positions: Arc<dyn Positions>,
    ) -> Result<(Self, Events), ConsumerError> {
        let subscription = Subscription::try_new(&options.topics)?;
        let client: BaseConsumer<Context> =
            options.consumer_config()?.create_with_context(Context::default()).map_err(creation_error)?;
        client.subscribe(&subscription.entries()).map_err(creation_error)?;
        let (sender, events) = queue(options.queue_chunks);
        let shared = Arc::new(Shared::default());
        let name = format!("kafka-{}", options.group_id);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || Poller::new(client, options, subscription, positions, theirs, sender).run())
            .map_err(|error| ConsumerError::Client { reason: error.to_string() })?;
        Ok((Self { shared, thread: Some(thread) }, events))
    }

    /// Stops reading a topic, for as long as this consumer lives, also after rebalances. Records that were read before
    /// may still come.
    pub fn pause_topic(&self, topic: &str) {
        lock(&self.shared.stopped_topics).insert(topic.into());
        self.shared.topics_changed.store(true, Ordering::Release);
    }

    /// Stops reading a partition, or goes on with it. Records that were read before may still come.
    pub fn hold(&self, partition: &TopicPartition, hold: bool) {
        let mut held = lock(&self.shared.held);
        if hold {
            held.insert(partition.clone());
        } else {
            held.remove(partition);
        }
        self.shared.topics_changed.store(true, Ordering::Release);
    }

    /// Asks for [`Event::Drained`](super::Event::Drained) once all that the partitions of a topic hold now was read.
    pub fn drain(&self, topic: &Arc<str>, question: u64) {
        lock(&self.shared.drains).push((Arc::clone(topic), question));
    }

    /// Commits positions (next offsets) to Kafka in the background, for lag tools only.
    pub fn commit_positions(&self, positions: &[(TopicPartition, i64)]) {
        lock(&self.shared.commits).extend(positions.iter().cloned());
    }

    /// How far each assigned partition is behind, as last known.
    pub fn lag(&self) -> BTreeMap<TopicPartition, Lag> {
        lock(&self.shared.lags).clone()
    }

    /// Errors so far by class: `connection`, `tls`, `broker`, `topic`, `authentication`, `authorization`, `group`,
    /// `poll_interval`, `commit`, `other`.
    pub fn errors(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.shared.errors).clone()
    }
}

/// Leaves the group and ends the polling thread; waits for it up to 10 s.
impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + STOP_DEADLINE;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if thread.is_finished() {
            if thread.join().is_err() {
                tracing::error!("the polling thread has panicked");
            }
        } else {
            tracing::warn!("the Kafka client does not close in time and is left to itself");
        }
    }
}

/// What handle and polling thread share. The thread reads it between polls: no caller ever waits for Kafka.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) topics_changed: AtomicBool,
    pub(super) stopped_topics: Mutex<BTreeSet<String>>,
    /// Partitions that the lane does not want to go on now.
    pub(super) held: Mutex<BTreeSet<TopicPartition>>,
    /// Topics whose ends the lane asks for.
    pub(super) drains: Mutex<Vec<(Arc<str>, u64)>>,
    pub(super) commits: Mutex<BTreeMap<TopicPartition, i64>>,
    pub(super) lags: Mutex<BTreeMap<TopicPartition, Lag>>,
    errors: Mutex<BTreeMap<&'static str, u64>>,
}

impl Shared {
    pub(super) fn count_error(&self, class: &'static str) {
        *lock(&self.errors).entry(class).or_default() += 1;
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// A panic elsewhere does not make these plain values wrong.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
