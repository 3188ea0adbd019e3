//! JSON lines with the keys of kcat's `-J`: topic, partition, offset, tstype, ts, headers, key, payload.
//!
//! `headers` is flat, name and value by turns, and absent without headers. What is not UTF-8 is base64, and then
//! `key_encoding`, `payload_encoding` or `headers_encoding` says so (kcat writes such bytes raw, which no parser reads).

use std::borrow::Cow;

use model::Timestamp;
use model::batch::TimestampType;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::output::OutputRecord;
use super::text::{from_base64, put_base64, put_decimal};
use model::time_spec::{epoch_by_size, fixed_time};

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) fn write(record: &OutputRecord<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"topic\":");
    put_string(out, record.topic);
    out.extend_from_slice(b",\"partition\":");
    put_decimal(out, i64::from(record.partition));
    out.extend_from_slice(b",\"offset\":");
    put_decimal(out, record.offset);
    out.extend_from_slice(match record.attributes.timestamp_type() {
        _ if record.timestamp == -1 => b",\"tstype\":\"unknown\",\"ts\":".as_slice(),
        TimestampType::CreateTime => b",\"tstype\":\"create\",\"ts\":",
        TimestampType::LogAppendTime => b",\"tstype\":\"logappend\",\"ts\":",
    });
    put_decimal(out, record.timestamp);
    put_headers(out, record);
    put_field(out, "key", record.key);
    put_field(out, "payload", record.value);
    out.extend_from_slice(b"}\n");
}

fn put_headers(out: &mut Vec<u8>, record: &OutputRecord<'_>) {
    if record.headers.is_empty() {
        return;
    }
    let is_text = |part: &[u8]| std::str::from_utf8(part).is_ok();
    let plain = record
        .headers
        .iter()
        .all(|(key, value)| is_text(key) && value.is_none_or(is_text));
    out.extend_from_slice(b",\"headers\":[");
    for (index, (key, value)) in record.headers.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_bytes(out, Some(key), plain);
        out.push(b',');
        put_bytes(out, value, plain);
    }
    out.push(b']');
    if !plain {
        out.extend_from_slice(b",\"headers_encoding\":\"base64\"");
    }
}

fn put_field(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    let plain = value.is_none_or(|value| std::str::from_utf8(value).is_ok());
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    put_bytes(out, value, plain);
    if !plain {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"_encoding\":\"base64\"");
    }
}

fn put_bytes(out: &mut Vec<u8>, value: Option<&[u8]>, plain: bool) {
    match value.map(|value| (value, std::str::from_utf8(value))) {
        None => out.extend_from_slice(b"null"),
        Some((_, Ok(text))) if plain => put_string(out, text),
        Some((bytes, _)) => {
            out.push(b'"');
            put_base64(out, bytes, true);
            out.push(b'"');
        }
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Keys of [`Line`] by the names that other tools and people give them.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("value", "payload"),
    ("message", "payload"),
    ("data", "payload"),
    ("body", "payload"),
    ("timestamp", "ts"),
    ("time", "ts"),
];
/// Keys of [`Line`].
const NAMES: &[&str] = &[
    "topic",
    "partition",
    "offset",
    "tstype",
    "ts",
    "broker",
    "headers",
    "headers_encoding",
    "key",
    "key_encoding",
    "payload",
    "payload_encoding",
];

/// A line as `produce` reads it. An unknown key is an error: whoever takes the format for another would lose data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    partition: Option<i32>,
    ts: Option<i64>,
    /// These say where a record was; a broker gives it another place.
    #[serde(default, rename = "offset")]
    _offset: IgnoredAny,
    #[serde(default, rename = "tstype")]
    _tstype: IgnoredAny,
    #[serde(default, rename = "broker")]
    _broker: IgnoredAny,
    #[serde(borrow, default)]
    headers: Vec<Option<Cow<'a, str>>>,
    headers_encoding: Option<Encoding>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    key_encoding: Option<Encoding>,
    /// Null, or a text, but never absent.
    #[serde(borrow, deserialize_with = "Option::deserialize")]
    payload: Option<Cow<'a, str>>,
    payload_encoding: Option<Encoding>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Base64,
}

/// A record that was read from JSON.
#[derive(Debug, Default, PartialEq)]
pub(super) struct JsonRecord {
    pub topic: Option<Vec<u8>>,
    pub partition: Option<i32>,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

pub(super) fn read(line: &[u8]) -> Result<JsonRecord, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| wrong(line, &error))?;
    if !line.headers.len().is_multiple_of(2) {
        return Err("headers must be names and values by turns".to_owned());
    }
    let mut headers = Vec::with_capacity(line.headers.len() / 2);
    for pair in line.headers.as_chunks::<2>().0 {
        let name = decode(pair[0].as_deref(), line.headers_encoding, "headers")?;
        let name = name.ok_or("a header's name cannot be null")?;
        headers.push((
            name,
            decode(pair[1].as_deref(), line.headers_encoding, "headers")?,
        ));
    }
    Ok(JsonRecord {
        topic: line.topic.map(|topic| topic.into_owned().into_bytes()),
        partition: line.partition,
        timestamp: line.ts.filter(|&ts| ts != -1),
        key: decode(line.key.as_deref(), line.key_encoding, "key")?,
        value: decode(line.payload.as_deref(), line.payload_encoding, "payload")?,
        headers,
    })
}

/// What is wrong with a line, and what may have been meant.
fn wrong(line: &[u8], error: &serde_json::Error) -> String {
    const HINT: &str = "for lines that are JSON values themselves leave out -f";
    let Ok(object) = serde_json::from_slice::<serde_json::Map<String, Value>>(line) else {
        let is_json = serde_json::from_slice::<IgnoredAny>(line).is_ok();
        return match is_json {
            true => format!("not a JSON object; {HINT}"),
            false => error.to_string(),
        };
    };
    if let Some(unknown) = object.keys().find(|key| !NAMES.contains(&key.as_str())) {
        let other = OTHER_NAMES.iter().find(|(name, _)| name == unknown);
        let like = |name: &&&str| strsim::jaro_winkler(name, unknown) > 0.8;
        let meant = other.map(|(_, name)| *name);
        let meant = meant.or_else(|| NAMES.iter().find(like).copied());
        let meant = meant.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"));
        return format!(
            "unknown key `{unknown}`{meant}: the keys are those that `consume -f json` writes; {HINT}"
        );
    }
    if !object.contains_key("payload") {
        return format!("no `payload`; {HINT}");
    }
    error.to_string()
}

/// Fields of a JSON line that become key and time of its record.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub key: Option<String>,
    pub time: Option<String>,
}

impl Fields {
    /// Key and time in milliseconds. The field must be there; a key may be null.
    pub(super) fn read(&self, line: &[u8]) -> Result<(Option<Vec<u8>>, Option<i64>), String> {
        let object: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let field = |name: &String| {
            let found = object.get(name).or_else(|| {
                let mut parts = name.split('.');
                parts.try_fold(&object, |value, part| value.get(part))
            });
            found.ok_or_else(|| format!("it has no field `{name}`"))
        };
        let key = match self.key.as_ref().map(field).transpose()? {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone().into_bytes()),
            Some(other) => Some(other.to_string().into_bytes()),
        };
        let time = self.time.as_ref().map(field).transpose()?;
        let time = match time {
            None => None,
            Some(Value::String(text)) => fixed_time(text),
            Some(Value::Number(number)) => epoch(number),
            Some(_) => None,
        };
        if let (Some(name), None) = (&self.time, time) {
            let found = field(name)?;
            return Err(format!(
                "{found} in field `{name}` is not a time: RFC 3339, a date, or a number since 1970"
            ));
        }
        Ok((key, time.map(Timestamp::millis)))
    }
}

/// A number since 1970: milliseconds, microseconds or nanoseconds by its 13, 16 or 19 digits before the point, else seconds.
fn epoch(number: &serde_json::Number) -> Option<Timestamp> {
    match number.as_u64() {
        Some(whole) => Some(epoch_by_size(whole)),
        None => {
            // Exact to the millisecond for all times that are near.
            let millis = number.as_f64()? * 1e3;
            (millis.abs() < 9e15).then(|| Timestamp::from_millis(millis.max(0.0).round() as i64))
        }
    }
}

fn decode(
    text: Option<&str>,
    encoding: Option<Encoding>,
    name: &str,
) -> Result<Option<Vec<u8>>, String> {
    match (text, encoding) {
        (None, _) => Ok(None),
        (Some(text), None) => Ok(Some(text.as_bytes().to_vec())),
        (Some(text), Some(Encoding::Base64)) => match from_base64(text.as_bytes()) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(format!("{name} is not base64")),
        },
    }
}
