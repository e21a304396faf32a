//! The commit of one batch: again and again while the sink is away, and what follows from it.
//!
//! Invariant: what the sink's report says is told on (to Kafka, the metrics, whoever asked) only after the commit, and only of
//! topics that no table has stopped. While the sink is away, the group's questions for positions are answered: a lane that
//! waits for its sink must not look dead to Kafka.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::{Attempt, AttemptEnd, asked_to_stop, end_of};
use super::decode::Filtered;
use super::{Lane, MAINTENANCE_INTERVAL};
use crate::admin::status::LaneState;
use crate::change::{Batch, CommitReport, Sink, SinkError};
use crate::failpoint;

impl<S: Sink> Lane<S> {
    /// Commits a batch, again and again while the sink is away.
    pub(super) async fn commit(
        &mut self,
        attempt: &mut Attempt,
        batch: &Batch,
        filtered: &Filtered,
    ) -> Result<(), AttemptEnd> {
        failpoint::hit("lane.before_commit");
        let started = Instant::now();
        let report = self.commit_until_done(attempt, batch).await?;
        failpoint::hit("lane.after_commit");
        self.observer.stage("commit", started.elapsed());
        self.after_commit(attempt, batch, filtered, &report);
        Ok(())
    }

    pub(super) async fn commit_until_done(
        &mut self,
        attempt: &mut Attempt,
        batch: &Batch,
    ) -> Result<CommitReport, AttemptEnd> {
        let mut failed = false;
        loop {
            match self.sink.commit(batch).await {
                Ok(report) => {
                    self.backoff.reset();
                    if failed {
                        self.observer.state(LaneState::Running);
                    }
                    return Ok(report);
                }
                Err(SinkError::Retry { class, message }) => {
                    tracing::warn!(lane = self.options.name, class, message, "commit failed, trying again");
                    self.observer.retry(class, &message);
                    failed = true;
                    let wait = self.backoff.next();
                    self.wait_and_answer(attempt, wait).await?;
                }
                Err(error) => return Err(end_of(&error)),
            }
        }
    }

    /// Sleeps between two attempts at one commit; rebalances go on meanwhile.
    async fn wait_and_answer(&mut self, attempt: &mut Attempt, wait: Duration) -> Result<(), AttemptEnd> {
        let deadline = tokio::time::Instant::now() + wait;
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                () = asked_to_stop(&mut stop) => return Err(AttemptEnd::Finished),
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                Some(request) = attempt.requests.recv() => self.answer(request).await?,
            }
        }
    }

    fn after_commit(&mut self, attempt: &Attempt, batch: &Batch, filtered: &Filtered, report: &CommitReport) {
        let mut stopped_topics = BTreeSet::new();
        for (table, reason) in &report.stopped {
            if self.stopped_tables.insert(table.to_string()) {
                self.observer.table_stopped(&table.to_string(), "table", reason);
            }
            for changes in batch.changes.iter().filter(|changes| changes.table == *table) {
                let topics =
                    changes.partitions.iter().filter_map(|&index| batch.partitions.get(index as usize));
                stopped_topics.extend(topics.map(|partition| Arc::clone(&partition.topic)));
            }
        }
        for topic in &stopped_topics {
            attempt.consumer.pause_topic(topic);
        }
        self.quarantined += (batch.quarantined.len() + report.refused.len()) as u64;
        self.marks.remove(&report.superseded);
        for refused in report.refused.iter().filter(|refused| !refused.superseded) {
            if let Some(key) = &refused.row_key {
                self.marks.add(&refused.place, Some(&refused.table), key);
            }
        }
        let durable: Vec<_> = batch
            .spans
            .iter()
            .filter(|(partition, _)| !stopped_topics.contains(&partition.topic))
            .map(|(partition, span)| (partition.clone(), span.next))
            .collect();
        attempt.consumer.commit_positions(&durable);
        failpoint::hit("lane.after_kafka_commit");
        if let Some(on_commit) = &self.on_commit {
            on_commit(&durable);
        }
        self.observer.accounted(batch, filtered, report, &stopped_topics);
        self.observer.committed(batch, report);
        // While batches are waiting nothing else tells.
        if self.told.elapsed() >= MAINTENANCE_INTERVAL {
            self.told = Instant::now();
            self.observer.figures(&self.sink.figures());
        }
        self.observer.positions(&durable, &attempt.consumer.lag());
    }
}
