//! Why a consumer cannot start or go on, each with the setting that changes it.

use crate::change::TopicPartition;

/// Why a consumer cannot start, or has stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumerError {
    /// A librdkafka property that the client does not know or whose value it does not accept.
    #[error("kafka.properties: \"{key}\" is not accepted: {reason}")]
    Property {
        /// Name of the property.
        key: String,
        /// What the client says, without the value of a secret.
        reason: String,
    },
    /// A librdkafka property that would break a guarantee.
    #[error("kafka.properties: \"{key}\" cannot be set: {reason}")]
    Refused {
        /// Name of the property.
        key: String,
        /// What it would break, and what to set instead.
        reason: &'static str,
    },
    /// An entry of `kafka.topics` that is neither a name nor a regular expression.
    #[error(
        "kafka.topics: \"{pattern}\" is not a topic name or a regular expression that begins with ^: {reason}"
    )]
    Topic {
        /// The entry.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// The client could not be made.
    #[error("the Kafka client cannot start: {reason}; see kafka.bootstrap_servers and kafka.properties")]
    Client {
        /// What the client says.
        reason: String,
    },
    /// No broker answers.
    #[error(
        "no Kafka broker answers at \"{servers}\": {reason}; see kafka.bootstrap_servers, and kafka.properties for \
         TLS and SASL"
    )]
    Unreachable {
        /// The value of `kafka.bootstrap_servers`.
        servers: String,
        /// What the client says.
        reason: String,
    },
    /// The sink could not say where the partitions start.
    #[error("the stored positions cannot be read: {reason}")]
    Positions {
        /// What the sink says.
        reason: String,
    },
    /// Offsets or topic ids could not be read from Kafka in time.
    #[error("Kafka does not tell the {what} of the assigned partitions: {reason}")]
    Lookup {
        /// What was asked for.
        what: &'static str,
        /// What the client says.
        reason: String,
    },
    /// Retention has removed records that were not read yet.
    #[error(
        "records of {partition} were removed before they were read: the stored position is {stored}, and the log \
         begins at {low} (end {high}). The records between are gone from Kafka; set kafka.on_data_loss = \"continue\" \
         to go on at {low}, and compare the tables with the source afterwards"
    )]
    Expired {
        /// The partition.
        partition: TopicPartition,
        /// The position that the sink has stored.
        stored: i64,
        /// First offset of the log.
        low: i64,
        /// End offset of the log.
        high: i64,
    },
    /// The log ends before the stored position.
    #[error(
        "the log of {partition} ends before the stored position {stored}: it reaches from {low} to {high}. It was \
         truncated, or the topic was created again; set kafka.on_data_loss = \"continue\" to go on at {resume}, and \
         compare the tables with the source afterwards"
    )]
    BeyondEnd {
        /// The partition.
        partition: TopicPartition,
        /// The position that the sink has stored.
        stored: i64,
        /// First offset of the log.
        low: i64,
        /// End offset of the log.
        high: i64,
        /// Where it would go on.
        resume: i64,
    },
    /// The topic was deleted and created again.
    #[error(
        "the topic of {partition} was deleted and created again: the stored position {stored} counts in the topic \
         with id {was}, and the topic has id {is} now (offsets {low} to {high}). Records of the old topic may be \
         missing; set kafka.on_data_loss = \"continue\" to read the new topic from its beginning, and compare the \
         tables with the source afterwards"
    )]
    Recreated {
        /// The partition.
        partition: TopicPartition,
        /// The position in the old topic.
        stored: i64,
        /// Id of the old topic.
        was: String,
        /// Id of the new topic.
        is: String,
        /// First offset of the new log.
        low: i64,
        /// End offset of the new log.
        high: i64,
    },
    /// The position counts in another cluster.
    #[error(
        "the stored position {stored} of {partition} counts in the Kafka cluster {was}, and this is the cluster {is} \
         (offsets {low} to {high}). Check kafka.bootstrap_servers; if the cluster was replaced, set \
         kafka.on_data_loss = \"continue\" to read its topics from their beginning"
    )]
    OtherCluster {
        /// The partition.
        partition: TopicPartition,
        /// The position in the old cluster.
        stored: i64,
        /// Id of the old cluster.
        was: String,
        /// Id of this cluster.
        is: String,
        /// First offset of the log here.
        low: i64,
        /// End offset of the log here.
        high: i64,
    },
    /// Kafka refused the position of a partition, and it cannot be told of which.
    #[error("Kafka refuses a position: {reason}; restart to have all positions checked")]
    Position {
        /// What the client says.
        reason: String,
    },
    /// Records that the client cannot decode; it would skip them.
    #[error("records cannot be read: {reason}")]
    Unreadable {
        /// What the client says, with the partition and offset.
        reason: String,
    },
    /// An error that waiting was given a minute to cure: authentication, authorization, group protocol.
    #[error(
        "Kafka refuses this client ({class}), for over a minute: {reason}; see kafka.properties and the broker's ACLs"
    )]
    Refusal {
        /// Class of the error.
        class: &'static str,
        /// What the client says.
        reason: String,
    },
    /// The client cannot go on.
    #[error("the Kafka client has failed: {reason}")]
    Fatal {
        /// What the client says.
        reason: String,
    },
}

impl ConsumerError {
    /// Class for the metric of errors.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Property { .. } | Self::Refused { .. } | Self::Topic { .. } | Self::Client { .. } => {
                "settings"
            }
            Self::Unreachable { .. } | Self::Lookup { .. } => "connection",
            Self::Positions { .. } => "positions",
            Self::Expired { .. }
            | Self::BeyondEnd { .. }
            | Self::Recreated { .. }
            | Self::OtherCluster { .. } => "data_loss",
            Self::Position { .. } => "position",
            Self::Unreadable { .. } => "unreadable",
            Self::Refusal { class, .. } => class,
            Self::Fatal { .. } => "fatal",
        }
    }

    /// Whether starting over from the stored positions cannot help: somebody has to do what the message says.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Property { .. }
            | Self::Refused { .. }
            | Self::Topic { .. }
            | Self::Client { .. }
            | Self::Expired { .. }
            | Self::BeyondEnd { .. }
            | Self::Recreated { .. }
            | Self::OtherCluster { .. }
            | Self::Unreadable { .. }
            | Self::Refusal { .. } => true,
            Self::Unreachable { .. }
            | Self::Positions { .. }
            | Self::Lookup { .. }
            | Self::Position { .. }
            | Self::Fatal { .. } => false,
        }
    }
}
