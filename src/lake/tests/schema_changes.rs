//! Schema changes that a table follows by itself or refuses: files under another type, columns that go and return, the record.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, StringArray};

use super::fixture::{Cell, Event, Fixture, batch_of, column, event, table};
use crate::change::{
    Batch, ColumnType, Operation, Policies, Resolve, SchemaChange, Sink, TablePolicy, TableSchema, WriteMode,
    resolve,
};
use crate::lake::action::Entry;
use crate::lake::read::At;
use crate::lake::{Lake, LakeOptions, LakeSchemas};

use ColumnType::{Float32, Float64, Int16, Int32, Int64, Text, TimestampTz};
use Operation::{Create, Delete, Update};

/// Rows of `things`, a column each, from `offset` on; the event at offset n was committed in the source at second n.
fn rows(offset: i64, operation: Operation, columns: Vec<(&str, ColumnType, ArrayRef)>) -> Batch {
    let schema = columns.iter().map(|(name, column_type, _)| column(name, column_type.clone())).collect();
    let schema = Arc::new(TableSchema::new(schema, vec![0]));
    let count = columns.first().map_or(0, |(.., cells)| cells.len()) as i64;
    let events: Vec<Event> =
        (offset..offset + count).map(|at| event(at, operation, 0, "", Cell::Null)).collect();
    let absent = vec![None; columns.len()];
    let cells = columns.into_iter().map(|(.., cells)| cells).collect();
    let mut batch = batch_of("things", &schema, cells, absent, &events);
    batch.changes[0].source_micros = (offset..offset + count).map(|at| (at + 1) * 1_000_000).collect();
    batch
}

/// Puts the changes of the second batch behind those of the first, in the same partition.
fn then(mut one: Batch, other: Batch) -> Batch {
    one.changes.extend(other.changes);
    for (partition, span) in other.spans {
        one.spans.entry(partition).and_modify(|mine| mine.next = span.next).or_insert(span);
    }
    one.raw = None;
    one
}

fn ints(values: &[i32]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn longs(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn options(fixture: &Fixture, policy: TablePolicy) -> LakeOptions {
    LakeOptions { policies: Policies { defaults: policy, ..Policies::default() }, ..fixture.options() }
}

async fn open(fixture: &Fixture, policy: TablePolicy) -> Lake {
    let mut lake = Lake::open(options(fixture, policy)).await.unwrap();
    lake.load().await.unwrap();
    lake
}

/// Commits a batch that no table refuses.
pub(super) async fn commit(lake: &mut Lake, batch: &Batch) -> Vec<&'static str> {
    let mut report = lake.commit(batch).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    report.tables.remove("public.things").map(|table| table.schema_changes).unwrap_or_default()
}

/// Commits a batch that the table refuses, and says why.
pub(super) async fn refused(lake: &mut Lake, batch: &Batch) -> String {
    let report = lake.commit(batch).await.unwrap();
    report.stopped.get(&table("things")).expect("the table did not stop").clone()
}

pub(super) const THINGS: &str =
    "SELECT * EXCEPT (__cdc_operation, __cdc_timestamp, __synced_at) FROM things ORDER BY id";
pub(super) const RECORD: &str = "SELECT kind, column_name, type_before, type_after, outcome, topic, partition, \"offset\" FROM schema_changes \
                      ORDER BY recorded_at, \"offset\", kind, column_name";

pub(super) fn narrow(offset: i64, operation: Operation, ids: &[i32], values: &[i32]) -> Batch {
    rows(offset, operation, vec![("id", Int32, ints(ids)), ("n", Int32, ints(values))])
}

pub(super) fn wide(offset: i64, operation: Operation, ids: &[i32], values: &[i64]) -> Batch {
    rows(offset, operation, vec![("id", Int32, ints(ids)), ("n", Int64, longs(values))])
}

fn both_modes() -> [TablePolicy; 2] {
    [WriteMode::MergeOnRead, WriteMode::CopyOnWrite]
        .map(|write| TablePolicy { write, ..TablePolicy::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_type_rewrites_the_files_in_one_commit_and_older_versions_stay() {
    for policy in both_modes() {
        let fixture = Fixture::new();
        let mut lake = open(&fixture, policy.clone()).await;
        commit(&mut lake, &narrow(0, Create, &[1, 2, 3], &[10, 20, 30])).await;
        commit(&mut lake, &narrow(3, Create, &[4, 5], &[40, 50])).await;
        // Vectors on both files.
        commit(&mut lake, &narrow(5, Update, &[1, 4], &[11, 41])).await;
        commit(&mut lake, &narrow(7, Delete, &[2], &[0])).await;
        let before = fixture.version("things").await;
        let id = lake.tables[&table("things")].table.state.metadata().id.clone();
        assert_eq!(commit(&mut lake, &wide(8, Update, &[5], &[5_000_000_000])).await, ["widen"]);
        assert_eq!(fixture.version("things").await, before + 2, "one commit for the type, one for the rows");
        assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 11", "3 30", "4 41", "5 5000000000"]);
        let typed = "SELECT arrow_typeof(n) FROM things LIMIT 1";
        assert_eq!(fixture.query(typed, At::Latest).await, ["Int64"]);
        assert_eq!(fixture.query(typed, At::Version(before)).await, ["Int32"]);
        assert_eq!(fixture.query(THINGS, At::Version(before)).await, ["1 11", "3 30", "4 41", "5 50"]);
        let state = &lake.tables[&table("things")].table.state;
        assert_eq!((&state.metadata().id, state.rows()), (&id, Some(4)), "{policy:?}");
        // Rows that were rewritten are found by their keys, also by an index that is opened again.
        commit(&mut lake, &wide(9, Update, &[1, 3], &[12, 32])).await;
        let mut lake = open(&fixture, policy).await;
        commit(&mut lake, &wide(11, Delete, &[3, 4], &[0, 0])).await;
        assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 12", "5 5000000000"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_key_is_followed_by_the_index() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    commit(&mut lake, &narrow(0, Create, &[1, 2, 3], &[10, 20, 30])).await;
    commit(&mut lake, &narrow(3, Update, &[2], &[21])).await;
    let wide = |offset, operation, ids: &[i64], values: &[i32]| {
        rows(offset, operation, vec![("id", Int64, longs(ids)), ("n", Int32, ints(values))])
    };
    commit(&mut lake, &wide(4, Update, &[2, 5_000_000_000], &[22, 50])).await;
    // An old event, of a connector that was restarted, and the newer one again.
    commit(&mut lake, &narrow(6, Update, &[2], &[21])).await;
    commit(&mut lake, &wide(7, Update, &[2, 5_000_000_000], &[22, 50])).await;
    commit(&mut lake, &wide(9, Delete, &[1], &[0])).await;
    assert_eq!(fixture.query(THINGS, At::Latest).await, ["2 22", "3 30", "5000000000 50"]);
    let text = |offset, ids: &[&str]| rows(offset, Update, vec![("id", Text, texts(ids))]);
    commit(&mut lake, &text(10, &["3", "x"])).await;
    assert_eq!(fixture.query(THINGS, At::Latest).await, ["2 22", "3 -", "5000000000 50", "x -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_schema_within_a_batch_take_rows_that_came_before_along() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let single = |offset, id, value: f32| {
        let cells: ArrayRef = Arc::new(Float32Array::from(vec![value]));
        rows(offset, Create, vec![("id", Int32, ints(&[id])), ("x", Float32, cells)])
    };
    let double = |offset, id, value: f64| {
        let cells: ArrayRef = Arc::new(Float64Array::from(vec![value]));
        rows(offset, Create, vec![("id", Int32, ints(&[id])), ("x", Float64, cells)])
    };
    let text = |offset, id, value: &str| {
        rows(offset, Create, vec![("id", Int32, ints(&[id])), ("x", Text, texts(&[value]))])
    };
    commit(&mut lake, &single(0, 1, 0.1)).await;
    let within = then(then(single(1, 2, 0.1), double(2, 3, 0.1)), then(text(3, 4, "x"), single(4, 5, 0.5)));
    assert_eq!(commit(&mut lake, &within).await, ["widen", "widen"]);
    // As Postgres made it of the rows that it had: a real became a double, and that a text.
    let expected = ["1 0.10000000149011612", "2 0.10000000149011612", "3 0.1", "4 x", "5 0.5"];
    assert_eq!(fixture.query(THINGS, At::Latest).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_gone_is_null_in_new_rows_and_one_that_returns_is_another() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    commit(&mut lake, &narrow(0, Create, &[1, 2], &[10, 20])).await;
    let without = |offset, operation, ids: &[i32]| rows(offset, operation, vec![("id", Int32, ints(ids))]);
    assert_eq!(commit(&mut lake, &without(2, Update, &[2])).await, ["drop"]);
    assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 10", "2 -"]);
    assert_eq!(commit(&mut lake, &without(3, Update, &[2])).await, [""; 0], "said once");
    let again = rows(4, Update, vec![("id", Int32, ints(&[2])), ("n", Text, texts(&["new"]))]);
    assert_eq!(commit(&mut lake, &again).await, ["add"]);
    let sql = "SELECT id, n, n__old FROM things ORDER BY id";
    assert_eq!(fixture.query(sql, At::Latest).await, ["1 - 10", "2 new -"]);
    let record = fixture.query(RECORD, At::Latest).await;
    let expected =
        ["drop n int32 - applied cdc.public.things 0 2", "add n - text applied cdc.public.things 0 4"];
    assert_eq!(record, expected);
}

/// The batch with its schema as a schema block has it: the key is never null.
fn told(mut batch: Batch) -> Batch {
    let changes = &mut batch.changes[0];
    let mut columns = changes.schema.columns().to_vec();
    columns[0].nullable = false;
    changes.schema = Arc::new(TableSchema::new(columns, vec![0]));
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_returns_with_its_type_and_place_is_another_one_and_old_events_are_told_from_it() {
    for policy in both_modes() {
        let fixture = Fixture::new();
        let mut lake = open(&fixture, policy).await;
        let with =
            |offset, operation, ids: &[i32], values: &[i32]| told(narrow(offset, operation, ids, values));
        let without = |offset, ids: &[i32]| told(rows(offset, Update, vec![("id", Int32, ints(ids))]));
        commit(&mut lake, &with(0, Create, &[1, 2, 3], &[10, 20, 30])).await;
        assert_eq!(commit(&mut lake, &without(3, &[2])).await, ["drop"]);
        assert_eq!(commit(&mut lake, &with(4, Update, &[3], &[31])).await, ["add"]);
        let sql = "SELECT id, n, n__old FROM things ORDER BY id";
        let expected = ["1 - 10", "2 - -", "3 31 -"];
        assert_eq!(fixture.query(sql, At::Latest).await, expected);
        // The connector was restarted, and sends the last two again.
        let again = [(5, without(3, &[2])), (6, with(4, Update, &[3], &[31]))];
        for (offset, mut batch) in again {
            batch.changes[0].offsets = vec![offset];
            batch.spans.values_mut().for_each(|span| (span.first, span.next) = (offset, offset + 1));
            batch.raw = None;
            assert_eq!(commit(&mut lake, &batch).await, [""; 0], "of offset {offset}");
        }
        assert_eq!(fixture.query(sql, At::Latest).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_recorded_once_through_restarts_and_lost_copies() {
    let fixture = Fixture::new();
    let mut unrecorded =
        Lake::open(LakeOptions { schema_changes_table: String::new(), ..fixture.options() }).await.unwrap();
    unrecorded.load().await.unwrap();
    commit(&mut unrecorded, &narrow(0, Create, &[1], &[10])).await;
    // As if the process had died between the commit of the table and that of the record, twice.
    commit(&mut unrecorded, &wide(1, Update, &[1], &[11])).await;
    commit(&mut unrecorded, &rows(2, Update, vec![("id", Int32, ints(&[1])), ("n", Text, texts(&["t"]))]))
        .await;
    let mut lake = fixture.open().await;
    let more = || rows(3, Update, vec![("id", Int32, ints(&[1])), ("n", Text, texts(&["u"]))]);
    commit(&mut lake, &more()).await;
    for _ in 0..2 {
        commit(&mut fixture.open().await, &more()).await;
    }
    let expected = [
        "widen n int32 int64 applied cdc.public.things 0 1",
        "widen n int64 text applied cdc.public.things 0 2",
    ];
    assert_eq!(fixture.query(RECORD, At::Latest).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn halt_stops_at_every_change_and_ignore_leaves_the_columns_as_they_are() {
    let policy = |schema_change| TablePolicy { schema_change, ..TablePolicy::default() };
    let more = |offset, n: ArrayRef, kind| {
        rows(offset, Create, vec![("id", Int32, ints(&[2])), ("n", kind, n), ("more", Text, texts(&["m"]))])
    };
    let fixture = Fixture::new();
    let mut halting = open(&fixture, policy(SchemaChange::Halt)).await;
    commit(&mut halting, &narrow(0, Create, &[1], &[10])).await;
    let reason = refused(&mut halting, &more(1, ints(&[20]), Int32)).await;
    assert!(reason.contains("column more (text) is new"), "{reason}");
    // The settings are changed, and the program started again.
    let mut evolving = open(&fixture, policy(SchemaChange::Evolve)).await;
    commit(&mut evolving, &more(1, ints(&[20]), Int32)).await;
    assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 10 -", "2 20 m"]);
    assert!(LakeSchemas::open(&fixture.options()).unwrap().waiting(None).await.unwrap().is_empty());

    let fixture = Fixture::new();
    let mut ignoring = open(&fixture, policy(SchemaChange::Ignore)).await;
    commit(&mut ignoring, &narrow(0, Create, &[1], &[10])).await;
    assert_eq!(commit(&mut ignoring, &more(1, longs(&[20]), Int64)).await, ["widen", "add"]);
    commit(&mut ignoring, &rows(2, Create, vec![("id", Int32, ints(&[3]))])).await;
    assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 10", "2 20", "3 -"]);
    let outcomes = fixture.query("SELECT DISTINCT outcome FROM schema_changes", At::Latest).await;
    assert_eq!(outcomes, ["ignored"]);
    let reason = refused(&mut ignoring, &more(3, longs(&[1 << 40]), Int64)).await;
    assert!(reason.contains("column n cannot hold the value of record cdc.public.things/0@3"), "{reason}");
    let mut ignoring = open(&fixture, policy(SchemaChange::Ignore)).await;
    let time: ArrayRef =
        Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC"));
    let reason = refused(&mut ignoring, &more(3, time, TimestampTz)).await;
    assert!(reason.contains("column n was int32 and is timestamptz"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_of_another_partition_fit_a_table_that_began_with_the_newest() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    commit(&mut lake, &wide(100, Create, &[1], &[5_000_000_000])).await;
    let small: ArrayRef = Arc::new(Int16Array::from(vec![7]));
    let mut old =
        rows(0, Create, vec![("id", Int32, ints(&[2])), ("n", Int16, small), ("gone", Text, texts(&["g"]))]);
    let (partition, span) = old.spans.pop_first().unwrap();
    let other = crate::change::TopicPartition::new(Arc::clone(&partition.topic), 1);
    old.partitions = vec![other.clone()];
    old.spans.insert(other, span);
    old.raw = None;
    assert_eq!(commit(&mut lake, &old).await, ["add"], "a narrower type of before is nothing new");
    assert_eq!(
        fixture.query("SELECT id, n, gone FROM things ORDER BY id", At::Latest).await,
        ["1 5000000000 -", "2 7 g"]
    );
    assert_eq!(commit(&mut lake, &wide(101, Update, &[2], &[8])).await, [""; 0]);
    assert_eq!(
        fixture.query("SELECT id, n, gone FROM things ORDER BY id", At::Latest).await,
        ["1 5000000000 -", "2 8 -"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_resolves_what_other_writers_committed_meanwhile() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    commit(&mut lake, &narrow(0, Create, &[1, 2, 3], &[10, 20, 30])).await;
    refused(
        &mut lake,
        &rows(3, Create, vec![("id", Int32, ints(&[4])), ("n", Int16, Arc::new(Int16Array::from(vec![40])))]),
    )
    .await;
    let schemas = LakeSchemas::open(&fixture.options()).unwrap();
    let waiting = schemas.waiting(None).await.unwrap().pop().unwrap();
    let resolution = resolve(&waiting.stored, &waiting.lineage, &waiting.pending, Resolve::Text).unwrap();
    // Another partition goes on: rows that come, and one that goes from the file that was read.
    let mut owner = fixture.open().await;
    let moved = |mut batch: Batch| {
        let (partition, span) = batch.spans.pop_first().unwrap();
        let other = crate::change::TopicPartition::new(Arc::clone(&partition.topic), 1);
        batch.partitions = vec![other.clone()];
        batch.spans.insert(other, span);
        batch.raw = None;
        batch
    };
    commit(&mut owner, &moved(narrow(0, Update, &[2], &[21]))).await;
    commit(&mut owner, &moved(narrow(1, Create, &[5], &[50]))).await;
    let foreign = Entry::new("OPTIMIZE", "somebody else", 0).into_bytes();
    let state = &owner.tables[&table("things")].table;
    state.log.commit(state.state.next_version(), foreign).await.unwrap();
    schemas.apply(waiting, &resolution).await.unwrap();
    assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 10", "2 21", "3 30", "5 50"]);
    let mut lake = fixture.open().await;
    let text =
        rows(3, Update, vec![("id", Int32, ints(&[2])), ("n", Int16, Arc::new(Int16Array::from(vec![22])))]);
    commit(&mut lake, &text).await;
    assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 10", "2 22", "3 30", "5 50"]);
}
