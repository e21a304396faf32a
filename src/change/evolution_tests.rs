//! The rules of schema changes, by example.
use super::difference::DifferenceKind as Kind;
use super::evolution::{SchemaStep, Verdict, judge};
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
    let step = step(judge(&stored, &lineage, &events, (20, 20), Evolve));
    assert_eq!(kinds(&step), [(Kind::Add, "b"), (Kind::Drop, "a")]);
    assert_eq!(types(&step.stored), types(&schema(&[("id", Int64), ("a", Text), ("b", Date)])));
    // Its own schema, and those of before, are settled from then on.
    for again in [&events, &stored] {
        assert_eq!(judge(&step.stored, &step.lineage, again, (30, 30), Evolve), Verdict::Settled);
    }
}

#[test]
fn a_rename_is_a_drop_and_an_add_with_a_hint_where_the_types_match() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text), ("n", Int64)]);
    let events = schema(&[("id", Int64), ("b", Text), ("n", Int64)]);
    let step = step(judge(&stored, &lineage, &events, (20, 20), Evolve));
    let notes: Vec<_> = step.differences.iter().map(|difference| difference.note.clone().unwrap()).collect();
    assert_eq!(
        notes,
        ["perhaps the former a, renamed: it has the same type", "perhaps renamed to b: it has the same type"]
    );
}

#[test]
fn a_wider_type_is_followed_and_old_events_after_it_fit() {
    let (stored, lineage) = begun(&[("id", Int32), ("n", Int16)]);
    let wide = step(judge(&stored, &lineage, &schema(&[("id", Int64), ("n", Int64)]), (20, 20), Evolve));
    assert_eq!(kinds(&wide), [(Kind::Widen, "id"), (Kind::Widen, "n")]);
    assert_eq!(
        judge(&wide.stored, &wide.lineage, &stored, (30, 30), Evolve),
        Verdict::Settled,
        "seen before"
    );
    let in_between = schema(&[("id", Int32), ("n", Int32)]);
    assert_eq!(
        judge(&wide.stored, &wide.lineage, &in_between, (15, 19), Evolve),
        Verdict::Settled,
        "older than the newest schema, by the time of its events"
    );
    assert_eq!(
        refused(judge(&wide.stored, &wide.lineage, &in_between, (20, 25), Evolve)),
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
        let found = refused(judge(&stored, &lineage, &events, (20, 20), Evolve));
        assert_eq!(found[0], kind, "{events:?}");
    }
    let key = TableSchema::new(stored.columns().to_vec(), vec![0, 1]);
    assert_eq!(refused(judge(&stored, &lineage, &key, (20, 20), Evolve)), [Kind::Key]);
    let swapped = TableSchema::new(stored.columns().to_vec(), vec![1, 0]);
    assert_eq!(
        judge(&key, &Lineage::default(), &swapped, (20, 20), Evolve),
        Verdict::Settled,
        "the same key"
    );
}

#[test]
fn old_events_bring_the_columns_that_the_newest_lack() {
    // Partition 0 came first, with what is newest; partition 1 begins with what was before.
    let (stored, lineage) = begun(&[("id", Int64)]);
    let before = schema(&[("id", Int32), ("a", Text)]);
    let step = step(judge(&stored, &lineage, &before, (5, 7), Evolve));
    assert_eq!(kinds(&step), [(Kind::Add, "a")]);
    assert_eq!(types(&step.stored), types(&schema(&[("id", Int64), ("a", Text)])));
    assert_eq!(judge(&step.stored, &step.lineage, &stored, (30, 30), Evolve), Verdict::Settled);
    let wider = schema(&[("id", Text)]);
    let step = step_of(&stored, &lineage, &wider);
    assert_eq!(types(&step.stored), types(&wider), "wider than the newest: kept as it was");
    assert_eq!(judge(&step.stored, &step.lineage, &stored, (30, 30), Evolve), Verdict::Settled);
}

fn step_of(stored: &TableSchema, lineage: &Lineage, older: &TableSchema) -> SchemaStep {
    step(judge(stored, lineage, older, (5, 7), Evolve))
}

#[test]
fn a_column_that_was_dropped_and_comes_again_is_another_one() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Int32)]);
    let dropped = step(judge(&stored, &lineage, &schema(&[("id", Int64)]), (20, 20), Evolve));
    let again = schema(&[("id", Int64), ("a", Date)]);
    let again = step(judge(&dropped.stored, &dropped.lineage, &again, (30, 30), Evolve));
    assert_eq!(again.renames, [("a".to_owned(), "a__old".to_owned())]);
    assert_eq!(types(&again.stored), types(&schema(&[("id", Int64), ("a__old", Int32), ("a", Date)])));
    assert!(again.differences[0].note.as_deref().unwrap().contains("a__old"), "{again:?}");
}

#[test]
fn halt_waits_at_every_difference_but_nullability() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Text)]);
    let more = schema(&[("id", Int64), ("a", Text), ("b", Text)]);
    assert_eq!(refused(judge(&stored, &lineage, &more, (20, 20), Halt)), [Kind::Add]);
    let mut columns = stored.columns().to_vec();
    columns[1].nullable = false;
    let strict = TableSchema::new(columns, vec![0]);
    assert_eq!(kinds(&step(judge(&stored, &lineage, &strict, (20, 20), Halt))), [(Kind::Nullable, "a")]);
    assert_eq!(judge(&stored, &lineage, &stored, (30, 30), Halt), Verdict::Settled);
}

#[test]
fn ignore_keeps_the_columns_and_waits_only_where_no_value_could_fit() {
    let (stored, lineage) = begun(&[("id", Int64), ("a", Int32)]);
    let other = schema(&[("id", Int64), ("a", Int64), ("b", Text)]);
    let ignored = step(judge(&stored, &lineage, &other, (20, 20), Ignore));
    assert_eq!(ignored.stored, stored);
    assert_eq!(judge(&stored, &ignored.lineage, &other, (30, 30), Ignore), Verdict::Settled, "said once");
    let no_way = schema(&[("id", Int64), ("a", TimestampTz)]);
    assert_eq!(refused(judge(&stored, &lineage, &no_way, (20, 20), Ignore)), [Kind::Incompatible]);
}

#[test]
fn a_table_from_before_lineages_were_kept_takes_its_own_schema_without_a_word() {
    let (stored, _) = begun(&[("id", Int64), ("a", Text)]);
    let nothing = Lineage::default();
    let reordered = schema(&[("a", Text), ("id", Int64)]);
    let reordered = TableSchema::new(reordered.columns().to_vec(), vec![1]);
    for events in [&stored, &reordered] {
        assert_eq!(judge(&stored, &nothing, events, (20, 20), Evolve), Verdict::Settled);
    }
}

fn waiting(stored: &TableSchema, lineage: &Lineage, events: &TableSchema) -> Pending {
    let Verdict::Refuse(differences) = judge(stored, lineage, events, (20, 20), Evolve) else {
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
            judge(&after.stored, &after.lineage, &events, (30, 30), Evolve),
            Verdict::Settled,
            "{how:?}"
        );
        let wider = schema(&[("id", Int64), ("n", Int32), ("more", Date)]);
        let next = step(judge(&after.stored, &after.lineage, &wider, (40, 40), Evolve));
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
