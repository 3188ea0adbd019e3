//! The route between messages and records: what a message is stored as, and what a record is to receivers. Pure.
//! Callers: `producing` stores by it, `cursor` sends by it.
//!
//! Readers of other protocols want plain values, AMQP's want their message unchanged (part 3, 3.2). So the value is the body's bytes
//! where it has some, and all sections but the body stand in one header as they were encoded: they go out again undecoded.
//! What others may look at stands in headers of its own besides.

use amqp::message::{Body, Header, Message, Properties, SectionKind, put_section, split_section};
use amqp::{Bytes, BytesMut, Composite as _, DecodeError, Map, MapBuf, Value};
use model::{Offset, PartitionId, Timestamp};

use crate::broker::replay::ReplayRecord;

/// All sections but the body.
const SECTIONS: &str = "amqp";
/// What the value is, where it is not the data of one section.
const BODY: &str = "amqp.body";
const CONTENT_TYPE: &str = "content-type";

/// Messages that are data of a message: Event Hubs' batches.
const FORMAT_BATCH: u32 = 0x8001_3700;
/// A batch has no more.
const BATCH_MESSAGES_MAX: usize = 10_000;

/// Annotations that cursors set.
const OURS: [&str; 6] = [
    "x-opt-offset",
    "x-opt-sequence-number",
    "x-opt-enqueued-time",
    "x-opt-partition-key",
    "x-opt-partition",
    "x-stream-offset",
];

/// A message as it is stored: parts of its delivery where it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Its key, if it names one.
    pub(super) key: Option<Bytes>,
    /// Its body; None for none: a tombstone.
    pub(super) value: Option<Bytes>,
    /// All else.
    pub(super) headers: Vec<(Bytes, Bytes)>,
    /// When it was made, if it says so.
    pub(super) time: Option<Timestamp>,
    /// The node that it is for, if it names one.
    pub(super) to: Option<String>,
}

/// Why a delivery is not stored, now or ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// It is no message.
    #[error("it is no message: {0}")]
    Malformed(#[from] DecodeError),
    /// It is to be delivered later.
    #[error("delayed delivery is not offered")]
    Delayed,
    /// A format that is not offered.
    #[error("the message format {0:#x} is not offered")]
    Format(u32),
    /// A batch without a message: there is nothing to store, and nothing that `accepted` could promise.
    #[error("the batch has no message")]
    NoMessage,
}

/// What a delivery becomes: a record, or one for each message of a batch.
pub(super) fn stored(
    payload: &Bytes,
    message_format: u32,
    publisher: Option<&str>,
    now: Timestamp,
) -> Result<Vec<Stored>, Unfit> {
    match message_format {
        0 => Ok(vec![stored_one(payload, publisher, now)?]),
        FORMAT_BATCH => {
            let mut all = Vec::new();
            let mut rest = &payload[..];
            let mut publisher = publisher;
            while !rest.is_empty() {
                let (section, behind) = split_section(rest)?;
                rest = behind;
                // What stands around the messages is about the batch, and ends with it, but for the key of those that name none.
                if let (SectionKind::MessageAnnotations, Value::Map(said)) =
                    (section.kind, section.value)
                {
                    let key = said.get("x-opt-partition-key");
                    publisher = key.and_then(|it| it.text()).or(publisher);
                }
                let (SectionKind::Data, Value::Binary(data)) = (section.kind, section.value) else {
                    continue;
                };
                if all.len() == BATCH_MESSAGES_MAX {
                    return Err(DecodeError::Count.into());
                }
                all.push(stored_one(&payload.slice_ref(data), publisher, now)?);
            }
            match all.is_empty() {
                true => Err(Unfit::NoMessage),
                false => Ok(all),
            }
        }
        other => Err(Unfit::Format(other)),
    }
}

fn stored_one(payload: &Bytes, publisher: Option<&str>, now: Timestamp) -> Result<Stored, Unfit> {
    let message = Message::of(payload)?;
    let annotation = |name: &str| message.message_annotations.and_then(|it| it.0.get(name));
    let later = match (
        annotation("x-opt-delivery-time"),
        annotation("x-opt-delivery-delay"),
    ) {
        (Some(Value::Timestamp(time)), _) => time > now.millis(),
        (Some(time), _) => time.integer().is_some_and(|it| it > now.millis().into()),
        (None, delay) => delay.and_then(|it| it.integer()).is_some_and(|it| it > 0),
    };
    if later {
        return Err(Unfit::Delayed);
    }
    let properties = message.properties.map(|it| it.0);
    let key = annotation("x-opt-partition-key").and_then(|it| bytes_of(&it));
    let group = properties.and_then(|it| it.group_id).map(str::as_bytes);
    let key = key.or(publisher.map(str::as_bytes)).or(group);
    let (value, body) = value_of(payload, &message);
    let mut stored = Stored {
        key: key.map(Bytes::copy_from_slice),
        value,
        headers: Vec::new(),
        time: properties
            .and_then(|it| it.creation_time)
            .map(|it| Timestamp::from_millis(it.0)),
        to: properties
            .and_then(|it| it.to)
            .and_then(|it| it.text().map(str::to_owned)),
    };
    let mut add = |name: &[u8], value: Bytes| {
        stored.headers.push((Bytes::copy_from_slice(name), value));
    };
    add(SECTIONS.as_bytes(), sections(&message));
    if let Some(body) = body {
        add(BODY.as_bytes(), Bytes::from_static(body.as_bytes()));
    }
    if let Some(content_type) = properties.and_then(|it| it.content_type) {
        add(
            CONTENT_TYPE.as_bytes(),
            Bytes::copy_from_slice(content_type.0.as_bytes()),
        );
    }
    let said = message.application_properties.map(|it| it.0);
    for (name, value) in said.iter().flat_map(Map::iter) {
        let own = [SECTIONS, BODY, CONTENT_TYPE];
        if let Some(name) = name.text().filter(|name| !own.contains(name))
            && let Some(text) = text_of(&value)
        {
            add(name.as_bytes(), text);
        }
    }
    Ok(stored)
}

fn bytes_of<'a>(value: &Value<'a>) -> Option<&'a [u8]> {
    match value {
        Value::Binary(bytes) => Some(bytes),
        value => value.text().map(str::as_bytes),
    }
}

/// The body as a value, and what it is if it is not data.
fn value_of(payload: &Bytes, message: &Message<'_>) -> (Option<Bytes>, Option<&'static str>) {
    match message.body {
        Body::Data(1, data) => (Some(payload.slice_ref(data)), None),
        Body::Value(Value::String(text)) => {
            (Some(payload.slice_ref(text.as_bytes())), Some("string"))
        }
        Body::Value(Value::Binary(data)) => (Some(payload.slice_ref(data)), Some("binary")),
        Body::Value(Value::Null) | Body::None => (None, None),
        Body::Data(..) | Body::Sequence(..) | Body::Value(_) => (
            Some(payload.slice_ref(message.body_encoded)),
            Some("sections"),
        ),
    }
}

/// All sections but the body, as they were encoded, without what is about this delivery only.
fn sections(message: &Message<'_>) -> Bytes {
    let mut out = BytesMut::new();
    if let Some(header) = message.header {
        let header = Header {
            first_acquirer: false,
            delivery_count: 0,
            ..header
        };
        header.put(&mut out);
    }
    for part in [
        message.message_annotations.map(|it| it.1),
        message.properties.map(|it| it.1),
        message.application_properties.map(|it| it.1),
        message.footer.map(|it| it.1),
    ]
    .into_iter()
    .flatten()
    {
        out.extend_from_slice(part);
    }
    out.freeze()
}

/// A scalar as others read it.
fn text_of(value: &Value<'_>) -> Option<Bytes> {
    let text = match *value {
        Value::String(text) | Value::Symbol(text) => text.to_owned(),
        Value::Boolean(it) => it.to_string(),
        Value::Float(it) => it.to_string(),
        Value::Double(it) => it.to_string(),
        Value::Char(it) => it.to_string(),
        Value::Timestamp(it) => it.to_string(),
        Value::Uuid(it) => uuid::Uuid::from_bytes(it).to_string(),
        Value::Binary(bytes) => return Some(Bytes::copy_from_slice(bytes)),
        value => value.integer()?.to_string(),
    };
    Some(text.into())
}

/// A record, as far as a message is made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    partition: PartitionId,
    offset: Offset,
    time: Timestamp,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> Record<'a> {
    /// One that was read.
    pub(super) fn of(read: &ReplayRecord<'a>) -> Record<'a> {
        Record {
            partition: read.partition,
            offset: read.record.offset,
            time: read.record.timestamp,
            key: read.record.key,
            value: read.record.value,
            headers: read.record.headers().collect(),
        }
    }

    fn header(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.headers.iter().find(|it| it.0 == name.as_bytes());
        found.and_then(|it| it.1)
    }

    /// When it was stored, or made, as its topic has it.
    pub(super) fn time(&self) -> Timestamp {
        self.time
    }

    /// The value of a header, the last of equal names; None: there is none, or it has none.
    pub(super) fn last_header(&self, name: &str) -> Option<&'a [u8]> {
        let mut named = self.headers.iter().rev();
        let found = named.find(|it| it.0 == name.as_bytes());
        found.and_then(|it| it.1)
    }

    /// What it was, if it was a message. What others have put there and is no message is nothing.
    pub(super) fn sections(&self) -> Option<Message<'a>> {
        Message::of(self.header(SECTIONS)?).ok()
    }

    /// Whether it was sent for a time that is over (part 3, 3.2.1 and 3.2.4).
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        let Some(sections) = self.sections() else {
            return false;
        };
        let absolute = sections.properties.and_then(|it| it.0.absolute_expiry_time);
        let ttl = sections.header.and_then(|it| it.ttl).map(i64::from);
        let ends = ttl.map(|ttl| self.time.millis().saturating_add(ttl));
        let ends = absolute.map(|it| it.0).or(ends);
        ends.is_some_and(|end| now.millis() >= end)
    }

    /// It as a cursor sends it: what it was, if it was a message, with where it stands.
    pub(super) fn message(&self, is_rabbit: bool) -> Bytes {
        let sections = self.sections();
        let header = sections.and_then(|it| it.header);
        self.message_with(sections, header, is_rabbit)
    }

    /// It as a consumer of a queue is sent it, so many times with this one.
    pub(super) fn message_of_queue(&self, deliveries: u16) -> Bytes {
        let sections = self.sections();
        let header = sections.and_then(|it| it.header);
        let header = Header {
            first_acquirer: deliveries == 1,
            delivery_count: u32::from(deliveries).saturating_sub(1),
            // What another protocol has stored is durable as all that is.
            ..header.unwrap_or(Header {
                durable: sections.is_none(),
                ..Header::NONE
            })
        };
        self.message_with(sections, Some(header), false)
    }

    fn message_with(
        &self,
        sections: Option<Message<'a>>,
        header: Option<Header>,
        is_rabbit: bool,
    ) -> Bytes {
        let mut out = BytesMut::new();
        if let Some(header) = header {
            header.put(&mut out);
        }
        self.put_annotations(&mut out, is_rabbit, sections.as_ref());
        match &sections {
            Some(said) => {
                let properties = said.properties.map(|it| it.1);
                let others = said.application_properties.map(|it| it.1);
                for part in [properties, others].into_iter().flatten() {
                    out.extend_from_slice(part);
                }
            }
            None => self.put_foreign(&mut out),
        }
        let kind = self.header(BODY).filter(|_| sections.is_some());
        self.put_body(&mut out, kind);
        if let Some((_, footer)) = sections.and_then(|it| it.footer) {
            out.extend_from_slice(footer);
        }
        out.freeze()
    }

    fn put_annotations(&self, out: &mut BytesMut, is_rabbit: bool, sections: Option<&Message<'_>>) {
        let mut annotations = MapBuf::new();
        if let Some((said, _)) = sections.and_then(|it| it.message_annotations) {
            annotations.extend(said, |key| key.text().is_none_or(|it| !OURS.contains(&it)));
        }
        let offset = self.offset.get();
        let number = i64::try_from(offset).unwrap_or(i64::MAX);
        let text = offset.to_string();
        annotations.put_symbol("x-opt-offset", &Value::String(&text));
        annotations.put_symbol("x-opt-sequence-number", &Value::Long(number));
        let time = Value::Timestamp(self.time.millis());
        annotations.put_symbol("x-opt-enqueued-time", &time);
        let partition = i32::try_from(self.partition.get()).unwrap_or(i32::MAX);
        annotations.put_symbol("x-opt-partition", &Value::Int(partition));
        if let Some(key) = self.key {
            annotations.put_symbol("x-opt-partition-key", &text_or_bytes(key));
        }
        if is_rabbit {
            annotations.put_symbol("x-stream-offset", &Value::Ulong(offset));
        }
        let annotations = Value::Map(annotations.as_map());
        put_section(out, SectionKind::MessageAnnotations, &annotations);
    }

    /// What a record of another protocol says: its headers, the last of equal names, and its time.
    fn put_foreign(&self, out: &mut BytesMut) {
        let properties = Properties {
            creation_time: Some(amqp::field::Timestamp(self.time.millis())),
            ..Properties::NONE
        };
        properties.put(out);
        let mut said = MapBuf::new();
        for (at, (name, value)) in self.headers.iter().enumerate() {
            let is_last = self.headers[at + 1..]
                .iter()
                .all(|(later, _)| later != name);
            if let Some(name) = std::str::from_utf8(name).ok().filter(|_| is_last) {
                let value = value.map_or(Value::Null, text_or_bytes);
                said.put(&Value::String(name), &value);
            }
        }
        if !said.as_map().is_empty() {
            let said = Value::Map(said.as_map());
            put_section(out, SectionKind::ApplicationProperties, &said);
        }
    }

    fn put_body(&self, out: &mut BytesMut, kind: Option<&[u8]>) {
        let Some(value) = self.value else {
            return put_section(out, SectionKind::Value, &Value::Null);
        };
        let text = std::str::from_utf8(value).ok();
        let (kind, value) = match (kind, text) {
            (Some(b"string"), Some(text)) => (SectionKind::Value, Value::String(text)),
            (Some(b"binary"), _) => (SectionKind::Value, Value::Binary(value)),
            (Some(b"sections"), _) if Message::of(value).is_ok() => {
                return out.extend_from_slice(value);
            }
            _ => (SectionKind::Data, Value::Binary(value)),
        };
        put_section(out, kind, &value);
    }
}

fn text_or_bytes(bytes: &[u8]) -> Value<'_> {
    std::str::from_utf8(bytes).map_or(Value::Binary(bytes), Value::String)
}

/// Records as tests have them.
#[cfg(test)]
impl<'a> Record<'a> {
    /// A message that was stored.
    pub(super) fn of_stored(stored: &'a Stored, time: Timestamp) -> Record<'a> {
        let headers = stored.headers.iter();
        Record {
            partition: PartitionId::new(2),
            offset: Offset::new(7),
            time,
            key: stored.key.as_deref(),
            value: stored.value.as_deref(),
            headers: headers
                .map(|(name, value)| (&name[..], Some(&value[..])))
                .collect(),
        }
    }

    /// One of another protocol.
    pub(super) fn foreign(headers: Vec<(&'a [u8], Option<&'a [u8]>)>, millis: i64) -> Record<'a> {
        Record {
            partition: PartitionId::new(0),
            offset: Offset::new(1),
            time: Timestamp::from_millis(millis),
            key: None,
            value: Some(b"v"),
            headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn record(stored: &Stored) -> Record<'_> {
        Record::of_stored(stored, NOW)
    }

    fn one(payload: &[u8]) -> Stored {
        let payload = Bytes::copy_from_slice(payload);
        let mut all = stored(&payload, 0, None, NOW).expect("a message");
        assert_eq!(all.len(), 1);
        all.pop().expect("one")
    }

    /// rabbitmq-server#9277, #6937: bodies return as they were sent.
    #[test]
    fn a_message_of_each_kind_of_body_returns_as_it_was_sent() {
        for (body, value) in [
            (&b"\x00\x53\x75\xa0\x02ab"[..], Some(&b"ab"[..])),
            (b"\x00\x53\x75\xa0\x00", Some(b"")),
            (b"\x00\x53\x77\xa1\x02ab", Some(b"ab")),
            (b"\x00\x53\x77\xa0\x02\x00\xff", Some(b"\x00\xff")),
            (b"\x00\x53\x77\x40", None),
            (b"\x00\x53\x77\x54\x05", Some(b"\x00\x53\x77\x54\x05")),
            (
                b"\x00\x53\x76\xc0\x02\x01\x41\x00\x53\x76\x45",
                Some(b"\x00\x53\x76\xc0\x02\x01\x41\x00\x53\x76\x45"),
            ),
            (
                b"\x00\x53\x75\xa0\x01a\x00\x53\x75\xa0\x01b",
                Some(b"\x00\x53\x75\xa0\x01a\x00\x53\x75\xa0\x01b"),
            ),
        ] {
            let stored = one(body);
            assert_eq!(stored.value.as_deref(), value, "{body:02x?}");
            let back = record(&stored).message(false);
            let back = Message::of(&back).expect("a message");
            assert_eq!(back.body_encoded, body);
        }
    }

    #[test]
    fn sections_return_as_they_were_encoded_and_others_read_headers() {
        let header = b"\x00\x53\x70\xc0\x08\x05\x41\x50\x09\x40\x41\x52\x03";
        let annotations =
            b"\x00\x53\x72\xc1\x1b\x04\xa3\x01k\xa1\x01v\xa3\x0cx-opt-offset\xa1\x01z\x40";
        let annotations = &annotations[..annotations.len() - 1];
        let mut annotations = annotations.to_vec();
        annotations[4] = u8::try_from(annotations.len() - 5).expect("short");
        let properties =
            b"\x00\x53\x73\xc0\x19\x0b\xa1\x01i\x40\x40\x40\x40\x40\xa3\x01c\x40\x40\x40\xa1\x01g";
        let mut properties = properties.to_vec();
        properties[4] = u8::try_from(properties.len() - 5).expect("short");
        let said = b"\x00\x53\x74\xc1\x0c\x04\xa1\x01n\x54\x05\xa1\x04amqp\x41";
        let mut said = said.to_vec();
        said[4] = u8::try_from(said.len() - 5).expect("short");
        let body = b"\x00\x53\x75\xa0\x01x";
        let payload = [&header[..], &annotations, &properties, &said, body].concat();
        let stored = one(&payload);
        assert_eq!(stored.key.as_deref(), Some(&b"g"[..]));
        let texts: Vec<(&[u8], &[u8])> = { stored.headers.iter().skip(1) }
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        let expected: [(&[u8], &[u8]); 2] = [(b"content-type", b"c"), (b"n", b"5")];
        assert_eq!(texts, expected);
        let back = record(&stored).message(true);
        let back = Message::of(&back).expect("a message");
        let header = back.header.expect("a header");
        // What is about one delivery is not kept.
        assert_eq!((header.durable, header.priority), (true, 9));
        assert_eq!((header.first_acquirer, header.delivery_count), (false, 0));
        assert_eq!(back.properties.expect("properties").1, properties);
        assert_eq!(back.application_properties.expect("some").1, said);
        let annotations = back.message_annotations.expect("annotations").0;
        for (name, value) in [
            ("k", Value::String("v")),
            ("x-opt-offset", Value::String("7")),
            ("x-opt-sequence-number", Value::Long(7)),
            ("x-opt-partition", Value::Int(2)),
            ("x-opt-partition-key", Value::String("g")),
            ("x-stream-offset", Value::Ulong(7)),
            ("x-opt-enqueued-time", Value::Timestamp(1_000_000)),
        ] {
            assert_eq!(annotations.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_record_of_another_protocol_is_data_and_properties() {
        let headers: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"a", Some(b"1")),
            (b"a", Some(b"2")),
            (b"b", Some(b"\xff")),
            (b"c", None),
            (b"amqp.body", Some(b"string")),
        ];
        let record = Record::foreign(headers, NOW.millis());
        let back = record.message(false);
        let back = Message::of(&back).expect("a message");
        assert_eq!(back.body, Body::Data(1, b"v"));
        let said = back.application_properties.expect("some").0;
        let said: Vec<(Value<'_>, Value<'_>)> = said.iter().collect();
        let name = Value::String;
        let expected = [
            (name("a"), Value::String("2")),
            (name("b"), Value::Binary(b"\xff")),
            (name("c"), Value::Null),
            (name("amqp.body"), Value::String("string")),
        ];
        assert_eq!(said, expected);
        let time = back.properties.and_then(|it| it.0.creation_time);
        assert_eq!(time.map(|it| it.0), Some(1_000_000));
    }

    #[test]
    fn a_message_is_of_no_use_when_the_time_that_it_was_sent_for_is_over() {
        let body = b"\x00\x53\x77\x40";
        // A ttl of 5 ms, and properties with the absolute expiry time 1,000,007.
        let ttl = b"\x00\x53\x70\xc0\x05\x03\x40\x40\x52\x05";
        let absolute =
            b"\x00\x53\x73\xc0\x12\x09\x40\x40\x40\x40\x40\x40\x40\x40\x83\x00\x00\x00\x00\x00\x0f\x42\x47";
        let ends = |sections: &[u8]| {
            let stored = one(&[sections, body].concat());
            let record = record(&stored);
            let after = |millis| Timestamp::from_millis(NOW.millis() + millis);
            (0..10).find(|millis| record.is_expired(after(*millis)))
        };
        assert_eq!(ends(b""), None);
        assert_eq!(ends(ttl), Some(5));
        assert_eq!(ends(absolute), Some(7));
        // Where both are there the absolute one counts.
        assert_eq!(ends(&[&ttl[..], absolute].concat()), Some(7));
        // A record of another protocol has no such time.
        let stored = Stored::default();
        assert!(!record(&stored).is_expired(Timestamp::from_millis(i64::MAX)));
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let delayed =
            b"\x00\x53\x72\xc1\x19\x02\xa3\x14x-opt-delivery-delay\x54\x05\x00\x53\x77\x40";
        let refused = |payload: &[u8], format| {
            stored(&Bytes::copy_from_slice(payload), format, None, NOW).expect_err("refused")
        };
        assert_eq!(refused(delayed, 0), Unfit::Delayed);
        assert_eq!(refused(b"\x00\x53\x77\x40", 9), Unfit::Format(9));
        assert!(matches!(refused(b"\x01", 0), Unfit::Malformed(_)));
        let annotations_only = b"\x00\x53\x72\xc1\x01\x00";
        for empty in [&b""[..], annotations_only] {
            assert_eq!(refused(empty, FORMAT_BATCH), Unfit::NoMessage);
        }
    }

    #[test]
    fn a_batch_is_a_record_for_each_of_its_messages() {
        let message = |byte: u8| vec![0x00, 0x53, 0x75, 0xa0, 1, byte];
        let mut batch = b"\x00\x53\x72\xc1\x01\x00".to_vec();
        for byte in [1, 2] {
            batch.extend_from_slice(&[0x00, 0x53, 0x75, 0xa0, 6]);
            batch.extend_from_slice(&message(byte));
        }
        let all = stored(&batch.into(), FORMAT_BATCH, Some("p"), NOW).expect("a batch");
        let all: Vec<_> = { all.iter() }
            .map(|it| (it.key.as_deref(), it.value.as_deref()))
            .collect();
        let p = Some(&b"p"[..]);
        assert_eq!(all, [(p, Some(&[1_u8][..])), (p, Some(&[2][..]))]);
    }

    #[test]
    fn the_key_of_a_batch_is_that_of_its_messages_which_name_none() {
        let annotated = |key: &str| {
            let mut said = MapBuf::new();
            said.put_symbol("x-opt-partition-key", &Value::String(key));
            let mut out = BytesMut::new();
            let said = Value::Map(said.as_map());
            put_section(&mut out, SectionKind::MessageAnnotations, &said);
            out.freeze()
        };
        let data = |bytes: &[u8]| {
            let mut out = BytesMut::new();
            put_section(&mut out, SectionKind::Data, &Value::Binary(bytes));
            out.freeze()
        };
        let own = [&annotated("own")[..], &data(b"1")].concat();
        let batch = [&annotated("k")[..], &data(&own), &data(&data(b"2"))].concat();
        let all = stored(&batch.into(), FORMAT_BATCH, Some("p"), NOW).expect("a batch");
        let keys: Vec<_> = all.iter().map(|it| it.key.as_deref()).collect();
        assert_eq!(keys, [Some(&b"own"[..]), Some(b"k")]);
    }
}
