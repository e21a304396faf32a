//! Random histories as lists of small steps, each of which is legal in whatever state it finds.
//!
//! A step names what it wants by numbers and the [`super::source`] makes the nearest legal thing of it: an update of a
//! table without rows inserts one, a key that is taken is swapped. So every part of a history can be left out, which
//! is what makes a failure shrink to the few steps that matter.

use proptest::prelude::*;

/// Numbers from which the cells of a row are chosen.
pub type Choices = [u8; 10];

/// One thing that happens in the source, or to the connector.
#[derive(Debug, Clone)]
pub enum Step {
    Insert {
        table: u8,
        key: u8,
        cells: Choices,
    },
    /// Sets the columns whose bit is set, and leaves the others alone.
    Update {
        table: u8,
        row: u8,
        columns: u16,
        cells: Choices,
    },
    Delete {
        table: u8,
        row: u8,
    },
    /// The same, and sets columns.
    ChangeKey {
        table: u8,
        row: u8,
        to: u8,
        columns: u16,
        cells: Choices,
    },
    /// A row is read by an incremental snapshot.
    Read {
        table: u8,
        row: u8,
    },
    Truncate {
        table: u8,
    },
    AddColumn {
        table: u8,
        kind: u8,
    },
    DropColumn {
        table: u8,
        column: u8,
    },
    /// A record on the topics that is no change of a row.
    Noise {
        table: u8,
        kind: u8,
    },
    /// The converter's `schemas.enable` is set the other way.
    SwitchSchemaBlocks,
    /// The connector crashes, and sends its last records again.
    Replay {
        records: u8,
    },
}

/// How the connector is set, and the topics.
#[derive(Debug, Clone)]
pub struct Setting {
    pub partitions: u8,
    pub schema_block: bool,
    /// `tombstones.on.delete`.
    pub tombstones: bool,
    /// The envelope of Debezium 1.x: boolean `snapshot`, no `sequence`, no `ts_us` and `ts_ns`.
    pub old_envelope: bool,
    /// Whether copies keep what a change of a key does not send again.
    pub moves_keep_values: bool,
    /// Rows that the tables have before the connector starts.
    pub snapshot: Vec<(u8, u8, Choices)>,
}

/// A history, and how it is read.
#[derive(Debug, Clone)]
pub struct History {
    pub setting: Setting,
    pub steps: Vec<Step>,
    /// What the reader does before each record: which partition is next, whether the batch ends, whether it crashes.
    pub dice: Vec<u8>,
}

/// What a history may hold.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// Most steps.
    pub steps: usize,
    /// Most partitions.
    pub partitions: u8,
    pub truncate: bool,
    pub keyless: bool,
    pub schema_changes: bool,
    pub replays: bool,
    pub moves_keep_values: bool,
}

impl Features {
    /// Everything.
    pub const ALL: Self = Self {
        steps: 40,
        partitions: 3,
        truncate: true,
        keyless: true,
        schema_changes: true,
        replays: true,
        moves_keep_values: true,
    };

    pub fn tables(self) -> u8 {
        if self.keyless { 5 } else { 4 }
    }
}

fn step(features: Features) -> impl Strategy<Value = Step> {
    let table = || 0..features.tables();
    let (key, any_row, columns, cells) = (|| 0..6_u8, any::<u8>, any::<u16>, any::<Choices>);
    let weight = |on: bool, weight: u32| if on { weight } else { 0 };
    let steps: Vec<(u32, BoxedStrategy<Step>)> = vec![
        (
            20,
            (table(), key(), cells())
                .prop_map(|(table, key, cells)| Step::Insert { table, key, cells })
                .boxed(),
        ),
        (
            30,
            (table(), any_row(), columns(), cells())
                .prop_map(|(table, row, columns, cells)| Step::Update { table, row, columns, cells })
                .boxed(),
        ),
        (12, (table(), any_row()).prop_map(|(table, row)| Step::Delete { table, row }).boxed()),
        (
            12,
            (table(), any_row(), key(), columns(), cells())
                .prop_map(|(table, row, to, columns, cells)| Step::ChangeKey {
                    table,
                    row,
                    to,
                    columns,
                    cells,
                })
                .boxed(),
        ),
        (5, (table(), any_row()).prop_map(|(table, row)| Step::Read { table, row }).boxed()),
        (5, (table(), any_row()).prop_map(|(table, kind)| Step::Noise { table, kind }).boxed()),
        (1, Just(Step::SwitchSchemaBlocks).boxed()),
        (weight(features.truncate, 2), table().prop_map(|table| Step::Truncate { table }).boxed()),
        (
            weight(features.schema_changes, 3),
            (table(), any_row()).prop_map(|(table, kind)| Step::AddColumn { table, kind }).boxed(),
        ),
        (
            weight(features.schema_changes, 2),
            (table(), any_row()).prop_map(|(table, column)| Step::DropColumn { table, column }).boxed(),
        ),
        (weight(features.replays, 2), any_row().prop_map(|records| Step::Replay { records }).boxed()),
    ];
    prop::strategy::Union::new_weighted(steps.into_iter().filter(|(weight, _)| *weight > 0).collect())
}

fn setting(features: Features) -> impl Strategy<Value = Setting> {
    let row = (0..features.tables(), 0..6_u8, any::<Choices>());
    (
        1..=features.partitions,
        any::<bool>(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        prop::collection::vec(row, 0..6),
    )
        .prop_map(move |(partitions, schema_block, tombstones, old_envelope, snapshot)| Setting {
            moves_keep_values: features.moves_keep_values,
            partitions,
            schema_block,
            tombstones,
            old_envelope,
            snapshot,
        })
}

pub fn histories(features: Features) -> impl Strategy<Value = History> {
    (
        setting(features),
        prop::collection::vec(step(features), 1..=features.steps),
        prop::collection::vec(any::<u8>(), 0..features.steps * 3),
    )
        .prop_map(|(setting, steps, dice)| History { setting, steps, dice })
}
