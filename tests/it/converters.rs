//! A connector whose converter is changed while its topics have records of the one before.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::oracle::table_equal;
use crate::shop::{Plan, Shop};

const LANES: [&str; 3] = ["lake", "datalake", "target"];

/// Records that may go into quarantine before a lane stops.
const LIMIT: usize = 5;

/// What Avro's converter of a schema registry writes: a byte 0, the number of the schema, the record.
fn avro(schema: u32, record: &[u8]) -> Vec<u8> {
    [&[0][..], &schema.to_be_bytes()[..], record].concat()
}

/// Records in quarantine by lane, where they all have this code.
fn kept(shop: &Shop, code: &str) -> BTreeMap<String, u64> {
    let list = shop.program("quarantine").argument("list").argument("--output").argument("json");
    let groups = list.output().json();
    let mut kept = BTreeMap::new();
    for group in groups.as_array().unwrap() {
        assert_eq!(group["code"], code, "{groups:#}");
        *kept.entry(group["lane"].as_str().unwrap().to_owned()).or_default() +=
            group["records"].as_u64().unwrap();
    }
    kept
}

fn everywhere(records: usize) -> BTreeMap<String, u64> {
    LANES.iter().map(|lane| ((*lane).to_owned(), records as u64)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_becomes_avro_is_kept_up_to_the_limit_and_then_stops_its_lanes() {
    let settings = format!("[quarantine]\nmax_records = {LIMIT}\n");
    let shop = Plan { settings, ..Plan::new("avro") }.open().await;
    shop.catch_up().await;
    // Of a value alone, and of key and value; what follows the number is a string and a long.
    let value = avro(42, b"\x08Anna\x80\x01");
    let keys = [b"{\"id\":1}".to_vec(), avro(41, b"\x02")];
    let keys = keys.iter().cycle().take(LIMIT + 3);
    let records: Vec<_> = keys.map(|key| (Some(key.clone()), Some(value.clone()))).collect();
    shop.broker().write_all(&shop.topic("customers"), &records);

    let mut run = shop.program("run").argument("--until-caught-up").start();
    run.exits_with(1, Duration::from_secs(90)).await;
    assert!(run.log().contains("quarantine.max_records"), "the log does not name the limit");
    assert_eq!(kept(&shop, "not_json"), everywhere(LIMIT));
    table_equal(&shop, "customers").await.unwrap();

    // The position is before the next one: nothing is skipped.
    shop.catches_up_without_limit().await;
    assert_eq!(kept(&shop, "not_json"), everywhere(records.len()));
    table_equal(&shop, "customers").await.unwrap();
}
