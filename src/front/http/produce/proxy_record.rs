//! One record as Confluent's REST proxy writes it, in the bodies of its versions 2 and 3.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use model::batch::HeaderRef;
use model::{PartitionId, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::rows::scalar;
use super::time::Unit;
use crate::broker::publish::{Message, Outgoing};

/// A record that was read.
#[derive(Debug, Default)]
pub(super) struct ProxyRecord {
    pub partition: Option<PartitionId>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub time: Option<Timestamp>,
    /// How version 3 names the forms of key and value.
    pub forms: [Option<Form>; 2],
}

/// What a key or value is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Form {
    /// Base64 of its bytes.
    Binary,
    /// Any JSON value, kept as it is written.
    Json,
    /// A text.
    String,
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Form::Binary => "BINARY",
            Form::Json => "JSON",
            Form::String => "STRING",
        }
    }

    /// The bytes of what is written so; None for null.
    fn read(self, raw: Option<&RawValue>) -> Result<Option<Vec<u8>>, String> {
        let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
            return Ok(None);
        };
        if self == Form::Json {
            return Ok(Some(raw.get().as_bytes().to_vec()));
        }
        let text = match raw.get().starts_with('"') {
            true => scalar(raw),
            false => None,
        };
        let text = text.ok_or("what is BINARY or STRING is written as a JSON string")?;
        match self {
            Form::Binary => decoded(&text).map(Some),
            _ => Ok(Some(text.into_owned().into_bytes())),
        }
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let decoded = BASE64_STANDARD.decode(text);
    decoded.map_err(|error| format!("{text:?} is no base64: {error}"))
}

impl ProxyRecord {
    /// The headers as records have them.
    pub fn header_refs(&self) -> Vec<HeaderRef<'_>> {
        let headers = self.headers.iter();
        headers
            .map(|(name, value)| (name.as_bytes(), value.as_deref()))
            .collect()
    }

    pub fn outgoing<'a>(&'a self, headers: &'a [HeaderRef<'a>]) -> Outgoing<'a> {
        Outgoing {
            partition: self.partition,
            message: Message {
                key: self.key.as_deref(),
                value: self.value.as_deref(),
                headers,
                time: self.time,
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Second<'a> {
    partition: Option<u32>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// The body of version 2. Schemas are named by clients of other formats only.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecondBody<'a> {
    #[serde(borrow)]
    records: Vec<Second<'a>>,
}

/// Reads a body of version 2.
pub(super) fn read_second(body: &str, form: Form) -> Result<Vec<ProxyRecord>, String> {
    let body: SecondBody<'_> = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let read = |(index, record): (usize, Second<'_>)| {
        let at = |error: String| format!("records[{index}]: {error}");
        Ok(ProxyRecord {
            partition: record.partition.map(PartitionId::new),
            key: form.read(record.key).map_err(at)?,
            value: form.read(record.value).map_err(at)?,
            ..ProxyRecord::default()
        })
    };
    body.records.into_iter().enumerate().map(read).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Third<'a> {
    /// Of a record in a batch.
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    partition_id: Option<u32>,
    #[serde(default, borrow)]
    headers: Vec<ThirdHeader<'a>>,
    #[serde(borrow)]
    key: Option<ThirdPart<'a>>,
    #[serde(borrow)]
    value: Option<ThirdPart<'a>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThirdHeader<'a> {
    name: String,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThirdPart<'a> {
    #[serde(rename = "type")]
    form: Option<Form>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads a record of version 3, and the id that it has in a batch.
pub(super) fn read_third(body: &[u8]) -> Result<(Option<String>, ProxyRecord), String> {
    let body = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let record: Third<'_> = serde_json::from_str(body).map_err(|error| error.to_string())?;
    of_third(record)
}

fn of_third(record: Third<'_>) -> Result<(Option<String>, ProxyRecord), String> {
    let part = |part: Option<ThirdPart<'_>>, name: &str| {
        let Some(part) = part else {
            return Ok((None, None));
        };
        let form = part.form.unwrap_or(Form::Binary);
        let bytes = form.read(part.data);
        let bytes = bytes.map_err(|error| format!("{name}: {error}"))?;
        let form = bytes.is_some().then_some(form);
        Ok::<_, String>((bytes, form))
    };
    let (key, key_form) = part(record.key, "key")?;
    let (value, value_form) = part(record.value, "value")?;
    let header = |header: ThirdHeader<'_>| {
        let value = header.value.map(|value| decoded(&value)).transpose();
        let value = value.map_err(|error| format!("header {:?}: {error}", header.name))?;
        Ok::<_, String>((header.name, value))
    };
    let headers = record.headers.into_iter().map(header);
    let time = record.timestamp.map(|time| Unit::Rfc3339.read(&time));
    let record = (
        record.id.map(Cow::into_owned),
        ProxyRecord {
            partition: record.partition_id.map(PartitionId::new),
            key,
            value,
            headers: headers.collect::<Result<_, _>>()?,
            time: time.transpose().map_err(|fault| fault.to_string())?,
            forms: [key_form, value_form],
        },
    );
    Ok(record)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

/// An entry of a batch: its id, and the record or what is wrong with it.
type Entry = (String, Result<ProxyRecord, String>);

/// Reads a batch of version 3: for each entry its id, and the record or what is wrong with it.
pub(super) fn read_batch(body: &str) -> Result<Vec<Entry>, String> {
    let body: BatchBody<'_> = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let mut ids = std::collections::HashSet::new();
    let entry = |(index, raw): (usize, &RawValue)| {
        /// What of an entry that is wrong must be right.
        #[derive(Deserialize)]
        struct Named {
            id: Option<String>,
        }
        let named: Option<Named> = serde_json::from_str(raw.get()).ok();
        let id = named.and_then(|named| named.id);
        let id = id.ok_or_else(|| format!("entries[{index}] has no id"))?;
        if !ids.insert(id.clone()) {
            return Err(format!("two entries have the id {id:?}"));
        }
        let record = read_third(raw.get().as_bytes()).map(|(_, record)| record);
        Ok((id, record))
    };
    body.entries.into_iter().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_in_their_forms_and_what_needs_a_schema_is_refused() {
        let read = |text: &str| read_third(text.as_bytes()).map(|(_, record)| record);
        let record = read(
            r#"{"partition_id":1,"headers":[{"name":"h","value":"aA=="},{"name":"n"}],
            "key":{"type":"STRING","data":"\u00e4"},"value":{"type":"JSON","data":{"a": 1.0}},
            "timestamp":"1970-01-01T00:00:01.5Z"}"#,
        )
        .expect("a record");
        assert_eq!(record.partition, Some(PartitionId::new(1)));
        assert_eq!(record.key.as_deref(), Some("\u{e4}".as_bytes()));
        assert_eq!(record.value.as_deref(), Some(&b"{\"a\": 1.0}"[..]));
        assert_eq!(
            record.headers,
            [
                ("h".to_owned(), Some(b"h".to_vec())),
                ("n".to_owned(), None)
            ]
        );
        assert_eq!(record.time, Some(Timestamp::from_millis(1_500)));
        for wrong in [
            r#"{"value":{"type":"AVRO","data":1}}"#,
            r#"{"value":{"schema_id":1,"data":1}}"#,
            r#"{"value":{"type":"BINARY","data":"?"}}"#,
            r#"{"value":{"type":"STRING","data":1}}"#,
            r#"{"timestamp":"yesterday"}"#,
            r#"{"nosuch":1}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let second = read_second(
            r#"{"records":[{"key":"aw==","value":null},{"value":"dg==","partition":2}]}"#,
            Form::Binary,
        );
        let second = second.expect("records");
        assert_eq!(
            (second[0].key.as_deref(), second[0].value.as_deref()),
            (Some(&b"k"[..]), None)
        );
        assert_eq!(second[1].value.as_deref(), Some(&b"v"[..]));
        assert!(read_second(r#"{"records":[{"value":"?"}]}"#, Form::Binary).is_err());
        assert!(read_batch(r#"{"entries":[{"id":"1"},{"id":"1"}]}"#).is_err());
    }
}
