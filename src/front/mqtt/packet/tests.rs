//! Packets as bytes: what the standards show, and what has to be refused.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// A CONNECT's body with these flags, properties (5.0), and payload.
fn connect(level: u8, flags: u8, properties: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([level, flags, 0, 60]);
    if level == 5 {
        body.push(u8::try_from(properties.len()).expect("short"));
        body.extend(properties);
    }
    body.extend(payload.concat());
    body
}

fn fault<T: std::fmt::Debug>(result: Result<T, Fault>) -> Fault {
    result.expect_err("it is refused")
}

#[test]
fn the_standards_connect_is_read() {
    // Figure 3-6 and §3.1.3 of 3.1.1: user name, password, will of QoS 1, clean session, keep alive 10.
    let mut body = text("MQTT");
    body.extend([4, 0b1100_1110, 0, 10]);
    for it in ["id", "will/topic", "gone", "alice", "secret"] {
        body.extend(text(it));
    }
    let read = decode_connect(0x10, &body).expect("a CONNECT");
    let wanted = Connect {
        version: Version::V311,
        clean_start: true,
        keep_alive: 10,
        properties: Properties::default(),
        client_id: "id",
        will: Some(Will {
            topic: "will/topic",
            payload: b"gone",
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
        }),
        user: Some("alice"),
        password: Some(b"secret"),
    };
    assert_eq!(read, wanted);
    for cut in 0..body.len() {
        assert!(decode_connect(0x10, &body[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn a_connect_of_5_0_has_properties() {
    let properties = [
        0x11, 0, 0, 0, 10, // session expiry
        0x21, 0, 20, // receive maximum
        0x27, 0, 1, 0, 0, // maximum packet size
        0x22, 0, 3, // topic alias maximum
        0x17, 0, // request problem information
        0x26, 0, 1, b'a', 0, 1, b'b', 0x26, 0, 1, b'a', 0, 1, b'c', // user properties
    ];
    let body = connect(5, 0x02, &properties, &[&text("id")]);
    let read = decode_connect(0x10, &body).expect("a CONNECT").properties;
    assert_eq!(read.session_expiry, Some(10));
    assert_eq!(read.receive_maximum, Some(20));
    assert_eq!(read.packet_bytes_max, Some(65_536));
    assert_eq!(read.topic_alias_maximum, Some(3));
    assert_eq!(read.request_problem, Some(false));
    assert_eq!(read.user, [("a", "b"), ("a", "c")]);
    // A password may come without a user name in 5.0 (§3.1.2.9), and may not in 3.1.1.
    let body = connect(5, 0x42, &[], &[&text("id"), &text("token")]);
    let read = decode_connect(0x10, &body).expect("a CONNECT");
    assert_eq!((read.user, read.password), (None, Some(&b"token"[..])));
    let body = connect(4, 0x42, &[], &[&text("id"), &text("token")]);
    assert!(decode_connect(0x10, &body).is_err());
}

#[test]
fn a_connect_that_is_none_is_refused() {
    let id = text("id");
    let refused = |level, flags, properties: &[u8], payload: &[&[u8]]| {
        fault(decode_connect(
            0x10,
            &connect(level, flags, properties, payload),
        ))
    };
    let is_malformed = |fault| matches!(fault, Fault::Malformed(_));
    let is_protocol = |fault| matches!(fault, Fault::Protocol(_));
    assert!(is_malformed(refused(4, 0x03, &[], &[&id])), "reserved flag");
    assert!(is_malformed(refused(4, 0x22, &[], &[&id])), "will retain");
    assert!(is_malformed(refused(4, 0x0a, &[], &[&id])), "will QoS");
    let will = [&id[..], &text("t"), &text("m")];
    assert!(is_malformed(refused(4, 0x1e, &[], &will)), "QoS 3");
    assert!(
        is_malformed(refused(4, 0x02, &[], &[&id, &[0]])),
        "trailing"
    );
    let wild = [&id[..], &text("t/#"), &text("m")];
    assert_eq!(refused(4, 0x06, &[], &wild), Fault::TopicName);
    assert_eq!(refused(4, 0x00, &[], &[&text("")]), Fault::ClientId);
    assert_eq!(
        refused(3, 0x02, &[], &[&id]),
        Fault::Version { is_older: true }
    );
    assert_eq!(
        refused(6, 0x02, &[], &[&id]),
        Fault::Version { is_older: false }
    );
    assert!(is_malformed(refused(4, 0x02, &[], &[&text("a\0")])), "NUL");
    let surrogate = [0, 3, 0xed, 0xa0, 0x80];
    assert!(is_malformed(refused(4, 0x02, &[], &[&surrogate])));
    let overlong = [0, 2, 0xc0, 0x80];
    assert!(is_malformed(refused(4, 0x02, &[], &[&overlong])));
    for (properties, what) in [
        (&[0x21, 0, 0][..], "receive maximum 0"),
        (&[0x27, 0, 0, 0, 0], "maximum packet size 0"),
        (&[0x21, 0, 1, 0x21, 0, 1], "twice"),
        (&[0x17, 2], "neither 0 nor 1"),
        (&[0x16, 0, 0], "data without a method"),
    ] {
        assert!(is_protocol(refused(5, 0x02, properties, &[&id])), "{what}");
    }
    assert!(
        is_malformed(refused(5, 0x02, &[0x01, 0], &[&id])),
        "a publish's"
    );
    assert!(is_protocol(fault(decode_connect(0xc0, &[]))));
}

#[test]
fn a_publish_is_a_view_of_its_bytes() {
    let mut body = text("a/b");
    body.extend([0, 10]);
    body.extend(b"payload");
    let read = decode(Version::V311, 0x3b, &body).expect("a PUBLISH");
    let wanted = Publish {
        dup: true,
        qos: Qos::AtLeastOnce,
        retain: true,
        topic: "a/b",
        packet_id: 10,
        properties: Properties::default(),
        payload: b"payload",
    };
    assert_eq!(read, Incoming::Publish(wanted));
    // QoS 1 that ends behind its topic, or inside of the identifier.
    for cut in 0..7 {
        let refused = fault(decode(Version::V5, 0x32, &body[..cut]));
        assert!(matches!(refused, Fault::Malformed(_)), "{cut}");
    }
}

#[test]
fn a_publish_that_is_none_is_refused() {
    let refused = |version, first, parts: &[&[u8]]| fault(decode(version, first, &parts.concat()));
    let v5 = Version::V5;
    let (topic, id, none) = (text("t"), [0, 1], [0]);
    for (first, parts, what) in [
        (0x36, [&topic[..], &id, &none], "QoS 3"),
        (0x38, [&topic, &none, &[]], "DUP with QoS 0"),
    ] {
        let fault = refused(v5, first, &parts);
        assert!(matches!(fault, Fault::Malformed(_)), "{what}");
    }
    let fault = refused(v5, 0x32, &[&topic, &[0, 0], &none]);
    assert!(matches!(fault, Fault::Protocol(_)), "identifier 0");
    for wild in ["a/+", "#"] {
        assert_eq!(refused(v5, 0x30, &[&text(wild), &none]), Fault::TopicName);
    }
    let empty = text("");
    assert!(matches!(
        refused(v5, 0x30, &[&empty, &none]),
        Fault::Protocol(_)
    ));
    assert_eq!(refused(Version::V311, 0x30, &[&empty]), Fault::TopicName);
    let alias = [3, 0x23, 0, 0];
    assert_eq!(refused(v5, 0x30, &[&topic, &alias]), Fault::TopicAlias);
    let subscription = [2, 0x0b, 1];
    let fault = refused(v5, 0x30, &[&topic, &subscription]);
    assert!(matches!(fault, Fault::Protocol(_)), "subscription id");
    let response = [4, 0x08, 0, 1, b'#'];
    let fault = refused(v5, 0x30, &[&topic, &response]);
    assert!(matches!(fault, Fault::Protocol(_)), "response topic");
}

#[test]
fn a_subscribe_has_filters_with_options() {
    let mut body = vec![0, 10, 2, 0x0b, 7];
    body.extend(text("a/b"));
    body.push(0x01);
    body.extend(text("c/#"));
    body.push(0x2e);
    let Incoming::Subscribe(read) = decode(Version::V5, 0x82, &body).expect("a SUBSCRIBE") else {
        panic!("no SUBSCRIBE");
    };
    assert_eq!(read.properties.subscription_id, Some(7));
    assert_eq!((read.packet_id, read.filters.len()), (10, 2));
    assert_eq!(read.filters[0].qos, Qos::AtLeastOnce);
    let second = read.filters[1];
    assert!(second.no_local && second.retain_as_published);
    assert_eq!(second.retain_handling, RetainHandling::Never);
    for (version, options) in [
        (Version::V311, 0x03),
        (Version::V311, 0x04),
        (Version::V5, 0x03),
        (Version::V5, 0x40),
        (Version::V5, 0x30),
    ] {
        let mut body = vec![0, 1];
        body.extend(vec![0; usize::from(version == Version::V5)]);
        body.extend(text("a"));
        body.push(options);
        assert!(decode(version, 0x82, &body).is_err(), "{options:#x}");
    }
    assert!(decode(Version::V311, 0x82, &[0, 1]).is_err(), "no filter");
    assert!(decode(Version::V311, 0xa2, &[0, 1]).is_err(), "no filter");
    assert!(decode(Version::V311, 0x80, &[0, 1]).is_err(), "flags");
}

#[test]
fn acks_and_the_end_are_read_with_and_without_a_reason() {
    let ack = |kind, reason| {
        Incoming::Ack(Ack {
            kind,
            packet_id: 3,
            reason,
        })
    };
    for (first, kind) in [
        (0x40, AckKind::Puback),
        (0x50, AckKind::Pubrec),
        (0x62, AckKind::Pubrel),
        (0x70, AckKind::Pubcomp),
    ] {
        for version in [Version::V311, Version::V5] {
            assert_eq!(decode(version, first, &[0, 3]), Ok(ack(kind, 0)));
            assert!(decode(version, first, &[0, 0]).is_err(), "identifier 0");
            assert!(decode(version, first ^ 1, &[0, 3]).is_err(), "flags");
        }
        assert!(
            decode(Version::V311, first, &[0, 3, 0]).is_err(),
            "trailing"
        );
        assert!(decode(Version::V5, first, &[0, 3, 0x01]).is_err(), "reason");
    }
    let unknown = decode(Version::V5, 0x62, &[0, 3, 0x92, 0]);
    assert_eq!(unknown, Ok(ack(AckKind::Pubrel, 0x92)));
    let bare = decode(Version::V5, 0xe0, &[]);
    assert_eq!(bare, Ok(Incoming::Disconnect(Disconnect::default())));
    let with_will = decode(Version::V5, 0xe0, &[4, 5, 0x11, 0, 0, 0, 1]);
    let wanted = Disconnect {
        reason: 4,
        session_expiry: Some(1),
    };
    assert_eq!(with_will, Ok(Incoming::Disconnect(wanted)));
    assert!(
        decode(Version::V5, 0xe0, &[0x8b]).is_err(),
        "a server's reason"
    );
    assert_eq!(decode(Version::V311, 0xc0, &[]), Ok(Incoming::Pingreq));
    for (first, what) in [
        (0x10, "CONNECT"),
        (0x20, "CONNACK"),
        (0x90, "SUBACK"),
        (0xb0, "UNSUBACK"),
        (0xd0, "PINGRESP"),
        (0xf0, "AUTH"),
        (0x00, "none"),
    ] {
        for version in [Version::V311, Version::V5] {
            assert!(decode(version, first, &[]).is_err(), "{what}");
        }
    }
}

#[test]
fn headers_are_read_as_far_as_they_are_there() {
    for (bytes, packet_bytes) in [
        (&[0x30, 0x00][..], 2),
        (&[0x30, 0x7f], 129),
        (&[0x30, 0x80, 0x01], 131),
        (&[0x30, 0xff, 0xff, 0xff, 0x7f], PACKET_BYTES_MAX),
    ] {
        let read = header(bytes).expect("a length").expect("all of it");
        assert_eq!(read.packet_bytes, packet_bytes);
        for cut in 0..bytes.len() {
            assert_eq!(header(&bytes[..cut]), Ok(None));
        }
    }
    assert_eq!(header(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(HeaderError));
}

#[test]
fn what_is_sent_is_as_the_standard_shows_it() {
    let mut out = BytesMut::new();
    connack(&mut out, Version::V311, 0, false, &Connack::default());
    assert_eq!(out[..], [0x20, 2, 0, 0]);
    out.clear();
    let says = Connack {
        receive_maximum: Some(64),
        ..Connack::default()
    };
    connack(&mut out, Version::V5, 0, false, &says);
    assert_eq!(out[..], [0x20, 6, 0, 0, 3, 0x21, 0, 64]);
    out.clear();
    reply(&mut out, Version::V5, AckKind::Puback, 1, 0x87, Some("no"));
    assert_eq!(out[..], [0x40, 9, 0, 1, 0x87, 5, 0x1f, 0, 2, b'n', b'o']);
    out.clear();
    reply(&mut out, Version::V311, AckKind::Pubrel, 1, 0, None);
    assert_eq!(out[..], [0x62, 2, 0, 1]);
    out.clear();
    suback(&mut out, Version::V5, 7, &[1, 0x8f]);
    assert_eq!(out[..], [0x90, 5, 0, 7, 0, 1, 0x8f]);
    out.clear();
    unsuback(&mut out, Version::V311, 7, &[0]);
    assert_eq!(out[..], [0xb0, 2, 0, 7]);
    out.clear();
    disconnect(&mut out, 0x8e, None);
    assert_eq!(out[..], [0xe0, 2, 0x8e, 0]);
    out.clear();
    let delivery = Delivery {
        topic: "a/b",
        payload: b"x",
        subscription_ids: vec![300],
        user: vec![("k", "v")],
        ..Delivery::default()
    };
    let sent = publish(
        &mut out,
        Version::V5,
        (Qos::AtLeastOnce, 9),
        &delivery,
        1_000,
    );
    assert!(sent);
    let wanted = [
        0x32, 19, 0, 3, b'a', b'/', b'b', 0, 9, 10, 0x0b, 0xac, 0x02, 0x26, 0, 1, b'k', 0, 1, b'v',
        b'x',
    ];
    assert_eq!(out[..], wanted);
    let whole = out.len();
    for (bytes_max, fits) in [(whole, true), (whole - 1, false)] {
        out.clear();
        let sent = publish(
            &mut out,
            Version::V5,
            (Qos::AtLeastOnce, 9),
            &delivery,
            bytes_max,
        );
        assert_eq!((sent, out.is_empty()), (fits, !fits));
    }
}

proptest! {
    /// Whatever comes is a packet or a fault, and a packet that a header does not announce whole is none.
    #[test]
    fn any_bytes_are_a_packet_or_a_fault(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode_connect(first, &body);
        for version in [Version::V311, Version::V5] {
            let _ = decode(version, first, &body);
        }
        let _ = header(&body);
    }

    /// What is sent as a message reads as the same message, but for what only servers say.
    #[test]
    fn a_message_that_is_sent_reads_as_it_was(
        topic in "[a-z/]{1,20}", payload in prop::collection::vec(any::<u8>(), 0..300),
        qos in 0u8..3, packet_id in 1u16.., user in prop::collection::vec(("[a-z]{0,5}", "[a-z]{0,5}"), 0..4),
        expiry in prop::option::of(any::<u32>()), retain in any::<bool>(),
    ) {
        let qos = Qos::of(qos).expect("a QoS");
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { packet_id };
        let user: Vec<(&str, &str)> = user.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for version in [Version::V311, Version::V5] {
            let delivery = Delivery {
                topic: &topic, payload: &payload, retain, message_expiry: expiry, user: user.clone(), ..Delivery::default()
            };
            let mut out = BytesMut::new();
            prop_assert!(publish(&mut out, version, (qos, packet_id), &delivery, PACKET_BYTES_MAX));
            let header = header(&out).expect("a length").expect("a header");
            prop_assert_eq!(header.packet_bytes, out.len());
            let read = decode(version, header.first, &out[header.header_bytes..]).expect("a packet");
            let properties = match version {
                Version::V311 => Properties::default(),
                Version::V5 => Properties { message_expiry: expiry, user: user.clone(), ..Properties::default() },
            };
            let wanted = Publish { dup: false, qos, retain, topic: &topic, packet_id, properties, payload: &payload };
            prop_assert_eq!(read, Incoming::Publish(wanted));
        }
    }
}
