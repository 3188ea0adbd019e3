//! What is looked at row by row on this side: rows with a text in them, and the last row of each key.
//!
//! Caller: `replay`, for NDJSON. Memory: a line, or one line for each key.

use std::collections::HashMap;
use std::io::{self, Write};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Columns that a text is not looked for in: they tell where a record is, and not what it says.
const PLACE_COLUMNS: [&str; 4] = ["topic", "partition", "offset", "timestamp"];

/// Which rows are written.
pub(super) struct Rows {
    grep: Option<String>,
    /// The last line of each key, and the place of the key among those that are there.
    last: Option<Last>,
    rest: Vec<u8>,
    /// Rows that were written, or are to be.
    pub written: u64,
}

#[derive(Default)]
struct Last {
    places: HashMap<String, usize>,
    lines: Vec<Vec<u8>>,
}

impl Rows {
    pub fn new(grep: Option<String>, is_last_per_key: bool) -> Rows {
        Rows {
            grep,
            last: is_last_per_key.then(Last::default),
            rest: Vec::new(),
            written: 0,
        }
    }

    /// Whether rows are looked at at all.
    pub fn is_wanted(grep: Option<&str>, is_last_per_key: bool) -> bool {
        grep.is_some() || is_last_per_key
    }

    /// Takes the next bytes, and writes the rows that are whole and wanted.
    pub fn push(&mut self, bytes: &[u8], out: &mut dyn Write) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(length) = self.rest[taken..].iter().position(|byte| *byte == b'\n') {
            let line = self.rest[taken..taken + length].to_vec();
            taken += length + 1;
            self.line(&line, out)?;
        }
        self.rest.drain(..taken);
        Ok(())
    }

    fn line(&mut self, line: &[u8], out: &mut dyn Write) -> Result<()> {
        let row: Value =
            serde_json::from_slice(line).context("the server sent a row that is no JSON")?;
        if self.grep.as_ref().is_some_and(|text| !says(&row, text)) {
            return Ok(());
        }
        match &mut self.last {
            None => {
                self.written += 1;
                write_line(line, out)?;
            }
            // A record without a key is of no key.
            Some(last) if !row["key"].is_null() => {
                let next = last.lines.len();
                let place = *last.places.entry(row["key"].to_string()).or_insert(next);
                match last.lines.get_mut(place) {
                    Some(known) => *known = line.to_vec(),
                    None => last.lines.push(line.to_vec()),
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The end: what was kept back is written.
    pub fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        let lines = self.last.take().unwrap_or_default().lines;
        self.written += lines.len() as u64;
        for line in lines {
            write_line(&line, out)?;
        }
        Ok(())
    }
}

/// Whether a text is in a row's key, headers or value, or in one of its columns.
fn says(row: &Value, text: &str) -> bool {
    let Value::Object(columns) = row else {
        return false;
    };
    let is_place = |name: &str| PLACE_COLUMNS.contains(&name);
    columns
        .iter()
        .any(|(name, column)| !is_place(name) && contains(column, text))
}

fn contains(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found.contains(text),
        other => other.to_string().contains(text),
    }
}

fn write_line(line: &[u8], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(line)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        "{\"topic\":\"fleet\",\"offset\":0,\"key\":\"a\",\"value\":{\"site\":\"north\"}}\n",
        "{\"topic\":\"fleet\",\"offset\":1,\"key\":\"b\",\"value\":\"plain fleet\"}\n",
        "{\"topic\":\"fleet\",\"offset\":2,\"key\":null,\"value\":17}\n",
        "{\"topic\":\"fleet\",\"offset\":3,\"key\":\"a\",\"value\":{\"site\":\"south\"}}\n",
    );

    fn check(grep: Option<&str>, is_last_per_key: bool, expected: &[u64]) {
        for piece in [1, 7, LINES.len()] {
            let mut rows = Rows::new(grep.map(str::to_owned), is_last_per_key);
            let mut out = Vec::new();
            for bytes in LINES.as_bytes().chunks(piece) {
                rows.push(bytes, &mut out).unwrap();
            }
            rows.finish(&mut out).unwrap();
            let found: Vec<u64> = String::from_utf8(out)
                .unwrap()
                .lines()
                .map(|line| {
                    serde_json::from_str::<Value>(line).unwrap()["offset"]
                        .as_u64()
                        .unwrap()
                })
                .collect();
            assert_eq!(found, expected, "{grep:?} {is_last_per_key}");
            assert_eq!(rows.written, expected.len() as u64);
        }
    }

    #[test]
    fn rows_with_a_text_and_last_rows_are_found_however_the_bytes_come() {
        check(None, false, &[0, 1, 2, 3]);
        check(Some("north"), false, &[0]);
        check(Some("fleet"), false, &[1]);
        check(Some("17"), false, &[2]);
        check(None, true, &[3, 1]);
        check(Some("\"site\""), true, &[3]);
    }
}
