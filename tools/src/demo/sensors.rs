//! Devices of the demonstration that speak MQTT: 3.1.1, QoS 2, with sessions that outlive their connections, so that each of their
//! readings is one record, whatever happens between. A reading is in the ledger before it is sent, and its PUBREC is its ack.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BytesMut};
use model::{PartitionId, Timestamp, TopicName, TopicPartition, partition_of_key};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fleet::Recording;
use super::ledger::{Entry, Hash, Ledger, hash_of};
use super::stream::Player;

/// Where the broker stores what clients of MQTT publish, and in how many partitions.
pub(super) const TOPIC: &str = "mqtt";
pub(super) const PARTITIONS: i32 = 16;
/// How many such devices there are.
pub(super) const COUNT: u32 = 4;
/// They play each so manieth reading of a recording.
const EVERY: usize = 10;

/// Readings of a device that are on their way; the broker takes 64.
const IN_FLIGHT_MAX: usize = 32;
/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(10);
/// How long a broker may be away, and how soon it is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(20);

const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const DUP: u8 = 0x08;

/// The hash of a record of theirs: its time is the broker's.
pub(super) fn hash(topic: Option<&[u8]>, value: Option<&[u8]>) -> Hash {
    hash_of(topic, Timestamp::from_millis(0), value)
}

/// A part of a recording.
pub(super) fn sparse(recording: &Recording) -> Recording {
    Recording {
        readings: recording.readings.iter().step_by(EVERY).cloned().collect(),
        ..*recording
    }
}

/// A reading that is on its way.
struct Sending {
    id: u16,
    packet: Vec<u8>,
    entry: Entry,
    /// The broker has it, and is only to forget its identifier.
    is_stored: bool,
}

/// A device that plays a recording.
pub(super) struct Sensor {
    address: String,
    player: Player,
    ledger: Arc<Ledger>,
    topic: String,
    partition: TopicPartition,
    sending: VecDeque<Sending>,
    last_id: u16,
}

/// A connection, and what came on it.
struct Connection {
    stream: TcpStream,
    came: BytesMut,
}

impl Sensor {
    pub(super) fn new(address: &str, player: Player, ledger: &Arc<Ledger>) -> Result<Sensor> {
        let topic = format!("site/{}/temperature", player.name);
        let partition = partition_of_key(topic.as_bytes(), PARTITIONS.unsigned_abs());
        Ok(Sensor {
            address: address.to_owned(),
            partition: TopicPartition::new(TopicName::parse(TOPIC)?, PartitionId::new(partition)),
            topic,
            player,
            ledger: ledger.clone(),
            sending: VecDeque::new(),
            last_id: 0,
        })
    }

    /// Plays the recording to its end: until the broker has all of it, and knows that we know.
    pub(super) async fn play(mut self) -> Result<()> {
        let device = self.ledger.device(&self.player.name);
        let recording = self.player.recording.clone();
        let (begun, mut played) = (Instant::now(), 0);
        let mut connection = self.connect(false).await?;
        let mut tick = tokio::time::interval(TICK);
        while played < recording.readings.len() || !self.sending.is_empty() {
            let due = self.player.due(begun.elapsed());
            let mut out = Vec::new();
            while played < due && self.sending.len() < IN_FLIGHT_MAX {
                let reading = &recording.readings[played];
                let hash = hash(Some(self.topic.as_bytes()), Some(&reading.json));
                let entry = self.ledger.sent(device, reading.at, hash);
                out.extend(self.publish(&reading.json, entry));
                played += 1;
            }
            let went = async {
                connection.send(&out).await?;
                let came = tokio::select! {
                    came = connection.next() => came?,
                    _ = tick.tick() => return Ok(()),
                };
                let (kind, id) = came;
                let answer = self.take(kind, id).unwrap_or_default();
                connection.send(&answer).await
            };
            if went.await.is_err() {
                connection = self.connect(true).await?;
            }
        }
        connection.send(&[0xe0, 0]).await
    }

    /// A PUBLISH, which is on its way from here on.
    fn publish(&mut self, payload: &[u8], entry: Entry) -> Vec<u8> {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let mut body = text(&self.topic);
        body.extend(self.last_id.to_be_bytes());
        body.extend(payload);
        let packet = packet(0x34, &body);
        self.sending.push_back(Sending {
            id: self.last_id,
            packet: packet.clone(),
            entry,
            is_stored: false,
        });
        packet
    }

    /// Takes what the broker says of a reading; gives what is answered.
    fn take(&mut self, kind: u8, id: u16) -> Option<Vec<u8>> {
        let at = self.sending.iter().position(|it| it.id == id)?;
        match kind {
            PUBREC => {
                let sending = &mut self.sending[at];
                if !std::mem::replace(&mut sending.is_stored, true) {
                    // Where it is the protocol does not say.
                    self.ledger
                        .acked(sending.entry, self.partition.clone(), None);
                }
                Some(released(id))
            }
            PUBCOMP => {
                self.sending.remove(at);
                None
            }
            _ => None,
        }
    }

    /// Connects, and sends again what was on its way.
    async fn connect(&self, again: bool) -> Result<Connection> {
        let begun = Instant::now();
        loop {
            match self.try_connect(again).await {
                Ok(connection) => return Ok(connection),
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn try_connect(&self, again: bool) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address)
            .await
            .context("connect by MQTT")?;
        let mut connection = Connection {
            stream,
            came: BytesMut::new(),
        };
        let mut body = text("MQTT");
        // 3.1.1, a session that is kept, a minute of keep alive.
        body.extend([4, 0, 0, 60]);
        body.extend(text(&self.player.name));
        connection.send(&packet(0x10, &body)).await?;
        let (kind, answer) = connection.next().await?;
        ensure!(
            kind == 0x20 && answer & 0xff == 0,
            "the broker does not let a device in: {kind:#x} {answer:#x}"
        );
        let is_there = answer >> 8 == 1;
        ensure!(is_there || !again, "a device's session is gone");
        let mut out = Vec::new();
        for it in &self.sending {
            if it.is_stored {
                out.extend(released(it.id));
            } else {
                out.push(it.packet[0] | DUP);
                out.extend(&it.packet[1..]);
            }
        }
        connection.send(&out).await?;
        Ok(connection)
    }
}

impl Connection {
    async fn send(&mut self, out: &[u8]) -> Result<()> {
        let written = self.stream.write_all(out).await;
        written.context("send by MQTT")
    }

    /// The next packet from the broker, which all have two bytes in their bodies. What is given up loses nothing.
    async fn next(&mut self) -> Result<(u8, u16)> {
        while self.came.len() < 4 {
            let count = self.stream.read_buf(&mut self.came).await;
            if count.context("read by MQTT")? == 0 {
                bail!("the broker is gone");
            }
        }
        let (kind, length) = (self.came.get_u8(), self.came.get_u8());
        ensure!(length == 2, "a packet that was not asked for: {kind:#x}");
        Ok((kind, self.came.get_u16()))
    }
}

fn released(id: u16) -> Vec<u8> {
    packet(PUBREL, &id.to_be_bytes())
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("names are short");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).expect("less than 128");
        length /= 128;
        packet.push(byte | if length > 0 { 0x80 } else { 0 });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::{packet, text};

    #[test]
    fn a_packet_has_its_length_before_its_body() {
        assert_eq!(packet(0x10, &text("a")), [0x10, 3, 0, 1, b'a']);
        assert_eq!(packet(0x34, &[0; 321])[..3], [0x34, 0xc1, 0x02]);
    }
}
