//! The endpoint beside a peer that says what it likes: what is answered, what ends, and what does not.

use std::time::{Duration, Instant};

use alluvium_amqp::endpoint::{Attached, Endpoint, Event, Login, Settings, error};
use alluvium_amqp::frame::{self, FrameKind, Protocol};
use alluvium_amqp::performative::{
    Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Performative, ReceiverSettleMode,
    Role, SenderSettleMode, Transfer,
};
use alluvium_amqp::sasl::{SaslCode, SaslFrame, SaslInit, SaslResponse};
use alluvium_amqp::state::DeliveryState;
use alluvium_amqp::terminus::{AnyTarget, Coordinator};
use alluvium_amqp::{Bytes, BytesMut, ErrorCondition, Multiple, Symbol};

fn settings() -> Settings {
    Settings {
        container_id: "us".to_owned(),
        frame_bytes_max: 1_024,
        channel_max: 255,
        handle_max: 255,
        links_max: 1_000,
        silence_max: Duration::from_secs(60),
        window: 4,
        message_bytes_max: 3_000,
        partial_bytes_max: 5_000,
        unsettled_max: 100,
        first_id: u32::MAX - 1,
        mechanisms: vec!["PLAIN", "ANONYMOUS"],
        allows_bare: true,
    }
}

/// A client that writes what it likes, and a front that accepts everything.
struct Peer {
    endpoint: Endpoint,
    input: BytesMut,
    links: Vec<alluvium_amqp::endpoint::LinkId>,
    /// What happened, in words.
    events: Vec<String>,
    now: Instant,
}

impl Peer {
    fn new(settings: Settings) -> Peer {
        let now = Instant::now();
        Peer {
            endpoint: Endpoint::new(settings, now),
            input: BytesMut::new(),
            links: Vec::new(),
            events: Vec::new(),
            now,
        }
    }

    /// A connection that is open, with a session on channels 0 and 1.
    fn open(settings: Settings) -> Peer {
        let mut peer = Peer::new(settings);
        peer.raw(&Protocol::Amqp.bytes());
        peer.say(0, Performative::Open(open(512)));
        peer.say(0, Performative::Begin(begin(0, 100)));
        peer.say(1, Performative::Begin(begin(0, 100)));
        peer.heard();
        peer
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while let Some(frame) = self.endpoint.cut(&mut self.input, self.now) {
            if let Some(event) = self.endpoint.receive(&frame) {
                let said = self.front(event);
                self.events.push(said);
            }
        }
    }

    fn front(&mut self, event: Event<'_>) -> String {
        match event {
            Event::Login(Login::Init {
                mechanism,
                response,
            }) => {
                self.endpoint.challenge(b"and?");
                format!("init {mechanism} {response:?}")
            }
            Event::Login(Login::Response(said)) => {
                if said == b"good" {
                    self.endpoint.logged_in(SaslCode::Ok, None);
                } else {
                    self.endpoint.challenge(b"more?");
                }
                format!("response {}", String::from_utf8_lossy(said))
            }
            Event::Open(open) => {
                self.endpoint.accept_open(&["ANONYMOUS-RELAY"], None);
                format!("open {}", open.container_id)
            }
            Event::Attach {
                link,
                attach,
                stolen,
            } => {
                self.links.push(link);
                self.endpoint.accept(
                    link,
                    &Attached {
                        source: attach.source,
                        target: attach.target,
                        snd_settle_mode: attach.snd_settle_mode,
                        rcv_settle_mode: attach.rcv_settle_mode,
                        offered_capabilities: Multiple::None,
                        properties: None,
                    },
                );
                let stolen = if stolen.is_some() { " stolen" } else { "" };
                format!("attach {}{stolen}", attach.name)
            }
            Event::Flow(_, flow) => format!("flow {} {}", flow.credit, flow.drain),
            Event::Delivery(_, it) => format!(
                "delivery {} of {}{}",
                it.id,
                it.payload.len(),
                if it.settled { " settled" } else { "" }
            ),
            Event::Settled(it) => {
                let ids: Vec<u32> = it.deliveries.iter().map(|(_, id)| *id).collect();
                format!("settled {ids:?} {}", it.settled)
            }
            Event::Detached { closed, .. } => format!("detached {closed}"),
            Event::Ended(channel, _) => format!("ended {channel}"),
            Event::Closed(_) => "closed".to_owned(),
            Event::Fault(fault) => format!("fault {}", fault.condition.symbol()),
        }
    }

    fn say(&mut self, channel: u16, performative: Performative<'_>) {
        self.say_with(channel, performative, b"");
    }

    fn say_with(&mut self, channel: u16, performative: Performative<'_>, payload: &[u8]) {
        let mut out = BytesMut::new();
        frame::put(&mut out, FrameKind::Amqp, channel, |out| {
            performative.put(out);
            out.extend_from_slice(payload);
        });
        self.raw(&out);
    }

    /// What happened since.
    fn happened(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// What was sent since, in words. No frame is longer than the peer said.
    fn heard(&mut self) -> Vec<String> {
        let out = self.endpoint.output().split().freeze();
        let mut rest = &out[..];
        let mut heard = Vec::new();
        while let Some(start) = rest.first_chunk::<8>() {
            if let Some(protocol) = Protocol::of(*start) {
                heard.push(format!("{protocol:?}"));
                rest = &rest[8..];
                continue;
            }
            let header = frame::header(rest, 512).expect("a frame").expect("whole");
            let (whole, behind) = rest.split_at(header.frame_bytes);
            rest = behind;
            heard.push(words(header.channel, header.kind, &whole[header.body_at..]));
        }
        assert!(rest.is_empty());
        heard
    }
}

fn words(channel: u16, kind: FrameKind, body: &[u8]) -> String {
    if kind == FrameKind::Sasl {
        return match SaslFrame::decode(body).expect("a frame of a login") {
            SaslFrame::Mechanisms(it) => {
                let all: Vec<&str> = it.sasl_server_mechanisms.iter().collect();
                format!("mechanisms {}", all.join(" "))
            }
            SaslFrame::Outcome(it) => format!("outcome {:?}", it.code),
            SaslFrame::Challenge(_) => "challenge".to_owned(),
            other => panic!("{other:?}"),
        };
    }
    if body.is_empty() {
        return "alive".to_owned();
    }
    let why = |error: Option<alluvium_amqp::performative::Error<'_>>| {
        error.map_or_else(String::new, |it| format!(" {}", it.condition.0))
    };
    let (performative, payload) = Performative::split(body).expect("a performative");
    match performative {
        Performative::Open(it) => format!("open {}", it.container_id),
        Performative::Begin(it) => format!("{channel} begin {:?}", it.remote_channel),
        Performative::Attach(it) => format!(
            "{channel} attach {}{}",
            it.handle,
            if it.target.is_none() && it.source.is_none() {
                " nowhere"
            } else {
                ""
            }
        ),
        Performative::Flow(it) => format!(
            "{channel} flow {:?} {:?} {}",
            it.delivery_count, it.link_credit, it.incoming_window
        ),
        Performative::Transfer(it) => format!(
            "{channel} transfer {:?} {} {}",
            it.delivery_id,
            payload.len(),
            it.more
        ),
        Performative::Disposition(it) => {
            format!("{channel} disposition {}..{:?}", it.first, it.last)
        }
        Performative::Detach(it) => {
            format!("{channel} detach {}{}", it.handle, why(it.error))
        }
        Performative::End(it) => format!("{channel} end{}", why(it.error)),
        Performative::Close(it) => format!("close{}", why(it.error)),
    }
}

fn open(max_frame_size: u32) -> Open<'static> {
    Open {
        container_id: "them",
        hostname: None,
        max_frame_size,
        channel_max: u16::MAX,
        idle_time_out: Some(10_000),
        outgoing_locales: Multiple::None,
        incoming_locales: Multiple::None,
        offered_capabilities: Multiple::None,
        desired_capabilities: Multiple::None,
        properties: None,
    }
}

fn begin(next_outgoing_id: u32, incoming_window: u32) -> Begin<'static> {
    Begin {
        remote_channel: None,
        next_outgoing_id,
        incoming_window,
        outgoing_window: 10,
        handle_max: u32::MAX,
        offered_capabilities: Multiple::None,
        desired_capabilities: Multiple::None,
        properties: None,
    }
}

fn attach(name: &str, handle: u32, role: Role) -> Performative<'_> {
    Performative::Attach(Attach {
        name,
        handle,
        role,
        snd_settle_mode: SenderSettleMode::Mixed,
        rcv_settle_mode: ReceiverSettleMode::First,
        source: None,
        target: Some(AnyTarget::Coordinator(Coordinator {
            capabilities: Multiple::None,
        })),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: (role == Role::Sender).then_some(u32::MAX),
        max_message_size: None,
        offered_capabilities: Multiple::None,
        desired_capabilities: Multiple::None,
        properties: None,
    })
}

fn transfer(handle: u32, delivery_id: Option<u32>, more: bool) -> Transfer<'static> {
    Transfer {
        handle,
        delivery_id,
        delivery_tag: delivery_id.map(|_| &b"tag"[..]),
        message_format: None,
        settled: None,
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    }
}

/// The state of a session whose transfers are taken from `next` on, and of a link.
fn flow(next: u32, window: u32, link: Option<(u32, u32, u32)>) -> Flow<'static> {
    Flow {
        next_incoming_id: Some(next),
        incoming_window: window,
        next_outgoing_id: 0,
        outgoing_window: 10,
        handle: link.map(|it| it.0),
        delivery_count: link.map(|it| it.1),
        link_credit: link.map(|it| it.2),
        available: None,
        drain: false,
        echo: false,
        properties: None,
    }
}

const FIRST: u32 = u32::MAX - 1;

/// fe2o3-amqp#330: what is sent without waiting for answers is answered all the same.
#[test]
fn what_is_pipelined_is_answered_however_it_is_cut() {
    let mut all = BytesMut::new();
    all.extend_from_slice(&Protocol::Sasl.bytes());
    let logins = [
        SaslFrame::Init(SaslInit {
            mechanism: Symbol("PLAIN"),
            initial_response: None,
            hostname: None,
        }),
        SaslFrame::Response(SaslResponse { response: b"good" }),
    ];
    for login in logins {
        frame::put(&mut all, FrameKind::Sasl, 0, |out| login.put(out));
    }
    all.extend_from_slice(&Protocol::Amqp.bytes());
    for performative in [
        Performative::Open(open(512)),
        Performative::Begin(begin(0, 100)),
        attach("link", 0, Role::Receiver),
        Performative::Flow(flow(FIRST, 100, Some((0, 0, 7)))),
    ] {
        frame::put(&mut all, FrameKind::Amqp, 0, |out| performative.put(out));
    }
    for piece in [1, 3, 8, all.len()] {
        let mut peer = Peer::new(settings());
        all.chunks(piece).for_each(|bytes| peer.raw(bytes));
        let happened = peer.happened();
        let expected = [
            "init PLAIN None",
            "response good",
            "open them",
            "attach link",
            "flow 7 false",
        ];
        assert_eq!(happened, expected);
        let expected = [
            "Sasl",
            "mechanisms PLAIN ANONYMOUS",
            "challenge",
            "outcome Ok",
            "Amqp",
            "open us",
            "0 begin Some(0)",
            "0 attach 0",
        ];
        assert_eq!(peer.heard(), expected);
    }
}

#[test]
fn what_is_not_amqp_gets_our_header_and_the_end() {
    for (bytes, allows_bare) in [
        (*b"GET / HT", true),
        (*b"AMQP\0\x02\0\0", true),
        (*b"AMQP\x02\x01\0\0", true),
        (*b"AMQP\0\0\x09\x01", true),
        (Protocol::Amqp.bytes(), false),
    ] {
        let mut peer = Peer::new(Settings {
            allows_bare,
            ..settings()
        });
        peer.raw(&bytes);
        assert_eq!(peer.heard(), ["Sasl"]);
        assert!(peer.endpoint.is_over());
    }
}

/// fe2o3-amqp's listener panics on a SASL frame of four bytes, and takes 2 GiB for one that says so.
#[test]
fn a_login_has_short_frames_and_few_steps() {
    let steps = |count: usize| {
        let mut out = BytesMut::new();
        let init = SaslFrame::Init(SaslInit {
            mechanism: Symbol("X"),
            initial_response: None,
            hostname: None,
        });
        frame::put(&mut out, FrameKind::Sasl, 0, |out| init.put(out));
        for _ in 0..count {
            let response = SaslFrame::Response(SaslResponse { response: b"bad" });
            frame::put(&mut out, FrameKind::Sasl, 0, |out| response.put(out));
        }
        out
    };
    for wrong in [
        &b"\0\0\0\x04"[..],
        b"\x7f\xff\xff\xff\x02\x01\0\0",
        b"\0\0\x02\x01\x02\x01\0\0",
        b"\0\0\0\x0c\x02\x01\0\0\x00\x53\x10\x45",
        b"\0\0\0\x0c\x02\0\0\0\x00\x53\x17\x45",
        &steps(3),
    ] {
        let mut peer = Peer::new(settings());
        peer.raw(&Protocol::Sasl.bytes());
        peer.raw(wrong);
        assert!(peer.endpoint.is_over(), "{wrong:02x?}");
        let heard = peer.heard();
        assert!(!heard.iter().any(|it| it.contains("outcome")), "{heard:?}");
    }
}

/// rabbitmq-server#17092, #17101.
#[test]
fn frames_that_are_none_close_the_connection() {
    for (bytes, condition) in [
        (&b"\0\0\0\0\x02\0\0\0"[..], "amqp:connection:framing-error"),
        (b"\0\0\0\x07\x02\0\0\0", "amqp:connection:framing-error"),
        (b"\0\0\x04\x01\x02\0\0\0", "amqp:connection:framing-error"),
        (
            b"\0\0\0\x0c\x01\0\0\0\0\0\0\0",
            "amqp:connection:framing-error",
        ),
        (
            b"\0\0\0\x0c\x04\0\0\0\0\0\0\0",
            "amqp:connection:framing-error",
        ),
        (
            b"\0\0\0\x0c\x02\x02\0\0\0\0\0\0",
            "amqp:connection:framing-error",
        ),
        (
            b"\0\0\0\x0c\x02\x01\0\0\0\0\0\0",
            "amqp:connection:framing-error",
        ),
        (b"\0\0\0\x09\x02\0\0\0\x40", "amqp:decode-error"),
        (b"\0\0\0\x0c\x02\0\0\0\x00\x53\x99\x45", "amqp:decode-error"),
        (
            b"\0\0\0\x0d\x02\0\0\0\x00\x53\x17\x45\x40",
            "amqp:decode-error",
        ),
    ] {
        let mut peer = Peer::open(settings());
        peer.raw(bytes);
        let expected = format!("close {condition}");
        assert_eq!(peer.heard(), [expected], "{bytes:02x?}");
        assert!(peer.endpoint.is_closing() || peer.endpoint.is_over());
    }
    // A longer header is none of it, and an empty frame is a sign of life.
    let mut peer = Peer::open(settings());
    peer.raw(b"\0\0\0\x10\x03\0\0\0abcd\x00\x53\x17\x45\0\0\0\x08\x02\0\0\x01");
    assert_eq!(peer.heard(), ["0 end"]);
    assert_eq!(peer.happened().last().map(String::as_str), Some("ended 0"));
}

#[test]
fn a_channel_or_handle_above_the_highest_closes_the_connection() {
    let mut peer = Peer::open(settings());
    peer.say(256, Performative::Begin(begin(0, 1)));
    assert_eq!(peer.heard(), ["close amqp:connection:framing-error"]);
    let mut peer = Peer::open(settings());
    peer.say(0, attach("l", 256, Role::Sender));
    assert_eq!(peer.heard(), ["close amqp:connection:framing-error"]);
    // What still comes is passed over, until the peer closes too.
    peer.say(0, attach("l", 1, Role::Sender));
    assert!(peer.heard().is_empty() && !peer.endpoint.is_over());
    peer.say(0, Performative::Close(Close { error: None }));
    assert!(peer.endpoint.is_over());
    for (wrong, channel) in [
        (Performative::Begin(begin(0, 1)), 0),
        (Performative::End(End { error: None }), 9),
        (Performative::Open(open(512)), 0),
    ] {
        let mut peer = Peer::open(settings());
        peer.say(channel, wrong);
        assert_eq!(peer.heard(), ["close amqp:not-allowed"], "{wrong:?}");
    }
}

#[test]
fn an_open_with_too_little_is_answered_and_closed() {
    let short = Open {
        idle_time_out: Some(999),
        ..open(512)
    };
    for wrong in [open(511), short] {
        let mut peer = Peer::new(settings());
        peer.raw(&Protocol::Amqp.bytes());
        peer.say(0, Performative::Open(wrong));
        assert_eq!(peer.heard(), ["Amqp", "open us", "close amqp:not-allowed"]);
    }
}

fn sending(settings: Settings, credit: u32) -> Peer {
    let window = settings.window;
    let mut peer = Peer::open(settings);
    peer.say(0, attach("in", 3, Role::Sender));
    let link = peer.links[0];
    peer.endpoint.grant(link, credit);
    assert_eq!(
        peer.heard(),
        [
            "0 attach 3".to_owned(),
            format!("0 flow Some(4294967295) Some({credit}) {window}")
        ]
    );
    peer.happened();
    peer
}

#[test]
fn a_session_ends_alone_when_its_window_is_overrun() {
    // Transfers of a delivery that grows are taken, and the window is topped up at half.
    let mut peer = sending(
        Settings {
            window: 2,
            ..settings()
        },
        9,
    );
    peer.happened();
    peer.heard();
    for id in 0..9 {
        peer.say(0, Performative::Transfer(transfer(3, Some(id), false)));
    }
    let heard = peer.heard();
    assert!(heard.iter().all(|it| it.starts_with("0 flow None None 2")));
    assert_eq!(peer.happened().len(), 9);
    let never = Settings {
        window: 0,
        ..settings()
    };
    let mut peer = Peer::open(never);
    peer.say(0, attach("in", 3, Role::Sender));
    peer.say(1, attach("other", 3, Role::Sender));
    peer.heard();
    peer.say(0, Performative::Transfer(transfer(3, Some(0), false)));
    assert_eq!(peer.heard(), ["0 end amqp:session:window-violation"]);
    // What still comes for it is passed over, the other session lives, and the channel is free once the peer has ended it.
    peer.say(0, Performative::Transfer(transfer(3, Some(1), false)));
    peer.say(0, attach("more", 4, Role::Sender));
    peer.say(1, attach("another", 4, Role::Sender));
    assert_eq!(peer.heard(), ["1 attach 4"]);
    peer.say(0, Performative::End(End { error: None }));
    peer.say(0, Performative::Begin(begin(0, 1)));
    assert_eq!(peer.heard(), ["0 begin Some(0)"]);
}

/// rabbitmq-server#2597, from the other side.
#[test]
fn a_link_ends_alone_when_its_credit_is_overrun() {
    let mut peer = sending(settings(), 1);
    peer.say(0, attach("other", 4, Role::Sender));
    peer.heard();
    peer.say(0, Performative::Transfer(transfer(3, Some(0), false)));
    peer.say(0, Performative::Transfer(transfer(3, Some(1), false)));
    let heard = peer.heard();
    let detach = "0 detach 3 amqp:link:transfer-limit-exceeded";
    assert!(heard.iter().any(|it| it == detach), "{heard:?}");
    // Until the peer has detached it, its handle is in use, and transfers to it are passed over.
    peer.say(0, Performative::Transfer(transfer(3, Some(2), false)));
    peer.happened();
    peer.say(
        0,
        Performative::Detach(Detach {
            handle: 3,
            closed: true,
            error: None,
        }),
    );
    peer.heard();
    peer.say(0, attach("again", 3, Role::Sender));
    assert_eq!(peer.heard(), ["0 attach 3"]);
    assert_eq!(peer.happened(), ["attach again"]);
}

#[test]
fn what_a_delivery_breaks_ends_its_link() {
    let cases: [(&[(Transfer<'_>, usize)], &str); 5] = [
        (&[(transfer(3, None, false), 1)], "amqp:not-allowed"),
        (
            &[
                (transfer(3, Some(1), true), 1),
                (transfer(3, Some(2), false), 1),
            ],
            "amqp:not-allowed",
        ),
        (
            &[
                (transfer(3, Some(1), true), 900),
                (transfer(3, None, true), 900),
                (transfer(3, None, true), 900),
                (transfer(3, None, false), 301),
            ],
            "amqp:link:message-size-exceeded",
        ),
        (
            &[(
                Transfer {
                    delivery_tag: Some(&[0; 33]),
                    ..transfer(3, Some(1), false)
                },
                1,
            )],
            "amqp:invalid-field",
        ),
        (
            &[(
                Transfer {
                    delivery_tag: None,
                    ..transfer(3, Some(1), false)
                },
                1,
            )],
            "amqp:not-allowed",
        ),
    ];
    for (transfers, condition) in cases {
        let mut peer = sending(settings(), 9);
        for (transfer, bytes) in transfers {
            peer.say_with(0, Performative::Transfer(*transfer), &vec![7; *bytes]);
        }
        let heard = peer.heard();
        let expected = format!("0 detach 3 {condition}");
        assert_eq!(heard.last(), Some(&expected));
        assert_eq!(peer.happened().last(), Some(&format!("fault {condition}")));
    }
}

/// amqpnetlite#231.
#[test]
fn continuation_frames_need_neither_id_nor_tag() {
    let mut peer = sending(settings(), 2);
    let settles = Transfer {
        settled: Some(true),
        ..transfer(3, None, false)
    };
    for (transfer, bytes) in [
        (transfer(3, Some(5), true), 10),
        (transfer(3, None, true), 0),
        (settles, 7),
        (transfer(3, Some(6), true), 10),
        (
            Transfer {
                aborted: true,
                ..transfer(3, None, false)
            },
            0,
        ),
    ] {
        peer.say_with(0, Performative::Transfer(transfer), &vec![1; bytes]);
    }
    // One that is given up has taken its credit, and nothing else.
    assert_eq!(peer.happened(), ["delivery 5 of 17 settled"]);
    assert_eq!(peer.endpoint.credit(peer.links[0]), 0);
}

#[test]
fn deliveries_that_are_not_whole_are_bounded_together() {
    let mut peer = Peer::open(Settings {
        window: 100,
        ..settings()
    });
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let handle = u32::try_from(at).expect("few");
        peer.say(0, attach(name, handle, Role::Sender));
        peer.endpoint.grant(peer.links[at], 1);
        peer.heard();
        let first = transfer(handle, Some(handle), true);
        peer.say_with(0, Performative::Transfer(first), &[0; 900]);
        peer.say_with(
            0,
            Performative::Transfer(transfer(handle, None, true)),
            &[0; 900],
        );
    }
    let heard = peer.heard();
    assert_eq!(heard, ["0 detach 2 amqp:resource-limit-exceeded"]);
}

#[test]
fn handles_end_the_session_that_they_are_wrong_in() {
    for (wrong, condition) in [
        (attach("b", 3, Role::Receiver), "handle-in-use"),
        (
            Performative::Transfer(transfer(9, Some(0), false)),
            "unattached-handle",
        ),
        (
            Performative::Flow(flow(0, 0, Some((9, 0, 0)))),
            "unattached-handle",
        ),
        (
            Performative::Detach(Detach {
                handle: 9,
                closed: false,
                error: None,
            }),
            "unattached-handle",
        ),
    ] {
        let mut peer = sending(settings(), 1);
        peer.say(0, wrong);
        assert_eq!(peer.heard(), [format!("0 end amqp:session:{condition}")]);
        peer.say(1, attach("lives", 0, Role::Sender));
        assert_eq!(peer.heard(), ["1 attach 0"]);
    }
}

#[test]
fn links_are_bounded_and_a_name_is_taken_from_who_had_it() {
    let mut peer = Peer::open(Settings {
        links_max: 2,
        ..settings()
    });
    peer.say(0, attach("same", 0, Role::Sender));
    peer.heard();
    peer.say(1, attach("same", 0, Role::Receiver));
    assert_eq!(peer.heard(), ["1 attach 0"], "the other side of that name");
    peer.say(1, attach("more", 1, Role::Receiver));
    assert_eq!(peer.heard(), ["1 end amqp:resource-limit-exceeded"]);
    peer.say(1, Performative::End(End { error: None }));
    peer.say(1, Performative::Begin(begin(0, 1)));
    peer.heard();
    peer.happened();
    peer.say(1, attach("same", 7, Role::Sender));
    assert_eq!(peer.heard(), ["0 detach 0 amqp:link:stolen", "1 attach 7"]);
    assert_eq!(peer.happened(), ["attach same stolen"]);
}

fn receiving(credit: u32) -> Peer {
    let mut peer = Peer::open(settings());
    peer.say(0, attach("out", 2, Role::Receiver));
    peer.say(
        0,
        Performative::Flow(flow(FIRST, 100, Some((2, 0, credit)))),
    );
    peer.heard();
    peer.happened();
    peer
}

fn bytes(count: usize) -> Bytes {
    Bytes::from(vec![9; count])
}

/// rabbitmq-server#2597.
#[test]
fn no_more_is_sent_than_there_is_credit_for() {
    let mut peer = receiving(2);
    let link = peer.links[0];
    let mut sent = 0;
    while peer.endpoint.send(link, false, bytes(3)).is_some() {
        sent += 1;
    }
    assert_eq!(sent, 2);
    // The receiver has counted one: two more from there are one more for us.
    peer.say(0, Performative::Flow(flow(FIRST, 100, Some((2, 1, 2)))));
    assert_eq!(peer.endpoint.credit(link), 1);
    // Less than what was sent already is none.
    peer.say(0, Performative::Flow(flow(FIRST, 100, Some((2, 0, 1)))));
    assert_eq!(peer.endpoint.credit(link), 0);
    peer.say(
        0,
        Performative::Flow(flow(FIRST, 100, Some((2, 2, u32::MAX)))),
    );
    assert_eq!(peer.endpoint.credit(link), i32::MAX as u32);
}

/// amqpnetlite#488, and T 2.6.7: what is there is sent, and what is left of the credit is used up.
#[test]
fn a_drain_is_answered_behind_what_was_sent() {
    let mut peer = receiving(0);
    let link = peer.links[0];
    let drain = Flow {
        drain: true,
        ..flow(FIRST, 100, Some((2, 0, 5)))
    };
    peer.say(0, Performative::Flow(drain));
    assert_eq!(peer.happened(), ["flow 5 true"]);
    assert!(peer.heard().is_empty() && peer.endpoint.drains(link));
    peer.endpoint.send(link, true, bytes(1)).expect("credit");
    peer.endpoint.drained(link);
    assert_eq!(
        peer.heard(),
        [
            "0 transfer Some(4294967294) 1 false",
            "0 flow Some(5) Some(0) 4"
        ]
    );
    assert!(!peer.endpoint.can_send(link) && !peer.endpoint.drains(link));
    // Once only, and not unasked.
    peer.endpoint.drained(link);
    assert!(peer.heard().is_empty());
}

#[test]
fn a_receivers_credit_follows_what_a_sender_gives_up() {
    let mut peer = sending(settings(), 5);
    // The sender's count began at the last number there is, and goes over zero.
    let mut gives_up = flow(FIRST, 100, Some((3, 2, 0)));
    gives_up.drain = true;
    peer.say(0, Performative::Flow(gives_up));
    assert_eq!(peer.endpoint.credit(peer.links[0]), 2);
    let mut echo = flow(FIRST, 100, Some((3, 2, 0)));
    echo.echo = true;
    peer.say(0, Performative::Flow(echo));
    assert_eq!(peer.heard(), ["0 flow Some(2) Some(2) 4"]);
}

/// Ids begin two before they wrap.
#[test]
fn a_range_of_deliveries_wraps_and_costs_what_is_in_it() {
    let mut peer = receiving(10);
    let link = peer.links[0];
    let sent: Vec<u32> = (0..5)
        .filter_map(|_| peer.endpoint.send(link, false, bytes(1)))
        .collect();
    assert_eq!(sent, [FIRST, u32::MAX, 0, 1, 2]);
    peer.heard();
    let said = |first, last, settled| {
        Performative::Disposition(Disposition {
            role: Role::Receiver,
            first,
            last,
            settled,
            state: Some(DeliveryState::Accepted),
            batchable: false,
        })
    };
    peer.say(0, said(u32::MAX, Some(1), false));
    let happened = peer.happened();
    assert_eq!(happened, ["settled [4294967295, 0, 1] false"]);
    peer.endpoint
        .settle_sent(0, (u32::MAX, 1), Some(DeliveryState::Accepted));
    assert_eq!(peer.heard(), ["0 disposition 4294967295..Some(1)"]);
    // Those are gone now. What was never sent, or is backwards, is nothing; neither are all numbers there are.
    peer.say(0, said(0, None, true));
    peer.say(0, said(77, Some(99), true));
    peer.say(0, said(2, Some(FIRST), true));
    assert!(peer.happened().is_empty());
    peer.say(0, said(FIRST.wrapping_sub(9), Some(9), true));
    assert_eq!(peer.happened(), ["settled [4294967294, 2] true"]);
    peer.say(0, said(0, Some(u32::MAX), true));
    assert!(peer.happened().is_empty());
}

/// rhea#452.
#[test]
fn a_closed_window_holds_its_own_session_only() {
    let mut peer = receiving(10);
    peer.say(1, attach("other", 0, Role::Receiver));
    peer.say(1, Performative::Flow(flow(FIRST, 100, Some((0, 0, 9)))));
    peer.say(0, Performative::Flow(flow(FIRST, 2, Some((2, 0, 9)))));
    peer.heard();
    let [link, other] = peer.links[..] else {
        panic!("two links")
    };
    // 1,200 bytes are three frames of 512; there is room for two.
    peer.endpoint.send(link, true, bytes(1_200)).expect("room");
    assert!(!peer.endpoint.can_send(link));
    peer.endpoint.send(other, true, bytes(1)).expect("room");
    let heard = peer.heard();
    assert_eq!(heard.len(), 3);
    assert!(heard[0].starts_with("0 transfer Some(4294967294) 4") && heard[0].ends_with("true"));
    assert!(heard[1].starts_with("0 transfer None 4") && heard[1].ends_with("true"));
    assert_eq!(heard[2], "1 transfer Some(4294967294) 1 false");
    // The peer has taken both, and takes one more: the rest goes, and then nothing.
    peer.say(0, Performative::Flow(flow(0, 1, None)));
    let heard = peer.heard();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].starts_with("0 transfer None 2") && heard[0].ends_with("false"));
    assert!(!peer.endpoint.can_send(link));
}

#[test]
fn deliveries_that_nobody_settles_are_bounded() {
    let mut peer = receiving(1_000);
    peer.say(
        0,
        Performative::Flow(flow(FIRST, 10_000, Some((2, 0, 1_000)))),
    );
    let link = peer.links[0];
    let sent = (0..1_000)
        .map_while(|_| peer.endpoint.send(link, false, bytes(0)))
        .count();
    assert_eq!(sent, 100);
}

#[test]
fn a_link_on_whose_deliveries_nothing_depends_forgets_the_oldest_of_its_own() {
    let mut peer = receiving(1_000);
    peer.say(0, attach("other", 3, Role::Receiver));
    for handle in [2, 3] {
        peer.say(
            0,
            Performative::Flow(flow(FIRST, 10_000, Some((handle, 0, 1_000)))),
        );
    }
    let [first, other] = peer.links[..] else {
        panic!("two links");
    };
    peer.endpoint.forgets_unsettled(first);
    let mut ids = Vec::new();
    ids.extend(peer.endpoint.send(other, false, bytes(0)));
    for _ in 0..999 {
        ids.extend(peer.endpoint.send(first, false, bytes(0)));
    }
    assert_eq!(ids.len(), 1_000, "as much as there is credit for");
    assert_eq!(peer.endpoint.send(other, false, bytes(0)), None, "bounded");
    peer.happened();
    // What is known of them is the other link's one, and the newest of this one.
    peer.say(
        0,
        Performative::Disposition(Disposition {
            role: Role::Receiver,
            first: ids[0],
            last: Some(ids[999]),
            settled: true,
            state: Some(DeliveryState::Accepted),
            batchable: false,
        }),
    );
    let known = [&ids[..1], &ids[901..]].concat();
    assert_eq!(peer.happened(), [format!("settled {known:?} true")]);
}

#[test]
fn a_link_is_detached_and_a_refused_one_attached_to_nowhere_first() {
    let mut peer = receiving(1);
    peer.say(
        0,
        Performative::Detach(Detach {
            handle: 2,
            closed: true,
            error: None,
        }),
    );
    assert_eq!(peer.heard(), ["0 detach 2"]);
    assert_eq!(peer.happened(), ["detached true"]);
    let mut endpoint = peer.endpoint;
    let mut input = BytesMut::new();
    frame::put(&mut input, FrameKind::Amqp, 0, |out| {
        attach("no", 5, Role::Receiver).put(out);
    });
    let frame = endpoint.cut(&mut input, peer.now).expect("a frame");
    let Some(Event::Attach { link, .. }) = endpoint.receive(&frame) else {
        panic!("an attach")
    };
    endpoint.refuse(link, error(ErrorCondition::NotFound, "no such topic"));
    let mut peer = Peer { endpoint, ..peer };
    let expected = ["0 attach 5 nowhere", "0 detach 5 amqp:not-found"];
    assert_eq!(peer.heard(), expected);
    assert!(!peer.endpoint.accept(
        link,
        &Attached {
            source: None,
            target: None,
            snd_settle_mode: SenderSettleMode::Mixed,
            rcv_settle_mode: ReceiverSettleMode::First,
            offered_capabilities: Multiple::None,
            properties: None,
        }
    ));
}

#[test]
fn silence_ends_a_connection_and_a_quiet_one_gives_signs_of_life() {
    let mut peer = Peer::open(settings());
    let start = peer.now;
    // The peer's idle time-out is 10 s: it hears something every 5.
    assert_eq!(peer.endpoint.wakes_at(), start + Duration::from_secs(5));
    assert!(!peer.endpoint.tick(start + Duration::from_secs(5)));
    assert_eq!(peer.heard(), ["alive"]);
    assert!(!peer.endpoint.tick(start + Duration::from_secs(6)));
    assert!(peer.heard().is_empty());
    peer.now = start + Duration::from_secs(30);
    peer.raw(b"\0\0\0\x08\x02\0\0\0");
    assert!(!peer.endpoint.tick(start + Duration::from_secs(89)));
    peer.heard();
    assert!(peer.endpoint.tick(start + Duration::from_secs(90)));
    assert_eq!(peer.heard(), ["close amqp:resource-limit-exceeded"]);
    assert!(peer.endpoint.is_over());
}
