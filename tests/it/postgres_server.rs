//! A private Postgres: own data folder, free port, gone with the last test that uses it.
//!
//! Postgres refuses to run as root, so root starts it as the user `postgres`. A Postgres that is not installed is a
//! failure, never a skip.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio_postgres::{Client, NoTls};

/// A running server.
pub struct PostgresServer {
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    databases: AtomicU32,
}

/// A database of its own on a server.
pub struct Database {
    server: Arc<PostgresServer>,
    name: String,
}

impl PostgresServer {
    /// Starts a server of its own.
    pub fn start() -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("alluvium-postgres-").tempdir().unwrap();
        if is_root() {
            check(&Command::new("chown").arg("postgres").arg(folder.path()).output().unwrap());
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { folder, programs, port, databases: AtomicU32::new(0) };
        server.run("initdb", &["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]);
        server.start_again();
        server
    }

    /// The server that tests share; it stops when the last of them drops it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Starts the server after [`Self::stop`], on the same port.
    pub fn start_again(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=60",
            self.port
        );
        let log = self.folder.path().join("log");
        self.run("pg_ctl", &["start", "-w", "-s", "-l", log.to_str().unwrap(), "-o", &options]);
    }

    /// Stops the server as a crash would.
    pub fn stop(&self) {
        self.run("pg_ctl", &["stop", "-w", "-s", "-m", "immediate"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        check(&self.command(program, arguments).output().unwrap());
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command
            .current_dir(self.folder.path())
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(arguments);
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // A server that does not run is stopped already.
        let _ = self.command("pg_ctl", &["stop", "-w", "-s", "-m", "immediate"]).output();
    }
}

impl Database {
    /// A new, empty database on the shared server.
    pub async fn create() -> Self {
        Self::create_on(PostgresServer::shared()).await
    }

    /// A new, empty database on `server`.
    pub async fn create_on(server: Arc<PostgresServer>) -> Self {
        let name = format!("db{}", server.databases.fetch_add(1, Ordering::Relaxed));
        let database = Self { server, name };
        let maintenance = database.connect_to("postgres").await;
        maintenance.batch_execute(&format!("CREATE DATABASE {}", database.name)).await.unwrap();
        database
    }

    /// Its server.
    pub fn server(&self) -> &PostgresServer {
        &self.server
    }

    /// A URL to reach it.
    pub fn url(&self) -> String {
        self.url_at(self.server.port)
    }

    /// The same through another port.
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/{}", self.name)
    }

    /// A connection to look at it with.
    pub async fn connect(&self) -> Client {
        self.connect_to(&self.name).await
    }

    async fn connect_to(&self, name: &str) -> Client {
        let url = format!("postgres://postgres@127.0.0.1:{}/{name}", self.server.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    let in_path = || {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .find(|folder| Path::new(folder).join("initdb").exists())
    };
    found.pop().or_else(in_path).expect("Postgres is not installed: apt-get install postgresql")
}

fn check(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
