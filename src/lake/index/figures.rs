//! Figures for ADR 2; run with `--ignored --nocapture`.

#![allow(clippy::print_stderr)]

use std::path::PathBuf;
use std::time::Instant;

use super::{IndexIdentity, IndexKey, KeyIndex, RowAddress, TOGETHER};

const PER_BATCH: usize = 10_000;
const BATCHES: usize = 40;

fn key(number: u64) -> IndexKey {
    IndexKey::exact(&number.to_le_bytes())
}

fn put(index: &mut KeyIndex, numbers: &[u64], file: u32) {
    for some in numbers.chunks(TOGETHER) {
        index.approach(some.iter().map(|&number| key(number)));
        for &number in some {
            index.put(key(number), RowAddress { file, row: number as u32 }).unwrap();
        }
    }
}

/// Fills an empty index with that many keys, and says what it took.
fn fill(index: &mut KeyIndex, keys: u64) {
    let (started, mut slowest) = (Instant::now(), 0.0_f64);
    for first in (0..keys).step_by(TOGETHER) {
        let numbers: Vec<u64> = (first..keys.min(first + TOGETHER as u64)).collect();
        let started = Instant::now();
        put(index, &numbers, 0);
        slowest = slowest.max(started.elapsed().as_secs_f64());
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "{keys} keys in {} MiB: {:.2} us a key, {TOGETHER} of them at the most in {:.1} ms",
        index.bytes() >> 20,
        seconds * 1e6 / keys as f64,
        slowest * 1000.0
    );
}

/// Lookups and updates of scattered keys in an index of `ALLUVIUM_FIGURES_KEYS`, and what opening it takes.
///
/// `ALLUVIUM_FIGURES_INDEX` names a folder in which the index stays, so that it can be filled by one run and measured by
/// another one that has less memory than the index is large.
#[test]
#[ignore = "a measurement, not a check"]
fn scattered_keys_by_size_of_the_index() {
    let keys: u64 = std::env::var("ALLUVIUM_FIGURES_KEYS").map_or(10_000_000, |keys| keys.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var("ALLUVIUM_FIGURES_INDEX").ok().map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| temporary.path().join("index"));
    let identity = IndexIdentity { table_id: "t".into(), key: vec!["id bigint".into()], exact: true };
    if !folder.exists() {
        fill(&mut KeyIndex::create(&folder, &identity).unwrap(), keys);
    }
    let started = Instant::now();
    let mut index = KeyIndex::open(&folder, &identity).unwrap();
    let opened = started.elapsed().as_secs_f64();
    assert_eq!(index.len() as u64, keys, "the index has other keys");
    let mut random = fastrand::Rng::with_seed(7);
    let (mut lookups, mut updates) = (Vec::new(), Vec::new());
    for batch in 0..BATCHES {
        let numbers: Vec<u64> = (0..PER_BATCH).map(|_| random.u64(0..keys)).collect();
        let started = Instant::now();
        let mut found = 0;
        for some in numbers.chunks(TOGETHER) {
            index.approach(some.iter().map(|&number| key(number)));
            found += some.iter().filter(|&&number| index.get(key(number)).is_some()).count();
        }
        lookups.push(started.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(found, PER_BATCH, "keys are missing");
        let started = Instant::now();
        put(&mut index, &numbers, batch as u32 + 1);
        updates.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    for times in [&mut lookups, &mut updates] {
        times.sort_by(f64::total_cmp);
    }
    eprintln!(
        "{keys} keys: opened in {opened:.2} s; {PER_BATCH} lookups {:.2} ms (to {:.2}), then their updates {:.2} ms (to {:.2})",
        lookups[BATCHES / 2],
        lookups[BATCHES - 1],
        updates[BATCHES / 2],
        updates[BATCHES - 1],
    );
}
