//! Rows as a Parquet file, written front to back.
//!
//! Callers: [`crate::Encoder`]; who makes files. Invariants: the same rows by the same schema give the same bytes, whatever the
//! machine, so that a file that was thrown away can be made again; no more is held than a row group and the footer's part.
//! Statistics of offset, timestamp and key stand for each row group and each page, those of fields for each row group, and a Bloom
//! filter of keys beside, so that engines read only what they need.

use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::columns::Columns;
use crate::encode::{Counts, EncodeError, Encoded, NewError};
use crate::row::Row;
use crate::schema::Schema;
use crate::table::{Parts, Table, TablePart, Topics};

/// Rows of a row group.
pub const ROW_GROUP_ROWS_MAX: usize = 128 * 1024;
/// Bytes of a row group, encoded.
const ROW_GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Who made the file: the format's, not the release's, so that a release alone changes no bytes.
const CREATED_BY: &str = "alluvium columns 1";

/// Writes a file.
pub struct Parquet {
    table: Table,
    /// What takes the rows in place of the table.
    parts: Option<Parts>,
    writer: ArrowWriter<Vec<u8>>,
}

impl Parquet {
    /// A file with these columns.
    pub fn new(columns: Columns, schema: &Schema) -> Result<Parquet, NewError> {
        let table = Table::new(columns, schema, Topics::Plain)?;
        let properties = properties().map_err(EncodeError::from)?;
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(table.schema()), Some(properties));
        Ok(Parquet {
            table,
            parts: None,
            writer: writer.map_err(EncodeError::from)?,
        })
    }

    /// Takes a row.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        if self.table.push(row)? {
            self.flush()?;
        }
        Ok(())
    }

    /// A part of the rows that come next.
    pub fn part(&mut self) -> TablePart {
        let parts = || Parts::of(&self.table, Topics::Plain);
        self.parts.get_or_insert_with(parts).part()
    }

    /// Takes in the part with the next rows.
    pub fn put(&mut self, part: TablePart) -> Result<(), EncodeError> {
        let parts = self.parts.as_mut().expect("a part was taken from it");
        parts.put(part, |batch| Ok(self.writer.write(batch)?))
    }

    fn flush(&mut self) -> Result<(), EncodeError> {
        if let Some(batch) = self.table.take()? {
            self.writer.write(&batch)?;
        }
        Ok(())
    }

    /// Bytes that are ready; the file is all of them in order.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.writer.inner_mut()
    }

    /// What is known of the topic by now.
    pub fn schema(&self) -> &Schema {
        let parts = self.parts.as_ref();
        parts.map_or_else(|| self.table.seen(), Parts::seen)
    }

    /// What was written by now.
    pub fn counts(&self) -> Counts {
        let parts = self.parts.as_ref();
        parts.map_or_else(|| self.table.counts(), Parts::counts)
    }

    /// What is known of the topic, when writing broke off.
    pub fn into_schema(self) -> Schema {
        self.schema().clone()
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<Encoded, EncodeError> {
        self.flush()?;
        let (counts, schema) = (self.counts(), self.schema().clone());
        let bytes = self.writer.into_inner()?.into();
        Ok(Encoded {
            bytes,
            counts,
            schema,
        })
    }
}

fn properties() -> Result<WriterProperties, parquet::errors::ParquetError> {
    let column = |name: &str| ColumnPath::new(vec![name.to_owned()]);
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES_MAX))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for name in ["offset", "timestamp"] {
        properties = properties
            .set_column_dictionary_enabled(column(name), false)
            .set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["offset", "timestamp", "key"] {
        properties =
            properties.set_column_statistics_enabled(column(name), EnabledStatistics::Page);
    }
    for name in ["value", "headers"] {
        properties =
            properties.set_column_statistics_enabled(column(name), EnabledStatistics::None);
    }
    Ok(properties
        .set_column_dictionary_enabled(column("value"), false)
        .set_column_bloom_filter_enabled(column("key"), true)
        .set_column_bloom_filter_fpp(column("key"), 0.01)
        .set_column_bloom_filter_max_ndv(column("key"), ROW_GROUP_ROWS_MAX as u64)
        .build())
}
