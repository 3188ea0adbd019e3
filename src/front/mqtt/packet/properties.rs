//! Properties (§2.2.2): read by what each packet may have, each once but for user properties; values outside their range are faults.

use super::fault::Fault;
use super::reader::Reader;

/// The numbers of properties.
pub(super) mod id {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE: u8 = 0x19;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const USER: u8 = 0x26;
    pub const PACKET_BYTES_MAX: u8 = 0x27;
}

/// What a client may say about a packet, a will or a publish. What was not said is None.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    /// Whether the payload is text.
    pub payload_format: Option<u8>,
    /// Seconds.
    pub message_expiry: Option<u32>,
    /// The payload's type.
    pub content_type: Option<&'a str>,
    /// Where an answer is to go.
    pub response_topic: Option<&'a str>,
    /// What an answer is to carry.
    pub correlation_data: Option<&'a [u8]>,
    /// What messages of a subscription are to carry.
    pub subscription_id: Option<u32>,
    /// Seconds that a session outlives its connection.
    pub session_expiry: Option<u32>,
    /// Of an authentication by more than a password.
    pub authentication_method: Option<&'a str>,
    /// What goes with it.
    pub authentication_data: Option<&'a [u8]>,
    /// Whether acks may have texts.
    pub request_problem: Option<bool>,
    /// Whether a topic for answers is asked for.
    pub request_response: Option<bool>,
    /// Seconds before a will is published.
    pub will_delay: Option<u32>,
    /// Why, in words.
    pub reason_string: Option<&'a str>,
    /// Publishes that may be without an ack.
    pub receive_maximum: Option<u16>,
    /// The highest topic alias that is understood.
    pub topic_alias_maximum: Option<u16>,
    /// A number for the topic.
    pub topic_alias: Option<u16>,
    /// The longest packet that is taken.
    pub packet_bytes_max: Option<u32>,
    /// Whatever else, in order.
    pub user: Vec<(&'a str, &'a str)>,
}

/// What properties belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// CONNECT.
    Connect,
    /// The will in a CONNECT.
    Will,
    /// PUBLISH.
    Publish,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack,
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// DISCONNECT from a client.
    Disconnect,
    /// AUTH.
    Auth,
}

impl Owner {
    /// Beside user properties, which all may have.
    fn may_have(self) -> &'static [u8] {
        use id::*;
        match self {
            Owner::Connect => &[
                SESSION_EXPIRY,
                AUTHENTICATION_METHOD,
                AUTHENTICATION_DATA,
                REQUEST_PROBLEM,
                REQUEST_RESPONSE,
                RECEIVE_MAXIMUM,
                TOPIC_ALIAS_MAXIMUM,
                PACKET_BYTES_MAX,
            ],
            Owner::Will => &[
                WILL_DELAY,
                PAYLOAD_FORMAT,
                MESSAGE_EXPIRY,
                CONTENT_TYPE,
                RESPONSE_TOPIC,
                CORRELATION_DATA,
            ],
            // Of a client's: a subscription identifier is the server's to send (§3.3.4).
            Owner::Publish => &[
                PAYLOAD_FORMAT,
                MESSAGE_EXPIRY,
                CONTENT_TYPE,
                RESPONSE_TOPIC,
                CORRELATION_DATA,
                TOPIC_ALIAS,
            ],
            Owner::Ack => &[REASON_STRING],
            Owner::Subscribe => &[SUBSCRIPTION_ID],
            Owner::Unsubscribe => &[],
            Owner::Disconnect => &[SESSION_EXPIRY, REASON_STRING],
            Owner::Auth => &[AUTHENTICATION_METHOD, AUTHENTICATION_DATA, REASON_STRING],
        }
    }
}

impl<'a> Properties<'a> {
    /// Reads the length and the properties of a packet.
    pub fn read(reader: &mut Reader<'a>, owner: Owner) -> Result<Properties<'a>, Fault> {
        let length = reader.variable()?;
        let length = usize::try_from(length).expect("28 bits are an index");
        let mut inside = Reader::new(reader.take(length)?);
        let mut properties = Properties::default();
        while !inside.is_empty() {
            let number = inside.variable()?;
            let number = u8::try_from(number).unwrap_or(0);
            if number == id::USER {
                let name = inside.text()?;
                properties.user.push((name, inside.text()?));
                continue;
            }
            if number == id::SUBSCRIPTION_ID && owner == Owner::Publish {
                return Err(Fault::Protocol("a subscription identifier from a client"));
            }
            if !owner.may_have().contains(&number) {
                return Err(Fault::Malformed("a property that the packet cannot have"));
            }
            properties.read_one(number, &mut inside)?;
        }
        Ok(properties)
    }

    fn read_one(&mut self, number: u8, from: &mut Reader<'a>) -> Result<(), Fault> {
        match number {
            id::PAYLOAD_FORMAT => {
                let is_text = flag(from.byte()?)?;
                once(&mut self.payload_format, u8::from(is_text))
            }
            id::MESSAGE_EXPIRY => once(&mut self.message_expiry, from.long()?),
            id::CONTENT_TYPE => once(&mut self.content_type, from.text()?),
            id::RESPONSE_TOPIC => {
                let topic = from.text()?;
                if topic.is_empty() || topic.contains(['+', '#']) {
                    return Err(Fault::Protocol("a response topic that is no topic's name"));
                }
                once(&mut self.response_topic, topic)
            }
            id::CORRELATION_DATA => once(&mut self.correlation_data, from.binary()?),
            id::SUBSCRIPTION_ID => {
                let number = not_0(from.variable()?, "a subscription identifier is 0")?;
                once(&mut self.subscription_id, number)
            }
            id::SESSION_EXPIRY => once(&mut self.session_expiry, from.long()?),
            id::AUTHENTICATION_METHOD => once(&mut self.authentication_method, from.text()?),
            id::AUTHENTICATION_DATA => once(&mut self.authentication_data, from.binary()?),
            id::REQUEST_PROBLEM => {
                let asks = flag(from.byte()?)?;
                once(&mut self.request_problem, asks)
            }
            id::REQUEST_RESPONSE => {
                let asks = flag(from.byte()?)?;
                once(&mut self.request_response, asks)
            }
            id::WILL_DELAY => once(&mut self.will_delay, from.long()?),
            id::REASON_STRING => once(&mut self.reason_string, from.text()?),
            id::RECEIVE_MAXIMUM => {
                let count = not_0(from.short()?, "a receive maximum is 0")?;
                once(&mut self.receive_maximum, count)
            }
            id::TOPIC_ALIAS_MAXIMUM => once(&mut self.topic_alias_maximum, from.short()?),
            id::TOPIC_ALIAS => match from.short()? {
                0 => Err(Fault::TopicAlias),
                alias => once(&mut self.topic_alias, alias),
            },
            id::PACKET_BYTES_MAX => {
                let bytes = not_0(from.long()?, "a maximum packet size is 0")?;
                once(&mut self.packet_bytes_max, bytes)
            }
            _ => Err(Fault::Malformed("a property that the packet cannot have")),
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Fault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::Protocol("a property comes twice")),
    }
}

fn flag(byte: u8) -> Result<bool, Fault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Fault::Protocol("a property is neither 0 nor 1")),
    }
}

fn not_0<T: Default + PartialEq>(value: T, otherwise: &'static str) -> Result<T, Fault> {
    match value == T::default() {
        true => Err(Fault::Protocol(otherwise)),
        false => Ok(value),
    }
}
