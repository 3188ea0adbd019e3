//! A connection with a session and a link.

use std::time::Duration;

use amqp::frame::{self, FrameKind, HEADER_BYTES, Protocol};
use amqp::performative::{
    Attach, Begin, Close, Disposition, Flow, Open, Performative, Role, SenderSettleMode, Transfer,
};
use amqp::sasl::{SaslCode, SaslFrame, SaslInit};
use amqp::state::DeliveryState;
use amqp::terminus::{AnyTarget, Source, Target, TerminusDurability};
use amqp::{BytesMut, Symbol};
use anyhow::{Context as _, Result, bail, ensure};
use bytes::BufMut as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::amqp_client::said::{self, Ends, Stand};

/// Longer than any answer takes.
pub const PATIENCE: Duration = Duration::from_secs(60);
const FRAME_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 64 << 10;
/// Transfers that the session takes; topped up with a link's credit.
const SESSION_WINDOW: u32 = 100_000;
const CHANNEL: u16 = 0;
/// The one link's.
const HANDLE: u32 = 0;

/// A connection whose session has begun.
pub struct Client {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// The id of the next transfer from the peer.
    next_incoming: u32,
    /// Transfers sent.
    sent: u32,
    /// Transfers that may be sent in all, by the session's window.
    session_allows: u32,
    /// And by the link's credit.
    link_allows: u32,
}

impl Client {
    /// Connects, logs in as nobody in particular, opens, and begins a session.
    pub async fn open(address: &str, container_id: &str) -> Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            next_incoming: 0,
            sent: 0,
            session_allows: 0,
            link_allows: 0,
        };
        let opened = tokio::time::timeout(PATIENCE, client.handshake(container_id));
        opened.await.context("no answer came")??;
        Ok(client)
    }

    async fn handshake(&mut self, container_id: &str) -> Result<()> {
        self.greet(Protocol::Sasl).await?;
        let init = SaslFrame::Init(SaslInit {
            mechanism: Symbol("ANONYMOUS"),
            initial_response: Some(b""),
            hostname: None,
        });
        frame::put(&mut self.outgoing, FrameKind::Sasl, 0, |out| init.put(out));
        self.flush().await?;
        loop {
            let body = self.frame().await?;
            match SaslFrame::decode(&body)? {
                SaslFrame::Mechanisms(_) => {}
                SaslFrame::Outcome(outcome) => {
                    ensure!(outcome.code == SaslCode::Ok, "{outcome:?}");
                    break;
                }
                other => bail!("{other:?} came"),
            }
        }
        self.greet(Protocol::Amqp).await?;
        self.put(&Performative::Open(Open {
            hostname: Some("localhost"),
            ..said::open(container_id, u32::try_from(FRAME_BYTES_MAX)?)
        }));
        self.put(&Performative::Begin(Begin {
            handle_max: 0,
            ..said::begin(SESSION_WINDOW)
        }));
        self.flush().await?;
        loop {
            let body = self.frame().await?;
            match Performative::split(&body)?.0 {
                Performative::Open(_) => {}
                Performative::Begin(begin) => {
                    self.next_incoming = begin.next_outgoing_id;
                    self.session_allows = begin.incoming_window;
                    return Ok(());
                }
                other => bail!("{other:?} came"),
            }
        }
    }

    /// Says the header of a protocol, and waits for the same.
    async fn greet(&mut self, protocol: Protocol) -> Result<()> {
        self.outgoing.extend_from_slice(&protocol.bytes());
        self.flush().await?;
        while self.incoming.len() < HEADER_BYTES {
            self.read().await?;
        }
        let answer = self.incoming.split_to(HEADER_BYTES);
        ensure!(answer[..] == protocol.bytes(), "{answer:?} was answered");
        Ok(())
    }

    /// Attaches a link that sends to a queue, and waits until it is.
    pub async fn sends_to(&mut self, queue: &str) -> Result<()> {
        let target = Target {
            durable: TerminusDurability::UnsettledState,
            expiry_policy: Symbol("never"),
            ..said::queue_target(queue)
        };
        let ends = Ends::SendsTo(AnyTarget::Target(target));
        let attach = Attach {
            source: Some(kept_source(said::source(None))),
            ..said::attach("sends", HANDLE, ends)
        };
        self.attach(queue, attach).await
    }

    /// Attaches a link that receives from a queue, without credit, and waits until it is.
    pub async fn receives_from(&mut self, queue: &str) -> Result<()> {
        let target = Target {
            durable: TerminusDurability::UnsettledState,
            expiry_policy: Symbol("never"),
            ..said::target(None)
        };
        let ends = Ends::ReceivesFrom(kept_source(said::queue(queue)));
        let attach = Attach {
            target: Some(AnyTarget::Target(target)),
            ..said::attach("receives", HANDLE, ends)
        };
        self.attach(queue, attach).await
    }

    async fn attach(&mut self, queue: &str, attach: Attach<'_>) -> Result<()> {
        let is_sender = attach.role == Role::Sender;
        self.put(&Performative::Attach(Attach {
            snd_settle_mode: SenderSettleMode::Unsettled,
            ..attach
        }));
        self.flush().await?;
        let attached = async {
            loop {
                let body = self.frame().await?;
                match Performative::split(&body)?.0 {
                    Performative::Attach(attach) => {
                        // One without a terminus is refused, and a detach follows.
                        let is_there = match is_sender {
                            true => attach.target.is_some(),
                            false => attach.source.is_some(),
                        };
                        if is_there {
                            return Ok(());
                        }
                    }
                    Performative::Flow(flow) => self.flowed(&flow),
                    other => bail!("{queue} was not attached: {other:?}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, attached)
            .await
            .context("no answer came")?
    }

    /// The body of the next frame that is not empty.
    async fn frame(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(body) = said::take(&mut self.incoming, FRAME_BYTES_MAX)? {
                return Ok(body);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.incoming.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.incoming).await?;
        ensure!(read > 0, "the broker closed a connection");
        Ok(())
    }

    fn put(&mut self, performative: &Performative<'_>) {
        said::put(&mut self.outgoing, CHANNEL, performative, b"");
    }

    /// Sends what there is to send.
    pub async fn flush(&mut self) -> Result<()> {
        if !self.outgoing.is_empty() {
            self.stream.write_all(&self.outgoing).await?;
            self.outgoing.clear();
        }
        Ok(())
    }

    /// Waits until something has come, and hands on what is said of deliveries: transfers with their payloads, and dispositions.
    pub async fn receive(
        &mut self,
        mut each: impl FnMut(&Performative<'_>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        // Frames may be there that came with an answer.
        let mut next = said::take(&mut self.incoming, FRAME_BYTES_MAX)?;
        if next.is_none() {
            self.read().await?;
            next = said::take(&mut self.incoming, FRAME_BYTES_MAX)?;
        }
        while let Some(body) = next {
            let (performative, payload) = Performative::split(&body)?;
            match &performative {
                Performative::Flow(flow) => self.flowed(flow),
                Performative::Transfer(_) => {
                    self.next_incoming = self.next_incoming.wrapping_add(1);
                    each(&performative, payload)?;
                }
                Performative::Disposition(_) => each(&performative, payload)?,
                other => bail!("{other:?} came"),
            }
            next = said::take(&mut self.incoming, FRAME_BYTES_MAX)?;
        }
        Ok(())
    }

    fn flowed(&mut self, flow: &Flow<'_>) {
        let expects = flow.next_incoming_id.unwrap_or(0);
        self.session_allows = expects.wrapping_add(flow.incoming_window);
        if let (Some(_), Some(credit)) = (flow.handle, flow.link_credit) {
            self.link_allows = flow.delivery_count.unwrap_or(0).wrapping_add(credit);
        }
    }

    /// How many more transfers may be sent.
    pub fn may_send(&self) -> u32 {
        let more = |allows: u32| allows.wrapping_sub(self.sent).cast_signed().max(0);
        more(self.session_allows)
            .min(more(self.link_allows))
            .unsigned_abs()
    }

    /// Sends the next message; its delivery's id is how many were sent before.
    pub fn send(&mut self, message: &Message, begins_with: &[u8]) {
        message.put(&mut self.outgoing, self.sent, begins_with);
        self.sent = self.sent.wrapping_add(1);
    }

    /// Gives the link credit for so many deliveries behind those that have come.
    pub fn credit(&mut self, came: u32, credit: u32) {
        let stand = Stand {
            next_incoming: self.next_incoming,
            next_outgoing: self.sent,
            window: SESSION_WINDOW,
        };
        let flow = said::credit(stand, HANDLE, (came, credit), false);
        self.put(&Performative::Flow(flow));
    }

    /// Closes, and waits until the broker has too: it has then taken note of everything that was said.
    pub async fn close(mut self) -> Result<()> {
        self.put(&Performative::Close(Close { error: None }));
        self.flush().await?;
        let closed = async {
            loop {
                let body = self.frame().await?;
                if let Performative::Close(close) = Performative::split(&body)?.0 {
                    ensure!(close.error.is_none(), "{close:?}");
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, closed)
            .await
            .context("the broker does not close")?
    }

    /// Accepts and settles these deliveries.
    pub fn accept(&mut self, first: u32, last: u32) {
        self.put(&Performative::Disposition(Disposition {
            role: Role::Receiver,
            first,
            last: Some(last),
            settled: true,
            state: Some(DeliveryState::Accepted),
            batchable: true,
        }));
    }
}

/// One that outlives the connection, with what is unsettled.
fn kept_source(source: Source<'_>) -> Source<'_> {
    Source {
        durable: TerminusDurability::UnsettledState,
        expiry_policy: Symbol("never"),
        ..source
    }
}

/// A durable message that is made once and sent many times.
pub struct Message {
    sections: Vec<u8>,
    payload_at: usize,
}

impl Message {
    /// With a body of so many bytes.
    pub fn new(body_bytes: usize) -> Message {
        let mut sections = BytesMut::new();
        // A header that says durable, and one section of data.
        sections.put_slice(&[0x00, 0x53, 0x70, 0xC0, 0x02, 0x01, 0x41]);
        sections.put_slice(&[0x00, 0x53, 0x75, 0xB0]);
        sections.put_u32(body_bytes as u32);
        let payload_at = sections.len();
        sections.extend((0..body_bytes).map(|index| b'a' + (index % 26) as u8));
        Message {
            sections: sections.to_vec(),
            payload_at,
        }
    }

    fn put(&self, out: &mut BytesMut, id: u32, begins_with: &[u8]) {
        let tag = id.to_be_bytes();
        let transfer = Performative::Transfer(Transfer {
            batchable: true,
            ..said::transfer(HANDLE, id, &tag)
        });
        frame::put(out, FrameKind::Amqp, CHANNEL, |out| {
            transfer.put(out);
            let payload = out.len() + self.payload_at;
            out.extend_from_slice(&self.sections);
            out[payload..payload + begins_with.len()].copy_from_slice(begins_with);
        });
    }
}

/// The bytes that a message's body begins with.
pub fn beginning(payload: &[u8]) -> Result<[u8; 8]> {
    match amqp::message::Message::of(payload)?.body {
        amqp::message::Body::Data(1, data) => {
            let bytes = data.first_chunk().context("a body of fewer than 8 bytes")?;
            Ok(*bytes)
        }
        other => bail!("a body of {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_transfer_of_the_standard() {
        let message = Message::new(1_024);
        let mut out = BytesMut::new();
        message.put(&mut out, 5, &7_u64.to_be_bytes());
        let header = frame::header(&out, FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(header.frame_bytes, out.len());
        let (performative, payload) = Performative::split(&out[header.body_at..]).unwrap();
        let Performative::Transfer(transfer) = performative else {
            panic!("{performative:?}");
        };
        assert_eq!(transfer.delivery_id, Some(5));
        let read = amqp::message::Message::of(payload).unwrap();
        assert!(read.header.unwrap().durable);
        assert_eq!(beginning(payload).unwrap(), 7_u64.to_be_bytes());
        assert_eq!(payload.len() - 1_024, message.payload_at);
    }
}
