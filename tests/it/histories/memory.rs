//! A copy in memory: what any sink has to do with a folded batch, in the plainest way.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use alluvium::change::{
    Batch, Candidate, ChangeBatch, DeleteMode, Folded, KeyLedger, KnownSchemas, KnownTables, Progress,
    TableSchema, fold_onto,
};

use super::reader::{Copy, text};
use super::truth::Shown;

/// Tables by name.
#[derive(Default)]
pub struct Memory {
    tables: BTreeMap<String, MemoryTable>,
}

struct MemoryTable {
    schema: Arc<TableSchema>,
    rows: BTreeMap<Vec<Option<String>>, Shown>,
    /// The rows of a table without key.
    bag: Vec<Shown>,
    ledger: KeyLedger,
}

impl Copy for Memory {
    fn commit(&mut self, batch: &Batch) -> Result<(), String> {
        let mut parts: BTreeMap<&str, Vec<&ChangeBatch>> = BTreeMap::new();
        for changes in &batch.changes {
            parts.entry(&changes.table.table).or_default().push(changes);
        }
        for (name, changes) in parts {
            let before = self.tables.remove(name);
            let schemas =
                before.iter().map(|table| &table.schema).chain(changes.iter().map(|part| &part.schema));
            let schema = union(schemas);
            let (rows, bag, ledger) =
                before.map(|table| (table.rows, table.bag, table.ledger)).unwrap_or_default();
            let folded = fold_onto(DeleteMode::Hard, &schema, &changes, |_, _| true, &ledger)
                .map_err(|error| error.to_string())?;
            // Rows of key changes that are half done are not kept: those that are read here never are.
            let ledger = folded.ledger_with(std::iter::empty());
            let mut table = MemoryTable { schema, rows, bag, ledger };
            table.apply(&folded)?;
            self.tables.insert(name.to_owned(), table);
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<Option<Progress>, String> {
        Ok(None)
    }

    fn known(&self) -> KnownSchemas {
        let schemas: BTreeMap<String, Arc<TableSchema>> =
            self.tables.iter().map(|(name, table)| (name.clone(), Arc::clone(&table.schema))).collect();
        Box::new(move |table| schemas.get(&*table.table).cloned())
    }

    fn tables(&self) -> KnownTables {
        KnownTables::default()
    }

    fn rows(&mut self, table: &str) -> Result<Vec<Shown>, String> {
        let rows = |table: &MemoryTable| table.rows.values().chain(&table.bag).cloned().collect();
        Ok(self.tables.get(table).map(rows).unwrap_or_default())
    }

    fn is_cheap(&self) -> bool {
        true
    }
}

/// All columns of several schemas, the key of the last.
fn union<'a>(schemas: impl Iterator<Item = &'a Arc<TableSchema>>) -> Arc<TableSchema> {
    let mut columns = Vec::new();
    let mut key: Vec<String> = Vec::new();
    for schema in schemas {
        for column in schema.columns() {
            if !columns.iter().any(|known: &alluvium::change::Column| known.name == column.name) {
                columns.push(column.clone());
            }
        }
        key = schema.key_names().map(str::to_owned).collect();
    }
    let index = |name: &String| columns.iter().position(|column| *column.name == **name);
    let key = key.iter().filter_map(index).collect();
    Arc::new(TableSchema::new(columns, key))
}

impl MemoryTable {
    fn apply(&mut self, folded: &Folded) -> Result<(), String> {
        let names: Vec<String> = self.schema.columns().iter().map(|column| column.name.to_string()).collect();
        let keys: Vec<&str> = self.schema.key_names().collect();
        if folded.truncated.is_some() {
            self.rows.clear();
            self.bag.clear();
        }
        if folded.is_keyless() {
            self.count(folded, &names);
            return Ok(());
        }
        let before = self.rows.clone();
        // The first stored row under a list of former keys; the histories read here never cut a key change in two.
        let inherited = |column: usize, row: usize| {
            let origins = folded.origins.as_ref()?;
            let list = origins.candidates_of(column, row)?;
            Some(list.iter().find_map(|candidate| match candidate {
                Candidate::Stored(at) => {
                    let key = |name: &&str| text(&origins.keys, *at as usize, name);
                    before.get(&keys.iter().map(key).collect::<Vec<_>>())
                }
                Candidate::Kept(_) => None,
            }))
        };
        let mut deleted = HashSet::new();
        for row in 0..folded.deletes.num_rows() {
            let key: Vec<_> = keys.iter().map(|name| text(&folded.deletes, row, name)).collect();
            self.rows.remove(&key);
            deleted.insert(key);
        }
        for row in 0..folded.rows.num_rows() {
            let key: Vec<_> = keys.iter().map(|name| text(&folded.rows, row, name)).collect();
            let stored = self.rows.get(&key);
            let cell = |(column, name): (usize, &String)| {
                let absent = folded.absent[column].as_ref().is_some_and(|mask| mask.value(row));
                let cell = if absent {
                    inherited(column, row).unwrap_or(stored).and_then(|row| row.get(name).cloned().flatten())
                } else {
                    text(&folded.rows, row, name)
                };
                (name.clone(), cell)
            };
            let shown: Shown = names.iter().enumerate().map(cell).collect();
            if deleted.contains(&key) {
                return Err(format!("{key:?} is in the folded rows and in the deletes"));
            }
            self.rows.insert(key, shown);
        }
        Ok(())
    }

    /// One equal row goes for each deleted one, and rows are added whether there are equal ones or not.
    fn count(&mut self, folded: &Folded, names: &[String]) {
        let compared: Vec<&String> = folded.compared.iter().filter_map(|&column| names.get(column)).collect();
        for row in 0..folded.deletes.num_rows() {
            let equal = |stored: &Shown| {
                compared
                    .iter()
                    .all(|name| stored.get(*name).cloned().flatten() == text(&folded.deletes, row, name))
            };
            if let Some(at) = self.bag.iter().position(equal) {
                self.bag.swap_remove(at);
            }
        }
        for row in 0..folded.rows.num_rows() {
            self.bag.push(names.iter().map(|name| (name.clone(), text(&folded.rows, row, name))).collect());
        }
    }
}
