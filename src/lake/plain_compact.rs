//! Compaction of the lake's own tables, the quarantine and the record of schema changes: rows that are only ever added, a
//! file for each occasion, all of which are opened at every start.
//!
//! It is made between batches and in small steps alone, because these tables grow slowly and a step is waited for. Rows stay
//! as they are; the commit says that no data changed, which is what append-only tables allow.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use futures::TryStreamExt;

use super::compaction::{Pressure, Target, choose};
use super::error::LakeError;
use super::landing::Step;
use super::mor::{DataFiles, RowWriter};
use super::raw_compact::{Merged, has_columns, land};
use super::schema::DeltaSchema;
use super::table::{Table, Writer};

/// Bytes from which on a file is left alone, and about as many that a step reads.
const LARGE: i64 = 4 << 20;

/// Makes one step, if one is due in a table of exactly these columns, and gives what it did.
pub(super) async fn step(
    table: &mut Table,
    (schema, delta): (&SchemaRef, &DeltaSchema),
    writer: &Writer,
) -> Result<Option<Merged>, LakeError> {
    let target = Target { large: LARGE, step: LARGE };
    let files = table.state.files().iter().map(|(path, file)| (&**path, file));
    let plain = files.filter(|(_, file)| file.vector.is_none() && file.partition.is_none());
    let mut chosen = choose(plain, target, Pressure::Idle);
    if chosen.is_empty() || !has_columns(&table.state, delta) {
        return Ok(None);
    }
    let age = |path: &String| table.state.files().get(path.as_str()).map(|file| file.modification_time);
    chosen.sort_by_key(age);
    let mut merged = merge(table, schema, chosen, writer).await?;
    let step = land(table, &mut merged, writer).await?;
    Ok(matches!(step, Step::Done(_)).then_some(merged))
}

async fn merge(
    table: &Table,
    schema: &SchemaRef,
    sources: Vec<String>,
    writer: &Writer,
) -> Result<Merged, LakeError> {
    let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
    let refused =
        |error: ArrowError| LakeError::Refused(format!("table {} cannot be compacted: {error}", files.table));
    let (mut out, mut rows) = (RowWriter::new(schema).map_err(refused)?, 0);
    for path in &sources {
        let mut batches = files.scan(path, schema).await?;
        while let Some(cells) = batches.try_next().await? {
            let batch = RecordBatch::try_new(SchemaRef::clone(schema), cells).map_err(refused)?;
            out.write(&batch).map_err(refused)?;
            rows += batch.num_rows();
        }
    }
    let stats = serde_json::json!({ "numRecords": rows }).to_string();
    let add = files.put(out.finish().map_err(refused)?, stats, false).await?;
    Ok(Merged { writer: writer.id.clone(), sources, add })
}
