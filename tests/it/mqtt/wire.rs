//! MQTT by hand: packets as bytes, and a connection that sends and reads them. It shares no code with the server.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Long enough for a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A string as MQTT has it.
pub fn text(text: &str) -> Vec<u8> {
    binary(text.as_bytes())
}

pub fn binary(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("no longer than a string");
    [&length.to_be_bytes()[..], bytes].concat()
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        packet.push(byte | if length > 0 { 128 } else { 0 });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn properties(version: u8, properties: &[u8]) -> Vec<u8> {
    match version {
        4 => Vec::new(),
        _ => [&[u8::try_from(properties.len()).expect("few")], properties].concat(),
    }
}

/// A CONNECT.
pub struct Connect<'a> {
    pub version: u8,
    pub client_id: &'a str,
    pub clean: bool,
    pub keep_alive: u16,
    pub properties: &'a [u8],
    /// Topic, payload, and further flags.
    pub will: Option<(&'a str, &'a str, u8)>,
    pub will_properties: &'a [u8],
    pub login: Option<(&'a str, &'a str)>,
}

impl Connect<'_> {
    pub fn of(version: u8, client_id: &str) -> Connect<'_> {
        Connect {
            version,
            client_id,
            clean: true,
            keep_alive: 60,
            properties: &[],
            will: None,
            will_properties: &[],
            login: None,
        }
    }

    fn packet(&self) -> Vec<u8> {
        let mut flags = if self.clean { 2 } else { 0 };
        let mut payload = text(self.client_id);
        if let Some((topic, message, more)) = self.will {
            flags |= 4 | more;
            payload.extend(properties(self.version, self.will_properties));
            payload.extend([text(topic), text(message)].concat());
        }
        if let Some((user, password)) = self.login {
            flags |= 0xc0;
            payload.extend([text(user), text(password)].concat());
        }
        let mut body = text("MQTT");
        body.extend([self.version, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(properties(self.version, self.properties));
        body.extend(payload);
        packet(0x10, &body)
    }
}

/// What a connection goes through.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection.
pub struct Mqtt {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
    version: u8,
}

/// A message that came.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub packet_id: u16,
    pub retain: bool,
    pub dup: bool,
    /// As they are on the wire.
    pub properties: Vec<u8>,
}

impl Mqtt {
    /// A connection on which nothing was said.
    pub async fn open(address: &str) -> Mqtt {
        let stream = TcpStream::connect(address).await.expect("it listens");
        Mqtt::over(stream)
    }

    /// The same over any stream.
    pub fn over(stream: impl Duplex + 'static) -> Mqtt {
        Mqtt {
            stream: Box::new(stream),
            buffer: Vec::new(),
            version: 5,
        }
    }

    /// Connects; gives what was answered, which is nothing if the connection was closed.
    pub async fn try_connect(address: &str, connect: &Connect<'_>) -> (Mqtt, Option<Vec<u8>>) {
        let mut mqtt = Mqtt::open(address).await;
        let answer = mqtt.greet(connect).await;
        (mqtt, answer)
    }

    /// Connects on a connection on which nothing was said.
    pub async fn greet(&mut self, connect: &Connect<'_>) -> Option<Vec<u8>> {
        self.version = connect.version;
        self.send(&connect.packet()).await;
        let (first, body) = self.next().await?;
        assert_eq!(first, 0x20, "{body:?}");
        Some(body)
    }

    /// Connects as a client that is let in.
    pub async fn connect(address: &str, version: u8, client_id: &str) -> Mqtt {
        Mqtt::connect_as(address, &Connect::of(version, client_id)).await
    }

    pub async fn connect_as(address: &str, connect: &Connect<'_>) -> Mqtt {
        let (mqtt, answer) = Mqtt::try_connect(address, connect).await;
        assert_eq!(answer.expect("an answer")[..2], [0, 0]);
        mqtt
    }

    /// Sends bytes; it may be that nobody takes them any more.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The next packet: its first byte and its body. None at the end.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let next = timeout(PATIENCE, self.read()).await;
        next.expect("something comes")
    }

    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let mut length = 0;
            for index in 0..4.min(self.buffer.len().saturating_sub(1)) {
                let byte = self.buffer[index + 1];
                length |= usize::from(byte & 127) << (7 * index);
                if byte & 128 == 0 && self.buffer.len() >= index + 2 + length {
                    let packet: Vec<u8> = self.buffer.drain(..index + 2 + length).collect();
                    return Some((packet[0], packet[index + 2..].to_vec()));
                } else if byte & 128 == 0 {
                    break;
                }
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// A PUBLISH's bytes.
    pub fn publish_packet(
        &self,
        (qos, packet_id): (u8, u16),
        topic: &str,
        said: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let mut body = text(topic);
        if qos > 0 {
            body.extend(packet_id.to_be_bytes());
        }
        body.extend(properties(self.version, said));
        body.extend(payload);
        packet(0x30 | qos << 1, &body)
    }

    /// Publishes with QoS 1, and waits for the ack, whose code it gives.
    pub async fn publish(&mut self, packet_id: u16, topic: &str, payload: &[u8]) -> u8 {
        let publish = self.publish_packet((1, packet_id), topic, &[], payload);
        self.send(&publish).await;
        let (first, body) = self.next().await.expect("an ack");
        assert_eq!((first, &body[..2]), (0x40, &packet_id.to_be_bytes()[..]));
        body.get(2).copied().unwrap_or(0)
    }

    /// Subscribes; the codes of the SUBACK.
    pub async fn subscribe(&mut self, filters: &[(&str, u8)], said: &[u8]) -> Vec<u8> {
        self.send(&self.subscribe_packet(filters, said)).await;
        let (first, body) = self.next().await.expect("an answer");
        assert_eq!((first, &body[..2]), (0x90, &[0, 77][..]));
        body[if self.version == 5 { 3 } else { 2 }..].to_vec()
    }

    /// A SUBSCRIBE's bytes.
    pub fn subscribe_packet(&self, filters: &[(&str, u8)], said: &[u8]) -> Vec<u8> {
        let mut body = vec![0, 77];
        body.extend(properties(self.version, said));
        for (filter, options) in filters {
            body.extend(text(filter));
            body.push(*options);
        }
        packet(0x82, &body)
    }

    /// The next packet is a message.
    pub async fn message(&mut self) -> Message {
        let next = self.packet_or_message().await;
        next.expect("a message")
    }

    /// The next packet, read if it is a message.
    pub async fn packet_or_message(&mut self) -> Result<Message, (u8, Vec<u8>)> {
        let (first, body) = self.next().await.expect("a packet");
        if first & 0xf0 != 0x30 {
            return Err((first, body));
        }
        let qos = (first >> 1) & 3;
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + length].to_vec()).expect("text");
        let mut rest = &body[2 + length..];
        let mut packet_id = 0;
        if qos > 0 {
            packet_id = u16::from_be_bytes([rest[0], rest[1]]);
            rest = &rest[2..];
        }
        let mut properties = Vec::new();
        if self.version == 5 {
            let length = usize::from(rest[0]);
            assert!(length < 128, "few properties");
            properties = rest[1..1 + length].to_vec();
            rest = &rest[1 + length..];
        }
        Ok(Message {
            topic,
            payload: rest.to_vec(),
            qos,
            packet_id,
            retain: first & 1 == 1,
            dup: first & 8 == 8,
            properties,
        })
    }

    /// Acknowledges: PUBACK, PUBREC, PUBREL or PUBCOMP by their first bytes.
    pub async fn ack(&mut self, first: u8, packet_id: u16) {
        self.send(&packet(first, &packet_id.to_be_bytes())).await;
    }

    /// Whether the server still answers, with nothing before it.
    pub async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        assert_eq!(self.next().await, Some((0xd0, Vec::new())));
    }

    /// The code of the DISCONNECT that comes next, behind whatever acks; None if the connection is closed without one.
    pub async fn ended(&mut self) -> Option<u8> {
        loop {
            match self.next().await {
                None => return None,
                Some((0xe0, body)) => {
                    assert_eq!(self.next().await, None, "nothing behind the end");
                    return body.first().copied();
                }
                Some((0x40 | 0x50 | 0x70 | 0x90, _)) => {}
                Some(other) => panic!("{other:?}"),
            }
        }
    }
}
