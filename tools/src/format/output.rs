//! Formatting records: a format is compiled once, and each record is appended to a buffer without allocating.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::batch::{Attributes, HeaderRef, HeaderRefs, TimestampType};
use model::hex::put_hex;

use super::FormatError;
use super::go_time::GoLayout;
use super::layout::{Modifier, Number, Token, tokens};
use super::text::{put_base64, put_decimal, put_number, put_unsigned};

/// A record's headers, wherever they are.
#[derive(Clone, Copy, Debug)]
pub enum Headers<'a> {
    /// Within a fetched batch.
    Batch(HeaderRefs<'a>),
    /// In memory.
    Slice(&'a [HeaderRef<'a>]),
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Headers::Batch(headers) => headers.len(),
            Headers::Slice(headers) => headers.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Key and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = HeaderRef<'a>> + use<'a> {
        let (batch, slice) = match *self {
            Headers::Batch(headers) => (Some(headers), &[][..]),
            Headers::Slice(headers) => (None, headers),
        };
        batch.into_iter().flatten().chain(slice.iter().copied())
    }
}

/// All that can be said of a record.
#[derive(Clone, Copy, Debug)]
pub struct OutputRecord<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its batch's leader epoch, or -1.
    pub leader_epoch: i32,
    /// Its time in milliseconds, or -1.
    pub timestamp: i64,
    /// Its batch's attributes.
    pub attributes: Attributes,
    /// Its producer's id, or -1.
    pub producer_id: i64,
    /// Its producer's epoch, or -1.
    pub producer_epoch: i16,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
    /// The partition's first offset, as the fetch said.
    pub log_start_offset: i64,
    /// The partition's last stable offset, as the fetch said.
    pub last_stable_offset: i64,
    /// The partition's high watermark, as the fetch said.
    pub high_watermark: i64,
}

impl<'a> OutputRecord<'a> {
    /// A record of which nothing is known but its place.
    pub fn new(topic: &'a str, partition: i32, offset: i64) -> OutputRecord<'a> {
        OutputRecord {
            topic,
            partition,
            offset,
            leader_epoch: -1,
            timestamp: -1,
            attributes: Attributes::default(),
            producer_id: -1,
            producer_epoch: -1,
            key: None,
            value: None,
            headers: Headers::Slice(&[]),
            log_start_offset: -1,
            last_stable_offset: -1,
            high_watermark: -1,
        }
    }
}

/// A compiled format.
#[derive(Clone, Debug)]
pub struct OutputFormat {
    kind: Kind,
    /// How many records were written.
    count: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Json,
    Parts(Vec<Part>),
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Vec<u8>),
    Text(TextField, Text),
    Number(NumberField, Number),
    Count(Number),
    Codec,
    Time(Time),
    Headers(Vec<Part>),
}

#[derive(Clone, Copy, Debug)]
enum TextField {
    Topic,
    Key,
    Value,
}

#[derive(Clone, Copy, Debug)]
enum NumberField {
    TopicBytes,
    KeyBytes,
    ValueBytes,
    HeaderCount,
    Partition,
    Offset,
    LeaderEpoch,
    Timestamp,
    ProducerId,
    ProducerEpoch,
    LogStartOffset,
    LastStableOffset,
    HighWatermark,
    Codec,
    TimestampType,
    Transactional,
    Control,
}

#[derive(Clone, Debug)]
enum Text {
    Plain,
    Hex,
    Base64,
    Base64Raw,
    Unpack(Vec<Unpack>),
}

#[derive(Clone, Copy, Debug)]
enum Unpack {
    Integer {
        bytes: usize,
        signed: bool,
        little: bool,
    },
    Byte,
    Rest,
    End,
}

#[derive(Clone, Debug)]
enum Time {
    Go(GoLayout),
    Strftime(String),
}

impl OutputFormat {
    /// One JSON object a line, with the keys of kcat's `-J`.
    pub fn json() -> OutputFormat {
        OutputFormat {
            kind: Kind::Json,
            count: 0,
        }
    }

    /// Compiles a format; the word `json` alone is [`OutputFormat::json`].
    pub fn parse(layout: &str) -> Result<OutputFormat, FormatError> {
        if layout == "json" {
            return Ok(OutputFormat::json());
        }
        if layout.is_empty() {
            return Err(FormatError::new("it is empty"));
        }
        Ok(OutputFormat {
            kind: Kind::Parts(parts(layout, false)?),
            count: 0,
        })
    }

    /// Appends a record.
    pub fn write(&mut self, record: &OutputRecord<'_>, out: &mut Vec<u8>) {
        self.count += 1;
        match &self.kind {
            Kind::Json => super::json::write(record, out),
            Kind::Parts(parts) => write_parts(parts, record, self.count, out),
        }
    }
}

fn parts(layout: &str, of_header: bool) -> Result<Vec<Part>, FormatError> {
    tokens(layout)?
        .into_iter()
        .map(|token| match token {
            Token::Literal(text) => Ok(Part::Literal(text)),
            Token::Verb { letter, .. } if of_header && !matches!(letter, 'k' | 'K' | 'v' | 'V') => {
                Err(FormatError::new(format!(
                    "%{letter} within %h: only %k %K %v %V"
                )))
            }
            Token::Verb { letter, modifier } => part(letter, modifier),
        })
        .collect()
}

fn part(letter: char, modifier: Option<Modifier<'_>>) -> Result<Part, FormatError> {
    let number_field = match letter {
        'T' => Some(NumberField::TopicBytes),
        'K' => Some(NumberField::KeyBytes),
        'V' => Some(NumberField::ValueBytes),
        'H' => Some(NumberField::HeaderCount),
        'p' => Some(NumberField::Partition),
        'o' => Some(NumberField::Offset),
        'e' => Some(NumberField::LeaderEpoch),
        'x' => Some(NumberField::ProducerId),
        'y' => Some(NumberField::ProducerEpoch),
        '[' => Some(NumberField::LogStartOffset),
        '|' => Some(NumberField::LastStableOffset),
        ']' => Some(NumberField::HighWatermark),
        _ => None,
    };
    if let Some(field) = number_field {
        return Ok(Part::Number(field, number(letter, modifier)?));
    }
    match letter {
        't' => Ok(Part::Text(TextField::Topic, text(letter, modifier)?)),
        'k' => Ok(Part::Text(TextField::Key, text(letter, modifier)?)),
        'v' => Ok(Part::Text(TextField::Value, text(letter, modifier)?)),
        'i' => Ok(Part::Count(number(letter, modifier)?)),
        'd' => time(modifier),
        'a' => attribute(modifier),
        'h' => match modifier {
            Some(modifier) => Ok(Part::Headers(parts(modifier.word, true)?)),
            None => Err(FormatError::new(
                "%h wants the format of a header in braces: %h{%k=%v }",
            )),
        },
        other => Err(FormatError::new(format!("unknown letter %{other}"))),
    }
}

fn number(letter: char, modifier: Option<Modifier<'_>>) -> Result<Number, FormatError> {
    match modifier {
        None => Ok(Number::Ascii),
        Some(Modifier {
            word,
            argument: None,
        }) => Number::parse(word).ok_or_else(|| unknown_modifier(letter, word)),
        Some(Modifier { word, .. }) => Err(unknown_modifier(letter, word)),
    }
}

fn unknown_modifier(letter: char, word: &str) -> FormatError {
    FormatError::new(format!("unknown modifier %{letter}{{{word}}}"))
}

fn text(letter: char, modifier: Option<Modifier<'_>>) -> Result<Text, FormatError> {
    let Some(Modifier { word, argument }) = modifier else {
        return Ok(Text::Plain);
    };
    match (word, argument) {
        ("hex", None) => Ok(Text::Hex),
        ("base64", None) => Ok(Text::Base64),
        ("base64raw", None) => Ok(Text::Base64Raw),
        ("unpack", Some(argument)) => unpack(argument).map(Text::Unpack),
        _ => Err(unknown_modifier(letter, word)),
    }
}

fn unpack(layout: &str) -> Result<Vec<Unpack>, FormatError> {
    let mut little = true;
    let mut steps = Vec::new();
    for letter in layout.chars() {
        if matches!(steps.last(), Some(Unpack::Rest | Unpack::End)) && (letter != '$') {
            return Err(FormatError::new("unpack: nothing can follow s or $"));
        }
        let (bytes, signed) = match letter {
            'x' => continue,
            '<' | '>' => {
                little = letter == '<';
                continue;
            }
            'b' | 'B' => (1, letter == 'b'),
            'h' | 'H' => (2, letter == 'h'),
            'i' | 'I' => (4, letter == 'i'),
            'q' | 'Q' => (8, letter == 'q'),
            'c' | '.' => {
                steps.push(Unpack::Byte);
                continue;
            }
            's' => {
                steps.push(Unpack::Rest);
                continue;
            }
            '$' => {
                steps.push(Unpack::End);
                continue;
            }
            other => return Err(FormatError::new(format!("unpack: unknown letter {other}"))),
        };
        steps.push(Unpack::Integer {
            bytes,
            signed,
            little,
        });
    }
    Ok(steps)
}

fn time(modifier: Option<Modifier<'_>>) -> Result<Part, FormatError> {
    match modifier {
        Some(Modifier {
            word: "go",
            argument: Some(layout),
        }) => Ok(Part::Time(Time::Go(GoLayout::parse(layout)))),
        Some(Modifier {
            word: "strftime",
            argument: Some(layout),
        }) => {
            let epoch = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
            jiff::fmt::strtime::format(layout, &epoch)
                .map_err(|error| FormatError::new(format!("strftime: {error}")))?;
            Ok(Part::Time(Time::Strftime(layout.to_owned())))
        }
        other => Ok(Part::Number(NumberField::Timestamp, number('d', other)?)),
    }
}

fn attribute(modifier: Option<Modifier<'_>>) -> Result<Part, FormatError> {
    let known =
        "%a wants one of {compression}, {timestamp-type}, {transactional-bit}, {control-bit}";
    let Some(Modifier {
        word,
        argument: None,
    }) = modifier
    else {
        return Err(FormatError::new(known));
    };
    let (name, how) = match word.split_once(';') {
        Some((name, how)) => (
            name,
            Some(Number::parse(how).ok_or_else(|| unknown_modifier('a', word))?),
        ),
        None => (word, None),
    };
    let field = match name {
        "compression" if how.is_none() => return Ok(Part::Codec),
        "compression" => NumberField::Codec,
        "timestamp-type" => NumberField::TimestampType,
        "transactional-bit" => NumberField::Transactional,
        "control-bit" => NumberField::Control,
        _ => return Err(FormatError::new(known)),
    };
    Ok(Part::Number(field, how.unwrap_or(Number::Ascii)))
}

fn write_parts(parts: &[Part], record: &OutputRecord<'_>, count: u64, out: &mut Vec<u8>) {
    for part in parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Text(field, how) => write_text(field.of(record), how, out),
            Part::Number(field, how) => put_number(out, field.of(record), *how),
            Part::Count(how) => put_number(out, count as i64, *how),
            Part::Codec => {
                let name = record
                    .attributes
                    .codec()
                    .map_or("unknown", |codec| codec.name());
                out.extend_from_slice(name.as_bytes());
            }
            Part::Time(how) => write_time(record.timestamp, how, out),
            Part::Headers(inner) => {
                for (key, value) in record.headers.iter() {
                    let header = OutputRecord {
                        key: Some(key),
                        value,
                        ..OutputRecord::new("", 0, 0)
                    };
                    write_parts(inner, &header, count, out);
                }
            }
        }
    }
}

impl TextField {
    fn of<'a>(self, record: &OutputRecord<'a>) -> &'a [u8] {
        match self {
            TextField::Topic => record.topic.as_bytes(),
            TextField::Key => record.key.unwrap_or_default(),
            TextField::Value => record.value.unwrap_or_default(),
        }
    }
}

impl NumberField {
    fn of(self, record: &OutputRecord<'_>) -> i64 {
        let bytes = |text: &[u8]| text.len() as i64;
        match self {
            NumberField::TopicBytes => bytes(record.topic.as_bytes()),
            NumberField::KeyBytes => bytes(record.key.unwrap_or_default()),
            NumberField::ValueBytes => bytes(record.value.unwrap_or_default()),
            NumberField::HeaderCount => record.headers.len() as i64,
            NumberField::Partition => i64::from(record.partition),
            NumberField::Offset => record.offset,
            NumberField::LeaderEpoch => i64::from(record.leader_epoch),
            NumberField::Timestamp => record.timestamp,
            NumberField::ProducerId => record.producer_id,
            NumberField::ProducerEpoch => i64::from(record.producer_epoch),
            NumberField::LogStartOffset => record.log_start_offset,
            NumberField::LastStableOffset => record.last_stable_offset,
            NumberField::HighWatermark => record.high_watermark,
            NumberField::Codec => i64::from(record.attributes.bits() & 7),
            NumberField::TimestampType => match record.attributes.timestamp_type() {
                TimestampType::CreateTime => 0,
                TimestampType::LogAppendTime => 1,
            },
            NumberField::Transactional => i64::from(record.attributes.is_transactional()),
            NumberField::Control => i64::from(record.attributes.is_control()),
        }
    }
}

fn write_text(text: &[u8], how: &Text, out: &mut Vec<u8>) {
    match how {
        Text::Plain => out.extend_from_slice(text),
        Text::Hex => put_hex(out, text),
        Text::Base64 => put_base64(out, text, true),
        Text::Base64Raw => put_base64(out, text, false),
        Text::Unpack(steps) => write_unpacked(text, steps, out),
    }
}

/// Input that is too short or too long is told in the output, as rpk does.
fn write_unpacked(mut text: &[u8], steps: &[Unpack], out: &mut Vec<u8>) {
    for step in steps {
        match *step {
            Unpack::Integer {
                bytes,
                signed,
                little,
            } => {
                let Some((taken, rest)) = text.split_at_checked(bytes) else {
                    out.extend_from_slice(
                        format!("%!(have {} bytes, need {bytes})", text.len()).as_bytes(),
                    );
                    text = &[];
                    continue;
                };
                text = rest;
                let digit = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
                let value = if little {
                    taken.iter().rev().fold(0, digit)
                } else {
                    taken.iter().fold(0, digit)
                };
                if signed {
                    let unused = 64 - 8 * bytes;
                    put_decimal(out, (value << unused).cast_signed() >> unused);
                } else {
                    put_unsigned(out, value);
                }
            }
            Unpack::Byte => match text.split_first() {
                Some((byte, rest)) => {
                    out.push(*byte);
                    text = rest;
                }
                None => out.extend_from_slice(b"%!c(no bytes available)"),
            },
            Unpack::Rest => out.extend_from_slice(std::mem::take(&mut text)),
            Unpack::End if text.is_empty() => {}
            Unpack::End => out.extend_from_slice(b"%!$(not end-of-input)"),
        }
    }
}

/// A time outside of years -9999 to 9999 is written as its number.
fn write_time(millis: i64, how: &Time, out: &mut Vec<u8>) {
    let Ok(at) = Timestamp::from_millisecond(millis) else {
        return put_decimal(out, millis);
    };
    let zoned = at.to_zoned(TimeZone::UTC);
    match how {
        Time::Go(layout) => layout.write(out, zoned.datetime()),
        Time::Strftime(layout) => match jiff::fmt::strtime::format(layout, &zoned) {
            Ok(text) => out.extend_from_slice(text.as_bytes()),
            Err(_) => put_decimal(out, millis),
        },
    }
}
