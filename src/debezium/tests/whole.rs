//! Events that concern whole tables and whole rows: truncates, tables without key, flattened events, routes.

use super::*;
use crate::change::quarantine::QuarantineEvent;
use crate::change::{Keyless, OnTruncate, Operation, Policies, TopicIdentity, TruncateReach};
use crate::debezium::{Drained, FlattenedOptions, Routes, TopicNames};

fn keyless(offset: i64, value: &str) -> Record {
    Record { key: None, ..Record::new(offset, "", value) }
}

fn decoder_of(change: impl FnOnce(&mut DecoderOptions)) -> Decoder {
    let mut options = DecoderOptions::default();
    change(&mut options);
    Decoder::new(options, nothing_known)
}

fn policies(change: impl FnOnce(&mut crate::change::TablePolicy)) -> Policies {
    let mut policies = Policies::default();
    change(&mut policies.defaults);
    policies
}

/// Gives a truncate to the decoder as if all partitions had been read.
fn truncate(decoder: &mut Decoder, record: &Record, partitions: usize) -> Outcome {
    decoder.truncate(record.reference(), &TopicIdentity::unknown(), Drained { partitions }).unwrap()
}

#[test]
fn a_truncate_waits_for_its_topic_and_leaves_nothing_behind_until_then() {
    let mut decoder = decoder();
    let row = r#"{"id":1,"v":"x"}"#;
    Record::new(0, r#"{"id":1}"#, &event("c", "null", row)).push(&mut decoder).unwrap();
    let record = keyless(1, &event("t", "null", "null"));
    assert_eq!(record.push(&mut decoder).unwrap(), Outcome::Truncate { lsn: 42 });
    assert_eq!((decoder.records(), decoder.rows()), (1, 1));
    assert_eq!(truncate(&mut decoder, &record, 1), Outcome::Change(Operation::Truncate));
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.changes[0].truncates[0].row, 1);
    assert_eq!(batch.changes[0].truncates[0].reach, TruncateReach::Everything);
    assert_eq!(raw_column(&batch, "operation"), ["c", "t"]);
    assert_eq!(batch.spans.values().next().unwrap().next, 2);
}

#[test]
fn a_truncate_among_several_partitions_spares_what_is_newer() {
    let mut decoder = decoder();
    Record::new(0, r#"{"id":1}"#, &event("c", "null", r#"{"id":1}"#)).push(&mut decoder).unwrap();
    truncate(&mut decoder, &keyless(1, &event("t", "null", "null")), 6);
    let batch = decoder.finish().unwrap();
    assert!(matches!(batch.changes[0].truncates[0].reach, TruncateReach::Older { .. }));
}

#[test]
fn an_emptied_table_leaves_no_row_on_which_an_update_would_be_wrong() {
    let key = r#"{"id":1}"#;
    let partial = |offset| {
        let row = r#"{"id":1,"v":"__debezium_unavailable_value"}"#;
        Record::new(offset, key, &event("u", "null", row))
    };
    let mut decoder = decoder();
    Record::new(0, key, &event("c", "null", r#"{"id":1,"v":"x"}"#)).push(&mut decoder).unwrap();
    let bad = Record::new(1, key, r#"{"op":"?"}"#);
    let error = bad.push(&mut decoder).unwrap_err();
    bad.set_aside(&mut decoder, error);
    assert_eq!(partial(2).push(&mut decoder).unwrap_err().kind, RecordErrorKind::BaseQuarantined);
    truncate(&mut decoder, &keyless(3, &event("t", "null", "null")), 1);
    assert_eq!(partial(4).push(&mut decoder).unwrap(), Outcome::Change(Operation::Update));
    let settled = decoder.finish().unwrap().settled;
    let settled: Vec<_> = settled.iter().map(|each| (each.place.offset, each.event)).collect();
    assert_eq!(settled, [(1, QuarantineEvent::Superseded)]);
}

#[test]
fn a_truncate_is_ignored_or_stops_the_table_where_its_policy_says_so() {
    let record = keyless(0, &event("t", "null", "null"));
    let mut ignoring =
        decoder_of(|options| options.policies = policies(|policy| policy.on_truncate = OnTruncate::Ignore));
    assert_eq!(record.push(&mut ignoring).unwrap(), Outcome::Filtered("truncate_ignored"));
    assert_eq!(raw_column(&ignoring.finish().unwrap(), "operation"), ["t"]);
    let mut stopping =
        decoder_of(|options| options.policies = policies(|policy| policy.on_truncate = OnTruncate::Stop));
    let error = record.push(&mut stopping).unwrap_err();
    assert!(error.kind == RecordErrorKind::Truncate && error.kind.stops_table(), "{error}");
    let unknown = truncate(&mut decoder(), &record, 1);
    assert_eq!(unknown, Outcome::Filtered("truncate_unknown_table"));
}

#[test]
fn an_update_without_key_is_the_delete_of_the_row_before_and_the_row_after() {
    let mut decoder = decoder();
    let (one, two) = (r#"{"id":1,"v":null}"#, r#"{"id":1,"v":"x"}"#);
    let records = [
        keyless(0, &event("c", "null", one)),
        keyless(1, &event("u", one, two)),
        keyless(2, &event("d", two, "null")),
    ];
    let batch = decode(&mut decoder, &records);
    let changes = &batch.changes[0];
    assert!(changes.schema.key().is_empty());
    assert_eq!(
        changes.operations,
        [Operation::Create, Operation::Delete, Operation::Update, Operation::Delete]
    );
    assert_eq!(changes.offsets, [0, 1, 1, 2]);
    assert_eq!(cells(changes)[1], ["1", "NULL"]);
    assert_eq!(cells(changes)[3], ["1", "x"]);
    assert_eq!(raw_column(&batch, "operation"), ["c", "u", "d"]);
    let tombstone = Record { value: None, ..keyless(3, "") };
    assert_eq!(tombstone.push(&mut decoder).unwrap(), Outcome::Filtered("empty"));
}

#[test]
fn an_update_without_key_and_row_before_is_an_error_that_leaves_nothing_behind() {
    for (operation, before, after) in [("u", "null", r#"{"id":1}"#), ("d", "null", "null")] {
        let mut decoder = decoder();
        let error = keyless(0, &event(operation, before, after)).push(&mut decoder).unwrap_err();
        assert_eq!(error.kind, RecordErrorKind::Keyless);
        assert!(error.detail.contains("REPLICA IDENTITY FULL"), "{error}");
        assert!(decoder.finish().unwrap().changes.is_empty());
    }
    let mut decoder = decoder();
    let absent = r#"{"id":1,"v":"__debezium_unavailable_value"}"#;
    let error = keyless(0, &event("u", r#"{"id":1,"v":"x"}"#, absent)).push(&mut decoder).unwrap_err();
    assert!(error.detail.contains("column `v`"), "{error}");
    assert!(decoder.finish().unwrap().changes.is_empty(), "the half before it was taken back");
}

#[test]
fn rows_without_key_are_only_added_or_refused_where_the_policy_says_so() {
    let row = r#"{"id":1}"#;
    let events = [event("c", "null", row), event("u", row, row), event("d", row, "null")];
    let mut appending =
        decoder_of(|options| options.policies = policies(|policy| policy.keyless = Keyless::Append));
    let ends: Vec<Outcome> = (0..)
        .zip(&events)
        .map(|(offset, value)| keyless(offset, value).push(&mut appending).unwrap())
        .collect();
    assert_eq!(ends[2], Outcome::Filtered("keyless_delete"));
    let batch = appending.finish().unwrap();
    assert_eq!(batch.changes[0].operations, [Operation::Create, Operation::Update]);
    assert_eq!(raw_column(&batch, "operation"), ["c", "u", "d"]);
    let mut stopping =
        decoder_of(|options| options.policies = policies(|policy| policy.keyless = Keyless::Stop));
    assert_eq!(keyless(0, &events[0]).push(&mut stopping).unwrap_err().kind, RecordErrorKind::Keyless);
}

#[test]
fn a_flattened_row_is_an_upsert_and_its_metadata_fields_are_no_columns() {
    let mut decoder = decoder();
    let key = r#"{"id":1}"#;
    let records = [
        Record::new(
            0,
            key,
            r#"{"id":1,"v":"x","__deleted":"false","__op":"c","__lsn":7,"__source_ts_ms":9}"#,
        ),
        Record::new(1, key, r#"{"id":1,"v":"y","__deleted":"false"}"#),
        Record::new(2, key, r#"{"id":1,"v":null,"__deleted":"true"}"#),
        Record::tombstone(3, key),
    ];
    let ends: Vec<Outcome> = records.iter().map(|record| record.push(&mut decoder).unwrap()).collect();
    assert_eq!(
        ends,
        [
            Outcome::Change(Operation::Create),
            Outcome::Change(Operation::Update),
            Outcome::Change(Operation::Delete),
            Outcome::Filtered("tombstone")
        ]
    );
    let batch = decoder.finish().unwrap();
    let names: Vec<&str> =
        batch.changes[0].schema.columns().iter().map(|column| column.name.as_ref()).collect();
    assert_eq!(names, ["id", "v"]);
    assert_eq!(batch.changes[0].table.to_string(), "public.t", "from the topic's name");
    assert_eq!(raw_column(&batch, "lsn")[0], "7");
    assert_eq!(raw_column(&batch, "operation"), ["c", "u", "d"]);
}

#[test]
fn flattened_rows_with_a_schema_block_have_its_types() {
    let field = |name: &str, of: &str| format!(r#"{{"type":"{of}","optional":true,"field":"{name}"}}"#);
    let fields = [field("id", "int64"), field("op", "string"), field("__deleted", "string")].join(",");
    let value = format!(
        r#"{{"schema":{{"type":"struct","fields":[{fields}],"optional":false,"name":"cdc.public.t.Value"}},"payload":{{"id":1,"op":"mine","__deleted":"false"}}}}"#
    );
    let mut decoder = decoder();
    let batch = decode(&mut decoder, &[Record::new(0, &key_with_schema(1), &value)]);
    assert_eq!(cells(&batch.changes[0]), [["1", "mine"]], "a column may have the name of a member");
}

#[test]
fn headers_say_what_a_flattened_row_and_a_tombstone_do_not() {
    let said = [("__op", "c"), ("__lsn", "7"), ("__source_ts_ms", "9"), ("__schema", "s")];
    let records = [
        Record::new(0, r#"{"id":1}"#, r#"{"id":1,"v":"x"}"#).with_headers(&said),
        Record::tombstone(1, r#"{"id":1}"#).with_headers(&[("__op", "d"), ("__source_ts_ms", "11")]),
    ];
    let batch = decode(&mut decoder(), &records);
    let changes = &batch.changes[0];
    assert_eq!(changes.operations, [Operation::Create, Operation::Delete]);
    assert_eq!((&changes.source_micros, &changes.lsns), (&vec![9_000, 11_000], &vec![7, 0]));
    assert_eq!(changes.table, TableId::new("", "s", "t"));
    assert_eq!(raw_column(&batch, "lsn"), ["7", ""]);
    let bare = Record::new(0, r#"{"id":1}"#, r#"{"id":1,"v":"x"}"#).with_headers(&[("op", "c")]);
    assert_eq!(bare.push(&mut decoder()).unwrap_err().kind, RecordErrorKind::NotAnEvent);
}

#[test]
fn plain_rows_are_flattened_events_only_in_topics_that_are_said_to_have_them() {
    let row = Record::new(0, r#"{"id":1}"#, r#"{"id":1,"source":"web"}"#);
    assert_eq!(row.push(&mut decoder()).unwrap_err().kind, RecordErrorKind::NotAnEvent);
    let topics = TopicNames::new(&["^cdc\\.".to_owned()]).unwrap();
    let mut flat = decoder_of(|options| {
        options.flattened = FlattenedOptions { topics, ..FlattenedOptions::default() };
    });
    assert_eq!(row.push(&mut flat).unwrap(), Outcome::Change(Operation::Update));
    assert_eq!(
        Record::tombstone(1, r#"{"id":1}"#).push(&mut flat).unwrap(),
        Outcome::Change(Operation::Delete)
    );
}

#[test]
fn rows_of_routed_tables_go_to_theirs_and_the_history_names_their_source() {
    let mut routes = Routes::default();
    routes.add("public.t", "public.all").unwrap();
    let mut decoder = decoder_of(|options| options.routes = routes);
    let key = r#"{"id":1,"__dbz__physicalTableIdentifier":"t"}"#;
    let batch = decode(&mut decoder, &[Record::new(0, key, &event("c", "null", r#"{"id":1}"#))]);
    assert_eq!(batch.changes[0].table.to_string(), "public.all");
    assert_eq!(batch.changes[0].schema.key_names().collect::<Vec<_>>(), ["id"]);
    assert_eq!(raw_column(&batch, "source_table"), ["t"]);
    let error = keyless(1, &event("t", "null", "null")).push(&mut decoder).unwrap_err();
    assert_eq!(error.kind, RecordErrorKind::Truncate);
}

#[test]
fn events_go_on_without_schema_block_in_the_types_that_the_blocks_gave() {
    let micros = r#""type":"int64","name":"io.debezium.time.Timestamp""#;
    let fields = [("id", r#""type":"int64""#), ("at", micros)];
    let mut decoder = decoder();
    let with = with_schema(&fields, &event("c", "null", r#"{"id":1,"at":5}"#));
    let batch = decode(
        &mut decoder,
        &[
            Record::new(0, &key_with_schema(1), &with),
            Record::new(1, r#"{"id":2}"#, &event("c", "null", r#"{"id":2,"at":6}"#)),
        ],
    );
    assert_eq!(batch.changes.len(), 1, "one schema");
    assert_eq!(cells(&batch.changes[0]), [["1", "5000"], ["2", "6000"]]);
}

#[test]
fn events_of_old_versions_of_debezium_are_read() {
    let value = r#"{"before":null,"after":{"id":1},"source":{"version":"1.2.0.Final","connector":"postgresql","name":"cdc",
        "ts_ms":5,"snapshot":true,"db":"d","schema":"public","table":"t","lsn":9},"op":"r","ts_ms":6}"#;
    let batch = decode(&mut decoder(), &[Record::new(0, r#"{"id":1}"#, value)]);
    assert_eq!(batch.changes[0].source_micros, [5000]);
    assert_eq!(batch.changes[0].lsns, [9]);
    assert_eq!(batch.alive_millis, Some(6));
    assert_eq!(raw_column(&batch, "snapshot"), ["true"]);
}
