//! Bodies of columns back into rows: an Arrow stream as it comes, or a Parquet file; and, in [`RowReader`], files of any format.
//!
//! Callers: who takes records in. What a column is for is told by [`BodyColumns`]; what is not named goes by these names:
//!
//! | column | types | is |
//! |---|---|---|
//! | `key` | text, bytes, integers (as decimal text) | the record's key |
//! | `timestamp` | timestamps (cut to milliseconds), dates, text in the grammar of times, integers (milliseconds) | its time |
//! | `partition`, `offset` | integers | where it was; who reads decides what that means |
//! | `headers` | text | JSON, as the encoders write it |
//! | `value` | text, bytes | the record's value, as it is; other columns are then taken for fields of it, and left out |
//! | without such a `value` | | all columns but these become a JSON object, in their order |
//!
//! Invariants: nothing panics on any body; no more is held than one batch, whose bytes are bounded.

mod body;
mod contained;
mod csv;
mod headers;
mod json;
mod lines;
mod source;
mod table;
mod time;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::ArrowError;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use contained::contained;

pub use body::{BodyColumns, BodyRow, BodyRows, Exact, PlacedRow};
pub use source::RowReader;
pub use time::TimeUnit;

/// Rows of a Parquet file that are read at a time.
const FILE_BATCH_ROWS: usize = 8 * 1024;

/// What is wrong with a body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Not the format that it should be, or broken.
    #[error("the body is no {format}: {reason}")]
    Malformed {
        /// Which format.
        format: &'static str,
        /// What the library says.
        reason: String,
    },
    /// A batch is longer than one may be.
    #[error(
        "a batch of the Arrow stream has more than {bytes_max} bytes; write the table in smaller batches"
    )]
    BatchTooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// The stream ends within a message.
    #[error("the Arrow stream breaks off")]
    Cut,
    /// A column that is named is not there.
    #[error("the body has no column {0:?}")]
    NoColumn(String),
    /// A column is of a type that cannot be read.
    #[error("the column {column:?} is of the type {found}, and {wanted} is wanted")]
    ColumnType {
        /// Which one.
        column: String,
        /// Its type.
        found: String,
        /// What can be read.
        wanted: &'static str,
    },
    /// Two columns have one name.
    #[error("the column {0:?} is there twice")]
    Twice(String),
    /// Columns would be left out.
    #[error("the columns {} would get lost: they are nothing of a record", .0.join(", "))]
    LeftOut(Vec<String>),
    /// A line cannot be a row.
    #[error("line {line}: {reason}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A cell cannot be what its column is for.
    #[error("row {row}: the {column} {reason}")]
    Cell {
        /// Which row, from 0 over the whole body.
        row: u64,
        /// Which column.
        column: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl BodyError {
    fn arrow(error: &ArrowError) -> BodyError {
        BodyError::Malformed {
            format: "Arrow stream",
            reason: error.to_string(),
        }
    }

    fn parquet(error: &dyn std::fmt::Display) -> BodyError {
        BodyError::Malformed {
            format: "Parquet file",
            reason: error.to_string(),
        }
    }
}

/// Reads an Arrow stream as it comes.
pub struct ArrowReader {
    decoder: StreamDecoder,
    columns: BodyColumns,
    buffer: Buffer,
    batch_bytes_max: usize,
    /// Bytes that came since the last batch was complete.
    pending: usize,
    rows: u64,
    failed: bool,
}

impl ArrowReader {
    /// A reader that takes batches, and dictionaries before them, of so many bytes at most.
    pub fn new(columns: BodyColumns, batch_bytes_max: usize) -> ArrowReader {
        ArrowReader {
            decoder: StreamDecoder::new(),
            columns,
            buffer: Buffer::from(Vec::<u8>::new()),
            batch_bytes_max,
            pending: 0,
            rows: 0,
            failed: false,
        }
    }

    /// Takes the next bytes of the body. Call [`ArrowReader::next_rows`] until it gives none before the next ones.
    pub fn push(&mut self, bytes: Bytes) {
        assert!(
            self.buffer.is_empty() || self.failed,
            "what came before is read first"
        );
        self.pending += bytes.len();
        self.buffer = Buffer::from(bytes);
    }

    /// The next rows; None if more bytes are needed. After an error there is nothing more.
    pub fn next_rows(&mut self) -> Result<Option<BodyRows>, BodyError> {
        if self.failed {
            return Ok(None);
        }
        let read = self.decode();
        self.failed = read.is_err();
        read
    }

    fn decode(&mut self) -> Result<Option<BodyRows>, BodyError> {
        let decoded = contained(|| self.decoder.decode(&mut self.buffer));
        let decoded =
            decoded.unwrap_or_else(|| Err(ArrowError::IpcError("it is malformed".to_owned())));
        match decoded.map_err(|error| BodyError::arrow(&error))? {
            Some(batch) => {
                self.pending = self.buffer.len();
                self.rows_of(&batch).map(Some)
            }
            None if self.pending > self.batch_bytes_max => Err(BodyError::BatchTooLarge {
                bytes_max: self.batch_bytes_max,
            }),
            None => Ok(None),
        }
    }

    fn rows_of(&mut self, batch: &RecordBatch) -> Result<BodyRows, BodyError> {
        let rows = BodyRows::new(batch, &self.columns, self.rows)?;
        self.rows += rows.len() as u64;
        Ok(rows)
    }

    /// The body has ended. Errors: `Cut` if the stream has not, or if there was none.
    pub fn finish(mut self) -> Result<(), BodyError> {
        if self.failed || self.decoder.schema().is_none() {
            return Err(BodyError::Cut);
        }
        self.decoder.finish().map_err(|_| BodyError::Cut)
    }
}

/// Reads a Parquet file.
pub struct ParquetReader {
    batches: ParquetRecordBatchReader,
    columns: BodyColumns,
    rows: u64,
}

impl ParquetReader {
    /// Opens a file, or bytes in memory.
    pub fn open<F: ChunkReader + 'static>(
        file: F,
        columns: BodyColumns,
    ) -> Result<ParquetReader, BodyError> {
        let open = || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
            builder.with_batch_size(FILE_BATCH_ROWS).build()
        };
        let opened = contained(open).ok_or_else(|| BodyError::parquet(&"it is malformed"))?;
        Ok(ParquetReader {
            batches: opened.map_err(|error| BodyError::parquet(&error))?,
            columns,
            rows: 0,
        })
    }

    /// The next rows; None at the end.
    pub fn next_rows(&mut self) -> Result<Option<BodyRows>, BodyError> {
        let next = contained(|| self.batches.next());
        let next = next.ok_or_else(|| BodyError::parquet(&"it is malformed"))?;
        let Some(batch) = next else { return Ok(None) };
        let batch = batch.map_err(|error| BodyError::parquet(&error))?;
        let rows = BodyRows::new(&batch, &self.columns, self.rows)?;
        self.rows += rows.len() as u64;
        Ok(Some(rows))
    }
}
