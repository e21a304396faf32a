//! The raw table: partitions, exactly once, no empty commits.

use super::fixture::{Cell, Fixture, batch, event};
use crate::change::{Operation::Create, Sink};
use crate::lake::read::At;

#[tokio::test(flavor = "multi_thread")]
async fn records_are_appended_once_and_partitioned_by_date() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let events: Vec<_> = (0..25).map(|offset| event(offset, Create, offset, "x", Cell::Null)).collect();
    let report = lake.commit(&batch("items", &events)).await.unwrap();
    assert_eq!(report.tables["cdc_events"].appended, 25);
    lake.commit(&batch("items", &events)).await.unwrap();
    let sql = "SELECT event_date, count(*), min(\"offset\"), max(\"offset\"), count(ingested_at) \
               FROM cdc_events GROUP BY 1 ORDER BY 1";
    assert_eq!(
        fixture.query(sql, At::Latest).await,
        ["2022-01-08 10 0 9 10", "2022-01-09 10 10 19 10", "2022-01-10 5 20 24 5"]
    );
    assert!(fixture.dir.path().join("cdc_events/event_date=2022-01-08").is_dir());
    let offsets = "SELECT count(*) FROM cdc_events WHERE \"offset\" >= 20 AND kafka_timestamp < '1971-01-01'";
    assert_eq!(fixture.query(offsets, At::Latest).await, ["5"], "statistics must not hide rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_records_commits_nothing() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "x", Cell::Null)])).await.unwrap();
    let before = fixture.version("cdc_events").await;
    let mut heartbeats = batch("items", &[event(1, Create, 1, "x", Cell::Null)]);
    heartbeats.changes.clear();
    heartbeats.raw = Some(heartbeats.raw.unwrap().slice(0, 0));
    lake.commit(&heartbeats).await.unwrap();
    assert_eq!(fixture.version("cdc_events").await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_turns_its_history_on_reads_the_topic_from_the_beginning() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.raw_table = None;
    let mut lake = crate::lake::Lake::open(options).await.unwrap();
    assert!(lake.load().await.unwrap().is_empty());
    let events = batch("items", &[event(0, Create, 1, "x", Cell::Null)]);
    lake.commit(&events).await.unwrap();
    assert_eq!(lake.load().await.unwrap().len(), 1);
    let mut lake = crate::lake::Lake::open(fixture.options()).await.unwrap();
    assert!(lake.load().await.unwrap().is_empty(), "the raw table has nothing yet");
    lake.commit(&events).await.unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["1"]);
    assert_eq!(fixture.items().await, ["1 x -"]);
}
