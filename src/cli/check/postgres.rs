//! What Postgres databases need: the source, that changes can be told by key; a mirror, that it can be written.

use tokio_postgres::{Client, Error};

use super::{Finding, FoundTopics};
use crate::config::Mirror;

/// What was found in the source database.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundSource {
    wal_level: String,
    tables: Vec<FoundTable>,
}

/// A table of the source.
#[derive(Debug, Clone)]
struct FoundTable {
    schema: String,
    name: String,
    has_primary_key: bool,
    /// `pg_class.relreplident`: `d` default, `n` nothing, `f` full, `i` index.
    replica_identity: char,
    /// Whether it has columns outside its key whose values may be stored out of line (TOAST).
    may_toast: bool,
}

impl FoundTable {
    /// The name as SQL takes it.
    fn sql(&self) -> String {
        let quoted = |name: &str| {
            let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
        };
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

/// What was found in a mirror.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundMirror {
    in_recovery: bool,
    may_create_schemas: bool,
    /// The mirror's schema, where its name is no template: whether it is there, and may be written.
    schema: Option<(bool, bool)>,
    foreign_keys: i64,
    may_replicate: bool,
}

/// Tables that one finding names at most.
const NAMES_SHOWN: usize = 10;

const TABLES: &str = "SELECT n.nspname::text, c.relname::text, c.relreplident::text, \
     EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), \
     EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     AND a.attstorage IN ('x', 'e') AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid \
     AND i.indisprimary AND a.attnum = ANY (i.indkey))) \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition \
     AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' ORDER BY 1, 2";

pub(super) async fn look_at_source(client: Client) -> Result<FoundSource, String> {
    let look = async {
        let wal_level = client.query_one("SHOW wal_level", &[]).await?.try_get(0)?;
        let mut tables = Vec::new();
        for row in client.query(TABLES, &[]).await? {
            let identity: String = row.try_get(2)?;
            tables.push(FoundTable {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                has_primary_key: row.try_get(3)?,
                replica_identity: identity.chars().next().unwrap_or('d'),
                may_toast: row.try_get(4)?,
            });
        }
        Ok(FoundSource { wal_level, tables })
    };
    look.await.map_err(|error| reason(&error))
}

pub(super) async fn look_at_mirror(client: Client, mirror: &Mirror) -> Result<FoundMirror, String> {
    let look = async {
        let row = client
            .query_one(
                "SELECT pg_is_in_recovery(), has_database_privilege(current_database(), 'CREATE')",
                &[],
            )
            .await?;
        let mut found = FoundMirror {
            in_recovery: row.try_get(0)?,
            may_create_schemas: row.try_get(1)?,
            ..FoundMirror::default()
        };
        if !mirror.schema.contains('{') {
            let row = client
                .query_opt(
                    "SELECT has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE'), \
                     (SELECT count(*) FROM pg_constraint c WHERE c.connamespace = n.oid AND c.contype = 'f') \
                     FROM pg_namespace n WHERE nspname = $1::text",
                    &[&mirror.schema],
                )
                .await?;
            found.schema = Some(match row {
                Some(row) => {
                    found.foreign_keys = row.try_get(1)?;
                    (true, row.try_get(0)?)
                }
                None => (false, false),
            });
        }
        found.may_replicate = client.batch_execute("SET session_replication_role = replica").await.is_ok();
        Ok(found)
    };
    look.await.map_err(|error| reason(&error))
}

/// What the server said; the client library's own text does not repeat it.
fn reason(error: &Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned())
}

/// Judges the tables that have a topic, or all where the topics are not known.
pub(super) fn judge_source(found: &FoundSource, topics: Option<&FoundTopics>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if found.wal_level != "logical" {
        findings.push(Finding::fail(
            "source",
            format!("wal_level is {}, and Debezium needs logical", found.wal_level),
            "ALTER SYSTEM SET wal_level = logical, then restart the database",
        ));
    }
    let is_read = |table: &FoundTable| {
        let ending = format!(".{}.{}", in_topic(&table.schema), in_topic(&table.name));
        topics.is_none_or(|topics| topics.topics.iter().any(|topic| topic.name.ends_with(&ending)))
    };
    let tables: Vec<&FoundTable> = found.tables.iter().filter(|table| is_read(table)).collect();
    findings.extend(tables.iter().filter_map(|table| judge_identity(table)));
    if findings.is_empty() {
        findings
            .push(Finding::ok("source", format!("wal_level logical, {} tables with a key", tables.len())));
    }
    findings.extend(judge_toast(&tables));
    findings
}

/// A name as it stands in a topic's: <prefix>.<schema>.<table>, with `_` for what a topic's name cannot hold.
fn in_topic(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

/// Whether changes of the table can be told by key.
fn judge_identity(table: &FoundTable) -> Option<Finding> {
    let name = table.sql();
    match (table.has_primary_key, table.replica_identity) {
        (_, 'n') => Some(Finding::fail(
            "source",
            format!("{name} has replica identity nothing: its updates and deletes fail once it is published"),
            format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT, or FULL without primary key"),
        )),
        (false, 'd') => Some(Finding::warn(
            "source",
            format!(
                "{name} has neither primary key nor replica identity: its updates and deletes fail once it is \
                 published, and without key the copies of the table stop"
            ),
            format!(
                "ALTER TABLE {name} ADD PRIMARY KEY, or ALTER TABLE {name} REPLICA IDENTITY FULL with the \
                 connector's message.key.columns"
            ),
        )),
        (false, _) => Some(Finding::warn(
            "source",
            format!("{name} has no primary key: without key the copies of the table stop"),
            format!("ALTER TABLE {name} ADD PRIMARY KEY, or the connector's message.key.columns"),
        )),
        (true, _) => None,
    }
}

/// Tables whose updates may come without large values.
fn judge_toast(tables: &[&FoundTable]) -> Option<Finding> {
    let names: Vec<String> = tables
        .iter()
        .filter(|table| table.may_toast && table.replica_identity != 'f')
        .map(|table| table.sql())
        .collect();
    if names.is_empty() {
        return None;
    }
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(Finding::note(
        "source",
        format!(
            "an update leaves out large values (TOAST) that it does not change: the copies keep what they have, and \
             the raw history lists such columns in absent_columns: {shown}{more}"
        ),
        "where the history has to hold every value: ALTER TABLE … REPLICA IDENTITY FULL, which costs the source more WAL",
    ))
}

pub(super) fn judge_mirror(subject: &str, mirror: &Mirror, found: &FoundMirror) -> Vec<Finding> {
    let schema = &mirror.schema;
    let mut findings = Vec::new();
    if found.in_recovery {
        findings.push(Finding::fail(
            subject,
            "the database is a standby, which cannot be written",
            format!("set {subject}.url to the primary"),
        ));
    }
    match found.schema {
        Some((false, _)) | None if !found.may_create_schemas => findings.push(Finding::warn(
            subject,
            "the user may not create schemas, neither for the tables nor for the progress",
            "GRANT CREATE ON DATABASE to the user, or create the schemas and grant CREATE, USAGE on them",
        )),
        Some((true, false)) => findings.push(Finding::fail(
            subject,
            format!("the user may not create tables in the schema {schema}"),
            format!("GRANT CREATE, USAGE ON SCHEMA {schema} to the user"),
        )),
        _ => {}
    }
    if found.foreign_keys > 0 && !found.may_replicate {
        findings.push(Finding::warn(
            subject,
            format!(
                "{} foreign keys in the schema {schema}, which changes of several tables break on their way",
                found.foreign_keys
            ),
            "GRANT SET ON PARAMETER session_replication_role to the user, or drop the foreign keys",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(subject, format!("{} can be written", mirror.url)));
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::cli::check::{FoundTopic, Level};
    use crate::config::DatabaseUrl;

    fn table(name: &str, has_primary_key: bool, replica_identity: char) -> FoundTable {
        let may_toast = name.ends_with("text");
        FoundTable {
            schema: "public".into(),
            name: name.into(),
            has_primary_key,
            replica_identity,
            may_toast,
        }
    }

    fn shown(findings: &[Finding]) -> Vec<(Level, &str)> {
        findings.iter().map(|finding| (finding.level, finding.message.as_str())).collect()
    }

    #[test]
    fn hazards_of_the_source_are_found_in_tables_that_are_read() {
        let found = FoundSource {
            wal_level: "replica".into(),
            tables: vec![
                table("a", true, 'd'),
                table("b", false, 'd'),
                table("c", false, 'f'),
                table("d", true, 'n'),
            ],
        };
        assert_eq!(
            shown(&judge_source(&found, None)),
            [
                (Level::Fail, "wal_level is replica, and Debezium needs logical"),
                (
                    Level::Warn,
                    "public.b has neither primary key nor replica identity: its updates and deletes fail once it is \
                     published, and without key the copies of the table stop"
                ),
                (Level::Warn, "public.c has no primary key: without key the copies of the table stop"),
                (
                    Level::Fail,
                    "public.d has replica identity nothing: its updates and deletes fail once it is published"
                ),
            ]
        );
        let topic = FoundTopic { name: "cdc.public.a".into(), partitions: 1, cleanup_policy: None };
        let topics = FoundTopics { cluster_id: None, topics: vec![topic] };
        let found = FoundSource { wal_level: "logical".into(), ..found };
        assert_eq!(
            shown(&judge_source(&found, Some(&topics))),
            [(Level::Ok, "wal_level logical, 1 tables with a key")]
        );
    }

    #[test]
    fn tables_are_found_under_the_names_that_topics_give_them() {
        let odd = FoundTable { schema: "public".into(), ..table("Odd Ä", false, 'f') };
        let found = FoundSource { wal_level: "logical".into(), tables: vec![odd] };
        let topic = FoundTopic { name: "cdc.public.Odd__".into(), partitions: 1, cleanup_policy: None };
        let topics = FoundTopics { cluster_id: None, topics: vec![topic] };
        assert_eq!(
            shown(&judge_source(&found, Some(&topics))),
            [(Level::Warn, "public.\"Odd Ä\" has no primary key: without key the copies of the table stop")]
        );
    }

    #[test]
    fn tables_whose_updates_leave_values_out_are_named_up_to_a_limit() {
        let names: Vec<String> = (0..12).map(|n| format!("t{n}_text")).collect();
        let mut tables: Vec<_> = names.iter().map(|name| table(name, true, 'd')).collect();
        tables.push(table("full_text", true, 'f'));
        let findings = judge_source(&FoundSource { wal_level: "logical".into(), tables }, None);
        assert_eq!(
            findings.iter().map(|finding| finding.level).collect::<Vec<_>>(),
            [Level::Ok, Level::Note]
        );
        let message = &findings[1].message;
        assert!(message.ends_with("public.t8_text, public.t9_text and 2 more"), "{message}");
    }

    #[test]
    fn hazards_of_a_mirror_are_found() {
        let url = DatabaseUrl::parse("postgres://u:hunter2@h/d").unwrap();
        let mirror = Mirror { url, schema: "public".into(), raw: String::new() };
        let good =
            FoundMirror { may_create_schemas: true, schema: Some((true, true)), ..FoundMirror::default() };
        assert_eq!(
            shown(&judge_mirror("mirrors.m", &mirror, &good)),
            [(Level::Ok, "postgres://u:***@h/d can be written")]
        );
        let bad = FoundMirror {
            in_recovery: true,
            schema: Some((true, false)),
            foreign_keys: 2,
            ..FoundMirror::default()
        };
        let levels: Vec<_> =
            judge_mirror("mirrors.m", &mirror, &bad).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Fail, Level::Fail, Level::Warn]);
        let closed = FoundMirror { schema: Some((false, false)), ..FoundMirror::default() };
        let levels: Vec<_> =
            judge_mirror("mirrors.m", &mirror, &closed).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Warn]);
    }
}
