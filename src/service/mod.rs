//! The running service: the lanes that the settings ask for, started together and stopped together.
//!
//! Fail before work starts: the HTTP address is bound and every sink's settings are checked before the first record is
//! read. After that lanes are independent: one that stops is reported and the others go on. Shutdown is a sequence:
//! tell every lane to stop, let each finish the commit it is in, give up at the deadline. What is abandoned was not
//! committed, and is read again on the next start.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::http::{self, Admin, ListenError};
use crate::admin::metrics::Metrics;
use crate::admin::status::StatusBoard;
use crate::change::Sink;
use crate::config::Settings;
use crate::lake::{IndexBuilds, Lake, LakeError};
use crate::lane::{Lane, LaneEnd, LaneOptions, Observer, OnCommit};
use crate::memory;
use crate::mirror::{Mirror, MirrorError};

mod options;

pub use self::options::{consumer as consumer_options, lake as lake_options, mirror as mirror_options};

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No lake and no mirror.
    #[error("there is nothing to write to: set lake.uri, or add a [mirrors.<name>] section")]
    NoSink,
    /// The lake's settings cannot work, or its folder cannot be opened.
    #[error("the lake cannot be opened: {0}")]
    Lake(#[from] LakeError),
    /// A mirror's settings cannot work.
    #[error("mirror {name}: {source}")]
    Mirror {
        /// Name of the mirror.
        name: String,
        /// What is wrong.
        source: MirrorError,
    },
    /// The HTTP address cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The metrics could not be registered.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// How a service runs, besides its settings.
#[derive(Clone, Default)]
pub struct Mode {
    /// Finish at the end that Kafka had at the start.
    pub until_caught_up: bool,
    /// By name of the lane, who is told of the positions that its sink has made durable.
    pub on_commit: HashMap<String, OnCommit>,
    /// The broker gives no ids (the embedded one of the demo).
    pub without_identity: bool,
}

/// Lanes at work.
pub struct Service {
    stop: watch::Sender<bool>,
    lanes: JoinSet<(String, LaneEnd)>,
    ends: BTreeMap<String, LaneEnd>,
    board: StatusBoard,
    metrics: Metrics,
    index_builds: IndexBuilds,
    /// Ends with the service.
    _hand_back: JoinSet<()>,
}

impl Service {
    /// Starts every lane.
    ///
    /// # Errors
    /// Where the settings name no sink, or something that must work before the first record does not.
    pub async fn start(settings: &Settings, mode: Mode) -> Result<Self, StartError> {
        let metrics = Metrics::new()?;
        let board = StatusBoard::default();
        if let Some(address) = settings.admin.listen {
            let admin = Admin { metrics: metrics.clone(), board: board.clone() };
            let bound = http::serve(address, admin).await?;
            tracing::info!(address = %bound, "serving /metrics, /livez, /readyz and /status");
        }
        let (stop, stopping) = watch::channel(false);
        let (lanes, ends, index_builds) = (JoinSet::new(), BTreeMap::new(), IndexBuilds::default());
        let mut hand_back = JoinSet::new();
        hand_back.spawn(memory::hand_back_regularly());
        let mut service = Self { stop, lanes, ends, board, metrics, index_builds, _hand_back: hand_back };
        if settings.lake.is_on() {
            let mut opened = options::lake(settings);
            opened.upserts.builds = service.index_builds.clone();
            let lake = Lake::open(opened).await?;
            let raw = !settings.lake.raw_table.is_empty();
            let lane = options::lane(settings, "lake", raw, &mode);
            service.spawn(lane, lake, stopping.clone(), mode.on_commit.get("lake").cloned());
        }
        for (name, mirror) in &settings.mirrors {
            let sink = Mirror::new(&options::mirror(settings, name, mirror))
                .map_err(|source| StartError::Mirror { name: name.clone(), source })?;
            let lane = options::lane(settings, name, !mirror.raw.is_empty(), &mode);
            service.spawn(lane, sink, stopping.clone(), mode.on_commit.get(name).cloned());
        }
        if service.lanes.is_empty() {
            return Err(StartError::NoSink);
        }
        Ok(service)
    }

    fn spawn<S: Sink>(
        &mut self,
        options: LaneOptions,
        sink: S,
        stopping: watch::Receiver<bool>,
        on_commit: Option<OnCommit>,
    ) {
        let name = options.name.clone();
        let observer = Observer::new(&name, self.metrics.clone(), self.board.lane(&name));
        let mut lane = Lane::new(options, sink, observer.clone(), stopping);
        if let Some(on_commit) = on_commit {
            lane = lane.on_commit(on_commit);
        }
        self.lanes.spawn(async move {
            // A panic is a bug: the sink is consistent and other lanes go on, but this one must not look healthy.
            let end =
                AssertUnwindSafe(lane.run()).catch_unwind().await.unwrap_or_else(|_| observer.panicked());
            (name, end)
        });
    }

    /// The state of the lanes.
    pub fn board(&self) -> &StatusBoard {
        &self.board
    }

    /// The indexes that lanes are building.
    pub fn index_builds(&self) -> &IndexBuilds {
        &self.index_builds
    }

    /// Waits until one more lane has ended by itself, and says which and how; `None` once none is left.
    pub async fn next_end(&mut self) -> Option<(String, LaneEnd)> {
        let ended = self.lanes.join_next().await?;
        // Tasks are never aborted, and a panic of a lane is caught within its task.
        let (name, end) = ended.ok()?;
        self.ends.insert(name.clone(), end.clone());
        Some((name, end))
    }

    /// Waits until every lane has ended by itself, and says how each did.
    pub async fn join(&mut self) -> &BTreeMap<String, LaneEnd> {
        while self.next_end().await.is_some() {}
        &self.ends
    }

    /// Asks every lane to stop after the commit it is in, and waits up to `deadline`. Whether all did.
    pub async fn stop(&mut self, deadline: Duration) -> bool {
        // Fails only where no lane is left to be told.
        let _ = self.stop.send(true);
        tokio::time::timeout(deadline, self.join()).await.is_ok()
    }
}
