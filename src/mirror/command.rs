//! The quarantine of a mirror as commands see it: read, and appended to, beside the running daemon.

use std::sync::Arc;

use tokio_postgres::Client;

use super::connection::Endpoint;
use super::quarantine::QuarantineTable;
use super::sqlstate::Trouble;
use super::{MirrorError, MirrorOptions};
use crate::change::SinkError;
use crate::change::quarantine::{Ledger, QuarantineRow, RecordPlace};

/// A mirror's quarantine, reached by a connection of its own.
pub struct MirrorQuarantine {
    client: Client,
    table: QuarantineTable,
}

impl MirrorQuarantine {
    /// Connects and reads.
    ///
    /// # Errors
    /// Where the settings cannot work, or the database cannot be reached.
    pub async fn open(options: &MirrorOptions) -> Result<Self, SinkError> {
        let stop = |error: MirrorError| SinkError::Stop { message: error.to_string() };
        let endpoint = Endpoint::new(options).map_err(stop)?;
        let client = endpoint.connect().await.map_err(Trouble::into_sink_error)?;
        let table = QuarantineTable::new(&options.progress_schema, &options.pipeline, &options.name);
        let mut quarantine = Self { client, table };
        quarantine.look().await?;
        Ok(quarantine)
    }

    /// The state of every record, as it is now.
    ///
    /// # Errors
    /// Where the database cannot be reached.
    pub async fn look(&mut self) -> Result<Arc<Ledger>, SinkError> {
        self.table.look(&self.client).await.map_err(Trouble::into_sink_error)?;
        Ok(Arc::clone(self.table.ledger()))
    }

    /// Records as they came.
    ///
    /// # Errors
    /// Where the database cannot be reached.
    pub async fn records(&mut self, places: &[RecordPlace]) -> Result<Vec<QuarantineRow>, SinkError> {
        self.table.records(&self.client, places).await.map_err(Trouble::into_sink_error)
    }

    /// Asks for replays, under a number that no other request has, and says of how many records.
    ///
    /// # Errors
    /// Where the database cannot be reached, or refuses.
    pub async fn request(&mut self, requests: &[QuarantineRow]) -> Result<usize, SinkError> {
        let asked = self.table.request(&self.client, requests).await;
        if asked.is_err() {
            // The error is what is told; a connection that is gone has rolled back by itself.
            let _ = self.client.batch_execute("ROLLBACK").await;
        }
        let asked = asked.map_err(Trouble::into_sink_error)?;
        self.table.enter(&asked);
        Ok(asked.len())
    }

    /// Appends rows.
    ///
    /// # Errors
    /// Where the database cannot be reached, or refuses.
    pub async fn append(&mut self, rows: &[QuarantineRow]) -> Result<(), SinkError> {
        self.table.insert(&self.client, rows).await.map_err(Trouble::into_sink_error)?;
        self.table.enter(rows);
        Ok(())
    }
}
