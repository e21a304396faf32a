//! Taking partitions on and letting them go.
//!
//! The order is what makes it safe. On the way in: ask the sink, ask the broker what is there, compare, only then
//! start. On the way out: hand over what was read, let the sink commit it, only then let go, so that the next owner
//! finds the position. A partition that is already lost is let go at once; the sink's compare-and-set fences us.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::{Rebalance, let_go, take_on};
use super::poller::{Assigned, Poller, Stop};
use super::start::{Start, start};
use super::watermarks::{Watermarks, watermarks};
use super::{Assignment, ConsumerError, Event, OnDataLoss};
use crate::change::TopicPartition;

/// How long a revocation waits for the lane; well below `max.poll.interval.ms`.
const REVOKE_DEADLINE: Duration = Duration::from_secs(30);
/// How long an assignment waits for the broker to tell offsets.
pub(super) const OFFSETS_PATIENCE: Duration = Duration::from_secs(20);

impl Poller {
    /// Answers all rebalances that the client has announced.
    pub(super) fn answer_rebalances(&mut self) -> Result<(), Stop> {
        while let Some(rebalance) = self.consumer.context().next_rebalance() {
            self.last_rebalance = Instant::now();
            match rebalance {
                Rebalance::Assign(list) => self.assign(list)?,
                Rebalance::Revoke(list) => self.revoke(&list)?,
            }
        }
        Ok(())
    }

    fn assign(&mut self, mut list: TopicPartitionList) -> Result<(), Stop> {
        let partitions = self.named(&list);
        let starts = self.starts(&partitions)?;
        for (assignment, offset) in &starts {
            let TopicPartition { topic, partition } = &assignment.partition;
            list.set_partition_offset(topic, *partition, *offset)?;
        }
        take_on(&self.consumer, &list)?;
        self.caught_up.assigned();
        tracing::info!(partitions = partitions.len(), "partitions assigned");
        let assignments: Vec<_> = starts.into_iter().map(|(assignment, _)| assignment).collect();
        self.begin(&assignments);
        self.apply_pauses()?;
        if assignments.is_empty() { Ok(()) } else { self.send(Event::Assigned(assignments)) }
    }

    /// Notes where partitions were started.
    pub(super) fn begin(&mut self, assignments: &[Assignment]) {
        let client = self.consumer.position().ok();
        let position = |partition: &TopicPartition| {
            let found = client.as_ref()?.find_partition(&partition.topic, partition.partition)?;
            if let Offset::Offset(position) = found.offset() { Some(position) } else { None }
        };
        for Assignment { partition, identity, start } in assignments {
            let before = (position(partition), Instant::now());
            let assigned = Assigned { identity: identity.clone(), start: *start, paused: false, before };
            self.assigned.insert(partition.clone(), assigned);
            self.cursor.begin(partition, *start);
        }
    }

    /// Where `partitions` start, for the lane and for the client.
    fn starts(&mut self, partitions: &[TopicPartition]) -> Result<Vec<(Assignment, Offset)>, Stop> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self
            .positions
            .start(partitions)
            .map_err(|reason| Stop::Failed(ConsumerError::Positions { reason }))?;
        let topics: BTreeSet<Arc<str>> =
            partitions.iter().map(|partition| Arc::clone(&partition.topic)).collect();
        let identities = self.identities.of(&self.consumer, &topics)?;
        let mut marks = watermarks(&self.consumer, partitions, OFFSETS_PATIENCE)?;
        let beyond = partitions.iter().any(|partition| {
            let end = marks.get(partition).map_or(i64::MAX, |marks| marks.high);
            stored.get(partition).is_some_and(|stored| stored.next_offset > end)
        });
        if beyond {
            // A leader that was elected just now may not know the end yet.
            std::thread::sleep(Duration::from_secs(1));
            marks = watermarks(&self.consumer, partitions, OFFSETS_PATIENCE)?;
        }
        let mut starts = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let (Some(identity), Some(&found)) = (identities.get(&partition.topic), marks.get(partition))
            else {
                let reason = format!("no answer for {partition}");
                return Err(Stop::Failed(ConsumerError::Lookup { what: "offsets", reason }));
            };
            let Watermarks { low, .. } = found;
            let (start, offset, identity) = match start(partition, stored.get(partition), identity, found) {
                Start::Beginning => (low, Offset::Beginning, identity.clone()),
                Start::At(next, identity) => (next, Offset::Offset(next), identity),
                Start::Lost { error, resume, identity } => {
                    self.accept_loss(error, partition, resume)?;
                    (resume, Offset::Offset(resume), identity)
                }
            };
            let partition = partition.clone();
            starts.push((Assignment { partition, identity, start }, offset));
        }
        Ok(starts)
    }

    /// Fails with `error`, or warns, as the setting says.
    pub(super) fn accept_loss(
        &self,
        error: ConsumerError,
        partition: &TopicPartition,
        resume: i64,
    ) -> Result<(), Stop> {
        match self.options.on_data_loss {
            OnDataLoss::Halt => Err(Stop::Failed(error)),
            OnDataLoss::Continue => {
                tracing::warn!(%partition, resume, loss = %error, "going on after a loss of records");
                Ok(())
            }
        }
    }

    fn revoke(&mut self, list: &TopicPartitionList) -> Result<(), Stop> {
        let partitions = self.named(list);
        let lost = self.consumer.assignment_lost();
        tracing::info!(partitions = partitions.len(), lost, "partitions revoked");
        self.hand_over_now()?;
        if !partitions.is_empty() {
            let (done, answer) = sync_channel(1);
            self.send(Event::Revoked { partitions: partitions.clone(), lost, done })?;
            let deadline = Instant::now() + REVOKE_DEADLINE;
            while !lost && answer.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                if self.shared.stopping() {
                    return Err(Stop::Asked);
                }
                if Instant::now() >= deadline {
                    tracing::warn!(
                        "the sink is not done in time; its next commit of these partitions is fenced"
                    );
                    break;
                }
            }
        }
        self.resume_to_let_go(partitions.iter())?;
        let_go(&self.consumer, list)?;
        for partition in &partitions {
            self.assigned.remove(partition);
            self.cursor.end(partition);
        }
        Ok(())
    }

    /// The partitions of a list, with shared topic names.
    fn named(&mut self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        list.elements()
            .iter()
            .map(|element| TopicPartition::new(self.cursor.intern(element.topic()), element.partition()))
            .collect()
    }
}
