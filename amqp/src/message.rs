//! Messages (part 3, 3.2): the sections that a delivery's payload consists of.
//! Callers: fronts. What is found borrows from the payload, so that sections can be kept as they are encoded.

use bytes::BytesMut;

use crate::composite::composite;
use crate::field::Timestamp;
use crate::reader::{DecodeError, split};
use crate::{Composite, List, Map, Symbol, Value, writer};

composite! {
    /// What the way of a message is about.
    Header = 0x70 "amqp:header:list" {
        /// Whether it is to survive.
        durable: bool = false,
        /// 0 to 9, and more.
        priority: u8 = 4,
        /// Milliseconds that it is of use.
        ttl: Option<u32>,
        /// Whether it was never acquired before.
        first_acquirer: bool = false,
        /// Deliveries before that failed.
        delivery_count: u32 = 0,
    }
    /// What a message says about itself.
    Properties<'a> = 0x73 "amqp:properties:list" {
        /// Its name: ulong, uuid, binary or string.
        message_id: Option<Value<'a>>,
        /// Of whom it is.
        user_id: Option<&'a [u8]>,
        /// The node that it goes to.
        to: Option<Value<'a>>,
        /// What it is about.
        subject: Option<&'a str>,
        /// The node that answers go to.
        reply_to: Option<Value<'a>>,
        /// What it belongs to.
        correlation_id: Option<Value<'a>>,
        /// What its data is.
        content_type: Option<Symbol<'a>>,
        /// How that is encoded.
        content_encoding: Option<Symbol<'a>>,
        /// Until when it is of use.
        absolute_expiry_time: Option<Timestamp>,
        /// When it was made.
        creation_time: Option<Timestamp>,
        /// The group that it is of.
        group_id: Option<&'a str>,
        /// Its place there.
        group_sequence: Option<u32>,
        /// The group that answers are of.
        reply_to_group_id: Option<&'a str>,
    }
}

impl Header {
    /// One that says nothing.
    pub const NONE: Header = Header {
        durable: false,
        priority: 4,
        ttl: None,
        first_acquirer: false,
        delivery_count: 0,
    };
}

impl Properties<'_> {
    /// Those that say nothing.
    pub const NONE: Properties<'static> = Properties {
        message_id: None,
        user_id: None,
        to: None,
        subject: None,
        reply_to: None,
        correlation_id: None,
        content_type: None,
        content_encoding: None,
        absolute_expiry_time: None,
        creation_time: None,
        group_id: None,
        group_sequence: None,
        reply_to_group_id: None,
    };
}

/// A kind of section; the order is that in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names of the standard")]
pub enum SectionKind {
    Header,
    DeliveryAnnotations,
    MessageAnnotations,
    Properties,
    ApplicationProperties,
    Data,
    Sequence,
    Value,
    Footer,
}

impl SectionKind {
    /// All of them, in order.
    pub const ALL: [SectionKind; 9] = [
        SectionKind::Header,
        SectionKind::DeliveryAnnotations,
        SectionKind::MessageAnnotations,
        SectionKind::Properties,
        SectionKind::ApplicationProperties,
        SectionKind::Data,
        SectionKind::Sequence,
        SectionKind::Value,
        SectionKind::Footer,
    ];

    /// Its descriptor as a number.
    pub fn code(self) -> u64 {
        0x70 + self as u64
    }

    /// Its descriptor as a symbol.
    pub fn symbol(self) -> &'static str {
        match self {
            SectionKind::Header => Header::SYMBOL,
            SectionKind::DeliveryAnnotations => "amqp:delivery-annotations:map",
            SectionKind::MessageAnnotations => "amqp:message-annotations:map",
            SectionKind::Properties => Properties::SYMBOL,
            SectionKind::ApplicationProperties => "amqp:application-properties:map",
            SectionKind::Data => "amqp:data:binary",
            SectionKind::Sequence => "amqp:amqp-sequence:list",
            SectionKind::Value => "amqp:amqp-value:*",
            SectionKind::Footer => "amqp:footer:map",
        }
    }

    fn of(descriptor: &Value<'_>) -> Option<SectionKind> {
        SectionKind::ALL.into_iter().find(|kind| match descriptor {
            Value::Ulong(code) => *code == kind.code(),
            Value::Symbol(symbol) => *symbol == kind.symbol(),
            _ => false,
        })
    }

    fn is_body(self) -> bool {
        matches!(
            self,
            SectionKind::Data | SectionKind::Sequence | SectionKind::Value
        )
    }
}

/// A section.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Section<'a> {
    /// Which.
    pub kind: SectionKind,
    /// As it is encoded, with its descriptor.
    pub encoded: &'a [u8],
    /// What is in it.
    pub value: Value<'a>,
}

/// The body of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Body<'a> {
    /// There is none. The standard wants one; some send none all the same.
    #[default]
    None,
    /// Data, in how many sections, of which this is the first.
    Data(usize, &'a [u8]),
    /// Lists, in how many sections, of which this is the first.
    Sequence(usize, List<'a>),
    /// A value.
    Value(Value<'a>),
}

/// A message. Sections that are there are given with their encoded bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Message<'a> {
    /// What its way is about.
    pub header: Option<Header>,
    /// For this delivery only.
    pub delivery_annotations: Option<Map<'a>>,
    /// For whoever it comes to.
    pub message_annotations: Option<(Map<'a>, &'a [u8])>,
    /// What it says of itself.
    pub properties: Option<(Properties<'a>, &'a [u8])>,
    /// What the application says of it.
    pub application_properties: Option<(Map<'a>, &'a [u8])>,
    /// Its body.
    pub body: Body<'a>,
    /// The body's sections as encoded.
    pub body_encoded: &'a [u8],
    /// What stands behind the body.
    pub footer: Option<(Map<'a>, &'a [u8])>,
}

impl<'a> Message<'a> {
    /// Takes a payload apart: sections in their order, none twice but data and sequences, and one kind of body.
    pub fn of(payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let mut message = Message::default();
        let mut rest = payload;
        let mut before: Option<SectionKind> = None;
        while !rest.is_empty() {
            let section;
            (section, rest) = split_section(rest)?;
            let repeats = matches!(section.kind, SectionKind::Data | SectionKind::Sequence);
            let in_order = before.is_none_or(|before| match before == section.kind {
                true => repeats,
                false => before < section.kind && !(before.is_body() && section.kind.is_body()),
            });
            if !in_order {
                return Err(DecodeError::Type("a section in its order"));
            }
            if section.kind.is_body() {
                let start = payload.len() - rest.len() - section.encoded.len();
                let start = start - message.body_encoded.len();
                message.body_encoded = &payload[start..payload.len() - rest.len()];
            }
            message.add(section)?;
            before = Some(section.kind);
        }
        Ok(message)
    }

    fn add(&mut self, section: Section<'a>) -> Result<(), DecodeError> {
        let Section {
            kind,
            encoded,
            value,
        } = section;
        match (kind, value) {
            (SectionKind::Header, Value::List(fields)) => {
                self.header = Some(Header::of_fields(fields)?);
            }
            (SectionKind::DeliveryAnnotations, Value::Map(map)) => {
                self.delivery_annotations = Some(map);
            }
            (SectionKind::MessageAnnotations, Value::Map(map)) => {
                self.message_annotations = Some((map, encoded));
            }
            (SectionKind::Properties, Value::List(fields)) => {
                self.properties = Some((Properties::of_fields(fields)?, encoded));
            }
            (SectionKind::ApplicationProperties, Value::Map(map)) => {
                self.application_properties = Some((map, encoded));
            }
            (SectionKind::Data, Value::Binary(data)) => {
                self.body = match self.body {
                    Body::Data(count, first) => Body::Data(count + 1, first),
                    _ => Body::Data(1, data),
                };
            }
            (SectionKind::Sequence, Value::List(list)) => {
                self.body = match self.body {
                    Body::Sequence(count, first) => Body::Sequence(count + 1, first),
                    _ => Body::Sequence(1, list),
                };
            }
            (SectionKind::Value, value) => self.body = Body::Value(value),
            (SectionKind::Footer, Value::Map(map)) => self.footer = Some((map, encoded)),
            (kind, _) => return Err(DecodeError::Type(kind.symbol())),
        }
        Ok(())
    }
}

/// Decodes the first section of a payload, and gives the bytes behind it.
pub fn split_section(payload: &[u8]) -> Result<(Section<'_>, &[u8]), DecodeError> {
    const NONE: DecodeError = DecodeError::Type("a section");
    let (value, rest) = split(payload)?;
    let Value::Described(it) = value else {
        return Err(NONE);
    };
    let section = Section {
        kind: SectionKind::of(&it.descriptor()).ok_or(NONE)?,
        encoded: &payload[..payload.len() - rest.len()],
        value: it.value(),
    };
    Ok((section, rest))
}

/// Writes a section.
pub fn put_section(out: &mut BytesMut, kind: SectionKind, value: &Value<'_>) {
    writer::put_descriptor(out, kind.code());
    writer::put_value(out, value);
}
