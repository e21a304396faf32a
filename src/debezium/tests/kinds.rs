//! What each kind of record ends as.

use super::*;
use crate::change::{Operation, TopicIdentity, TopicPartition};

fn create(offset: i64, id: i64) -> Record {
    let row = format!(r#"{{"id":{id},"v":"x"}}"#);
    Record::new(offset, &format!(r#"{{"id":{id}}}"#), &event("c", "null", &row))
}

fn delete(offset: i64, id: i64) -> Record {
    let key = format!(r#"{{"id":{id}}}"#);
    Record::new(offset, &key, &event("d", &key, "null"))
}

fn outcomes(decoder: &mut Decoder, records: &[Record]) -> Vec<Outcome> {
    records.iter().map(|record| record.push(decoder).unwrap()).collect()
}

#[test]
fn a_tombstone_after_the_delete_of_its_key_is_filtered_even_in_the_next_batch() {
    let mut decoder = decoder();
    outcomes(&mut decoder, &[create(0, 1), delete(1, 1)]);
    decoder.finish().unwrap();
    let tombstone = Record::tombstone(2, r#"{"id":1}"#);
    assert_eq!(outcomes(&mut decoder, &[tombstone]), [Outcome::Filtered("tombstone")]);
    let batch = decoder.finish().unwrap();
    assert!(batch.changes.is_empty());
    assert_eq!(batch.raw.unwrap().num_rows(), 0);
    let span = batch.spans.values().next().unwrap();
    assert_eq!((span.first, span.next), (2, 3), "filtered records move the position");
}

#[test]
fn a_tombstone_of_another_key_is_a_delete_with_a_raw_row() {
    let mut decoder = decoder();
    let records = [create(0, 1), create(1, 2), delete(2, 1), Record::tombstone(3, r#"{"id":2}"#)];
    let ends = outcomes(&mut decoder, &records);
    assert_eq!(ends[3], Outcome::Change(Operation::Delete));
    let batch = decoder.finish().unwrap();
    assert_eq!(cells(&batch.changes[0])[3], ["2", "NULL"]);
    assert_eq!(raw_column(&batch, "operation").concat(), "ccdd");
    assert_eq!(raw_column(&batch, "source_table")[3], "t");
}

#[test]
fn a_tombstone_repeated_is_a_delete_again() {
    let mut decoder = decoder();
    let tombstone = |offset| Record::tombstone(offset, r#"{"id":1}"#);
    let ends = outcomes(&mut decoder, &[create(0, 1), delete(1, 1), tombstone(2), tombstone(3)]);
    assert_eq!(ends[2..], [Outcome::Filtered("tombstone"), Outcome::Change(Operation::Delete)]);
}

#[test]
fn a_null_payload_in_a_schema_block_is_a_tombstone() {
    let mut decoder = decoder();
    let tombstone = Record::new(2, r#"{"id":1}"#, r#"{"schema":null,"payload":null}"#);
    let ends = outcomes(&mut decoder, &[create(0, 1), delete(1, 1), tombstone]);
    assert_eq!(ends[2], Outcome::Filtered("tombstone"));
}

#[test]
fn records_that_are_not_of_a_table_are_filtered_by_name() {
    let heartbeat_topic =
        Record { topic: "__debezium-heartbeat.cdc".into(), ..Record::new(0, "{}", "anything") };
    let named = |name: &str, payload: &str| {
        let value =
            format!(r#"{{"schema":{{"type":"struct","fields":[],"name":"{name}"}},"payload":{payload}}}"#);
        Record::new(0, r#"{"id":"x"}"#, &value)
    };
    let nothing = Record { key: None, value: None, ..Record::new(0, "", "") };
    for (record, reason) in [
        (heartbeat_topic, "heartbeat"),
        (Record::new(0, r#"{"serverName":"cdc"}"#, r#"{"ts_ms":1}"#), "heartbeat"),
        (named("io.debezium.connector.common.Heartbeat", r#"{"ts_ms":1}"#), "heartbeat"),
        (
            Record::new(
                0,
                r#"{"id":"7:1"}"#,
                r#"{"status":"BEGIN","id":"7:1","event_count":null,"data_collections":null,"ts_ms":1}"#,
            ),
            "transaction",
        ),
        (
            named("io.debezium.connector.common.TransactionMetadataValue", r#"{"status":"END","id":"7:1"}"#),
            "transaction",
        ),
        (
            Record::new(0, "{}", r#"{"source":{"db":"x"},"databaseName":"x","ddl":"","tableChanges":[]}"#),
            "schema_change",
        ),
        (nothing, "empty"),
    ] {
        let end = record.push(&mut decoder()).unwrap();
        assert_eq!(end, Outcome::Filtered(reason), "{record:?}");
    }
}

#[test]
fn a_logical_message_is_filtered_but_in_the_raw_table() {
    let mut decoder = decoder();
    let message = r#"{"transactional":true,"prefix":"app","content":"aGVsbG8="}"#;
    let value = event("m", "null", "null")
        .replace(r#""table":"t""#, r#""table":"""#)
        .replace(r#""op":"m""#, &format!(r#""message":{message},"op":"m""#));
    let end = Record::new(0, r#"{"prefix":"app"}"#, &value).push(&mut decoder).unwrap();
    assert_eq!(end, Outcome::Filtered("message"));
    let batch = decoder.finish().unwrap();
    assert_eq!(raw_column(&batch, "operation"), ["m"]);
    assert_eq!(raw_column(&batch, "key"), [r#"{"prefix":"app"}"#]);
    assert_eq!(raw_column(&batch, "after"), [message], "all that it says");
    assert_eq!(raw_column(&batch, "lsn"), ["42"]);
    assert!(batch.changes.is_empty());
}

#[test]
fn spans_begin_at_the_position_that_was_set_and_go_on_from_there() {
    let mut decoder = decoder();
    decoder.begin_partition(TopicPartition::new("cdc.public.t", 0), 5);
    outcomes(&mut decoder, &[create(8, 1)]);
    let first = decoder.finish().unwrap();
    outcomes(&mut decoder, &[create(12, 2)]);
    let second = decoder.finish().unwrap();
    let spans: Vec<(i64, i64)> = [first, second]
        .iter()
        .flat_map(|batch| batch.spans.values().map(|span| (span.first, span.next)))
        .collect();
    assert_eq!(spans, [(5, 9), (9, 13)], "offsets with gaps leave no gap between spans");
}

#[test]
fn changes_say_where_and_when_they_were_made() {
    let mut decoder = decoder();
    let other = Record { topic: "cdc.public.other".into(), ..create(40, 3) };
    outcomes(&mut decoder, &[create(7, 1), other, create(8, 2)]);
    assert_eq!((decoder.rows(), decoder.records()), (3, 3));
    assert!(decoder.bytes() > 0);
    let batch = decoder.finish().unwrap();
    assert_eq!(decoder.rows(), 0);
    assert_eq!(batch.partitions.len(), 2);
    let changes = &batch.changes[0];
    assert_eq!(changes.table.to_string(), "public.t");
    assert_eq!(changes.partitions, [0, 1, 0]);
    assert_eq!(changes.offsets, [7, 40, 8]);
    assert_eq!(changes.source_micros, [1_700_000_000_123_456; 3]);
    assert_eq!(batch.newest_source_micros, Some(1_700_000_000_123_456));
    assert_eq!(raw_column(&batch, "tx_id"), ["7", "7", "7"]);
    assert_eq!(raw_column(&batch, "source_timestamp")[0], "2023-11-14T22:13:20.123456Z");
}

#[test]
fn a_batch_ends_behind_offsets_that_are_never_delivered() {
    let mut decoder = decoder();
    let (partition, identity) = (TopicPartition::new("cdc.public.t", 0), TopicIdentity::unknown());
    assert!(!decoder.reach(&partition, 9, &identity), "not being read");
    decoder.begin_partition(partition.clone(), 0);
    outcomes(&mut decoder, &[create(0, 1)]);
    assert!(decoder.reach(&partition, 2, &identity), "behind the marker of a transaction");
    assert!(!decoder.reach(&partition, 2, &identity) && !decoder.reach(&partition, 1, &identity));
    let span = decoder.finish().unwrap().spans.remove(&partition).unwrap();
    assert_eq!((span.first, span.next), (0, 2));
    assert!(decoder.reach(&partition, 4, &identity), "with no record at all");
    let batch = decoder.finish().unwrap();
    assert_eq!((batch.records, batch.changes.len()), (0, 0));
    let span = &batch.spans[&partition];
    assert_eq!((span.first, span.next), (2, 4));
    outcomes(&mut decoder, &[create(4, 2)]);
    assert_eq!(decoder.finish().unwrap().spans[&partition].first, 4);
}

#[test]
fn the_halves_of_a_key_change_carry_each_others_key_with_and_without_schema() {
    for key in [|id: i64| format!(r#"{{"id":{id}}}"#), key_with_schema as fn(i64) -> String] {
        let half = |offset, id, op: &str, value: &str, other: &str| {
            let mut record = Record::new(offset, &key(id), value);
            let header = if op == "d" { &mut record.new_key } else { &mut record.old_key };
            *header = Some(other.to_owned());
            record
        };
        let d = event("d", r#"{"id":1}"#, "null");
        let c = event("c", "null", r#"{"id":2,"v":"__debezium_unavailable_value"}"#);
        let records = [
            create(0, 1),
            half(1, 1, "d", &d, &key(2)),
            half(2, 2, "c", &c, r#"{"id":1}"#),
            half(3, 3, "c", &c.replace(r#""id":2"#, r#""id":3"#), "no key"),
            half(4, 4, "c", &c.replace(r#""id":2"#, r#""id":4"#), r#"{"other":1}"#),
        ];
        let batch = decode(&mut decoder(), &records);
        let moves = batch.changes[0].moves.as_ref().expect("key changes");
        assert_eq!(moves.changes, [1, 2], "only what names a key of the table");
        let keys = moves.keys.column(0).as_primitive::<arrow::datatypes::Int64Type>().values();
        assert_eq!(keys.as_ref(), [2, 1]);
        assert_eq!(cell(&batch.changes[0], 2, "v"), "ABSENT");
    }
}

/// An update whose commit had this LSN before it, has this LSN itself, and was committed at this time.
fn update_at(offset: i64, id: i64, (commit, lsn): (u64, u64), micros: i64) -> Record {
    let value = event("u", "null", &format!(r#"{{"id":{id},"v":"x"}}"#))
        .replace(r#""[null,\"1\"]""#, &format!(r#""[\"{commit}\",\"{lsn}\"]""#))
        .replace("1700000000123456,", &format!("{micros},"))
        .replace("\"lsn\":42", &format!("\"lsn\":{lsn}"));
    Record::new(offset, &format!(r#"{{"id":{id}}}"#), &value)
}

#[test]
fn what_the_source_sends_again_is_applied_and_counted_by_table() {
    let mut decoder = decoder();
    // Transactions overlap: LSNs go back, which is nothing special.
    let sent = [((10, 30), 1), ((10, 31), 1), ((32, 20), 2), ((32, 33), 2)];
    let records = |first: i64| {
        let at = (first..).zip(sent);
        at.map(|(offset, (pair, micros))| update_at(offset, pair.1 as i64, pair, micros)).collect::<Vec<_>>()
    };
    let batch = decode(&mut decoder, &records(0));
    assert!(batch.duplicates.is_empty() && batch.regressions.is_empty(), "{batch:?}");
    let mut again = records(4);
    again.extend((8..1008).map(|offset| update_at(offset, 1000 + offset, (40, 50), 3)));
    let batch = decode(&mut decoder, &again);
    assert_eq!(batch.changes[0].len(), 1004, "all are applied, also those with one LSN");
    assert_eq!(batch.duplicates.values().collect::<Vec<_>>(), [&4]);
    assert_eq!(batch.duplicates.keys().next().unwrap().to_string(), "public.t");
}

#[test]
fn a_source_that_goes_back_in_its_log_is_applied_and_reported_once() {
    let mut decoder = decoder();
    let before = update_at(0, 1, (1000, 1001), 50);
    let after = [update_at(1, 1, (400, 401), 60), update_at(2, 2, (402, 403), 61)];
    let batch = decode(&mut decoder, &[before, after[0].clone(), after[1].clone()]);
    assert_eq!(batch.changes[0].len(), 3);
    let places: Vec<_> = batch.regressions.iter().map(|each| (each.offset, each.from, each.to)).collect();
    assert_eq!(places, [(1, 1000, 400)]);
    assert!(batch.duplicates.is_empty(), "{:?}", batch.duplicates);
}
