//! Positions that no longer fit the log: no gap goes unseen, and the message says how to go on.

use std::time::Duration;

use crate::daemon::lane;
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{assert_all_equal, count_rows, table_equal};
use crate::shop::{Plan, Shop};
use crate::workload::{seed, work};

const LANES: [&str; 3] = ["lake", "datalake", "target"];

/// A run has nothing left to do once every lane has stopped: it fails, and says for each lane what happened to the
/// topic and what to do.
async fn every_lane_stops(shop: &Shop, topic: &str, words: &[&str]) {
    for argument in [None, Some("--until-caught-up")] {
        let program = shop.program("run");
        let mut run = match argument {
            None => program.start(),
            Some(argument) => program.argument(argument).start(),
        };
        run.exits_with(1, Duration::from_mins(1)).await;
        let log = run.log();
        for name in LANES {
            let lane = format!("\"lane\":\"{name}\"");
            let line = log.lines().find(|line| line.contains(&lane) && line.contains("\"ERROR\""));
            let line = line.unwrap_or_else(|| panic!("lane {name} does not say why it stopped:\n{log}"));
            for word in [topic, "on_data_loss"].iter().chain(words) {
                assert!(line.contains(word), "no {word:?} in {line}");
            }
        }
    }
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
async fn a_lane_whose_position_has_expired_stops_alone() {
    let shop = Plan::new("left_behind").open().await;
    shop.catch_up().await;
    // The target misses a part of the log that the other lanes have read.
    let settings = std::fs::read_to_string(&shop.settings).unwrap();
    let (others, target) = settings.split_once("[mirrors.target]").unwrap();
    std::fs::write(&shop.settings, others).unwrap();
    work(&shop, seed(), 2, 300).await;
    shop.catch_up().await;
    std::fs::write(&shop.settings, format!("{others}[mirrors.target]{target}")).unwrap();
    let (topic, broker) = (shop.topic("orders"), shop.broker());
    let end = broker.watermarks(&topic, 0).1;
    broker.delete_records_before(&topic, 0, end).await;

    let mut run = shop.program("run").start();
    let message = run
        .reports("lane target has stopped", |status| {
            let lane = lane(status, "target")?;
            (lane["state"] == "stopped").then(|| lane["last_error"]["message"].as_str().map(str::to_owned))
        })
        .await
        .unwrap_or_default();
    for word in [&topic, "on_data_loss", &end.to_string()] {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
    shop.source.execute("INSERT INTO public.barrier VALUES (88, 88)", &[]).await.unwrap();
    eventually("the lake goes on", PATIENCE, || async {
        run.assert_runs();
        let rows = count_rows(&shop.lake.join("barrier")).await?;
        if rows == 2 { Ok(()) } else { Err(format!("{rows} of 2 rows")) }
    })
    .await;
    run.reports("the other lanes are running", |status| {
        let runs = |name: &&str| lane(status, name).is_some_and(|lane| lane["state"] == "running");
        ["lake", "datalake"].iter().all(runs).then_some(())
    })
    .await;
    assert_eq!(run.get("readyz").await.unwrap().0, 503, "/readyz with a stopped lane");
    assert_eq!(run.get("livez").await.unwrap().0, 200, "/livez with a stopped lane");
    run.terminate();
    run.exits_with(1, Duration::from_secs(20)).await;
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
    // The new offsets begin below the former position, and grow beyond it before the next run: told once, the program
    // neither asks again nor takes the new records for those that it has.
    work(&shop, seed(), 2, 800).await;
    shop.delivered().await;
    let end = shop.broker().watermarks(&topic, 0).1;
    assert!(end > before, "the new log ends at {end}, before the former position {before}");
    shop.catch_up().await;
    for table in crate::shop::TABLES {
        table_equal(&shop, table).await.unwrap();
    }
}
