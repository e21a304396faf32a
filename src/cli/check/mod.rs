//! `alluvium check`: are the settings right, and with `--connect`, does what they name work?
//!
//! Each part looks first and judges then: what is found is plain data, so that what is said about it can be tested
//! without a cluster. The parts are looked at side by side, and one that is down hides no other.

mod connect;
mod finding;
mod kafka;
mod mirror;
mod source;
mod storage;
mod types;

use std::future::Future;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use super::{CheckArgs, Exit, ReportFormat};
use crate::config::{self, DatabaseUrl, Problems, Purpose, Settings, reference, show};

pub use connect::FoundConnector;
pub use finding::{Finding, Level};
pub use kafka::{FoundTopic, FoundTopics};

/// Longest look at one part.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the check reaches the outside. The errors are for people, and hold no secret.
pub trait Reach {
    /// Asks the brokers for the topics that the settings match.
    fn topics(&self, settings: &Settings) -> impl Future<Output = Result<FoundTopics, String>>;

    /// Asks Kafka Connect at this address for its connectors.
    fn connectors(&self, url: &str) -> impl Future<Output = Result<Vec<FoundConnector>, String>>;

    /// Opens a session in a database.
    fn database(&self, url: &DatabaseUrl) -> impl Future<Output = Result<Client, String>>;
}

/// Runs the command and writes its findings to `out`.
pub async fn run(args: &CheckArgs, reach: &impl Reach, out: &mut dyn Write) -> io::Result<Exit> {
    if args.print_reference {
        out.write_all(reference::markdown().as_bytes())?;
        return Ok(Exit::Success);
    }
    if args.print_types {
        let page = types::markdown().map_err(io::Error::other)?;
        out.write_all(page.as_bytes())?;
        return Ok(Exit::Success);
    }
    let sources = args.config.sources();
    let settings = match config::load(&sources, Purpose::Run) {
        Ok(settings) => settings,
        Err(problems) => {
            refuse(&problems, args.output, out)?;
            return Ok(Exit::Usage);
        }
    };
    if args.print {
        match args.output {
            ReportFormat::Human => out.write_all(show::toml(&settings)?.as_bytes())?,
            ReportFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&settings)?)?,
        }
        return Ok(Exit::Success);
    }
    let file = sources.file.map_or("defaults, no settings file".into(), |path| path.display().to_string());
    let mut findings = vec![Finding::ok("settings", file)];
    if args.connect {
        findings.extend(connect(&settings, reach).await);
    }
    report(&findings, args.output, out)?;
    Ok(exit(&findings))
}

fn refuse(problems: &Problems, format: ReportFormat, out: &mut dyn Write) -> io::Result<()> {
    match format {
        ReportFormat::Human => writeln!(out, "{problems}"),
        ReportFormat::Json => {
            let list: Vec<_> = problems
                .0
                .iter()
                .map(|problem| {
                    json!({
                        "key": problem.key,
                        "place": problem.place.to_string(),
                        "message": problem.message,
                    })
                })
                .collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&json!({ "ok": false, "problems": list }))?)
        }
    }
}

/// Looks at everything that the settings name.
async fn connect(settings: &Settings, reach: &impl Reach) -> Vec<Finding> {
    let topics = in_time(reach.topics(settings));
    let storage =
        async { if settings.lake.is_on() { storage::check(&settings.lake).await } else { Vec::new() } };
    let mirrors = futures::future::join_all(settings.mirrors.iter().map(|(name, mirror)| async move {
        let subject = format!("mirrors.{name}");
        match in_time(async { mirror::look_at_mirror(reach.database(&mirror.url).await?, mirror).await })
            .await
        {
            Ok(found) => mirror::judge_mirror(&subject, mirror, &found),
            Err(reason) => vec![database_away(&subject, reason)],
        }
    }));
    let source = async {
        let url = settings.source.url.as_ref()?;
        Some(in_time(async { source::look_at_source(reach.database(url).await?).await }).await)
    };
    let url = settings.connect.url.as_str();
    let connectors = async { if url.is_empty() { None } else { Some(in_time(reach.connectors(url)).await) } };
    let (topics, storage, mirrors, source, connectors) =
        futures::join!(topics, storage, mirrors, source, connectors);
    let mut findings = match &topics {
        Ok(found) => kafka::judge(found),
        Err(reason) => vec![Finding::unreachable("kafka", reason.clone(), None)],
    };
    findings.extend(storage);
    findings.extend(mirrors.into_iter().flatten());
    let topics = topics.as_ref().ok();
    findings.extend(source.iter().flat_map(|found| match found {
        Ok(found) => source::judge(found, topics, &settings.policies()),
        Err(reason) => vec![database_away("source", reason.clone())],
    }));
    let source = source.as_ref().and_then(|found| found.as_ref().ok());
    let around = connect::Surroundings { settings, topics, source };
    findings.extend(match connectors {
        Some(Ok(found)) => connect::judge(&found, &around),
        Some(Err(reason)) => {
            let cure = "see connect.url, and whether Kafka Connect is up";
            vec![Finding::unreachable("connect", reason, Some(cure.to_owned()))]
        }
        None => vec![Finding::note(
            "connect",
            "the connector's settings are not looked at",
            "set connect.url, to find those that lose values",
        )],
    });
    findings
}

fn database_away(subject: &str, reason: String) -> Finding {
    Finding::unreachable(subject, reason, Some(format!("see {subject}.url, and whether the database is up")))
}

async fn in_time<T>(look: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

fn report(findings: &[Finding], format: ReportFormat, out: &mut dyn Write) -> io::Result<()> {
    match format {
        ReportFormat::Human => {
            let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
            findings.iter().try_for_each(|finding| {
                writeln!(
                    out,
                    "{:<4}  {:<width$}  {}",
                    finding.level.word(),
                    finding.subject,
                    finding.message
                )?;
                match &finding.cure {
                    Some(cure) => writeln!(out, "{:6}{:<width$}  -> {cure}", "", ""),
                    None => Ok(()),
                }
            })
        }
        ReportFormat::Json => {
            let report = json!({ "ok": exit(findings) == Exit::Success, "findings": findings });
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)
        }
    }
}

fn exit(findings: &[Finding]) -> Exit {
    if findings.iter().any(|finding| finding.unreachable) {
        Exit::Unreachable
    } else if findings.iter().any(|finding| finding.level == Level::Fail) {
        Exit::Failure
    } else {
        Exit::Success
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ConfigArgs;

    /// Kafka answers, and no database does.
    struct OnlyKafka;

    impl Reach for OnlyKafka {
        async fn topics(&self, _: &Settings) -> Result<FoundTopics, String> {
            let topic = FoundTopic { name: "cdc.public.a".into(), partitions: 1, cleanup_policy: None };
            Ok(FoundTopics { cluster_id: Some("c1".into()), topics: vec![topic] })
        }

        async fn connectors(&self, _: &str) -> Result<Vec<FoundConnector>, String> {
            Err("connection refused".into())
        }

        async fn database(&self, _: &DatabaseUrl) -> Result<Client, String> {
            Err("connection refused".into())
        }
    }

    async fn check(settings: &str, connect: bool, print: bool, output: ReportFormat) -> (Exit, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let lake = folder.path().join("lake");
        std::fs::write(&path, settings.replace("LAKE", &lake.display().to_string())).unwrap();
        let config = ConfigArgs { config: Some(path), overrides: Vec::new() };
        let args = CheckArgs { config, connect, print, print_reference: false, print_types: false, output };
        let mut out = Vec::new();
        let exit = run(&args, &OnlyKafka, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        (exit, text.replace(&format!("{}/", folder.path().display()), ""))
    }

    const GOOD: &str =
        "kafka.topics = ['^cdc']\nlake.uri = 'LAKE'\nmirrors.m.url = 'postgres://u:hunter2@h/d'";

    #[tokio::test]
    async fn good_settings_pass_offline() {
        let (exit, text) = check(GOOD, false, false, ReportFormat::Human).await;
        assert_eq!((exit, text.as_str()), (Exit::Success, "ok    settings  a.toml\n"));
    }

    #[tokio::test]
    async fn problems_are_listed_and_nothing_is_reached() {
        let (exit, text) = check("a = 1\nkafka.b = 2", true, false, ReportFormat::Json).await;
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(exit, Exit::Usage);
        assert_eq!(report["problems"].as_array().unwrap().len(), 3, "{text}");
        assert_eq!(report["problems"][0]["place"], "a.toml:1");
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_said_beside_what_can() {
        let (exit, text) = check(GOOD, true, false, ReportFormat::Human).await;
        assert_eq!(exit, Exit::Unreachable);
        assert_eq!(
            text,
            "ok    settings   a.toml\n\
             ok    kafka      1 topics with 1 partitions on cluster c1\n\
             ok    lake       lake can be written\n\
             fail  mirrors.m  connection refused\n\
             \u{20}                -> see mirrors.m.url, and whether the database is up\n\
             note  connect    the connector's settings are not looked at\n\
             \u{20}                -> set connect.url, to find those that lose values\n"
        );
    }

    #[tokio::test]
    async fn the_settings_in_effect_are_printed_without_secrets() {
        for format in [ReportFormat::Human, ReportFormat::Json] {
            let (exit, text) = check(GOOD, false, true, format).await;
            assert_eq!(exit, Exit::Success);
            assert!(text.contains("postgres://u:***@h/d") && !text.contains("hunter2"), "{text}");
        }
    }
}
