//! Results on standard output: a table for people, JSON or CSV for scripts.
//!
//! Every command that shows rows makes Arrow batches of them, so that all of them print alike.

use std::io::{self, Write};
use std::sync::Arc;

use super::RowsFormat;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv::WriterBuilder;
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;

/// Prints batches of one schema.
///
/// # Errors
/// Where a value has no text form, or standard output is closed.
pub fn print(batches: &[RecordBatch], format: RowsFormat) -> Result<(), ArrowError> {
    let mut out = io::stdout().lock();
    match format {
        RowsFormat::Table => {
            let options = FormatOptions::default().with_display_error(true);
            writeln!(out, "{}", pretty_format_batches_with_options(batches, &options)?)?;
        }
        RowsFormat::Json => {
            let mut writer = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::JsonArray>(&mut out);
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
            writeln!(out)?;
        }
        RowsFormat::Csv => {
            let mut writer = WriterBuilder::new().with_header(true).build(&mut out);
            for batch in batches {
                writer.write(batch)?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// A batch of named columns; all are nullable.
///
/// # Errors
/// Where the columns differ in length.
pub fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}

/// A column of text.
pub fn text(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

/// Prints a line of text.
///
/// # Errors
/// Where standard output is closed.
pub fn line(text: &str) -> Result<(), ArrowError> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}
