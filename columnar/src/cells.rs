//! The cells of one row: what of a value goes into which column.
//!
//! Callers: the encoders of tables and of CSV. Invariant: the schema that learns while rows come and the columns, which stay as they
//! were at the beginning, are two things: what does not fit a column is null there, is counted, and is in the value.

use std::borrow::Cow;

use crate::columns::{Column, ColumnError, Columns};
use crate::encode::{Counts, EncodeError};
use crate::fields::string_content;
use crate::observer::{Observer, Seen};
use crate::outline::Leaf;
use crate::row::Row;
use crate::scan::{Plain, Scan};
use crate::schema::{FieldType, Schema, Shape, is_exact};

/// The columns of an output, and what is learned meanwhile.
pub struct Cells {
    columns: Columns,
    /// The types of columns that are fields.
    kinds: Vec<Option<FieldType>>,
    /// The column of each field of the schema, as far as it has one.
    slots: Vec<Option<usize>>,
    keys: Shape,
    values: Shape,
    observer: Observer,
    cells: Vec<Option<Leaf>>,
    pub counts: Counts,
}

/// A field's value, as its column takes it.
#[derive(Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Unfit,
}

impl Cells {
    pub fn new(columns: Columns, schema: &Schema) -> Result<Cells, ColumnError> {
        let places = columns.places(schema)?;
        let mut slots = vec![None; schema.fields.len()];
        for (slot, place) in places.iter().enumerate() {
            if let Some(place) = place {
                slots[*place] = Some(slot);
            }
        }
        let kind = |place: &Option<usize>| place.map(|place| schema.fields[place].kind);
        Ok(Cells {
            kinds: places.iter().map(kind).collect(),
            slots,
            keys: schema.keys(),
            values: schema.values(),
            observer: Observer::new(schema.clone()),
            cells: vec![None; columns.len()],
            counts: Counts::default(),
            columns,
        })
    }

    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    pub fn kind(&self, slot: usize) -> FieldType {
        self.kinds[slot].expect("this column is a field")
    }

    pub fn keys(&self) -> Shape {
        self.keys
    }

    pub fn values(&self) -> Shape {
        self.values
    }

    pub fn schema(&self) -> &Schema {
        self.observer.schema()
    }

    pub fn into_schema(self) -> (Counts, Schema) {
        (self.counts, self.observer.into_schema())
    }

    /// Takes in a row, and gives its value's text, if it is one. Errors: what was said to be text is none.
    pub fn set<'a>(&mut self, row: &Row<'a>) -> Result<Option<&'a str>, EncodeError> {
        let record = &row.record;
        self.counts.rows += 1;
        let fields_before = self.observer.schema().fields.len();
        let (seen, text) = self.observer.observe_text(record.key, record.value);
        if seen == Seen::Other {
            self.counts.undecodable += 1;
        }
        let schema = self.observer.schema();
        self.counts.new_fields += (schema.fields.len() - fields_before) as u64;
        for (said, now, column) in [
            (self.keys, schema.keys(), Column::Key),
            (self.values, schema.values(), Column::Value),
        ] {
            let is_shown = || self.columns.iter().any(|shown| *shown == column);
            if said == Shape::Text && now == Shape::Bytes && is_shown() {
                return Err(EncodeError::NotText {
                    column: column.name().into_owned(),
                    partition: row.partition,
                    offset: record.offset,
                });
            }
        }
        self.cells.fill(None);
        for leaf in self.observer.leaves() {
            if let Some(slot) = self.slots.get(leaf.field).copied().flatten() {
                self.cells[slot] = Some(leaf.clone());
            }
        }
        Ok(text)
    }

    /// A field's cell of the row that was taken in last, whose value has this text.
    pub fn cell<'a>(&mut self, slot: usize, text: Option<&'a str>) -> Cell<'a> {
        let (Some(leaf), Some(text)) = (&self.cells[slot], text) else {
            return Cell::Null;
        };
        let raw = &text[leaf.range.clone()];
        let cell = match (self.kind(slot), leaf.plain) {
            (_, Plain::Null) => Cell::Null,
            (FieldType::Bool, Plain::Bool(value)) => Cell::Bool(value),
            (FieldType::Int, Plain::Int(number)) => Cell::Int(number),
            (FieldType::Float, Plain::Float(number)) => Cell::Float(number),
            (FieldType::Float, Plain::Int(number)) => Cell::Float(number as f64),
            (FieldType::Text, Plain::Text) => Cell::Text(Cow::Borrowed(&raw[1..raw.len() - 1])),
            (kind, _) => cell(kind, raw),
        };
        if cell == Cell::Unfit {
            self.counts.unfit += 1;
        }
        cell
    }
}

fn cell(kind: FieldType, raw: &str) -> Cell<'_> {
    if raw == "null" {
        return Cell::Null;
    }
    match kind {
        FieldType::Bool => match raw {
            "true" => Cell::Bool(true),
            "false" => Cell::Bool(false),
            _ => Cell::Unfit,
        },
        FieldType::Int => match raw.parse() {
            Ok(number) if raw != "-0" => Cell::Int(number),
            _ => Cell::Unfit,
        },
        FieldType::Float => float(raw).map_or(Cell::Unfit, Cell::Float),
        FieldType::Json if raw.starts_with(['[', '{']) => Cell::Text(Cow::Borrowed(raw)),
        FieldType::Json => Cell::Unfit,
        FieldType::Text => Cell::Text(string_content(raw).unwrap_or(Cow::Borrowed(raw))),
    }
}

fn float(raw: &str) -> Option<f64> {
    // JSON has no words for numbers, but Rust's parser does.
    if !raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    // Most are read on the way; what is too long for that, or has an exponent, is not.
    match Scan::new(raw).leaf() {
        Some(Plain::Float(number)) => return Some(number),
        Some(Plain::Int(number)) => return Some(number as f64),
        _ => {}
    }
    if raw.contains(['.', 'e', 'E']) || raw == "-0" {
        return raw.parse().ok().filter(|number: &f64| number.is_finite());
    }
    let number: i64 = raw.parse().ok()?;
    is_exact(number).then_some(number as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn a_short_decimal_is_the_float_that_it_is_parsed_as(raw in "-?(0|[1-9][0-9]{0,12})\\.[0-9]{1,14}") {
            let parsed: f64 = raw.parse().expect("a number");
            let found = float(&raw).expect("a float");
            prop_assert_eq!(found.to_bits(), parsed.to_bits(), "{}", raw);
        }
    }

    #[test]
    fn what_does_not_fit_a_column_is_told() {
        use FieldType::{Bool, Float, Int, Json, Text};
        let text = |text: &'static str| Cell::Text(Cow::Borrowed(text));
        let expected = [
            (Bool, "true", Cell::Bool(true)),
            (Bool, "1", Cell::Unfit),
            (Int, "-7", Cell::Int(-7)),
            (Int, "7.0", Cell::Unfit),
            (Int, "9223372036854775808", Cell::Unfit),
            (Float, "7", Cell::Float(7.0)),
            (Float, "1e2", Cell::Float(100.0)),
            (Float, "9007199254740993", Cell::Unfit),
            (Float, "\"inf\"", Cell::Unfit),
            (Json, "[1]", text("[1]")),
            (Json, "1", Cell::Unfit),
            (Text, "\"a\"", text("a")),
            (Text, "1.50", text("1.50")),
            (Text, "{\"a\":1}", text("{\"a\":1}")),
            (Int, "null", Cell::Null),
        ];
        for (kind, raw, expected) in expected {
            assert_eq!(cell(kind, raw), expected, "{kind:?} {raw}");
        }
    }
}
