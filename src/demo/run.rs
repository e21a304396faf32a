//! The demonstration from end to end: broker, shop, lanes, and at the end the proof.
//!
//! The lanes are those of [`crate::service`], with settings as a user would write them. The order of the end matters:
//! the shop closes, every lane stores what is on the broker, the lanes stop, and only then is the copy compared.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use deltalake::datafusion::error::DataFusionError;
use deltalake::datafusion::prelude::SessionContext;

use super::broker::{Broker, BrokerError, CONSUMER_PROPERTIES};
use super::display::{Display, Figures};
use super::events::topic;
use super::flow::{FlowControl, LIMIT};
use super::found::{rows_of_batches, select_list};
use super::postgres::{self, PostgresError, PostgresReader};
use super::produce::{Outcome, ProduceError, ProduceOptions, Production};
use super::shop::{Shop, ShopSize};
use super::tables::{ShopTable, TABLES};
use super::verify::{Comparison, VerifyError, compare};
use crate::admin::status::StatusBoard;
use crate::config::{self, Problems, Purpose, Settings, Sources};
use crate::lake::LakeError;
use crate::lake::read::{At, LakeReader};
use crate::lane::{LaneEnd, OnCommit};
use crate::service::{self, Mode, Service, StartError};

/// Partitions of each topic: enough that the broker's limit a partition leaves room for a second of events.
const PARTITIONS: i32 = 4;

/// How long the lanes may take without storing anything once the shop has closed.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long the lanes may take to stop.
const STOP: Duration = Duration::from_secs(30);

/// How often to look at the lanes.
const LOOK: Duration = Duration::from_millis(50);

/// Name of the lake's lane.
const LAKE: &str = "lake";

/// Name of the mirror's lane.
const MIRROR: &str = "postgres";

/// What is asked of the lake as it is.
const BEST_SELLERS: &str = "\
SELECT p.name AS product, count(*) AS orders, sum(i.quantity) AS pieces,
       sum(i.quantity * i.unit_price - coalesce(i.discount, 0)) AS revenue
  FROM order_items i JOIN products p ON p.id = i.product_id
 GROUP BY p.id, p.name ORDER BY revenue DESC LIMIT 5";

/// What is asked of the lake as it is and as it was.
const BY_STATUS: &str =
    "SELECT status, count(*) AS orders, sum(total) AS total FROM orders GROUP BY status ORDER BY status";

/// What to demonstrate.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// How long the shop is open.
    pub length: Duration,
    /// Events a second; 0 is as fast as possible.
    pub rate: u32,
    /// Where the lake goes; must be empty, or not exist.
    pub folder: PathBuf,
    /// URL of a database to mirror to as well; its schema [`postgres::SCHEMA`] is dropped first.
    pub postgres: Option<String>,
    /// What the shop is invented from.
    pub seed: u64,
}

/// Why a demonstration did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The folder holds something.
    #[error("the folder {0} is not empty: name one that is empty or does not exist")]
    NotEmpty(PathBuf),
    /// The folder cannot be used.
    #[error("the folder {folder} cannot be used: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The broker did not start.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The settings of the demonstration are refused.
    #[error("the settings of the demonstration are refused: {0}")]
    Settings(Problems),
    /// The lanes did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The shop ended early.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// A lane, or one of its tables, stopped.
    #[error("lane {lane} stopped: {reason}")]
    Lane {
        /// Its name.
        lane: String,
        /// Why.
        reason: String,
    },
    /// Records stayed on the broker.
    #[error("{0} records were on the broker and no lane stored one of them for {seconds} s", seconds = PATIENCE.as_secs())]
    NotCaughtUp(u64),
    /// The lake cannot be read.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A query over the lake failed.
    #[error("a query over the lake failed: {0}")]
    Query(#[from] DataFusionError),
    /// A table of the lake does not look like the shop's.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The mirror's database cannot be prepared or read.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

/// A query over the lake.
#[derive(Debug)]
pub struct Answer {
    /// The SQL.
    pub sql: &'static str,
    /// The time as of which it was asked; `None`: now.
    pub at: Option<DateTime<Utc>>,
    /// What came back.
    pub batches: Vec<RecordBatch>,
}

/// What was demonstrated.
#[derive(Debug)]
pub struct DemoReport {
    /// What the shop did.
    pub outcome: Outcome,
    /// From the close of the shop until every lane had stored all its events.
    pub catch_up: Duration,
    /// Queries over the lake and their answers.
    pub answers: Vec<Answer>,
    /// Each table of the lake against the shop.
    pub lake: Vec<Comparison>,
    /// Each table of the mirror against the shop; empty without one.
    pub mirror: Vec<Comparison>,
}

impl DemoReport {
    /// Whether every table equals the shop's.
    pub fn is_equal(&self) -> bool {
        self.lake.iter().chain(&self.mirror).all(Comparison::is_equal)
    }
}

/// Runs a demonstration. `closing_time` closes the shop early.
pub async fn run(
    options: DemoOptions,
    closing_time: impl Future<Output = ()>,
) -> Result<DemoReport, DemoError> {
    make_folder(&options.folder)?;
    let broker = Broker::start(TABLES.map(topic).to_vec(), PARTITIONS)?;
    let mirror = match &options.postgres {
        Some(url) => Some(PostgresReader::prepare(url).await?),
        None => None,
    };
    let settings = settings(&options, &broker).map_err(DemoError::Settings)?;
    let flow = Arc::new(FlowControl::new(LIMIT, 1 + usize::from(mirror.is_some())));
    let mut service = Service::start(&settings, mode(&flow)).await?;
    let opened = Utc::now();
    let production = Production::start(shop_options(&options, &broker), Arc::clone(&flow))?;
    let figures = figures(&production, &flow, service.board().clone());
    let display = Display::start(options.length, figures);
    let (outcome, catch_up) = follow(production, &flow, &mut service, closing_time).await?;
    drop(display);
    if !service.stop(STOP).await {
        let reason = format!("it was still busy after {} s", STOP.as_secs());
        return Err(DemoError::Lane { lane: LAKE.to_owned(), reason });
    }
    let lake = LakeReader::open(&service::lake_options(&settings))?;
    let half_way = opened + outcome.elapsed / 2;
    Ok(DemoReport {
        answers: answers(&lake, half_way).await?,
        lake: verify_lake(&lake, &outcome.shop).await?,
        mirror: match &mirror {
            Some(mirror) => mirror.verify_all(&outcome.shop, &settings.pipeline.name).await?,
            None => Vec::new(),
        },
        outcome,
        catch_up,
    })
}

fn make_folder(folder: &Path) -> Result<(), DemoError> {
    let entries = std::fs::create_dir_all(folder).and_then(|()| std::fs::read_dir(folder));
    match entries.map(|mut entries| entries.next().is_some()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(DemoError::NotEmpty(folder.to_owned())),
        Err(source) => Err(DemoError::Folder { folder: folder.to_owned(), source }),
    }
}

/// The settings that a user of these sinks would write, and nothing from this process' environment.
fn settings(options: &DemoOptions, broker: &Broker) -> Result<Settings, Problems> {
    // A mirror keeps its progress by pipeline name: each demonstration has its own.
    let name = format!("demo-{}-{}", std::process::id(), Utc::now().timestamp());
    let mut overrides = vec![
        format!("pipeline.name={name}"),
        format!("kafka.bootstrap_servers={}", broker.bootstrap_servers()),
        format!("kafka.topics={}", TABLES.map(topic).join(",")),
        "batch.max_delay=500ms".to_owned(),
        format!("lake.uri={}", options.folder.display()),
        "admin.listen=".to_owned(),
    ];
    overrides.extend(CONSUMER_PROPERTIES.map(|(name, value)| format!("kafka.properties.{name}={value}")));
    if let Some(url) = &options.postgres {
        overrides.push(format!("mirrors.{MIRROR}.url={url}"));
        overrides.push(format!("mirrors.{MIRROR}.schema={}", postgres::SCHEMA));
    }
    config::load(&Sources { overrides, ..Sources::default() }, Purpose::Run)
}

fn shop_options(options: &DemoOptions, broker: &Broker) -> ProduceOptions {
    ProduceOptions {
        bootstrap_servers: broker.bootstrap_servers().to_owned(),
        partitions: PARTITIONS,
        rate: options.rate,
        duration: options.length,
        seed: options.seed,
        size: ShopSize::default(),
    }
}

/// Tells the flow control what each lane has stored.
fn mode(flow: &Arc<FlowControl>) -> Mode {
    let told = |lane: usize| -> OnCommit {
        let flow = Arc::clone(flow);
        Arc::new(move |positions| {
            for (partition, next) in positions {
                flow.sunk(lane, partition, *next);
            }
        })
    };
    let on_commit = HashMap::from([(LAKE.to_owned(), told(0)), (MIRROR.to_owned(), told(1))]);
    Mode { on_commit, without_identity: true, ..Mode::default() }
}

fn figures(
    production: &Production,
    flow: &Arc<FlowControl>,
    board: StatusBoard,
) -> impl Fn() -> Figures + Send + use<> {
    let (live, flow) = (production.live(), Arc::clone(flow));
    move || {
        let in_flight = flow.in_flight();
        let produced = live.events.load(Ordering::Relaxed) + live.tombstones.load(Ordering::Relaxed);
        let lanes = board.snapshot().lanes;
        let tables = lanes.iter().flat_map(|lane| lane.tables.values());
        Figures {
            produced,
            stored: produced.saturating_sub(in_flight),
            bytes: live.bytes.load(Ordering::Relaxed),
            freshness: tables.filter_map(|table| table.freshness_ms).max().map(Duration::from_millis),
            tables: TABLES
                .iter()
                .zip(&live.rows)
                .map(|(table, rows)| (table.name(), rows.load(Ordering::Relaxed)))
                .collect(),
        }
    }
}

/// Waits until the shop has closed and every lane has stored all of it, and returns how long after the close that was.
async fn follow(
    production: Production,
    flow: &FlowControl,
    service: &mut Service,
    closing_time: impl Future<Output = ()>,
) -> Result<(Outcome, Duration), DemoError> {
    let mut closing_time = std::pin::pin!(closing_time);
    let mut closing = false;
    while !production.is_finished() {
        tokio::select! {
            look = look_at(service) => look?,
            () = &mut closing_time, if !closing => {
                production.stop();
                closing = true;
            }
        }
    }
    let outcome = production.finish()?;
    let closed = Instant::now();
    let (mut left, mut moved) = (flow.in_flight(), closed);
    while left > 0 {
        look_at(service).await?;
        let now = flow.in_flight();
        if now < left {
            (left, moved) = (now, Instant::now());
        } else if moved.elapsed() > PATIENCE {
            return Err(DemoError::NotCaughtUp(left));
        }
    }
    Ok((outcome, closed.elapsed()))
}

/// Takes a moment; an error where a lane has ended, or a table of it stopped.
async fn look_at(service: &mut Service) -> Result<(), DemoError> {
    if let Ok(Some((lane, end))) = tokio::time::timeout(LOOK, service.next_end()).await {
        let reason = match end {
            LaneEnd::Finished => "it finished before the shop".to_owned(),
            LaneEnd::TablesStopped(tables) => format!("tables stopped: {tables:?}"),
            LaneEnd::Stopped(reason) => reason,
        };
        return Err(DemoError::Lane { lane, reason });
    }
    for lane in service.board().snapshot().lanes {
        if let Some(reason) = lane.tables.into_values().find_map(|table| table.stopped) {
            return Err(DemoError::Lane { lane: lane.lane, reason });
        }
    }
    Ok(())
}

async fn answers(lake: &LakeReader, half_way: DateTime<Utc>) -> Result<Vec<Answer>, DemoError> {
    let now = lake.session(At::Latest).await?;
    let then = lake.session(At::Time(half_way)).await?;
    let mut answers = vec![
        Answer { sql: BEST_SELLERS, at: None, batches: query(&now, BEST_SELLERS).await? },
        Answer { sql: BY_STATUS, at: None, batches: query(&now, BY_STATUS).await? },
    ];
    // Half-way through a very short day the lake may not have had its tables yet.
    if then.table_exist(ShopTable::Orders.name())? {
        answers.push(Answer { sql: BY_STATUS, at: Some(half_way), batches: query(&then, BY_STATUS).await? });
    }
    Ok(answers)
}

async fn verify_lake(lake: &LakeReader, shop: &Shop) -> Result<Vec<Comparison>, DemoError> {
    let session = lake.session(At::Latest).await?;
    let mut comparisons = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        let sql = format!("SELECT {} FROM {}", select_list(table), table.name());
        let found = rows_of_batches(table, &query(&session, &sql).await?)?;
        comparisons.push(compare(shop, table, found)?);
    }
    Ok(comparisons)
}

async fn query(session: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
    session.sql(sql).await?.collect().await
}
