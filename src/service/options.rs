//! From the settings to the options of each part.

use super::Mode;
use crate::change::quarantine::Limits;
use crate::config::{Mirror as MirrorSettings, OnDataLoss as OnDataLossSetting, Settings};
use crate::debezium::{DecoderOptions, FlattenedOptions, TopicNames};
use crate::kafka::{ConsumerOptions, OnDataLoss};
use crate::lake::{LakeOptions, UpsertOptions};
use crate::lane::{BatchLimits, LaneOptions};
use crate::mirror::MirrorOptions;
use crate::source::SourceCatalog;

/// The lake of these settings.
pub fn lake(settings: &Settings) -> LakeOptions {
    let lake = &settings.lake;
    LakeOptions {
        storage_options: lake
            .storage_options
            .reveal()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        layout: lake.layout.clone(),
        current_tables: lake.current_tables,
        raw_table: (!lake.raw_table.is_empty()).then(|| lake.raw_table.clone()),
        checkpoint_interval: lake.checkpoint_interval,
        log_retention: lake.log_retention,
        merge_memory: lake.merge_memory.bytes(),
        upserts: UpsertOptions {
            index_dir: (!lake.index_dir.is_empty()).then(|| lake.index_dir.clone().into()),
            ..UpsertOptions::default()
        },
        policies: settings.policies(),
        quarantine_table: settings.quarantine.table.clone(),
        schema_changes_table: lake.schema_changes_table.clone(),
        vacuum_retention: lake.vacuum_retention,
        vacuum_interval: lake.vacuum_interval,
        ..LakeOptions::new(&lake.uri, &settings.pipeline.name)
    }
}

/// The mirror `name` of these settings.
pub fn mirror(settings: &Settings, name: &str, mirror: &MirrorSettings) -> MirrorOptions {
    MirrorOptions {
        schema: mirror.schema.clone(),
        raw: (!mirror.raw.is_empty()).then(|| mirror.raw.clone()),
        policies: settings.policies(),
        quarantine: limits(settings),
        ..MirrorOptions::new(name, &settings.pipeline.name, mirror.url.reveal())
    }
}

/// The lane `name`, with or without rows for a raw table.
pub(super) fn lane(settings: &Settings, name: &str, raw: bool, mode: &Mode) -> LaneOptions {
    LaneOptions {
        name: name.to_owned(),
        consumer: consumer(settings, name, mode),
        decoder: DecoderOptions {
            raw,
            placeholder: settings.debezium.unavailable_value_placeholder.clone(),
            types: settings.column_types(),
            modes: settings.debezium.modes(),
            source: settings.source.url.as_ref().and_then(|url| SourceCatalog::types(url.reveal())),
            policies: settings.policies(),
            flattened: FlattenedOptions {
                prefix: settings.debezium.flattened_prefix.as_str().into(),
                topics: TopicNames::new(&settings.debezium.flattened_topics).unwrap_or_default(),
            },
            routes: settings.routes(),
        },
        batch: BatchLimits {
            max_delay: settings.batch.max_delay,
            max_rows: settings.batch.max_rows as u64,
            max_bytes: settings.batch.max_bytes.bytes(),
        },
        until_caught_up: mode.until_caught_up,
        policies: settings.policies(),
        quarantine: limits(settings),
        // The lake takes whatever can be decoded.
        keep_originals: name != "lake" && settings.policies().may_quarantine(),
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits { max_records: settings.quarantine.max_records, max_percent: settings.quarantine.max_percent }
}

/// The consumer of the lane `name`.
pub fn consumer(settings: &Settings, name: &str, mode: &Mode) -> ConsumerOptions {
    let kafka = &settings.kafka;
    let group = format!("{}-{name}", settings.pipeline.name);
    let mut options = ConsumerOptions::new(&kafka.bootstrap_servers, group, kafka.topics.clone());
    options.properties =
        kafka.properties.reveal().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    options.on_data_loss = match kafka.on_data_loss {
        OnDataLossSetting::Halt => OnDataLoss::Halt,
        OnDataLossSetting::Continue => OnDataLoss::Continue,
    };
    options.identity = !mode.without_identity;
    options
}
