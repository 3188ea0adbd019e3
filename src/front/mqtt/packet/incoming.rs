//! Packets from a client: which there are, and how each is read from its header's first byte and its body.

use super::connect::Connect;
use super::fault::Fault;
use super::properties::{Owner, Properties};
use super::publish::Publish;
use super::reader::Reader;
use super::subscribe::{Subscribe, Unsubscribe};
use super::words::Version;

/// A packet behind CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A message.
    Publish(Publish<'a>),
    /// A word about a message.
    Ack(Ack),
    /// What is wanted.
    Subscribe(Subscribe<'a>),
    /// What is wanted no longer.
    Unsubscribe(Unsubscribe<'a>),
    /// Whether anybody is there.
    Pingreq,
    /// The end.
    Disconnect(Disconnect),
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (§3.4 to §3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which.
    pub kind: AckKind,
    /// Not 0.
    pub packet_id: u16,
    /// 0x80 and more say that it failed.
    pub reason: u8,
}

/// The words about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// A message of QoS 1 has arrived.
    Puback,
    /// A message of QoS 2 has arrived.
    Pubrec,
    /// Its identifier may be forgotten.
    Pubrel,
    /// It is.
    Pubcomp,
}

/// DISCONNECT (§3.14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnect {
    /// Why.
    pub reason: u8,
    /// A new time for which the session outlives its connection.
    pub session_expiry: Option<u32>,
}

const FLAGS: Fault = Fault::Malformed("flags of the fixed header that the packet does not have");

/// The first packet of a connection: CONNECT, by its header's first byte and its body.
pub fn decode_connect(first: u8, body: &[u8]) -> Result<Connect<'_>, Fault> {
    match first {
        0x10 => Connect::read(Reader::new(body)),
        _ if first >> 4 == 1 => Err(FLAGS),
        _ => Err(Fault::Protocol("the first packet is not CONNECT")),
    }
}

/// A later packet.
pub fn decode(version: Version, first: u8, body: &[u8]) -> Result<Incoming<'_>, Fault> {
    let reader = Reader::new(body);
    let (kind, flags) = (first >> 4, first & 0x0f);
    let wanted = match kind {
        3 => flags,
        6 | 8 | 10 => 0x02,
        _ => 0,
    };
    if flags != wanted {
        return Err(FLAGS);
    }
    Ok(match kind {
        1 => return Err(Fault::Protocol("a second CONNECT")),
        3 => Incoming::Publish(Publish::read(version, flags, reader)?),
        4 => Incoming::Ack(Ack::read(version, AckKind::Puback, reader)?),
        5 => Incoming::Ack(Ack::read(version, AckKind::Pubrec, reader)?),
        6 => Incoming::Ack(Ack::read(version, AckKind::Pubrel, reader)?),
        7 => Incoming::Ack(Ack::read(version, AckKind::Pubcomp, reader)?),
        8 => Incoming::Subscribe(Subscribe::read(version, reader)?),
        10 => Incoming::Unsubscribe(Unsubscribe::read(version, reader)?),
        12 => {
            reader.end()?;
            Incoming::Pingreq
        }
        14 => Incoming::Disconnect(Disconnect::read(version, reader)?),
        15 if version == Version::V5 => return Err(auth(reader)),
        0 | 15 => return Err(Fault::Malformed("a packet of a type that is reserved")),
        _ => return Err(Fault::Protocol("a packet that a server sends")),
    })
}

impl Ack {
    fn read(version: Version, kind: AckKind, mut reader: Reader<'_>) -> Result<Ack, Fault> {
        let packet_id = reader.packet_id()?;
        let mut reason = 0;
        if version == Version::V5 && !reader.is_empty() {
            reason = reader.byte()?;
            if !kind.may_say(reason) {
                return Err(Fault::Malformed("a reason code that the ack cannot have"));
            }
            if !reader.is_empty() {
                Properties::read(&mut reader, Owner::Ack)?;
            }
        }
        reader.end()?;
        Ok(Ack {
            kind,
            packet_id,
            reason,
        })
    }
}

impl AckKind {
    fn may_say(self, reason: u8) -> bool {
        match self {
            AckKind::Puback | AckKind::Pubrec => matches!(
                reason,
                0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
            ),
            AckKind::Pubrel | AckKind::Pubcomp => matches!(reason, 0x00 | 0x92),
        }
    }
}

impl Disconnect {
    fn read(version: Version, mut reader: Reader<'_>) -> Result<Disconnect, Fault> {
        let mut disconnect = Disconnect::default();
        if version == Version::V5 && !reader.is_empty() {
            disconnect.reason = reader.byte()?;
            let is_known = matches!(
                disconnect.reason,
                0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x97 | 0x99
            );
            if !is_known {
                return Err(Fault::Malformed("a reason that a client cannot have to go"));
            }
            if !reader.is_empty() {
                let properties = Properties::read(&mut reader, Owner::Disconnect)?;
                disconnect.session_expiry = properties.session_expiry;
            }
        }
        reader.end()?;
        Ok(disconnect)
    }
}

/// What is wrong with an AUTH: nobody is asked for more than a password, so that there is none to be answered.
fn auth(mut reader: Reader<'_>) -> Fault {
    const UNASKED: Fault = Fault::Protocol("an AUTH without an authentication method");
    if reader.is_empty() {
        return UNASKED;
    }
    let read = reader
        .byte()
        .and_then(|_| match reader.is_empty() {
            true => Ok(()),
            false => Properties::read(&mut reader, Owner::Auth).map(|_| ()),
        })
        .and_then(|()| reader.end());
    read.err().unwrap_or(UNASKED)
}
