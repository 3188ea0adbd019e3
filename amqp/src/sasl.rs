//! The frames of SASL (part 5, 5.3).
//! Callers: the endpoint. The mechanisms themselves are not here: what they say are bytes.

use bytes::BytesMut;

use crate::composite::{choices, composite};
use crate::reader::{DecodeError, decode};
use crate::{Composite, Multiple, Symbol, Value};

choices! {
    /// How a login ended.
    SaslCode: Ubyte {
        /// Well.
        Ok = 0,
        /// It is not the user's password.
        Auth = 1,
        /// The server failed.
        Sys = 2,
        /// It failed and will again.
        SysPerm = 3,
        /// It failed and may succeed.
        SysTemp = 4,
    }
}

composite! {
    /// What the server offers.
    SaslMechanisms<'a> = 0x40 "amqp:sasl-mechanisms:list" {
        /// Their names.
        sasl_server_mechanisms: Multiple<'a>,
    }
    /// What the client takes.
    SaslInit<'a> = 0x41 "amqp:sasl-init:list" {
        /// Its name.
        mechanism: Symbol<'a>,
        /// What it says first.
        initial_response: Option<&'a [u8]>,
        /// Whom the client wants to speak to.
        hostname: Option<&'a str>,
    }
    /// What the server asks.
    SaslChallenge<'a> = 0x42 "amqp:sasl-challenge:list" {
        /// It.
        challenge: &'a [u8],
    }
    /// What the client answers.
    SaslResponse<'a> = 0x43 "amqp:sasl-response:list" {
        /// It.
        response: &'a [u8],
    }
    /// How it ended.
    SaslOutcome<'a> = 0x44 "amqp:sasl-outcome:list" {
        /// How.
        code: SaslCode,
        /// What the server says last.
        additional_data: Option<&'a [u8]>,
    }
}

/// Any of them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names of the types")]
pub enum SaslFrame<'a> {
    Mechanisms(SaslMechanisms<'a>),
    Init(SaslInit<'a>),
    Challenge(SaslChallenge<'a>),
    Response(SaslResponse<'a>),
    Outcome(SaslOutcome<'a>),
}

impl<'a> SaslFrame<'a> {
    /// Decodes a frame's body.
    pub fn decode(body: &'a [u8]) -> Result<SaslFrame<'a>, DecodeError> {
        const NONE: DecodeError = DecodeError::Type("a SASL frame");
        let Value::Described(it) = decode(body)? else {
            return Err(NONE);
        };
        let Value::List(fields) = it.value() else {
            return Err(NONE);
        };
        let descriptor = &it.descriptor();
        Ok(if SaslInit::is(descriptor) {
            SaslFrame::Init(SaslInit::of_fields(fields)?)
        } else if SaslResponse::is(descriptor) {
            SaslFrame::Response(SaslResponse::of_fields(fields)?)
        } else if SaslMechanisms::is(descriptor) {
            SaslFrame::Mechanisms(SaslMechanisms::of_fields(fields)?)
        } else if SaslChallenge::is(descriptor) {
            SaslFrame::Challenge(SaslChallenge::of_fields(fields)?)
        } else if SaslOutcome::is(descriptor) {
            SaslFrame::Outcome(SaslOutcome::of_fields(fields)?)
        } else {
            return Err(NONE);
        })
    }

    /// Encodes it behind what is there.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            SaslFrame::Mechanisms(it) => Composite::put(it, out),
            SaslFrame::Init(it) => Composite::put(it, out),
            SaslFrame::Challenge(it) => Composite::put(it, out),
            SaslFrame::Response(it) => Composite::put(it, out),
            SaslFrame::Outcome(it) => Composite::put(it, out),
        }
    }
}
