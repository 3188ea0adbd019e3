//! Sessions: windows, deliveries that are unsettled, and what is said about them.
//! Callers: the endpoint, for every frame behind `open`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::event::{Event, Fault, LinkId, Scope, Settled};
use super::link::{Link, Pending};
use super::{Endpoint, Output};
use crate::Multiple;
use crate::condition::ErrorCondition;
use crate::performative::{Begin, Disposition, End, Error, Flow, Performative, Role};
use crate::serial::Serial;
use crate::state::DeliveryState;

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    /// We have ended it, and wait for the peer to.
    pub(super) is_ending: bool,
    /// The id of the next transfer that comes.
    pub(super) next_incoming: Serial,
    /// How many may come.
    pub(super) incoming_window: u32,
    /// The id that ours began with.
    first_outgoing: Serial,
    /// The id of the next transfer that goes.
    pub(super) next_outgoing: Serial,
    /// How many may go.
    pub(super) remote_window: u32,
    /// The highest handle that the peer takes.
    pub(super) handle_max: u32,
    /// Links by handle; both sides give a link the same.
    pub(super) links: BTreeMap<u32, Link>,
    /// The id of the next delivery that goes.
    pub(super) next_delivery: Serial,
    /// Deliveries that went and are not settled, in the order of their ids.
    pub(super) unsettled: VecDeque<(Serial, LinkId)>,
    /// What of a delivery the window has no room for.
    pub(super) pending: Option<Pending>,
}

impl Session {
    /// Which of the unsettled a range names. It is as long as what it finds, whatever its numbers.
    fn range(&self, first: u32, last: u32) -> std::ops::Range<usize> {
        let Some((base, _)) = self.unsettled.front() else {
            return 0..0;
        };
        let (first, last) = (Serial(first), Serial(last));
        let (Some(last_at), Some(_)) = (last.since(*base), last.since(first)) else {
            return 0..0;
        };
        let first_at = first.since(*base).unwrap_or(0);
        let place = |id: Serial| id.0.wrapping_sub(base.0);
        let start = { &self.unsettled }.partition_point(|(id, _)| place(*id) < first_at);
        let end = { &self.unsettled }.partition_point(|(id, _)| place(*id) <= last_at);
        start..end.max(start)
    }

    /// Says the state of the session, and of a link.
    pub(super) fn put_flow(&self, output: &mut Output, channel: u16, window: u32, of: Option<u32>) {
        let link = of.and_then(|handle| self.links.get(&handle));
        let flow = Flow {
            next_incoming_id: Some(self.next_incoming.0),
            incoming_window: self.incoming_window,
            next_outgoing_id: self.next_outgoing.0,
            outgoing_window: window,
            handle: of.filter(|_| link.is_some()),
            delivery_count: link.map(|link| link.delivery_count.0),
            link_credit: link.map(|link| link.credit),
            available: link.filter(|it| it.role == Role::Sender).map(|_| 0),
            drain: link.is_some_and(|link| link.drain),
            echo: false,
            properties: None,
        };
        output.put(channel, &Performative::Flow(flow));
    }
}

impl Endpoint {
    pub(super) fn on_session<'f>(
        &mut self,
        channel: u16,
        performative: Performative<'f>,
        payload: Bytes,
    ) -> Result<Option<Event<'f>>, Fault> {
        if let Performative::Begin(begin) = performative {
            return self.begin(channel, &begin).map(|()| None);
        }
        let Some(session) = self.sessions.get_mut(&channel) else {
            return Err(Fault::new(
                Scope::Connection,
                ErrorCondition::NotAllowed,
                format!("no session has begun on channel {channel}"),
            ));
        };
        match performative {
            Performative::End(end) => {
                let was_ending = session.is_ending;
                self.forget_session(channel);
                self.sessions.remove(&channel);
                if was_ending {
                    return Ok(None);
                }
                let answer = Performative::End(End { error: None });
                self.output.put(channel, &answer);
                Ok(Some(Event::Ended(channel, end.error)))
            }
            _ if session.is_ending => Ok(None),
            Performative::Attach(attach) => self.attach(channel, attach).map(Some),
            Performative::Flow(flow) => self.flow(channel, &flow),
            Performative::Transfer(transfer) => self.transfer(channel, &transfer, payload),
            Performative::Disposition(said) => Ok(self.disposition(channel, &said)),
            Performative::Detach(detach) => self.detached(channel, detach),
            Performative::Begin(_) | Performative::Open(_) | Performative::Close(_) => Ok(None),
        }
    }

    fn begin(&mut self, channel: u16, begin: &Begin<'_>) -> Result<(), Fault> {
        let wrong = |condition, text: &str| Fault::new(Scope::Connection, condition, text);
        if channel > self.settings.channel_max {
            return Err(wrong(
                ErrorCondition::FramingError,
                "a channel above the highest",
            ));
        }
        if channel > self.channel_max {
            return Err(wrong(
                ErrorCondition::NotAllowed,
                "a channel above the highest that the peer takes itself",
            ));
        }
        if begin.remote_channel.is_some() {
            return Err(wrong(
                ErrorCondition::NotAllowed,
                "an answer to a session that we have not begun",
            ));
        }
        if self.sessions.contains_key(&channel) {
            return Err(wrong(
                ErrorCondition::NotAllowed,
                "a session on a channel that has one",
            ));
        }
        let first = Serial(self.settings.first_id);
        let session = Session {
            is_ending: false,
            next_incoming: Serial(begin.next_outgoing_id),
            incoming_window: self.settings.window,
            first_outgoing: first,
            next_outgoing: first,
            remote_window: begin.incoming_window,
            handle_max: begin.handle_max,
            links: BTreeMap::new(),
            next_delivery: first,
            unsettled: VecDeque::new(),
            pending: None,
        };
        self.sessions.insert(channel, session);
        let answer = Begin {
            remote_channel: Some(channel),
            next_outgoing_id: first.0,
            incoming_window: self.settings.window,
            outgoing_window: self.settings.window,
            handle_max: self.settings.handle_max,
            offered_capabilities: Multiple::None,
            desired_capabilities: Multiple::None,
            properties: None,
        };
        self.output.put(channel, &Performative::Begin(answer));
        Ok(())
    }

    fn flow<'f>(&mut self, channel: u16, flow: &Flow<'f>) -> Result<Option<Event<'f>>, Fault> {
        let window = self.settings.window;
        let Some(session) = self.sessions.get_mut(&channel) else {
            return Ok(None);
        };
        let base = flow.next_incoming_id.map_or(session.first_outgoing, Serial);
        let end = base.plus(flow.incoming_window.min(i32::MAX as u32));
        session.remote_window = end.since(session.next_outgoing).unwrap_or(0);
        session.next_incoming = Serial(flow.next_outgoing_id);
        let event = match flow.handle {
            None => None,
            Some(handle) => {
                let link = session.links.get_mut(&handle).ok_or_else(|| {
                    Fault::new(
                        Scope::Session(channel),
                        ErrorCondition::UnattachedHandle,
                        format!("no link is attached as {handle}"),
                    )
                })?;
                let event = link.flow(flow).filter(|_| !link.is_detaching());
                event.map(|(id, flow)| Event::Flow(id, flow))
            }
        };
        if flow.echo {
            let handle = flow.handle.filter(|handle| {
                let link = session.links.get(handle);
                link.is_some_and(Link::is_attached)
            });
            session.put_flow(&mut self.output, channel, window, handle);
        }
        self.pump(channel);
        Ok(event)
    }

    fn disposition<'f>(&mut self, channel: u16, said: &Disposition<'f>) -> Option<Event<'f>> {
        // What a sender says of its deliveries: we settle each on our own, and forget it then.
        if said.role == Role::Sender {
            return None;
        }
        let session = self.sessions.get_mut(&channel)?;
        let range = session.range(said.first, said.last.unwrap_or(said.first));
        let found = range.clone().filter_map(|at| session.unsettled.get(at));
        let deliveries: Vec<(LinkId, u32)> = found.map(|(id, link)| (*link, id.0)).collect();
        if said.settled {
            session.unsettled.drain(range);
        }
        if deliveries.is_empty() {
            return None;
        }
        Some(Event::Settled(Settled {
            channel,
            deliveries,
            state: said.state,
            settled: said.settled,
        }))
    }

    /// Settles deliveries that we sent, after the peer has said what became of them: those from `first` to `last`.
    pub fn settle_sent(
        &mut self,
        channel: u16,
        (first, last): (u32, u32),
        state: Option<DeliveryState<'_>>,
    ) {
        let Some(session) = self.sessions.get_mut(&channel) else {
            return;
        };
        let range = session.range(first, last);
        if session.is_ending || range.is_empty() {
            return;
        }
        session.unsettled.drain(range);
        self.put_disposition(channel, Role::Sender, (first, last), state);
    }

    /// Settles deliveries that came: those from `first` to `last`.
    pub fn settle(&mut self, channel: u16, (first, last): (u32, u32), state: DeliveryState<'_>) {
        if self.sessions.get(&channel).is_some_and(|it| !it.is_ending) {
            self.put_disposition(channel, Role::Receiver, (first, last), Some(state));
        }
    }

    fn put_disposition(
        &mut self,
        channel: u16,
        role: Role,
        (first, last): (u32, u32),
        state: Option<DeliveryState<'_>>,
    ) {
        let disposition = Disposition {
            role,
            first,
            last: Some(last).filter(|last| *last != first),
            settled: true,
            state,
            batchable: false,
        };
        let disposition = Performative::Disposition(disposition);
        self.output.put(channel, &disposition);
    }

    /// Ends a session with all its links.
    pub fn end_session(&mut self, channel: u16, error: Option<Error<'_>>) {
        let session = self.sessions.get(&channel);
        if session.is_none_or(|session| session.is_ending) {
            return;
        }
        self.forget_session(channel);
        self.output.put(channel, &Performative::End(End { error }));
    }

    /// Nothing of a session is left but that the peer has not ended it yet.
    fn forget_session(&mut self, channel: u16) {
        let Some(session) = self.sessions.get_mut(&channel) else {
            return;
        };
        session.is_ending = true;
        session.unsettled = VecDeque::new();
        session.pending = None;
        let links = std::mem::take(&mut session.links);
        self.links -= links.len();
        for link in links.into_values() {
            self.partial_bytes -= link.partial_bytes();
            Endpoint::forget_name(&mut self.names, &link);
        }
    }
}
