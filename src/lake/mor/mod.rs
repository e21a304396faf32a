//! Merge-on-read upserts: a batch writes its own rows, one file of deletion vectors and one log entry, whatever the size
//! of the table.
//!
//! The key index says where the present row of each key lies ([`locate`]); that row is marked as deleted in its file's
//! vector ([`vectors`]), and the new row goes into a new file ([`files`]). An attempt is made against one version of the
//! table and committed as the next; where another writer was faster, the state and the index catch up and everything
//! that depends on places is resolved again. There is no rebasing of a commit onto what another writer did, which is
//! where such tables get rows twice.
//!
//! Invariants: a key has at most one live row; a commit of ours only ever deletes rows of files that are live at the
//! version before; the Delta commit comes first, the index follows.

pub(super) mod aside;
mod bounds;
mod builds;
mod cells;
pub(super) mod changes;
mod compact;
mod compacted;
mod encoding;
mod ending;
pub(super) mod files;
mod following;
mod history;
mod home;
mod incoming;
mod intake;
mod key_cells;
mod key_order;
mod keys;
mod last_changes;
mod locate;
mod merge;
mod obstacle;
mod outputs;
mod plan;
pub(super) mod reader;
pub(super) mod rewrite;
mod runs;
mod scan;
mod stacks;
mod vectors;
mod went;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

pub(super) use self::bounds::Bounds;
pub use self::builds::{IndexBuild, IndexBuilds};
use self::cells::{Cells, OriginPlaces, with_stored_cells};
pub(super) use self::compact::step_without_index;
use self::compacted::Compacted;
pub(super) use self::encoding::{RowWriter, writer_properties};
use self::ending::{End, Ended};
pub(super) use self::files::DataFiles;
use self::incoming::Upsert;
use self::keys::{KeyCodec, Keys};
pub(super) use self::last_changes::StoredRows;
use self::locate::{Locator, OwnCommit};
pub(super) use self::obstacle::{foreign_demand, obstacle};
pub(super) use self::outputs::ROW_GROUP;
use self::plan::{Emptied, Plan};
use self::vectors::Vectors;
pub(super) use self::vectors::{path as vector_path, read as read_vector};
use super::action::Entry;
use super::error::LakeError;
use super::landing::Background;
use super::log::Outcome;
use super::moment::Moment;
use super::now_millis;
use super::shape::Shape;
use super::table::{ATTEMPTS, Advance, Table, Writer, txns};
use crate::change::{Folded, Policies, TableId, TablePolicy, TableSchema, Truncated, WriteMode, sources};
use crate::failpoint;

/// Folder of the indexes in a local lake. No table may lie there.
pub(super) const INDEX_FOLDER: &str = "_index";

/// How current tables are written.
#[derive(Debug, Clone)]
pub struct UpsertOptions {
    /// Local folder of the key indexes; `None`: `_index` in a local lake, else in the user's cache.
    pub index_dir: Option<PathBuf>,
    /// Bytes of deletion vectors kept in memory, for each table.
    pub vector_memory: usize,
    /// Told of indexes that are being built.
    pub builds: IndexBuilds,
}

impl Default for UpsertOptions {
    fn default() -> Self {
        Self { index_dir: None, vector_memory: 32 << 20, builds: IndexBuilds::default() }
    }
}

/// How the current tables of an open lake are written.
#[derive(Debug)]
pub(super) struct Upserts {
    options: UpsertOptions,
    policies: Policies,
    index_root: PathBuf,
}

impl Upserts {
    /// The options with the folder that they leave open: `local` is the root of a local lake.
    pub(super) fn new(
        options: UpsertOptions,
        policies: Policies,
        root: &str,
        local: Option<PathBuf>,
    ) -> Self {
        let index_root = options
            .index_dir
            .clone()
            .or_else(|| Some(local?.join(INDEX_FOLDER)))
            .unwrap_or_else(|| home::in_cache(root));
        Self { options, policies, index_root }
    }

    /// What is declared for a table.
    pub(super) fn policy(&self, table: &TableId) -> &TablePolicy {
        self.policies.of(table)
    }

    /// What a table that is written by merge-on-read keeps.
    pub(super) fn merge_on_read(&self, table: &TableId) -> Option<MergeOnRead> {
        (self.policy(table).write == WriteMode::MergeOnRead)
            .then(|| MergeOnRead::new(self.index_root.clone(), &self.options))
    }
}

/// How a batch ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upserted {
    /// The batch is in the table.
    Committed { done: Done, conflicts: u64 },
    /// Another writer changed the table's definition, its ledger or rows that the batch was compared with: fold it again.
    Changed,
}

/// What a commit met in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Absent cells that are stored nowhere: they are null.
    pub(super) unresolved_absent: u64,
    /// Rows and columns of those in the folded batch.
    pub(super) unresolved: Vec<(usize, usize)>,
    /// Deletes of keys that were not there: nothing was done.
    pub(super) unknown_deletes: u64,
}

/// What merge-on-read keeps of one table between batches: a view of its log, to be had again at any time.
#[derive(Debug)]
pub(super) struct MergeOnRead {
    index_root: PathBuf,
    locator: Option<Locator>,
    vectors: Vectors,
    /// Names of columns that tell rows of a table without key apart; `None` until a batch has said so: all.
    compared: Option<Vec<String>>,
    /// The version at which compaction met another writer.
    conflict: Option<u64>,
    /// A large step of compaction that is being read and written.
    compacting: Option<Background<Compacted>>,
    builds: IndexBuilds,
    /// Times that the index was built anew, not told yet.
    rebuilds: u64,
}

/// A commit that is ready for its attempt.
struct Prepared {
    entry: Bytes,
    plan: Plan,
    /// In a table without key, the stacks of addresses that the batch cuts.
    cuts: Vec<(Box<[u8]>, u32)>,
    done: Done,
}

impl MergeOnRead {
    fn new(index_root: PathBuf, options: &UpsertOptions) -> Self {
        Self {
            index_root,
            locator: None,
            vectors: Vectors::new(options.vector_memory),
            compared: None,
            conflict: None,
            compacting: None,
            builds: options.builds.clone(),
            rebuilds: 0,
        }
    }

    /// Takes over what was kept for the same table, to be compared with the log as if it had just been opened.
    pub(super) fn take_over(&mut self, old: Self) {
        self.locator = old.locator;
        self.compared = old.compared;
        self.vectors = old.vectors;
        self.rebuilds = old.rebuilds;
        if let Some(locator) = &mut self.locator {
            locator.distrust();
        }
    }

    /// Brings `folded` into `table` together with the positions in `advances`.
    pub(super) async fn upsert(
        &mut self,
        table: &mut Table,
        (folded, shape): (&Folded, Shape),
        advances: &[Advance],
        writer: &Writer,
    ) -> Result<Upserted, LakeError> {
        let names = |&column: &usize| Some(folded.schema.columns().get(column)?.name.to_string());
        self.compared = folded.is_keyless().then(|| folded.compared.iter().filter_map(names).collect());
        let codec = KeyCodec::new(&folded.schema, &folded.compared);
        let mut upsert = Upsert::new(table, (folded, shape), advances, &codec)?;
        let mut since = None;
        for attempt in 0..ATTEMPTS {
            self.follow(table, (&codec, shape), &upsert.files).await?;
            let since = *since.get_or_insert_with(Moment::now);
            let prepared = self.prepare(table, &mut upsert, writer).await?;
            let committed = |done| Upserted::Committed { done, conflicts: u64::from(attempt) };
            if table.commit_files(prepared.entry.clone(), since).await? == Outcome::Committed {
                failpoint::hit("lake.before_index");
                let done = prepared.done.clone();
                self.committed(table, &upsert, prepared);
                return Ok(committed(done));
            }
            let found = table.catch_up(writer, advances).await?;
            if table.has(advances) {
                return Ok(committed(Done::default()));
            }
            // What was folded was compared with rows that may be others by now.
            let compared = sources::are_placed(&folded.schema);
            if found.metadata || found.ledger || compared {
                return Ok(Upserted::Changed);
            }
        }
        Err(LakeError::Busy { table: table.log.table().to_owned(), attempts: ATTEMPTS })
    }

    /// How rows of `schema` are told apart.
    fn codec(&self, schema: &TableSchema) -> KeyCodec {
        let compared: Vec<usize> = match &self.compared {
            Some(names) => names.iter().filter_map(|name| schema.index_of(name)).collect(),
            None => (0..schema.columns().len()).collect(),
        };
        KeyCodec::new(schema, &compared)
    }

    /// Writes what the commit needs, against the version at which table and index stand.
    async fn prepare(
        &mut self,
        table: &Table,
        upsert: &mut Upsert<'_>,
        writer: &Writer,
    ) -> Result<Prepared, LakeError> {
        let ended = self.end(table, upsert).await?;
        let (plan, cuts, origins, departing) = self.find(table, upsert, &ended.rows).await?;
        let shape = upsert.shape;
        let ledger = upsert.ledger_after(&departing).await?;
        let Cells { columns, depends, unresolved } =
            with_stored_cells((upsert.folded, shape), &plan, &origins, &upsert.files).await?;
        let mut unknown_deletes = upsert.folded.deletes.num_rows() - plan.without_successor();
        if upsert.written.is_none() || depends || upsert.folded.of_stored.is_some() {
            unknown_deletes += upsert.write(columns, &plan).await?;
        }
        let entry = Entry::of_batch("MERGE", &writer.id, now_millis(), &ledger.to_text());
        let entry = upsert.written.iter().fold(ended.added_to(entry), Entry::add);
        let entry = upsert.with_changes(entry, &plan).await?;
        let (entry, plan) = plan.write_vectors(entry, &upsert.files).await?;
        let entry = txns(upsert.advances).fold(entry, |entry, txn| entry.txn(&txn)).into_bytes();
        let done = Done {
            unresolved_absent: unresolved.len() as u64,
            unresolved,
            unknown_deletes: unknown_deletes as u64,
        };
        Ok(Prepared { entry, plan, cuts, done })
    }

    /// Ends the stored rows that truncates of the batch take.
    async fn end(&mut self, table: &Table, upsert: &Upsert<'_>) -> Result<Ended, LakeError> {
        let locator = self.locator.as_ref().filter(|_| !table.state.files().is_empty());
        let (Some(locator), Some(ending)) = (locator, &upsert.folded.ending) else {
            return Ok(Ended::default());
        };
        let places = (locator, &upsert.upserted);
        let own = ending::located(table, places, (&mut self.vectors, &*upsert.files.store)).await?;
        End::of_rows(upsert, ending, own)?.write(table, &mut self.vectors).await
    }

    /// The rows that go, as the index and the table's truncate say, in a table without key the stacks that they are taken
    /// from, and the places of the origins of cells of the batch's rows and of the departing ones.
    async fn find(
        &mut self,
        table: &Table,
        upsert: &Upsert<'_>,
        ended: &Emptied,
    ) -> Result<(Plan, Vec<(Box<[u8]>, u32)>, OriginPlaces, OriginPlaces), LakeError> {
        let (mut origins, mut departing) = upsert.kept_aside().await?;
        let Some(locator) = self.locator.as_ref().filter(|_| !table.state.files().is_empty()) else {
            return Ok((Plan::default(), Vec::new(), origins, departing));
        };
        let emptied = match upsert.folded.truncated {
            Some(Truncated::All) => return Ok((Plan::everything(table), Vec::new(), origins, departing)),
            Some(truncated) => &scan::emptied(table, &upsert.files, truncated).await?,
            None => ended,
        };
        let (vectors, store) = (&mut self.vectors, &*upsert.files.store);
        if upsert.folded.is_keyless() {
            let found = stacks::find(table, locator, vectors, store, &upsert.deleted, emptied).await?;
            let rows: Vec<_> = found.addresses.iter().copied().map(Some).collect();
            let plan = plan::resolve(table, locator, vectors, store, (&[], &rows), emptied).await?;
            return Ok((plan, found.cuts, origins, departing));
        }
        let (upserted, deleted) = (locator.locate(&upsert.upserted)?, locator.locate(&upsert.deleted)?);
        let plan = plan::resolve(table, locator, vectors, store, (&upserted, &deleted), emptied).await?;
        for (places, keys) in [(&mut origins, &upsert.origins), (&mut departing, &upsert.departing)] {
            let addresses = locator.locate(keys)?;
            places.stored = plan::live_places(table, locator, vectors, store, &addresses, emptied).await?;
        }
        Ok((plan, Vec::new(), origins, departing))
    }

    /// Lets index and vectors follow a commit. The batch is in the table whatever happens here.
    fn committed(&mut self, table: &Table, upsert: &Upsert<'_>, prepared: Prepared) {
        let gone = self.keep_vectors(prepared.plan);
        if upsert.folded.ending.is_some() {
            // The index reads the files of rows that ended before its next use; their keys need not be in memory here.
            return;
        }
        self.index_follows(&OwnCommit {
            version: table.state.version(),
            entry: &prepared.entry,
            written: upsert.written.as_ref().map(|add| add.path.as_str()),
            upserted: std::slice::from_ref(upsert.written_keys.as_ref().unwrap_or(&upsert.upserted)),
            deleted: &upsert.deleted,
            cuts: &prepared.cuts,
            emptied: upsert.folded.truncated == Some(Truncated::All),
            gone: &gone,
        });
    }

    /// Remembers the vectors of a plan that is in the log, and returns the files that are no longer part of the table.
    fn keep_vectors(&mut self, plan: Plan) -> Vec<String> {
        let mut gone = Vec::new();
        for touched in plan.files {
            if let Some(vector) = touched.vector {
                self.vectors.keep(&touched.path, vector, Arc::new(touched.deleted));
            } else {
                self.vectors.forget(&touched.path);
                gone.push(touched.path);
            }
        }
        gone
    }
}
