//! Nodes that answer: `$cbs`, which takes tokens, and `$management`, which says what there is. A client sends requests on one link, and
//! receives the answers on another.
//! Callers: `connection`, which knows what is answered; `management` and `login` do what is asked.
//! Invariants: what is not taken of answers is bounded, and a request beyond that is rejected. Senders have little credit, so that few
//! requests are answered before anything else goes on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use amqp::endpoint::{Delivery, Endpoint, LinkId, error};
use amqp::message::{Message, Properties, SectionKind, put_section};
use amqp::performative::{Attach, Role, SenderSettleMode};
use amqp::state::{DeliveryState, Rejected};
use amqp::terminus::AnyTarget;
use amqp::{Bytes, BytesMut, Composite as _, DecodeError, MapBuf, Value};

use super::bounds::{ANSWERS_BYTES_MAX, REQUESTS_MAX};
use super::errors::{NoRequest, Status};
use super::state::Front;

/// A node that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestNode {
    /// Takes tokens.
    Tokens,
    /// Says what there is.
    Management,
}

impl RequestNode {
    /// The node of an address.
    fn of(address: &str) -> Option<RequestNode> {
        match address {
            "$cbs" => Some(RequestNode::Tokens),
            "$management" => Some(RequestNode::Management),
            _ => None,
        }
    }

    /// The node that a link is about, if it is one of these.
    pub(super) fn of_link(attach: &Attach<'_>) -> Option<RequestNode> {
        let address = match attach.role {
            Role::Receiver => attach.source.and_then(|it| it.address),
            Role::Sender => match attach.target {
                Some(AnyTarget::Target(target)) => target.address,
                Some(AnyTarget::Coordinator(_)) | None => None,
            },
        };
        RequestNode::of(address?.text()?)
    }
}

/// What is asked: a message, and the names of the operation and of what it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// What is to be done.
    pub(super) operation: &'a str,
    /// Of what kind of thing.
    pub(super) kind: &'a str,
    /// The message.
    pub(super) message: Message<'a>,
}

impl<'a> Request<'a> {
    pub(super) fn of(payload: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let message = Message::of(payload)?;
        let of = |name| said(&message, name).unwrap_or_default();
        Ok(Request {
            operation: of("operation"),
            kind: of("type"),
            message,
        })
    }

    /// An application property that is a text.
    pub(super) fn said(&self, name: &str) -> Option<&'a str> {
        said(&self.message, name)
    }

    fn reply_to(&self) -> Option<&'a str> {
        { self.message.properties }.and_then(|it| it.0.reply_to?.text())
    }
}

fn said<'a>(message: &Message<'a>, name: &str) -> Option<&'a str> {
    { message.application_properties }.and_then(|(said, _)| said.get(name)?.text())
}

/// What is answered.
pub(super) struct Answer {
    pub(super) status: Status,
    /// The message's value.
    pub(super) body: Option<MapBuf>,
}

impl Answer {
    /// The message that answers a request: it has that one's id as its correlation id.
    fn message(&self, of: &Message<'_>) -> Bytes {
        let mut out = BytesMut::new();
        let asked = of.properties.map(|it| it.0);
        let id = asked.and_then(|it| it.message_id.or(it.correlation_id));
        Properties {
            correlation_id: id,
            ..Properties::NONE
        }
        .put(&mut out);
        let mut said = MapBuf::new();
        let Status {
            code,
            description,
            condition,
        } = &self.status;
        let mut put = |name, value: &Value<'_>| said.put(&Value::String(name), value);
        put("status-code", &Value::Int(*code));
        put("status-description", &Value::String(description));
        if let Some(condition) = condition {
            put("error-condition", &Value::Symbol(condition.symbol()));
        }
        let said = Value::Map(said.as_map());
        put_section(&mut out, SectionKind::ApplicationProperties, &said);
        let body = { &self.body }.as_ref().map(MapBuf::as_map);
        let body = body.map_or(Value::Null, Value::Map);
        put_section(&mut out, SectionKind::Value, &body);
        out.freeze()
    }
}

/// A link that answers go out on.
struct Receiver {
    link: LinkId,
    node: RequestNode,
    /// What requests call it.
    name: Option<String>,
    sends_settled: bool,
    answers: VecDeque<Bytes>,
}

/// The links of a connection to such nodes.
pub(super) struct Requests {
    front: Arc<Front>,
    senders: BTreeMap<LinkId, RequestNode>,
    receivers: Vec<Receiver>,
    /// What receivers have not taken.
    bytes: usize,
}

impl Requests {
    pub(super) fn new(front: &Arc<Front>) -> Requests {
        Requests {
            front: Arc::clone(front),
            senders: BTreeMap::new(),
            receivers: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a link.
    pub(super) fn open(&mut self, link: LinkId, node: RequestNode, attach: &Attach<'_>) {
        match attach.role {
            Role::Sender => drop(self.senders.insert(link, node)),
            Role::Receiver => {
                let address = match attach.target {
                    Some(AnyTarget::Target(target)) => target.address,
                    Some(AnyTarget::Coordinator(_)) | None => None,
                };
                self.receivers.push(Receiver {
                    link,
                    node,
                    name: address.and_then(|it| it.text()).map(str::to_owned),
                    sends_settled: attach.snd_settle_mode == SenderSettleMode::Settled,
                    answers: VecDeque::new(),
                });
            }
        }
        self.front.stats.requests.fetch_add(1, Relaxed);
    }

    /// Links are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(LinkId) -> bool) {
        let before = self.count();
        self.senders.retain(|link, _| !is_gone(*link));
        self.receivers.retain(|it| !is_gone(it.link));
        let answers = self.receivers.iter().flat_map(|it| &it.answers);
        self.bytes = answers.map(Bytes::len).sum();
        let gone = (before - self.count()) as u64;
        self.front.stats.requests.fetch_sub(gone, Relaxed);
    }

    fn count(&self) -> usize {
        self.senders.len() + self.receivers.len()
    }

    /// The node that a link sends requests to, if it is one of these.
    pub(super) fn node_of(&self, link: LinkId) -> Option<RequestNode> {
        self.senders.get(&link).copied()
    }

    /// Where the answer to a request on a link goes: to the receiver that it names, or one of its session, or any of the connection.
    fn receiver(&mut self, link: LinkId, request: &Request<'_>) -> Option<&mut Receiver> {
        let node = self.node_of(link)?;
        let reply_to = request.reply_to();
        let rank = |it: &Receiver| match () {
            () if reply_to.is_some() && it.name.as_deref() == reply_to => 0,
            () if it.link.channel == link.channel => 1,
            () => 2,
        };
        let all = self.receivers.iter_mut().filter(|it| it.node == node);
        all.min_by_key(|it| rank(it))
    }

    /// Whether a request on a link can be answered.
    pub(super) fn check(&mut self, link: LinkId, request: &Request<'_>) -> Result<(), NoRequest> {
        if self.bytes >= ANSWERS_BYTES_MAX {
            return Err(NoRequest::TooMany);
        }
        match self.receiver(link, request) {
            Some(_) => Ok(()),
            None => Err(NoRequest::NoReceiver),
        }
    }

    /// Answers a request that was checked.
    pub(super) fn answer(&mut self, link: LinkId, request: &Request<'_>, answer: &Answer) {
        let message = answer.message(&request.message);
        let bytes = message.len();
        if let Some(receiver) = self.receiver(link, request) {
            receiver.answers.push_back(message);
            self.bytes += bytes;
        }
    }

    /// Settles a request.
    pub(super) fn settle(
        endpoint: &mut Endpoint,
        (link, delivery): (LinkId, &Delivery),
        became: Result<(), NoRequest>,
    ) {
        if delivery.settled {
            return;
        }
        let ids = (delivery.id, delivery.id);
        match became {
            Ok(()) => endpoint.settle(link.channel, ids, DeliveryState::Accepted),
            Err(why) => {
                let text = why.to_string();
                let error = Some(error(why.condition(), &text));
                let rejected = DeliveryState::Rejected(Rejected { error });
                endpoint.settle(link.channel, ids, rejected);
            }
        }
    }

    /// Sends answers, gives credit for requests, and answers drains. Gives how many bytes were sent.
    pub(super) fn fill(&mut self, endpoint: &mut Endpoint) -> usize {
        let mut sent = 0;
        for receiver in &mut self.receivers {
            let link = receiver.link;
            while endpoint.can_send(link)
                && let Some(answer) = receiver.answers.pop_front()
            {
                self.bytes -= answer.len();
                if endpoint.takes(link, answer.len()) {
                    sent += answer.len();
                    endpoint.send(link, receiver.sends_settled, answer);
                } else {
                    self.front.stats.skipped.fetch_add(1, Relaxed);
                }
            }
            if endpoint.drains(link) && receiver.answers.is_empty() {
                endpoint.drained(link);
            }
        }
        for link in self.senders.keys() {
            if endpoint.credit(*link) <= REQUESTS_MAX / 2 {
                endpoint.grant(*link, REQUESTS_MAX);
            }
        }
        sent
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let count = self.count() as u64;
        self.front.stats.requests.fetch_sub(count, Relaxed);
    }
}
