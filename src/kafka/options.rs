//! Settings of a consumer, and the librdkafka properties that they become.
//!
//! The user's properties override the defaults here, but for those that a guarantee rests on: they are refused rather than
//! ignored (`accepted`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use super::ConsumerError;
use super::accepted::refusal;

/// What to do when records are gone before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDataLoss {
    /// Stop with an error that names the partition and the offsets.
    #[default]
    Halt,
    /// Warn, and go on with what is there.
    Continue,
}

/// Settings of a consumer.
#[derive(Clone)]
pub struct ConsumerOptions {
    /// `host:port`, several with commas between.
    pub bootstrap_servers: String,
    /// The consumer group; one for each lane.
    pub group_id: String,
    /// Topic names, or regular expressions that begin with `^`.
    pub topics: Vec<String>,
    /// librdkafka properties of the user. `Debug` shows their names only.
    pub properties: BTreeMap<String, String>,
    /// What to do when records are gone before they were read.
    pub on_data_loss: OnDataLoss,
    /// Bytes of a chunk: one is handed over when it has reached this size, or after 20 ms.
    pub chunk_bytes: usize,
    /// Chunks that may wait to be taken before reading stops.
    pub queue_chunks: usize,
    /// Whether to ask the broker for the ids of cluster and topics. Off for the embedded broker, which has none.
    pub identity: bool,
    /// How often new topics and partitions are looked for, and topic ids compared.
    pub metadata_refresh: Duration,
}

impl ConsumerOptions {
    /// Default settings to read `topics` as a member of `group_id`.
    pub fn new(
        bootstrap_servers: impl Into<String>,
        group_id: impl Into<String>,
        topics: Vec<String>,
    ) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            group_id: group_id.into(),
            topics,
            properties: BTreeMap::new(),
            on_data_loss: OnDataLoss::Halt,
            chunk_bytes: 1024 * 1024,
            queue_chunks: 16,
            identity: true,
            metadata_refresh: Duration::from_secs(10),
        }
    }

    /// The client's configuration for reading as a member of the group.
    pub(super) fn consumer_config(&self) -> Result<ClientConfig, ConsumerError> {
        let mut config = self.connection_config()?;
        let refresh = self.metadata_refresh.as_millis().clamp(10, 3_600_000).to_string();
        let defaults = [
            // Whether a position still exists is decided by us, with the log's offsets at hand: never by a reset.
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("isolation.level", "read_committed"),
            // The default of a second halves the throughput of a consumer that waits for its sink.
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.wait.max.ms", "100"),
            ("queued.min.messages", "100000"),
            ("queued.max.messages.kbytes", "32768"),
            // How long a wedged member may hold its partitions; longer than a revocation may take.
            ("max.poll.interval.ms", "120000"),
            ("topic.metadata.refresh.interval.ms", refresh.as_str()),
        ];
        for (key, value) in defaults {
            config.set(key, value);
        }
        // The broker owns these in the newer group protocol, and the client refuses them there.
        if self.properties.get("group.protocol").is_none_or(|protocol| protocol != "consumer") {
            config.set("partition.assignment.strategy", "cooperative-sticky");
            // After a kill the partitions wait this long for the next instance.
            config.set("session.timeout.ms", "10000");
            config.set("heartbeat.interval.ms", "1000");
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config.set("group.id", &self.group_id);
        Ok(config)
    }

    /// The client's configuration for asking about topics only.
    pub(super) fn connection_config(&self) -> Result<ClientConfig, ConsumerError> {
        for (key, value) in &self.properties {
            if let Some(reason) = refusal(key, value) {
                return Err(ConsumerError::Refused { key: key.clone(), reason });
            }
        }
        let mut config = ClientConfig::new();
        config.set("client.id", "alluvium");
        config.set("reconnect.backoff.max.ms", "2000");
        config.set("socket.keepalive.enable", "true");
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set_log_level(if self.properties.contains_key("debug") {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Info
        });
        Ok(config)
    }
}

impl fmt::Debug for ConsumerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of properties may be secrets, and a list of secret names would miss some.
        f.debug_struct("ConsumerOptions")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group_id", &self.group_id)
            .field("topics", &self.topics)
            .field("properties", &self.properties.keys())
            .field("on_data_loss", &self.on_data_loss)
            .field("chunk_bytes", &self.chunk_bytes)
            .field("queue_chunks", &self.queue_chunks)
            .field("identity", &self.identity)
            .field("metadata_refresh", &self.metadata_refresh)
            .finish()
    }
}

/// The client's complaint as ours, without the values of properties: they may be secrets.
pub(super) fn creation_error(error: KafkaError) -> ConsumerError {
    match error {
        KafkaError::ClientConfig(_, reason, key, value) => {
            let reason = if value.is_empty() { reason } else { reason.replace(&value, "…") };
            ConsumerError::Property { key, reason }
        }
        KafkaError::ClientCreation(reason) => ConsumerError::Client { reason },
        other => ConsumerError::Client { reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> ConsumerOptions {
        let mut options = ConsumerOptions::new("localhost:9092", "g", vec!["t".into()]);
        options.properties.insert(key.into(), value.into());
        options
    }

    #[test]
    fn refuses_properties_that_would_break_exactly_once() {
        for (key, value) in [
            ("enable.auto.commit", "true"),
            ("enable.auto.offset.store", "true"),
            ("auto.offset.reset", "latest"),
            ("isolation.level", "read_uncommitted"),
            ("group.id", "other"),
            ("bootstrap.servers", "other:9092"),
        ] {
            match with(key, value).consumer_config() {
                Err(ConsumerError::Refused { key: refused, .. }) => assert_eq!(refused, key),
                other => panic!("{key}={value}: {other:?}"),
            }
        }
        assert!(with("isolation.level", "read_committed").consumer_config().is_ok());
    }

    #[test]
    fn properties_override_defaults() {
        let config = with("fetch.wait.max.ms", "7").consumer_config().unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
    }

    #[test]
    fn the_broker_side_group_protocol_gets_none_of_the_classic_settings() {
        let config = with("group.protocol", "consumer").consumer_config().unwrap();
        for key in ["partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms"] {
            assert_eq!(config.get(key), None, "{key}");
        }
    }

    #[test]
    fn debug_output_has_no_property_values() {
        let shown = format!("{:?}", with("sasl.password", "hunter2"));
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_rejected_value_is_not_repeated() {
        let config = with("socket.timeout.ms", "s3cret").consumer_config().unwrap();
        let error = config.create_native_config().err().map(creation_error).unwrap();
        let message = error.to_string();
        assert!(message.contains("socket.timeout.ms") && !message.contains("s3cret"), "{message}");
    }
}
