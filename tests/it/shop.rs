//! One test's own shop: a source database with its connector, two mirrors, a lake.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::daemon::Daemon;
use crate::eventually::{PATIENCE, eventually};
use crate::stack::kafka::Broker;
use crate::stack::postgres::{PASSWORD, PostgresServer, USER};
use crate::stack::{self, Stack, Turn, path_text};

/// The tables of `init-scripts/source-init.sql`.
pub const TABLES: [&str; 4] = ["customers", "products", "orders", "order_items"];

/// How a shop differs from the plain one.
pub struct Plan {
    /// Names everything that the shop has. Letters, digits and `_`.
    pub name: &'static str,
    /// Whether its test needs the servers for itself.
    pub alone: bool,
    /// Whether events carry a schema block.
    pub schema_blocks: bool,
    /// Partitions of each topic.
    pub partitions: u32,
    /// Statements for the source before the connector starts.
    pub prepare: &'static str,
    /// Settings of the connector that differ from those of `connectors/`.
    pub connector: Vec<(&'static str, &'static str)>,
    /// A server of its own for the target mirror, so that the test can stop it.
    pub own_target_server: bool,
    /// Whether the program may ask the source's catalog.
    pub asks_source: bool,
    /// Further lines for the settings file.
    pub settings: String,
    /// Lines for its section `[kafka]`.
    pub kafka_settings: &'static str,
}

impl Plan {
    /// The plain shop.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            alone: false,
            schema_blocks: true,
            partitions: 1,
            prepare: "",
            connector: Vec::new(),
            own_target_server: false,
            asks_source: false,
            settings: String::new(),
            kafka_settings: "",
        }
    }

    /// Brings the shop up: databases, connector, settings. Its snapshot may still be under way.
    pub async fn open(self) -> Shop {
        Shop::open(self).await
    }
}

/// A shop and what belongs to it.
pub struct Shop {
    /// Its name; also the database of the source, the connector, its slot and its topic prefix.
    pub name: String,
    /// The servers it lives on.
    pub stack: &'static Stack,
    /// A session in the source database.
    pub source: Client,
    /// The folder of the lake.
    pub lake: PathBuf,
    /// The server of the target mirror.
    pub target_server: PostgresServer,
    /// The settings file.
    pub settings: PathBuf,
    folder: PathBuf,
    daemons: AtomicU64,
    crowds: AtomicU64,
    own_target_server: bool,
    _turn: Turn,
}

impl Shop {
    async fn open(plan: Plan) -> Self {
        let (stack, turn) = if plan.alone { stack::alone().await } else { stack::shared().await };
        let name = plan.name.to_owned();
        let folder = stack.folder.join("shops").join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        let source = stack.source.create_database(&name, "source-init.sql").await;
        // Its rows tell when Debezium has delivered everything before them.
        source
            .batch_execute("CREATE TABLE public.barrier (id int PRIMARY KEY, passed bigint)")
            .await
            .unwrap();
        source.batch_execute(plan.prepare).await.unwrap_or_else(|error| panic!("prepare: {error:?}"));
        let target_server = if plan.own_target_server {
            let folder = stack.folder.join(format!("target-of-{name}"));
            PostgresServer::start(&folder, "wal_level = minimal\nmax_wal_senders = 0").unwrap()
        } else {
            stack.mirrors.clone()
        };
        stack.mirrors.create_database(&format!("{name}_datalake"), "datalake-init.sql").await;
        target_server.create_database(&format!("{name}_target"), "target-init.sql").await;
        let shop = Self {
            settings: folder.join("alluvium.toml"),
            lake: folder.join("lake"),
            own_target_server: plan.own_target_server,
            daemons: AtomicU64::new(0),
            crowds: AtomicU64::new(0),
            name,
            stack,
            source,
            target_server,
            folder,
            _turn: turn,
        };
        std::fs::write(&shop.settings, shop.settings_text(&plan)).unwrap();
        stack.connect().register(&shop.name, &shop.connector(&plan)).await;
        shop
    }

    /// The connector of `connectors/`, for this shop's source.
    fn connector(&self, plan: &Plan) -> Value {
        let path = stack::project().join("connectors/postgres-source-connector.json");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut settings: Value = serde_json::from_str(&text).unwrap();
        for (key, value) in [
            ("database.hostname", json!("127.0.0.1")),
            ("database.port", json!(self.stack.source.port().to_string())),
            ("database.user", json!(USER)),
            ("database.password", json!(PASSWORD)),
            ("database.dbname", json!(self.name)),
            ("slot.name", json!(self.name)),
            ("topic.prefix", json!(self.name)),
            ("topic.creation.default.partitions", json!(plan.partitions.to_string())),
            ("key.converter.schemas.enable", json!(plan.schema_blocks.to_string())),
            ("value.converter.schemas.enable", json!(plan.schema_blocks.to_string())),
            ("heartbeat.interval.ms", json!("1000")),
        ] {
            settings[key] = value;
        }
        for (key, value) in &plan.connector {
            settings[*key] = json!(value);
        }
        settings
    }

    fn settings_text(&self, plan: &Plan) -> String {
        let mut text = format!(
            r#"[pipeline]
name = "{name}"

[kafka]
bootstrap_servers = "{bootstrap}"
topics = ["^{name}\\.public\\..*", "__debezium-heartbeat.{name}"]
properties = {{ "session.timeout.ms" = "2000", "heartbeat.interval.ms" = "500" }}
{kafka}
[batch]
max_delay = "200ms"
max_rows = 2000

[lake]
uri = "{lake}"

[mirrors.datalake]
url = "{datalake}"
schema = "cdc_processed"
raw = "cdc_raw.cdc_events"

[mirrors.target]
url = "{target}"
schema = "public"
"#,
            name = self.name,
            bootstrap = self.stack.bootstrap(),
            kafka = plan.kafka_settings,
            lake = path_text(&self.lake),
            datalake = self.stack.mirrors.url(&format!("{}_datalake", self.name)),
            target = self.target_server.url(&format!("{}_target", self.name)),
        );
        if plan.asks_source {
            write!(text, "\n[source]\nurl = \"{}\"\n", self.stack.source.url(&self.name)).unwrap();
        }
        write!(text, "\n{}\n", plan.settings).unwrap();
        text
    }

    /// The broker.
    pub fn broker(&self) -> Broker {
        Broker::new(self.stack.bootstrap())
    }

    /// The topic of a table.
    pub fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.name)
    }

    /// A further session in the source database.
    pub async fn another_session(&self) -> Client {
        self.stack.source.connect(&self.name).await
    }

    /// A session in the database of the datalake mirror.
    pub async fn datalake(&self) -> Client {
        self.stack.mirrors.connect(&format!("{}_datalake", self.name)).await
    }

    /// A session in the database of the target mirror.
    pub async fn target(&self) -> Client {
        self.target_server.connect(&format!("{}_target", self.name)).await
    }

    /// A run of the program, not started yet: `alluvium COMMAND --config FILE …`.
    pub fn program(&self, command: &str) -> Daemon {
        let number = self.daemons.fetch_add(1, Ordering::Relaxed);
        Daemon::new(&self.name, command, &self.settings, self.folder.join(format!("run-{number}.log")))
    }

    /// Runs the program until it has read everything, with no limit on what it may put into quarantine.
    pub async fn catches_up_without_limit(&self) {
        let mut run = self
            .program("run")
            .argument("--until-caught-up")
            .argument("--set")
            .argument("quarantine.max_records=0")
            .start();
        run.exits_with(0, Duration::from_secs(90)).await;
    }

    /// The number of the next crowd of clients that works here.
    pub fn next_crowd(&self) -> u64 {
        self.crowds.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns when every change committed in the source so far lies on Kafka.
    ///
    /// Debezium confirms a position of the source when Connect has committed the offsets of its records, and it does
    /// that in order: once it has confirmed a barrier, Kafka has acknowledged all records before it. The confirmed
    /// position is that of the transaction before the newest, hence two barriers.
    pub async fn delivered(&self) {
        let goal: String =
            self.source.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await.unwrap().get(0);
        eventually("Debezium has delivered everything", PATIENCE, || async {
            // Again at each attempt: a connector that was restarted may confirm only with what comes next.
            let barrier = "INSERT INTO public.barrier VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET passed = barrier.passed + 1";
            self.source.execute(barrier, &[]).await.unwrap();
            let slot = "SELECT coalesce(confirmed_flush_lsn >= $1::text::pg_lsn, false), confirmed_flush_lsn::text
                        FROM pg_replication_slots WHERE slot_name = $2";
            let row = self.source.query_opt(slot, &[&goal, &self.name]).await.unwrap();
            match row {
                Some(row) if row.get(0) => Ok(()),
                Some(row) => Err(format!("confirmed {:?}, wanted {goal}", row.get::<_, Option<String>>(1))),
                None => Err(format!("no replication slot {}", self.name)),
            }
        })
        .await;
        self.barriers_on_kafka().await;
    }

    /// The barriers themselves may be under way after the one that was confirmed.
    async fn barriers_on_kafka(&self) {
        let passed: i64 =
            self.source.query_one("SELECT passed FROM public.barrier", &[]).await.unwrap().get(0);
        let newest = format!("\"passed\":{passed}}}");
        eventually("the newest barrier is on Kafka", PATIENCE, || async {
            let records = self.broker().read_all(&self.topic("barrier"));
            let found = records.iter().rev().any(|record| {
                record.value.as_deref().is_some_and(|value| String::from_utf8_lossy(value).contains(&newest))
            });
            if found { Ok(()) } else { Err(format!("no {newest} in {} records", records.len())) }
        })
        .await;
    }

    /// Reads everything that lies on Kafka into every sink, with a run that ends by itself.
    pub async fn catch_up(&self) {
        self.delivered().await;
        let mut run = self.program("run").argument("--until-caught-up").start();
        run.exits_with(0, Duration::from_mins(3)).await;
    }

    /// Reads what lies on Kafka with runs that are killed at a failpoint, one where it is passed for the first time and one
    /// for the second. A run that does not pass it so often ends by itself.
    pub async fn catch_up_killed_at(&self, failpoint: &str) {
        for hit in 1..=2 {
            let armed = format!("{failpoint}:{hit}");
            let run = self.program("run").argument("--until-caught-up");
            run.environment(alluvium::failpoint::VARIABLE, &armed).start().ends(PATIENCE).await;
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if self.own_target_server {
            self.target_server.kill();
        }
        // A connector that goes on working takes the machine from the tests that follow, and its slot stays without it: a
        // server has so many, and each keeps the log from its position on.
        let (connect, source, name) = (self.stack.connect(), self.stack.source.clone(), self.name.clone());
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| {
                runtime.block_on(async {
                    connect.delete(&name).await;
                    source.drop_slots(&name).await;
                });
            })
        });
        let _ = ended.join();
    }
}
