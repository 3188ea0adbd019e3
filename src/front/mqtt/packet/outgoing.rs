//! Packets to a client, each appended to what is to be sent. Codes are given by whoever calls, from `errors`.

use bytes::{BufMut as _, BytesMut};

use super::incoming::AckKind;
use super::properties::id;
use super::words::{Qos, Version};
use super::writer::{binary, fits, variable, variable_bytes};

/// What a CONNACK of 5.0 says beside its code (§3.2.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connack<'a> {
    /// Seconds that the session outlives its connection, if that is not what was asked for.
    pub session_expiry: Option<u32>,
    /// Publishes that may be without an ack.
    pub receive_maximum: Option<u16>,
    /// The longest packet that is taken.
    pub packet_bytes_max: Option<u32>,
    /// The highest topic alias that is understood.
    pub topic_alias_maximum: Option<u16>,
    /// The id of a client that gave none.
    pub assigned_client_id: Option<&'a str>,
    /// Seconds of keep alive, if they are not those that were asked for.
    pub server_keep_alive: Option<u16>,
    /// Why it was refused, in words.
    pub reason_string: Option<&'a str>,
}

/// A message to a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Where it was published.
    pub topic: &'a str,
    /// What.
    pub payload: &'a [u8],
    /// Whether it says that it was retained.
    pub retain: bool,
    /// Properties, as 5.0 has them.
    pub payload_format: Option<u8>,
    /// Seconds that are left.
    pub message_expiry: Option<u32>,
    /// The payload's type.
    pub content_type: Option<&'a str>,
    /// Where an answer is to go.
    pub response_topic: Option<&'a str>,
    /// What an answer is to carry.
    pub correlation_data: Option<&'a [u8]>,
    /// The identifiers of the subscriptions that it is sent for.
    pub subscription_ids: Vec<u32>,
    /// Whatever else, in order.
    pub user: Vec<(&'a str, &'a str)>,
}

fn packet(out: &mut BytesMut, first: u8, body: &[u8]) {
    out.put_u8(first);
    variable(out, body.len());
    out.put_slice(body);
}

fn text(out: &mut BytesMut, number: u8, value: Option<&str>) {
    if let Some(value) = value.filter(|value| fits(value.as_bytes())) {
        out.put_u8(number);
        binary(out, value.as_bytes());
    }
}

fn put_properties(body: &mut BytesMut, properties: &BytesMut) {
    variable(body, properties.len());
    body.put_slice(properties);
}

/// CONNACK.
pub fn connack(
    out: &mut BytesMut,
    version: Version,
    code: u8,
    session_present: bool,
    says: &Connack<'_>,
) {
    let mut body = BytesMut::with_capacity(64);
    body.put_u8(u8::from(session_present));
    body.put_u8(code);
    if version == Version::V5 {
        let mut properties = BytesMut::with_capacity(64);
        if let Some(seconds) = says.session_expiry {
            properties.put_u8(id::SESSION_EXPIRY);
            properties.put_u32(seconds);
        }
        if let Some(count) = says.receive_maximum {
            properties.put_u8(id::RECEIVE_MAXIMUM);
            properties.put_u16(count);
        }
        if let Some(bytes) = says.packet_bytes_max {
            properties.put_u8(id::PACKET_BYTES_MAX);
            properties.put_u32(bytes);
        }
        text(
            &mut properties,
            id::ASSIGNED_CLIENT_ID,
            says.assigned_client_id,
        );
        if let Some(highest) = says.topic_alias_maximum {
            properties.put_u8(id::TOPIC_ALIAS_MAXIMUM);
            properties.put_u16(highest);
        }
        text(&mut properties, id::REASON_STRING, says.reason_string);
        if let Some(seconds) = says.server_keep_alive {
            properties.put_u8(id::SERVER_KEEP_ALIVE);
            properties.put_u16(seconds);
        }
        put_properties(&mut body, &properties);
    }
    packet(out, 0x20, &body);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. 3.1.1 has no code: there, whoever calls has none but 0.
pub fn reply(
    out: &mut BytesMut,
    version: Version,
    kind: AckKind,
    packet_id: u16,
    code: u8,
    reason: Option<&str>,
) {
    let first = match kind {
        AckKind::Puback => 0x40,
        AckKind::Pubrec => 0x50,
        AckKind::Pubrel => 0x62,
        AckKind::Pubcomp => 0x70,
    };
    let mut body = BytesMut::with_capacity(4);
    body.put_u16(packet_id);
    if version == Version::V5 && code != 0 {
        body.put_u8(code);
        if let Some(reason) = reason {
            let mut properties = BytesMut::new();
            text(&mut properties, id::REASON_STRING, Some(reason));
            put_properties(&mut body, &properties);
        }
    }
    packet(out, first, &body);
}

/// SUBACK, with a code for each filter.
pub fn suback(out: &mut BytesMut, version: Version, packet_id: u16, codes: &[u8]) {
    let mut body = BytesMut::with_capacity(3 + codes.len());
    body.put_u16(packet_id);
    if version == Version::V5 {
        body.put_u8(0);
    }
    body.put_slice(codes);
    packet(out, 0x90, &body);
}

/// UNSUBACK, in 5.0 with a code for each filter.
pub fn unsuback(out: &mut BytesMut, version: Version, packet_id: u16, codes: &[u8]) {
    let mut body = BytesMut::with_capacity(3 + codes.len());
    body.put_u16(packet_id);
    if version == Version::V5 {
        body.put_u8(0);
        body.put_slice(codes);
    }
    packet(out, 0xb0, &body);
}

/// PINGRESP.
pub fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// DISCONNECT, which only 5.0 has from a server.
pub fn disconnect(out: &mut BytesMut, code: u8, reason: Option<&str>) {
    let mut body = BytesMut::new();
    body.put_u8(code);
    let mut properties = BytesMut::new();
    text(&mut properties, id::REASON_STRING, reason);
    put_properties(&mut body, &properties);
    packet(out, 0xe0, &body);
}

/// PUBLISH; its packet identifier is 0 for QoS 0 alone. False, and nothing is appended, if it would be longer than `bytes_max`, or
/// something of it longer than MQTT can say.
pub fn publish(
    out: &mut BytesMut,
    version: Version,
    (qos, packet_id): (Qos, u16),
    delivery: &Delivery<'_>,
    bytes_max: usize,
) -> bool {
    assert!(
        (qos == Qos::AtMostOnce) == (packet_id == 0),
        "QoS 0 alone has no id"
    );
    if !fits(delivery.topic.as_bytes()) {
        return false;
    }
    let properties = match version {
        Version::V311 => None,
        Version::V5 => match properties_of(delivery) {
            Some(properties) => Some(properties),
            None => return false,
        },
    };
    let mut length = 2 + delivery.topic.len() + delivery.payload.len();
    if qos != Qos::AtMostOnce {
        length += 2;
    }
    if let Some(properties) = &properties {
        length += variable_bytes(properties.len()) + properties.len();
    }
    if length > 0x0fff_ffff || 1 + variable_bytes(length) + length > bytes_max {
        return false;
    }
    out.reserve(5 + length);
    out.put_u8(0x30 | qos.number() << 1 | u8::from(delivery.retain));
    variable(out, length);
    binary(out, delivery.topic.as_bytes());
    if qos != Qos::AtMostOnce {
        out.put_u16(packet_id);
    }
    if let Some(properties) = &properties {
        put_properties(out, properties);
    }
    out.put_slice(delivery.payload);
    true
}

/// The properties of a message; None if one is longer than MQTT can say.
fn properties_of(delivery: &Delivery<'_>) -> Option<BytesMut> {
    let mut properties = BytesMut::new();
    if let Some(format) = delivery.payload_format {
        properties.put_slice(&[id::PAYLOAD_FORMAT, format]);
    }
    if let Some(seconds) = delivery.message_expiry {
        properties.put_u8(id::MESSAGE_EXPIRY);
        properties.put_u32(seconds);
    }
    let texts = [
        (id::CONTENT_TYPE, delivery.content_type.map(str::as_bytes)),
        (
            id::RESPONSE_TOPIC,
            delivery.response_topic.map(str::as_bytes),
        ),
        (id::CORRELATION_DATA, delivery.correlation_data),
    ];
    for (number, value) in texts {
        let Some(value) = value else { continue };
        if !fits(value) {
            return None;
        }
        properties.put_u8(number);
        binary(&mut properties, value);
    }
    for subscription in &delivery.subscription_ids {
        properties.put_u8(id::SUBSCRIPTION_ID);
        let number = usize::try_from(*subscription).ok()?;
        variable(&mut properties, number);
    }
    for (name, value) in &delivery.user {
        if !fits(name.as_bytes()) || !fits(value.as_bytes()) {
            return None;
        }
        properties.put_u8(id::USER);
        binary(&mut properties, name.as_bytes());
        binary(&mut properties, value.as_bytes());
    }
    Some(properties)
}
