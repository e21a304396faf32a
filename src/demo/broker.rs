//! The embedded broker: librdkafka's mock cluster, listening on a port of its own on 127.0.0.1.
//!
//! It is a real listener that other processes can reach, with the limits of a mock: it forgets everything when it is
//! dropped, it has no topic ids, it retains 5 MiB a partition and drops the oldest records beyond that without a word
//! (see [`super::flow`]), and it answers an empty fetch only after `fetch.wait.max.ms`, even when records arrive
//! meanwhile.

use std::sync::mpsc;
use std::thread::JoinHandle;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;

/// Consumer settings (librdkafka's names) that suit the embedded broker: a short wait on empty fetches, and the group
/// protocol that hands out partitions at once, where the classic one waits three seconds for more members.
pub const CONSUMER_PROPERTIES: [(&str, &str); 2] =
    [("fetch.wait.max.ms", "20"), ("group.protocol", "consumer")];

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Its thread could not be made.
    #[error("the embedded broker got no thread: {0}")]
    Thread(#[from] std::io::Error),
    /// librdkafka refused.
    #[error("the embedded broker did not start: {0}")]
    Kafka(#[from] KafkaError),
    /// It ended before it said where it listens.
    #[error("the embedded broker ended before it listened")]
    Ended,
}

/// A running broker; it ends, with all its records, when this is dropped.
#[derive(Debug)]
pub struct Broker {
    bootstrap_servers: String,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker with these topics, each with that many partitions.
    pub fn start(topics: Vec<String>, partitions: i32) -> Result<Self, BrokerError> {
        let (stop, stopped) = mpsc::channel::<()>();
        let (started, starting) = mpsc::channel();
        // The cluster cannot be sent to another thread: one thread makes it, holds it and drops it.
        let thread = std::thread::Builder::new().name("demo-broker".into()).spawn(move || {
            let cluster = open(&topics, partitions);
            let address = cluster.as_ref().map(MockCluster::bootstrap_servers).map_err(Clone::clone);
            let held = started.send(address).is_ok() && cluster.is_ok();
            if held {
                // An error says that the other end is gone, which also means stop.
                let _ = stopped.recv();
            }
        })?;
        let bootstrap_servers = starting.recv().map_err(|_| BrokerError::Ended)??;
        Ok(Self { bootstrap_servers, stop: Some(stop), thread: Some(thread) })
    }

    /// `host:port` for `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

fn open(
    topics: &[String],
    partitions: i32,
) -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaError> {
    let cluster = MockCluster::new(1)?;
    for topic in topics {
        cluster.create_topic(topic, partitions, 1)?;
    }
    Ok(cluster)
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A broker that panicked is gone, which is what is wanted here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Message;
    use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;
    use crate::change::TopicPartition;
    use crate::demo::flow::{FlowControl, LIMIT};

    const RECORD: usize = 10_000;
    const RECORDS: i64 = 2_000;

    /// Reads to the end, a chunk at a time, and says so to the flow control only after a chunk; returns what it saw.
    fn read_slowly(bootstrap_servers: &str, flow: &FlowControl, partition: &TopicPartition) -> Vec<i64> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap_servers).set("group.id", "slow");
        config.set("auto.offset.reset", "error").set("enable.auto.commit", "false");
        config.set("fetch.wait.max.ms", "20");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&partition.topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut seen = Vec::new();
        while (seen.len() as i64) < RECORDS && Instant::now() < deadline {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.unwrap();
                assert_eq!(message.payload().map(<[u8]>::len), Some(RECORD));
                seen.push(message.offset());
            }
            if seen.len() % 100 == 0 {
                flow.sunk(0, partition, seen.last().map_or(0, |last| last + 1));
            }
        }
        seen
    }

    #[test]
    fn twenty_megabytes_pass_through_one_partition_without_loss() {
        let broker = Broker::start(vec!["t".into()], 1).unwrap();
        let flow = Arc::new(FlowControl::new(LIMIT, 1));
        let partition = TopicPartition::new("t", 0);
        let reader = std::thread::spawn({
            let (flow, partition) = (Arc::clone(&flow), partition.clone());
            let bootstrap_servers = broker.bootstrap_servers().to_owned();
            move || read_slowly(&bootstrap_servers, &flow, &partition)
        });
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.bootstrap_servers());
        let producer: ThreadedProducer<_> = config.create().unwrap();
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..RECORDS {
            let payload: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(RECORD).collect();
            assert!(
                flow.wait_for_room(&partition, RECORD as u64, Duration::from_secs(30)),
                "the reader stands still"
            );
            flow.produced(&partition, RECORD as u64);
            producer
                .send(BaseRecord::<(), _>::to("t").partition(0).payload(&payload))
                .map_err(|(e, _)| e)
                .unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
        assert_eq!(reader.join().unwrap(), (0..RECORDS).collect::<Vec<_>>());
    }
}
