//! What a client publishes: checked, brought to the log in order, and acknowledged in order once it is durable (§4.3, §4.6).
//! Callers: `connection`. Invariants: no ack leaves before the record is durable, nor before those of earlier publishes. One message
//! at a time is being admitted, and meanwhile nothing more is read, so that messages of a connection keep their order. A message
//! of QoS 2 is stored once for its identifier, until the client has released it. Of a session that outlives its connection identifiers
//! are kept in one frame with their records, and a release is durable before its PUBCOMP.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use model::quota::Quota;

use super::bounds::{ALIAS_MAX, RECEIVE_MAX};
use super::ending::Ending;
use super::errors::{self, Never, NotStored};
use super::frame::Frame;
use super::greeting::Client;
use super::packet::{Ack, AckKind, Publish, Qos, Version, reply};
use super::publishing::{publish, publish_of};
use super::record::{Message, Says};
use super::session::{self, Session};
use super::state::Front;
use crate::broker::access::Door;
use crate::broker::publish::Publishing;
use crate::broker::sessions::SessionRefusal;

/// The end of an identifier, on its way to the log.
type Release = Shared<BoxFuture<'static, Result<(), SessionRefusal>>>;
type Admission = Pin<Box<dyn Future<Output = Result<Publishing, NotStored>> + Send>>;

/// See the module.
pub(super) struct Inbound {
    front: Arc<Front>,
    door: Arc<Door>,
    version: Version,
    client_id: Bytes,
    wants_reasons: bool,
    packet_bytes_max: usize,
    /// The topics that aliases stand for, from 1.
    aliases: Vec<Option<Bytes>>,
    /// Of a client whose session is kept.
    session: Option<Arc<Session>>,
    /// Identifiers of messages of QoS 2 that the client has not released.
    received: BTreeSet<u16>,
    /// What is owed, in order.
    owed: VecDeque<Owed>,
    /// The message that is on its way to the log.
    admitting: Option<Admitting>,
    /// One of each batch that messages went into and that is not known to be durable: what is published in a frame of its own
    /// goes behind them.
    batched: Vec<Publishing>,
    /// The last that was published in a frame of its own, behind all before it.
    alone: Option<Publishing>,
}

struct Admitting {
    qos: Qos,
    packet_id: u16,
    /// Whether it joins what others publish.
    is_batched: bool,
    admission: Admission,
}

/// An ack that is owed.
enum Owed {
    /// When this is durable.
    Durable {
        kind: AckKind,
        packet_id: u16,
        publishing: Publishing,
    },
    /// PUBCOMP, when it is kept that the identifier is free.
    Released { packet_id: u16, release: Release },
    /// When those before it are given.
    Ready {
        kind: AckKind,
        packet_id: u16,
        never: Option<Never>,
        code: u8,
    },
}

impl Owed {
    fn kind(&self) -> AckKind {
        match self {
            Owed::Durable { kind, .. } | Owed::Ready { kind, .. } => *kind,
            Owed::Released { .. } => AckKind::Pubcomp,
        }
    }
}

impl Inbound {
    /// Of a client, with the identifiers that it has not released.
    pub(super) fn new(front: &Arc<Front>, client: &Client, received: BTreeSet<u16>) -> Inbound {
        Inbound {
            front: Arc::clone(front),
            door: Arc::clone(&client.door),
            version: client.version,
            client_id: Bytes::copy_from_slice(client.id().as_bytes()),
            wants_reasons: client.wants_reasons,
            packet_bytes_max: client.packet_bytes_max,
            aliases: Vec::new(),
            session: Some(&client.session).filter(|it| it.is_kept()).cloned(),
            received,
            owed: VecDeque::new(),
            admitting: None,
            batched: Vec::new(),
            alone: None,
        }
    }

    /// Whether the next packet may be read.
    pub(super) fn has_room(&self) -> bool {
        self.admitting.is_none() && self.owed.len() < RECEIVE_MAX
    }

    /// Whether nothing is under way, nor anything to be known for what comes next: a new one would be the same.
    pub(super) fn is_over(&self) -> bool {
        let mut published = self.batched.iter().chain(&self.alone);
        self.admitting.is_none()
            && self.owed.is_empty()
            && self.aliases.is_empty()
            && self.received.is_empty()
            && published.all(|it| it.known().is_some())
    }

    /// Whether there is something for [`Inbound::step`] to do; acks only with `acks`.
    pub(super) fn has_work(&self, acks: bool) -> bool {
        self.admitting.is_some() || acks && !self.owed.is_empty()
    }

    /// Takes a PUBLISH, which lies in the frame. Gives how long nothing is to be read because of the client's quota.
    pub(super) fn publish(&mut self, frame: Frame, said: &Publish<'_>) -> Result<Duration, Ending> {
        let topic = self.topic(&frame.body, said)?;
        let is_new = self.note(said)?;
        if !is_new {
            self.answer(AckKind::Pubrec, said.packet_id, 0);
            return Ok(Duration::ZERO);
        }
        let says = Says {
            qos: said.qos,
            retain: said.retain,
            client_id: &self.client_id,
            properties: &said.properties,
        };
        let message = Message::of(&frame.body, topic, said.payload, says);
        let (front, door) = (Arc::clone(&self.front), Arc::clone(&self.door));
        let bytes = frame.bytes;
        let session = self.session.clone();
        let session = session.filter(|_| said.qos == Qos::ExactlyOnce);
        let is_batched = session.is_none() && !message.retain;
        let before = match is_batched {
            true => Vec::new(),
            false => std::mem::take(&mut self.batched),
        };
        let packet_id = said.packet_id;
        self.admitting = Some(Admitting {
            qos: said.qos,
            packet_id: said.packet_id,
            is_batched,
            admission: Box::pin(async move {
                for publishing in before {
                    // What became of it is its own ack's.
                    drop(publishing.durable().await);
                }
                let published = match session {
                    None => publish(&front, &door, &message).await,
                    Some(session) => {
                        let held = &session.held;
                        let received = vec![held.received(packet_id)];
                        publish_of(&front, &door, held, &message, received).await
                    }
                };
                // Its memory is the broker's to count from here on.
                drop(frame);
                published
            }),
        });
        let quotas = self.front.broker.quotas();
        let caller = self.door.caller();
        let wait = quotas.charge(Quota::ProducerByteRate, caller, bytes as f64);
        quotas.note(Quota::ProducerByteRate, wait);
        Ok(wait)
    }

    /// The topic that is meant.
    fn topic(&mut self, packet: &Bytes, said: &Publish<'_>) -> Result<Bytes, Ending> {
        let Some(alias) = said.properties.topic_alias else {
            return Ok(packet.slice_ref(said.topic.as_bytes()));
        };
        let index = usize::from(alias) - 1;
        if index >= ALIAS_MAX {
            return Err(Ending::TopicAlias(alias));
        }
        if said.topic.is_empty() {
            let known = self.aliases.get(index).and_then(Option::as_ref);
            return known.cloned().ok_or(Ending::TopicAlias(alias));
        }
        // A copy, which keeps no packet.
        let topic = Bytes::copy_from_slice(said.topic.as_bytes());
        if self.aliases.len() <= index {
            self.aliases.resize(index + 1, None);
        }
        self.aliases[index] = Some(topic.clone());
        Ok(topic)
    }

    /// Whether the message is a new one; and that a client keeps to the bound that it was told.
    fn note(&mut self, said: &Publish<'_>) -> Result<bool, Ending> {
        if said.qos == Qos::AtMostOnce {
            return Ok(true);
        }
        if said.qos == Qos::ExactlyOnce && self.received.contains(&said.packet_id) {
            return Ok(false);
        }
        let count_max = RECEIVE_MAX;
        let of_qos_1 = self
            .owed
            .iter()
            .filter(|owed| owed.kind() == AckKind::Puback);
        if self.version == Version::V5 && of_qos_1.count() + self.received.len() >= count_max {
            return Err(Ending::ReceiveMaximum { count_max });
        }
        if said.qos == Qos::ExactlyOnce {
            self.received.insert(said.packet_id);
        }
        Ok(true)
    }

    /// Waits until it is known of everything that was published so far whether it is durable: what is subscribed to next begins behind
    /// that. What became of it is its own ack's.
    pub(super) async fn settle(&mut self) {
        for publishing in self.alone.take().into_iter().chain(self.batched.drain(..)) {
            drop(publishing.durable().await);
        }
    }

    /// Takes a PUBREL.
    pub(super) fn release(&mut self, ack: Ack) {
        let was_known = self.received.remove(&ack.packet_id);
        if let Some(session) = self.session.clone().filter(|_| was_known) {
            let packet_id = ack.packet_id;
            // It goes on whether or not anybody waits for it.
            let released = tokio::spawn(async move { session.held.release(packet_id).await });
            let release = released.map(|ended| ended.unwrap_or(Err(SessionRefusal::Abandoned)));
            let release = release.boxed().shared();
            self.owed.push_back(Owed::Released { packet_id, release });
            return;
        }
        let code = match (was_known, self.version) {
            (true, _) | (_, Version::V311) => 0,
            (false, Version::V5) => errors::unknown_id(),
        };
        self.answer(AckKind::Pubcomp, ack.packet_id, code);
    }

    fn answer(&mut self, kind: AckKind, packet_id: u16, code: u8) {
        self.owed.push_back(Owed::Ready {
            kind,
            packet_id,
            never: None,
            code,
        });
    }

    /// A message that is never stored: an ack says so, or the end of the connection.
    fn never(&mut self, qos: Qos, packet_id: u16, never: Never) -> Result<(), Ending> {
        let kind = match qos {
            Qos::AtMostOnce => return Err(never.ending()),
            Qos::AtLeastOnce => AckKind::Puback,
            Qos::ExactlyOnce => AckKind::Pubrec,
        };
        if self.version == Version::V311 {
            return Err(never.ending());
        }
        // An exchange that is refused is over (§4.3.3).
        self.received.remove(&packet_id);
        let code = never.code();
        self.front.stats.refused(code);
        self.owed.push_back(Owed::Ready {
            kind,
            packet_id,
            never: Some(never),
            code,
        });
        Ok(())
    }

    /// Waits until the message that is on its way is the log's, or, with `acks`, for the first ack that is owed, which is appended with
    /// those behind it that are ready. What is given up loses nothing.
    pub(super) async fn step(&mut self, acks: bool, out: &mut BytesMut) -> Result<(), Ending> {
        let (admits, first) = (self.admitting.is_some(), self.owed.front());
        let (is_ready, durable) = match first.filter(|_| acks) {
            None => (false, None),
            Some(Owed::Ready { .. }) => (true, None),
            Some(Owed::Durable { publishing, .. }) => {
                // What became of it is looked at by whoever acknowledges.
                let durable = publishing.clone().durable().map(drop);
                (false, Some(durable.boxed()))
            }
            Some(Owed::Released { release, .. }) => {
                (false, Some(release.clone().map(drop).boxed()))
            }
        };
        if is_ready {
            return self.acknowledge(out);
        }
        let waits = durable.is_some();
        let durable = async {
            match durable {
                Some(durable) => durable.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            admitted = std::future::poll_fn(|context| self.poll_admitted(context)), if admits => admitted,
            () = durable, if waits => self.acknowledge(out),
            else => Ok(()),
        }
    }

    fn poll_admitted(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        let Some(admitting) = &mut self.admitting else {
            return Poll::Ready(Ok(()));
        };
        let admitted = std::task::ready!(admitting.admission.as_mut().poll(context));
        let (qos, packet_id) = (admitting.qos, admitting.packet_id);
        let is_batched = admitting.is_batched;
        self.admitting = None;
        Poll::Ready(match admitted {
            Ok(publishing) => {
                self.front.stats.published(qos);
                if is_batched {
                    let batched = &mut self.batched;
                    batched.retain(|it| it.known().is_none() && !it.is_with(&publishing));
                    batched.push(publishing.clone());
                } else {
                    self.alone = Some(publishing.clone());
                }
                let kind = match qos {
                    Qos::AtMostOnce => return Poll::Ready(Ok(())),
                    Qos::AtLeastOnce => AckKind::Puback,
                    Qos::ExactlyOnce => AckKind::Pubrec,
                };
                self.owed.push_back(Owed::Durable {
                    kind,
                    packet_id,
                    publishing,
                });
                Ok(())
            }
            Err(NotStored::Never(never)) => self.never(qos, packet_id, never),
            Err(NotStored::End(ending)) => Err(ending),
        })
    }

    /// Appends the acks that are ready.
    fn acknowledge(&mut self, out: &mut BytesMut) -> Result<(), Ending> {
        while let Some(owed) = self.owed.front() {
            match owed {
                Owed::Durable {
                    kind,
                    packet_id,
                    publishing,
                } => match publishing.known() {
                    None => return Ok(()),
                    Some(Ok(_)) => reply(out, self.version, *kind, *packet_id, 0, None),
                    Some(Err(refusal)) => {
                        return Err(match errors::of_publish(&refusal) {
                            NotStored::End(ending) => ending,
                            NotStored::Never(never) => never.ending(),
                        });
                    }
                },
                Owed::Released { packet_id, release } => match release.peek() {
                    None => return Ok(()),
                    Some(Ok(())) => {
                        reply(out, self.version, AckKind::Pubcomp, *packet_id, 0, None);
                    }
                    Some(Err(refusal)) => return Err(session::ending_of(refusal.clone())),
                },
                Owed::Ready {
                    kind,
                    packet_id,
                    never,
                    code,
                } => {
                    let reason = never.as_ref().and_then(Never::reason);
                    let reason = reason.filter(|reason| {
                        self.wants_reasons && reason.len() + 16 <= self.packet_bytes_max
                    });
                    reply(out, self.version, *kind, *packet_id, *code, reason);
                }
            }
            self.owed.pop_front();
        }
        Ok(())
    }
}
