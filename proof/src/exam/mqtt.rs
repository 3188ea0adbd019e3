//! The MQTT door of a load: devices that publish at QoS 1 and 2, and a subscriber, beside the clients of the Kafka protocol. What
//! they were promised is judged after each crash by what the topic `mqtt` shows to a consumer of the Kafka protocol, and what a
//! subscriber gets by that.
//! Callers: the crash cases, those of disks that fail or are full; those of hostile clients, for what such a client says. It outlives the broker, as `load` does; each begin is new connections with new sessions.
//!
//! M1 an acknowledged message (PUBACK, PUBREC) is a record, once, with its topic as the key. M2 a device's messages stand in the
//! order in which it published them, and acks come in that order. M3 nothing is there that no device published. M4 an offset
//! never shows two messages over time. M5 what a subscriber was given is a record, in order, and once in a connection.
//! M6 `$replay/earliest/…` gives all records, in order. K1 and K2 are about a kept session (`kept`).

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use model::partition_of_key;

use super::judge::{Seen, Shown};
use super::kept::Kept;
use super::ledger::{Digest, digest_of, id_of};
use super::load::{Judgement, Running, held};
use super::probe::Probe;
use super::random::Random;

/// The topic that messages become records of, with this many partitions.
pub const TOPIC: &str = "mqtt";
/// See there.
pub const PARTITIONS: i32 = 16;
/// Devices; every second one publishes at QoS 2.
const DEVICES: usize = 4;
/// The thread behind those of the devices and of the subscriber.
const KEPT: usize = DEVICES + 1;
/// The most messages that a device publishes without waiting for acks.
const WINDOW_MAX: u64 = 8;
const VALUE_BYTES_MAX: u64 = 300;
const PAUSE: Duration = Duration::from_millis(2);
/// How long an answer may take, and a replay.
pub const PATIENCE: Duration = Duration::from_secs(30);

const CONNACK: u8 = 0x20;
/// First bytes of packets.
pub const PUBACK: u8 = 0x40;
/// See there.
pub const PUBREC: u8 = 0x50;
/// See there.
pub const PUBREL: u8 = 0x62;
/// See there.
pub const PUBCOMP: u8 = 0x70;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xd0;

/// The load over MQTT and its memory.
pub struct MqttLoad {
    messages: Mutex<Vec<Message>>,
    shown: Shown,
    /// What subscribers were given, connection by connection.
    given: Mutex<Vec<Vec<u64>>>,
    kept: Option<Kept>,
    devices: Vec<Mutex<Random>>,
    failures: Mutex<Vec<String>>,
    /// Set while the broker is being hurt.
    hurt: AtomicBool,
}

/// A message; its id is its place among all.
struct Message {
    device: usize,
    digest: Digest,
    acknowledged: bool,
}

impl MqttLoad {
    /// A load that has not begun.
    pub fn new(seed: u64) -> Arc<MqttLoad> {
        MqttLoad::of(seed, Some(Kept::default()))
    }

    /// One without a kept session: what such a one writes is always synced, and would take the records before it along.
    pub fn without_sessions(seed: u64) -> Arc<MqttLoad> {
        MqttLoad::of(seed, None)
    }

    fn of(seed: u64, kept: Option<Kept>) -> Arc<MqttLoad> {
        let devices =
            (0..DEVICES as u64).map(|index| Mutex::new(Random::new(seed ^ (index << 32))));
        Arc::new(MqttLoad {
            messages: Mutex::default(),
            shown: Shown::default(),
            given: Mutex::default(),
            kept,
            devices: devices.collect(),
            failures: Mutex::default(),
            hurt: AtomicBool::new(false),
        })
    }

    /// Begins to load the broker that speaks MQTT at `address`. Threads end when they are told to, or when the broker goes away.
    pub fn begin(self: &Arc<MqttLoad>, address: &str) -> Result<Running> {
        self.hurt.store(false, Ordering::SeqCst);
        if let Some(kept) = &self.kept {
            kept.subscribe(address)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for index in 0..DEVICES + 2 {
            let (load, stop, address) = (self.clone(), stop.clone(), address.to_owned());
            threads.push(std::thread::spawn(move || {
                let ended = match index {
                    DEVICES => load.subscribe(&address, &stop),
                    KEPT => match &load.kept {
                        Some(kept) => kept.follow(&address, &stop),
                        None => Ok(()),
                    },
                    device => load.publish(device, &address, &stop),
                };
                if let (Err(error), false) = (ended, load.hurt.load(Ordering::SeqCst)) {
                    load.fail(format!("a client of MQTT gave up: {error:#}"));
                }
            }));
        }
        Ok(Running::new(stop, threads))
    }

    /// The fault begins: from here until the next begin the end of a connection is no fault of the broker's.
    pub fn fault_begins(&self) {
        self.hurt.store(true, Ordering::SeqCst);
    }

    fn publish(&self, device: usize, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut random = held(&self.devices[device]);
        let mut connection = Connection::open(address, &format!("device-{device}"))?;
        while !stop.load(Ordering::Relaxed) {
            let count = random.between(1, WINDOW_MAX + 1);
            let sent: Vec<(u64, Vec<u8>)> = (0..count)
                .map(|_| {
                    let value_bytes = random.between(16, VALUE_BYTES_MAX);
                    self.write_down(
                        device,
                        usize::try_from(value_bytes).unwrap_or(16),
                        &mut random,
                    )
                })
                .collect();
            for (packet_id, (_, value)) in (1..).zip(&sent) {
                connection.send(&publish(&name_of(device), qos_of(device), packet_id, value))?;
            }
            let first = if qos_of(device) == 1 { PUBACK } else { PUBREC };
            for (packet_id, (id, _)) in (1..).zip(&sent) {
                self.take(&mut connection, first, packet_id)?;
                held(&self.messages)[usize::try_from(*id)?].acknowledged = true;
            }
            if qos_of(device) == 2 {
                for packet_id in 1..=u16::try_from(count)? {
                    connection.send(&packet(PUBREL, &packet_id.to_be_bytes()))?;
                }
                for packet_id in 1..=u16::try_from(count)? {
                    self.take(&mut connection, PUBCOMP, packet_id)?;
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Writes a new message down before it is sent.
    fn write_down(&self, device: usize, value_bytes: usize, random: &mut Random) -> (u64, Vec<u8>) {
        let mut messages = held(&self.messages);
        let id = messages.len() as u64;
        let mut value = format!("{id:016x}").into_bytes();
        value.resize(value_bytes.max(16), 0);
        random.fill(&mut value[16..]);
        messages.push(Message {
            device,
            digest: digest_of(name_of(device).as_bytes(), &value),
            acknowledged: false,
        });
        (id, value)
    }

    /// The next packet is this ack; M2.
    fn take(&self, connection: &mut Connection, first: u8, packet_id: u16) -> Result<()> {
        let (got, body) = connection.next()?;
        if got != first || body != packet_id.to_be_bytes() {
            self.fail(format!(
                "M2 the ack {first:#x} of {packet_id} was to come, and {got:#x} {body:?} came"
            ));
            bail!("an ack that was not to come");
        }
        Ok(())
    }

    /// One message of `value_bytes` on a connection of its own. Whether it was acknowledged; an error if nobody speaks MQTT.
    pub fn publish_one(&self, address: &str, value_bytes: usize) -> Result<bool> {
        let mut random = held(&self.devices[0]);
        let mut connection = Connection::open(address, "device-0")?;
        let (id, value) = self.write_down(0, value_bytes, &mut random);
        connection.send(&publish(&name_of(0), 1, 1, &value))?;
        match connection.next() {
            Ok((PUBACK, _)) => {
                held(&self.messages)[usize::try_from(id)?].acknowledged = true;
                Ok(true)
            }
            Ok((first, body)) => bail!("a PUBLISH was answered with {first:#x} {body:?}"),
            // The connection ended. Silence is no answer.
            Err(error) if is_silence(&error) => Err(error.context("a PUBLISH has no answer")),
            Err(_) => Ok(false),
        }
    }

    fn subscribe(&self, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut connection = Connection::open(address, "subscriber")?;
        connection.subscribe("exam/#", 1)?;
        let mut given = Vec::new();
        let ended = loop {
            // A message comes all the time, as long as devices publish: the stop is seen in time.
            if stop.load(Ordering::Relaxed) {
                break Ok(());
            }
            match connection.message() {
                Ok(id) => given.push(id),
                Err(error) => break Err(error),
            }
        };
        held(&self.given).push(given);
        ended
    }

    fn fail(&self, failure: String) {
        let mut failures = held(&self.failures);
        if failures.len() < 20 {
            failures.push(failure);
        }
    }

    /// Judges everything that the broker shows now, by the Kafka protocol at `kafka` and, if `replays`, by MQTT at `address`.
    /// The load must not run.
    pub fn judge(&self, kafka: &str, address: &str, replays: bool) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let records = self.records(kafka, &mut judgement)?;
        let messages = held(&self.messages);
        let mut found = HashSet::new();
        for (device, ids) in records.iter().enumerate() {
            let again = ids.iter().filter(|id| !found.insert(**id)).count();
            if again > 0 {
                let failure = format!("M1 {}: {again} messages stand there twice", name_of(device));
                judgement.failures.push(failure);
            }
            if let Some(pair) = ids.windows(2).find(|pair| pair[1] <= pair[0]) {
                let failure = format!("M2 {}: {} follows {}", name_of(device), pair[1], pair[0]);
                judgement.failures.push(failure);
            }
        }
        for (id, message) in (0..).zip(messages.iter()) {
            judgement.checked += u64::from(message.acknowledged);
            if message.acknowledged && !found.contains(&id) {
                judgement.lost += 1;
                if judgement.lost <= 3 {
                    let name = name_of(message.device);
                    let failure =
                        format!("M1 {name}: message {id} was acknowledged and is not there");
                    judgement.failures.push(failure);
                }
            }
        }
        for given in held(&self.given).drain(..) {
            let order = by_device(&given, &messages);
            let unknown = given.iter().filter(|id| !found.contains(id)).count();
            let rises = order.iter().all(|ids| ids.is_sorted_by(|a, b| a < b));
            if unknown > 0 || !rises {
                judgement.failures.push(format!(
                    "M5 of {} messages that a subscriber was given {unknown} are not there; in order and once: {rises}",
                    given.len()
                ));
            }
        }
        if replays {
            let given = replayed(address, found.len())?;
            if by_device(&given, &messages) != records {
                judgement.failures.push(format!(
                    "M6 a replay of {} records gave {} messages, or others",
                    found.len(),
                    given.len()
                ));
            }
        }
        let kept = self.kept.as_ref();
        match kept.map_or(Ok(None), |kept| kept.catch_up(address, found.len())) {
            Ok(Some(given)) => {
                let failures = judge_kept(&by_device(&given, &messages), &records);
                judgement.failures.extend(failures);
            }
            Ok(None) => {}
            Err(error) => judgement.failures.push(format!("{error:#}")),
        }
        judgement.failures.append(&mut held(&self.failures));
        judgement.failures.truncate(20);
        Ok(judgement)
    }

    /// The ids that the topic holds, for each device in the order of the log.
    fn records(&self, kafka: &str, judgement: &mut Judgement) -> Result<Vec<Vec<u64>>> {
        let messages = held(&self.messages);
        let mut records = vec![Vec::new(); DEVICES];
        if messages.is_empty() {
            return Ok(records);
        }
        let mut probe = Probe::connect(kafka)?;
        for device in 0..DEVICES {
            let partition = partition_of(device)?;
            let is_shared = (0..device).any(|before| partition_of(before).ok() == Some(partition));
            if is_shared {
                continue;
            }
            let contents = match probe.read_all(TOPIC, partition) {
                Ok(contents) => contents,
                // Nobody was acknowledged before the topic was there.
                Err(_) if !messages.iter().any(|message| message.acknowledged) => Vec::new(),
                Err(error) => return Err(error).context("read the topic of MQTT back"),
            };
            self.note(partition, &contents, judgement);
            for seen in &contents {
                let known = seen
                    .id
                    .and_then(|id| Some((id, messages.get(usize::try_from(id).ok()?)?)));
                match known {
                    Some((id, message)) if message.digest == seen.digest => {
                        records[message.device].push(id);
                    }
                    _ => judgement.failures.push(format!(
                        "M3 {TOPIC}-{partition}: offset {} holds a record that nobody published",
                        seen.offset
                    )),
                }
            }
        }
        Ok(records)
    }

    /// M4, over all starts of the broker.
    fn note(&self, partition: i32, contents: &[Seen], judgement: &mut Judgement) {
        for offset in self.shown.note(TOPIC, partition, contents) {
            let failure =
                format!("M4 {TOPIC}-{partition}: offset {offset} showed another message before");
            judgement.failures.push(failure);
        }
        let now: HashMap<i64, Digest> = contents
            .iter()
            .map(|seen| (seen.offset, seen.digest))
            .collect();
        let missing = self.shown.missing(TOPIC, partition, &now).len();
        if missing > 0 {
            let failure =
                format!("M4 {TOPIC}-{partition}: {missing} records that were there are gone");
            judgement.failures.push(failure);
        }
    }
}

/// K2.
fn judge_kept(given: &[Vec<u64>], records: &[Vec<u64>]) -> Vec<String> {
    let mut failures = Vec::new();
    for (device, (given, records)) in given.iter().zip(records).enumerate() {
        let mut seen = HashSet::new();
        let mut new = given.clone();
        new.retain(|id| seen.insert(*id));
        let again = given.len() - new.len();
        let is_once = qos_of(device) == 2;
        if new != *records || is_once && again > 0 {
            failures.push(format!(
                "K2 {}: of {} records a kept session gave {}, in the order of the log: {}, and {again} again",
                name_of(device),
                records.len(),
                new.len(),
                new.is_sorted()
            ));
        }
    }
    failures
}

/// What a subscriber is given that asks for everything.
fn replayed(address: &str, count: usize) -> Result<Vec<u64>> {
    let mut connection = Connection::open(address, "replay")?;
    connection.subscribe("$replay/earliest/exam/#", 1)?;
    let began = Instant::now();
    let mut given = Vec::new();
    while given.len() < count {
        ensure!(
            began.elapsed() < PATIENCE,
            "M6 of {count} records {} were replayed in {PATIENCE:?}",
            given.len()
        );
        given.push(connection.message().context("M6 a replay ended early")?);
    }
    Ok(given)
}

fn by_device(ids: &[u64], messages: &[Message]) -> Vec<Vec<u64>> {
    let mut all = vec![Vec::new(); DEVICES];
    for id in ids {
        let message = usize::try_from(*id).ok().and_then(|at| messages.get(at));
        if let Some(message) = message {
            all[message.device].push(*id);
        }
    }
    all
}

fn name_of(device: usize) -> String {
    format!("exam/{device}")
}

fn partition_of(device: usize) -> Result<i32> {
    let partition = partition_of_key(name_of(device).as_bytes(), PARTITIONS.unsigned_abs());
    Ok(i32::try_from(partition)?)
}

fn qos_of(device: usize) -> u8 {
    if device.is_multiple_of(2) { 1 } else { 2 }
}

/// A connection of MQTT 3.1.1.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// One with a session of its own.
    fn open(address: &str, client_id: &str) -> Result<Connection> {
        Ok(Connection::connect(address, client_id, true)?.0)
    }

    /// One whose session outlives it, and whether that was there.
    pub fn open_kept(address: &str, client_id: &str) -> Result<(Connection, bool)> {
        Connection::connect(address, client_id, false)
    }

    fn connect(address: &str, client_id: &str, is_clean: bool) -> Result<(Connection, bool)> {
        let stream = TcpStream::connect(address).context("nobody speaks MQTT")?;
        Connection::greet(stream, client_id, is_clean)
    }

    /// One with a session of its own, over a connection that stands.
    pub fn over(stream: TcpStream, client_id: &str) -> Result<Connection> {
        Ok(Connection::greet(stream, client_id, true)?.0)
    }

    fn greet(stream: TcpStream, client_id: &str, is_clean: bool) -> Result<(Connection, bool)> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Connection {
            stream,
            buffer: Vec::new(),
        };
        let head = [&text("MQTT")[..], &[4, u8::from(is_clean) << 1, 0, 0]].concat();
        connection.send(&packet(0x10, &[head, text(client_id)].concat()))?;
        let (first, body) = connection.next()?;
        ensure!(
            first == CONNACK && body.len() == 2 && body[1] == 0,
            "refused: {first:#x} {body:?}"
        );
        Ok((connection, body[0] == 1))
    }

    /// Sends bytes.
    pub fn send(&mut self, packet: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(packet)?)
    }

    /// The next packet: its first byte and its body.
    pub fn next(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some((head, length)) = framed(&self.buffer)
                && self.buffer.len() >= head + length
            {
                let packet: Vec<u8> = self.buffer.drain(..head + length).collect();
                return Ok((packet[0], packet[head..].to_vec()));
            }
            let mut some = [0; 16 << 10];
            let count = self.stream.read(&mut some)?;
            ensure!(count > 0, "the connection ended");
            self.buffer.extend_from_slice(&some[..count]);
        }
    }

    /// Asks whether the broker is there, and waits for the answer.
    pub fn ping(&mut self) -> Result<()> {
        self.send(&packet(0xc0, &[]))?;
        let (first, _) = self.next().context("no answer to a PINGREQ")?;
        ensure!(first == PINGRESP, "{first:#x} is no PINGRESP");
        Ok(())
    }

    /// Publishes at QoS 1, and waits for the acknowledgement.
    pub fn publish_acknowledged(&mut self, topic: &str, value: &[u8]) -> Result<()> {
        self.send(&publish(topic, 1, 1, value))?;
        let (first, body) = self.next().context("no PUBACK")?;
        ensure!(
            (first, &body[..]) == (PUBACK, &[0, 1]),
            "{first:#x} {body:?} is no PUBACK"
        );
        Ok(())
    }

    /// Subscribes at this QoS.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Result<()> {
        let body = [&[0, 1][..], &text(filter), &[qos]].concat();
        self.send(&packet(0x82, &body))?;
        let (first, body) = self.next()?;
        ensure!(
            (first, &body[..]) == (SUBACK, &[0, 1, qos]),
            "refused: {body:?}"
        );
        Ok(())
    }

    /// The next message's id; it is acknowledged.
    fn message(&mut self) -> Result<u64> {
        let (first, body) = self.next()?;
        ensure!(
            first & 0xf6 == 0x32,
            "a message of QoS 1 was to come, not {first:#x}"
        );
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let packet_id = &body[2 + length..4 + length];
        self.send(&packet(PUBACK, packet_id))?;
        id_of(&body[4 + length..]).context("a message that nobody published")
    }
}

/// What clients of both versions say: how they connect, and a packet behind that.
pub fn conversations() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for version in [4, 5] {
        let none: &[u8] = if version == 5 { &[0] } else { &[] };
        let some: &[u8] = match version {
            5 => &[12, 0x02, 0, 0, 0, 60, 0x26, 0, 1, b'k', 0, 1, b'v'],
            _ => &[],
        };
        let connect = |flags: u8, payload: &[u8]| {
            let head = [&text("MQTT")[..], &[version, flags, 0, 60], none].concat();
            packet(0x10, &[&head[..], payload].concat())
        };
        let greeting = connect(2, &text("hostile"));
        let will = [
            &text("hostile")[..],
            none,
            &text("exam/will"),
            &text("gone"),
        ]
        .concat();
        let id: &[u8] = &[0, 7];
        let packets = [
            packet(0x30, &[&text("hostile/0")[..], some, b"a value"].concat()),
            packet(
                0x32,
                &[&text("hostile/1")[..], id, some, b"a value"].concat(),
            ),
            packet(
                0x34,
                &[&text("hostile/2")[..], id, some, b"a value"].concat(),
            ),
            packet(0x62, id),
            packet(0x40, id),
            packet(0x82, &[id, none, &text("hostile/#"), &[1]].concat()),
            packet(
                0x82,
                &[id, none, &text("$replay/earliest/hostile/+"), &[2]].concat(),
            ),
            packet(0xa2, &[id, none, &text("hostile/#")].concat()),
            packet(0xc0, &[]),
            packet(0xe0, none),
        ];
        all.push((Vec::new(), connect(0x0e, &will)));
        all.extend(packets.into_iter().map(|packet| (greeting.clone(), packet)));
    }
    all
}

/// Whether nothing came for as long as is waited.
fn is_silence(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|it| matches!(it.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Where the body begins and how long it is, if that much is there.
fn framed(buffer: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (index, byte) in buffer.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Some((2 + index, length));
        }
    }
    None
}

/// A message of 3.1.1, or of version 5 if its value begins with no properties.
pub fn publish(topic: &str, qos: u8, packet_id: u16, value: &[u8]) -> Vec<u8> {
    let body = [&text(topic)[..], &packet_id.to_be_bytes(), value].concat();
    packet(0x30 | qos << 1, &body)
}

/// A text behind its length.
pub fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// A packet's bytes.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).expect("seven bits");
        length /= 128;
        packet.push(byte | if length > 0 { 128 } else { 0 });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}
