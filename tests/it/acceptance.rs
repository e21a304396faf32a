//! Behaviours of `docs/acceptance.md` that belong to no capability of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::pin;

use bytes::Bytes;
use futures::SinkExt;
use serde_json::Value;

use crate::accounting::{LANES, counted};
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{assert_all_equal, becomes_equal};
use crate::shop::{Plan, TABLES};
use crate::stack::kafka::Stored;
use crate::workload::{seed, work};

/// The event without its schema block.
fn payload(record: &Stored) -> Option<Value> {
    let value: Value = serde_json::from_slice(record.value.as_deref()?).unwrap();
    Some(value["payload"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_thousand_rows_arrives_whole() {
    let shop = Plan::new("copy").open().await;
    let mut rows = String::new();
    for n in 0..1_000 {
        writeln!(rows, "{}\tcopied {n}\tcopy{n}@example.com", 50_000 + n).unwrap();
    }
    let sink = shop.source.copy_in("COPY public.customers (id, name, email) FROM STDIN").await.unwrap();
    let mut sink = pin!(sink);
    sink.send(Bytes::from(rows)).await.unwrap();
    sink.close().await.unwrap();
    shop.catch_up().await;

    // Before 3.7 Debezium gave several of them one place in the log, which must not make them one.
    let records = shop.broker().read_all(&shop.topic("customers"));
    let created = records.iter().filter_map(payload).filter(|event| event["op"] == "c").count();
    assert_eq!(created, 1_000);
    assert_all_equal(&shop).await;
}

/// Records that the connector sends twice.
const SENT_AGAIN: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_records_that_the_connector_sends_again_change_nothing() {
    let shop = Plan::new("again").open().await;
    work(&shop, seed(), 4, 9_500).await;
    shop.delivered().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;

    let mut by_topic: BTreeMap<String, Vec<Stored>> = BTreeMap::new();
    for table in TABLES {
        by_topic.insert(shop.topic(table), shop.broker().read_all(&shop.topic(table)));
    }
    // Everything after the snapshot, as after a crash before the first offsets were stored.
    let streamed = |record: &Stored| payload(record).is_none_or(|event| event["op"] != "r");
    let again: Vec<Stored> = by_topic
        .into_values()
        .flat_map(|records| records.into_iter().skip_while(|record| !streamed(record)))
        .collect();
    assert!(again.len() >= SENT_AGAIN, "only {} records", again.len());
    shop.broker().write_again(&again);
    becomes_equal(&shop, &run).await;

    // Tombstones have no place in the source's log.
    let changes = again.iter().filter(|record| record.value.is_some()).count() as u64;
    for lane in LANES {
        eventually(&format!("lane {lane} has seen {changes} changes again"), PATIENCE, || async {
            let (_, metrics) = run.get("metrics").await?;
            let duplicates = counted(&metrics, "alluvium_duplicate_records_total", lane);
            if duplicates == changes { Ok(()) } else { Err(format!("it has counted {duplicates}")) }
        })
        .await;
    }
    run.stop().await;
    assert_all_equal(&shop).await;
}
