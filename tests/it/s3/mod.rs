//! The lake on object storage: the same tables, through crashes, two writers, and a store that is away.

mod server;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::{Daemon, Running, lane};
use crate::oracle::{assert_all_equal, postgres_rows, source_columns};
use crate::shop::{Plan, Shop};
use crate::workload::{Crowd, seed};

use server::Server;

const KILLS: usize = 6;
/// How long the store is away: longer than the library's own ten attempts at a request take.
const OUTAGE: Duration = Duration::from_secs(20);

/// A run of the program with its lake on the server.
fn program(shop: &Shop, server: &Server, command: &str) -> Daemon {
    let mut program = shop.program(command).environment("ALLUVIUM__LAKE__URI", &Server::lake());
    for (name, value) in server.options() {
        program = program.environment(&format!("ALLUVIUM__LAKE__STORAGE_OPTIONS__{name}"), &value);
    }
    program
}

fn records(status: &Value) -> u64 {
    lane(status, "lake").and_then(|lane| lane["records"].as_u64()).unwrap_or_default()
}

async fn commits(run: &Running) {
    let before = run.reports("the lake's records", |status| Some(records(status))).await;
    run.reports("the lake commits", |status| (records(status) > before).then_some(())).await;
}

/// Reads all that lies on Kafka, and compares every copy with the source.
async fn assert_equal(shop: &Shop, server: &Server) {
    shop.delivered().await;
    let mut run = program(shop, server, "run").argument("--until-caught-up").start();
    run.exits_with(0, Duration::from_mins(3)).await;
    server.copy_lake_to(&shop.lake).await;
    assert_all_equal(shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_on_s3_survives_kills_and_two_writers() {
    let mut plan = Plan::new("s3");
    plan.partitions = 3;
    let shop = plan.open().await;
    let server = Server::start().await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let crowd = Crowd::start(&shop, seed, 3, Duration::from_millis(40)).await;
    let mut other = program(&shop, &server, "run").start();
    commits(&other).await;
    for kill in 0..KILLS {
        // The two write to the same tables: each has some of every topic's partitions.
        let mut run = program(&shop, &server, "run").start();
        commits(&run).await;
        // Not a wait for something: the random instant is what this test is about.
        tokio::time::sleep(Duration::from_millis(random.u64(0..500))).await;
        assert!(run.ended().is_none(), "it ended by itself before kill {kill}");
        other.kill();
        other = run;
    }
    crowd.finish().await;
    other.stop().await;
    assert_equal(&shop, &server).await;

    let count = program(&shop, &server, "query")
        .argument("SELECT count(*) AS n FROM customers")
        .argument("--output")
        .argument("json")
        .output()
        .json();
    let columns = source_columns(&shop.source, "customers").await;
    let source = postgres_rows(&shop.source, "public.customers", &columns).await.unwrap();
    assert_eq!(count[0]["n"].as_u64(), Some(source.len() as u64));
    let check = program(&shop, &server, "check").argument("--connect").output();
    assert!(check.stdout.contains(&format!("{} can be written", Server::lake())), "{check:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_is_away_delays_only_the_lake_and_loses_nothing() {
    let shop = Plan::new("s3_away").open().await;
    let mut server = Server::start().await;
    let crowd = Crowd::start(&shop, seed(), 2, Duration::from_millis(40)).await;
    let mut run = program(&shop, &server, "run").start();
    commits(&run).await;

    server.close().await;
    let closed = Instant::now();
    run.reports("the lake is retrying, and the mirrors go on", |status| {
        let message = lane(status, "lake")?["last_error"]["message"].as_str()?;
        let mirrors = ["datalake", "target"]
            .iter()
            .all(|name| lane(status, name).is_some_and(|lane| lane["state"] == "running"));
        let retrying = lane(status, "lake")?["state"] == "retrying" && message.contains("storage");
        (retrying && mirrors && closed.elapsed() > OUTAGE).then_some(())
    })
    .await;
    assert_eq!(run.get("readyz").await.unwrap().0, 503, "/readyz while the store is away");
    let check = program(&shop, &server, "check").argument("--connect").output();
    assert_eq!(check.code, Some(3), "{check:#?}");

    server.open().await;
    commits(&run).await;
    crowd.finish().await;
    run.ready().await;
    run.stop().await;
    assert_equal(&shop, &server).await;
}
