//! Damaged records, for as long as one likes: no panic, no value in an error's text, nothing left behind.
//!
//! Records that Debezium wrote, and those of the corpus, are damaged in bytes and in structure and given to a decoder
//! that has seen sound ones. `ALLUVIUM_FUZZ_SECONDS` says for how long; a failure prints its seed and the record, which
//! then belongs into `tests/corpus/records.jsonl`.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::mutate::{self, Node};
use super::*;
use crate::change::fold;
use crate::debezium::Drained;

/// Seconds that the fuzzer runs, unless told otherwise.
const SECONDS: u64 = 3;
/// What no error may repeat.
const MARK: &str = "s3cr3t";

const SOURCES: [&str; 3] = [
    include_str!("../../../tests/captures/default-modes.jsonl"),
    include_str!("../../../tests/captures/connect-times-no-schema.jsonl"),
    CORPUS,
];
const CORPUS: &str = include_str!("../../../tests/corpus/records.jsonl");

/// A record of a file: one JSON object a line.
#[derive(Debug, Clone, serde::Deserialize)]
struct Seed {
    key: Option<String>,
    value: Option<String>,
}

fn seeds(text: &str) -> Vec<Seed> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A record as bytes.
#[derive(Debug, Clone)]
struct Damaged {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// Whether only values were marked, so that a mark in a text is one of them.
    marked: bool,
}

impl Damaged {
    fn of(seed: &Seed) -> Self {
        let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
        Self { key: bytes(&seed.key), value: bytes(&seed.value), marked: false }
    }

    fn shown(&self) -> String {
        let text = |bytes: &Option<Vec<u8>>| {
            let text = bytes.as_ref().map(|bytes| bytes.escape_ascii().to_string());
            text.map(|text| text.chars().take(4_000).collect::<String>())
        };
        format!("key {:?}\nvalue {:?}", text(&self.key), text(&self.value))
    }
}

/// Damages a record.
fn damage(seed: &Seed, other: &Seed, random: &mut fastrand::Rng) -> Damaged {
    let mut record = Damaged::of(seed);
    if random.u8(..) < 90 {
        let rest = other.value.as_deref().unwrap_or_default().as_bytes();
        let part = if random.u8(..) < 40 { &mut record.key } else { &mut record.value };
        mutate::bytes(part.get_or_insert_default(), rest, random);
        return record;
    }
    let node = |text: &Option<String>| text.as_deref().and_then(Node::parse);
    let others = node(&other.value).unwrap_or(Node::Plain("null".to_owned()));
    let (mut key, mut value) = (node(&seed.key), node(&seed.value));
    if let Some(value) = &mut value {
        record.marked = mark_rows(value);
        for _ in 0..=random.u8(0..3) {
            mutate::structure(value, &others, random);
        }
    }
    if let Some(key) = &mut key
        && random.u8(..) < 80
    {
        mutate::structure(key, &others, random);
    }
    record.key = key.map(|key| key.json().into_bytes()).or(record.key);
    record.value = value.map(|value| value.json().into_bytes()).or(record.value);
    record
}

/// Puts the mark into each text of the rows. Whether there were rows.
fn mark_rows(value: &mut Node) -> bool {
    let payload = if value.member("payload").is_some() { value.member("payload") } else { Some(value) };
    let Some(payload) = payload else { return false };
    let mut marked = false;
    for image in ["before", "after"] {
        if let Some(row) = payload.member(image) {
            row.mark(MARK);
            marked = true;
        }
    }
    marked
}

/// A decoder, and what it has accepted.
struct Subject {
    decoder: Decoder,
    topic: Arc<str>,
    offset: i64,
    accepted: u64,
    /// Offsets of accepted records that are changes.
    changes: BTreeSet<i64>,
}

impl Subject {
    fn new() -> Self {
        Self {
            decoder: decoder(),
            topic: "d1.inv.fuzzed".into(),
            offset: 0,
            accepted: 0,
            changes: BTreeSet::new(),
        }
    }

    fn push(&mut self, topic: &Arc<str>, record: &Damaged) -> Result<Outcome, RecordError> {
        let record = RecordRef {
            headers: &(),
            new_key: None,
            old_key: None,
            topic,
            partition: 0,
            offset: self.offset,
            timestamp_ms: 1_700_000_000_000,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
        };
        let identity = TopicIdentity::unknown();
        let mut end = self.decoder.push(record, &identity);
        // Recognised, and not taken yet: the lane first reads the topic's other partitions, of which there are none here.
        if matches!(end, Ok(Outcome::Truncate { .. })) {
            end = self.decoder.truncate(record, &identity, Drained { partitions: 1 });
        }
        self.accepted += u64::from(end.is_ok());
        if matches!(end, Ok(Outcome::Change(_))) {
            self.changes.insert(self.offset);
        }
        self.offset += 1;
        end
    }

    /// Gives it a damaged record, then a sound one. The error says what is wrong with how it took them.
    fn take(&mut self, damaged: &Damaged, sound: &Damaged) -> Result<(), String> {
        let topic = Arc::clone(&self.topic);
        if let Err(error) = self.push(&topic, damaged)
            && damaged.marked
            && error.to_string().contains(MARK)
        {
            return Err(format!("a value is in the error: {error}"));
        }
        // In a topic and table of its own: the damaged one may have changed the table's types.
        let other = "cdc.public.sound".into();
        match self.push(&other, sound) {
            Ok(Outcome::Change(_)) => Ok(()),
            end => Err(format!("the sound record after it ends as {end:?}")),
        }
    }

    /// Ends the batch and looks at its parts.
    fn finish(&mut self) -> Result<(), String> {
        let batch =
            self.decoder.finish().map_err(|error| format!("the batch cannot be finished: {error}"))?;
        let accepted = std::mem::take(&mut self.accepted);
        if batch.records != accepted {
            return Err(format!("{} records in the batch, {accepted} were accepted", batch.records));
        }
        let there: BTreeSet<i64> = batch.changes.iter().flat_map(|changes| changes.offsets.clone()).collect();
        let changes = std::mem::take(&mut self.changes);
        if there != changes {
            return Err(format!("changes at {there:?} in the batch, {changes:?} were accepted"));
        }
        let raw = batch.raw.as_ref().ok_or("no raw rows")?;
        if raw.num_rows() as u64 > accepted || raw.schema() != raw::schema() {
            return Err(format!("{} raw rows of {accepted} records", raw.num_rows()));
        }
        for changes in &batch.changes {
            let rows = changes.len();
            let lengths = [
                changes.rows.num_rows(),
                changes.offsets.len(),
                changes.partitions.len(),
                changes.source_micros.len(),
            ];
            let masks = changes.absent.iter().flatten().all(|mask| mask.len() == rows);
            if lengths != [rows; 4] || !masks || changes.absent.len() != changes.rows.num_columns() {
                return Err(format!("{rows} changes of {}, but {lengths:?}", changes.table));
            }
            if !changes.schema.key().is_empty() {
                fold(&changes.schema, &[changes], |_, _| true).map_err(|error| format!("fold: {error}"))?;
            }
        }
        Ok(())
    }
}

/// Batches of a subject before the next one: what a decoder has learned from damaged records stays with it.
const RECORDS: usize = 200;

#[test]
fn damaged_records_leave_the_decoder_sound() {
    let seconds = std::env::var("ALLUVIUM_FUZZ_SECONDS").map_or(SECONDS, |text| text.parse().unwrap());
    let seed =
        std::env::var("ALLUVIUM_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let seeds: Vec<Seed> = SOURCES.iter().flat_map(|text| seeds(text)).collect();
    let sound = sound();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tried = 0_u64;
    while Instant::now() < end {
        let mut subject = Subject::new();
        for _ in 0..RECORDS {
            let seed_of = |random: &mut fastrand::Rng| &seeds[random.usize(..seeds.len())];
            let (one, other) = (seed_of(&mut random), seed_of(&mut random));
            let record = if random.u8(..) < 40 { Damaged::of(one) } else { damage(one, other, &mut random) };
            let ends_batch = random.u8(..) < 10;
            let result = catch_unwind(AssertUnwindSafe(|| {
                subject.take(&record, &sound)?;
                if ends_batch { subject.finish() } else { Ok(()) }
            }));
            tried += 1;
            let failure = match result {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure,
                Err(_) => "a panic".to_owned(),
            };
            panic!("ALLUVIUM_TEST_SEED={seed}, record {tried}: {failure}\n{}", record.shown());
        }
        subject
            .finish()
            .unwrap_or_else(|failure| panic!("ALLUVIUM_TEST_SEED={seed}, before record {tried}: {failure}"));
    }
    assert!(tried > 0, "no record was tried in {seconds} s");
    // For the log of a long run.
    #[allow(clippy::print_stderr)]
    {
        eprintln!("{tried} damaged records in {seconds} s, seed {seed}");
    }
}

fn sound() -> Damaged {
    let value = event("c", "null", r#"{"id":1}"#).replace(r#""table":"t""#, r#""table":"sound""#);
    Damaged { key: Some(br#"{"id":1}"#.to_vec()), value: Some(value.into_bytes()), marked: false }
}

#[test]
fn each_record_of_the_corpus_leaves_the_decoder_sound() {
    for seed in seeds(CORPUS) {
        let mut subject = Subject::new();
        let record = Damaged::of(&seed);
        for _ in 0..2 {
            subject.take(&record, &sound()).unwrap_or_else(|failure| panic!("{failure}\n{}", record.shown()));
        }
        subject.finish().unwrap_or_else(|failure| panic!("{failure}\n{}", record.shown()));
    }
}
