//! What each record in quarantine is now: a function of its rows.
//!
//! Invariant: the result does not depend on the order in which rows are applied, nor on how often. Of the states the
//! furthest one counts (open, moved, superseded, discarded, replayed), and a replay is pending until it has an answer.

use std::collections::{BTreeMap, BTreeSet};

use super::{QuarantineEvent, QuarantineRow, RecordPlace};
use crate::change::TableId;

/// What a record in quarantine is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum RecordState {
    /// Its change is missing in the sink.
    #[default]
    Open,
    /// Its row has another key now, which carries the mark.
    Moved,
    /// A later change of its key has been applied.
    Superseded,
    /// Somebody decided to do without it.
    Discarded,
    /// It has been applied.
    Replayed,
}

impl RecordState {
    /// The word that commands show.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Moved => "moved",
            Self::Superseded => "superseded",
            Self::Discarded => "discarded",
            Self::Replayed => "replayed",
        }
    }
}

/// A record in quarantine, without its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerRecord {
    /// Its table, where known.
    pub table: Option<TableId>,
    /// The key of its row, where known.
    pub row_key: Option<String>,
    /// What was wrong with it.
    pub code: String,
    /// The same in words.
    pub error: String,
    /// When it came, microseconds since 1970.
    pub at_micros: i64,
    /// What it is now.
    pub state: RecordState,
    /// Why it is that.
    pub reason: Option<String>,
    /// When that was, microseconds since 1970.
    pub changed_micros: i64,
    /// Why and when the newest replay was refused.
    refused: Option<(i64, String)>,
    moved_to: Option<String>,
    /// Replays asked for, by number, and whether they are forced.
    requests: BTreeMap<i64, bool>,
    answers: BTreeSet<i64>,
    /// Whether the row with the record itself has been seen.
    present: bool,
}

impl LedgerRecord {
    /// Why its newest replay was refused.
    pub fn refusal(&self) -> Option<&str> {
        self.refused.as_ref().map(|(_, reason)| reason.as_str())
    }
}

/// A replay that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingReplay {
    /// Its number; replays of one request share one.
    pub number: i64,
    /// The record.
    pub place: RecordPlace,
    /// Whether later changes of the key do not matter.
    pub force: bool,
}

/// All records of one lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    records: BTreeMap<RecordPlace, LedgerRecord>,
}

impl Ledger {
    /// Applies one row.
    pub fn apply(&mut self, row: &QuarantineRow) {
        let record = self.records.entry(row.place.clone()).or_default();
        let state = match row.event {
            QuarantineEvent::Quarantined => {
                record.present = true;
                record.table.clone_from(&row.table);
                record.row_key.clone_from(&row.row_key);
                record.code = row.code.clone().unwrap_or_default();
                record.error = row.detail.clone().unwrap_or_default();
                record.at_micros = row.at_micros;
                return;
            }
            QuarantineEvent::ReplayRequested => {
                record.requests.insert(row.replay.unwrap_or_default(), row.force);
                return;
            }
            QuarantineEvent::ReplayRefused => {
                let refused = (row.at_micros, row.detail.clone().unwrap_or_default());
                record.answers.extend(row.replay);
                record.refused = record.refused.take().max(Some(refused));
                return;
            }
            QuarantineEvent::Moved => {
                record.moved_to.clone_from(&row.row_key);
                RecordState::Moved
            }
            QuarantineEvent::Superseded => RecordState::Superseded,
            QuarantineEvent::Discarded => RecordState::Discarded,
            QuarantineEvent::Replayed => RecordState::Replayed,
        };
        record.answers.extend(row.replay);
        if (state, row.at_micros) > (record.state, record.changed_micros) {
            record.state = state;
            record.changed_micros = row.at_micros;
            record.reason.clone_from(&row.detail);
        }
    }

    /// Whether a row says something new of the state of its record.
    pub fn is_changed_by(&self, row: &QuarantineRow) -> bool {
        let mut with = Self::default();
        if let Some(record) = self.records.get(&row.place) {
            with.records.insert(row.place.clone(), record.clone());
        }
        with.apply(row);
        let state = |ledger: &Self| {
            let record = ledger.records.get(&row.place)?;
            Some((record.state, record.answers.clone(), record.requests.clone()))
        };
        state(self) != state(&with)
    }

    /// The record at a place, if it is or was in quarantine.
    pub fn get(&self, place: &RecordPlace) -> Option<&LedgerRecord> {
        self.records.get(place).filter(|record| record.present)
    }

    /// All records, in the order of their places.
    pub fn records(&self) -> impl Iterator<Item = (&RecordPlace, &LedgerRecord)> {
        self.records.iter().filter(|(_, record)| record.present)
    }

    /// The keys whose stored rows are known to be wrong.
    pub fn marks(&self) -> impl Iterator<Item = (&RecordPlace, Option<&TableId>, &str)> {
        self.records().filter_map(|(place, record)| {
            let key = match record.state {
                RecordState::Open => record.row_key.as_deref(),
                RecordState::Moved => record.moved_to.as_deref(),
                _ => None,
            };
            Some((place, record.table.as_ref(), key?))
        })
    }

    /// Replays that have no answer yet, in the order of their numbers and of the records.
    pub fn pending(&self) -> Vec<PendingReplay> {
        let mut pending: Vec<PendingReplay> = self
            .records()
            .flat_map(|(place, record)| {
                let open = record.requests.iter().filter(|(number, _)| !record.answers.contains(*number));
                open.map(|(&number, &force)| PendingReplay { number, place: place.clone(), force })
            })
            .collect();
        pending.sort_by(|a, b| (a.number, &a.place).cmp(&(b.number, &b.place)));
        pending
    }

    /// Whether a replay of the record has no answer yet.
    pub fn is_pending(&self, place: &RecordPlace) -> bool {
        let of =
            |record: &LedgerRecord| record.requests.keys().any(|number| !record.answers.contains(number));
        self.records.get(place).is_some_and(of)
    }

    /// Requests for replays with the next number, without those of records whose replay is asked for already. Only what is
    /// appended to the very rows of this ledger has that number for itself: two requests of one number would have one
    /// position, and the second would be taken for the first.
    pub fn numbered(&self, requests: &[QuarantineRow]) -> Vec<QuarantineRow> {
        let newest = |record: &LedgerRecord| record.requests.keys().next_back().copied();
        let newest = self.records.values().filter_map(newest).max().unwrap_or(0);
        let number = Some(newest.saturating_add(1));
        let new = requests.iter().filter(|request| !self.is_pending(&request.place));
        new.map(|request| QuarantineRow { replay: number, ..request.clone() }).collect()
    }

    /// Records that came at `since` (microseconds since 1970) or later and that nobody has decided about.
    pub fn waiting_since(&self, since: i64) -> impl Iterator<Item = &RecordPlace> {
        let waits = move |(place, record): &(&RecordPlace, &LedgerRecord)| {
            matches!(record.state, RecordState::Open | RecordState::Moved)
                && record.at_micros >= since
                && !self.is_pending(place)
        };
        self.records().filter(waits).map(|(place, _)| place)
    }

    /// Open records by code.
    pub fn open(&self) -> BTreeMap<String, u64> {
        let mut open = BTreeMap::new();
        for (_, record) in self.records().filter(|(_, record)| record.state == RecordState::Open) {
            *open.entry(record.code.clone()).or_default() += 1;
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{TopicIdentity, TopicPartition};

    fn row(offset: i64, event: QuarantineEvent, at_micros: i64) -> QuarantineRow {
        let partition = TopicPartition::new("t", 0);
        let place = RecordPlace { partition, identity: TopicIdentity::unknown(), offset };
        QuarantineRow {
            table: Some(TableId::new("d", "s", "t")),
            row_key: Some(format!("{{\"id\":{offset}}}")),
            code: Some("invalid_value".to_owned()),
            detail: Some(format!("at {at_micros}")),
            ..QuarantineRow::new(event, at_micros, "lake", place)
        }
    }

    #[test]
    fn the_order_of_rows_and_their_repetition_change_nothing() {
        use QuarantineEvent::*;
        let request = QuarantineRow { replay: Some(1), ..row(1, ReplayRequested, 4) };
        let refused = QuarantineRow { replay: Some(1), ..row(1, ReplayRefused, 5) };
        let rows = [
            row(1, Quarantined, 1),
            row(2, Quarantined, 2),
            row(2, Moved, 3),
            row(2, Superseded, 4),
            request,
            refused,
            row(3, Quarantined, 6),
            row(3, Discarded, 8),
            row(3, Replayed, 7),
        ];
        let mut expected = Ledger::default();
        for row in &rows {
            expected.apply(row);
        }
        let mut random = fastrand::Rng::with_seed(11);
        for round in 0..200 {
            let mut shuffled: Vec<&QuarantineRow> = rows.iter().chain(&rows).collect();
            random.shuffle(&mut shuffled);
            let mut ledger = Ledger::default();
            for row in shuffled {
                ledger.apply(row);
            }
            assert_eq!(ledger, expected, "round {round}");
        }
        let states: Vec<_> = expected.records().map(|(_, record)| record.state.word()).collect();
        assert_eq!(states, ["open", "superseded", "replayed"]);
        assert_eq!(expected.open(), BTreeMap::from([("invalid_value".to_owned(), 1)]));
    }

    #[test]
    fn a_replay_is_pending_until_it_has_an_answer() {
        let mut ledger = Ledger::default();
        ledger.apply(&row(1, QuarantineEvent::Quarantined, 1));
        ledger.apply(&row(2, QuarantineEvent::Quarantined, 1));
        let requests = [2, 1].map(|offset| row(offset, QuarantineEvent::ReplayRequested, 2));
        for request in ledger.numbered(&requests) {
            assert_eq!(request.replay, Some(1));
            ledger.apply(&request);
        }
        assert_eq!(ledger.numbered(&requests), [], "they are asked for already");
        let offsets = |ledger: &Ledger| -> Vec<i64> {
            ledger.pending().iter().map(|pending| pending.place.offset).collect()
        };
        assert_eq!(offsets(&ledger), [1, 2]);
        ledger.apply(&QuarantineRow { replay: Some(1), ..row(1, QuarantineEvent::Replayed, 3) });
        ledger.apply(&QuarantineRow { replay: Some(1), ..row(2, QuarantineEvent::ReplayRefused, 3) });
        assert_eq!(offsets(&ledger), Vec::<i64>::new());
        let again: Vec<_> = ledger.numbered(&requests).iter().map(|request| request.replay).collect();
        assert_eq!(again, [Some(2), Some(2)], "one request, the next number");
        let kept = ledger.get(&row(2, QuarantineEvent::Quarantined, 0).place).unwrap();
        assert_eq!((kept.state, kept.refusal()), (RecordState::Open, Some("at 3")));
    }

    #[test]
    fn records_wait_until_somebody_decides_about_them() {
        let mut ledger = Ledger::default();
        for offset in 1..=5 {
            ledger.apply(&row(offset, QuarantineEvent::Quarantined, offset));
        }
        let waiting =
            |ledger: &Ledger| -> Vec<i64> { ledger.waiting_since(2).map(|place| place.offset).collect() };
        assert_eq!(waiting(&ledger), [2, 3, 4, 5], "the first came too early");
        ledger.apply(&row(2, QuarantineEvent::Superseded, 6));
        ledger.apply(&row(3, QuarantineEvent::Discarded, 6));
        ledger.apply(&QuarantineRow { replay: Some(1), ..row(4, QuarantineEvent::ReplayRequested, 6) });
        assert_eq!(waiting(&ledger), [5]);
        ledger.apply(&QuarantineRow { replay: Some(1), ..row(4, QuarantineEvent::ReplayRefused, 7) });
        assert_eq!(waiting(&ledger), [4, 5], "what was refused waits again");
    }

    #[test]
    fn marks_are_the_keys_of_open_records_and_the_new_keys_of_moved_ones() {
        let mut ledger = Ledger::default();
        for offset in 1..=4 {
            ledger.apply(&row(offset, QuarantineEvent::Quarantined, 1));
        }
        ledger.apply(&QuarantineRow { row_key: Some("new".to_owned()), ..row(2, QuarantineEvent::Moved, 2) });
        ledger.apply(&row(3, QuarantineEvent::Superseded, 2));
        ledger.apply(&row(4, QuarantineEvent::Discarded, 2));
        let keys: Vec<&str> = ledger.marks().map(|(_, _, key)| key).collect();
        assert_eq!(keys, ["{\"id\":1}", "new"]);
    }
}
