//! Files that other programs wrote in their own way, and files that are gone.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use deltalake::operations::write::SchemaMode;
use parquet::file::properties::WriterProperties;

use super::fixture::{Cell, Fixture, batch, both, delete, event, table, value};
use crate::change::Operation::{Create, Update};
use crate::change::{Sink, SinkError, WriteMode};
use crate::lake::Lake;
use crate::lake::error::LakeError;
use crate::lake::landing::{Landed, Rewrite};
use crate::lake::moment::Moment;
use crate::lake::read::At;
use crate::lake::state::TableState;

async fn foreign(lake: &Lake) -> deltalake::DeltaTable {
    let mut foreign = deltalake::DeltaTable::new(lake.tables[&table("items")].table.log.guarded());
    foreign.load().await.unwrap();
    foreign
}

/// Paths of the files with that ending in the folder of `items`.
fn paths(fixture: &Fixture, ending: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(fixture.dir.path().join("items")).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn cells_are_kept_of_files_that_do_not_say_where_their_pages_lie() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", value("ours"))])).await.unwrap();
    let notes = (100..3100).map(|id| format!("note {id}"));
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(100..3100))),
        ("note", Arc::new(StringArray::from_iter_values(notes))),
    ];
    let rows = [RecordBatch::try_from_iter(columns).unwrap()];
    let properties = WriterProperties::builder().set_offset_index_disabled(true).build();
    let write = foreign(&lake).await.write(rows).with_schema_mode(SchemaMode::Merge);
    write.with_writer_properties(properties).await.unwrap();
    let updates: Vec<_> = [1, 100, 2500].map(|id| event(id, Update, id, "new", Cell::Absent)).to_vec();
    let report = lake.commit(&batch("items", &updates)).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    let rows = fixture.query("SELECT id, note FROM items WHERE name = 'new' ORDER BY id", At::Latest).await;
    assert_eq!(rows, ["1 ours", "100 note 100", "2500 note 2500"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_file_that_is_gone_stops_alone_and_says_which_file_it_is() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let rows = |offset: i64, note: Cell| {
        let of = |name: &str| batch(name, &[event(offset, Update, 1, "x", note.clone())]);
        both(of("items"), of("others"))
    };
    lake.commit(&rows(0, value("kept"))).await.unwrap();
    let [path] = paths(&fixture, ".parquet").try_into().unwrap();
    std::fs::remove_file(&path).unwrap();
    let report = lake.commit(&rows(1, Cell::Absent)).await.unwrap();
    assert_eq!(report.stopped.keys().collect::<Vec<_>>(), [&table("items")]);
    let (reason, name) = (&report.stopped[&table("items")], path.file_name().unwrap().to_string_lossy());
    assert!(reason.contains(&*name) && reason.contains("is gone"), "{reason}");
    assert_eq!(fixture.query("SELECT id, name, note FROM others", At::Latest).await, ["1 x kept"]);
    assert_eq!(lake.tables[&table("items")].table.state.version(), 1, "nothing was committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_write_table_with_a_file_that_is_gone_stops_and_says_which_file_it_is() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.raw_table = None;
    options.policies.defaults.write = WriteMode::CopyOnWrite;
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    lake.commit(&batch("items", &[event(0, Create, 1, "x", Cell::Null)])).await.unwrap();
    let [path] = paths(&fixture, ".parquet").try_into().unwrap();
    std::fs::remove_file(&path).unwrap();
    let report = lake.commit(&batch("items", &[event(1, Update, 1, "y", Cell::Null)])).await.unwrap();
    let (reason, name) = (&report.stopped[&table("items")], path.file_name().unwrap().to_string_lossy());
    assert!(reason.contains(&*name) && reason.contains("is gone"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_vector_that_is_gone_stops_alone() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let three: Vec<_> = (0..3).map(|id| event(id, Create, id, "x", Cell::Null)).collect();
    lake.commit(&batch("items", &three)).await.unwrap();
    lake.commit(&batch("items", &[delete(3, 0)])).await.unwrap();
    let [path] = paths(&fixture, ".bin").try_into().unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut lake = fixture.open().await;
    let report = lake.commit(&batch("items", &[delete(4, 1)])).await.unwrap();
    let reason = &report.stopped[&table("items")];
    assert!(reason.contains("deletion_vector_") && reason.contains("is gone"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_another_writer_replaced_and_removed_are_not_missed() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for id in 0..3 {
        lake.commit(&batch("items", &[event(id, Create, id, "x", value(&format!("note {id}")))]))
            .await
            .unwrap();
    }
    let former = paths(&fixture, ".parquet");
    foreign(&lake).await.optimize().await.unwrap();
    assert_eq!(paths(&fixture, ".parquet").len(), former.len() + 1, "nothing was optimized");
    for path in &former {
        std::fs::remove_file(path).unwrap();
    }
    let updates: Vec<_> = (0..3).map(|id| event(3 + id, Update, id, "y", Cell::Absent)).collect();
    let report = lake.commit(&batch("items", &updates)).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    assert_eq!(fixture.items().await, ["0 y note 0", "1 y note 1", "2 y note 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_waited_an_hour_for_their_commit_are_not_committed() {
    /// Files that were written at that moment.
    struct Waited(Moment);

    impl Rewrite for Waited {
        async fn entry(&mut self, _: &TableState) -> Result<Option<bytes::Bytes>, LakeError> {
            Ok(Some(crate::lake::action::Entry::new("OPTIMIZE", "w", 0).into_bytes()))
        }

        fn since(&self) -> Moment {
            self.0
        }
    }

    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let writer = lake.writer.clone();
    let items = &mut lake.tables.get_mut(&table("items")).unwrap().table;
    let late = items.commit_rewrite(&mut Waited(Moment::an_hour_ago()), &writer).await.unwrap();
    assert_eq!((late, items.state.version()), (Landed::No, 1));
    let entry = Waited(Moment::now()).entry(&items.state).await.unwrap().unwrap();
    let late = items.commit_files(entry.clone(), Moment::an_hour_ago()).await.unwrap_err();
    assert!(matches!(late, LakeError::Late { minutes: 60, .. }), "{late:?}");
    assert!(matches!(SinkError::from(late), SinkError::Retry { .. }), "it is written again");
    assert!(items.log.entry(2).await.unwrap().is_none());
    items.commit_files(entry, Moment::now()).await.unwrap();
    assert!(matches!(
        items.commit_rewrite(&mut Waited(Moment::now()), &writer).await.unwrap(),
        Landed::Next(_)
    ));
    assert_eq!(items.state.version(), 3);
}
