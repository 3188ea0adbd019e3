//! SUBSCRIBE and UNSUBSCRIBE (§3.8, §3.10).

use super::connect::of_version;
use super::fault::Fault;
use super::properties::{Owner, Properties};
use super::reader::Reader;
use super::words::{Qos, Version};

/// What a client wants to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Not 0.
    pub packet_id: u16,
    /// In 3.1.1 none.
    pub properties: Properties<'a>,
    /// One at least, in order.
    pub filters: Vec<Filter<'a>>,
}

/// One subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    /// Which topics, as it was written.
    pub filter: &'a str,
    /// The highest that is wanted.
    pub qos: Qos,
    /// Whether the client's own messages are left out.
    pub no_local: bool,
    /// Whether messages say that they were retained.
    pub retain_as_published: bool,
    /// Whether retained messages are wanted.
    pub retain_handling: RetainHandling,
}

/// When a subscription gives retained messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// Always.
    Always,
    /// If it was not there before.
    IfNew,
    /// Never.
    Never,
}

/// What a client wants no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Not 0.
    pub packet_id: u16,
    /// One at least, in order.
    pub filters: Vec<&'a str>,
}

const NO_FILTER: Fault = Fault::Protocol("no topic filter");

impl<'a> Subscribe<'a> {
    pub(super) fn read(version: Version, mut reader: Reader<'a>) -> Result<Subscribe<'a>, Fault> {
        let packet_id = reader.packet_id()?;
        let properties = of_version(version, &mut reader, Owner::Subscribe)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            let filter = reader.text()?;
            filters.push(Filter::of(version, filter, reader.byte()?)?);
        }
        match filters.is_empty() {
            true => Err(NO_FILTER),
            false => Ok(Subscribe {
                packet_id,
                properties,
                filters,
            }),
        }
    }
}

impl<'a> Filter<'a> {
    fn of(version: Version, filter: &'a str, options: u8) -> Result<Filter<'a>, Fault> {
        let reserved = match version {
            Version::V311 => 0xfc,
            Version::V5 => 0xc0,
        };
        if options & reserved != 0 {
            return Err(Fault::Malformed("reserved bits of a subscription are set"));
        }
        let qos = Qos::of(options & 0x03);
        Ok(Filter {
            filter,
            qos: qos.ok_or(Fault::Malformed("a subscription of QoS 3"))?,
            no_local: options & 0x04 != 0,
            retain_as_published: options & 0x08 != 0,
            retain_handling: match (options >> 4) & 0x03 {
                0 => RetainHandling::Always,
                1 => RetainHandling::IfNew,
                2 => RetainHandling::Never,
                _ => return Err(Fault::Protocol("a retain handling of 3")),
            },
        })
    }
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn read(version: Version, mut reader: Reader<'a>) -> Result<Unsubscribe<'a>, Fault> {
        let packet_id = reader.packet_id()?;
        of_version(version, &mut reader, Owner::Unsubscribe)?;
        let mut filters = Vec::new();
        while !reader.is_empty() {
            filters.push(reader.text()?);
        }
        match filters.is_empty() {
            true => Err(NO_FILTER),
            false => Ok(Unsubscribe { packet_id, filters }),
        }
    }
}
