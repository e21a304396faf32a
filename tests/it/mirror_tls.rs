//! `sslmode` against a Postgres with TLS: what each mode checks of the server.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use alluvium::change::{Sink, SinkError};
use alluvium::mirror::{Mirror, MirrorOptions};

use super::postgres_server::{Database, PostgresServer};

/// A certificate authority and a certificate of `localhost` by it, for the server.
const CERTIFICATES: &str = "
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > extensions
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem
chmod 600 server.key; chmod 755 . ; chmod 644 ca.pem other.pem
if [ \"$(id -u)\" = 0 ]; then chown postgres server.key; fi
";

fn certificates(folder: &Path) {
    let output = Command::new("sh").args(["-ec", CERTIFICATES]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn each_sslmode_checks_what_libpq_checks() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let database = Database::create_on(Arc::new(PostgresServer::start())).await;
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let client = database.connect().await;
    for (setting, value) in [("ssl_cert_file", path("server.pem")), ("ssl_key_file", path("server.key"))] {
        client.batch_execute(&format!("ALTER SYSTEM SET {setting} = '{value}'")).await.unwrap();
    }
    client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    database.server().stop();
    database.server().start_again();

    let (ca, other) = (path("ca.pem"), path("other.pem"));
    let cases = [
        ("127.0.0.1", "sslmode=prefer".to_owned(), true),
        ("127.0.0.1", "sslmode=require".to_owned(), true),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}"), false),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}"), true),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}"), false),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}"), false),
        ("localhost", format!("sslmode=verify-full&sslrootcert={ca}"), true),
    ];
    for (host, parameters, accepted) in cases {
        let url = format!("{}?{parameters}", database.url().replace("127.0.0.1", host));
        let mut mirror = Mirror::new(&MirrorOptions::new("target", "shop", &url)).unwrap();
        match (mirror.load().await, accepted) {
            (Ok(_), true) | (Err(SinkError::Retry { class: "connection", .. }), false) => {}
            (answer, _) => panic!("{host} {parameters}: {answer:?}"),
        }
        let sql = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) \
                   WHERE application_name = 'alluvium' AND s.ssl";
        let encrypted: i64 = database.connect().await.query_one(sql, &[]).await.unwrap().get(0);
        assert!(encrypted > 0 || !accepted, "{host} {parameters} was not encrypted");
    }
}
