//! PUBLISH from a client (§3.3).

use super::connect::of_version;
use super::fault::Fault;
use super::properties::{Owner, Properties};
use super::reader::Reader;
use super::words::{Qos, Version};

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Whether it may have come before.
    pub dup: bool,
    /// How often it may arrive.
    pub qos: Qos,
    /// Whether it stays for later subscribers.
    pub retain: bool,
    /// Where; empty if the topic alias says it.
    pub topic: &'a str,
    /// 0 for QoS 0 alone.
    pub packet_id: u16,
    /// In 3.1.1 none.
    pub properties: Properties<'a>,
    /// What.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    pub(super) fn read(
        version: Version,
        flags: u8,
        mut reader: Reader<'a>,
    ) -> Result<Publish<'a>, Fault> {
        let qos = Qos::of((flags >> 1) & 0x03).ok_or(Fault::Malformed("a PUBLISH of QoS 3"))?;
        let dup = flags & 0x08 != 0;
        if dup && qos == Qos::AtMostOnce {
            return Err(Fault::Malformed(
                "a PUBLISH of QoS 0 is marked as sent again",
            ));
        }
        let topic = reader.text()?;
        if topic.contains(['+', '#']) {
            return Err(Fault::TopicName);
        }
        let packet_id = match qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce | Qos::ExactlyOnce => reader.packet_id()?,
        };
        let properties = of_version(version, &mut reader, Owner::Publish)?;
        if topic.is_empty() && properties.topic_alias.is_none() {
            return match version {
                Version::V311 => Err(Fault::TopicName),
                Version::V5 => Err(Fault::Protocol("no topic, and no alias for one")),
            };
        }
        Ok(Publish {
            dup,
            qos,
            retain: flags & 0x01 != 0,
            topic,
            packet_id,
            properties,
            payload: reader.rest(),
        })
    }
}
