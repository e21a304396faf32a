//! Whether what is on the broker adds up to the shop.

use std::collections::BTreeSet;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::*;
use crate::demo::broker::Broker;
use crate::demo::flow::LIMIT;

const PARTITIONS: i32 = 2;

fn broker() -> Broker {
    Broker::start(TABLES.map(topic).to_vec(), PARTITIONS).unwrap()
}

fn options(broker: &Broker, rate: u32, duration: Duration) -> ProduceOptions {
    let size = ShopSize { customers: 100, products: 50, orders: 400 };
    let bootstrap_servers = broker.bootstrap_servers().to_owned();
    ProduceOptions { bootstrap_servers, partitions: PARTITIONS, rate, duration, seed: 1, size }
}

/// What a reader of all topics knows.
#[derive(Default)]
struct Follower {
    /// Topic and key payload of the rows that exist.
    rows: BTreeSet<(String, String)>,
    end: BTreeMap<TopicPartition, i64>,
    last_lsn: i64,
    events: u64,
    tombstones: u64,
}

impl Follower {
    fn read(&mut self, message: &impl Message) {
        assert!(message.headers().is_some_and(|headers| headers.count() == HEADERS.len()));
        let topic = message.topic().to_owned();
        let key = message.key().unwrap().to_vec();
        let partition = TopicPartition::new(topic.clone(), message.partition());
        let next = self.end.insert(partition, message.offset() + 1).unwrap_or(0);
        assert_eq!(next, message.offset(), "records of {topic}/{} are missing", message.partition());
        let Some(value) = message.payload() else {
            self.tombstones += 1;
            return;
        };
        self.events += 1;
        let value: serde_json::Value = serde_json::from_slice(value).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&key).unwrap();
        let row = (topic, parsed["payload"].to_string());
        match value["payload"]["op"].as_str().unwrap() {
            "r" | "c" => assert!(self.rows.insert(row), "inserted twice"),
            "u" => assert!(self.rows.contains(&row), "updated before it was there"),
            _ => assert!(self.rows.remove(&row), "deleted before it was there"),
        }
        self.last_lsn = self.last_lsn.max(value["payload"]["source"]["lsn"].as_i64().unwrap());
    }

    fn follow(mut self, broker: &str, flow: &FlowControl, done: &AtomicBool) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker).set("group.id", "follower").set("fetch.wait.max.ms", "20");
        config.set("auto.offset.reset", "error").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut all = TopicPartitionList::new();
        for table in TABLES {
            for partition in 0..PARTITIONS {
                all.add_partition_offset(&topic(table), partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&all).unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            match consumer.poll(Duration::from_millis(50)) {
                Some(message) => self.read(&message.unwrap()),
                None if done.load(Ordering::Relaxed) && self.end == flow.end() => return self,
                None => {}
            }
            if (self.events + self.tombstones).is_multiple_of(50) || done.load(Ordering::Relaxed) {
                self.end.iter().for_each(|(partition, next)| flow.sunk(0, partition, *next));
            }
        }
        panic!("the follower did not reach the end: {:?} of {:?}", self.end, flow.end());
    }
}

#[test]
fn a_follower_of_all_records_has_the_shops_rows() {
    let broker = broker();
    let flow = Arc::new(FlowControl::new(LIMIT, 1));
    let done = Arc::new(AtomicBool::new(false));
    let follower = std::thread::spawn({
        let (flow, done, servers) =
            (Arc::clone(&flow), Arc::clone(&done), broker.bootstrap_servers().to_owned());
        move || Follower::default().follow(&servers, &flow, &done)
    });
    let production =
        Production::start(options(&broker, 0, Duration::from_secs(2)), Arc::clone(&flow)).unwrap();
    let outcome = production.finish().unwrap();
    done.store(true, Ordering::Relaxed);
    let follower = follower.join().unwrap();
    assert_eq!((follower.events, follower.tombstones), (outcome.events, outcome.tombstones));
    assert_eq!(follower.end, outcome.end);
    let mut truth = BTreeSet::new();
    for table in TABLES {
        let names: Vec<_> = table.schema().key_names().collect();
        for ((id, line), _) in outcome.shop.rows(table) {
            let key = match names.as_slice() {
                [one] => serde_json::json!({ *one: id }),
                [one, two] => serde_json::json!({ *one: id, *two: line }),
                _ => panic!("keys have one or two columns"),
            };
            truth.insert((topic(table), key.to_string()));
        }
    }
    assert_eq!(follower.rows, truth);
    assert!(outcome.transactions > 1_000, "{} transactions in two seconds", outcome.transactions);
}

#[test]
fn the_rate_is_kept() {
    let broker = broker();
    let flow = Arc::new(FlowControl::new(u64::MAX, 1));
    let production = Production::start(options(&broker, 500, Duration::from_secs(2)), flow).unwrap();
    let live = production.live();
    let snapshot: u64 =
        Shop::open(1, ShopSize { customers: 100, products: 50, orders: 400 }, 0).snapshot().count() as u64;
    let outcome = production.finish().unwrap();
    let streamed = outcome.events - snapshot;
    assert!((900..=1_100).contains(&streamed), "{streamed} events in two seconds at 500 a second");
    assert_eq!(live.events.load(Ordering::Relaxed), outcome.events);
}

#[test]
fn a_shop_that_nobody_follows_stalls_and_ends_when_dropped() {
    let broker = broker();
    let flow = Arc::new(FlowControl::new(100_000, 1));
    let production =
        Production::start(options(&broker, 0, Duration::from_mins(10)), Arc::clone(&flow)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while flow.in_flight() == 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(flow.in_flight() > 0, "nothing was produced");
    let started = Instant::now();
    drop(production);
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?} to end", started.elapsed());
}
