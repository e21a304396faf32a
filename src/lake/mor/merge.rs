//! The rows of several files as one, by key.
//!
//! Each file gives its rows in batches, of which one is at hand; a heap says which file has the row that comes next. Where
//! a file has many rows before any other has one, they go as a slice of its batch, so files of ranges that do not overlap
//! cost what copying them costs. Of two rows with the same key the one of the file that was named first goes first. A file
//! that is not sorted gives its rows as it has them; all rows come once, whatever their order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use arrow::row::{Row, Rows as Keys};
use futures::TryStreamExt;

use super::key_order::KeyOrder;
use super::runs::{Rows, Runs, refused};
use super::went::Went;
use crate::lake::error::LakeError;

/// Rows of one file from which on they are not copied together with those of others.
const STRETCH: usize = 512;

/// Files that are being merged.
pub(super) struct Merge {
    table: Arc<str>,
    order: Arc<KeyOrder>,
    /// Those that have rows left.
    heads: BinaryHeap<Reverse<Box<Head>>>,
    /// Those that are still to be begun, the first one last.
    waiting: Vec<(usize, Rows)>,
    at_a_time: usize,
    /// Batches that rows which are copied together may come from.
    most_batches: usize,
    rows: u64,
    went: Vec<Went>,
}

/// The rows of one file that are at hand.
struct Head {
    number: usize,
    rest: Rows,
    batch: RecordBatch,
    keys: Keys,
    /// The row that comes next.
    at: usize,
    /// Where the batch is among those that rows are taken of, and since which write.
    held: Option<(u64, usize)>,
}

impl Head {
    fn next(&self) -> Row<'_> {
        self.keys.row(self.at)
    }

    /// Up to where its rows come before those of `other`: at least the next one.
    fn before(&self, other: Option<&Self>) -> usize {
        let rows = self.batch.num_rows();
        let Some(other) = other else { return rows };
        let bound = other.next();
        let precedes = |row: usize| match self.keys.row(row).cmp(&bound) {
            Ordering::Equal => self.number < other.number,
            order => order.is_lt(),
        };
        if precedes(rows - 1) {
            return rows;
        }
        (self.at + 1..rows).find(|&row| !precedes(row)).unwrap_or(rows)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.next().cmp(&other.next()).then(self.number.cmp(&other.number))
    }
}

/// Rows of several batches that are going to be one.
#[derive(Default)]
struct Together {
    batches: Vec<RecordBatch>,
    rows: Vec<(usize, usize)>,
}

impl Together {
    fn take(&mut self, head: &mut Head, rows: Range<usize>, since: u64) {
        let batch = match head.held {
            Some((when, batch)) if when == since => batch,
            _ => {
                self.batches.push(head.batch.clone());
                self.batches.len() - 1
            }
        };
        head.held = Some((since, batch));
        self.rows.extend(rows.map(|row| (batch, row)));
    }

    fn into_batch(self) -> Result<RecordBatch, ArrowError> {
        interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &self.rows)
    }
}

impl Merge {
    pub(super) fn new(table: &Arc<str>, order: Arc<KeyOrder>, runs: Runs) -> Self {
        let (rows, went): (Vec<Rows>, Vec<Went>) = runs.of_files.into_iter().unzip();
        let most_batches = 2 * rows.len();
        let waiting = rows.into_iter().enumerate().rev().collect();
        let (table, heads, at_a_time) = (Arc::clone(table), BinaryHeap::new(), runs.at_a_time);
        Self { table, order, heads, waiting, at_a_time, most_batches, rows: 0, went }
    }

    /// The next rows; `None` when all went by.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, LakeError> {
        while let Some((number, rows)) = self.waiting.pop() {
            self.advance(number, rows).await?;
        }
        let (mut together, since) = (Together::default(), self.rows);
        let stretch = STRETCH.min(self.at_a_time);
        while let Some(Reverse(mut head)) = self.heads.pop() {
            let rows = head.at..head.before(self.heads.peek().map(|Reverse(other)| other.as_ref()));
            if rows.len() >= stretch && !together.rows.is_empty() {
                self.heads.push(Reverse(head));
                break;
            }
            if let Some(went) = self.went.get_mut(head.number) {
                went.to(self.rows..self.rows + rows.len() as u64);
            }
            self.rows += rows.len() as u64;
            let whole = (rows.len() >= stretch).then(|| head.batch.slice(rows.start, rows.len()));
            if whole.is_none() {
                together.take(&mut head, rows.clone(), since);
            }
            head.at = rows.end;
            if head.at < head.batch.num_rows() {
                self.heads.push(Reverse(head));
            } else {
                self.advance(head.number, head.rest).await?;
            }
            if whole.is_some() {
                return Ok(whole);
            }
            if together.rows.len() >= self.at_a_time || together.batches.len() >= self.most_batches {
                break;
            }
        }
        if together.rows.is_empty() {
            return Ok(None);
        }
        together.into_batch().map(Some).map_err(|error| refused(&self.table, &error))
    }

    /// Takes the next batch of a file to hand, unless there is none.
    async fn advance(&mut self, number: usize, mut rest: Rows) -> Result<(), LakeError> {
        while let Some(batch) = rest.try_next().await? {
            if batch.num_rows() == 0 {
                continue;
            }
            let keys = self.order.keys(&batch).map_err(|error| refused(&self.table, &error))?;
            self.heads.push(Reverse(Box::new(Head { number, rest, batch, keys, at: 0, held: None })));
            break;
        }
        Ok(())
    }

    /// Where the rows of each file went.
    pub(super) fn went(self) -> Vec<Went> {
        self.went
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)]
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use deltalake::logstore::object_store::memory::InMemory;
    use roaring::RoaringTreemap;

    use super::super::compacted::Source;
    use super::super::encoding::clustered_by;
    use super::super::files::DataFiles;
    use super::super::outputs::Outputs;
    use super::super::runs;
    use super::*;
    use crate::change::{Column, ColumnType, TableSchema};
    use crate::lake::live_file::LiveFile;

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
        let runs = runs::open(files, sources, schema.arrow(), &order).await.unwrap();
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
        let runs = runs::open(&files, &sources, schema().arrow(), &order).await.unwrap();
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

    /// `ALLUVIUM_FIGURES_ROWS` says how many rows each of eight files has (250,000).
    #[tokio::test]
    #[ignore = "a measurement, not a check"]
    async fn rows_a_second_by_key_and_as_they_lie() {
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
            let order = Arc::new(KeyOrder::of(&schema()).unwrap());
            let how = || (Arc::clone(schema().arrow()), clustered_by(order.names(), None));
            let begun = std::time::Instant::now();
            let mut out = Outputs::new(files.clone(), how(), schema(), 32 << 20);
            for source in &sources {
                let cells = files.scan(&source.path, schema().arrow()).await.unwrap();
                let mut rows = runs::of_source(&files.table, source, schema().arrow(), cells);
                while let Some(batch) = rows.try_next().await.unwrap() {
                    out.write(&batch).await.unwrap();
                }
            }
            out.finish().await.unwrap();
            let (copied, begun) = (begun.elapsed(), std::time::Instant::now());
            let mut out = Outputs::new(files.clone(), how(), schema(), 32 << 20);
            let runs = runs::open(&files, &sources, schema().arrow(), &order).await.unwrap();
            let mut merge = Merge::new(&files.table, Arc::clone(&order), runs);
            while let Some(batch) = merge.next().await.unwrap() {
                out.write(&batch).await.unwrap();
            }
            out.finish().await.unwrap();
            eprintln!(
                "8 files of {many} rows, {name}: copied in {copied:?}, merged in {:?}",
                begun.elapsed()
            );
        }
    }
}
