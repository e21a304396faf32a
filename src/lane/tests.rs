//! The lane against a sink that only remembers what it was asked.
use std::sync::mpsc::sync_channel;

use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::*;
use crate::admin::metrics::Metrics;
use crate::admin::status::StatusBoard;
use crate::change::quarantine::Payload;
use crate::change::{
    Batch, ChangeBatch, CommitReport, KnownSchemas, KnownTables, Operation, Progress, StoredPosition,
};
use crate::change::{OnError, TableId, TablePolicy, TableSchema, TopicIdentity};
use crate::kafka::{Assignment, Chunk, ChunkBuilder, Event, HeaderBuffer, Record};

#[derive(Default)]
struct Remembering {
    calls: Vec<&'static str>,
    /// Answers to commits, the next one last; then all goes well.
    answers: Vec<Result<CommitReport, SinkError>>,
}

fn progress() -> Progress {
    let stored = StoredPosition { identity: TopicIdentity::unknown(), next_offset: 7 };
    Progress::from([(TopicPartition::new("t", 0), stored)])
}

impl Sink for Remembering {
    async fn load(&mut self) -> Result<Progress, SinkError> {
        self.calls.push("load");
        Ok(progress())
    }

    async fn reload(&mut self) -> Result<Progress, SinkError> {
        self.calls.push("reload");
        Ok(progress())
    }

    async fn commit(&mut self, _: &Batch) -> Result<CommitReport, SinkError> {
        self.calls.push("commit");
        self.answers.pop().unwrap_or_else(|| Ok(CommitReport::default()))
    }

    fn release(&mut self, _: &[TopicPartition]) {
        self.calls.push("release");
    }

    fn known_schemas(&self) -> KnownSchemas {
        Box::new(|_| None)
    }

    fn known_tables(&self) -> KnownTables {
        KnownTables::default()
    }

    async fn maintain(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// A consumer that is not asked for anything.
struct Still;

impl decode::Reading for Still {
    fn pause_topic(&self, _: &str) {}
    fn hold(&self, _: &TopicPartition, _: bool) {}
    fn drain(&self, _: &Arc<str>, _: u64) {}
}

fn lane() -> Lane<Remembering> {
    lane_with(Metrics::new().unwrap())
}

fn lane_with(metrics: Metrics) -> Lane<Remembering> {
    let options = LaneOptions {
        name: "test".to_owned(),
        consumer: ConsumerOptions::new("localhost:1", "test", vec!["t".to_owned()]),
        decoder: DecoderOptions::default(),
        batch: BatchLimits { max_delay: Duration::from_secs(1), max_rows: 10, max_bytes: 1000 },
        until_caught_up: false,
        policies: Policies::default(),
        quarantine: Limits::default(),
        keep_originals: false,
    };
    let observer = Observer::new("test", metrics, StatusBoard::default().lane("test"));
    Lane::new(options, Remembering::default(), observer, watch::channel(false).1)
}

#[tokio::test]
async fn positions_asked_while_batches_are_in_flight_leave_stopped_tables_stopped() {
    let mut lane = lane();
    let (reply, answer) = sync_channel(1);
    let partitions = vec![TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
    assert!(lane.answer(PositionRequest { partitions, reply }).await.is_ok());
    let known = answer.recv().unwrap().unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!(known[&TopicPartition::new("t", 0)].next_offset, 7);
    assert_eq!(lane.sink.calls, ["reload"]);
}

/// A stage that reads `t/0` from offset 5, and what it hands over.
fn stage(runtime: &tokio::runtime::Runtime, on_error: OnError) -> (DecodeStage, mpsc::Receiver<Staged>) {
    let policies =
        Policies { defaults: TablePolicy { on_error, ..TablePolicy::default() }, ..Policies::default() };
    stage_with(runtime, policies, DecoderOptions::default())
}

fn stage_with(
    runtime: &tokio::runtime::Runtime,
    policies: Policies,
    decoder: DecoderOptions,
) -> (DecodeStage, mpsc::Receiver<Staged>) {
    let (sender, staged) = mpsc::channel(16);
    let mut stage = DecodeStage::new(
        Decoder::new(decoder, |_: &TableId| None),
        Refusals {
            policies,
            limiter: Limiter::new(Limits { max_records: 2, max_percent: 100 }, 0),
            keep_originals: false,
        },
        lane().options.batch,
        sender,
        Arc::new(Semaphore::new(1)),
        runtime.handle().clone(),
        Box::new(Still),
    );
    let assignment =
        Assignment { partition: TopicPartition::new("t", 0), identity: TopicIdentity::unknown(), start: 5 };
    assert!(stage.handle(Event::Assigned(vec![assignment])).is_ok());
    (stage, staged)
}

#[test]
fn a_quiet_partition_is_committed_up_to_what_kafka_never_delivers() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut stage, mut staged) = stage(&runtime, OnError::Stop);
    let positions = vec![(TopicPartition::new("t", 0), 6), (TopicPartition::new("other", 0), 6)];
    assert!(stage.handle(Event::Idle { positions }).is_ok());
    assert!(stage.handle(Event::CaughtUp).is_ok());
    assert!(matches!(staged.try_recv(), Ok(Staged::Assigned(_))));
    let Ok(Staged::Batch { batch, .. }) = staged.try_recv() else { panic!("no batch") };
    let ends: Vec<_> = batch.spans.values().map(|span| (span.first, span.next)).collect();
    assert_eq!(ends, [(5, 6)]);
}

/// Records of `t/0` that are not JSON, each with a header.
fn bad_records(offsets: std::ops::Range<i64>) -> Chunk {
    bad_records_of("t", offsets)
}

fn bad_records_of(topic: &str, offsets: std::ops::Range<i64>) -> Chunk {
    let mut chunk = ChunkBuilder::new(1000);
    let topic = topic.into();
    let mut headers = HeaderBuffer::default();
    headers.push("h", Some(b"1"));
    for offset in offsets {
        chunk.push(&Record {
            topic: &topic,
            partition: 0,
            offset,
            timestamp_ms: 7,
            key: Some(b"{\"id\":1}"),
            value: Some(b"not json"),
            new_key: None,
            old_key: None,
            headers: headers.headers(),
        });
    }
    chunk.take()
}

#[test]
fn a_bad_record_goes_with_the_batch_that_covers_it_as_it_came() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut stage, mut staged) = stage(&runtime, OnError::Quarantine);
    assert!(stage.handle(Event::Records(bad_records(5..6))).is_ok());
    assert!(stage.handle(Event::CaughtUp).is_ok());
    assert!(matches!(staged.try_recv(), Ok(Staged::Assigned(_))));
    let Ok(Staged::Batch { batch, .. }) = staged.try_recv() else { panic!("no batch") };
    let ends: Vec<_> = batch.spans.values().map(|span| (span.first, span.next)).collect();
    assert_eq!((ends, batch.records), (vec![(5, 6)], 1));
    let [record] = batch.quarantined.as_slice() else { panic!("{:?}", batch.quarantined) };
    assert_eq!((record.place.to_string().as_str(), record.kind.code()), ("t/0@5", "not_json"));
    assert_eq!((record.table.as_ref(), record.row_key.as_deref()), (None, Some("{\"id\":1}")));
    let payload = Payload {
        timestamp_ms: 7,
        key: Some(b"{\"id\":1}".to_vec()),
        value: Some(b"not json".to_vec()),
        headers: vec![("h".to_owned(), Some(b"1".to_vec()))],
    };
    assert_eq!(record.payload, payload);
}

#[test]
fn beyond_the_limit_the_lane_is_told_to_stop_and_the_position_stays_before_the_record() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut stage, mut staged) = stage(&runtime, OnError::Quarantine);
    assert!(stage.handle(Event::Records(bad_records(5..9))).is_err(), "the stage goes on");
    assert!(matches!(staged.try_recv(), Ok(Staged::Assigned(_))));
    let Ok(Staged::Batch { batch, .. }) = staged.try_recv() else { panic!("no batch") };
    assert_eq!(batch.quarantined.len(), 2);
    assert_eq!(batch.spans.values().map(|span| span.next).collect::<Vec<_>>(), [7]);
    let Ok(Staged::TooManyBad(message)) = staged.try_recv() else { panic!("not told") };
    assert!(message.contains("quarantine.max_records") && message.contains("t/0@7"), "{message}");
}

#[test]
fn the_position_of_a_stopped_topic_stays_before_its_bad_record() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut stage, mut staged) = stage(&runtime, OnError::Stop);
    assert!(stage.handle(Event::Records(bad_records(5..6))).is_ok());
    assert!(stage.handle(Event::Idle { positions: vec![(TopicPartition::new("t", 0), 6)] }).is_ok());
    assert!(stage.handle(Event::CaughtUp).is_ok());
    let mut stopped = false;
    while let Ok(next) = staged.try_recv() {
        match next {
            Staged::RecordStopped(error) => stopped = error.offset == 5,
            Staged::Batch { batch, .. } => assert!(batch.spans.is_empty(), "{:?}", batch.spans),
            _ => {}
        }
    }
    assert!(stopped);
}

#[test]
fn a_source_table_has_the_policy_of_the_table_that_takes_its_rows() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let stop = TablePolicy { on_error: OnError::Stop, ..TablePolicy::default() };
    let policies =
        Policies { tables: HashMap::from([("public.orders".to_owned(), stop)]), ..Policies::default() };
    let mut routes = crate::debezium::Routes::default();
    routes.add("^public\\.orders_p\\d+$", "public.orders").unwrap();
    let options = DecoderOptions { routes, ..DecoderOptions::default() };
    for (topic, expected) in [("cdc.public.orders_p1", true), ("cdc.public.other_p1", false)] {
        let (mut stage, mut staged) = stage_with(&runtime, policies.clone(), options.clone());
        assert!(stage.handle(Event::Records(bad_records_of(topic, 0..1))).is_ok());
        assert!(stage.handle(Event::CaughtUp).is_ok());
        let mut stopped = false;
        while let Ok(next) = staged.try_recv() {
            stopped |= matches!(next, Staged::RecordStopped(_));
        }
        assert_eq!(stopped, expected, "{topic}");
    }
}

/// Records with nothing in them, at these partitions and offsets; the header says that a key change begins.
fn empty_records(records: impl IntoIterator<Item = (i32, i64, bool)>) -> Chunk {
    let mut chunk = ChunkBuilder::new(10_000);
    let (topic, headers) = ("t".into(), HeaderBuffer::default());
    for (partition, offset, begins) in records {
        let new_key = begins.then_some(&b"{\"id\":2}"[..]);
        chunk.push(&Record {
            topic: &topic,
            partition,
            offset,
            timestamp_ms: 7,
            key: None,
            value: None,
            new_key,
            old_key: None,
            headers: headers.headers(),
        });
    }
    chunk.take()
}

/// The ends of the partitions in each batch of a stage that reads these records. A batch is full at ten of them.
fn batch_ends(records: Vec<(i32, i64, bool)>) -> Vec<Vec<(i32, i64)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut stage, mut staged) = stage(&runtime, OnError::Stop);
    let assignment =
        Assignment { partition: TopicPartition::new("t", 1), identity: TopicIdentity::unknown(), start: 0 };
    assert!(stage.handle(Event::Assigned(vec![assignment])).is_ok());
    let reading = std::thread::spawn(move || {
        assert!(stage.handle(Event::Records(empty_records(records))).is_ok());
        assert!(stage.handle(Event::CaughtUp).is_ok());
    });
    let mut ends = Vec::new();
    while let Some(next) = staged.blocking_recv() {
        if let Staged::Batch { batch, .. } = next {
            let of = batch.spans.iter().map(|(partition, span)| (partition.partition, span.next));
            ends.push(of.collect());
        }
    }
    reading.join().unwrap();
    ends
}

#[test]
fn a_full_batch_waits_for_the_end_of_a_key_change_whatever_other_partitions_bring() {
    let mut records: Vec<_> = (5..14).map(|offset| (0, offset, false)).collect();
    // The delete fills the batch; a record of the other partition, the tombstone and the create follow.
    records.extend([
        (0, 14, true),
        (1, 0, false),
        (0, 15, true),
        (1, 1, false),
        (0, 16, false),
        (1, 2, false),
    ]);
    assert_eq!(batch_ends(records), [vec![(0, 17), (1, 2)], vec![(1, 3)]]);
}

#[test]
fn a_full_batch_grows_within_bounds_for_the_rest_of_a_key_change() {
    // The create lies in another partition, and nothing else comes in this one.
    let delete = [(0, 5, true)];
    let records = delete.into_iter().chain((0..1_015).map(|offset| (1, offset, false)));
    // Half of ten are less than the thousand that a small batch may always get.
    assert_eq!(batch_ends(records.collect()), [vec![(0, 6), (1, 1_009)], vec![(1, 1_015)]]);
}

fn attempt(lane: &Lane<Remembering>) -> Attempt {
    let (bridge, requests) = PositionBridge::new();
    let options = lane.options.consumer.clone();
    let consumer = Arc::new(Consumer::start(options, Arc::new(bridge)).unwrap().0);
    let staged = mpsc::channel(1).1;
    Attempt { consumer, requests, staged, kafka_errors: BTreeMap::new(), decoding: None }
}

/// A batch of `t/0` and `other/0` with a change of `db.public.a` from `t/0`, and filtered records of both topics.
fn staged_batch() -> Staged {
    let table = TableId::new("db", "public", "a");
    let schema = Arc::new(TableSchema::new(Vec::new(), Vec::new()));
    let changes = ChangeBatch {
        table: table.clone(),
        rows: RecordBatch::try_new_with_options(
            Arc::clone(schema.arrow()),
            Vec::new(),
            &RecordBatchOptions::new().with_row_count(Some(1)),
        )
        .unwrap(),
        schema,
        operations: vec![Operation::Create],
        absent: Vec::new(),
        partitions: vec![0],
        offsets: vec![7],
        source_micros: vec![0],
        moves: None,
        lsns: vec![0],
        truncates: Vec::new(),
    };
    let batch = Batch {
        partitions: vec![TopicPartition::new("t", 0)],
        changes: vec![changes],
        duplicates: BTreeMap::from([(table, 1)]),
        ..Batch::default()
    };
    let filtered = HashMap::from([(("t".into(), "tombstone"), 3), (("other".into(), "heartbeat"), 2)]);
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    Staged::Batch { batch: Box::new(batch), filtered, decoding: Duration::ZERO, permit }
}

#[tokio::test]
async fn records_are_counted_once_with_the_commit_after_which_they_are_not_read_again() {
    let metrics = Metrics::new().unwrap();
    let mut lane = lane_with(metrics.clone());
    let mut attempt = attempt(&lane);
    let fenced =
        SinkError::Fenced { table: "a".to_owned(), partition: "t/0".to_owned(), expected: 7, found: 8 };
    let refused = CommitReport {
        stopped: BTreeMap::from([(TableId::new("db", "public", "a"), "its schema waits".to_owned())]),
        ..CommitReport::default()
    };
    lane.sink.answers = vec![Ok(refused), Err(fenced)];
    let counted = || {
        let filtered = |reason: &str| metrics.read.filtered.with_label_values(&["test", reason]).get();
        let of_table = ["test", "public.a"];
        (
            (filtered("tombstone"), filtered("heartbeat")),
            metrics.read.records.with_label_values(&["test", "public.a", "c"]).get(),
            metrics.read.duplicates.with_label_values(&of_table).get(),
        )
    };
    assert!(lane.accept(&mut attempt, staged_batch()).await.is_err(), "fenced");
    assert_eq!(counted(), ((0, 0), 0, 0), "all of it is read again");
    assert!(lane.accept(&mut attempt, staged_batch()).await.is_ok());
    assert_eq!(counted(), ((0, 2), 0, 0), "the topic of the table that has stopped is read again");
    assert!(lane.accept(&mut attempt, staged_batch()).await.is_ok());
    assert_eq!(counted(), ((3, 4), 1, 1));
}

#[tokio::test]
async fn a_sink_hears_of_partitions_that_were_given_away() {
    let mut lane = lane();
    let mut attempt = attempt(&lane);
    let partitions = vec![TopicPartition::new("t", 0)];
    let (done, answer) = sync_channel(1);
    assert!(lane.accept(&mut attempt, Staged::Revoked { partitions, done }).await.is_ok());
    assert_eq!(lane.sink.calls, ["release"]);
    assert!(answer.try_recv().is_ok());
}
