//! Staging tables: where COPY puts rows before a statement takes them into their table.
//!
//! They are temporary, so they cost no WAL and vanish with the session, have no index, and are emptied by the commit
//! (`ON COMMIT DELETE ROWS`). Their columns have the names of the target's, so that an error of COPY names the right one.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use tokio_postgres::{Client, Statement};

use super::copy::{EncodeError, HEADER, RowEncoder, TRAILER};
use super::sqlstate::Trouble;
use crate::change::RecordErrorKind;

/// Bytes that are sent at once: enough to make a message cheap, little enough that Postgres parses one while the next
/// is written.
const CHUNK: usize = 256 * 1024;

/// A temporary table that rows are copied into.
pub(super) struct Staging {
    /// Its name; needs no quotes.
    pub(super) name: String,
    copy: Statement,
    /// The transaction that used it last.
    used_by: u64,
}

impl Staging {
    /// Creates the table with `ddl` and prepares its COPY.
    pub(super) async fn create(
        client: &Client,
        name: String,
        ddl: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        client.batch_execute(ddl).await?;
        let copy = client.prepare(&format!("COPY pg_temp.{name} FROM STDIN (FORMAT binary)")).await?;
        Ok(Self { name, copy, used_by: 0 })
    }

    /// Replaces its rows.
    pub(super) async fn fill(
        &mut self,
        client: &Client,
        transaction: u64,
        encoder: &RowEncoder<'_>,
        rows: impl Iterator<Item = usize>,
        buffer: &mut BytesMut,
    ) -> Result<(), Trouble> {
        if self.used_by == transaction {
            client.batch_execute(&format!("DELETE FROM pg_temp.{}", self.name)).await?;
        }
        self.used_by = transaction;
        copy(client, &self.copy, encoder, rows, buffer).await
    }
}

/// Sends rows to a `COPY … FROM STDIN (FORMAT binary)`.
pub(super) async fn copy(
    client: &Client,
    statement: &Statement,
    encoder: &RowEncoder<'_>,
    rows: impl Iterator<Item = usize>,
    buffer: &mut BytesMut,
) -> Result<(), Trouble> {
    // Left half-way, the sink tells Postgres that the COPY failed.
    let mut sink = pin!(client.copy_in::<_, Bytes>(statement).await?);
    buffer.clear();
    buffer.reserve(CHUNK + CHUNK / 4);
    buffer.extend_from_slice(HEADER);
    for row in rows {
        encoder.put_row(row, buffer).map_err(Trouble::from)?;
        if buffer.len() >= CHUNK {
            sink.feed(buffer.split().freeze()).await?;
            buffer.reserve(CHUNK + CHUNK / 4);
        }
    }
    buffer.extend_from_slice(TRAILER);
    sink.feed(buffer.split().freeze()).await?;
    sink.finish().await?;
    Ok(())
}

impl From<EncodeError> for Trouble {
    fn from(error: EncodeError) -> Self {
        let reason = error.to_string();
        if error.of_value {
            Self::Row { kind: RecordErrorKind::ValueRefused, reason, target: None }
        } else {
            Self::Table { reason, target: None }
        }
    }
}
