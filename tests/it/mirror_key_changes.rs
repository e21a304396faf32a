//! Rows of a mirror whose key changes while a TOASTed value does not.

use std::sync::Arc;

use alluvium::change::{
    Batch, ChangeBatch, ColumnType, CommitReport, KeyLedger, KeyMoves, Operation, Sink, TableSchema,
};
use alluvium::mirror::{Mirror, MirrorOptions};
use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tokio_postgres::Client;

use super::mirror_changes::{
    Item, NEW_YEAR, batch, changes, gone, item_changes, put, put_without_note, schema,
};
use super::postgres_server::Database;

/// Halves of key changes: index, the other key, LSN.
type Halves<'a> = &'a [(u32, i32, i64)];

/// Where `t.a` and `t.b` stand; both feed the table, as two partitions would.
struct Written {
    database: Database,
    client: Client,
    mirror: Mirror,
    next: [i64; 2],
}

impl Written {
    async fn with(rows: &[Item<'_>]) -> Self {
        let database = Database::create().await;
        let client = database.connect().await;
        let mirror = loaded(&database.url()).await;
        let mut written = Self { database, client, mirror, next: [0, 0] };
        written.commit(0, rows, &[]).await;
        written
    }

    async fn commit(&mut self, partition: usize, rows: &[Item<'_>], halves: Halves<'_>) -> CommitReport {
        let first = self.next[partition];
        self.next[partition] += rows.len() as i64;
        let changes = moving(item_changes("items", first, rows), halves);
        let topic = ["t.a", "t.b"][partition];
        let batch: Batch = batch(vec![(topic, first, self.next[partition], vec![changes])]);
        let report = self.mirror.commit(&batch).await.unwrap();
        assert!(report.stopped.is_empty(), "{:?}", report.stopped);
        report
    }

    /// As after a crash: nothing is known but what is stored.
    async fn restart(&mut self) {
        self.mirror = loaded(&self.database.url()).await;
    }

    async fn rows(&self, sql: &str) -> Vec<String> {
        self.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn items(&self) -> Vec<String> {
        self.rows("SELECT concat_ws('|', id, name, coalesce(note, '-')) FROM items ORDER BY id").await
    }

    /// Whether nothing is kept for key changes any more.
    async fn assert_settled(&self) {
        let ledgers = self.rows("SELECT ledger FROM alluvium.key_changes").await;
        assert!(
            ledgers.iter().all(|ledger| {
                let ledger = KeyLedger::from_text(ledger);
                ledger.departed.is_empty() && ledger.waiting.is_empty()
            }),
            "{ledgers:?}"
        );
        let left = self.rows("SELECT id FROM alluvium.departed_rows").await;
        assert!(left.is_empty(), "{left:?}");
    }
}

async fn loaded(url: &str) -> Mirror {
    let mut mirror = Mirror::new(&MirrorOptions::new("target", "shop", url)).unwrap();
    mirror.load().await.unwrap();
    mirror
}

fn moving(mut changes: ChangeBatch, halves: Halves<'_>) -> ChangeBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true)]));
    let others = Int32Array::from_iter_values(halves.iter().map(|(_, other, _)| *other));
    changes.moves = (!halves.is_empty()).then(|| KeyMoves {
        changes: halves.iter().map(|(change, ..)| *change).collect(),
        keys: RecordBatch::try_new(schema, vec![Arc::new(others)]).unwrap(),
        lsns: halves.iter().map(|(.., lsn)| Some(*lsn)).collect(),
    });
    changes
}

fn moved(id: i32) -> Item<'static> {
    (Operation::Create, id, Some("after"), Err(()))
}

#[tokio::test]
async fn unchanged_values_follow_chains_and_swaps_of_keys_in_one_batch() {
    let mut table = Written::with(&[put(1, "a", "one"), put(4, "a", "four"), put(5, "a", "five")]).await;
    let events =
        [gone(1), moved(2), gone(2), moved(3), gone(4), moved(-1), gone(5), moved(4), gone(-1), moved(5)];
    let halves = [
        (0, 2, 1),
        (1, 1, 1),
        (2, 3, 2),
        (3, 2, 2),
        (4, -1, 3),
        (5, 4, 3),
        (6, 4, 4),
        (7, 5, 4),
        (8, 5, 5),
        (9, -1, 5),
    ];
    let report = table.commit(0, &events, &halves).await;
    assert_eq!(table.items().await, ["3|after|one", "4|after|five", "5|after|four"]);
    assert_eq!(report.tables["public.items"].unresolved_absent, 0);
    table.assert_settled().await;
}

#[tokio::test]
async fn a_key_change_that_is_cut_in_two_keeps_its_values_through_a_restart() {
    let mut table = Written::with(&[put(1, "a", "it's \\ one"), put(2, "a", "two")]).await;
    let newer = [put(3, "a", "old"), put(3, "a", "in the batch"), gone(1), gone(3)];
    table.commit(0, &newer, &[(2, 7, 1), (3, 8, 2)]).await;
    assert_eq!(table.items().await, ["2|a|two"]);
    table.restart().await;
    let report = table.commit(1, &[moved(7), moved(8)], &[(0, 1, 1), (1, 3, 2)]).await;
    assert_eq!(table.items().await, ["2|a|two", "7|after|it's \\ one", "8|after|in the batch"]);
    assert_eq!(report.tables["public.items"].unresolved_absent, 0);
    table.assert_settled().await;
}

#[tokio::test]
async fn a_create_that_comes_before_its_delete_ends_with_the_newest_value_of_the_old_row() {
    let mut table = Written::with(&[put(1, "a", "stored"), put(2, "a", "stored")]).await;
    table.commit(1, &[moved(7), moved(8)], &[(0, 1, 1), (1, 2, 2)]).await;
    assert_eq!(table.items().await, ["1|a|stored", "2|a|stored", "7|after|stored", "8|after|stored"]);
    table.restart().await;
    table.commit(1, &[put_without_note(7, "later"), put(8, "later", "own")], &[]).await;
    let newest = [put(1, "a", "newest"), gone(1), put(2, "a", "newest"), gone(2)];
    table.commit(0, &newest, &[(1, 7, 1), (3, 8, 2)]).await;
    assert_eq!(table.items().await, ["7|later|newest", "8|later|own"]);
    table.assert_settled().await;
}

#[tokio::test]
async fn what_is_nowhere_is_null_counted_and_named() {
    let mut table = Written::with(&[put(1, "a", "one")]).await;
    let events = [moved(7), put_without_note(8, "unknown"), put_without_note(1, "kept")];
    let report = table.commit(0, &events, &[(0, 99, 1)]).await;
    assert_eq!(table.items().await, ["1|kept|one", "7|after|-", "8|unknown|-"]);
    let items = &report.tables["public.items"];
    assert_eq!(items.unresolved_absent, 2);
    let named: Vec<String> = items
        .unresolved
        .iter()
        .map(|row| format!("{}@{} {}", row.partition, row.offset, row.columns.join(",")))
        .collect();
    assert_eq!(named, ["t.a/0@2 note", "t.a/0@1 note"]);
}

#[tokio::test]
async fn values_of_every_type_come_back_exactly_from_where_they_are_kept() {
    let mut table = Written::with(&[put(1, "a", "one")]).await;
    table
        .client
        .batch_execute(
            "ALTER TABLE items ALTER note TYPE json USING '{\"b\": 1,  \"a\": 1.50, \"a\": null}'::json,
             ALTER name TYPE varchar(5)",
        )
        .await
        .unwrap();
    table.restart().await;
    table.commit(0, &[gone(1)], &[(0, 7, 1)]).await;
    table.commit(1, &[(Operation::Create, 7, Some("after"), Err(()))], &[(0, 1, 1)]).await;
    let found = table.rows("SELECT note::text FROM items WHERE id = 7").await;
    assert_eq!(found, [r#"{"b": 1,  "a": 1.50, "a": null}"#]);
}

/// A mirror with a table whose key is a `citext`.
struct Words {
    _database: Database,
    client: Client,
    mirror: Mirror,
    schema: Arc<TableSchema>,
}

impl Words {
    async fn new() -> Self {
        let database = Database::create().await;
        let client = database.connect().await;
        client
            .batch_execute(
                "CREATE EXTENSION citext; CREATE TABLE words (word citext PRIMARY KEY, meaning text)",
            )
            .await
            .unwrap();
        let mirror = loaded(&database.url()).await;
        let schema = schema(1, &[("word", ColumnType::Text), ("meaning", ColumnType::Text)]);
        Self { _database: database, client, mirror, schema }
    }

    async fn found(client: &Client) -> Vec<String> {
        let sql = "SELECT word::text || ': ' || meaning FROM words ORDER BY 1";
        client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }
}

/// To `citext` both are one key; to Kafka they are two, in partitions of their own.
#[tokio::test]
async fn a_row_whose_key_changes_its_case_alone_is_kept_whichever_half_comes_first() {
    let Words { _database, client, mut mirror, schema } = Words::new().await;
    let of = |offset, operation, word: &str, meaning: Option<&str>| {
        let cells = [Some(word), meaning].map(|cell| Arc::new(StringArray::from(vec![cell])) as _);
        changes("words", &schema, offset, &[operation], cells.to_vec())
    };
    let steps = [
        ("t.a", 0, Operation::Create, "Polish", Some("of Poland")),
        ("t.a", 1, Operation::Create, "March", Some("a month")),
        // The delete comes first, then the create.
        ("t.a", 2, Operation::Delete, "March", None),
        ("t.b", 0, Operation::Create, "march", Some("a walk")),
        // The create comes first, then the delete.
        ("t.b", 1, Operation::Create, "polish", Some("to make smooth")),
        ("t.a", 3, Operation::Delete, "Polish", None),
    ];
    for (topic, offset, operation, word, meaning) in steps {
        let part = vec![of(offset, operation, word, meaning)];
        let report = mirror.commit(&batch(vec![(topic, offset, offset + 1, part)])).await.unwrap();
        assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    }
    let found = Words::found(&client).await;
    assert_eq!(found, ["march: a walk", "polish: to make smooth"]);
    let last = batch(vec![("t.b", 2, 3, vec![of(2, Operation::Delete, "polish", None)])]);
    mirror.commit(&last).await.unwrap();
    let left: i64 = client.query_one("SELECT count(*) FROM words", &[]).await.unwrap().get(0);
    assert_eq!(left, 1, "a delete of the key that the row has now");
}

/// Partitions are read in any order: a row may come as it was spelt before beside, or after, what it is.
#[tokio::test]
async fn of_two_spellings_of_a_key_the_one_that_was_committed_last_stays() {
    let Words { _database, client, mut mirror, schema } = Words::new().await;
    let of = |offset, operation, word: &str, second: i64| {
        let meaning = (operation != Operation::Delete).then(|| second.to_string());
        let cells = [Some(word), meaning.as_deref()].map(|cell| Arc::new(StringArray::from(vec![cell])) as _);
        let mut changes = changes("words", &schema, offset, &[operation], cells.to_vec());
        changes.source_micros = vec![NEW_YEAR + second * 1_000_000];
        vec![changes]
    };
    let batches = [
        // Both in one batch, in either order.
        vec![
            ("t.a", 0, 1, of(0, Operation::Create, "March", 1)),
            ("t.b", 0, 1, of(0, Operation::Create, "march", 2)),
        ],
        vec![
            ("t.b", 1, 2, of(1, Operation::Create, "polish", 4)),
            ("t.a", 1, 2, of(1, Operation::Create, "Polish", 3)),
        ],
        // What it is comes first, what it was in a later batch.
        vec![("t.b", 2, 3, of(2, Operation::Create, "may", 6))],
        vec![("t.a", 2, 3, of(2, Operation::Create, "May", 5))],
        // The deletes of what they were.
        vec![("t.a", 3, 4, of(3, Operation::Delete, "March", 2))],
        vec![("t.a", 4, 5, of(4, Operation::Delete, "Polish", 4))],
        vec![("t.a", 5, 6, of(5, Operation::Delete, "May", 6))],
    ];
    for parts in batches {
        let report = mirror.commit(&batch(parts)).await.unwrap();
        assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    }
    let found = Words::found(&client).await;
    assert_eq!(found, ["march: 2", "may: 6", "polish: 4"]);
}
