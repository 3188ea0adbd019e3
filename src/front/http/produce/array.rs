//! A JSON array, each item of which is a row, kept byte for byte without the white space around it; or one other JSON value,
//! which is one row. Rows count from 1.
//!
//! Only brackets, commas and texts are looked at here, to find where an item ends; what an item is, is checked when it is whole.

use super::fault::{RowFault, Stop};
use super::reader::Format;
use super::rows::{Rows, Template};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first byte of the value.
    Start,
    /// In the array, before an item or its end. `first`: no item has come.
    Item { first: bool },
    /// In an item of the array.
    Inside,
    /// In a value that is no array, up to the end of the body.
    Alone,
    /// Behind the array.
    End,
}

/// See the module.
pub(super) struct Array {
    template: Template,
    row_bytes_max: usize,
    at: At,
    item: Vec<u8>,
    is_too_long: bool,
    depth: usize,
    in_text: bool,
    escaped: bool,
    row: u64,
}

impl Array {
    pub fn new(template: Template, row_bytes_max: usize) -> Array {
        Array {
            template,
            row_bytes_max,
            at: At::Start,
            item: Vec::new(),
            is_too_long: false,
            depth: 0,
            in_text: false,
            escaped: false,
            row: 0,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.item.len() + bytes.len() > self.row_bytes_max;
        if self.is_too_long {
            self.item = Vec::new();
        } else {
            self.item.extend_from_slice(bytes);
        }
    }

    fn end_item(&mut self, rows: &mut Rows) {
        self.row += 1;
        if std::mem::take(&mut self.is_too_long) {
            let bytes_max = self.row_bytes_max;
            rows.refuse(self.row, RowFault::TooLong { bytes_max });
        } else {
            rows.add_json(&self.template, self.row, self.item.trim_ascii_end());
        }
        self.item.clear();
    }

    /// How many of these bytes belong to the item.
    fn inside(&mut self, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'[' | b'{' => self.depth += 1,
                b',' | b']' if self.depth == 0 => return index,
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        bytes.len()
    }

    fn misplaced(&self, byte: u8) -> Stop {
        let found = char::from(byte);
        Stop::Body(match self.at {
            At::End => format!("{found:?} stands behind the end of the array"),
            _ => format!(
                "{found:?} stands behind row {} where an item should",
                self.row
            ),
        })
    }
}

impl Format for Array {
    fn feed(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), Stop> {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            let is_space = byte.is_ascii_whitespace();
            match self.at {
                At::Inside => {
                    let length = self.inside(rest);
                    self.keep(&rest[..length]);
                    rest = &rest[length..];
                    if let Some(end) = rest.first() {
                        self.end_item(rows);
                        self.at = match end {
                            b',' => At::Item { first: false },
                            _ => At::End,
                        };
                        rest = &rest[1..];
                    }
                    continue;
                }
                At::Alone => {
                    self.keep(rest);
                    return Ok(());
                }
                // A byte order mark, byte by byte; if it is none, the value is no JSON.
                At::Start if is_space || matches!(byte, 0xef | 0xbb | 0xbf) => {}
                At::Start if byte == b'[' => self.at = At::Item { first: true },
                At::Start => {
                    self.at = At::Alone;
                    continue;
                }
                _ if is_space => {}
                At::Item { first: true } if byte == b']' => self.at = At::End,
                At::Item { .. } if matches!(byte, b',' | b']' | b'}') => {
                    return Err(self.misplaced(byte));
                }
                At::Item { .. } => {
                    self.at = At::Inside;
                    continue;
                }
                At::End => return Err(self.misplaced(byte)),
            }
            rest = &rest[1..];
        }
        Ok(())
    }

    fn finish(&mut self, rows: &mut Rows) -> Result<(), Stop> {
        match self.at {
            At::End => Ok(()),
            At::Alone => {
                self.end_item(rows);
                Ok(())
            }
            At::Start => Err(Stop::Body("the body is empty".to_owned())),
            At::Item { .. } | At::Inside => Err(Stop::Body(format!(
                "the array does not end: the body breaks off behind row {}",
                self.row
            ))),
        }
    }

    fn held(&self) -> usize {
        self.item.len()
    }
}
