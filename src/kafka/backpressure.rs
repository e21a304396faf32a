//! Handing chunks over, and not reading when they are not taken.
//!
//! A lane that is busy for less than a second only makes the next chunk wait: pausing throws the client's prefetched
//! records away. Beyond that the partitions are paused and polling goes on, because rebalances are served by it.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::Event;
use super::consumer::lock;
use super::poller::{Poller, Stop};
use crate::change::TopicPartition;

/// One wait for room; between waits the polling thread looks whether it should stop.
const STEP: Duration = Duration::from_millis(20);
/// Waits before the partitions are paused.
const STEPS: u32 = 50;

impl Poller {
    /// Hands the chunk over if there is room, or comes to be soon.
    pub(super) fn hand_over(&mut self) -> Result<(), Stop> {
        let steps = if self.held { 1 } else { STEPS };
        for _ in 0..steps {
            if self.shared.stopping() {
                return Err(Stop::Asked);
            }
            if self.events.wait_for_room(STEP) {
                self.hand_over_now()?;
                return self.hold(false);
            }
        }
        self.hold(true)
    }

    /// Hands the chunk over without waiting, for an event that must not overtake it.
    pub(super) fn hand_over_now(&mut self) -> Result<(), Stop> {
        self.opened = None;
        if self.builder.is_empty() {
            return Ok(());
        }
        let chunk = self.builder.take();
        (self.last_chunk, self.idle) = (Instant::now(), false);
        self.send(Event::Records(chunk))
    }

    fn hold(&mut self, hold: bool) -> Result<(), Stop> {
        if self.held != hold {
            self.held = hold;
            tracing::debug!(hold, "reading waits for the sink");
            self.apply_pauses()?;
        }
        Ok(())
    }

    /// Pauses and resumes partitions so that they are as they should be: all paused while held, those of stopped
    /// topics always, and those that the lane holds. IMPORTANT: only what was paused is ever resumed; the client starts a partition that was not over
    /// from an old position.
    pub(super) fn apply_pauses(&mut self) -> Result<(), Stop> {
        let stopped = lock(&self.shared.stopped_topics).clone();
        let waiting = lock(&self.shared.held).clone();
        let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (partition, assigned) in &mut self.assigned {
            let wanted = self.held || stopped.contains(&*partition.topic) || waiting.contains(partition);
            if wanted != assigned.paused {
                assigned.paused = wanted;
                let list = if wanted { &mut pause } else { &mut resume };
                list.add_partition(&partition.topic, partition.partition);
            }
        }
        self.switch(&pause, true).and_then(|()| self.switch(&resume, false)).map_err(Stop::from)
    }

    /// Resumes those of `partitions` that are paused: a pause would outlive the assignment.
    pub(super) fn resume_to_let_go<'p>(
        &mut self,
        partitions: impl Iterator<Item = &'p TopicPartition>,
    ) -> Result<(), Stop> {
        let mut resume = TopicPartitionList::new();
        for partition in partitions {
            if let Some(assigned) = self.assigned.get_mut(partition).filter(|assigned| assigned.paused) {
                assigned.paused = false;
                resume.add_partition(&partition.topic, partition.partition);
            }
        }
        self.switch(&resume, false).map_err(Stop::from)
    }

    fn switch(&self, partitions: &TopicPartitionList, pause: bool) -> KafkaResult<()> {
        match (partitions.count(), pause) {
            (0, _) => Ok(()),
            (_, true) => self.consumer.pause(partitions),
            (_, false) => self.consumer.resume(partitions),
        }
    }
}
