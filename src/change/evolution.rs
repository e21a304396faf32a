//! What a sink does about events whose schema is not the one it knows, by the policy of their table. Pure.
//!
//! The rules. A column that the events lack is null in their rows, whether it was dropped or not there yet: Debezium
//! sends whole rows, and where old events come again after newer ones, those come again as well. A column of the sink
//! never narrows by itself: events of a narrower type that was seen before, or is older than the newest one, are old
//! ones, and their values fit; a narrower type that is new would leave the sink with what the source has cut off, so it
//! waits for somebody. A column that was dropped and is added again is another column: the former one keeps its values
//! under another name. What counts as a difference says [`difference`](super::difference).

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

/// Decides about events with the schema `events`, the newest of which was committed in the source at `newest`
/// (microseconds since 1970 UTC, 0 where not known) and the first at `first`.
///
/// `stored` is what the sink has, and `lineage` what it remembers.
pub fn judge(
    stored: &TableSchema,
    lineage: &Lineage,
    events: &TableSchema,
    (first, newest): (i64, i64),
    policy: SchemaChange,
) -> Verdict {
    if events == stored && lineage.latest.is_none() {
        return Verdict::Settled;
    }
    let described = Described::from(events);
    let latest = lineage.latest.as_ref().map_or_else(|| stored.clone(), Described::schema);
    let differences = differences(&latest, events);
    let known = lineage.has_seen(&described.fingerprint()) || differences.is_empty();
    let older = known || (newest != 0 && newest < lineage.since);
    match policy {
        SchemaChange::Ignore => ignore(stored, lineage, events, (described, first), differences, older),
        _ if older => old_events(stored, lineage, events, &described, differences, policy),
        _ => new_schema(stored, lineage, &latest, events, (described, first), differences, policy),
    }
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
        let returns = latest.index_of(&column.name).is_none();
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
