//! JSON lines with the keys of kcat's `-J`: topic, partition, offset, tstype, ts, headers, key, payload.
//!
//! `headers` is flat, name and value by turns, and absent without headers. What is not UTF-8 is base64, and then
//! `key_encoding`, `payload_encoding` or `headers_encoding` says so (kcat writes such bytes raw, which no parser reads).

use std::borrow::Cow;

use model::batch::TimestampType;
use serde::Deserialize;

use super::output::OutputRecord;
use super::text::{from_base64, put_base64, put_decimal};

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

/// A line as `produce` reads it. What is not known is ignored: lines of kcat and of other tools are read too.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    partition: Option<i32>,
    ts: Option<i64>,
    #[serde(borrow, default)]
    headers: Vec<Option<Cow<'a, str>>>,
    headers_encoding: Option<Encoding>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    key_encoding: Option<Encoding>,
    #[serde(borrow)]
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
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
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
