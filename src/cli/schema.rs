//! `alluvium schema plan` and `apply`: what stopped a table, what can be done about it, and doing it.

use std::fmt::Write as _;
use std::io::IsTerminal;

use serde::Serialize;

use super::args::How;
use super::{Exit, ReportFormat, SchemaApplyArgs, SchemaPlanArgs, complain, output};
use crate::change::{Lineage, Pending, Resolution, Resolve, TableSchema, resolve, type_words};
use crate::config::Settings;
use crate::lake::{self, LakeError, LakeSchemas};
use crate::mirror::{self, ApplyError, MirrorSchemas};
use crate::service::{lake_options, mirror_options};

/// Why a command ended early, and with which code.
type Ended = (Exit, String);

/// A table that waits, in its sink.
enum Waiting {
    Lake(Box<lake::WaitingTable>),
    Mirror(Box<MirrorSchemas>, Box<mirror::WaitingTable>),
}

/// What would be done to one table in one sink.
#[derive(Serialize)]
struct Plan {
    table: String,
    sink: String,
    stored_in: String,
    first_event: String,
    differences: Vec<String>,
    columns: Vec<ColumnPlan>,
    steps: Vec<String>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// A column as it is, as the events have it, and as it would be.
#[derive(Serialize)]
struct ColumnPlan {
    name: String,
    stored: Option<String>,
    events: Option<String>,
    becomes: Option<String>,
}

/// Shows what would be done.
pub(super) async fn plan(settings: &Settings, args: &SchemaPlanArgs) -> Exit {
    let shown = async {
        let waiting = find(settings, args.table.as_deref(), args.sink.as_deref()).await?;
        let mut plans = Vec::with_capacity(waiting.len());
        for (sink, waiting) in &waiting {
            plans.push(planned(sink, waiting, args.how).await?);
        }
        Ok::<_, Ended>(plans)
    };
    let plans = match shown.await {
        Ok(plans) => plans,
        Err(ended) => return end(ended),
    };
    let text = match args.output {
        ReportFormat::Json => serde_json::to_string_pretty(&plans).unwrap_or_default(),
        ReportFormat::Human if plans.is_empty() => "no table waits for a schema change".to_owned(),
        ReportFormat::Human => plans.iter().map(words).collect::<Vec<_>>().join("\n"),
    };
    print(&text)
}

/// Does it, after a question.
pub(super) async fn apply(settings: &Settings, args: &SchemaApplyArgs) -> Exit {
    let waiting = match find(settings, Some(&args.table), args.sink.as_deref()).await {
        Ok(waiting) => waiting,
        Err(ended) => return end(ended),
    };
    if waiting.is_empty() {
        return print(&format!("table {} waits for no schema change", args.table));
    }
    for (sink, waiting) in &waiting {
        match planned(sink, waiting, args.how).await {
            Ok(plan) if plan.refused.is_some() => {
                return end((Exit::Failure, plan.refused.unwrap_or_default()));
            }
            Ok(plan) => drop(print(&words(&plan))),
            Err(ended) => return end(ended),
        }
    }
    if !args.yes && !agreed() {
        return end((Exit::Usage, "nothing was changed; --yes does it without a question".to_owned()));
    }
    for (sink, waiting) in waiting {
        if let Err((exit, message)) = done(settings, waiting, args.how).await {
            return end((exit, format!("{sink}: {message}{}", another_way(args.how))));
        }
        print(&format!(
            "{sink}: table {} has the schema of its events; a running daemon goes on by itself",
            args.table
        ));
    }
    Exit::Success
}

fn another_way(how: How) -> &'static str {
    match how {
        How::Check => {
            "\nhint: --how text makes the column text, --how keep keeps its values in another column"
        }
        How::Text | How::Keep => "",
    }
}

fn agreed() -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    print("Apply? [y/N]");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// The tables that wait, by the name of their sink.
async fn find(
    settings: &Settings,
    table: Option<&str>,
    sink: Option<&str>,
) -> Result<Vec<(String, Waiting)>, Ended> {
    let names: Vec<&str> = settings
        .lake
        .is_on()
        .then_some("lake")
        .into_iter()
        .chain(settings.mirrors.keys().map(String::as_str))
        .collect();
    if let Some(sink) = sink.filter(|sink| !names.contains(sink)) {
        let message = format!("there is no sink {sink:?}; these settings have {}", names.join(", "));
        return Err((Exit::Usage, message));
    }
    let wanted = |name: &str| sink.is_none_or(|sink| sink == name);
    let mut found = Vec::new();
    if settings.lake.is_on() && wanted("lake") {
        let lake = LakeSchemas::open(&lake_options(settings)).map_err(|error| of_lake(&error))?;
        for waiting in lake.waiting(table).await.map_err(|error| of_lake(&error))? {
            found.push(("lake".to_owned(), Waiting::Lake(Box::new(waiting))));
        }
    }
    for (name, mirror) in settings.mirrors.iter().filter(|(name, _)| wanted(name)) {
        let open = || {
            MirrorSchemas::new(&mirror_options(settings, name, mirror))
                .map_err(|error| (Exit::Usage, format!("mirror {name}: {error}")))
        };
        for waiting in open()?.waiting(table).await.map_err(|error| of_mirror(name, &error))? {
            found.push((name.clone(), Waiting::Mirror(Box::new(open()?), Box::new(waiting))));
        }
    }
    Ok(found)
}

fn of_lake(error: &LakeError) -> Ended {
    (error.into(), error.to_string())
}

fn of_mirror(name: &str, error: &ApplyError) -> Ended {
    let exit = match error {
        ApplyError::Unreachable(_) => Exit::Unreachable,
        ApplyError::Refused(_) => Exit::Failure,
    };
    (exit, format!("mirror {name}: {error}"))
}

fn end((exit, message): Ended) -> Exit {
    complain(&message);
    exit
}

impl Waiting {
    fn parts(&self) -> (&TableSchema, &Lineage, &Pending) {
        match self {
            Self::Lake(table) => (&table.stored, &table.lineage, &table.pending),
            Self::Mirror(_, table) => (&table.stored, &table.lineage, &table.pending),
        }
    }

    fn resolution(&self, how: How) -> Result<Resolution, String> {
        let how = match how {
            How::Check => Resolve::Check,
            How::Text => Resolve::Text,
            How::Keep => Resolve::Keep,
        };
        let (stored, lineage, pending) = self.parts();
        resolve(stored, lineage, pending, how)
    }
}

async fn planned(sink: &str, waiting: &Waiting, how: How) -> Result<Plan, Ended> {
    let (stored, _, pending) = waiting.parts();
    let (table, stored_in) = match waiting {
        Waiting::Lake(table) => (&table.id, table.folder.clone()),
        Waiting::Mirror(_, table) => (&table.id, table.target.clone()),
    };
    let mut plan = Plan {
        table: table.to_string(),
        sink: sink.to_owned(),
        stored_in,
        first_event: pending.place.to_string(),
        differences: pending.differences.iter().map(ToString::to_string).collect(),
        columns: Vec::new(),
        steps: Vec::new(),
        refused: None,
    };
    let resolution = match waiting.resolution(how) {
        Ok(resolution) => resolution,
        Err(reason) => {
            plan.refused = Some(reason);
            return Ok(plan);
        }
    };
    plan.columns = columns(stored, &pending.events.schema(), &resolution.step.stored);
    plan.steps = resolution.actions.iter().map(ToString::to_string).collect();
    match waiting {
        Waiting::Lake(table) if rewrites(&resolution) && table.files > 0 => {
            plan.steps.push(format!("rewrite {} files ({} bytes), in one commit", table.files, table.bytes));
        }
        Waiting::Lake(_) => plan.steps.push("all in one commit; no file is rewritten".to_owned()),
        Waiting::Mirror(mirror, table) => {
            let statements =
                mirror.statements(table, &resolution).await.map_err(|error| of_mirror(sink, &error))?;
            plan.steps.extend(statements.into_iter().map(|statement| format!("run {statement}")));
        }
    }
    Ok(plan)
}

fn rewrites(resolution: &Resolution) -> bool {
    use crate::change::Action;
    resolution
        .actions
        .iter()
        .any(|action| matches!(action, Action::Convert { .. } | Action::KeepAside { .. }))
}

fn columns(stored: &TableSchema, events: &TableSchema, after: &TableSchema) -> Vec<ColumnPlan> {
    let of = |schema: &TableSchema, name: &str| {
        let column = schema.index_of(name).and_then(|index| schema.columns().get(index))?;
        Some(type_words(&column.column_type))
    };
    let all = stored.columns().iter().chain(events.columns()).chain(after.columns());
    let mut names: Vec<&str> = Vec::new();
    for column in all {
        if !names.contains(&&*column.name) {
            names.push(&column.name);
        }
    }
    let plan = |name: &str| ColumnPlan {
        name: name.to_owned(),
        stored: of(stored, name),
        events: of(events, name),
        becomes: of(after, name),
    };
    names.into_iter().map(plan).collect()
}

fn words(plan: &Plan) -> String {
    let mut text = format!(
        "{} in {} ({}), since {}: {}\n",
        plan.table,
        plan.sink,
        plan.stored_in,
        plan.first_event,
        plan.differences.join(", ")
    );
    let shown = |of: &Option<String>| of.clone().unwrap_or_else(|| "-".to_owned());
    let _ = writeln!(text, "  {:<24} {:<16} {:<16} becomes", "column", "stored", "in the events");
    for column in &plan.columns {
        let cells = (shown(&column.stored), shown(&column.events), shown(&column.becomes));
        let _ = writeln!(text, "  {:<24} {:<16} {:<16} {}", column.name, cells.0, cells.1, cells.2);
    }
    for (number, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(text, "  {}. {step}", number + 1);
    }
    if let Some(reason) = &plan.refused {
        let _ = writeln!(text, "  cannot be applied: {reason}");
    }
    text
}

async fn done(settings: &Settings, waiting: Waiting, how: How) -> Result<(), Ended> {
    let resolution = waiting.resolution(how).map_err(|reason| (Exit::Failure, reason))?;
    match waiting {
        Waiting::Lake(table) => {
            let lake = LakeSchemas::open(&lake_options(settings)).map_err(|error| of_lake(&error))?;
            lake.apply(*table, &resolution).await.map_err(|error| of_lake(&error))
        }
        Waiting::Mirror(mirror, table) => {
            mirror.apply(&table, &resolution).await.map_err(|error| match error {
                ApplyError::Unreachable(message) => (Exit::Unreachable, message),
                ApplyError::Refused(message) => (Exit::Failure, message),
            })
        }
    }
}

fn print(text: &str) -> Exit {
    match output::line(text) {
        Ok(()) => Exit::Success,
        Err(error) => end((Exit::Failure, format!("the result cannot be printed: {error}"))),
    }
}
