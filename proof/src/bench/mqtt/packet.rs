//! MQTT 3.1.1's packets as bytes: those that a client sends, and what it has to see of those that it gets.

use anyhow::{Result, ensure};

/// CONNACK.
pub const CONNACK: u8 = 0x20;
/// PUBLISH, with its flags as zeros.
pub const PUBLISH: u8 = 0x30;
/// PUBACK.
pub const PUBACK: u8 = 0x40;
/// PUBREC.
pub const PUBREC: u8 = 0x50;
/// PUBREL, with the flags that it must have.
pub const PUBREL: u8 = 0x62;
/// PUBCOMP.
pub const PUBCOMP: u8 = 0x70;
/// SUBACK.
pub const SUBACK: u8 = 0x90;
/// A whole DISCONNECT.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// One packet: its first byte, and what stands behind its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Kind and flags.
    pub first: u8,
    /// The rest.
    pub body: &'a [u8],
}

/// What a PUBLISH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Its topic.
    pub topic: &'a [u8],
    /// Its identifier; 0 where its QoS is 0.
    pub id: u16,
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Which packet it is: its first byte without the flags.
    pub fn kind(&self) -> u8 {
        self.first & 0xF0
    }

    /// The identifier that an acknowledgement begins with.
    pub fn id(&self) -> Result<u16> {
        ensure!(
            self.body.len() >= 2,
            "packet {:#x} is too short",
            self.first
        );
        Ok(u16::from_be_bytes([self.body[0], self.body[1]]))
    }

    /// What it says as a PUBLISH.
    pub fn publish(&self) -> Result<Publish<'a>> {
        ensure!(
            self.kind() == PUBLISH,
            "packet {:#x} is no PUBLISH",
            self.first
        );
        let topic_end = 2 + usize::from(self.id()?);
        let has_id = self.first & 0x06 != 0;
        let payload_at = topic_end + if has_id { 2 } else { 0 };
        ensure!(self.body.len() >= payload_at, "a PUBLISH is too short");
        let id = match has_id {
            true => u16::from_be_bytes([self.body[topic_end], self.body[topic_end + 1]]),
            false => 0,
        };
        Ok(Publish {
            topic: &self.body[2..topic_end],
            id,
            payload: &self.body[payload_at..],
        })
    }
}

/// The first packet of these bytes and its length; None if it has not come whole.
pub fn split(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>> {
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let Some(byte) = bytes.get(at) else {
            return Ok(None);
        };
        ensure!(at <= 4, "the length of a packet has more than 4 bytes");
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(bytes.get(at..at + length).map(|body| {
        let first = bytes[0];
        (Packet { first, body }, at + length)
    }))
}

/// A CONNECT without a keep alive.
pub fn connect(client_id: &str, is_clean: bool) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([4, if is_clean { 2 } else { 0 }, 0, 0]);
    body.extend(text(client_id));
    packet(0x10, &body)
}

/// A SUBSCRIBE with one filter.
pub fn subscribe(id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(text(filter));
    body.push(qos);
    packet(0x82, &body)
}

/// An acknowledgement of this kind.
pub fn ack(kind: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [kind, 2, high, low]
}

/// A PUBLISH that is made once and sent many times, with another identifier and another beginning of its payload.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    id_at: Option<usize>,
    payload_at: usize,
}

impl Template {
    /// Of this topic, with a payload of so many bytes.
    pub fn new(qos: u8, topic: &str, payload_bytes: usize) -> Template {
        let mut body = text(topic);
        if qos > 0 {
            body.extend([0, 0]);
        }
        let payload_in_body = body.len();
        body.extend((0..payload_bytes).map(|index| b'a' + (index % 26) as u8));
        let bytes = packet(PUBLISH | qos << 1, &body);
        let payload_at = bytes.len() - body.len() + payload_in_body;
        Template {
            id_at: (qos > 0).then_some(payload_at - 2),
            bytes,
            payload_at,
        }
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>, id: u16, begins_with: &[u8]) {
        let at = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(id_at) = self.id_at {
            out[at + id_at..at + id_at + 2].copy_from_slice(&id.to_be_bytes());
        }
        let payload = at + self.payload_at;
        out[payload..payload + begins_with.len()].copy_from_slice(begins_with);
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        packet.push((length & 0x7F) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn text(text: &str) -> Vec<u8> {
    let length = text.len() as u16;
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_standard() {
        let connect = connect("ab", true);
        assert_eq!(connect, *b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02ab");
        assert_eq!(subscribe(3, "a/#", 1), *b"\x82\x08\0\x03\0\x03a/#\x01");
        assert_eq!(ack(PUBREL, 0x0102), [0x62, 2, 1, 2]);
    }

    #[test]
    fn a_template_is_the_same_message_with_another_identifier() {
        for (qos, payload_bytes) in [(0, 10), (1, 100), (1, 200), (2, 20_000)] {
            let template = Template::new(qos, "t/1", payload_bytes);
            let mut out = Vec::new();
            template.write(&mut out, 7, b"one");
            template.write(&mut out, 8, b"two");
            let mut rest = &out[..];
            for (id, begins_with) in [(7, b"one"), (8, b"two")] {
                let (packet, length) = split(rest).unwrap().unwrap();
                assert_eq!(packet.first, PUBLISH | qos << 1);
                let publish = packet.publish().unwrap();
                assert_eq!(publish.topic, b"t/1");
                assert_eq!(publish.id, if qos == 0 { 0 } else { id });
                assert!(publish.payload.starts_with(begins_with));
                assert_eq!(publish.payload.len(), payload_bytes);
                rest = &rest[length..];
            }
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_packet_is_given_when_it_has_come_whole() {
        let whole = packet(PUBLISH, &[0; 300]);
        for length in 0..whole.len() {
            assert_eq!(split(&whole[..length]).unwrap(), None, "{length} bytes");
        }
        assert_eq!(split(&whole).unwrap().unwrap().1, whole.len());
        assert!(split(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]).is_err());
    }

    #[test]
    fn what_is_too_short_is_refused() {
        let publish = |body| Packet { first: 0x32, body }.publish();
        assert!(publish(&[0]).is_err());
        assert!(publish(&[0, 1, b'a', 0]).is_err());
        assert!(publish(&[0, 1, b'a', 0, 1]).is_ok());
    }
}
