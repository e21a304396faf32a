//! The source database, read-only: what its catalog says of the columns of a table.
//!
//! Events without schema block do not say their types. Here each column gets the name that one would otherwise write
//! into the settings ([`names`]), which the decoder knows how to read. The source is asked by the decoding thread when it
//! meets a table, or a column, for the first time. A source that is away is a warning, and types then come from what the
//! sink has, or from values: nothing waits for it longer than [`PATIENCE`].

mod names;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::change::TableId;
use crate::debezium::{ConfiguredType, Modes, SourceTypes};
use crate::mirror::{self, TargetType};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after a failure in which the source is not asked again: a stream of new tables must not wait for each.
const REST: Duration = Duration::from_mins(1);

/// The catalog of the source database.
pub struct SourceCatalog {
    url: String,
    runtime: Handle,
    failed: Mutex<Option<Instant>>,
}

impl SourceCatalog {
    /// The catalog behind that address, for a decoder; `None` outside of a runtime, which alone can reach it.
    pub fn types(url: &str) -> Option<Arc<dyn SourceTypes>> {
        let runtime = Handle::try_current().ok()?;
        Some(Arc::new(Self { url: url.to_owned(), runtime, failed: Mutex::new(None) }))
    }

    async fn read(&self, table: &TableId) -> Result<Vec<(String, TargetType)>, String> {
        let client = mirror::connect(&self.url).await?;
        client
            .batch_execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            .await
            .map_err(|error| error.to_string())?;
        mirror::columns_of(&client, &table.schema, &table.table).await.map_err(|error| error.to_string())
    }

    fn rests(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < REST)
    }

    fn remember(&self, failed: Option<Instant>) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }
}

/// Without its address, which holds a password.
impl std::fmt::Debug for SourceCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourceCatalog")
    }
}

impl SourceTypes for SourceCatalog {
    fn of(&self, table: &TableId, modes: Modes) -> Option<HashMap<String, ConfiguredType>> {
        if self.rests() {
            return None;
        }
        let answer = self.runtime.block_on(async {
            match tokio::time::timeout(PATIENCE, self.read(table)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            }
        });
        match answer {
            Ok(columns) if columns.is_empty() => {
                tracing::warn!(%table, "the source database has no such table: its types are not taken from there");
                None
            }
            Ok(columns) => {
                self.remember(None);
                Some(
                    columns
                        .into_iter()
                        .filter_map(|(name, found)| Some((name, named(&found, modes)?)))
                        .collect(),
                )
            }
            Err(reason) => {
                self.remember(Some(Instant::now()));
                tracing::warn!(
                    %table,
                    reason,
                    "the source database cannot be asked for types: they are taken from the sink's table, or from values"
                );
                None
            }
        }
    }
}

fn named(found: &TargetType, modes: Modes) -> Option<ConfiguredType> {
    names::of(found, modes).parse().ok()
}
