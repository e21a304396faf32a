//! Checks that concern several settings: who would write where somebody else writes.

use std::collections::BTreeMap;

use super::Settings;
use super::reader::Reader;
use crate::change::{TableMode, WriteMode};

/// Notes every conflict.
pub(super) fn find(reader: &mut Reader<'_>, settings: &Settings) {
    if !settings.lake.is_on() && settings.mirrors.is_empty() {
        reader.problem("lake.uri", "nothing to write to: set lake.uri or add a [mirrors.NAME]");
    }
    duplicated_tables(reader, settings);
    if settings.lake.is_on() && !settings.lake.current_tables && settings.lake.raw_table.is_empty() {
        reader.problem("lake.current_tables", "without current tables and raw table, set lake.uri = \"\"");
    }
    if settings.lake.is_on() && settings.lake.current_tables {
        shared_folders(reader, settings);
    }
    shared_schemas(reader, settings);
    histories(reader, settings);
}

/// What a history table cannot be. Said where the table, or else the defaults, says that it is one.
fn histories(reader: &mut Reader<'_>, settings: &Settings) {
    let tables = settings.tables.iter().enumerate();
    let tables = tables.map(|(index, table)| (format!("tables[{index}].mode"), &table.policy));
    for (path, policy) in std::iter::once(("defaults.mode".to_owned(), &settings.defaults)).chain(tables) {
        if policy.mode != TableMode::History {
            continue;
        }
        if policy.write == WriteMode::CopyOnWrite {
            let message = "a history is written by deletion vectors: set write = \"merge-on-read\" beside it";
            reader.problem(&path, message);
        }
        if policy.change_data_feed {
            let message = "a history has no change data feed, its rows are the changes: set change_data_feed = false beside it";
            reader.problem(&path, message);
        }
    }
}

fn duplicated_tables(reader: &mut Reader<'_>, settings: &Settings) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, table) in settings.tables.iter().enumerate() {
        if let Some(first) = first.get(table.source.as_str()) {
            let place = reader.place(&format!("tables[{first}].source"));
            let message = format!("`{}` is set twice: first at {place}", table.source);
            reader.problem(&format!("tables[{index}].source"), message);
        } else {
            first.insert(&table.source, index);
        }
    }
}

/// Folders of the tables that settings name. Tables that only the topics know are checked when they are first seen.
fn shared_folders(reader: &mut Reader<'_>, settings: &Settings) {
    let lake = &settings.lake;
    let is_raw = |folder: &str| {
        !lake.raw_table.is_empty() && folder.split('/').next() == Some(lake.raw_table.as_str())
    };
    if is_raw(&lake.layout) {
        let message =
            format!("`{}` puts tables into the raw table's folder `{}`", lake.layout, lake.raw_table);
        reader.problem("lake.layout", message);
        return;
    }
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for (index, table) in settings.tables.iter().enumerate() {
        let Some((schema, name)) = table.source.split_once('.') else { continue };
        let folder = lake.layout.replace("{schema}", schema).replace("{table}", name);
        let path = format!("tables[{index}].source");
        if is_raw(&folder) {
            reader.problem(
                &path,
                format!(
                    "`{}` would share the folder `{}` with the raw table: set lake.raw_table or lake.layout",
                    table.source, lake.raw_table
                ),
            );
        }
        match owners.get(&folder) {
            Some(owner) if *owner != table.source => reader.problem(
                &path,
                format!(
                    "`{}` would share the folder `{folder}` with `{owner}`: set lake.layout, for example to \
                     \"{{schema}}/{{table}}\"",
                    table.source
                ),
            ),
            Some(_) => {}
            None => drop(owners.insert(folder, &table.source)),
        }
    }
}

fn shared_schemas(reader: &mut Reader<'_>, settings: &Settings) {
    let mut owners: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (name, mirror) in &settings.mirrors {
        if let Some(owner) = owners.get(&(mirror.url.reveal(), mirror.schema.as_str())) {
            let message = format!(
                "writes to the same tables as mirrors.{owner}: the same database and the same schema"
            );
            reader.problem(&format!("mirrors.{name}"), message);
        } else {
            owners.insert((mirror.url.reveal(), &mirror.schema), name);
        }
    }
}
