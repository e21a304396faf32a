//! The metrics: every name, its labels and its unit in one place.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Seconds from 1 ms to one minute: commits and stages.
const DURATION_BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Seconds from 50 ms to an hour: freshness.
const FRESHNESS_BUCKETS: [f64; 15] =
    [0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0];
/// Rows of a batch.
const ROWS_BUCKETS: [f64; 8] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 50_000.0, 100_000.0, 1_000_000.0];

/// All metrics of the process.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// How the lanes are.
    pub lanes: LaneMetrics,
    /// What they have read.
    pub read: ReadMetrics,
    /// What they have written, and what their tables are like.
    pub tables: TableMetrics,
    resident_memory: Gauge,
}

/// How a lane is: its state and pace, its errors, its quarantine.
#[derive(Debug, Clone)]
pub struct LaneMetrics {
    /// 1 for the state a lane is in.
    pub state: IntGaugeVec,
    /// When the lane last committed.
    pub last_commit: GaugeVec,
    /// Records in a batch.
    pub batch_rows: HistogramVec,
    /// Time a batch spends in a stage.
    pub stage_duration: HistogramVec,
    /// Attempts that are made again.
    pub retries: IntCounterVec,
    /// Errors that stopped a table or a lane.
    pub errors: IntCounterVec,
    /// Errors that the Kafka client reported and got over.
    pub kafka_errors: IntCounterVec,
    /// Records that went into quarantine, by what is wrong with them.
    pub quarantined: IntCounterVec,
    /// Open records in quarantine.
    pub quarantine_open: IntGaugeVec,
}

/// What a lane has read, and what that says about the source.
#[derive(Debug, Clone)]
pub struct ReadMetrics {
    /// Records that became changes.
    pub records: IntCounterVec,
    /// Records that are not changes, by the rule that filtered them.
    pub filtered: IntCounterVec,
    /// Bytes of keys and values read.
    pub bytes: IntCounterVec,
    /// Records behind the end of each partition.
    pub lag: IntGaugeVec,
    /// When the connector sent the newest change or heartbeat that was read.
    pub source_alive: GaugeVec,
    /// Changes that the source had sent before.
    pub duplicates: IntCounterVec,
    /// Places where the source's log began anew.
    pub lsn_regressions: IntCounterVec,
    /// Changes whose source time lies in our future (clocks disagree); counted as zero freshness.
    pub clock_skew: IntCounterVec,
    /// Columns whose nulls may have been written as their default before Kafka.
    pub suspect_defaults: IntGaugeVec,
}

/// What a lane has written, and what its tables are like.
#[derive(Debug, Clone)]
pub struct TableMetrics {
    /// Rows written after folding.
    pub rows_written: IntCounterVec,
    /// Time of a commit to one table.
    pub commit_duration: HistogramVec,
    /// Source commit to committed in the sink.
    pub freshness: HistogramVec,
    /// 1 for a table that has stopped.
    pub stopped: IntGaugeVec,
    /// Conflicts with other writers that were resolved.
    pub conflicts: IntCounterVec,
    /// Cells that the source left out as unchanged, of rows that the sink did not have: stored as null.
    pub unresolved_absent: IntCounterVec,
    /// Deletes of rows that the table did not have, where it can tell: nothing was written.
    pub unknown_deletes: IntCounterVec,
    /// Changes that did nothing, because the row has a later one from another of the table's sources.
    pub late_changes: IntCounterVec,
    /// Changes of schemas that tables have followed, or were told to ignore.
    pub schema_changes: IntCounterVec,
    /// Files of the newest version of each table of the lake.
    pub live_files: IntGaugeVec,
    /// Their bytes.
    pub live_bytes: IntGaugeVec,
    /// Bytes of the deletion vectors of the newest version.
    pub live_vectors: IntGaugeVec,
    /// Entries of the key index of each table.
    pub index_keys: IntGaugeVec,
    /// Bytes of its mapped files.
    pub index_bytes: IntGaugeVec,
    /// Times that it was built from the table's files.
    pub index_rebuilds: IntCounterVec,
    /// Rows of files written, by batches and by compaction.
    pub file_rows: IntCounterVec,
    /// Bytes of files written, by batches and by compaction.
    pub file_bytes: IntCounterVec,
    /// Bytes of deletion vectors among them.
    pub vector_bytes: IntCounterVec,
    /// Files that the vacuum removed.
    pub vacuumed_files: IntCounterVec,
    /// Bytes of files that the vacuum removed.
    pub vacuumed_bytes: IntCounterVec,
    /// Tables that a run of the vacuum could not do.
    pub vacuum_failures: IntCounterVec,
    /// Steps of compaction that failed.
    pub compaction_failures: IntCounterVec,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: IntCounterVec,
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    ///
    /// # Errors
    /// Where two metrics have one name: a mistake in this file, found by its test.
    pub fn new() -> Result<Self, prometheus::Error> {
        let r = Registrar(Registry::new());
        Ok(Self {
            lanes: LaneMetrics::new(&r)?,
            read: ReadMetrics::new(&r)?,
            tables: TableMetrics::new(&r)?,
            resident_memory: r.resident_memory()?,
            registry: r.0,
        })
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// Where the encoder fails.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        if let Some(bytes) = resident_memory() {
            self.resident_memory.set(bytes as f64);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

impl LaneMetrics {
    fn new(r: &Registrar) -> Result<Self, prometheus::Error> {
        Ok(Self {
            state: r.gauge("lane_state", "1 for the state the lane is in", &["lane", "state"])?,
            last_commit: r.timestamp(
                "last_commit_timestamp_seconds",
                "When the lane last committed",
                LANE,
            )?,
            batch_rows: r.histogram("batch_rows", "Records in a batch", LANE, &ROWS_BUCKETS)?,
            stage_duration: r.seconds("stage_duration_seconds", "Time in a stage", &["lane", "stage"])?,
            retries: r.counter("retries_total", "Attempts made again, by class of error", LANE_CLASS)?,
            errors: r.counter("errors_total", "Errors that stopped a table or lane", LANE_CLASS)?,
            kafka_errors: r.counter("kafka_errors_total", "Errors of the Kafka client", LANE_CLASS)?,
            quarantined: r.counter(
                "quarantined_records_total",
                "Records that went into quarantine",
                &["lane", "code"],
            )?,
            quarantine_open: r.gauge("quarantine_open_records", "Open records in quarantine", LANE)?,
        })
    }
}

impl ReadMetrics {
    fn new(r: &Registrar) -> Result<Self, prometheus::Error> {
        Ok(Self {
            records: r.counter(
                "records_total",
                "Records that became changes",
                &["lane", "table", "operation"],
            )?,
            filtered: r.counter(
                "filtered_records_total",
                "Records that are no changes",
                &["lane", "reason"],
            )?,
            bytes: r.counter("read_bytes_total", "Bytes of keys and values read", LANE)?,
            lag: r.gauge("lag_records", "Records behind the end", &["lane", "topic", "partition"])?,
            source_alive: r.timestamp(
                "source_alive_timestamp_seconds",
                "When the connector sent the newest event that was read",
                LANE,
            )?,
            duplicates: r.counter(
                "duplicate_records_total",
                "Changes that the source had sent before",
                LANE_TABLE,
            )?,
            lsn_regressions: r.counter(
                "lsn_regressions_total",
                "Partitions where the source's log began anew",
                LANE,
            )?,
            clock_skew: r.counter("clock_skew_total", "Changes from our future, counted as fresh", LANE)?,
            suspect_defaults: r.gauge(
                "suspect_default_columns",
                "Columns whose nulls may have been written as their default before Kafka",
                LANE_TABLE,
            )?,
        })
    }
}

impl TableMetrics {
    fn new(r: &Registrar) -> Result<Self, prometheus::Error> {
        Ok(Self {
            rows_written: r.counter("rows_written_total", "Rows after folding", &["lane", "table", "kind"])?,
            commit_duration: r.seconds("commit_duration_seconds", "Time of a commit to a table", LANE_TABLE)?,
            freshness: r.histogram("freshness_seconds", "From source to sink", LANE, &FRESHNESS_BUCKETS)?,
            stopped: r.gauge("table_stopped", "1 for a table that has stopped", LANE_TABLE)?,
            conflicts: r.counter("commit_conflicts_total", "Conflicts with writers, resolved", LANE)?,
            unresolved_absent: r.counter("unresolved_absent_total", "Absent cells stored as null", LANE_TABLE)?,
            unknown_deletes: r.counter("unknown_deletes_total", "Deletes of rows that the table did not have", LANE_TABLE)?,
            late_changes: r.counter("late_changes_total", "Changes that did nothing, because the row has a later one from another of the table's sources", LANE_TABLE)?,
            schema_changes: r.counter("schema_changes_total", "Changes of a table's schema", &["lane", "table", "kind"])?,
            live_files: r.gauge("table_live_files", "Files of the newest version", LANE_TABLE)?,
            live_bytes: r.gauge("table_bytes", "Bytes of the newest version", LANE_TABLE)?,
            live_vectors: r.gauge("table_vector_bytes", "Bytes of the newest version's deletion vectors", LANE_TABLE)?,
            index_keys: r.gauge("index_keys", "Entries of the key index", LANE_TABLE)?,
            index_bytes: r.gauge("index_bytes", "Bytes of the key index", LANE_TABLE)?,
            index_rebuilds: r.counter("index_rebuilds_total", "Times the index was built anew", LANE_TABLE)?,
            file_rows: r.counter("file_rows_total", "Rows of files written", LANE_TABLE_BY)?,
            file_bytes: r.counter("file_bytes_total", "Bytes of files written", LANE_TABLE_BY)?,
            vector_bytes: r.counter("vector_bytes_total", "Bytes of deletion vectors written", LANE_TABLE_BY)?,
            vacuumed_files: r.counter("vacuumed_files_total", "Files removed by the vacuum", LANE)?,
            vacuumed_bytes: r.counter("vacuumed_bytes_total", "Bytes removed by the vacuum", LANE)?,
            vacuum_failures: r.counter("vacuum_failures_total", "Tables not vacuumed", LANE)?,
            compaction_failures: r.counter("compaction_failures_total", "Failed compactions", LANE_TABLE)?,
            checkpoint_failures: r.counter("checkpoint_failures_total", "Failed checkpoints", LANE_TABLE)?,
        })
    }
}

const LANE: &[&str] = &["lane"];
const LANE_TABLE: &[&str] = &["lane", "table"];
const LANE_TABLE_BY: &[&str] = &["lane", "table", "by"];
const LANE_CLASS: &[&str] = &["lane", "class"];

/// Makes metrics under our prefix and registers them.
struct Registrar(Registry);

impl Registrar {
    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn options(name: &str, help: &str) -> Opts {
        Opts::new(format!("alluvium_{name}"), help)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Self::options(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Self::options(name, help), labels)?)
    }

    fn timestamp(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Self::options(name, help), labels)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::from(Self::options(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        self.histogram(name, help, labels, &DURATION_BUCKETS)
    }

    /// The one metric that every exporter calls by the same name, without our prefix.
    fn resident_memory(&self) -> Result<Gauge, prometheus::Error> {
        self.register(Gauge::new("process_resident_memory_bytes", "Resident memory of the process")?)
    }
}

/// Resident memory in bytes, where the system tells.
pub fn resident_memory() -> Option<u64> {
    process_memory("VmRSS:")
}

/// The most resident memory that the process has had, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
    process_memory("VmHWM:")
}

/// A line of `/proc/self/status` (proc(5)), which counts in KiB.
fn process_memory(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_renders_under_our_prefix() {
        let metrics = Metrics::new().unwrap();
        metrics.read.records.with_label_values(&["lake", "public.orders", "c"]).inc();
        let text = metrics.render().unwrap();
        assert!(
            text.contains("alluvium_records_total{lane=\"lake\",operation=\"c\",table=\"public.orders\"} 1"),
            "{text}"
        );
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    /// Rows of the documents' table, by what this file registers: a registry itself tells only of metrics that have a value.
    fn rows_of_metrics() -> Vec<String> {
        let registered =
            r#"r\.(?:counter|gauge|timestamp|histogram|seconds)\(\s*"(\w+)",\s*"[^"]*",\s*(\w+|&\[[^\]]*\])"#;
        let labels = |text: &str| match text {
            "LANE" => LANE.join(", "),
            "LANE_TABLE" => LANE_TABLE.join(", "),
            "LANE_TABLE_BY" => LANE_TABLE_BY.join(", "),
            "LANE_CLASS" => LANE_CLASS.join(", "),
            list => list.replace(['&', '[', ']', '"'], ""),
        };
        regex::Regex::new(registered)
            .unwrap()
            .captures_iter(include_str!("metrics.rs"))
            .map(|found| format!("| `alluvium_{}` | {} |", &found[1], labels(&found[2])))
            .collect()
    }

    #[test]
    fn the_documented_metrics_are_those_that_there_are_with_their_labels() {
        let document = include_str!("../../docs/operations.md");
        let rows = rows_of_metrics();
        assert!(rows.len() > 30, "{rows:#?}");
        for row in &rows {
            assert!(document.contains(&format!("\n{row} ")), "docs/operations.md has no row {row}");
        }
        for line in document.lines().filter(|line| line.starts_with("| `alluvium_")) {
            assert!(rows.iter().any(|row| line.starts_with(row)), "there is no such metric: {line}");
        }
    }
}
