//! A client of AMQP for the tests: it says what it is told, and tells what it hears.

use std::time::Duration;

use ::amqp::frame::{self, FrameKind, Protocol};
use ::amqp::message::{Body, Message};
use ::amqp::performative::{
    Attach, Begin, Close, Detach, Disposition, Error, Flow, Open, Performative, ReceiverSettleMode,
    Role, SenderSettleMode, Transfer,
};
use ::amqp::sasl::SaslFrame;
use ::amqp::state::{DeliveryState, TransactionalState};
use ::amqp::terminus::{AnyTarget, Coordinator, Source, Target, TerminusDurability};
use ::amqp::{BytesMut, Field as _, Map, Multiple, Symbol, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long an answer may take on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What it speaks through.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection.
pub struct Amqp {
    stream: Box<dyn Duplex>,
    input: BytesMut,
}

impl Amqp {
    /// One that has said nothing.
    pub async fn open(address: &str) -> Amqp {
        Amqp::over(TcpStream::connect(address).await.expect("it listens"))
    }

    /// The same over a stream.
    pub fn over(stream: impl Duplex + 'static) -> Amqp {
        Amqp {
            stream: Box::new(stream),
            input: BytesMut::new(),
        }
    }

    /// One with a session on channel 0.
    pub async fn connect(address: &str) -> Amqp {
        let mut amqp = Amqp::open(address).await;
        amqp.begin().await;
        amqp
    }

    /// Says AMQP's header, opens, and begins a session.
    pub async fn begin(&mut self) {
        self.say_open("test", &[]).await;
        self.say(Performative::Begin(Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: 1_000,
            outgoing_window: 1_000,
            handle_max: 255,
            offered_capabilities: Multiple::None,
            desired_capabilities: Multiple::None,
            properties: None,
        }))
        .await;
        for expected in ["header Amqp", "open", "begin"] {
            assert_eq!(self.next().await.0, expected);
        }
    }

    /// Says AMQP's header, and opens as a container that wants these capabilities.
    pub async fn say_open(&mut self, container_id: &str, wanted: &[&str]) {
        self.raw(&Protocol::Amqp.bytes()).await;
        self.say(Performative::Open(Open {
            container_id,
            hostname: None,
            max_frame_size: 4_096,
            channel_max: 255,
            idle_time_out: None,
            outgoing_locales: Multiple::None,
            incoming_locales: Multiple::None,
            offered_capabilities: Multiple::None,
            desired_capabilities: Multiple::These(wanted),
            properties: None,
        }))
        .await;
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is taken");
    }

    pub async fn say(&mut self, performative: Performative<'_>) {
        self.say_with(performative, b"").await;
    }

    /// Says one behind the other in one write.
    pub async fn say_together(&mut self, performatives: &[Performative<'_>]) {
        let mut out = BytesMut::new();
        for performative in performatives {
            frame::put(&mut out, FrameKind::Amqp, 0, |out| performative.put(out));
        }
        self.raw(&out).await;
    }

    async fn say_with(&mut self, performative: Performative<'_>, payload: &[u8]) {
        let mut out = BytesMut::new();
        frame::put(&mut out, FrameKind::Amqp, 0, |out| {
            performative.put(out);
            out.extend_from_slice(payload);
        });
        self.raw(&out).await;
    }

    pub async fn log_in(&mut self, step: SaslFrame<'_>) {
        let mut out = BytesMut::new();
        frame::put(&mut out, FrameKind::Sasl, 0, |out| step.put(out));
        self.raw(&out).await;
    }

    /// Closes the connection.
    pub async fn close(&mut self) {
        self.say(Performative::Close(Close { error: None })).await;
    }

    /// Attaches a sender to an address; None lets each message say it.
    pub async fn sender(&mut self, handle: u32, address: Option<&str>) {
        let target = AnyTarget::Target(target(address));
        let name = format!("s{handle}");
        let attach = attach(&name, handle, Role::Sender, None, target);
        self.say(Performative::Attach(attach)).await;
    }

    /// Attaches a sender to a target; the address that it is answered.
    pub async fn sender_to(&mut self, handle: u32, target: Target<'_>) -> String {
        self.say_sender_to(handle, target).await;
        let address = self.attached().await;
        self.until("flow").await;
        address
    }

    /// The same without waiting.
    pub async fn say_sender_to(&mut self, handle: u32, target: Target<'_>) {
        let name = format!("s{handle}");
        let target = AnyTarget::Target(target);
        let attach = attach(&name, handle, Role::Sender, None, target);
        self.say(Performative::Attach(attach)).await;
    }

    /// Attaches a receiver to a source; the address that it is answered.
    pub async fn receiver_from(&mut self, handle: u32, source: Source<'_>) -> String {
        self.receiver(handle, source).await;
        self.attached().await
    }

    /// The address of the node of the link that is attached next.
    async fn attached(&mut self) -> String {
        let said = self.until("attach").await;
        let (_, address) = said
            .rsplit_once(" dynamic ")
            .unwrap_or_else(|| panic!("{said}"));
        address.to_owned()
    }

    /// Attaches a receiver.
    pub async fn receiver(&mut self, handle: u32, source: Source<'_>) {
        let name = format!("r{handle}");
        self.receiver_of(handle, &name, Some(source)).await;
    }

    /// Attaches a receiver by a name; without a source it is to be rid of what the name stands for.
    pub async fn receiver_of(&mut self, handle: u32, name: &str, source: Option<Source<'_>>) {
        let target = AnyTarget::Target(target(None));
        let attach = attach(name, handle, Role::Receiver, source, target);
        self.say(Performative::Attach(attach)).await;
    }

    /// Attaches a receiver with an address of its own and properties of its link.
    pub async fn receiver_as(
        &mut self,
        handle: u32,
        source: Source<'_>,
        address: &str,
        properties: Option<Map<'_>>,
    ) {
        let name = format!("r{handle}");
        let target = AnyTarget::Target(target(Some(address)));
        let attach = Attach {
            properties,
            ..attach(&name, handle, Role::Receiver, Some(source), target)
        };
        self.say(Performative::Attach(attach)).await;
    }

    /// Attaches a receiver that is sent what is settled.
    pub async fn receiver_of_settled(&mut self, handle: u32, source: Source<'_>) {
        let mode = SenderSettleMode::Settled;
        self.receiver_in_mode(handle, source, mode).await;
    }

    /// Attaches a receiver that says how what it is sent is settled.
    pub async fn receiver_in_mode(
        &mut self,
        handle: u32,
        source: Source<'_>,
        mode: SenderSettleMode,
    ) {
        let name = format!("r{handle}");
        let target = AnyTarget::Target(target(None));
        let attach = Attach {
            snd_settle_mode: mode,
            ..attach(&name, handle, Role::Receiver, Some(source), target)
        };
        self.say(Performative::Attach(attach)).await;
    }

    /// Attaches a link to the coordinator of transactions.
    pub async fn coordinator(&mut self, handle: u32) {
        let target = AnyTarget::Coordinator(Coordinator {
            capabilities: Multiple::These(&["amqp:local-transactions"]),
        });
        let name = format!("c{handle}");
        let attach = attach(&name, handle, Role::Sender, None, target);
        self.say(Performative::Attach(attach)).await;
        self.until("flow").await;
    }

    /// Begins a transaction by a delivery to the coordinator; its number.
    pub async fn declare(&mut self, handle: u32, id: u32) -> u64 {
        self.transfer(handle, id, b"\x00\x53\x77\x00\x53\x31\x45")
            .await;
        let said = self
            .until(&format!("disposition {id}..{id} declared"))
            .await;
        let (_, number) = said.rsplit_once(' ').expect("a number");
        number.parse().expect("a number")
    }

    /// Ends a transaction by a delivery to the coordinator. What it is told.
    pub async fn discharge(&mut self, handle: u32, id: u32, txn: u64, fails: bool) -> String {
        self.say_discharge(handle, id, txn, fails).await;
        let begin = format!("disposition {id}..{id} ");
        let said = self.until(&begin).await;
        said[begin.len()..].to_owned()
    }

    /// The same without waiting.
    pub async fn say_discharge(&mut self, handle: u32, id: u32, txn: u64, fails: bool) {
        let mut payload = b"\x00\x53\x77\x00\x53\x32\xc0\x0c\x02\xa0\x08".to_vec();
        payload.extend_from_slice(&txn.to_be_bytes());
        payload.push(if fails { 0x41 } else { 0x42 });
        self.transfer(handle, id, &payload).await;
    }

    /// Sends a message.
    pub async fn transfer(&mut self, handle: u32, id: u32, payload: &[u8]) {
        self.transfer_in(handle, id, payload, None).await;
    }

    /// Sends a message in a transaction.
    pub async fn transfer_in(&mut self, handle: u32, id: u32, payload: &[u8], txn: Option<u64>) {
        let txn = txn.map(u64::to_be_bytes);
        let state = txn.as_ref().map(|txn_id| {
            DeliveryState::Transactional(TransactionalState {
                txn_id,
                outcome: None,
            })
        });
        let transfer = Transfer {
            handle,
            delivery_id: Some(id),
            delivery_tag: Some(b"t"),
            message_format: Some(0),
            settled: Some(false),
            more: false,
            rcv_settle_mode: None,
            state,
            resume: false,
            aborted: false,
            batchable: false,
        };
        self.say_with(Performative::Transfer(transfer), payload)
            .await;
    }

    /// Gives credit to a link, from a count of deliveries on.
    pub async fn credit(&mut self, handle: u32, count: u32, credit: u32, drain: bool) {
        let flow = Flow {
            next_incoming_id: Some(count),
            incoming_window: 1_000,
            next_outgoing_id: 0,
            outgoing_window: 1_000,
            handle: Some(handle),
            delivery_count: Some(count),
            link_credit: Some(credit),
            available: None,
            drain,
            echo: false,
            properties: None,
        };
        self.say(Performative::Flow(flow)).await;
    }

    /// Says what becomes of deliveries that came.
    pub async fn settle(&mut self, ids: (u32, u32), settled: bool, state: DeliveryState<'_>) {
        self.say(settles(ids, settled, state)).await;
    }

    /// Says in a transaction that deliveries that came are accepted.
    pub async fn accept_in(&mut self, ids: (u32, u32), settled: bool, txn: u64) {
        let accepted = ::amqp::reader::decode(b"\x00\x53\x24\x45").expect("a value");
        let state = DeliveryState::Transactional(TransactionalState {
            txn_id: &txn.to_be_bytes(),
            outcome: Some(accepted),
        });
        self.settle(ids, settled, state).await;
    }

    /// Detaches a link; closes it, or leaves what it stands for.
    pub async fn detach(&mut self, handle: u32, closed: bool) {
        let detach = Detach {
            handle,
            closed,
            error: None,
        };
        self.say(Performative::Detach(detach)).await;
        self.until(&format!("detach {handle}")).await;
    }

    /// The next delivery: its id, its first byte of data, and how often it was delivered before.
    pub async fn delivery(&mut self) -> (u32, u8, u32) {
        let (words, payload) = self.next().await;
        let id = words
            .strip_suffix(" settled")
            .unwrap_or(&words)
            .strip_prefix("transfer Some(")
            .and_then(|rest| rest.strip_suffix(')'))
            .unwrap_or_else(|| panic!("{words}, and no delivery"));
        let message = Message::of(&payload).expect("a message");
        let Body::Data(1, &[byte]) = message.body else {
            panic!("{:?}, and no byte", message.body);
        };
        let before = message.header.map_or(0, |it| it.delivery_count);
        (id.parse().expect("a number"), byte, before)
    }

    /// What comes next, in words, and the payload of a transfer. `end` where the connection ends.
    pub async fn next(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Some(start) = self.input.first_chunk::<8>()
                && let Some(protocol) = Protocol::of(*start)
            {
                let _ = self.input.split_to(8);
                return (format!("header {protocol:?}"), Vec::new());
            }
            let header = frame::header(&self.input, 1 << 20).expect("a frame");
            if let Some(header) = header.filter(|it| self.input.len() >= it.frame_bytes) {
                let frame = self.input.split_to(header.frame_bytes);
                let body = &frame[header.body_at..];
                if !body.is_empty() {
                    return words(header.kind, body);
                }
                continue;
            }
            let read = self.stream.read_buf(&mut self.input);
            let read = tokio::time::timeout(ANSWER_MAX, read);
            let read = read.await.expect("an answer within a minute");
            if read.unwrap_or(0) == 0 {
                return ("end".to_owned(), Vec::new());
            }
        }
    }

    /// Passes over what comes until something begins so.
    pub async fn until(&mut self, begin: &str) -> String {
        loop {
            let (words, _) = self.next().await;
            if words.starts_with(begin) {
                return words;
            }
            assert_ne!(words, "end", "{begin} is waited for");
        }
    }
}

/// What becomes of deliveries that came.
pub fn settles(ids: (u32, u32), settled: bool, state: DeliveryState<'_>) -> Performative<'_> {
    Performative::Disposition(Disposition {
        role: Role::Receiver,
        first: ids.0,
        last: Some(ids.1),
        settled,
        state: Some(state),
        batchable: false,
    })
}

fn words(kind: FrameKind, body: &[u8]) -> (String, Vec<u8>) {
    if kind == FrameKind::Sasl {
        let words = match SaslFrame::decode(body).expect("a step of a login") {
            SaslFrame::Mechanisms(it) => {
                let all: Vec<&str> = it.sasl_server_mechanisms.iter().collect();
                format!("mechanisms {}", all.join(" "))
            }
            SaslFrame::Outcome(it) => format!("outcome {:?}", it.code),
            other => format!("{other:?}"),
        };
        return (words, Vec::new());
    }
    let why = |error: Option<Error<'_>>| error.map_or("", |it| it.condition.0).to_owned();
    let (performative, payload) = Performative::split(body).expect("a performative");
    let words = match performative {
        Performative::Open(it) => {
            let properties = it.properties;
            let fails = properties
                .is_some_and(|it| it.get("amqp:connection-establishment-failed").is_some());
            let is_sole = it.offered_capabilities.has("sole-connection-for-container");
            format!(
                "open{}{}",
                if fails { " failed" } else { "" },
                if is_sole { " sole" } else { "" }
            )
        }
        Performative::Begin(_) => "begin".to_owned(),
        Performative::Attach(it) => {
            let filters = it.source.and_then(|it| it.filter);
            let filters = filters.map_or(0, |it| it.len());
            let nowhere = it.source.is_none() && it.target.is_none();
            let nowhere = if nowhere { " nowhere" } else { "" };
            let target = match it.target {
                Some(AnyTarget::Target(it)) if it.dynamic => it.address,
                _ => None,
            };
            let source = it.source.filter(|it| it.dynamic).and_then(|it| it.address);
            let made = target.or(source).and_then(|it| it.text());
            let made = made.map_or_else(String::new, |it| format!(" dynamic {it}"));
            format!("attach {} {filters}{nowhere}{made}", it.handle)
        }
        Performative::Flow(it) => format!(
            "flow {:?} {:?} {:?}",
            it.handle, it.delivery_count, it.link_credit
        ),
        Performative::Transfer(it) => {
            let settled = if it.settled == Some(true) {
                " settled"
            } else {
                ""
            };
            format!("transfer {:?}{settled}", it.delivery_id)
        }
        Performative::Disposition(it) => {
            let last = it.last.unwrap_or(it.first);
            let state = it.state.map_or_else(String::new, |it| became(&it));
            format!("disposition {}..{last} {state}", it.first)
        }
        Performative::Detach(it) => format!("detach {} {}", it.handle, why(it.error)),
        Performative::End(it) => format!("end {}", why(it.error)),
        Performative::Close(it) => {
            let info = it.error.and_then(|it| it.info);
            let field = info.and_then(|it| it.get("invalid-field")?.text());
            format!("close {} {}", why(it.error), field.unwrap_or_default())
                .trim_end()
                .to_owned()
        }
    };
    (words, payload.to_vec())
}

fn became(state: &DeliveryState<'_>) -> String {
    let number = |txn: &[u8]| u64::from_be_bytes(txn.try_into().expect("eight bytes"));
    match state {
        DeliveryState::Accepted => "accepted".to_owned(),
        DeliveryState::Rejected(it) => {
            let condition = it.error.map_or("", |it| it.condition.0);
            format!("rejected {condition}")
        }
        DeliveryState::Declared(it) => format!("declared {}", number(it.txn_id)),
        DeliveryState::Transactional(it) => {
            let outcome = it.outcome.and_then(DeliveryState::of);
            let outcome = outcome.map_or_else(String::new, |it| became(&it));
            format!("in {} {outcome}", number(it.txn_id))
        }
        other => format!("{other:?}"),
    }
}

fn attach<'a>(
    name: &'a str,
    handle: u32,
    role: Role,
    source: Option<Source<'a>>,
    target: AnyTarget<'a>,
) -> Attach<'a> {
    Attach {
        name,
        handle,
        role,
        snd_settle_mode: SenderSettleMode::Mixed,
        rcv_settle_mode: ReceiverSettleMode::First,
        source,
        target: Some(target),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: (role == Role::Sender).then_some(0),
        max_message_size: None,
        offered_capabilities: Multiple::None,
        desired_capabilities: Multiple::None,
        properties: None,
    }
}

pub fn target(address: Option<&str>) -> Target<'_> {
    Target {
        address: address.map(Value::String),
        durable: TerminusDurability::None,
        expiry_policy: Symbol("session-end"),
        timeout: 0,
        dynamic: false,
        dynamic_node_properties: None,
        capabilities: Multiple::None,
    }
}

pub fn source<'a>(address: &'a str, filter: Option<Map<'a>>) -> Source<'a> {
    Source {
        address: Some(Value::String(address)),
        durable: TerminusDurability::None,
        expiry_policy: Symbol("session-end"),
        timeout: 0,
        dynamic: false,
        dynamic_node_properties: None,
        distribution_mode: None,
        filter,
        default_outcome: None,
        outcomes: Multiple::None,
        capabilities: Multiple::None,
    }
}
