//! Schema changes of the source, brought into a current table before the rows that need them.
//!
//! What is to be done is decided by [`look`](crate::change::look); here it is made true. New
//! columns and meanings are a metadata commit, which keeps the table's id and name (readers that stream from the table
//! stop when the id changes). Another type is a commit that also replaces every file ([`rewrite`]): it says that no data
//! changed, and older versions stay as they were. What cannot be done is written down in the table's properties
//! ([`LINEAGE`]), where `alluvium schema` finds it, and stops the table.

use std::collections::HashMap;

use deltalake::Path;
use deltalake::logstore::object_store::ObjectStoreExt;
use serde_json::json;

use super::action::{Add, Entry, Metadata};
use super::audit::{CHANGES, Fate, SchemaChangeEntry, changes_of, with_changes};
use super::error::LakeError;
use super::log::Outcome;
use super::mor::{self, DataFiles, MergeOnRead, read_vector};
use super::rewrite::{self, Recast, RecastError};
use super::schema::{self, DeltaSchema, KEY};
use super::shape::Shape;
use super::state::TableState;
use super::table::{ATTEMPTS, Advance, Table};
use super::{create, now_millis};
use crate::change::{Difference, EventPlace, Lineage, Met, Pending, TableId, TableSchema, type_words};
use crate::failpoint;

/// Table property: what is remembered of the schemas of the table's events. Stored in every table: **do not change it**.
pub(super) const LINEAGE: &str = "alluvium.schemas";

/// What a table's properties say of the schemas of its events.
pub(super) fn lineage_of(
    folder: &str,
    configuration: &HashMap<String, String>,
) -> Result<Lineage, LakeError> {
    let Some(text) = configuration.get(LINEAGE) else { return Ok(Lineage::default()) };
    serde_json::from_str(text).map_err(|error| LakeError::Unreadable {
        table: folder.to_owned(),
        message: format!("its property {LINEAGE} is not valid: {error}"),
    })
}

/// Another definition of a table.
#[derive(Debug)]
pub(super) struct Redefinition {
    pub(super) stored: TableSchema,
    pub(super) renames: Vec<(String, String)>,
    pub(super) lineage: Lineage,
    pub(super) recast: Recast,
    pub(super) entries: Vec<SchemaChangeEntry>,
    /// Whether other columns are the key.
    pub(super) new_key: bool,
}

impl Redefinition {
    /// What steps amount to; `None` where there are none.
    pub(super) fn of(steps: Vec<Met>, fate: Fate) -> Option<Self> {
        let last = &steps.last()?.step;
        let mut all = Self {
            stored: last.stored.clone(),
            lineage: last.lineage.clone(),
            renames: Vec::new(),
            recast: Recast::default(),
            entries: Vec::new(),
            new_key: false,
        };
        for Met { before, step, place } in steps {
            all.recast.push(&before, &step);
            all.entries.extend(entries(&place, &step.differences, fate));
            all.renames.extend(step.renames);
        }
        Some(all)
    }
}

/// Differences as they are written down.
pub(super) fn entries(place: &EventPlace, differences: &[Difference], fate: Fate) -> Vec<SchemaChangeEntry> {
    let entry = |difference: &Difference| SchemaChangeEntry {
        number: 0,
        difference: difference.clone(),
        fate,
        topic: place.topic.clone(),
        partition: place.partition,
        offset: place.offset,
        source_micros: place.micros,
        at_micros: now_millis() * 1000,
    };
    differences.iter().map(entry).collect()
}

/// The commit that writes a refusal down, without changing anything else.
pub(super) fn refusal_entry(
    state: &TableState,
    lineage: &Lineage,
    pending: &Pending,
    writer: &str,
) -> bytes::Bytes {
    let mut metadata = state.metadata().clone();
    let lineage = Lineage { pending: Some(pending.clone()), ..lineage.clone() };
    let new = entries(&pending.place, &pending.differences, Fate::Refused);
    let changes = with_changes(changes_of(&metadata.configuration), new);
    metadata.configuration.insert(LINEAGE.to_owned(), json!(lineage).to_string());
    metadata.configuration.insert(CHANGES.to_owned(), changes);
    let entry = Entry::with_ledger("SET TBLPROPERTIES", writer, now_millis(), state.known_ledger());
    entry.metadata(&metadata).into_bytes()
}

/// A redefinition that is in the log.
#[derive(Debug)]
pub(super) struct Redefined {
    pub(super) entry: bytes::Bytes,
    /// Files that others took the place of: from, to.
    pub(super) files: Vec<(String, Option<String>)>,
}

impl Redefinition {
    /// Commits it; `None` where another writer changed the table's definition meanwhile. `index` are the rows of a table
    /// that is kept by deletion vectors, with the columns that it has so far: they have to stand at each attempt's version.
    pub(super) async fn commit(
        &self,
        id: &TableId,
        table: &mut Table,
        writer: &super::table::Writer,
        advances: &[Advance],
        mut index: Option<(&mut MergeOnRead, &TableSchema, Shape)>,
    ) -> Result<Option<Redefined>, RecastError> {
        let files = DataFiles { table: table.log.table().into(), store: table.log.files() };
        let mut rewritten: HashMap<String, Option<Add>> = HashMap::new();
        for _ in 0..ATTEMPTS {
            if let Some((rows, schema, shape)) = &mut index
                && mor::obstacle(&table.state, schema).is_none()
            {
                rows.before_rewrite(table, (schema, *shape)).await?;
            }
            if !self.recast.is_empty() {
                self.rewrite(&table.state, &files, &mut rewritten).await?;
                failpoint::hit("lake.after_rewrite");
            }
            let entry = self.entry(id, &table.state, &rewritten, &writer.id)?;
            if table.commit(entry.clone()).await? == Outcome::Committed {
                let live = rewritten.into_iter().map(|(from, add)| (from, add.map(|add| add.path)));
                return Ok(Some(Redefined { entry, files: live.collect() }));
            }
            if table.catch_up(writer, advances).await?.metadata {
                clear(&files, rewritten.into_values().flatten()).await;
                return Ok(None);
            }
            // Whatever else happened: files that went are not needed any more, those that came are rewritten next.
            let (needed, gone): (HashMap<_, _>, HashMap<_, _>) =
                rewritten.into_iter().partition(|(path, _)| table.state.files().contains_key(path.as_str()));
            clear(&files, gone.into_values().flatten()).await;
            rewritten = needed;
        }
        clear(&files, rewritten.into_values().flatten()).await;
        Err(LakeError::Busy { table: table.log.table().to_owned(), attempts: ATTEMPTS }.into())
    }

    async fn rewrite(
        &self,
        state: &TableState,
        files: &DataFiles,
        rewritten: &mut HashMap<String, Option<Add>>,
    ) -> Result<(), RecastError> {
        if !state.metadata().partition_columns.is_empty() {
            return Err(RecastError::Lake(LakeError::Refused(format!(
                "table {} is partitioned by somebody else, so its files cannot be rewritten under another type",
                files.table
            ))));
        }
        for (path, live) in state.files() {
            if rewritten.contains_key(&**path) {
                continue;
            }
            let deleted = match live.vector.as_deref() {
                Some(vector) => read_vector(&files.table, &*files.store, vector).await?,
                None => roaring::RoaringTreemap::new(),
            };
            match rewrite::file(files, (path, live), &deleted, &self.recast, &self.stored).await {
                Ok(add) => drop(rewritten.insert(path.to_string(), add)),
                Err(error) => {
                    clear(files, rewritten.drain().filter_map(|(_, add)| add)).await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        id: &TableId,
        state: &TableState,
        rewritten: &HashMap<String, Option<Add>>,
        writer: &str,
    ) -> Result<bytes::Bytes, LakeError> {
        let now = now_millis();
        let metadata = self.metadata(id, state)?;
        let delta = DeltaSchema::parse(&id.to_string(), &metadata.schema_string)?;
        let operation = if rewritten.is_empty() { "CHANGE COLUMNS" } else { "CHANGE COLUMN TYPES" };
        let mut entry = Entry::with_ledger(operation, writer, now, state.known_ledger());
        let protocol = create::protocol(state.protocol(), &delta, &metadata.configuration);
        if state.protocol() != Some(&protocol) {
            entry = entry.protocol(&protocol);
        }
        entry = entry.metadata(&metadata);
        for (path, add) in rewritten {
            let Some(live) = state.files().get(path.as_str()) else { continue };
            entry = entry.remove(&live.remove(path, now, false));
            // The file may have lost more rows since it was read.
            let add =
                add.iter().map(|add| Add { deletion_vector: live.vector.as_deref().cloned(), ..add.clone() });
            entry = add.fold(entry, |entry, add| entry.add(&add));
        }
        Ok(entry.into_bytes())
    }

    fn metadata(&self, id: &TableId, state: &TableState) -> Result<Metadata, LakeError> {
        let before = state.metadata();
        let mut delta = DeltaSchema::parse(&id.to_string(), &before.schema_string)?;
        for (from, to) in &self.renames {
            if let Some(field) = delta.fields.iter_mut().find(|field| field.name == *from) {
                field.name.clone_from(to);
            }
        }
        for column in self.stored.columns() {
            let wanted = schema::field(id, column)?;
            match delta.fields.iter_mut().find(|field| field.name == *column.name) {
                Some(field) => {
                    if field.metadata.get(schema::TYPE) != wanted.metadata.get(schema::TYPE) {
                        field.data_type = wanted.data_type;
                    }
                    field.metadata.extend(wanted.metadata);
                }
                None => delta.fields.push(wanted),
            }
        }
        schema::check_names(id, &delta.fields)?;
        let mut metadata = Metadata { schema_string: delta.to_text(), ..before.clone() };
        let changes = with_changes(changes_of(&before.configuration), self.entries.iter().cloned());
        metadata.configuration.insert(LINEAGE.to_owned(), json!(self.lineage).to_string());
        if !self.entries.is_empty() {
            metadata.configuration.insert(CHANGES.to_owned(), changes);
        }
        if self.new_key {
            let names: Vec<&str> = self.stored.key_names().collect();
            metadata.configuration.insert(KEY.to_owned(), json!(names).to_string());
        }
        Ok(metadata)
    }
}

/// Removes files that nobody knows of. One that stays behind costs space only.
async fn clear(files: &DataFiles, adds: impl Iterator<Item = Add>) {
    for add in adds {
        if let Err(error) = files.store.delete(&Path::from(add.path.as_str())).await {
            tracing::debug!(table = %files.table, path = add.path, %error, "a rewritten file was left behind");
        }
    }
}

/// A stored value that does not fit, for people.
pub(super) fn misfit_text(id: &TableId, error: RecastError) -> LakeError {
    match error {
        RecastError::Lake(error) => error,
        RecastError::Misfit { column, to, path, row } => LakeError::Refused(format!(
            "column {column} of table {id} has a value that is no {} exactly: row {row} of the file {path}; nothing was changed",
            type_words(&to)
        )),
    }
}
