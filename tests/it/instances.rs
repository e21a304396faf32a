//! Two instances of one pipeline: partitions move between them under load.

use std::time::Duration;

use serde_json::Value;

use crate::daemon::Running;
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{all_equal, assert_all_equal, becomes_equal};
use crate::shop::Plan;
use crate::workload::{Crowd, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_join_leave_and_crash_lose_and_double_nothing() {
    let mut plan = Plan::new("instances");
    plan.partitions = 3;
    let shop = plan.open().await;
    let crowd = Crowd::start(&shop, seed(), 3, Duration::from_millis(40)).await;

    let mut first = shop.program("run").start();
    commits(&first).await;
    let mut second = shop.program("run").start();
    commits(&second).await;
    // The first goes on with the partitions that it kept.
    let before = records(&first.status().await.unwrap());
    first
        .reports("it goes on after the second has joined", |status| (records(status) > before).then_some(()))
        .await;
    second.stop().await;
    // Alone again, it has to take back what the second had: told by the equality at the end.
    let mut third = shop.program("run").start();
    commits(&third).await;
    first.kill();
    crowd.finish().await;

    becomes_equal(&shop, &third).await;
    third.stop().await;
    assert_all_equal(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_frozen_cannot_write_over_its_successor() {
    let shop = Plan::new("frozen").open().await;
    let mut first = shop.program("run").start();
    commits(&first).await;
    let crowd = Crowd::start(&shop, seed(), 2, Duration::from_millis(20)).await;
    // Stopped long enough to be thrown out of the group, it wakes up with a batch in its hands.
    let pid = first.id().to_string();
    signal("-STOP", &pid);
    let mut second = shop.program("run").start();
    commits(&second).await;
    signal("-CONT", &pid);
    let seen = records(&second.status().await.unwrap());
    second.reports("the successor goes on", |status| (records(status) > seen).then_some(())).await;
    crowd.finish().await;
    shop.delivered().await;
    eventually("all copies equal the source", PATIENCE, || all_equal(&shop)).await;
    assert!(first.ended().is_none(), "the instance that was frozen ended by itself");
    first.stop().await;
    second.stop().await;
    assert_all_equal(&shop).await;
}

fn signal(name: &str, pid: &str) {
    let status = std::process::Command::new("kill").args([name, pid]).status().unwrap();
    assert!(status.success(), "kill {name} {pid}: {status}");
}

async fn commits(run: &Running) {
    run.reports("every lane has its partitions and one has committed", |status| {
        let assigned = status["lanes"].as_array()?.iter().all(|lane| lane["assigned"] == true);
        (assigned && records(status) > 0).then_some(())
    })
    .await;
}

/// Records that all lanes have committed since the start.
fn records(status: &Value) -> u64 {
    let lanes = status["lanes"].as_array();
    lanes.map_or(0, |lanes| lanes.iter().filter_map(|lane| lane["records"].as_u64()).sum())
}
