//! A client with one session that waits for its answers, for the exam.
//! Callers: the exam's load over AMQP, and its case of selectors.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use amqp::frame::Protocol;
use amqp::message::{Body, Message, SectionKind, put_section};
use amqp::performative::{Attach, Disposition, Performative, Role, SenderSettleMode, Transfer};
use amqp::state::{DeliveryState, TransactionalState};
use amqp::terminus::{AnyTarget, Coordinator, Source};
use amqp::{BytesMut, Field as _, MapBuf, Multiple, Symbol, Value};
use anyhow::{Context as _, Result, bail, ensure};

use super::said::{self, Ends, Stand};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// More than a session ever has under way.
const WINDOW: u32 = 1 << 24;
const CHANNEL: u16 = 0;

/// What a delivery of ours, or of the broker, came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is taken.
    Accepted,
    /// It may be sent again.
    Released,
    /// A transaction has begun.
    Declared(Vec<u8>),
    /// It is taken if its transaction is.
    InTransaction,
    /// Anything else, in words.
    Other(String),
}

/// What the broker says.
pub enum Heard {
    /// A link is attached.
    Attached(u32),
    /// Of which link, and its credit.
    Flow(Option<u32>, Option<u32>),
    /// From which delivery to which, what became of them, and whether they are ours.
    Settled(u32, u32, Outcome, bool),
    /// A message.
    Delivery {
        /// By which it is settled.
        id: u32,
        /// Its data.
        value: Vec<u8>,
        /// Deliveries before.
        before: u32,
    },
    /// Anything else.
    Other,
}

/// A client of AMQP with one session.
pub struct Peer {
    stream: TcpStream,
    input: BytesMut,
    /// Deliveries that were sent, and that came.
    sent: u32,
    received: u32,
}

impl Peer {
    /// Opens a connection, and begins a session.
    pub fn open(address: &str) -> Result<Peer> {
        let stream = TcpStream::connect(address).context("nobody speaks AMQP")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut peer = Peer {
            stream,
            input: BytesMut::new(),
            sent: 0,
            received: 0,
        };
        peer.stream.write_all(&Protocol::Amqp.bytes())?;
        peer.say(Performative::Open(said::open("exam", FRAME_BYTES_MAX)))?;
        peer.say(Performative::Begin(said::begin(WINDOW)))?;
        let mut header = [0; 8];
        peer.stream.read_exact(&mut header)?;
        ensure!(header == Protocol::Amqp.bytes(), "no header of AMQP");
        Ok(peer)
    }

    /// Waits until both are answered.
    pub fn begun(&mut self) -> Result<()> {
        for _ in ["open", "begin"] {
            ensure!(matches!(self.next()?, Heard::Other), "no answer to open");
        }
        Ok(())
    }

    /// How many messages came.
    pub fn received(&self) -> u32 {
        self.received
    }

    fn say(&mut self, performative: Performative<'_>) -> Result<()> {
        self.say_with(performative, b"")
    }

    fn say_with(&mut self, performative: Performative<'_>, payload: &[u8]) -> Result<()> {
        let frame = said::frame(CHANNEL, &performative, payload);
        Ok(self.stream.write_all(&frame)?)
    }

    fn attach(&mut self, handle: u32, settles: SenderSettleMode, ends: Ends<'_>) -> Result<()> {
        let name = format!("link-{handle}");
        let attach = Attach {
            snd_settle_mode: settles,
            ..said::attach(&name, handle, ends)
        };
        let role = attach.role;
        self.say(Performative::Attach(attach))?;
        // A sender waits for its credit, too.
        loop {
            match self.next()? {
                Heard::Attached(of) if of == handle && role == Role::Receiver => return Ok(()),
                Heard::Flow(Some(of), Some(1..)) if of == handle => return Ok(()),
                _ => {}
            }
        }
    }

    /// Attaches a sender, and waits for its credit.
    pub fn sender(&mut self, handle: u32, address: &str) -> Result<()> {
        let target = AnyTarget::Target(said::target(Some(address)));
        self.attach(handle, SenderSettleMode::Mixed, Ends::SendsTo(target))
    }

    /// Attaches a sender to the coordinator of transactions, and waits for its credit.
    pub fn coordinator(&mut self, handle: u32) -> Result<()> {
        let capabilities = Multiple::These(&["amqp:local-transactions"]);
        let target = AnyTarget::Coordinator(Coordinator { capabilities });
        self.attach(handle, SenderSettleMode::Mixed, Ends::SendsTo(target))
    }

    /// Attaches a consumer of a queue.
    pub fn consumer(&mut self, handle: u32, queue: &str) -> Result<()> {
        self.receiver(handle, SenderSettleMode::Mixed, said::queue(queue))
    }

    /// Attaches one that sees what is in a queue, and takes nothing.
    pub fn browser(&mut self, handle: u32, queue: &str) -> Result<()> {
        let source = Source {
            distribution_mode: Some(Symbol("copy")),
            ..said::queue(queue)
        };
        self.receiver(handle, SenderSettleMode::Settled, source)
    }

    /// Attaches a consumer of a queue with a selector.
    pub fn selector(&mut self, handle: u32, queue: &str, selector: &str) -> Result<()> {
        let mut filter = MapBuf::new();
        let name = "apache.org:selector-filter:string";
        filter.put_symbol(name, &Value::String(selector));
        let source = Source {
            filter: Some(filter.as_map()),
            ..said::queue(queue)
        };
        self.receiver(handle, SenderSettleMode::Mixed, source)
    }

    fn receiver(
        &mut self,
        handle: u32,
        settles: SenderSettleMode,
        source: Source<'_>,
    ) -> Result<()> {
        self.attach(handle, settles, Ends::ReceivesFrom(source))
    }

    /// Gives credit from what came on.
    pub fn credit(&mut self, handle: u32, credit: u32, drain: bool) -> Result<()> {
        let stand = Stand {
            next_incoming: self.received,
            next_outgoing: self.sent,
            window: WINDOW,
        };
        let flow = said::credit(stand, handle, (self.received, credit), drain);
        self.say(Performative::Flow(flow))
    }

    /// Sends a message; gives its delivery's id.
    pub fn transfer(&mut self, handle: u32, value: &[u8], txn: Option<&[u8]>) -> Result<u32> {
        let mut payload = BytesMut::new();
        put_section(&mut payload, SectionKind::Data, &Value::Binary(value));
        self.deliver(handle, &payload, txn)
    }

    /// Sends a message with an application property; gives its delivery's id.
    pub fn transfer_with(
        &mut self,
        handle: u32,
        value: &[u8],
        (name, said): (&str, &str),
    ) -> Result<u32> {
        let mut properties = MapBuf::new();
        properties.put(&Value::String(name), &Value::String(said));
        let mut payload = BytesMut::new();
        let properties = Value::Map(properties.as_map());
        put_section(
            &mut payload,
            SectionKind::ApplicationProperties,
            &properties,
        );
        put_section(&mut payload, SectionKind::Data, &Value::Binary(value));
        self.deliver(handle, &payload, None)
    }

    fn deliver(&mut self, handle: u32, payload: &[u8], txn: Option<&[u8]>) -> Result<u32> {
        let id = self.sent;
        self.sent += 1;
        let in_txn = |txn_id| {
            DeliveryState::Transactional(TransactionalState {
                txn_id,
                outcome: None,
            })
        };
        let tag = id.to_be_bytes();
        let transfer = Transfer {
            state: txn.map(in_txn),
            ..said::transfer(handle, id, &tag)
        };
        self.say_with(Performative::Transfer(transfer), payload)?;
        Ok(id)
    }

    fn settle(&mut self, id: u32, settled: bool, state: DeliveryState<'_>) -> Result<()> {
        self.say(Performative::Disposition(Disposition {
            role: Role::Receiver,
            first: id,
            last: None,
            settled,
            state: Some(state),
            batchable: false,
        }))
    }

    /// Accepts a delivery.
    pub fn accept(&mut self, id: u32) -> Result<()> {
        self.settle(id, false, DeliveryState::Accepted)
    }

    /// Accepts a delivery in a transaction.
    pub fn accept_in(&mut self, id: u32, txn_id: &[u8]) -> Result<()> {
        let accepted = amqp::reader::decode(b"\x00\x53\x24\x45").context("a value")?;
        let state = DeliveryState::Transactional(TransactionalState {
            txn_id,
            outcome: Some(accepted),
        });
        self.settle(id, true, state)
    }

    /// Begins a transaction.
    pub fn declare(&mut self, handle: u32) -> Result<Vec<u8>> {
        let id = self.deliver(handle, b"\x00\x53\x77\x00\x53\x31\x45", None)?;
        match self.outcome(id)? {
            Outcome::Declared(txn) => Ok(txn),
            other => bail!("a declaration: {other:?}"),
        }
    }

    /// Ends a transaction, by a commit unless it `fails`; gives its delivery's id.
    pub fn discharge(&mut self, handle: u32, txn: &[u8], fails: bool) -> Result<u32> {
        let bytes = u8::try_from(txn.len())?;
        let mut payload = vec![0x00, 0x53, 0x77, 0x00, 0x53, 0x32, 0xc0, bytes + 4, 2, 0xa0];
        payload.push(bytes);
        payload.extend_from_slice(txn);
        payload.push(if fails { 0x41 } else { 0x42 });
        self.deliver(handle, &payload, None)
    }

    /// What becomes of a delivery of ours.
    pub fn outcome(&mut self, id: u32) -> Result<Outcome> {
        loop {
            match self.next()? {
                Heard::Settled(first, last, outcome, true) if (first..=last).contains(&id) => {
                    return Ok(outcome);
                }
                _ => {}
            }
        }
    }

    /// What comes next.
    pub fn next(&mut self) -> Result<Heard> {
        self.next_within(PATIENCE)?.context("no answer came")
    }

    /// What comes within a time; None if nothing does.
    pub fn next_within(&mut self, time: Duration) -> Result<Option<Heard>> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(body) = said::take(&mut self.input, FRAME_BYTES_MAX as usize)? {
                return self.heard(&body).map(Some);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 16 << 10];
            let count = match self.stream.read(&mut bytes) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                read => read?,
            };
            ensure!(count > 0, "the connection ended");
            self.input.extend_from_slice(&bytes[..count]);
        }
    }

    fn heard(&mut self, body: &[u8]) -> Result<Heard> {
        let (performative, payload) = Performative::split(body).context("no performative")?;
        Ok(match performative {
            Performative::Attach(it) => Heard::Attached(it.handle),
            Performative::Flow(it) => Heard::Flow(it.handle, it.link_credit),
            Performative::Disposition(it) => {
                let outcome = it.state.map_or(Outcome::Other(String::new()), outcome_of);
                let last = it.last.unwrap_or(it.first);
                Heard::Settled(it.first, last, outcome, it.role == Role::Receiver)
            }
            Performative::Transfer(it) => {
                self.received += 1;
                let message = Message::of(payload).context("no message")?;
                let Body::Data(1, value) = message.body else {
                    bail!("a message without data");
                };
                Heard::Delivery {
                    id: it.delivery_id.context("no id")?,
                    value: value.to_vec(),
                    before: message.header.map_or(0, |it| it.delivery_count),
                }
            }
            Performative::Detach(it) => bail!("a link is detached: {:?}", it.error),
            Performative::End(it) => bail!("the session is ended: {:?}", it.error),
            Performative::Close(it) => bail!("the connection is closed: {:?}", it.error),
            Performative::Open(_) | Performative::Begin(_) => Heard::Other,
        })
    }
}

fn outcome_of(state: DeliveryState<'_>) -> Outcome {
    let is_accepted = |outcome: Option<Value<'_>>| {
        outcome.and_then(DeliveryState::of) == Some(DeliveryState::Accepted)
    };
    match state {
        DeliveryState::Accepted => Outcome::Accepted,
        DeliveryState::Released => Outcome::Released,
        DeliveryState::Declared(it) => Outcome::Declared(it.txn_id.to_vec()),
        DeliveryState::Transactional(it) if is_accepted(it.outcome) => Outcome::InTransaction,
        other => Outcome::Other(format!("{other:?}")),
    }
}
