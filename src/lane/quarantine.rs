//! What a lane does for its sink's quarantine between batches: marks, counts, and replays.
//!
//! Replays are asked for by a row in the quarantine and done here, by the task that commits: so nothing can come between
//! the question whether a later change of the key was applied and the commit of the replay. Only the lane that reads the
//! record's partition does it. The records go the ordinary way, through a decoder with the present settings, a fold and
//! the sink's commit.
//!
//! Exactly once: a replay moves a position of its own, of a topic whose name no topic can have. Its offsets grow with the
//! number of the request, so that a replay whose answer was lost by a crash is done again and skipped.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::Lane;
use super::attempt::{Attempt, AttemptEnd};
use crate::change::quarantine::{
    Ledger, Payload, PendingReplay, QuarantineEvent, QuarantineRow, RecordPlace, RecordState, Settlement,
    replays_of,
};
use crate::change::{Batch, CommitReport, Sink, Span, TopicPartition};
use crate::debezium::{Decoder, Outcome, RecordRef};

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
            late(&report, replay, &mut answers);
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
    let before = decoder.raw_rows();
    match decoder.push(reference, &record.place.identity) {
        Ok(Outcome::Change(_)) => Ok(()),
        // What is no change of a row may still be part of the history, and is there now.
        Ok(Outcome::Filtered(_)) if decoder.raw_rows() > before => Ok(()),
        Ok(Outcome::Filtered(rule)) => {
            Err(format!("nothing of it would be applied: it is filtered as {rule}; discard it if that is right"))
        }
        Ok(Outcome::Truncate { .. }) => Err(
            "it empties its table, and nothing says any more which rows came after it: empty the copy by hand where that is still \
             wanted, then discard it"
                .to_owned(),
        ),
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
    let forced = replay.asked.iter().filter(|asked| asked.force);
    batch.forced =
        forced.filter_map(|asked| places.get(&asked.place.offset)).copied().collect::<BTreeSet<_>>();
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

/// The record whose change has that offset among the positions of its replay.
fn record_at(replay: &Replay, offset: i64) -> Option<&RecordPlace> {
    let first = replay.number.saturating_mul(ROOM);
    let index = usize::try_from(offset.saturating_sub(first)).ok()?;
    replay.asked.get(index).map(|asked| &asked.place)
}

/// Takes back the answers of records that did nothing, because another source table has changed their row since. Where a
/// crash comes between their commit and this answer, the position says that the replay is done, and they are answered as
/// the others are.
fn late(report: &CommitReport, replay: &Replay, answers: &mut Answers) {
    for offset in report.tables.values().flat_map(|table| &table.late_replays) {
        if let Some(place) = record_at(replay, *offset) {
            let reason = "its row has a later change from another source table of its table; --force replays it all the same";
            answers.insert(place.clone(), Err(reason.to_owned()));
        }
    }
}

/// Takes back the answers of records that the sink did not take.
fn refused_by_sink(batch: &Batch, report: &CommitReport, replay: &Replay, answers: &mut Answers) {
    for refused in &report.refused {
        if let Some(place) = record_at(replay, refused.place.offset) {
            answers.insert(place.clone(), Err(format!("still {}: {}", refused.kind.code(), refused.detail)));
        }
    }
    for changes in batch.changes.iter().filter(|changes| report.stopped.contains_key(&changes.table)) {
        let reason = report.stopped.get(&changes.table).map_or("", String::as_str);
        for place in changes.offsets.iter().filter_map(|&offset| record_at(replay, offset)) {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::change::{TableId, TableReport, TopicIdentity};
    use crate::debezium::DecoderOptions;

    /// A record of `cdc.public.t` in quarantine.
    fn kept(offset: i64, key: &str, value: Option<&str>) -> QuarantineRow {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let partition = TopicPartition::new("cdc.public.t", 0);
        let place = RecordPlace { partition, identity: TopicIdentity::unknown(), offset };
        QuarantineRow {
            payload: Some(Payload {
                timestamp_ms: 1,
                key: Some(bytes(key)),
                value: value.map(bytes),
                headers: Vec::new(),
            }),
            ..QuarantineRow::new(QuarantineEvent::Quarantined, 1, "lake", place)
        }
    }

    fn event(op: &str, rest: &str) -> String {
        format!(
            r#"{{"op":"{op}","before":null,"source":{{"db":"shop","schema":"public","table":"t","ts_ms":1,"lsn":1}},{rest}}}"#
        )
    }

    fn decoder(raw: bool) -> Decoder {
        Decoder::new(DecoderOptions { raw, ..DecoderOptions::default() }, |_: &TableId| None)
    }

    #[test]
    fn only_what_leaves_a_change_or_a_row_of_the_history_is_replayed() {
        let change = event("c", r#""after":{"id":1}"#);
        let truncate = event("t", r#""after":null"#);
        let message = event("m", r#""message":{"prefix":"p","content":"eA=="}"#);
        let mut empty = kept(2, "", None);
        empty.payload = Some(Payload::default());
        let cases = [
            (kept(0, r#"{"id":1}"#, Some(&change)), true, None),
            (kept(1, r#"{"prefix":"p"}"#, Some(&message)), true, None),
            (kept(1, r#"{"prefix":"p"}"#, Some(&message)), false, Some("filtered as message")),
            (empty, true, Some("filtered as empty")),
            (kept(3, r#"{"id":1}"#, Some(&truncate)), true, Some("it empties its table")),
        ];
        for (record, raw, refusal) in cases {
            let answer = push(&mut decoder(raw), &record);
            match (&answer, refusal) {
                (Ok(()), None) => {}
                (Err(said), Some(refusal)) if said.contains(refusal) => {}
                _ => panic!("record {}, raw {raw}: {answer:?} instead of {refusal:?}", record.place),
            }
        }
    }

    #[test]
    fn forced_and_late_replays_are_known_by_the_positions_that_they_have() {
        let rows: Vec<QuarantineRow> = (5..8)
            .map(|offset| {
                let after = format!(r#""after":{{"id":{offset}}}"#);
                kept(offset, &format!(r#"{{"id":{offset}}}"#), Some(&event("c", &after)))
            })
            .collect();
        let asked = rows.iter().map(|row| PendingReplay {
            number: 3,
            place: row.place.clone(),
            force: row.place.offset == 6,
        });
        let replay = Replay { number: 3, partition: rows[0].place.partition.clone(), asked: asked.collect() };
        let mut decoder = decoder(true);
        let mut answers = Answers::new();
        for row in &rows {
            answers.insert(row.place.clone(), push(&mut decoder, row));
        }
        let batch = at_own_position(decoder.finish().unwrap(), &replay);
        let first = 3 * ROOM;
        assert_eq!(batch.changes[0].offsets, [first, first + 1, first + 2]);
        assert_eq!(batch.forced, BTreeSet::from([first + 1]));
        let table = TableReport { late_replays: vec![first + 2], ..TableReport::default() };
        let report = CommitReport {
            tables: BTreeMap::from([("public.t".to_owned(), table)]),
            ..CommitReport::default()
        };
        late(&report, &replay, &mut answers);
        let refused: Vec<i64> =
            answers.iter().filter(|(_, answer)| answer.is_err()).map(|(place, _)| place.offset).collect();
        assert_eq!(refused, [7], "{answers:?}");
    }
}
