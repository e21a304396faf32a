//! How data files of current tables are encoded.
//!
//! Pages are small, for single cells are read back. Chunks have statistics, by which readers leave out row groups; the
//! key columns of files that are sorted by key have them for each page besides ([`clustered_by`]).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{FileMetaData, KeyValue};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::schema::types::ColumnPath;

/// Bytes and rows after which a page ends, and bytes of a column's dictionary: a cell that is looked up costs the two.
/// What that takes in space and time is measured in `tests::pages`.
pub(super) const PAGE: usize = 32 << 10;
pub(super) const ROWS_OF_A_PAGE: usize = 2048;
pub(super) const DICTIONARY: usize = 64 << 10;

/// How data files of current tables are written.
pub(in crate::lake) fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_data_page_size_limit(PAGE)
        .set_data_page_row_count_limit(ROWS_OF_A_PAGE)
        .set_dictionary_page_size_limit(DICTIONARY)
        .build()
}

/// Name under which the footer of a file says by which columns its rows are sorted: those of a step of compaction whose
/// sources all were. Nothing but the memory of a later step depends on it.
const SORTED_BY: &str = "alluvium.sorted_by";

/// How the files of compaction are written in which rows lie by `key`: readers that leave out pages find the bounds of the
/// key in each. `sorted_by` says that no row lies elsewhere.
pub(super) fn clustered_by(key: &[String], sorted_by: Option<&str>) -> WriterProperties {
    let said = sorted_by.map(|columns| vec![KeyValue::new(SORTED_BY.to_owned(), columns.to_owned())]);
    let with_pages = |properties: WriterPropertiesBuilder, column: &String| {
        let path = ColumnPath::new(vec![column.clone()]);
        properties.set_column_statistics_enabled(path, EnabledStatistics::Page)
    };
    key.iter().fold(writer_properties().into_builder(), with_pages).set_key_value_metadata(said).build()
}

/// The columns by which a file says that it is sorted.
pub(super) fn sorted_by(footer: &FileMetaData) -> Option<&str> {
    let said = footer.key_value_metadata()?.iter().find(|said| said.key == SORTED_BY)?;
    said.value.as_deref()
}

/// A data file in memory, row by row.
pub(in crate::lake) struct RowWriter {
    writer: ArrowWriter<Vec<u8>>,
    rows: usize,
}

impl RowWriter {
    pub(in crate::lake) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(writer_properties()))?;
        Ok(Self { writer, rows: 0 })
    }

    pub(in crate::lake) fn write(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        self.rows += rows.num_rows();
        Ok(self.writer.write(rows)?)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(in crate::lake) fn finish(self) -> Result<Vec<u8>, ArrowError> {
        Ok(self.writer.into_inner()?)
    }
}
