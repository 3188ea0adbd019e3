//! What becomes of a delivery (part 3, 3.4; part 4, 4.5).
//! Callers: performatives; a front that settles.

use bytes::BytesMut;

use crate::composite::composite;
use crate::performative::Error;
use crate::{Composite, Field, Map, Value};

composite! {
    /// So much of it has arrived.
    Received = 0x23 "amqp:received:list" {
        /// In which section.
        section_number: u32,
        /// Up to which byte of it.
        section_offset: u64,
    }
    /// It is taken.
    Accepted = 0x24 "amqp:accepted:list" {}
    /// It is not, and never will be.
    Rejected<'a> = 0x25 "amqp:rejected:list" {
        /// Why.
        error: Option<Error<'a>>,
    }
    /// It is as if it had not been sent.
    Released = 0x26 "amqp:released:list" {}
    /// It is given back, changed.
    Modified<'a> = 0x27 "amqp:modified:list" {
        /// Whether that was a failure.
        delivery_failed: Option<bool>,
        /// Whether it is not for this link.
        undeliverable_here: Option<bool>,
        /// Annotations to be added.
        message_annotations: Option<Map<'a>>,
    }
    /// A transaction has begun.
    Declared<'a> = 0x33 "amqp:declared:list" {
        /// Its name.
        txn_id: &'a [u8],
    }
    /// A state that holds if a transaction does.
    TransactionalState<'a> = 0x34 "amqp:transactional-state:list" {
        /// Which.
        txn_id: &'a [u8],
        /// The state: one of the four outcomes.
        outcome: Option<Value<'a>>,
    }
    /// Begins a transaction.
    Declare<'a> = 0x31 "amqp:declare:list" {
        /// That of others.
        global_id: Option<Value<'a>>,
    }
    /// Ends a transaction.
    Discharge<'a> = 0x32 "amqp:discharge:list" {
        /// Which.
        txn_id: &'a [u8],
        /// Whether it is rolled back.
        fail: Option<bool>,
    }
}

/// Any of them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names of the types")]
pub enum DeliveryState<'a> {
    Received(Received),
    Accepted,
    Rejected(Rejected<'a>),
    Released,
    Modified(Modified<'a>),
    Declared(Declared<'a>),
    Transactional(TransactionalState<'a>),
}

impl DeliveryState<'_> {
    /// Whether nothing else will become of the delivery.
    pub fn is_outcome(&self) -> bool {
        !matches!(
            self,
            DeliveryState::Received(_) | DeliveryState::Transactional(_)
        )
    }
}

impl<'a> Field<'a> for DeliveryState<'a> {
    fn of(value: Value<'a>) -> Option<DeliveryState<'a>> {
        let Value::Described(it) = value else {
            return None;
        };
        let Value::List(fields) = it.value() else {
            return None;
        };
        let descriptor = &it.descriptor();
        if Accepted::is(descriptor) {
            Accepted::of_fields(fields)
                .ok()
                .map(|_| DeliveryState::Accepted)
        } else if Released::is(descriptor) {
            Released::of_fields(fields)
                .ok()
                .map(|_| DeliveryState::Released)
        } else if Rejected::is(descriptor) {
            Rejected::of_fields(fields).ok().map(Self::Rejected)
        } else if Modified::is(descriptor) {
            Modified::of_fields(fields).ok().map(Self::Modified)
        } else if Received::is(descriptor) {
            Received::of_fields(fields).ok().map(Self::Received)
        } else if TransactionalState::is(descriptor) {
            TransactionalState::of_fields(fields)
                .ok()
                .map(Self::Transactional)
        } else if Declared::is(descriptor) {
            Declared::of_fields(fields).ok().map(Self::Declared)
        } else {
            None
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            DeliveryState::Received(it) => Composite::put(it, out),
            DeliveryState::Accepted => Composite::put(&Accepted {}, out),
            DeliveryState::Rejected(it) => Composite::put(it, out),
            DeliveryState::Released => Composite::put(&Released {}, out),
            DeliveryState::Modified(it) => Composite::put(it, out),
            DeliveryState::Declared(it) => Composite::put(it, out),
            DeliveryState::Transactional(it) => Composite::put(it, out),
        }
    }
}
