//! History tables against a list of versions.

use proptest::prelude::*;

use super::fixture::{Cell, Event, Fixture, batch, delete, event, table, truncate, value};
use super::model::{Between, Change, Key, World, between, change_or_truncate, to_event};
use crate::change::Operation::{Create, Read, Truncate, Update};
use crate::change::{Batch, DeleteMode, Sink, TableMode, TablePolicy, TruncateReach, WriteMode};
use crate::lake::read::At;
use crate::lake::{Lake, LakeOptions};

/// Times as microseconds after the first.
const ROWS: &str = "SELECT id, name, note, __cdc_operation, __cdc_offset, \
     CAST(__valid_from AS bigint) - 1700000000000000, CAST(__valid_to AS bigint) - 1700000000000000, __is_current \
     FROM items ORDER BY id, __cdc_offset";

fn policy() -> TablePolicy {
    TablePolicy { mode: TableMode::History, ..TablePolicy::default() }
}

fn options(fixture: &Fixture) -> LakeOptions {
    let mut options = fixture.options();
    options.policies.defaults = policy();
    options
}

async fn open(options: LakeOptions) -> Lake {
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    lake
}

/// Two changes each have one commit time, as those of a transaction have.
fn time_of(offset: i64) -> i64 {
    offset / 2 * 10
}

fn timed(mut batch: Batch) -> Batch {
    for changes in &mut batch.changes {
        let times = changes.offsets.iter().map(|&offset| 1_700_000_000_000_000 + time_of(offset));
        changes.source_micros = times.collect();
    }
    batch
}

fn items(events: &[Event]) -> Batch {
    timed(batch("items", events))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_a_version_and_ends_the_one_before() {
    let fixture = Fixture::new();
    let mut lake = open(options(&fixture)).await;
    let first = [
        event(0, Create, 1, "a", value("n")),
        event(1, Update, 1, "b", Cell::Absent),
        event(2, Create, 2, "x", Cell::Null),
    ];
    lake.commit(&items(&first)).await.unwrap();
    let second = [
        event(3, Update, 1, "c", Cell::Absent),
        delete(4, 1),
        event(5, Create, 1, "d", Cell::Absent),
        delete(6, 2),
        delete(7, 3),
    ];
    let report = lake.commit(&items(&second)).await.unwrap();
    let expected = [
        "1 a n c 0 0 0 false",
        "1 b n u 1 0 10 false",
        "1 c n u 3 10 20 false",
        "1 d - c 5 20 - true",
        "2 x - c 2 10 30 false",
    ];
    assert_eq!(fixture.query(ROWS, At::Latest).await, expected);
    let report = &report.tables["public.items"];
    assert_eq!((report.upserted, report.deleted, report.unknown_deletes), (2, 2, 1));
    assert_eq!(report.unresolved_absent, 1, "there was no version before 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_ends_every_version_that_is_there_at_its_time() {
    let fixture = Fixture::new();
    let mut lake = open(options(&fixture)).await;
    let first: Vec<_> = (0..4).map(|id| event(id, Create, id, "x", value("n"))).collect();
    lake.commit(&items(&first)).await.unwrap();
    let second = [
        delete(4, 0),
        event(5, Update, 1, "y", Cell::Absent),
        truncate(6),
        event(7, Create, 2, "z", Cell::Absent),
        truncate(8),
        event(9, Create, 5, "new", Cell::Null),
        truncate(10),
        event(11, Read, 1, "y", value("n")),
    ];
    let version = fixture.version("items").await;
    let report = lake.commit(&items(&second)).await.unwrap();
    assert_eq!(fixture.version("items").await, version + 1, "one commit");
    let expected = [
        "0 x n c 0 0 20 false",
        "1 x n c 1 0 20 false",
        "1 y n u 5 20 30 false",
        "1 y n r 11 50 - true",
        "2 x n c 2 10 30 false",
        "2 z - c 7 30 40 false",
        "3 x n c 3 10 30 false",
        "5 new - c 9 40 50 false",
    ];
    assert_eq!(fixture.query(ROWS, At::Latest).await, expected);
    let items_report = &report.tables["public.items"];
    assert_eq!((items_report.truncated, items_report.deleted, items_report.unknown_deletes), (true, 1, 0));
    lake.commit(&items(&[event(12, Update, 1, "w", Cell::Absent)])).await.unwrap();
    let current = fixture.query("SELECT id, name, note FROM items WHERE __is_current", At::Latest).await;
    assert_eq!(current, ["1 w n"], "the index follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_truncate_ends_only_versions_that_began_before_it() {
    let fixture = Fixture::new();
    let mut lake = open(options(&fixture)).await;
    let at = |mut batch: Batch, times: &[i64]| {
        batch.changes[0].source_micros = times.iter().map(|time| 1_700_000_000_000_000 + time).collect();
        batch
    };
    let old: Vec<_> = (0..5).map(|id| event(id, Create, id, "x", value("n"))).collect();
    lake.commit(&at(batch("items", &old), &[10, 30, 10, 30, 10])).await.unwrap();
    let late = [
        event(5, Update, 0, "older", Cell::Absent),
        event(6, Create, 2, "newer", Cell::Absent),
        event(7, Update, 1, "newer", Cell::Absent),
        truncate(8),
        delete(9, 3),
        event(10, Create, 4, "newest", Cell::Null),
    ];
    let mut late = at(batch("items", &late), &[15, 40, 40, 20, 50, 50]);
    late.changes[0].lsns = vec![1, 4, 4, 2, 5, 5];
    late.changes[0].truncates[0].reach = TruncateReach::Older { stored: true };
    lake.commit(&late).await.unwrap();
    let expected = [
        "0 x n c 0 10 15 false",
        "0 older n u 5 15 20 false",
        "1 x n c 1 30 40 false",
        "1 newer n u 7 40 - true",
        "2 x n c 2 10 20 false",
        "2 newer - c 6 40 - true",
        "3 x n c 3 30 50 false",
        "4 x n c 4 10 20 false",
        "4 newest - c 10 50 - true",
    ];
    assert_eq!(fixture.query(ROWS, At::Latest).await, expected);
    // Read so late that what came after it has ended older versions already: they were not there in between.
    lake.commit(&at(batch("items", &[event(11, Create, 0, "again", Cell::Null)]), &[70])).await.unwrap();
    lake.commit(&at(batch("items", &[event(12, Create, 1, "again", Cell::Null)]), &[70])).await.unwrap();
    let mut later = at(batch("items", &[truncate(13)]), &[60]);
    later.changes[0].lsns = vec![6];
    later.changes[0].truncates[0].reach = TruncateReach::Older { stored: true };
    lake.commit(&later).await.unwrap();
    let sql = ROWS.replace("ORDER BY", "WHERE __is_current OR __cdc_offset IN (6, 7, 10) ORDER BY");
    let expected = [
        "0 again - c 11 70 - true",
        "1 newer n u 7 40 60 false",
        "1 again - c 12 70 - true",
        "2 newer - c 6 40 60 false",
        "4 newest - c 10 50 60 false",
    ];
    assert_eq!(fixture.query(&sql, At::Latest).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_snapshot_begins_versions_of_changed_rows_only() {
    let fixture = Fixture::new();
    let mut lake = open(options(&fixture)).await;
    let rows: Vec<_> = (0..3).map(|id| event(id, Read, id, "x", value("n"))).collect();
    lake.commit(&items(&rows)).await.unwrap();
    let again: Vec<_> =
        (0..3).map(|id| event(3 + id, Read, id, if id == 1 { "y" } else { "x" }, value("n"))).collect();
    lake.commit(&items(&again)).await.unwrap();
    let expected =
        ["0 x n r 0 0 - true", "1 x n r 1 0 20 false", "1 y n r 4 20 - true", "2 x n r 2 10 - true"];
    assert_eq!(fixture.query(ROWS, At::Latest).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_of_a_table_cannot_change() {
    let fixture = Fixture::new();
    let mut lake = open(options(&fixture)).await;
    lake.commit(&items(&[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    drop(lake);
    let mut lake = fixture.open().await;
    let report = lake.commit(&items(&[event(1, Update, 1, "uno", Cell::Null)])).await.unwrap();
    let reason = &report.stopped[&table("items")];
    assert!(reason.contains("mode = \"history\"") && reason.contains("set it back"), "{reason}");
    drop(lake);
    let mut lake = open(options(&fixture)).await;
    lake.commit(&items(&[event(1, Update, 1, "uno", Cell::Null)])).await.unwrap();
    assert_eq!(fixture.query("SELECT name FROM items WHERE __is_current", At::Latest).await, ["uno"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_without_deletion_vectors_is_refused() {
    let fixture = Fixture::new();
    let mut options = options(&fixture);
    options.policies.defaults.write = WriteMode::CopyOnWrite;
    let mut lake = open(options).await;
    let report = lake.commit(&items(&[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let reason = &report.stopped[&table("items")];
    assert!(reason.contains("deletion vectors"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_deletes_change_nothing_in_a_history() {
    let fixture = Fixture::new();
    let mut options = options(&fixture);
    options.policies.defaults.delete = DeleteMode::Soft;
    let mut lake = open(options).await;
    lake.commit(&items(&[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    lake.commit(&items(&[delete(1, 1)])).await.unwrap();
    assert_eq!(fixture.query(ROWS, At::Latest).await, ["1 one - c 0 0 0 false"]);
}

/// A version, in the order of [`ROWS`].
#[derive(Debug, Clone)]
struct Version {
    id: i64,
    name: String,
    note: Option<String>,
    code: &'static str,
    offset: i64,
    end: Option<i64>,
}

fn apply(model: &mut Vec<Version>, event: &Event) {
    if event.operation == Truncate {
        let open = model.iter_mut().filter(|version| version.end.is_none());
        open.for_each(|version| version.end = Some(time_of(event.offset)));
        return;
    }
    let open = model.iter_mut().find(|version| version.id == event.id && version.end.is_none());
    let before = open.as_ref().map(|version| (version.name.clone(), version.note.clone()));
    let note = match &event.note {
        Cell::Value(text) => Some(text.clone()),
        Cell::Null => None,
        Cell::Absent => before.as_ref().and_then(|(_, note)| note.clone()),
    };
    let name = event.name.clone().unwrap_or_default();
    if event.operation == Read && before == Some((name.clone(), note.clone())) {
        return;
    }
    if let Some(version) = open {
        version.end = Some(time_of(event.offset));
    }
    if event.operation.is_upsert() {
        let (id, code, offset) = (event.id, event.operation.code(), event.offset);
        model.push(Version { id, name, note, code, offset, end: None });
    }
}

fn shown(model: &[Version]) -> Vec<String> {
    let mut versions = model.to_vec();
    versions.sort_by_key(|version| (version.id, version.offset));
    let shown = |version: &Version| {
        let note = version.note.as_deref().unwrap_or("-");
        let end = version.end.map_or("-".to_owned(), |end| end.to_string());
        let Version { id, name, code, offset, .. } = version;
        format!("{id} {name} {note} {code} {offset} {} {end} {}", time_of(*offset), version.end.is_none())
    };
    versions.iter().map(shown).collect()
}

async fn run(batches: Vec<(Vec<Change>, Between)>, key: Key) {
    let mut world = World::with(policy()).await;
    let (mut model, mut log) = (Vec::<Version>::new(), Vec::<Event>::new());
    for (changes, between) in batches {
        for change in &changes {
            let event = to_event(log.len() as i64, change);
            apply(&mut model, &event);
            log.push(event);
        }
        let batch = timed(key.batch(&log[world.from..]));
        let report = world.lake.as_mut().unwrap().commit(&batch).await.unwrap();
        assert!(report.stopped.is_empty(), "{:?}", report.stopped);
        world.from = log.len();
        if let Between::ForeignDelete(id) = between {
            model.retain(|version| version.id != id);
        }
        // Rows that another writer appends are no versions.
        let present = matches!(between, Between::ForeignAppend(_));
        world.step(between, key, present).await;
        assert_eq!(world.fixture.query(ROWS, At::Latest).await, shown(&model), "after {between:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn the_table_has_every_version_once_after_every_batch(
        batches in prop::collection::vec((prop::collection::vec(change_or_truncate(), 1..20), between()), 1..10),
        key in prop_oneof![Just(Key::Id), Just(Key::Composite)],
    ) {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_all().build().unwrap().block_on(run(batches, key));
    }
}
