//! Rows that a mirror's table does not take: exactly they go into its quarantine, and everything else is applied.

use std::sync::Arc;

use alluvium::change::quarantine::{Limits, Original, Originals, Payload};
use alluvium::change::{Batch, CommitReport, Sink, SinkError, TopicPartition};
use alluvium::mirror::{Mirror, MirrorOptions};
use tokio_postgres::Client;

use super::mirror_changes::{Item, batch, item_changes, put, put_without_note, raw_rows};
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
