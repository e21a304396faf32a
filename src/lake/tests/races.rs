//! Two writers on one table at the same time, with the same keys: what each commit does follows from the version before it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Barrier;

use super::fixture::{Event, Fixture, batch, table};
use super::model::{Change, Model, apply, rows_of, to_event};
use crate::change::{Operation, Sink, SinkError, TablePolicy, WriteMode};
use crate::lake::action::Line;
use crate::lake::read::At;
use crate::lake::{Lake, LakeOptions};

/// Few, so that the writers always want the same rows.
const KEYS: i64 = 8;

/// The changes of one writer, batch by batch, in a partition of its own.
fn batches(partition: i32, rounds: usize, seed: u64) -> Vec<Vec<Event>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let operations = [Operation::Create, Operation::Update, Operation::Update, Operation::Delete];
    let mut offset = 0;
    let mut next = |random: &mut fastrand::Rng| {
        let change = Change {
            operation: operations[random.usize(..operations.len())],
            id: random.i64(0..KEYS),
            name: random.u8(..),
            note: random.u8(..6),
        };
        offset += 1;
        Event { partition, ..to_event(offset - 1, &change) }
    };
    (0..rounds).map(|_| (0..random.usize(1..6)).map(|_| next(&mut random)).collect()).collect()
}

/// Commits the batches, each when the other writer is about to commit one, too; says how many conflicts there were.
async fn write(options: LakeOptions, batches: Vec<Vec<Event>>, both: Arc<Barrier>) -> u64 {
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    let mut conflicts = 0;
    for events in batches {
        both.wait().await;
        loop {
            match lake.commit(&batch("items", &events)).await {
                Ok(report) => break conflicts += report.conflicts,
                Err(SinkError::Retry { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    conflicts
}

/// How far each version of the table moved the position of which partition.
async fn moves(lake: &Lake) -> Vec<Option<(i32, i64)>> {
    let items = &lake.tables[&table("items")].table;
    let mut moves = Vec::new();
    while let Some(entry) = items.log.entry(moves.len() as u64).await.unwrap() {
        let mut lines =
            entry.split(|&byte| byte == b'\n').map(|line| serde_json::from_slice::<Line>(line).unwrap());
        let txn = lines.find_map(|line| line.txn);
        moves.push(txn.map(|txn| (txn.app_id.rsplit('/').next().unwrap().parse().unwrap(), txn.version)));
    }
    moves
}

async fn race(write_mode: WriteMode, rounds: usize, seed: u64) {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.policies.defaults = TablePolicy { write: write_mode, ..TablePolicy::default() };
    options.raw_table = None;
    let told = [batches(0, rounds, seed), batches(1, rounds, seed + 1)];
    let both = Arc::new(Barrier::new(2));
    let writer = |of: &Vec<Vec<Event>>| tokio::spawn(write(options.clone(), of.clone(), Arc::clone(&both)));
    let (one, other) = (writer(&told[0]), writer(&told[1]));
    let (one, other) = tokio::try_join!(one, other).unwrap();
    let conflicts = one + other;
    assert!(conflicts > 0, "{write_mode:?}, seed {seed}: the writers never met in {rounds} rounds");
    // The order in which the log has their batches decides, version by version.
    let mut left = told.map(|batches| batches.into_iter().flatten().collect::<VecDeque<Event>>());
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    let mut model = Model::new();
    for (version, moved) in moves(&lake).await.into_iter().enumerate() {
        let Some((partition, next)) = moved else { continue };
        let left = &mut left[partition as usize];
        while let Some(event) = left.pop_front_if(|event| event.offset < next) {
            apply(&mut model, &event);
        }
        let rows =
            fixture.query("SELECT id, name, note FROM items ORDER BY id", At::Version(version as u64)).await;
        assert_eq!(rows, rows_of(&model), "{write_mode:?}, seed {seed}, version {version}");
    }
    assert!(left.iter().all(VecDeque::is_empty), "{write_mode:?}, seed {seed}: not all was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_race_for_the_same_keys_lose_no_row_and_make_none_twice() {
    for seed in [1, 7] {
        race(WriteMode::MergeOnRead, 25, seed).await;
    }
    race(WriteMode::CopyOnWrite, 10, 3).await;
}
