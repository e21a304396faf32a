//! Keys whose stored rows are known to be wrong, because a record of theirs is in quarantine.
//!
//! Shared by the decoder, which judges every change of a marked key and marks the keys of records that it sets aside,
//! and the lane, which takes marks away when records are discarded or replayed. Without marks, which is the usual case,
//! a change costs one comparison.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Ledger, QuarantineEvent, RecordPlace, RecordState, Settlement};
use crate::change::{RecordErrorKind, TableId};

/// A change as far as marks ask for it.
#[derive(Debug, Clone, Copy)]
pub struct JudgedChange<'a> {
    /// Where its record lies.
    pub place: &'a RecordPlace,
    /// The table that it changes.
    pub table: &'a TableId,
    /// The table that its event names, whose rows may go into another one.
    pub source: &'a TableId,
    /// Whether the table takes the rows of other source tables as well.
    pub several_sources: bool,
    /// The key of its row as JSON text.
    pub key: &'a str,
    /// On the create half of a key change, the key that the row had before.
    pub old_key: Option<&'a str>,
    /// On the delete half of a key change, the key that the row has afterwards.
    pub new_key: Option<&'a str>,
    /// Whether it needs nothing of the stored row: a delete, or a row without absent cells.
    pub whole: bool,
}

/// What marks say about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be applied.
    Sound,
    /// It needs the stored row, which is wrong: this record, still in quarantine, is missing in it.
    WrongBase(RecordPlace),
}

#[derive(Debug, Clone)]
struct Mark {
    place: RecordPlace,
    table: Option<TableId>,
}

impl Mark {
    /// Where a table takes the rows of several source tables, a row that comes from one of them comes whole: what is missing
    /// in the row that another one had is neither missing in it nor settled by it. When a row leaves a source table, the
    /// delete in that table's own topic settles what is missing of it there.
    fn concerns(&self, change: &JudgedChange<'_>) -> bool {
        let same_topic = self.place.partition.topic == change.place.partition.topic;
        match &self.table {
            Some(table) => {
                [change.table, change.source].contains(&table) && (same_topic || !change.several_sources)
            }
            None => same_topic,
        }
    }

    /// Whether the change comes before the marked record, and is being read again.
    fn is_later_than(&self, change: &JudgedChange<'_>) -> bool {
        same_log(&self.place, change.place) && change.place.offset < self.place.offset
    }
}

fn same_log(a: &RecordPlace, b: &RecordPlace) -> bool {
    a.partition == b.partition && a.identity == b.identity
}

#[derive(Debug, Default)]
struct State {
    by_key: HashMap<String, Vec<Mark>>,
    /// Records that were set aside for their wrong base. Read again, they are set aside again, though what was wrong
    /// with the base is settled meanwhile.
    rebased: HashSet<RecordPlace>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Marks and records in `state`.
    count: AtomicUsize,
    state: Mutex<State>,
}

/// The marked keys of one lane.
#[derive(Debug, Clone, Default)]
pub struct Marks(Arc<Shared>);

impl Marks {
    /// The marks that a ledger asks for.
    pub fn of(ledger: &Ledger) -> Self {
        let marks = Self::default();
        {
            let mut state = marks.lock();
            for (place, table, key) in ledger.marks() {
                let mark = Mark { place: place.clone(), table: table.cloned() };
                state.by_key.entry(key.to_owned()).or_default().push(mark);
            }
            let code = RecordErrorKind::BaseQuarantined.code();
            let rebased = ledger
                .records()
                .filter(|(_, record)| record.code == code && record.state != RecordState::Replayed);
            state.rebased.extend(rebased.map(|(place, _)| place.clone()));
            marks.recount(&state);
        }
        marks
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recount(&self, state: &State) {
        self.0.count.store(state.by_key.len() + state.rebased.len(), Ordering::Release);
    }

    /// Whether no key is marked.
    pub fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    /// Marks the key of a record that goes into quarantine.
    pub fn add(&self, place: &RecordPlace, table: Option<&TableId>, key: &str) {
        let mut state = self.lock();
        let marks = state.by_key.entry(key.to_owned()).or_default();
        if !marks.iter().any(|mark| mark.place == *place) {
            marks.push(Mark { place: place.clone(), table: table.cloned() });
        }
        self.recount(&state);
    }

    /// Takes away the marks of records that were replayed or discarded.
    pub fn remove<'a>(&self, places: impl IntoIterator<Item = &'a RecordPlace>) {
        let places: HashSet<&RecordPlace> = places.into_iter().collect();
        if places.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.by_key.retain(|_, marks| {
            marks.retain(|mark| !places.contains(&mark.place));
            !marks.is_empty()
        });
        state.rebased.retain(|place| !places.contains(place));
        self.recount(&state);
    }

    /// Judges a change that has been decoded. Where it may be applied, `settled` is told which records it settles.
    pub fn judge(&self, change: &JudgedChange<'_>, settled: &mut Vec<Settlement>) -> Verdict {
        let mut state = self.lock();
        if let Some(place) = wrong_base(&state, change) {
            return Verdict::WrongBase(place);
        }
        let Some(marks) = state.by_key.remove(change.key) else { return Verdict::Sound };
        let (settles, stay): (Vec<Mark>, Vec<Mark>) =
            marks.into_iter().partition(|mark| mark.concerns(change) && !mark.is_later_than(change));
        if !stay.is_empty() {
            state.by_key.insert(change.key.to_owned(), stay);
        }
        for mark in settles {
            let own = mark.place == *change.place;
            let (event, row_key, detail) = match change.new_key {
                _ if own => {
                    (QuarantineEvent::Replayed, None, "it was applied when it was read again".to_owned())
                }
                Some(new_key) => {
                    let moved = Mark { place: mark.place.clone(), table: mark.table.clone() };
                    state.by_key.entry(new_key.to_owned()).or_default().push(moved);
                    let detail = format!("the key of its row was changed by {}", change.place);
                    (QuarantineEvent::Moved, Some(new_key.to_owned()), detail)
                }
                None => (QuarantineEvent::Superseded, None, format!("by {}", change.place)),
            };
            settled.push(Settlement { place: mark.place, event, row_key, detail, replay: None });
        }
        self.recount(&state);
        Verdict::Sound
    }

    /// A table was emptied: whatever its rows were, they are gone. In other partitions than the truncate's own, a record
    /// that was read before it may be newer than it is, so their marks stay until a whole row comes.
    pub fn truncated(&self, table: &TableId, at: &RecordPlace, settled: &mut Vec<Settlement>) {
        let mut state = self.lock();
        state.by_key.retain(|_, marks| {
            marks.retain(|mark| {
                let is_before = same_log(&mark.place, at) && mark.place.offset < at.offset;
                let gone = is_before && mark.table.as_ref() == Some(table);
                if gone {
                    settled.push(Settlement {
                        place: mark.place.clone(),
                        event: QuarantineEvent::Superseded,
                        row_key: None,
                        detail: format!("its table was emptied by {at}"),
                        replay: None,
                    });
                }
                !gone
            });
            !marks.is_empty()
        });
        self.recount(&state);
    }
}

/// The record in quarantine for which the change must not be applied.
fn wrong_base(state: &State, change: &JudgedChange<'_>) -> Option<RecordPlace> {
    if state.rebased.contains(change.place) {
        return Some(change.place.clone());
    }
    if change.whole {
        return None;
    }
    [Some(change.key), change.old_key]
        .into_iter()
        .flatten()
        .filter_map(|key| state.by_key.get(key))
        .flatten()
        .find(|mark| mark.concerns(change) && !mark.is_later_than(change) && mark.place != *change.place)
        .map(|mark| mark.place.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{TopicIdentity, TopicPartition};

    fn place(offset: i64) -> RecordPlace {
        let partition = TopicPartition::new("t", 0);
        RecordPlace { partition, identity: TopicIdentity::unknown(), offset }
    }

    fn table() -> TableId {
        TableId::new("d", "public", "orders")
    }

    /// Judges `change` after it was made out of a plain one of `{"id":1}`.
    fn judge(
        marks: &Marks,
        offset: i64,
        change: impl Fn(JudgedChange<'_>) -> JudgedChange<'_>,
    ) -> (Verdict, Vec<(i64, QuarantineEvent)>) {
        let (place, table) = (place(offset), table());
        let plain = JudgedChange {
            place: &place,
            table: &table,
            source: &table,
            several_sources: false,
            key: "{\"id\":1}",
            old_key: None,
            new_key: None,
            whole: true,
        };
        let mut settled = Vec::new();
        let verdict = marks.judge(&change(plain), &mut settled);
        (verdict, settled.iter().map(|each| (each.place.offset, each.event)).collect())
    }

    fn partial(change: JudgedChange<'_>) -> JudgedChange<'_> {
        JudgedChange { whole: false, ..change }
    }

    /// The create half of a key change from `{"id":1}` to `{"id":2}`, without what did not change.
    fn create(change: JudgedChange<'_>) -> JudgedChange<'_> {
        JudgedChange { key: "{\"id\":2}", old_key: Some("{\"id\":1}"), ..partial(change) }
    }

    fn marked() -> Marks {
        let marks = Marks::default();
        marks.add(&place(10), Some(&table()), "{\"id\":1}");
        marks
    }

    #[test]
    fn a_partial_update_is_not_applied_on_a_wrong_base_until_a_whole_row_comes() {
        let marks = marked();
        assert_eq!(judge(&marks, 11, partial).0, Verdict::WrongBase(place(10)));
        let whole = judge(&marks, 12, |change| change);
        assert_eq!(whole, (Verdict::Sound, vec![(10, QuarantineEvent::Superseded)]));
        assert_eq!(judge(&marks, 13, partial), (Verdict::Sound, vec![]));
        assert!(marks.is_empty());
    }

    #[test]
    fn other_keys_and_other_tables_are_not_concerned() {
        let marks = marked();
        let other = TableId::new("d", "public", "other");
        assert_eq!(
            judge(&marks, 11, |change| JudgedChange { key: "{\"id\":2}", ..partial(change) }).0,
            Verdict::Sound
        );
        let mut settled = Vec::new();
        let at = place(11);
        let change = JudgedChange {
            place: &at,
            table: &other,
            source: &other,
            several_sources: false,
            key: "{\"id\":1}",
            old_key: None,
            new_key: None,
            whole: true,
        };
        assert_eq!((marks.judge(&change, &mut settled), settled), (Verdict::Sound, vec![]));
        assert_eq!(judge(&marks, 12, partial).0, Verdict::WrongBase(place(10)), "the mark is still there");
    }

    #[test]
    fn in_a_table_of_several_sources_only_changes_of_the_marks_own_topic_are_concerned() {
        let (table, source) = (table(), TableId::new("d", "public", "orders_p1"));
        let (own, elsewhere) =
            (place(11), RecordPlace { partition: TopicPartition::new("t2", 0), ..place(99) });
        // A mark under the name of the table, and one as they were stored before, under that of its source.
        for named in [&table, &source] {
            let marks = Marks::default();
            marks.add(&place(10), Some(named), "{\"id\":1}");
            let judge = |place, whole| {
                let change = JudgedChange {
                    place,
                    table: &table,
                    source: &source,
                    several_sources: true,
                    key: "{\"id\":1}",
                    old_key: None,
                    new_key: None,
                    whole,
                };
                let mut settled = Vec::new();
                let verdict = marks.judge(&change, &mut settled);
                (verdict, settled.iter().map(|each| each.event).collect::<Vec<_>>())
            };
            assert_eq!(judge(&elsewhere, false), (Verdict::Sound, vec![]), "{named}: another topic, partial");
            assert_eq!(judge(&elsewhere, true), (Verdict::Sound, vec![]), "{named}: another topic, whole");
            assert_eq!(judge(&own, false).0, Verdict::WrongBase(place(10)), "{named}: its topic, partial");
            let whole = judge(&own, true);
            assert_eq!(
                whole,
                (Verdict::Sound, vec![QuarantineEvent::Superseded]),
                "{named}: its topic, whole"
            );
        }
    }

    #[test]
    fn records_that_are_read_again_neither_supersede_nor_are_held_back_by_what_comes_after_them() {
        let marks = marked();
        assert_eq!(judge(&marks, 9, partial), (Verdict::Sound, vec![]));
        assert_eq!(judge(&marks, 9, |change| change), (Verdict::Sound, vec![]));
        assert_eq!(
            judge(&marks, 10, |change| change),
            (Verdict::Sound, vec![(10, QuarantineEvent::Replayed)])
        );
        assert!(marks.is_empty());
    }

    #[test]
    fn a_mark_follows_its_row_through_a_key_change() {
        let marks = marked();
        let moved = judge(&marks, 11, |change| JudgedChange { new_key: Some("{\"id\":2}"), ..change });
        assert_eq!(moved, (Verdict::Sound, vec![(10, QuarantineEvent::Moved)]));
        assert_eq!(judge(&marks, 12, create).0, Verdict::WrongBase(place(10)));
        let whole = judge(&marks, 13, |change| JudgedChange { key: "{\"id\":2}", ..change });
        assert_eq!(whole, (Verdict::Sound, vec![(10, QuarantineEvent::Superseded)]));
    }

    #[test]
    fn the_create_of_a_key_change_that_comes_before_its_delete_looks_at_the_old_key() {
        let marks = marked();
        assert_eq!(judge(&marks, 11, create).0, Verdict::WrongBase(place(10)));
    }

    #[test]
    fn replayed_and_discarded_records_and_emptied_tables_leave_no_mark() {
        let marks = marked();
        marks.remove([&place(10)]);
        assert!(marks.is_empty());
        let marks = marked();
        let mut settled = Vec::new();
        marks.truncated(&table(), &place(20), &mut settled);
        assert_eq!((settled.len(), marks.is_empty()), (1, true));
    }

    #[test]
    fn a_truncate_leaves_marks_of_other_tables_of_other_partitions_and_of_records_behind_it() {
        let marks = marked();
        let mut settled = Vec::new();
        marks.truncated(&TableId::new("d", "public", "other"), &place(20), &mut settled);
        marks.truncated(&table(), &place(9), &mut settled);
        let elsewhere = RecordPlace { partition: TopicPartition::new("t", 1), ..place(20) };
        marks.truncated(&table(), &elsewhere, &mut settled);
        assert_eq!(settled, []);
        assert_eq!(judge(&marks, 21, partial).0, Verdict::WrongBase(place(10)));
    }
}
