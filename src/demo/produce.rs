//! Runs the shop against the broker: first a snapshot of what is there, then transactions at a given rate.
//!
//! Invariants: changes of a key go to one partition, in order; a transaction is produced whole or not at all, so that
//! the shop's rows are what the records on the broker add up to. A record that the broker does not take is an error.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Statistics};

use super::events::{EventWriter, HEADERS, Origin, topic};
use super::flow::FlowControl;
use super::shop::{RowChange, Shop, ShopSize};
use super::tables::{Key, ShopTable, TABLES};
use crate::change::TopicPartition;

/// Bytes that a record takes on the broker besides key and value, at most: headers and the batch around it.
const OVERHEAD: usize = 400;

/// How long a full partition may stay full, or the broker take no records, before that is an error.
const STALL: Duration = Duration::from_mins(1);

/// How long to wait before looking again whether to stop.
const BREATH: Duration = Duration::from_millis(50);

/// Where and how fast to produce.
#[derive(Debug, Clone)]
pub struct ProduceOptions {
    /// `host:port` of the broker.
    pub bootstrap_servers: String,
    /// Partitions of each topic.
    pub partitions: i32,
    /// Events a second, tombstones not counted; 0 is as fast as possible.
    pub rate: u32,
    /// How long to run transactions, after the snapshot.
    pub duration: Duration,
    /// What the shop is invented from.
    pub seed: u64,
    /// How large it gets.
    pub size: ShopSize,
}

/// Why producing ended early.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The thread could not be made.
    #[error("the shop got no thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The client refused.
    #[error("the broker took no records: {0}")]
    Kafka(#[from] KafkaError),
    /// Records were sent and not stored.
    #[error("the broker did not store {0} records")]
    Undelivered(u64),
    /// A partition stayed full.
    #[error("partition {0} was full for {seconds} s: no lane stored its records", seconds = STALL.as_secs())]
    Stalled(TopicPartition),
    /// The thread ended without a result.
    #[error("the shop was closed before it was done")]
    Ended,
}

/// What has been produced so far.
#[derive(Debug, Default)]
pub struct Live {
    /// Events, tombstones not counted.
    pub events: AtomicU64,
    /// Tombstones.
    pub tombstones: AtomicU64,
    /// Transactions.
    pub transactions: AtomicU64,
    /// Bytes of keys and values.
    pub bytes: AtomicU64,
    /// Rows of each of [`TABLES`].
    pub rows: [AtomicU64; 4],
    /// Whether the snapshot is on the broker.
    pub snapshot_done: AtomicBool,
    undelivered: AtomicU64,
}

/// What was produced.
#[derive(Debug)]
pub struct Outcome {
    /// The shop as the records leave it: the truth.
    pub shop: Shop,
    /// Events, tombstones not counted.
    pub events: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Transactions.
    pub transactions: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Time it took, the snapshot included.
    pub elapsed: Duration,
    /// The position after the last record of each partition that has records.
    pub end: BTreeMap<TopicPartition, i64>,
}

/// A shop at work. Dropped, it ends at once, in the middle of a transaction if need be.
#[derive(Debug)]
pub struct Production {
    live: Arc<Live>,
    orders: Arc<Orders>,
    thread: Option<JoinHandle<Result<Outcome, ProduceError>>>,
}

/// What the owner of a [`Production`] wants.
#[derive(Debug, Default)]
struct Orders {
    /// No more transactions.
    stop: AtomicBool,
    /// No more records.
    abandon: AtomicBool,
}

impl Production {
    /// Opens a shop and begins to produce, on a thread of its own.
    pub fn start(options: ProduceOptions, flow: Arc<FlowControl>) -> Result<Self, ProduceError> {
        let live = Arc::new(Live::default());
        let orders = Arc::new(Orders::default());
        let run = Run::new(&options, flow, Arc::clone(&live), Arc::clone(&orders))?;
        let thread = std::thread::Builder::new().name("demo-shop".into()).spawn(move || run.run(&options))?;
        Ok(Self { live, orders, thread: Some(thread) })
    }

    /// Counters that move while it runs.
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Whether it has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it after the transaction in hand, which may have to wait for room on the broker.
    pub fn stop(&self) {
        self.orders.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for its end. All records are on the broker then.
    pub fn finish(mut self) -> Result<Outcome, ProduceError> {
        let thread = self.thread.take().ok_or(ProduceError::Ended)?;
        thread.join().map_err(|_| ProduceError::Ended)?
    }
}

impl Drop for Production {
    fn drop(&mut self) {
        self.orders.abandon.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever wanted the outcome has called `finish`.
            let _ = thread.join();
        }
    }
}

/// Counts records that the broker did not store.
struct Deliveries(Arc<Live>);

impl ClientContext for Deliveries {
    fn stats(&self, _: Statistics) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.undelivered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Run {
    producer: ThreadedProducer<Deliveries>,
    headers: OwnedHeaders,
    partitions: [Vec<TopicPartition>; 4],
    flow: Arc<FlowControl>,
    live: Arc<Live>,
    orders: Arc<Orders>,
    log: LogPosition,
}

/// Where the shop's database is in its write-ahead log.
struct LogPosition {
    lsn: i64,
    last_commit_lsn: i64,
    tx_id: i64,
}

impl Run {
    fn new(
        options: &ProduceOptions,
        flow: Arc<FlowControl>,
        live: Arc<Live>,
        orders: Arc<Orders>,
    ) -> Result<Self, KafkaError> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &options.bootstrap_servers)
            .set("compression.type", "zstd")
            .set("linger.ms", "20")
            // One request at a time keeps records in order, also when one is sent again.
            .set("max.in.flight.requests.per.connection", "1")
            .set("acks", "all")
            .create_with_context(Deliveries(Arc::clone(&live)))?;
        let headers = HEADERS.iter().fold(OwnedHeaders::new(), |headers, &(key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let partitions = TABLES.map(|table| {
            let topic: Arc<str> = topic(table).into();
            (0..options.partitions.max(1)).map(|at| TopicPartition::new(Arc::clone(&topic), at)).collect()
        });
        let log = LogPosition { lsn: 23_681_128, last_commit_lsn: 23_681_128, tx_id: 758 };
        Ok(Self { producer, headers, partitions, flow, live, orders, log })
    }

    fn run(mut self, options: &ProduceOptions) -> Result<Outcome, ProduceError> {
        let started = Instant::now();
        let mut shop = Shop::open(options.seed, options.size, now_micros());
        self.show_rows(&shop);
        let mut writer = EventWriter::new();
        self.produce_snapshot(&mut writer, &shop)?;
        self.live.snapshot_done.store(true, Ordering::Relaxed);
        self.produce_transactions(&mut writer, &mut shop, options)?;
        self.producer.flush(STALL)?;
        let undelivered = self.live.undelivered.load(Ordering::Relaxed);
        if undelivered > 0 {
            return Err(ProduceError::Undelivered(undelivered));
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Outcome {
            shop,
            events: count(&self.live.events),
            tombstones: count(&self.live.tombstones),
            transactions: count(&self.live.transactions),
            bytes: count(&self.live.bytes),
            elapsed: started.elapsed(),
            end: self.flow.end(),
        })
    }

    fn produce_snapshot(&mut self, writer: &mut EventWriter, shop: &Shop) -> Result<(), ProduceError> {
        let committed_micros = now_micros();
        let mut rows = shop.snapshot().peekable();
        let mut before = None;
        while let Some(change) = rows.next() {
            let table = change.table;
            let next = rows.peek().map(|next| next.table);
            let snapshot = match (before, next) {
                (None, _) => "first",
                (_, None) => "last",
                (Some(before), _) if before != table => "first_in_data_collection",
                (_, Some(next)) if next != table => "last_in_data_collection",
                _ => "true",
            };
            before = Some(table);
            let (tx_id, lsn) = (self.log.tx_id, self.log.lsn);
            let processed_micros = now_micros();
            let origin =
                Origin { committed_micros, processed_micros, snapshot, tx_id, lsn, last_commit_lsn: None };
            self.produce(writer, &change, &origin)?;
        }
        Ok(())
    }

    fn produce_transactions(
        &mut self,
        writer: &mut EventWriter,
        shop: &mut Shop,
        options: &ProduceOptions,
    ) -> Result<(), ProduceError> {
        let started = Instant::now();
        let mut events: u64 = 0;
        loop {
            let elapsed = started.elapsed();
            if elapsed >= options.duration || self.orders.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if options.rate > 0 {
                let due = Duration::from_secs_f64(events as f64 / f64::from(options.rate));
                if due > elapsed {
                    std::thread::sleep(due.saturating_sub(elapsed).min(BREATH));
                    continue;
                }
            }
            let committed_micros = now_micros();
            let changes = shop.transact(committed_micros);
            events += changes.len() as u64;
            self.log.tx_id += 1;
            for change in changes {
                self.log.lsn += 160;
                let (tx_id, lsn) = (self.log.tx_id, self.log.lsn);
                let last_commit_lsn = Some(self.log.last_commit_lsn);
                let processed_micros = now_micros();
                let snapshot = "false";
                let origin =
                    Origin { committed_micros, processed_micros, snapshot, tx_id, lsn, last_commit_lsn };
                self.produce(writer, &change, &origin)?;
            }
            self.log.lsn += 48;
            self.log.last_commit_lsn = self.log.lsn;
            self.live.transactions.fetch_add(1, Ordering::Relaxed);
            self.show_rows(shop);
        }
    }

    fn produce(
        &self,
        writer: &mut EventWriter,
        change: &RowChange,
        origin: &Origin,
    ) -> Result<(), ProduceError> {
        let event = writer.write(change, origin);
        let partition = self.partition(change.table, change.key)?;
        self.send(partition, event.key, Some(event.value))?;
        self.live.events.fetch_add(1, Ordering::Relaxed);
        if event.tombstone {
            self.send(partition, event.key, None)?;
            self.live.tombstones.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn send(&self, partition: &TopicPartition, key: &str, value: Option<&str>) -> Result<(), ProduceError> {
        let bytes = key.len() + value.map_or(0, str::len);
        let weight = (bytes + OVERHEAD) as u64;
        let deadline = Instant::now() + STALL;
        while !self.flow.wait_for_room(partition, weight, BREATH) {
            if Instant::now() >= deadline {
                return Err(ProduceError::Stalled(partition.clone()));
            }
            self.go_on()?;
        }
        self.go_on()?;
        let mut record = BaseRecord::to(&partition.topic)
            .partition(partition.partition)
            .key(key)
            .headers(self.headers.clone());
        record.payload = value;
        while let Err((error, returned)) = self.producer.send(record) {
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !full || Instant::now() >= deadline {
                return Err(error.into());
            }
            self.go_on()?;
            std::thread::sleep(Duration::from_millis(1));
            record = returned;
        }
        self.flow.produced(partition, weight);
        self.live.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// An error once nobody wants the outcome.
    fn go_on(&self) -> Result<(), ProduceError> {
        if self.orders.abandon.load(Ordering::Relaxed) { Err(ProduceError::Ended) } else { Ok(()) }
    }

    fn partition(&self, table: ShopTable, key: Key) -> Result<&TopicPartition, ProduceError> {
        let of_table = self.partitions.get(table.index()).ok_or(ProduceError::Ended)?;
        // Fibonacci hashing of the id: neighbouring ids spread evenly, an order's items stay together.
        let hash = key.0.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        of_table.get(hash as usize % of_table.len().max(1)).ok_or(ProduceError::Ended)
    }

    fn show_rows(&self, shop: &Shop) {
        for (counter, table) in self.live.rows.iter().zip(TABLES) {
            counter.store(shop.len(table) as u64, Ordering::Relaxed);
        }
    }
}

/// Microseconds since 1970 UTC.
fn now_micros() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

#[cfg(test)]
mod tests;
