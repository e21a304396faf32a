//! Changes of any schema as changes of the one that a sink stores.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::error::ArrowError;

use super::{ChangeBatch, Column, Misfit, Passage, TableSchema, convert, passage};

/// A cell that the sink's column cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The column.
    pub column: Arc<str>,
    /// The change it belongs to.
    pub row: usize,
}

/// `changes` with the cells of each column in the type that `stored` gives to the column of its name; `None` where
/// they are so already. Columns that `stored` lacks stay as they are.
///
/// # Errors
/// The first cell that does not fit.
pub fn align(changes: &ChangeBatch, stored: &TableSchema) -> Result<Option<ChangeBatch>, Unfit> {
    let mut columns = changes.schema.columns().to_vec();
    let mut cells = changes.rows.columns().to_vec();
    let mut changed = false;
    for (column, cells) in columns.iter_mut().zip(&mut cells) {
        let Some(to) = stored.index_of(&column.name).and_then(|index| stored.columns().get(index)) else {
            continue;
        };
        if passage(&column.column_type, &to.column_type) == Passage::Same {
            continue;
        }
        let unfit = |Misfit { row }| Unfit { column: Arc::clone(&to.name), row };
        *cells = convert(cells, &column.column_type, &to.column_type).map_err(unfit)?;
        *column = Column { column_type: to.column_type.clone(), ..column.clone() };
        changed = true;
    }
    if !changed {
        return Ok(None);
    }
    let schema = Arc::new(TableSchema::new(columns, changes.schema.key().to_vec()));
    // The columns are as long as they were, and of the types that the schema says.
    let rows = RecordBatch::try_new(Arc::clone(schema.arrow()), cells)
        .map_err(|_: ArrowError| Unfit { column: Arc::from("?"), row: 0 })?;
    Ok(Some(ChangeBatch { schema, rows, ..changes.clone() }))
}

/// `changes` with columns under other names; `None` where they have none of `renames` (from, to).
pub fn rename_columns(changes: &ChangeBatch, renames: &[(String, String)]) -> Option<ChangeBatch> {
    let mut columns = changes.schema.columns().to_vec();
    let mut changed = false;
    for (from, to) in renames {
        if let Some(column) = columns.iter_mut().find(|column| *column.name == **from) {
            column.name = Arc::from(to.as_str());
            changed = true;
        }
    }
    let schema = Arc::new(TableSchema::new(columns, changes.schema.key().to_vec()));
    let rows = RecordBatch::try_new(Arc::clone(schema.arrow()), changes.rows.columns().to_vec()).ok()?;
    changed.then(|| ChangeBatch { schema, rows, ..changes.clone() })
}

/// `changes`, aligned with `stored`, with exactly its columns: those that the changes lack are null, others are left out.
pub fn conform(changes: &ChangeBatch, stored: &Arc<TableSchema>) -> Option<ChangeBatch> {
    let rows = changes.len();
    let (mut cells, mut absent) = (Vec::new(), Vec::new());
    for (column, field) in stored.columns().iter().zip(stored.arrow().fields()) {
        let at = changes.schema.index_of(&column.name);
        let found = at.and_then(|at| Some((changes.rows.columns().get(at)?, changes.absent.get(at)?)));
        if let Some((found, mask)) = found {
            cells.push(Arc::clone(found));
            absent.push(mask.clone());
        } else {
            cells.push(new_null_array(field.data_type(), rows));
            absent.push(None);
        }
    }
    let rows = RecordBatch::try_new(Arc::clone(stored.arrow()), cells).ok()?;
    Some(ChangeBatch { schema: Arc::clone(stored), rows, absent, ..changes.clone() })
}
