//! Random files against all their rows sorted, and what merging costs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)]

use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use deltalake::logstore::object_store::memory::InMemory;
use roaring::RoaringTreemap;

use super::*;
use crate::change::{Column, ColumnType, TableSchema};
use crate::lake::live_file::LiveFile;
use crate::lake::mor::compacted::Source;
use crate::lake::mor::encoding::clustered_by;
use crate::lake::mor::files::DataFiles;
use crate::lake::mor::outputs::Outputs;
use crate::lake::mor::runs::{self, Room};

fn schema() -> Arc<TableSchema> {
    let column = |name: &str, column_type| Column { name: name.into(), column_type, nullable: true };
    let columns = vec![column("id", ColumnType::Int64), column("note", ColumnType::Text)];
    Arc::new(TableSchema::new(columns, vec![0]))
}

fn files() -> DataFiles {
    DataFiles { table: "t".into(), store: Arc::new(InMemory::new()) }
}

fn rows(ids: &[i64], note: impl Fn(usize) -> String) -> RecordBatch {
    let notes: StringArray = (0..ids.len()).map(|row| Some(note(row))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(notes)];
    RecordBatch::try_new(Arc::clone(schema().arrow()), columns).unwrap()
}

/// A file with those rows, which says that it is sorted or not, and those of them deleted.
async fn source(files: &DataFiles, rows: RecordBatch, is_sorted: bool, deleted: &[u64]) -> Source {
    let (schema, order) = (schema(), KeyOrder::of(&schema()).unwrap());
    let says = is_sorted.then_some(order.description());
    let how = (Arc::clone(schema.arrow()), clustered_by(order.names(), says));
    let mut out = Outputs::new(files.clone(), how, schema, usize::MAX);
    out.write(&rows).await.unwrap();
    let add = out.finish().await.unwrap().remove(0).add;
    let file = LiveFile {
        size: add.size,
        rows: None,
        modification_time: 0,
        stats: None,
        vector: None,
        partition: None,
    };
    Source::new(&add.path, &file, Arc::new(deleted.iter().copied().collect()))
}

struct Merged {
    batches: Vec<RecordBatch>,
    went: Vec<Went>,
    are_sorted: bool,
    at_a_time: usize,
}

async fn merged(files: &DataFiles, sources: &[Source]) -> Merged {
    let schema = schema();
    let order = Arc::new(KeyOrder::of(&schema).unwrap());
    let runs = runs::open(files, sources, schema.arrow(), &order, Room::OF_A_STEP).await.unwrap();
    let (are_sorted, at_a_time) = (runs.are_sorted, runs.at_a_time);
    let (mut merge, mut batches) = (Merge::new(&files.table, order, runs), Vec::new());
    while let Some(batch) = merge.next().await.unwrap() {
        batches.push(batch);
    }
    Merged { batches, went: merge.went(), are_sorted, at_a_time }
}

impl Merged {
    /// The rows, each with its id, its file and its number there.
    fn rows(&self) -> Vec<(i64, usize, u64)> {
        let of_batch = |batch: &RecordBatch| {
            let ids = batch.column(0).as_primitive::<Int64Type>().clone();
            let notes = batch.column(1).as_string::<i32>().clone();
            (0..batch.num_rows()).map(move |row| {
                let (file, number) = notes.value(row).split_once(':').unwrap();
                (ids.value(row), file.parse().unwrap(), number.parse().unwrap())
            })
        };
        self.batches.iter().flat_map(of_batch).collect()
    }
}

#[tokio::test]
async fn all_live_rows_come_once_by_key_and_it_is_known_where_each_one_went() {
    for seed in 0..40 {
        let (files, mut random) = (files(), fastrand::Rng::with_seed(seed));
        let (mut sources, mut expected, mut deleted_later) = (Vec::new(), Vec::new(), Vec::new());
        let mut all_sorted = true;
        for file in 0..random.usize(1..10) {
            let most = if random.bool() { 300 } else { 4000 };
            let many = random.usize(1..most);
            let mut ids: Vec<i64> = (0..many).map(|_| random.i64(0..3000)).collect();
            let is_sorted = random.bool();
            if is_sorted || random.bool() {
                ids.sort_unstable();
            }
            all_sorted &= is_sorted;
            let share = random.f64();
            let (mut before, mut later) = (RoaringTreemap::new(), RoaringTreemap::new());
            for row in 0..many as u64 {
                if random.f64() < share / 2.0 {
                    before.insert(row);
                } else if random.f64() < share {
                    later.insert(row);
                }
            }
            let live = (0..).zip(&ids).filter(|(row, _)| !before.contains(*row));
            expected.extend(live.map(|(row, &id)| (id, file, row)));
            let before: Vec<u64> = before.iter().collect();
            let rows = rows(&ids, |row| format!("{file}:{row}"));
            sources.push(source(&files, rows, is_sorted, &before).await);
            deleted_later.push(later);
        }
        let merged = merged(&files, &sources).await;
        let rows = merged.rows();
        assert!(merged.are_sorted || !all_sorted, "seed {seed}");
        let most = 2 * merged.at_a_time;
        assert!(merged.batches.iter().all(|batch| batch.num_rows() < most), "seed {seed}");
        if merged.are_sorted {
            expected.sort_unstable();
            assert!(rows == expected, "seed {seed}: not in the order of key, file and row");
        }
        for (file, (source, later)) in sources.iter().zip(&deleted_later).enumerate() {
            let now = later | &*source.deleted;
            let went = merged.went[file].moved(&source.deleted, &now).unwrap();
            let found: RoaringTreemap = went
                .iter()
                .map(|place| {
                    let (_, of_file, row) = rows[place as usize];
                    assert_eq!(of_file, file, "seed {seed}");
                    row
                })
                .collect();
            assert!(found == *later, "seed {seed}: other rows of file {file}");
        }
        let mut rows = rows;
        rows.sort_unstable();
        expected.sort_unstable();
        assert!(rows == expected, "seed {seed}: rows were lost or doubled");
    }
}

#[tokio::test]
async fn batches_of_many_files_of_long_values_are_small_together() {
    let (files, mut sources) = (files(), Vec::new());
    for _ in 0..8 {
        // Short as they are stored: a dictionary and numbers.
        let long = "x".repeat(1_000);
        let rows = rows(&(0..1_000).collect::<Vec<_>>(), |_| long.clone());
        sources.push(source(&files, rows, true, &[]).await);
    }
    let order = Arc::new(KeyOrder::of(&schema()).unwrap());
    let runs = runs::open(&files, &sources, schema().arrow(), &order, Room::OF_A_STEP).await.unwrap();
    assert!((5..=8).contains(&runs.at_a_time), "{} rows of 1 kB of each of 8 files", runs.at_a_time);
    assert!(runs.are_sorted);
}

#[tokio::test]
async fn files_of_ranges_that_do_not_overlap_go_as_they_are() {
    let (files, mut sources) = (files(), Vec::new());
    for file in [2, 0, 1] {
        let ids: Vec<i64> = (file * 2_000..(file + 1) * 2_000).collect();
        sources.push(source(&files, rows(&ids, |row| format!("{file}:{row}")), true, &[]).await);
    }
    let merged = merged(&files, &sources).await;
    let sizes: Vec<usize> = merged.batches.iter().map(RecordBatch::num_rows).collect();
    let as_read: Vec<usize> =
        (0..2_000).step_by(merged.at_a_time).map(|at| merged.at_a_time.min(2_000 - at)).collect();
    assert_eq!(sizes, as_read.repeat(3));
    assert!(merged.rows().is_sorted());
}

/// Writes the rows of files, merged or one behind the other.
async fn written(files: &DataFiles, sources: &[Source], is_merged: bool) -> Duration {
    let (schema, order) = (schema(), Arc::new(KeyOrder::of(&schema()).unwrap()));
    let columns = schema.arrow();
    let how = (Arc::clone(columns), clustered_by(order.names(), None));
    let begun = Instant::now();
    let mut out = Outputs::new(files.clone(), how, Arc::clone(&schema), 32 << 20);
    if is_merged {
        let runs = runs::open(files, sources, columns, &order, Room::OF_A_DAEMON).await.unwrap();
        let mut merge = Merge::new(&files.table, order, runs);
        while let Some(batch) = merge.next().await.unwrap() {
            out.write(&batch).await.unwrap();
        }
    } else {
        for source in sources {
            let cells = files.scan(&source.path, columns).await.unwrap();
            let mut rows = runs::of_source(&files.table, source, columns, cells);
            while let Some(batch) = rows.try_next().await.unwrap() {
                out.write(&batch).await.unwrap();
            }
        }
    }
    out.finish().await.unwrap();
    begun.elapsed()
}

/// `ALLUVIUM_FIGURES_ROWS` says how many rows each of eight files has (250,000).
#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn time_to_merge_files_and_to_copy_them() {
    let many: i64 = std::env::var("ALLUVIUM_FIGURES_ROWS").map_or(250_000, |rows| rows.parse().unwrap());
    for (name, is_sorted, scattered) in
        [("of ranges", true, false), ("scattered, sorted", true, true), ("scattered", false, true)]
    {
        let (files, mut sources, mut random) = (files(), Vec::new(), fastrand::Rng::with_seed(7));
        for file in 0..8 {
            let mut ids: Vec<i64> =
                (0..many).map(|row| if scattered { row * 8 + file } else { file * many + row }).collect();
            if !is_sorted {
                random.shuffle(&mut ids);
            }
            let notes: Vec<String> =
                ids.iter().map(|_| (0..40).map(|_| random.alphanumeric()).collect()).collect();
            sources.push(source(&files, rows(&ids, |row| notes[row].clone()), is_sorted, &[]).await);
        }
        let mut best = [Duration::MAX; 2];
        for _ in 0..5 {
            for (best, is_merged) in best.iter_mut().zip([false, true]) {
                *best = written(&files, &sources, is_merged).await.min(*best);
            }
        }
        eprintln!("8 files of {many} rows, {name}: copied in {:?}, merged in {:?}", best[0], best[1]);
    }
}
