//! The rules of schema changes, by example.
use super::difference::DifferenceKind as Kind;
use super::evolution::{SchemaStep, Teller, Told, Verdict, judge};
use super::lineage::{Described, Lineage, Pending};
use super::resolution::{Action, Resolve, resolve};
use super::{Column, ColumnType, EventPlace, SchemaChange, TableSchema};
use ColumnType::{Date, Float64, Int16, Int32, Int64, Text, Timestamp, TimestampTz};
use SchemaChange::{Evolve, Halt, Ignore};

fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
    let columns = columns
        .iter()
        .map(|(name, column_type)| Column {
            name: (*name).into(),
            column_type: column_type.clone(),
            nullable: true,
        })
        .collect();
    TableSchema::new(columns, vec![0])
}

/// A table whose first events, from second 10 on, have that schema.
fn begun(columns: &[(&str, ColumnType)]) -> (TableSchema, Lineage) {
    let schema = schema(columns);
    let lineage = Lineage::default().followed_by(Described::from(&schema), 10);
    (schema, lineage)
}

/// Changes whose first and newest were committed at these times.
fn at(first: i64, newest: i64) -> Told {
    Told { first, newest, by: Teller::Changes }
}

fn step(verdict: Verdict) -> SchemaStep {
    match verdict {
        Verdict::Change(step) => *step,
        other => panic!("no change: {other:?}"),
    }
}

fn refused(verdict: Verdict) -> Vec<Kind> {
    match verdict {
        Verdict::Refuse(differences) => differences.iter().map(|difference| difference.kind).collect(),
        other => panic!("not refused: {other:?}"),
    }
}

fn kinds(step: &SchemaStep) -> Vec<(Kind, &str)> {
    step.differences.iter().map(|difference| (difference.kind, difference.column.as_str())).collect()
}

fn types(schema: &TableSchema) -> Vec<(String, ColumnType)> {
    schema.columns().iter().map(|column| (column.name.to_string(), column.column_type.clone())).collect()
}

#[test]
fn columns_that_come_are_added_and_those_that_go_stay() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text)]);
    let events = schema(&[("id", Int64), ("b", Date)]);
    let step = step(judge(&stored, &lineage, &events, at(20, 20), Evolve));
    assert_eq!(kinds(&step), [(Kind::Add, "b"), (Kind::Drop, "a")]);
    assert_eq!(types(&step.stored), types(&schema(&[("id", Int64), ("a", Text), ("b", Date)])));
    // Its own schema is settled from then on, and so are old events.
    for (again, time) in [(&events, 30), (&stored, 15)] {
        assert_eq!(judge(&step.stored, &step.lineage, again, at(time, time), Evolve), Verdict::Settled);
    }
}

#[test]
fn a_rename_is_a_drop_and_an_add_with_a_hint_where_the_types_match() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text), ("n", Int64)]);
    let events = schema(&[("id", Int64), ("b", Text), ("n", Int64)]);
    let step = step(judge(&stored, &lineage, &events, at(20, 20), Evolve));
    let notes: Vec<_> = step.differences.iter().map(|difference| difference.note.clone().unwrap()).collect();
    assert_eq!(
        notes,
        ["perhaps the former a, renamed: it has the same type", "perhaps renamed to b: it has the same type"]
    );
}

#[test]
fn a_wider_type_is_followed_and_old_events_after_it_fit() {
    let (stored, lineage) = begun(&[("id", Int32), ("n", Int16)]);
    let wide = step(judge(&stored, &lineage, &schema(&[("id", Int64), ("n", Int64)]), at(20, 20), Evolve));
    assert_eq!(kinds(&wide), [(Kind::Widen, "id"), (Kind::Widen, "n")]);
    assert_eq!(
        judge(&wide.stored, &wide.lineage, &stored, at(15, 20), Evolve),
        Verdict::Settled,
        "seen before"
    );
    assert_eq!(
        refused(judge(&wide.stored, &wide.lineage, &stored, at(21, 30), Evolve)),
        [Kind::Narrow, Kind::Narrow],
        "seen before, and newer: the source has it again"
    );
    let in_between = schema(&[("id", Int32), ("n", Int32)]);
    assert_eq!(
        judge(&wide.stored, &wide.lineage, &in_between, at(15, 19), Evolve),
        Verdict::Settled,
        "older than the newest schema, by the time of its events"
    );
    assert_eq!(
        refused(judge(&wide.stored, &wide.lineage, &in_between, at(20, 25), Evolve)),
        [Kind::Narrow, Kind::Narrow],
        "newer: the source has narrowed its columns"
    );
}

#[test]
fn what_would_lose_something_waits() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text)]);
    for (events, kind) in [
        (schema(&[("id", Int32), ("a", Text)]), Kind::Narrow),
        (schema(&[("id", Int64), ("a", Int64)]), Kind::Narrow),
        (schema(&[("id", Int64), ("a", TimestampTz)]), Kind::Incompatible),
        (schema(&[("id2", Int64), ("a", Text)]), Kind::Add),
    ] {
        let found = refused(judge(&stored, &lineage, &events, at(20, 20), Evolve));
        assert_eq!(found[0], kind, "{events:?}");
    }
    let key = TableSchema::new(stored.columns().to_vec(), vec![0, 1]);
    assert_eq!(refused(judge(&stored, &lineage, &key, at(20, 20), Evolve)), [Kind::Key]);
    let swapped = TableSchema::new(stored.columns().to_vec(), vec![1, 0]);
    assert_eq!(
        judge(&key, &Lineage::default(), &swapped, at(20, 20), Evolve),
        Verdict::Settled,
        "the same key"
    );
}

#[test]
fn old_events_bring_the_columns_that_the_newest_lack() {
    // Partition 0 came first, with what is newest; partition 1 begins with what was before.
    let (stored, lineage) = begun(&[("id", Int64)]);
    let before = schema(&[("id", Int32), ("a", Text)]);
    let step = step(judge(&stored, &lineage, &before, at(5, 7), Evolve));
    assert_eq!(kinds(&step), [(Kind::Add, "a")]);
    assert_eq!(types(&step.stored), types(&schema(&[("id", Int64), ("a", Text)])));
    assert_eq!(judge(&step.stored, &step.lineage, &stored, at(30, 30), Evolve), Verdict::Settled);
    let wider = schema(&[("id", Text)]);
    let step = step_of(&stored, &lineage, &wider);
    assert_eq!(types(&step.stored), types(&wider), "wider than the newest: kept as it was");
    assert_eq!(judge(&step.stored, &step.lineage, &stored, at(30, 30), Evolve), Verdict::Settled);
}

fn step_of(stored: &TableSchema, lineage: &Lineage, older: &TableSchema) -> SchemaStep {
    step(judge(stored, lineage, older, at(5, 7), Evolve))
}

#[test]
fn a_column_that_was_dropped_and_comes_again_is_another_one() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Int32)]);
    let dropped = step(judge(&stored, &lineage, &schema(&[("id", Int64)]), at(20, 20), Evolve));
    let again = schema(&[("id", Int64), ("a", Date)]);
    let again = step(judge(&dropped.stored, &dropped.lineage, &again, at(30, 30), Evolve));
    assert_eq!(again.renames, [("a".to_owned(), "a__old".to_owned())]);
    assert_eq!(types(&again.stored), types(&schema(&[("id", Int64), ("a__old", Int32), ("a", Date)])));
    assert!(again.differences[0].note.as_deref().unwrap().contains("a__old"), "{again:?}");
}

/// `id`, and `a` as the last column: dropped and added again, it gives the very schema that was there before.
fn with_and_without() -> (TableSchema, TableSchema) {
    (schema(&[("id", Int64), ("a", Text)]), schema(&[("id", Int64)]))
}

#[test]
fn a_column_that_was_dropped_and_comes_again_with_its_type_and_place_is_another_one_too() {
    let (with, without) = with_and_without();
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text)]);
    let dropped = step(judge(&stored, &lineage, &without, at(20, 20), Evolve));
    let again = step(judge(&dropped.stored, &dropped.lineage, &with, at(30, 30), Evolve));
    assert_eq!((kinds(&again), again.renames.len()), (vec![(Kind::Add, "a")], 1), "{again:?}");
    assert_eq!(types(&again.stored), types(&schema(&[("id", Int64), ("a__old", Text), ("a", Text)])));
    // A connector that was restarted sends all three again, in their order: nothing is new about them.
    for (events, time) in [(&with, 15), (&without, 20), (&without, 29), (&with, 30), (&with, 31)] {
        let verdict = judge(&again.stored, &again.lineage, events, at(time, time), Evolve);
        assert_eq!(verdict, Verdict::Settled, "{events:?} of second {time}");
    }
}

#[test]
fn a_column_that_is_added_and_dropped_is_dropped_though_the_schema_is_that_of_before() {
    let (with, without) = with_and_without();
    let (stored, lineage) = begun(&[("id", Int64)]);
    let added = step(judge(&stored, &lineage, &with, at(20, 20), Evolve));
    let judged = |time, policy| judge(&added.stored, &added.lineage, &without, at(time, time), policy);
    let dropped = step(judged(30, Evolve));
    assert_eq!((kinds(&dropped), &dropped.stored), (vec![(Kind::Drop, "a")], &added.stored));
    assert_eq!(refused(judged(30, Halt)), [Kind::Drop]);
    assert_eq!(kinds(&step(judged(30, Ignore))), [(Kind::Drop, "a")], "recorded as ignored");
    for policy in [Evolve, Halt, Ignore] {
        assert_eq!(judged(15, policy), Verdict::Settled, "an old event");
        assert_eq!(judged(20, policy), Verdict::Settled, "as old as the first with the column");
        assert_eq!(judged(0, policy), Verdict::Settled, "without a time it may be an old one");
    }
    // And a third time: what was stored in between is kept under another name.
    let again = step(judge(&dropped.stored, &dropped.lineage, &with, at(40, 40), Evolve));
    assert_eq!(again.renames, [("a".to_owned(), "a__old".to_owned())]);
}

#[test]
fn events_that_cannot_say_it_bring_no_schema_back() {
    let (with, without) = with_and_without();
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text)]);
    let dropped = step(judge(&stored, &lineage, &without, at(20, 20), Evolve));
    let unsure = Told { by: Teller::Unsure, ..at(30, 30) };
    assert_eq!(judge(&dropped.stored, &dropped.lineage, &with, unsure, Evolve), Verdict::Settled);
}

/// A generated column is in rows of snapshots alone, for good: it must not begin anew with each of them.
#[test]
fn columns_that_snapshots_have_are_noted_once_and_a_change_that_has_them_takes_over_their_values() {
    let (with, without) = with_and_without();
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text)]);
    let dropped = step(judge(&stored, &lineage, &without, at(20, 20), Evolve));
    let snapshot = |time| Told { by: Teller::Snapshot, ..at(time, time) };
    for policy in [Evolve, Halt] {
        let noted = step(judge(&dropped.stored, &dropped.lineage, &with, snapshot(30), policy));
        assert_eq!((&noted.stored, &noted.renames, kinds(&noted)), (&stored, &vec![], vec![]), "{policy:?}");
        for (events, told) in [(&with, snapshot(31)), (&without, at(32, 32)), (&with, snapshot(33))] {
            assert_eq!(judge(&noted.stored, &noted.lineage, events, told, policy), Verdict::Settled);
        }
        let again = judge(&noted.stored, &noted.lineage, &with, at(40, 40), policy);
        if policy == Halt {
            assert_eq!(refused(again), [Kind::Add]);
            continue;
        }
        let again = step(again);
        assert_eq!((kinds(&again), again.renames.len()), (vec![(Kind::Add, "a")], 0), "{again:?}");
        assert_eq!(again.stored, stored);
        // What is dropped once more after that is forgotten again.
        let dropped = step(judge(&again.stored, &again.lineage, &without, at(50, 50), policy));
        assert_eq!(
            step(judge(&dropped.stored, &dropped.lineage, &with, at(60, 60), policy)).renames.len(),
            1
        );
    }
    assert_eq!(judge(&dropped.stored, &dropped.lineage, &with, snapshot(15), Evolve), Verdict::Settled);
}

#[test]
fn halt_waits_at_every_difference_but_nullability() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text)]);
    let more = schema(&[("id", Int64), ("a", Text), ("b", Text)]);
    assert_eq!(refused(judge(&stored, &lineage, &more, at(20, 20), Halt)), [Kind::Add]);
    let mut columns = stored.columns().to_vec();
    columns[1].nullable = false;
    let strict = TableSchema::new(columns, vec![0]);
    assert_eq!(kinds(&step(judge(&stored, &lineage, &strict, at(20, 20), Halt))), [(Kind::Nullable, "a")]);
    assert_eq!(judge(&stored, &lineage, &stored, at(30, 30), Halt), Verdict::Settled);
}

#[test]
fn ignore_keeps_the_columns_and_waits_only_where_no_value_could_fit() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Int32)]);
    let other = schema(&[("id", Int64), ("a", Int64), ("b", Text)]);
    let ignored = step(judge(&stored, &lineage, &other, at(20, 20), Ignore));
    assert_eq!(ignored.stored, stored);
    assert_eq!(judge(&stored, &ignored.lineage, &other, at(30, 30), Ignore), Verdict::Settled, "said once");
    let no_way = schema(&[("id", Int64), ("a", TimestampTz)]);
    assert_eq!(refused(judge(&stored, &lineage, &no_way, at(20, 20), Ignore)), [Kind::Incompatible]);
}

#[test]
fn a_table_from_before_lineages_were_kept_takes_its_own_schema_without_a_word() {
    let (stored, _) = begun(&[("id", Int64), ("a", Text)]);
    let nothing = Lineage::default();
    let reordered = schema(&[("a", Text), ("id", Int64)]);
    let reordered = TableSchema::new(reordered.columns().to_vec(), vec![1]);
    for events in [&stored, &reordered] {
        assert_eq!(judge(&stored, &nothing, events, at(20, 20), Evolve), Verdict::Settled);
    }
}

fn waiting(stored: &TableSchema, lineage: &Lineage, events: &TableSchema) -> Pending {
    let Verdict::Refuse(differences) = judge(stored, lineage, events, at(20, 20), Evolve) else {
        panic!("not refused")
    };
    let place = EventPlace { topic: "t".to_owned(), partition: 0, offset: 1, micros: 20 };
    Pending { events: Described::from(events), place, differences }
}

#[test]
fn a_narrower_type_is_resolved_by_check_by_text_or_by_keeping_aside() {
    let (stored, lineage) = begun(&[("id", Int64), ("n", Int64)]);
    let events = schema(&[("id", Int64), ("n", Int32)]);
    let pending = waiting(&stored, &lineage, &events);
    for (how, expected) in [
        (Resolve::Check, schema(&[("id", Int64), ("n", Int32)])),
        (Resolve::Text, schema(&[("id", Int64), ("n", Text)])),
        (Resolve::Keep, schema(&[("id", Int64), ("n__old", Int64), ("n", Int32)])),
    ] {
        let resolution = resolve(&stored, &lineage, &pending, how).unwrap();
        assert_eq!(types(&resolution.step.stored), types(&expected), "{how:?}");
        let after = &resolution.step;
        assert_eq!(
            judge(&after.stored, &after.lineage, &events, at(30, 30), Evolve),
            Verdict::Settled,
            "{how:?}"
        );
        let wider = schema(&[("id", Int64), ("n", Int32), ("more", Date)]);
        let next = step(judge(&after.stored, &after.lineage, &wider, at(40, 40), Evolve));
        assert_eq!(kinds(&next), [(Kind::Add, "more")], "{how:?}: nothing else changed");
    }
}

#[test]
fn what_has_no_conversion_is_kept_aside_unless_it_is_a_key() {
    let (stored, lineage) = begun(&[("id", Int64), ("at", Timestamp)]);
    let pending = waiting(&stored, &lineage, &schema(&[("id", Int64), ("at", TimestampTz)]));
    let resolution = resolve(&stored, &lineage, &pending, Resolve::Check).unwrap();
    assert!(matches!(&resolution.actions[..], [Action::KeepAside { kept, .. }] if kept == "at__old"));
    let (stored, lineage) = begun(&[("id", Date), ("x", Float64)]);
    let pending = waiting(&stored, &lineage, &schema(&[("id", TimestampTz), ("x", Float64)]));
    let error = resolve(&stored, &lineage, &pending, Resolve::Check).unwrap_err();
    assert!(error.contains("rebuil") && error.contains("id"), "{error}");
}

#[test]
fn another_key_is_part_of_the_plan() {
    let (stored, lineage) = begun(&[("id", Int64), ("line", Int16)]);
    let events = TableSchema::new(stored.columns().to_vec(), vec![0, 1]);
    let resolution =
        resolve(&stored, &lineage, &waiting(&stored, &lineage, &events), Resolve::Check).unwrap();
    assert_eq!(resolution.actions, [Action::Key(vec!["id".to_owned(), "line".to_owned()])]);
    assert!(resolution.new_key);
    assert_eq!(resolution.step.stored.key(), [0, 1]);
}

#[test]
fn what_is_remembered_reads_back() {
    let (stored, lineage) = begun(&[("id", Int64), ("d", ColumnType::Decimal { precision: 9, scale: 2 })]);
    let pending = waiting(&stored, &lineage, &schema(&[("id", Int64), ("d", Date)]));
    let lineage = Lineage { pending: Some(pending), ..lineage };
    let text = serde_json::to_string(&lineage).unwrap();
    assert_eq!(serde_json::from_str::<Lineage>(&text).unwrap(), lineage);
    assert!(
        text.contains(r#"{"name":"d","type":{"decimal":{"precision":9,"scale":2}},"nullable":true}"#),
        "{text}"
    );
}
