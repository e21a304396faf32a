//! What happens to a log while it is read: retention overtakes the position, the log is cut, the topic is another one.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use rdkafka::consumer::{Consumer as _, RebalanceProtocol};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::{let_go, take_on};
use super::poller::{Poller, Stop};
use super::rebalance::OFFSETS_PATIENCE;
use super::start::{Start, differ, start};
use super::watermarks::watermarks;
use super::{Assignment, ConsumerError, Event};
use crate::change::{StoredPosition, TopicIdentity, TopicPartition};

impl Poller {
    /// The client has stopped a partition because its position is outside the log, and does not say which.
    pub(super) fn recover_positions(&mut self, reason: String) -> Result<(), Stop> {
        let topics = self.assigned.keys().map(|partition| partition.topic.clone()).collect();
        let now = self.identities.of(&self.consumer, &topics)?;
        let moved = self.relocate(|partition, _| now.get(&partition.topic).cloned())?;
        if moved == 0 { Err(Stop::Failed(ConsumerError::Position { reason })) } else { Ok(()) }
    }

    /// Compares the ids of the assigned topics with those that the broker gives now, if there is an answer.
    pub(super) fn compare_topic_ids(&mut self, now: Instant) -> Result<(), Stop> {
        let mut topics: Vec<&str> = self.assigned.keys().map(|partition| &*partition.topic).collect();
        topics.dedup();
        if topics.is_empty() {
            return Ok(());
        }
        let Some(ids) = self.identities.poll(&self.consumer, topics.into_iter(), now) else {
            return Ok(());
        };
        let changed = self.assigned.iter().any(|(partition, assigned)| {
            ids.get(&*partition.topic).is_some_and(|id| differ(assigned.identity.whole_topic_id(), id))
        });
        if changed {
            self.relocate(|partition, was| {
                let topic_id = ids.get(&*partition.topic)?.as_str().into();
                Some(TopicIdentity { cluster_id: was.cluster_id.clone(), topic_id })
            })?;
        }
        Ok(())
    }

    /// Checks each assigned partition's position against its log and the identity that the log has now. Moves those
    /// whose records are lost, if the settings allow it; their number.
    fn relocate(
        &mut self,
        identity: impl Fn(&TopicPartition, &TopicIdentity) -> Option<TopicIdentity>,
    ) -> Result<usize, Stop> {
        let partitions: Vec<TopicPartition> = self.assigned.keys().cloned().collect();
        let marks = watermarks(&self.consumer, &partitions, OFFSETS_PATIENCE)?;
        let positions = self.read_positions();
        let mut moved = HashMap::new();
        for (partition, assigned) in &self.assigned {
            let (Some(&marks), Some(&next_offset)) = (marks.get(partition), positions.get(partition)) else {
                continue;
            };
            let identity =
                identity(partition, &assigned.identity).unwrap_or_else(|| assigned.identity.clone());
            let read = StoredPosition { identity: assigned.identity.clone(), next_offset };
            if let Start::Lost { error, resume, identity } = start(partition, Some(&read), &identity, marks) {
                self.accept_loss(error, partition, resume)?;
                moved.insert(partition.clone(), (identity, resume));
            }
        }
        self.restart(moved)
    }

    /// Starts the partitions anew. Not by a seek: the client refuses that for a partition which it has stopped.
    fn restart(&mut self, moved: HashMap<TopicPartition, (TopicIdentity, i64)>) -> Result<usize, Stop> {
        if moved.is_empty() {
            return Ok(0);
        }
        // What was read of the old log stands before the announcement of the new position.
        self.hand_over_now()?;
        let cooperative = matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        // The eager protocol knows only whole assignments: there all partitions start anew, the others where they are.
        let positions = if cooperative { HashMap::new() } else { self.read_positions() };
        let starts: BTreeMap<&TopicPartition, i64> = positions
            .iter()
            .map(|(partition, position)| (partition, *position))
            .chain(moved.iter().map(|(partition, (_, start))| (partition, *start)))
            .collect();
        self.resume_to_let_go(starts.keys().copied())?;
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for (partition, start) in starts {
            list.add_partition(&partition.topic, partition.partition).set_offset(Offset::Offset(start))?;
        }
        let_go(&self.consumer, &list)?;
        take_on(&self.consumer, &list)?;
        let assignments: Vec<_> = moved
            .into_iter()
            .map(|(partition, (identity, start))| Assignment { partition, identity, start })
            .collect();
        let count = assignments.len();
        self.begin(&assignments);
        self.apply_pauses()?;
        self.send(Event::Assigned(assignments))?;
        Ok(count)
    }
}
