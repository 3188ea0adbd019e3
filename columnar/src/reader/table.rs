//! CSV in rows: a table as a replay writes it, or one each row of which is a value.
//!
//! Caller: [`super::RowReader`]. Reads what `crate::csv` writes: nothing between two commas is null, `key_base64` and `value_base64` are
//! bytes. A row as a whole is a JSON object: what reads as a number, `true` or `false` is that, nothing is null, all else a text.

use std::borrow::Cow;
use std::io::BufRead;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Offset, PartitionId, Timestamp};
use serde_json::value::RawValue;

use super::body::{BodyColumns, BodyRow, PlacedRow};
use super::csv::{CsvReader, Read};
use super::headers::parse_headers;
use super::{BodyError, time};
use crate::text::put_json_string;

/// What a name has behind it whose column is base64.
const BASE64: &str = "_base64";

/// Columns by their places.
#[derive(Default)]
struct Places {
    topic: Option<usize>,
    partition: Option<usize>,
    offset: Option<usize>,
    timestamp: Option<usize>,
    key: Option<Column>,
    headers: Option<usize>,
    value: Option<Column>,
}

#[derive(Clone, Copy)]
struct Column {
    place: usize,
    is_base64: bool,
}

/// See the module.
pub(super) struct TableRows<R> {
    csv: CsvReader<R>,
    columns: BodyColumns,
    names: Vec<String>,
    places: Places,
}

impl<R: BufRead> TableRows<R> {
    /// Reads the line of names.
    pub fn open(input: R, columns: BodyColumns, delimiter: u8) -> Result<TableRows<R>, BodyError> {
        let mut csv = CsvReader::new(input, delimiter);
        let malformed = |reason: &str| BodyError::Malformed {
            format: "CSV",
            reason: reason.to_owned(),
        };
        match csv.next(false)? {
            Read::Record(_) => {}
            Read::Wrong(_, reason) => return Err(malformed(reason)),
            Read::End => return Err(malformed("it has no line of names")),
        }
        let name = |index| {
            let name = csv.field(index).unwrap_or_default().to_vec();
            String::from_utf8(name).map_err(|_| malformed("a name in it is no UTF-8"))
        };
        let names = (0..csv.len()).map(name).collect::<Result<Vec<_>, _>>()?;
        let places = places(&names, &columns)?;
        Ok(TableRows {
            csv,
            columns,
            names,
            places,
        })
    }

    /// The next row, and the line on which it begins.
    pub fn next(&mut self) -> Result<Option<PlacedRow<'_>>, BodyError> {
        let (line, row) = match self.csv.next(self.names.len() == 1)? {
            Read::End => return Ok(None),
            Read::Wrong(line, reason) => (line, Err(reason.to_owned())),
            Read::Record(line) => (line, self.row()),
        };
        let row = row.map_err(|reason| BodyError::Line { line, reason });
        Ok(Some((line, row)))
    }

    fn row(&self) -> Result<BodyRow<'_>, String> {
        let (found, wanted) = (self.csv.len(), self.names.len());
        if found != wanted {
            return Err(format!("it has {found} columns, and {wanted} are named"));
        }
        for index in 0..found {
            let bytes = self.csv.field(index).unwrap_or_default();
            if std::str::from_utf8(bytes).is_err() {
                return Err(format!("the column {} is no UTF-8", self.names[index]));
            }
        }
        let places = &self.places;
        let text = |place: usize| {
            let bytes = self.csv.field(place)?;
            Some(std::str::from_utf8(bytes).expect("it was checked"))
        };
        let exact = self.columns.exact.unwrap_or_default();
        let timestamp = match places.timestamp.map(text) {
            None => None,
            Some(None) if exact.whole_row => return Err("it has no timestamp".to_owned()),
            Some(None) => Some(Timestamp::NONE),
            Some(Some(text)) => {
                let time = time::of_text(text, exact.time_unit);
                Some(time.map_err(|reason| format!("the timestamp {reason}"))?)
            }
        };
        let number = |place: Option<usize>, what: &str| {
            let number = place.and_then(text).map(str::parse::<i64>).transpose();
            number.map_err(|_| format!("the {what} is no number"))
        };
        let partition = number(places.partition, "partition")?.map(|number| {
            let number = u32::try_from(number);
            number.map_err(|_| "the partition is no partition's number".to_owned())
        });
        let offset = number(places.offset, "offset")?.map(|number| {
            let offset = Offset::from_wire(number);
            offset.ok_or_else(|| "the offset is none".to_owned())
        });
        let headers = match places.headers.and_then(text) {
            Some(text) => {
                parse_headers(text.as_bytes()).map_err(|error| format!("the headers {error}"))?
            }
            None => Vec::new(),
        };
        Ok(BodyRow {
            topic: places
                .topic
                .and_then(|place| self.csv.field(place))
                .map(Cow::Borrowed),
            partition: partition.transpose()?.map(PartitionId::new),
            offset: offset.transpose()?,
            timestamp,
            key: self.bytes(places.key)?,
            value: match self.columns.is_whole() {
                true => Some(Cow::Owned(self.object())),
                false => self.bytes(places.value)?,
            },
            headers,
        })
    }

    fn bytes(&self, column: Option<Column>) -> Result<Option<Cow<'_, [u8]>>, String> {
        let Some(column) = column else {
            return Ok(None);
        };
        let Some(bytes) = self.csv.field(column.place) else {
            return Ok(None);
        };
        if !column.is_base64 {
            return Ok(Some(Cow::Borrowed(bytes)));
        }
        let name = &self.names[column.place];
        let decoded = STANDARD.decode(bytes);
        let decoded = decoded.map_err(|error| format!("the {name} is no base64: {error}"))?;
        Ok(Some(Cow::Owned(decoded)))
    }

    /// The row as a JSON object.
    fn object(&self) -> Vec<u8> {
        let mut out = vec![b'{'];
        for (index, name) in self.names.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            put_json_string(&mut out, name);
            out.push(b':');
            let text = self.csv.field(index).unwrap_or_default();
            let text = std::str::from_utf8(text).expect("it was checked");
            match text {
                "" => out.extend_from_slice(b"null"),
                "true" | "false" => out.extend_from_slice(text.as_bytes()),
                _ if is_number(text) => out.extend_from_slice(text.as_bytes()),
                _ => put_json_string(&mut out, text),
            }
        }
        out.push(b'}');
        out
    }
}

fn is_number(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    begins
        && serde_json::from_str::<&RawValue>(text).is_ok()
        && text.trim_ascii().len() == text.len()
}

fn places(names: &[String], columns: &BodyColumns) -> Result<Places, BodyError> {
    let plain = |name: &str| match name.strip_suffix(BASE64) {
        Some(plain @ ("key" | "value")) => plain.to_owned(),
        _ => name.to_owned(),
    };
    let plain: Vec<String> = names.iter().map(|name| plain(name)).collect();
    columns.keeps(plain.iter().map(String::as_str))?;
    let place = |wanted: &Option<String>, default: &str| {
        let Some(name) = columns.place(wanted, default) else {
            return Ok(None);
        };
        let known = match wanted {
            Some(_) => names,
            None => plain.as_slice(),
        };
        match known.iter().position(|found| found == name) {
            None if wanted.is_some() => Err(BodyError::NoColumn(name.to_owned())),
            found => Ok(found),
        }
    };
    let column = |place: usize| Column {
        place,
        is_base64: names[place] != plain[place] || names[place].ends_with(BASE64),
    };
    let fixed = |name: &str| place(&None, name);
    let value = place(&columns.value, "value")?;
    if value.is_none() && !columns.is_whole() {
        return Err(BodyError::NoColumn("value".to_owned()));
    }
    Ok(Places {
        topic: fixed("topic")?,
        partition: fixed("partition")?,
        offset: fixed("offset")?,
        timestamp: place(&columns.timestamp, "timestamp")?,
        key: place(&columns.key, "key")?.map(column),
        headers: fixed("headers")?,
        value: value.map(column),
    })
}
