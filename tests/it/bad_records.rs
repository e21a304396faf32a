//! Records that cannot become changes, where `on_error` is `stop`: their table stops at them, and nothing else does.

use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Running, lane};
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{SourceColumn, compare, count_rows, postgres_rows, source_columns, table_equal};
use crate::shop::{Plan, Shop, TABLES};
use crate::stack::kafka::Stored;
use crate::workload::{seed, work};

fn stopping(name: &'static str) -> Plan {
    Plan { settings: "[defaults]\non_error = \"stop\"".to_owned(), ..Plan::new(name) }
}

/// Where a bad record lies, and what is said of it.
struct Bad {
    table: &'static str,
    offset: i64,
    code: &'static str,
}

/// A record like the newest of its topic that is no tombstone, with its value changed.
fn spoil(shop: &Shop, table: &'static str, code: &'static str, change: impl Fn(&mut Value)) -> Bad {
    let (topic, broker) = (shop.topic(table), shop.broker());
    let records = broker.read_all(&topic);
    let has_a_row = |record: &&Stored| {
        let text = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        text.contains("\"op\":\"c\"") || text.contains("\"op\":\"r\"")
    };
    let model = records.iter().rev().find(has_a_row).unwrap_or_else(|| panic!("no row in {topic}"));
    let mut value: Value = serde_json::from_slice(model.value.as_deref().unwrap()).unwrap();
    change(&mut value);
    let text = value.to_string();
    let (key, value) = match code {
        "not_json" => (model.key.as_deref(), &b"{\"schema\": oops"[..]),
        "missing_key" => (None, text.as_bytes()),
        _ => (model.key.as_deref(), text.as_bytes()),
    };
    Bad { table, offset: broker.write(&topic, 0, key, Some(value)), code }
}

/// The table that is sent a record without key. That reads as a changed key, which holds back the whole part of its batch:
/// where exactly such a table stands is not promised, only that it stops and says so.
const KEYLESS: &str = "orders";

fn spoil_each_table(shop: &Shop) -> [Bad; 4] {
    [
        spoil(shop, "customers", "not_json", |_| {}),
        spoil(shop, "products", "unknown_operation", |value| value["payload"]["op"] = "x".into()),
        spoil(shop, "orders", "missing_key", |_| {}),
        spoil(shop, "order_items", "invalid_value", |value| {
            value["payload"]["after"]["quantity"] = "a dozen".into();
        }),
    ]
}

/// The reason that a lane gives for having stopped a table at that record.
fn stopped<'a>(status: &'a Value, name: &str, place: &str) -> Option<&'a str> {
    let tables = lane(status, name)?["tables"].as_object()?;
    tables.values().filter_map(|table| table["stopped"].as_str()).find(|reason| reason.contains(place))
}

async fn says_where_and_why(run: &Running, shop: &Shop, bad: &Bad) {
    let place = format!("{}/0@{}", shop.topic(bad.table), bad.offset);
    for name in ["lake", "datalake", "target"] {
        let reason = run
            .reports(&format!("lane {name} stopped {} at {place}", bad.table), |status| {
                stopped(status, name, &place).map(str::to_owned)
            })
            .await;
        // A record without key says that its table has none any more.
        let said = if bad.code == "missing_key" { "and is ()" } else { bad.code };
        assert!(reason.contains(said), "{name}: no {said} in {reason:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_bad_record_stops_its_table_and_no_other() {
    let shop = stopping("bad").open().await;
    work(&shop, seed(), 2, 300).await;
    shop.delivered().await;
    let mut before = Vec::new();
    for table in TABLES {
        let columns = source_columns(&shop.source, table).await;
        let rows = postgres_rows(&shop.source, &format!("public.{table}"), &columns).await.unwrap();
        before.push((table, columns, rows));
    }
    let bad = spoil_each_table(&shop);
    shop.source
        .batch_execute(
            "UPDATE public.customers SET active = NOT active; UPDATE public.products SET stock = 1;
             UPDATE public.orders SET paid = NOT paid; UPDATE public.order_items SET quantity = 77",
        )
        .await
        .unwrap();
    shop.delivered().await;

    let mut run = shop.program("run").start();
    for bad in &bad {
        says_where_and_why(&run, &shop, bad).await;
    }
    // The fifth table goes on, also with what comes now.
    shop.source.execute("INSERT INTO public.barrier VALUES (77, 77)", &[]).await.unwrap();
    eventually("the sound table goes on", PATIENCE, || async {
        let columns = source_columns(&shop.source, "barrier").await;
        let source = postgres_rows(&shop.source, "public.barrier", &columns).await?;
        let copy = postgres_rows(&shop.target().await, "public.barrier", &columns).await?;
        compare("mirror barrier", &columns, &source, &copy)?;
        let rows = count_rows(&shop.lake.join("barrier")).await?;
        if rows == source.len() {
            Ok(())
        } else {
            Err(format!("{rows} of {} rows in the lake", source.len()))
        }
    })
    .await;
    assert_eq!(run.get("readyz").await.unwrap().0, 503, "/readyz with stopped tables");
    assert_eq!(run.get("livez").await.unwrap().0, 200, "/livez with stopped tables");
    for (table, columns, rows) in before.iter().filter(|(table, ..)| *table != KEYLESS) {
        stands_before_the_bad_record(&shop, table, columns, rows).await;
    }
    // Every lane ends at a commit; that tables had stopped is a failure all the same.
    run.terminate();
    run.exits_with(1, Duration::from_secs(20)).await;

    let mut run = shop.program("run").argument("--until-caught-up").start();
    run.exits_with(1, Duration::from_secs(90)).await;
    for bad in &bad {
        let place = format!("{}/0@{}", shop.topic(bad.table), bad.offset);
        assert!(run.log().contains(&place), "the log does not name {place}");
    }
    for (table, columns, rows) in before.iter().filter(|(table, ..)| *table != KEYLESS) {
        stands_before_the_bad_record(&shop, table, columns, rows).await;
    }
}

/// All that came before the bad record is there, and nothing that came after it.
async fn stands_before_the_bad_record(
    shop: &Shop,
    table: &str,
    columns: &[SourceColumn],
    rows: &crate::oracle::Rows,
) {
    eventually(&format!("{table} stands before its bad record"), PATIENCE, || async {
        crate::oracle::lake_table_equal(shop, table, columns, rows).await?;
        let copy = postgres_rows(&shop.target().await, &format!("public.{table}"), columns).await?;
        compare(&format!("mirror {table}"), columns, rows, &copy)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_values_of_a_bad_record_are_not_logged() {
    let shop = stopping("discreet").open().await;
    shop.delivered().await;
    let bad = spoil(&shop, "order_items", "invalid_value", |value| {
        value["payload"]["after"]["quantity"] = "a secret number".into();
    });
    let mut run = shop.program("run").argument("--until-caught-up").start();
    run.exits_with(1, Duration::from_secs(90)).await;
    let log = run.log();
    assert!(
        log.contains(&format!("{}/0@{}", shop.topic("order_items"), bad.offset)),
        "the place is not logged"
    );
    assert!(!log.contains("a secret number"), "the value is logged");
    table_equal(&shop, "customers").await.unwrap();
}
