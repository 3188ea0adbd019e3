//! NDJSON: a JSON value on each line, kept byte for byte without its line's end.
//!
//! Lines end with LF or CRLF, the last one also with the body. Lines without anything in them count, and are no rows. A byte
//! order mark at the beginning is left out.

use super::fault::{RowFault, Stop};
use super::reader::Format;
use super::rows::{Rows, Template};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// See the module.
pub(super) struct Lines {
    template: Template,
    row_bytes_max: usize,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// The line that has not ended is too long: the rest of it is not kept.
    is_too_long: bool,
    /// The line that comes next, from 1.
    line: u64,
}

impl Lines {
    pub fn new(template: Template, row_bytes_max: usize) -> Lines {
        Lines {
            template,
            row_bytes_max,
            begun: Vec::new(),
            is_too_long: false,
            line: 1,
        }
    }

    /// What came of a line whose end has not come.
    fn begin(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.begun.len() + bytes.len() > self.row_bytes_max;
        if self.is_too_long {
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }

    fn end(&mut self, rest: &[u8], rows: &mut Rows) {
        if self.begun.is_empty() && !self.is_too_long {
            return self.row(rest, rows);
        }
        self.begin(rest);
        let line = std::mem::take(&mut self.begun);
        self.row(&line, rows);
        self.begun = line;
        self.begun.clear();
    }

    fn row(&mut self, line: &[u8], rows: &mut Rows) {
        let number = self.line;
        self.line += 1;
        let is_too_long = std::mem::take(&mut self.is_too_long);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = match number {
            1 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            _ => line,
        };
        if is_too_long || line.len() > self.row_bytes_max {
            let bytes_max = self.row_bytes_max;
            rows.refuse(number, RowFault::TooLong { bytes_max });
        } else if !line.trim_ascii().is_empty() {
            rows.add_json(&self.template, number, line);
        }
    }
}

impl Format for Lines {
    fn feed(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), Stop> {
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (line, behind) = rest.split_at(at);
            self.end(line, rows);
            rest = &behind[1..];
        }
        self.begin(rest);
        Ok(())
    }

    fn finish(&mut self, rows: &mut Rows) -> Result<(), Stop> {
        self.end(b"", rows);
        Ok(())
    }

    fn held(&self) -> usize {
        self.begun.len()
    }
}
