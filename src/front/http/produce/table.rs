//! CSV (RFC 4180) with a header: each row becomes a JSON object with the header's names, or the text of one column.
//!
//! In an object a field that reads as a JSON number, `true` or `false` is that, with the same characters; one without any
//! character is null; everything else is a text.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use model::Timestamp;

use super::fault::{RowFault, Stop};
use super::field;
use super::reader::Format;
use super::rows::{Rows, Template};

/// More columns than anybody has.
const COLUMNS_MAX: usize = 4_096;

/// What the request says of a table.
#[derive(Debug, Clone)]
pub(super) struct TableOptions {
    pub delimiter: u8,
    pub value_column: Option<String>,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions {
            delimiter: b',',
            value_column: None,
        }
    }
}

/// The header, and which columns are asked for.
struct Header {
    /// The names, each as the beginning of a JSON field: `"name":`.
    names: Vec<String>,
    key: Option<usize>,
    time: Option<usize>,
    value: Option<usize>,
}

/// See the module.
pub(super) struct Table {
    template: Template,
    options: TableOptions,
    row_bytes_max: usize,
    reader: Reader,
    header: Option<Header>,
    /// The row that is being read: its fields one after the other, and where each ends.
    text: Vec<u8>,
    text_len: usize,
    ends: Vec<usize>,
    ends_len: usize,
    is_too_long: bool,
    /// The line that is being read, from 1, and the one on which the row begins; None between two rows.
    line: u64,
    begun: Option<u64>,
    object: String,
}

impl Table {
    pub fn new(template: Template, options: TableOptions, row_bytes_max: usize) -> Table {
        let reader = ReaderBuilder::new().delimiter(options.delimiter).build();
        Table {
            template,
            options,
            row_bytes_max,
            reader,
            header: None,
            text: vec![0; 1024],
            text_len: 0,
            ends: vec![0; 64],
            ends_len: 0,
            is_too_long: false,
            line: 1,
            begun: None,
            object: String::new(),
        }
    }

    /// Goes to the beginning of a row.
    fn begin(&mut self, rest: &mut &[u8]) {
        while self.begun.is_none()
            && let Some((first, behind)) = rest.split_first()
        {
            match first {
                b'\n' => self.line += 1,
                b'\r' => {}
                _ => {
                    self.begun = Some(self.line);
                    return;
                }
            }
            *rest = behind;
        }
    }

    /// Reads on; true if a row is whole. An empty input is the end of the body.
    fn read(&mut self, rest: &mut &[u8]) -> bool {
        loop {
            let (text, ends) = (
                &mut self.text[self.text_len..],
                &mut self.ends[self.ends_len..],
            );
            let (result, taken, written, ended) = self.reader.read_record(rest, text, ends);
            self.line += memchr::memchr_iter(b'\n', &rest[..taken]).count() as u64;
            *rest = &rest[taken..];
            self.text_len += written;
            self.ends_len += ended;
            match result {
                ReadRecordResult::InputEmpty => return false,
                ReadRecordResult::Record => return true,
                ReadRecordResult::End => return false,
                // What is too long is read to its end, over itself.
                ReadRecordResult::OutputFull if self.text_len >= self.row_bytes_max => {
                    self.is_too_long = true;
                    self.text_len = 0;
                }
                ReadRecordResult::OutputFull => {
                    let more = (self.text.len() * 2).min(self.row_bytes_max.max(1024));
                    self.text.resize(more, 0);
                }
                ReadRecordResult::OutputEndsFull if self.ends.len() >= COLUMNS_MAX => {
                    self.is_too_long = true;
                    self.ends_len = 0;
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
            }
        }
    }

    fn end_row(&mut self, rows: &mut Rows) -> Result<(), Stop> {
        let line = self.begun.take().unwrap_or(self.line);
        let (text_len, ends_len) = (self.text_len, self.ends_len);
        (self.text_len, self.ends_len) = (0, 0);
        if std::mem::take(&mut self.is_too_long) {
            if self.header.is_none() {
                return Err(Stop::Body("the header is too long".to_owned()));
            }
            let bytes_max = self.row_bytes_max;
            rows.refuse(line, RowFault::TooLong { bytes_max });
            return Ok(());
        }
        let fields = std::str::from_utf8(&self.text[..text_len]);
        let fields = fields
            .map_err(|error| error.valid_up_to())
            .and_then(|text| {
                let starts = std::iter::once(&0).chain(&self.ends[..ends_len]);
                let fields = starts.zip(&self.ends[..ends_len]);
                // A field may end inside a character that only the whole text has.
                fields
                    .map(|(from, to)| text.get(*from..*to).ok_or(*from))
                    .collect::<Result<Vec<&str>, usize>>()
            });
        let Some(header) = &self.header else {
            let fields = fields.map_err(|_| Stop::Body("the header is no UTF-8".to_owned()))?;
            self.header = Some(header_of(&fields, &self.template, &self.options)?);
            return Ok(());
        };
        match fields {
            Err(valid) => rows.refuse(line, RowFault::Utf8 { valid }),
            Ok(fields) => {
                let object = &mut self.object;
                match row(header, &self.template, &fields, object) {
                    Ok((key, time)) => {
                        let value = header.value.map_or(object.as_str(), |at| fields[at]);
                        rows.add(line, value.as_bytes(), key.map(str::as_bytes), time);
                    }
                    Err(fault) => rows.refuse(line, fault),
                }
            }
        }
        Ok(())
    }
}

fn header_of(fields: &[&str], template: &Template, options: &TableOptions) -> Result<Header, Stop> {
    let first_without_mark = |(index, name): (usize, &&str)| match index {
        0 => name.strip_prefix('\u{feff}').unwrap_or(name).to_owned(),
        _ => (*name).to_owned(),
    };
    let names: Vec<String> = fields.iter().enumerate().map(first_without_mark).collect();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        let name = twice[0];
        return Err(Stop::Body(format!("the header names {name:?} twice")));
    }
    let find = |wanted: Option<&str>| {
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        let found = names.iter().position(|name| name == wanted);
        let missing = || Stop::Body(format!("the header has no column {wanted:?}"));
        found.map(Some).ok_or_else(missing)
    };
    let time_field = template.time_field.as_ref().map(|(field, _)| field);
    Ok(Header {
        key: find(template.key_field.as_ref().map(|field| field.column()))?,
        time: find(time_field.map(|field| field.column()))?,
        value: find(options.value_column.as_deref())?,
        names: names
            .iter()
            .map(|name| format!("{}:", serde_json::Value::from(name.as_str())))
            .collect(),
    })
}

/// Key and time of a row, and in `object`, if that is wanted, the row as an object.
fn row<'a>(
    header: &Header,
    template: &Template,
    fields: &[&'a str],
    object: &mut String,
) -> Result<(Option<&'a str>, Option<Timestamp>), RowFault> {
    if fields.len() != header.names.len() {
        let (found, wanted) = (fields.len(), header.names.len());
        return Err(RowFault::Columns { found, wanted });
    }
    let key = header.key.map(|at| fields[at]);
    if let (Some(""), Some(field)) = (key, &template.key_field) {
        let field = field.to_string();
        return Err(RowFault::KeyMissing { field });
    }
    let time = match (header.time, &template.time_field) {
        (Some(at), Some((field, _))) if fields[at].is_empty() => {
            let field = field.to_string();
            return Err(RowFault::TimestampMissing { field });
        }
        (Some(at), Some((_, unit))) => Some(unit.read(fields[at])?),
        _ => None,
    };
    if header.value.is_none() {
        object.clear();
        object.push('{');
        for (name, field) in header.names.iter().zip(fields) {
            if object.len() > 1 {
                object.push(',');
            }
            object.push_str(name);
            push_value(object, field);
        }
        object.push('}');
    }
    Ok((key, time))
}

fn push_value(object: &mut String, field: &str) {
    let is_number = field.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    match field {
        "" => object.push_str("null"),
        "true" | "false" => object.push_str(field),
        _ if is_number && field::check(field).is_ok() => object.push_str(field),
        _ => object.push_str(&serde_json::Value::from(field).to_string()),
    }
}

impl Format for Table {
    fn feed(&mut self, bytes: &[u8], rows: &mut Rows) -> Result<(), Stop> {
        let mut rest = bytes;
        loop {
            self.begin(&mut rest);
            // The reader takes nothing as the end.
            if rest.is_empty() {
                return Ok(());
            }
            if self.read(&mut rest) {
                self.end_row(rows)?;
            }
        }
    }

    fn finish(&mut self, rows: &mut Rows) -> Result<(), Stop> {
        if self.read(&mut &b""[..]) {
            self.end_row(rows)?;
        }
        match self.header {
            Some(_) => Ok(()),
            None => Err(Stop::Body("there is no header".to_owned())),
        }
    }

    fn held(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<usize>()
    }
}
