//! What clients of AMQP 1.0 say, frame by frame, each behind all that has to be said before it: to be changed at random, and lied about.
//! And what brought other implementations down.
//! Callers: the exam's cases of lying and fuzzed bytes.

use amqp::frame::{self, FrameKind, Protocol};
use amqp::message::{Header, Properties, SectionKind, put_section};
use amqp::performative::{
    Attach, Begin, Close, Detach, Disposition, End, Error, Flow, Open, Performative, Role,
    SenderSettleMode, Transfer,
};
use amqp::sasl::{SaslFrame, SaslInit};
use amqp::state::{DeliveryState, Modified, Received, Rejected, TransactionalState};
use amqp::terminus::{AnyTarget, Coordinator, Source, Target, TerminusDurability};
use amqp::{BytesMut, Composite as _, MapBuf, Multiple, Symbol, Value};

use super::said::{self, Ends, Stand};

const FRAME_BYTES_MAX: u32 = 65_536;
const WINDOW: u32 = 1_000;
/// Where messages go, and come from.
const ADDRESS: &str = "hostile";
/// A batch of Event Hubs.
const BATCH: u32 = 0x8001_3700;

/// A frame behind what has to be said before it.
pub struct Conversation {
    before: Vec<u8>,
    kind: FrameKind,
    /// What the frame holds.
    pub body: Vec<u8>,
}

impl Conversation {
    fn new(before: &[u8], performative: &Performative<'_>, payload: &[u8]) -> Conversation {
        let mut body = BytesMut::new();
        performative.put(&mut body);
        body.extend_from_slice(payload);
        Conversation {
            before: before.to_vec(),
            kind: FrameKind::Amqp,
            body: body.to_vec(),
        }
    }

    /// Everything that is said, with another body in the place of the frame's own.
    pub fn with(&self, body: &[u8]) -> Vec<u8> {
        [&self.before[..], &self.frame(body)].concat()
    }

    /// The same with other bytes in the place of the frame.
    pub fn with_frame(&self, frame: &[u8]) -> Vec<u8> {
        [&self.before[..], frame].concat()
    }

    /// The frame around a body.
    pub fn frame(&self, body: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        frame::put(&mut out, self.kind, 0, |out| out.extend_from_slice(body));
        out.to_vec()
    }
}

/// One of each kind of frame that a client sends.
pub fn conversations() -> Vec<Conversation> {
    let mut all = logins();
    let greeting = Protocol::Amqp.bytes();
    let open = opened();
    all.push(Conversation::new(&greeting, &open, b""));
    let opened = [&greeting[..], &said::frame(0, &open, b"")].concat();
    let begin = Performative::Begin(Begin {
        handle_max: 1_000,
        ..said::begin(WINDOW)
    });
    all.push(Conversation::new(&opened, &begin, b""));
    let begun = [&opened[..], &said::frame(0, &begin, b"")].concat();
    let behind = |attach: &Performative<'_>| [&begun[..], &said::frame(0, attach, b"")].concat();
    let add = |before: &[u8], said: &Performative<'_>| Conversation::new(before, said, b"");

    let target = AnyTarget::Target(said::target(Some(ADDRESS)));
    let sender = attached(said::attach("sends", 0, Ends::SendsTo(target)));
    all.push(add(&begun, &sender));
    all.extend(messages(&behind(&sender)));
    let consumer = said::queue(ADDRESS);
    let consumer = attached(said::attach("consumes", 0, Ends::ReceivesFrom(consumer)));
    all.push(add(&begun, &consumer));
    let consumes = behind(&consumer);
    all.extend(flows().iter().map(|flow| add(&consumes, flow)));
    all.extend(outcomes().iter().map(|it| add(&consumes, it)));
    let capabilities = Multiple::These(&["amqp:local-transactions"]);
    let coordinator = AnyTarget::Coordinator(Coordinator { capabilities });
    let coordinator = attached(said::attach("txn", 0, Ends::SendsTo(coordinator)));
    all.push(add(&begun, &coordinator));
    let coordinates = behind(&coordinator);
    for payload in [
        &b"\x00\x53\x77\x00\x53\x31\x45"[..],
        b"\x00\x53\x77\x00\x53\x32\xc0\x05\x02\xa0\x01a\x42",
    ] {
        let transfer = Performative::Transfer(said::transfer(0, 0, b"t"));
        all.push(Conversation::new(&coordinates, &transfer, payload));
    }
    all.extend(receivers(&begun));
    for (before, said) in [
        (
            &consumes,
            Performative::Detach(Detach {
                handle: 0,
                closed: true,
                error: Some(error()),
            }),
        ),
        (
            &consumes,
            Performative::End(End {
                error: Some(error()),
            }),
        ),
        (
            &opened,
            Performative::Close(Close {
                error: Some(error()),
            }),
        ),
    ] {
        all.push(add(before, &said));
    }
    all
}

fn attached(attach: Attach<'_>) -> Performative<'_> {
    Performative::Attach(attach)
}

fn opened() -> Performative<'static> {
    Performative::Open(Open {
        hostname: Some("localhost"),
        channel_max: 10,
        idle_time_out: Some(60_000),
        offered_capabilities: Multiple::These(&["a", "b"]),
        desired_capabilities: Multiple::These(&["ANONYMOUS-RELAY", "SHARED-SUBS"]),
        ..said::open("hostile", FRAME_BYTES_MAX)
    })
}

fn error() -> Error<'static> {
    Error {
        condition: Symbol("amqp:internal-error"),
        description: Some("hostile"),
        info: None,
    }
}

fn logins() -> Vec<Conversation> {
    let of = |mechanism, initial_response| {
        let mut body = BytesMut::new();
        SaslFrame::Init(SaslInit {
            mechanism: Symbol(mechanism),
            initial_response: Some(initial_response),
            hostname: Some("localhost"),
        })
        .put(&mut body);
        Conversation {
            before: Protocol::Sasl.bytes().to_vec(),
            kind: FrameKind::Sasl,
            body: body.to_vec(),
        }
    };
    vec![
        of("ANONYMOUS", &b"hostile"[..]),
        of("PLAIN", b"\0user\0password"),
        of("SCRAM-SHA-256", b"n,,n=user,r=nonce"),
    ]
}

/// Messages of each shape, sent over a link that is attached.
fn messages(before: &[u8]) -> Vec<Conversation> {
    let mut map = MapBuf::new();
    map.put(&Value::String("color"), &Value::String("red"));
    map.put(&Value::String("count"), &Value::Long(7));
    let mut annotations = MapBuf::new();
    annotations.put_symbol("x-opt-partition-key", &Value::String("key"));
    let section = |kind, value: &Value<'_>| {
        let mut out = BytesMut::new();
        put_section(&mut out, kind, value);
        out.to_vec()
    };
    let mut head = BytesMut::new();
    Header {
        durable: true,
        ttl: Some(60_000),
        ..Header::NONE
    }
    .put(&mut head);
    let mut properties = BytesMut::new();
    Properties {
        message_id: Some(Value::String("id")),
        to: Some(Value::String(ADDRESS)),
        ..Properties::NONE
    }
    .put(&mut properties);
    let rich = [
        head.to_vec(),
        section(
            SectionKind::MessageAnnotations,
            &Value::Map(annotations.as_map()),
        ),
        properties.to_vec(),
        section(
            SectionKind::ApplicationProperties,
            &Value::Map(map.as_map()),
        ),
        section(SectionKind::Data, &Value::Binary(b"a value")),
    ]
    .concat();
    let valued = section(SectionKind::Value, &Value::Map(map.as_map()));
    let data = section(SectionKind::Data, &Value::Binary(&rich));
    let batch = [&data[..], &data].concat();
    let whole = said::transfer(0, 0, b"tag");
    let in_txn = DeliveryState::Transactional(TransactionalState {
        txn_id: b"txn",
        outcome: None,
    });
    [
        (whole, &rich),
        (whole, &valued),
        (
            Transfer {
                message_format: Some(BATCH),
                ..whole
            },
            &batch,
        ),
        (
            Transfer {
                more: true,
                ..whole
            },
            &rich,
        ),
        (
            Transfer {
                aborted: true,
                state: Some(in_txn),
                ..whole
            },
            &rich,
        ),
    ]
    .into_iter()
    .map(|(transfer, payload)| {
        Conversation::new(before, &Performative::Transfer(transfer), payload)
    })
    .collect()
}

fn flows() -> [Performative<'static>; 2] {
    let stand = Stand {
        window: WINDOW,
        ..Stand::default()
    };
    let flow = said::credit(stand, 0, (0, 100), false);
    let drain = Flow {
        drain: true,
        echo: true,
        ..flow
    };
    [flow, drain].map(Performative::Flow)
}

/// What may be said of deliveries: of one, and of all that there could ever be.
fn outcomes() -> Vec<Performative<'static>> {
    let states = [
        DeliveryState::Accepted,
        DeliveryState::Released,
        DeliveryState::Rejected(Rejected {
            error: Some(error()),
        }),
        DeliveryState::Modified(Modified {
            delivery_failed: Some(true),
            undeliverable_here: Some(true),
            message_annotations: None,
        }),
        DeliveryState::Received(Received {
            section_number: 1,
            section_offset: 7,
        }),
        DeliveryState::Transactional(TransactionalState {
            txn_id: b"txn",
            outcome: None,
        }),
    ];
    let said = |(last, state)| {
        Performative::Disposition(Disposition {
            role: Role::Receiver,
            first: 0,
            last: Some(last),
            settled: true,
            state: Some(state),
            batchable: false,
        })
    };
    let lasts = [0, u32::MAX].into_iter().cycle();
    lasts.zip(states).map(said).collect()
}

/// Links that receive, in each way that there is.
fn receivers(begun: &[u8]) -> Vec<Conversation> {
    let filtered = |name: &str, said: &str| {
        let mut filter = MapBuf::new();
        filter.put_symbol(name, &Value::String(said));
        filter
    };
    let selector = filtered(
        "apache.org:selector-filter:string",
        "color = 'red' AND (count BETWEEN 1 AND 9 OR name LIKE 'a%')",
    );
    let offset = filtered("rabbitmq:stream-offset-spec", "first");
    let seek = filtered(
        "apache.org:selector-filter:string",
        "amqp.annotation.x-opt-offset > '-1'",
    );
    let plain = said::source(Some(ADDRESS));
    let sources = [
        Source {
            filter: Some(selector.as_map()),
            ..said::queue(ADDRESS)
        },
        Source {
            filter: Some(offset.as_map()),
            ..plain
        },
        Source {
            filter: Some(seek.as_map()),
            ..said::source(Some("hostile/ConsumerGroups/g/Partitions/0"))
        },
        Source {
            distribution_mode: Some(Symbol("copy")),
            ..said::queue(ADDRESS)
        },
        Source {
            durable: TerminusDurability::UnsettledState,
            expiry_policy: Symbol("never"),
            capabilities: Multiple::These(&["topic", "shared", "global"]),
            ..plain
        },
        Source {
            dynamic: true,
            capabilities: Multiple::These(&["temporary-queue"]),
            ..said::source(None)
        },
        said::source(Some("$management")),
    ];
    let mut all: Vec<Conversation> = sources
        .into_iter()
        .map(|source| {
            let attach = Attach {
                snd_settle_mode: SenderSettleMode::Settled,
                max_message_size: Some(1 << 20),
                desired_capabilities: Multiple::These(&["shared"]),
                ..said::attach("receives|1", 3, Ends::ReceivesFrom(source))
            };
            Conversation::new(begun, &attached(attach), b"")
        })
        .collect();
    // What unsubscribes, and a node that is made to be sent to.
    let none = Attach {
        source: None,
        ..said::attach("receives", 4, Ends::ReceivesFrom(plain))
    };
    let made = AnyTarget::Target(Target {
        dynamic: true,
        capabilities: Multiple::These(&["temporary-topic"]),
        ..said::target(None)
    });
    let made = said::attach("sends", 5, Ends::SendsTo(made));
    all.extend([none, made].map(|it| Conversation::new(begun, &attached(it), b"")));
    all
}

/// What ended other implementations, or had them take memory without a bound: frames shorter than their header, deep nesting, and few bytes
/// that say that they are many.
pub fn killers() -> Vec<Vec<u8>> {
    let open = Conversation::new(&Protocol::Amqp.bytes(), &opened(), b"");
    let login = logins().swap_remove(0);
    let mut inputs = Vec::new();
    for of in [&open, &login] {
        // Sizes below a header's, and of bytes that do not come; bodies that begin in the header or behind the frame.
        for size in (0..8_u32).chain([511, 65_537, 0x7fff_ffff, u32::MAX]) {
            for offset in [0, 1, 2, 255] {
                let frame = [&size.to_be_bytes()[..], &[offset, 0, 0, 0]].concat();
                inputs.push(of.with_frame(&frame));
            }
        }
        let deep = |opening: &[u8], times: usize| [opening.repeat(times), vec![0x40]].concat();
        for body in [
            deep(b"\x00\x53\x10", 2_000),
            deep(b"\x00", 4_000),
            deep(b"\xd0\x00\x00\x10\x00\x00\x00\x00\x01", 500),
            // A descriptor of nearly 2 GiB, and arrays and lists of as many that take no bytes.
            b"\x00\xb3\x7f\xff\xff\xff\x40".to_vec(),
            b"\x00\x53\x10\xf0\x00\x00\x00\x05\x7f\xff\xff\xff\x40".to_vec(),
            b"\x00\x53\x10\xd0\x00\x00\x00\x04\x7f\xff\xff\xff".to_vec(),
            b"\x00\x53\x10\xd1\x00\x00\x00\x04\x7f\xff\xff\xfe".to_vec(),
        ] {
            inputs.push(of.with(&body));
        }
    }
    // The same in the place of a message.
    for of in conversations() {
        if let Ok((Performative::Transfer(_), payload)) = Performative::split(&of.body) {
            let head = &of.body[..of.body.len() - payload.len()];
            let nested = [b"\x00\x53\x77", &b"\x00".repeat(4_000)[..]].concat();
            inputs.push(of.with(&[head, &nested].concat()));
        }
    }
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_well_formed_and_of_every_kind() {
        let mut kinds = std::collections::HashSet::new();
        let all = conversations();
        for said in &all {
            match said.kind {
                FrameKind::Amqp => {
                    let (performative, _) = Performative::split(&said.body).unwrap();
                    kinds.insert(std::mem::discriminant(&performative));
                }
                FrameKind::Sasl => drop(SaslFrame::decode(&said.body).unwrap()),
            }
        }
        assert_eq!(kinds.len(), 9, "every performative");
    }

    #[test]
    fn messages_are_well_formed() {
        for said in messages(b"") {
            let (_, payload) = Performative::split(&said.body).unwrap();
            amqp::message::Message::of(payload).unwrap();
        }
    }
}
