//! Telling a lane when a topic has been read up to where it ended when the lane asked.
//!
//! What counts is the consumer's position, as for the caught-up point: the tail may hold markers that are never
//! delivered. A partition that another member of the group reads cannot be waited for; the lane is told which.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;

use super::Event;
use super::consumer::lock;
use super::poller::{Poller, Stop};
use super::watermarks::watermarks;
use crate::change::TopicPartition;

/// How long a look at the topic may hold up reading; it is tried again.
const LOOK: Duration = Duration::from_secs(3);

/// A topic that is being read to its end.
pub(super) struct Drain {
    topic: Arc<str>,
    question: u64,
    partitions: usize,
    /// Where each partition ended, but for those that are held.
    ends: HashMap<TopicPartition, i64>,
}

impl Poller {
    /// Answers questions for the end of a topic, as far as it was reached.
    pub(super) fn drain(&mut self, positions: &HashMap<TopicPartition, i64>) -> Result<(), Stop> {
        let asked = std::mem::take(&mut *lock(&self.shared.drains));
        for (topic, question) in asked {
            self.drains.retain(|drain| drain.topic != topic);
            match self.look_at(&topic, question) {
                Ok(drain) => self.drains.push(drain),
                Err(reason) => {
                    tracing::debug!(%topic, reason, "asking for the end of a topic again");
                    lock(&self.shared.drains).push((topic, question));
                }
            }
        }
        let (mut answered, mut left) = (Vec::new(), Vec::new());
        for drain in std::mem::take(&mut self.drains) {
            let elsewhere = self.elsewhere(&drain);
            let at_end = |(partition, end): (&TopicPartition, &i64)| {
                positions.get(partition).is_some_and(|position| position >= end)
            };
            if elsewhere.is_empty() && !drain.ends.iter().all(at_end) {
                left.push(drain);
            } else {
                answered.push((drain, elsewhere));
            }
        }
        self.drains = left;
        for (Drain { topic, question, partitions, .. }, elsewhere) in answered {
            self.hand_over_now()?;
            self.send(Event::Drained { topic, question, partitions, elsewhere })?;
        }
        Ok(())
    }

    fn look_at(&self, topic: &Arc<str>, question: u64) -> Result<Drain, String> {
        let metadata = self.consumer.fetch_metadata(Some(topic), LOOK).map_err(|error| error.to_string())?;
        let found = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        if found.is_empty() {
            return Err("the broker does not know its partitions".to_owned());
        }
        let held = lock(&self.shared.held).clone();
        let all: Vec<TopicPartition> =
            found.iter().map(|partition| TopicPartition::new(Arc::clone(topic), partition.id())).collect();
        let wanted: Vec<TopicPartition> =
            all.iter().filter(|partition| !held.contains(partition)).cloned().collect();
        let marks = watermarks(&self.consumer, &wanted, LOOK).map_err(|error| error.to_string())?;
        let ends = marks.into_iter().map(|(partition, marks)| (partition, marks.high)).collect();
        Ok(Drain { topic: Arc::clone(topic), question, partitions: all.len(), ends })
    }

    fn elsewhere(&self, drain: &Drain) -> Vec<i32> {
        let not_here = |partition: &&TopicPartition| !self.assigned.contains_key(partition);
        let mut elsewhere: Vec<i32> =
            drain.ends.keys().filter(not_here).map(|partition| partition.partition).collect();
        elsewhere.sort_unstable();
        elsewhere
    }
}
