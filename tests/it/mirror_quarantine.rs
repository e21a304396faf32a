//! Rows that a mirror's table does not take: exactly they go into its quarantine, and everything else is applied.

use std::sync::Arc;

use alluvium::change::quarantine::{Limits, Original, Originals, Payload, QuarantineEvent, QuarantineRow};
use alluvium::change::{
    Batch, ColumnType, CommitReport, Operation, Sink, SinkError, TablePolicy, TopicPartition, Truncate,
    TruncateReach,
};
use alluvium::mirror::{Mirror, MirrorOptions, MirrorQuarantine};
use arrow::array::{ArrayRef, Int32Array, StringArray};
use futures::future::join_all;
use tokio_postgres::Client;

use super::mirror_changes::{
    Item, batch, changes, gone, item_changes, put, put_without_note, raw_rows, schema,
};
use super::postgres_server::Database;

/// Every record of a batch, as a lane would keep it.
struct Kept;

fn value_at(offset: i64) -> Vec<u8> {
    format!("value {offset}\u{0}").into_bytes()
}

impl Originals for Kept {
    fn find(&self, _: &TopicPartition, offset: i64) -> Option<Original> {
        let payload = Payload {
            timestamp_ms: 1_700_000_000_123,
            key: Some(format!("key {offset}").into_bytes()),
            value: Some(value_at(offset)),
            headers: vec![("h".to_owned(), None)],
        };
        Some(Original { payload, row_key: Some(format!("{{\"at\":{offset}}}")) })
    }
}

/// A database with a table that takes names of at most 6 letters, but not `bad`.
async fn picky() -> (Database, Client) {
    let database = Database::create().await;
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE public.items (id integer PRIMARY KEY, name varchar(6) CHECK (name <> 'bad'), note text,
             __cdc_operation text, __cdc_timestamp timestamptz, __synced_at timestamptz)",
        )
        .await
        .unwrap();
    (database, client)
}

async fn mirror(database: &Database, quarantine: Limits) -> Mirror {
    let options = MirrorOptions { quarantine, ..MirrorOptions::new("target", "shop", &database.url()) };
    let mut mirror = Mirror::new(&options).unwrap();
    mirror.load().await.unwrap();
    mirror
}

fn items(first: i64, rows: &[Item<'_>]) -> Batch {
    let next = first + rows.len() as i64;
    let mut batch = batch(vec![("t.items", first, next, vec![item_changes("items", first, rows)])]);
    batch.originals = Some(Arc::new(Kept));
    batch
}

/// Offset and code of each refused change.
fn refused(report: &CommitReport) -> Vec<(i64, &'static str)> {
    let mut refused: Vec<_> =
        report.refused.iter().map(|refused| (refused.place.offset, refused.kind.code())).collect();
    refused.sort_unstable();
    refused
}

async fn texts(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn exactly_the_rows_that_a_table_refuses_are_kept_as_they_came() {
    let (database, client) = picky().await;
    let mut mirror = mirror(&database, Limits::default()).await;
    let names: Vec<&str> = (0..500)
        .map(|id| match id {
            17 | 333 | 334 => "bad",
            100 => "too long a name",
            499 => "n\u{0}l",
            _ => "good",
        })
        .collect();
    let rows: Vec<Item<'_>> = (0..500).map(|id| put(id, names[id as usize], "x")).collect();
    let report = mirror.commit(&items(0, &rows)).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    let expected = [
        (17, "constraint_violated"),
        (100, "value_refused"),
        (333, "constraint_violated"),
        (334, "constraint_violated"),
        (499, "value_refused"),
    ];
    assert_eq!(refused(&report), expected);
    assert_eq!(report.tables["public.items"].upserted, 495);
    assert_eq!(texts(&client, "SELECT count(*)::text FROM items WHERE name = 'good'").await, ["495"]);
    let sql = "SELECT concat_ws(' ', id, code, event) FROM alluvium.quarantine ORDER BY \"offset\"";
    let kept: Vec<String> = expected
        .iter()
        .map(|(offset, code)| format!("target/t.items/0@{offset} {code} quarantined"))
        .collect();
    assert_eq!(texts(&client, sql).await, kept);
    let row =
        client.query_one("SELECT value, headers FROM alluvium.quarantine WHERE \"offset\" = 17", &[]).await;
    let row = row.unwrap();
    assert_eq!(
        (row.get::<_, Vec<u8>>(0), row.get::<_, String>(1)),
        (value_at(17), "[[\"h\",null]]".to_owned())
    );
    let ledger = mirror.quarantine().await.unwrap();
    assert_eq!(ledger.open().values().sum::<u64>(), 5);
    let places: Vec<_> = ledger.records().map(|(place, _)| place.clone()).collect();
    let records = mirror.quarantined(&places).await.unwrap();
    assert!(records.iter().all(|record| record.payload.as_ref().unwrap().timestamp_ms == 1_700_000_000_123));
}

#[tokio::test]
async fn of_several_changes_of_a_key_only_those_to_blame_are_refused() {
    let (database, client) = picky().await;
    let mut mirror = mirror(&database, Limits::default()).await;
    let rows = [
        put(1, "a", "first"),
        put(2, "bad", "first"),
        put(1, "bad", "second"),
        put_without_note(1, "third"),
        put(2, "b", "second"),
        put(3, "c", "first"),
        put(1, "toolong", "fourth"),
    ];
    let report = mirror.commit(&items(10, &rows)).await.unwrap();
    // Key 2 ends well, so that its folded row is taken, and nothing is refused of it.
    let expected = [(12, "constraint_violated"), (13, "base_quarantined"), (16, "value_refused")];
    assert_eq!(refused(&report), expected);
    let sql = "SELECT concat_ws(' ', id, name, note) FROM items ORDER BY id";
    assert_eq!(texts(&client, sql).await, ["1 a first", "2 b second", "3 c first"]);
}

/// Changes of `items` without key: the offset of each with its whole row.
fn keyless(rows: &[(i64, Operation, i32, &str)]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| Some(row.3)).collect::<StringArray>()),
    ];
    let schema = schema(0, &[("id", ColumnType::Int32), ("name", ColumnType::Text)]);
    let operations: Vec<Operation> = rows.iter().map(|row| row.1).collect();
    let mut changes = changes("items", &schema, 0, &operations, columns);
    changes.offsets = rows.iter().map(|row| row.0).collect();
    let next = rows.last().unwrap().0 + 1;
    let mut batch = batch(vec![("t.items", rows[0].0, next, vec![changes])]);
    batch.originals = Some(Arc::new(Kept));
    batch
}

#[tokio::test]
async fn exactly_the_records_that_a_table_without_key_refuses_are_kept() {
    use Operation::{Create, Delete, Update};
    let database = Database::create().await;
    let client = database.connect().await;
    let ddl =
        "CREATE TABLE public.items (id integer, name varchar(6) CHECK (name <> 'bad'), __cdc_operation text,
               __cdc_timestamp timestamptz, __synced_at timestamptz)";
    client.batch_execute(ddl).await.unwrap();
    let mut mirror = mirror(&database, Limits::default()).await;
    let rows = [
        (0, Create, 1, "a"),
        (1, Create, 1, "a"),
        (2, Create, 2, "bad"),
        (3, Delete, 1, "a"),
        (4, Create, 3, "c"),
        // An update is the row before and the row after: refused, it leaves the former.
        (5, Delete, 3, "c"),
        (5, Update, 3, "too long a name"),
        (6, Create, 4, "n\u{0}l"),
        (7, Create, 5, "e"),
        (8, Delete, 2, "bad"),
    ];
    let report = mirror.commit(&keyless(&rows)).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    let expected = [(2, "constraint_violated"), (5, "value_refused"), (6, "value_refused")];
    assert_eq!(refused(&report), expected);
    let sql = "SELECT concat_ws(' ', id, name) FROM items ORDER BY id, name";
    assert_eq!(texts(&client, sql).await, ["1 a", "3 c", "5 e"]);
    assert_eq!(report.tables["public.items"].unknown_deletes, 1, "the delete of a row that was refused");
    // The table goes on.
    let report = mirror.commit(&keyless(&[(9, Create, 6, "f"), (10, Delete, 5, "e")])).await.unwrap();
    assert_eq!((refused(&report), report.stopped.len()), (vec![], 0));
    assert_eq!(texts(&client, sql).await, ["1 a", "3 c", "6 f"]);
}

#[tokio::test]
async fn rows_that_are_refused_in_a_batch_with_a_truncate_are_kept_and_what_it_takes_is_not() {
    let (database, client) = picky().await;
    let mut mirror = mirror(&database, Limits::default()).await;
    mirror.commit(&items(0, &[put(9, "old", "x")])).await.unwrap();
    let rows = [
        put(1, "bad", "taken away"),
        (Operation::Truncate, 0, None, Ok(None)),
        put(2, "b", "first"),
        put(3, "c", "x"),
        put_without_note(3, "bad"),
        put_without_note(2, "d"),
        gone(9),
        put(4, "toolong", "x"),
    ];
    let mut emptied = items(1, &rows);
    emptied.changes[0].truncates = vec![Truncate { row: 1, reach: TruncateReach::Everything }];
    let report = mirror.commit(&emptied).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    assert_eq!(refused(&report), [(5, "constraint_violated"), (8, "value_refused")]);
    assert!(report.tables["public.items"].truncated);
    let sql = "SELECT concat_ws(' ', id, name, note) FROM items ORDER BY id";
    assert_eq!(texts(&client, sql).await, ["2 d first", "3 c x"]);
}

#[tokio::test]
async fn what_one_source_table_misses_neither_holds_back_another_one_nor_is_settled_by_it() {
    let (database, client) = picky().await;
    let mut options = MirrorOptions::new("target", "shop", &database.url());
    options.policies.defaults = TablePolicy { several_sources: true, ..TablePolicy::default() };
    let mut mirror = Mirror::new(&options).unwrap();
    mirror.load().await.unwrap();
    let from = |topic: &str, first: i64, lsn: i64, rows: &[Item<'_>]| {
        let mut changes = item_changes("items", first, rows);
        changes.lsns = (lsn..).take(rows.len()).collect();
        let mut batch = batch(vec![(topic, first, first + rows.len() as i64, vec![changes])]);
        batch.originals = Some(Arc::new(Kept));
        batch
    };
    let report = mirror.commit(&from("t.north", 0, 10, &[put(1, "bad", "x")])).await.unwrap();
    assert_eq!(refused(&report), [(0, "constraint_violated")]);
    let there = from("t.south", 0, 20, &[put(1, "s", "y"), put_without_note(1, "s2")]);
    let report = mirror.commit(&there).await.unwrap();
    assert_eq!((refused(&report), report.superseded), (vec![], vec![]));
    let sql = "SELECT concat_ws(' ', id, name, note) FROM items ORDER BY id";
    assert_eq!(texts(&client, sql).await, ["1 s2 y"]);
    let report = mirror.commit(&from("t.north", 1, 30, &[put_without_note(1, "n")])).await.unwrap();
    assert_eq!(refused(&report), [(1, "base_quarantined")]);
}

#[tokio::test]
async fn requests_that_come_at_once_have_numbers_of_their_own() {
    let (database, _client) = picky().await;
    let mut mirror = mirror(&database, Limits::default()).await;
    let rows: Vec<Item<'_>> = (0..8).map(|id| put(id, "bad", "x")).collect();
    mirror.commit(&items(0, &rows)).await.unwrap();
    let options = MirrorOptions::new("target", "shop", &database.url());
    let ask = async |number: usize| {
        let mut command = MirrorQuarantine::open(&options).await.unwrap();
        let ledger = command.look().await.unwrap();
        let place = ledger.records().nth(number).unwrap().0.clone();
        let request = QuarantineRow::new(QuarantineEvent::ReplayRequested, 1, "target", place);
        assert_eq!(command.request(std::slice::from_ref(&request)).await.unwrap(), 1);
        assert_eq!(command.request(&[request]).await.unwrap(), 0, "it is asked for already");
    };
    join_all((0..8).map(ask)).await;
    let ledger = mirror.quarantine().await.unwrap();
    let numbers: Vec<i64> = ledger.pending().iter().map(|pending| pending.number).collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restart_gives_no_new_allowance_until_somebody_has_decided() {
    let (database, client) = picky().await;
    let limits = Limits { max_records: 5, max_percent: 100 };
    let bad =
        |ids: std::ops::Range<i32>| -> Vec<Item<'static>> { ids.map(|id| put(id, "bad", "x")).collect() };
    mirror(&database, limits).await.commit(&items(0, &bad(0..4))).await.unwrap();
    let mut again = mirror(&database, limits).await;
    again.quarantine().await.unwrap();
    let Err(SinkError::Stop { message }) = again.commit(&items(4, &bad(4..6))).await else {
        panic!("goes on")
    };
    assert!(message.contains("quarantine.max_records"), "{message}");
    let discard = "INSERT INTO alluvium.quarantine SELECT pipeline, id, 'discarded', \"at\", lane, topic, partition, \"offset\",
                   cluster_id, topic_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false FROM alluvium.quarantine";
    client.batch_execute(discard).await.unwrap();
    let mut decided = mirror(&database, limits).await;
    decided.quarantine().await.unwrap();
    let report = decided.commit(&items(4, &bad(4..6))).await.unwrap();
    assert_eq!(report.refused.len(), 2);
}

#[tokio::test]
async fn a_batch_that_was_decoded_before_a_row_was_refused_does_not_build_on_it() {
    let (database, client) = picky().await;
    let mut mirror = mirror(&database, Limits::default()).await;
    let report =
        mirror.commit(&items(0, &[put(1, "bad", "x"), put(2, "bad", "x"), put(3, "c", "x")])).await.unwrap();
    assert_eq!(refused(&report), [(0, "constraint_violated"), (1, "constraint_violated")]);
    let report = mirror.commit(&items(3, &[put_without_note(1, "a"), put(2, "b", "y")])).await.unwrap();
    assert_eq!(refused(&report), [(3, "base_quarantined")]);
    assert_eq!(report.superseded.iter().map(|place| place.offset).collect::<Vec<_>>(), [1]);
    let sql = "SELECT concat_ws(' ', id, name, note) FROM items ORDER BY id";
    assert_eq!(texts(&client, sql).await, ["2 b y", "3 c x"]);
    let ledger = mirror.quarantine().await.unwrap();
    let states: Vec<_> =
        ledger.records().map(|(place, record)| (place.offset, record.state.word())).collect();
    assert_eq!(states, [(0, "open"), (1, "superseded"), (3, "open")]);
}

#[tokio::test]
async fn a_table_that_refuses_everything_stops_the_lane_at_the_limit() {
    let (database, client) = picky().await;
    let mut mirror = mirror(&database, Limits { max_records: 5, max_percent: 100 }).await;
    let rows: Vec<Item<'_>> = (0..50).map(|id| put(id, "bad", "x")).collect();
    let Err(SinkError::Stop { message }) = mirror.commit(&items(0, &rows)).await else { panic!("goes on") };
    assert!(message.contains("quarantine.max_records") && message.contains("public.items"), "{message}");
    let sql = "SELECT count(*)::text FROM alluvium.progress UNION ALL SELECT count(*)::text FROM alluvium.quarantine";
    assert_eq!(texts(&client, sql).await, ["0", "0"]);
}

#[tokio::test]
async fn what_is_refused_again_in_a_replay_is_told_and_not_kept_twice() {
    let (database, client) = picky().await;
    let mut mirror = mirror(&database, Limits::default()).await;
    let mut replay = items(0, &[put(1, "bad", "x"), put(2, "b", "x")]);
    (replay.replay, replay.originals) = (true, None);
    let report = mirror.commit(&replay).await.unwrap();
    assert_eq!((refused(&report), report.stopped.len()), (vec![(0, "constraint_violated")], 0));
    assert_eq!(texts(&client, "SELECT count(*)::text FROM alluvium.quarantine").await, ["0"]);
    assert_eq!(texts(&client, "SELECT id::text FROM items").await, ["2"]);
}

#[tokio::test]
async fn a_raw_table_that_refuses_a_row_stops_the_mirror_with_what_to_do_and_it_goes_on_afterwards() {
    let checked = (
        "ALTER TABLE raw.events ADD CONSTRAINT narrow CHECK (\"offset\" <> 1)",
        "ALTER TABLE raw.events DROP CONSTRAINT narrow",
    );
    let at_the_end = (
        "CREATE FUNCTION raw.refuse() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE check_violation USING MESSAGE = 'narrow', SCHEMA = 'raw', TABLE = 'events'; END $$;
         CREATE CONSTRAINT TRIGGER narrow AFTER INSERT ON raw.events DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION raw.refuse();
         ALTER TABLE raw.events ENABLE ALWAYS TRIGGER narrow",
        "DROP TRIGGER narrow ON raw.events",
    );
    for (refuse, cure) in [checked, at_the_end] {
        let database = Database::create().await;
        let client = database.connect().await;
        let table = "CREATE SCHEMA raw; CREATE TABLE raw.events (\"offset\" bigint, key jsonb)";
        client.batch_execute(table).await.unwrap();
        client.batch_execute(refuse).await.unwrap();
        let mut options = MirrorOptions::new("datalake", "shop", &database.url());
        options.raw = Some("raw.events".to_owned());
        let mut events = items(0, &[put(1, "a", "x"), put(2, "b", "x")]);
        events.raw = Some(raw_rows("t.items", 0, 2));
        let mut mirror = Mirror::new(&options).unwrap();
        mirror.load().await.unwrap();
        let error = mirror.commit(&events).await.unwrap_err();
        let SinkError::Stop { message } = error else { panic!("{error:?}") };
        for part in ["raw table raw.events", "narrow", "start again"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(texts(&client, "SELECT count(*)::text FROM raw.events").await, ["0"]);
        client.batch_execute(cure).await.unwrap();
        let mut mirror = Mirror::new(&options).unwrap();
        mirror.load().await.unwrap();
        mirror.commit(&events).await.unwrap();
        assert_eq!(texts(&client, "SELECT \"offset\"::text FROM raw.events ORDER BY 1").await, ["0", "1"]);
        assert_eq!(texts(&client, "SELECT count(*)::text FROM items").await, ["2"]);
    }
}
