//! Other writers, other instances, and replies that got lost.

use super::fixture::{Cell, Fixture, batch, event, maintain, table};
use crate::change::{Operation::Create, Sink, SinkError};
use crate::lake::action::Entry;
use crate::lake::log::{Log, Outcome};
use crate::lake::read::At;

fn numbered(offset: i64) -> crate::change::Batch {
    batch("items", &[event(offset, Create, offset, "x", Cell::Null)])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_whose_position_was_moved_by_another_is_fenced() {
    let fixture = Fixture::new();
    let mut one = fixture.open().await;
    one.commit(&numbered(0)).await.unwrap();
    let mut other = fixture.open().await;
    other.commit(&numbered(1)).await.unwrap();
    let error = one.commit(&numbered(1)).await.unwrap_err();
    let SinkError::Fenced { expected, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!((*expected, *found), (1, 2));
    one.load().await.unwrap();
    one.commit(&numbered(1)).await.unwrap();
    one.commit(&numbered(2)).await.unwrap();
    assert_eq!(fixture.items().await.len(), 3);
    assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_with_different_partitions_share_their_tables() {
    let fixture = Fixture::new();
    let (mut one, mut other) = (fixture.open().await, fixture.open().await);
    for offset in 0..3 {
        one.commit(&numbered(offset)).await.unwrap();
        let mut events = [event(offset, Create, 100 + offset, "y", Cell::Null)];
        events[0].partition = 1;
        other.commit(&batch("items", &events)).await.unwrap();
    }
    assert_eq!(fixture.items().await.len(), 6);
    let next: Vec<_> = one.load().await.unwrap().into_values().map(|stored| stored.next_offset).collect();
    assert_eq!(next, [3, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_others_are_conflicts_that_are_resolved() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&numbered(0)).await.unwrap();
    for (name, offset) in [("items", 1), ("cdc_events", 2)] {
        let table = if name == "items" {
            &lake.tables[&table("items")].table
        } else {
            &lake.raw.as_ref().unwrap().table
        };
        let foreign = Entry::new("OPTIMIZE", "somebody else", 0).into_bytes();
        let next = table.state.next_version();
        assert_eq!(table.log.commit(next, foreign).await.unwrap(), Outcome::Committed);
        let report = lake.commit(&numbered(offset)).await.unwrap();
        assert_eq!(report.conflicts, 1, "{name}");
    }
    assert_eq!(fixture.items().await.len(), 3);
    assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_by_another_writer_survives_the_next_upsert() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&numbered(0)).await.unwrap();
    let session = deltalake::datafusion::prelude::SessionContext::new();
    let row =
        session.sql("SELECT 50::bigint AS id, 'foreign' AS name").await.unwrap().collect().await.unwrap();
    let mut foreign = deltalake::DeltaTable::new(lake.tables[&table("items")].table.log.guarded());
    foreign.load().await.unwrap();
    foreign.write(row).with_schema_mode(deltalake::operations::write::SchemaMode::Merge).await.unwrap();
    lake.commit(&numbered(1)).await.unwrap();
    assert_eq!(fixture.items().await, ["0 x -", "1 x -", "50 foreign -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_written_twice_counts_once_and_as_ours() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&numbered(0)).await.unwrap();
    let log: &Log = &lake.raw.as_ref().unwrap().table.log;
    let version = lake.raw.as_ref().unwrap().table.state.next_version();
    let entry = Entry::new("WRITE", "me", 7).into_bytes();
    assert_eq!(log.commit(version, entry.clone()).await.unwrap(), Outcome::Committed);
    assert_eq!(
        log.commit(version, entry).await.unwrap(),
        Outcome::Committed,
        "the reply was lost, not the entry"
    );
    let other = Entry::new("WRITE", "me", 8).into_bytes();
    assert_eq!(log.commit(version, other).await.unwrap(), Outcome::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_was_lost_is_not_done_again() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&numbered(0)).await.unwrap();
    let items = lake.tables[&table("items")].table.state.clone();
    let raw = lake.raw.as_ref().unwrap().table.state.clone();
    lake.commit(&numbered(1)).await.unwrap();
    let versions = (fixture.version("items").await, fixture.version("cdc_events").await);
    // As if the store had never answered.
    lake.tables.get_mut(&table("items")).unwrap().table.state = items;
    lake.raw.as_mut().unwrap().table.state = raw;
    lake.commit(&numbered(1)).await.unwrap();
    assert_eq!((fixture.version("items").await, fixture.version("cdc_events").await), versions);
    assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_two_tables_is_made_good_by_reading_again() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let mut without_raw = numbered(0);
    without_raw.raw = None;
    lake.commit(&without_raw).await.unwrap();
    let mut lake = crate::lake::Lake::open(fixture.options()).await.unwrap();
    assert!(lake.load().await.unwrap().is_empty(), "the raw table commits last and decides");
    lake.commit(&numbered(0)).await.unwrap();
    assert_eq!(fixture.version("items").await, 1, "the current table skipped what it had");
    assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_next_entries_have_expired_is_read_again_before_anything_is_written() {
    let fixture = Fixture::new();
    let mut idle = fixture.open().await;
    idle.commit(&numbered(0)).await.unwrap();
    let mut options = fixture.options();
    options.checkpoint_interval = 1;
    let mut busy = crate::lake::Lake::open(options).await.unwrap();
    busy.load().await.unwrap();
    for offset in 0..3 {
        let mut events = [event(offset, Create, 100 + offset, "y", Cell::Null)];
        events[0].partition = 1;
        busy.commit(&batch("items", &events)).await.unwrap();
    }
    maintain(&mut busy).await;
    for (folder, version) in [("items", 2), ("items", 3), ("cdc_events", 2), ("cdc_events", 3)] {
        let entry = format!("{folder}/_delta_log/{version:020}.json");
        std::fs::remove_file(fixture.dir.path().join(entry)).unwrap();
    }
    idle.tables.get_mut(&table("items")).unwrap().table.looked = None;
    idle.raw.as_mut().unwrap().table.looked = None;
    idle.commit(&numbered(1)).await.unwrap();
    assert_eq!(fixture.version("items").await, 5);
    assert_eq!(fixture.version("cdc_events").await, 5);
    assert_eq!(fixture.items().await.len(), 5);
}
