//! Records as they leave the polling thread: copied into one arena a chunk.
//!
//! Copying is what bounds memory: a borrowed message would keep the whole fetch response that it lies in, uncounted by
//! the client's own limit. One allocation serves about a thousand records, and dropping a chunk frees one block.

use std::fmt;
use std::sync::Arc;

use super::headers::Headers;

/// Records beyond which a chunk is full even if they are small.
const MAX_RECORDS: usize = 16_384;
/// Length that marks a null value; no record can be this long.
const NULL: u32 = u32::MAX;

/// One Kafka record, borrowed from its [`Chunk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Topic name.
    pub topic: &'a Arc<str>,
    /// Partition number.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC, or −1 where the record has no timestamp.
    pub timestamp_ms: i64,
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Header `__debezium.newkey`: on the delete half of a key change, the key that the row has afterwards.
    pub new_key: Option<&'a [u8]>,
    /// Header `__debezium.oldkey`: on the create half of a key change, the key that the row had before.
    pub old_key: Option<&'a [u8]>,
    /// All headers.
    pub headers: Headers<'a>,
}

#[derive(Clone, Copy)]
struct Entry {
    topic: u32,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    /// Where key, value, new key and old key lie in the arena, one behind the other.
    start: usize,
    lengths: [u32; 4],
    /// Where the headers lie; records in a row with the same ones share them.
    headers: (usize, usize),
}

/// Records of several partitions in the order in which they were read; those of a partition in offset order.
#[derive(Default, Clone)]
pub struct Chunk {
    arena: Vec<u8>,
    topics: Vec<Arc<str>>,
    entries: Vec<Entry>,
}

impl Chunk {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of keys, values and kept headers.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The records, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.entries.iter().map(|entry| self.record(entry))
    }

    // An entry is made by [`ChunkBuilder::push`] only, which notes where in the arena it has put the bytes, and which of the
    // chunk's topics it is; neither ever gets shorter.
    #[allow(clippy::indexing_slicing)]
    fn record(&self, entry: &Entry) -> Record<'_> {
        let mut start = entry.start;
        let mut next = |length: u32| {
            if length == NULL {
                return None;
            }
            let end = start + length as usize;
            let bytes = &self.arena[start..end];
            start = end;
            Some(bytes)
        };
        let [key, value, new_key, old_key] = entry.lengths.map(&mut next);
        Record {
            topic: &self.topics[entry.topic as usize],
            partition: entry.partition,
            offset: entry.offset,
            timestamp_ms: entry.timestamp_ms,
            key,
            value,
            new_key,
            old_key,
            headers: Headers::encoded(
                self.arena.get(entry.headers.0..entry.headers.0 + entry.headers.1).unwrap_or_default(),
            ),
        }
    }
}

/// Says how much it holds, never what: payloads do not belong in logs.
impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("records", &self.len()).field("bytes", &self.bytes()).finish()
    }
}

/// Collects records into a [`Chunk`].
#[derive(Debug)]
pub struct ChunkBuilder {
    target: usize,
    chunk: Chunk,
}

impl ChunkBuilder {
    /// A builder whose chunks are full at `target` bytes.
    pub fn new(target: usize) -> Self {
        Self { target: target.max(1), chunk: Chunk::default() }
    }

    /// Copies a record. The topic's name is shared, not copied.
    pub fn push(&mut self, record: &Record<'_>) {
        if self.chunk.entries.is_empty() {
            self.chunk.arena.reserve(self.target + self.target / 8);
        }
        let topic = self.topic(record.topic);
        let headers = self.headers(record.headers.bytes());
        let start = self.chunk.arena.len();
        let lengths = [record.key, record.value, record.new_key, record.old_key].map(|bytes| {
            bytes.map_or(NULL, |bytes| {
                self.chunk.arena.extend_from_slice(bytes);
                bytes.len() as u32
            })
        });
        self.chunk.entries.push(Entry {
            topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            start,
            lengths,
            headers,
        });
    }

    /// Where the headers lie in the arena. Debezium sends the same ones with almost every record: they are copied once.
    fn headers(&mut self, encoded: &[u8]) -> (usize, usize) {
        let last = self.chunk.entries.last().map(|entry| entry.headers);
        if let Some((start, length)) = last
            && self.chunk.arena.get(start..start + length) == Some(encoded)
        {
            return (start, length);
        }
        let start = self.chunk.arena.len();
        self.chunk.arena.extend_from_slice(encoded);
        (start, encoded.len())
    }

    /// Index of the topic in the chunk; the last one is tried first, as records come in runs of one partition.
    fn topic(&mut self, topic: &Arc<str>) -> u32 {
        let last = self.chunk.entries.last().map(|entry| entry.topic);
        if let Some(last) = last
            && self.chunk.topics.get(last as usize) == Some(topic)
        {
            return last;
        }
        let index = self.chunk.topics.iter().position(|known| known == topic).unwrap_or_else(|| {
            self.chunk.topics.push(Arc::clone(topic));
            self.chunk.topics.len() - 1
        });
        index as u32
    }

    /// Whether the chunk should be handed over.
    pub fn is_full(&self) -> bool {
        self.chunk.arena.len() >= self.target || self.chunk.entries.len() >= MAX_RECORDS
    }

    /// Whether nothing was pushed since the last [`take`](Self::take).
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// The chunk so far; the builder is empty afterwards.
    pub fn take(&mut self) -> Chunk {
        let mut chunk = std::mem::take(&mut self.chunk);
        // A quiet stream makes small chunks: they must not hold a full one's memory.
        if chunk.arena.len() < self.target / 2 {
            chunk.arena.shrink_to_fit();
        }
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::HeaderBuffer;

    #[test]
    fn gives_back_what_was_pushed_with_nulls_apart_from_empty_values() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let record = |topic, offset, key, value| Record {
            topic,
            partition: 3,
            offset,
            timestamp_ms: 1000 + offset,
            key,
            value,
            new_key: None,
            old_key: None,
            headers: Headers::default(),
        };
        let mut with_header = record(&b, 9, Some(&b"k"[..]), Some(&b"vv"[..]));
        with_header.old_key = Some(b"old");
        let mut buffer = HeaderBuffer::default();
        buffer.push("__debezium.oldkey", Some(b"old"));
        buffer.push("empty", None);
        with_header.headers = buffer.headers();
        let records = [
            record(&a, 1, Some(b"key"), Some(b"value")),
            record(&b, 2, None, Some(b"")),
            record(&a, 5, Some(b""), None),
            with_header,
            with_header,
        ];
        let mut builder = ChunkBuilder::new(1000);
        for each in &records {
            builder.push(each);
        }
        let chunk = builder.take();
        assert_eq!(chunk.iter().collect::<Vec<_>>(), records);
        let headers = buffer.headers().bytes().len();
        assert_eq!(chunk.bytes(), 14 + 6 + headers, "equal headers are kept once");
        assert!(builder.is_empty());
    }

    #[test]
    fn is_full_at_its_size_or_at_many_small_records() {
        let topic: Arc<str> = "t".into();
        let value = [0u8; 64];
        let record = |value| Record {
            topic: &topic,
            partition: 0,
            offset: 0,
            timestamp_ms: -1,
            key: None,
            value,
            new_key: None,
            old_key: None,
            headers: Headers::default(),
        };
        let mut builder = ChunkBuilder::new(128);
        builder.push(&record(Some(&value[..])));
        assert!(!builder.is_full());
        builder.push(&record(Some(&value[..])));
        assert!(builder.is_full());
        let mut builder = ChunkBuilder::new(128);
        for _ in 0..MAX_RECORDS {
            assert!(!builder.is_full());
            builder.push(&record(None));
        }
        assert!(builder.is_full());
    }
}
