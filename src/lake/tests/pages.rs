//! What the size of pages costs and saves: a figure for ADR 3; run with `--ignored --nocapture`.

#![allow(clippy::print_stderr)]

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use deltalake::logstore::object_store::local::LocalFileSystem;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::lake::mor::DataFiles;

/// Rows of a page, its bytes, and those of a dictionary.
type Limits = (usize, usize, usize);

/// The library's own, and others.
const LIMITS: [Limits; 8] = [
    (20_000, 1 << 20, 1 << 20),
    (2048, 64 << 10, 1 << 20),
    (4096, 64 << 10, 64 << 10),
    (2048, 64 << 10, 64 << 10),
    (1024, 64 << 10, 64 << 10),
    (2048, 64 << 10, 256 << 10),
    (2048, 32 << 10, 64 << 10),
    (2048, 16 << 10, 16 << 10),
];

fn text(random: &mut fastrand::Rng, characters: usize) -> String {
    (0..characters).map(|_| random.alphanumeric()).collect()
}

/// Orders: eight columns, most of them short.
fn narrow(rows: i64) -> RecordBatch {
    let mut random = fastrand::Rng::with_seed(7);
    let mut numbers = |below: i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..rows).map(|_| random.i64(0..below))))
    };
    let numbers = [numbers(50_000), numbers(10_000_000), numbers(5), numbers(1 << 45)];
    let mut random = fastrand::Rng::with_seed(8);
    let statuses = ["new", "paid", "sent", "returned", "lost"];
    let mut texts = |of: &dyn Fn(i64, &mut fastrand::Rng) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| of(row, &mut random))))
    };
    let texts = [
        texts(&|_, random| statuses[random.usize(0..5)].to_owned()),
        texts(&|_, random| format!("name of customer {}", random.u32(0..100_000_000))),
        texts(&|_, random| format!("{}@example.com", text(random, 12))),
    ];
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let columns = std::iter::once(ids).chain(numbers).chain(texts);
    RecordBatch::try_from_iter(columns.zip(0..).map(|(cells, at)| (format!("column_{at}"), cells))).unwrap()
}

/// Rows of one long text.
fn wide(rows: i64) -> RecordBatch {
    let mut random = fastrand::Rng::with_seed(9);
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let notes: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|_| text(&mut random, 2000))));
    RecordBatch::try_from_iter([("id", ids), ("note", notes)]).unwrap()
}

fn encode(rows: &RecordBatch, (count, page, dictionary): Limits) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_data_page_row_count_limit(count)
        .set_data_page_size_limit(page)
        .set_dictionary_page_size_limit(dictionary);
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties.build())).unwrap();
    for first in (0..rows.num_rows()).step_by(8192) {
        writer.write(&rows.slice(first, (rows.num_rows() - first).min(8192))).unwrap();
    }
    writer.into_inner().unwrap()
}

/// Files of several page sizes: their bytes, the time to write them, to read one row and to read a hundred scattered ones.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn files_and_single_rows_by_size_of_pages() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let files = DataFiles { table: "t".into(), store };
    for (name, rows) in [("narrow", narrow(400_000)), ("wide", wide(20_000))] {
        for limits in LIMITS {
            let started = Instant::now();
            let bytes = encode(&rows, limits);
            let written = started.elapsed();
            let size = bytes.len();
            std::fs::write(folder.path().join("a.parquet"), bytes).unwrap();
            let mut random = fastrand::Rng::with_seed(7);
            let mut times = Vec::new();
            for count in [1, 100] {
                let started = Instant::now();
                for _ in 0..20 {
                    let mut chosen: Vec<u32> =
                        (0..count).map(|_| random.u32(0..rows.num_rows() as u32)).collect();
                    chosen.sort_unstable();
                    chosen.dedup();
                    let read = files.rows("a.parquet", &rows.schema(), &chosen).await.unwrap();
                    assert_eq!(read.num_rows(), chosen.len());
                }
                times.push(started.elapsed().as_secs_f64() * 50.0);
            }
            eprintln!(
                "{name}, {limits:?}: {size} bytes, written in {:.0} ms, one row {:.2} ms, a hundred {:.1} ms",
                written.as_secs_f64() * 1000.0,
                times[0],
                times[1]
            );
        }
    }
}
