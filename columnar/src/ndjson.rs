//! Rows as NDJSON: one JSON object a line, its members named as the columns.
//!
//! ```text
//! {"topic":"t","partition":0,"offset":5,"timestamp":"2026-03-01T14:03:05.250Z","key":"k","headers":[],"value":{"temp":21.5}}
//! ```
//! | member | is |
//! |---|---|
//! | `timestamp` | RFC 3339 with milliseconds; milliseconds since 1970 where no calendar has it; null for none |
//! | `key` | text; base64 beside `"key_encoding":"base64"`; null for none |
//! | `value` | JSON, verbatim but for line breaks, which become spaces, and space around it, which is left out; a text beside `"value_encoding":"text"`; base64 beside `"value_encoding":"base64"`; null for none; the JSON value `null` beside `"value_encoding":"json"` |
//! | `headers` | as [`crate::text::put_headers`] writes them |
//! | a field | its JSON text, verbatim likewise; null if it is not there |

use std::io::Write;

use crate::columns::{Column, Columns};
use crate::encode::{Counts, Encoded};
use crate::fields;
use crate::row::Row;
use crate::schema::Schema;
use crate::text::{
    put_base64_member, put_headers, put_json_string, put_member, put_name, put_time,
};

/// Writes lines.
pub struct JsonLines {
    columns: Vec<(Column, String)>,
    has_fields: bool,
    path: String,
    schema: Schema,
    counts: Counts,
    out: Vec<u8>,
}

impl JsonLines {
    pub fn new(columns: &Columns, schema: Schema) -> JsonLines {
        let columns = columns.iter();
        let columns: Vec<_> = columns
            .map(|column| (column.clone(), column.name().into_owned()))
            .collect();
        JsonLines {
            has_fields: columns
                .iter()
                .any(|(column, _)| matches!(column, Column::Field(_))),
            columns,
            path: String::new(),
            schema,
            counts: Counts::default(),
            out: Vec::new(),
        }
    }

    pub fn push(&mut self, row: &Row<'_>) {
        self.counts.rows += 1;
        let record = &row.record;
        let fields = match self.has_fields {
            true => self.find_fields(record.value),
            false => Vec::new(),
        };
        let out = &mut self.out;
        out.push(b'{');
        for (index, (column, name)) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match column {
                Column::Key => {
                    put_member(out, name, record.key);
                    continue;
                }
                Column::Value => {
                    put_value(out, name, record.value);
                    continue;
                }
                _ => put_name(out, name),
            }
            match column {
                Column::Topic => put_json_string(out, row.topic),
                Column::Partition => put_number(out, row.partition.get().into()),
                Column::Offset => put_number(out, record.offset.to_wire()),
                Column::Headers => put_headers(out, record.headers()),
                Column::Timestamp => put_timestamp(out, record.timestamp),
                Column::Field(_) => match fields[index] {
                    Some(raw) => put_json(out, raw),
                    None => out.extend_from_slice(b"null"),
                },
                Column::Key | Column::Value => unreachable!("written above"),
            }
        }
        out.extend_from_slice(b"}\n");
    }

    fn find_fields<'a>(&mut self, value: Option<&'a [u8]>) -> Vec<Option<&'a str>> {
        let mut found = vec![None; self.columns.len()];
        let text = value.map(std::str::from_utf8);
        let Some(Ok(text)) = text else { return found };
        let columns = &self.columns;
        let is_object = fields::walk(text, &mut self.path, &mut |path, raw| {
            let is_it = |(column, _): &(Column, String)| matches!(column, Column::Field(own) if own == path);
            if let Some(index) = columns.iter().position(is_it) {
                found[index] = Some(raw);
            }
        });
        if !is_object {
            self.counts.undecodable += 1;
            found.fill(None);
        }
        found
    }

    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn into_schema(self) -> Schema {
        self.schema
    }

    pub fn finish(self) -> Encoded {
        Encoded {
            bytes: self.out.into(),
            counts: self.counts,
            schema: self.schema,
        }
    }
}

fn put_number(out: &mut Vec<u8>, number: i64) {
    write!(out, "{number}").expect("memory takes it");
}

fn put_timestamp(out: &mut Vec<u8>, time: model::Timestamp) {
    if time.is_none() {
        out.extend_from_slice(b"null");
        return;
    }
    out.push(b'"');
    if put_time(out, time) {
        out.push(b'"');
    } else {
        out.pop();
        put_number(out, time.millis());
    }
}

fn put_value(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    put_name(out, name);
    let Some(bytes) = value else {
        out.extend_from_slice(b"null");
        return;
    };
    if let Some(json) = fields::json_text(bytes) {
        let json = json.trim_ascii();
        put_json(out, json);
        if json == "null" {
            put_encoding(out, name, "json");
        }
        return;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            put_json_string(out, text);
            put_encoding(out, name, "text");
        }
        Err(_) => put_base64_member(out, name, bytes),
    }
}

fn put_encoding(out: &mut Vec<u8>, name: &str, encoding: &str) {
    out.push(b',');
    put_name(out, &format!("{name}_encoding"));
    put_json_string(out, encoding);
}

/// JSON on one line: line breaks stand between its parts only, and a space does as well.
fn put_json(out: &mut Vec<u8>, json: &str) {
    let begin = out.len();
    out.extend_from_slice(json.as_bytes());
    for byte in &mut out[begin..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
