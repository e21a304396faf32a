//! A copy in a Postgres mirror: a real server, each history in a database of its own.
use alluvium::change::{Batch, KnownSchemas, KnownTables, Progress, Sink, TableId};
use alluvium::mirror::{Mirror, MirrorOptions};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Row};

use super::reader::Copy;
use super::truth::Shown;
use crate::postgres_server::Database;

/// A mirror of its own.
pub struct MirrorCopy {
    runtime: Runtime,
    database: Database,
    client: Client,
    mirror: Option<Mirror>,
}

impl MirrorCopy {
    pub fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (database, client) = runtime.block_on(async {
            let database = Database::create().await;
            let client = database.connect().await;
            client.batch_execute("SET timezone = 'UTC'").await.unwrap();
            (database, client)
        });
        Self { runtime, database, client, mirror: None }
    }

    fn query(&self, sql: &str) -> Result<Vec<Row>, String> {
        self.runtime.block_on(self.client.query(sql, &[])).map_err(|error| format!("{sql}: {error:?}"))
    }
}

impl Copy for MirrorCopy {
    fn commit(&mut self, batch: &Batch) -> Result<(), String> {
        let mirror = self.mirror.as_mut().ok_or("no mirror")?;
        let report = self.runtime.block_on(mirror.commit(batch)).map_err(|error| error.to_string())?;
        if report.stopped.is_empty() { Ok(()) } else { Err(format!("stopped: {:?}", report.stopped)) }
    }

    fn restart(&mut self) -> Result<Option<Progress>, String> {
        self.mirror = None;
        let mut options = MirrorOptions::new("target", "histories", &self.database.url());
        options.raw = Some("raw.events".to_owned());
        let mut mirror = Mirror::new(&options).map_err(|error| error.to_string())?;
        let progress = self.runtime.block_on(mirror.load()).map_err(|error| error.to_string())?;
        self.mirror = Some(mirror);
        Ok(Some(progress))
    }

    fn known(&self) -> KnownSchemas {
        self.mirror.as_ref().map_or_else(|| Box::new(|_: &TableId| None) as KnownSchemas, Sink::known_schemas)
    }

    fn tables(&self) -> KnownTables {
        self.mirror.as_ref().map(Sink::known_tables).unwrap_or_default()
    }

    fn maintain(&mut self) -> Result<(), String> {
        let mirror = self.mirror.as_mut().ok_or("no mirror")?;
        self.runtime.block_on(mirror.maintain()).map_err(|error| error.to_string())
    }

    fn rows(&mut self, table: &str) -> Result<Vec<Shown>, String> {
        let columns = self.query(&format!(
            "SELECT column_name::text, CASE data_type WHEN 'ARRAY' THEN udt_name ELSE data_type END::text FROM information_schema.columns
             WHERE table_schema = 'public' AND table_name = '{table}' AND column_name NOT LIKE '\\_\\_%'"
        ))?;
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let columns: Vec<(String, String)> = columns.iter().map(|row| (row.get(0), row.get(1))).collect();
        let list: Vec<String> = columns
            .iter()
            .map(|(name, kind)| match kind.as_str() {
                "bytea" => format!("encode(\"{name}\", 'hex')"),
                // As the events have them.
                "_bytea" => format!(
                    "CASE WHEN \"{name}\" IS NOT NULL THEN coalesce((SELECT to_json(array_agg(replace(encode(item, 'base64'), E'\\n', '') ORDER BY at))
                     FROM unnest(\"{name}\") WITH ORDINALITY AS items (item, at)), '[]')::text END"
                ),
                array if array.starts_with('_') => format!("to_json(\"{name}\")::text"),
                _ => format!("\"{name}\"::text"),
            })
            .collect();
        let rows = self.query(&format!("SELECT {} FROM public.{table}", list.join(", ")))?;
        let shown = |row: &Row| -> Shown {
            let cell = |(at, (name, kind)): (usize, &(String, String))| {
                (name.clone(), row.get::<_, Option<String>>(at).map(|text| as_arrow_shows(kind, text)))
            };
            columns.iter().enumerate().map(cell).collect()
        };
        Ok(rows.iter().map(shown).collect())
    }

    fn raw(&mut self) -> Result<Option<Vec<String>>, String> {
        // The first batch makes it, and a history may have none.
        if self
            .query("SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'raw' AND tablename = 'events'")?
            .is_empty()
        {
            return Ok(Some(Vec::new()));
        }
        let rows = self.query("SELECT topic || '/' || partition || '@' || \"offset\" FROM raw.events")?;
        Ok(Some(rows.iter().map(|row| row.get(0)).collect()))
    }

    fn is_cheap(&self) -> bool {
        false
    }

    fn keeps_key_changes(&self) -> bool {
        true
    }
}

/// A value in the text form that Arrow gives it.
fn as_arrow_shows(kind: &str, text: String) -> String {
    match kind {
        "double precision" => text.parse::<f64>().map_or(text, |value| format!("{value:?}")),
        "timestamp with time zone" => {
            let text = text.replace(' ', "T").replace("+00", "");
            match text.split_once('.') {
                Some((seconds, fraction)) if fraction.len() <= 3 => format!("{seconds}.{fraction:0<3}Z"),
                Some((seconds, fraction)) => format!("{seconds}.{fraction:0<6}Z"),
                None => format!("{text}Z"),
            }
        }
        _ => text,
    }
}
