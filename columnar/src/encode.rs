//! Rows into bytes of any format.
//!
//! Callers: the HTTP front, the tools. Push rows, take what is ready, finish. Where a format is made of batches, they can be filled as
//! parts, beside one another, and be put in the order of rows. Invariant: what is held is a batch of rows or a row group, and its
//! encoded form, whatever the number of rows; of rows in parts, the parts.

use bytes::Bytes;
use model::{Offset, PartitionId};

use crate::columns::{ColumnError, Columns};
use crate::csv::CsvLines;
use crate::file::Parquet;
use crate::ndjson::JsonLines;
use crate::row::Row;
use crate::schema::Schema;
use crate::table::{ArrowStream, TablePart};

/// Bytes are handed out from this size on.
pub(crate) const READY_BYTES: usize = 128 * 1024;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A stream of Arrow's IPC format.
    Arrow,
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180 with a line of names.
    Csv,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Arrow, Format::Ndjson, Format::Csv, Format::Parquet];

    /// As it is spelled.
    pub fn name(self) -> &'static str {
        match self {
            Format::Arrow => "arrow",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Parquet => "parquet",
        }
    }

    /// The format with this name.
    pub fn parse(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Arrow => "application/vnd.apache.arrow.stream",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// Whether its columns must be known before the first row.
    pub fn needs_schema(self) -> bool {
        self != Format::Ndjson
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows.
    pub rows: u64,
    /// Values that are no JSON object, so that they have no fields. Without a schema, as in NDJSON, this is not counted.
    pub undecodable: u64,
    /// Cells that are null because what was there is of another type than the column.
    pub unfit: u64,
    /// Fields that appeared after the columns were fixed.
    pub new_fields: u64,
}

/// Why rows are not encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A column was said to be text, and a record shows that it is not.
    #[error(
        "the {column} of offset {offset} in partition {partition} is no UTF-8, and its column was said to be text; the next answer has a column of bytes"
    )]
    NotText {
        /// Key or value.
        column: String,
        /// Where.
        partition: PartitionId,
        /// Where.
        offset: Offset,
    },
    /// The Arrow library's.
    #[error(transparent)]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The Parquet library's.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// What an encoder leaves.
#[derive(Debug)]
pub struct Encoded {
    /// The last bytes.
    pub bytes: Bytes,
    /// What was written.
    pub counts: Counts,
    /// What is known of the topic now.
    pub schema: Schema,
}

/// Writes rows.
pub struct Encoder(Kind);

/// Rows of an encoder that are made into batches beside others.
pub struct Part(TablePart);

impl Part {
    /// Takes a row.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        self.0.push(row)
    }

    /// What is known of the topic, when encoding broke off.
    pub fn into_schema(self) -> Schema {
        self.0.into_schema()
    }
}

enum Kind {
    Arrow(Box<ArrowStream>),
    Ndjson(Box<JsonLines>),
    Csv(Box<CsvLines>),
    Parquet(Box<Parquet>),
}

impl Encoder {
    /// An encoder of these columns; without any, of all that the schema has, or, for NDJSON, of the fixed ones. Errors: `Column` if
    /// one of them is not in the schema, but for NDJSON, which takes any path.
    pub fn new(
        format: Format,
        columns: Option<&Columns>,
        schema: &Schema,
    ) -> Result<Encoder, NewError> {
        let all = || columns.cloned().unwrap_or_else(|| Columns::all(schema));
        Ok(Encoder(match format {
            Format::Arrow => Kind::Arrow(Box::new(ArrowStream::new(all(), schema)?)),
            Format::Csv => Kind::Csv(Box::new(CsvLines::new(all(), schema)?)),
            Format::Parquet => Kind::Parquet(Box::new(Parquet::new(all(), schema)?)),
            Format::Ndjson => {
                let columns = columns.cloned().unwrap_or_else(Columns::fixed);
                Kind::Ndjson(Box::new(JsonLines::new(&columns, schema.clone())))
            }
        }))
    }

    /// Takes a row.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        match &mut self.0 {
            Kind::Arrow(arrow) => arrow.push(row),
            Kind::Csv(csv) => csv.push(row),
            Kind::Ndjson(lines) => {
                lines.push(row);
                Ok(())
            }
            Kind::Parquet(parquet) => parquet.push(row),
        }
    }

    /// A part of the rows that come next, to be filled beside others, where the format is made of batches. All rows go through
    /// parts, or none.
    pub fn part(&mut self) -> Option<Part> {
        match &mut self.0 {
            Kind::Arrow(arrow) => Some(Part(arrow.part())),
            Kind::Parquet(parquet) => Some(Part(parquet.part())),
            Kind::Csv(_) | Kind::Ndjson(_) => None,
        }
    }

    /// Takes in the part with the next rows.
    pub fn put(&mut self, part: Part) -> Result<(), EncodeError> {
        match &mut self.0 {
            Kind::Arrow(arrow) => arrow.put(part.0),
            Kind::Parquet(parquet) => parquet.put(part.0),
            Kind::Csv(_) | Kind::Ndjson(_) => unreachable!("they have no parts"),
        }
    }

    /// The bytes that are ready, once they are worth sending.
    pub fn ready(&mut self) -> Option<Bytes> {
        let out = self.out();
        if out.len() < READY_BYTES {
            return None;
        }
        // What comes next is about as much; where it is a little more, nothing is copied for it.
        let fresh = Vec::with_capacity(out.len() + out.len() / 8);
        Some(Bytes::from(std::mem::replace(out, fresh)))
    }

    /// All bytes that are ready. What a batch still holds is not.
    pub fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(self.out()))
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match &mut self.0 {
            Kind::Arrow(arrow) => arrow.out(),
            Kind::Csv(csv) => csv.out(),
            Kind::Ndjson(lines) => lines.out(),
            Kind::Parquet(parquet) => parquet.out(),
        }
    }

    /// Writes what an answer is made ready with when rows are rare: what is held goes out as a batch of its own, where the format has
    /// batches that cost little.
    pub fn flush(&mut self) -> Result<(), EncodeError> {
        match &mut self.0 {
            Kind::Arrow(arrow) => arrow.flush(),
            _ => Ok(()),
        }
    }

    /// What was written by now.
    pub fn counts(&self) -> Counts {
        match &self.0 {
            Kind::Arrow(arrow) => arrow.counts(),
            Kind::Csv(csv) => csv.counts(),
            Kind::Ndjson(lines) => lines.counts(),
            Kind::Parquet(parquet) => parquet.counts(),
        }
    }

    /// What is known of the topic by now.
    pub fn schema(&self) -> &Schema {
        match &self.0 {
            Kind::Arrow(arrow) => arrow.schema(),
            Kind::Csv(csv) => csv.schema(),
            Kind::Ndjson(lines) => lines.schema(),
            Kind::Parquet(parquet) => parquet.schema(),
        }
    }

    /// What is known of the topic, when encoding broke off.
    pub fn into_schema(self) -> Schema {
        match self.0 {
            Kind::Arrow(arrow) => arrow.into_schema(),
            Kind::Csv(csv) => csv.into_schema(),
            Kind::Ndjson(lines) => lines.into_schema(),
            Kind::Parquet(parquet) => parquet.into_schema(),
        }
    }

    /// Ends the output.
    pub fn finish(self) -> Result<Encoded, EncodeError> {
        match self.0 {
            Kind::Arrow(arrow) => arrow.finish(),
            Kind::Csv(csv) => Ok(csv.finish()),
            Kind::Ndjson(lines) => Ok(lines.finish()),
            Kind::Parquet(parquet) => parquet.finish(),
        }
    }
}

/// Why there is no encoder.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// A column that cannot be.
    #[error(transparent)]
    Column(#[from] ColumnError),
    /// The library's.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}
