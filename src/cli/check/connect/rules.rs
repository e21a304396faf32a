//! The settings of one connector, rule by rule.
//!
//! A rule is there for each setting that loses or bends something, with the value that does not.

mod modes;

use std::fmt;

use super::super::Finding;
use super::super::source::listed;
use super::{FoundConnector, Surroundings};

/// All that is to be said of a connector.
pub(super) fn judge(connector: &FoundConnector, around: &Surroundings<'_>) -> Vec<Finding> {
    let mut judged = Judged { connector, findings: Vec::new() };
    judged.state();
    judged.converter(around);
    judged.compared(around);
    judged.decimals(around);
    judged.times(around);
    judged.large_values(around);
    judged.failures();
    judged.events(around);
    judged.transforms(around);
    if judged.findings.is_empty() {
        let message = format!("{}: runs, and none of its settings loses values", connector.name);
        judged.findings.push(Finding::ok("connect", message));
    }
    judged.findings
}

/// A connector, and what was said of it.
struct Judged<'a> {
    connector: &'a FoundConnector,
    findings: Vec<Finding>,
}

impl Judged<'_> {
    fn warn(&mut self, message: impl fmt::Display, cure: &str) {
        let message = format!("{}: {message}", self.connector.name);
        self.findings.push(Finding::warn("connect", message, cure));
    }

    fn fail(&mut self, message: impl fmt::Display, cure: impl Into<String>) {
        let message = format!("{}: {message}", self.connector.name);
        self.findings.push(Finding::fail("connect", message, cure));
    }

    fn note(&mut self, message: impl fmt::Display, cure: &str) {
        let message = format!("{}: {message}", self.connector.name);
        self.findings.push(Finding::note("connect", message, cure));
    }

    /// Warns where columns are concerned: by their names, or without where the source was not looked at.
    fn warn_of(&mut self, message: &str, columns: Option<Vec<String>>, cure: &str) {
        match columns {
            None => self.warn(format!("{message} (set source.url to see which)"), cure),
            Some(columns) if columns.is_empty() => {}
            Some(columns) => self.warn(format!("{message}: {}", listed(&columns)), cure),
        }
    }

    fn state(&mut self) {
        if !self.connector.failed.is_empty() {
            let states = self.connector.failed.join(", ");
            self.fail(
                format!("not all of its tasks run ({states})"),
                "see the connector's log; GET /connectors/NAME/status says why",
            );
        }
    }

    fn converter(&mut self, around: &Surroundings<'_>) {
        let connector = self.connector;
        for part in ["key", "value"] {
            let name = format!("{part}.converter");
            if let Some(class) = connector.get(&name).filter(|class| !class.ends_with(".JsonConverter")) {
                self.fail(
                    format!("{name} is {class}, and events are read as JSON"),
                    format!("{name}=org.apache.kafka.connect.json.JsonConverter"),
                );
            }
        }
        if !connector.is("value.converter.replace.null.with.default", "false") {
            let message = "a NULL in a nullable column with a default arrives as the default";
            let columns = around.columns(|_, column| column.nullable && column.has_default && !column.in_key);
            self.warn_of(message, columns, "value.converter.replace.null.with.default=false");
        }
        let types = around.settings.source.url.is_some()
            || around.settings.tables.iter().any(|table| !table.types.is_empty());
        if self.is_bare() && !types {
            self.warn(
                "events carry no schema, and no types are configured: column types are taken from values",
                "value.converter.schemas.enable=true, or set types in [[tables]]",
            );
        }
    }

    /// Settings that bend numbers.
    fn decimals(&mut self, around: &Surroundings<'_>) {
        match self.connector.or("decimal.handling.mode", "precise") {
            "double" => self.warn_of(
                "decimals of more than 15 digits are rounded (decimal.handling.mode=double)",
                around.of_type(&["numeric", "money"]),
                "decimal.handling.mode=precise, or string",
            ),
            "precise" => {
                let columns = around.of_type(&["numeric"]);
                if columns.as_ref().is_none_or(|columns| !columns.is_empty()) {
                    let of = columns.map_or_else(String::new, |columns| format!(": {}", listed(&columns)));
                    self.note(
                        format!(
                            "NaN and infinities of numeric have no form in decimal.handling.mode=precise: they arrive as null, or stop \
                             the connector{of}"
                        ),
                        "where the source has such values: decimal.handling.mode=string",
                    );
                }
            }
            _ => {}
        }
    }

    /// Settings that bend times and spans of time.
    fn times(&mut self, around: &Surroundings<'_>) {
        let connector = self.connector;
        match connector.or("time.precision.mode", "adaptive") {
            "connect" => self.warn_of(
                "microseconds are cut off (time.precision.mode=connect)",
                around.of_type(&["time", "timestamp"]),
                "time.precision.mode=adaptive",
            ),
            "isostring" => self.warn_of(
                "24:00:00 arrives as 00:00:00 (time.precision.mode=isostring)",
                around.of_type(&["time"]),
                "time.precision.mode=adaptive",
            ),
            "structured" => self.warn_of(
                "24:00:00 arrives as null (time.precision.mode=structured)",
                around.of_type(&["time"]),
                "time.precision.mode=adaptive",
            ),
            "nanoseconds" => self.warn_of(
                "timestamps outside of the years 1678 to 2262 arrive as null, or stop the connector \
                 (time.precision.mode=nanoseconds)",
                around.of_type(&["timestamp"]),
                "time.precision.mode=adaptive",
            ),
            _ => {}
        }
        if connector.or("interval.handling.mode", "numeric") == "numeric" {
            self.warn_of(
                "a month of an interval arrives as 30.4375 days (interval.handling.mode=numeric)",
                around.of_type(&["interval"]),
                "interval.handling.mode=string",
            );
        }
    }

    /// Settings by which a large value is lost that an update does not change.
    fn large_values(&mut self, around: &Surroundings<'_>) {
        if self.connector.or("binary.handling.mode", "bytes").starts_with("base64") {
            self.warn_of(
                "a large bytea that an update does not change arrives as null (binary.handling.mode=base64)",
                around.columns(|table, column| {
                    table.replica_identity != 'f' && column.may_toast && column.type_name == "bytea"
                }),
                "binary.handling.mode=bytes",
            );
        }
        let unmarked = |is_number: bool| {
            let columns = around.columns(|table, column| {
                table.replica_identity != 'f'
                    && column.may_toast
                    && has_no_placeholder(&column.type_name)
                    && (column.type_name == "numeric") == is_number
            });
            columns.filter(|columns| !columns.is_empty())
        };
        let cure = "ALTER TABLE … REPLICA IDENTITY FULL";
        let end = if self.connector.is("event.converting.failure.handling.mode", "fail") {
            "stops the connector"
        } else {
            "arrives as null"
        };
        if let Some(columns) = unmarked(false) {
            let message = format!(
                "a large value of these types that an update does not change has no placeholder and {end}"
            );
            self.warn_of(&message, Some(columns), cure);
        }
        // Few numbers have thousands of digits, and only these may be left out.
        if let Some(columns) = unmarked(true) {
            let message = format!(
                "a number of thousands of digits that an update does not change has no placeholder and {end}"
            );
            self.note(format!("{message}: {}", listed(&columns)), cure);
        }
    }

    /// Settings by which the connector goes on over an error.
    fn failures(&mut self) {
        let connector = self.connector;
        if !connector.is("event.converting.failure.handling.mode", "fail") {
            self.warn(
                "a value that the connector cannot convert becomes null, with a line in its log alone",
                "event.converting.failure.handling.mode=fail",
            );
        }
        if !connector.or("event.processing.failure.handling.mode", "fail").eq_ignore_ascii_case("fail") {
            self.warn(
                "an event that the connector cannot process is left out",
                "event.processing.failure.handling.mode=fail",
            );
        }
        if connector.is("errors.tolerance", "all") {
            self.warn("a record that cannot be converted or sent is left out", "errors.tolerance=none");
        }
    }

    /// Settings by which events are left out.
    fn events(&mut self, around: &Surroundings<'_>) {
        let connector = self.connector;
        let skipped = connector.or("skipped.operations", "t");
        let skips = |operation: &str| skipped.split(',').any(|skipped| skipped.trim() == operation);
        if ["c", "u", "d"].into_iter().any(skips) {
            self.warn(
                format!("changes are left out (skipped.operations={skipped})"),
                "skipped.operations=none",
            );
        } else if skips("t") {
            self.note("truncates are not sent: copies keep the rows", "skipped.operations=none");
        }
        match connector.or("snapshot.mode", "initial") {
            mode @ ("never" | "no_data" | "schema_only") => self.warn(
                format!(
                    "rows from before its start are not read (snapshot.mode={mode}): copies lack them, and large values \
                     that their updates leave out"
                ),
                "snapshot.mode=initial",
            ),
            "initial_only" => self.warn(
                "it ends after the snapshot (snapshot.mode=initial_only): changes are not read",
                "snapshot.mode=initial",
            ),
            _ => {}
        }
        let compacted = around.topics.is_some_and(|topics| {
            let compacts = |policy: &String| policy.contains("compact");
            topics.topics.iter().any(|topic| topic.cleanup_policy.as_ref().is_some_and(compacts))
        });
        if connector.is("tombstones.on.delete", "false") && compacted {
            self.note(
                "without tombstones compaction never removes deleted keys (tombstones.on.delete=false)",
                "tombstones.on.delete=true",
            );
        }
        let bent: Vec<String> = connector
            .settings
            .keys()
            .filter(|key| ["column.mask.", "column.truncate."].iter().any(|start| key.starts_with(start)))
            .cloned()
            .collect();
        if !bent.is_empty() {
            self.note(
                format!("columns are masked or cut before Kafka: {}", listed(&bent)),
                "nothing, where that is meant; copies cannot equal the source",
            );
        }
    }

    fn transforms(&mut self, around: &Surroundings<'_>) {
        let connector = self.connector;
        for (name, class) in connector.transforms() {
            let short = class.rsplit('.').next().unwrap_or(class);
            match short {
                "ExtractNewRecordState" => {
                    self.compared_prefixes(name, around);
                    let mode = format!("transforms.{name}.delete.tombstone.handling.mode");
                    let drops = connector.is(&mode, "drop")
                        || connector.is(&format!("transforms.{name}.delete.handling.mode"), "drop")
                            && connector.is(&format!("transforms.{name}.drop.tombstones"), "true");
                    if drops {
                        self.warn(
                            format!("the transform {name} drops deletes: copies keep the rows"),
                            "delete.tombstone.handling.mode=rewrite",
                        );
                    }
                    self.note(
                        format!("the transform {name} flattens events: truncates and the rows before are lost"),
                        "leave the transform out: whole events are read as well",
                    );
                }
                "PartitionRouting" => self.warn(
                    format!("the transform {name} puts changes of one row on several partitions, without order"),
                    "leave it out, or partition by the columns of the primary key",
                ),
                _ => self.note(
                    format!("the transform {name} ({short}) changes or leaves out records in ways that are not looked at"),
                    "nothing, where that is meant",
                ),
            }
        }
        if connector.get("converters").is_some() {
            self.note(
                "custom converters change values in ways that are not looked at",
                "nothing, where that is meant",
            );
        }
    }
}

/// Types that Debezium has no placeholder for.
fn has_no_placeholder(type_name: &str) -> bool {
    let element = type_name.strip_prefix('_');
    match element {
        Some(element) => !matches!(
            element,
            "text" | "varchar" | "bpchar" | "json" | "jsonb" | "bytea" | "int4" | "int8" | "date" | "uuid"
        ),
        None => matches!(
            type_name,
            "numeric"
                | "bit"
                | "varbit"
                | "geometry"
                | "geography"
                | "path"
                | "polygon"
                | "vector"
                | "halfvec"
                | "sparsevec"
        ),
    }
}
