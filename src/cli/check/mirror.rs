//! What the database of a mirror needs, so that it can be written.

use tokio_postgres::Client;

use super::Finding;
use super::source::reason;
use crate::config::Mirror;

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
    use super::*;
    use crate::cli::check::Level;
    use crate::config::DatabaseUrl;

    fn shown(findings: &[Finding]) -> Vec<(Level, &str)> {
        findings.iter().map(|finding| (finding.level, finding.message.as_str())).collect()
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
