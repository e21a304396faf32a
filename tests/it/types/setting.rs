//! How a connector is set in one test.

/// The settings of the connector that decide how values are written.
#[derive(Clone, Copy)]
pub struct Setting {
    /// `decimal.handling.mode`
    pub decimals: &'static str,
    /// `time.precision.mode`
    pub times: &'static str,
    /// `binary.handling.mode`
    pub binary: &'static str,
    /// `interval.handling.mode`
    pub intervals: &'static str,
    /// `hstore.handling.mode`
    pub pairs: &'static str,
    /// `column.propagate.source.type=.*`
    pub source_types: bool,
    /// `include.unknown.datatypes`
    pub unknown: bool,
    /// No schema block: types come from the source's catalog.
    pub catalog: bool,
}

impl Setting {
    /// Debezium's defaults, with schema block.
    pub const DEFAULT: Self = Self {
        decimals: "precise",
        times: "adaptive",
        binary: "bytes",
        intervals: "numeric",
        pairs: "json",
        source_types: false,
        unknown: false,
        catalog: false,
    };

    /// The connector's settings.
    pub fn connector(&self) -> Vec<(&'static str, &'static str)> {
        let mut settings = vec![
            ("decimal.handling.mode", self.decimals),
            ("time.precision.mode", self.times),
            ("binary.handling.mode", self.binary),
            ("interval.handling.mode", self.intervals),
            ("hstore.handling.mode", self.pairs),
            // What cannot be converted is null, as by default: the rules are about what arrives.
            ("event.converting.failure.handling.mode", "warn"),
        ];
        if self.source_types {
            settings.push(("column.propagate.source.type", ".*"));
        }
        if self.unknown {
            settings.push(("include.unknown.datatypes", "true"));
        }
        settings
    }

    /// The program's settings that say the same.
    pub fn debezium(&self) -> String {
        format!(
            "[debezium]\ndecimal_handling_mode = \"{}\"\ntime_precision_mode = \"{}\"\nbinary_handling_mode = \"{}\"\n",
            self.decimals, self.times, self.binary
        )
    }
}
