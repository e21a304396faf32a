//! Deleted rows that stay, in both write modes, against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fixture::{Cell, Event, Fixture, batch, delete, event, truncate, value};
use super::model::{Between, Change, Key, World, between, change_or_truncate, to_event};
use crate::change::Operation::{Create, Truncate, Update};
use crate::change::{DeleteMode, Sink, TablePolicy, TruncateReach, WriteMode};
use crate::lake::read::At;
use crate::lake::{Lake, LakeOptions};

const ROWS: &str = "SELECT id, name, note, __cdc_deleted, __cdc_operation FROM items ORDER BY id";

fn policy(write: WriteMode) -> TablePolicy {
    TablePolicy { write, delete: DeleteMode::Soft, ..TablePolicy::default() }
}

fn options(fixture: &Fixture, policy: TablePolicy) -> LakeOptions {
    let mut options = fixture.options();
    options.policies.defaults = policy;
    options
}

async fn open(options: LakeOptions) -> Lake {
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    lake
}

const BOTH: [WriteMode; 2] = [WriteMode::MergeOnRead, WriteMode::CopyOnWrite];

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_row_stays_with_its_last_values_and_a_new_one_inherits_nothing() {
    for write in BOTH {
        let fixture = Fixture::new();
        let mut lake = open(options(&fixture, policy(write))).await;
        let two = [event(0, Create, 1, "one", value("a")), event(1, Create, 2, "two", value("b"))];
        lake.commit(&batch("items", &two)).await.unwrap();
        let report = lake.commit(&batch("items", &[delete(2, 1), delete(3, 7)])).await.unwrap();
        let rows = fixture.query(ROWS, At::Latest).await;
        assert_eq!(rows, ["1 one a true d", "2 two b false c"], "{write:?}");
        let items = &report.tables["public.items"];
        assert_eq!(items.deleted, 2, "{write:?}");
        if write == WriteMode::MergeOnRead {
            assert_eq!(items.unknown_deletes, 1, "there was no row 7");
        }
        // A create and a delete in one batch leave what the create had.
        let more = [event(4, Create, 3, "three", value("c")), delete(5, 3)];
        lake.commit(&batch("items", &more)).await.unwrap();
        lake.commit(&batch("items", &[event(6, Update, 1, "again", Cell::Absent)])).await.unwrap();
        let rows = fixture.query(ROWS, At::Latest).await;
        assert_eq!(rows, ["1 again - false u", "2 two b false c", "3 three c true d"], "{write:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_gets_the_mark_with_the_setting_and_keeps_it_without() {
    for write in BOTH {
        let fixture = Fixture::new();
        let hard = TablePolicy { delete: DeleteMode::Hard, ..policy(write) };
        let mut lake = open(options(&fixture, hard.clone())).await;
        let rows: Vec<_> = (0..4).map(|id| event(id, Create, id, "x", value("n"))).collect();
        lake.commit(&batch("items", &rows)).await.unwrap();
        drop(lake);
        let mut lake = open(options(&fixture, policy(write))).await;
        lake.commit(&batch("items", &[delete(4, 0), event(5, Update, 1, "y", Cell::Absent)])).await.unwrap();
        let expected = ["0 x n true d", "1 y n false u", "2 x n - c", "3 x n - c"];
        assert_eq!(fixture.query(ROWS, At::Latest).await, expected, "{write:?}");
        drop(lake);
        let mut lake = open(options(&fixture, hard)).await;
        lake.commit(&batch("items", &[delete(6, 2), event(7, Update, 0, "z", Cell::Absent)])).await.unwrap();
        let expected = ["0 z - false u", "1 y n false u", "3 x n - c"];
        assert_eq!(fixture.query(ROWS, At::Latest).await, expected, "{write:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_marks_the_rows_that_are_there_with_its_time_and_their_last_values() {
    for write in BOTH {
        let fixture = Fixture::new();
        let mut lake = open(options(&fixture, policy(write))).await;
        let rows: Vec<_> = (0..5).map(|id| event(id, Create, id, "x", value("n"))).collect();
        lake.commit(&batch("items", &rows)).await.unwrap();
        let second = [
            delete(5, 0),
            event(6, Update, 1, "y", Cell::Absent),
            event(7, Create, 7, "came", value("went")),
            truncate(8),
            event(9, Create, 2, "again", Cell::Absent),
            event(10, Create, 8, "new", Cell::Null),
            truncate(11),
            event(12, Create, 3, "third", Cell::Null),
            delete(13, 4),
        ];
        let mut second = batch("items", &second);
        second.changes[0].source_micros = (5..14).map(|offset| offset * 10).collect();
        let version = fixture.version("items").await;
        let report = lake.commit(&second).await.unwrap();
        assert_eq!(fixture.version("items").await, version + 1, "one commit");
        let sql = ROWS.replace("__cdc_operation", "__cdc_operation, CAST(__cdc_timestamp AS bigint)");
        let expected = [
            "0 x n true d 50",
            "1 y n true t 80",
            "2 again - true t 110",
            "3 third - false c 120",
            "4 x n true d 130",
            "7 came went true t 80",
            "8 new - true t 110",
        ];
        assert_eq!(fixture.query(&sql, At::Latest).await, expected, "{write:?}");
        let items = &report.tables["public.items"];
        assert!(items.truncated);
        assert_eq!((items.upserted, items.deleted, items.unknown_deletes), (1, 2, 0), "{write:?}");
        // What is deleted already does not end again.
        lake.commit(&batch("items", &[truncate(14)])).await.unwrap();
        lake.commit(&batch("items", &[event(15, Update, 3, "fourth", Cell::Absent)])).await.unwrap();
        let letters = fixture.query("SELECT __cdc_operation FROM items ORDER BY id", At::Latest).await;
        assert_eq!(letters.concat(), "dttudtt", "{write:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_truncate_marks_only_what_was_committed_before_it() {
    for write in BOTH {
        let fixture = Fixture::new();
        let mut lake = open(options(&fixture, policy(write))).await;
        let mut old =
            batch("items", &(0..5).map(|id| event(id, Create, id, "x", value("n"))).collect::<Vec<_>>());
        old.changes[0].source_micros = vec![10, 30, 10, 30, 10];
        lake.commit(&old).await.unwrap();
        // Read before the truncate: one older change, two newer ones. Behind it: two newer ones.
        let late = [
            event(5, Update, 0, "older", Cell::Absent),
            event(6, Create, 2, "newer", Cell::Absent),
            event(7, Update, 1, "newer", Cell::Absent),
            truncate(8),
            delete(9, 3),
            event(10, Create, 4, "newest", Cell::Null),
        ];
        let mut late = batch("items", &late);
        late.changes[0].source_micros = vec![15, 40, 40, 20, 50, 50];
        late.changes[0].lsns = vec![1, 4, 4, 2, 5, 5];
        late.changes[0].truncates[0].reach = TruncateReach::Older { stored: true };
        lake.commit(&late).await.unwrap();
        let sql = ROWS.replace("__cdc_operation", "__cdc_operation, CAST(__cdc_timestamp AS bigint)");
        let expected = [
            "0 older n true t 20",
            "1 newer n false u 40",
            "2 newer - false c 40",
            "3 x n true d 50",
            "4 newest - false c 50",
        ];
        assert_eq!(fixture.query(&sql, At::Latest).await, expected, "{write:?}");
    }
}

/// Name, note, and the letter of a deleted row.
type Model = BTreeMap<i64, (String, Option<String>, &'static str)>;

fn is_deleted(row: &(String, Option<String>, &'static str)) -> bool {
    matches!(row.2, "d" | "t")
}

fn apply(model: &mut Model, event: &Event) {
    if event.operation == Truncate {
        model.values_mut().filter(|row| !is_deleted(row)).for_each(|row| row.2 = "t");
        return;
    }
    if !event.operation.is_upsert() {
        model.entry(event.id).and_modify(|row| row.2 = "d");
        return;
    }
    let before = model.get(&event.id).filter(|row| !is_deleted(row)).and_then(|row| row.1.clone());
    let note = match &event.note {
        Cell::Value(text) => Some(text.clone()),
        Cell::Null => None,
        Cell::Absent => before,
    };
    model.insert(event.id, (event.name.clone().unwrap(), note, event.operation.code()));
}

async fn run(batches: Vec<(Vec<Change>, Between)>, key: Key) {
    let mut worlds = [World::with(policy(BOTH[0])).await, World::with(policy(BOTH[1])).await];
    let (mut model, mut log) = (Model::new(), Vec::<Event>::new());
    for (changes, between) in batches {
        for change in &changes {
            let event = to_event(log.len() as i64, change);
            apply(&mut model, &event);
            log.push(event);
        }
        for world in &mut worlds {
            let report = world.lake.as_mut().unwrap().commit(&key.batch(&log[world.from..])).await.unwrap();
            assert!(report.stopped.is_empty(), "{:?}", report.stopped);
            world.from = log.len();
        }
        let present = matches!(between, Between::ForeignAppend(id) if model.contains_key(&id));
        match between {
            Between::ForeignAppend(id) => {
                model.entry(id).or_insert(("foreign".to_owned(), None, "-"));
            }
            Between::ForeignDelete(id) => drop(model.remove(&id)),
            _ => {}
        }
        let expected: Vec<String> = model
            .iter()
            .map(|(id, row)| {
                let (name, note, code) = row;
                let note = note.as_deref().unwrap_or("-");
                format!("{id} {name} {note} {} {code}", is_deleted(row))
            })
            .collect();
        for world in &mut worlds {
            world.step(between, key, present).await;
            let sql = ROWS.replace("__cdc_deleted", "__cdc_deleted IS TRUE");
            let rows = world.fixture.query(&sql, At::Latest).await;
            assert_eq!(rows, expected, "{:?}", world.options.policies.defaults.write);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn the_table_equals_the_map_with_its_deleted_rows_after_every_batch_in_both_write_modes(
        batches in prop::collection::vec((prop::collection::vec(change_or_truncate(), 1..20), between()), 1..10),
        key in prop_oneof![Just(Key::Id), Just(Key::Composite)],
    ) {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_all().build().unwrap().block_on(run(batches, key));
    }
}
