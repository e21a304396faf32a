//! Figures for ADR 2; run with `--ignored --nocapture`.

#![allow(clippy::print_stderr)]

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

/// Lookups and updates of scattered keys in an index of `ALLUVIUM_FIGURES_KEYS`, and what an update of its version, the
/// slowest put and opening it take. Where it lies, `TMPDIR` says; a limit of memory is for who starts it to set.
#[test]
#[ignore = "a measurement, not a check"]
fn scattered_keys_by_size_of_the_index() {
    let keys: u64 = std::env::var("ALLUVIUM_FIGURES_KEYS").map_or(10_000_000, |keys| keys.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let identity = IndexIdentity { table_id: "t".into(), key: vec!["id bigint".into()], exact: true };
    let mut index = KeyIndex::create(folder.path(), &identity).unwrap();
    let (started, mut slowest) = (Instant::now(), 0.0_f64);
    let all: Vec<u64> = (0..1_000_000).collect();
    for first in (0..keys).step_by(all.len()) {
        for some in all.chunks(TOGETHER) {
            let numbers: Vec<u64> = some.iter().map(|number| first + number).collect();
            let started = Instant::now();
            put(&mut index, &numbers, 0);
            slowest = slowest.max(started.elapsed().as_secs_f64());
        }
    }
    let filled = started.elapsed().as_secs_f64();
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
    let bytes = index.bytes();
    drop(index);
    let started = Instant::now();
    drop(KeyIndex::open(folder.path(), &identity).unwrap());
    eprintln!(
        "{keys} keys in {} MiB: filled in {filled:.1} s ({:.2} us a key; {TOGETHER} keys at the most in {:.1} ms); {PER_BATCH} \
         lookups {:.2} ms (to {:.2}), then their updates {:.2} ms (to {:.2}); opened in {:.2} s",
        bytes >> 20,
        filled * 1e6 / keys as f64,
        slowest * 1000.0,
        lookups[BATCHES / 2],
        lookups[BATCHES - 1],
        updates[BATCHES / 2],
        updates[BATCHES - 1],
        started.elapsed().as_secs_f64(),
    );
}
