//! One Delta table as a writer sees it: its log, and the state this instance stands at.
//!
//! The rule of every commit: it carries the next offset of each partition it covers, and it is put at the version after
//! the one whose positions were checked. If that version is taken, the log is read on; a position of ours that another
//! instance moved ends the attempt as [`LakeError::Fenced`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::action::{Entry, Txn};
use super::create::{self, TableProperties};
use super::error::LakeError;
use super::log::{Log, Outcome};
use super::moment::Moment;
use super::progress::app_id;
use super::properties;
use super::schema::DeltaSchema;
use super::setback::Setback;
use super::state::{CatchUp, TableState};
use super::work::Work;
use crate::change::{Span, TableFigures, TopicPartition};

/// Attempts to commit before the batch is given back.
pub(super) const ATTEMPTS: u32 = 10;

/// After this time without a look at the log it is listed: its next entry may have been expired by another writer's
/// clean-up, and then a put-if-absent of that version would succeed.
const TRUST: Duration = Duration::from_mins(5);

/// What all tables of one instance share.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    /// The pipeline's name.
    pub(super) pipeline: String,
    /// Drawn when the lake is opened; stands in each commit.
    pub(super) id: String,
}

/// The part of a batch in one partition that a table does not have yet.
#[derive(Debug, Clone)]
pub(super) struct Advance {
    partition: TopicPartition,
    pub(super) app_id: String,
    next: i64,
}

/// A table open for writing.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) log: Log,
    pub(super) state: TableState,
    /// When the log was last known to end at `state`.
    pub(super) looked: Option<Instant>,
    /// Whether the properties were compared with the settings.
    kept: bool,
    /// What this instance wrote since it was last asked.
    work: Work,
    /// What keeps compaction from being tried.
    pub(super) compaction: Setback,
    /// What keeps a checkpoint from being written.
    pub(super) checkpoints: Setback,
}

impl Table {
    /// Opens the table of `log`, or `None` where there is none.
    pub(super) async fn open(log: Log) -> Result<Option<Self>, LakeError> {
        let state = log.read().await?;
        Ok(state.map(|state| Self {
            log,
            state,
            looked: Some(Instant::now()),
            kept: false,
            work: Work::default(),
            compaction: Setback::default(),
            checkpoints: Setback::default(),
        }))
    }

    /// The stored position of a span's partition.
    pub(super) fn position(&self, writer: &Writer, partition: &TopicPartition, span: &Span) -> Option<i64> {
        self.state.position(&app_id(&writer.pipeline, &span.identity, partition))
    }

    /// Which of `spans` move a position of this table.
    pub(super) fn advances<'a>(
        &self,
        writer: &Writer,
        spans: impl Iterator<Item = (&'a TopicPartition, &'a Span)>,
    ) -> Vec<Advance> {
        spans
            .filter_map(|(partition, span)| {
                let app_id = app_id(&writer.pipeline, &span.identity, partition);
                let stored = self.state.position(&app_id);
                stored.is_none_or(|stored| stored < span.next).then(|| Advance {
                    partition: partition.clone(),
                    app_id,
                    next: span.next,
                })
            })
            .collect()
    }

    /// Whether all of `advances` are stored.
    pub(super) fn has(&self, advances: &[Advance]) -> bool {
        advances
            .iter()
            .all(|advance| self.state.position(&advance.app_id).is_some_and(|stored| stored >= advance.next))
    }

    /// Applies what others committed, and refuses to go on where one of them moved a position in `advances`.
    pub(super) async fn catch_up(
        &mut self,
        writer: &Writer,
        advances: &[Advance],
    ) -> Result<CatchUp, LakeError> {
        let found = self.state.catch_up(&self.log, &writer.id).await?;
        self.looked = Some(Instant::now());
        self.work += found.work;
        let by_id: BTreeMap<&str, &Advance> =
            advances.iter().map(|advance| (advance.app_id.as_str(), advance)).collect();
        for moved in &found.moves {
            if let Some(advance) = by_id.get(moved.app_id.as_str()) {
                return Err(self.fenced(advance, moved.before, moved.after));
            }
        }
        Ok(found)
    }

    /// Reads the log again where too much time has passed to trust that the next version is free.
    pub(super) async fn refresh(&mut self, writer: &Writer, advances: &[Advance]) -> Result<(), LakeError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < TRUST) {
            return Ok(());
        }
        self.catch_up(writer, advances).await?;
        if self.log.newest().await? <= Some(self.state.version()) {
            return Ok(());
        }
        let fresh = self.log.read().await?.ok_or_else(|| LakeError::Unreadable {
            table: self.log.table().to_owned(),
            message: "the table is gone".to_owned(),
        })?;
        for advance in advances {
            let (before, after) = (self.state.position(&advance.app_id), fresh.position(&advance.app_id));
            if before != after {
                return Err(self.fenced(advance, before, after.unwrap_or(0)));
            }
        }
        self.state = fresh;
        Ok(())
    }

    /// Puts `entry` at the next version and, if it got there, applies it.
    pub(super) async fn commit(&mut self, entry: Bytes) -> Result<Outcome, LakeError> {
        let version = self.state.next_version();
        let outcome = self.log.commit(version, entry.clone()).await?;
        if outcome == Outcome::Committed {
            self.work += self.state.apply(version, &entry)?.work;
            self.looked = Some(Instant::now());
        }
        Ok(outcome)
    }

    /// The same for an entry that brings files, the first of which was begun at `since`.
    pub(super) async fn commit_files(&mut self, entry: Bytes, since: Moment) -> Result<Outcome, LakeError> {
        if since.is_long_ago() {
            let minutes = since.age().as_secs() / 60;
            return Err(LakeError::Late { table: self.log.table().to_owned(), minutes });
        }
        self.commit(entry).await
    }

    /// Has the properties say what the settings say, once: two instances with different settings would otherwise
    /// change them with every batch.
    pub(super) async fn keep_properties(
        &mut self,
        wanted: &TableProperties,
        feed: bool,
        writer: &Writer,
    ) -> Result<(), LakeError> {
        // Behind a log that was not looked at for long, the next version may have been there and expired.
        if self.kept || self.looked.is_none_or(|looked| looked.elapsed() >= TRUST) {
            return Ok(());
        }
        let now = super::now_millis();
        if let Some(metadata) = properties::wanted(self.state.metadata(), wanted, feed, now) {
            let schema = DeltaSchema::parse(self.log.table(), &metadata.schema_string)?;
            let protocol = create::protocol(self.state.protocol(), &schema, &metadata.configuration);
            let ledger = self.state.known_ledger();
            let mut entry = Entry::with_ledger("SET TBLPROPERTIES", &writer.id, now, ledger);
            if self.state.protocol() != Some(&protocol) {
                entry = entry.protocol(&protocol);
            }
            let entry = entry.metadata(&metadata);
            // Whoever was faster is learned about by the batch, and the properties are compared again with the next.
            if self.commit(entry.into_bytes()).await? == Outcome::Conflict {
                return Ok(());
            }
            tracing::info!(table = self.log.table(), "brought the table's properties to the settings");
        }
        self.kept = true;
        Ok(())
    }

    /// Whether the log is known to end at this state.
    pub(super) async fn is_newest(&self) -> bool {
        self.log.entry(self.state.next_version()).await.is_ok_and(|next| next.is_none())
    }

    /// Takes note of how a step of compaction ended, and gives its error.
    pub(super) fn compacted<T>(&mut self, step: Result<T, LakeError>) -> Option<LakeError> {
        let Err(error) = step else {
            self.compaction.done();
            return None;
        };
        tracing::warn!(table = self.log.table(), %error, "compaction failed, trying again later");
        self.compaction.failed();
        Some(error)
    }

    /// What the table is like, and what this instance wrote to it since the last call.
    pub(super) fn figures(&mut self) -> TableFigures {
        let Work { batches, compaction } = std::mem::take(&mut self.work);
        TableFigures {
            live_files: self.state.files().len() as u64,
            live_bytes: self.state.bytes().max(0) as u64,
            live_vectors: self.state.vector_bytes().max(0) as u64,
            batches,
            compaction,
            failed_compactions: self.compaction.take_failures(),
            failed_checkpoints: self.checkpoints.take_failures(),
            index: None,
        }
    }

    fn fenced(&self, advance: &Advance, expected: Option<i64>, found: i64) -> LakeError {
        LakeError::Fenced {
            table: self.log.table().to_owned(),
            partition: advance.partition.to_string(),
            expected: expected.unwrap_or(0),
            found,
        }
    }
}

/// The `txn` actions that store `advances`.
pub(super) fn txns(advances: &[Advance]) -> impl Iterator<Item = Txn> {
    let now = super::now_millis();
    advances.iter().map(move |advance| Txn {
        app_id: advance.app_id.clone(),
        version: advance.next,
        last_updated: Some(now),
    })
}
