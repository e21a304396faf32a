//! The vacuum by itself: all tables of the lake, every so often, beside the batches.
//!
//! A task of its own, because nothing in it needs what the lane holds: it reads the logs and removes files that nobody
//! needs. So a batch never waits for it, also on a lake with a million files. It ends with the lake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{Begun, Limits, Vacuum, clean_log};
use crate::lake::location::{self, Location};
use crate::lake::log::Log;
use crate::lake::{LakeError, LakeOptions, now_millis};

/// Where nothing is vacuumed, logs are still cleaned this often.
const LOGS_ONLY: Duration = Duration::from_hours(1);
/// The first run comes at a random moment within this time, so that instances that start together part.
const FIRST_WITHIN: Duration = Duration::from_mins(5);

/// What runs removed, and where they failed.
#[derive(Debug, Default)]
pub(in crate::lake) struct Swept {
    /// Files removed.
    pub(in crate::lake) files: u64,
    /// Their bytes.
    pub(in crate::lake) bytes: u64,
    /// Tables that could not be done, and runs that could not begin.
    pub(in crate::lake) failures: u64,
}

/// The same of all runs of this process, since it was last asked for.
#[derive(Debug, Default)]
struct Counters {
    files: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

/// Starts a run when it is due.
#[derive(Debug)]
pub(in crate::lake) struct Sweeper {
    interval: Duration,
    next: Instant,
    running: Option<JoinHandle<()>>,
    swept: Arc<Counters>,
}

impl Sweeper {
    pub(in crate::lake) fn new(options: &LakeOptions) -> Self {
        let interval = if options.vacuum_interval.is_zero() { LOGS_ONLY } else { options.vacuum_interval };
        let first = interval.min(FIRST_WITHIN).mul_f64(fastrand::f64());
        Self { interval, next: Instant::now() + first, running: None, swept: Arc::default() }
    }

    /// Starts a run, if one is due and none is running.
    pub(in crate::lake) fn run_if_due(&mut self, location: &Location, options: &LakeOptions) {
        if self.next > Instant::now() || self.running.as_ref().is_some_and(|run| !run.is_finished()) {
            return;
        }
        self.next = Instant::now() + self.interval;
        let (location, options, swept) = (location.clone(), options.clone(), Arc::clone(&self.swept));
        self.running = Some(tokio::spawn(async move {
            if let Err(error) = sweep(&location, &options, &swept).await {
                tracing::warn!(%error, "the vacuum failed, trying again at its next time");
                swept.failures.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// What runs did since the last call.
    pub(in crate::lake) fn take_swept(&self) -> Swept {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let Counters { files, bytes, failures } = &*self.swept;
        Swept { files: take(files), bytes: take(bytes), failures: take(failures) }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(run) = &self.running {
            run.abort();
        }
    }
}

/// Cleans the log of every table of the pipeline, and vacuums it where that is not turned off.
async fn sweep(location: &Location, options: &LakeOptions, swept: &Counters) -> Result<(), LakeError> {
    for folder in location.all_tables(location::depth(&options.layout)).await? {
        let log = Log::new(&folder, location.table(&folder)?);
        if let Err(error) = sweep_table(log, options, swept).await {
            tracing::warn!(table = folder, %error, "the vacuum of a table failed, trying again at its next time");
            swept.failures.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn sweep_table(log: Log, options: &LakeOptions, swept: &Counters) -> Result<(), LakeError> {
    let table = log.table().to_owned();
    let limits = Limits::at(now_millis(), options.vacuum_retention);
    match Vacuum::begin(log.clone(), &options.pipeline, limits, false).await? {
        Begun::NotOurs => return Ok(()),
        Begun::TooEarly { .. } => {
            tracing::debug!(table, "the vacuum waits until it knows all that left within its retention");
        }
        Begun::Run(_) if options.vacuum_interval.is_zero() => {}
        Begun::Run(mut vacuum) => {
            let mut before = vacuum.removed();
            loop {
                let more = vacuum.step().await?;
                let now = vacuum.removed();
                swept.files.fetch_add(now.files() - before.files(), Ordering::Relaxed);
                swept.bytes.fetch_add(now.bytes - before.bytes, Ordering::Relaxed);
                before = now;
                if !more {
                    break;
                }
            }
            let removed = vacuum.removed();
            tracing::debug!(table, files = removed.files(), bytes = removed.bytes, "vacuumed");
        }
    }
    let files = clean_log(&log, now_millis(), options.log_retention, false).await?;
    tracing::debug!(table, files, "cleaned the log");
    Ok(())
}
