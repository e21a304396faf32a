//! What a table is at a version: a function of its log, brought forward by applying commits.
//!
//! Applying costs the actions of a commit, never the files of the table, whoever wrote it. `own` positions moved by
//! another instance are remembered until they are asked for: that is how a commit finds out that it was fenced.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::action::{Add, CommitInfo, Line, Metadata, Protocol, Txn};
use super::create;
use super::error::LakeError;
use super::live_file::LiveFile;
use super::log::Log;
use super::mor::vector_path;
use super::work::Work;

/// Reader features of tables that can be read and written here.
const READER_FEATURES: [&str; 3] = ["timestampNtz", "deletionVectors", "v2Checkpoint"];
/// Writer features that may be present: the lake's own commits keep what they ask for.
const WRITER_FEATURES: [&str; 9] = [
    "timestampNtz",
    "deletionVectors",
    "v2Checkpoint",
    "appendOnly",
    "invariants",
    "checkConstraints",
    "changeDataFeed",
    "generatedColumns",
    "checkpointProtection",
];

/// A `txn` that moved by a commit of another instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignMove {
    pub app_id: String,
    pub before: Option<i64>,
    pub after: i64,
}

/// What one catch-up found.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    /// Commits applied.
    pub commits: u64,
    /// Positions that others moved.
    pub moves: Vec<ForeignMove>,
    /// Whether one of the commits changed the schema or a property.
    pub metadata: bool,
    /// Whether the ledger of key changes is another one.
    pub ledger: bool,
    /// What this instance wrote by them.
    pub work: Work,
}

/// A table at a version.
#[derive(Debug, Clone)]
pub(super) struct TableState {
    table: Arc<str>,
    version: Option<u64>,
    checkpoint: Option<u64>,
    checkpoint_bytes: u64,
    log_bytes: u64,
    protocol: Option<Protocol>,
    metadata: Metadata,
    txns: HashMap<String, Txn>,
    files: HashMap<Box<str>, LiveFile>,
    bytes: i64,
    vector_bytes: i64,
    last_commit: CommitInfo,
    /// Key changes that are half done, as the newest commit of ours that says so; `None`: not known yet.
    ledger: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RowCount {
    num_records: Option<i64>,
}

impl TableState {
    /// Before the first version.
    pub(super) fn empty(table: &str) -> Self {
        Self {
            table: table.into(),
            version: None,
            checkpoint: None,
            checkpoint_bytes: 0,
            log_bytes: 0,
            protocol: None,
            metadata: Metadata::default(),
            txns: HashMap::new(),
            files: HashMap::new(),
            bytes: 0,
            vector_bytes: 0,
            last_commit: CommitInfo::default(),
            ledger: None,
        }
    }

    /// The version; 0 before the first.
    pub(super) fn version(&self) -> u64 {
        self.version.unwrap_or(0)
    }

    /// The version that the next commit has to have.
    pub(super) fn next_version(&self) -> u64 {
        self.version.map_or(0, |version| version + 1)
    }

    /// Commits since the newest checkpoint.
    pub(super) fn commits_since_checkpoint(&self) -> u64 {
        self.next_version().saturating_sub(self.checkpoint.map_or(0, |version| version + 1))
    }

    /// Bytes of log since the newest checkpoint.
    pub(super) fn log_bytes_since_checkpoint(&self) -> u64 {
        self.log_bytes
    }

    /// Bytes of the newest checkpoint, 0 where there is none.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_bytes
    }

    pub(super) fn protocol(&self) -> Option<&Protocol> {
        self.protocol.as_ref()
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub(super) fn txns(&self) -> &HashMap<String, Txn> {
        &self.txns
    }

    /// The position stored under an application id.
    pub(super) fn position(&self, app_id: &str) -> Option<i64> {
        self.txns.get(app_id).map(|txn| txn.version)
    }

    /// Live files.
    pub(super) fn files(&self) -> &HashMap<Box<str>, LiveFile> {
        &self.files
    }

    /// Bytes of the live files.
    pub(super) fn bytes(&self) -> i64 {
        self.bytes
    }

    /// Bytes of their vectors.
    pub(super) fn vector_bytes(&self) -> i64 {
        self.vector_bytes
    }

    /// Live rows, where every file says how many it has.
    pub(super) fn rows(&self) -> Option<i64> {
        self.files.values().map(|file| file.rows).sum()
    }

    /// The ledger of key changes as text.
    pub(super) fn ledger(&self) -> &str {
        self.ledger.as_deref().unwrap_or_default()
    }

    /// The same; `None` where it is not known.
    pub(super) fn known_ledger(&self) -> Option<&str> {
        self.ledger.as_deref()
    }

    /// Whether the table has a ledger, of which no commit since the checkpoint says what it is.
    pub(super) fn lacks_ledger(&self) -> bool {
        self.ledger.is_none() && create::source_of(&self.metadata.configuration).is_some()
    }

    /// Takes the ledger from the entry of an earlier version, if that is a commit of ours that says what it is: one that
    /// moved positions, or one that names it.
    pub(super) fn learn_ledger(&mut self, entry: &[u8]) {
        let (mut info, mut moves) = (CommitInfo::default(), false);
        for line in entry.split(|&byte| byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Line>(line) else { continue };
            moves |= line.txn.is_some();
            info = line.commit_info.unwrap_or(info);
        }
        self.ledger = ledger_of(&mut info, moves).or(self.ledger.take());
    }

    /// The newest commit's description.
    pub(super) fn last_commit(&self) -> &CommitInfo {
        &self.last_commit
    }

    /// Says that the rows given to [`TableState::apply_checkpoint_row`] were all of the checkpoint at `version`.
    pub(super) fn stand_at_checkpoint(&mut self, version: u64, bytes: u64) {
        self.version = Some(version);
        self.checkpoint = Some(version);
        self.checkpoint_bytes = bytes;
        self.log_bytes = 0;
    }

    /// Says that a checkpoint of `version` exists now, of so many bytes; `covered` are the bytes of log since the one before
    /// that it spares a reader.
    pub(super) fn checkpointed(&mut self, version: u64, bytes: u64, covered: u64) {
        if self.checkpoint < Some(version) {
            self.checkpoint = Some(version);
            self.checkpoint_bytes = bytes;
            self.log_bytes = self.log_bytes.saturating_sub(covered);
        }
    }

    /// Takes over one action of a checkpoint.
    pub(super) fn apply_checkpoint_row(&mut self, line: Line) {
        self.apply_definition(line.protocol, line.meta_data);
        if let Some(txn) = line.txn {
            self.txns.insert(txn.app_id.clone(), txn);
        }
        if let Some(add) = line.add {
            self.add(&add);
        }
    }

    /// Takes over the commit of the next version.
    pub(super) fn apply(&mut self, version: u64, entry: &Bytes) -> Result<Applied, LakeError> {
        if version != self.next_version() {
            return Err(self.unreadable(format!("version {version} was given at version {}", self.version())));
        }
        let mut adds = Vec::new();
        let mut removed = HashSet::new();
        let mut applied = Applied::default();
        let mut info = CommitInfo::default();
        for line in entry.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let line: Line = serde_json::from_slice(line)
                .map_err(|error| self.unreadable(format!("version {version} is not valid: {error}")))?;
            applied.metadata |= line.meta_data.is_some() || line.protocol.is_some();
            self.apply_definition(line.protocol, line.meta_data);
            if let Some(remove) = line.remove {
                if let Some(gone) = self.files.remove(remove.path.as_str()) {
                    self.forget(&gone);
                }
                removed.insert(remove.path);
            }
            if let Some(commit_info) = line.commit_info {
                info = commit_info;
            }
            applied.txns.extend(line.txn);
            adds.extend(line.add);
        }
        // A file whose deletion vector changed is removed and added by the same commit, in either order.
        for add in &adds {
            self.add(add);
            let rows = self.files.get(add.path.as_str()).and_then(LiveFile::physical_rows);
            applied.work.count(add, rows, removed.contains(&add.path));
        }
        for txn in &mut applied.txns {
            let before = self.txns.insert(txn.app_id.clone(), txn.clone());
            applied.before.push(before.map(|before| before.version));
        }
        self.ledger = ledger_of(&mut info, !applied.txns.is_empty()).or(self.ledger.take());
        applied.writer.clone_from(&info.writer);
        self.last_commit = info;
        self.version = Some(version);
        self.log_bytes += entry.len() as u64;
        Ok(applied)
    }

    /// Applies all commits after this version; `writer` is this instance, whose own moves are no news.
    pub(super) async fn catch_up(&mut self, log: &Log, writer: &str) -> Result<CatchUp, LakeError> {
        let mut result = CatchUp::default();
        let ledger = self.ledger.clone();
        while let Some(entry) = log.entry(self.next_version()).await? {
            let applied = self.apply(self.next_version(), &entry)?;
            result.commits += 1;
            result.metadata |= applied.metadata;
            if applied.writer.as_deref() == Some(writer) {
                result.work += applied.work;
                continue;
            }
            for (txn, before) in applied.txns.into_iter().zip(applied.before) {
                if before != Some(txn.version) {
                    result.moves.push(ForeignMove { app_id: txn.app_id, before, after: txn.version });
                }
            }
        }
        if result.metadata {
            self.check_supported()?;
        }
        result.ledger = self.ledger != ledger;
        Ok(result)
    }

    /// Refuses tables that ask for what this program does not do.
    pub(super) fn check_supported(&self) -> Result<(), LakeError> {
        let Some(protocol) = &self.protocol else {
            return Err(self.unreadable("it has no protocol action".to_owned()));
        };
        let unknown = |features: &Option<Vec<String>>, known: &[&str]| {
            features.iter().flatten().find(|feature| !known.contains(&feature.as_str())).cloned()
        };
        let feature = unknown(&protocol.reader_features, &READER_FEATURES)
            .or_else(|| unknown(&protocol.writer_features, &WRITER_FEATURES));
        match feature {
            Some(feature) => Err(LakeError::Refused(format!(
                "table {} has the table feature {feature}, which this program cannot write; drop the feature (ALTER TABLE … DROP FEATURE \
                 {feature}) or rebuild the table in another folder",
                self.table
            ))),
            None => Ok(()),
        }
    }

    fn apply_definition(&mut self, protocol: Option<Protocol>, metadata: Option<Metadata>) {
        if protocol.is_some() {
            self.protocol = protocol;
        }
        if let Some(metadata) = metadata {
            self.metadata = metadata;
        }
    }

    fn add(&mut self, add: &Add) {
        let physical = add
            .stats
            .as_deref()
            .and_then(|stats| serde_json::from_str::<RowCount>(stats).ok())
            .and_then(|stats| stats.num_records);
        let deleted = add.deletion_vector.as_ref().map_or(0, |vector| vector.cardinality);
        let file = LiveFile {
            size: add.size,
            rows: physical.map(|rows| rows - deleted),
            modification_time: add.modification_time,
            stats: add.stats.as_deref().filter(|_| add.partition_values.is_empty()).map(Into::into),
            vector: add.deletion_vector.clone().map(Box::new),
            partition: (!add.partition_values.is_empty()).then(|| Box::new(add.partition_values.clone())),
        };
        self.bytes += file.size;
        self.vector_bytes += file.vector_bytes();
        if let Some(replaced) = self.files.insert(add.path.as_str().into(), file) {
            self.forget(&replaced);
        }
    }

    /// Counts out a file that is no longer part of the table.
    fn forget(&mut self, gone: &LiveFile) {
        self.bytes -= gone.size;
        self.vector_bytes -= gone.vector_bytes();
    }

    /// Whether the table has that file, or a vector in it.
    pub(super) fn names(&self, path: &str) -> bool {
        let vector = |file: &LiveFile| file.vector.as_deref().and_then(vector_path);
        let is_vector = |file| vector(file).is_some_and(|found| found.as_ref() == path);
        self.files.contains_key(path) || self.files.values().any(is_vector)
    }

    fn unreadable(&self, message: String) -> LakeError {
        LakeError::Unreadable { table: self.table.to_string(), message }
    }
}

/// What a commit says of the ledger. Of those that move positions it is empty where it is left out; others that leave it
/// out, like all of earlier versions of this program, say nothing.
fn ledger_of(info: &mut CommitInfo, moves: bool) -> Option<Box<str>> {
    info.writer.as_ref()?;
    info.ledger.take().or_else(|| moves.then(String::new)).map(Into::into)
}

/// What one commit did to positions and definition.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub writer: Option<String>,
    pub metadata: bool,
    pub work: Work,
    txns: Vec<Txn>,
    before: Vec<Option<i64>>,
}
