//! The performatives of the transport (part 2, 2.7), and the error type.
//! Callers: the endpoint; tests.

use bytes::BytesMut;

use crate::composite::{choices, composite};
use crate::reader::{DecodeError, split};
use crate::state::DeliveryState;
use crate::terminus::{AnyTarget, Source};
use crate::{Composite, Map, Multiple, Symbol, Value};

choices! {
    /// Which side of a link.
    Role: Boolean {
        /// Sends.
        Sender = false,
        /// Receives.
        Receiver = true,
    }
    /// How a sender settles.
    SenderSettleMode: Ubyte {
        /// Nothing is sent settled.
        Unsettled = 0,
        /// All is sent settled.
        Settled = 1,
        /// As the sender likes.
        Mixed = 2,
    }
    /// How a receiver settles.
    ReceiverSettleMode: Ubyte {
        /// On its own.
        First = 0,
        /// After the sender has settled.
        Second = 1,
    }
}

composite! {
    whole:
    /// Begins a connection.
    Open<'a> = 0x10 "amqp:open:list" {
        /// Who is speaking.
        container_id: &'a str,
        /// Whom it wants to speak to.
        hostname: Option<&'a str>,
        /// The longest frame that it takes.
        max_frame_size: u32 = u32::MAX,
        /// The highest channel that it takes.
        channel_max: u16 = u16::MAX,
        /// After how many milliseconds without a frame it gives up.
        idle_time_out: Option<u32>,
        /// Languages of texts to the peer.
        outgoing_locales: Multiple<'a> = Multiple::None,
        /// Languages that it wants.
        incoming_locales: Multiple<'a> = Multiple::None,
        /// What it can.
        offered_capabilities: Multiple<'a> = Multiple::None,
        /// What it wants.
        desired_capabilities: Multiple<'a> = Multiple::None,
        /// Anything else.
        properties: Option<Map<'a>>,
    }
    /// Begins a session.
    Begin<'a> = 0x11 "amqp:begin:list" {
        /// The peer's channel, in an answer.
        remote_channel: Option<u16>,
        /// The id of the first transfer that it will send.
        next_outgoing_id: u32,
        /// How many transfers it takes.
        incoming_window: u32,
        /// How many it will send at once.
        outgoing_window: u32,
        /// The highest handle that it takes.
        handle_max: u32 = u32::MAX,
        /// What it can.
        offered_capabilities: Multiple<'a> = Multiple::None,
        /// What it wants.
        desired_capabilities: Multiple<'a> = Multiple::None,
        /// Anything else.
        properties: Option<Map<'a>>,
    }
    /// Attaches a link.
    Attach<'a> = 0x12 "amqp:attach:list" {
        /// Its name.
        name: &'a str,
        /// Its number in this session.
        handle: u32,
        /// Which side the speaker is.
        role: Role,
        /// How the sender settles.
        snd_settle_mode: SenderSettleMode = SenderSettleMode::Mixed,
        /// How the receiver settles.
        rcv_settle_mode: ReceiverSettleMode = ReceiverSettleMode::First,
        /// Where messages come from.
        source: Option<Source<'a>>,
        /// Where they go.
        target: Option<AnyTarget<'a>>,
        /// Deliveries that are unsettled from before.
        unsettled: Option<Map<'a>>,
        /// Whether those are not all.
        incomplete_unsettled: bool = false,
        /// The sender's count of deliveries.
        initial_delivery_count: Option<u32>,
        /// The longest message that the speaker takes; 0 for any.
        max_message_size: Option<u64>,
        /// What it can.
        offered_capabilities: Multiple<'a> = Multiple::None,
        /// What it wants.
        desired_capabilities: Multiple<'a> = Multiple::None,
        /// Anything else.
        properties: Option<Map<'a>>,
    }
    /// The state of a session, and perhaps of a link.
    Flow<'a> = 0x13 "amqp:flow:list" {
        /// The id of the next transfer that it expects; None before the peer's `begin`.
        next_incoming_id: Option<u32>,
        /// How many it takes from there.
        incoming_window: u32,
        /// The id of the next transfer that it will send.
        next_outgoing_id: u32,
        /// How many it will send at once.
        outgoing_window: u32,
        /// Of which link the rest is.
        handle: Option<u32>,
        /// Deliveries so far.
        delivery_count: Option<u32>,
        /// Deliveries from there that the receiver takes.
        link_credit: Option<u32>,
        /// Deliveries that the sender has.
        available: Option<u32>,
        /// Whether credit that cannot be used now shall be used up.
        drain: bool = false,
        /// Whether it wants the other side's state.
        echo: bool = false,
        /// Anything else.
        properties: Option<Map<'a>>,
    }
    /// A part of a delivery; its payload is behind it.
    Transfer<'a> = 0x14 "amqp:transfer:list" {
        /// Of which link.
        handle: u32,
        /// The delivery's id; may be left out of all but the first.
        delivery_id: Option<u32>,
        /// Its name for the sender.
        delivery_tag: Option<&'a [u8]>,
        /// The message's format; 0 is the standard's.
        message_format: Option<u32>,
        /// Whether the sender has settled it.
        settled: Option<bool>,
        /// Whether more of it follows.
        more: bool = false,
        /// How the receiver shall settle it.
        rcv_settle_mode: Option<ReceiverSettleMode>,
        /// Its state with the sender.
        state: Option<DeliveryState<'a>>,
        /// Whether it is one from before.
        resume: bool = false,
        /// Whether it is given up.
        aborted: bool = false,
        /// Whether its disposition can wait for others.
        batchable: bool = false,
    }
    /// What became of deliveries.
    Disposition<'a> = 0x15 "amqp:disposition:list" {
        /// Which side the speaker is of their links.
        role: Role,
        /// The first.
        first: u32,
        /// The last; the first if it is not there.
        last: Option<u32>,
        /// Whether they are settled.
        settled: bool = false,
        /// Their state.
        state: Option<DeliveryState<'a>>,
        /// Whether an answer can wait for others.
        batchable: bool = false,
    }
    /// Detaches a link.
    Detach<'a> = 0x16 "amqp:detach:list" {
        /// Which.
        handle: u32,
        /// Whether its terminus goes too.
        closed: bool = false,
        /// Why.
        error: Option<Error<'a>>,
    }
    /// Ends a session.
    End<'a> = 0x17 "amqp:end:list" {
        /// Why.
        error: Option<Error<'a>>,
    }
    /// Ends a connection.
    Close<'a> = 0x18 "amqp:close:list" {
        /// Why.
        error: Option<Error<'a>>,
    }
    /// Why something ended.
    Error<'a> = 0x1d "amqp:error:list" {
        /// A condition, as a symbol.
        condition: Symbol<'a>,
        /// In words.
        description: Option<&'a str>,
        /// Anything else.
        info: Option<Map<'a>>,
    }
}

/// Any of them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names of the types")]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub enum Performative<'a> {
    Open(Open<'a>),
    Begin(Begin<'a>),
    Attach(Attach<'a>),
    Flow(Flow<'a>),
    Transfer(Transfer<'a>),
    Disposition(Disposition<'a>),
    Detach(Detach<'a>),
    End(End<'a>),
    Close(Close<'a>),
}

impl<'a> Performative<'a> {
    /// Decodes what a frame begins with, and gives the payload behind it.
    pub fn split(body: &'a [u8]) -> Result<(Performative<'a>, &'a [u8]), DecodeError> {
        const NONE: DecodeError = DecodeError::Type("a performative");
        let (value, payload) = split(body)?;
        let Value::Described(it) = value else {
            return Err(NONE);
        };
        let Value::List(fields) = it.value() else {
            return Err(NONE);
        };
        let descriptor = it.descriptor();
        macro_rules! first_of {
            ($($name:ident),*) => {
                match () {
                    $(() if $name::is(&descriptor) => Performative::$name($name::of_fields(fields)?),)*
                    () => return Err(NONE),
                }
            };
        }
        let found = first_of!(
            Transfer,
            Disposition,
            Flow,
            Open,
            Begin,
            Attach,
            Detach,
            End,
            Close
        );
        match found {
            Performative::Transfer(_) => Ok((found, payload)),
            _ if payload.is_empty() => Ok((found, payload)),
            _ => Err(DecodeError::Trailing),
        }
    }

    /// A detach, end or close; None: a frame begins with something else. Of all others no more than the descriptor is looked at.
    pub fn ending(body: &'a [u8]) -> Option<Performative<'a>> {
        let (Value::Described(it), _) = split(body).ok()? else {
            return None;
        };
        let descriptor = it.descriptor();
        let ends = Detach::is(&descriptor) || End::is(&descriptor) || Close::is(&descriptor);
        if !ends {
            return None;
        }
        let (found, _) = Performative::split(body).ok()?;
        Some(found)
    }

    /// Encodes it behind what is there.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Performative::Open(it) => Composite::put(it, out),
            Performative::Begin(it) => Composite::put(it, out),
            Performative::Attach(it) => Composite::put(it, out),
            Performative::Flow(it) => Composite::put(it, out),
            Performative::Transfer(it) => Composite::put(it, out),
            Performative::Disposition(it) => Composite::put(it, out),
            Performative::Detach(it) => Composite::put(it, out),
            Performative::End(it) => Composite::put(it, out),
            Performative::Close(it) => Composite::put(it, out),
        }
    }
}
