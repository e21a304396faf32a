//! A Postgres server of the tests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use super::{free_port, path_text, project, script};

/// The user that may do everything.
pub const USER: &str = "postgres";
/// The password of [`USER`].
pub const PASSWORD: &str = "not a secret";

/// How long a connector may take to let go of its slot.
const SLOTS_PATIENCE: Duration = Duration::from_secs(20);

const DROP_SLOTS: &str =
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active";
const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots WHERE database = $1";

/// A server on a port of its own, with a password, as in production.
#[derive(Debug, Clone)]
pub struct PostgresServer {
    folder: PathBuf,
    port: u16,
}

impl PostgresServer {
    /// Makes and starts a server in `folder`, with further lines for its settings.
    pub fn start(folder: &Path, settings: &str) -> Result<Self, String> {
        let server = Self { folder: folder.to_owned(), port: free_port() };
        // No fsync: these servers survive a crash of theirs, and nobody misses them after one of the machine.
        script(
            "postgres.sh",
            &["start", &path_text(folder), &server.port.to_string()],
            &[
                ("POSTGRES_USER", USER),
                ("POSTGRES_PASSWORD", PASSWORD),
                ("POSTGRES_FSYNC", "off"),
                ("POSTGRES_SETTINGS", settings),
            ],
        )?;
        Ok(server)
    }

    /// Starts it again after [`Self::kill`]. Returns when it answers.
    pub fn start_again(&self) {
        script("postgres.sh", &["start", &path_text(&self.folder), &self.port.to_string()], &[]).unwrap();
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        script("postgres.sh", &["kill", &path_text(&self.folder)], &[]).unwrap();
    }

    /// Its port on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database, as settings take it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", PASSWORD.replace(' ', "%20"), self.port)
    }

    /// Drops the replication slots of a database whose connectors are gone. Those that somebody still reads from after a
    /// while, and those of a server that is away, stay.
    pub async fn drop_slots(&self, database: &str) {
        let Ok(client) = self.try_connect("postgres").await else { return };
        let begun = Instant::now();
        while begun.elapsed() < SLOTS_PATIENCE {
            let dropped = client.execute(DROP_SLOTS, &[&database]).await;
            let left = client.query_one(SLOTS, &[&database]).await.map(|row| row.get::<_, i64>(0));
            if dropped.is_err() && left.is_err() || left.is_ok_and(|left| left == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A session in a database, with the settings that make text the same in all of them.
    pub async fn connect(&self, database: &str) -> Client {
        self.try_connect(database).await.unwrap_or_else(|error| panic!("database {database}: {error}"))
    }

    /// As [`Self::connect`], where the server may be away.
    pub async fn try_connect(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user(USER)
            .password(PASSWORD)
            .dbname(database)
            .connect(NoTls)
            .await?;
        // Ends with the client; an error of the connection shows in the client's next call.
        tokio::spawn(connection);
        client
            .batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET bytea_output = 'hex'; SET intervalstyle = 'postgres'")
            .await?;
        Ok(client)
    }

    /// A new database, set up by a script of `init-scripts/`, or by none.
    pub async fn create_database(&self, name: &str, init_script: &str) -> Client {
        let server = self.connect("postgres").await;
        server.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let database = self.connect(name).await;
        if !init_script.is_empty() {
            let path = project().join("init-scripts").join(init_script);
            let sql =
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            database
                .batch_execute(&sql)
                .await
                .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        }
        database
    }
}
