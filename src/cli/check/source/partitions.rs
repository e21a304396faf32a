//! Partitioned tables: under which name the rows of their partitions are sent.
//!
//! Each partition is a table of its own to Debezium, unless the publication says `publish_via_partition_root`. What is sent
//! under two names, or under one by a snapshot and under the other by changes, makes two copies of which none is whole.

use super::{FoundSource, FoundTable, listed};
use crate::cli::check::Finding;

/// What is to be said of the partitions among the tables that are read.
pub(super) fn judge(found: &FoundSource, tables: &[&FoundTable]) -> Vec<Finding> {
    let beside = beside_their_root(tables);
    beside
        .into_iter()
        .chain(sent_as_their_root(found, tables))
        .chain(sent_as_partitions(found, tables))
        .collect()
}

/// Whether a table is a partition of another one.
fn is_part(partition: &FoundTable, table: &FoundTable) -> bool {
    let root = partition.partition_of.as_ref();
    root.is_some_and(|(schema, name)| (schema, name) == (&table.schema, &table.name))
}

/// Partitions that are sent beside the table that they are part of.
fn beside_their_root(tables: &[&FoundTable]) -> Option<Finding> {
    let sent_twice = |partition: &&&FoundTable| tables.iter().any(|table| is_part(partition, table));
    let names: Vec<String> = tables.iter().filter(sent_twice).map(|table| table.sql()).collect();
    (!names.is_empty()).then(|| {
        Finding::warn(
            "source",
            format!(
                "partitions have topics beside the table that they are part of: a snapshot sends their rows to both, and a \
                 change to one of the two: {}",
                listed(&names)
            ),
            "leave the partitioned table out of the connector's table.include.list, and gather its partitions with sources in \
             [[tables]]; or publish.via.partition.root=true in the connector, without the partitions",
        )
    })
}

/// Partitions with a topic whose changes a publication sends under another name.
fn sent_as_their_root(found: &FoundSource, tables: &[&FoundTable]) -> Option<Finding> {
    let is_sent_so = |partition: &&&FoundTable| {
        let root = partition.partition_of.as_ref();
        root.is_some_and(|root| found.published_as_roots.contains(root))
    };
    let names: Vec<String> = tables.iter().filter(is_sent_so).map(|table| table.sql()).collect();
    (!names.is_empty()).then(|| {
        Finding::warn(
            "source",
            format!(
                "partitions have topics, and a publication sends their changes under the table that they are part of \
                 (publish_via_partition_root): if the connector uses it, these topics have rows of snapshots alone: {}",
                listed(&names)
            ),
            "read the topic of the partitioned table instead, without sources in [[tables]]; or have the connector use a \
             publication without publish_via_partition_root",
        )
    })
}

/// Partitioned tables with a topic whose changes no publication sends under their name.
fn sent_as_partitions(found: &FoundSource, tables: &[&FoundTable]) -> Option<Finding> {
    let is_sent_so = |table: &&&FoundTable| {
        let published = |(schema, name): &(String, String)| (schema, name) == (&table.schema, &table.name);
        found.tables.iter().any(|other| is_part(other, table))
            && !tables.iter().any(|other| is_part(other, table))
            && !found.published_as_roots.iter().any(published)
    };
    let names: Vec<String> = tables.iter().filter(is_sent_so).map(|table| table.sql()).collect();
    (!names.is_empty()).then(|| {
        Finding::warn(
            "source",
            format!(
                "partitioned tables have topics, and no publication sends the changes of their partitions under their name \
                 (publish_via_partition_root): these topics have rows of snapshots alone: {}",
                listed(&names)
            ),
            "publish.via.partition.root=true in the connector, before it creates the publication; or read the topics of the \
             partitions, gathered with sources in [[tables]]",
        )
    })
}
