//! What a sink does about events whose schema is not the one it knows, by the policy of their table. Pure.
//!
//! The rules. A column that the events lack is null in their rows, whether it was dropped or not there yet: Debezium
//! sends whole rows, and where old events come again after newer ones, those come again as well. A column of the sink
//! never narrows by itself: events of a narrower type that was seen before, or is older than the newest one, are old
//! ones, and their values fit; a narrower type that is new would leave the sink with what the source has cut off, so it
//! waits for somebody. A column that was dropped and is added again is another column: the former one keeps its values
//! under another name. What counts as a difference says [`difference`](super::difference).
//!
//! A schema that was seen before is the source's again, and not that of an old event, where a change has it that was
//! committed after the newest schema had begun: whoever alters a table waits for those who have changed it and lets nobody
//! else change it meanwhile, so old events are older than that. What does not say so clearly is taken for old ([`Teller`]).

use std::sync::Arc;

use super::difference::{Difference, DifferenceKind, against, column_of, differences, key_difference};
use super::lineage::{Described, Lineage};
use super::passage::{Passage, passage};
use super::{Column, SchemaChange, TableSchema};

/// A change of a sink's table, and what is known afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaStep {
    /// The source's columns as the sink stores them afterwards. A column with another type than before has its stored
    /// values converted.
    pub stored: TableSchema,
    /// Columns that get another name first, and from then on hold what they hold: from, to.
    pub renames: Vec<(String, String)>,
    /// What is remembered from then on.
    pub lineage: Lineage,
    /// What was different.
    pub differences: Vec<Difference>,
}

/// What is to be done before rows of a schema can be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: they can be aligned with what is stored.
    Settled,
    /// This.
    Change(Box<SchemaStep>),
    /// Nothing can be done without somebody's word, because of these.
    Refuse(Vec<Difference>),
}

/// Who has told a schema, and what it says where that schema was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// Changes: the table was altered to it again.
    Changes,
    /// Rows that a snapshot has read. They may have columns that changes never have (generated ones), now and then.
    Snapshot,
    /// Nobody: events without schema block have the columns that a decoder has met, and several source tables take turns.
    Unsure,
}

/// The events of one schema, as far as their order says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Commit time in the source of the first, microseconds since 1970 UTC; 0 where not known.
    pub first: i64,
    /// The same of the newest.
    pub newest: i64,
    /// Who they are.
    pub by: Teller,
}

/// Decides about events with the schema `events`. `stored` is what the sink has, and `lineage` what it remembers.
pub fn judge(
    stored: &TableSchema,
    lineage: &Lineage,
    events: &TableSchema,
    told: Told,
    policy: SchemaChange,
) -> Verdict {
    if events == stored && lineage.latest.is_none() {
        return Verdict::Settled;
    }
    let described = Described::from(events);
    let latest = lineage.latest.as_ref().map_or_else(|| stored.clone(), Described::schema);
    let differences = differences(&latest, events);
    let since = lineage.since;
    let later = told.newest != 0 && since != 0 && told.newest > since;
    let seen = lineage.has_seen(&described.fingerprint());
    let again = seen && later && told.by == Teller::Changes;
    let older = differences.is_empty() || (told.newest != 0 && told.newest < since) || (seen && !again);
    let of_events = (described, told.first);
    match policy {
        SchemaChange::Ignore => ignore(stored, lineage, events, of_events, differences, older),
        _ if !older => new_schema(stored, lineage, &latest, events, of_events, differences, policy),
        _ => {
            let verdict = old_events(stored, lineage, events, &of_events.0, differences, policy);
            let by_snapshot = seen && later && told.by == Teller::Snapshot;
            if by_snapshot && verdict == Verdict::Settled {
                columns_are_back(stored, lineage, &latest, events)
            } else {
                verdict
            }
        }
    }
}

/// Rows of a snapshot have columns again that the newest schema lacks: if the next change has them, too, what these rows
/// brought is theirs, and not what is left of the ones that were dropped. That is remembered, and nothing else done.
fn columns_are_back(
    stored: &TableSchema,
    lineage: &Lineage,
    latest: &TableSchema,
    events: &TableSchema,
) -> Verdict {
    let is_new = |name: &&Arc<str>| latest.index_of(name).is_none() && !lineage.is_back(name);
    let names = events.columns().iter().map(|column| &column.name).filter(is_new);
    let names: Vec<String> = names.map(ToString::to_string).collect();
    if names.is_empty() {
        return Verdict::Settled;
    }
    let lineage = lineage.with_columns_back(names);
    Verdict::Change(Box::new(SchemaStep {
        stored: stored.clone(),
        renames: Vec::new(),
        lineage,
        differences: Vec::new(),
    }))
}

/// The table keeps its columns.
fn ignore(
    stored: &TableSchema,
    lineage: &Lineage,
    events: &TableSchema,
    (described, first): (Described, i64),
    differences: Vec<Difference>,
    older: bool,
) -> Verdict {
    let no_way = |column: &Column| {
        column_of(stored, &column.name)
            .is_some_and(|to| passage(&column.column_type, &to.column_type) == Passage::None)
    };
    let key = key_difference(stored, events).into_iter();
    let refused: Vec<Difference> = key
        .chain(
            events
                .columns()
                .iter()
                .filter(|column| no_way(column))
                .filter_map(|column| against(stored, column)),
        )
        .collect();
    if !refused.is_empty() {
        return Verdict::Refuse(refused);
    }
    if older {
        return Verdict::Settled;
    }
    let lineage = lineage.followed_by(described, first);
    Verdict::Change(Box::new(SchemaStep {
        stored: stored.clone(),
        renames: Vec::new(),
        lineage,
        differences,
    }))
}

/// Events of a schema that is not the newest one. What they need beyond the table is added, for their values are true.
fn old_events(
    stored: &TableSchema,
    lineage: &Lineage,
    events: &TableSchema,
    described: &Described,
    differences: Vec<Difference>,
    policy: SchemaChange,
) -> Verdict {
    let seen = lineage.has_seen(&described.fingerprint());
    if let Some(key) = key_difference(stored, events) {
        return Verdict::Refuse(vec![key]);
    }
    let mut columns = stored.columns().to_vec();
    let mut refused = Vec::new();
    for column in events.columns() {
        let Some(to) = columns.iter_mut().find(|to| to.name == column.name) else {
            // One that was left out on purpose stays out.
            if !seen {
                columns.push(column.clone());
            }
            continue;
        };
        let (into, from) =
            (passage(&column.column_type, &to.column_type), passage(&to.column_type, &column.column_type));
        match into {
            Passage::Same | Passage::Lossless => {}
            // What was narrowed by hand takes the old values that fit, and stops at those that do not.
            Passage::Checked if seen => {}
            _ if from.is_lossless() => to.column_type = column.column_type.clone(),
            _ => refused.extend(against(stored, column)),
        }
    }
    if !refused.is_empty() {
        return Verdict::Refuse(refused);
    }
    let wanted = TableSchema::new(columns, stored.key().to_vec());
    if wanted == *stored {
        return Verdict::Settled;
    }
    if policy == SchemaChange::Halt {
        return Verdict::Refuse(differences);
    }
    let lineage = lineage.preceded_by(described);
    let note = |difference: Difference| Difference {
        note: Some("of events that are older than the newest schema".to_owned()),
        ..difference
    };
    let relevant = |difference: &Difference| {
        column_of(&wanted, &difference.column) != column_of(stored, &difference.column)
    };
    let differences = differences.into_iter().filter(relevant).map(note).collect();
    Verdict::Change(Box::new(SchemaStep { stored: wanted, renames: Vec::new(), lineage, differences }))
}

/// Events of a schema that is new.
fn new_schema(
    stored: &TableSchema,
    lineage: &Lineage,
    latest: &TableSchema,
    events: &TableSchema,
    (described, first): (Described, i64),
    mut differences: Vec<Difference>,
    policy: SchemaChange,
) -> Verdict {
    let waits = |difference: &Difference| match policy {
        SchemaChange::Halt => difference.kind != DifferenceKind::Nullable,
        _ => matches!(
            difference.kind,
            DifferenceKind::Narrow | DifferenceKind::Incompatible | DifferenceKind::Key
        ),
    };
    if differences.iter().any(waits) {
        return Verdict::Refuse(differences);
    }
    let mut columns = stored.columns().to_vec();
    let mut renames = Vec::new();
    let mut refused = Vec::new();
    for column in events.columns() {
        let returns = latest.index_of(&column.name).is_none() && !lineage.is_back(&column.name);
        let Some(at) = columns.iter().position(|to| to.name == column.name) else {
            columns.push(column.clone());
            continue;
        };
        if returns {
            let kept = free_name(&columns, events, &column.name);
            note(&mut differences, &column.name, &format!("the one dropped before is kept as {kept}"));
            renames.push((column.name.to_string(), kept.clone()));
            if let Some(former) = columns.get_mut(at) {
                former.name = Arc::from(kept);
            }
            columns.push(column.clone());
            continue;
        }
        let Some(to) = columns.get_mut(at) else { continue };
        match passage(&column.column_type, &to.column_type) {
            // A text has the meaning that the newest events give to it.
            Passage::Same => to.column_type = column.column_type.clone(),
            Passage::Lossless => {}
            _ if passage(&to.column_type, &column.column_type).is_lossless() => {
                to.column_type = column.column_type.clone();
            }
            _ => refused.extend(against(stored, column)),
        }
        to.nullable = column.nullable;
    }
    if !refused.is_empty() {
        return Verdict::Refuse(refused);
    }
    let lineage = lineage.followed_by(described, first);
    // The key has the names that it had, at their new places.
    let stored = Described::from(&TableSchema::new(columns, stored.key().to_vec())).schema();
    Verdict::Change(Box::new(SchemaStep { stored, renames, lineage, differences }))
}

fn note(differences: &mut [Difference], column: &str, note: &str) {
    let of =
        |difference: &&mut Difference| difference.kind == DifferenceKind::Add && difference.column == column;
    if let Some(difference) = differences.iter_mut().find(of) {
        difference.note = Some(note.to_owned());
    }
}

/// A name for a column that gives its own away.
pub(super) fn free_name(columns: &[Column], events: &TableSchema, name: &str) -> String {
    let taken = |candidate: &str| {
        let same = |column: &Column| column.name.eq_ignore_ascii_case(candidate);
        columns.iter().any(same) || events.columns().iter().any(same)
    };
    let first = format!("{name}__old");
    if !taken(&first) {
        return first;
    }
    let numbered = (2..).map(|number: u32| format!("{name}__old{number}"));
    let mut numbered = numbered;
    numbered.find(|candidate| !taken(candidate)).unwrap_or(first)
}
