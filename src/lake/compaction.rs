//! When which files of a table are put together: the policy of compaction, and its arithmetic.
//!
//! Every batch adds a file, and every file with a row that changes costs an entry in the commit. So files are kept in
//! tiers of size, each eight times the one before; eight files of a tier become one. A row is thereby rewritten at most
//! once a tier, and there are at most eight files in each, beside those that are large enough. How large that is grows
//! with the table, so that the number of large files stays bounded, too.
//!
//! Files of which a third is deleted lose their deleted rows, which writes at most two rows for each one deleted. But
//! not one by one: only when together they hold megabytes of deleted rows. A small table whose rows change all the time
//! would otherwise be rewritten with every batch, and a reader gains nothing from a megabyte less.

use super::live_file::LiveFile;

/// Files of one tier that become one.
pub(super) const FAN_IN: usize = 8;
/// Bytes of live rows up to which a file belongs to the first tier.
const FIRST_TIER: i64 = 64 << 10;
/// Bytes of live rows from which on a file is left alone: at least, and at most.
const LARGE: (i64, i64) = (32 << 20, 128 << 20);
/// Large files that a table may have before its files become larger.
const LARGE_FILES: i64 = 512;
/// Bytes of files that one step reads, at least.
const STEP: i64 = 64 << 20;
/// Files that one step reads at most: each is open while they are merged.
const STEP_FILES: usize = 64;
/// Share of deleted rows, in per cent, from which on a file is dense in them.
const DENSE: i64 = 33;
/// Bytes of deleted rows in dense files that are worth a step.
const WASTE: i64 = 4 << 20;

/// How pressing compaction has to be for a step to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressure {
    /// There is time: as soon as it is worth it.
    Idle,
    /// Batches are waiting: where twice as much has gathered. What counts as dense stays the same, for it bounds what
    /// deleted rows cost in space and in vectors.
    Busy,
}

impl Pressure {
    fn factor(self) -> i64 {
        match self {
            Self::Idle => 1,
            Self::Busy => 2,
        }
    }
}

/// What files a table aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Bytes of live rows from which on a file is left alone.
    pub(super) large: i64,
    /// Bytes of files that one step reads.
    pub(super) step: i64,
}

impl Target {
    /// The target of a table of that many bytes.
    pub(super) fn of(bytes: i64) -> Self {
        let large = (bytes / LARGE_FILES).clamp(LARGE.0, LARGE.1);
        Self { large, step: large.max(STEP) }
    }
}

/// The files of the next step; empty where there is nothing to do.
pub(super) fn choose<'a>(
    files: impl Iterator<Item = (&'a str, &'a LiveFile)>,
    target: Target,
    pressure: Pressure,
) -> Vec<String> {
    let mut chosen = due(files, target, pressure);
    chosen.truncate(STEP_FILES);
    chosen
}

fn due<'a>(
    files: impl Iterator<Item = (&'a str, &'a LiveFile)>,
    target: Target,
    pressure: Pressure,
) -> Vec<String> {
    let mut tiers: Vec<Vec<Candidate<'_>>> = Vec::new();
    let (mut dense, mut waste) = (Vec::new(), 0);
    for (path, file) in files {
        let (live, deleted) = measure(file);
        if deleted >= DENSE {
            dense.push((-deleted, path, file.size));
            waste += file.size - live;
        }
        if live < target.large {
            let tier = tier(live);
            if tiers.len() <= tier {
                tiers.resize_with(tier + 1, Vec::new);
            }
            if let Some(files) = tiers.get_mut(tier) {
                files.push((live, path, file.size));
            }
        }
    }
    let full = FAN_IN * pressure.factor() as usize;
    if let Some(files) = tiers.into_iter().find(|files| files.len() >= full) {
        return within(files, 2, target.step);
    }
    if waste >= WASTE * pressure.factor() { within(dense, 1, target.step) } else { Vec::new() }
}

/// What a file is ordered by, its path, and its size.
type Candidate<'a> = (i64, &'a str, i64);

/// The first files in order that make a step, at least `least`.
pub(super) fn within(mut files: Vec<Candidate<'_>>, least: usize, step: i64) -> Vec<String> {
    files.sort_unstable();
    let mut bytes = 0;
    let fits = |&(at, (_, _, size)): &(usize, Candidate<'_>)| {
        bytes += size;
        at < least || bytes <= step
    };
    let chosen = files.into_iter().enumerate().take_while(fits);
    chosen.map(|(_, (_, path, _))| path.to_owned()).collect()
}

/// Bytes of live rows, and the share of deleted rows in per cent.
fn measure(file: &LiveFile) -> (i64, i64) {
    match (file.rows, file.physical_rows()) {
        (Some(live), Some(physical)) if physical > 0 => {
            let bytes = i128::from(file.size) * i128::from(live) / i128::from(physical);
            (bytes as i64, (physical - live) * 100 / physical)
        }
        _ => (file.size, 0),
    }
}

fn tier(bytes: i64) -> usize {
    let (mut tier, mut limit) = (0, FIRST_TIER);
    while bytes >= limit {
        tier += 1;
        limit *= FAN_IN as i64;
    }
    tier
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::action::Entry;
    use crate::lake::state::TableState;

    /// A state with files of (bytes, rows, deleted rows).
    fn state(files: &[(i64, i64, i64)]) -> TableState {
        let mut state = TableState::empty("t");
        let mut entry = Entry::new("WRITE", "w", 0);
        for (number, (size, rows, deleted)) in files.iter().enumerate() {
            let add = serde_json::from_value(serde_json::json!({
                "path": format!("{number}"), "size": size, "stats": format!("{{\"numRecords\":{rows}}}"),
                "deletionVector": {"storageType": "u", "pathOrInlineDv": "", "sizeInBytes": 1, "cardinality": deleted},
            }));
            entry = entry.add(&add.unwrap());
        }
        state.apply(0, &entry.into_bytes()).unwrap();
        state
    }

    fn chosen(files: &[(i64, i64, i64)], pressure: Pressure) -> Vec<String> {
        let state = state(files);
        choose(state.files().iter().map(|(path, file)| (&**path, file)), Target::of(state.bytes()), pressure)
    }

    #[test]
    fn eight_files_of_a_tier_become_one_and_larger_ones_wait() {
        let mut files = vec![(1000, 10, 0); 7];
        files.push((1 << 20, 10, 0));
        assert!(chosen(&files, Pressure::Idle).is_empty());
        files.push((2000, 10, 1));
        assert_eq!(chosen(&files, Pressure::Idle).len(), 8);
        assert!(chosen(&files, Pressure::Busy).is_empty(), "batches go first for a while");
    }

    #[test]
    fn a_dense_file_is_rewritten_alone_however_large() {
        let files = [(1 << 30, 1000, 340), (1 << 30, 1000, 100)];
        for pressure in [Pressure::Idle, Pressure::Busy] {
            assert_eq!(chosen(&files, pressure), ["0"], "{pressure:?}");
        }
    }

    #[test]
    fn dense_files_of_a_small_table_wait_until_they_are_worth_a_step_and_go_together() {
        let mut files = vec![(1 << 20, 1000, 700); 5];
        assert!(chosen(&files, Pressure::Idle).is_empty(), "3.5 MiB of deleted rows");
        files.push((1 << 20, 1000, 800));
        assert_eq!(chosen(&files, Pressure::Idle).len(), 6);
        assert!(chosen(&files, Pressure::Busy).is_empty(), "batches go first for a while");
        files.extend(vec![(1 << 20, 1000, 700); 6]);
        assert_eq!(chosen(&files, Pressure::Busy).len(), 12, "8.5 MiB of deleted rows");
    }

    #[test]
    fn a_step_reads_a_bounded_number_of_bytes() {
        let files = vec![(20 << 20, 1000, 0); 10];
        assert_eq!(chosen(&files, Pressure::Idle).len(), 3);
    }

    #[test]
    fn a_step_reads_a_bounded_number_of_files() {
        assert_eq!(chosen(&vec![(1000, 10, 0); 500], Pressure::Idle).len(), STEP_FILES);
        assert_eq!(chosen(&vec![(1 << 20, 1000, 900); 100], Pressure::Idle).len(), STEP_FILES);
    }

    #[test]
    fn files_grow_with_the_table_so_that_their_number_stays_bounded() {
        assert_eq!(Target::of(1 << 30), Target { large: 32 << 20, step: 64 << 20 });
        assert_eq!(Target::of(32 << 30), Target { large: 64 << 20, step: 64 << 20 });
        assert_eq!(Target::of(1 << 40), Target { large: 128 << 20, step: 128 << 20 });
    }

    /// Batches of a given size that replace random rows of a table, against the promises of ADR 3.
    ///
    /// Files are lists of keys here; what a step of compaction writes is counted in rows, and a row is 100 bytes.
    fn simulate(table: usize, (batch, batches): (usize, usize), pressure: Pressure) -> Simulated {
        const ROW: i64 = 100;
        let mut random = fastrand::Rng::with_seed(7);
        let (mut home, mut files) = (vec![usize::MAX; table], Vec::<(i64, i64)>::new());
        let mut result = Simulated { steps: 0, moved: 0, written: 0, most_files: 0, most_bytes: 0 };
        let mut rows: Vec<Vec<usize>> = Vec::new();
        for number in 0..=batches {
            let keys: std::collections::BTreeSet<usize> = if number == 0 {
                (0..table).collect()
            } else {
                (0..batch).map(|_| random.usize(0..table)).collect()
            };
            for &key in &keys {
                if let Some(file) = files.get_mut(home[key]) {
                    file.1 += 1;
                }
                home[key] = files.len();
            }
            files.push((keys.len() as i64, 0));
            result.written += if number == 0 { 0 } else { keys.len() };
            rows.push(keys.into_iter().collect());
            let live: Vec<(i64, i64, i64)> =
                files.iter().map(|&(rows, deleted)| (rows * ROW, rows, deleted)).collect();
            let of: Vec<usize> = (0..files.len()).filter(|&file| live[file].1 > live[file].2).collect();
            let there: Vec<(i64, i64, i64)> = of.iter().map(|&file| live[file]).collect();
            result.most_files = result.most_files.max(there.len());
            result.most_bytes = result.most_bytes.max(there.iter().map(|(bytes, ..)| bytes).sum());
            let step: Vec<usize> =
                chosen(&there, pressure).iter().map(|name| of[name.parse::<usize>().unwrap()]).collect();
            if step.is_empty() {
                continue;
            }
            result.steps += 1;
            let mut moved: Vec<usize> = step
                .iter()
                .flat_map(|&file| {
                    rows[file].iter().copied().filter(|&key| home[key] == file).collect::<Vec<_>>()
                })
                .collect();
            moved.sort_unstable();
            result.moved += moved.len();
            for file in step {
                files[file].1 = files[file].0;
            }
            for &key in &moved {
                home[key] = files.len();
            }
            files.push((moved.len() as i64, 0));
            rows.push(moved);
        }
        result
    }

    #[derive(Debug)]
    struct Simulated {
        steps: usize,
        moved: usize,
        written: usize,
        most_files: usize,
        most_bytes: i64,
    }

    #[test]
    fn files_waste_and_rows_written_stay_within_the_arithmetic_for_tables_of_all_sizes() {
        let cases = [(500, 300), (2_000, 2_000), (50_000, 500), (50_000, 20_000), (400_000, 10_000)];
        for (pressure, (table, batch)) in [Pressure::Idle, Pressure::Busy]
            .into_iter()
            .flat_map(|pressure| cases.map(|case| (pressure, case)))
        {
            let (batches, factor) = (150, pressure.factor());
            let done = simulate(table, (batch, batches), pressure);
            let about = format!("{table} rows, {batch} changes a batch, {pressure:?}: {done:?}");
            let by_waste = done.written * 100 / WASTE as usize;
            assert!(done.steps <= batches / (FAN_IN - 1) + by_waste + 1, "{about}");
            assert!(done.moved <= 5 * done.written, "rows moved for each that was written: {about}");
            let files = FAN_IN * factor as usize;
            assert!(done.most_files <= 4 * files + 2, "{about}");
            let (live, of_batch) = (table as i64 * 100, batch as i64 * 100);
            let most = 3 * live / 2 + factor * WASTE + 8 * of_batch;
            assert!(done.most_bytes <= most, "{most} bytes allowed: {about}");
        }
    }
}
