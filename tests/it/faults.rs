//! What the program stands on breaks: a mirror's database, Kafka, Connect, the disk of the lake.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Running, lane};
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{assert_all_equal, becomes_equal, count_rows, postgres_rows, rows_of, source_columns};
use crate::shop::{Plan, Shop};
use crate::workload::{Crowd, seed, work};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_is_down_delays_only_itself() {
    let mut plan = Plan::new("mirror_down");
    plan.own_target_server = true;
    let shop = plan.open().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;

    shop.target_server.kill();
    work(&shop, seed(), 2, 600).await;
    shop.delivered().await;
    let columns = source_columns(&shop.source, "orders").await;
    let source = postgres_rows(&shop.source, "public.orders", &columns).await.unwrap();
    eventually("the lake goes on without the mirror", PATIENCE, || async {
        let rows = count_rows(&shop.lake.join("orders")).await?;
        if rows == source.len() { Ok(()) } else { Err(format!("{rows} of {} orders", source.len())) }
    })
    .await;
    retrying(&run, "target").await;
    assert_eq!(run.get("readyz").await.unwrap().0, 503, "/readyz while a mirror is down");
    let status = run.status().await.unwrap();
    for other in ["lake", "datalake"] {
        assert_eq!(lane(&status, other).unwrap()["state"], "running", "{status:#}");
    }

    shop.target_server.start_again();
    becomes_equal(&shop, &run).await;
    run.ready().await;
    run.stop().await;
    assert_all_equal(&shop).await;
}

/// The lane says that it is retrying, and what the matter is.
async fn retrying(run: &Running, name: &str) {
    let message = run
        .reports(&format!("lane {name} is retrying"), |status| {
            let lane = lane(status, name)?;
            (lane["state"] == "retrying").then(|| lane["last_error"]["message"].clone())
        })
        .await;
    assert!(message.as_str().is_some_and(|text| !text.is_empty()), "no message: {message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_that_crashes_and_comes_back_loses_nothing() {
    let mut plan = Plan::new("kafka_down");
    plan.alone = true;
    let shop = plan.open().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;
    let crowd = Crowd::start(&shop, seed(), 2, Duration::from_millis(50)).await;
    progress(&run).await;
    shop.stack.kill_kafka();
    shop.stack.start_kafka();
    // Connect comes back by itself; its task may have to be told, which is the connector's affair and not ours.
    shop.stack.connect().running(&shop.name).await;
    progress(&run).await;
    crowd.finish().await;
    becomes_equal(&shop, &run).await;
    assert!(run.ended().is_none(), "the program ended by itself");
    run.ready().await;
    run.stop().await;
    assert_all_equal(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_that_crashes_and_comes_back_loses_nothing() {
    let mut plan = Plan::new("connect_down");
    plan.alone = true;
    let shop = plan.open().await;
    let mut run = shop.program("run").start();
    // A snapshot that is cut off is taken again, and rows deleted in between are never told of by Debezium.
    becomes_equal(&shop, &run).await;
    let crowd = Crowd::start(&shop, seed(), 2, Duration::from_millis(20)).await;
    progress(&run).await;
    shop.stack.kill_connect();
    shop.stack.start_connect();
    shop.stack.connect().running(&shop.name).await;
    crowd.finish().await;
    becomes_equal(&shop, &run).await;
    run.stop().await;
    assert_all_equal(&shop).await;
}

/// Returns when the lake has committed records that came after the call.
async fn progress(run: &Running) {
    let records = |status: &Value| lane(status, "lake").and_then(|lane| lane["records"].as_u64());
    let before = run.reports("the number of records", records).await;
    run.reports("the lake commits", |status| (records(status)? > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_writes_is_reported_and_recovered_from() {
    let shop = Plan::new("disk_full").open().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;
    // Files of the process can grow no more, as on a full disk; reading goes on. First a little, so that files are
    // cut off in the middle, then not at all.
    for limit in ["700", "0"] {
        limit_file_size(&run, limit);
        work(&shop, seed(), 2, 150).await;
        retrying(&run, "lake").await;
        still_readable(&shop).await;
        limit_file_size(&run, "unlimited");
        becomes_equal(&shop, &run).await;
    }
    run.ready().await;
    run.stop().await;
    assert_all_equal(&shop).await;
}

fn limit_file_size(run: &Running, bytes: &str) {
    let limit = format!("--fsize={bytes}:unlimited");
    let status = Command::new("prlimit").args(["--pid", &run.id().to_string(), &limit]).status();
    let status = status.unwrap_or_else(|error| panic!("prlimit (package util-linux): {error}"));
    assert!(status.success(), "prlimit {limit}: {status}");
}

/// What is committed can be read whatever the writer is going through.
async fn still_readable(shop: &Shop) {
    for table in ["customers", "orders", "cdc_events"] {
        rows_of(&shop.lake.join(table), "SELECT * FROM t").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_folder_that_is_away_stops_nothing_for_good() {
    let shop = Plan::new("folder_away").open().await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run).await;
    // A folder that cannot be written to, in a way that also holds for root: there is a file in its place.
    let (log, aside) = (shop.lake.join("customers/_delta_log"), shop.lake.join("customers/_aside"));
    std::fs::rename(&log, &aside).unwrap();
    std::fs::write(&log, "not a folder").unwrap();
    shop.source.execute("UPDATE public.customers SET name = 'meanwhile'", &[]).await.unwrap();
    retrying(&run, "lake").await;
    std::fs::remove_file(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    becomes_equal(&shop, &run).await;
    run.stop().await;
    assert_all_equal(&shop).await;
}
