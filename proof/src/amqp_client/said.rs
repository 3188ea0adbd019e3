//! What hand-made clients say: each performative with what they all leave open already filled in, so that a client names what it means
//! and takes the rest (`Attach { properties, ..said::attach(…) }`); and frames, written to and cut off a buffer.
//! Callers: `peer`, `conversations`, greedy clients of the exam, the load generator of the benchmark.

use amqp::frame::{self, FrameKind};
use amqp::performative::{
    Attach, Begin, Flow, Open, Performative, ReceiverSettleMode, Role, SenderSettleMode, Transfer,
};
use amqp::terminus::{AnyTarget, Source, Target, TerminusDurability};
use amqp::{BytesMut, Multiple, Symbol, Value};
use anyhow::Result;

/// What says that a terminus is a queue.
const QUEUE: &[&str] = &["queue"];

/// Opens a connection with one channel.
pub fn open(container_id: &str, frame_bytes_max: u32) -> Open<'_> {
    Open {
        container_id,
        hostname: None,
        max_frame_size: frame_bytes_max,
        channel_max: 0,
        idle_time_out: None,
        outgoing_locales: Multiple::None,
        incoming_locales: Multiple::None,
        offered_capabilities: Multiple::None,
        desired_capabilities: Multiple::None,
        properties: None,
    }
}

/// Begins a session that takes and sends so many transfers.
pub fn begin(window: u32) -> Begin<'static> {
    Begin {
        remote_channel: None,
        next_outgoing_id: 0,
        incoming_window: window,
        outgoing_window: window,
        handle_max: 255,
        offered_capabilities: Multiple::None,
        desired_capabilities: Multiple::None,
        properties: None,
    }
}

/// Attaches a link that sends to a target, or one that receives from a source.
pub fn attach<'a>(name: &'a str, handle: u32, ends: Ends<'a>) -> Attach<'a> {
    let (role, source, target) = match ends {
        Ends::SendsTo(target) => (Role::Sender, None, target),
        Ends::ReceivesFrom(from) => {
            let target = AnyTarget::Target(target(None));
            (Role::Receiver, Some(from), target)
        }
    };
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

/// Which way messages go on a link, and what is at its other end.
#[derive(Clone, Copy, Debug)]
pub enum Ends<'a> {
    /// The client sends.
    SendsTo(AnyTarget<'a>),
    /// The client receives.
    ReceivesFrom(Source<'a>),
}

/// A node of this address that messages come from; without one it has no address.
pub fn source(address: Option<&str>) -> Source<'_> {
    Source {
        address: address.map(Value::String),
        durable: TerminusDurability::None,
        expiry_policy: Symbol("session-end"),
        timeout: 0,
        dynamic: false,
        dynamic_node_properties: None,
        distribution_mode: None,
        filter: None,
        default_outcome: None,
        outcomes: Multiple::None,
        capabilities: Multiple::None,
    }
}

/// A queue that messages come from.
pub fn queue(address: &str) -> Source<'_> {
    Source {
        capabilities: Multiple::These(QUEUE),
        ..source(Some(address))
    }
}

/// A node of this address that messages go to; without one it has no address.
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

/// A queue that messages go to.
pub fn queue_target(address: &str) -> Target<'_> {
    Target {
        capabilities: Multiple::These(QUEUE),
        ..target(Some(address))
    }
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stand {
    /// The id of the next transfer that comes to the session.
    pub next_incoming: u32,
    /// The id of the next transfer that the session sends.
    pub next_outgoing: u32,
    /// Transfers that the session takes, and sends.
    pub window: u32,
}

/// Gives a link credit for so many deliveries behind those that have come.
pub fn credit(stand: Stand, handle: u32, (came, credit): (u32, u32), drain: bool) -> Flow<'static> {
    Flow {
        next_incoming_id: Some(stand.next_incoming),
        incoming_window: stand.window,
        next_outgoing_id: stand.next_outgoing,
        outgoing_window: stand.window,
        handle: Some(handle),
        delivery_count: Some(came),
        link_credit: Some(credit),
        available: None,
        drain,
        echo: false,
        properties: None,
    }
}

/// A whole message that is not settled yet.
pub fn transfer(handle: u32, id: u32, tag: &[u8]) -> Transfer<'_> {
    Transfer {
        handle,
        delivery_id: Some(id),
        delivery_tag: Some(tag),
        message_format: Some(0),
        settled: Some(false),
        more: false,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    }
}

/// Writes a frame.
pub fn put(out: &mut BytesMut, channel: u16, performative: &Performative<'_>, payload: &[u8]) {
    frame::put(out, FrameKind::Amqp, channel, |out| {
        performative.put(out);
        out.extend_from_slice(payload);
    });
}

/// The same on its own.
pub fn frame(channel: u16, performative: &Performative<'_>, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put(&mut out, channel, performative, payload);
    out
}

/// Cuts the next frame that is not empty off what has come, and gives its body; None if more has to come.
pub fn take(incoming: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<BytesMut>> {
    loop {
        let header = frame::header(incoming, frame_bytes_max)?;
        let Some(header) = header.filter(|it| incoming.len() >= it.frame_bytes) else {
            return Ok(None);
        };
        let mut frame = incoming.split_to(header.frame_bytes);
        let body = frame.split_off(header.body_at);
        if !body.is_empty() {
            return Ok(Some(body));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cut_off_when_all_of_it_is_there_and_empty_ones_are_passed_over() {
        let begin = Performative::Begin(begin(7));
        let mut all = BytesMut::from(&[0, 0, 0, 8, 2, 0, 0, 0][..]);
        put(&mut all, 3, &begin, b"");
        for cut in 0..all.len() {
            let mut some = BytesMut::from(&all[..cut]);
            assert!(take(&mut some, 512).unwrap().is_none(), "{cut}");
        }
        let body = take(&mut all, 512).unwrap().expect("it is there");
        assert_eq!(Performative::split(&body).unwrap().0, begin);
        assert!(all.is_empty());
    }
}
