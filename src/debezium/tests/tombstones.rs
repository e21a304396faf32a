//! Tombstones: which of them repeat a delete, and whose row the others delete.

use std::collections::BTreeSet;

use super::*;
use crate::change::{Column, ColumnType, KnownTables, Operation, TopicPartition};
use crate::debezium::{FlattenedOptions, TopicNames};

const KEY: &str = r#"{"id":1}"#;
/// A key as the router of logical tables writes it.
const ROUTED_KEY: &str = r#"{"id":1,"__dbz__physicalTableIdentifier":"cdc.public.a"}"#;
const DELETE: Result<Outcome, RecordErrorKind> = Ok(Outcome::Change(Operation::Delete));
const REPEATED: Result<Outcome, RecordErrorKind> = Ok(Outcome::Filtered("tombstone"));
const UNKNOWN_TABLE: Result<Outcome, RecordErrorKind> = Ok(Outcome::Filtered("tombstone_unknown_table"));
const OWNERLESS: Result<Outcome, RecordErrorKind> = Err(RecordErrorKind::NotAnEvent);

fn table(database: &str, name: &str) -> TableId {
    TableId::new(database, "public", name)
}

fn create(offset: i64) -> Record {
    Record::new(offset, KEY, &event("c", "null", KEY))
}

/// An event of another table in the same topic.
fn create_in(table: &str, offset: i64) -> Record {
    let value = event("c", "null", KEY).replace(r#""table":"t""#, &format!(r#""table":"{table}""#));
    Record::new(offset, KEY, &value)
}

fn flattened(offset: i64) -> Record {
    Record::new(offset, KEY, r#"{"id":1,"__op":"c","__db":"shop"}"#)
}

fn of(topic: &str, record: Record) -> Record {
    Record { topic: topic.into(), ..record }
}

fn end(decoder: &mut Decoder, record: &Record) -> Result<Outcome, RecordErrorKind> {
    record.push(decoder).map_err(|error| error.kind)
}

fn begin(decoder: &mut Decoder, topic: &str, position: i64) {
    decoder.begin_partition(TopicPartition::new(topic, 0), position);
}

/// Tables of a sink, each with the topics that it has its rows from, if the sink says so.
fn sink(tables: &[(TableId, Option<&[&str]>)], read: &[&str]) -> Decoder {
    fn topics(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }
    let of = tables.iter().map(|(table, from)| (table.clone(), from.map(topics)));
    let tables = KnownTables { tables: of.collect(), read: topics(read) };
    let column = Column { name: "id".into(), column_type: ColumnType::Int64, nullable: false };
    let schema = Arc::new(TableSchema::new(vec![column], vec![0]));
    let stored: Vec<TableId> = tables.tables.keys().cloned().collect();
    let known = move |table: &TableId| stored.contains(table).then(|| Arc::clone(&schema));
    Decoder::new(DecoderOptions::default(), known).with_tables(tables)
}

/// The tables that the batch has changes of, and the tables of its raw rows.
fn owners(decoder: &mut Decoder) -> (Vec<TableId>, Vec<String>) {
    let batch = decoder.finish().unwrap();
    (batch.changes.iter().map(|changes| changes.table.clone()).collect(), raw_column(&batch, "source_table"))
}

#[test]
fn a_tombstone_of_whole_events_with_which_a_run_goes_on_repeats_the_delete_before_it() {
    let mut decoder = decoder();
    let other_partition = create(9);
    decoder
        .push(RecordRef { partition: 1, ..other_partition.reference() }, &TopicIdentity::unknown())
        .unwrap();
    decoder.finish().unwrap();
    begin(&mut decoder, "cdc.public.t", 2);
    assert_eq!(end(&mut decoder, &Record::tombstone(2, KEY)), REPEATED);
    // Something that nobody has read is gone: it may have been the delete, or not.
    begin(&mut decoder, "cdc.public.t", 1);
    assert_eq!(end(&mut decoder, &Record::tombstone(2, KEY)), DELETE);
    assert_eq!(owners(&mut decoder), (vec![table("shop", "t")], vec![]), "no second row in the history");
}

#[test]
fn where_a_log_was_cut_nobody_has_read_the_delete_before_a_tombstone() {
    let mut decoder = decoder();
    create(0).push(&mut decoder).unwrap();
    begin(&mut decoder, "cdc.public.t", 7);
    let cut = TopicIdentity::unknown().cut_at(7);
    let outcome = decoder.push(Record::tombstone(7, KEY).reference(), &cut).unwrap();
    assert_eq!(outcome, Outcome::Change(Operation::Delete));
}

#[test]
fn each_tombstone_of_a_flattened_topic_is_a_delete_in_the_history_also_the_first_after_a_start() {
    let mut decoder = decoder();
    flattened(0).push(&mut decoder).unwrap();
    decoder.finish().unwrap();
    begin(&mut decoder, "cdc.public.t", 1);
    assert_eq!(end(&mut decoder, &Record::tombstone(1, KEY)), DELETE);
    assert_eq!(owners(&mut decoder), (vec![table("shop", "t")], vec!["t".to_owned()]));

    // Nothing but headers says that the topic is flattened.
    let mut decoder = sink(&[(table("shop", "t"), Some(&["cdc.public.t"]))], &[]);
    begin(&mut decoder, "cdc.public.t", 1);
    assert_eq!(end(&mut decoder, &Record::tombstone(1, KEY).with_headers(&[("__op", "d")])), DELETE);
    assert_eq!(owners(&mut decoder), (vec![table("shop", "t")], vec!["t".to_owned()]));

    // Nothing but the settings.
    let topics = TopicNames::new(&["cdc.public.t".to_owned()]).unwrap();
    let mut decoder = sink(&[(table("shop", "t"), Some(&["cdc.public.t"]))], &[]);
    decoder.options.flattened = FlattenedOptions { topics, ..FlattenedOptions::default() };
    begin(&mut decoder, "cdc.public.t", 1);
    assert_eq!(end(&mut decoder, &Record::tombstone(1, KEY)), DELETE);
    assert_eq!(owners(&mut decoder).1, ["t"]);
}

#[test]
fn where_flattened_rows_say_that_they_are_deleted_a_tombstone_repeats_that() {
    let mut decoder = decoder();
    let row = r#"{"id":1,"__deleted":"false"}"#;
    Record::new(0, KEY, row).push(&mut decoder).unwrap();
    begin(&mut decoder, "cdc.public.t", 2);
    assert_eq!(end(&mut decoder, &Record::tombstone(2, KEY)), REPEATED);
}

#[test]
fn the_first_tombstone_after_a_start_deletes_from_the_table_that_the_sink_has_from_its_topic() {
    let from: &[&str] = &["cdc.public.t", "cdc.renamed"];
    for topic in from {
        let others: &[&str] = &["cdc.public.other"];
        let tables = [(table("shop", "t"), Some(from)), (table("shop", "other"), Some(others))];
        let mut decoder = sink(&tables, &[]);
        begin(&mut decoder, topic, 5);
        assert_eq!(end(&mut decoder, &of(topic, Record::tombstone(5, KEY))), DELETE, "{topic}");
        let batch = decoder.finish().unwrap();
        assert_eq!(batch.changes[0].table, table("shop", "t"), "{topic}");
        assert_eq!(batch.changes[0].source_micros, [1_700_000_000_000_000], "the time that Kafka has");
        // Whole events may have brought it, and then the delete before it has a row.
        assert_eq!(batch.raw.unwrap().num_rows(), 0, "{topic}");
    }
}

#[test]
fn a_sink_that_does_not_say_where_rows_came_from_has_a_table_by_its_name() {
    let topic = "cdc.public.t";
    let elsewhere = TableId::new("shop", "archive", "t");
    for (tables, expected) in [
        (vec![table("", "t")], DELETE),
        (vec![table("shop", "t"), table("shop", "other"), elsewhere.clone()], DELETE),
        (vec![table("shop", "t"), table("store", "t")], OWNERLESS),
        (vec![elsewhere.clone()], DELETE),
        (vec![elsewhere, TableId::new("shop", "old", "t")], OWNERLESS),
        (vec![table("shop", "other")], OWNERLESS),
    ] {
        let known: Vec<_> = tables.iter().map(|table| (table.clone(), None)).collect();
        let mut decoder = sink(&known, &[topic]);
        begin(&mut decoder, topic, 5);
        assert_eq!(end(&mut decoder, &Record::tombstone(5, KEY)), expected, "{tables:?}");
        if expected == DELETE {
            assert_eq!(owners(&mut decoder).0, tables[..1]);
        }
    }
}

#[test]
fn a_tombstone_of_a_topic_that_the_sink_has_no_rows_of_deletes_nothing() {
    for mut decoder in [
        decoder(),
        sink(&[(table("shop", "t"), Some(&["other.public.t"]))], &[]),
        sink(&[(table("shop", "t"), None)], &["other.public.t"]),
    ] {
        begin(&mut decoder, "cdc.public.t", 5);
        assert_eq!(end(&mut decoder, &Record::tombstone(5, KEY)), UNKNOWN_TABLE);
        assert_eq!(owners(&mut decoder), (vec![], vec![]));
    }
    // The history has it, where it is a delete.
    let said = Record::tombstone(5, KEY).with_headers(&[("__op", "d"), ("__table", "gone")]);
    let mut decoder = sink(&[(table("shop", "t"), Some(&["cdc.public.t"]))], &[]);
    begin(&mut decoder, "cdc.public.t", 5);
    assert_eq!(end(&mut decoder, &said), UNKNOWN_TABLE);
    assert_eq!(owners(&mut decoder), (vec![], vec!["gone".to_owned()]));
}

#[test]
fn headers_say_whose_row_a_tombstone_deletes() {
    let topic = "all";
    let tables: [(TableId, Option<&[&str]>); 2] =
        [(table("shop", "a"), Some(&["all"])), (table("shop", "b"), Some(&["all"]))];
    for (headers, expected) in [
        (vec![("__table", "a"), ("__schema", "public")], (DELETE, vec![table("shop", "a")])),
        (
            vec![("__table", "b"), ("__schema", "public"), ("__db", "shop")],
            (DELETE, vec![table("shop", "b")]),
        ),
        (vec![("__table", "b"), ("__schema", "public"), ("__db", "store")], (UNKNOWN_TABLE, vec![])),
        (vec![("__table", "c"), ("__schema", "public")], (UNKNOWN_TABLE, vec![])),
        (vec![("__op", "d")], (OWNERLESS, vec![])),
    ] {
        let mut decoder = sink(&tables, &[]);
        begin(&mut decoder, topic, 5);
        let end = end(&mut decoder, &of(topic, Record::tombstone(5, KEY).with_headers(&headers)));
        assert_eq!((end, owners(&mut decoder).0), expected, "{headers:?}");
    }
    // Also against what the newest row says.
    let mut decoder = decoder();
    for record in [create_in("a", 0), create_in("b", 1)] {
        of(topic, record).push(&mut decoder).unwrap();
    }
    decoder.finish().unwrap();
    let said = Record::tombstone(2, KEY).with_headers(&[("__table", "a"), ("__schema", "public")]);
    assert_eq!(end(&mut decoder, &of(topic, said)), DELETE);
    assert_eq!(owners(&mut decoder), (vec![table("shop", "a")], vec!["a".to_owned()]));
}

#[test]
fn in_a_topic_of_several_tables_a_tombstone_deletes_from_none_that_is_not_named() {
    // The newest row is of another table, and the record before the tombstone was read by a former run.
    let several: &[&str] = &["cdc.public.t"];
    let tables = [(table("shop", "a"), Some(several)), (table("shop", "b"), Some(several))];
    let mut after_start = sink(&tables, &[]);
    begin(&mut after_start, "cdc.public.t", 5);
    assert_eq!(end(&mut after_start, &Record::tombstone(5, KEY)), UNKNOWN_TABLE, "no row was read yet");
    begin(&mut after_start, "cdc.public.t", 5);
    let other_partition = create_in("b", 9);
    let other_partition = RecordRef { partition: 1, ..other_partition.reference() };
    after_start.push(other_partition, &TopicIdentity::unknown()).unwrap();
    assert_eq!(end(&mut after_start, &Record::tombstone(5, KEY)), REPEATED);

    let mut decoder = decoder();
    for record in [create_in("a", 0), create_in("b", 1)] {
        record.push(&mut decoder).unwrap();
    }
    assert_eq!(end(&mut decoder, &Record::tombstone(2, KEY)), OWNERLESS);
    let delete = event("d", KEY, "null").replace(r#""table":"t""#, r#""table":"a""#);
    Record::new(2, KEY, &delete).push(&mut decoder).unwrap();
    assert_eq!(end(&mut decoder, &Record::tombstone(3, KEY)), REPEATED);
    begin(&mut decoder, "cdc.public.t", 2);
    assert_eq!(end(&mut decoder, &Record::tombstone(3, KEY)), UNKNOWN_TABLE, "a record is missing");
    assert_eq!(owners(&mut decoder).1, ["a", "b", "a"], "two creates and a delete");
}

#[test]
fn a_key_of_the_router_names_the_table_of_its_tombstone() {
    let mut decoder = decoder();
    for record in [create_in("a", 0), create_in("b", 1)] {
        Record { key: Some(ROUTED_KEY.to_owned()), ..record }.push(&mut decoder).unwrap();
    }
    decoder.finish().unwrap();
    assert_eq!(end(&mut decoder, &Record::tombstone(2, ROUTED_KEY)), DELETE);
    assert_eq!(owners(&mut decoder), (vec![table("shop", "a")], vec!["a".to_owned()]));
    for name in ["cdc.public.c", "7"] {
        let key = ROUTED_KEY.replace("cdc.public.a", name);
        assert_eq!(end(&mut decoder, &Record::tombstone(3, &key)), OWNERLESS, "{name}");
    }
}
