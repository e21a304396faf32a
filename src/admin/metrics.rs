//! The metrics: every name, its labels and its unit in one place.

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
    /// Records that became changes.
    pub records: IntCounterVec,
    /// Records that are not changes, by the rule that filtered them.
    pub filtered: IntCounterVec,
    /// Bytes of keys and values read.
    pub bytes: IntCounterVec,
    /// Rows written after folding.
    pub rows_written: IntCounterVec,
    /// Records in a batch.
    pub batch_rows: HistogramVec,
    /// Time a batch spends in a stage.
    pub stage_duration: HistogramVec,
    /// Time of a commit to one table.
    pub commit_duration: HistogramVec,
    /// Records behind the end of each partition.
    pub lag: IntGaugeVec,
    /// Source commit to committed in the sink.
    pub freshness: HistogramVec,
    /// Changes whose source time lies in our future (clocks disagree); counted as zero freshness.
    pub clock_skew: IntCounterVec,
    /// When the lane last committed.
    pub last_commit: GaugeVec,
    /// 1 for the state a lane is in.
    pub lane_state: IntGaugeVec,
    /// 1 for a table that has stopped.
    pub table_stopped: IntGaugeVec,
    /// Attempts that are made again.
    pub retries: IntCounterVec,
    /// Errors that stopped a table or a lane.
    pub errors: IntCounterVec,
    /// Errors that the Kafka client reported and got over.
    pub kafka_errors: IntCounterVec,
    /// Conflicts with other writers that were resolved.
    pub conflicts: IntCounterVec,
    /// Cells that the source left out as unchanged, of rows that the sink did not have: stored as null.
    pub unresolved_absent: IntCounterVec,
    resident_memory: Gauge,
}

impl Metrics {
    /// Registers all metrics in a registry of their own.
    ///
    /// # Errors
    /// Where two metrics have one name: a mistake in this file, found by its test.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            records: counter(
                &registry,
                "records_total",
                "Records that became changes",
                &["lane", "table", "operation"],
            )?,
            filtered: counter(
                &registry,
                "filtered_records_total",
                "Records that are no changes",
                &["lane", "reason"],
            )?,
            bytes: counter(&registry, "read_bytes_total", "Bytes of keys and values read", &["lane"])?,
            rows_written: counter(
                &registry,
                "rows_written_total",
                "Rows written after folding",
                &["lane", "table", "kind"],
            )?,
            batch_rows: histogram(&registry, "batch_rows", "Records in a batch", &["lane"], &ROWS_BUCKETS)?,
            stage_duration: histogram(
                &registry,
                "stage_duration_seconds",
                "Time a batch spends in a stage",
                &["lane", "stage"],
                &DURATION_BUCKETS,
            )?,
            commit_duration: histogram(
                &registry,
                "commit_duration_seconds",
                "Time of a commit to one table",
                &["lane", "table"],
                &DURATION_BUCKETS,
            )?,
            lag: gauge(
                &registry,
                "lag_records",
                "Records behind the end of the partition",
                &["lane", "topic", "partition"],
            )?,
            freshness: histogram(
                &registry,
                "freshness_seconds",
                "From the commit in the source to the commit in the sink",
                &["lane"],
                &FRESHNESS_BUCKETS,
            )?,
            clock_skew: counter(
                &registry,
                "clock_skew_total",
                "Changes from our future, counted as fresh",
                &["lane"],
            )?,
            last_commit: GaugeVec::new(
                Opts::new(
                    "alluvium_last_commit_timestamp_seconds",
                    "When the lane last committed, seconds since 1970",
                ),
                &["lane"],
            )?,
            lane_state: gauge(&registry, "lane_state", "1 for the state the lane is in", &["lane", "state"])?,
            table_stopped: gauge(
                &registry,
                "table_stopped",
                "1 for a table that has stopped",
                &["lane", "table"],
            )?,
            retries: counter(
                &registry,
                "retries_total",
                "Attempts made again, by class of error",
                &["lane", "class"],
            )?,
            errors: counter(
                &registry,
                "errors_total",
                "Errors that stopped a table or lane, by class",
                &["lane", "class"],
            )?,
            kafka_errors: counter(
                &registry,
                "kafka_errors_total",
                "Errors that the Kafka client reported, by class",
                &["lane", "class"],
            )?,
            conflicts: counter(
                &registry,
                "commit_conflicts_total",
                "Conflicts with other writers, resolved",
                &["lane"],
            )?,
            unresolved_absent: counter(
                &registry,
                "unresolved_absent_total",
                "Unchanged values of rows that the sink did not have, stored as null",
                &["lane", "table"],
            )?,
            resident_memory: Gauge::new("process_resident_memory_bytes", "Resident memory of the process")?,
            registry,
        };
        metrics.registry.register(Box::new(metrics.last_commit.clone()))?;
        metrics.registry.register(Box::new(metrics.resident_memory.clone()))?;
        Ok(metrics)
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

fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(format!("alluvium_{name}"), help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(format!("alluvium_{name}"), help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(format!("alluvium_{name}"), help).buckets(buckets.to_vec());
    let metric = HistogramVec::new(options, labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_metric_registers_and_renders_under_our_prefix() {
        let metrics = Metrics::new().unwrap();
        metrics.records.with_label_values(&["lake", "public.orders", "c"]).inc();
        let text = metrics.render().unwrap();
        assert!(
            text.contains("alluvium_records_total{lane=\"lake\",operation=\"c\",table=\"public.orders\"} 1"),
            "{text}"
        );
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
