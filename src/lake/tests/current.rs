//! Current tables: rows, absent cells, schema changes, refusals.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Date32Array, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray,
};

use super::fixture::{Cell, Event, Fixture, batch, batch_of, both, column, delete, event, table, value};
use crate::change::{
    Batch, ColumnType, Keyless, Operation, Sink, SinkError, Span, TableSchema, TopicIdentity,
};
use crate::lake::Lake;
use crate::lake::read::{At, LakeReader};

use Operation::{Create, Update};

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_inserted_updated_and_deleted_by_key() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let first = [event(0, Create, 1, "one", value("a")), event(1, Create, 2, "two", Cell::Null)];
    lake.commit(&batch("items", &first)).await.unwrap();
    assert_eq!(fixture.items().await, ["1 one a", "2 two -"]);
    let second =
        [delete(2, 1), event(3, Update, 2, "zwei", value("b")), event(4, Create, 3, "three", value("c"))];
    let report = lake.commit(&batch("items", &second)).await.unwrap();
    assert_eq!(fixture.items().await, ["2 zwei b", "3 three c"]);
    let items = &report.tables["public.items"];
    assert_eq!((items.upserted, items.deleted), (2, 1));
    let metadata = fixture
        .query(
            "SELECT id, __cdc_operation, __cdc_timestamp, __synced_at IS NOT NULL FROM items ORDER BY id",
            At::Latest,
        )
        .await;
    assert_eq!(metadata, ["2 u 2023-11-14T22:13:20Z true", "3 c 2023-11-14T22:13:20Z true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_cell_keeps_the_stored_value() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let stored = [event(0, Create, 1, "one", value("toast")), event(1, Create, 2, "two", value("bread"))];
    lake.commit(&batch("items", &stored)).await.unwrap();
    let updates = [
        event(2, Update, 1, "uno", Cell::Absent),
        event(3, Update, 2, "due", Cell::Null),
        event(4, Update, 3, "tre", Cell::Absent),
    ];
    lake.commit(&batch("items", &updates)).await.unwrap();
    assert_eq!(fixture.items().await, ["1 uno toast", "2 due -", "3 tre -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_unknown_keys_moves_the_position_and_nothing_else() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    lake.commit(&batch("items", &[delete(1, 77)])).await.unwrap();
    assert_eq!(fixture.items().await, ["1 one -"]);
    let progress = lake.load().await.unwrap();
    assert_eq!(progress.values().next().unwrap().next_offset, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_given_again_is_skipped_also_after_a_restart() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let first =
        batch("items", &[event(0, Create, 1, "one", Cell::Null), event(1, Create, 2, "two", Cell::Null)]);
    lake.commit(&first).await.unwrap();
    let versions = (fixture.version("items").await, fixture.version("cdc_events").await);
    lake.commit(&first).await.unwrap();
    let mut lake = fixture.open().await;
    lake.commit(&first).await.unwrap();
    assert_eq!((fixture.version("items").await, fixture.version("cdc_events").await), versions);
    // Half of it is known: only the rest is written.
    let overlapping =
        [event(1, Update, 2, "must not be written", Cell::Null), event(2, Create, 3, "three", Cell::Null)];
    lake.commit(&batch("items", &overlapping)).await.unwrap();
    assert_eq!(fixture.items().await, ["1 one -", "2 two -", "3 three -"]);
    assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["3"]);
}

fn wide_schema() -> Arc<TableSchema> {
    Arc::new(TableSchema::new(
        vec![
            column("id", ColumnType::Int64),
            column("name", ColumnType::Text),
            column("note", ColumnType::Text),
            column("at", ColumnType::Timestamp),
        ],
        vec![0],
    ))
}

fn wide_batch(offset: i64, id: i64, at: i64) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![id])),
        Arc::new(StringArray::from(vec!["wide"])),
        Arc::new(StringArray::from(vec!["n"])),
        Arc::new(TimestampMicrosecondArray::from(vec![at])),
    ];
    batch_of("items", &wide_schema(), columns, vec![None; 4], &[event(offset, Create, id, "", Cell::Null)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_the_source_adds_is_added_and_the_table_keeps_its_id() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let id = lake.tables[&table("items")].table.state.metadata().id.clone();
    lake.commit(&wide_batch(1, 2, 86_400_000_000)).await.unwrap();
    // Events of the old schema may still follow, from another partition.
    lake.commit(&batch("items", &[event(2, Create, 3, "three", Cell::Null)])).await.unwrap();
    let rows = fixture.query("SELECT id, name, at FROM items ORDER BY id", At::Latest).await;
    assert_eq!(rows, ["1 one -", "2 wide 1970-01-02T00:00:00", "3 three -"]);
    assert_eq!(lake.tables[&table("items")].table.state.metadata().id, id);
    let lake = fixture.open().await;
    assert_eq!(*lake.known_schemas()(&table("items")).unwrap(), *wide_schema());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_changes_within_a_batch_is_one_commit() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let mut changing = batch("items", &[event(0, Create, 1, "one", Cell::Null)]);
    let wide = wide_batch(1, 2, 0);
    changing.changes.extend(wide.changes);
    changing.spans.values_mut().for_each(|span| span.next = 2);
    lake.commit(&changing).await.unwrap();
    let rows = fixture.query("SELECT id, name, at FROM items ORDER BY id", At::Latest).await;
    assert_eq!(rows, ["1 one -", "2 wide 1970-01-01T00:00:00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incompatible_type_stops_that_table_alone() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let changed = Arc::new(TableSchema::new(
        vec![column("id", ColumnType::Int64), column("name", ColumnType::Int64)],
        vec![0],
    ));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![2])), Arc::new(Int64Array::from(vec![5]))];
    let events = [event(1, Create, 2, "", Cell::Null)];
    let bad = batch_of("items", &changed, columns, vec![None; 2], &events);
    let good = batch("others", &[event(0, Create, 9, "nine", Cell::Null)]);
    let report = lake.commit(&both(bad, good)).await.unwrap();
    let reason = &report.stopped[&table("items")];
    assert!(
        reason.contains("column name") && reason.contains("text") && reason.contains("int64"),
        "{reason}"
    );
    assert_eq!(fixture.query("SELECT id FROM others", At::Latest).await, ["9"]);
    let raw = fixture.query("SELECT topic, \"offset\" FROM cdc_events ORDER BY 1, 2", At::Latest).await;
    assert_eq!(raw, ["cdc.public.items 0", "cdc.public.others 0"], "rows of a stopped topic wait");
    let progress = lake.load().await.unwrap();
    let next: Vec<i64> = progress.values().map(|stored| stored.next_offset).collect();
    assert_eq!(next, [1, 1], "items stays at 1, others is at 1");
    // After a load it is tried again.
    let report = lake.commit(&batch("items", &[event(1, Create, 2, "two", Cell::Null)])).await.unwrap();
    assert!(report.stopped.is_empty());
    assert_eq!(fixture.items().await, ["1 one -", "2 two -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stopped_takes_nothing_behind_its_gap_after_a_rebalance() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let mut refused = batch("items", &[event(1, Create, 2, "two", Cell::Null)]);
    let columns = refused.changes[0].schema.columns().to_vec();
    refused.changes[0].schema = Arc::new(TableSchema::new(columns, vec![0, 1]));
    assert_eq!(lake.commit(&refused).await.unwrap().stopped.len(), 1);
    // Partitions are assigned while the next batch is on its way.
    lake.reload().await.unwrap();
    let report = lake.commit(&batch("items", &[event(2, Create, 3, "three", Cell::Null)])).await.unwrap();
    assert_eq!(report.stopped.len(), 1, "record 1 is not in the table");
    assert_eq!(fixture.items().await, ["1 one -"]);
    assert_eq!(fixture.query("SELECT \"offset\" FROM cdc_events", At::Latest).await, ["0"]);
    let progress = lake.load().await.unwrap();
    assert_eq!(progress.values().map(|stored| stored.next_offset).collect::<Vec<_>>(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_stops_the_table() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let mut changed = batch("items", &[event(1, Create, 1, "one", Cell::Null)]);
    let columns = changed.changes[0].schema.columns().to_vec();
    changed.changes[0].schema = Arc::new(TableSchema::new(columns, vec![0, 1]));
    let report = lake.commit(&changed).await.unwrap();
    assert!(report.stopped[&table("items")].contains("was (id) and is (id, name)"), "{:?}", report.stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_in_one_folder_stop_the_second_with_the_setting_to_change() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let mut other = batch("items", &[Event { partition: 1, ..event(0, Create, 1, "x", Cell::Null) }]);
    other.changes[0].table = crate::change::TableId::new("shop", "sales", "items");
    let report = lake.commit(&other).await.unwrap();
    let reason = report.stopped.values().next().unwrap();
    assert!(reason.contains("lake.layout"), "{reason}");
    assert_eq!(fixture.items().await, ["1 one -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away_is_retried_with_the_same_batch() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let (folder, aside) = (fixture.dir.path().join("items"), fixture.dir.path().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, "not a folder").unwrap();
    let next = batch("items", &[event(1, Create, 2, "two", Cell::Null)]);
    let error = lake.commit(&next).await.unwrap_err();
    assert!(matches!(error, SinkError::Retry { class: "storage", .. }), "{error:?}");
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    lake.commit(&next).await.unwrap();
    assert_eq!(fixture.items().await, ["1 one -", "2 two -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_at_the_edges_of_their_types_read_back() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let schema = Arc::new(TableSchema::new(
        vec![
            column("Mixed.Case", ColumnType::Decimal { precision: 38, scale: 2 }),
            column("at", ColumnType::TimestampTz),
            column("on", ColumnType::Date),
            column("bytes", ColumnType::Binary),
            column("text", ColumnType::Jsonb),
            column("wall", ColumnType::Timestamp),
        ],
        vec![0, 1],
    ));
    let digits = 99_999_999_999_999_999_999_999_999_999_999_999_999_i128;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Decimal128Array::from(vec![digits, digits - 1]).with_precision_and_scale(38, 2).unwrap()),
        Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX, i64::MIN]).with_timezone("UTC")),
        Arc::new(Date32Array::from(vec![Some(0), None])),
        Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..], &b""[..]])),
        Arc::new(StringArray::from(vec!["", "{}"])),
        Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, i64::MAX])),
    ];
    for offset in [0, 2] {
        let events = [event(offset, Create, 0, "", Cell::Null), event(offset + 1, Create, 0, "", Cell::Null)];
        let edges = batch_of("edges", &schema, columns.clone(), vec![None; 6], &events);
        let report = lake.commit(&edges).await.unwrap();
        assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    }
    let sql = "SELECT \"Mixed.Case\", arrow_cast(at, 'Int64'), \"on\", bytes, text, arrow_cast(wall, 'Int64') \
               FROM edges ORDER BY 1";
    let rows = fixture.query(sql, At::Latest).await;
    assert_eq!(
        rows,
        [
            format!("999999999999999999999999999999999999.98 {} -  {{}} {}", i64::MIN, i64::MAX),
            format!("999999999999999999999999999999999999.99 {} 1970-01-01 00ff  {}", i64::MAX, i64::MIN),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_key_that_is_to_stop_is_refused_with_the_ways_to_give_it_one() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.policies.defaults.keyless = Keyless::Stop;
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    let mut keyless = batch("items", &[event(0, Create, 1, "one", Cell::Null)]);
    let columns = keyless.changes[0].schema.columns().to_vec();
    keyless.changes[0].schema = Arc::new(TableSchema::new(columns, vec![]));
    let report = lake.commit(&keyless).await.unwrap();
    assert!(report.stopped[&table("items")].contains("message.key.columns"), "{:?}", report.stopped);
    let tables = LakeReader::open(&fixture.options()).unwrap().tables().await.unwrap();
    assert!(tables.iter().all(|info| info.name != "items"), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_table_of_a_shared_topic_stores_its_positions_now_and_then() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let mut for_another = batch("items", &[event(1, Create, 1, "x", Cell::Null)]);
    for_another.changes[0].table = table("others");
    lake.commit(&for_another).await.unwrap();
    assert_eq!(fixture.version("items").await, 1, "not with every batch");
    lake.tables.get_mut(&table("items")).unwrap().stored = None;
    let mut more = batch("items", &[event(2, Create, 2, "x", Cell::Null)]);
    more.changes[0].table = table("others");
    lake.commit(&more).await.unwrap();
    assert_eq!(fixture.version("items").await, 2);
    let next: Vec<i64> = lake.load().await.unwrap().into_values().map(|stored| stored.next_offset).collect();
    assert_eq!(next, [3]);
    assert_eq!(fixture.items().await, ["1 one -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_batches_without_rows_ended_is_stored_in_every_table_when_it_is_quiet() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let rows = batch("items", &[event(1, Create, 1, "x", Cell::Null)]);
    let heartbeats = crate::change::TopicPartition::new("__debezium-heartbeat.cdc", 0);
    let mut spans = rows.spans.clone();
    spans.insert(heartbeats.clone(), Span { identity: TopicIdentity::unknown(), first: 0, next: 40 });
    let raw = rows.raw.map(|raw| raw.slice(0, 0));
    lake.commit(&Batch { spans, raw, ..Batch::default() }).await.unwrap();
    lake.maintain().await.unwrap();
    assert_eq!(fixture.version("items").await, 1, "not at once");
    lake.tables.get_mut(&table("items")).unwrap().stored = None;
    lake.raw.as_mut().unwrap().stored = None;
    lake.maintain().await.unwrap();
    let progress = lake.load().await.unwrap();
    let next: Vec<i64> = progress.values().map(|stored| stored.next_offset).collect();
    assert_eq!((next, progress.contains_key(&heartbeats)), (vec![40, 2], true));
    assert_eq!(fixture.items().await, ["1 one -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_given_away_is_not_moved_any_more() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(0, Create, 1, "one", Cell::Null)])).await.unwrap();
    let mut rest = batch("items", &[event(1, Create, 1, "x", Cell::Null)]);
    (rest.changes, rest.raw) = (Vec::new(), None);
    lake.commit(&rest).await.unwrap();
    lake.release(&rest.partitions);
    // The new owner goes on.
    let mut owner = fixture.open().await;
    owner.commit(&batch("items", &[event(1, Update, 1, "two", Cell::Null)])).await.unwrap();
    lake.tables.get_mut(&table("items")).unwrap().stored = None;
    lake.raw.as_mut().unwrap().stored = None;
    lake.maintain().await.unwrap();
    assert_eq!(fixture.items().await, ["1 two -"]);
}
