//! Where compaction puts the rows of tables with a key, and what readers leave out for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use deltalake::operations::write::SchemaMode;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use serde_json::Value;

use super::fixture::{Cell, Event, Fixture, batch, delete, event, table, value};
use crate::change::Operation::{Create, Update};
use crate::change::{Sink, TableMode};
use crate::lake::Lake;
use crate::lake::compaction::{Pressure, Target};
use crate::lake::read::At;
use crate::lake::upkeep::Upkeep;

/// The actions of the newest commit to `items`.
fn newest(fixture: &Fixture, version: u64) -> Vec<Value> {
    let path = fixture.dir.path().join(format!("items/_delta_log/{version:020}.json"));
    let entry = std::fs::read_to_string(path).unwrap();
    entry.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The files that a commit adds, each with its least and its greatest id, by these.
fn ranges(actions: &[Value]) -> Vec<(i64, i64, String)> {
    let adds = actions.iter().filter_map(|action| action.get("add"));
    let mut ranges: Vec<_> = adds
        .map(|add| {
            let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
            let of = |bound: &str| stats[bound]["id"].as_i64().unwrap();
            (of("minValues"), of("maxValues"), add["path"].as_str().unwrap().to_owned())
        })
        .collect();
    ranges.sort();
    ranges
}

fn ids(path: &Path) -> Vec<i64> {
    let file = std::fs::File::open(path).unwrap();
    let rows = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let of =
        |rows: RecordBatch| rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
    rows.flat_map(|rows| of(rows.unwrap())).collect()
}

/// Makes the step that is due, into files of so many bytes; says which version it is.
async fn step(lake: &mut Lake, large: i64) -> u64 {
    let (writer, target) = (lake.writer.clone(), Target { large, step: 64 << 20 });
    let items = lake.tables.get_mut(&table("items")).unwrap();
    let rows = items.merge_on_read.as_mut().unwrap();
    let of = (&items.schema, items.shape);
    let step = async {
        while !rows.compact(&mut items.table, of, &writer, (target, Pressure::Idle)).await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), step).await.expect("the step is never committed");
    items.table.state.version()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_step_lie_by_key_and_the_ranges_of_its_files_do_not_overlap() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut all: Vec<i64> = (0..400).collect();
    random.shuffle(&mut all);
    for (chunk, first) in all.chunks(50).zip((0..).step_by(50)) {
        let mut note = || value(&(0..100).map(|_| random.alphanumeric()).collect::<String>());
        let events: Vec<_> =
            (first..).zip(chunk).map(|(offset, &id)| event(offset, Create, id, "a", note())).collect();
        lake.commit(&batch("items", &events)).await.unwrap();
    }
    let before = fixture.items().await;
    let version = step(&mut lake, 8_000).await;
    let ranges = ranges(&newest(&fixture, version));
    assert!(ranges.len() >= 3, "{ranges:?}");
    assert!(ranges.is_sorted_by(|one, next| one.1 < next.0), "ranges overlap: {ranges:?}");
    let read: Vec<i64> =
        ranges.iter().flat_map(|(.., path)| ids(&fixture.dir.path().join("items").join(path))).collect();
    assert!(read.is_sorted() && read.len() == 400, "{read:?}");
    assert_eq!(fixture.items().await, before);
    // Each row is found where it lies now.
    let events: Vec<_> = (0..400).map(|id| event(400 + id, Update, id, "a", Cell::Absent)).collect();
    lake.commit(&batch("items", &events)).await.unwrap();
    assert_eq!(fixture.items().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn optimize_by_hand_lays_rows_by_key_too() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for offset in 0..9 {
        lake.commit(&batch("items", &[event(offset, Create, offset * 5 % 9, "a", Cell::Null)]))
            .await
            .unwrap();
    }
    drop(lake);
    Upkeep::open(fixture.options()).unwrap().optimize(&[], |_| {}).await.unwrap();
    let ranges = ranges(&newest(&fixture, fixture.version("items").await));
    let read = ids(&fixture.dir.path().join("items").join(&ranges[0].2));
    assert_eq!((ranges.len(), read), (1, (0..9).collect()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_writer_is_sorted_with_the_others() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for id in 0..7 {
        lake.commit(&batch("items", &[event(id, Create, 10 * id, "ours", Cell::Null)])).await.unwrap();
    }
    let mut foreign = deltalake::DeltaTable::new(lake.tables[&table("items")].table.log.guarded());
    foreign.load().await.unwrap();
    let theirs: ArrayRef = Arc::new([45, 5, 35, 15, 25].into_iter().map(Some).collect::<Int64Array>());
    let rows = [RecordBatch::try_from_iter([("id", theirs)]).unwrap()];
    foreign.write(rows).with_schema_mode(SchemaMode::Merge).await.unwrap();
    lake.commit(&batch("items", &[event(7, Update, 35, "ours", Cell::Null)])).await.unwrap();
    let before = fixture.items().await;
    let version = step(&mut lake, 1 << 20).await;
    let ranges = ranges(&newest(&fixture, version));
    let read = ids(&fixture.dir.path().join("items").join(&ranges[0].2));
    assert_eq!(read, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60]);
    assert_eq!(fixture.items().await, before);
}

/// Pages of `id` and of `note` in a file that have bounds, and what it says of its order.
fn pages(path: &Path) -> (usize, usize, Option<String>) {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let file = std::fs::File::open(path).unwrap();
    let file = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap();
    let (metadata, index) = (file.metadata(), file.metadata().column_index());
    let of = |column: usize| match index.map(|index| &index[0][column]) {
        None | Some(ColumnIndexMetaData::NONE) => 0,
        Some(_) => metadata.offset_index().unwrap()[0][column].page_locations().len(),
    };
    let said = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    let mut said = said.filter(|said| said.key == "alluvium.sorted_by");
    (of(0), of(2), said.next().and_then(|said| said.value.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_leave_out_pages_of_a_compacted_file_and_read_one_with_deleted_rows_right() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for file in 0..8 {
        let events: Vec<_> = (0..2500)
            .map(|row| event(file * 2500 + row, Create, row * 8 + (row + file) % 8, "a", Cell::Null))
            .collect();
        lake.commit(&batch("items", &events)).await.unwrap();
    }
    let version = step(&mut lake, 32 << 20).await;
    let path = ranges(&newest(&fixture, version)).remove(0).2;
    let (of_key, of_others, _) = pages(&fixture.dir.path().join("items").join(&path));
    assert!(of_key > 5 && of_others == 0, "pages with bounds: {of_key} of the key, {of_others} of a text");
    let some =
        "SELECT count(*), min(id), max(id), count(DISTINCT id) FROM items WHERE id BETWEEN 9000 AND 9999";
    assert_eq!(fixture.query(some, At::Latest).await, ["1000 9000 9999 1000"]);
    let plan = fixture.query(&format!("EXPLAIN ANALYZE {some}"), At::Latest).await.join("\n");
    assert!(plan.contains("page_index_pages_pruned=10 total → 1 matched"), "{plan}");
    let changes: Vec<Event> =
        (0..200).map(|row| delete(20_000 + row, 9_001 + row * 5)).chain([delete(20_200, 3)]).collect();
    lake.commit(&batch("items", &changes)).await.unwrap();
    assert!(lake.tables[&table("items")].table.state.files().values().any(|file| file.vector.is_some()));
    assert_eq!(fixture.query(some, At::Latest).await, ["800 9000 9999 800"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_files_that_are_all_sorted_says_so_and_another_does_not() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let mut offset = 0;
    let mut random = fastrand::Rng::with_seed(3);
    // Two rows of long notes fit what is sorted in memory, sixteen times as many do not.
    for (rows, is_sorted) in [(2, true), (32, false)] {
        for _ in 0..8 {
            let mut note = || value(&(0..2000).map(|_| random.alphanumeric()).collect::<String>());
            let of = |row: i64| event(offset + row, Create, (offset + row) * 7919 % 1009, "a", note());
            let events: Vec<_> = (0..rows).map(of).collect();
            lake.commit(&batch("items", &events)).await.unwrap();
            offset += rows;
        }
        let before = fixture.items().await;
        let version = step(&mut lake, 32 << 20).await;
        let path = ranges(&newest(&fixture, version)).remove(0).2;
        let (.., said) = pages(&fixture.dir.path().join("items").join(&path));
        assert_eq!(said, is_sorted.then(|| r#"[["id","int64"]]"#.to_owned()), "{rows} rows");
        assert!(fixture.items().await == before, "{rows} rows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_a_history_stay_what_they_are_however_often_they_are_compacted() {
    const ROWS: &str = "SELECT id, name, note, __cdc_operation, __cdc_offset, __is_current, \
         __valid_from, __valid_to FROM items ORDER BY id, __cdc_offset";
    let (mut random, mut offset) = (fastrand::Rng::with_seed(17), 0);
    let mut rounds: Vec<Vec<Event>> = Vec::new();
    for round in 0..40 {
        let mut events = Vec::new();
        for id in random.choose_multiple(0..60_i64, 15) {
            events.push(match random.u8(0..5) {
                0 => delete(offset, id),
                1 => event(offset, Update, id, &format!("r{round}"), Cell::Absent),
                _ => event(offset, Update, id, &format!("r{round}"), value(&format!("{offset}"))),
            });
            offset += 1;
        }
        rounds.push(events);
    }
    let mut tables = Vec::new();
    // In many batches, and in one.
    for batches in [rounds.clone(), vec![rounds.concat()]] {
        let fixture = Fixture::new();
        let mut options = fixture.options();
        options.policies.defaults.mode = TableMode::History;
        let mut lake = Lake::open(options).await.unwrap();
        lake.load().await.unwrap();
        for events in &batches {
            lake.commit(&batch("items", events)).await.unwrap();
            lake.maintain().await.unwrap();
        }
        assert!(lake.tables[&table("items")].table.state.files().len() < 12);
        tables.push(fixture.query(ROWS, At::Latest).await);
    }
    let [many, one] = &tables[..] else { panic!("two tables") };
    let differ = many.iter().zip(one).find(|(many, one)| many != one);
    assert!(many.len() > 400 && many == one, "{} and {} rows, {differ:?}", many.len(), one.len());
}
