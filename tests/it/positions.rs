//! Positions that no longer fit the log: no gap goes unseen, and the message says how to go on.

use std::time::Duration;

use crate::daemon::lane;
use crate::oracle::{assert_all_equal, table_equal};
use crate::shop::{Plan, Shop};
use crate::workload::{seed, work};

const LANES: [&str; 3] = ["lake", "datalake", "target"];

/// A daemon stops every lane with a message that names the topic and the setting; a run that ends by itself fails.
async fn every_lane_stops(shop: &Shop, topic: &str, words: &[&str]) {
    let run = shop.program("run").start();
    for name in LANES {
        let message = run
            .reports(&format!("lane {name} has stopped"), |status| {
                let lane = lane(status, name)?;
                (lane["state"] == "stopped")
                    .then(|| lane["last_error"]["message"].as_str().map(str::to_owned))
            })
            .await;
        let message = message.unwrap_or_default();
        for word in [topic, "on_data_loss"].iter().chain(words) {
            assert!(message.contains(word), "lane {name}: no {word:?} in {message:?}");
        }
    }
    assert_eq!(run.get("readyz").await.unwrap().0, 503, "/readyz with stopped lanes");
    assert_eq!(run.get("livez").await.unwrap().0, 200, "/livez with stopped lanes");
    drop(run);
    let mut run = shop.program("run").argument("--until-caught-up").start();
    run.exits_with(1, Duration::from_mins(1)).await;
    assert!(run.log().contains("on_data_loss"), "the log does not say how to go on");
}

async fn goes_on_when_told_to(shop: &Shop) {
    let mut run = shop
        .program("run")
        .environment("ALLUVIUM__KAFKA__ON_DATA_LOSS", "continue")
        .argument("--until-caught-up")
        .start();
    run.exits_with(0, Duration::from_secs(90)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_created_again_stops_the_lanes() {
    let shop = Plan::new("recreated").open().await;
    work(&shop, seed(), 2, 400).await;
    shop.catch_up().await;
    let topic = shop.topic("customers");
    let broker = shop.broker();
    let records = broker.read_all(&topic);
    broker.delete_topic(&topic).await;
    broker.create_topic(&topic, 1).await;
    // The new log is longer than the position: by offsets alone nobody could tell.
    for record in &records {
        broker.write(&topic, 0, record.key.as_deref(), record.value.as_deref());
    }
    for record in records.iter().rev().take(5).rev() {
        broker.write(&topic, 0, record.key.as_deref(), record.value.as_deref());
    }
    every_lane_stops(&shop, &topic, &[]).await;
    goes_on_when_told_to(&shop).await;
    table_equal(&shop, "customers").await.unwrap();
    // From then on the new log is the log.
    work(&shop, seed(), 2, 200).await;
    shop.catch_up().await;
    for table in crate::shop::TABLES {
        table_equal(&shop, table).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_has_expired_stops_the_lanes() {
    let shop = Plan::new("expired").open().await;
    shop.catch_up().await;
    work(&shop, seed(), 2, 600).await;
    shop.delivered().await;
    let (topic, broker) = (shop.topic("orders"), shop.broker());
    let (first, end) = broker.watermarks(&topic, 0);
    assert!(end - first > 40, "too few orders to remove some: {first} to {end}");
    broker.delete_records_before(&topic, 0, end - 20).await;
    every_lane_stops(&shop, &topic, &[&(end - 20).to_string()]).await;
    goes_on_when_told_to(&shop).await;
    for table in ["customers", "products", "order_items"] {
        table_equal(&shop, table).await.unwrap();
    }
    // What is gone is gone; what is sent again heals.
    shop.source.batch_execute("UPDATE public.orders SET paid = NOT paid").await.unwrap();
    shop.catch_up().await;
    let missing = table_equal(&shop, "orders").await;
    // Orders that were deleted within the gap stay: only those may differ.
    if let Err(differences) = missing {
        assert!(!differences.contains("1 rows in the source"), "an order is missing\n{differences}");
        assert!(!differences.contains(": source"), "an order differs\n{differences}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_beyond_the_end_stops_the_lanes() {
    let mut plan = Plan::new("beyond");
    plan.alone = true;
    let shop = plan.open().await;
    work(&shop, seed(), 2, 400).await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;
    // The broker loses the partition's log as a broken disk would: the topic stays, its records are gone.
    let topic = shop.topic("products");
    let before = shop.broker().watermarks(&topic, 0).1;
    shop.stack.kill_kafka();
    std::fs::remove_dir_all(shop.stack.partition_folder(&topic, 0)).unwrap();
    shop.stack.start_kafka();
    shop.stack.connect().running(&shop.name).await;
    let end = shop.broker().watermarks(&topic, 0).1;
    assert!(end < before, "the log still ends at {end}");
    every_lane_stops(&shop, &topic, &[&before.to_string()]).await;
    goes_on_when_told_to(&shop).await;
    work(&shop, seed(), 2, 200).await;
    shop.catch_up().await;
    for table in crate::shop::TABLES {
        table_equal(&shop, table).await.unwrap();
    }
}
