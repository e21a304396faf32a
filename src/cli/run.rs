//! `alluvium run`: the service, until it is told to stop or has caught up.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use super::progress::Lanes;
use crate::admin::metrics::peak_memory;
use crate::config::Settings;
use crate::lane::LaneEnd;
use crate::service::{Mode, Service, StartError};

/// Runs the service and says how it ended.
pub async fn run(settings: &Settings, until_caught_up: bool) -> Exit {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "cannot listen for signals");
                return Exit::Failure;
            }
        };
    let started = Instant::now();
    let mut service = match Service::start(settings, Mode { until_caught_up, ..Mode::default() }).await {
        Ok(service) => service,
        Err(error) => {
            tracing::error!(%error, "not started");
            return match error {
                StartError::NoSink | StartError::Mirror { .. } => Exit::Usage,
                StartError::Lake(error) => Exit::from(&error),
                StartError::Listen(_) | StartError::Metrics(_) => Exit::Failure,
            };
        }
    };
    tracing::info!(pipeline = settings.pipeline.name, version = env!("CARGO_PKG_VERSION"), "running");
    let progress = Lanes::follow(&service, until_caught_up);
    let asked = tokio::select! {
        _ = service.join() => false,
        () = first_of(&mut terminate, &mut interrupt) => true,
    };
    drop(progress);
    if asked && !stop(&mut service, settings, &mut terminate, &mut interrupt).await {
        return Exit::Abandoned;
    }
    summarise(&service, started);
    exit_of(service.join().await)
}

/// Stops the lanes. False where the deadline passed, or a second signal came first.
async fn stop(
    service: &mut Service,
    settings: &Settings,
    terminate: &mut Signal,
    interrupt: &mut Signal,
) -> bool {
    let deadline = settings.shutdown.deadline;
    tracing::info!(?deadline, "stopping: each lane finishes the commit it is in");
    tokio::select! {
        stopped = service.stop(deadline) => {
            if !stopped {
                tracing::error!(?deadline, "a lane was still busy at shutdown.deadline: its batch is abandoned and read again");
            }
            stopped
        }
        () = first_of(terminate, interrupt) => {
            tracing::warn!("second signal: leaving at once");
            false
        }
    }
}

async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
}

/// One line a lane: what it did, how fast, and in how much memory.
fn summarise(service: &Service, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    for lane in service.board().snapshot().lanes {
        tracing::info!(
            lane = lane.lane,
            state = lane.state.name(),
            records = lane.records,
            seconds = (seconds * 1000.0).round() / 1000.0,
            records_per_second = (lane.records as f64 / seconds).round(),
            peak_memory_mib = peak_memory().map_or(0, |bytes| bytes / (1024 * 1024)),
            "lane ended"
        );
    }
}

fn exit_of(ends: &BTreeMap<String, LaneEnd>) -> Exit {
    let mut exit = Exit::Success;
    for (lane, end) in ends {
        match end {
            LaneEnd::Finished => {}
            LaneEnd::TablesStopped(tables) => {
                tracing::error!(lane, ?tables, "tables had stopped; the errors above say why and what to do");
                exit = Exit::Failure;
            }
            LaneEnd::Stopped(reason) => {
                tracing::error!(lane, reason, "lane had stopped");
                exit = Exit::Failure;
            }
        }
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lane_that_stopped_makes_the_whole_run_a_failure() {
        let mut ends = BTreeMap::from([("lake".to_owned(), LaneEnd::Finished)]);
        assert_eq!(exit_of(&ends), Exit::Success);
        ends.insert("target".to_owned(), LaneEnd::Stopped("disk full".to_owned()));
        assert_eq!(exit_of(&ends), Exit::Failure);
    }

    #[test]
    fn a_stopped_table_makes_the_run_a_failure_though_the_lane_finished() {
        let tables = std::iter::once("public.orders".to_owned()).collect();
        let ends = BTreeMap::from([("lake".to_owned(), LaneEnd::TablesStopped(tables))]);
        assert_eq!(exit_of(&ends), Exit::Failure);
    }
}
