//! Rows of a record batch as records.
//!
//! Callers: the readers. A column's type is looked at once a batch; a cell is taken out when its row is asked for.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit as ArrowUnit};
use model::{Offset, PartitionId, Timestamp};

use super::headers::{Header, parse_headers};
use super::json::{Cells, integer};
use super::time::{self, TimeUnit};
use super::{BodyError, json};
use crate::columns::FIXED_NAMES;

/// Which columns of a body are what. None: the column of that name, if it is there.
#[derive(Clone, Debug, Default)]
pub struct BodyColumns {
    /// The key.
    pub key: Option<String>,
    /// The time.
    pub timestamp: Option<String>,
    /// The value.
    pub value: Option<String>,
    /// If given, nothing is guessed and nothing gets lost.
    pub exact: Option<Exact>,
}

/// What holds where rows must come back as they were: a number is a time only in a unit that was said, a null in the column of times is
/// no time, and columns that would be left out are an error. Those of a replay's file, which says offsets, are fields of its value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exact {
    /// The row as a whole is the value: a JSON object of all columns. Key and time come from columns that are named.
    pub whole_row: bool,
    /// What times count that are numbers.
    pub time_unit: Option<TimeUnit>,
}

impl BodyColumns {
    /// The column that is something, if the row is to be taken apart, or it was named.
    pub(super) fn place<'a>(
        &'a self,
        named: &'a Option<String>,
        default: &'a str,
    ) -> Option<&'a str> {
        let default = (!self.is_whole()).then_some(default);
        named.as_deref().or(default)
    }

    /// Whether the row as a whole is the value.
    pub(super) fn is_whole(&self) -> bool {
        self.exact.is_some_and(|exact| exact.whole_row)
    }

    /// Whether a column is what a row is taken apart into.
    pub(super) fn is_known(&self, name: &str) -> bool {
        let is_named = |of: &Option<String>| of.as_deref() == Some(name);
        FIXED_NAMES.contains(&name)
            || [&self.key, &self.timestamp, &self.value]
                .into_iter()
                .any(is_named)
    }

    /// Errors, where what is read is to be exact: `Twice`, and `LeftOut` if columns would get lost.
    pub(super) fn keeps<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), BodyError> {
        if self.exact.is_none() {
            return Ok(());
        }
        let mut sorted: Vec<&str> = names.clone().collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BodyError::Twice(twice[0].to_owned()));
        }
        let is_replay = || names.clone().any(|name| name == "offset");
        if self.is_whole() || is_replay() {
            return Ok(());
        }
        let others = names.clone().filter(|name| !self.is_known(name));
        let others: Vec<String> = others.map(str::to_owned).collect();
        match others.is_empty() {
            true => Ok(()),
            false => Err(BodyError::LeftOut(others)),
        }
    }
}

/// A row of a body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BodyRow<'a> {
    /// The topic that it was in.
    pub topic: Option<Cow<'a, [u8]>>,
    /// Where it was.
    pub partition: Option<PartitionId>,
    /// Where it was.
    pub offset: Option<Offset>,
    /// The record's time.
    pub timestamp: Option<Timestamp>,
    /// Its key.
    pub key: Option<Cow<'a, [u8]>>,
    /// Its value.
    pub value: Option<Cow<'a, [u8]>>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// A row, or why it is none, and where it stands: its line, or its number from 1.
pub type PlacedRow<'a> = (u64, Result<BodyRow<'a>, BodyError>);

/// Rows of one batch.
pub struct BodyRows {
    rows: usize,
    first_row: u64,
    exact: Option<Exact>,
    topic: Option<Cells>,
    partition: Option<ArrayRef>,
    offset: Option<ArrayRef>,
    timestamp: Option<ArrayRef>,
    key: Option<Cells>,
    headers: Option<Cells>,
    value: Value,
}

enum Value {
    Column(Cells),
    Object(Vec<(String, Cells)>),
}

impl BodyRows {
    pub(super) fn new(
        batch: &RecordBatch,
        columns: &BodyColumns,
        first_row: u64,
    ) -> Result<BodyRows, BodyError> {
        let schema = batch.schema_ref();
        columns.keeps(schema.fields().iter().map(|field| field.name().as_str()))?;
        let whole = columns.is_whole();
        let by_name = |name: &str| batch.column_by_name(name).filter(|_| !whole);
        let find = |wanted: &Option<String>, default: &str| match wanted {
            None => Ok(by_name(default)),
            Some(name) => {
                let found = batch.column_by_name(name);
                found
                    .map(Some)
                    .ok_or_else(|| BodyError::NoColumn(name.clone()))
            }
        };
        let name_of = |wanted: &Option<String>, default: &str| {
            wanted.as_deref().unwrap_or(default).to_owned()
        };
        let of_type =
            |column: Option<&ArrayRef>, name: String, is_it: fn(&DataType) -> bool, wanted| {
                match column {
                    Some(column) if !is_it(column.data_type()) => Err(BodyError::ColumnType {
                        column: name,
                        found: column.data_type().to_string(),
                        wanted,
                    }),
                    other => Ok(other.cloned()),
                }
            };
        let key = find(&columns.key, "key")?;
        let key_name = name_of(&columns.key, "key");
        let key = of_type(key, key_name.clone(), is_key, "text, bytes or an integer")?;
        let time_name = name_of(&columns.timestamp, "timestamp");
        let timestamp = find(&columns.timestamp, "timestamp")?;
        let wanted_time = "a timestamp, a date, text or an integer";
        let timestamp = of_type(timestamp, time_name, is_time, wanted_time)?;
        let integers = |name: &str| {
            let column = by_name(name);
            of_type(column, name.to_owned(), DataType::is_integer, "an integer")
        };
        let headers = by_name("headers");
        let headers = of_type(headers, "headers".to_owned(), is_bytes, "text")?;
        Ok(BodyRows {
            rows: batch.num_rows(),
            first_row,
            exact: columns.exact,
            topic: by_name("topic")
                .filter(|topic| is_bytes(topic.data_type()))
                .map(|cells| Cells::new("topic", cells))
                .transpose()?,
            partition: integers("partition")?,
            offset: integers("offset")?,
            timestamp,
            key: key.map(|key| Cells::new(&key_name, &key)).transpose()?,
            headers: headers
                .map(|cells| Cells::new("headers", &cells))
                .transpose()?,
            value: value_of(batch, columns)?,
        })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// A row. Errors: `Cell` if something in it cannot be; the other rows are as good as before.
    pub fn get(&self, row: usize) -> Result<BodyRow<'_>, BodyError> {
        assert!(row < self.rows, "a row of this batch");
        let wrong = |column: &'static str| {
            move |reason: String| BodyError::Cell {
                row: self.first_row + row as u64,
                column,
                reason,
            }
        };
        let number = |column: &Option<ArrayRef>| column.as_ref().and_then(|c| integer(c, row));
        let partition = number(&self.partition).map(|number| {
            let number = u32::try_from(number).ok().map(PartitionId::new);
            number.ok_or_else(|| wrong("partition")("is no partition's number".to_owned()))
        });
        let offset = number(&self.offset).map(|number| {
            let number = i64::try_from(number).ok().and_then(Offset::from_wire);
            number.ok_or_else(|| wrong("offset")("is no offset".to_owned()))
        });
        let timestamp = match &self.timestamp {
            Some(times) => match self.exact {
                Some(exact) => Some(exact_time_of(times, row, exact)),
                None => time_of(times, row).transpose(),
            }
            .transpose()
            .map_err(wrong("timestamp"))?,
            None => None,
        };
        let headers = match self.headers.as_ref().and_then(|cells| cells.bytes(row)) {
            Some(text) => parse_headers(&text).map_err(wrong("headers"))?,
            None => Vec::new(),
        };
        Ok(BodyRow {
            topic: self.topic.as_ref().and_then(|topic| topic.bytes(row)),
            partition: partition.transpose()?,
            offset: offset.transpose()?,
            timestamp,
            key: self.key.as_ref().and_then(|key| key.bytes(row)),
            headers,
            value: match &self.value {
                Value::Column(cells) => cells.bytes(row),
                Value::Object(fields) => Some(Cow::Owned(json::object(fields, row))),
            },
        })
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    match data_type {
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => true,
        DataType::Dictionary(_, values) => is_bytes(values),
        _ => false,
    }
}

fn is_key(data_type: &DataType) -> bool {
    is_bytes(data_type) || data_type.is_integer()
}

fn is_time(data_type: &DataType) -> bool {
    use DataType::{Date32, Date64, LargeUtf8, Timestamp, Utf8, Utf8View};
    let is_other = matches!(
        data_type,
        Timestamp(..) | Date32 | Date64 | Utf8 | LargeUtf8 | Utf8View
    );
    is_other || data_type.is_integer()
}

fn value_of(batch: &RecordBatch, columns: &BodyColumns) -> Result<Value, BodyError> {
    if let Some(name) = &columns.value {
        let found = batch.column_by_name(name);
        let column = found.ok_or_else(|| BodyError::NoColumn(name.clone()))?;
        return Ok(Value::Column(Cells::new(name, column)?));
    }
    if let Some(column) = batch.column_by_name("value")
        && is_bytes(column.data_type())
        && !columns.is_whole()
    {
        return Ok(Value::Column(Cells::new("value", column)?));
    }
    if columns.exact.is_some() && !columns.is_whole() {
        let Some(column) = batch.column_by_name("value") else {
            return Err(BodyError::NoColumn("value".to_owned()));
        };
        return Err(BodyError::ColumnType {
            column: "value".to_owned(),
            found: column.data_type().to_string(),
            wanted: "text or bytes",
        });
    }
    // What was named by its name stays in the value: it is data.
    let is_place =
        |name: &str| !columns.is_whole() && FIXED_NAMES.contains(&name) && name != "value";
    let schema = batch.schema_ref().fields().iter();
    let fields = schema
        .zip(batch.columns())
        .filter(|(field, _)| !is_place(field.name()))
        .map(|(field, column)| Ok((field.name().clone(), Cells::new(field.name(), column)?)));
    Ok(Value::Object(fields.collect::<Result<_, BodyError>>()?))
}

fn time_of(times: &ArrayRef, row: usize) -> Result<Option<Timestamp>, String> {
    if times.is_null(row) {
        return Ok(None);
    }
    let millis = match times.data_type() {
        DataType::Timestamp(ArrowUnit::Second, _) => {
            let seconds = times.as_primitive::<TimestampSecondType>().value(row);
            seconds.checked_mul(1_000).ok_or("is too late")?
        }
        DataType::Timestamp(ArrowUnit::Millisecond, _) => {
            times.as_primitive::<TimestampMillisecondType>().value(row)
        }
        DataType::Timestamp(ArrowUnit::Microsecond, _) => {
            let micros = times.as_primitive::<TimestampMicrosecondType>();
            micros.value(row).div_euclid(1_000)
        }
        DataType::Timestamp(ArrowUnit::Nanosecond, _) => {
            let nanos = times.as_primitive::<TimestampNanosecondType>();
            nanos.value(row).div_euclid(1_000_000)
        }
        DataType::Date32 => i64::from(times.as_primitive::<Date32Type>().value(row)) * 86_400_000,
        DataType::Date64 => times.as_primitive::<Date64Type>().value(row),
        _ => match integer(times, row) {
            Some(number) => i64::try_from(number).map_err(|_| "is too late")?,
            None => return text_time(times, row).map(Some),
        },
    };
    Ok(Some(Timestamp::from_millis(millis)))
}

/// The same, where nothing is guessed, and a null is no time.
fn exact_time_of(times: &ArrayRef, row: usize, exact: Exact) -> Result<Timestamp, String> {
    if times.is_null(row) {
        return match exact.whole_row {
            true => Err("is not there".to_owned()),
            false => Ok(Timestamp::NONE),
        };
    }
    if let Some(number) = integer(times, row) {
        return time::of_integer(number, exact.time_unit);
    }
    if matches!(
        times.data_type(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    ) {
        return time::of_text(text_of(times, row), exact.time_unit);
    }
    let time = time_of(times, row)?.unwrap_or(Timestamp::NONE);
    time::of_millis(time.millis())
}

fn text_of(times: &ArrayRef, row: usize) -> &str {
    match times.data_type() {
        DataType::LargeUtf8 => times.as_string::<i64>().value(row),
        DataType::Utf8View => times.as_string_view().value(row),
        _ => times.as_string::<i32>().value(row),
    }
}

fn text_time(times: &ArrayRef, row: usize) -> Result<Timestamp, String> {
    let text = text_of(times, row);
    let time = model::time_spec::fixed_time(text);
    time.ok_or_else(|| format!("{text:?} is no time"))
}
