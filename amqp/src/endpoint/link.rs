//! Links: attaching and detaching, credit, and deliveries both ways, cut into transfers.
//! Callers: the endpoint and its sessions.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::event::{Attached, Delivery, Event, Fault, LinkFlow, LinkId, Scope};
use super::session::Session;
use super::{Endpoint, error, other};
use crate::condition::ErrorCondition;
use crate::performative::{
    Attach, Detach, Error, Flow, Performative, ReceiverSettleMode, Role, SenderSettleMode, Transfer,
};
use crate::serial::Serial;
use crate::state::DeliveryState;
use crate::{Multiple, frame};

/// The longest name of a delivery, as the standard has it.
const TAG_BYTES_MAX: usize = 32;
/// A transfer without its payload is shorter.
const TRANSFER_BYTES_MAX: usize = 64;
/// The longest name of a link: it is sent back, and kept.
const NAME_BYTES_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// The peer has attached it, and waits for us.
    Attaching,
    /// Both have.
    Attached,
    /// We have detached it, and wait for the peer to.
    Detaching,
}

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    name: String,
    /// Ours.
    pub(super) role: Role,
    state: LinkState,
    pub(super) delivery_count: Serial,
    pub(super) credit: u32,
    pub(super) drain: bool,
    /// Whether deliveries that we sent are forgotten in place of waiting until their receiver settles some.
    forgets: bool,
    /// A delivery that is not whole yet.
    partial: Option<Partial>,
    /// The longest message that the peer takes.
    message_bytes_max: u64,
}

#[derive(Debug)]
struct Partial {
    delivery: Delivery,
    tag: Vec<u8>,
    bytes: BytesMut,
}

/// The rest of a delivery that goes.
#[derive(Debug)]
pub(super) struct Pending {
    handle: u32,
    id: u32,
    settled: bool,
    rest: Bytes,
}

impl Link {
    fn new(id: LinkId, role: Role, attach: &Attach<'_>) -> Link {
        let bytes_max = attach.max_message_size.filter(|it| *it > 0);
        Link {
            id,
            name: attach.name.to_owned(),
            role,
            state: LinkState::Attaching,
            delivery_count: Serial(attach.initial_delivery_count.unwrap_or(0)),
            credit: 0,
            drain: false,
            forgets: false,
            partial: None,
            message_bytes_max: bytes_max.unwrap_or(u64::MAX),
        }
    }

    pub(super) fn is_detaching(&self) -> bool {
        self.state == LinkState::Detaching
    }

    pub(super) fn is_attached(&self) -> bool {
        self.state == LinkState::Attached
    }

    pub(super) fn partial_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |it| it.bytes.len())
    }

    /// Takes the peer's state of it; what that means to who sends, if we do.
    pub(super) fn flow(&mut self, flow: &Flow<'_>) -> Option<(LinkId, LinkFlow)> {
        match self.role {
            Role::Sender => {
                // A receiver that has not heard of us yet counts from where we begin.
                let count = flow.delivery_count.map_or(Serial(0), Serial);
                let credit = flow.link_credit.unwrap_or(0).min(i32::MAX as u32);
                self.credit = count.plus(credit).since(self.delivery_count).unwrap_or(0);
                self.drain = flow.drain;
                let (credit, drain) = (self.credit, self.drain);
                Some((self.id, LinkFlow { credit, drain }))
            }
            Role::Receiver => {
                let end = self.delivery_count.plus(self.credit);
                if let Some(count) = flow.delivery_count.map(Serial)
                    && count.since(self.delivery_count).is_some()
                    && self.partial.is_none()
                {
                    self.credit = end.since(count).unwrap_or(0);
                    self.delivery_count = count;
                }
                None
            }
        }
    }

    fn fault(&self, condition: ErrorCondition, text: impl Into<String>) -> Fault {
        Fault::new(Scope::Link(self.id), condition, text)
    }

    /// Begins a delivery: a transfer that is the first of one.
    fn begin(&mut self, transfer: &Transfer<'_>) -> Result<(), Fault> {
        if self.credit == 0 {
            return Err(self.fault(
                ErrorCondition::TransferLimitExceeded,
                "a delivery without credit",
            ));
        }
        let (Some(id), Some(tag)) = (transfer.delivery_id, transfer.delivery_tag) else {
            return Err(self.fault(
                ErrorCondition::NotAllowed,
                "a delivery's first transfer without delivery-id and delivery-tag",
            ));
        };
        if tag.len() > TAG_BYTES_MAX {
            return Err(self.fault(
                ErrorCondition::InvalidField,
                "a delivery-tag of more than 32 bytes",
            ));
        }
        self.credit -= 1;
        self.delivery_count = self.delivery_count.plus(1);
        self.partial = Some(Partial {
            delivery: Delivery {
                id,
                message_format: transfer.message_format.unwrap_or(0),
                settled: false,
                transaction: None,
                payload: Bytes::new(),
            },
            tag: tag.to_vec(),
            bytes: BytesMut::new(),
        });
        Ok(())
    }

    /// Takes a transfer; a delivery if it is whole now.
    fn transfer(
        &mut self,
        transfer: &Transfer<'_>,
        payload: Bytes,
        bytes_max: u64,
    ) -> Result<Option<Delivery>, Fault> {
        if self.role != Role::Receiver {
            return Err(self.fault(
                ErrorCondition::NotAllowed,
                "a transfer to the sender of a link",
            ));
        }
        if self.partial.is_none() {
            self.begin(transfer)?;
        }
        let Some(partial) = &mut self.partial else {
            return Ok(None);
        };
        let goes_on = transfer
            .delivery_id
            .is_none_or(|id| id == partial.delivery.id)
            && transfer.delivery_tag.is_none_or(|tag| tag == partial.tag);
        if !goes_on {
            return Err(self.fault(
                ErrorCondition::NotAllowed,
                "another delivery before the last one was whole",
            ));
        }
        if transfer.aborted {
            self.partial = None;
            return Ok(None);
        }
        partial.delivery.settled |= transfer.settled == Some(true);
        if let Some(DeliveryState::Transactional(state)) = &transfer.state {
            partial.delivery.transaction = Some(Bytes::copy_from_slice(state.txn_id));
        }
        let bytes = partial.bytes.len() + payload.len();
        if bytes as u64 > bytes_max {
            let text = format!("a message of more than {bytes_max} bytes");
            return Err(self.fault(ErrorCondition::MessageSizeExceeded, text));
        }
        if transfer.more {
            partial.bytes.extend_from_slice(&payload);
            return Ok(None);
        }
        let whole = self.partial.take().map(|mut partial| {
            partial.delivery.payload = match partial.bytes.is_empty() {
                true => payload,
                false => {
                    partial.bytes.extend_from_slice(&payload);
                    partial.bytes.freeze()
                }
            };
            partial.delivery
        });
        Ok(whole)
    }
}

impl Endpoint {
    pub(super) fn forget_name(names: &mut HashMap<(String, bool), LinkId>, link: &Link) {
        let key = (link.name.clone(), link.role == Role::Receiver);
        if names.get(&key) == Some(&link.id) {
            names.remove(&key);
        }
    }

    fn session_of(&mut self, link: LinkId) -> Option<&mut Session> {
        let session = self.sessions.get_mut(&link.channel)?;
        let found = session.links.get(&link.handle)?;
        (found.id == link).then_some(session)
    }

    fn link(&mut self, link: LinkId) -> Option<&mut Link> {
        self.session_of(link)?.links.get_mut(&link.handle)
    }

    pub(super) fn attach<'f>(
        &mut self,
        channel: u16,
        attach: Attach<'f>,
    ) -> Result<Event<'f>, Fault> {
        let handle = attach.handle;
        if handle > self.settings.handle_max {
            return Err(Fault::new(
                Scope::Connection,
                ErrorCondition::FramingError,
                "a handle above the highest",
            ));
        }
        let links_max = self.settings.links_max;
        let wrong = |condition, text: &str| Fault::new(Scope::Session(channel), condition, text);
        if attach.name.len() > NAME_BYTES_MAX {
            return Err(wrong(
                ErrorCondition::InvalidField,
                "a link's name of more than 1,024 bytes",
            ));
        }
        if self.links >= links_max {
            return Err(wrong(
                ErrorCondition::ResourceLimitExceeded,
                "a connection has no more links",
            ));
        }
        let id = LinkId {
            channel,
            handle,
            number: self.links_made,
        };
        let session = self.sessions.get_mut(&channel);
        let session = session.filter(|it| !it.links.contains_key(&handle));
        let Some(session) = session.filter(|it| handle <= it.handle_max) else {
            return Err(wrong(
                ErrorCondition::HandleInUse,
                "a handle that is in use, or above the highest of the peer",
            ));
        };
        let role = other(attach.role);
        session.links.insert(handle, Link::new(id, role, &attach));
        self.links += 1;
        self.links_made += 1;
        if role == Role::Receiver && attach.initial_delivery_count.is_none() {
            return Err(Fault::new(
                Scope::Link(id),
                ErrorCondition::InvalidField,
                "a sender attaches without initial-delivery-count",
            ));
        }
        let key = (attach.name.to_owned(), role == Role::Receiver);
        let stolen = self.names.insert(key, id);
        if let Some(stolen) = stolen {
            let text = "the link was attached again";
            self.detach(stolen, true, Some(error(ErrorCondition::Stolen, text)));
        }
        Ok(Event::Attach {
            link: id,
            attach: Box::new(attach),
            stolen,
        })
    }

    /// Answers an `attach`. False: the link is gone, or the answer is longer than the peer's frames, and the link detached.
    pub fn accept(&mut self, link: LinkId, with: &Attached<'_>) -> bool {
        let bytes_max = self.settings.message_bytes_max;
        let frame_bytes_max = self.output.frame_bytes_max;
        let Some(found) = self.link(link) else {
            return false;
        };
        if found.state != LinkState::Attaching {
            return false;
        }
        let name = found.name.clone();
        let role = found.role;
        let answer = answer(&name, link.handle, role, with, bytes_max);
        let before = self.output.bytes.len();
        self.output.put(link.channel, &Performative::Attach(answer));
        if self.output.bytes.len() - before > frame_bytes_max {
            self.output.bytes.truncate(before);
            let text = "the answer to attach is longer than the peer's frames";
            let error = error(ErrorCondition::ResourceLimitExceeded, text);
            self.refuse(link, error);
            return false;
        }
        if let Some(found) = self.link(link) {
            found.state = LinkState::Attached;
        }
        true
    }

    /// Answers an `attach` with one to nowhere, and a `detach` (part 2, 2.6.3).
    pub fn refuse(&mut self, link: LinkId, error: Error<'_>) {
        self.detach(link, true, Some(error));
    }

    /// Detaches a link, if it is there.
    pub fn detach(&mut self, link: LinkId, closed: bool, error: Option<Error<'_>>) {
        let Some(session) = self.session_of(link) else {
            return;
        };
        let Some(found) = session.links.get_mut(&link.handle) else {
            return;
        };
        if found.is_detaching() {
            return;
        }
        let was_attaching = found.state == LinkState::Attaching;
        found.state = LinkState::Detaching;
        self.release(link);
        if was_attaching {
            self.put_nowhere(link);
        }
        self.put_detach(link.handle, link.channel, closed, error);
    }

    fn put_detach(&mut self, handle: u32, channel: u16, closed: bool, error: Option<Error<'_>>) {
        let detach = Detach {
            handle,
            closed,
            error,
        };
        self.output.put(channel, &Performative::Detach(detach));
    }

    /// An `attach` without source and target: what comes next is a `detach`.
    fn put_nowhere(&mut self, link: LinkId) {
        let Some(found) = self.link(link) else {
            return;
        };
        let (name, role) = (found.name.clone(), found.role);
        let with = Attached {
            source: None,
            target: None,
            snd_settle_mode: SenderSettleMode::Mixed,
            rcv_settle_mode: ReceiverSettleMode::First,
            offered_capabilities: Multiple::None,
            properties: None,
        };
        let answer = answer(&name, link.handle, role, &with, 0);
        self.output.put(link.channel, &Performative::Attach(answer));
    }

    /// Gives up what a link holds.
    fn release(&mut self, link: LinkId) {
        let Some(session) = self.session_of(link) else {
            return;
        };
        session.unsettled.retain(|(_, of)| *of != link);
        let pending = session.pending.take();
        session.pending = pending.filter(|it| it.handle != link.handle);
        let Some(found) = session.links.get_mut(&link.handle) else {
            return;
        };
        let partial = found.partial_bytes();
        found.partial = None;
        found.credit = 0;
        let key = (found.name.clone(), found.role == Role::Receiver);
        self.partial_bytes -= partial;
        if self.names.get(&key) == Some(&link) {
            self.names.remove(&key);
        }
    }

    pub(super) fn detached<'f>(
        &mut self,
        channel: u16,
        detach: Detach<'f>,
    ) -> Result<Option<Event<'f>>, Fault> {
        let found = self.sessions.get(&channel);
        let found = found.and_then(|it| it.links.get(&detach.handle));
        let Some((link, state)) = found.map(|it| (it.id, it.state)) else {
            return Err(unattached(channel, detach.handle));
        };
        if state == LinkState::Attaching {
            self.put_nowhere(link);
        }
        self.release(link);
        if let Some(session) = self.sessions.get_mut(&channel) {
            session.links.remove(&detach.handle);
            self.links -= 1;
        }
        if state == LinkState::Detaching {
            return Ok(None);
        }
        self.put_detach(detach.handle, channel, detach.closed, None);
        Ok(Some(Event::Detached {
            link,
            closed: detach.closed,
            error: detach.error,
        }))
    }

    pub(super) fn transfer<'f>(
        &mut self,
        channel: u16,
        transfer: &Transfer<'f>,
        payload: Bytes,
    ) -> Result<Option<Event<'f>>, Fault> {
        let window = self.settings.window;
        let Some(session) = self.sessions.get_mut(&channel) else {
            return Ok(None);
        };
        if session.incoming_window == 0 {
            return Err(Fault::new(
                Scope::Session(channel),
                ErrorCondition::WindowViolation,
                "a transfer beyond the session's window",
            ));
        }
        session.incoming_window -= 1;
        session.next_incoming = session.next_incoming.plus(1);
        let Some(link) = session.links.get_mut(&transfer.handle) else {
            return Err(unattached(channel, transfer.handle));
        };
        let id = link.id;
        let mut taken = Ok(None);
        if !link.is_detaching() {
            let before = link.partial_bytes();
            taken = link.transfer(transfer, payload, self.settings.message_bytes_max);
            self.partial_bytes = self.partial_bytes + link.partial_bytes() - before;
            if taken.is_ok() && self.partial_bytes > self.settings.partial_bytes_max {
                taken = Err(Fault::new(
                    Scope::Link(id),
                    ErrorCondition::ResourceLimitExceeded,
                    "too many messages of this connection are not whole",
                ));
            }
        }
        if session.incoming_window <= window / 2 {
            session.incoming_window = window;
            session.put_flow(&mut self.output, channel, window, None);
        }
        taken.map(|whole| whole.map(|delivery| Event::Delivery(id, delivery)))
    }

    /// Lets the sender of a link send so many deliveries, from now.
    pub fn grant(&mut self, link: LinkId, credit: u32) {
        let window = self.settings.window;
        let Some(found) = self.link(link) else {
            return;
        };
        if found.is_attached() && found.role == Role::Receiver {
            found.credit = credit;
            let session = &self.sessions[&link.channel];
            session.put_flow(&mut self.output, link.channel, window, Some(link.handle));
        }
    }

    /// The credit that the sender of a link, or we, have left.
    pub fn credit(&self, link: LinkId) -> u32 {
        let session = self.sessions.get(&link.channel);
        let found = session.and_then(|it| it.links.get(&link.handle));
        found.filter(|it| it.id == link).map_or(0, |it| it.credit)
    }

    /// Whether a delivery can be sent on a link now.
    pub fn can_send(&self, link: LinkId) -> bool {
        let Some(session) = self.sessions.get(&link.channel) else {
            return false;
        };
        let found = session.links.get(&link.handle).filter(|it| it.id == link);
        let Some(found) = found else {
            return false;
        };
        found.is_attached()
            && found.role == Role::Sender
            && found.credit > 0
            && session.pending.is_none()
            && session.remote_window > 0
            && (session.unsettled.len() < self.settings.unsettled_max || found.forgets)
    }

    /// Of deliveries on a link that we send on nothing depends: where a session has as many unsettled ones as it may, its oldest are
    /// forgotten, and what their receiver says of them later is passed over. Some receivers never settle.
    pub fn forgets_unsettled(&mut self, link: LinkId) {
        if let Some(found) = self.link(link) {
            found.forgets = true;
        }
    }

    /// Whether the receiver of a link wants what cannot be sent to be used up.
    pub fn drains(&self, link: LinkId) -> bool {
        let session = self.sessions.get(&link.channel);
        let found = session.and_then(|it| it.links.get(&link.handle));
        found.is_some_and(|it| it.id == link && it.drain)
    }

    /// Whether the peer takes a message of so many bytes on a link.
    pub fn takes(&self, link: LinkId, bytes: usize) -> bool {
        let session = self.sessions.get(&link.channel);
        let found = session.and_then(|it| it.links.get(&link.handle));
        found.is_some_and(|it| it.id == link && bytes as u64 <= it.message_bytes_max)
    }

    /// Sends a delivery, if [`Endpoint::can_send`]; gives its id. What the window has no room for goes as soon as it has.
    pub fn send(&mut self, link: LinkId, settled: bool, payload: Bytes) -> Option<u32> {
        if !self.can_send(link) {
            return None;
        }
        let unsettled_max = self.settings.unsettled_max;
        let session = self.session_of(link)?;
        let id = session.next_delivery;
        session.next_delivery = id.plus(1);
        if !settled {
            if session.unsettled.len() >= unsettled_max
                && let Some(oldest) = session.unsettled.iter().position(|(_, of)| *of == link)
            {
                session.unsettled.remove(oldest);
            }
            if session.unsettled.len() < unsettled_max {
                session.unsettled.push_back((id, link));
            }
        }
        session.pending = Some(Pending {
            handle: link.handle,
            id: id.0,
            settled,
            rest: payload,
        });
        let found = session.links.get_mut(&link.handle)?;
        found.credit -= 1;
        found.delivery_count = found.delivery_count.plus(1);
        self.put_transfer(link.channel, true);
        self.pump(link.channel);
        Some(id.0)
    }

    /// Sends as much of what is pending as the window has room for.
    pub(super) fn pump(&mut self, channel: u16) {
        while self
            .sessions
            .get(&channel)
            .is_some_and(|it| it.pending.is_some() && it.remote_window > 0)
        {
            self.put_transfer(channel, false);
        }
    }

    /// Sends a transfer of what is pending.
    fn put_transfer(&mut self, channel: u16, is_first: bool) {
        let Some(session) = self.sessions.get_mut(&channel) else {
            return;
        };
        let Some(mut pending) = session.pending.take() else {
            return;
        };
        let tag = pending.id.to_be_bytes();
        let mut transfer = Transfer {
            handle: pending.handle,
            delivery_id: is_first.then_some(pending.id),
            delivery_tag: is_first.then_some(&tag),
            message_format: is_first.then_some(0),
            settled: is_first.then_some(pending.settled),
            more: pending.rest.len() + TRANSFER_BYTES_MAX > self.output.frame_bytes_max,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        };
        let out = &mut self.output.bytes;
        let start = out.len();
        let mut part = Bytes::new();
        if transfer.more {
            // How long it is says how much of the rest its frame has room for.
            frame::put(out, frame::FrameKind::Amqp, channel, |out| {
                Performative::Transfer(transfer).put(out);
            });
            let room = self.output.frame_bytes_max - (out.len() - start);
            part = pending.rest.split_to(room.min(pending.rest.len()));
            transfer.more = !pending.rest.is_empty();
            out.truncate(start);
        } else {
            std::mem::swap(&mut part, &mut pending.rest);
        }
        frame::put(out, frame::FrameKind::Amqp, channel, |out| {
            Performative::Transfer(transfer).put(out);
            out.extend_from_slice(&part);
        });
        debug_assert!(out.len() - start <= self.output.frame_bytes_max);
        session.remote_window -= 1;
        session.next_outgoing = session.next_outgoing.plus(1);
        session.pending = Some(pending).filter(|_| transfer.more);
    }

    /// Uses up the credit of a link whose receiver drains it: everything that could be sent was (part 2, 2.6.7).
    pub fn drained(&mut self, link: LinkId) {
        let window = self.settings.window;
        let Some(found) = self.link(link) else {
            return;
        };
        if !found.is_attached() || found.role != Role::Sender || !found.drain {
            return;
        }
        found.delivery_count = found.delivery_count.plus(found.credit);
        found.credit = 0;
        let session = &self.sessions[&link.channel];
        session.put_flow(&mut self.output, link.channel, window, Some(link.handle));
        if let Some(found) = self.link(link) {
            found.drain = false;
        }
    }
}

fn unattached(channel: u16, handle: u32) -> Fault {
    Fault::new(
        Scope::Session(channel),
        ErrorCondition::UnattachedHandle,
        format!("no link is attached as {handle}"),
    )
}

/// Our `attach`: the name and the handle are the peer's.
fn answer<'a>(
    name: &'a str,
    handle: u32,
    role: Role,
    with: &Attached<'a>,
    message_bytes_max: u64,
) -> Attach<'a> {
    Attach {
        name,
        handle,
        role,
        snd_settle_mode: with.snd_settle_mode,
        rcv_settle_mode: with.rcv_settle_mode,
        source: with.source,
        target: with.target,
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: (role == Role::Sender).then_some(0),
        max_message_size: (role == Role::Receiver).then_some(message_bytes_max),
        offered_capabilities: with.offered_capabilities,
        desired_capabilities: Multiple::None,
        properties: with.properties,
    }
}
