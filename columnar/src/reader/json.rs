//! Cells of a column as bytes, and a row's cells as a JSON object.
//!
//! Callers: the rows of a body. Numbers are written so that they are read back as the same; a float that is no number is null, a time
//! is RFC 3339 with its unit's digits, bytes are base64.

use std::borrow::Cow;
use std::fmt::Write;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use jiff::Timestamp;
use jiff::civil::Date;

use super::BodyError;
use crate::text::{put_base64, put_json_string};

/// Lists and structs within each other.
const DEPTH_MAX: usize = 16;

/// A column; a dictionary is taken apart once.
pub struct Cells {
    values: ArrayRef,
    /// Of a dictionary: the value of each row, and which rows have none.
    keys: Option<(Vec<usize>, ArrayRef)>,
}

impl Cells {
    /// Errors: `ColumnType` if its cells cannot be written as JSON.
    pub fn new(name: &str, column: &ArrayRef) -> Result<Cells, BodyError> {
        if !is_known(column.data_type(), DEPTH_MAX) {
            return Err(BodyError::ColumnType {
                column: name.to_owned(),
                found: column.data_type().to_string(),
                wanted: "a number, text, bytes, truth, a time, a date, or lists and structs of them",
            });
        }
        let Some(dictionary) = column.as_any_dictionary_opt() else {
            return Ok(Cells {
                values: column.clone(),
                keys: None,
            });
        };
        let values = dictionary.values().clone();
        let keys = match values.is_empty() {
            true => vec![0; column.len()],
            false => dictionary.normalized_keys(),
        };
        Ok(Cells {
            values,
            keys: Some((keys, column.clone())),
        })
    }

    /// Where a row's value is; None if it is null.
    fn place(&self, row: usize) -> Option<usize> {
        let place = match &self.keys {
            Some((_, column)) if column.is_null(row) => return None,
            Some((keys, _)) => keys[row],
            None => row,
        };
        (place < self.values.len() && !self.values.is_null(place)).then_some(place)
    }

    /// A cell's bytes: those of texts and bytes as they are, those of others as JSON writes them.
    pub fn bytes(&self, row: usize) -> Option<Cow<'_, [u8]>> {
        let place = self.place(row)?;
        if let Some(bytes) = raw_bytes(&self.values, place) {
            return Some(Cow::Borrowed(bytes));
        }
        let mut out = Vec::new();
        put_cell(&mut out, &self.values, place);
        Some(Cow::Owned(out))
    }

    fn put_json(&self, out: &mut Vec<u8>, row: usize) {
        match self.place(row) {
            Some(place) => put_cell(out, &self.values, place),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// A row's cells as a JSON object.
pub fn object(fields: &[(String, Cells)], row: usize) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (index, (name, cells)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_json_string(&mut out, name);
        out.push(b':');
        cells.put_json(&mut out, row);
    }
    out.push(b'}');
    out
}

fn is_known(data_type: &DataType, depth: usize) -> bool {
    use DataType::{
        Boolean, Date32, Dictionary, Float32, Float64, LargeList, List, Null, Struct, Timestamp,
    };
    if depth == 0 {
        return false;
    }
    match data_type {
        Boolean | Date32 | Float32 | Float64 | Null | Timestamp(..) => true,
        Dictionary(_, values) => depth == DEPTH_MAX && is_known(values, 1),
        List(item) | LargeList(item) => is_known(item.data_type(), depth - 1),
        Struct(fields) => fields
            .iter()
            .all(|field| is_known(field.data_type(), depth - 1)),
        other => other.is_integer() || is_bytes(other),
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(
        data_type,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView
    )
}

/// The bytes of a text's or of bytes' cell.
fn raw_bytes(column: &ArrayRef, place: usize) -> Option<&[u8]> {
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(place).as_bytes(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(place).as_bytes(),
        DataType::Utf8View => column.as_string_view().value(place).as_bytes(),
        DataType::Binary => column.as_binary::<i32>().value(place),
        DataType::LargeBinary => column.as_binary::<i64>().value(place),
        DataType::BinaryView => column.as_binary_view().value(place),
        _ => return None,
    })
}

/// An integer's cell. None if it is null, or no integer.
pub fn integer(column: &ArrayRef, row: usize) -> Option<i128> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        _ => return None,
    })
}

fn put_cell(out: &mut Vec<u8>, column: &ArrayRef, place: usize) {
    if column.is_null(place) {
        out.extend_from_slice(b"null");
        return;
    }
    if let Some(number) = integer(column, place) {
        put_display(out, number);
        return;
    }
    match column.data_type() {
        DataType::Boolean => put_display(out, column.as_boolean().value(place)),
        DataType::Float32 => put_float32(out, column.as_primitive::<Float32Type>().value(place)),
        DataType::Float64 => put_float(out, column.as_primitive::<Float64Type>().value(place)),
        DataType::Timestamp(unit, _) => put_time(out, nanoseconds(column, place, *unit), *unit),
        DataType::Date32 => put_date(out, column.as_primitive::<Date32Type>().value(place)),
        DataType::List(_) => put_list(out, &column.as_list::<i32>().value(place)),
        DataType::LargeList(_) => put_list(out, &column.as_list::<i64>().value(place)),
        DataType::Struct(fields) => {
            out.push(b'{');
            let columns = column.as_struct().columns().iter();
            for (index, (field, column)) in fields.iter().zip(columns).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_json_string(out, field.name());
                out.push(b':');
                put_cell(out, column, place);
            }
            out.push(b'}');
        }
        _ => put_text(out, raw_bytes(column, place)),
    }
}

fn put_text(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.extend_from_slice(b"null"),
        Some((_, Ok(text))) => put_json_string(out, text),
        Some((bytes, Err(_))) => {
            out.push(b'"');
            put_base64(out, bytes);
            out.push(b'"');
        }
    }
}

fn put_list(out: &mut Vec<u8>, items: &ArrayRef) {
    out.push(b'[');
    for place in 0..items.len() {
        if place > 0 {
            out.push(b',');
        }
        put_cell(out, items, place);
    }
    out.push(b']');
}

fn put_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    use std::io::Write;
    write!(out, "{value}").expect("memory takes it");
}

fn put_float(out: &mut Vec<u8>, number: f64) {
    match number.is_finite() {
        true => serde_json::to_writer(out, &number).expect("memory takes it"),
        false => out.extend_from_slice(b"null"),
    }
}

fn put_float32(out: &mut Vec<u8>, number: f32) {
    match number.is_finite() {
        true => serde_json::to_writer(out, &number).expect("memory takes it"),
        false => out.extend_from_slice(b"null"),
    }
}

fn nanoseconds(column: &ArrayRef, place: usize, unit: TimeUnit) -> i128 {
    let (number, nanos) = match unit {
        TimeUnit::Second => (
            column.as_primitive::<TimestampSecondType>().value(place),
            1_000_000_000,
        ),
        TimeUnit::Millisecond => (
            column
                .as_primitive::<TimestampMillisecondType>()
                .value(place),
            1_000_000,
        ),
        TimeUnit::Microsecond => (
            column
                .as_primitive::<TimestampMicrosecondType>()
                .value(place),
            1_000,
        ),
        TimeUnit::Nanosecond => (
            column
                .as_primitive::<TimestampNanosecondType>()
                .value(place),
            1,
        ),
    };
    i128::from(number) * nanos
}

fn put_time(out: &mut Vec<u8>, nanos: i128, unit: TimeUnit) {
    let digits = match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    let mut text = String::new();
    let written = Timestamp::from_nanosecond(nanos).map(|time| write!(text, "{time:.digits$}"));
    match written {
        Ok(Ok(())) => put_json_string(out, &text),
        _ => out.extend_from_slice(b"null"),
    }
}

fn put_date(out: &mut Vec<u8>, days: i32) {
    let epoch = Date::constant(1970, 1, 1);
    let span = jiff::Span::new().try_days(days);
    match span.and_then(|span| epoch.checked_add(span)) {
        Ok(date) => put_json_string(out, &date.to_string()),
        Err(_) => out.extend_from_slice(b"null"),
    }
}
