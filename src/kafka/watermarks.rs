//! First and end offsets of many partitions, in two requests a broker.
//!
//! The end offset is the last stable offset (`read_committed`): the end of what this consumer can be given.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::ConsumerError;
use super::context::Context;
use crate::change::TopicPartition;

/// The reach of a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermarks {
    /// First offset.
    pub(super) low: i64,
    /// End offset: one more than the last that can be read.
    pub(super) high: i64,
}

/// Asks until all are known or `patience` is over.
pub(super) fn watermarks(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    patience: Duration,
) -> Result<HashMap<TopicPartition, Watermarks>, ConsumerError> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt(consumer, partitions) {
            Ok(found) => return Ok(found),
            Err(reason) if Instant::now() >= deadline => {
                return Err(ConsumerError::Lookup { what: "offsets", reason });
            }
            Err(reason) => {
                tracing::debug!(reason, "asking for offsets again");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn attempt(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
) -> Result<HashMap<TopicPartition, Watermarks>, String> {
    if partitions.is_empty() {
        return Ok(HashMap::new());
    }
    // In the protocol a "timestamp" of −2 asks for the first offset and −1 for the end (ListOffsets).
    let low = offsets(consumer, partitions, Offset::Beginning)?;
    let high = offsets(consumer, partitions, Offset::End)?;
    partitions
        .iter()
        .map(|partition| match (low.get(partition), high.get(partition)) {
            (Some(&low), Some(&high)) => Ok((partition.clone(), Watermarks { low, high })),
            _ => Err(format!("no answer for {partition}")),
        })
        .collect()
}

fn offsets(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    which: Offset,
) -> Result<HashMap<TopicPartition, i64>, String> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition)
            .set_offset(which)
            .map_err(|error| error.to_string())?;
    }
    let list = consumer.offsets_for_times(list, Duration::from_secs(5)).map_err(|error| error.to_string())?;
    let mut found = HashMap::with_capacity(partitions.len());
    for element in list.elements() {
        element.error().map_err(|error| format!("{}/{}: {error}", element.topic(), element.partition()))?;
        if let Offset::Offset(offset) = element.offset() {
            found.insert(TopicPartition::new(element.topic(), element.partition()), offset);
        }
    }
    Ok(found)
}
