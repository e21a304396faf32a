//! What the counters say adds up to what lies on Kafka: nothing is dropped without a name.

use crate::eventually::{PATIENCE, eventually};
use crate::shop::{Plan, Shop};
use crate::workload::{seed, work};

/// The lanes of every shop.
pub const LANES: [&str; 3] = ["lake", "datalake", "target"];

/// Counters each of which counts a record that no other one does.
const COUNTERS: [&str; 3] =
    ["alluvium_records_total", "alluvium_filtered_records_total", "alluvium_quarantined_records_total"];

/// What a lane has counted: the sum over all labels.
pub fn counted(metrics: &str, counter: &str, lane: &str) -> u64 {
    let of_lane = format!("lane=\"{lane}\"");
    metrics
        .lines()
        .filter(|line| line.strip_prefix(counter).is_some_and(|rest| rest.starts_with('{')))
        .filter(|line| line.contains(&of_lane))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

/// Records of each kind that becomes no change, and such as cannot be read.
async fn make_odd_records(shop: &Shop) {
    shop.source
        .batch_execute(
            "CREATE TABLE public.bag (word text);
             ALTER TABLE public.bag REPLICA IDENTITY FULL;
             INSERT INTO public.bag VALUES ('a'), ('a'), ('b');
             UPDATE public.bag SET word = 'c' WHERE word = 'b';
             DELETE FROM public.bag WHERE word = 'c';
             TRUNCATE public.bag;
             INSERT INTO public.bag VALUES ('d')",
        )
        .await
        .unwrap();
    shop.delivered().await;
    let (broker, topic) = (shop.broker(), shop.topic("customers"));
    broker.write(&topic, 0, Some(b"{\"id\":1}"), Some(b"{\"op\": oops"));
    broker.write(&topic, 0, Some(b"{\"id\":1}"), Some(b"[1, 2, 3]"));
    broker.write(&topic, 0, Some(b"{\"id\":-7}"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_counted_once_as_a_change_as_filtered_or_as_quarantined() {
    let shop = Plan::new("accounting").open().await;
    work(&shop, seed(), 2, 2_000).await;
    make_odd_records(&shop).await;

    // Without the heartbeats, of which there are ever more.
    let topics = format!("^{}\\.public\\..*", shop.name);
    let mut run = shop.program("run").environment("ALLUVIUM__KAFKA__TOPICS", &topics).start();
    let records = shop.broker().read_all(&format!("{}.public.", shop.name)).len() as u64;
    for lane in LANES {
        eventually(&format!("lane {lane} accounts for {records} records"), PATIENCE, || async {
            let (_, metrics) = run.get("metrics").await?;
            let counts = COUNTERS.map(|counter| counted(&metrics, counter, lane));
            if counts.iter().sum::<u64>() == records && counts.iter().all(|count| *count > 0) {
                Ok(())
            } else {
                Err(format!("changes, filtered and quarantined: {counts:?}"))
            }
        })
        .await;
    }
    run.stop().await;
}
