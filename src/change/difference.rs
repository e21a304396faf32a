//! How two schemas of a table differ, column by column, in words that a person can decide by. Pure.
//!
//! A difference is about what values mean and where they fit, not about names of types: a type that holds every value of
//! the former one is a wider one, whatever it is called. The order of columns makes none, and neither does that of key
//! columns. Differences are stored (in the record of schema changes, and with a table that waits), so their names stay.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::passage::{Passage, passage};
use super::{Column, ColumnType, TableSchema};

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
pub(super) fn differences(before: &TableSchema, after: &TableSchema) -> Vec<Difference> {
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

pub(super) fn column_of<'a>(schema: &'a TableSchema, name: &str) -> Option<&'a Column> {
    schema.index_of(name).and_then(|index| schema.columns().get(index))
}

pub(super) fn kind_of(from: &ColumnType, to: &ColumnType) -> DifferenceKind {
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

pub(super) fn key_difference(before: &TableSchema, after: &TableSchema) -> Option<Difference> {
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

/// How a column of the events differs from the one that is stored.
pub(super) fn against(stored: &TableSchema, column: &Column) -> Option<Difference> {
    let to = column_of(stored, &column.name)?;
    let (before, after) = (type_words(&to.column_type), type_words(&column.column_type));
    Some(difference(kind_of(&to.column_type, &column.column_type), column, Some(before), Some(after)))
}
