//! An S3 server of a test's own: moto, behind a gate that the test can close as a failing network would.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use deltalake::logstore::object_store::ObjectStoreExt;
use deltalake::logstore::{StorageConfig, logstore_for};
use futures::TryStreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use url::Url;

use crate::eventually::{PATIENCE, eventually};
use crate::stack::{free_port, project};

/// The bucket that the server has.
const BUCKET: &str = "shop";

/// A running server with one bucket. It ends with the value, or with the thread that started it.
pub struct Server {
    child: Child,
    port: u16,
    gate: u16,
    open: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server, with its gate open.
    pub async fn start() -> Self {
        let script = project().join("scripts/stack/s3.sh");
        let installed = Command::new("bash").arg(&script).arg("install").output().unwrap();
        assert!(installed.status.success(), "s3.sh install: {}", String::from_utf8_lossy(&installed.stderr));
        let port = free_port();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "bash"])
            .arg(&script)
            .args(["run", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("setpriv (package util-linux): {error}"));
        let mut server = Self { child, port, gate: free_port(), open: None };
        server.make_bucket().await;
        server.open().await;
        server
    }

    async fn make_bucket(&self) {
        let client = reqwest::Client::new();
        eventually("the S3 server makes a bucket", PATIENCE, || async {
            let answer = client
                .put(format!("http://127.0.0.1:{}/{BUCKET}", self.port))
                // moto reads the region and the service from it, and believes whoever signs.
                .header(
                    "Authorization",
                    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0",
                )
                .send()
                .await
                .map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
    }

    /// Lets connections through.
    pub async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.gate)).await.unwrap();
        let port = self.port;
        self.open = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        }));
    }

    /// Cuts all connections, and refuses new ones.
    pub async fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort();
            // Cancelled, as asked for.
            let _ = open.await;
        }
    }

    /// The address of a lake in the bucket.
    pub fn lake() -> String {
        format!("s3://{BUCKET}/some/lake")
    }

    /// The storage options of a writer that goes through the gate.
    pub fn options(&self) -> HashMap<String, String> {
        HashMap::from(
            [
                ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.gate).as_str()),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        )
    }

    /// Copies all objects of the lake into a folder, where readers of local tables find them.
    pub async fn copy_lake_to(&self, folder: &Path) {
        deltalake::aws::register_handlers(None);
        let config = StorageConfig::parse_options(self.options()).unwrap();
        let store = logstore_for(&Url::parse(&Self::lake()).unwrap(), config).unwrap().object_store(None);
        let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert!(!objects.is_empty(), "no object in {}", Self::lake());
        for object in objects {
            let path = folder.join(object.location.as_ref());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
