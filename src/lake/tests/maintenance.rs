//! Work between batches: a table's fault is its own, and is not met with every batch.

use super::fixture::{Cell, Fixture, batch, both, event, maintain, table};
use crate::change::Operation::{Create, Update};
use crate::change::{Batch, Difference, DifferenceKind, Sink, TableFigures, TopicPartition};
use crate::lake::Lake;
use crate::lake::audit::{AuditTable, Fate, SchemaChangeEntry};
use crate::lake::log::Log;
use crate::lake::read::{At, LakeReader};

/// Two tables with files of a tier, each with a vector, that a lake was opened on anew.
async fn two_tables(fixture: &Fixture) -> Lake {
    let mut lake = fixture.open().await;
    for offset in 0..9 {
        lake.commit(&rows(offset)).await.unwrap();
    }
    for id in 0..3 {
        let update = |name| batch(name, &[event(18 + id, Update, id, "y", Cell::Null)]);
        lake.commit(&both(update("items"), update("others"))).await.unwrap();
    }
    drop(lake);
    fixture.open().await
}

/// Two rows for each of the tables.
fn rows(offset: i64) -> Batch {
    let events = [
        event(2 * offset, Create, offset, "x", Cell::Null),
        event(2 * offset + 1, Create, 100 + offset, "x", Cell::Null),
    ];
    both(batch("items", &events), batch("others", &events))
}

async fn steps(fixture: &Fixture, name: &str) -> usize {
    let history = LakeReader::open(&fixture.options()).unwrap().history(name, 1000).await.unwrap();
    history.into_iter().filter(|commit| commit.operation.as_deref() == Some("OPTIMIZE")).count()
}

/// Overwrites the vectors of a table, or its data files.
fn damage(fixture: &Fixture, name: &str, extension: &str) {
    for entry in std::fs::read_dir(fixture.dir.path().join(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|found| found == extension) {
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::write(path, vec![7; length as usize]).unwrap();
        }
    }
}

fn figures(lake: &mut Lake, name: &str) -> TableFigures {
    lake.figures().tables[name]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_stopped_by_its_compaction_and_the_others_go_on() {
    let fixture = Fixture::new();
    let mut lake = two_tables(&fixture).await;
    damage(&fixture, "items", "bin");
    for _ in 0..3 {
        lake.maintain().await.unwrap();
    }
    assert!(lake.stopped.contains_key(&table("items")), "it goes on");
    assert!(!lake.stopped.contains_key(&table("others")));
    assert_eq!((steps(&fixture, "items").await, steps(&fixture, "others").await), (0, 1));
    assert_eq!(figures(&mut lake, "public.items").failed_compactions, 1, "a stopped table is left alone");
    // The next batch says so, whatever it is of, and the other table has its rows.
    let others = batch("others", &[event(40, Create, 40, "z", Cell::Null)]);
    let report = lake.commit(&others).await.unwrap();
    assert!(report.stopped[&table("items")].contains("deletion vector"), "{:?}", report.stopped);
    let report = lake.commit(&batch("items", &[event(40, Create, 40, "z", Cell::Null)])).await.unwrap();
    assert_eq!(report.stopped.len(), 1, "{:?}", report.stopped);
    assert_eq!(fixture.query("SELECT name FROM others WHERE id = 40", At::Latest).await, ["z"]);
    let raw = "SELECT topic FROM cdc_events WHERE \"offset\" = 40";
    assert_eq!(fixture.query(raw, At::Latest).await, ["cdc.public.others"], "its records wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_that_fails_is_counted_waited_for_and_holds_no_other_table_up() {
    let fixture = Fixture::new();
    let mut lake = two_tables(&fixture).await;
    damage(&fixture, "items", "parquet");
    for _ in 0..3 {
        lake.maintain().await.unwrap();
    }
    assert_eq!(figures(&mut lake, "public.items").failed_compactions, 1);
    assert_eq!(figures(&mut lake, "public.items").failed_compactions, 0, "told once");
    assert_eq!(steps(&fixture, "others").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_be_written_is_counted_waited_for_and_holds_no_other_up() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 0, "x", Cell::Null)])).await.unwrap();
    lake.options.checkpoint_interval = 1;
    let checkpoint =
        |name: &str| fixture.dir.path().join(name).join("_delta_log/00000000000000000001.checkpoint.parquet");
    // Nothing can be put in the place of a folder.
    std::fs::create_dir(checkpoint("items")).unwrap();
    for _ in 0..3 {
        maintain(&mut lake).await;
    }
    assert_eq!(figures(&mut lake, "public.items").failed_checkpoints, 1);
    assert!(checkpoint("cdc_events").is_file(), "the other table has none");
    assert!(lake.stopped.is_empty(), "the table does not need it");
    lake.commit(&batch("items", &[event(1, Create, 1, "x", Cell::Null)])).await.unwrap();
    assert_eq!(fixture.items().await.len(), 2);
}

/// Has the next entry of a table's log be none.
fn spoil(fixture: &Fixture, lake: &mut Lake, name: &str) {
    let current = lake.tables.get_mut(&table(name)).unwrap();
    current.stored = None;
    let entry = format!("{name}/_delta_log/{:020}.json", current.table.state.next_version());
    std::fs::write(fixture.dir.path().join(entry), "{\"commitInfo\"").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_store_its_position_stops_and_the_batch_is_done() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&rows(0)).await.unwrap();
    spoil(&fixture, &mut lake, "others");
    let mut quiet = rows(1);
    quiet.changes.retain(|changes| changes.table == table("items"));
    let report = lake.commit(&quiet).await.unwrap();
    let stopped: Vec<_> = report.stopped.keys().cloned().collect();
    assert_eq!(stopped, [table("others")]);
    assert_eq!(lake.tables[&table("items")].table.state.rows(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_store_its_position_stops_between_batches_and_the_lane_goes_on() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&rows(0)).await.unwrap();
    // Records that are no changes.
    let mut passed = Batch { spans: rows(1).spans, ..Batch::default() };
    for span in passed.spans.values_mut() {
        span.next += 100;
    }
    lake.commit(&passed).await.unwrap();
    spoil(&fixture, &mut lake, "others");
    lake.tables.get_mut(&table("items")).unwrap().stored = None;
    lake.maintain().await.unwrap();
    assert!(lake.stopped.contains_key(&table("others")) && lake.stopped.len() == 1, "{:?}", lake.stopped);
    let partition = TopicPartition::new("cdc.public.items", 0);
    let span = &passed.spans[&partition];
    assert_eq!(lake.tables[&table("items")].table.position(&lake.writer, &partition, span), Some(span.next));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_schema_changes_is_put_together_and_has_checkpoints() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.options.checkpoint_interval = 5;
    let log = Log::new("schema_changes", lake.location.table("schema_changes").unwrap());
    let mut audit = AuditTable::open_or_create(log, &lake.properties, &lake.writer).await.unwrap();
    let items = table("items");
    let change = |number: i64| SchemaChangeEntry {
        number,
        difference: Difference {
            kind: DifferenceKind::Add,
            column: format!("c{number}"),
            before: None,
            after: Some("text".to_owned()),
            note: None,
        },
        fate: Fate::Applied,
        topic: "cdc.public.items".to_owned(),
        partition: 0,
        offset: number,
        source_micros: number,
        at_micros: number,
    };
    for number in 1..=9 {
        audit.copy((&items, "items", "id"), &[change(number)], &lake.writer).await.unwrap();
    }
    lake.audit = Some(audit);
    maintain(&mut lake).await;
    let audit = lake.audit.as_mut().unwrap();
    let state = &audit.table.state;
    assert_eq!((state.files().len(), state.commits_since_checkpoint()), (1, 0), "files, entries to read");
    audit.copy((&items, "items", "id"), &[change(9), change(10)], &lake.writer).await.unwrap();
    let names = fixture.query("SELECT column_name FROM schema_changes ORDER BY \"offset\"", At::Latest).await;
    assert_eq!(names, (1..=10).map(|number| format!("c{number}")).collect::<Vec<_>>());
}
