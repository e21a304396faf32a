//! Tables that remember: deleted rows that stay, and every version of a row, through kills.
//!
//! The raw history is the oracle. What a table of versions has to hold is computed from `cdc_events` by SQL, and the
//! values of rows from the JSON of its events, by a few lines that know nothing of the program.

use std::collections::BTreeMap;
use std::time::Duration;

use alluvium::failpoint;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

use crate::oracle::{lake_rows_equal, postgres_rows, rows_of, source_columns};
use crate::shop::{Plan, Shop};
use crate::workload::{Crowd, seed, work};

const SETTINGS: &str = r#"
[[tables]]
source = "public.customers"
delete = "soft"

[[tables]]
source = "public.order_items"
delete = "soft"
write = "copy-on-write"

[[tables]]
source = "public.orders"
mode = "history"

[[tables]]
source = "public.products"
mode = "history"
"#;

/// How often it is killed.
const KILLS: usize = 12;
/// Where, every other time; else anywhere.
const PLACES: [&str; 4] =
    ["lake.after_data_files", "lake.after_deletion_vectors", "lake.after_commit", "lake.before_index"];

/// Rows of a query, cells joined by spaces.
async fn texts(shop: &Shop, table: &str, sql: &str) -> Vec<String> {
    let batches = rows_of(&shop.lake.join(table), sql).await.unwrap();
    let options = FormatOptions::default().with_null("-");
    let rows = |batch: &RecordBatch| {
        let cells: Vec<_> =
            batch.columns().iter().map(|cells| ArrayFormatter::try_new(cells, &options).unwrap()).collect();
        let row = |row| cells.iter().map(|cells| cells.value(row).to_string()).collect::<Vec<_>>().join(" ");
        (0..batch.num_rows()).map(row).collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}

/// The rows that `condition` says to be those of the source equal them.
async fn current_rows_equal(shop: &Shop, table: &str, condition: &str) {
    let columns = source_columns(&shop.source, table).await;
    let source = postgres_rows(&shop.source, &format!("public.{table}"), &columns).await.unwrap();
    lake_rows_equal(shop, (table, condition), &columns, &source).await.unwrap();
}

/// One change, as the raw history has it.
struct Event {
    place: (i32, i64),
    key: Value,
    deletes: bool,
    after: Value,
}

async fn events(shop: &Shop, table: &str) -> Vec<Event> {
    let sql = format!(
        "SELECT partition, \"offset\", arrow_cast(key, 'Utf8'), arrow_cast(operation, 'Utf8'), arrow_cast(after, 'Utf8')
         FROM t WHERE source_table = '{table}' ORDER BY 1, 2"
    );
    let json = |cells: &dyn Array, row: usize| {
        let cells = cells.as_string::<i32>();
        if cells.is_null(row) { Value::Null } else { serde_json::from_str(cells.value(row)).unwrap() }
    };
    let mut events = Vec::new();
    for batch in rows_of(&shop.lake.join("cdc_events"), &sql).await.unwrap() {
        for row in 0..batch.num_rows() {
            let partition = batch.column(0).as_primitive::<Int32Type>().value(row);
            events.push(Event {
                place: (partition, batch.column(1).as_primitive::<Int64Type>().value(row)),
                key: json(batch.column(2), row),
                deletes: batch.column(3).as_string::<i32>().value(row) == "d",
                after: json(batch.column(4), row),
            });
        }
    }
    events
}

/// When each version began and ended, as the order of the events of each key says.
async fn versions_follow_the_events(shop: &Shop, table: &str) {
    let expected = format!(
        "SELECT partition, \"offset\", operation, CAST(source_timestamp AS bigint), CAST(until AS bigint), last FROM (
             SELECT *, lead(source_timestamp) OVER (PARTITION BY key ORDER BY partition, \"offset\") AS until,
                    lead(\"offset\") OVER (PARTITION BY key ORDER BY partition, \"offset\") IS NULL AS last
             FROM t WHERE source_table = '{table}' AND operation IN ('c', 'u', 'd', 'r'))
         WHERE operation <> 'd' ORDER BY 1, 2"
    );
    let expected = texts(shop, "cdc_events", &expected).await;
    let found = "SELECT __cdc_partition, __cdc_offset, __cdc_operation, CAST(__valid_from AS bigint), CAST(__valid_to AS bigint), \
                 __is_current FROM t ORDER BY 1, 2";
    let found = texts(shop, table, found).await;
    let differing: Vec<_> =
        found.iter().zip(&expected).filter(|(found, expected)| found != expected).collect();
    assert!(
        found.len() == expected.len() && differing.is_empty(),
        "{table}: {} versions, of the events {}; (found, expected) {:?}",
        found.len(),
        expected.len(),
        &differing[..differing.len().min(5)]
    );
    eprintln!("{} versions of {table}", found.len());
}

/// The texts that each version of `products` has; one that the event leaves out is the one of the version before.
async fn versions_have_their_values(shop: &Shop) {
    let mut open: BTreeMap<String, Value> = BTreeMap::new();
    let mut expected = BTreeMap::new();
    for event in events(shop, "products").await {
        let key = event.key.to_string();
        if event.deletes {
            open.remove(&key);
            continue;
        }
        let mut description = event.after["description"].clone();
        if description == "__debezium_unavailable_value" {
            description = open.get(&key).cloned().unwrap_or(Value::Null);
        }
        open.insert(key, description.clone());
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let row = (text(&event.after["name"]), event.after["stock"].clone(), text(&description));
        expected.insert(event.place, row);
    }
    let sql = "SELECT __cdc_partition, __cdc_offset, arrow_cast(name, 'Utf8'), CAST(stock AS bigint), arrow_cast(description, 'Utf8') FROM t";
    let mut found = BTreeMap::new();
    for batch in rows_of(&shop.lake.join("products"), sql).await.unwrap() {
        let text = |column: usize, row: usize| {
            let cells = batch.column(column).as_string::<i32>();
            if cells.is_null(row) { "-".to_owned() } else { cells.value(row).to_owned() }
        };
        for row in 0..batch.num_rows() {
            let place = (
                batch.column(0).as_primitive::<Int32Type>().value(row),
                batch.column(1).as_primitive::<Int64Type>().value(row),
            );
            let stock = Value::from(batch.column(3).as_primitive::<Int64Type>().value(row));
            found.insert(place, (text(2, row), stock, text(4, row)));
        }
    }
    let wrong: Vec<_> = expected.keys().filter(|place| expected.get(place) != found.get(place)).collect();
    assert!(wrong.is_empty(), "products: other values than the events in the versions begun by {wrong:?}");
}

/// Rows that were deleted are there, with the last value that the events say.
async fn deleted_rows_are_marked(shop: &Shop, table: &str, (key, value): (&[&str], &str)) {
    let mut last: BTreeMap<String, (String, bool)> = BTreeMap::new();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for event in events(shop, table).await {
        let key: Vec<String> = key.iter().map(|column| text(&event.key[column])).collect();
        let row = last.entry(key.join(" ")).or_default();
        row.1 = event.deletes;
        if !event.deletes {
            row.0 = text(&event.after[value]);
        }
    }
    let expected: Vec<String> =
        last.iter().filter(|(_, row)| row.1).map(|(key, row)| format!("{key} {}", row.0)).collect();
    let sql =
        format!("SELECT {}, {value} FROM t WHERE __cdc_deleted AND __cdc_operation = 'd'", key.join(", "));
    let mut found = texts(shop, table, &sql).await;
    found.sort();
    let mut expected = expected;
    expected.sort();
    assert!(!expected.is_empty(), "no row of {table} was deleted");
    assert_eq!(found, expected, "deleted rows of {table}");
    let marked =
        texts(shop, table, "SELECT count(*) FROM t WHERE __cdc_deleted OR __cdc_operation = 'd'").await;
    assert_eq!(marked, [expected.len().to_string()], "{table}: the mark and the operation agree");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_rows_and_all_versions_survive_kills() {
    let mut plan = Plan::new("history");
    plan.settings = SETTINGS.to_owned();
    let shop = plan.open().await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    work(&shop, seed, 2, 400).await;
    let crowd = Crowd::start(&shop, seed, 3, Duration::from_millis(40)).await;
    for kill in 0..KILLS {
        let place = format!("{}:{}", PLACES[kill / 2 % PLACES.len()], random.u8(1..6));
        let program = shop.program("run");
        if kill % 2 == 0 {
            let mut run = program.environment(failpoint::VARIABLE, &place).start();
            run.ends(crate::eventually::PATIENCE).await;
        } else {
            let mut run = program.start();
            // Not a wait for something: the random instant is what this test is about.
            tokio::time::sleep(Duration::from_millis(random.u64(500..2_500))).await;
            assert!(run.ended().is_none(), "it ended by itself before kill {kill}");
            run.kill();
        }
    }
    let statements = crowd.finish().await;
    // One transaction, and so one commit time: a key that goes and comes again, and then becomes another.
    let again = "BEGIN;
        INSERT INTO public.orders (id, customer_id, note) VALUES (777, 1, 'first');
        DELETE FROM public.orders WHERE id = 777;
        INSERT INTO public.orders (id, customer_id, note) VALUES (777, 1, 'second');
        UPDATE public.orders SET id = 778 WHERE id = 777;
        COMMIT";
    shop.source.batch_execute(again).await.unwrap();
    shop.catch_up().await;
    eprintln!("{KILLS} kills during {statements} statements");

    for table in ["customers", "order_items"] {
        current_rows_equal(&shop, table, "__cdc_deleted IS NOT TRUE").await;
    }
    deleted_rows_are_marked(&shop, "customers", (&["id"], "name")).await;
    deleted_rows_are_marked(&shop, "order_items", (&["order_id", "line"], "quantity")).await;
    for table in ["orders", "products"] {
        current_rows_equal(&shop, table, "__is_current").await;
        versions_follow_the_events(&shop, table).await;
    }
    versions_have_their_values(&shop).await;
}
