//! Reading records out of a stream of bytes. A format is compiled once; records are cut out of one buffer, without a copy
//! where nothing has to be decoded.
//!
//! Text is read up to the literal text that follows it in the format, or, where `%T %K %V` stands before it, by size; the
//! last one without either takes the rest of the input. The end of the input may stand for the last delimiter.

use std::io::Read;

use model::batch::HeaderRef;
use model::hex::from_hex;

use super::FormatError;
use super::json;
use super::layout::{Modifier, Number, Token, tokens};
use super::text::from_base64;

/// The largest record that is read, unless a smaller bound is set: a size in the input beyond it is an error and not an
/// allocation.
const RECORD_BYTES_MAX: usize = 256 << 20;
/// How much of a line an error shows.
const SHOWN_BYTES: usize = 60;
/// How much is read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Why no record could be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The input does not match the format.
    #[error("{unit} {number} of the input: {reason}")]
    Malformed {
        /// What is counted: a line of JSON, or a record of the format.
        unit: &'static str,
        /// Which one, from 1.
        number: u64,
        /// What does not match.
        reason: String,
    },
    /// Reading failed.
    #[error("cannot read the input: {0}")]
    Io(#[from] std::io::Error),
}

/// A compiled format.
#[derive(Clone, Debug)]
pub struct InputFormat(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Json,
    Fields(json::Fields),
    Steps(Vec<Step>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Exact(Vec<u8>),
    Number(Slot, Number),
    Text {
        field: Field,
        until: Until,
        decode: Decode,
    },
    Headers {
        fixed_count: Option<usize>,
        inner: Vec<Step>,
    },
}

#[derive(Clone, Debug, PartialEq)]
enum Until {
    Delimiter(Vec<u8>),
    /// The same, within the line where the field begins.
    InLine(Vec<u8>),
    SizeIn(Slot),
    Size(usize),
    EndOfInput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Topic,
    Key,
    Value,
}

/// Where a number goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    TopicBytes,
    KeyBytes,
    ValueBytes,
    HeaderCount,
    Partition,
    Timestamp,
    /// Offset, leader epoch, producer: a broker gives them anew.
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decode {
    Plain,
    Hex,
    Base64,
    Json,
}

/// A record as the input has it; what the format does not name is None.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputRecord<'a> {
    /// Its topic.
    pub topic: Option<&'a [u8]>,
    /// Its partition.
    pub partition: Option<i32>,
    /// Its time in milliseconds.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Vec<HeaderRef<'a>>,
}

/// A piece of a record: within the buffer, or decoded.
#[derive(Clone, Debug, Default)]
enum Piece {
    #[default]
    None,
    Range(usize, usize),
    Decoded(Vec<u8>),
}

impl Piece {
    fn view<'a>(&'a self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Piece::None => None,
            Piece::Range(start, end) => buffer.get(*start..*end),
            Piece::Decoded(bytes) => Some(bytes),
        }
    }
}

impl From<Option<Vec<u8>>> for Piece {
    fn from(bytes: Option<Vec<u8>>) -> Piece {
        bytes.map_or(Piece::None, Piece::Decoded)
    }
}

/// What was found of one record.
#[derive(Clone, Debug, Default)]
struct Found {
    topic: Piece,
    key: Piece,
    value: Piece,
    headers: Vec<(Piece, Piece)>,
    partition: Option<i32>,
    timestamp: Option<i64>,
    topic_bytes: usize,
    key_bytes: usize,
    value_bytes: usize,
    header_count: usize,
    /// An empty line between JSON records.
    is_blank: bool,
}

/// Why parsing stopped before a record's end.
enum Stop {
    /// The buffer ends first.
    NeedMore,
    Malformed(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Stop {
        Stop::Malformed(reason)
    }
}

impl InputFormat {
    /// One JSON object a line, as `consume -o json` and `kcat -J` write them.
    pub fn json() -> InputFormat {
        InputFormat(Kind::Json)
    }

    /// One JSON object a line: the line is the value, and fields of it are key and time. A field within another is named
    /// with a dot.
    pub fn fields(key: Option<String>, time: Option<String>) -> InputFormat {
        InputFormat(Kind::Fields(json::Fields { key, time }))
    }

    /// Compiles a format; the word `json` alone is [`InputFormat::json`].
    pub fn parse(layout: &str) -> Result<InputFormat, FormatError> {
        if layout == "json" {
            return Ok(InputFormat::json());
        }
        let mut steps = Compiler::default().steps(layout)?;
        if ends_line(&steps) {
            steps.iter_mut().for_each(Step::keep_to_line);
        }
        if !steps.iter().any(|step| !matches!(step, Step::Exact(_))) {
            return Err(FormatError::new("it reads nothing into a record"));
        }
        Ok(InputFormat(Kind::Steps(steps)))
    }
}

/// Whether a record ends with its line, so that none of its fields goes on in the next.
fn ends_line(steps: &[Step]) -> bool {
    match steps.last() {
        Some(Step::Exact(text)) => text.ends_with(b"\n"),
        Some(Step::Text {
            until: Until::Delimiter(text),
            ..
        }) => text.ends_with(b"\n"),
        _ => false,
    }
}

impl Step {
    /// A delimiter that is no end of a line is looked for up to there only.
    fn keep_to_line(&mut self) {
        match self {
            Step::Text { until, .. } => {
                if let Until::Delimiter(text) = until
                    && !text.contains(&b'\n')
                {
                    *until = Until::InLine(std::mem::take(text));
                }
            }
            Step::Headers { inner, .. } => inner.iter_mut().for_each(Step::keep_to_line),
            Step::Exact(_) | Step::Number(..) => {}
        }
    }
}

/// What was seen of a format so far.
#[derive(Default)]
struct Compiler {
    of_header: bool,
    topic: Option<Until>,
    key: Option<Until>,
    value: Option<Until>,
    header_count: Option<Until>,
    fixed_header_count: Option<usize>,
}

impl Compiler {
    fn steps(mut self, layout: &str) -> Result<Vec<Step>, FormatError> {
        let tokens = tokens(layout)?;
        let mut steps = Vec::new();
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            let (letter, modifier) = match token {
                Token::Literal(text) => {
                    steps.push(Step::Exact(text));
                    continue;
                }
                Token::Verb { letter, modifier } => (letter, modifier),
            };
            if self.of_header && !matches!(letter, 'k' | 'K' | 'v' | 'V') {
                return Err(FormatError::new(format!(
                    "%{letter} within %h: only %k %K %v %V"
                )));
            }
            match letter {
                'T' | 'K' | 'V' | 'H' => steps.extend(self.size(letter, modifier)?),
                'p' => steps.push(Step::Number(Slot::Partition, number(letter, modifier)?)),
                'd' => steps.push(Step::Number(Slot::Timestamp, number(letter, modifier)?)),
                'o' | 'e' | 'x' | 'y' => {
                    steps.push(Step::Number(Slot::Ignored, number(letter, modifier)?))
                }
                't' | 'k' | 'v' => {
                    let next = tokens.peek();
                    let (until, with_literal) = self.until(letter, next)?;
                    if with_literal {
                        tokens.next();
                    }
                    steps.push(Step::Text {
                        field: field(letter),
                        until,
                        decode: decode(letter, modifier)?,
                    });
                }
                'h' => steps.push(self.headers(modifier)?),
                other => {
                    return Err(FormatError::new(format!(
                        "unknown letter %{other} for input"
                    )));
                }
            }
        }
        Ok(steps)
    }

    fn sized(&mut self, letter: char) -> &mut Option<Until> {
        match letter {
            'T' | 't' => &mut self.topic,
            'K' | 'k' => &mut self.key,
            'V' | 'v' => &mut self.value,
            _ => &mut self.header_count,
        }
    }

    /// A size: read from the input, or fixed in the format.
    fn size(
        &mut self,
        letter: char,
        modifier: Option<Modifier<'_>>,
    ) -> Result<Option<Step>, FormatError> {
        let slot = match letter {
            'T' => Slot::TopicBytes,
            'K' => Slot::KeyBytes,
            'V' => Slot::ValueBytes,
            _ => Slot::HeaderCount,
        };
        if self.sized(letter).is_some() {
            return Err(FormatError::new(format!(
                "%{letter} stands twice, or after what it sizes"
            )));
        }
        let fixed = modifier
            .filter(|modifier| modifier.argument.is_none())
            .and_then(|m| m.word.parse::<usize>().ok());
        if let Some(fixed) = fixed {
            if fixed == 0 || fixed > RECORD_BYTES_MAX {
                return Err(FormatError::new(format!(
                    "%{letter}{{{fixed}}}: not a size that a record can have"
                )));
            }
            *self.sized(letter) = Some(Until::Size(fixed));
            if letter == 'H' {
                self.fixed_header_count = Some(fixed);
            }
            return Ok(None);
        }
        *self.sized(letter) = Some(Until::SizeIn(slot));
        Ok(Some(Step::Number(slot, number(letter, modifier)?)))
    }

    /// Where a text ends, and whether the literal that follows belongs to it.
    fn until(
        &mut self,
        letter: char,
        next: Option<&Token<'_>>,
    ) -> Result<(Until, bool), FormatError> {
        // A size that came later would say nothing: what is read by delimiter is marked as sized.
        let sized = self.sized(letter).replace(Until::EndOfInput);
        match (sized, next) {
            (Some(Until::EndOfInput), _) => {
                Err(FormatError::new(format!("%{letter} stands twice")))
            }
            (Some(until), _) => Ok((until, false)),
            (None, Some(Token::Literal(text))) => Ok((Until::Delimiter(text.clone()), true)),
            (None, None) if !self.of_header => Ok((Until::EndOfInput, false)),
            (None, _) => Err(FormatError::new(format!(
                "%{letter} needs a size before it or some text after it, to tell its end"
            ))),
        }
    }

    fn headers(&mut self, modifier: Option<Modifier<'_>>) -> Result<Step, FormatError> {
        let Some(Modifier { word, .. }) = modifier else {
            return Err(FormatError::new(
                "%h wants the format of a header in braces: %H{1}%h{%k=%v }",
            ));
        };
        if self.header_count.is_none() {
            return Err(FormatError::new(
                "%H, the number of headers, must stand before %h",
            ));
        }
        let inner = Compiler {
            of_header: true,
            ..Compiler::default()
        }
        .steps(word)?;
        if !inner.iter().any(|step| matches!(step, Step::Text { .. })) {
            return Err(FormatError::new("%h{...} must read %k or %v"));
        }
        Ok(Step::Headers {
            fixed_count: self.fixed_header_count,
            inner,
        })
    }
}

fn field(letter: char) -> Field {
    match letter {
        't' => Field::Topic,
        'k' => Field::Key,
        _ => Field::Value,
    }
}

fn number(letter: char, modifier: Option<Modifier<'_>>) -> Result<Number, FormatError> {
    let unknown =
        |word: &str| FormatError::new(format!("unknown modifier %{letter}{{{word}}} for input"));
    match modifier {
        None => Ok(Number::Ascii),
        Some(Modifier {
            word,
            argument: None,
        }) => match Number::parse(word) {
            Some(Number::HexShortest) | None => Err(unknown(word)),
            Some(number) => Ok(number),
        },
        Some(Modifier { word, .. }) => Err(unknown(word)),
    }
}

fn decode(letter: char, modifier: Option<Modifier<'_>>) -> Result<Decode, FormatError> {
    match modifier.map(|modifier| (modifier.word, modifier.argument)) {
        None => Ok(Decode::Plain),
        Some(("hex", None)) => Ok(Decode::Hex),
        Some(("base64" | "base64raw", None)) => Ok(Decode::Base64),
        Some(("json", None)) => Ok(Decode::Json),
        Some(("re", _)) => Err(FormatError::new(
            "regular expressions are not understood for input: use a delimiter or a size",
        )),
        Some((word, _)) => Err(FormatError::new(format!(
            "unknown modifier %{letter}{{{word}}} for input"
        ))),
    }
}

/// A place in the buffer.
struct Cursor<'a> {
    buffer: &'a [u8],
    at: usize,
    is_last: bool,
    searched: Searched,
}

/// What was searched for a delimiter in vain, so that it is not searched again when more has come.
#[derive(Clone, Copy, Debug, Default)]
struct Searched {
    /// Where the field begins, from the record's start.
    from: usize,
    /// Up to where there is no delimiter.
    until: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.buffer[self.at..]
    }

    /// What to say where the buffer ends too early.
    fn short(&self, what: &str) -> Stop {
        if self.is_last {
            Stop::Malformed(format!("the input ends within {what}"))
        } else {
            Stop::NeedMore
        }
    }

    fn take(&mut self, bytes: usize, what: &str) -> Result<(usize, usize), Stop> {
        if bytes > RECORD_BYTES_MAX {
            return Err(Stop::Malformed(format!(
                "{what} of {bytes} bytes: at most {RECORD_BYTES_MAX}"
            )));
        }
        if self.rest().len() < bytes {
            return Err(self.short(what));
        }
        let start = self.at;
        self.at += bytes;
        Ok((start, self.at))
    }

    fn exact(&mut self, text: &[u8], is_end: bool) -> Result<(), Stop> {
        let rest = self.rest();
        if rest.starts_with(text) {
            self.at += text.len();
            return Ok(());
        }
        if !text.starts_with(&rest[..rest.len().min(text.len())]) {
            let found = String::from_utf8_lossy(&rest[..rest.len().min(text.len())]).into_owned();
            return Err(Stop::Malformed(format!(
                "found {found:?} instead of {:?}",
                String::from_utf8_lossy(text)
            )));
        }
        if self.is_last && is_end && rest.is_empty() {
            return Ok(());
        }
        Err(self.short("the format's text"))
    }

    fn until(&mut self, delimiter: &[u8], is_end: bool) -> Result<(usize, usize), Stop> {
        let start = self.at;
        let known = match self.searched {
            Searched { from, until } if from == start => until.max(start),
            _ => start,
        };
        match find(&self.buffer[known..], delimiter) {
            Some(bytes) => {
                let end = known + bytes;
                self.at = end + delimiter.len();
                Ok((start, end))
            }
            None if self.is_last && is_end => {
                self.at = self.buffer.len();
                Ok((start, self.at))
            }
            None => {
                // The end of what is there may be the beginning of a delimiter.
                let until = self.buffer.len().saturating_sub(delimiter.len() - 1);
                self.searched = Searched { from: start, until };
                Err(self.short("a record"))
            }
        }
    }

    /// Like `until`, but the line's end comes after the delimiter.
    fn in_line(&mut self, delimiter: &[u8]) -> Result<(usize, usize), Stop> {
        let rest = self.rest();
        let found = find(rest, delimiter);
        let before = &rest[..found.unwrap_or(rest.len())];
        let line_end = find(before, b"\n");
        if let (Some(bytes), None) = (found, line_end) {
            let start = self.at;
            self.at += bytes + delimiter.len();
            return Ok((start, start + bytes));
        }
        if line_end.is_none() && !self.is_last {
            return Err(Stop::NeedMore);
        }
        let line = &before[..line_end.unwrap_or(before.len()).min(SHOWN_BYTES)];
        Err(Stop::Malformed(format!(
            "its line ends before the format's {:?}, after {:?}",
            String::from_utf8_lossy(delimiter),
            String::from_utf8_lossy(line)
        )))
    }

    fn number(&mut self, how: Number) -> Result<u64, Stop> {
        const WHAT: &str = "a number";
        match how {
            Number::Ascii | Number::HexShortest => {
                let rest = self.rest();
                let negative = rest.first() == Some(&b'-');
                let digits = rest[usize::from(negative)..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                let bytes = usize::from(negative) + digits;
                if bytes == rest.len() && !self.is_last {
                    return Err(Stop::NeedMore);
                }
                let (start, end) = self.take(bytes, WHAT)?;
                let text = std::str::from_utf8(&self.buffer[start..end]).unwrap_or_default();
                let number = if negative {
                    text.parse::<i64>().map(i64::cast_unsigned)
                } else {
                    text.parse::<u64>()
                };
                number
                    .map_err(|error| Stop::Malformed(format!("{text:?} is not a number: {error}")))
            }
            Number::Hex(digits) => {
                let (start, end) = self.take(digits, WHAT)?;
                let text = String::from_utf8_lossy(&self.buffer[start..end]);
                let valid = text.bytes().all(|digit| digit.is_ascii_hexdigit());
                let number = valid.then(|| u64::from_str_radix(&text, 16).ok()).flatten();
                number
                    .ok_or_else(|| Stop::Malformed(format!("{text:?} is not a hexadecimal number")))
            }
            Number::Big(bytes) => {
                let (start, end) = self.take(bytes, WHAT)?;
                Ok(self.buffer[start..end]
                    .iter()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte)))
            }
            Number::Little(bytes) => {
                let (start, end) = self.take(bytes, WHAT)?;
                Ok(self.buffer[start..end]
                    .iter()
                    .rev()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte)))
            }
            Number::Bool => {
                for (text, value) in [(&b"true"[..], 1), (b"false", 0)] {
                    if self.rest().starts_with(text) {
                        self.at += text.len();
                        return Ok(value);
                    }
                }
                if self.rest().len() < 5 && !self.is_last {
                    return Err(Stop::NeedMore);
                }
                Err(Stop::Malformed("neither true nor false".to_owned()))
            }
        }
    }
}

/// -1 leaves the choice to the producer.
fn partition(number: i64) -> Result<Option<i32>, String> {
    match i32::try_from(number) {
        Ok(-1) => Ok(None),
        Ok(partition @ 0..) => Ok(Some(partition)),
        _ => Err(format!("{number} is not a partition")),
    }
}

fn find(text: &[u8], delimiter: &[u8]) -> Option<usize> {
    let (&first, rest) = delimiter.split_first()?;
    let mut from = 0;
    loop {
        let at = from + text[from..].iter().position(|&byte| byte == first)?;
        if text[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
}

impl Found {
    fn take(&mut self, kind: &Kind, cursor: &mut Cursor<'_>) -> Result<(), Stop> {
        if let Kind::Steps(steps) = kind {
            return self.run(steps, cursor, true);
        }
        let (start, end) = cursor.until(b"\n", true)?;
        let line = &cursor.buffer[start..end];
        if line.trim_ascii().is_empty() {
            self.is_blank = true;
        } else if let Kind::Fields(fields) = kind {
            let (key, timestamp) = fields.read(line)?;
            self.key = key.into();
            self.timestamp = timestamp;
            self.value = Piece::Range(start, end);
        } else {
            self.take_json(json::read(line.trim_ascii())?)?;
        }
        Ok(())
    }

    fn run(
        &mut self,
        steps: &[Step],
        cursor: &mut Cursor<'_>,
        is_outermost: bool,
    ) -> Result<(), Stop> {
        for (index, step) in steps.iter().enumerate() {
            let is_end = is_outermost && index + 1 == steps.len();
            match step {
                Step::Exact(text) => cursor.exact(text, is_end)?,
                Step::Number(slot, how) => {
                    let number = cursor.number(*how)?;
                    self.store(*slot, number)?;
                }
                Step::Text {
                    field,
                    until,
                    decode,
                } => {
                    let piece = self.text(until, cursor, is_end)?;
                    let piece = decoded(piece, *decode, cursor.buffer)?;
                    match field {
                        Field::Topic => self.topic = piece,
                        Field::Key => self.key = piece,
                        Field::Value => self.value = piece,
                    }
                }
                Step::Headers { fixed_count, inner } => {
                    self.headers(fixed_count.unwrap_or(self.header_count), inner, cursor)?
                }
            }
        }
        Ok(())
    }

    fn text(
        &self,
        until: &Until,
        cursor: &mut Cursor<'_>,
        is_end: bool,
    ) -> Result<(usize, usize), Stop> {
        const WHAT: &str = "a record";
        match until {
            Until::Delimiter(delimiter) => cursor.until(delimiter, is_end),
            Until::InLine(delimiter) => cursor.in_line(delimiter),
            Until::Size(bytes) => cursor.take(*bytes, WHAT),
            Until::SizeIn(Slot::TopicBytes) => cursor.take(self.topic_bytes, WHAT),
            Until::SizeIn(Slot::KeyBytes) => cursor.take(self.key_bytes, WHAT),
            Until::SizeIn(_) => cursor.take(self.value_bytes, WHAT),
            Until::EndOfInput if !cursor.is_last && cursor.rest().len() <= RECORD_BYTES_MAX => {
                Err(Stop::NeedMore)
            }
            Until::EndOfInput => cursor.take(cursor.rest().len(), WHAT),
        }
    }

    fn store(&mut self, slot: Slot, number: u64) -> Result<(), Stop> {
        let size = usize::try_from(number).unwrap_or(usize::MAX);
        match slot {
            Slot::TopicBytes => self.topic_bytes = size,
            Slot::KeyBytes => self.key_bytes = size,
            Slot::ValueBytes => self.value_bytes = size,
            Slot::HeaderCount => self.header_count = size,
            Slot::Partition => self.partition = partition(number.cast_signed())?,
            Slot::Timestamp => self.timestamp = Some(number.cast_signed()),
            Slot::Ignored => {}
        }
        Ok(())
    }

    /// Each header consumes input or is an error, so that a count cannot make work out of nothing.
    fn headers(
        &mut self,
        count: usize,
        inner: &[Step],
        cursor: &mut Cursor<'_>,
    ) -> Result<(), Stop> {
        let mut header = Found::default();
        for _ in 0..count {
            let before = cursor.at;
            header.run(inner, cursor, false)?;
            if cursor.at == before {
                return Err(Stop::Malformed("a header without a byte".to_owned()));
            }
            let key = match std::mem::take(&mut header.key) {
                Piece::None => Piece::Decoded(Vec::new()),
                key => key,
            };
            self.headers.push((key, std::mem::take(&mut header.value)));
        }
        Ok(())
    }

    fn view<'a>(&'a self, buffer: &'a [u8]) -> InputRecord<'a> {
        let headers = self.headers.iter();
        InputRecord {
            topic: self.topic.view(buffer),
            partition: self.partition,
            timestamp: self.timestamp,
            key: self.key.view(buffer),
            value: self.value.view(buffer),
            headers: headers
                .map(|(key, value)| (key.view(buffer).unwrap_or_default(), value.view(buffer)))
                .collect(),
        }
    }

    fn take_json(&mut self, record: json::JsonRecord) -> Result<(), String> {
        self.topic = record.topic.into();
        self.key = record.key.into();
        self.value = record.value.into();
        self.partition = record
            .partition
            .map_or(Ok(None), |number| partition(number.into()))?;
        self.timestamp = record.timestamp;
        self.headers = record
            .headers
            .into_iter()
            .map(|(key, value)| (Piece::Decoded(key), value.into()))
            .collect();
        Ok(())
    }
}

fn decoded(range: (usize, usize), how: Decode, buffer: &[u8]) -> Result<Piece, Stop> {
    let text = &buffer[range.0..range.1];
    let bad =
        |what: &str| Stop::Malformed(format!("{:?} is not {what}", String::from_utf8_lossy(text)));
    match how {
        Decode::Plain => Ok(Piece::Range(range.0, range.1)),
        Decode::Hex => from_hex(text)
            .map(Piece::Decoded)
            .ok_or_else(|| bad("hexadecimal")),
        Decode::Base64 => from_base64(text)
            .map(Piece::Decoded)
            .ok_or_else(|| bad("base64")),
        Decode::Json => match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
            Ok(_) => Ok(Piece::Decoded(without_spaces(text))),
            Err(error) => Err(bad(&format!("JSON: {error}"))),
        },
    }
}

/// Valid JSON without the white space between its tokens.
fn without_spaces(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        if in_string || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            out.push(byte);
        }
        in_string ^= byte == b'"' && !escaped;
        escaped = in_string && byte == b'\\' && !escaped;
    }
    out
}

/// Cuts a stream into records.
#[derive(Debug)]
pub struct InputReader<R> {
    reader: R,
    format: InputFormat,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    is_last: bool,
    found: Found,
    /// Records and blank lines so far.
    count: u64,
    record_bytes_max: usize,
    searched: Searched,
}

impl<R: Read> InputReader<R> {
    /// Reads records of this format.
    pub fn new(reader: R, format: InputFormat) -> InputReader<R> {
        InputReader {
            reader,
            format,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            is_last: false,
            found: Found::default(),
            count: 0,
            record_bytes_max: RECORD_BYTES_MAX,
            searched: Searched::default(),
        }
    }

    /// A record that takes more bytes of input than this is an error.
    pub fn limit(&mut self, record_bytes_max: usize) {
        self.record_bytes_max = record_bytes_max.min(RECORD_BYTES_MAX);
    }

    /// Whether the next record begins in the buffer, so that asking for it may not have to wait.
    pub fn has_buffered(&self) -> bool {
        self.start < self.end
    }

    /// The next record; None at the end of the input. After an error the rest cannot be told apart, so stop.
    pub fn next_record(&mut self) -> Result<Option<InputRecord<'_>>, InputError> {
        let start = loop {
            match self.find_record() {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => {
                    let start = self.start;
                    self.start += bytes;
                    self.searched = Searched::default();
                    self.count += 1;
                    if !self.found.is_blank {
                        break start;
                    }
                }
                Err(Stop::NeedMore) => self.fill()?,
                Err(Stop::Malformed(reason)) => return Err(self.malformed(reason)),
            }
        };
        Ok(Some(self.found.view(&self.buffer[start..self.start])))
    }

    fn malformed(&self, reason: String) -> InputError {
        let unit = match self.format.0 {
            Kind::Steps(_) => "record",
            Kind::Json | Kind::Fields(_) => "line",
        };
        InputError::Malformed {
            unit,
            number: self.count + 1,
            reason,
        }
    }

    /// How many bytes the record at the buffer's start takes.
    fn find_record(&mut self) -> Result<Option<usize>, Stop> {
        let buffer = &self.buffer[self.start..self.end];
        if buffer.is_empty() {
            return if self.is_last {
                Ok(None)
            } else {
                Err(Stop::NeedMore)
            };
        }
        let mut headers = std::mem::take(&mut self.found.headers);
        headers.clear();
        self.found = Found {
            headers,
            ..Found::default()
        };
        let mut cursor = Cursor {
            buffer,
            at: 0,
            is_last: self.is_last,
            searched: self.searched,
        };
        let result = self.found.take(&self.format.0, &mut cursor);
        self.searched = cursor.searched;
        result?;
        if cursor.at == 0 {
            return Err(Stop::Malformed(
                "the format matches without reading a byte".to_owned(),
            ));
        }
        Ok(Some(cursor.at))
    }

    /// Reads more behind what is in the buffer, which grows with what has come and not with what is claimed.
    fn fill(&mut self) -> Result<(), InputError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            if self.end > self.record_bytes_max {
                let reason = format!(
                    "longer than {} bytes, more than a record can have",
                    self.record_bytes_max
                );
                return Err(self.malformed(reason));
            }
            self.buffer.resize(self.end * 2, 0);
        }
        loop {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.is_last = true,
                Ok(bytes) => self.end += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            return Ok(());
        }
    }
}
