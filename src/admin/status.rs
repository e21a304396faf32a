//! The state of each lane and table, as `/status` and `/readyz` show it.
//!
//! A lane writes its own [`LaneStatus`] through its [`LaneBoard`]; readers take a copy. The lock is held for the copy
//! only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// What a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    /// Reading its progress and waiting for partitions.
    Starting,
    /// Reading and committing.
    Running,
    /// Its sink or Kafka is away; it tries again.
    Retrying,
    /// Stopped by an error that waiting would not cure.
    Stopped,
    /// Done, as asked (`--until-caught-up` or shutdown).
    Finished,
}

impl LaneState {
    /// Every state, for the metric.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Running, Self::Retrying, Self::Stopped, Self::Finished];

    /// The name in `/status` and in the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
        }
    }
}

/// A lane at an instant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaneStatus {
    /// `lake`, or the name of the mirror.
    pub lane: String,
    /// What it is doing.
    pub state: LaneState,
    /// The last error and what to do about it; kept after recovery, with its time.
    pub last_error: Option<TimedMessage>,
    /// Whether its partitions have been assigned.
    pub assigned: bool,
    /// Whether it has reached the end that Kafka had when it started.
    pub caught_up: bool,
    /// Records committed since the start.
    pub records: u64,
    /// When it last committed, RFC 3339.
    pub last_commit: Option<String>,
    /// Open records in quarantine, by error code.
    #[serde(default)]
    pub quarantine: BTreeMap<String, u64>,
    /// Tables by name.
    pub tables: BTreeMap<String, TableState>,
    /// By `topic/partition`.
    pub partitions: BTreeMap<String, PartitionState>,
}

/// A message and when it was said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TimedMessage {
    /// RFC 3339.
    pub at: String,
    /// What happened.
    pub message: String,
}

/// A table as one lane sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TableState {
    /// Why it stopped and what to do; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Version of the last commit, where the sink has versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Rows inserted or updated since the start.
    pub upserted: u64,
    /// Keys deleted since the start.
    pub deleted: u64,
    /// Rows appended since the start.
    pub appended: u64,
    /// Time from the source's commit to the sink's, of the newest change committed, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness_ms: Option<u64>,
    /// Unchanged values that could not be found since the start, stored as null.
    #[serde(default)]
    pub unresolved_absent: u64,
    /// The newest rows with such values, newest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub unresolved: VecDeque<UnresolvedPlace>,
}

/// Rows with unresolved values that are kept for a table.
const MOST_UNRESOLVED: usize = 20;

impl TableState {
    /// Adds rows with unresolved values, newest first; the oldest are forgotten.
    pub fn add_unresolved(&mut self, newest_first: impl DoubleEndedIterator<Item = UnresolvedPlace>) {
        newest_first.rev().for_each(|place| self.unresolved.push_front(place));
        self.unresolved.truncate(MOST_UNRESOLVED);
    }
}

/// Where a row got null in place of a value that the source says not to have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnresolvedPlace {
    /// `topic/partition@offset` of the record.
    pub record: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// RFC 3339.
    pub at: String,
}

/// What brings unresolved values back.
pub const REPAIR_UNRESOLVED: &str = "they are null until the source sends the whole row again: have Debezium read it (signal \
     execute-snapshot with a condition on its key), or rewrite the value there, for example SET column = column || ''";

/// A partition as one lane sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartitionState {
    /// The next offset to read: all before it are in the sink.
    pub position: i64,
    /// Records behind the end of the partition, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
}

/// Where a lane writes its state.
#[derive(Debug, Clone)]
pub struct LaneBoard(Arc<Mutex<LaneStatus>>);

impl LaneBoard {
    fn new(lane: &str) -> Self {
        Self(Arc::new(Mutex::new(LaneStatus {
            lane: lane.to_owned(),
            state: LaneState::Starting,
            last_error: None,
            assigned: false,
            caught_up: false,
            records: 0,
            last_commit: None,
            quarantine: BTreeMap::new(),
            tables: BTreeMap::new(),
            partitions: BTreeMap::new(),
        })))
    }

    /// The status, to be changed in place. A writer that panicked leaves a status that is still readable.
    pub fn lock(&self) -> MutexGuard<'_, LaneStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `message` as the last error.
    pub fn error(&self, message: &str) {
        self.lock().last_error = Some(TimedMessage { at: now(), message: message.to_owned() });
    }
}

/// The boards of all lanes.
#[derive(Debug, Clone, Default)]
pub struct StatusBoard(Arc<Mutex<Vec<LaneBoard>>>);

/// The body of `/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Whether `/readyz` answers 200.
    pub ready: bool,
    /// Every lane.
    pub lanes: Vec<LaneStatus>,
}

impl StatusBoard {
    /// A board for a lane of that name.
    pub fn lane(&self, name: &str) -> LaneBoard {
        let board = LaneBoard::new(name);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(board.clone());
        board
    }

    /// A copy of everything.
    pub fn snapshot(&self) -> Status {
        let boards = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lanes: Vec<LaneStatus> = boards.iter().map(|board| board.lock().clone()).collect();
        let ready = !lanes.is_empty()
            && lanes.iter().all(|lane| {
                lane.assigned
                    && matches!(lane.state, LaneState::Running | LaneState::Finished)
                    && lane.tables.values().all(|table| table.stopped.is_none())
            });
        Status { version: env!("CARGO_PKG_VERSION").to_owned(), ready, lanes }
    }
}

/// The present time, RFC 3339 in UTC with milliseconds.
pub fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
