//! AMQP 1.0: values, performatives, messages, logins and frames, each of which returns from its encoding as it was; and
//! connections of whatever frames.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use amqp::endpoint::{Attached, Endpoint, Event, Settings};
use amqp::frame::{self, FRAME_BYTES_MIN, FrameKind, Protocol, header};
use amqp::message::Message;
use amqp::performative::{Attach, Performative};
use amqp::reader::{decode, split};
use amqp::sasl::{SaslCode, SaslFrame};
use amqp::state::DeliveryState;
use amqp::{Array, Bytes, BytesMut, Described, Multiple, Value, writer};

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 6 {
        0 => values(rest),
        1 => performatives(rest),
        2 => messages(rest),
        3 => logins(rest),
        4 => frames(rest),
        _ => connections(rest),
    }
}

/// How many values there are in a value, itself included.
fn count(value: &Value<'_>) -> usize {
    let within: usize = match value {
        Value::List(list) => list.iter().map(|it| count(&it)).sum(),
        Value::Map(map) => map.iter().map(|(k, v)| count(&k) + count(&v)).sum(),
        Value::Array(array) => of_array(array),
        Value::Described(it) => of_described(it),
        _ => 0,
    };
    within + 1
}

fn of_array(array: &Array<'_>) -> usize {
    // Those of no bytes need not be walked one by one.
    let walked = array.iter().take(64).map(|it| count(&it)).sum::<usize>();
    assert!(array.is_empty() || walked > 0);
    walked
}

fn of_described(it: &Described<'_>) -> usize {
    assert!(matches!(
        it.descriptor(),
        Value::Ulong(_) | Value::Symbol(_)
    ));
    count(&it.value())
}

fn encoded(value: &Value<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    writer::put_value(&mut out, value);
    out
}

fn values(data: &[u8]) {
    let Ok((value, behind)) = split(data) else {
        return;
    };
    assert!(data.ends_with(behind));
    count(&value);
    let list = match value {
        Value::List(list) => list.iter().count() == list.len(),
        Value::Map(map) => map.iter().count() == map.len(),
        Value::Array(array) => array.iter().count() == array.len(),
        _ => true,
    };
    assert!(list, "what was checked is walked to its end");
    // Floats that are no numbers are not equal to themselves: encodings are compared.
    let ours = encoded(&value);
    assert!(ours.len() <= data.len() - behind.len());
    assert_eq!(ours, encoded(&decode(&ours).expect("our own encoding")));
}

fn performatives(data: &[u8]) {
    let Ok((found, payload)) = Performative::split(data) else {
        return;
    };
    let mut ours = BytesMut::new();
    found.put(&mut ours);
    ours.extend_from_slice(payload);
    let (again, behind) = Performative::split(&ours).expect("our own encoding");
    assert_eq!(behind, payload);
    let mut twice = BytesMut::new();
    again.put(&mut twice);
    twice.extend_from_slice(payload);
    assert_eq!(ours, twice);
}

fn messages(data: &[u8]) {
    let Ok(message) = Message::of(data) else {
        return;
    };
    // Sections are parts of the payload.
    let parts = [
        message.message_annotations.map(|it| it.1),
        message.properties.map(|it| it.1),
        message.application_properties.map(|it| it.1),
        Some(message.body_encoded),
        message.footer.map(|it| it.1),
    ];
    let mut sections = Vec::new();
    for part in parts.into_iter().flatten() {
        sections.extend_from_slice(part);
    }
    assert!(sections.len() <= data.len());
    let again = Message::of(&sections).expect("the sections of a message");
    assert_eq!(again.body_encoded, message.body_encoded);
    let parts = |it: &Message<'_>| {
        let annotations = it.message_annotations.map(|it| it.1.to_vec());
        (annotations, it.properties.map(|it| it.1.to_vec()))
    };
    assert_eq!(parts(&again), parts(&message));
}

fn logins(data: &[u8]) {
    let Ok(found) = SaslFrame::decode(data) else {
        return;
    };
    let mut ours = BytesMut::new();
    found.put(&mut ours);
    assert!(SaslFrame::decode(&ours).is_ok());
}

/// Frames behind each other, as an endpoint cuts them.
fn frames(mut data: &[u8]) {
    while let Ok(Some(found)) = header(data, FRAME_BYTES_MIN) {
        assert!(found.body_at >= 8 && found.body_at <= found.frame_bytes);
        let Some((frame, rest)) = data.split_at_checked(found.frame_bytes) else {
            return;
        };
        let _ = Performative::split(&frame[found.body_at..]);
        data = rest;
    }
}

fn settings() -> Settings {
    Settings {
        container_id: "us".to_owned(),
        frame_bytes_max: 4_096,
        channel_max: 3,
        handle_max: 7,
        links_max: 16,
        silence_max: Duration::from_secs(60),
        window: 8,
        message_bytes_max: 6_000,
        partial_bytes_max: 9_000,
        unsettled_max: 20,
        first_id: u32::MAX - 3,
        mechanisms: vec!["PLAIN"],
        allows_bare: true,
    }
}

/// An answer to an `attach` as it was asked for.
fn attached<'a>(attach: &Attach<'a>) -> Attached<'a> {
    Attached {
        source: attach.source,
        target: attach.target,
        snd_settle_mode: attach.snd_settle_mode,
        rcv_settle_mode: attach.rcv_settle_mode,
        offered_capabilities: Multiple::None,
        properties: None,
    }
}

/// A connection of a front that accepts all and sends what it can: what is held and sent stays bounded.
fn connections(data: &[u8]) {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(settings(), now);
    let mut links = BTreeSet::new();
    let mut input = BytesMut::from(data);
    let mut taken = 0;
    while let Some(frame) = endpoint.cut(&mut input, now) {
        taken += 1;
        match endpoint.receive(&frame) {
            Some(Event::Login(_)) => endpoint.logged_in(SaslCode::Ok, None),
            Some(Event::Open(_)) => endpoint.accept_open(&[], None),
            Some(Event::Attach { link, attach, .. }) => {
                let accepted = endpoint.accept(link, &attached(&attach));
                if accepted {
                    endpoint.grant(link, 5);
                    links.insert(link);
                }
            }
            Some(Event::Delivery(link, delivery)) => {
                assert!(delivery.payload.len() <= 6_000);
                let ids = (delivery.id, delivery.id);
                endpoint.settle(link.channel, ids, DeliveryState::Accepted);
            }
            Some(Event::Settled(said)) if !said.settled => {
                for (link, id) in said.deliveries {
                    endpoint.settle_sent(link.channel, (id, id), said.state);
                }
            }
            _ => {}
        }
        for link in &links {
            let mut sent = 0;
            while endpoint.can_send(*link) && sent < 8 {
                let before = endpoint.credit(*link);
                let id = endpoint.send(*link, sent % 2 == 0, Bytes::from_static(&[7; 700]));
                assert!(id.is_some() && endpoint.credit(*link) == before - 1);
                sent += 1;
            }
            endpoint.drained(*link);
        }
    }
    // Each answer is short, and each link sends a little after each frame.
    let per_frame = 16 * 8 * 1_200 + 9_000;
    assert!(endpoint.output().len() <= 1_024 + taken * per_frame);
    endpoint.tick(now + Duration::from_secs(61));
    assert!(endpoint.is_over());
}

/// Frames of a connection from its header on, and what is pipelined behind it.
fn connection(performatives: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = BytesMut::from(&Protocol::Amqp.bytes()[..]);
    for (channel, body) in performatives {
        frame::put(&mut bytes, FrameKind::Amqp, *channel, |out| {
            out.extend_from_slice(body);
        });
    }
    [&[5], &bytes[..]].concat()
}

/// A composite: its descriptor, and so many fields.
fn listed(code: u8, count: u8, fields: &[u8]) -> Vec<u8> {
    let length = u8::try_from(fields.len() + 1).expect("short");
    [&[0x00, 0x53, code, 0xc0, length, count], fields].concat()
}

/// Values of each kind, performatives, messages, a login, and frames.
pub fn seeds() -> Vec<Vec<u8>> {
    let seeds: [(u8, &[u8]); 18] = [
        (0, b"\xd0\0\0\0\x0d\0\0\0\x02\xc1\x06\x02\xa3\x01k\xa1\x00\x40"),
        (0, b"\xe0\x08\x02\x00\x53\x70\xa1\x01a\x00"),
        (0, b"\xf0\0\0\0\x05\0\0\x10\x00\x40"),
        (0, b"\x00\xa3\x03a:b\x00\x53\x01\x45"),
        (0, b"\x98\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"),
        (0, b"\x72\x7f\xc0\0\0"),
        (1, b"\x00\x53\x10\xc0\x10\x04\xa1\x01c\xa1\x01h\x70\0\x02\0\0\x60\0\xff"),
        (1, b"\x00\x53\x11\xc0\x0c\x05\x40\x43\x70\0\0\x08\0\x52\x05\x52\xff"),
        (
            1,
            b"\x00\x53\x12\xc0\x26\x07\xa1\x01l\x43\x41\x50\x02\x50\0\x00\x53\x28\xc0\x04\x01\xa1\x01a\x00\x53\x29\xc0\x04\x01\xa1\x01b\x00\x00\x00\x00\x00\x00\x00\x00",
        ),
        (1, b"\x00\x53\x13\xc0\x0e\x09\x43\x52\x10\x43\x52\x10\x43\x43\x52\x64\x40\x41"),
        (1, b"\x00\x53\x14\xc0\x0a\x05\x43\x43\xa0\x01t\x43\x42\x00\x53\x75\xa0\x01a"),
        (1, b"\x00\x53\x15\xc0\x08\x05\x41\x43\x40\x41\x00\x53\x24\x45"),
        (1, b"\x00\x53\x16\xc0\x17\x03\x43\x41\x00\x53\x1d\xc0\x10\x01\xa3\x0damqp:not-fund"),
        (
            2,
            b"\x00\x53\x70\xc0\x02\x01\x41\x00\x53\x72\xc1\x06\x02\xa3\x01k\xa1\x00\x00\x53\x73\xc0\x04\x01\xa1\x01i\x00\x53\x74\xc1\x01\x00\x00\x53\x75\xa0\x01a\x00\x53\x78\xc1\x01\x00",
        ),
        (2, b"\x00\x53\x76\x45\x00\x53\x76\x45"),
        (2, b"\x00\x53\x77\xa1\x01a"),
        (3, b"\x00\x53\x41\xc0\x0e\x02\xa3\x05PLAIN\xa0\x04\0u\0p"),
        (4, b"\0\0\0\x08\x02\0\0\0\0\0\0\x0c\x02\0\0\0\x00\x53\x17\x45"),
    ];
    let open = listed(0x10, 4, b"\xa1\x01c\xa1\x01h\x70\0\0\x02\0\x60\0\xff");
    let begin = listed(0x11, 4, b"\x40\x43\x52\x40\x52\x40");
    let sender = listed(0x12, 10, b"\xa1\x01l\x43\x42\x40\x40\x40\x40\x40\x40\x43");
    let receiver = listed(0x12, 3, b"\xa1\x01r\x52\x01\x41");
    let transfer = listed(0x14, 5, b"\x43\x43\xa0\x01t\x43\x42");
    let transfer = [&transfer[..], b"\x00\x53\x75\xa0\x01a"].concat();
    let flow = b"\x70\xff\xff\xff\xfc\x52\x10\x43\x52\x10\x52\x01\x43\x52\x64\x40\x41\x41";
    let flow = listed(0x13, 10, flow);
    let said = listed(
        0x15,
        5,
        b"\x41\x70\xff\xff\xff\xfc\x52\x09\x42\x00\x53\x24\x45",
    );
    let detach = listed(0x16, 2, b"\x52\x01\x41");
    let [end, close] = [0x17, 0x18].map(|code| listed(code, 0, b""));
    let connections = [
        connection(&[
            (0, &open),
            (0, &begin),
            (0, &sender),
            (0, &transfer),
            (0, &receiver),
            (0, &flow),
            (0, &said),
            (0, &detach),
            (0, &end),
            (0, &close),
        ]),
        connection(&[
            (0, &open),
            (1, &begin),
            (2, &begin),
            (1, &receiver),
            (2, &receiver),
            (1, &flow),
        ]),
    ];
    let seeds = seeds.into_iter();
    let seeds = seeds.map(|(kind, rest)| [&[kind], rest].concat());
    seeds.chain(connections).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_connections_are_understood() {
        let seeds = seeds();
        let connections = seeds.iter().filter(|seed| seed[0] == 5);
        for seed in connections {
            let now = Instant::now();
            let mut endpoint = Endpoint::new(settings(), now);
            let mut input = BytesMut::from(&seed[1..]);
            while let Some(frame) = endpoint.cut(&mut input, now) {
                match endpoint.receive(&frame) {
                    Some(Event::Open(_)) => endpoint.accept_open(&[], None),
                    Some(Event::Attach { link, attach, .. }) => {
                        let with = attached(&attach);
                        assert!(endpoint.accept(link, &with));
                        endpoint.grant(link, 5);
                    }
                    Some(Event::Fault(fault)) => panic!("{fault}"),
                    _ => {}
                }
            }
        }
    }
}
