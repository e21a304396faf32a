//! The quarantine of a mirror: a table beside the progress, written in the transaction that moves it.
//!
//! So a record is there exactly once, as its row would be in its table. What a record is now is read back as a ledger,
//! as in the lake; commands append rows of their own, each in a transaction.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::ledger::literal;
use super::names::{TargetName, quoted};
use super::own_tables;
use super::sqlstate::Trouble;
use crate::change::quarantine::rows::{headers_from_text, headers_to_text};
use crate::change::quarantine::{Ledger, Payload, QuarantineEvent, QuarantineRow, RecordPlace};
use crate::change::{TableId, TopicIdentity, TopicPartition};

/// The table, and whose rows in it are meant.
#[derive(Debug, Clone)]
pub(super) struct QuarantineTable {
    name: TargetName,
    pipeline: String,
    lane: Arc<str>,
    ledger: Arc<Ledger>,
    /// Rows that the ledger was made of.
    rows: i64,
    there: bool,
}

/// Columns behind `pipeline`, with their types.
const COLUMNS: [(&str, &str); 21] = [
    ("id", "text NOT NULL"),
    ("event", "text NOT NULL"),
    ("at", "timestamptz NOT NULL"),
    ("lane", "text NOT NULL"),
    ("topic", "text NOT NULL"),
    ("partition", "integer NOT NULL"),
    ("offset", "bigint NOT NULL"),
    ("cluster_id", "text NOT NULL"),
    ("topic_id", "text NOT NULL"),
    ("source_database", "text"),
    ("source_schema", "text"),
    ("source_table", "text"),
    ("row_key", "text"),
    ("code", "text"),
    ("detail", "text"),
    ("replay", "bigint"),
    ("force", "boolean NOT NULL"),
    ("kafka_timestamp", "timestamptz"),
    ("headers", "text"),
    ("key", "bytea"),
    ("value", "bytea"),
];

impl QuarantineTable {
    pub(super) fn new(schema: &str, pipeline: &str, lane: &str) -> Self {
        Self {
            name: TargetName { schema: schema.to_owned(), table: "quarantine".to_owned() },
            pipeline: pipeline.to_owned(),
            lane: lane.into(),
            ledger: Arc::default(),
            rows: 0,
            there: false,
        }
    }

    /// The name of the lane whose records these are.
    pub(super) fn lane(&self) -> &Arc<str> {
        &self.lane
    }

    /// The state of every record, as it was last read or written.
    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn ddl(&self) -> String {
        let columns: Vec<String> =
            COLUMNS.iter().map(|(name, kind)| format!("{} {kind}", quoted(name))).collect();
        format!(
            "CREATE SCHEMA IF NOT EXISTS {}; CREATE TABLE IF NOT EXISTS {} (pipeline text NOT NULL, {})",
            quoted(&self.name.schema),
            self.name.sql(),
            columns.join(", ")
        )
    }

    async fn is_there(&mut self, client: &Client) -> Result<bool, Trouble> {
        if !self.there {
            self.there = own_tables::are_there(client, &[&self.name]).await?;
        }
        Ok(self.there)
    }

    /// Creates the table where it is missing. Not within a batch's transaction.
    pub(super) async fn ensure(&mut self, client: &Client) -> Result<(), Trouble> {
        if !self.there {
            own_tables::ensure(client, &[&self.name], "the quarantine table", &self.ddl()).await?;
            self.there = true;
        }
        Ok(())
    }

    /// Reads the ledger again where rows were added.
    pub(super) async fn look(&mut self, client: &Client) -> Result<(), Trouble> {
        if !self.is_there(client).await? {
            return Ok(());
        }
        let sql = format!("SELECT count(*) FROM {} WHERE pipeline = $1 AND lane = $2", self.name.sql());
        let parameters = [(&self.pipeline as &(dyn ToSql + Sync), Type::TEXT), (&&*self.lane, Type::TEXT)];
        let counted = client.query_typed(&sql, &parameters).await?;
        let rows: i64 = counted.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
        if rows == self.rows {
            return Ok(());
        }
        let mut ledger = Ledger::default();
        let found = self.read(client, None).await?;
        for row in &found {
            ledger.apply(row);
        }
        self.rows = found.len() as i64;
        self.ledger = Arc::new(ledger);
        Ok(())
    }

    /// The records at these places, as they came.
    pub(super) async fn records(
        &self,
        client: &Client,
        places: &[RecordPlace],
    ) -> Result<Vec<QuarantineRow>, Trouble> {
        if !self.there {
            return Ok(Vec::new());
        }
        let wanted: HashSet<&RecordPlace> = places.iter().collect();
        let ids: Vec<String> = places.iter().map(|place| place.id(&self.lane)).collect();
        let mut seen = HashSet::new();
        let mut found = self.read(client, Some(&ids)).await?;
        found.retain(|row| {
            row.event == QuarantineEvent::Quarantined
                && wanted.contains(&row.place)
                && seen.insert(row.place.clone())
        });
        Ok(found)
    }

    /// All rows without payloads, or with them those of the records with these ids.
    async fn read(&self, client: &Client, ids: Option<&[String]>) -> Result<Vec<QuarantineRow>, Trouble> {
        let payload = if ids.is_some() {
            "round(extract(epoch FROM kafka_timestamp) * 1000)::bigint, headers, key, value"
        } else {
            "NULL::bigint, NULL::text, NULL::bytea, NULL::bytea"
        };
        let sql = format!(
            "SELECT event, round(extract(epoch FROM at) * 1000000)::bigint, topic, \"partition\", \"offset\", cluster_id, \
             topic_id, source_database, source_schema, source_table, row_key, code, detail, replay, force, {payload} \
             FROM {} WHERE pipeline = $1 AND lane = $2 AND ($3::text[] IS NULL OR id = ANY ($3))",
            self.name.sql()
        );
        let parameters = [
            (&self.pipeline as &(dyn ToSql + Sync), Type::TEXT),
            (&&*self.lane, Type::TEXT),
            (&ids, Type::TEXT_ARRAY),
        ];
        let mut rows = Vec::new();
        for row in client.query_typed(&sql, &parameters).await? {
            let Some(event) = QuarantineEvent::parse(row.try_get(0)?) else { continue };
            let table: Option<&str> = row.try_get(9)?;
            let database: Option<&str> = row.try_get(7)?;
            let schema: Option<&str> = row.try_get(8)?;
            let headers: Option<&str> = row.try_get(16)?;
            rows.push(QuarantineRow {
                event,
                at_micros: row.try_get(1)?,
                lane: Arc::clone(&self.lane),
                place: RecordPlace {
                    partition: TopicPartition::new(row.try_get::<_, &str>(2)?, row.try_get(3)?),
                    identity: TopicIdentity {
                        cluster_id: row.try_get::<_, &str>(5)?.into(),
                        topic_id: row.try_get::<_, &str>(6)?.into(),
                    },
                    offset: row.try_get(4)?,
                },
                table: table.map(|table| {
                    TableId::new(database.unwrap_or_default(), schema.unwrap_or_default(), table)
                }),
                row_key: row.try_get(10)?,
                code: row.try_get(11)?,
                detail: row.try_get(12)?,
                replay: row.try_get(13)?,
                force: row.try_get(14)?,
                payload: if ids.is_some() && event == QuarantineEvent::Quarantined {
                    Some(Payload {
                        timestamp_ms: row.try_get::<_, Option<i64>>(15)?.unwrap_or(-1),
                        headers: headers.map(headers_from_text).unwrap_or_default(),
                        key: row.try_get(17)?,
                        value: row.try_get(18)?,
                    })
                } else {
                    None
                },
            });
        }
        Ok(rows)
    }

    /// Inserts rows; within the batch's transaction, or on their own.
    pub(super) async fn insert(&self, client: &Client, rows: &[QuarantineRow]) -> Result<(), Trouble> {
        if rows.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = COLUMNS.iter().map(|(name, _)| quoted(name)).collect();
        let sql = format!(
            "INSERT INTO {} (pipeline, {}) SELECT $1, id, event, to_timestamp(0) + at * interval '1 microsecond', $2, topic, \
             part, off, cluster, topic_id, db, sch, tab, row_key, code, detail, replay, force, \
             to_timestamp(0) + ts * interval '1 millisecond', headers, key, value \
             FROM unnest($3::text[], $4::text[], $5::bigint[], $6::text[], $7::int[], $8::bigint[], $9::text[], $10::text[], \
             $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[], $18::bool[], \
             $19::bigint[], $20::text[], $21::bytea[], $22::bytea[]) \
             AS u(id, event, at, topic, part, off, cluster, topic_id, db, sch, tab, row_key, code, detail, replay, force, ts, \
             headers, key, value)",
            self.name.sql(),
            names.join(", ")
        );
        let payload =
            |row: &'_ QuarantineRow| row.payload.as_ref().map(|payload| headers_to_text(&payload.headers));
        let name = |part: fn(&TableId) -> &str| each(rows, move |row| row.table.as_ref().map(part));
        let ids = each(rows, |row| row.place.id(&row.lane));
        let (databases, schemas, tables) =
            (name(|table| &table.database), name(|table| &table.schema), name(|table| &table.table));
        let headers = each(rows, payload);
        let times = each(rows, |row| row.payload.as_ref().map(|payload| payload.timestamp_ms));
        let keys = each(rows, |row| row.payload.as_ref().and_then(|payload| payload.key.as_deref()));
        let values = each(rows, |row| row.payload.as_ref().and_then(|payload| payload.value.as_deref()));
        let parameters: [(&(dyn ToSql + Sync), Type); 22] = [
            (&self.pipeline, Type::TEXT),
            (&&*self.lane, Type::TEXT),
            (&ids, Type::TEXT_ARRAY),
            (&each(rows, |row| row.event.word()), Type::TEXT_ARRAY),
            (&each(rows, |row| row.at_micros), Type::INT8_ARRAY),
            (&each(rows, |row| row.place.partition.topic.as_ref()), Type::TEXT_ARRAY),
            (&each(rows, |row| row.place.partition.partition), Type::INT4_ARRAY),
            (&each(rows, |row| row.place.offset), Type::INT8_ARRAY),
            (&each(rows, |row| row.place.identity.cluster_id.as_ref()), Type::TEXT_ARRAY),
            (&each(rows, |row| row.place.identity.topic_id.as_ref()), Type::TEXT_ARRAY),
            (&databases, Type::TEXT_ARRAY),
            (&schemas, Type::TEXT_ARRAY),
            (&tables, Type::TEXT_ARRAY),
            (&each(rows, |row| row.row_key.as_deref()), Type::TEXT_ARRAY),
            (&each(rows, |row| row.code.as_deref()), Type::TEXT_ARRAY),
            (&each(rows, |row| row.detail.as_deref()), Type::TEXT_ARRAY),
            (&each(rows, |row| row.replay), Type::INT8_ARRAY),
            (&each(rows, |row| row.force), Type::BOOL_ARRAY),
            (&times, Type::INT8_ARRAY),
            (&headers, Type::TEXT_ARRAY),
            (&keys, Type::BYTEA_ARRAY),
            (&values, Type::BYTEA_ARRAY),
        ];
        client.query_typed(&sql, &parameters).await?;
        Ok(())
    }

    /// Requests for replays, numbered and inserted in a transaction of their own. The lock keeps other requests out from
    /// the look at the last number until the commit, and nobody else.
    pub(super) async fn request(
        &mut self,
        client: &Client,
        requests: &[QuarantineRow],
    ) -> Result<Vec<QuarantineRow>, Trouble> {
        let name = format!("alluvium replays {} {} {}", self.name, self.pipeline, self.lane);
        let lock = format!("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended({}, 0))", literal(&name));
        client.batch_execute(&lock).await?;
        self.look(client).await?;
        let rows = self.ledger.numbered(requests);
        self.insert(client, &rows).await?;
        client.batch_execute("COMMIT").await?;
        Ok(rows)
    }

    /// Enters rows that are committed.
    pub(super) fn enter(&mut self, rows: &[QuarantineRow]) {
        let ledger = Arc::make_mut(&mut self.ledger);
        for row in rows {
            ledger.apply(row);
        }
        self.rows += rows.len() as i64;
    }
}

/// One value of each row.
fn each<'a, T>(rows: &'a [QuarantineRow], part: impl Fn(&'a QuarantineRow) -> T) -> Vec<T> {
    rows.iter().map(part).collect()
}
