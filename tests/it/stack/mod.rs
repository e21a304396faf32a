//! The servers that all tests of this process share: two Postgres (source, mirrors), one Kafka, one Connect worker.
//!
//! They are started by the same scripts as `scripts/start.sh --native` uses, on free ports in a folder of their own,
//! when the first test asks for them. A stack that does not start fails each test that needs it.
//!
//! They never outlive the process, however it ends: `supervise.sh` holds the other end of a pipe, and stops all of
//! them when it closes. A guard cannot do that, because statics are not dropped.

pub mod connect;
pub mod kafka;
pub mod postgres;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use tokio::sync::{Semaphore, SemaphorePermit};

use postgres::PostgresServer;

/// The running servers.
pub struct Stack {
    /// Holds everything: data, logs, the tests' own folders. Reachable by the system's user `postgres`.
    pub folder: PathBuf,
    /// Where the shops live.
    pub source: PostgresServer,
    /// Where their copies live.
    pub mirrors: PostgresServer,
    kafka_port: u16,
    connect_port: u16,
    _supervisor: Child,
}

/// Tests that run at a time. More would only take turns on the two cores that the suite is meant for.
const TESTS_AT_A_TIME: u32 = 3;
static TURNS: Semaphore = Semaphore::const_new(TESTS_AT_A_TIME as usize);

/// A test's turn to use the servers.
pub type Turn = SemaphorePermit<'static>;

/// The servers, used together with other tests.
pub async fn shared() -> (&'static Stack, Turn) {
    let turn = TURNS.acquire().await.expect("the semaphore is never closed");
    (start_once(), turn)
}

/// The servers, used alone: for a test that stops one of them.
pub async fn alone() -> (&'static Stack, Turn) {
    let turn = TURNS.acquire_many(TESTS_AT_A_TIME).await.expect("the semaphore is never closed");
    (start_once(), turn)
}

fn start_once() -> &'static Stack {
    static STACK: OnceLock<Result<Stack, String>> = OnceLock::new();
    match STACK.get_or_init(start) {
        Ok(stack) => stack,
        Err(reason) => panic!("the stack does not start: {reason}"),
    }
}

impl Stack {
    /// Kafka's `host:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_port)
    }

    /// Ends the broker as a crash would.
    pub fn kill_kafka(&self) {
        script("kafka.sh", &["kill", &self.part("kafka")], &[]).unwrap();
    }

    /// Starts the broker again, on the same port and data. Returns when it answers.
    pub fn start_kafka(&self) {
        start_kafka(&self.folder, self.kafka_port).unwrap();
    }

    /// Ends the Connect worker as a crash would.
    pub fn kill_connect(&self) {
        script("connect.sh", &["kill", &self.part("connect")], &[]).unwrap();
    }

    /// Starts the Connect worker again. Returns when it answers.
    pub fn start_connect(&self) {
        start_connect(&self.folder, self.connect_port, &self.bootstrap()).unwrap();
    }

    /// Connect's REST interface.
    pub fn connect(&self) -> connect::Connect {
        connect::Connect::new(self.connect_port)
    }

    /// The broker's folder of one partition.
    pub fn partition_folder(&self, topic: &str, partition: i32) -> PathBuf {
        self.folder.join("kafka/data").join(format!("{topic}-{partition}"))
    }

    fn part(&self, name: &str) -> String {
        path_text(&self.folder.join(name))
    }
}

fn start() -> Result<Stack, String> {
    let begin = Instant::now();
    script("install.sh", &[], &[])?;
    let folder = PathBuf::from(format!("/var/tmp/alluvium-it-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let supervisor = supervise(&folder)?;
    let (kafka_port, connect_port) = (free_port(), free_port());
    let brokers = {
        let folder = folder.clone();
        std::thread::spawn(move || {
            start_kafka(&folder, kafka_port)?;
            start_connect(&folder, connect_port, &format!("127.0.0.1:{kafka_port}"))
        })
    };
    // The mirrors write no logical log: nobody reads it, and the source's slots have enough to read.
    let source = PostgresServer::start(&folder.join("source"), "");
    let mirrors = PostgresServer::start(&folder.join("mirrors"), "wal_level = minimal\nmax_wal_senders = 0");
    brokers.join().map_err(|_| "the thread that starts Kafka panicked".to_owned())??;
    eprintln!("stack started in {:.1} s: {}", begin.elapsed().as_secs_f32(), folder.display());
    Ok(Stack {
        folder,
        source: source?,
        mirrors: mirrors?,
        kafka_port,
        connect_port,
        _supervisor: supervisor,
    })
}

fn start_kafka(folder: &Path, port: u16) -> Result<(), String> {
    // Tests kill group members all the time; the group has to notice within seconds.
    let settings = "group.min.session.timeout.ms=1000\nlog.retention.check.interval.ms=1000\nlog.initial.task.delay.ms=1000";
    script(
        "kafka.sh",
        &["start", &path_text(&folder.join("kafka")), &port.to_string()],
        &[("KAFKA_PROPERTIES", settings), ("KAFKA_HEAP_OPTS", "-Xmx512m")],
    )
}

fn start_connect(folder: &Path, port: u16, bootstrap: &str) -> Result<(), String> {
    // Debezium confirms its position in the source when offsets are flushed, and a quiet point is told by that.
    script(
        "connect.sh",
        &["start", &path_text(&folder.join("connect")), &port.to_string(), bootstrap],
        &[("CONNECT_PROPERTIES", "offset.flush.interval.ms=500"), ("CONNECT_HEAP_OPTS", "-Xmx768m")],
    )
}

fn supervise(folder: &Path) -> Result<Child, String> {
    Command::new("setsid")
        .arg("bash")
        .arg(project().join("tests/it/stack/supervise.sh"))
        .arg(folder)
        .arg(scripts())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("supervise.sh: {error}"))
}

/// The folder of the project.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn scripts() -> PathBuf {
    project().join("scripts/stack")
}

/// Runs a script of the stack. The error is what it printed.
pub fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let output = tempfile::tempfile().map_err(|error| error.to_string())?;
    let both = || output.try_clone().map_err(|error| error.to_string());
    // A file, not a pipe: the servers that a script leaves behind would keep a pipe open.
    let status = Command::new("bash")
        .arg(scripts().join(name))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(both()?)
        .stderr(both()?)
        .status()
        .map_err(|error| format!("{name}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    let mut output = output;
    std::io::Seek::rewind(&mut output).map_err(|error| error.to_string())?;
    output.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Err(format!("{name} {}: {status}\n{text}", arguments.join(" ")))
}

/// A port that nobody listens on, below the range that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static OFFSET: AtomicU16 = AtomicU16::new(0);
    let first = 11_000 + (std::process::id() % 9_000) as u16;
    (0..5_000)
        .map(|_| first + OFFSET.fetch_add(1, Ordering::Relaxed) % 9_000)
        .find(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("no free port")
}

/// A path as the text that scripts and settings take.
pub fn path_text(path: &Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").to_owned()
}
