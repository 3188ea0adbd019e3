//! AMQP 1.0: values, performatives, messages, logins and frames, each of which returns from its encoding as it was.

use amqp::frame::{FRAME_BYTES_MIN, header};
use amqp::message::Message;
use amqp::performative::Performative;
use amqp::reader::{decode, split};
use amqp::sasl::SaslFrame;
use amqp::{Array, BytesMut, Described, Value, writer};

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 5 {
        0 => values(rest),
        1 => performatives(rest),
        2 => messages(rest),
        3 => logins(rest),
        _ => frames(rest),
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
    let seeds = seeds.into_iter();
    seeds.map(|(kind, rest)| [&[kind], rest].concat()).collect()
}
