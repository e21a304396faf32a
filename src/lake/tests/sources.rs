//! Tables that take the rows of several source tables, whose topics are read in any order.

use std::sync::Arc;

use super::fixture::{Cell, Event, Fixture, batch, both, delete, event, value};
use crate::change::Operation::{Create, Read, Update};
use crate::change::quarantine::replays_of;
use crate::change::{Batch, DeleteMode, Sink, Span, TablePolicy, TableReport, TopicPartition, WriteMode};
use crate::lake::read::At;
use crate::lake::{Lake, LakeOptions};

const ROWS: &str = "SELECT id, name, note, __cdc_lsn, __cdc_topic_partition FROM items ORDER BY id";
const WAYS: [(WriteMode, DeleteMode); 4] = [
    (WriteMode::MergeOnRead, DeleteMode::Hard),
    (WriteMode::CopyOnWrite, DeleteMode::Hard),
    (WriteMode::MergeOnRead, DeleteMode::Soft),
    (WriteMode::CopyOnWrite, DeleteMode::Soft),
];

fn options(
    fixture: &Fixture,
    (write, delete): (WriteMode, DeleteMode),
    several_sources: bool,
) -> LakeOptions {
    let mut options = fixture.options();
    options.policies.defaults = TablePolicy { write, delete, several_sources, ..TablePolicy::default() };
    options
}

async fn open(options: LakeOptions) -> Lake {
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    lake
}

/// Changes of `items` from the topic of one of its sources, each with its LSN.
fn from(source: &str, events: &[(Event, i64)]) -> Batch {
    let of_table: Vec<Event> = events.iter().map(|(event, _)| event.clone()).collect();
    let mut batch = batch("items", &of_table);
    let rename =
        |partition: &TopicPartition| TopicPartition::new(format!("cdc.public.{source}"), partition.partition);
    batch.partitions = batch.partitions.iter().map(rename).collect();
    batch.spans =
        batch.spans.iter().map(|(partition, span)| (rename(partition), Span::clone(span))).collect();
    for changes in &mut batch.changes {
        changes.lsns = events.iter().map(|(_, lsn)| *lsn).collect();
    }
    batch
}

/// Row 1 goes there and back, row 2 goes there and is changed.
fn north() -> Batch {
    from(
        "north",
        &[
            (event(0, Create, 1, "one", value("x")), 10),
            (event(1, Create, 2, "two", value("y")), 11),
            (delete(2, 1), 20),
            (delete(3, 2), 22),
            (event(4, Create, 1, "back", value("z")), 31),
        ],
    )
}

fn south() -> Batch {
    from(
        "south",
        &[
            (event(0, Create, 1, "one", value("x")), 21),
            (event(1, Create, 2, "two", value("y")), 23),
            (event(2, Update, 1, "there", Cell::Absent), 25),
            (event(3, Update, 2, "last", Cell::Absent), 26),
            (delete(4, 1), 30),
        ],
    )
}

async fn commit(lake: &mut Lake, batch: &Batch) -> TableReport {
    let report = lake.commit(batch).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    report.tables["public.items"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_between_sources_ends_the_same_whichever_topic_is_read_first() {
    for way in WAYS {
        let orders = [
            vec![north(), south()],
            vec![south(), north()],
            vec![both(north(), south())],
            vec![both(south(), north())],
        ];
        for (order, batches) in orders.iter().enumerate() {
            let fixture = Fixture::new();
            let mut lake = open(options(&fixture, way, true)).await;
            let mut late = 0;
            for batch in batches {
                late += commit(&mut lake, batch).await.late;
            }
            let expected = ["1 back z 31 cdc.public.north/0", "2 last y 26 cdc.public.south/0"];
            assert_eq!(fixture.query(ROWS, At::Latest).await, expected, "{way:?}, order {order}");
            assert!(late >= 2, "{way:?}, order {order}: {late} late");
            drop(lake);
            let mut lake = open(options(&fixture, way, true)).await;
            let again = commit(&mut lake, &batches[0]).await;
            assert_eq!(
                (again.late, again.upserted),
                (0, 0),
                "{way:?}: what was applied is not looked at again"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_late_as_a_whole_moves_its_position() {
    for way in WAYS {
        let fixture = Fixture::new();
        let mut lake = open(options(&fixture, way, true)).await;
        commit(&mut lake, &from("south", &[(event(0, Create, 1, "there", value("x")), 21)])).await;
        let before = fixture.version("items").await;
        let late = from("north", &[(delete(0, 1), 20)]);
        assert_eq!(commit(&mut lake, &late).await.late, 1, "{way:?}");
        assert_eq!(fixture.version("items").await, before + 1, "{way:?}");
        assert_eq!(commit(&mut lake, &late).await.late, 0, "{way:?}: its position is stored");
        assert_eq!(fixture.items().await, ["1 there x"], "{way:?}");
    }
}

/// The same changes as replays of their records.
fn replayed(mut batch: Batch, forced: bool) -> Batch {
    batch.partitions = batch.partitions.iter().map(replays_of).collect();
    batch.spans =
        batch.spans.iter().map(|(partition, span)| (replays_of(partition), Span::clone(span))).collect();
    batch.raw = None;
    batch.replay = true;
    if forced {
        batch.forced = batch.changes.iter().flat_map(|changes| changes.offsets.clone()).collect();
    }
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_counts_as_read_from_its_topic_and_is_named_where_it_is_late_unless_forced() {
    for way in WAYS {
        let fixture = Fixture::new();
        let mut lake = open(options(&fixture, way, true)).await;
        let rows =
            [(event(0, Create, 1, "one", value("x")), 10), (event(1, Create, 2, "two", value("x")), 11)];
        commit(&mut lake, &from("north", &rows)).await;
        commit(&mut lake, &from("south", &[(event(0, Create, 2, "moved", value("y")), 31)])).await;
        let bad = [
            (event(100, Update, 1, "cured", value("z")), 20),
            (event(101, Update, 2, "old", value("w")), 21),
        ];
        let report = commit(&mut lake, &replayed(from("north", &bad), false)).await;
        assert_eq!((report.late, report.late_replays), (1, vec![101]), "{way:?}");
        // What follows in the topic of the replayed record is not late, though a snapshot row has no place in the log.
        let read = from("north", &[(event(2, Read, 1, "read", value("r")), 0)]);
        assert_eq!(commit(&mut lake, &read).await.late, 0, "{way:?}");
        let expected = ["1 read r 20 cdc.public.north/0", "2 moved y 31 cdc.public.south/0"];
        assert_eq!(fixture.query(ROWS, At::Latest).await, expected, "{way:?}");
        let old = from("north", &[(event(200, Update, 2, "old", value("w")), 21)]);
        assert_eq!(commit(&mut lake, &replayed(old, true)).await.late, 0, "{way:?}: forced");
        assert_eq!(fixture.query(ROWS, At::Latest).await[1], "2 old w 21 cdc.public.north/0", "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_exists_gets_the_columns_and_its_rows_are_older_than_everything() {
    for way in WAYS {
        let fixture = Fixture::new();
        let mut lake = open(options(&fixture, way, false)).await;
        let rows = [
            (event(0, Create, 1, "one", value("x")), 100),
            (event(1, Create, 2, "two", value("y")), 101),
            (event(2, Create, 3, "three", value("z")), 102),
        ];
        commit(&mut lake, &from("north", &rows)).await;
        drop(lake);
        let mut lake = open(options(&fixture, way, true)).await;
        let moved =
            [(event(0, Create, 1, "moved", value("w")), 21), (event(1, Read, 2, "read", value("v")), 0)];
        commit(&mut lake, &from("south", &moved)).await;
        commit(
            &mut lake,
            &from("north", &[(event(3, Update, 3, "known", Cell::Absent), 30), (delete(4, 1), 20)]),
        )
        .await;
        let expected = [
            "1 moved w 21 cdc.public.south/0",
            "2 read v - cdc.public.south/0",
            "3 known z 30 cdc.public.north/0",
        ];
        assert_eq!(fixture.query(ROWS, At::Latest).await, expected, "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_instance_committed_meanwhile_is_compared_with() {
    for way in WAYS {
        let fixture = Fixture::new();
        let mut one = open(options(&fixture, way, true)).await;
        commit(&mut one, &from("north", &[(event(0, Create, 1, "here", value("x")), 10)])).await;
        let mut other = open(options(&fixture, way, true)).await;
        commit(&mut other, &from("south", &[(event(0, Create, 1, "there", value("x")), 21)])).await;
        let report = commit(&mut one, &from("north", &[(delete(1, 1), 20)])).await;
        assert_eq!(report.late, 1, "{way:?}");
        assert_eq!(fixture.items().await, ["1 there x"], "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_one_source_has_no_such_columns_and_applies_in_its_order() {
    let fixture = Fixture::new();
    let way = (WriteMode::MergeOnRead, DeleteMode::Hard);
    let mut lake = open(options(&fixture, way, false)).await;
    commit(&mut lake, &from("north", &[(event(0, Create, 1, "one", value("x")), 100)])).await;
    commit(&mut lake, &from("south", &[(event(0, Update, 1, "older", Cell::Absent), 50)])).await;
    let columns: Arc<str> = fixture.query("SELECT * FROM items", At::Latest).await.join("").into();
    assert!(columns.starts_with("1 older x u ") && !columns.contains("cdc.public"), "{columns}");
}
