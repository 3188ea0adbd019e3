//! Where links begin and end (part 3, 3.5; part 4, 4.5).
//! Callers: `attach`; a front that knows addresses.

use bytes::BytesMut;

use crate::composite::{choices, composite};
use crate::{Composite, Field, Map, Multiple, Symbol, Value};

choices! {
    /// What of a terminus outlives its connection.
    TerminusDurability: Uint {
        /// Nothing.
        None = 0,
        /// That it is there.
        Configuration = 1,
        /// That, and what is unsettled.
        UnsettledState = 2,
    }
}

composite! {
    whole:
    /// Where messages come from.
    Source<'a> = 0x28 "amqp:source:list" {
        /// Its name, a string in all that is in use.
        address: Option<Value<'a>>,
        /// What outlives the connection.
        durable: TerminusDurability = TerminusDurability::None,
        /// From when on its time runs.
        expiry_policy: Symbol<'a> = Symbol("session-end"),
        /// Its time, in seconds.
        timeout: u32 = 0,
        /// Whether it is to be made.
        dynamic: bool = false,
        /// As what.
        dynamic_node_properties: Option<Map<'a>>,
        /// `move` or `copy`.
        distribution_mode: Option<Symbol<'a>>,
        /// Which messages.
        filter: Option<Map<'a>>,
        /// What becomes of deliveries that are left unsettled.
        default_outcome: Option<Value<'a>>,
        /// What may become of them.
        outcomes: Multiple<'a> = Multiple::None,
        /// What it can.
        capabilities: Multiple<'a> = Multiple::None,
    }
    /// Where messages go.
    Target<'a> = 0x29 "amqp:target:list" {
        /// Its name; None: each message says where it goes.
        address: Option<Value<'a>>,
        /// What outlives the connection.
        durable: TerminusDurability = TerminusDurability::None,
        /// From when on its time runs.
        expiry_policy: Symbol<'a> = Symbol("session-end"),
        /// Its time, in seconds.
        timeout: u32 = 0,
        /// Whether it is to be made.
        dynamic: bool = false,
        /// As what.
        dynamic_node_properties: Option<Map<'a>>,
        /// What it can.
        capabilities: Multiple<'a> = Multiple::None,
    }
    /// Where transactions are begun and ended.
    Coordinator<'a> = 0x30 "amqp:coordinator:list" {
        /// What it can.
        capabilities: Multiple<'a> = Multiple::None,
    }
}

/// What stands where a target does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnyTarget<'a> {
    /// A node.
    Target(Target<'a>),
    /// The coordinator of transactions.
    Coordinator(Coordinator<'a>),
}

impl<'a> Field<'a> for AnyTarget<'a> {
    fn of(value: Value<'a>) -> Option<AnyTarget<'a>> {
        let target = <Target<'a> as Field>::of(value).map(AnyTarget::Target);
        target.or_else(|| <Coordinator<'a> as Field>::of(value).map(AnyTarget::Coordinator))
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            AnyTarget::Target(it) => Composite::put(it, out),
            AnyTarget::Coordinator(it) => Composite::put(it, out),
        }
    }
}
