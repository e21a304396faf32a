//! The consumer against librdkafka's own mock of a cluster: real protocol over real sockets, in this process.
mod loss;
mod reading;
mod rebalancing;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use super::{Chunk, Consumer, ConsumerOptions, Event, Events, Positions};
use crate::change::{StoredPosition, TopicIdentity, TopicPartition};

/// Generous: tests share the machine with each other, and the mock delays the first classic rebalance by 3 s.
const DEADLINE: Duration = Duration::from_mins(1);

/// A cluster of one broker, and a producer to it.
struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Cluster {
    fn new() -> Self {
        let mock = MockCluster::new(1).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("linger.ms", "1")
            .set("batch.num.messages", "200")
            .set("reconnect.backoff.max.ms", "200")
            .create()
            .unwrap();
        Self { mock, producer }
    }

    fn with_topic(topic: &str, partitions: i32) -> Self {
        let cluster = Self::new();
        cluster.mock.create_topic(topic, partitions, 1).unwrap();
        cluster
    }

    /// Options that join quickly: the broker-side protocol has no initial delay.
    fn options(&self, topics: &[&str]) -> ConsumerOptions {
        let mut options = self.classic_options(topics);
        options.properties.insert("group.protocol".into(), "consumer".into());
        options
    }

    fn classic_options(&self, topics: &[&str]) -> ConsumerOptions {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        let mut options = ConsumerOptions::new(self.mock.bootstrap_servers(), "lane", topics);
        options.identity = false;
        options.metadata_refresh = Duration::from_secs(1);
        options.properties.insert("fetch.wait.max.ms".into(), "10".into());
        options.properties.insert("reconnect.backoff.max.ms".into(), "200".into());
        options
    }

    /// Produces records whose key is the number and whose value is the number and `padding` bytes.
    fn produce(&self, topic: &str, partition: i32, numbers: Range<i64>, padding: usize) {
        for number in numbers {
            let (key, value) = (number.to_string(), format!("{number}:{}", "x".repeat(padding)));
            let mut record = BaseRecord::to(topic).partition(partition).key(&key).payload(&value);
            while let Err((_, back)) = self.producer.send(record) {
                record = back;
                self.producer.poll(Duration::from_millis(5));
            }
        }
        self.producer.flush(DEADLINE).unwrap();
    }
}

/// What a sink has stored; the simplest sink there is.
#[derive(Default)]
struct Stored(Mutex<HashMap<TopicPartition, StoredPosition>>);

impl Stored {
    fn none() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn at(topic: &str, partition: i32, next_offset: i64) -> Arc<Self> {
        let stored = Self::none();
        stored.set(TopicPartition::new(topic, partition), next_offset);
        stored
    }

    fn set(&self, partition: TopicPartition, next_offset: i64) {
        let position = StoredPosition { identity: TopicIdentity::unknown(), next_offset };
        self.0.lock().unwrap().insert(partition, position);
    }
}

impl Positions for Stored {
    fn start(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, StoredPosition>, String> {
        let stored = self.0.lock().unwrap();
        Ok(partitions.iter().filter_map(|each| Some((each.clone(), stored.get(each)?.clone()))).collect())
    }
}

fn start(options: ConsumerOptions, stored: &Arc<Stored>) -> (Consumer, Events) {
    Consumer::start(options, Arc::clone(stored) as Arc<dyn Positions>).unwrap()
}

/// Offsets by topic and partition, in the order in which they came.
#[derive(Default, Debug, PartialEq, Eq)]
struct Seen(BTreeMap<(String, i32), Vec<i64>>);

impl Seen {
    fn add(&mut self, chunk: &Chunk) {
        for record in chunk.iter() {
            self.0.entry((record.topic.to_string(), record.partition)).or_default().push(record.offset);
        }
    }

    fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn of(&self, topic: &str, partition: i32) -> &[i64] {
        self.0.get(&(topic.to_owned(), partition)).map_or(&[], Vec::as_slice)
    }

    /// Fails unless exactly the offsets of `range` came, in order.
    fn assert_exactly(&self, topic: &str, partition: i32, range: Range<i64>) {
        let seen = self.of(topic, partition);
        let wrong = seen.iter().zip(range.clone()).find(|&(&seen, expected)| seen != expected);
        assert_eq!(wrong, None, "{topic}/{partition}: (seen, expected)");
        assert_eq!(seen.len(), range.count(), "{topic}/{partition}: number of records");
    }
}

/// The next event; fails at the deadline and, unless a test looks for it, on failure of the consumer.
fn next(events: &Events) -> Event {
    events.recv_timeout(DEADLINE).expect("an event before the deadline")
}

/// Reads until `enough`; gives the other events that came on the way.
fn read_until(events: &Events, seen: &mut Seen, enough: impl Fn(&Seen) -> bool) -> Vec<Event> {
    let deadline = Instant::now() + DEADLINE;
    let mut others = Vec::new();
    while !enough(seen) {
        assert!(Instant::now() < deadline, "only {} records came, and {others:?}", seen.len());
        match next(events) {
            Event::Records(chunk) => seen.add(&chunk),
            Event::Failed(error) => panic!("{error}"),
            other => others.push(other),
        }
    }
    others
}

/// The first event that `wanted` gives something for; others are dropped.
fn wait_for<T>(events: &Events, wanted: impl Fn(Event) -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "the event did not come");
        if let Some(found) = wanted(next(events)) {
            return found;
        }
    }
}
