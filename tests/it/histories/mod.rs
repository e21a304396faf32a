//! Random histories of a whole database, through the decoder, the fold and every way to write, against a model of the
//! source.
//!
//! | module | idea |
//! |---|---|
//! | [`steps`] | what may happen, as small steps that are legal in any state |
//! | [`source`], [`tables`] | the model: what the source is after each record, and what its connector sends |
//! | [`effect`], [`truth`] | what a record does to a copy, and what the copies have to be |
//! | [`event`], [`values`] | Debezium's JSON |
//! | [`reader`] | partitions, batches that end anywhere, crashes |
//! | [`memory`] | the plainest copy |
//! | [`lake`] | Delta tables, in each way to write them |
//! | [`mirror`] | a Postgres server |
//!
//! Only the mirror needs a server. `ALLUVIUM_HISTORIES` is the number of histories of the fast variant, `ALLUVIUM_SINK_HISTORIES` of each other one, `ALLUVIUM_TEST_SEED`
//! repeats a run; a history that fails is shrunk and printed, and found again by its seed.

mod effect;
mod event;
mod lake;
mod memory;
mod mirror;
mod reader;
mod source;
mod steps;
mod tables;
mod truth;
mod values;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::workload::seed;

use alluvium::change::WriteMode;
use lake::LakeCopy;
use memory::Memory;
use mirror::MirrorCopy;
use reader::{Copy, run};
use steps::{Features, histories};

/// Histories of the fast variant, unless told otherwise.
const HISTORIES: u32 = 3_000;

fn number(variable: &str, usual: u32) -> u32 {
    std::env::var(variable)
        .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

/// Runs random histories, each into a copy of its own.
#[track_caller]
fn check<C: Copy>(cases: u32, features: Features, copy: impl Fn() -> C) {
    let seed = seed();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    // Shrinking takes as many runs again; those of a real sink are slow.
    let max_shrink_iters = if copy().is_cheap() { 20_000 } else { 200 };
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result =
        runner.run(&histories(features), |history| run(&history, &mut copy()).map_err(TestCaseError::fail));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, history)) => panic!("ALLUVIUM_TEST_SEED={seed}: {reason}\n{history:?}"),
        Err(TestError::Abort(reason)) => panic!("ALLUVIUM_TEST_SEED={seed}: given up: {reason}"),
    }
}

/// What the program does today.
const TODAY: Features = Features::ALL;

#[test]
fn random_histories_folded_in_batches_equal_the_source() {
    check(number("ALLUVIUM_HISTORIES", HISTORIES), TODAY, Memory::default);
}

/// Histories of each real sink, which makes tables and reads them back.
const SINK_HISTORIES: u32 = 8;

#[test]
fn random_histories_merged_on_read_equal_the_source() {
    check(number("ALLUVIUM_SINK_HISTORIES", SINK_HISTORIES), TODAY, || LakeCopy::new(WriteMode::MergeOnRead));
}

#[test]
fn random_histories_copied_on_write_equal_the_source() {
    check(number("ALLUVIUM_SINK_HISTORIES", SINK_HISTORIES), TODAY, || LakeCopy::new(WriteMode::CopyOnWrite));
}

#[test]
fn random_histories_mirrored_equal_the_source() {
    check(number("ALLUVIUM_SINK_HISTORIES", SINK_HISTORIES), TODAY, MirrorCopy::new);
}
