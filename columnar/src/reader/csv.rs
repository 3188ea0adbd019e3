//! CSV (RFC 4180) in records, where an empty field and nothing between two commas are two things.
//!
//! Caller: the reader of tables. A record may go over several lines, within quotes. What csv libraries do not tell is whether a
//! field had quotes, and by that alone an empty text differs from null.

use std::io::{self, BufRead};

/// The longest record.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// A field: where it ends in the record's text, and whether it had quotes.
#[derive(Clone, Copy, Debug)]
struct Field {
    end: usize,
    is_quoted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begin,
    Bare,
    Quoted,
    /// Behind a quote within quotes: the field ends, or it was the first of two.
    Quote,
}

/// Reads records.
pub(super) struct CsvReader<R> {
    input: R,
    delimiter: u8,
    line_bytes: Vec<u8>,
    text: Vec<u8>,
    fields: Vec<Field>,
    /// The line that comes next, from 1.
    line: u64,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A record, which begins on this line.
    Record(u64),
    /// What is none, on this line, and why.
    Wrong(u64, &'static str),
    End,
}

impl<R: BufRead> CsvReader<R> {
    pub fn new(input: R, delimiter: u8) -> CsvReader<R> {
        CsvReader {
            input,
            delimiter,
            line_bytes: Vec::new(),
            text: Vec::new(),
            fields: Vec::new(),
            line: 1,
        }
    }

    /// Reads a record. Lines without anything in them are skipped, unless `is_narrow`: in a table of one column such a line is a
    /// null.
    pub fn next(&mut self, is_narrow: bool) -> io::Result<Read> {
        self.text.clear();
        self.fields.clear();
        let mut state = State::Begin;
        let mut begun = self.line;
        let mut wrong = None;
        loop {
            let is_inside = state == State::Quoted;
            let at = self.line;
            if !self.read_line()? {
                return Ok(match is_inside {
                    true => Read::Wrong(begun, "its quotes are not closed"),
                    false => Read::End,
                });
            }
            if at == 1 && self.line_bytes.starts_with(b"\xef\xbb\xbf") {
                self.line_bytes.drain(..3);
            }
            if !is_inside {
                begun = at;
                if !is_narrow && self.line_bytes.iter().all(|byte| b"\r\n".contains(byte)) {
                    continue;
                }
            }
            let is_last = !self.line_bytes.ends_with(b"\n");
            match self.feed(state) {
                Ok(next) => state = next,
                Err(reason) => {
                    wrong = Some(reason);
                    state = State::Bare;
                }
            }
            if state == State::Quoted && !is_last {
                if self.text.len() > RECORD_BYTES_MAX {
                    return Ok(Read::Wrong(begun, "it is longer than 64 MiB"));
                }
                continue;
            }
            if state == State::Quoted {
                return Ok(Read::Wrong(begun, "its quotes are not closed"));
            }
            return Ok(match wrong {
                Some(reason) => Read::Wrong(begun, reason),
                None => Read::Record(begun),
            });
        }
    }

    fn read_line(&mut self) -> io::Result<bool> {
        self.line_bytes.clear();
        let limit = RECORD_BYTES_MAX as u64 + 1;
        let read =
            io::Read::take(&mut self.input, limit).read_until(b'\n', &mut self.line_bytes)?;
        if read > RECORD_BYTES_MAX {
            return Err(io::Error::other(format!(
                "line {}: it is longer than 64 MiB",
                self.line
            )));
        }
        self.line += u64::from(read > 0);
        Ok(read > 0)
    }

    /// Takes in a line, and ends the record unless it ends within quotes.
    fn feed(&mut self, mut state: State) -> Result<State, &'static str> {
        let mut is_quoted = state == State::Quoted;
        let line = self.line_bytes.strip_suffix(b"\n");
        let line = line.map_or(&self.line_bytes[..], |line| {
            line.strip_suffix(b"\r").unwrap_or(line)
        });
        for byte in line {
            match (state, *byte) {
                (State::Begin, b'"') => {
                    is_quoted = true;
                    state = State::Quoted;
                }
                (State::Begin | State::Bare | State::Quote, byte) if byte == self.delimiter => {
                    let end = self.text.len();
                    self.fields.push(Field { end, is_quoted });
                    is_quoted = false;
                    state = State::Begin;
                }
                (State::Quoted, b'"') => state = State::Quote,
                (State::Quote, b'"') => {
                    self.text.push(b'"');
                    state = State::Quoted;
                }
                (State::Quote, _) => return Err("something stands behind closed quotes"),
                (State::Begin | State::Bare, byte) => {
                    self.text.push(byte);
                    state = State::Bare;
                }
                (State::Quoted, byte) => self.text.push(byte),
            }
        }
        if state == State::Quoted {
            // The line's end belongs to the field.
            self.text.extend_from_slice(&self.line_bytes[line.len()..]);
            return Ok(state);
        }
        let end = self.text.len();
        self.fields.push(Field { end, is_quoted });
        Ok(state)
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field; None for nothing between the commas.
    pub fn field(&self, index: usize) -> Option<&[u8]> {
        let begin = index.checked_sub(1).map_or(0, |last| self.fields[last].end);
        let field = self.fields[index];
        let bytes = &self.text[begin..field.end];
        (field.is_quoted || !bytes.is_empty()).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line, and its fields.
    type Row = (u64, Vec<Option<String>>);

    fn read(text: &str, is_narrow: bool) -> Vec<Result<Row, u64>> {
        let mut reader = CsvReader::new(text.as_bytes(), b',');
        let mut all = Vec::new();
        loop {
            match reader.next(is_narrow).unwrap() {
                Read::End => return all,
                Read::Wrong(line, _) => all.push(Err(line)),
                Read::Record(line) => {
                    let field = |index| {
                        let bytes = reader.field(index)?;
                        Some(String::from_utf8(bytes.to_vec()).unwrap())
                    };
                    all.push(Ok((line, (0..reader.len()).map(field).collect())));
                }
            }
        }
    }

    fn row(line: u64, fields: &[Option<&str>]) -> Result<Row, u64> {
        let fields = fields.iter().map(|field| field.map(str::to_owned));
        Ok((line, fields.collect()))
    }

    #[test]
    fn quotes_tell_an_empty_text_from_nothing_and_hold_lines() {
        let text = "a,b\r\n\r\n1,\"\"\n,\"x\"\"y,\r\nz\n\"\r\n\"q\",2";
        assert_eq!(
            read(text, false),
            [
                row(1, &[Some("a"), Some("b")]),
                row(3, &[Some("1"), Some("")]),
                row(4, &[None, Some("x\"y,\r\nz\n")]),
                row(7, &[Some("q"), Some("2")]),
            ]
        );
        assert_eq!(
            read("a\n\n\"\"\nb \"q\"\n", true),
            [
                row(1, &[Some("a")]),
                row(2, &[None]),
                row(3, &[Some("")]),
                row(4, &[Some("b \"q\"")]),
            ]
        );
    }

    #[test]
    fn what_is_no_record_is_named_by_its_line_and_the_next_one_is_read() {
        assert_eq!(
            read("a\n\"x\"y,1\nb,\n\"open\nmore", false),
            [
                row(1, &[Some("a")]),
                Err(2),
                row(3, &[Some("b"), None]),
                Err(4)
            ]
        );
    }
}
