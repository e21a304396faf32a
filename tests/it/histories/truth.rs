//! What the copies have to be: the effects of all records that were committed, and how a copy differs from them.
//!
//! Rows are compared one by one and by name, so that the message of a failure shows the row, the column and both values.

use std::collections::{BTreeMap, HashMap};

use super::effect::{Effect, Expected, Sure};
use super::tables::Table;

/// A row of a copy: column names and texts of cells.
pub type Shown = BTreeMap<String, Option<String>>;

/// What the copies have to be: the effects of all records that were committed.
#[derive(Default)]
pub struct Truth {
    rows: BTreeMap<usize, BTreeMap<u8, Expected>>,
    bags: BTreeMap<usize, Vec<Expected>>,
}

impl Truth {
    pub fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Set { table, key, row } => {
                self.rows.entry(*table).or_default().insert(*key, row.clone());
            }
            Effect::Remove { table, key } => {
                self.rows.entry(*table).or_default().remove(key);
            }
            Effect::Clear { table } => {
                self.rows.remove(table);
                self.bags.remove(table);
            }
            Effect::Bag { table, rows } => {
                self.bags.insert(*table, rows.clone());
            }
        }
    }

    pub fn compare(&self, number: usize, table: &Table, found: Vec<Shown>) -> Result<(), String> {
        if table.key.is_empty() {
            return compare_bags(table, self.bags.get(&number).map_or(&[][..], Vec::as_slice), &found);
        }
        let mut by_key: HashMap<Vec<String>, Shown> = HashMap::new();
        for row in found {
            let key =
                table.key.iter().map(|name| row.get(*name).cloned().flatten().unwrap_or_default()).collect();
            if let Some(other) = by_key.insert(key, row) {
                return Err(format!("{} has a key twice: {other:?}", table.name));
            }
        }
        for (key, row) in self.rows.get(&number).into_iter().flatten() {
            let Some(found) = by_key.remove(&table.key_texts(*key)) else {
                return Err(format!("{} lacks the row {:?}: {row:?}", table.name, table.key_texts(*key)));
            };
            let names = row.keys().chain(found.keys());
            for name in names {
                let (expected, sure) = row.get(name).cloned().unwrap_or((None, Sure::Yes));
                let cell = found.get(name).cloned().flatten();
                let right = match sure {
                    Sure::Yes => cell == expected,
                    Sure::OrNull => cell == expected || cell.is_none(),
                    Sure::No => true,
                };
                if !right {
                    return Err(format!(
                        "{} {:?}, column {name}: {cell:?} instead of {expected:?} ({sure:?})",
                        table.name,
                        table.key_texts(*key)
                    ));
                }
            }
        }
        match by_key.into_keys().next() {
            None => Ok(()),
            Some(key) => Err(format!("{} has a row {key:?} that the source has not", table.name)),
        }
    }
}

fn compare_bags(table: &Table, expected: &[Expected], found: &[Shown]) -> Result<(), String> {
    let filled = |row: &Shown| {
        row.iter().filter(|(_, cell)| cell.is_some()).map(|(n, c)| (n.clone(), c.clone())).collect::<Vec<_>>()
    };
    let mut expected: Vec<_> = expected
        .iter()
        .map(|row| filled(&row.iter().map(|(name, (cell, _))| (name.clone(), cell.clone())).collect()))
        .collect();
    let mut found: Vec<_> = found.iter().map(filled).collect();
    expected.sort();
    found.sort();
    if expected == found {
        Ok(())
    } else {
        Err(format!("{} has the rows {found:?} instead of {expected:?}", table.name))
    }
}
