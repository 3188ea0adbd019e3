//! An Arrow stream: its columns `key`, `timestamp`, `headers` and `value`, or, where there is no column `value`, all others as a JSON
//! object. Rows count from 1.

use bytes::Bytes;
use columnar::{ArrowReader, BodyColumns, BodyError};

use super::fault::{RowFault, Stop};
use super::reader::Format;
use super::rows::Rows;

/// The longest batch of a stream: it is read whole.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// See the module.
pub(super) struct Arrow {
    reader: Option<ArrowReader>,
    /// What came of a batch that is not whole.
    held: usize,
    row: u64,
}

impl Arrow {
    pub fn new(columns: BodyColumns) -> Arrow {
        Arrow {
            reader: Some(ArrowReader::new(columns, BATCH_BYTES_MAX)),
            held: 0,
            row: 0,
        }
    }
}

fn stop(error: BodyError) -> Stop {
    match error {
        BodyError::BatchTooLarge { bytes_max } => Stop::TooLarge {
            what: "a batch of an Arrow stream has",
            bytes_max: bytes_max as u64,
        },
        other => Stop::Body(other.to_string()),
    }
}

impl Format for Arrow {
    fn feed(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), Stop> {
        let reader = self.reader.as_mut().expect("the body has not ended");
        self.held += bytes.len();
        reader.push(Bytes::copy_from_slice(bytes));
        while let Some(batch) = reader.next_rows().map_err(stop)? {
            self.held = 0;
            for index in 0..batch.len() {
                self.row += 1;
                match batch.get(index) {
                    Ok(row) => rows.add_with_headers(
                        (self.row, row.timestamp),
                        row.key.as_deref(),
                        row.value.as_deref(),
                        &row.headers,
                    ),
                    Err(error) => rows.refuse(self.row, RowFault::Cell(error.to_string())),
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, _rows: &mut Rows) -> Result<(), Stop> {
        let reader = self.reader.take().expect("a body ends once");
        reader.finish().map_err(stop)
    }

    fn held(&self) -> usize {
        self.held
    }
}
