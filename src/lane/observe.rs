//! What a lane tells the metrics and the status board.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::LaneEnd;
use super::decode::Filtered;
use crate::admin::metrics::Metrics;
use crate::admin::status::{LaneBoard, LaneState, PartitionState, UnresolvedPlace, now};
use crate::change::quarantine::Ledger;
use crate::change::{
    Batch, ChangeBatch, CommitReport, Operation, RecordError, RefusedChange, Regression, SinkFigures,
    TableId, TableReport, TopicPartition,
};
use crate::kafka::Lag;

/// The metrics and the board of one lane.
#[derive(Debug, Clone)]
pub struct Observer {
    lane: String,
    metrics: Metrics,
    board: LaneBoard,
}

impl Observer {
    /// Observes the lane of that name.
    pub fn new(lane: &str, metrics: Metrics, board: LaneBoard) -> Self {
        Self { lane: lane.to_owned(), metrics, board }
    }

    /// The lane is gone by a bug of ours or of a library.
    pub fn panicked(&self) -> LaneEnd {
        let message = "the lane panicked, which is a bug: the log shows where; restart to go on";
        tracing::error!(lane = self.lane, message, "lane stopped");
        self.stopped("panic", message);
        LaneEnd::Stopped(message.to_owned())
    }

    pub(super) fn state(&self, state: LaneState) {
        self.board.lock().state = state;
        for each in LaneState::ALL {
            self.metrics
                .lanes
                .state
                .with_label_values(&[&self.lane, each.name()])
                .set(i64::from(each == state));
        }
    }

    pub(super) fn assigned(&self) {
        self.board.lock().assigned = true;
    }

    pub(super) fn caught_up(&self) {
        self.board.lock().caught_up = true;
    }

    pub(super) fn revoked(&self, partitions: &[TopicPartition]) {
        let mut board = self.board.lock();
        for partition in partitions {
            board.partitions.remove(&partition.to_string());
        }
    }

    pub(super) fn retry(&self, class: &str, message: &str) {
        self.metrics.lanes.retries.with_label_values(&[&self.lane, class]).inc();
        self.board.error(message);
        self.state(LaneState::Retrying);
    }

    pub(super) fn stopped(&self, class: &str, message: &str) {
        self.metrics.lanes.errors.with_label_values(&[&self.lane, class]).inc();
        self.board.error(message);
        self.state(LaneState::Stopped);
    }

    /// A record stopped its topic: the tables that the topic feeds get no further changes.
    pub(super) fn record_stopped(&self, error: &RecordError) {
        self.table_stopped(&error.partition.topic, error.kind.code(), &error.to_string());
    }

    pub(super) fn table_stopped(&self, table: &str, class: &str, reason: &str) {
        tracing::error!(lane = self.lane, table, reason, "table stopped");
        self.metrics.lanes.errors.with_label_values(&[&self.lane, class]).inc();
        self.metrics.tables.stopped.with_label_values(&[&self.lane, table]).set(1);
        self.board.error(reason);
        self.board.lock().tables.entry(table.to_owned()).or_default().stopped = Some(reason.to_owned());
    }

    /// Forgets stopped tables: the sink is read again and they get another chance.
    pub(super) fn restarted(&self) {
        let mut board = self.board.lock();
        for (table, state) in &mut board.tables {
            if state.stopped.take().is_some() {
                self.metrics.tables.stopped.with_label_values(&[&self.lane, table]).set(0);
            }
        }
        board.assigned = false;
    }

    pub(super) fn received(&self, batch: &Batch, decoding: Duration) {
        self.metrics.read.bytes.with_label_values(&[&self.lane]).inc_by(batch.bytes);
        if let Some(millis) = batch.alive_millis {
            let alive = self.metrics.read.source_alive.with_label_values(&[&self.lane]);
            alive.set(alive.get().max(millis as f64 / 1e3));
        }
        self.metrics.lanes.batch_rows.with_label_values(&[&self.lane]).observe(batch.records as f64);
        for (table, columns) in &batch.suspect_defaults {
            let labels = [self.lane.as_str(), &table.to_string()];
            self.metrics.read.suspect_defaults.with_label_values(&labels).set(*columns as i64);
        }
        self.stage("decode", decoding);
    }

    /// Counts every record of a batch that is committed, once: as a change, as filtered, or as quarantined. What is read
    /// again, after an error or because its topic has stopped, is counted then.
    pub(super) fn accounted(
        &self,
        batch: &Batch,
        filtered: &Filtered,
        report: &CommitReport,
        stopped: &BTreeSet<Arc<str>>,
    ) {
        for ((_, reason), count) in filtered.iter().filter(|((topic, _), _)| !stopped.contains(topic)) {
            self.metrics.read.filtered.with_label_values(&[self.lane.as_str(), reason]).inc_by(*count);
        }
        self.operations(batch, report);
        self.kept(batch, report, stopped);
        self.order(batch, report);
    }

    /// Records that came twice, and logs that began anew. Both are applied like everything else.
    fn order(&self, batch: &Batch, report: &CommitReport) {
        for (table, count) in batch.duplicates.iter().filter(|(table, _)| !report.stopped.contains_key(table))
        {
            let labels = [self.lane.as_str(), &table.to_string()];
            self.metrics.read.duplicates.with_label_values(&labels).inc_by(*count);
        }
        for regression in &batch.regressions {
            let Regression { partition, offset, from, to } = regression;
            let message = format!(
                "the source's log went back at {partition}@{offset}, from LSN {from} to {to}: it was restored or has failed \
                 over; its changes are applied, but changes that it lost are still in the copies (compare the tables with it)"
            );
            tracing::warn!(lane = self.lane, message, "the source's log began anew");
            self.metrics.read.lsn_regressions.with_label_values(&[&self.lane]).inc();
            self.board.error(&message);
        }
    }

    pub(super) fn stage(&self, stage: &str, duration: Duration) {
        self.metrics
            .lanes
            .stage_duration
            .with_label_values(&[self.lane.as_str(), stage])
            .observe(duration.as_secs_f64());
    }

    pub(super) fn committed(&self, batch: &Batch, report: &CommitReport) {
        self.freshness(batch, report);
        self.metrics.tables.conflicts.with_label_values(&[&self.lane]).inc_by(report.conflicts);
        self.metrics
            .lanes
            .last_commit
            .with_label_values(&[&self.lane])
            .set(chrono::Utc::now().timestamp_millis() as f64 / 1e3);
        for (table, done) in &report.tables {
            self.written(table, done);
        }
        let mut board = self.board.lock();
        board.records += batch.records;
        board.last_commit = Some(now());
        for (table, done) in &report.tables {
            let state = board.tables.entry(table.clone()).or_default();
            state.version = done.version.or(state.version);
            state.upserted += done.upserted;
            state.deleted += done.deleted;
            state.appended += done.appended;
            state.unresolved_absent += done.unresolved_absent;
            if let Some(newest) = done.unresolved.first() {
                tracing::warn!(
                    lane = self.lane,
                    table,
                    cells = done.unresolved_absent,
                    record = %format_args!("{}@{}", newest.partition, newest.offset),
                    "values that did not change were not found and are null"
                );
            }
            state.add_unresolved(done.unresolved.iter().map(|row| UnresolvedPlace {
                record: format!("{}@{}", row.partition, row.offset),
                columns: row.columns.iter().map(ToString::to_string).collect(),
                at: now(),
            }));
        }
    }

    /// What a commit did to one table.
    fn written(&self, table: &str, done: &TableReport) {
        let (of_tables, lane) = (&self.metrics.tables, self.lane.as_str());
        let labels = [lane, table];
        of_tables.commit_duration.with_label_values(&labels).observe(done.duration.as_secs_f64());
        for (kind, rows) in
            [("upserted", done.upserted), ("deleted", done.deleted), ("appended", done.appended)]
        {
            of_tables.rows_written.with_label_values(&[lane, table, kind]).inc_by(rows);
        }
        of_tables.unresolved_absent.with_label_values(&labels).inc_by(done.unresolved_absent);
        for kind in &done.schema_changes {
            of_tables.schema_changes.with_label_values(&[lane, table, kind]).inc();
        }
        of_tables.unknown_deletes.with_label_values(&labels).inc_by(done.unknown_deletes);
        of_tables.late_changes.with_label_values(&labels).inc_by(done.late);
    }

    /// What the sink's tables are like, and what was written to them.
    pub(super) fn figures(&self, figures: &SinkFigures) {
        let lane = self.lane.as_str();
        for (table, of) in &figures.tables {
            let tables = &self.metrics.tables;
            tables.live_files.with_label_values(&[lane, table]).set(of.live_files as i64);
            tables.live_bytes.with_label_values(&[lane, table]).set(of.live_bytes as i64);
            tables.live_vectors.with_label_values(&[lane, table]).set(of.live_vectors as i64);
            let labels = [lane, table.as_str()];
            tables.compaction_failures.with_label_values(&labels).inc_by(of.failed_compactions);
            tables.checkpoint_failures.with_label_values(&labels).inc_by(of.failed_checkpoints);
            if let Some(index) = of.index {
                tables.index_keys.with_label_values(&[lane, table]).set(index.keys as i64);
                tables.index_bytes.with_label_values(&[lane, table]).set(index.bytes as i64);
                tables.index_rebuilds.with_label_values(&[lane, table]).inc_by(index.rebuilds);
            }
            for (by, written) in [("batches", of.batches), ("compaction", of.compaction)] {
                let labels = [lane, table.as_str(), by];
                tables.file_rows.with_label_values(&labels).inc_by(written.rows);
                tables.file_bytes.with_label_values(&labels).inc_by(written.bytes);
                tables.vector_bytes.with_label_values(&labels).inc_by(written.vectors);
            }
        }
        self.metrics.tables.vacuumed_files.with_label_values(&[lane]).inc_by(figures.vacuumed_files);
        self.metrics.tables.vacuumed_bytes.with_label_values(&[lane]).inc_by(figures.vacuumed_bytes);
        self.metrics.tables.vacuum_failures.with_label_values(&[lane]).inc_by(figures.failed_vacuums);
    }

    fn operations(&self, batch: &Batch, report: &CommitReport) {
        for changes in batch.changes.iter().filter(|changes| !report.stopped.contains_key(&changes.table)) {
            let table = changes.table.to_string();
            for operation in [
                Operation::Create,
                Operation::Update,
                Operation::Delete,
                Operation::Read,
                Operation::Truncate,
            ] {
                // An update without key is two changes of one record, the first of which deletes the row before.
                let is_record = |row: usize| operation != Operation::Delete || !is_first_half(changes, row);
                let count = changes
                    .operations
                    .iter()
                    .zip(changes.offsets.iter().zip(&changes.partitions))
                    .enumerate()
                    .filter(|(row, (each, place))| {
                        **each == operation
                            && is_record(*row)
                            && !is_refused(batch, report, &changes.table, *place)
                    })
                    .count();
                if count > 0 {
                    let labels = [self.lane.as_str(), table.as_str(), operation.code()];
                    self.metrics.read.records.with_label_values(&labels).inc_by(count as u64);
                }
            }
        }
    }

    /// Records that went into quarantine: from the decoder, and from the sink.
    fn kept(&self, batch: &Batch, report: &CommitReport, stopped: &BTreeSet<Arc<str>>) {
        let done = batch.quarantined.iter().filter(|record| !stopped.contains(&record.place.partition.topic));
        let decoded = done.map(|record| record.kind);
        for kind in decoded.chain(report.refused.iter().map(|refused| refused.kind)) {
            self.metrics.lanes.quarantined.with_label_values(&[self.lane.as_str(), kind.code()]).inc();
        }
    }

    /// How many records are in quarantine and open.
    pub(super) fn quarantine(&self, ledger: &Ledger) {
        let open = ledger.open();
        let all: u64 = open.values().sum();
        self.metrics
            .lanes
            .quarantine_open
            .with_label_values(&[&self.lane])
            .set(i64::try_from(all).unwrap_or(i64::MAX));
        self.board.lock().quarantine = open;
    }

    /// Source commit to sink commit of every streamed change. Snapshot rows are left out: their source time is that
    /// of the snapshot, and says nothing about how fresh the table is.
    fn freshness(&self, batch: &Batch, report: &CommitReport) {
        let now = chrono::Utc::now().timestamp_micros();
        let histogram = self.metrics.tables.freshness.with_label_values(&[&self.lane]);
        let mut from_our_future = 0;
        for changes in batch.changes.iter().filter(|changes| !report.stopped.contains_key(&changes.table)) {
            let mut newest = None;
            for (operation, &micros) in changes.operations.iter().zip(&changes.source_micros) {
                if *operation == Operation::Read || micros == 0 {
                    continue;
                }
                let age = now - micros;
                from_our_future += u64::from(age < 0);
                histogram.observe(age.max(0) as f64 / 1e6);
                newest = newest.max(Some(micros));
            }
            if let Some(newest) = newest {
                let milliseconds = ((now - newest).max(0) / 1000) as u64;
                self.board.lock().tables.entry(changes.table.to_string()).or_default().freshness_ms =
                    Some(milliseconds);
            }
        }
        self.metrics.read.clock_skew.with_label_values(&[&self.lane]).inc_by(from_our_future);
    }

    /// Counts the client's errors that are new since `counted`.
    pub(super) fn kafka_errors(
        &self,
        errors: &BTreeMap<&'static str, u64>,
        counted: &mut BTreeMap<&'static str, u64>,
    ) {
        for (class, count) in errors {
            let before = counted.insert(class, *count).unwrap_or(0);
            self.metrics
                .lanes
                .kafka_errors
                .with_label_values(&[self.lane.as_str(), class])
                .inc_by(count.saturating_sub(before));
        }
    }

    /// Notes positions (that became durable, or that an assignment starts from), and how far each is behind the end of its partition.
    pub(super) fn positions(&self, stored: &[(TopicPartition, i64)], lag: &BTreeMap<TopicPartition, Lag>) {
        let mut board = self.board.lock();
        for (partition, position) in stored {
            board.partitions.insert(partition.to_string(), PartitionState { position: *position, lag: None });
        }
        for (partition, lag) in lag {
            let Some(state) = board.partitions.get_mut(&partition.to_string()) else { continue };
            // Control records at the tail are read past, but belong to no batch: at the end the reader's position counts.
            let at = if lag.position >= lag.end { lag.end } else { state.position };
            let behind = (lag.end - at).max(0);
            state.lag = Some(behind);
            let number = partition.partition.to_string();
            self.metrics
                .read
                .lag
                .with_label_values(&[&self.lane, partition.topic.as_ref(), &number])
                .set(behind);
        }
    }
}

/// Whether a change is the first of two that one record has made.
fn is_first_half(changes: &ChangeBatch, row: usize) -> bool {
    let place = |row: usize| changes.offsets.get(row).zip(changes.partitions.get(row));
    place(row).is_some() && place(row) == place(row + 1)
}

/// Whether the sink refused the change of `table` at this offset and index of a partition.
fn is_refused(
    batch: &Batch,
    report: &CommitReport,
    table: &TableId,
    (offset, partition): (&i64, &u32),
) -> bool {
    report.refused.iter().any(|refused: &RefusedChange| {
        refused.place.offset == *offset
            && refused.table == *table
            && batch.partitions.get(*partition as usize) == Some(&refused.place.partition)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::admin::status::StatusBoard;
    use crate::change::{IndexFigures, TableFigures};

    #[test]
    fn an_index_has_its_size_and_the_sum_of_its_rebuilds_in_the_metrics() {
        let metrics = Metrics::new().unwrap();
        let observer = Observer::new("lake", metrics.clone(), StatusBoard::default().lane("lake"));
        let figures = |index: Option<IndexFigures>| {
            let table = TableFigures { index, ..TableFigures::default() };
            SinkFigures {
                tables: BTreeMap::from([("public.orders".to_owned(), table)]),
                ..SinkFigures::default()
            }
        };
        observer.figures(&figures(None));
        assert!(!metrics.render().unwrap().contains("alluvium_index"), "there is none");
        observer.figures(&figures(Some(IndexFigures { keys: 7, bytes: 6144, rebuilds: 1 })));
        observer.figures(&figures(Some(IndexFigures { keys: 5, bytes: 6144, rebuilds: 1 })));
        let text = metrics.render().unwrap();
        for line in ["index_keys 5", "index_bytes 6144", "index_rebuilds_total 2"] {
            let (name, value) = line.split_once(' ').unwrap();
            let line = format!("alluvium_{name}{{lane=\"lake\",table=\"public.orders\"}} {value}");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }
}
