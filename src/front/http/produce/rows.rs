//! Rows of a body, as they become messages: their bytes in one place, and what is said of each.
//!
//! Callers: the formats, which add rows; the handler, which publishes them. A value's bytes are those of the body.

use std::borrow::Cow;
use std::ops::Range;

use model::batch::HeaderRef;
use model::{PartitionId, Timestamp};
use serde_json::value::RawValue;

use super::fault::RowFault;
use super::field::{self, Pointer};
use super::time::Unit;
use crate::broker::publish::{Message, Outgoing};

/// What holds for every row of a body, as the request says it.
#[derive(Debug, Clone, Default)]
pub(super) struct Template {
    pub partition: Option<PartitionId>,
    pub key: Option<Vec<u8>>,
    pub key_field: Option<Pointer>,
    pub time: Option<Timestamp>,
    pub time_field: Option<(Pointer, Unit)>,
    pub headers: Vec<(String, String)>,
}

/// A row that may become a record.
#[derive(Debug, Clone)]
struct Row {
    line: u64,
    value: Option<Range<usize>>,
    key: Option<Range<usize>>,
    /// Its own headers, in the list of all rows'.
    headers: Range<usize>,
    time: Option<Timestamp>,
}

/// Rows that were read and not published yet.
#[derive(Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    headers: Vec<(Range<usize>, Option<Range<usize>>)>,
    /// Those that are none, by their lines.
    pub faults: Vec<(u64, RowFault)>,
}

impl Rows {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.rows.clear();
        self.headers.clear();
        self.faults.clear();
    }

    /// How much they hold, about.
    pub fn held(&self) -> usize {
        let headers = self.headers.len() * 2 * size_of::<Range<usize>>();
        self.bytes.len() + headers + self.rows.len() * size_of::<Row>()
    }

    /// The line of the row at this index.
    pub fn line(&self, index: usize) -> u64 {
        self.rows[index].line
    }

    pub fn lines(&self) -> impl Iterator<Item = u64> {
        self.rows.iter().map(|row| row.line)
    }

    fn keep(&mut self, bytes: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len()
    }

    /// A row that is no record.
    pub fn refuse(&mut self, line: u64, fault: RowFault) {
        self.faults.push((line, fault));
    }

    /// A row with these bytes as its value.
    pub fn add(&mut self, line: u64, value: &[u8], key: Option<&[u8]>, time: Option<Timestamp>) {
        self.add_with_headers((line, time), key, Some(value), &[]);
    }

    /// A row with headers of its own, and perhaps without a value.
    pub fn add_with_headers(
        &mut self,
        (line, time): (u64, Option<Timestamp>),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(Vec<u8>, Option<Vec<u8>>)],
    ) {
        let value = value.map(|value| self.keep(value));
        let key = key.map(|key| self.keep(key));
        let first = self.headers.len();
        for (name, value) in headers {
            let name = self.keep(name);
            let value = value.as_ref().map(|value| self.keep(value));
            self.headers.push((name, value));
        }
        self.rows.push(Row {
            line,
            value,
            key,
            headers: first..self.headers.len(),
            time,
        });
    }

    /// The headers of each row that has some of its own, with those of the request behind them; nothing for the others.
    pub fn own_headers<'a>(&'a self, common: &[HeaderRef<'a>]) -> Vec<Vec<HeaderRef<'a>>> {
        if self.headers.is_empty() {
            return Vec::new();
        }
        let of_row = |row: &Row| {
            let own = self.headers[row.headers.clone()].iter();
            let own = own.map(|(name, value)| {
                let value = value.as_ref().map(|value| &self.bytes[value.clone()]);
                (&self.bytes[name.clone()], value)
            });
            match row.headers.is_empty() {
                true => Vec::new(),
                false => own.chain(common.iter().copied()).collect(),
            }
        };
        self.rows.iter().map(of_row).collect()
    }

    /// A row that must be one JSON value, and whose fields may be its key and its time.
    pub fn add_json(&mut self, template: &Template, line: u64, json: &[u8]) {
        match json_fields(template, json) {
            Ok((key, time)) => self.add(line, json, key.as_deref().map(str::as_bytes), time),
            Err(fault) => self.refuse(line, fault),
        }
    }

    /// The rows as messages.
    pub fn outgoing<'a>(
        &'a self,
        template: &'a Template,
        headers: &'a [HeaderRef<'a>],
        own: &'a [Vec<HeaderRef<'a>>],
    ) -> impl Iterator<Item = Outgoing<'a>> {
        self.rows.iter().enumerate().map(move |(index, row)| {
            let own = own.get(index).filter(|own| !own.is_empty());
            let key = row.key.as_ref().map(|key| &self.bytes[key.clone()]);
            Outgoing {
                partition: template.partition,
                message: Message {
                    key: key.or(template.key.as_deref()),
                    value: row.value.as_ref().map(|value| &self.bytes[value.clone()]),
                    headers: own.map_or(headers, Vec::as_slice),
                    time: row.time.or(template.time),
                },
            }
        })
    }
}

impl Template {
    /// The headers as records have them.
    pub fn header_refs(&self) -> Vec<HeaderRef<'_>> {
        let headers = self.headers.iter();
        headers
            .map(|(name, value)| (name.as_bytes(), Some(value.as_bytes())))
            .collect()
    }
}

type Fields<'a> = (Option<Cow<'a, str>>, Option<Timestamp>);

fn json_fields<'a>(template: &Template, json: &'a [u8]) -> Result<Fields<'a>, RowFault> {
    let json = std::str::from_utf8(json).map_err(|error| RowFault::Utf8 {
        valid: error.valid_up_to(),
    })?;
    if template.key_field.is_none() && template.time_field.is_none() {
        field::check(json)?;
        return Ok((None, None));
    }
    let key = match &template.key_field {
        Some(pointer) => Some(key_of(pointer, pointer.find(json)?)?),
        None => None,
    };
    let time = match &template.time_field {
        Some((pointer, unit)) => Some(time_of(pointer, *unit, pointer.find(json)?)?),
        None => None,
    };
    Ok((key, time))
}

/// A field as text: a string's content, a number or boolean as it is written. None for what is neither.
pub(super) fn scalar(raw: &RawValue) -> Option<Cow<'_, str>> {
    match raw.get().as_bytes().first()? {
        b'"' => serde_json::from_str(raw.get()).map(Text::into_inner).ok(),
        b'{' | b'[' => None,
        _ => Some(Cow::Borrowed(raw.get())),
    }
}

/// A text that is borrowed if nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    fn into_inner(self) -> Cow<'a, str> {
        self.0
    }
}

fn key_of<'a>(pointer: &Pointer, raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, RowFault> {
    let field = || pointer.to_string();
    match raw {
        Some(raw) if raw.get() != "null" => {
            scalar(raw).ok_or_else(|| RowFault::KeyNotScalar { field: field() })
        }
        _ => Err(RowFault::KeyMissing { field: field() }),
    }
}

fn time_of(pointer: &Pointer, unit: Unit, raw: Option<&RawValue>) -> Result<Timestamp, RowFault> {
    match raw {
        Some(raw) if raw.get() != "null" => {
            let text = scalar(raw).unwrap_or(Cow::Borrowed(raw.get()));
            unit.read(&text)
        }
        _ => Err(RowFault::TimestampMissing {
            field: pointer.to_string(),
        }),
    }
}
