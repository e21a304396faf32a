//! What a lane does for its sink's quarantine between batches: marks, counts, and replays.
//!
//! Replays are asked for by a row in the quarantine and done here, by the task that commits: so nothing can come between
//! the question whether a later change of the key was applied and the commit of the replay. Only the lane that reads the
//! record's partition does it. The records go the ordinary way, through a decoder with the present settings, a fold and
//! the sink's commit.
//!
//! Exactly once: a replay moves a position of its own, of a topic whose name no topic can have. Its offsets grow with the
//! number of the request, so that a replay whose answer was lost by a crash is done again and skipped.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Lane;
use super::attempt::{Attempt, AttemptEnd};
use crate::change::quarantine::{
    Ledger, Payload, PendingReplay, QuarantineEvent, QuarantineRow, RecordPlace, RecordState, Settlement,
    replays_of,
};
use crate::change::{Batch, CommitReport, Sink, Span, TopicPartition};
use crate::debezium::{Decoder, RecordRef};

/// Records of one request and partition at most: the room between the offsets of two requests.
const ROOM: i64 = 1 << 20;

/// A request's records of one partition.
struct Replay {
    number: i64,
    partition: TopicPartition,
    asked: Vec<PendingReplay>,
}

/// What is to be said about a record.
type Answers = BTreeMap<RecordPlace, Result<(), String>>;

impl<S: Sink> Lane<S> {
    /// Reads the quarantine again where that is due, and does what was asked for there.
    pub(super) async fn look_after_quarantine(&mut self, attempt: &mut Attempt) -> Result<(), AttemptEnd> {
        let ledger = match self.sink.quarantine().await {
            Ok(ledger) => ledger,
            Err(error) => return self.forgive("quarantine", error),
        };
        if Arc::ptr_eq(&ledger, &self.ledger) {
            return Ok(());
        }
        let done = |state: RecordState| matches!(state, RecordState::Discarded | RecordState::Replayed);
        let closed = ledger.records().filter(|(_, record)| done(record.state)).map(|(place, _)| place);
        self.marks.remove(closed);
        self.observer.quarantine(&ledger);
        for replay in self.pending(&ledger) {
            self.replay(attempt, &ledger, &replay).await?;
        }
        // Only now: what failed is looked at again.
        self.ledger = ledger;
        Ok(())
    }

    /// Replays of partitions that this lane reads, in the order of their numbers.
    fn pending(&self, ledger: &Ledger) -> Vec<Replay> {
        let mut replays: Vec<Replay> = Vec::new();
        for pending in ledger.pending() {
            let partition = &pending.place.partition;
            if !self.assigned.contains(partition) {
                continue;
            }
            let same =
                |replay: &&mut Replay| replay.number == pending.number && replay.partition == *partition;
            match replays.iter_mut().find(same) {
                Some(replay) => replay.asked.push(pending),
                None => replays.push(Replay {
                    number: pending.number,
                    partition: partition.clone(),
                    asked: vec![pending],
                }),
            }
        }
        replays
    }

    async fn replay(
        &mut self,
        attempt: &mut Attempt,
        ledger: &Ledger,
        replay: &Replay,
    ) -> Result<(), AttemptEnd> {
        let places: Vec<RecordPlace> = replay.asked.iter().map(|asked| asked.place.clone()).collect();
        let records = match self.sink.quarantined(&places).await {
            Ok(records) => records,
            Err(error) => return self.forgive("quarantine", error),
        };
        let mut answers = Answers::new();
        if let Some(batch) = self.decode_again(ledger, replay, records, &mut answers)? {
            let report = self.commit_until_done(attempt, &batch).await?;
            refused_by_sink(&batch, &report, replay, &mut answers);
        }
        let settled =
            answers.iter().map(|(place, answer)| answer_row(place, answer, replay.number)).collect();
        let batch = Batch { settled, ..Batch::default() };
        self.commit_until_done(attempt, &batch).await?;
        let replayed: Vec<&RecordPlace> =
            answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(place, _)| place).collect();
        tracing::info!(
            lane = self.options.name,
            partition = %replay.partition,
            replayed = replayed.len(),
            refused = answers.len() - replayed.len(),
            "replayed records of the quarantine"
        );
        self.marks.remove(replayed);
        Ok(())
    }

    /// Decodes the records that may be replayed into a batch at the replay's own position.
    fn decode_again(
        &self,
        ledger: &Ledger,
        replay: &Replay,
        mut records: Vec<QuarantineRow>,
        answers: &mut Answers,
    ) -> Result<Option<Batch>, AttemptEnd> {
        records.sort_by_key(|record| record.place.offset);
        let found: HashSet<&RecordPlace> = records.iter().map(|record| &record.place).collect();
        for asked in replay.asked.iter().filter(|asked| !found.contains(&asked.place)) {
            answers.insert(asked.place.clone(), Err("the record is not in the quarantine".to_owned()));
        }
        let mut decoder = Decoder::new(self.options.decoder.clone(), self.sink.known_schemas())
            .with_tables(self.sink.known_tables());
        for record in &records {
            let forced = replay.asked.iter().any(|asked| asked.place == record.place && asked.force);
            let answer = obstacle(ledger, &record.place, answers, forced)
                .map_or(Ok(()), Err)
                .and_then(|()| push(&mut decoder, record));
            answers.insert(record.place.clone(), answer);
        }
        let batch = decoder
            .finish()
            .map_err(|error| AttemptEnd::Stopped { class: "decoder", message: error.to_string() })?;
        let applied = answers.values().any(Result::is_ok);
        Ok(applied.then(|| at_own_position(batch, replay)))
    }
}

/// Why a record must not be replayed now.
fn obstacle(ledger: &Ledger, place: &RecordPlace, answers: &Answers, forced: bool) -> Option<String> {
    let record = ledger.get(place)?;
    if record.state == RecordState::Replayed {
        return Some("it has been replayed already".to_owned());
    }
    if forced {
        return None;
    }
    match record.state {
        RecordState::Superseded | RecordState::Moved => {
            let how = record.reason.as_deref().unwrap_or_default();
            return Some(format!(
                "a later change of its key has been applied ({how}); --force replays it all the same"
            ));
        }
        RecordState::Discarded => {
            return Some("it was discarded; --force replays it all the same".to_owned());
        }
        RecordState::Open | RecordState::Replayed => {}
    }
    let Some(key) = &record.row_key else {
        return Some(
            "the key of its row could not be read, so nothing says whether a later change of it was applied; --force \
             replays it all the same"
                .to_owned(),
        );
    };
    let earlier = |(other, of): &(&RecordPlace, &crate::change::quarantine::LedgerRecord)| {
        other.partition == place.partition
            && other.identity == place.identity
            && other.offset < place.offset
            && of.state == RecordState::Open
            && of.row_key.as_ref() == Some(key)
            && (of.table == record.table || of.table.is_none() || record.table.is_none())
            && !matches!(answers.get(*other), Some(Ok(())))
    };
    let (other, _) = ledger.records().find(earlier)?;
    Some(format!(
        "record {other} of the same key came before it and is still in quarantine: replay or discard it first"
    ))
}

fn push(decoder: &mut Decoder, record: &QuarantineRow) -> Result<(), String> {
    let Payload { timestamp_ms, key, value, headers } =
        record.payload.as_ref().ok_or_else(|| "its bytes are missing in the quarantine".to_owned())?;
    let header = |wanted: &str| {
        headers.iter().find(|(name, _)| name == wanted).and_then(|(_, value)| value.as_deref())
    };
    let reference = RecordRef {
        topic: &record.place.partition.topic,
        partition: record.place.partition.partition,
        offset: record.place.offset,
        timestamp_ms: *timestamp_ms,
        key: key.as_deref(),
        value: value.as_deref(),
        new_key: header("__debezium.newkey"),
        old_key: header("__debezium.oldkey"),
        headers,
    };
    match decoder.push(reference, &record.place.identity) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("still {}: {}", error.kind.code(), error.detail)),
    }
}

/// Gives the changes of a batch the positions of a replay instead of those of their records.
fn at_own_position(mut batch: Batch, replay: &Replay) -> Batch {
    let partition = replays_of(&replay.partition);
    let first = replay.number.saturating_mul(ROOM);
    let identity = replay.asked.first().map(|asked| asked.place.identity.clone());
    let places: BTreeMap<i64, i64> =
        replay.asked.iter().map(|asked| asked.place.offset).zip(first..).collect();
    for changes in &mut batch.changes {
        changes.partitions.fill(0);
        for offset in &mut changes.offsets {
            *offset = places.get(offset).copied().unwrap_or(first);
        }
    }
    batch.partitions = vec![partition.clone()];
    batch.spans = identity
        .map(|identity| (partition, Span { identity, first, next: first.saturating_add(ROOM) }))
        .into_iter()
        .collect();
    batch.replay = true;
    batch
}

/// Takes back the answers of records that the sink did not take.
fn refused_by_sink(batch: &Batch, report: &CommitReport, replay: &Replay, answers: &mut Answers) {
    let first = replay.number.saturating_mul(ROOM);
    let record_at = |offset: i64| {
        let index = usize::try_from(offset.saturating_sub(first)).ok()?;
        replay.asked.get(index).map(|asked| &asked.place)
    };
    for refused in &report.refused {
        if let Some(place) = record_at(refused.place.offset) {
            answers.insert(place.clone(), Err(format!("still {}: {}", refused.kind.code(), refused.detail)));
        }
    }
    for changes in batch.changes.iter().filter(|changes| report.stopped.contains_key(&changes.table)) {
        let reason = report.stopped.get(&changes.table).map_or("", String::as_str);
        for place in changes.offsets.iter().filter_map(|&offset| record_at(offset)) {
            answers.insert(place.clone(), Err(format!("its table has stopped: {reason}")));
        }
    }
}

fn answer_row(place: &RecordPlace, answer: &Result<(), String>, number: i64) -> Settlement {
    let (event, detail) = match answer {
        Ok(()) => (QuarantineEvent::Replayed, "as asked".to_owned()),
        Err(reason) => (QuarantineEvent::ReplayRefused, reason.clone()),
    };
    Settlement { place: place.clone(), event, row_key: None, detail, replay: Some(number) }
}
