//! From the merged tree to [`Settings`]: each section is read whole, with every check that concerns one key.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::convert::{options, resolve};
use super::reader::{FromSetting, Reader, Section};
use super::{
    Admin, Batch, ByteSize, Connect, Debezium, Kafka, Lake, Mirror, Options, Pipeline, Purpose, Quarantine,
    Settings, Shutdown, Source, Table, TypeName, names,
};
use crate::change::TablePolicy;
use crate::kafka::check_property;

/// Reads all settings; `None` where a problem was noted.
pub(super) fn settings(reader: &mut Reader<'_>, mut root: Section, purpose: Purpose) -> Option<Settings> {
    let pipeline = pipeline(reader, &mut root);
    let kafka = kafka(reader, &mut root, purpose);
    let debezium = debezium(reader, &mut root);
    let batch = batch(reader, &mut root);
    let lake = lake(reader, &mut root);
    let defaults = defaults(reader, &mut root);
    let mirrors = mirrors(reader, &mut root);
    let source = source(reader, &mut root);
    let connect = connect(reader, &mut root);
    let quarantine = quarantine(reader, &mut root);
    let tables = tables(reader, &mut root, defaults.as_ref().unwrap_or(&TablePolicy::default()));
    let admin = admin(reader, &mut root);
    let shutdown = shutdown(reader, &mut root);
    reader.finish(&root);
    Some(Settings {
        pipeline: pipeline?,
        kafka: kafka?,
        debezium: debezium?,
        batch: batch?,
        lake: lake?,
        defaults: defaults?,
        mirrors: mirrors?,
        source: source?,
        connect: connect?,
        quarantine: quarantine?,
        tables: tables?,
        admin: admin?,
        shutdown: shutdown?,
    })
}

fn pipeline(reader: &mut Reader<'_>, root: &mut Section) -> Option<Pipeline> {
    let mut section = reader.section(root, "pipeline");
    let name = checked(reader, &mut section, "name", names::pipeline);
    reader.finish(&section);
    Some(Pipeline { name: name? })
}

fn kafka(reader: &mut Reader<'_>, root: &mut Section, purpose: Purpose) -> Option<Kafka> {
    let mut section = reader.section(root, "kafka");
    let bootstrap_servers = checked(reader, &mut section, "bootstrap_servers", names::brokers);
    let topics: Option<Vec<String>> = reader.take(&mut section, "topics");
    if let Some(topics) = &topics {
        let path = section.key("topics");
        if topics.is_empty() && purpose == Purpose::Run {
            reader.problem(&path, "no topics: set names, or regular expressions that begin with ^");
        }
        for (index, topic) in topics.iter().enumerate() {
            if let Err(message) = names::topic(topic) {
                reader.problem(&format!("{path}[{index}]"), message);
            }
        }
    }
    let properties = reader.map(&mut section, "properties", |name, raw| {
        let (value, shown) = resolve(raw)?;
        check_property(name, value.reveal())?;
        Ok((value, shown))
    });
    let on_data_loss = reader.take(&mut section, "on_data_loss");
    reader.finish(&section);
    Some(Kafka {
        bootstrap_servers: bootstrap_servers?,
        topics: topics?,
        properties: options(properties?),
        on_data_loss: on_data_loss?,
    })
}

fn debezium(reader: &mut Reader<'_>, root: &mut Section) -> Option<Debezium> {
    let mut section = reader.section(root, "debezium");
    let key = "unavailable_value_placeholder";
    let unavailable_value_placeholder = checked(reader, &mut section, key, names::placeholder);
    let decimal_handling_mode = reader.take(&mut section, "decimal_handling_mode");
    let time_precision_mode = reader.take(&mut section, "time_precision_mode");
    let binary_handling_mode = reader.take(&mut section, "binary_handling_mode");
    let flattened_prefix = checked(reader, &mut section, "flattened_prefix", names::prefix);
    let topics: Vec<String> = reader.take(&mut section, "flattened_topics").unwrap_or_default();
    let path = section.key("flattened_topics");
    for (index, topic) in topics.iter().enumerate() {
        if let Err(message) = names::topic(topic) {
            reader.problem(&format!("{path}[{index}]"), message);
        }
    }
    reader.finish(&section);
    Some(Debezium {
        unavailable_value_placeholder: unavailable_value_placeholder?,
        decimal_handling_mode: decimal_handling_mode?,
        time_precision_mode: time_precision_mode?,
        binary_handling_mode: binary_handling_mode?,
        flattened_prefix: flattened_prefix?,
        flattened_topics: topics,
    })
}

fn connect(reader: &mut Reader<'_>, root: &mut Section) -> Option<Connect> {
    let mut section = reader.section(root, "connect");
    let url = checked(reader, &mut section, "url", names::connect_url);
    reader.finish(&section);
    Some(Connect { url: url? })
}

fn quarantine(reader: &mut Reader<'_>, root: &mut Section) -> Option<Quarantine> {
    let mut section = reader.section(root, "quarantine");
    let table = checked(reader, &mut section, "table", names::named_folder);
    let max_records = reader.take(&mut section, "max_records");
    let max_percent = within(reader, &mut section, "max_percent", 1..=100);
    reader.finish(&section);
    Some(Quarantine { table: table?, max_records: max_records?, max_percent: max_percent? })
}

fn batch(reader: &mut Reader<'_>, root: &mut Section) -> Option<Batch> {
    let mut section = reader.section(root, "batch");
    let max_delay = within(reader, &mut section, "max_delay", Span(Duration::from_millis(1))..=HOUR);
    let max_rows = within(reader, &mut section, "max_rows", 1..=10_000_000);
    let max_bytes = within(reader, &mut section, "max_bytes", ByteSize(1 << 10)..=ByteSize(1 << 30));
    reader.finish(&section);
    Some(Batch { max_delay: max_delay?.0, max_rows: usize::try_from(max_rows?).ok()?, max_bytes: max_bytes? })
}

fn lake(reader: &mut Reader<'_>, root: &mut Section) -> Option<Lake> {
    let mut section = reader.section(root, "lake");
    let uri = checked(reader, &mut section, "uri", names::lake_uri);
    let current_tables = reader.take(&mut section, "current_tables");
    let raw_table = checked(reader, &mut section, "raw_table", names::folder);
    let layout = checked(reader, &mut section, "layout", names::layout);
    let storage_options = storage_options(reader, &mut section);
    let checkpoint_interval = within(reader, &mut section, "checkpoint_interval", 1..=10_000);
    let log_retention = within(reader, &mut section, "log_retention", HOUR..=Span(Duration::MAX));
    let merge_memory = within(reader, &mut section, "merge_memory", ByteSize(32 << 20)..=ByteSize(u64::MAX));
    let index_dir = reader.take(&mut section, "index_dir");
    let schema_changes_table = checked(reader, &mut section, "schema_changes_table", names::named_folder);
    let vacuum_retention = within(reader, &mut section, "vacuum_retention", HOUR..=Span(Duration::MAX));
    let vacuum_interval = reader.take(&mut section, "vacuum_interval");
    reader.finish(&section);
    Some(Lake {
        uri: uri?,
        current_tables: current_tables?,
        raw_table: raw_table?,
        layout: layout?,
        storage_options: storage_options?,
        checkpoint_interval: checkpoint_interval?,
        log_retention: log_retention?.0,
        merge_memory: merge_memory?,
        index_dir: index_dir?,
        schema_changes_table: schema_changes_table?,
        vacuum_retention: vacuum_retention?.0,
        vacuum_interval: vacuum_interval?,
    })
}

fn defaults(reader: &mut Reader<'_>, root: &mut Section) -> Option<TablePolicy> {
    let mut section = reader.section(root, "defaults");
    // The embedded defaults set every key, so that what is left out here never counts.
    let policy = policy(reader, &mut section, &TablePolicy::default());
    reader.finish(&section);
    policy
}

/// What is declared for tables, with `otherwise` for each key that is not set.
fn policy(reader: &mut Reader<'_>, section: &mut Section, otherwise: &TablePolicy) -> Option<TablePolicy> {
    let write = reader.take_or(section, "write", otherwise.write);
    let mode = reader.take_or(section, "mode", otherwise.mode);
    let delete = reader.take_or(section, "delete", otherwise.delete);
    let change_data_feed = reader.take_or(section, "change_data_feed", otherwise.change_data_feed);
    let schema_change = reader.take_or(section, "schema_change", otherwise.schema_change);
    let on_error = reader.take_or(section, "on_error", otherwise.on_error);
    let on_truncate = reader.take_or(section, "on_truncate", otherwise.on_truncate);
    let keyless = reader.take_or(section, "keyless", otherwise.keyless);
    Some(TablePolicy {
        write: write?,
        mode: mode?,
        delete: delete?,
        change_data_feed: change_data_feed?,
        schema_change: schema_change?,
        on_error: on_error?,
        on_truncate: on_truncate?,
        several_sources: false,
        keyless: keyless?,
    })
}

fn storage_options(reader: &mut Reader<'_>, section: &mut Section) -> Option<Options> {
    reader.map(section, "storage_options", |_, raw| resolve(raw)).map(options)
}

fn mirrors(reader: &mut Reader<'_>, root: &mut Section) -> Option<BTreeMap<String, Mirror>> {
    let mut mirrors = Some(BTreeMap::new());
    for (name, section) in reader.named_sections(root, "mirrors") {
        if let Err(message) = names::mirror(&name) {
            reader.problem(&section.path, message);
        }
        let mirror = mirror(reader, section);
        mirrors = mirrors.zip(mirror).map(|(mut mirrors, mirror)| {
            mirrors.insert(name, mirror);
            mirrors
        });
    }
    mirrors
}

fn mirror(reader: &mut Reader<'_>, mut section: Section) -> Option<Mirror> {
    let url = reader.take(&mut section, "url");
    let schema = checked_or(reader, &mut section, "schema", "{schema}", names::mirror_schema);
    let raw = checked_or(reader, &mut section, "raw", "", names::mirror_raw);
    reader.finish(&section);
    Some(Mirror { url: url?, schema: schema?, raw: raw? })
}

fn source(reader: &mut Reader<'_>, root: &mut Section) -> Option<Source> {
    let mut section = reader.section(root, "source");
    let url = reader.take(&mut section, "url");
    reader.finish(&section);
    Some(Source { url: url? })
}

fn tables(reader: &mut Reader<'_>, root: &mut Section, defaults: &TablePolicy) -> Option<Vec<Table>> {
    // All are read before the first that fails ends it.
    let read: Vec<Option<Table>> = reader
        .list(root, "tables")
        .into_iter()
        .map(|mut section| {
            let source = checked(reader, &mut section, "source", names::source_table);
            let policy = policy(reader, &mut section, defaults);
            let types = reader.map(&mut section, "types", |_, raw| TypeName::from_setting(raw));
            let sources: Vec<String> =
                reader.take_or(&mut section, "sources", Vec::new()).unwrap_or_default();
            let path = section.key("sources");
            for (index, name) in sources.iter().enumerate() {
                if let Err(message) = names::source_or_pattern(name) {
                    reader.problem(&format!("{path}[{index}]"), message);
                }
            }
            reader.finish(&section);
            let policy = TablePolicy { several_sources: !sources.is_empty(), ..policy? };
            Some(Table { source: source?, sources, policy, types: types? })
        })
        .collect();
    read.into_iter().collect()
}

fn admin(reader: &mut Reader<'_>, root: &mut Section) -> Option<Admin> {
    let mut section = reader.section(root, "admin");
    let listen = reader.take(&mut section, "listen");
    reader.finish(&section);
    Some(Admin { listen: listen? })
}

fn shutdown(reader: &mut Reader<'_>, root: &mut Section) -> Option<Shutdown> {
    let mut section = reader.section(root, "shutdown");
    let deadline = within(reader, &mut section, "deadline", Span(Duration::ZERO)..=HOUR);
    reader.finish(&section);
    Some(Shutdown { deadline: deadline?.0 })
}

/// Takes a text that `check` accepts.
fn checked(
    reader: &mut Reader<'_>,
    section: &mut Section,
    key: &'static str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<String> {
    let text: String = reader.take(section, key)?;
    accept(reader, &section.key(key), text, check)
}

/// The same where the text may be left out.
fn checked_or(
    reader: &mut Reader<'_>,
    section: &mut Section,
    key: &'static str,
    default: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<String> {
    let text = reader.take_or(section, key, default.to_owned())?;
    accept(reader, &section.key(key), text, check)
}

fn accept(
    reader: &mut Reader<'_>,
    path: &str,
    text: String,
    check: impl Fn(&str) -> Result<(), String>,
) -> Option<String> {
    match check(&text) {
        Ok(()) => Some(text),
        Err(message) => {
            reader.problem(path, message);
            None
        }
    }
}

/// Takes a value within limits.
fn within<T: FromSetting + PartialOrd + Display>(
    reader: &mut Reader<'_>,
    section: &mut Section,
    key: &'static str,
    limits: RangeInclusive<T>,
) -> Option<T> {
    let value: T = reader.take(section, key)?;
    if limits.contains(&value) {
        return Some(value);
    }
    let message = if value < *limits.start() {
        format!("`{value}` is too small: at least {}", limits.start())
    } else {
        format!("`{value}` is too large: at most {}", limits.end())
    };
    reader.problem(&section.key(key), message);
    None
}

/// A duration that shows as it is written.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Span(Duration);

const HOUR: Span = Span(Duration::from_hours(1));

impl Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromSetting for Span {
    fn from_setting(raw: super::reader::Raw<'_>) -> Result<Self, String> {
        Duration::from_setting(raw).map(Self)
    }
}
