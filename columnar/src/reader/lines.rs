//! NDJSON in rows: lines as a replay writes them, or lines each of which is a value.
//!
//! Caller: [`super::RowReader`]. Reads what `crate::ndjson` writes; members that are fields of the value are left out. Lines without
//! anything in them are skipped.

use std::borrow::Cow;
use std::io::BufRead;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Offset, PartitionId, Timestamp};
use serde_json::value::RawValue;

use super::body::{BodyColumns, BodyRow, PlacedRow};
use super::headers::parse_headers;
use super::{BodyError, time};
use crate::fields::{self, members, string_content};

/// The longest line.
const LINE_BYTES_MAX: usize = 64 << 20;

/// See the module.
pub(super) struct LineRows<R> {
    input: R,
    columns: BodyColumns,
    bytes: Vec<u8>,
    path: String,
    line: u64,
}

impl<R: BufRead> LineRows<R> {
    pub fn new(input: R, columns: BodyColumns) -> LineRows<R> {
        LineRows {
            input,
            columns,
            bytes: Vec::new(),
            path: String::new(),
            line: 0,
        }
    }

    /// The next row, and its line.
    pub fn next(&mut self) -> Result<Option<PlacedRow<'_>>, BodyError> {
        while self.read_line()? {
            if !self.bytes.trim_ascii().is_empty() {
                let row = row_of(self.bytes.trim_ascii(), &self.columns, &mut self.path);
                let line = self.line;
                let row = row.map_err(|reason| BodyError::Line { line, reason });
                return Ok(Some((line, row)));
            }
        }
        Ok(None)
    }

    fn read_line(&mut self) -> Result<bool, BodyError> {
        self.bytes.clear();
        self.line += 1;
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = std::io::Read::take(&mut self.input, limit);
        let read = { read }.read_until(b'\n', &mut self.bytes)?;
        if read > LINE_BYTES_MAX {
            let reason = "it is longer than 64 MiB".to_owned();
            let line = self.line;
            return Err(BodyError::Line { line, reason });
        }
        if self.line == 1 && self.bytes.starts_with(b"\xef\xbb\xbf") {
            self.bytes.drain(..3);
        }
        Ok(read > 0)
    }
}

fn row_of<'a>(
    line: &'a [u8],
    columns: &BodyColumns,
    path: &mut String,
) -> Result<BodyRow<'a>, String> {
    let text = std::str::from_utf8(line);
    let text = text.map_err(|error| format!("no UTF-8 behind byte {}", error.valid_up_to()))?;
    match columns.is_whole() {
        true => whole(text, columns, path),
        false => replayed(text, columns),
    }
}

/// The line is the value.
fn whole<'a>(
    text: &'a str,
    columns: &BodyColumns,
    path: &mut String,
) -> Result<BodyRow<'a>, String> {
    serde_json::from_str::<&RawValue>(text).map_err(|error| no_json(&error))?;
    let unit = columns.exact.and_then(|exact| exact.time_unit);
    let (mut key, mut at) = (None, None);
    if columns.key.is_some() || columns.timestamp.is_some() {
        fields::walk(text, path, &mut |path, raw| {
            let is_it = |named: &Option<String>| named.as_deref() == Some(path);
            if is_it(&columns.key) {
                key = Some(raw);
            }
            if is_it(&columns.timestamp) {
                at = Some(raw);
            }
        });
    }
    let found = |named: &Option<String>, raw: Option<&'a str>| match (named, raw) {
        (Some(name), None) => Err(format!("it has no field {name}")),
        (_, raw) => Ok(raw),
    };
    let key = found(&columns.key, key)?.map(scalar).transpose()?;
    let time = found(&columns.timestamp, at)?.map(scalar).transpose()?;
    let time = match time {
        Some(None) => return Err("its timestamp is null".to_owned()),
        Some(Some(text)) => Some(time::of_text(&text, unit).map_err(of_timestamp)?),
        None => None,
    };
    Ok(BodyRow {
        key: key.flatten().map(into_bytes),
        value: Some(Cow::Borrowed(text.as_bytes())),
        timestamp: time,
        ..BodyRow::default()
    })
}

/// A line as a replay writes it.
fn replayed<'a>(text: &'a str, columns: &BodyColumns) -> Result<BodyRow<'a>, String> {
    let members = members(text).map_err(|error| no_json(&error))?;
    let member = |name: &str| {
        let found = members.iter().find(|(found, _)| found == name);
        found.map(|(_, raw)| *raw)
    };
    let encoding_of = |name: &str| member(&format!("{name}_encoding")).and_then(string_content);
    let [key_name, time_name, value_name] = [
        columns.key.as_deref().unwrap_or("key"),
        columns.timestamp.as_deref().unwrap_or("timestamp"),
        columns.value.as_deref().unwrap_or("value"),
    ];
    let names = members.iter().map(|(name, _)| name.as_ref());
    let encodings = [key_name, value_name].map(|name| format!("{name}_encoding"));
    let names = names.filter(|name| !encodings.iter().any(|encoding| encoding == name));
    columns.keeps(names).map_err(|error| error.to_string())?;
    let wrong = |what: &str| format!("its {what} cannot be");
    let number = |name: &str| match member(name) {
        None | Some("null") => Ok(None),
        Some(raw) => raw.parse::<i64>().map(Some).map_err(|_| wrong(name)),
    };
    let partition = number("partition")?.map(|number| {
        let number = u32::try_from(number).map_err(|_| wrong("partition"));
        number.map(PartitionId::new)
    });
    let offset = number("offset")?.map(|number| {
        let offset = Offset::from_wire(number);
        offset.ok_or_else(|| wrong("offset"))
    });
    let unit = columns.exact.and_then(|exact| exact.time_unit);
    let timestamp = match member(time_name).map(scalar).transpose()? {
        None => None,
        Some(None) => Some(Timestamp::NONE),
        Some(Some(text)) => Some(time::of_text(&text, unit).map_err(of_timestamp)?),
    };
    let key = match member(key_name).map(scalar).transpose()?.flatten() {
        Some(text) => Some(decoded(text, encoding_of(key_name).as_deref(), key_name)?),
        None => None,
    };
    let Some(value) = member(value_name) else {
        return Err(format!("it has no {value_name}"));
    };
    let headers = match member("headers") {
        None | Some("null") => Vec::new(),
        Some(raw) => {
            parse_headers(raw.as_bytes()).map_err(|error| format!("its headers {error}"))?
        }
    };
    Ok(BodyRow {
        topic: member("topic").and_then(string_content).map(into_bytes),
        partition: partition.transpose()?,
        offset: offset.transpose()?,
        timestamp,
        key,
        value: value_of(value, encoding_of(value_name).as_deref())?,
        headers,
    })
}

fn value_of<'a>(raw: &'a str, encoding: Option<&str>) -> Result<Option<Cow<'a, [u8]>>, String> {
    match (encoding, raw) {
        (None, "null") => Ok(None),
        (None | Some("json"), raw) => Ok(Some(Cow::Borrowed(raw.as_bytes()))),
        (Some("text"), raw) => {
            let text = string_content(raw);
            let text =
                text.ok_or_else(|| "its value is said to be text, and is none".to_owned())?;
            Ok(Some(into_bytes(text)))
        }
        (encoding, raw) => {
            let text = string_content(raw);
            let text =
                text.ok_or_else(|| "its value is said to be base64, and is none".to_owned())?;
            decoded(text, encoding, "value").map(Some)
        }
    }
}

fn decoded<'a>(
    text: Cow<'a, str>,
    encoding: Option<&str>,
    what: &str,
) -> Result<Cow<'a, [u8]>, String> {
    match encoding {
        None => Ok(into_bytes(text)),
        Some("base64") => {
            let bytes = STANDARD.decode(text.as_bytes());
            let bytes = bytes.map_err(|error| format!("its {what} is no base64: {error}"))?;
            Ok(Cow::Owned(bytes))
        }
        Some(other) => Err(format!(
            "its {what} is encoded as {other:?}, which is not known"
        )),
    }
}

/// A text's content, a number or a truth as it is written. None for null.
fn scalar(raw: &str) -> Result<Option<Cow<'_, str>>, String> {
    match raw.as_bytes().first() {
        Some(b'"') => match string_content(raw) {
            Some(text) => Ok(Some(text)),
            None => Err("a text in it is no Unicode".to_owned()),
        },
        Some(b'{' | b'[') => Err("a key or time is an object or an array".to_owned()),
        _ if raw == "null" => Ok(None),
        _ => Ok(Some(Cow::Borrowed(raw))),
    }
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

fn of_timestamp(reason: String) -> String {
    format!("the timestamp {reason}")
}

/// Without the library's line, which is always the first.
fn no_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(text, _)| text);
    format!("it is no JSON: {text} (column {})", error.column())
}
