//! Progress: how far the mirror has got, stored in the same transaction as the data.
//!
//! Each partition is a compare-and-set: a row moves only from exactly the position that this instance last knew. It is
//! the first statement of the transaction, so its row locks make instances take turns: a second one, or the remains of
//! an own lost connection, is waited for and then seen.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use super::names::{TargetName, quoted};
use super::own_tables;
use super::sqlstate::Trouble;
use crate::change::{Progress, Span, StoredPosition, TopicIdentity, TopicPartition};

/// One partition's step: from the position last known (none: never stored) to the end of the span.
pub(super) struct Move<'a> {
    pub(super) partition: &'a TopicPartition,
    pub(super) known: Option<&'a StoredPosition>,
    pub(super) span: &'a Span,
}

/// The progress of one mirror of one pipeline.
#[derive(Clone)]
pub(super) struct ProgressTable {
    name: TargetName,
    pipeline: String,
    mirror: String,
}

/// Prepared statements of a session.
pub(super) struct Statements {
    update: Statement,
    insert: Statement,
}

impl ProgressTable {
    pub(super) fn new(schema: &str, pipeline: &str, mirror: &str) -> Self {
        Self {
            name: TargetName { schema: schema.to_owned(), table: "progress".to_owned() },
            pipeline: pipeline.to_owned(),
            mirror: mirror.to_owned(),
        }
    }

    fn ddl(&self) -> String {
        format!(
            "CREATE SCHEMA IF NOT EXISTS {}; CREATE TABLE IF NOT EXISTS {} (pipeline text, mirror text, topic text, \
             \"partition\" integer, cluster_id text NOT NULL, topic_id text NOT NULL, next_offset bigint NOT NULL, \
             updated_at timestamptz NOT NULL, PRIMARY KEY (pipeline, mirror, topic, \"partition\"))",
            quoted(&self.name.schema),
            self.name.sql()
        )
    }

    /// Creates the table where it is missing.
    pub(super) async fn ensure(&self, client: &Client) -> Result<(), Trouble> {
        own_tables::ensure(client, &[&self.name], "the progress table", &self.ddl()).await
    }

    pub(super) async fn prepare(&self, client: &Client) -> Result<Statements, tokio_postgres::Error> {
        let table = self.name.sql();
        let update = format!(
            "UPDATE {table} p SET next_offset = v.next, cluster_id = v.cluster, topic_id = v.id, updated_at = now() \
             FROM unnest($3::text[], $4::int[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[], \
             $10::bigint[]) AS v(topic, partition, known_cluster, known_id, known_next, cluster, id, next) \
             WHERE p.pipeline = $1 AND p.mirror = $2 AND p.topic = v.topic AND p.\"partition\" = v.partition \
             AND p.cluster_id = v.known_cluster AND p.topic_id = v.known_id AND p.next_offset = v.known_next"
        );
        let insert = format!(
            "INSERT INTO {table} SELECT $1, $2, v.topic, v.partition, v.cluster, v.id, v.next, now() \
             FROM unnest($3::text[], $4::int[], $5::text[], $6::text[], $7::bigint[]) \
             AS v(topic, partition, cluster, id, next) ON CONFLICT DO NOTHING"
        );
        Ok(Statements { update: client.prepare(&update).await?, insert: client.prepare(&insert).await? })
    }

    /// Reads all positions.
    pub(super) async fn read(&self, client: &Client) -> Result<Progress, Trouble> {
        let sql = format!(
            "SELECT topic, \"partition\", cluster_id, topic_id, next_offset FROM {} WHERE pipeline = $1 AND mirror = $2",
            self.name.sql()
        );
        let parameters = [(&self.pipeline as _, Type::TEXT), (&self.mirror as _, Type::TEXT)];
        let mut progress = Progress::new();
        for row in client.query_typed(&sql, &parameters).await? {
            let partition = TopicPartition::new(row.try_get::<_, &str>(0)?, row.try_get(1)?);
            let identity = TopicIdentity {
                cluster_id: row.try_get::<_, &str>(2)?.into(),
                topic_id: row.try_get::<_, &str>(3)?.into(),
            };
            progress.insert(partition, StoredPosition { identity, next_offset: row.try_get(4)? });
        }
        Ok(progress)
    }

    /// Moves all positions, or says `false` where a stored one is not what was known.
    pub(super) async fn advance(
        &self,
        client: &Client,
        statements: &Statements,
        moves: &[Move<'_>],
    ) -> Result<bool, Trouble> {
        let (stored, new): (Vec<_>, Vec<_>) = moves.iter().partition(|step| step.known.is_some());
        if !stored.is_empty() {
            let known = |part: fn(&StoredPosition) -> &str| -> Vec<&str> {
                stored.iter().filter_map(|step| step.known.map(part)).collect()
            };
            let known_next: Vec<i64> =
                stored.iter().filter_map(|step| step.known.map(|known| known.next_offset)).collect();
            let changed = client
                .execute(
                    &statements.update,
                    &[
                        &self.pipeline,
                        &self.mirror,
                        &stored.iter().map(|step| step.partition.topic.as_ref()).collect::<Vec<&str>>(),
                        &stored.iter().map(|step| step.partition.partition).collect::<Vec<i32>>(),
                        &known(|known| &known.identity.cluster_id),
                        &known(|known| &known.identity.topic_id),
                        &known_next,
                        &stored
                            .iter()
                            .map(|step| step.span.identity.cluster_id.as_ref())
                            .collect::<Vec<&str>>(),
                        &stored
                            .iter()
                            .map(|step| step.span.identity.topic_id.as_ref())
                            .collect::<Vec<&str>>(),
                        &stored.iter().map(|step| step.span.next).collect::<Vec<i64>>(),
                    ],
                )
                .await?;
            if changed != stored.len() as u64 {
                return Ok(false);
            }
        }
        if new.is_empty() {
            return Ok(true);
        }
        let inserted = client
            .execute(
                &statements.insert,
                &[
                    &self.pipeline,
                    &self.mirror,
                    &new.iter().map(|step| step.partition.topic.as_ref()).collect::<Vec<&str>>(),
                    &new.iter().map(|step| step.partition.partition).collect::<Vec<i32>>(),
                    &new.iter().map(|step| step.span.identity.cluster_id.as_ref()).collect::<Vec<&str>>(),
                    &new.iter().map(|step| step.span.identity.topic_id.as_ref()).collect::<Vec<&str>>(),
                    &new.iter().map(|step| step.span.next).collect::<Vec<i64>>(),
                ],
            )
            .await?;
        Ok(inserted == new.len() as u64)
    }
}

/// Whether two positions count in the same log. An id that is not known (`-`) equals any.
pub(super) fn same_log(a: &TopicIdentity, b: &TopicIdentity) -> bool {
    let same = |a: &str, b: &str| a == b || a == "-" || b == "-";
    same(&a.cluster_id, &b.cluster_id) && same(&a.topic_id, &b.topic_id)
}
