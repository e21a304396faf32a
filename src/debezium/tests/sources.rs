//! Rows that move from one source table to another, from the records of two topics to a copy.

use super::*;
use crate::change::quarantine::Marks;
use crate::change::sources_tests::Copy;
use crate::debezium::Routes;

/// A record of the partition `table` of `public.parcels`, in its own topic.
fn record(table: &str, offset: i64, op: &str, id: i64, name: &str, lsn: i64) -> Record {
    let row = format!(r#"{{"id":{id},"name":"{name}"}}"#);
    let (before, after) = if op == "d" { (row.as_str(), "null") } else { ("null", row.as_str()) };
    let value = event(op, before, after)
        .replace("\"table\":\"t\"", &format!("\"table\":\"{table}\""))
        .replace("\"lsn\":42", &format!("\"lsn\":{lsn}"))
        .replace("\"ts_us\":1700000000123456", &format!("\"ts_us\":{}", 1_700_000_000_000_000 + lsn / 10));
    let key = format!(r#"{{"id":{id}}}"#);
    Record { topic: format!("cdc.public.{table}").into(), ..Record::new(offset, &key, &value) }
}

/// Row 1 goes from `north` to `south` and back, row 2 from `north` to `south`, row 3 is deleted in `south`.
fn topics() -> [Vec<Record>; 2] {
    let north = |offset, op, id, name, lsn| record("north", offset, op, id, name, lsn);
    let south = |offset, op, id, name, lsn| record("south", offset, op, id, name, lsn);
    [
        vec![
            north(0, "r", 1, "read", 200),
            north(1, "c", 2, "new", 101),
            north(2, "c", 3, "new", 102),
            north(3, "d", 1, "read", 110),
            north(4, "d", 2, "new", 112),
            north(5, "d", 3, "new", 113),
            north(6, "c", 1, "back", 131),
        ],
        vec![
            south(0, "c", 1, "there", 111),
            south(1, "c", 2, "moved", 113),
            south(2, "c", 3, "moved", 114),
            south(3, "u", 2, "last", 120),
            south(4, "d", 1, "there", 130),
            south(5, "d", 3, "moved", 132),
        ],
    ]
}

/// A decoder for both topics, whose rows go into one table.
fn routed() -> Decoder {
    let mut routes = Routes::default();
    routes.add("^public\\.(north|south)$", "public.parcels").unwrap();
    Decoder::new(DecoderOptions { routes, ..DecoderOptions::default() }, nothing_known)
}

#[test]
fn a_record_that_is_set_aside_marks_its_key_in_the_table_that_its_row_goes_to() {
    let mut decoder = routed().with_marks(Marks::default());
    decode(&mut decoder, &[record("north", 0, "c", 1, "one", 10), record("south", 0, "c", 2, "two", 11)]);
    let bad = record("north", 1, "x", 1, "bad", 12);
    let error = bad.push(&mut decoder).unwrap_err();
    assert_eq!(decoder.table_named_by(&bad.reference()).unwrap().to_string(), "public.parcels");
    bad.set_aside(&mut decoder, error);
    // Read in another topic, a change of that key has a base of its own; in its own topic its base is wrong.
    let absent = "__debezium_unavailable_value";
    record("south", 1, "u", 1, absent, 13).push(&mut decoder).unwrap();
    let partial = record("north", 2, "u", 1, absent, 14);
    let error = partial.push(&mut decoder).unwrap_err();
    assert_eq!(error.kind, RecordErrorKind::BaseQuarantined, "{error}");
    partial.set_aside(&mut decoder, error);
    record("south", 2, "c", 1, "whole", 15).push(&mut decoder).unwrap();
    let batch = decoder.finish().unwrap();
    assert_eq!(batch.settled, [], "another topic settles nothing");
    record("north", 3, "d", 1, "gone", 16).push(&mut decoder).unwrap();
    let batch_after = decoder.finish().unwrap();
    let settled: Vec<i64> = batch_after.settled.iter().map(|settled| settled.place.offset).collect();
    assert_eq!(settled, [1, 2]);
    let tables = batch.quarantined.iter().map(|kept| kept.table.as_ref().unwrap().to_string());
    assert_eq!(tables.collect::<Vec<_>>(), ["public.parcels"; 2]);
}

#[test]
fn a_topic_that_no_record_was_read_from_has_the_policy_of_the_table_that_its_rows_go_to() {
    let mut decoder = routed();
    let bad = Record { value: Some("no json".to_owned()), ..record("north", 0, "c", 1, "one", 10) };
    assert_eq!(decoder.table_named_by(&bad.reference()), None);
    assert_eq!(decoder.table_of_topic(&bad.reference()).unwrap().to_string(), "public.parcels");
    let other = Record { topic: "cdc.public.other".into(), ..bad };
    assert_eq!(decoder.table_of_topic(&other.reference()), None);
}

#[test]
fn a_row_that_moves_between_topics_ends_the_same_whichever_is_read_first() {
    for size in [1, 2, 100] {
        for order in [[0, 1], [1, 0]] {
            let mut decoder = routed();
            let (mut copy, topics) = (Copy::default(), topics());
            for topic in order {
                for records in topics[topic].chunks(size) {
                    let batch = decode(&mut decoder, records);
                    assert!(batch.changes.iter().all(|part| part.table.to_string() == "public.parcels"));
                    copy.apply(&batch);
                }
            }
            assert_eq!(copy.rows(), ["1 back", "2 last"], "topics in order {order:?}, batches of {size}");
            assert!(copy.late > 0, "topics in order {order:?}");
        }
    }
}
