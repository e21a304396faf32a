//! What the client calls back: rebalances, errors, its log.
//!
//! A rebalance is only noted here. The polling thread answers it right after the poll that delivered it, where it has
//! the state that the answer needs; the client waits for the answer, not for the callback.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

/// A change of the assignment that has not been answered yet.
pub(super) enum Rebalance {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// State that the client's callbacks share with the polling thread.
#[derive(Default)]
pub(super) struct Context {
    rebalances: Mutex<VecDeque<Rebalance>>,
    closing: AtomicBool,
    reason: Mutex<String>,
}

impl Context {
    /// The oldest rebalance that was not answered.
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// From now on rebalances are answered by letting go: nobody polls any more but the client's own closing.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The text of the last error, which the error itself does not carry: it names broker, topic and partition.
    pub(super) fn last_reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let text = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Acquire) {
            if let Err(error) = let_go(consumer, partitions) {
                tracing::debug!(%error, "letting go of partitions while closing");
            }
            return;
        }
        // The list belongs to the event, which ends with this call.
        let rebalance = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalance::Assign(partitions.clone())
        } else {
            Rebalance::Revoke(partitions.clone())
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        // Committed offsets are for lag tools; the next commit repairs a failed one.
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed to Kafka");
        }
    }
}

/// Answers a revocation.
pub(super) fn let_go(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
        consumer.incremental_unassign(partitions)
    } else {
        consumer.unassign()
    }
}

/// Answers an assignment.
pub(super) fn take_on(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    if matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
        consumer.incremental_assign(partitions)
    } else {
        consumer.assign(partitions)
    }
}
