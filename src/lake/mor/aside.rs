//! Rows kept aside: the rows of keys that have changed into keys whose create has not come.
//!
//! They are written into a file beside the data files that no log entry names, so that no reader sees them; the ledger,
//! which is part of the same commit, names file and row. The file goes like every file that the log does not name, by the
//! vacuum, but not before the ledger has forgotten it; the VACUUM of other engines goes by its retention.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use deltalake::logstore::object_store::ObjectStoreExt;
use deltalake::{ObjectStoreError, Path};

use super::files::DataFiles;
use super::plan::Place;
use crate::change::Departing;
use crate::lake::error::LakeError;

/// What the names of such files begin with.
pub(in crate::lake) const PREFIX: &str = "departed-";
/// Between file and row in the name of a kept row.
const SEPARATOR: char = '#';

impl DataFiles {
    /// Writes `columns` of departing rows, and says where each row is; `None` for those in `lost`, whose values are not
    /// all there.
    pub(in crate::lake) async fn keep_aside(
        &self,
        departing: &Departing,
        columns: Vec<ArrayRef>,
        lost: &[(usize, usize)],
    ) -> Result<Vec<Option<String>>, LakeError> {
        let rows = departing.rows.rows.num_rows();
        let is_lost =
            |row: usize| lost.iter().chain(&departing.rows.unresolved).any(|(lost, _)| *lost == row);
        if (0..rows).all(is_lost) {
            return Ok(vec![None; rows]);
        }
        let fields = departing.rows.schema.arrow().fields().iter().map(|field| field.as_ref().clone());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let batch = RecordBatch::try_new(schema, columns).map_err(|error| {
            LakeError::Refused(format!("table {} cannot keep rows aside: {error}", self.table))
        })?;
        let path = self.put_aside(batch).await?;
        Ok((0..rows).map(|row| (!is_lost(row)).then(|| format!("{path}{SEPARATOR}{row}"))).collect())
    }

    /// The places of rows that were kept aside, as far as their files are still there.
    pub(in crate::lake) async fn places_aside(
        &self,
        names: &[String],
    ) -> Result<Vec<Option<Place>>, LakeError> {
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let place = name.rsplit_once(SEPARATOR);
            let place = place.and_then(|(path, row)| Some((path.to_owned(), row.parse().ok()?)));
            let Some((path, row)) = place else {
                places.push(None);
                continue;
            };
            match self.store.head(&Path::from(path.as_str())).await {
                Ok(_) => places.push(Some((path, row))),
                Err(ObjectStoreError::NotFound { .. }) => places.push(None),
                Err(error) => return Err(LakeError::store(&self.table, &error)),
            }
        }
        Ok(places)
    }
}
