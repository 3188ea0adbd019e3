//! What a message is as a record, and what a record is to subscribers.
//! Callers: `inbound` stores by it, `outbound` delivers by it. Pure.
//!
//! Where a message goes and under which key is for `routes` to say. The value is the payload as it came. What else a message says is
//! headers, as text; its topic is one of them where the key is not the topic.

use bytes::Bytes;
use model::Timestamp;
use model::batch::{HeaderRef, NAME_HEADER, RecordRef};

use super::packet::{Delivery, Properties, Qos};
use super::topic;
use crate::broker::retained::Kept;

/// What this front's own headers begin with.
const OWN: &str = "mqtt.";
/// What stands before a user property whose name begins like an own header.
const USER: &str = "mqtt.user.";

const QOS: &str = "mqtt.qos";
const RETAIN: &str = "mqtt.retain";
const CLIENT: &str = "mqtt.client";
const NAME: &str = NAME_HEADER;
const EXPIRY: &str = "mqtt.expiry";
const FORMAT: &str = "mqtt.format";
const CONTENT_TYPE: &str = "mqtt.content-type";
const REPLY: &str = "mqtt.reply";
const CORRELATION: &str = "mqtt.correlation";

/// A message as it is stored: a part of the packet that it came in, and not a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic, which is text.
    pub topic: Bytes,
    /// The payload.
    pub value: Bytes,
    /// What else it says.
    pub headers: Vec<(Bytes, Bytes)>,
    /// Whether it stays for later subscribers.
    pub retain: bool,
    /// How long it is of use, in seconds; None for ever.
    pub expiry: Option<u32>,
}

/// What a message says beside its topic and payload.
#[derive(Clone, Copy, Debug)]
pub struct Says<'a> {
    /// How often it may arrive.
    pub qos: Qos,
    /// Whether it stays for later subscribers.
    pub retain: bool,
    /// Of whom it is.
    pub client_id: &'a Bytes,
    /// Its properties.
    pub properties: &'a Properties<'a>,
}

impl Message {
    /// A message in a packet: `topic`, `payload` and properties are parts of `packet`, or the topic is one that an alias stands for.
    pub fn of(packet: &Bytes, topic: Bytes, payload: &[u8], says: Says<'_>) -> Message {
        let mut headers = Vec::with_capacity(2 + says.properties.user.len());
        let mut add = |name: &'static str, value: Bytes| {
            headers.push((Bytes::from_static(name.as_bytes()), value));
        };
        add(QOS, Bytes::from_static(says.qos.digit().as_bytes()));
        if says.retain {
            add(RETAIN, Bytes::from_static(b"1"));
        }
        add(CLIENT, says.client_id.clone());
        let Properties {
            payload_format,
            message_expiry,
            content_type,
            response_topic,
            correlation_data,
            user,
            ..
        } = says.properties;
        if let Some(seconds) = message_expiry {
            add(EXPIRY, seconds.to_string().into());
        }
        if let Some(format) = payload_format {
            add(FORMAT, format.to_string().into());
        }
        let part = |text: &str| packet.slice_ref(text.as_bytes());
        if let Some(content_type) = content_type {
            add(CONTENT_TYPE, part(content_type));
        }
        if let Some(response_topic) = response_topic {
            add(REPLY, part(response_topic));
        }
        if let Some(data) = correlation_data {
            add(CORRELATION, packet.slice_ref(data));
        }
        for (name, value) in user {
            let name = match name.starts_with(OWN) {
                true => format!("{USER}{name}").into(),
                false => part(name),
            };
            headers.push((name, part(value)));
        }
        Message {
            topic,
            value: packet.slice_ref(payload),
            headers,
            retain: says.retain,
            expiry: *message_expiry,
        }
    }

    /// The same in memory of its own: it outlives its packet.
    pub fn copied(&self) -> Message {
        let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let headers = self.headers.iter();
        Message {
            topic: copy(&self.topic),
            value: copy(&self.value),
            headers: headers
                .map(|(name, value)| (copy(name), copy(value)))
                .collect(),
            retain: self.retain,
            expiry: self.expiry,
        }
    }

    /// Its topic.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.topic).expect("a topic is text")
    }

    /// Its headers, as they are published: with its topic, where nothing else says it.
    pub fn headers(&self, with_topic: bool) -> Vec<HeaderRef<'_>> {
        let topic = with_topic.then(|| (NAME.as_bytes(), Some(self.topic.as_ref())));
        let all = self.headers.iter();
        let all = all.map(|(name, value)| (name.as_ref(), Some(value.as_ref())));
        topic.into_iter().chain(all).collect()
    }
}

/// The topic of a record, if it is one that subscribers may be given: as its header says, or else its key, where keys are topics.
pub fn name_of<'a>(record: &RecordRef<'a>, keys_are_names: bool) -> Option<&'a str> {
    let named = record
        .headers()
        .find(|(name, _)| *name == NAME.as_bytes())
        .and_then(|(_, value)| value);
    let name = named.or(record.key.filter(|_| keys_are_names))?;
    let name = std::str::from_utf8(name).ok()?;
    // Nobody publishes under `$`.
    let is_published = topic::is_name(name) && !name.starts_with('$');
    is_published.then_some(name)
}

/// A record as a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// How it was published; None by others than clients of this front.
    pub qos: Option<Qos>,
    /// Who published it.
    pub client_id: Option<&'a [u8]>,
    /// What it says. Topic and subscriptions are not named yet.
    pub delivery: Delivery<'a>,
}

/// What became of a record that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A message.
    Message(Box<Stored<'a>>),
    /// A message whose time is over.
    Expired,
}

/// What a record is to subscribers, at a time.
pub fn found<'a>(record: &RecordRef<'a>, now: Timestamp) -> Found<'a> {
    let passed = now.millis().saturating_sub(record.timestamp.millis());
    message("", record.value, record.headers(), passed)
}

/// What a retained message is to subscribers, at a steady time.
pub fn found_retained(kept: &Kept, now: Timestamp) -> Found<'_> {
    let headers = kept.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_ref(), Some(value.as_ref())));
    let passed = now.millis().saturating_sub(kept.at.millis());
    message(&kept.name, Some(&kept.value), headers, passed)
}

fn message<'a>(
    topic: &'a str,
    value: Option<&'a [u8]>,
    headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    passed_ms: i64,
) -> Found<'a> {
    let mut stored = Stored {
        qos: None,
        client_id: None,
        delivery: Delivery {
            topic,
            payload: value.unwrap_or_default(),
            ..Delivery::default()
        },
    };
    let delivery = &mut stored.delivery;
    for (name, value) in headers {
        let (Ok(name), Some(value)) = (std::str::from_utf8(name), value) else {
            continue;
        };
        let text = std::str::from_utf8(value).ok();
        let number = text.and_then(|text| text.parse::<u32>().ok());
        match name {
            NAME => {}
            QOS => stored.qos = number.and_then(|it| Qos::of(u8::try_from(it).ok()?)),
            RETAIN => delivery.retain = text == Some("1"),
            CLIENT => stored.client_id = Some(value),
            EXPIRY => delivery.message_expiry = number,
            FORMAT => delivery.payload_format = number.filter(|it| *it <= 1).map(|it| it as u8),
            CONTENT_TYPE => delivery.content_type = text.filter(|it| is_text(it)),
            REPLY => delivery.response_topic = text.filter(|it| topic::is_name(it)),
            CORRELATION => delivery.correlation_data = Some(value),
            _ => {
                let name = name.strip_prefix(USER).unwrap_or(name);
                if let Some(text) = text.filter(|text| is_text(text) && is_text(name)) {
                    delivery.user.push((name, text));
                }
            }
        }
    }
    if let Some(seconds) = delivery.message_expiry {
        let passed = u64::try_from(passed_ms).unwrap_or(0) / 1_000;
        match u64::from(seconds)
            .checked_sub(passed)
            .filter(|left| *left > 0)
        {
            Some(left) => delivery.message_expiry = u32::try_from(left).ok(),
            None => return Found::Expired,
        }
    }
    Found::Message(Box::new(stored))
}

/// Whether it is a string of MQTT.
fn is_text(text: &str) -> bool {
    !text.contains('\0')
}
