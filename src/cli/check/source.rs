//! What the source database needs, so that changes can be told by key and no value is left out.
//!
//! Columns are looked at as well, because a setting of the connector is a hazard only where a column is concerned.

mod partitions;
#[cfg(test)]
mod tests;

use tokio_postgres::{Client, Error};

use super::{Finding, FoundTopic, FoundTopics};
use crate::change::{Keyless, OnTruncate, Policies, TableId};

/// What was found in the source database.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundSource {
    wal_level: String,
    tables: Vec<FoundTable>,
    /// Schema and name of partitioned tables under which a publication sends the changes of their partitions.
    published_as_roots: Vec<(String, String)>,
}

/// A table of the source.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundTable {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) has_primary_key: bool,
    /// `pg_class.relreplident`: `d` default, `n` nothing, `f` full, `i` index.
    pub(super) replica_identity: char,
    /// Schema and name of the partitioned table that it is a partition of, on whatever level.
    pub(super) partition_of: Option<(String, String)>,
    pub(super) columns: Vec<FoundColumn>,
}

/// A column of a table.
#[derive(Debug, Clone, Default)]
pub(super) struct FoundColumn {
    pub(super) name: String,
    /// `pg_type.typname`, of a domain that of its base type.
    pub(super) type_name: String,
    pub(super) nullable: bool,
    pub(super) has_default: bool,
    pub(super) generated: bool,
    pub(super) in_key: bool,
    /// Whether its values may be stored out of line (TOAST).
    pub(super) may_toast: bool,
}

impl FoundTable {
    /// The name as SQL takes it.
    pub(super) fn sql(&self) -> String {
        let quoted = |name: &str| {
            let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
        };
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    /// Whether updates may leave values out. Numbers are not looked at: hardly one has thousands of digits.
    pub(super) fn may_toast(&self) -> bool {
        let is_left_out =
            |column: &FoundColumn| column.may_toast && !column.in_key && column.type_name != "numeric";
        self.replica_identity != 'f' && self.columns.iter().any(is_left_out)
    }

    /// Its topics: `<prefix>.<schema>.<table>`, with `_` for what a topic's name cannot hold.
    fn is_of(&self, topic: &FoundTopic) -> bool {
        let in_topic = |name: &str| -> String {
            name.chars()
                .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
                .collect()
        };
        topic.name.ends_with(&format!(".{}.{}", in_topic(&self.schema), in_topic(&self.name)))
    }
}

impl FoundSource {
    /// A source that is set up for Debezium, with these tables.
    #[cfg(test)]
    pub(super) fn of(tables: Vec<FoundTable>) -> Self {
        Self { wal_level: "logical".to_owned(), tables, ..Self::default() }
    }

    /// The tables that have a topic, or all but partitions where the topics are not known.
    pub(super) fn read(&self, topics: Option<&FoundTopics>) -> Vec<&FoundTable> {
        let is_read = |table: &&FoundTable| match topics {
            Some(topics) => topics.topics.iter().any(|topic| table.is_of(topic)),
            None => table.partition_of.is_none(),
        };
        self.tables.iter().filter(is_read).collect()
    }
}

/// Names that one finding shows at most.
const NAMES_SHOWN: usize = 10;

/// A list for a message.
pub(super) fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Values of at most 24 bytes are never stored out of line: so it is with short strings of bits. Numbers go last, where
/// nothing else is left to make a row fit into a page, and those of a declared precision are too short for that.
const COLUMNS: &str = "SELECT n.nspname::text, c.relname::text, c.relreplident::text, \
     EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), \
     a.attname::text, coalesce(base.typname, t.typname)::text, NOT a.attnotnull, \
     a.atthasdef AND a.attgenerated = '', a.attgenerated <> '', \
     CASE WHEN coalesce(base.typname, t.typname) = 'numeric' THEN a.attstorage <> 'p' AND coalesce(nullif(a.atttypmod, -1), t.typtypmod) = -1 \
     WHEN coalesce(base.typname, t.typname) IN ('bit', 'varbit') \
     THEN a.attstorage IN ('x', 'e') AND coalesce(nullif(a.atttypmod, -1), t.typtypmod) NOT BETWEEN 0 AND 128 \
     ELSE a.attstorage IN ('x', 'e') END, \
     EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)), \
     rn.nspname::text, root.relname::text \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_class root ON c.relispartition AND root.oid = pg_partition_root(c.oid) \
     LEFT JOIN pg_namespace rn ON rn.oid = root.relnamespace \
     LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
     LEFT JOIN pg_type t ON t.oid = a.atttypid \
     LEFT JOIN pg_type base ON base.oid = t.typbasetype AND t.typtype = 'd' \
     WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
     ORDER BY 1, 2, a.attnum";

/// The column is new in Postgres 13.
const PUBLISHED_AS_ROOTS: &str = "SELECT DISTINCT t.schemaname::text, t.tablename::text FROM pg_publication p \
     JOIN pg_publication_tables t ON t.pubname = p.pubname \
     WHERE to_jsonb(p) ->> 'pubviaroot' = 'true' ORDER BY 1, 2";

pub(super) async fn look_at_source(client: Client) -> Result<FoundSource, String> {
    let look = async {
        let wal_level = client.query_one("SHOW wal_level", &[]).await?.try_get(0)?;
        let mut tables: Vec<FoundTable> = Vec::new();
        for row in client.query(COLUMNS, &[]).await? {
            let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let identity: String = row.try_get(2)?;
            let column = match row.try_get(4)? {
                Some(name) => Some(FoundColumn {
                    name,
                    type_name: row.try_get(5)?,
                    nullable: row.try_get(6)?,
                    has_default: row.try_get(7)?,
                    generated: row.try_get(8)?,
                    may_toast: row.try_get(9)?,
                    in_key: row.try_get(10)?,
                }),
                None => None,
            };
            match tables.last_mut().filter(|table| table.schema == schema && table.name == name) {
                Some(table) => table.columns.extend(column),
                None => tables.push(FoundTable {
                    schema,
                    name,
                    has_primary_key: row.try_get(3)?,
                    replica_identity: identity.chars().next().unwrap_or('d'),
                    partition_of: row.try_get::<_, Option<String>>(11)?.zip(row.try_get(12)?),
                    columns: column.into_iter().collect(),
                }),
            }
        }
        let published = client.query(PUBLISHED_AS_ROOTS, &[]).await?;
        let names = published.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let published_as_roots = names.collect::<Result<Vec<_>, Error>>()?;
        Ok(FoundSource { wal_level, tables, published_as_roots })
    };
    look.await.map_err(|error| reason(&error))
}

/// What the server said; the client library's own text does not repeat it.
pub(super) fn reason(error: &Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned())
}

/// Judges the tables that have a topic, or all where the topics are not known.
pub(super) fn judge(found: &FoundSource, topics: Option<&FoundTopics>, policies: &Policies) -> Vec<Finding> {
    let mut findings = Vec::new();
    if found.wal_level != "logical" {
        findings.push(Finding::fail(
            "source",
            format!("wal_level is {}, and Debezium needs logical", found.wal_level),
            "ALTER SYSTEM SET wal_level = logical, then restart the database",
        ));
    }
    let tables = found.read(topics);
    if tables.is_empty() {
        findings.push(judge_nothing(found));
        return findings;
    }
    let policy = |table: &FoundTable| policies.of(&TableId::new("", &table.schema, &table.name));
    findings.extend(tables.iter().filter_map(|table| judge_identity(table, policy(table).keyless)));
    findings.extend(tables.iter().filter_map(|table| judge_generated(table)));
    if findings.is_empty() {
        findings
            .push(Finding::ok("source", format!("wal_level logical, {} tables with a key", tables.len())));
    }
    findings.extend(judge_toast(&tables));
    let applied = |table: &FoundTable| policy(table).on_truncate == OnTruncate::Apply;
    if let Some(topics) = topics {
        findings.extend(partitions::judge(found, &tables));
        findings.extend(judge_topics(&tables, topics, applied));
    }
    findings
}

/// Nothing can be said, which is not that all is well.
fn judge_nothing(found: &FoundSource) -> Finding {
    if found.tables.is_empty() {
        return Finding::warn(
            "source",
            "this database has no tables",
            "see the database that source.url names",
        );
    }
    Finding::warn(
        "source",
        format!(
            "none of its {} tables has a topic by the name that Debezium gives it (PREFIX.SCHEMA.TABLE), so none was looked at",
            found.tables.len()
        ),
        "see source.url and kafka.topics; where a transform of the connector gives topics other names, compare replica \
         identities and keys by hand",
    )
}

/// Whether changes of the table can be told by key.
fn judge_identity(table: &FoundTable, keyless: Keyless) -> Option<Finding> {
    let name = table.sql();
    let full = format!("ALTER TABLE {name} ADD PRIMARY KEY, or ALTER TABLE {name} REPLICA IDENTITY FULL");
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
                 published"
            ),
            full,
        )),
        (true, _) | (false, 'i') => None,
        (false, _) => Some(match keyless {
            Keyless::MatchRow => Finding::note(
                "source",
                format!(
                    "{name} has no primary key: a delete or an update takes one of the rows that are equal"
                ),
                format!("ALTER TABLE {name} ADD PRIMARY KEY, which is faster, too"),
            ),
            Keyless::Append => Finding::warn(
                "source",
                format!("{name} has no primary key: its copies only ever get more rows (keyless = append)"),
                format!("ALTER TABLE {name} ADD PRIMARY KEY, or keyless = \"match_row\" for it"),
            ),
            Keyless::Stop => Finding::warn(
                "source",
                format!("{name} has no primary key: its copies stop (keyless = stop)"),
                format!("ALTER TABLE {name} ADD PRIMARY KEY, or keyless = \"match_row\" for it"),
            ),
        }),
    }
}

/// Columns that only snapshots hold.
fn judge_generated(table: &FoundTable) -> Option<Finding> {
    let name = table.sql();
    let generated: Vec<String> =
        table.columns.iter().filter(|column| column.generated).map(|column| column.name.clone()).collect();
    (!generated.is_empty()).then(|| {
        Finding::warn(
            "source",
            format!(
                "{name} has generated columns, which snapshots hold and changes do not: copies have null in them \
                 after the first change of a row: {}",
                listed(&generated)
            ),
            "leave them out of the snapshots, too (the connector's column.exclude.list), and compute them where the \
             copies are read",
        )
    })
}

/// Tables whose updates may come without large values.
fn judge_toast(tables: &[&FoundTable]) -> Option<Finding> {
    let names: Vec<String> =
        tables.iter().filter(|table| table.may_toast()).map(|table| table.sql()).collect();
    (!names.is_empty()).then(|| {
        Finding::note(
            "source",
            format!(
                "an update leaves out large values (TOAST) that it does not change: the copies keep what they have, \
                 and the raw history lists such columns in absent_columns: {}",
                listed(&names)
            ),
            "where the history has to hold every value: ALTER TABLE … REPLICA IDENTITY FULL, which costs the source \
             more WAL",
        )
    })
}

/// What a table and its topic make of each other.
fn judge_topics(
    tables: &[&FoundTable],
    topics: &FoundTopics,
    truncates: impl Fn(&FoundTable) -> bool,
) -> Vec<Finding> {
    let named = |is: &dyn Fn(&FoundTable, &FoundTopic) -> bool| -> Vec<String> {
        let of =
            |table: &FoundTable| topics.topics.iter().any(|topic| table.is_of(topic) && is(table, topic));
        tables.iter().filter(|table| of(table)).map(|table| table.sql()).collect()
    };
    let compacted = named(&|table, topic| {
        let compacts = topic.cleanup_policy.as_ref().is_some_and(|policy| policy.contains("compact"));
        compacts && table.may_toast()
    });
    let keyless = named(&|table, topic| topic.partitions > 1 && !table.has_primary_key);
    let truncated = named(&|table, topic| topic.partitions > 1 && truncates(table));
    let mut findings = Vec::new();
    if !compacted.is_empty() {
        findings.push(Finding::warn(
            "source",
            format!(
                "compaction removes the records that hold large values (TOAST) and keeps later ones that leave them \
                 out: who reads such a topic from the beginning has null in their place: {}",
                listed(&compacted)
            ),
            "set cleanup.policy=delete on the topics, or ALTER TABLE … REPLICA IDENTITY FULL",
        ));
    }
    if !keyless.is_empty() {
        findings.push(Finding::warn(
            "source",
            format!(
                "without primary key on several partitions, so that changes have no order: {}",
                listed(&keyless)
            ),
            "create these topics with one partition (topic.creation.default.partitions=1), or add a primary key",
        ));
    }
    if !truncated.is_empty() {
        findings.push(Finding::note(
            "source",
            format!(
                "a truncate has no order among the changes on other partitions: it waits until those before its arrival \
                 are applied: {}",
                listed(&truncated)
            ),
            "for a strict order one partition; on_truncate = \"stop\" to be asked",
        ));
    }
    findings
}
