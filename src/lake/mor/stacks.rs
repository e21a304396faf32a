//! Several rows with one key: in a table without key, where the whole row is its key and equal rows are many.
//!
//! The index maps a key to one address. So all addresses of a row are a *stack*: the entry of the row itself holds the
//! stack's height, and an entry derived from the row and a number holds the address at that height. A new row goes on
//! top; a delete takes the topmost that is alive, and what was above it, which is stale, goes with it.
//!
//! What holds for the index holds here: an address may be stale, or stand there twice after a commit was read again; the
//! address of a live row is never missing. Stale ones are reused, so that compaction, which gives every row a new address,
//! does not make stacks grow. The height is written after the address that it counts, and before one that it no longer
//! counts is removed, so that a killed process leaves no hole.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use deltalake::ObjectStore;
use roaring::RoaringTreemap;

use super::keys::Keys;
use super::locate::Locator;
use super::vectors::Vectors;
use crate::lake::error::LakeError;
use crate::lake::index::{IndexKey, KeyIndex, RowAddress};
use crate::lake::table::Table;

/// Entries that are looked at for a stale one before a stack grows.
const REUSE: u32 = 8;
/// Addresses of a row that are looked at together, at the least.
const LOOK: u32 = 4;

/// The entry that holds the height of a row's stack.
fn height_key(index: &KeyIndex, row: &[u8]) -> IndexKey {
    index.key(row)
}

/// The entry of the address at `at`.
fn address_key(index: &KeyIndex, height: IndexKey, at: u32) -> IndexKey {
    let mut bytes = [0; 20];
    let (row, number) = bytes.split_at_mut(16);
    row.copy_from_slice(&height.bytes());
    number.copy_from_slice(&at.to_le_bytes());
    index.key(&bytes)
}

fn height(index: &KeyIndex, height: IndexKey) -> u32 {
    index.get(height).map_or(0, |counted| counted.row)
}

/// Puts the address of one more instance of `row` on its stack. `cursor` is kept between calls.
pub(super) fn push(
    index: &mut KeyIndex,
    row: &[u8],
    address: RowAddress,
    cursor: &mut u32,
) -> io::Result<()> {
    let key = height_key(index, row);
    let height = height(index, key);
    for _ in 0..REUSE.min(height) {
        *cursor = cursor.wrapping_add(1);
        let slot = address_key(index, key, *cursor % height);
        let gone = index.get(slot).is_none_or(|stored| index.file(stored.file).is_none());
        if gone {
            return index.put(slot, address);
        }
    }
    let Some(higher) = height.checked_add(1) else {
        return Err(io::Error::other("a row is there more than four thousand million times"));
    };
    index.put(address_key(index, key, height), address)?;
    index.put(key, RowAddress { file: 0, row: higher })
}

/// Cuts the stack of `row` to a height.
pub(super) fn cut(index: &mut KeyIndex, row: &[u8], lower: u32) -> io::Result<()> {
    let key = height_key(index, row);
    let height = height(index, key);
    if lower >= height {
        return Ok(());
    }
    if lower == 0 {
        index.remove(key);
    } else {
        index.put(key, RowAddress { file: 0, row: lower })?;
    }
    for at in lower..height {
        index.remove(address_key(index, key, at));
    }
    Ok(())
}

/// Stored instances of the rows that a batch deletes.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// One live row for each delete that has one.
    pub(super) addresses: Vec<RowAddress>,
    /// Rows whose stacks are cut when they are deleted, and to which height.
    pub(super) cuts: Vec<(Box<[u8]>, u32)>,
}

/// A row of which instances are looked for.
struct Search<'a> {
    row: &'a [u8],
    key: IndexKey,
    /// Height below which nothing was looked at yet.
    at: u32,
    wanted: u64,
}

/// Finds a live instance for each of `deleted`; rows in `emptied` do not count as live.
pub(super) async fn find(
    table: &Table,
    locator: &Locator,
    vectors: &mut Vectors,
    store: &dyn ObjectStore,
    deleted: &Keys,
    emptied: &HashMap<String, RoaringTreemap>,
) -> Result<Found, LakeError> {
    let index = locator.index()?;
    let mut wanted: HashMap<&[u8], u64> = HashMap::new();
    for row in deleted.iter().flatten() {
        *wanted.entry(row).or_default() += 1;
    }
    let mut searches: Vec<Search<'_>> = wanted
        .into_iter()
        .map(|(row, wanted)| {
            let key = height_key(index, row);
            Search { row, key, at: height(index, key), wanted }
        })
        .collect();
    let (mut found, mut taken) = (Found::default(), HashSet::new());
    while !searches.is_empty() {
        let looked: Vec<Vec<RowAddress>> = searches.iter().map(|search| look(index, search)).collect();
        let live = live(table, locator, vectors, store, &looked).await?;
        let mut unfinished = Vec::new();
        for (mut search, addresses) in searches.into_iter().zip(looked) {
            for address in addresses {
                if search.wanted == 0 {
                    break;
                }
                search.at -= 1;
                let is_live = live.get(&address.file).is_some_and(|(path, gone)| {
                    let row = u64::from(address.row);
                    !gone.contains(row) && !emptied.get(*path).is_some_and(|rows| rows.contains(row))
                });
                if is_live && taken.insert((address.file, address.row)) {
                    search.wanted -= 1;
                    found.addresses.push(address);
                }
            }
            if search.wanted > 0 && search.at > 0 {
                unfinished.push(search);
            } else {
                found.cuts.push((search.row.into(), search.at));
            }
        }
        searches = unfinished;
    }
    Ok(found)
}

/// The next addresses of a row, from the top.
fn look(index: &KeyIndex, search: &Search<'_>) -> Vec<RowAddress> {
    let count = u32::try_from(search.wanted).unwrap_or(u32::MAX).max(LOOK);
    let lowest = search.at.saturating_sub(count);
    // A missing entry counts as stale: it has to be passed, too.
    let none = RowAddress { file: u32::MAX, row: 0 };
    let address = |at: u32| index.get(address_key(index, search.key, at)).unwrap_or(none);
    (lowest..search.at).rev().map(address).collect()
}

type LiveFiles<'a> = HashMap<u32, (&'a str, Arc<RoaringTreemap>)>;

/// The live files among those that addresses name, with their deleted rows.
async fn live<'a>(
    table: &Table,
    locator: &'a Locator,
    vectors: &mut Vectors,
    store: &dyn ObjectStore,
    looked: &[Vec<RowAddress>],
) -> Result<LiveFiles<'a>, LakeError> {
    let numbers: HashSet<u32> = looked.iter().flatten().map(|address| address.file).collect();
    let files: Vec<_> = numbers
        .into_iter()
        .filter_map(|number| {
            let path = locator.file(number)?;
            Some((number, path, table.state.files().get(path)?))
        })
        .collect();
    let names = files.iter().map(|(_, path, file)| (*path, *file));
    let gone = vectors.of(table.log.table(), store, names).await?;
    Ok(files.into_iter().zip(gone).map(|((number, path, _), gone)| (number, (path, gone))).collect())
}
