//! When everything that was on Kafka at the start has been read.
//!
//! What counts is the consumer's position, not the last record's offset: the tail of a log may hold markers of
//! transactions and rolled-back records, which are never delivered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::context::Context;
use super::subscription::Subscription;
use super::watermarks::watermarks;
use crate::change::TopicPartition;

/// How long the absence of an assignment must last before metadata is asked whether any topic matches.
const NO_TOPIC_GRACE: Duration = Duration::from_secs(4);
/// How long one look at the cluster may hold up reading.
const LOOK: Duration = Duration::from_secs(3);
/// Pause between looks that did not succeed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How far the way to the end offsets of the start has come.
pub(super) enum CaughtUp {
    /// The end offsets are not known yet.
    Unknown {
        /// When to look at the cluster next.
        next_look: Instant,
        /// Whether an assignment has come.
        assigned: bool,
    },
    /// They are to be reached.
    Following(EndOffsets),
    /// They were.
    Reached,
}

/// End offsets of all matching partitions that hold anything.
pub(super) struct EndOffsets(HashMap<TopicPartition, i64>);

impl EndOffsets {
    /// Whether all were reached. `position` gives the next offset of a partition that is assigned here; a partition
    /// that is not is another member's when `settled`, and still to be assigned otherwise. Those of `skipped` topics
    /// do not count.
    pub(super) fn reached(
        &self,
        position: impl Fn(&TopicPartition) -> Option<i64>,
        skipped: impl Fn(&str) -> bool,
        settled: bool,
    ) -> bool {
        self.0.iter().all(|(partition, &end)| {
            skipped(&partition.topic) || position(partition).map_or(settled, |position| position >= end)
        })
    }
}

impl CaughtUp {
    pub(super) fn new(now: Instant) -> Self {
        Self::Unknown { next_look: now + NO_TOPIC_GRACE, assigned: false }
    }

    /// An assignment has come: the end offsets of this moment count.
    pub(super) fn assigned(&mut self) {
        if let Self::Unknown { next_look, assigned } = self
            && !*assigned
        {
            (*next_look, *assigned) = (Instant::now(), true);
        }
    }

    /// Looks at the cluster if it is time: once the first assignment has come, or to see that no topic matches.
    pub(super) fn look(
        &mut self,
        consumer: &BaseConsumer<Context>,
        subscription: &Subscription,
        now: Instant,
    ) {
        let Self::Unknown { next_look, assigned } = self else { return };
        if now < *next_look {
            return;
        }
        match end_offsets(consumer, subscription) {
            Ok((matching, ends)) if *assigned || matching == 0 => *self = Self::Following(ends),
            Ok(_) => *next_look = Instant::now() + LOOK_AGAIN,
            Err(reason) => {
                tracing::debug!(reason, "the end offsets are not known yet");
                *next_look = Instant::now() + LOOK_AGAIN;
            }
        }
    }
}

/// Number of matching partitions, and the end offsets of those that are not empty.
fn end_offsets(
    consumer: &BaseConsumer<Context>,
    subscription: &Subscription,
) -> Result<(usize, EndOffsets), String> {
    let metadata = consumer.fetch_metadata(None, LOOK).map_err(|error| error.to_string())?;
    let mut partitions = Vec::new();
    for topic in metadata.topics().iter().filter(|topic| subscription.matches(topic.name())) {
        let name: Arc<str> = topic.name().into();
        partitions.extend(
            topic.partitions().iter().map(|partition| TopicPartition::new(Arc::clone(&name), partition.id())),
        );
    }
    let found = watermarks(consumer, &partitions, LOOK).map_err(|error| error.to_string())?;
    let ends = found.into_iter().filter(|(_, marks)| marks.low < marks.high);
    Ok((partitions.len(), EndOffsets(ends.map(|(partition, marks)| (partition, marks.high)).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_end_offsets_must_be_reached_by_someone() {
        let (a, b) = (TopicPartition::new("a", 0), TopicPartition::new("b", 0));
        let ends = EndOffsets(HashMap::from([(a.clone(), 10), (b.clone(), 5)]));
        let at = |positions: &'static [(&str, i64)]| {
            move |partition: &TopicPartition| {
                positions.iter().find(|(topic, _)| *topic == &*partition.topic).map(|&(_, position)| position)
            }
        };
        assert!(ends.reached(at(&[("a", 10), ("b", 7)]), |_| false, false));
        assert!(!ends.reached(at(&[("a", 9), ("b", 7)]), |_| false, true));
        assert!(!ends.reached(at(&[("a", 10)]), |_| false, false), "b may still be assigned");
        assert!(ends.reached(at(&[("a", 10)]), |_| false, true), "b is another member's");
        assert!(ends.reached(at(&[("a", 10), ("b", 0)]), |topic| topic == "b", false), "b is stopped");
        assert!(EndOffsets(HashMap::new()).reached(at(&[]), |_| false, false), "nothing to read");
    }
}
