//! The records that a batch was made of, for a sink that refuses single ones.
//!
//! The chunks that the records were read in are kept until the batch is committed: no copy, but their memory. So only
//! lanes whose sink asks for originals keep them.

use std::sync::{Arc, Mutex, PoisonError};

use crate::change::TopicPartition;
use crate::change::quarantine::{Original, Originals, Payload};
use crate::debezium::KeyReader;
use crate::kafka::{Chunk, Record};

/// The chunks of one batch.
pub(super) struct KeptChunks {
    chunks: Vec<Arc<Chunk>>,
    keys: Mutex<KeyReader>,
}

impl KeptChunks {
    pub(super) fn new(chunks: Vec<Arc<Chunk>>) -> Self {
        Self { chunks, keys: Mutex::new(KeyReader::default()) }
    }

    fn original(&self, record: &Record<'_>) -> Original {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Original {
            row_key: record.key.and_then(|key| keys.read(key)),
            payload: Payload {
                timestamp_ms: record.timestamp_ms,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .iter()
                    .map(|(name, value)| (name, value.map(<[u8]>::to_vec)))
                    .collect(),
            },
        }
    }
}

impl Originals for KeptChunks {
    fn find(&self, partition: &TopicPartition, offset: i64) -> Option<Original> {
        let is_it = |record: &Record<'_>| {
            record.offset == offset
                && record.partition == partition.partition
                && **record.topic == *partition.topic
        };
        self.chunks.iter().find_map(|chunk| chunk.iter().find(is_it).map(|record| self.original(&record)))
    }
}
