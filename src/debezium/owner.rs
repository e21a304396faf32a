//! Which table a tombstone is of: it has a key and nothing else.
//!
//! Its headers may say so, where the transformation that flattens events adds them, or its key, where Debezium's router
//! has put the name of the table's own topic into it. Else it is the table whose rows the topic brings: that of the newest
//! row or, before the first row that a run reads, the one that the sink has from this topic.
//!
//! Invariant: no row of another table is deleted. Where two tables come into question, and where the sink may have rows
//! of the topic but does not say in which table, there is no answer.

use std::sync::Arc;

use crate::change::TableId;

use super::decoder::{Decoder, topic_at};
use super::envelope::{Source, Text, or_empty};
use super::fault::Decoded;
use super::flattened::table_of_topic;
use super::key::{RecordKey, of_router};
use super::row::Layout;

/// Whose row a tombstone deletes.
#[derive(Debug)]
pub(super) enum Owner {
    /// That of this table.
    Table(Arc<Layout>),
    /// None: the sink has no row of the topic.
    Nobody,
    /// One of several tables, whose rows come in this topic.
    OneOfSeveral,
    /// The sink may have rows of the topic, and no table that its name tells.
    Unsaid,
}

impl From<Option<Arc<Layout>>> for Owner {
    fn from(layout: Option<Arc<Layout>>) -> Self {
        layout.map_or(Self::Nobody, Self::Table)
    }
}

impl Decoder {
    /// The table of a tombstone with this key, of which its headers say `said`.
    pub(super) fn owner_of(
        &mut self,
        topic: usize,
        key: &RecordKey<'_>,
        said: &Source<'_>,
    ) -> Decoded<Owner> {
        let known = topic_at(&mut self.topics, topic)?;
        if said.table.is_some() {
            if let Some(newest) = known.newest.as_ref().filter(|newest| says(said, &newest.source)) {
                return Ok(Owner::Table(Arc::clone(newest)));
            }
            let (of_topic, _) = known.table();
            let schema = said.schema.as_ref().map_or(of_topic, Text::as_str).to_owned();
            let db = said.db.as_ref().map(Text::as_str);
            return Ok(self.owner_named(db, &schema, or_empty(said.table.as_ref())).into());
        }
        if let Some(of) = of_router(key.text) {
            let (schema, table) = table_of_topic(&of);
            return Ok(self.owner_named(None, schema, table).map_or(Owner::OneOfSeveral, Owner::Table));
        }
        if known.several {
            return Ok(Owner::OneOfSeveral);
        }
        Ok(match &known.newest {
            Some(newest) => Owner::Table(Arc::clone(newest)),
            None => self.owner_in_sink(topic),
        })
    }

    /// The table of that name, where it has rows; `db` may not be known.
    fn owner_named(&mut self, db: Option<&str>, schema: &str, table: &str) -> Option<Arc<Layout>> {
        let source = TableId::new(db.unwrap_or_default(), schema, table);
        let table = self.options.routes.of(&source).unwrap_or_else(|| source.clone());
        if let Some(layout) = self.layout_of_rows(&source, &table) {
            return Some(layout);
        }
        let with_rows = self.tables.with_rows().chain(self.in_sink.tables.keys());
        let alike = the_only(with_rows.filter(|other| db.is_none() && is_alike(other, &table)))?;
        let source = TableId { database: Arc::clone(&alike.database), ..source };
        self.layout_of_rows(&source, &alike)
    }

    /// The layout of a table that has rows, from this run or before.
    fn layout_of_rows(&mut self, source: &TableId, table: &TableId) -> Option<Arc<Layout>> {
        let newest = self.tables.newest_of(table);
        newest.or_else(|| {
            let stored = self.in_sink.tables.contains_key(table);
            stored.then(|| self.layout_in_sink(source, table)).flatten()
        })
    }

    /// The table of a topic of which this run has not read a row yet, as the sink has it.
    fn owner_in_sink(&mut self, topic: usize) -> Owner {
        let Some(known) = self.topics.get(topic) else { return Owner::Nobody };
        let (schema, name) = known.table();
        let source = TableId::new("", schema, name);
        let table = self.options.routes.of(&source).unwrap_or_else(|| source.clone());
        let sink = &self.in_sink;
        let fed = |id: &&TableId| {
            let topics = sink.tables.get(*id).and_then(Option::as_ref);
            topics.is_some_and(|topics| topics.contains(&known.name))
        };
        let mut fed = sink.tables.keys().filter(fed);
        let table = match (fed.next(), fed.next()) {
            (Some(_), Some(_)) => return Owner::OneOfSeveral,
            (Some(only), None) => only.clone(),
            (None, _) if sink.tables.contains_key(&table) => table,
            (None, _) if !sink.read.contains(&known.name) => return Owner::Nobody,
            (None, _) => {
                let untold = || sink.tables.iter().filter(|(_, topics)| topics.is_none()).map(|(id, _)| id);
                let of_name = || the_only(untold().filter(|id| id.table == table.table));
                match the_only(untold().filter(|id| is_alike(id, &table))).or_else(of_name) {
                    Some(table) => table,
                    None => return Owner::Unsaid,
                }
            }
        };
        let source = TableId { database: Arc::clone(&table.database), ..source };
        let leads_there = self.options.routes.of(&source).as_ref().unwrap_or(&source) == &table;
        let source = if leads_there { source } else { table.clone() };
        self.layout_of_rows(&source, &table).into()
    }
}

/// Whether what headers say is said of this table; what they leave out may be anything.
fn says(said: &Source<'_>, table: &TableId) -> bool {
    or_empty(said.table.as_ref()) == table.table.as_ref()
        && said.schema.as_ref().is_none_or(|schema| schema.as_str() == table.schema.as_ref())
        && said.db.as_ref().is_none_or(|db| db.as_str() == table.database.as_ref())
}

/// Whether two tables differ in their database at the most.
fn is_alike(one: &TableId, other: &TableId) -> bool {
    one.table == other.table && one.schema == other.schema
}

/// The table that all of `tables` are, if they are one.
fn the_only<'a>(mut tables: impl Iterator<Item = &'a TableId>) -> Option<TableId> {
    let first = tables.next()?;
    tables.all(|other| other == first).then(|| first.clone())
}
