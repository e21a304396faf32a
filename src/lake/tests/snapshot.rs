//! A large snapshot, measured for `docs/performance.md`; run with `--ignored --nocapture`.

#![allow(clippy::print_stderr)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Field;

use super::fixture::{Cell, Fixture, batch_of, column, event};
use crate::change::{Batch, ColumnType, Operation, Sink, TableMode, TablePolicy, TableSchema};
use crate::lake::compaction::Pressure;
use crate::lake::snapshot::Snapshot;
use crate::lake::{Lake, LakeOptions};

const PER_BATCH: i64 = 100_000;

fn schema() -> Arc<TableSchema> {
    let columns = vec![
        column("id", ColumnType::Int64),
        column("name", ColumnType::Text),
        column("email", ColumnType::Text),
        column("amount", ColumnType::Decimal { precision: 12, scale: 2 }),
        column("quantity", ColumnType::Int32),
        column("active", ColumnType::Boolean),
        column("placed_at", ColumnType::TimestampTz),
        column("note", ColumnType::Text),
    ];
    Arc::new(TableSchema::new(columns, vec![0]))
}

/// Rows as a snapshot reads them, in the order of their key.
fn rows(schema: &Arc<TableSchema>, first: i64) -> Batch {
    let mut random = fastrand::Rng::with_seed(first as u64);
    let ids = first..first + PER_BATCH;
    let words = ["blue", "small", "returned", "gift", "express", "fragile", "second hand", "new"];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids.clone())),
        Arc::new(StringArray::from_iter_values(
            ids.clone().map(|id| format!("customer {}", id * 7919 % 1_000_003)),
        )),
        Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("c{id}@example.com")))),
        Arc::new(
            Decimal128Array::from_iter_values(ids.clone().map(|_| random.i128(0..10_000_000)))
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(Int32Array::from_iter_values(ids.clone().map(|_| random.i32(0..100)))),
        Arc::new(ids.clone().map(|id| Some(id % 3 > 0)).collect::<BooleanArray>()),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(
                ids.clone().map(|id| 1_700_000_000_000_000 + id * 1_000_003),
            )
            .with_timezone("UTC"),
        ),
        Arc::new(StringArray::from_iter_values(
            ids.clone().map(|_| (0..4).map(|_| words[random.usize(0..8)]).collect::<Vec<_>>().join(" ")),
        )),
    ];
    let events: Vec<_> = ids.map(|id| event(id, Operation::Read, id, "", Cell::Null)).collect();
    let mut batch = batch_of("items", schema, columns, vec![None; 8], &events);
    batch.raw = None;
    batch
}

fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// The most of the process's own memory, and of pages of mapped files, in MiB.
struct Peaks {
    own: Arc<AtomicU64>,
    mapped: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Peaks {
    fn watch() -> Self {
        let peaks = Self { own: Arc::default(), mapped: Arc::default(), stop: Arc::default() };
        let (own, mapped, stop) =
            (Arc::clone(&peaks.own), Arc::clone(&peaks.mapped), Arc::clone(&peaks.stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                own.fetch_max(resident("RssAnon:"), Ordering::Relaxed);
                mapped.fetch_max(resident("RssFile:"), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        peaks
    }

    fn take(&self) -> (u64, u64) {
        (self.own.swap(0, Ordering::Relaxed), self.mapped.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Peaks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn open(options: &LakeOptions) -> Lake {
    let mut lake = Lake::open(options.clone()).await.unwrap();
    lake.load().await.unwrap();
    lake
}

/// Compacts the table until nothing is left to do; in how many steps.
async fn compacted(lake: &mut Lake) -> u32 {
    let table = lake.tables.values_mut().next().unwrap();
    table.reading = Snapshot::default();
    let mut steps = 0;
    while table.compact(&lake.writer, Pressure::Idle).await.unwrap() {
        steps += 1;
    }
    steps
}

/// One update of the first row.
fn update(schema: &Arc<TableSchema>, offset: i64) -> Batch {
    let one = [event(offset, Operation::Update, 0, "", Cell::Null)];
    let nulls = |field: &Arc<Field>| arrow::array::new_null_array(field.data_type(), 1);
    let mut columns: Vec<ArrayRef> = schema.arrow().fields().iter().map(nulls).collect();
    columns[0] = Arc::new(Int64Array::from(vec![0]));
    batch_of("items", schema, columns, vec![None; 8], &one)
}

/// `ALLUVIUM_FIGURES_ROWS` says how many rows (10,000,000), `ALLUVIUM_FIGURES_MODE=history` makes versions of them,
/// `ALLUVIUM_FIGURES_COMPACTION=meanwhile` does not wait with compaction until the snapshot is over.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn a_large_snapshot_and_the_index_built_anew() {
    let total: i64 = std::env::var("ALLUVIUM_FIGURES_ROWS").map_or(10_000_000, |rows| rows.parse().unwrap());
    let history = std::env::var("ALLUVIUM_FIGURES_MODE").is_ok_and(|mode| mode == "history");
    let meanwhile = std::env::var("ALLUVIUM_FIGURES_COMPACTION").is_ok_and(|when| when == "meanwhile");
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.raw_table = None;
    if history {
        options.policies.defaults = TablePolicy { mode: TableMode::History, ..TablePolicy::default() };
    }
    let (schema, peaks) = (schema(), Peaks::watch());
    let mut lake = open(&options).await;
    let (mut spent, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for first in (0..total).step_by(PER_BATCH as usize) {
        let batch = rows(&schema, first);
        let started = Instant::now();
        lake.commit(&batch).await.unwrap();
        if meanwhile {
            let table = lake.tables.values_mut().next().unwrap();
            table.reading = Snapshot::default();
            table.compact(&lake.writer, Pressure::Busy).await.unwrap();
        }
        spent += started.elapsed();
        slowest = slowest.max(started.elapsed());
    }
    let (own, mapped) = peaks.take();
    let files = |lake: &Lake| lake.tables.values().next().unwrap().table.state.files().len();
    eprintln!(
        "snapshot of {total} rows: {:.0} rows/s, {:.1} s in commits, the slowest {:.2} s; peak {own} MiB of its own and {mapped} MiB of mapped \
         files; {} files",
        total as f64 / spent.as_secs_f64(),
        spent.as_secs_f64(),
        slowest.as_secs_f64(),
        files(&lake),
    );
    let started = Instant::now();
    let steps = compacted(&mut lake).await;
    eprintln!(
        "compaction afterwards: {steps} steps in {:.1} s, {} files",
        started.elapsed().as_secs_f64(),
        files(&lake)
    );
    drop(lake);
    std::fs::remove_dir_all(fixture.dir.path().join("_index")).unwrap();
    let mut lake = open(&options).await;
    peaks.take();
    let started = Instant::now();
    lake.commit(&update(&schema, total)).await.unwrap();
    let (own, mapped) = peaks.take();
    eprintln!(
        "first batch after the index was deleted: {:.2} s; peak {own} MiB of its own and {mapped} MiB of mapped files",
        started.elapsed().as_secs_f64()
    );
}
