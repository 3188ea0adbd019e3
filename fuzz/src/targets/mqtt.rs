//! MQTT's packets both ways: what a client may send, judged beside another implementation, and what a client is sent, read by it.

use alluvium::front::mqtt::packet::{
    AckKind, Connack, Connect, Delivery, Incoming, PACKET_BYTES_MAX, Qos, Version, connack, decode,
    decode_connect, disconnect, header, publish, reply, suback, unsuback,
};
use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use std::sync::Arc;

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let version = match kind & 0x80 {
        0 => Version::V311,
        _ => Version::V5,
    };
    match kind & 0x0f {
        0 => connects(rest),
        1 => packets(version, rest),
        2 => stream(version, rest),
        3 => messages(version, rest),
        _ => answers(version, rest),
    }
}

/// What we take, the other one takes: we are the stricter, where it is not stricter than the standard.
fn connects(data: &[u8]) {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let Ok(connect) = decode_connect(*first, body) else {
        return;
    };
    let Connect { version, .. } = connect;
    let theirs = match version {
        Version::V311 => v3_1_1::Connect::parse(body).map(|(_, bytes)| bytes),
        Version::V5 => v5_0::Connect::parse(body).map(|(_, bytes)| bytes),
    };
    // In 5.0 a password needs no user name (§3.1.2.9).
    let is_lenient = connect.password.is_some() && connect.user.is_none();
    assert!(is_lenient || theirs == Ok(body.len()), "{connect:?}");
}

fn packets(version: Version, data: &[u8]) {
    let Some((first, body)) = data.split_first() else {
        return;
    };
    let Ok(packet) = decode(version, *first, body) else {
        return;
    };
    let theirs = match (version, &packet) {
        (Version::V311, Incoming::Publish(ours)) => {
            let theirs = v3_1_1::Publish::parse(first & 0x0f, Arc::from(body));
            let (theirs, bytes) = theirs.expect("a PUBLISH");
            assert_eq!(theirs.topic_name(), ours.topic);
            assert_eq!(theirs.payload().as_slice(), ours.payload);
            Ok(bytes)
        }
        (Version::V5, Incoming::Publish(ours)) => {
            let theirs = v5_0::Publish::parse(first & 0x0f, Arc::from(body));
            let (theirs, bytes) = theirs.expect("a PUBLISH");
            assert_eq!(theirs.topic_name(), ours.topic);
            assert_eq!(theirs.payload().as_slice(), ours.payload);
            assert_eq!(theirs.packet_id().unwrap_or(0), ours.packet_id);
            Ok(bytes)
        }
        (version, Incoming::Ack(ack)) => match (version, ack.kind) {
            (Version::V311, AckKind::Puback) => v3_1_1::Puback::parse(body).map(|it| it.1),
            (Version::V311, AckKind::Pubrec) => v3_1_1::Pubrec::parse(body).map(|it| it.1),
            (Version::V311, AckKind::Pubrel) => v3_1_1::Pubrel::parse(body).map(|it| it.1),
            (Version::V311, AckKind::Pubcomp) => v3_1_1::Pubcomp::parse(body).map(|it| it.1),
            (Version::V5, AckKind::Puback) => v5_0::Puback::parse(body).map(|it| it.1),
            (Version::V5, AckKind::Pubrec) => v5_0::Pubrec::parse(body).map(|it| it.1),
            (Version::V5, AckKind::Pubrel) => v5_0::Pubrel::parse(body).map(|it| it.1),
            (Version::V5, AckKind::Pubcomp) => v5_0::Pubcomp::parse(body).map(|it| it.1),
        },
        // It judges names of shares and filters in the packet; we answer each filter.
        (_, Incoming::Subscribe(_) | Incoming::Unsubscribe(_)) => Ok(body.len()),
        (_, Incoming::Pingreq) | (Version::V311, Incoming::Disconnect(_)) => Ok(body.len()),
        (Version::V5, Incoming::Disconnect(_)) => v5_0::Disconnect::parse(body).map(|it| it.1),
    };
    assert_eq!(theirs, Ok(body.len()), "{packet:?}");
}

/// Packets behind each other, as a connection cuts them.
fn stream(version: Version, mut data: &[u8]) {
    while let Ok(Some(found)) = header(data) {
        assert!(found.packet_bytes <= PACKET_BYTES_MAX && found.header_bytes <= 5);
        let Some((packet, rest)) = data.split_at_checked(found.packet_bytes) else {
            return;
        };
        let _ = decode(version, found.first, &packet[found.header_bytes..]);
        data = rest;
    }
}

/// A packet's header's first byte and body, and that it is one packet.
fn cut(packet: &BytesMut) -> (u8, &[u8]) {
    let found = header(packet).expect("a length").expect("a header");
    assert_eq!(found.packet_bytes, packet.len());
    (found.first, &packet[found.header_bytes..])
}

fn messages(version: Version, data: &[u8]) {
    let [qos, id, number, cut_at, rest @ ..] = data else {
        return;
    };
    let qos = Qos::of(qos % 3).expect("one of three");
    let packet_id = match qos {
        Qos::AtMostOnce => 0,
        _ => u16::from(*id) + 1,
    };
    let (text, payload) = rest.split_at(usize::from(*cut_at).min(rest.len()));
    let text = String::from_utf8_lossy(text).replace(['\0', '+', '#'], "x");
    let delivery = Delivery {
        topic: if text.is_empty() { "t" } else { &text },
        payload,
        retain: number % 2 == 0,
        payload_format: (number % 3 == 0).then_some(number % 2),
        message_expiry: (number % 5 != 0).then_some(u32::from(*number)),
        content_type: (number % 7 == 0).then_some(&text),
        response_topic: (number % 11 == 0).then_some("answers"),
        correlation_data: (number % 13 == 0)
            .then_some(payload)
            .filter(|it| it.len() < 65_536),
        subscription_ids: (1..=u32::from(number % 4)).map(|it| it * 1_000).collect(),
        user: vec![(&text, &text); usize::from(number % 3)],
    };
    let mut out = BytesMut::new();
    let bytes_max = usize::from(*number) * 8;
    let sent = publish(&mut out, version, (qos, packet_id), &delivery, bytes_max);
    assert_eq!(sent, !out.is_empty());
    assert!(out.len() <= bytes_max);
    if !sent {
        return;
    }
    let (first, body) = cut(&out);
    let (topic, theirs, bytes) = match version {
        Version::V311 => {
            let theirs = v3_1_1::Publish::parse(first & 0x0f, Arc::from(body));
            let (theirs, bytes) = theirs.expect("a PUBLISH");
            let payload = theirs.payload().as_slice().to_vec();
            (theirs.topic_name().to_owned(), payload, bytes)
        }
        Version::V5 => {
            let theirs = v5_0::Publish::parse(first & 0x0f, Arc::from(body));
            let (theirs, bytes) = theirs.expect("a PUBLISH");
            let payload = theirs.payload().as_slice().to_vec();
            (theirs.topic_name().to_owned(), payload, bytes)
        }
    };
    assert_eq!(
        (topic.as_str(), &theirs[..], bytes),
        (delivery.topic, payload, body.len())
    );
}

fn answers(version: Version, data: &[u8]) {
    let [which, id, code, rest @ ..] = data else {
        return;
    };
    let packet_id = u16::from(*id) + 1;
    let text = String::from_utf8_lossy(rest).replace('\0', "x");
    let reason = Some(text.as_str()).filter(|text| !text.is_empty());
    let code = [0x00, 0x80, 0x83, 0x87, 0x97][usize::from(code % 5)];
    let mut out = BytesMut::new();
    let theirs = match (which % 6, version) {
        (0, Version::V5) => {
            let says = Connack {
                session_expiry: (code == 0).then_some(0),
                receive_maximum: Some(packet_id),
                packet_bytes_max: Some(1 << 20),
                topic_alias_maximum: Some(packet_id),
                assigned_client_id: Some("id"),
                server_keep_alive: Some(packet_id),
                reason_string: reason,
            };
            connack(&mut out, version, code, false, &says);
            v5_0::Connack::parse(cut(&out).1).map(|it| it.1)
        }
        (0, Version::V311) => {
            connack(&mut out, version, code % 6, false, &Connack::default());
            v3_1_1::Connack::parse(cut(&out).1).map(|it| it.1)
        }
        (1, Version::V5) => {
            reply(&mut out, version, AckKind::Puback, packet_id, code, reason);
            v5_0::Puback::parse(cut(&out).1).map(|it| it.1)
        }
        (2, Version::V5) => {
            let code = if code == 0 { 0 } else { 0x92 };
            reply(&mut out, version, AckKind::Pubrel, packet_id, code, reason);
            v5_0::Pubrel::parse(cut(&out).1).map(|it| it.1)
        }
        (3, Version::V5) => {
            suback(&mut out, version, packet_id, &[code]);
            v5_0::Suback::parse(cut(&out).1).map(|it| it.1)
        }
        (4, Version::V5) => {
            unsuback(&mut out, version, packet_id, &[0x11]);
            v5_0::Unsuback::parse(cut(&out).1).map(|it| it.1)
        }
        (_, Version::V5) => {
            disconnect(&mut out, 0x8e, reason);
            v5_0::Disconnect::parse(cut(&out).1).map(|it| it.1)
        }
        (_, Version::V311) => {
            reply(&mut out, version, AckKind::Puback, packet_id, 0, None);
            v3_1_1::Puback::parse(cut(&out).1).map(|it| it.1)
        }
    };
    assert_eq!(theirs, Ok(cut(&out).1.len()));
}

/// A packet of each kind, and what ours sends.
pub fn seeds() -> Vec<Vec<u8>> {
    let connect_5 =
        b"\x10\0\x04MQTT\x05\xc6\0\x3c\x05\x11\0\0\0\x0a\0\x02id\0\0\x01t\0\x01m\0\x01u\0\x01p";
    let connect_3 = b"\x10\0\x04MQTT\x04\x02\0\x3c\0\x02id";
    let seeds: [(u8, &[u8]); 16] = [
        (0x00, connect_3),
        (0x80, connect_5),
        (0x01, b"\x32\0\x01t\0\x01payload"),
        (
            0x81,
            b"\x34\0\x01t\0\x01\x08\x23\0\x01\x02\0\0\0\x0apayload",
        ),
        (0x81, b"\x30\0\x01t\x07\x26\0\x01k\0\x01vpayload"),
        (0x01, b"\x40\0\x01"),
        (0x81, b"\x50\0\x01\x92\0"),
        (0x81, b"\x62\0\x01"),
        (0x01, b"\x82\0\x01\0\x03a/#\x01"),
        (0x81, b"\x82\0\x01\x02\x0b\x05\0\x03a/#\x29"),
        (0x81, b"\xa2\0\x01\0\0\x03a/#"),
        (0x81, b"\xe0\x04\x05\x11\0\0\0\0"),
        (0x82, b"\xc0\0\x30\x05\0\x01t\0x\xe0\0"),
        (0x83, b"\x01\x07\x5a\x05topicpayload"),
        (0x03, b"\x02\x07\x5a\x05topicpayload"),
        (0x84, b"\x00\x05\x03why"),
    ];
    let answers = (0..6).flat_map(|which| [vec![0x84, which, 1, 3, b'w'], vec![0x04, which, 1, 0]]);
    let seeds = seeds
        .into_iter()
        .map(|(kind, rest)| [&[kind], rest].concat());
    seeds.chain(answers).collect()
}
