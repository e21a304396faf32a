//! Merge-on-read: what a batch writes, what is left to the library, and writers that come between.

use super::fixture::{Cell, Fixture, batch, delete, event, table, value};
use crate::change::Operation::{Create, Read, Update};
use crate::change::{Sink, TablePolicy, WriteMode};
use crate::lake::Lake;
use crate::lake::read::At;

fn data_files(fixture: &Fixture, extension: &str) -> usize {
    let files = std::fs::read_dir(fixture.dir.path().join("items")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == extension)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_writes_one_file_of_rows_and_one_of_vectors_whatever_it_touches() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for first in 0..5 {
        let events: Vec<_> =
            (0..10).map(|id| event(first * 10 + id, Create, first * 10 + id, "x", Cell::Null)).collect();
        lake.commit(&batch("items", &events)).await.unwrap();
    }
    assert_eq!((data_files(&fixture, "parquet"), data_files(&fixture, "bin")), (5, 0));
    let scattered: Vec<_> = (0..5).map(|file| event(50 + file, Update, file * 10, "y", Cell::Null)).collect();
    lake.commit(&batch("items", &scattered)).await.unwrap();
    assert_eq!((data_files(&fixture, "parquet"), data_files(&fixture, "bin")), (6, 1));
    let counts = fixture.query("SELECT name, count(*) FROM items GROUP BY 1 ORDER BY 1", At::Latest).await;
    assert_eq!(counts, ["x 45", "y 5"]);
    let state = &lake.tables[&table("items")].table.state;
    assert_eq!(state.rows(), Some(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_loses_its_last_row_leaves_the_table() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let two = [event(0, Create, 1, "one", Cell::Null), event(1, Create, 2, "two", Cell::Null)];
    lake.commit(&batch("items", &two)).await.unwrap();
    lake.commit(&batch("items", &[delete(2, 1)])).await.unwrap();
    assert_eq!(lake.tables[&table("items")].table.state.files().len(), 1);
    lake.commit(&batch("items", &[delete(3, 2)])).await.unwrap();
    assert!(lake.tables[&table("items")].table.state.files().is_empty());
    assert!(fixture.items().await.is_empty());
    lake.commit(&batch("items", &[event(4, Create, 1, "again", Cell::Null)])).await.unwrap();
    assert_eq!(fixture.items().await, ["1 again -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_cells_come_from_the_rows_that_are_replaced_wherever_they_lie() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for offset in 0..4 {
        let stored = event(offset, Create, offset, "old", value(&format!("note {offset}")));
        lake.commit(&batch("items", &[stored])).await.unwrap();
    }
    let updates: Vec<_> = (0..5).map(|id| event(4 + id, Update, id, "new", Cell::Absent)).collect();
    let report = lake.commit(&batch("items", &updates)).await.unwrap();
    assert_eq!(report.tables["public.items"].unresolved_absent, 1, "there was no row 4");
    let expected = ["0 new note 0", "1 new note 1", "2 new note 2", "3 new note 3", "4 new -"];
    assert_eq!(fixture.items().await, expected);
    // Once more, from the one file where they lie now.
    let updates: Vec<_> = (0..4).map(|id| event(9 + id, Update, id, "newer", Cell::Absent)).collect();
    lake.commit(&batch("items", &updates)).await.unwrap();
    assert_eq!(fixture.items().await[3], "3 newer note 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_cells_come_from_large_files_too() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let mut random = fastrand::Rng::with_seed(7);
    let notes: Vec<String> = (0..2000).map(|_| (0..400).map(|_| random.alphanumeric()).collect()).collect();
    let stored: Vec<_> =
        (0..).zip(&notes).map(|(id, note)| event(id, Create, id, "old", value(note))).collect();
    lake.commit(&batch("items", &stored)).await.unwrap();
    let size = lake.tables[&table("items")].table.state.files().values().map(|file| file.size).max();
    assert!(size > Some(200_000), "the file fits a single request: {size:?} bytes");
    let updates: Vec<_> = [3, 1999]
        .iter()
        .zip(2000..)
        .map(|(&id, offset)| event(offset, Update, id, "new", Cell::Absent))
        .collect();
    lake.commit(&batch("items", &updates)).await.unwrap();
    let rows = fixture.query("SELECT id, note FROM items WHERE name = 'new' ORDER BY id", At::Latest).await;
    assert_eq!(rows, [format!("3 {}", notes[3]), format!("1999 {}", notes[1999])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_deletion_vectors_stays_without_them() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.policies.tables.insert(
        "public.items".into(),
        TablePolicy { write: WriteMode::CopyOnWrite, ..TablePolicy::default() },
    );
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let protocol = lake.tables[&table("items")].table.state.protocol().cloned();
    assert_eq!(protocol.as_ref().unwrap().min_reader_version, 1);
    drop(lake);
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(1, Update, 1, "uno", Cell::Null)])).await.unwrap();
    assert_eq!(lake.tables[&table("items")].table.state.protocol().cloned(), protocol);
    assert_eq!((fixture.items().await, data_files(&fixture, "bin")), (vec!["1 uno -".to_owned()], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_write_mode_of_a_table_may_change_back_and_forth() {
    let fixture = Fixture::new();
    for (offset, write) in (0..).zip([
        WriteMode::MergeOnRead,
        WriteMode::CopyOnWrite,
        WriteMode::MergeOnRead,
        WriteMode::CopyOnWrite,
        WriteMode::MergeOnRead,
    ]) {
        let mut options = fixture.options();
        options.policies.defaults.write = write;
        let mut lake = Lake::open(options).await.unwrap();
        lake.load().await.unwrap();
        let name = format!("v{offset}");
        let events = [
            event(offset * 2, Update, 1, &name, Cell::Null),
            event(offset * 2 + 1, Create, 10 + offset, &name, Cell::Null),
        ];
        lake.commit(&batch("items", &events)).await.unwrap();
    }
    let expected = ["1 v4 -", "10 v0 -", "11 v1 -", "12 v2 -", "13 v3 -", "14 v4 -"];
    assert_eq!(fixture.items().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_restore_brings_back_are_found_again() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let two = [event(0, Create, 1, "one", Cell::Null), event(1, Create, 2, "two", Cell::Null)];
    lake.commit(&batch("items", &two)).await.unwrap();
    lake.commit(&batch("items", &[delete(2, 1)])).await.unwrap();
    let mut foreign = deltalake::DeltaTable::new(lake.tables[&table("items")].table.log.guarded());
    foreign.load().await.unwrap();
    foreign.restore().with_version_to_restore(1).await.unwrap();
    assert_eq!(fixture.items().await, ["1 one -", "2 two -"]);
    let more = [event(3, Update, 1, "uno", Cell::Null), event(4, Update, 2, "due", Cell::Null)];
    lake.commit(&batch("items", &more)).await.unwrap();
    assert_eq!(fixture.items().await, ["1 uno -", "2 due -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_another_writer_keeps_its_values() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let mut foreign = deltalake::DeltaTable::new(lake.tables[&table("items")].table.log.guarded());
    foreign.load().await.unwrap();
    let session = deltalake::datafusion::prelude::SessionContext::new();
    let row =
        session.sql("SELECT 5::bigint AS id, 'theirs' AS extra").await.unwrap().collect().await.unwrap();
    foreign.write(row).with_schema_mode(deltalake::operations::write::SchemaMode::Merge).await.unwrap();
    lake.commit(&batch("items", &[event(1, Update, 5, "five", Cell::Null)])).await.unwrap();
    let rows = fixture.query("SELECT id, name, extra FROM items ORDER BY id", At::Latest).await;
    assert_eq!(rows, ["1 one -", "5 five theirs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_rows_and_positions_and_the_number_of_files_small() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let mut offset = 0;
    let mut of = |ids: std::ops::Range<i64>, name: &str| {
        let note = if name == "a" { value("kept") } else { Cell::Absent };
        let event = |id| {
            offset += 1;
            event(offset - 1, Update, id, name, note.clone())
        };
        batch("items", &ids.map(event).collect::<Vec<_>>())
    };
    for first in 0..12 {
        lake.commit(&of(first * 10..first * 10 + 10, "a")).await.unwrap();
    }
    lake.commit(&of(5..15, "b")).await.unwrap();
    lake.maintain().await.unwrap();
    assert_eq!(lake.tables[&table("items")].table.state.files().len(), 1);
    let changed = fixture.query("SELECT count(*), sum(id), count(note) FROM items", At::Latest).await;
    assert_eq!(changed, ["120 7140 120"]);
    let reader = crate::lake::read::LakeReader::open(&fixture.options()).unwrap();
    let operations: Vec<String> =
        reader.history("items", 1).await.unwrap().into_iter().filter_map(|commit| commit.operation).collect();
    assert_eq!(operations, ["OPTIMIZE"]);
    // Rows are found where they lie now, by this instance and by one that reads the log.
    lake.commit(&of(0..60, "c")).await.unwrap();
    drop(lake);
    let mut lake = fixture.open().await;
    lake.commit(&of(40..80, "d")).await.unwrap();
    let names = fixture
        .query("SELECT name, count(*), count(note) FROM items GROUP BY 1 ORDER BY 1", At::Latest)
        .await;
    assert_eq!(names, ["a 40 40", "c 40 40", "d 40 40"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_gives_up_where_another_writer_was_faster() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for id in 0..9 {
        lake.commit(&batch("items", &[event(id, Create, id, "x", Cell::Null)])).await.unwrap();
    }
    let mut foreign = deltalake::DeltaTable::new(lake.tables[&table("items")].table.log.guarded());
    foreign.load().await.unwrap();
    foreign.delete().with_predicate("id = 3").await.unwrap();
    lake.maintain().await.unwrap();
    assert_eq!(fixture.items().await.len(), 8, "the deleted row stays deleted");
    lake.commit(&batch("items", &[event(9, Update, 4, "y", Cell::Null)])).await.unwrap();
    lake.maintain().await.unwrap();
    assert_eq!(lake.tables[&table("items")].table.state.files().len(), 1);
    assert_eq!(fixture.items().await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_snapshot_are_left_as_they_are_until_it_is_over() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for id in 0..40 {
        lake.commit(&batch("items", &[event(id, Read, id, "x", Cell::Null)])).await.unwrap();
        lake.maintain().await.unwrap();
    }
    assert_eq!(lake.tables[&table("items")].table.state.files().len(), 40);
    lake.commit(&batch("items", &[event(40, Update, 3, "y", Cell::Null)])).await.unwrap();
    lake.maintain().await.unwrap();
    let files = lake.tables[&table("items")].table.state.files().len();
    assert!(files < 8, "{files} files");
    assert_eq!(fixture.items().await.len(), 40);
}
