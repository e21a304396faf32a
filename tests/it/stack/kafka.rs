//! The broker as tests see it: records read and written directly, topics made and removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Key and value of a record to be written.
pub type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A record as it lies on the broker.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; a tombstone has none.
    pub value: Option<Vec<u8>>,
}

/// The broker of a stack.
#[derive(Debug, Clone)]
pub struct Broker {
    bootstrap: String,
}

impl Broker {
    /// The broker at `host:port`.
    pub fn new(bootstrap: String) -> Self {
        Self { bootstrap }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Partitions of each topic whose name begins with `prefix`.
    pub fn partitions(&self, prefix: &str) -> BTreeMap<String, Vec<i32>> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
        let topics = metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix));
        topics
            .map(|topic| {
                (
                    topic.name().to_owned(),
                    topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect(),
                )
            })
            .collect()
    }

    /// First offset and end of a partition.
    pub fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let start = Instant::now();
        loop {
            match consumer.fetch_watermarks(topic, partition, TIMEOUT) {
                Ok(found) => return found,
                // A broker that has just started does not lead its partitions yet.
                Err(error) => assert!(start.elapsed() < TIMEOUT, "{topic}/{partition}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The offset that a group has committed for a partition, as lag tools see it.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(topic, partition);
        let committed = consumer.committed_offsets(wanted, TIMEOUT).unwrap();
        match committed.find_partition(topic, partition).map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        }
    }

    /// Every record that lies in the topics whose names begin with `prefix`.
    pub fn read_all(&self, prefix: &str) -> Vec<Stored> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", format!("oracle-{prefix}"))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        let mut open = 0;
        for (topic, partitions) in self.partitions(prefix) {
            for partition in partitions {
                assignment.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
                open += 1;
            }
        }
        consumer.assign(&assignment).unwrap();
        let mut records = Vec::new();
        let start = Instant::now();
        while open > 0 {
            assert!(start.elapsed() < Duration::from_mins(1), "{prefix}*: {open} partitions without end");
            match consumer.poll(Duration::from_millis(500)) {
                None => {}
                Some(Ok(message)) => records.push(Stored {
                    topic: message.topic().to_owned(),
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                }),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("reading {prefix}*: {error}"),
            }
        }
        records
    }

    /// Writes a record and returns its offset.
    pub fn write(&self, topic: &str, partition: i32, key: Option<&[u8]>, value: Option<&[u8]>) -> i64 {
        let producer: BaseProducer = self.client().create().unwrap();
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(TIMEOUT).unwrap();
        // Nobody else writes to this partition while a test does.
        self.watermarks(topic, partition).1 - 1
    }

    /// Writes many records to partition 0 of a topic, each with a header; somebody else may write there meanwhile.
    pub fn write_all(&self, topic: &str, records: &[KeyAndValue]) {
        let producer: BaseProducer = self.client().create().unwrap();
        for (key, value) in records {
            let header = rdkafka::message::Header { key: "origin", value: Some(b"test") };
            let headers = rdkafka::message::OwnedHeaders::new().insert(header);
            let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).headers(headers);
            if let Some(key) = key {
                record = record.key(key);
            }
            if let Some(value) = value {
                record = record.payload(value);
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
            producer.poll(Duration::ZERO);
        }
        producer.flush(TIMEOUT).unwrap();
    }

    /// Writes records once more, to their partitions and in their order.
    pub fn write_again(&self, records: &[Stored]) {
        let producer: BaseProducer = self.client().create().unwrap();
        for stored in records {
            let mut record = BaseRecord::<[u8], [u8]>::to(&stored.topic).partition(stored.partition);
            if let Some(key) = &stored.key {
                record = record.key(key);
            }
            if let Some(value) = &stored.value {
                record = record.payload(value);
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
            producer.poll(Duration::ZERO);
        }
        producer.flush(TIMEOUT).unwrap();
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Removes a topic. Returns when the broker no longer has it.
    pub async fn delete_topic(&self, topic: &str) {
        for result in self.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
        crate::eventually::eventually("the topic is gone", TIMEOUT, || async {
            if self.partitions(topic).is_empty() { Ok(()) } else { Err(topic.to_owned()) }
        })
        .await;
    }

    /// Makes a topic.
    pub async fn create_topic(&self, topic: &str, partitions: i32) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for result in self.admin().create_topics(&[new], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
    }

    /// Makes a topic in which only the newest record of each key stays.
    pub async fn create_compacted_topic(&self, topic: &str, partitions: i32) {
        let new =
            NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
        for result in self.admin().create_topics(&[new], &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
    }

    /// Removes the records of a partition before `offset`, as retention would.
    pub async fn delete_records_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        self.admin().delete_records(&offsets, &AdminOptions::new()).await.unwrap();
        assert_eq!(self.watermarks(topic, partition).0, offset, "first offset of {topic}/{partition}");
    }
}
