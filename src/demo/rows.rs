//! The rows of one table: found by key, walked in key order, picked at random in constant time.
//!
//! Invariant: `keys` holds the key of each row once, and `places` says where.

use std::collections::{BTreeMap, HashMap};

use super::tables::{Entity, Key};

/// The current rows of a table.
#[derive(Debug, Clone)]
pub struct Rows<T> {
    by_key: BTreeMap<Key, T>,
    keys: Vec<Key>,
    places: HashMap<Key, usize>,
}

impl<T: Entity> Rows<T> {
    /// A table without rows.
    pub fn new() -> Self {
        Self { by_key: BTreeMap::new(), keys: Vec::new(), places: HashMap::new() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The row with that key.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.by_key.get(&key)
    }

    /// Inserts a row, or replaces the one with its key.
    pub fn put(&mut self, row: T) {
        let key = row.key();
        if self.by_key.insert(key, row).is_none() {
            self.places.insert(key, self.keys.len());
            self.keys.push(key);
        }
    }

    /// Takes a row out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.remove(&key)?;
        self.keys.swap_remove(place);
        if let Some(&moved) = self.keys.get(place) {
            self.places.insert(moved, place);
        }
        self.by_key.remove(&key)
    }

    /// A row, each with the same chance.
    pub fn pick(&self, rng: &mut fastrand::Rng) -> Option<&T> {
        let key = rng.choice(&self.keys)?;
        self.by_key.get(key)
    }

    /// All rows in key order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.by_key.values()
    }

    /// The rows whose key begins with `id`, in key order.
    pub fn of(&self, id: i64) -> impl Iterator<Item = &T> {
        self.by_key.range((id, i32::MIN)..=(id, i32::MAX)).map(|(_, row)| row)
    }
}

impl<T: Entity> Default for Rows<T> {
    fn default() -> Self {
        Self::new()
    }
}
