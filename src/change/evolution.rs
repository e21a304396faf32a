//! What a sink does about events whose schema is not the one it knows, by the policy of their table. Pure.
//!
//! The rules. A column that the events lack is null in their rows, whether it was dropped or not there yet: Debezium
//! sends whole rows, and where old events come again after newer ones, those come again as well. A column of the sink
//! never narrows by itself: events of a narrower type that was seen before, or is older than the newest one, are old
//! ones, and their values fit; a narrower type that is new would leave the sink with what the source has cut off, so it
//! waits for somebody. A column that was dropped and is added again is another column: the former one keeps its values
//! under another name. The order of columns means nothing, and neither does that of key columns.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::lineage::{Described, Lineage};
use super::passage::{Passage, passage};
use super::{Column, ColumnType, SchemaChange, TableSchema};

/// What kind of difference two schemas have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A column is new.
    Add,
    /// A column is gone.
    Drop,
    /// A column has a type that holds every value of its former one.
    Widen,
    /// A column's values mean something else and are stored alike.
    Retype,
    /// A column has a type that its former one holds every value of.
    Narrow,
    /// A column has a type that has nothing to do with its former one.
    Incompatible,
    /// A column may be null and might not, or the other way round.
    Nullable,
    /// Other columns are the key.
    Key,
}

impl DifferenceKind {
    /// The name in the audit table and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Drop => "drop",
            Self::Widen => "widen",
            Self::Retype => "retype",
            Self::Narrow => "narrow",
            Self::Incompatible => "incompatible",
            Self::Nullable => "nullable",
            Self::Key => "key",
        }
    }
}

/// One difference between two schemas. **Persisted: do not rename a member.**
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Its kind.
    pub kind: DifferenceKind,
    /// The column; the columns of the key, separated by commas, where that differs.
    pub column: String,
    /// Its type before, or `nullable` and `not null`.
    pub before: Option<String>,
    /// Its type after.
    pub after: Option<String>,
    /// What else there is to say.
    pub note: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before.as_deref().unwrap_or("?"), self.after.as_deref().unwrap_or("?"));
        match self.kind {
            DifferenceKind::Add => write!(f, "column {} ({after}) is new", self.column)?,
            DifferenceKind::Drop => write!(f, "column {} ({before}) is gone", self.column)?,
            DifferenceKind::Key => write!(f, "the key was ({before}) and is ({after})")?,
            _ => write!(f, "column {} was {before} and is {after}", self.column)?,
        }
        match &self.note {
            Some(note) => write!(f, " ({note})"),
            None => Ok(()),
        }
    }
}

/// Everything that is new about a schema, one difference a column.
fn differences(before: &TableSchema, after: &TableSchema) -> Vec<Difference> {
    let mut found = Vec::new();
    for column in after.columns() {
        let Some(former) = column_of(before, &column.name) else {
            found.push(difference(DifferenceKind::Add, column, None, Some(type_words(&column.column_type))));
            continue;
        };
        if former.column_type != column.column_type {
            let kind = kind_of(&former.column_type, &column.column_type);
            let (from, to) = (type_words(&former.column_type), type_words(&column.column_type));
            found.push(difference(kind, column, Some(from), Some(to)));
        }
        if former.nullable != column.nullable {
            let words = |nullable: bool| Some(if nullable { "nullable" } else { "not null" }.to_owned());
            let (from, to) = (words(former.nullable), words(column.nullable));
            found.push(difference(DifferenceKind::Nullable, column, from, to));
        }
    }
    for column in before.columns().iter().filter(|column| after.index_of(&column.name).is_none()) {
        found.push(difference(DifferenceKind::Drop, column, Some(type_words(&column.column_type)), None));
    }
    hint_renames(&mut found);
    found.extend(key_difference(before, after));
    found
}

fn difference(
    kind: DifferenceKind,
    column: &Column,
    before: Option<String>,
    after: Option<String>,
) -> Difference {
    Difference { kind, column: column.name.to_string(), before, after, note: None }
}

fn column_of<'a>(schema: &'a TableSchema, name: &str) -> Option<&'a Column> {
    schema.index_of(name).and_then(|index| schema.columns().get(index))
}

fn kind_of(from: &ColumnType, to: &ColumnType) -> DifferenceKind {
    match passage(from, to) {
        Passage::Same => DifferenceKind::Retype,
        Passage::Lossless => DifferenceKind::Widen,
        _ if passage(to, from).is_lossless() => DifferenceKind::Narrow,
        _ => DifferenceKind::Incompatible,
    }
}

/// A column that went and one of the same type that came may be one column with another name. Nothing in the events
/// says so, and a wrong guess would mix two columns up, so it is only said.
fn hint_renames(found: &mut [Difference]) {
    let of = |kind: DifferenceKind, found: &[Difference]| -> Vec<(usize, String, Option<String>)> {
        let of_kind = found.iter().enumerate().filter(|(_, difference)| difference.kind == kind);
        of_kind
            .map(|(index, each)| {
                (index, each.column.clone(), each.before.clone().or_else(|| each.after.clone()))
            })
            .collect()
    };
    let (added, dropped) = (of(DifferenceKind::Add, found), of(DifferenceKind::Drop, found));
    for (at, name, kind) in &added {
        let alike = dropped.iter().filter(|(_, _, other)| other == kind).collect::<Vec<_>>();
        let rivals = added.iter().filter(|(_, _, other)| other == kind).count();
        let ([(gone_at, gone, _)], 1) = (alike.as_slice(), rivals) else { continue };
        if let Some(difference) = found.get_mut(*at) {
            difference.note = Some(format!("perhaps the former {gone}, renamed: it has the same type"));
        }
        if let Some(difference) = found.get_mut(*gone_at) {
            difference.note = Some(format!("perhaps renamed to {name}: it has the same type"));
        }
    }
}

fn key_difference(before: &TableSchema, after: &TableSchema) -> Option<Difference> {
    let names = |schema: &TableSchema| schema.key_names().map(str::to_owned).collect::<Vec<_>>();
    let (from, to) = (names(before), names(after));
    if from.iter().collect::<BTreeSet<_>>() == to.iter().collect() {
        return None;
    }
    Some(Difference {
        kind: DifferenceKind::Key,
        column: to.join(", "),
        before: Some(from.join(", ")),
        after: Some(to.join(", ")),
        note: None,
    })
}

/// A type in words for people.
pub fn type_words(column_type: &ColumnType) -> String {
    let name = match column_type {
        ColumnType::Decimal { precision, scale } => return format!("decimal({precision},{scale})"),
        ColumnType::Bits(length) => return format!("bit({length})"),
        ColumnType::Geometric(shape) => return shape.name().to_owned(),
        ColumnType::Array(element) => return format!("{}[]", type_words(element)),
        ColumnType::Other(name) => return name.clone(),
        other => serde_json::to_value(other),
    };
    match name {
        Ok(serde_json::Value::String(name)) => name.replace('_', ""),
        Ok(other) => other.to_string(),
        Err(_) => format!("{column_type:?}"),
    }
}

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

/// How a column of the events differs from the one that is stored.
fn against(stored: &TableSchema, column: &Column) -> Option<Difference> {
    let to = column_of(stored, &column.name)?;
    let (before, after) = (type_words(&to.column_type), type_words(&column.column_type));
    Some(difference(kind_of(&to.column_type, &column.column_type), column, Some(before), Some(after)))
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
