//! The Postgres mirror against a real Postgres: what it writes and what it refuses.

use std::sync::Arc;

use alluvium::change::{Batch, ColumnType, Operation, Sink, TableId, TopicPartition};
use alluvium::mirror::{Mirror, MirrorOptions};
use arrow::array::{ArrayRef, Int32Array, StringArray};
use tokio_postgres::Client;

use super::mirror_changes::{
    Item, batch, changes, gone, item_changes, items, put, put_without_note, raw_rows, schema,
};
use super::postgres_server::Database;

pub fn mirror_at(url: &str) -> Mirror {
    let options = MirrorOptions { raw: None, ..MirrorOptions::new("target", "shop", url) };
    Mirror::new(&options).unwrap()
}

pub async fn loaded(url: &str) -> Mirror {
    let mut mirror = mirror_at(url);
    mirror.load().await.unwrap();
    mirror
}

/// Commits a batch that no table refuses.
pub async fn commit(mirror: &mut Mirror, batch: &Batch) {
    let report = mirror.commit(batch).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
}

/// Each row of a query as text, columns separated by a bar.
pub async fn rows(client: &Client, columns: &str, rest: &str) -> Vec<String> {
    let sql = format!("SELECT concat_ws('|', {columns}) {rest}");
    client.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

pub async fn item_rows(client: &Client, table: &str) -> Vec<String> {
    let columns = "id, coalesce(name, '-'), coalesce(note, '-'), __cdc_operation";
    rows(client, columns, &format!("FROM public.{table} ORDER BY id")).await
}

pub async fn position(client: &Client, topic: &str) -> Option<i64> {
    let sql = "SELECT next_offset FROM alluvium.progress WHERE topic = $1";
    client.query_opt(sql, &[&topic]).await.unwrap().map(|row| row.get(0))
}

#[tokio::test]
async fn a_batch_is_folded_and_later_batches_update_and_delete() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = loaded(&database.url()).await;
    let first = [put(1, "a", "x"), put(2, "b", "x"), put(1, "a2", "x"), put(3, "c", "x"), gone(2)];
    commit(&mut mirror, &batch(vec![("t.items", 0, 5, vec![item_changes("items", 0, &first)])])).await;
    assert_eq!(item_rows(&client, "items").await, ["1|a2|x|c", "3|c|x|c"]);
    let second = [gone(3), gone(99), put(4, "d", "x"), gone(1), put(1, "again", "y")];
    commit(&mut mirror, &batch(vec![("t.items", 5, 10, vec![item_changes("items", 5, &second)])])).await;
    assert_eq!(item_rows(&client, "items").await, ["1|again|y|c", "4|d|x|c"]);
    assert_eq!(position(&client, "t.items").await, Some(10));
    let times = rows(
        &client,
        "__cdc_timestamp = '2024-01-01Z', __synced_at BETWEEN now() - interval '1 minute' AND now()",
        "FROM public.items LIMIT 1",
    )
    .await;
    assert_eq!(times, ["t|t"]);
}

#[tokio::test]
async fn rows_before_the_stored_position_are_skipped() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = loaded(&database.url()).await;
    let part = |rows| vec![("t.items", 0, 2, vec![item_changes("items", 0, rows)])];
    commit(&mut mirror, &batch(part(&[put(1, "a", "x"), put(2, "b", "x")]))).await;
    let mut again = loaded(&database.url()).await;
    let replay = [put(1, "wrong", "x"), put(2, "wrong", "x"), put(3, "c", "x")];
    commit(&mut again, &batch(vec![("t.items", 0, 3, vec![item_changes("items", 0, &replay)])])).await;
    assert_eq!(item_rows(&client, "items").await, ["1|a|x|c", "2|b|x|c", "3|c|x|c"]);
}

#[tokio::test]
async fn an_absent_cell_keeps_the_stored_value() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = loaded(&database.url()).await;
    let long = "long".repeat(10_000);
    let first = [put(1, "a", &long), put(2, "b", "note")];
    commit(&mut mirror, &batch(vec![("t.items", 0, 2, vec![item_changes("items", 0, &first)])])).await;
    let second = [put_without_note(1, "a2"), put(2, "b2", "new"), put_without_note(7, "unknown")];
    let report = mirror
        .commit(&batch(vec![("t.items", 2, 5, vec![item_changes("items", 2, &second)])]))
        .await
        .unwrap();
    assert_eq!(report.tables["public.items"].unresolved_absent, 1);
    let stored =
        rows(&client, "id, name, coalesce(left(note, 4), '-'), length(note)", "FROM items ORDER BY id").await;
    assert_eq!(stored, ["1|a2|long|40000", "2|b2|new|3", "7|unknown|-"]);
}

#[tokio::test]
async fn a_column_that_the_source_adds_is_added() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = loaded(&database.url()).await;
    let wider = schema(
        1,
        &[
            ("id", ColumnType::Int32),
            ("name", ColumnType::Text),
            ("price", ColumnType::Decimal { precision: 10, scale: 2 }),
        ],
    );
    let price = arrow::array::Decimal128Array::from(vec![1250]).with_precision_and_scale(10, 2).unwrap();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int32Array::from(vec![2])), Arc::new(StringArray::from(vec!["b"])), Arc::new(price)];
    let parts = vec![
        item_changes("items", 0, &[put(1, "a", "x"), put(2, "a", "x")]),
        changes("items", &wider, 2, &[Operation::Update], columns),
        item_changes("items", 3, &[put(3, "late", "x")]),
    ];
    commit(&mut mirror, &batch(vec![("t.items", 0, 4, parts)])).await;
    let stored = rows(&client, "id, name, note, price", "FROM items ORDER BY id").await;
    assert_eq!(stored, ["1|a|x", "2|b|12.50", "3|late|x"], "a column that the events lack is null");
}

#[tokio::test]
async fn a_table_made_by_hand_is_used_as_it_is() {
    let database = Database::create().await;
    let client = database.connect().await;
    client
        .batch_execute(
            "CREATE TYPE kind AS ENUM ('small', 'large'); CREATE DOMAIN code AS varchar(8);
             CREATE TABLE items (
                id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name code NOT NULL, note kind,
                owner text NOT NULL DEFAULT 'nobody', loud text GENERATED ALWAYS AS (upper(name)) STORED)",
        )
        .await
        .unwrap();
    let mut mirror = loaded(&database.url()).await;
    let first = [put(7, "a", "small"), put(8, "b", "large")];
    commit(&mut mirror, &batch(vec![("t.items", 0, 2, vec![item_changes("items", 0, &first)])])).await;
    client.batch_execute("UPDATE items SET owner = 'me' WHERE id = 7").await.unwrap();
    let second = [put_without_note(7, "a2")];
    commit(&mut mirror, &batch(vec![("t.items", 2, 3, vec![item_changes("items", 2, &second)])])).await;
    let stored = rows(&client, "id, name, note, owner, loud", "FROM items ORDER BY id").await;
    assert_eq!(stored, ["7|a2|small|me|A2", "8|b|large|nobody|B"]);

    let third = [put(9, "longer than eight", "small")];
    let report =
        mirror.commit(&batch(vec![("t.items", 3, 4, vec![item_changes("items", 3, &third)])])).await.unwrap();
    let reason = &report.stopped[&TableId::new("shop", "public", "items")];
    assert!(reason.contains("22001") && !reason.contains("longer than eight"), "{reason}");
}

#[tokio::test]
async fn a_table_without_a_fitting_key_stops_alone_and_goes_on_once_it_is_altered() {
    let database = Database::create().await;
    let client = database.connect().await;
    client.batch_execute("CREATE TABLE items (id integer, name text, note text)").await.unwrap();
    let mut mirror = loaded(&database.url()).await;
    let both = |from: i64| {
        batch(vec![
            ("t.items", from, from + 1, vec![item_changes("items", from, &[put(1, "a", "x")])]),
            ("t.others", from, from + 1, vec![item_changes("others", from, &[put(from as i32, "o", "x")])]),
        ])
    };
    let report = mirror.commit(&both(0)).await.unwrap();
    let table = TableId::new("shop", "public", "items");
    let help = r#"ALTER TABLE "public"."items" ADD PRIMARY KEY ("id")"#;
    assert!(report.stopped[&table].ends_with(help), "{}", report.stopped[&table]);
    assert_eq!(item_rows(&client, "others").await, ["0|o|x|c"]);
    assert_eq!((position(&client, "t.items").await, position(&client, "t.others").await), (None, Some(1)));
    client.batch_execute(help).await.unwrap();
    assert!(mirror.commit(&both(1)).await.unwrap().stopped.contains_key(&table), "a stop holds until load");
    let progress = mirror.load().await.unwrap();
    assert!(!progress.contains_key(&TopicPartition::new("t.items", 0)));
    commit(&mut mirror, &both(0)).await;
    assert_eq!(item_rows(&client, "items").await, ["1|a|x|c"]);
}

#[tokio::test]
async fn a_row_that_postgres_cannot_hold_stops_its_table_and_every_table_of_its_topic() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut options = MirrorOptions::new("target", "shop", &database.url());
    options.raw = Some("cdc_raw.cdc_events".to_owned());
    let mut mirror = Mirror::new(&options).unwrap();
    mirror.load().await.unwrap();
    let shared = vec![
        item_changes("items", 0, &[put(1, "nul \0", "x")]),
        item_changes("siblings", 1, &[put(1, "s", "x")]),
    ];
    let mut batch = batch(vec![
        ("shared", 0, 2, shared),
        ("t.others", 0, 1, vec![item_changes("others", 0, &[put(1, "o", "x")])]),
    ]);
    let raw = [raw_rows("shared", 0, 2), raw_rows("t.others", 0, 1)];
    batch.raw = Some(arrow::compute::concat_batches(&raw[0].schema(), &raw).unwrap());
    let report = mirror.commit(&batch).await.unwrap();
    let reasons: Vec<(String, &String)> =
        report.stopped.iter().map(|(table, reason)| (table.to_string(), reason)).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert_eq!(reasons[0].1, "column name: Postgres cannot store the character U+0000 in text");
    assert_eq!(reasons[1].1, "its topic shared also feeds a table that has stopped");
    assert_eq!(item_rows(&client, "others").await, ["1|o|x|c"]);
    assert_eq!(rows(&client, "topic", "FROM cdc_raw.cdc_events").await, ["t.others"]);
    assert_eq!(position(&client, "shared").await, None);
}

#[tokio::test]
async fn a_constraint_checked_at_the_end_stops_its_table() {
    let database = Database::create().await;
    let client = database.connect().await;
    // A superuser's session does not check it, as logical replication's does not.
    let ddl = "CREATE ROLE plain LOGIN; GRANT CREATE ON SCHEMA public TO plain;
               DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO plain', current_database()); END $$;
               CREATE TABLE items (id integer PRIMARY KEY, name text UNIQUE DEFERRABLE INITIALLY DEFERRED, note text);
               ALTER TABLE items OWNER TO plain";
    client.batch_execute(ddl).await.unwrap();
    let mut mirror = loaded(&database.url().replace("postgres@", "plain@")).await;
    let swapped = [put(1, "a", "x"), put(2, "b", "x")];
    commit(&mut mirror, &batch(vec![("t.items", 0, 2, vec![item_changes("items", 0, &swapped)])])).await;
    let swapped = [put(1, "b", "x"), put(2, "a", "x")];
    commit(&mut mirror, &batch(vec![("t.items", 2, 4, vec![item_changes("items", 2, &swapped)])])).await;
    let report = mirror
        .commit(&batch(vec![
            ("t.items", 4, 5, vec![item_changes("items", 4, &[put(3, "a", "x")])]),
            ("t.others", 0, 1, vec![item_changes("others", 0, &[put(1, "o", "x")])]),
        ]))
        .await
        .unwrap();
    let reason = &report.stopped[&TableId::new("shop", "public", "items")];
    assert!(reason.contains("23505") && reason.contains("items_name_key"), "{reason}");
    assert_eq!(item_rows(&client, "others").await, ["1|o|x|c"]);
}

/// One offset of the topic of `items`.
pub fn part(from: i64, rows: &[Item<'_>]) -> Batch {
    batch(vec![("t.items", from, from + 1, vec![item_changes("items", from, rows)])])
}

#[tokio::test]
async fn raw_rows_are_appended_once_into_a_table_of_our_own_and_into_one_made_by_hand() {
    for by_hand in [false, true] {
        let database = Database::create().await;
        let client = database.connect().await;
        if by_hand {
            let ddl = "CREATE SCHEMA cdc_raw; CREATE TABLE cdc_raw.cdc_events (id bigserial PRIMARY KEY, topic \
                       varchar(255), \"offset\" numeric, key jsonb, after jsonb)";
            client.batch_execute(ddl).await.unwrap();
        }
        let mut options = MirrorOptions::new("datalake", "shop", &database.url());
        options.raw = Some("cdc_raw.cdc_events".to_owned());
        for span in [(0, 4), (0, 7)] {
            let mut mirror = Mirror::new(&options).unwrap();
            mirror.load().await.unwrap();
            let mut batch = batch(vec![("t.items", span.0, span.1, vec![])]);
            batch.raw = Some(raw_rows("t.items", span.0, span.1));
            commit(&mut mirror, &batch).await;
        }
        let stored = rows(
            &client,
            "\"offset\", absent_columns, after->>'price', ingested_at > '2024-01-02'",
            "FROM cdc_raw.cdc_events ORDER BY 1",
        )
        .await;
        assert_eq!(stored.len(), 7, "{stored:?}");
        assert_eq!(stored[..3], ["0|{note}|1.10|t", "1|{}|1.10|t", "2|1.10|t"], "by hand: {by_hand}");
    }
}

#[tokio::test]
async fn batches_without_rows_do_not_keep_the_database_writing() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = loaded(&database.url()).await;
    commit(&mut mirror, &batch(vec![("heartbeat", 0, 1, vec![])])).await;
    commit(&mut mirror, &batch(vec![("heartbeat", 1, 2, vec![])])).await;
    assert_eq!(position(&client, "heartbeat").await, Some(1));
    let mut with_rows = batch(vec![
        ("heartbeat", 2, 3, vec![]),
        ("t.items", 0, 1, vec![item_changes("items", 0, &[put(1, "a", "x")])]),
    ]);
    with_rows.records = 2;
    commit(&mut mirror, &with_rows).await;
    assert_eq!(position(&client, "heartbeat").await, Some(3));
}

#[tokio::test]
async fn the_schema_is_that_of_the_existing_table() {
    let database = Database::create().await;
    let client = database.connect().await;
    let ddl = "CREATE TABLE things (a text, id bigint, n numeric(10, 2), v varchar(3), i inet, PRIMARY KEY (id, a))";
    client.batch_execute(ddl).await.unwrap();
    let mut mirror = loaded(&database.url()).await;
    let found = (mirror.known_schemas())(&TableId::new("shop", "public", "things")).unwrap();
    let types: Vec<(&str, &ColumnType)> =
        found.columns().iter().map(|column| (column.name.as_ref(), &column.column_type)).collect();
    let expected = [
        ("a", &ColumnType::Text),
        ("id", &ColumnType::Int64),
        ("n", &ColumnType::Decimal { precision: 10, scale: 2 }),
        ("v", &ColumnType::Text),
        ("i", &ColumnType::Other("inet".to_owned())),
    ];
    assert_eq!(types, expected);
    assert_eq!(found.key_names().collect::<Vec<_>>(), ["id", "a"]);
    commit(&mut mirror, &batch(vec![("t", 0, 1, vec![item_changes("items", 0, &[put(1, "a", "x")])])])).await;
    let created = (mirror.known_schemas())(&TableId::new("shop", "public", "items")).unwrap();
    assert_eq!(created.arrow(), items().arrow());
    assert_eq!(created.key(), [0]);
}

#[tokio::test]
async fn two_mirrors_of_a_pipeline_share_a_database() {
    let database = Database::create().await;
    for (name, schema) in [("one", "first"), ("two", "second_{schema}")] {
        let mut options = MirrorOptions::new(name, "shop", &database.url());
        options.schema = schema.to_owned();
        let mut mirror = Mirror::new(&options).unwrap();
        assert!(mirror.load().await.unwrap().is_empty());
        commit(&mut mirror, &batch(vec![("t", 0, 1, vec![item_changes("items", 0, &[put(1, "a", "x")])])]))
            .await;
    }
    let client = database.connect().await;
    assert_eq!(rows(&client, "count(*)", "FROM first.items, second_public.items").await, ["1"]);
}

#[tokio::test]
async fn foreign_keys_of_the_target_do_not_stand_in_the_way_of_a_user_who_may_turn_them_off() {
    let database = Database::create().await;
    let client = database.connect().await;
    let ddl = "CREATE TABLE parents (id integer PRIMARY KEY, name text, note text);
               CREATE TABLE items (id integer PRIMARY KEY REFERENCES parents, name text, note text)";
    client.batch_execute(ddl).await.unwrap();
    let mut mirror = loaded(&database.url()).await;
    commit(&mut mirror, &batch(vec![("t", 0, 1, vec![item_changes("items", 0, &[put(1, "a", "x")])])])).await;
    assert_eq!(item_rows(&client, "items").await, ["1|a|x|c"]);
}
