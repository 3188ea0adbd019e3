//! The codec beside bytes that were put together by hand, and beside a naive encoder of the same values.

use alluvium_amqp::message::{Body, Header, Message, Properties};
use alluvium_amqp::performative::{Attach, Begin, Open, Performative, Role, Transfer};
use alluvium_amqp::reader::{decode, split};
use alluvium_amqp::sasl::{SaslFrame, SaslInit};
use alluvium_amqp::state::{DeliveryState, Modified, Rejected};
use alluvium_amqp::terminus::{AnyTarget, Source, Target, TerminusDurability};
use alluvium_amqp::{
    BytesMut, Composite, DEPTH_MAX, DecodeError, Field, MapBuf, Multiple, Symbol, Value, writer,
};
use proptest::prelude::*;

#[test]
fn each_format_code_decodes_as_the_standard_says() {
    let uuid = [7; 16];
    for (bytes, expected) in [
        (&b"\x40"[..], Value::Null),
        (b"\x41", Value::Boolean(true)),
        (b"\x56\x00", Value::Boolean(false)),
        (b"\x50\xfe", Value::Ubyte(254)),
        (b"\x60\x01\x02", Value::Ushort(258)),
        (b"\x43", Value::Uint(0)),
        (b"\x52\xff", Value::Uint(255)),
        (b"\x70\xff\xff\xff\xff", Value::Uint(u32::MAX)),
        (b"\x44", Value::Ulong(0)),
        (b"\x53\x80", Value::Ulong(128)),
        (b"\x80\0\0\0\x01\0\0\0\0", Value::Ulong(1 << 32)),
        (b"\x51\xff", Value::Byte(-1)),
        (b"\x61\xff\xfe", Value::Short(-2)),
        (b"\x54\xff", Value::Int(-1)),
        (b"\x71\x80\0\0\0", Value::Int(i32::MIN)),
        (b"\x55\x7f", Value::Long(127)),
        (b"\x81\x80\0\0\0\0\0\0\0", Value::Long(i64::MIN)),
        (b"\x72\x3f\x80\0\0", Value::Float(1.0)),
        (b"\x82\xc0\0\0\0\0\0\0\0", Value::Double(-2.0)),
        (b"\x74\x01\x02\x03\x04", Value::Decimal32([1, 2, 3, 4])),
        (b"\x73\0\0\0\x41", Value::Char('A')),
        (
            b"\x83\xff\xff\xff\xff\xff\xff\xff\xff",
            Value::Timestamp(-1),
        ),
        (&[&[0x98][..], &uuid].concat(), Value::Uuid(uuid)),
        (b"\xa0\x02\x00\xff", Value::Binary(b"\x00\xff")),
        (b"\xb1\0\0\0\x02\xc3\xa4", Value::String("\u{e4}")),
        (b"\xa3\x03a:b", Value::Symbol("a:b")),
    ] {
        assert_eq!(decode(bytes), Ok(expected), "{bytes:02x?}");
    }
    let list = decode(b"\xc0\x04\x02\x41\x52\x05").expect("a list");
    let Value::List(list) = list else {
        panic!("{list:?}")
    };
    assert!(list.iter().eq([Value::Boolean(true), Value::Uint(5)]));
    // An array of symbols, and one of described strings.
    let Ok(Value::Array(array)) = decode(b"\xe0\x06\x02\xa3\x01a\x01b") else {
        panic!("an array")
    };
    assert!(array.iter().eq([Value::Symbol("a"), Value::Symbol("b")]));
    let Ok(Value::Array(array)) = decode(b"\xe0\x08\x02\x00\x53\x70\xa1\x01a\x00") else {
        panic!("an array")
    };
    let found: Vec<(Value<'_>, Value<'_>)> = array
        .iter()
        .map(|it| match it {
            Value::Described(it) => (it.descriptor(), it.value()),
            other => panic!("{other:?}"),
        })
        .collect();
    let code = Value::Ulong(0x70);
    assert_eq!(
        found,
        [(code, Value::String("a")), (code, Value::String(""))]
    );
}

#[test]
fn bytes_that_are_no_values_say_why() {
    for (bytes, expected) in [
        (&b""[..], DecodeError::Short),
        (b"\x57", DecodeError::Code(0x57)),
        (b"\x56\x02", DecodeError::Text("a boolean")),
        (b"\x73\0\0\xd8\0", DecodeError::Text("a char")),
        (b"\xa1\x01\xff", DecodeError::Text("a string")),
        (b"\xa3\x02\xc3\xa4", DecodeError::Text("a symbol")),
        (b"\x41\x41", DecodeError::Trailing),
        (b"\xb0\x7f\xff\xff\xff", DecodeError::Short),
        (b"\xd0\x7f\xff\xff\xff\0\0\0\x01", DecodeError::Short),
        (b"\xd0\0\0\0\x05\x7f\xff\xff\xff\x40", DecodeError::Count),
        (b"\xc0\x03\x01\x40\x40", DecodeError::Count),
        (b"\xc1\x02\x01\x40", DecodeError::Count),
        (b"\xf0\0\0\0\x05\xff\xff\xff\xff\x40", DecodeError::Count),
        (
            b"\xf0\0\0\0\x07\xff\xff\xff\xff\x50\x01\x02",
            DecodeError::Count,
        ),
        (b"\x00\x40\x40", DecodeError::Type("a descriptor")),
        (
            b"\x00\x00\x53\x01\x40\x40",
            DecodeError::Type("a descriptor"),
        ),
    ] {
        assert_eq!(decode(bytes), Err(expected), "{bytes:02x?}");
    }
    // 4,096 values without bytes are taken, and no more.
    assert!(decode(b"\xf0\0\0\0\x05\0\0\x10\x00\x40").is_ok());
    let more = decode(b"\xf0\0\0\0\x05\0\0\x10\x01\x40");
    assert_eq!(more, Err(DecodeError::Count));
}

/// Lists in each other, and descriptors before each other: fe2o3-amqp's stack ended on 2,000.
#[test]
fn nesting_ends_at_its_bound_and_not_with_the_stack() {
    let lists = |depth: u32| {
        let mut bytes = vec![0x40];
        for _ in 0..depth {
            let length = u32::try_from(bytes.len() + 4).expect("short");
            let head = [&[0xd0][..], &length.to_be_bytes(), &1_u32.to_be_bytes()];
            bytes = [&head.concat()[..], &bytes].concat();
        }
        bytes
    };
    assert!(decode(&lists(DEPTH_MAX)).is_ok());
    assert_eq!(decode(&lists(DEPTH_MAX + 1)), Err(DecodeError::Depth));
    assert_eq!(decode(&lists(2_000)), Err(DecodeError::Depth));
    let described = |depth: usize| [b"\x00\x53\x01".repeat(depth), vec![0x40]].concat();
    assert!(decode(&described(DEPTH_MAX as usize)).is_ok());
    assert_eq!(decode(&described(2_000)), Err(DecodeError::Depth));
}

/// A descriptor is passed over once an array's value: its text is judged once, whatever the array's length.
#[test]
fn arrays_of_described_values_take_time_in_the_order_of_their_bytes() {
    let symbol = "s".repeat(20_000);
    let mut body = vec![0x00, 0xb3];
    body.extend_from_slice(&20_000_u32.to_be_bytes());
    body.extend_from_slice(symbol.as_bytes());
    body.push(0x50);
    body.extend(vec![1; 100_000]);
    let mut bytes = vec![0xf0];
    let length = u32::try_from(body.len() + 4).expect("short");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&100_000_u32.to_be_bytes());
    bytes.extend_from_slice(&body);
    // With the text judged for each it would be 2 * 10^9 bytes.
    let Ok(Value::Array(array)) = decode(&bytes) else {
        panic!("an array")
    };
    assert_eq!(array.iter().count(), 100_000);
}

fn encoded<'a>(composite: &impl Composite<'a>) -> BytesMut {
    let mut out = BytesMut::new();
    composite.put(&mut out);
    out
}

#[test]
fn composites_are_lists_under_their_descriptor() {
    let begin = Begin {
        remote_channel: None,
        next_outgoing_id: 0,
        incoming_window: 2_048,
        outgoing_window: 5,
        handle_max: 255,
        offered_capabilities: Multiple::None,
        desired_capabilities: Multiple::None,
        properties: None,
    };
    // Performatives are written with all their fields, others without those behind the last that is set.
    let expected = b"\x00\x53\x11\xc0\x0f\x08\x40\x43\x70\0\0\x08\0\x52\x05\x52\xff\x40\x40\x40";
    assert_eq!(&encoded(&begin)[..], expected);
    assert_eq!(Begin::of_value(decode(expected).unwrap()), Ok(begin));
    // The default stands for what is left out, or null.
    let short = b"\x00\xa3\x0famqp:begin:list\xc0\x05\x04\x40\x43\x43\x43";
    let short = Begin::of_value(decode(short).unwrap()).expect("a begin");
    assert_eq!(short.handle_max, u32::MAX);
    for (wrong, why) in [
        (
            &b"\x00\x53\x11\xc0\x03\x02\x40\x43"[..],
            DecodeError::Field {
                composite: "amqp:begin:list",
                field: "incoming_window",
            },
        ),
        (
            b"\x00\x53\x11\xc0\x09\x08\x40\x43\x43\x43\x43\x40\x40\x41",
            DecodeError::Field {
                composite: "amqp:begin:list",
                field: "properties",
            },
        ),
        (
            b"\x00\x53\x11\xc0\x0a\x09\x40\x43\x43\x43\x43\x40\x40\x40\x40",
            DecodeError::Fields("amqp:begin:list"),
        ),
        (b"\x00\x53\x12\x45", DecodeError::Type("amqp:begin:list")),
    ] {
        assert_eq!(Begin::of_value(decode(wrong).unwrap()), Err(why));
    }
}

#[test]
fn performatives_return_as_they_were() {
    let mut filter = MapBuf::new();
    filter.put_symbol("f", &Value::String("10m"));
    let attach = Attach {
        name: "link",
        handle: 3,
        role: Role::Receiver,
        snd_settle_mode: alluvium_amqp::performative::SenderSettleMode::Mixed,
        rcv_settle_mode: alluvium_amqp::performative::ReceiverSettleMode::Second,
        source: Some(Source {
            address: Some(Value::String("a/b")),
            durable: TerminusDurability::UnsettledState,
            expiry_policy: Symbol("never"),
            timeout: 9,
            dynamic: false,
            dynamic_node_properties: None,
            distribution_mode: Some(Symbol("copy")),
            filter: Some(filter.as_map()),
            default_outcome: None,
            outcomes: Multiple::These(&["amqp:accepted:list", "amqp:rejected:list"]),
            capabilities: Multiple::None,
        }),
        target: Some(AnyTarget::Target(Target {
            address: None,
            durable: TerminusDurability::None,
            expiry_policy: Symbol("session-end"),
            timeout: 0,
            dynamic: true,
            dynamic_node_properties: None,
            capabilities: Multiple::None,
        })),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: None,
        max_message_size: Some(1 << 40),
        offered_capabilities: Multiple::None,
        desired_capabilities: Multiple::None,
        properties: None,
    };
    let mut out = BytesMut::new();
    Performative::Attach(attach).put(&mut out);
    let (found, rest) = Performative::split(&out).expect("an attach");
    assert!(rest.is_empty());
    let Performative::Attach(found) = found else {
        panic!("{found:?}")
    };
    let source = found.source.expect("a source");
    let outcomes: Vec<&str> = source.outcomes.iter().collect();
    assert_eq!(outcomes, ["amqp:accepted:list", "amqp:rejected:list"]);
    let f = source.filter.and_then(|it| it.get("f"));
    assert_eq!(f, Some(Value::String("10m")));
    assert_eq!((found.name, found.target), ("link", attach.target));
    assert_eq!(found.max_message_size, Some(1 << 40));
    // What is behind a transfer is its payload; behind others nothing may be.
    let transfer = Performative::Transfer(Transfer {
        handle: 3,
        delivery_id: Some(8),
        delivery_tag: Some(b"t"),
        message_format: Some(0),
        settled: Some(false),
        more: true,
        rcv_settle_mode: None,
        state: Some(DeliveryState::Accepted),
        resume: false,
        aborted: false,
        batchable: true,
    });
    let mut out = BytesMut::new();
    transfer.put(&mut out);
    out.extend_from_slice(b"payload");
    assert_eq!(Performative::split(&out), Ok((transfer, &b"payload"[..])));
    let more = b"\x00\x53\x18\x45\x40";
    assert_eq!(Performative::split(more), Err(DecodeError::Trailing));
}

#[test]
fn states_and_logins_return_as_they_were() {
    for state in [
        DeliveryState::Accepted,
        DeliveryState::Released,
        DeliveryState::Rejected(Rejected { error: None }),
        DeliveryState::Modified(Modified {
            delivery_failed: Some(true),
            undeliverable_here: Some(false),
            message_annotations: None,
        }),
    ] {
        let mut out = BytesMut::new();
        Field::put(&state, &mut out);
        let value = decode(&out).expect("a value");
        assert_eq!(DeliveryState::of(value), Some(state));
    }
    let init = SaslFrame::Init(SaslInit {
        mechanism: Symbol("PLAIN"),
        initial_response: Some(b"\0u\0p"),
        hostname: None,
    });
    let mut out = BytesMut::new();
    init.put(&mut out);
    assert_eq!(
        &out[..],
        b"\x00\x53\x41\xc0\x0e\x02\xa3\x05PLAIN\xa0\x04\0u\0p"
    );
    assert_eq!(SaslFrame::decode(&out), Ok(init));
}

#[test]
fn messages_fall_into_sections_as_they_are_encoded() {
    let payload = b"\x00\x53\x70\xc0\x02\x01\x41\
        \x00\x53\x72\xc1\x06\x02\xa3\x01k\xa1\x00\
        \x00\x53\x73\xc0\x04\x01\xa1\x01i\
        \x00\x53\x74\xc1\x01\x00\
        \x00\x53\x75\xa0\x01a\x00\x53\x75\xa0\x01b\
        \x00\x53\x78\xc1\x01\x00";
    let message = Message::of(payload).expect("a message");
    assert_eq!(
        message.header.map(|it: Header| (it.durable, it.priority)),
        Some((true, 4))
    );
    let (annotations, encoded) = message.message_annotations.expect("annotations");
    assert_eq!(annotations.get("k"), Some(Value::String("")));
    assert_eq!(encoded, &payload[7..18]);
    let properties = message
        .properties
        .map(|it: (Properties<'_>, _)| it.0.message_id);
    assert_eq!(properties, Some(Some(Value::String("i"))));
    assert_eq!(message.body, Body::Data(2, b"a"));
    assert_eq!(
        message.body_encoded,
        b"\x00\x53\x75\xa0\x01a\x00\x53\x75\xa0\x01b"
    );
    assert!(message.footer.is_some());
    for wrong in [
        &b"\x00\x53\x77\x40\x00\x53\x77\x40"[..],
        b"\x00\x53\x75\xa0\x00\x00\x53\x77\x40",
        b"\x00\x53\x77\x40\x00\x53\x70\x45",
        b"\x00\x53\x79\x40",
        b"\x00\x53\x75\xa1\x00",
        b"\x40",
    ] {
        assert!(Message::of(wrong).is_err(), "{wrong:02x?}");
    }
    let sequences = Message::of(b"\x00\x53\x76\x45\x00\x53\x76\x45").expect("sequences");
    assert!(matches!(sequences.body, Body::Sequence(2, _)));
    assert_eq!(Message::of(b"").expect("nothing").body, Body::None);
}

#[test]
fn messages_cut_anywhere_do_not_panic() {
    let mut open = BytesMut::new();
    Composite::put(
        &Open {
            container_id: "c",
            hostname: Some("h"),
            max_frame_size: 512,
            channel_max: 7,
            idle_time_out: Some(1_000),
            outgoing_locales: Multiple::None,
            incoming_locales: Multiple::None,
            offered_capabilities: Multiple::These(&["a", "b"]),
            desired_capabilities: Multiple::None,
            properties: None,
        },
        &mut open,
    );
    for end in 0..open.len() {
        assert!(Performative::split(&open[..end]).is_err(), "{end}");
        for bit in 0..8 {
            let mut flipped = open.to_vec();
            flipped[end] ^= 1 << bit;
            let _ = Performative::split(&flipped);
        }
    }
}

/// A value that owns itself, with the widest encoding of each type: what the naive encoder writes.
#[derive(Clone, Debug)]
enum Tree {
    Null,
    Bool(bool),
    Uint(u32),
    Ulong(u64),
    Long(i64),
    Int(i32),
    Text(String),
    Symbol(String),
    Binary(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
    Array(Vec<i32>),
    Described(u64, Box<Tree>),
}

fn wide(out: &mut Vec<u8>, code: u8, parts: &[&[u8]]) {
    out.push(code);
    let length: usize = parts.iter().map(|it| it.len()).sum();
    out.extend_from_slice(&u32::try_from(length).expect("short").to_be_bytes());
    out.extend_from_slice(&parts.concat());
}

fn count(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("few").to_be_bytes()
}

impl Tree {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Tree::Null => out.push(0x40),
            Tree::Bool(it) => out.extend_from_slice(&[0x56, u8::from(*it)]),
            Tree::Uint(it) => out.extend_from_slice(&[&[0x70][..], &it.to_be_bytes()].concat()),
            Tree::Ulong(it) => out.extend_from_slice(&[&[0x80][..], &it.to_be_bytes()].concat()),
            Tree::Long(it) => out.extend_from_slice(&[&[0x81][..], &it.to_be_bytes()].concat()),
            Tree::Int(it) => out.extend_from_slice(&[&[0x71][..], &it.to_be_bytes()].concat()),
            Tree::Text(it) => wide(out, 0xb1, &[it.as_bytes()]),
            Tree::Symbol(it) => wide(out, 0xb3, &[it.as_bytes()]),
            Tree::Binary(it) => wide(out, 0xb0, &[it]),
            Tree::List(all) => {
                let mut body = Vec::new();
                all.iter().for_each(|it| it.encode(&mut body));
                wide(out, 0xd0, &[&count(all.len()), &body]);
            }
            Tree::Map(all) => {
                let mut body = Vec::new();
                for (key, value) in all {
                    key.encode(&mut body);
                    value.encode(&mut body);
                }
                wide(out, 0xd1, &[&count(2 * all.len()), &body]);
            }
            Tree::Array(all) => {
                let body: Vec<u8> = all.iter().flat_map(|it| it.to_be_bytes()).collect();
                wide(out, 0xf0, &[&count(all.len()), &[0x71], &body]);
            }
            Tree::Described(code, within) => {
                out.extend_from_slice(&[0x00, 0x80]);
                out.extend_from_slice(&code.to_be_bytes());
                within.encode(out);
            }
        }
    }

    fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Tree::Null, Value::Null) => true,
            (Tree::Bool(a), Value::Boolean(b)) => a == b,
            (Tree::Uint(a), Value::Uint(b)) => a == b,
            (Tree::Ulong(a), Value::Ulong(b)) => a == b,
            (Tree::Long(a), Value::Long(b)) => a == b,
            (Tree::Int(a), Value::Int(b)) => a == b,
            (Tree::Text(a), Value::String(b)) => a == b,
            (Tree::Symbol(a), Value::Symbol(b)) => a == b,
            (Tree::Binary(a), Value::Binary(b)) => a == b,
            (Tree::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.is(&b))
            }
            (Tree::Map(a), Value::Map(b)) => {
                let pairs = a.iter().zip(b.iter());
                a.len() == b.len() && { pairs }.all(|((k, v), (l, w))| k.is(&l) && v.is(&w))
            }
            (Tree::Array(a), Value::Array(b)) => {
                b.iter().eq(a.iter().map(|it| Value::Int(*it))) && a.len() == b.len()
            }
            (Tree::Described(code, a), Value::Described(b)) => {
                b.descriptor() == Value::Ulong(*code) && a.is(&b.value())
            }
            _ => false,
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any::<u32>().prop_map(Tree::Uint),
        (0_u64..300).prop_map(Tree::Ulong),
        any::<i64>().prop_map(Tree::Long),
        (-200_i32..200).prop_map(Tree::Int),
        ".{0,300}".prop_map(Tree::Text),
        "[a-z:-]{0,20}".prop_map(Tree::Symbol),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Tree::Binary),
        prop::collection::vec(any::<i32>(), 0..80).prop_map(Tree::Array),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Tree::List),
            prop::collection::vec((inner.clone(), inner.clone()), 0..8).prop_map(Tree::Map),
            (any::<u64>(), inner).prop_map(|(code, it)| Tree::Described(code, it.into())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_value_is_what_a_naive_encoder_wrote_and_returns_from_ours(tree in trees()) {
        let mut bytes = Vec::new();
        tree.encode(&mut bytes);
        let value = decode(&bytes).expect("a value");
        prop_assert!(tree.is(&value), "{value:?}");
        let mut ours = BytesMut::new();
        writer::put_value(&mut ours, &value);
        prop_assert!(ours.len() <= bytes.len());
        ours.extend_from_slice(b"behind");
        let (again, behind) = split(&ours).expect("a value");
        prop_assert!(tree.is(&again), "{again:?}");
        prop_assert_eq!(behind, b"behind");
        for end in 0..bytes.len().min(64) {
            prop_assert!(decode(&bytes[..end]).is_err());
        }
    }
}
