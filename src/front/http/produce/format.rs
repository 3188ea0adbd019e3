//! The forms in which a body brings rows. Each is fed as the bytes come, and holds no more than one row.

use columnar::BodyColumns;

use super::array::Array;
use super::arrow::Arrow;
use super::lines::Lines;
use super::reader::Format;
use super::rows::Template;
use super::table::{Table, TableOptions};
use super::whole::Whole;

/// Which form a body has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A JSON value on each line.
    Ndjson,
    /// One JSON array, each item of which is a row; or one other value.
    Json,
    /// A header and rows.
    Csv,
    /// The body is one row.
    Raw,
    /// An Arrow stream.
    Arrow,
}

/// By their names in a query.
pub(super) const KINDS: [(&str, Kind); 5] = [
    ("ndjson", Kind::Ndjson),
    ("json", Kind::Json),
    ("csv", Kind::Csv),
    ("raw", Kind::Raw),
    ("arrow", Kind::Arrow),
];

/// By content types.
const TYPES: [(&str, Kind); 9] = [
    ("application/x-ndjson", Kind::Ndjson),
    ("application/ndjson", Kind::Ndjson),
    ("application/jsonl", Kind::Ndjson),
    ("application/x-jsonlines", Kind::Ndjson),
    ("application/jsonlines", Kind::Ndjson),
    ("application/json", Kind::Json),
    ("text/csv", Kind::Csv),
    ("application/octet-stream", Kind::Raw),
    ("application/vnd.apache.arrow.stream", Kind::Arrow),
];

impl Kind {
    /// By a content type, without its parameters.
    pub fn of_type(content_type: &str) -> Option<Kind> {
        let found = TYPES
            .iter()
            .find(|(known, _)| content_type.eq_ignore_ascii_case(known));
        found.map(|(_, kind)| *kind)
    }

    /// A reader of such a body, whose rows have so many bytes at most.
    pub fn reader(
        self,
        template: &Template,
        table: &TableOptions,
        row_bytes_max: usize,
    ) -> Box<dyn Format> {
        let template = template.clone();
        match self {
            Kind::Ndjson => Box::new(Lines::new(template, row_bytes_max)),
            Kind::Json => Box::new(Array::new(template, row_bytes_max)),
            Kind::Csv => Box::new(Table::new(template, table.clone(), row_bytes_max)),
            Kind::Raw => Box::new(Whole::new(row_bytes_max)),
            Kind::Arrow => Box::new(Arrow::new(BodyColumns {
                key: template.key_field.map(|field| field.column().to_owned()),
                value: table.value_column.clone(),
                ..BodyColumns::default()
            })),
        }
    }
}
