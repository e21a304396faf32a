//! A connection that breaks at COMMIT: whether Postgres got it or not, the batch is stored exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use alluvium::change::{Batch, Sink, SinkError};
use alluvium::mirror::{Mirror, MirrorOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::mirror_changes::{batch, item_changes, put, raw_rows};
use super::postgres_server::Database;

/// Where the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Break {
    /// COMMIT does not reach the server.
    BeforeCommit,
    /// The server's answer does not reach the client.
    BeforeReply,
}

/// Passes bytes on to the server, and breaks the first connection that commits, once `armed`.
async fn proxy(server: u16, place: Break, armed: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            tokio::spawn(pass(client, server, place, Arc::clone(&armed)));
        }
    });
    port
}

async fn pass(mut client: TcpStream, mut server: TcpStream, place: Break, armed: Arc<AtomicBool>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Some(bytes) = read.ok().and_then(|count| up.get(..count)).filter(|bytes| !bytes.is_empty()) else { return };
                let breaks = bytes.windows(7).any(|window| window == b"COMMIT\0") && armed.swap(false, Ordering::SeqCst);
                if breaks && place == Break::BeforeCommit {
                    return;
                }
                server.write_all(bytes).await.unwrap();
                if breaks {
                    let _ = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Some(bytes) = read.ok().and_then(|count| down.get(..count)).filter(|bytes| !bytes.is_empty()) else { return };
                if client.write_all(bytes).await.is_err() { return }
            }
        }
    }
}

fn part(first: i64, next: i64) -> Batch {
    let rows: Vec<_> = (first..next).map(|id| put(id as i32, "a", "x")).collect();
    let mut batch = batch(vec![("t", first, next, vec![item_changes("items", first, &rows)])]);
    batch.raw = Some(raw_rows("t", first, next));
    batch
}

#[tokio::test]
async fn a_batch_whose_commit_is_in_doubt_is_stored_once() {
    for place in [Break::BeforeCommit, Break::BeforeReply] {
        let database = Database::create().await;
        let client = database.connect().await;
        let armed = Arc::new(AtomicBool::new(false));
        let port = proxy(database.server().port, place, Arc::clone(&armed)).await;
        let mut options = MirrorOptions::new("target", "shop", &database.url_at(port));
        options.raw = Some("raw.events".to_owned());
        let mut mirror = Mirror::new(&options).unwrap();
        mirror.load().await.unwrap();
        // The first batch inserts its position, the later ones update theirs.
        for (first, next) in [(0, 3), (3, 5), (5, 6)] {
            armed.store(true, Ordering::SeqCst);
            let batch = part(first, next);
            let error = mirror.commit(&batch).await.unwrap_err();
            assert!(matches!(error, SinkError::Retry { class: "connection", .. }), "{place:?}: {error:?}");
            assert!(!armed.load(Ordering::SeqCst), "the proxy saw no COMMIT");
            mirror.commit(&batch).await.unwrap_or_else(|error| panic!("{place:?}: {error:?}"));
        }
        let sql = "SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM raw.events)";
        let row = client.query_one(sql, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (6, 6), "{place:?}");
    }
}
