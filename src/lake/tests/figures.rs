//! Figures for `docs/performance.md`; run with `--ignored --nocapture`.

#![allow(clippy::print_stderr)]

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

use super::fixture::{Cell, Fixture, batch, event, value};
use crate::change::{Batch, Operation, Sink, Span, TopicIdentity, TopicPartition, WriteMode, raw};
use crate::lake::Lake;
use crate::lake::compaction::{Pressure, Target, choose};

/// Rows like Debezium's: `after` of `bytes` bytes of JSON, most of whose text repeats.
fn rows(first: i64, count: i64, bytes: usize) -> RecordBatch {
    let offsets = || first..first + count;
    let columns: Vec<ArrayRef> = raw::schema()
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match field.name().as_str() {
                "topic" => Arc::new(StringArray::from_iter_values(offsets().map(|_| "cdc.public.orders"))),
                "partition" => Arc::new(Int32Array::from_iter_values(offsets().map(|_| 0))),
                "offset" => Arc::new(Int64Array::from_iter_values(offsets())),
                "kafka_timestamp" => Arc::new(
                    TimestampMicrosecondArray::from_iter_values(
                        offsets().map(|offset| 1_700_000_000_000_000 + offset),
                    )
                    .with_timezone("UTC"),
                ),
                "event_date" => Arc::new(Date32Array::from_iter_values(offsets().map(|_| 19_675))),
                "operation" => Arc::new(StringArray::from_iter_values(offsets().map(|_| "u"))),
                "key" => Arc::new(StringArray::from_iter_values(
                    offsets().map(|offset| format!("{{\"id\":{offset}}}")),
                )),
                "after" => {
                    Arc::new(StringArray::from_iter_values(offsets().map(|offset| payload(offset, bytes))))
                }
                _ => arrow::array::new_null_array(field.data_type(), count as usize),
            }
        })
        .collect();
    RecordBatch::try_new(raw::schema(), columns).unwrap()
}

/// CPU time of this process; on a busy machine it tells more than the clock.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn payload(seed: i64, bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let mut text = String::with_capacity(bytes + 40);
    let mut column = 0;
    text.push('{');
    while text.len() < bytes {
        let _ = write!(text, "\"column_number_{column}\":{},", random.u32(0..1_000_000));
        column += 1;
    }
    text.push_str("\"last\":null}");
    text
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn raw_append_rate() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let (total, per_batch) = (440_000, 88_000);
    let batches: Vec<Batch> = (0..total)
        .step_by(per_batch as usize)
        .map(|first| {
            let partition = TopicPartition::new("cdc.public.orders", 0);
            let span = Span { identity: TopicIdentity::unknown(), first, next: first + per_batch };
            Batch {
                partitions: vec![partition.clone()],
                spans: [(partition, span)].into(),
                raw: Some(rows(first, per_batch, 600)),
                ..Batch::default()
            }
        })
        .collect();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for batch in &batches {
        lake.commit(batch).await.unwrap();
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let bytes =
        crate::lake::read::LakeReader::open(&fixture.options()).unwrap().tables().await.unwrap()[0].bytes;
    eprintln!(
        "raw append: {:.0} rows/s, {:.0} rows per second of CPU, {} bytes a row",
        total as f64 / seconds,
        total as f64 / cpu,
        bytes / total
    );
}

/// Updates of scattered keys, 10,000 a batch, on tables of several sizes, in both write modes.
///
/// `ALLUVIUM_FIGURES_ROWS` lists the sizes, `ALLUVIUM_FIGURES_MERGE` the largest that the library's MERGE has to do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn upserts_by_size_of_the_table() {
    let sizes = std::env::var("ALLUVIUM_FIGURES_ROWS").unwrap_or("100000,1000000".into());
    let merged = std::env::var("ALLUVIUM_FIGURES_MERGE").map_or(1_000_000, |rows| rows.parse().unwrap());
    for rows in sizes.split(',').map(|rows| rows.trim().parse::<i64>().unwrap()) {
        upserts(rows, WriteMode::MergeOnRead, Notes::Given, 30).await;
        if rows <= merged {
            upserts(rows, WriteMode::CopyOnWrite, Notes::Given, 3).await;
        }
    }
}

/// The same where each row has a value of 2,000 characters that no update brings, so that each of its cells is read from
/// where it lies. `ALLUVIUM_FIGURES_ROWS` lists the sizes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn upserts_that_keep_large_cells_by_size_of_the_table() {
    let sizes = std::env::var("ALLUVIUM_FIGURES_ROWS").unwrap_or("100000,1000000".into());
    for rows in sizes.split(',').map(|rows| rows.trim().parse::<i64>().unwrap()) {
        upserts(rows, WriteMode::MergeOnRead, Notes::Kept, 15).await;
    }
}

/// What the rows have in their column `note`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notes {
    /// A short text, in every event.
    Given,
    /// A long text, in those that create the row.
    Kept,
}

/// Texts of 2,000 characters, each another piece of a longer one: as many as wanted, at little cost.
struct LongTexts(String);

impl LongTexts {
    fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        Self((0..4_000_000).map(|_| random.alphanumeric()).collect())
    }

    fn of(&self, id: i64) -> &str {
        let start = (id as usize).wrapping_mul(2_654_435_761) % (self.0.len() - 2000);
        &self.0[start..start + 2000]
    }
}

/// Has compaction do what filling the table has left to do: what is measured is a table in its ordinary state, with the
/// compaction that its batches make due.
async fn settle(lake: &mut Lake) {
    let is_due = |lake: &Lake| {
        lake.tables.values().any(|current| {
            let state = &current.table.state;
            let files = state.files().iter().map(|(path, file)| (&**path, file));
            !choose(files, Target::of(state.bytes()), Pressure::Idle).is_empty()
        })
    };
    while lake.tables.values().any(|current| current.merge_on_read.is_some()) && is_due(lake) {
        lake.maintain().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

// One measurement, from filling the table to its index.
#[allow(clippy::too_many_lines)]
async fn upserts(rows: i64, write: WriteMode, notes: Notes, batches: i64) {
    const PER_BATCH: i64 = 10_000;
    let long = LongTexts::new();
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.raw_table = None;
    options.policies.defaults.write = write;
    let mut lake = Lake::open(options.clone()).await.unwrap();
    lake.load().await.unwrap();
    let mut offset = 0;
    let mut of = |ids: Vec<i64>, operation: Operation| {
        let events: Vec<_> = ids
            .into_iter()
            .map(|id| {
                offset += 1;
                let name = format!("name of customer {}", id.wrapping_mul(2_654_435_761) % 100_000_007);
                let note = match (notes, operation) {
                    (Notes::Given, _) => value("some note about it"),
                    (Notes::Kept, Operation::Create) => value(long.of(id)),
                    (Notes::Kept, _) => Cell::Absent,
                };
                event(offset, operation, id, &name, note)
            })
            .collect();
        batch("items", &events)
    };
    // Keys are scattered over the files that the table begins with.
    let scattered = |n: i64| n * 7_919 % rows;
    let most = if notes == Notes::Kept { 20_000 } else { 200_000 };
    let step = (rows / 10).min(most);
    let started = Instant::now();
    for first in (0..rows).step_by(step as usize) {
        let created = of((first..first + step).map(scattered).collect(), Operation::Create);
        lake.commit(&created).await.unwrap();
        if notes == Notes::Kept {
            lake.maintain().await.unwrap();
        }
    }
    let filled = started.elapsed();
    settle(&mut lake).await;
    let mut times = Vec::new();
    let (mut spent, mut compacting) = (0.0, 0.0);
    for number in 0..batches {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let updates = of((0..PER_BATCH).map(|_| random.i64(0..rows)).collect(), Operation::Update);
        let (started, cpu) = (Instant::now(), cpu_seconds());
        lake.commit(&updates).await.unwrap();
        spent += cpu_seconds() - cpu;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        let started = Instant::now();
        lake.maintain().await.unwrap();
        compacting += started.elapsed().as_secs_f64() * 1000.0;
    }
    let reopened = Instant::now();
    drop(lake);
    std::fs::remove_dir_all(fixture.dir.path().join("_index")).unwrap_or_default();
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    lake.commit(&of(vec![0], Operation::Update)).await.unwrap();
    let rebuilt = reopened.elapsed();
    let state = &lake.tables.values().next().unwrap().table.state;
    let (files, mib) = (state.files().len(), state.bytes() >> 20);
    times.sort_by(f64::total_cmp);
    eprintln!(
        "{write:?} on {rows} rows, notes {notes:?}: {:.1} ms a batch of {PER_BATCH} (median; {:.1} to {:.1}), {:.1} ms of CPU, and {:.1} ms of compaction; filled in {:.1} s; \
         {files} files of {mib} MiB; first batch after the index was deleted {:.2} s",
        times[times.len() / 2],
        times[0],
        times[times.len() - 1],
        spent * 1000.0 / batches as f64,
        compacting / batches as f64,
        filled.as_secs_f64(),
        rebuilt.as_secs_f64(),
    );
}
