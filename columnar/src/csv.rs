//! Rows as CSV (RFC 4180): a line of names, then a line a row, with CRLF.
//!
//! Null is nothing between two commas; an empty text is `""`. A column of keys or values that are not all text is base64, and its
//! name says so: `key_base64`, `value_base64`. A time is RFC 3339 with milliseconds, headers are JSON, and empty without any.

use std::io::Write;

use crate::cells::{Cell, Cells};
use crate::columns::{Column, ColumnError, Columns};
use crate::encode::{Counts, EncodeError, Encoded};
use crate::row::Row;
use crate::schema::{Schema, Shape};
use crate::text::{put_base64, put_headers, put_time};

/// Writes lines.
pub struct CsvLines {
    cells: Cells,
    scratch: Vec<u8>,
    out: Vec<u8>,
}

impl CsvLines {
    pub fn new(columns: Columns, schema: &Schema) -> Result<CsvLines, ColumnError> {
        let cells = Cells::new(columns, schema)?;
        let mut out = Vec::new();
        for (slot, column) in cells.columns().iter().enumerate() {
            if slot > 0 {
                out.push(b',');
            }
            let mut name = column.name().into_owned();
            let shape = match column {
                Column::Key => cells.keys(),
                Column::Value => cells.values(),
                _ => Shape::Text,
            };
            if shape == Shape::Bytes {
                name.push_str("_base64");
            }
            put_text(&mut out, name.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        Ok(CsvLines {
            cells,
            scratch: Vec::new(),
            out,
        })
    }

    pub fn push(&mut self, row: &Row<'_>) -> Result<(), EncodeError> {
        let text = self.cells.set(row)?;
        for slot in 0..self.cells.columns().len() {
            if slot > 0 {
                self.out.push(b',');
            }
            self.put_cell(slot, row, text);
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn put_cell(&mut self, slot: usize, row: &Row<'_>, text: Option<&str>) {
        let (record, out) = (&row.record, &mut self.out);
        let column = self.cells.columns().iter().nth(slot);
        match column.expect("a column") {
            Column::Topic => put_text(out, row.topic.as_bytes()),
            Column::Partition => put_display(out, row.partition.get()),
            Column::Offset => put_display(out, record.offset.get()),
            Column::Timestamp if record.timestamp.is_none() => {}
            Column::Timestamp => {
                if !put_time(out, record.timestamp) {
                    put_display(out, record.timestamp.millis());
                }
            }
            Column::Key => put_bytes(out, self.cells.keys(), record.key),
            Column::Value => put_bytes(out, self.cells.values(), record.value),
            Column::Headers if record.headers().is_empty() => {}
            Column::Headers => {
                self.scratch.clear();
                put_headers(&mut self.scratch, record.headers());
                put_text(out, &self.scratch);
            }
            Column::Field(_) => match self.cells.cell(slot, text) {
                Cell::Null | Cell::Unfit => {}
                Cell::Bool(value) => put_display(out, value),
                Cell::Int(number) => put_display(out, number),
                // The shortest text that is read back as the same float.
                Cell::Float(number) => write!(out, "{number:?}").expect("memory takes it"),
                Cell::Text(text) => put_text(out, text.as_bytes()),
            },
        }
    }

    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub fn schema(&self) -> &Schema {
        self.cells.schema()
    }

    pub fn counts(&self) -> Counts {
        self.cells.counts
    }

    pub fn into_schema(self) -> Schema {
        self.cells.into_schema().1
    }

    pub fn finish(self) -> Encoded {
        let (counts, schema) = self.cells.into_schema();
        Encoded {
            bytes: self.out.into(),
            counts,
            schema,
        }
    }
}

fn put_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("memory takes it");
}

fn put_bytes(out: &mut Vec<u8>, shape: Shape, bytes: Option<&[u8]>) {
    match (shape, bytes) {
        (_, None) => {}
        (Shape::Text, Some(text)) => put_text(out, text),
        (Shape::Bytes, Some(b"")) => out.extend_from_slice(b"\"\""),
        (Shape::Bytes, Some(bytes)) => put_base64(out, bytes),
    }
}

/// The csv crate cannot write an empty text that differs from null, so the quoting is here.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let special = |byte: &u8| matches!(byte, b'"' | b',' | b'\r' | b'\n');
    let at_edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    if !text.iter().any(special) && !at_edge(text.first()) && !at_edge(text.last()) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
