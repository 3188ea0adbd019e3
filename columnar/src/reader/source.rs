//! Rows of a file, whatever its format, one after the other.
//!
//! Caller: the tools. Invariant: what is held is a row, or a batch of an Arrow stream or of a Parquet file.

use std::io::{BufRead, BufReader, Cursor, Read};

use bytes::Bytes;
use parquet::file::reader::ChunkReader;

use super::body::{BodyColumns, BodyRows, PlacedRow};
use super::lines::LineRows;
use super::table::TableRows;
use super::{ArrowReader, BodyError, ParquetReader};
use crate::encode::Format;

/// What is read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// The longest batch of an Arrow stream.
const BATCH_BYTES_MAX: usize = 256 << 20;
/// How an Arrow file begins, which is no stream.
const ARROW_FILE: &[u8] = b"ARROW1";

type Input = Box<dyn BufRead + Send>;

enum Source {
    Lines(LineRows<Input>),
    Table(Box<TableRows<Input>>),
    Arrow(Option<Box<ArrowReader>>, Input),
    Parquet(Box<ParquetReader>),
}

/// See the module.
pub struct RowReader {
    source: Source,
    batch: Option<BodyRows>,
    /// The row of the batch that comes next, and how many rows came.
    at: usize,
    rows: u64,
}

impl RowReader {
    /// Opens a file. `delimiter` is CSV's.
    pub fn open<F: ChunkReader + Read + Send + 'static>(
        format: Format,
        file: F,
        columns: BodyColumns,
        delimiter: u8,
    ) -> Result<RowReader, BodyError> {
        match format {
            Format::Parquet => ParquetReader::open(file, columns).map(RowReader::of_parquet),
            _ => RowReader::of_stream(format, buffered(file), columns, delimiter),
        }
    }

    /// The same of a file that is in memory.
    pub fn of_bytes(
        format: Format,
        bytes: Bytes,
        columns: BodyColumns,
        delimiter: u8,
    ) -> Result<RowReader, BodyError> {
        match format {
            Format::Parquet => ParquetReader::open(bytes, columns).map(RowReader::of_parquet),
            _ => RowReader::of_stream(format, Box::new(Cursor::new(bytes)), columns, delimiter),
        }
    }

    fn of_parquet(reader: ParquetReader) -> RowReader {
        RowReader::new(Source::Parquet(Box::new(reader)))
    }

    fn of_stream(
        format: Format,
        mut input: Input,
        columns: BodyColumns,
        delimiter: u8,
    ) -> Result<RowReader, BodyError> {
        Ok(RowReader::new(match format {
            Format::Ndjson => Source::Lines(LineRows::new(input, columns)),
            Format::Csv => {
                let table = TableRows::open(input, columns, delimiter)?;
                Source::Table(Box::new(table))
            }
            Format::Parquet => unreachable!("it is read at any place, and no stream"),
            Format::Arrow => {
                if input.fill_buf()?.starts_with(ARROW_FILE) {
                    return Err(BodyError::Malformed {
                        format: "Arrow stream",
                        reason: "it is an Arrow file (Feather); write a stream, as pyarrow.ipc.new_stream does".to_owned(),
                    });
                }
                let reader = ArrowReader::new(columns, BATCH_BYTES_MAX);
                Source::Arrow(Some(Box::new(reader)), input)
            }
        }))
    }

    fn new(source: Source) -> RowReader {
        RowReader {
            source,
            batch: None,
            at: 0,
            rows: 0,
        }
    }

    /// The next row, and where it stands: its line, or in Arrow and Parquet its number from 1. None at the end. The inner error is
    /// this row's only.
    pub fn next_row(&mut self) -> Result<Option<PlacedRow<'_>>, BodyError> {
        let is_columns = matches!(self.source, Source::Arrow(..) | Source::Parquet(_));
        while is_columns
            && self
                .batch
                .as_ref()
                .is_none_or(|batch| self.at == batch.len())
        {
            self.at = 0;
            self.batch = self.source.next_batch()?;
            if self.batch.is_none() {
                return Ok(None);
            }
        }
        match (&mut self.source, &self.batch) {
            (Source::Lines(lines), _) => lines.next(),
            (Source::Table(table), _) => table.next(),
            (Source::Arrow(..) | Source::Parquet(_), batch) => {
                let batch = batch.as_ref().expect("there is one");
                self.at += 1;
                self.rows += 1;
                Ok(Some((self.rows, batch.get(self.at - 1))))
            }
        }
    }
}

impl Source {
    fn next_batch(&mut self) -> Result<Option<BodyRows>, BodyError> {
        match self {
            Source::Parquet(reader) => reader.next_rows(),
            Source::Arrow(reader, input) => {
                while let Some(arrow) = reader {
                    if let Some(rows) = arrow.next_rows()? {
                        return Ok(Some(rows));
                    }
                    let piece = Bytes::copy_from_slice(input.fill_buf()?);
                    input.consume(piece.len());
                    match piece.is_empty() {
                        true => reader.take().expect("it is there").finish()?,
                        false => arrow.push(piece),
                    }
                }
                Ok(None)
            }
            Source::Lines(_) | Source::Table(_) => unreachable!("these have no batches"),
        }
    }
}

fn buffered<F: Read + Send + 'static>(file: F) -> Input {
    Box::new(BufReader::with_capacity(PIECE_BYTES, file))
}
