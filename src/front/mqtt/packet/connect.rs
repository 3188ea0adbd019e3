//! CONNECT (§3.1).

use super::fault::Fault;
use super::properties::{Owner, Properties};
use super::reader::Reader;
use super::words::{Qos, Version};

/// A client's first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What it speaks.
    pub version: Version,
    /// Whether an older session is to be forgotten; *clean session* in 3.1.1.
    pub clean_start: bool,
    /// Seconds of silence that end the connection after half as many more; 0 for none.
    pub keep_alive: u16,
    /// In 3.1.1 none.
    pub properties: Properties<'a>,
    /// What it calls itself; may be empty.
    pub client_id: &'a str,
    /// What is published when it goes without a word.
    pub will: Option<Will<'a>>,
    /// Who it says to be.
    pub user: Option<&'a str>,
    /// What shows it.
    pub password: Option<&'a [u8]>,
}

/// What is published when a client goes without a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where.
    pub topic: &'a str,
    /// What.
    pub payload: &'a [u8],
    /// How often it may arrive.
    pub qos: Qos,
    /// Whether it stays for later subscribers.
    pub retain: bool,
    /// In 3.1.1 none.
    pub properties: Properties<'a>,
}

const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER: u8 = 0x80;

/// The version that a CONNECT says, if it can be read that far.
pub fn version_of(body: &[u8]) -> Option<Version> {
    match body {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Some(Version::V311),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Some(Version::V5),
        _ => None,
    }
}

impl<'a> Connect<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Connect<'a>, Fault> {
        let name = reader.text()?;
        let version = match (name, reader.byte()?) {
            ("MQTT", 4) => Version::V311,
            ("MQTT", 5) => Version::V5,
            ("MQTT", level) => {
                return Err(Fault::Version {
                    is_older: level < 5,
                });
            }
            ("MQIsdp", _) => return Err(Fault::Version { is_older: true }),
            _ => return Err(Fault::Protocol("the protocol's name is not MQTT")),
        };
        let flags = reader.byte()?;
        if flags & RESERVED != 0 {
            return Err(Fault::Malformed("the reserved flag of CONNECT is set"));
        }
        let keep_alive = reader.short()?;
        let properties = of_version(version, &mut reader, Owner::Connect)?;
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(Fault::Protocol("authentication data without a method"));
        }
        let client_id = reader.text()?;
        let will = Will::read(version, flags, &mut reader)?;
        // In 3.1.1 nobody has a password without a name (§3.1.2.9).
        if version == Version::V311 && flags & (USER | PASSWORD) == PASSWORD {
            return Err(Fault::Malformed("a password without a user name"));
        }
        let user = match flags & USER {
            0 => None,
            _ => Some(reader.text()?),
        };
        let password = match flags & PASSWORD {
            0 => None,
            _ => Some(reader.binary()?),
        };
        reader.end()?;
        let clean_start = flags & CLEAN_START != 0;
        if client_id.is_empty() && version == Version::V311 && !clean_start {
            return Err(Fault::ClientId);
        }
        Ok(Connect {
            version,
            clean_start,
            keep_alive,
            properties,
            client_id,
            will,
            user,
            password,
        })
    }
}

impl<'a> Will<'a> {
    fn read(
        version: Version,
        flags: u8,
        reader: &mut Reader<'a>,
    ) -> Result<Option<Will<'a>>, Fault> {
        let qos = Qos::of((flags >> 3) & 0x03).ok_or(Fault::Malformed("a will of QoS 3"))?;
        let retain = flags & WILL_RETAIN != 0;
        if flags & WILL == 0 {
            return match retain || qos != Qos::AtMostOnce {
                true => Err(Fault::Malformed("flags of a will without a will")),
                false => Ok(None),
            };
        }
        let properties = of_version(version, reader, Owner::Will)?;
        let topic = reader.text()?;
        if topic.is_empty() || topic.contains(['+', '#']) {
            return Err(Fault::TopicName);
        }
        Ok(Some(Will {
            topic,
            payload: reader.binary()?,
            qos,
            retain,
            properties,
        }))
    }
}

/// Properties, where the version has them.
pub(super) fn of_version<'a>(
    version: Version,
    reader: &mut Reader<'a>,
    owner: Owner,
) -> Result<Properties<'a>, Fault> {
    match version {
        Version::V311 => Ok(Properties::default()),
        Version::V5 => Properties::read(reader, owner),
    }
}
