//! `kill -9`, as often as one likes and at the worst of instants: nothing is lost, nothing doubled.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use alluvium::failpoint;

use crate::daemon::lane;
use crate::eventually::PATIENCE;
use crate::oracle::assert_all_equal;
use crate::shop::Plan;
use crate::workload::{Crowd, seed, work};

const KILLS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_instants_lose_and_double_nothing() {
    let shop = Plan::new("kill").open().await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let crowd = Crowd::start(&shop, seed, 3, Duration::from_millis(40)).await;
    for kill in 0..KILLS {
        let mut run = shop.program("run").start();
        // A third dies while starting, the first ones while it makes the tables.
        if kill % 3 > 0 {
            run.reports("records were committed since the start", |status| {
                status["lanes"]
                    .as_array()?
                    .iter()
                    .any(|lane| lane["records"].as_u64() > Some(0))
                    .then_some(())
            })
            .await;
        }
        // Not a wait for something: the random instant is what this test is about.
        tokio::time::sleep(Duration::from_millis(random.u64(0..1_000))).await;
        assert!(run.ended().is_none(), "it ended by itself before kill {kill}");
        run.kill();
    }
    let statements = crowd.finish().await;
    shop.catch_up().await;
    eprintln!("{KILLS} kills during {statements} statements");
    assert_all_equal(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_each_failpoint_loses_and_doubles_nothing() {
    let shop = Plan::new("failpoints").open().await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for name in failpoint::ALL {
        work(&shop, seed, 2, 150).await;
        shop.delivered().await;
        let armed = format!("{name}:{}", random.u8(1..=2));
        eprintln!("failpoint {armed}");
        let mut run = shop.program("run").environment(failpoint::VARIABLE, &armed).start();
        let crowd = Crowd::start(&shop, seed, 1, Duration::from_millis(50)).await;
        let status = run.ends(PATIENCE).await;
        assert_eq!(status.signal(), Some(9), "at {armed} the program ended with {status}");
        crowd.finish().await;
        shop.catch_up().await;
        assert_all_equal(&shop).await;
    }
}

/// Kills at places between the commits of lake, mirrors and Kafka, one after the other, without a quiet point between.
const KILLS_BETWEEN_COMMITS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_between_the_commits_lose_and_double_nothing() {
    let shop = Plan::new("hundred").open().await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let crowd = Crowd::start(&shop, seed, 2, Duration::from_millis(40)).await;
    for kill in 0..KILLS_BETWEEN_COMMITS {
        let name = failpoint::ALL[kill % failpoint::ALL.len()];
        let armed = format!("{name}:{}", random.u8(1..=2));
        let mut run = shop.program("run").environment(failpoint::VARIABLE, &armed).start();
        let status = run.ends(PATIENCE).await;
        assert_eq!(status.signal(), Some(9), "kill {kill}, at {armed} the program ended with {status}");
    }
    let statements = crowd.finish().await;
    shop.catch_up().await;
    eprintln!("{KILLS_BETWEEN_COMMITS} kills during {statements} statements");
    assert_all_equal(&shop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_in_time_and_loses_nothing() {
    let shop = Plan::new("sigterm").open().await;
    let crowd = Crowd::start(&shop, seed(), 2, Duration::from_millis(20)).await;
    for _ in 0..4 {
        let mut run = shop.program("run").start();
        run.reports("the lake commits", |status| {
            (lane(status, "lake")?["records"].as_u64()? > 0).then_some(())
        })
        .await;
        run.stop().await;
    }
    crowd.finish().await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;
}
