//! The index against a map, through restarts, growth, damage and splits that were cut short.

use std::collections::HashMap;
use std::fs;

use proptest::prelude::*;

use super::{IndexIdentity, KeyIndex, RowAddress};

fn identity(exact: bool) -> IndexIdentity {
    IndexIdentity { table_id: "t".into(), key: vec!["id bigint".into()], exact }
}

fn refusal(folder: &std::path::Path, identity: &IndexIdentity) -> String {
    KeyIndex::open(folder, identity).err().map(|reason| reason.to_string()).unwrap_or_default()
}

fn reopen(folder: &std::path::Path, exact: bool) -> KeyIndex {
    KeyIndex::open(folder, &identity(exact)).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Put(u16, u32),
    Remove(u16),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..600_u16, any::<u32>()).prop_map(|(key, row)| Step::Put(key, row)),
        3 => (0..600_u16).prop_map(Step::Remove),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..1500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_index_holds_what_a_map_holds(steps in steps(), exact in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let mut index = KeyIndex::create(folder.path(), &identity(exact)).unwrap();
        let mut model = HashMap::new();
        for step in steps {
            match step {
                Step::Put(key, row) => {
                    let address = RowAddress { file: row % 7, row };
                    index.put(index.key(&key.to_be_bytes()), address).unwrap();
                    model.insert(key, address);
                }
                Step::Remove(key) => {
                    index.remove(index.key(&key.to_be_bytes()));
                    model.remove(&key);
                }
                Step::Restart => {
                    drop(index);
                    index = reopen(folder.path(), exact);
                }
            }
        }
        prop_assert_eq!(index.len(), model.len());
        for key in 0..600_u16 {
            prop_assert_eq!(index.get(index.key(&key.to_be_bytes())), model.get(&key).copied(), "key {}", key);
        }
    }
}

#[test]
fn shards_split_and_every_key_stays_findable() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = KeyIndex::create(folder.path(), &identity(true)).unwrap();
    let count = 400_000_u64;
    for key in 0..count {
        index.put(index.key(&key.to_be_bytes()), RowAddress { file: 1, row: key as u32 }).unwrap();
    }
    assert!(index.shards.len() > 2, "{} shards", index.shards.len());
    drop(index);
    let index = reopen(folder.path(), true);
    assert_eq!(index.len(), count as usize);
    for key in 0..count {
        assert_eq!(
            index.get(index.key(&key.to_be_bytes())),
            Some(RowAddress { file: 1, row: key as u32 }),
            "key {key}"
        );
    }
}

#[test]
fn a_split_that_was_cut_short_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = KeyIndex::create(folder.path(), &identity(true)).unwrap();
    for key in 0..1000_u64 {
        index.put(index.key(&key.to_be_bytes()), RowAddress { file: 1, row: key as u32 }).unwrap();
    }
    drop(index);
    let parent = folder.path().join(super::name(0, 0));
    // One child has its final name and the other not yet; the parent is still there.
    fs::copy(&parent, folder.path().join(super::name(1, 0))).unwrap();
    fs::copy(&parent, folder.path().join(super::name(1, 1)).with_extension("new")).unwrap();
    let index = reopen(folder.path(), true);
    assert_eq!((index.shards.len(), index.len()), (1, 1000));
}

/// The index of a thousand keys in one file, after whatever `how` does with it.
fn closed(folder: &std::path::Path, how: impl FnOnce(KeyIndex)) {
    let mut index = KeyIndex::create(folder, &identity(true)).unwrap();
    let file = index.file_number("part-0.parquet").unwrap();
    for key in 0..1000_u64 {
        index.put(index.key(&key.to_be_bytes()), RowAddress { file, row: key as u32 }).unwrap();
    }
    for key in 0..100_u64 {
        index.remove(index.key(&key.to_be_bytes()));
    }
    how(index);
}

/// Changes the row that the first occupied slot of a shard names.
fn damage(shard: &std::path::Path) {
    let mut bytes = fs::read(shard).unwrap();
    let slot = bytes.chunks_exact_mut(24).find(|slot| slot[16..] != [0; 8]).unwrap();
    slot[16] ^= 1;
    fs::write(shard, bytes).unwrap();
}

const DAMAGED: &str = "a shard or its list of files is damaged";

#[test]
fn an_index_that_was_damaged_after_it_was_closed_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join(super::name(0, 0));
    closed(folder.path(), drop);
    assert_eq!(reopen(folder.path(), true).len(), 900, "as it was closed it is used");
    damage(&shard);
    assert_eq!(refusal(folder.path(), &identity(true)), DAMAGED);

    closed(folder.path(), drop);
    // Two pages that changed places: the same entries, but not where they are looked for.
    let mut bytes = fs::read(&shard).unwrap();
    let (one, other) = bytes.split_at_mut(24 << 9);
    one[..24 << 8].swap_with_slice(&mut other[..24 << 8]);
    fs::write(&shard, bytes).unwrap();
    assert_eq!(refusal(folder.path(), &identity(true)), DAMAGED);

    closed(folder.path(), drop);
    let list = folder.path().join("files.log");
    fs::write(&list, fs::read_to_string(&list).unwrap().replace("part-0", "part-1")).unwrap();
    assert_eq!(refusal(folder.path(), &identity(true)), DAMAGED);
}

#[test]
fn an_index_whose_process_was_killed_is_used_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    closed(folder.path(), std::mem::forget);
    let index = reopen(folder.path(), true);
    assert_eq!(
        (index.len(), index.get(index.key(&500_u64.to_be_bytes())).map(|at| at.row)),
        (900, Some(500))
    );
}

#[test]
fn files_that_are_gone_are_not_known_again_once_the_table_was_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = KeyIndex::create(folder.path(), &identity(true)).unwrap();
    let numbers: Vec<u32> = (0..10).map(|file| index.file_number(&format!("part-{file}")).unwrap()).collect();
    for file in 0..9 {
        index.forget_file(&format!("part-{file}")).unwrap();
    }
    for _ in 0..3 {
        drop(index);
        index = reopen(folder.path(), true);
        index.retain_files(|path| path == "part-8").unwrap();
        let known: Vec<u32> =
            numbers.iter().copied().filter(|number| index.file(*number).is_some()).collect();
        assert_eq!(known, [numbers[8]]);
    }
    let list = fs::read_to_string(folder.path().join("files.log")).unwrap();
    assert_eq!(list.lines().count(), 2, "one line for the file and one for the newest number: {list:?}");
    assert_eq!(index.file_number("next").unwrap(), 10, "a number is never given twice");
}

#[test]
fn an_index_of_another_table_or_key_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    drop(KeyIndex::create(folder.path(), &identity(true)).unwrap());
    let other = IndexIdentity { table_id: "another".into(), ..identity(true) };
    assert_eq!(refusal(folder.path(), &other), "it belongs to another table, or to another key");
}

#[test]
fn a_damaged_header_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    drop(KeyIndex::create(folder.path(), &identity(true)).unwrap());
    let path = folder.path().join("header.json");
    let text = fs::read_to_string(&path).unwrap().replace("exact", "exbct");
    fs::write(&path, text).unwrap();
    assert_eq!(refusal(folder.path(), &identity(true)), "its header is damaged");
}

#[test]
fn an_index_from_before_the_machine_started_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = KeyIndex::create(folder.path(), &identity(true)).unwrap();
    index.set_version(3, None).unwrap();
    drop(index);
    let mut index = reopen(folder.path(), true);
    assert_eq!(index.version(), Some(3));
    index.header.pretend_boot("another");
    index.set_version(4, None).unwrap();
    drop(index);
    let reason = "the machine has started anew since it was written, or has no boot id";
    assert_eq!(refusal(folder.path(), &identity(true)), reason);
}

#[test]
fn file_numbers_are_never_given_twice_and_survive_a_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = KeyIndex::create(folder.path(), &identity(true)).unwrap();
    let numbers: Vec<u32> =
        (0..3000).map(|file| index.file_number(&format!("part-{file}.parquet")).unwrap()).collect();
    for file in 0..2999 {
        index.forget_file(&format!("part-{file}.parquet")).unwrap();
    }
    drop(index);
    let log = folder.path().join("files.log");
    let mut text = fs::read_to_string(&log).unwrap();
    text.push_str("9999 part-tor");
    fs::write(&log, text).unwrap();
    let mut index = reopen(folder.path(), true);
    assert_eq!(index.file(numbers[2999]), Some("part-2999.parquet"));
    assert_eq!(index.file_number("next.parquet").unwrap(), 3000);
}
