//! Schema changes of the source, brought into a mirrored table before the rows that need them.
//!
//! What is to be done is decided by [`look`]; here it becomes DDL. A column is altered where it has the type that the
//! mirror gives to such columns; one that somebody made otherwise is left alone while it can hold the values exactly.

use std::borrow::Cow;
use std::sync::Arc;

use tokio_postgres::Client;

use super::assign::assignment;
use super::catalog::{self, TargetTable};
use super::names::{TargetName, quoted};
use super::native::Available;
use super::plan::type_refusal;
use super::schemas::{Fate, Memory, Remembered, SchemaTables};
use super::session::Session;
use super::sqlstate::Trouble;
use super::types::{TargetType, Wire};
use crate::change::{
    Batch, ChangeBatch, Column, ColumnType, Lineage, Met, Outlook, Pending, SchemaChange, SchemaStep,
    TableId, TablePolicy, TableSchema, conform, look,
};
use crate::failpoint;

/// Rounds of looking at what is remembered: other instances may change it in between.
const ROUNDS: usize = 5;

/// A table's part of a batch, in the form that the mirror stores.
pub(super) struct Conformed {
    pub(super) changes: Vec<ChangeBatch>,
    /// Kinds of the changes that its schema underwent for that.
    pub(super) kinds: Vec<&'static str>,
}

/// Follows the schemas of one table's changes.
pub(super) struct Follower<'a> {
    pub(super) tables: &'a SchemaTables,
    pub(super) session: &'a mut Session,
    pub(super) memory: &'a mut Memory,
    pub(super) table: &'a TableId,
    pub(super) target: &'a TargetName,
    pub(super) policy: &'a TablePolicy,
}

impl Follower<'_> {
    /// Makes the table ready for the changes that `keep` lets through and gives them in its form.
    pub(super) async fn follow(
        &mut self,
        batch: &Batch,
        changes: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Conformed, Trouble> {
        let mut kinds = Vec::new();
        for _ in 0..ROUNDS {
            let Some(known) = self.remembered(changes, &keep).await? else {
                return Ok(Conformed { changes: Vec::new(), kinds });
            };
            let Outlook { aligned, steps, refused } =
                look((&known.stored, &known.lineage), batch, changes, self.policy, &keep)
                    .map_err(|unfit| trouble(format!("table {}: {unfit}", self.table)))?;
            if let Some(pending) = refused {
                if self.refuse(&known, &pending).await? {
                    return Err(trouble(pending.text(self.table)));
                }
                continue;
            }
            let Some(last) = steps.last() else {
                return Ok(Conformed { changes: conformed(&aligned, &known.stored)?, kinds });
            };
            let after =
                Remembered { stored: Arc::new(last.step.stored.clone()), lineage: last.step.lineage.clone() };
            if self.change(&known, &after, &steps).await? {
                let differences = steps.iter().flat_map(|met| &met.step.differences);
                kinds.extend(differences.map(|difference| difference.kind.name()));
                return Ok(Conformed { changes: conformed(&aligned, &after.stored)?, kinds });
            }
        }
        Err(Trouble::Retry {
            class: "conflict",
            message: format!("others kept changing the schema of {}", self.table),
        })
    }

    /// What is remembered of the table, from its first event on; `None` where no change counts.
    async fn remembered(
        &mut self,
        changes: &[&ChangeBatch],
        keep: impl Fn(u32, i64) -> bool,
    ) -> Result<Option<Remembered>, Trouble> {
        if let Some(known) = self.memory.get(self.table) {
            return Ok(Some(known.clone()));
        }
        let first = changes.iter().find_map(|change| {
            let mut places = change.partitions.iter().zip(&change.offsets);
            let row = places.position(|(&partition, &offset)| keep(partition, offset))?;
            Some((&change.schema, change.source_micros.get(row).copied().unwrap_or(0)))
        });
        let Some((schema, since)) = first else { return Ok(None) };
        let new = Remembered::first(schema, since);
        let client = &self.session.client;
        self.tables.introduce(client, self.table, &new).await?;
        let known = self.tables.read_locked(client, self.table).await?.unwrap_or(new);
        self.memory.insert(self.table.clone(), known.clone());
        Ok(Some(known))
    }

    /// Begins a transaction in which `known` is what is remembered; `false`, without one, where it is not any more.
    async fn begin(&mut self, known: &Remembered) -> Result<bool, Trouble> {
        // A rewrite takes as long as it takes.
        self.session.client.batch_execute("BEGIN; SET LOCAL statement_timeout = 0").await?;
        let found = self.tables.read_locked(&self.session.client, self.table).await;
        match found {
            Ok(Some(found)) if found == *known => return Ok(true),
            Ok(Some(found)) => drop(self.memory.insert(self.table.clone(), found)),
            Ok(None) => drop(self.memory.remove(self.table)),
            Err(error) => {
                self.session.roll_back().await?;
                return Err(error);
            }
        }
        self.session.roll_back().await?;
        Ok(false)
    }

    /// Writes down why the table stops, once; `false` where something else is remembered by now.
    async fn refuse(&mut self, known: &Remembered, pending: &Pending) -> Result<bool, Trouble> {
        if known.lineage.pending.as_ref().is_some_and(|waiting| waiting.events == pending.events) {
            return Ok(true);
        }
        let lineage = Lineage { pending: Some(pending.clone()), ..known.lineage.clone() };
        let after = Remembered { lineage, ..known.clone() };
        if !self.begin(known).await? {
            return Ok(false);
        }
        let written = async {
            let (client, of) = (&self.session.client, (self.table, self.target));
            self.tables.record(client, of, &pending.differences, &pending.place, Fate::Refused).await?;
            self.tables.update(client, self.table, &after).await
        };
        let written = written.await;
        self.end(written, after).await?;
        Ok(true)
    }

    /// Does what the steps say, and remembers it; `false` where something else is remembered by now.
    async fn change(
        &mut self,
        known: &Remembered,
        after: &Remembered,
        steps: &[Met],
    ) -> Result<bool, Trouble> {
        if !self.begin(known).await? {
            return Ok(false);
        }
        let fate =
            if self.policy.schema_change == SchemaChange::Ignore { Fate::Ignored } else { Fate::Applied };
        let done = async {
            let client = &self.session.client;
            for Met { before, step, place } in steps {
                alter((client, &self.session.available), self.target, before, step).await?;
                let of = (self.table, self.target);
                self.tables.record(client, of, &step.differences, place, fate).await?;
            }
            self.tables.update(client, self.table, after).await
        };
        let done = done.await;
        failpoint::hit("mirror.in_schema_change");
        self.end(done, after.clone()).await?;
        self.session.forget(self.table);
        for difference in steps.iter().flat_map(|met| &met.step.differences) {
            tracing::info!(table = %self.table, target = %self.target, ?fate, "schema change: {difference}");
        }
        Ok(true)
    }

    /// Ends the transaction as its outcome says. After a lost reply the next round finds out what is remembered.
    async fn end(&mut self, outcome: Result<(), Trouble>, after: Remembered) -> Result<(), Trouble> {
        if let Err(error) = outcome {
            self.session.roll_back().await?;
            return Err(error);
        }
        self.session.client.batch_execute("COMMIT").await?;
        self.memory.insert(self.table.clone(), after);
        Ok(())
    }
}

/// Changes a table as `step` says, within the transaction. One that is not there will be created as it has to be.
async fn alter(
    (client, available): (&Client, &Available),
    target: &TargetName,
    before: &TableSchema,
    step: &SchemaStep,
) -> Result<(), Trouble> {
    let found = catalog::read(client, Some(&target.schema), Some(&target.table)).await?.remove(target);
    let Some(found) = found else { return Ok(()) };
    for ddl in statements(target, (&found, available), before, step).map_err(trouble)? {
        client.batch_execute(&ddl).await.map_err(|error| match Trouble::from(error) {
            // Where a stored value does not fit, no row of the batch is to blame.
            Trouble::Table { reason, target } | Trouble::Row { reason, target, .. } => {
                Trouble::Table { reason: format!("{reason}; the mirror needs: {ddl}"), target }
            }
            other => other,
        })?;
        tracing::info!(ddl, "changed the target");
    }
    Ok(())
}

/// The statements that bring a table from `before` to the end of `step`.
pub(super) fn statements(
    target: &TargetName,
    (found, available): (&TargetTable, &Available),
    before: &TableSchema,
    step: &SchemaStep,
) -> Result<Vec<String>, String> {
    let mut statements = Vec::new();
    let mut renamed: Vec<(&str, &str)> = Vec::new();
    for (from, to) in &step.renames {
        if found.column(from).is_some() {
            statements.push(format!(
                "ALTER TABLE {} RENAME COLUMN {} TO {}",
                target.sql(),
                quoted(from),
                quoted(to)
            ));
        }
        renamed.push((from, to));
    }
    for column in step.stored.columns() {
        let name = &*column.name;
        let former = renamed.iter().find(|(_, to)| *to == name).map_or(name, |(from, _)| *from);
        let is_new = renamed.iter().any(|(from, _)| *from == name);
        let stored = before.index_of(former).and_then(|index| before.columns().get(index));
        let there = found.column(former);
        let (Some(stored), Some(there), false) = (stored, there, is_new) else {
            if there.is_none() || is_new {
                statements.push(format!(
                    "ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}",
                    target.sql(),
                    quoted(name),
                    available.created(&column.column_type)
                ));
            }
            continue;
        };
        if stored.column_type == column.column_type || there.generated {
            continue;
        }
        statements.extend(alteration(target, (stored, column), &there.target_type, available)?);
    }
    Ok(statements)
}

/// The statement that gives a column another type, where it needs one.
fn alteration(
    target: &TargetName,
    (before, after): (&Column, &Column),
    found: &TargetType,
    available: &Available,
) -> Result<Option<String>, String> {
    let (from, to) = (available.created(&before.column_type), available.created(&after.column_type));
    if from == to {
        return Ok(None);
    }
    if !is_as_made(&before.column_type, &from, found) {
        let holds = assignment(&Wire::of(&after.column_type), found).is_some();
        return if holds { Ok(None) } else { Err(type_refusal(target, &after.name, &to, found)) };
    }
    let name = quoted(&after.name);
    Ok(Some(format!("ALTER TABLE {} ALTER COLUMN {name} TYPE {to} USING {name}::{to}", target.sql())))
}

/// Whether a column has the type that the mirror gives to columns of this type, which is `created`.
fn is_as_made(column_type: &ColumnType, created: &str, found: &TargetType) -> bool {
    // Text of a limited length is somebody's own choice.
    (*column_type != ColumnType::Text && found.column_type() == *column_type)
        || found.name == without_modifiers(created)
}

/// `numeric[]` of `numeric(5, 2)[]`
fn without_modifiers(sql: &str) -> String {
    match (sql.find('('), sql.rfind(')')) {
        (Some(from), Some(to)) if from < to => {
            let (before, after) = (sql.get(..from), sql.get(to + 1..));
            [before, after].into_iter().flatten().collect()
        }
        _ => sql.to_owned(),
    }
}

fn conformed(
    aligned: &[Cow<'_, ChangeBatch>],
    stored: &Arc<TableSchema>,
) -> Result<Vec<ChangeBatch>, Trouble> {
    let conform = |change: &Cow<'_, ChangeBatch>| {
        if change.schema == *stored {
            return Some(change.clone().into_owned());
        }
        conform(change, stored)
    };
    let conformed: Option<Vec<ChangeBatch>> = aligned.iter().map(conform).collect();
    conformed.ok_or_else(|| trouble("its changes do not have the types that their schema says".to_owned()))
}

fn trouble(reason: String) -> Trouble {
    Trouble::Table { reason, target: None }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::TargetColumn;
    use super::super::types::oid;
    use super::*;

    fn target() -> TargetName {
        TargetName { schema: "public".to_owned(), table: "items".to_owned() }
    }

    fn column(name: &str, column_type: ColumnType) -> Column {
        Column { name: name.into(), column_type, nullable: true }
    }

    fn found(name: &str, oid: u32, sql: &str) -> TargetColumn {
        TargetColumn {
            name: name.to_owned(),
            target_type: TargetType { oid, modifier: -1, name: sql.to_owned(), element: None },
            nullable: true,
            identity_always: false,
            generated: false,
        }
    }

    fn step(columns: Vec<Column>, renames: &[(&str, &str)]) -> SchemaStep {
        SchemaStep {
            stored: TableSchema::new(columns, vec![0]),
            renames: renames.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect(),
            lineage: Lineage::default(),
            differences: Vec::new(),
        }
    }

    #[test]
    fn a_column_as_the_mirror_made_it_is_altered_and_one_made_by_hand_is_left() {
        let before =
            TableSchema::new(vec![column("id", ColumnType::Int32), column("n", ColumnType::Int32)], vec![0]);
        let after = step(vec![column("id", ColumnType::Int64), column("n", ColumnType::Int64)], &[]);
        let table = TargetTable {
            columns: vec![found("id", oid::INT4, "integer"), found("n", oid::NUMERIC, "numeric")],
            ..TargetTable::default()
        };
        assert_eq!(
            statements(&target(), (&table, &Available::default()), &before, &after).unwrap(),
            [r#"ALTER TABLE "public"."items" ALTER COLUMN "id" TYPE bigint USING "id"::bigint"#]
        );
        let narrow = TargetTable {
            columns: vec![found("id", oid::INT4, "integer"), found("n", oid::FLOAT4, "real")],
            ..TargetTable::default()
        };
        let reason = statements(&target(), (&narrow, &Available::default()), &before, &after).unwrap_err();
        assert!(reason.ends_with(r#"ALTER COLUMN "n" TYPE bigint"#), "{reason}");
    }

    #[test]
    fn a_column_that_is_kept_aside_is_renamed_before_its_successor_is_added() {
        let before =
            TableSchema::new(vec![column("id", ColumnType::Int32), column("a", ColumnType::Text)], vec![0]);
        let columns = vec![
            column("id", ColumnType::Int32),
            column("a__old", ColumnType::Text),
            column("a", ColumnType::Date),
        ];
        let table = TargetTable {
            columns: vec![found("id", oid::INT4, "integer"), found("a", oid::TEXT, "text")],
            ..TargetTable::default()
        };
        assert_eq!(
            statements(
                &target(),
                (&table, &Available::default()),
                &before,
                &step(columns, &[("a", "a__old")])
            )
            .unwrap(),
            [
                r#"ALTER TABLE "public"."items" RENAME COLUMN "a" TO "a__old""#,
                r#"ALTER TABLE "public"."items" ADD COLUMN IF NOT EXISTS "a" date"#,
            ]
        );
    }
}
