//! The AMQP door of a load: producers, a consumer of a queue, and one that moves messages from the queue to another topic in transactions, beside
//! the clients of the Kafka protocol. What they were promised is judged after each crash by what the topics show to a consumer of the
//! Kafka protocol, and by what a browser of the queue is sent.
//! Callers: the crash cases, those of disks that fail or are full, and the control. It outlives the broker, as `load` does; each begin is
//! new connections.
//!
//! Q1 an accepted message is a record, once. Q2 a producer's messages stand in the order in which it sent them. Q3 nothing is there that
//! nobody sent. Q4 an offset never shows two messages over time. Q5 what a consumer has accepted, and was told so, is given to nobody again.
//! Q6 what nobody has accepted is still in the queue. T1 a commit that was answered is done, T2 and any other is done wholly or not at
//! all: a message is moved and gone from the queue, or neither.

use std::collections::{HashMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amqp::frame::{self, FrameKind, Protocol};
use amqp::message::{Body, Message, SectionKind, put_section};
use amqp::performative::{
    Attach, Begin, Disposition, Flow, Open, Performative, ReceiverSettleMode, Role,
    SenderSettleMode, Transfer,
};
use amqp::state::{DeliveryState, TransactionalState};
use amqp::terminus::{AnyTarget, Coordinator, Source, Target, TerminusDurability};
use amqp::{BytesMut, Field as _, MapBuf, Multiple, Symbol, Value};
use anyhow::{Context as _, Result, bail, ensure};

use super::judge::Shown;
use super::ledger::{Digest, digest_of};
use super::load::{Judgement, Running, held};
use super::probe::Probe;
use super::random::Random;

/// The queue, and where its messages are moved to.
const JOBS: &str = "amqp-jobs";
const DONE: &str = "amqp-done";
const PARTITIONS: i32 = 2;
const PRODUCERS: usize = 2;
const WINDOW_MAX: u64 = 4;
const VALUE_BYTES_MAX: u64 = 300;
const PAUSE: Duration = Duration::from_millis(5);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What consumers take at once.
const CREDIT: u32 = 16;
/// More than there ever is.
const MANY: u32 = 1 << 24;
/// One in so many transactions is rolled back.
const ROLLED_BACK: u64 = 8;

/// A message that was sent.
struct Sent {
    producer: usize,
    /// As a record of the queue's topic, and moved.
    digests: [Digest; 2],
    is_accepted: bool,
    /// Whether a consumer said that it takes it, and whether it was told that this is so.
    is_taken: bool,
    is_finished: bool,
    /// Whether the transaction that moved it was committed, and answered.
    is_moved: bool,
}

/// The load over AMQP and its memory.
pub struct AmqpLoad {
    sent: Mutex<Vec<Sent>>,
    shown: Shown,
    random: Vec<Mutex<Random>>,
    failures: Mutex<Vec<String>>,
    hurt: AtomicBool,
    /// Whether anything is taken out of the queue.
    consumes: bool,
}

impl AmqpLoad {
    /// A load that has done nothing yet, random under the seed.
    pub fn new(seed: u64) -> Arc<AmqpLoad> {
        AmqpLoad::of(seed, true)
    }

    /// One whose messages nobody takes: what is settled is synced always, and would take the records before it along.
    pub fn without_consumers(seed: u64) -> Arc<AmqpLoad> {
        AmqpLoad::of(seed, false)
    }

    fn of(seed: u64, consumes: bool) -> Arc<AmqpLoad> {
        let random = (0..=PRODUCERS as u64).map(|at| Mutex::new(Random::new(seed ^ (at + 77))));
        Arc::new(AmqpLoad {
            sent: Mutex::default(),
            shown: Shown::default(),
            random: random.collect(),
            failures: Mutex::default(),
            hurt: AtomicBool::new(false),
            consumes,
        })
    }

    /// Makes its topics, with these settings.
    pub fn create_topics(&self, kafka: &str, settings: &[(&str, &str)]) -> Result<()> {
        let mut probe = Probe::connect(kafka)?;
        probe.create_topic(JOBS, PARTITIONS, settings)?;
        probe.create_topic(DONE, PARTITIONS, settings)
    }

    /// Begins to load the broker that speaks AMQP at `address`. Threads end when they are told to, or when the broker goes away.
    pub fn begin(self: &Arc<AmqpLoad>, address: &str) -> Running {
        self.hurt.store(false, Ordering::SeqCst);
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let clients = PRODUCERS + if self.consumes { 2 } else { 0 };
        for index in 0..clients {
            let (load, stop, address) = (self.clone(), stop.clone(), address.to_owned());
            threads.push(std::thread::spawn(move || {
                let ended = match index.checked_sub(PRODUCERS) {
                    None => load.produce(index, &address, &stop),
                    Some(0) => load.consume(&address, &stop),
                    Some(_) => load.transfer(&address, &stop),
                };
                if let (Err(error), false) = (ended, load.hurt.load(Ordering::SeqCst)) {
                    load.fail(format!("a client of AMQP gave up: {error:#}"));
                }
            }));
        }
        Running::new(stop, threads)
    }

    /// The fault begins: from here until the next begin the end of a connection is no fault of the broker's.
    pub fn fault_begins(&self) {
        self.hurt.store(true, Ordering::SeqCst);
    }

    fn fail(&self, failure: String) {
        let mut failures = held(&self.failures);
        if failures.len() < 20 {
            failures.push(failure);
        }
    }

    fn produce(&self, producer: usize, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut random = held(&self.random[producer]);
        let mut peer = Peer::open(address)?;
        let target = format!("{JOBS}/Publishers/{}", name_of(producer));
        peer.sender(0, &target)?;
        while !stop.load(Ordering::Relaxed) {
            let mut unsettled = HashMap::new();
            for _ in 0..random.between(1, WINDOW_MAX + 1) {
                let bytes = usize::try_from(random.between(16, VALUE_BYTES_MAX))?;
                let (id, value) = self.write_down(producer, bytes, &mut random);
                unsettled.insert(peer.transfer(0, &value, None)?, id);
            }
            while !unsettled.is_empty() {
                let Heard::Settled(first, last, Outcome::Accepted, true) = peer.next()? else {
                    continue;
                };
                for delivery in first..=last {
                    if let Some(id) = unsettled.remove(&delivery) {
                        held(&self.sent)[id].is_accepted = true;
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// One message of `value_bytes` on a connection of its own. Whether it was accepted; if not, it was released.
    pub fn send_one(&self, address: &str, value_bytes: usize) -> Result<bool> {
        let mut random = held(&self.random[0]);
        let mut peer = Peer::open(address)?;
        peer.sender(0, &format!("{JOBS}/Publishers/{}", name_of(0)))?;
        let (id, value) = self.write_down(0, value_bytes, &mut random);
        let delivery = peer.transfer(0, &value, None)?;
        match peer.outcome(delivery)? {
            Outcome::Accepted => {
                held(&self.sent)[id].is_accepted = true;
                Ok(true)
            }
            Outcome::Released => Ok(false),
            other => bail!("a message came to {other:?}"),
        }
    }

    /// Writes a new message down before it is sent.
    fn write_down(&self, producer: usize, bytes: usize, random: &mut Random) -> (usize, Vec<u8>) {
        let mut sent = held(&self.sent);
        let id = sent.len();
        let mut value = format!("{id:016x}").into_bytes();
        value.resize(bytes.max(16), 0);
        random.fill(&mut value[16..]);
        sent.push(Sent {
            producer,
            digests: [name_of(producer).as_bytes(), b""].map(|key| digest_of(key, &value)),
            is_accepted: false,
            is_taken: false,
            is_finished: false,
            is_moved: false,
        });
        (id, value)
    }

    /// The number of a message that was delivered; Q5.
    fn delivered(&self, value: &[u8]) -> Result<usize> {
        let id = super::ledger::id_of(value).context("a message that nobody sent")?;
        let id = usize::try_from(id)?;
        let sent = held(&self.sent);
        let found = sent.get(id).context("a message that nobody sent")?;
        if found.is_finished || found.is_moved {
            self.fail(format!("Q5 message {id} was done with, and came again"));
        }
        Ok(id)
    }

    fn consume(&self, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut peer = Peer::open(address)?;
        peer.receiver(0, "queue", SenderSettleMode::Mixed)?;
        peer.credit(0, CREDIT, false)?;
        let mut taken = HashMap::new();
        while !stop.load(Ordering::Relaxed) {
            match peer.next()? {
                Heard::Delivery { id, value, .. } => {
                    let message = self.delivered(&value)?;
                    held(&self.sent)[message].is_taken = true;
                    taken.insert(id, message);
                    peer.accept(id)?;
                    if peer.received.is_multiple_of(CREDIT / 2) {
                        peer.credit(0, CREDIT, false)?;
                    }
                }
                Heard::Settled(first, last, Outcome::Accepted, false) => {
                    for message in (first..=last).filter_map(|id| taken.remove(&id)) {
                        held(&self.sent)[message].is_finished = true;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn transfer(&self, address: &str, stop: &AtomicBool) -> Result<()> {
        let mut random = held(&self.random[PRODUCERS]);
        let mut peer = Peer::open(address)?;
        peer.coordinator(0)?;
        peer.sender(1, DONE)?;
        peer.receiver(2, "queue", SenderSettleMode::Mixed)?;
        while !stop.load(Ordering::Relaxed) {
            let count = u32::try_from(random.between(1, 4))?;
            peer.credit(2, count, false)?;
            let mut jobs = Vec::new();
            while jobs.len() < count as usize {
                if let Heard::Delivery { id, value, before } = peer.next()? {
                    jobs.push((id, self.delivered(&value)?, value, before));
                }
            }
            let txn = peer.declare(0)?;
            for (id, _, value, _) in &jobs {
                let sent = peer.transfer(1, value, Some(&txn))?;
                ensure!(
                    peer.outcome(sent)? == Outcome::InTransaction,
                    "no part of it"
                );
                peer.accept_in(*id, &txn)?;
            }
            // What is delivered again counts: it is not rolled back twice, as it would be given up in the end.
            let is_first = jobs.iter().all(|(.., before)| *before == 0);
            let fails = is_first && random.between(0, ROLLED_BACK) == 0;
            let discharged = peer.discharge(0, &txn, fails)?;
            let outcome = peer.outcome(discharged)?;
            ensure!(outcome == Outcome::Accepted, "a discharge: {outcome:?}");
            if !fails {
                for (_, message, ..) in jobs {
                    held(&self.sent)[message].is_moved = true;
                }
            }
        }
        Ok(())
    }

    /// Judges everything that the broker shows now, by the Kafka protocol at `kafka` and by AMQP at `address`. The load must not run.
    pub fn judge(&self, kafka: &str, address: &str) -> Result<Judgement> {
        let mut judgement = Judgement::default();
        let mut probe = Probe::connect(kafka)?;
        let jobs = self.records(&mut probe, (JOBS, 0), &mut judgement)?;
        let done = self.records(&mut probe, (DONE, 1), &mut judgement)?;
        let unfinished = self.unfinished(address)?;
        let sent = held(&self.sent);
        let mut failures = Vec::new();
        for producer in 0..PRODUCERS {
            let order = jobs.iter().filter(|id| sent[**id].producer == producer);
            if !order.is_sorted_by(|one, next| one < next) {
                failures.push(format!("Q2 {}: not in order", name_of(producer)));
            }
        }
        let places = |ids: &[usize]| ids.iter().copied().collect::<HashSet<_>>();
        let (in_jobs, in_done) = (places(&jobs), places(&done));
        for (name, again) in [
            ("Q1", jobs.len() - in_jobs.len()),
            ("T2", done.len() - in_done.len()),
        ] {
            if again > 0 {
                failures.push(format!("{name} {again} messages stand there twice"));
            }
        }
        for (id, message) in sent.iter().enumerate() {
            let is_there = in_jobs.contains(&id);
            let (is_done, is_open) = (in_done.contains(&id), unfinished.contains(&id));
            judgement.checked += u64::from(message.is_accepted);
            let lost = match () {
                () if message.is_accepted && !is_there => "Q1 it was accepted and is not there",
                () if message.is_finished && is_open => "Q5 it was finished and is in the queue",
                () if message.is_moved && !is_done => "T1 it was moved and is not there",
                () if is_done && is_open => "T2 it was moved and is in the queue",
                () if is_there && !is_open && !is_done && !message.is_taken => {
                    "Q6 nobody has taken it, and it is not in the queue"
                }
                () => continue,
            };
            judgement.lost += u64::from(lost.starts_with("Q1") || lost.starts_with("Q6"));
            failures.push(format!("{lost}: message {id}"));
        }
        drop(sent);
        failures.append(&mut held(&self.failures));
        judgement.failures.extend(failures);
        judgement.failures.truncate(20);
        Ok(judgement)
    }

    /// The numbers of the messages that a topic holds, partition by partition. Q3, Q4.
    fn records(
        &self,
        probe: &mut Probe,
        (topic, which): (&str, usize),
        judgement: &mut Judgement,
    ) -> Result<Vec<usize>> {
        let sent = held(&self.sent);
        let mut ids = Vec::new();
        for partition in 0..PARTITIONS {
            let contents = probe.read_all(topic, partition)?;
            for offset in self.shown.note(topic, partition, &contents) {
                let failure = format!("Q4 {topic}-{partition}: offset {offset} showed another one");
                judgement.failures.push(failure);
            }
            for seen in contents {
                let id = seen.id.and_then(|id| usize::try_from(id).ok());
                let known = id.and_then(|id| Some((id, sent.get(id)?)));
                match known.filter(|(_, sent)| sent.digests[which] == seen.digest) {
                    Some((id, _)) => ids.push(id),
                    None => judgement.failures.push(format!(
                        "Q3 {topic}-{partition}: offset {} holds what nobody sent",
                        seen.offset
                    )),
                }
            }
        }
        Ok(ids)
    }

    /// What a browser of the queue is sent.
    fn unfinished(&self, address: &str) -> Result<HashSet<usize>> {
        let mut peer = Peer::open(address)?;
        peer.receiver(0, "copy", SenderSettleMode::Settled)?;
        peer.credit(0, MANY, true)?;
        let mut found = HashSet::new();
        loop {
            match peer.next()? {
                Heard::Delivery { value, .. } => {
                    found.insert(self.delivered(&value)?);
                }
                Heard::Flow(Some(0), Some(0)) => return Ok(found),
                _ => {}
            }
        }
    }
}

fn name_of(producer: usize) -> String {
    format!("producer-{producer}")
}

/// What a delivery of ours, or of the broker, came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is taken.
    Accepted,
    /// It may be sent again.
    Released,
    /// A transaction has begun.
    Declared(Vec<u8>),
    /// It is taken if its transaction is.
    InTransaction,
    /// Anything else, in words.
    Other(String),
}

/// What the broker says.
pub enum Heard {
    /// A link is attached.
    Attached(u32),
    /// Of which link, and its credit.
    Flow(Option<u32>, Option<u32>),
    /// From which delivery to which, what became of them, and whether they are ours.
    Settled(u32, u32, Outcome, bool),
    /// A message.
    Delivery {
        /// By which it is settled.
        id: u32,
        /// Its data.
        value: Vec<u8>,
        /// Deliveries before.
        before: u32,
    },
    /// Anything else.
    Other,
}

/// A client of AMQP with one session.
pub struct Peer {
    stream: TcpStream,
    input: BytesMut,
    /// Deliveries that were sent, and that came.
    sent: u32,
    received: u32,
}

impl Peer {
    /// Opens a connection, and begins a session.
    pub fn open(address: &str) -> Result<Peer> {
        let stream = TcpStream::connect(address).context("nobody speaks AMQP")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut peer = Peer {
            stream,
            input: BytesMut::new(),
            sent: 0,
            received: 0,
        };
        peer.stream.write_all(&Protocol::Amqp.bytes())?;
        peer.say(Performative::Open(Open {
            container_id: "exam",
            hostname: None,
            max_frame_size: 65_536,
            channel_max: 0,
            idle_time_out: None,
            outgoing_locales: Multiple::None,
            incoming_locales: Multiple::None,
            offered_capabilities: Multiple::None,
            desired_capabilities: Multiple::None,
            properties: None,
        }))?;
        peer.say(Performative::Begin(Begin {
            remote_channel: None,
            next_outgoing_id: 0,
            incoming_window: MANY,
            outgoing_window: MANY,
            handle_max: 255,
            offered_capabilities: Multiple::None,
            desired_capabilities: Multiple::None,
            properties: None,
        }))?;
        let mut header = [0; 8];
        peer.stream.read_exact(&mut header)?;
        ensure!(header == Protocol::Amqp.bytes(), "no header of AMQP");
        Ok(peer)
    }

    /// Waits until both are answered.
    pub fn begun(&mut self) -> Result<()> {
        for _ in ["open", "begin"] {
            ensure!(matches!(self.next()?, Heard::Other), "no answer to open");
        }
        Ok(())
    }

    fn say(&mut self, performative: Performative<'_>) -> Result<()> {
        self.say_with(performative, b"")
    }

    fn say_with(&mut self, performative: Performative<'_>, payload: &[u8]) -> Result<()> {
        let mut out = BytesMut::new();
        frame::put(&mut out, FrameKind::Amqp, 0, |out| {
            performative.put(out);
            out.extend_from_slice(payload);
        });
        Ok(self.stream.write_all(&out)?)
    }

    fn attach(
        &mut self,
        handle: u32,
        role: Role,
        settles: SenderSettleMode,
        (source, target): (Option<Source<'_>>, AnyTarget<'_>),
    ) -> Result<()> {
        self.say(Performative::Attach(Attach {
            name: &format!("link-{handle}"),
            handle,
            role,
            snd_settle_mode: settles,
            rcv_settle_mode: ReceiverSettleMode::First,
            source,
            target: Some(target),
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: (role == Role::Sender).then_some(0),
            max_message_size: None,
            offered_capabilities: Multiple::None,
            desired_capabilities: Multiple::None,
            properties: None,
        }))?;
        // A sender waits for its credit, too.
        loop {
            match self.next()? {
                Heard::Attached(of) if of == handle && role == Role::Receiver => return Ok(()),
                Heard::Flow(Some(of), Some(1..)) if of == handle => return Ok(()),
                _ => {}
            }
        }
    }

    /// Attaches a sender, and waits for its credit.
    pub fn sender(&mut self, handle: u32, address: &str) -> Result<()> {
        let target = AnyTarget::Target(target(Some(address)));
        self.attach(
            handle,
            Role::Sender,
            SenderSettleMode::Mixed,
            (None, target),
        )
    }

    fn coordinator(&mut self, handle: u32) -> Result<()> {
        let capabilities = Multiple::These(&["amqp:local-transactions"]);
        let target = AnyTarget::Coordinator(Coordinator { capabilities });
        self.attach(
            handle,
            Role::Sender,
            SenderSettleMode::Mixed,
            (None, target),
        )
    }

    /// Of the queue: `copy` is a browser.
    fn receiver(&mut self, handle: u32, how: &str, settles: SenderSettleMode) -> Result<()> {
        let source = Source {
            distribution_mode: Some(Symbol(how)).filter(|it| it.0 == "copy"),
            ..source(JOBS)
        };
        let target = AnyTarget::Target(target(None));
        self.attach(handle, Role::Receiver, settles, (Some(source), target))
    }

    /// Attaches a consumer of a queue with a selector.
    pub fn selector(&mut self, handle: u32, address: &str, selector: &str) -> Result<()> {
        let mut filter = MapBuf::new();
        let name = "apache.org:selector-filter:string";
        filter.put_symbol(name, &Value::String(selector));
        let source = Source {
            filter: Some(filter.as_map()),
            ..source(address)
        };
        let target = AnyTarget::Target(target(None));
        let ends = (Some(source), target);
        self.attach(handle, Role::Receiver, SenderSettleMode::Mixed, ends)
    }

    /// Gives credit from what came on.
    pub fn credit(&mut self, handle: u32, credit: u32, drain: bool) -> Result<()> {
        self.say(Performative::Flow(Flow {
            next_incoming_id: Some(self.received),
            incoming_window: MANY,
            next_outgoing_id: self.sent,
            outgoing_window: MANY,
            handle: Some(handle),
            delivery_count: Some(self.received),
            link_credit: Some(credit),
            available: None,
            drain,
            echo: false,
            properties: None,
        }))
    }

    /// Sends a message; gives its delivery's id.
    fn transfer(&mut self, handle: u32, value: &[u8], txn: Option<&[u8]>) -> Result<u32> {
        let mut payload = BytesMut::new();
        put_section(&mut payload, SectionKind::Data, &Value::Binary(value));
        self.deliver(handle, &payload, txn)
    }

    /// Sends a message with an application property; gives its delivery's id.
    pub fn transfer_with(
        &mut self,
        handle: u32,
        value: &[u8],
        (name, said): (&str, &str),
    ) -> Result<u32> {
        let mut properties = MapBuf::new();
        properties.put(&Value::String(name), &Value::String(said));
        let mut payload = BytesMut::new();
        let properties = Value::Map(properties.as_map());
        put_section(
            &mut payload,
            SectionKind::ApplicationProperties,
            &properties,
        );
        put_section(&mut payload, SectionKind::Data, &Value::Binary(value));
        self.deliver(handle, &payload, None)
    }

    fn deliver(&mut self, handle: u32, payload: &[u8], txn: Option<&[u8]>) -> Result<u32> {
        let id = self.sent;
        self.sent += 1;
        let in_txn = |txn_id| {
            DeliveryState::Transactional(TransactionalState {
                txn_id,
                outcome: None,
            })
        };
        let transfer = Transfer {
            handle,
            delivery_id: Some(id),
            delivery_tag: Some(&id.to_be_bytes()),
            message_format: Some(0),
            settled: Some(false),
            more: false,
            rcv_settle_mode: None,
            state: txn.map(in_txn),
            resume: false,
            aborted: false,
            batchable: false,
        };
        self.say_with(Performative::Transfer(transfer), payload)?;
        Ok(id)
    }

    fn settle(&mut self, id: u32, settled: bool, state: DeliveryState<'_>) -> Result<()> {
        self.say(Performative::Disposition(Disposition {
            role: Role::Receiver,
            first: id,
            last: None,
            settled,
            state: Some(state),
            batchable: false,
        }))
    }

    /// Accepts a delivery.
    pub fn accept(&mut self, id: u32) -> Result<()> {
        self.settle(id, false, DeliveryState::Accepted)
    }

    fn accept_in(&mut self, id: u32, txn_id: &[u8]) -> Result<()> {
        let accepted = amqp::reader::decode(b"\x00\x53\x24\x45").context("a value")?;
        let state = DeliveryState::Transactional(TransactionalState {
            txn_id,
            outcome: Some(accepted),
        });
        self.settle(id, true, state)
    }

    fn declare(&mut self, handle: u32) -> Result<Vec<u8>> {
        let id = self.deliver(handle, b"\x00\x53\x77\x00\x53\x31\x45", None)?;
        match self.outcome(id)? {
            Outcome::Declared(txn) => Ok(txn),
            other => bail!("a declaration: {other:?}"),
        }
    }

    fn discharge(&mut self, handle: u32, txn: &[u8], fails: bool) -> Result<u32> {
        let bytes = u8::try_from(txn.len())?;
        let mut payload = vec![0x00, 0x53, 0x77, 0x00, 0x53, 0x32, 0xc0, bytes + 4, 2, 0xa0];
        payload.push(bytes);
        payload.extend_from_slice(txn);
        payload.push(if fails { 0x41 } else { 0x42 });
        self.deliver(handle, &payload, None)
    }

    /// What becomes of a delivery of ours.
    pub fn outcome(&mut self, id: u32) -> Result<Outcome> {
        loop {
            match self.next()? {
                Heard::Settled(first, last, outcome, true) if (first..=last).contains(&id) => {
                    return Ok(outcome);
                }
                _ => {}
            }
        }
    }

    /// What comes next.
    pub fn next(&mut self) -> Result<Heard> {
        loop {
            let header = frame::header(&self.input, 1 << 20);
            let header = header.map_err(|error| anyhow::anyhow!("no frame: {error}"))?;
            if let Some(header) = header.filter(|it| self.input.len() >= it.frame_bytes) {
                let frame = self.input.split_to(header.frame_bytes);
                match &frame[header.body_at..] {
                    [] => {}
                    body => return self.heard(body),
                }
                continue;
            }
            let mut bytes = [0; 16 << 10];
            let count = self.stream.read(&mut bytes)?;
            ensure!(count > 0, "the connection ended");
            self.input.extend_from_slice(&bytes[..count]);
        }
    }

    fn heard(&mut self, body: &[u8]) -> Result<Heard> {
        let (performative, payload) = Performative::split(body).context("no performative")?;
        Ok(match performative {
            Performative::Attach(it) => Heard::Attached(it.handle),
            Performative::Flow(it) => Heard::Flow(it.handle, it.link_credit),
            Performative::Disposition(it) => {
                let outcome = it.state.map_or(Outcome::Other(String::new()), outcome_of);
                let last = it.last.unwrap_or(it.first);
                Heard::Settled(it.first, last, outcome, it.role == Role::Receiver)
            }
            Performative::Transfer(it) => {
                self.received += 1;
                let message = Message::of(payload).context("no message")?;
                let Body::Data(1, value) = message.body else {
                    bail!("a message without data");
                };
                Heard::Delivery {
                    id: it.delivery_id.context("no id")?,
                    value: value.to_vec(),
                    before: message.header.map_or(0, |it| it.delivery_count),
                }
            }
            Performative::Detach(it) => bail!("a link is detached: {:?}", it.error),
            Performative::End(it) => bail!("the session is ended: {:?}", it.error),
            Performative::Close(it) => bail!("the connection is closed: {:?}", it.error),
            Performative::Open(_) | Performative::Begin(_) => Heard::Other,
        })
    }
}

fn outcome_of(state: DeliveryState<'_>) -> Outcome {
    let is_accepted = |outcome: Option<Value<'_>>| {
        outcome.and_then(DeliveryState::of) == Some(DeliveryState::Accepted)
    };
    match state {
        DeliveryState::Accepted => Outcome::Accepted,
        DeliveryState::Released => Outcome::Released,
        DeliveryState::Declared(it) => Outcome::Declared(it.txn_id.to_vec()),
        DeliveryState::Transactional(it) if is_accepted(it.outcome) => Outcome::InTransaction,
        other => Outcome::Other(format!("{other:?}")),
    }
}

/// A queue.
fn source(address: &str) -> Source<'_> {
    Source {
        address: Some(Value::String(address)),
        durable: TerminusDurability::None,
        expiry_policy: Symbol("session-end"),
        timeout: 0,
        dynamic: false,
        dynamic_node_properties: None,
        distribution_mode: None,
        filter: None,
        default_outcome: None,
        outcomes: Multiple::None,
        capabilities: Multiple::These(&["queue"]),
    }
}

fn target(address: Option<&str>) -> Target<'_> {
    Target {
        address: address.map(Value::String),
        durable: TerminusDurability::None,
        expiry_policy: Symbol("session-end"),
        timeout: 0,
        dynamic: false,
        dynamic_node_properties: None,
        capabilities: Multiple::None,
    }
}
