//! What changes ask of a table, by what they do.
use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::record_batch::RecordBatch;

use super::difference::DifferenceKind as Kind;
use super::lineage::{Described, Lineage};
use super::{
    Batch, ChangeBatch, Column, ColumnType, Operation, Outlook, TableId, TablePolicy, TableSchema, look,
};
use ColumnType::{Int32, Int64, Text};
use Operation::{Create, Delete, Read, Truncate, Update};

/// The first column is the key.
fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
    let column = |(name, column_type): &(&str, ColumnType)| Column {
        name: (*name).into(),
        column_type: column_type.clone(),
        nullable: true,
    };
    TableSchema::new(columns.iter().map(column).collect(), vec![0])
}

/// Changes at these offsets of partition 0, with nothing but nulls.
fn changes(schema: &TableSchema, operations: &[(Operation, i64)]) -> ChangeBatch {
    let nulls =
        schema.arrow().fields().iter().map(|field| new_null_array(field.data_type(), operations.len()));
    ChangeBatch {
        table: TableId::new("db", "public", "t"),
        schema: Arc::new(schema.clone()),
        operations: operations.iter().map(|(operation, _)| *operation).collect(),
        rows: RecordBatch::try_new(Arc::clone(schema.arrow()), nulls.collect()).unwrap(),
        absent: vec![None; schema.columns().len()],
        partitions: vec![0; operations.len()],
        offsets: operations.iter().map(|(_, offset)| *offset).collect(),
        source_micros: operations.iter().map(|(_, offset)| offset * 1_000_000).collect(),
        moves: None,
        lsns: vec![0; operations.len()],
        truncates: Vec::new(),
    }
}

/// What a table becomes that stores `id, a, b`, where `a` was dropped before `b` came.
fn looked_at(change: &ChangeBatch, from: i64) -> Outlook<'_> {
    let stored = Arc::new(schema(&[("id", Int32), ("a", Text), ("b", Text)]));
    let lineage = Lineage::default()
        .followed_by(Described::from(&schema(&[("id", Int32), ("a", Text)])), 0)
        .followed_by(Described::from(&schema(&[("id", Int32), ("b", Text)])), 0);
    let keep = |_, offset| offset >= from;
    look((&stored, &lineage), &Batch::default(), &[change], &TablePolicy::default(), keep).unwrap()
}

fn kinds(outlook: &Outlook<'_>) -> Vec<(Kind, String)> {
    let steps = outlook.steps.iter().flat_map(|met| &met.step.differences);
    let refused = outlook.refused.iter().flat_map(|pending| &pending.differences);
    steps.chain(refused).map(|difference| (difference.kind, difference.column.clone())).collect()
}

/// Without schema block a decoder that has met nothing else of a table makes of a delete the key alone, and of a
/// tombstone or a truncate all that the sink has, dropped columns among it.
#[test]
fn changes_that_leave_no_row_do_not_say_which_columns_there_are() {
    let key = schema(&[("id", Int32)]);
    let sink = schema(&[("id", Int32), ("a", Text), ("b", Text)]);
    for schema in [&key, &sink] {
        for operation in [Delete, Truncate] {
            let change = changes(schema, &[(operation, 5)]);
            assert_eq!(kinds(&looked_at(&change, 0)), [], "{operation:?} of {schema:?}");
            let change = changes(schema, &[(Create, 5), (operation, 6)]);
            assert_eq!(
                kinds(&looked_at(&change, 6)),
                [],
                "{operation:?} of {schema:?} behind one that is stored"
            );
        }
    }
    let row = changes(&key, &[(Delete, 5), (Update, 6)]);
    assert_eq!(kinds(&looked_at(&row, 0)), [(Kind::Drop, "b".to_owned())]);
}

#[test]
fn deletes_say_what_the_key_is() {
    let wide = changes(&schema(&[("id", Int64)]), &[(Delete, 5)]);
    let outlook = looked_at(&wide, 0);
    assert_eq!(kinds(&outlook), [(Kind::Widen, "id".to_owned())]);
    let after = outlook.steps[0].step.lineage.latest.as_ref().unwrap().schema();
    assert_eq!(after, schema(&[("id", Int64), ("b", Text)]));

    let other = changes(&schema(&[("b", Text)]), &[(Delete, 5)]);
    let outlook = looked_at(&other, 0);
    assert_eq!(kinds(&outlook), [(Kind::Key, "b".to_owned())]);
    let waits = outlook.refused.unwrap().events.schema();
    assert_eq!(waits.columns(), schema(&[("id", Int32), ("b", Text)]).columns());
    assert_eq!(waits.key_names().collect::<Vec<_>>(), ["b"]);
}

/// Schemas as a schema block has them: the key is never null.
fn told(columns: &[(&str, ColumnType)]) -> TableSchema {
    let mut columns = schema(columns).columns().to_vec();
    columns[0].nullable = false;
    TableSchema::new(columns, vec![0])
}

#[test]
fn only_changes_with_a_schema_block_bring_a_schema_back_and_only_from_one_source_table() {
    let (with, without) = ([("id", Int32), ("a", Text)], [("id", Int32)]);
    let renamed = |of: fn(&[(&str, ColumnType)]) -> TableSchema,
                   operations: &[Operation],
                   several_sources| {
        let stored = Arc::new(of(&with));
        let lineage = Lineage::default()
            .followed_by(Described::from(&of(&with)), 1_000_000)
            .followed_by(Described::from(&of(&without)), 2_000_000);
        let at: Vec<_> = operations.iter().copied().zip(5..).collect();
        let change = changes(&of(&with), &at);
        let policy = TablePolicy { several_sources, ..TablePolicy::default() };
        let outlook = look((&stored, &lineage), &Batch::default(), &[&change], &policy, |_, _| true).unwrap();
        outlook.steps.iter().any(|met| !met.step.renames.is_empty())
    };
    assert!(renamed(told, &[Update], false));
    assert!(renamed(told, &[Read, Delete, Create], false));
    assert!(!renamed(told, &[Read, Delete], false), "a snapshot has more columns, and a delete says nothing");
    assert!(!renamed(told, &[Update], true), "source tables take turns");
    assert!(!renamed(schema, &[Update], false), "without schema block a decoder remembers more columns");
}
