//! An endpoint: the side of a connection that is connected to. From bytes to events, and from a front's answers to bytes.
//! Callers: a front, one for each connection, which reads, writes, and says what time it is.
//!
//! What holds:
//! - Windows, credit, sizes and limits are enforced on the peer, and kept to by what is sent. What the peer makes us hold is bounded:
//!   a frame, sessions and links up to their limits, deliveries in parts up to [`Settings::partial_bytes_max`].
//! - A fault ends what it must and no more: the link, the session or the connection. What still comes for it is passed over until the
//!   peer has ended it too.
//! - A range of deliveries costs what is in it, whatever numbers it names; ids are serial numbers.
//! - A front answers [`Event::Open`] and [`Event::Login`] before it hands in the next frame.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::condition::ErrorCondition;
use crate::frame::{self, FRAME_BYTES_MIN, FrameHeader, FrameKind, Protocol};
use crate::performative::{Close, Error, Open, Performative, Role};
use crate::sasl::{SaslChallenge, SaslCode, SaslFrame, SaslMechanisms, SaslOutcome};
use crate::{Map, Multiple, Symbol};

mod event;
mod link;
mod session;

pub use event::{Attached, Delivery, Event, Fault, LinkFlow, LinkId, Login, Scope, Settled};
use session::Session;

/// Steps of a login that a client may take.
const LOGIN_STEPS_MAX: u32 = 3;
/// The longest text of an error.
const DESCRIPTION_BYTES_MAX: usize = 200;

/// What an endpoint is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub container_id: String,
    /// The longest frame that it takes.
    pub frame_bytes_max: usize,
    /// The highest channel.
    pub channel_max: u16,
    /// The highest handle.
    pub handle_max: u32,
    /// Links of a connection.
    pub links_max: usize,
    /// The silence that it bears; the peer is asked to speak twice as often.
    pub silence_max: Duration,
    /// Transfers that a session takes.
    pub window: u32,
    /// The longest message.
    pub message_bytes_max: u64,
    /// What deliveries that are not whole yet may hold together.
    pub partial_bytes_max: usize,
    /// Deliveries of a session that the peer has not settled.
    pub unsettled_max: usize,
    /// The id that outgoing transfers and deliveries begin with.
    pub first_id: u32,
    /// By what one can log in.
    pub mechanisms: Vec<&'static str>,
    /// Whether one need not.
    pub allows_bare: bool,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing came yet.
    Greeting,
    /// A login is going on; so many steps of it came.
    Login(u32),
    /// Logged in: the header of AMQP is expected.
    LoggedIn,
    /// `open` is expected.
    Opening,
    /// `open` came, and the front has not answered.
    Opened,
    /// Both have opened.
    Running,
    /// We have closed, and wait for the peer to.
    Closing,
    /// Nothing will follow.
    Over,
}

/// A whole frame.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    header: FrameHeader,
}

impl Frame {
    /// Its length.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}

/// What is sent, and what the peer takes.
#[derive(Debug)]
struct Output {
    bytes: BytesMut,
    /// The longest frame that the peer takes.
    frame_bytes_max: usize,
}

impl Output {
    fn put(&mut self, channel: u16, performative: &Performative<'_>) {
        frame::put(&mut self.bytes, FrameKind::Amqp, channel, |out| {
            performative.put(out);
        });
    }
}

/// See the file.
#[derive(Debug)]
pub struct Endpoint {
    settings: Settings,
    stage: Stage,
    output: Output,
    has_opened: bool,
    sessions: BTreeMap<u16, Session>,
    /// Links by name and our role: a name that is attached again is taken from who had it.
    names: HashMap<(String, bool), LinkId>,
    /// How many links there are, and were.
    links: usize,
    links_made: u64,
    /// What deliveries hold that are not whole.
    partial_bytes: usize,
    heard_at: Instant,
    sent_at: Instant,
    /// How often the peer wants to hear something.
    speaks_every: Option<Duration>,
    /// The highest channel that the peer takes.
    channel_max: u16,
}

impl Endpoint {
    /// An endpoint of a connection that was just made.
    pub fn new(settings: Settings, now: Instant) -> Endpoint {
        Endpoint {
            settings,
            stage: Stage::Greeting,
            output: Output {
                bytes: BytesMut::new(),
                frame_bytes_max: FRAME_BYTES_MIN,
            },
            has_opened: false,
            sessions: BTreeMap::new(),
            names: HashMap::new(),
            links: 0,
            links_made: 0,
            partial_bytes: 0,
            heard_at: now,
            sent_at: now,
            speaks_every: None,
            channel_max: 0,
        }
    }

    /// What is to be sent. A front takes from its beginning, and says so by [`Endpoint::sent`].
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output.bytes
    }

    /// Something was sent.
    pub fn sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    /// What deliveries hold that are not whole yet.
    pub fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Whether the peer has opened the connection, and was answered.
    pub fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// Whether we have closed: the peer has a little time to do so too.
    pub fn is_closing(&self) -> bool {
        self.stage == Stage::Closing
    }

    /// Whether nothing will follow: what is to be sent is sent, and the connection ended.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Cuts the next frame off what was read. None: more bytes are needed, or it is over.
    pub fn cut(&mut self, input: &mut BytesMut, now: Instant) -> Option<Frame> {
        loop {
            match self.stage {
                Stage::Over => return None,
                Stage::Greeting | Stage::LoggedIn => {
                    let header = *input.first_chunk()?;
                    let _ = input.split_to(header.len());
                    self.heard_at = now;
                    self.greeted(header);
                }
                _ => return self.cut_frame(input, now),
            }
        }
    }

    fn cut_frame(&mut self, input: &mut BytesMut, now: Instant) -> Option<Frame> {
        let logs_in = matches!(self.stage, Stage::Login(_));
        let bytes_max = match logs_in {
            true => FRAME_BYTES_MIN,
            false => self.settings.frame_bytes_max,
        };
        let header = match frame::header(input, bytes_max) {
            Ok(header) => header?,
            Err(error) => {
                self.fail(&Fault::new(
                    Scope::Connection,
                    ErrorCondition::FramingError,
                    error.to_string(),
                ));
                // Nothing can be cut behind it.
                self.stage = Stage::Over;
                return None;
            }
        };
        if input.len() < header.frame_bytes {
            return None;
        }
        self.heard_at = now;
        let bytes = input.split_to(header.frame_bytes).freeze();
        Some(Frame { bytes, header })
    }

    /// The header of a protocol came.
    fn greeted(&mut self, header: [u8; 8]) {
        match (Protocol::of(header), self.stage) {
            (Some(Protocol::Sasl), Stage::Greeting) => {
                self.output.bytes.extend_from_slice(&Protocol::Sasl.bytes());
                let mechanisms = SaslMechanisms {
                    sasl_server_mechanisms: Multiple::These(&self.settings.mechanisms),
                };
                put_login(&mut self.output, &SaslFrame::Mechanisms(mechanisms));
                self.stage = Stage::Login(0);
            }
            (Some(Protocol::Amqp), stage)
                if stage == Stage::LoggedIn || self.settings.allows_bare =>
            {
                self.output.bytes.extend_from_slice(&Protocol::Amqp.bytes());
                self.stage = Stage::Opening;
            }
            _ => {
                let ours = match self.stage {
                    Stage::LoggedIn => Protocol::Amqp,
                    _ => Protocol::Sasl,
                };
                self.output.bytes.extend_from_slice(&ours.bytes());
                self.stage = Stage::Over;
            }
        }
    }

    /// What a frame ends that is there, if it is the peer's to end: a front that owes an answer to what came before says it first, as
    /// nothing is said of a delivery behind the end of its link.
    pub fn ended_by(&self, frame: &Frame) -> Option<Scope> {
        let header = frame.header;
        if self.stage != Stage::Running || header.kind != FrameKind::Amqp {
            return None;
        }
        match Performative::ending(&frame.bytes[header.body_at..])? {
            Performative::Detach(detach) => {
                let session = self.sessions.get(&header.channel)?;
                let link = session.links.get(&detach.handle)?;
                Some(Scope::Link(link.id))
            }
            Performative::End(_) => Some(Scope::Session(header.channel)),
            _ => Some(Scope::Connection),
        }
    }

    /// Takes a frame. What it means to the front, if anything.
    pub fn receive<'f>(&mut self, frame: &'f Frame) -> Option<Event<'f>> {
        match self.take(frame) {
            Ok(event) => event,
            Err(fault) => {
                self.fail(&fault);
                Some(Event::Fault(fault))
            }
        }
    }

    fn take<'f>(&mut self, frame: &'f Frame) -> Result<Option<Event<'f>>, Fault> {
        let header = frame.header;
        let body = &frame.bytes[header.body_at..];
        match (self.stage, header.kind) {
            (Stage::Over, _) => Ok(None),
            (Stage::Login(steps), FrameKind::Sasl) => self.login(steps, body).map(Some),
            (Stage::Login(_), FrameKind::Amqp) | (_, FrameKind::Sasl) => Err(Fault::new(
                Scope::Connection,
                ErrorCondition::FramingError,
                "a frame of a type that is not expected now",
            )),
            // A sign of life.
            (_, FrameKind::Amqp) if body.is_empty() => Ok(None),
            (stage, FrameKind::Amqp) => {
                let (performative, payload) = match Performative::split(body) {
                    Ok(found) => found,
                    // Whatever it was, it is waited for the end.
                    Err(_) if stage == Stage::Closing => return Ok(None),
                    Err(error) => {
                        return Err(Fault::new(
                            Scope::Connection,
                            ErrorCondition::DecodeError,
                            error.to_string(),
                        ));
                    }
                };
                let payload = frame.bytes.slice_ref(payload);
                self.perform(stage, header.channel, performative, payload)
            }
        }
    }

    fn login<'f>(&mut self, steps: u32, body: &'f [u8]) -> Result<Event<'f>, Fault> {
        let wrong = |condition, text| Fault::new(Scope::Connection, condition, text);
        if steps >= LOGIN_STEPS_MAX {
            return Err(wrong(
                ErrorCondition::NotAllowed,
                "a login of too many steps",
            ));
        }
        let found = SaslFrame::decode(body)
            .map_err(|_| wrong(ErrorCondition::DecodeError, "it is no frame of a login"))?;
        self.stage = Stage::Login(steps + 1);
        match (found, steps) {
            (SaslFrame::Init(init), 0) => Ok(Event::Login(Login::Init {
                mechanism: init.mechanism.0,
                response: init.initial_response,
            })),
            (SaslFrame::Response(said), 1..) => Ok(Event::Login(Login::Response(said.response))),
            _ => Err(wrong(
                ErrorCondition::NotAllowed,
                "a step of a login that is not due",
            )),
        }
    }

    /// Asks for a login's next step.
    pub fn challenge(&mut self, challenge: &[u8]) {
        let frame = SaslFrame::Challenge(SaslChallenge { challenge });
        put_login(&mut self.output, &frame);
    }

    /// Ends a login; one that failed ends the connection.
    pub fn logged_in(&mut self, code: SaslCode, last: Option<&[u8]>) {
        let outcome = SaslOutcome {
            code,
            additional_data: last,
        };
        put_login(&mut self.output, &SaslFrame::Outcome(outcome));
        self.stage = match code {
            SaslCode::Ok => Stage::LoggedIn,
            _ => Stage::Over,
        };
    }

    fn perform<'f>(
        &mut self,
        stage: Stage,
        channel: u16,
        performative: Performative<'f>,
        payload: Bytes,
    ) -> Result<Option<Event<'f>>, Fault> {
        match (stage, performative) {
            (Stage::Opening, Performative::Open(open)) => self.open(open).map(Some),
            (Stage::Closing, Performative::Close(_)) => {
                self.stage = Stage::Over;
                Ok(None)
            }
            (Stage::Closing, _) => Ok(None),
            (_, Performative::Close(close)) => {
                self.put_open_first();
                self.output
                    .put(0, &Performative::Close(Close { error: None }));
                self.stage = Stage::Over;
                self.drop_sessions();
                Ok(Some(Event::Closed(close.error)))
            }
            (Stage::Running, performative) if !matches!(performative, Performative::Open(_)) => {
                self.on_session(channel, performative, payload)
            }
            _ => Err(Fault::new(
                Scope::Connection,
                ErrorCondition::NotAllowed,
                "open is expected, and once",
            )),
        }
    }

    fn open<'f>(&mut self, open: Open<'f>) -> Result<Event<'f>, Fault> {
        let wrong = |text| Fault::new(Scope::Connection, ErrorCondition::NotAllowed, text);
        let frame_bytes = usize::try_from(open.max_frame_size).unwrap_or(usize::MAX);
        if frame_bytes < FRAME_BYTES_MIN {
            return Err(wrong("frames of 512 bytes are the least that a peer takes"));
        }
        let speaks_every = open.idle_time_out.filter(|it| *it > 0);
        if speaks_every.is_some_and(|it| it < 1_000) {
            return Err(wrong("an idle time-out of less than a second"));
        }
        self.output.frame_bytes_max = frame_bytes.min(self.settings.frame_bytes_max);
        self.speaks_every = speaks_every.map(|it| Duration::from_millis(it.into()) / 2);
        self.channel_max = open.channel_max;
        self.stage = Stage::Opened;
        Ok(Event::Open(open))
    }

    fn put_open(&mut self, offered: Multiple<'_>, properties: Option<Map<'_>>) {
        let half = self.settings.silence_max.as_millis() / 2;
        let open = Open {
            container_id: &self.settings.container_id,
            hostname: None,
            max_frame_size: u32::try_from(self.settings.frame_bytes_max).unwrap_or(u32::MAX),
            channel_max: self.settings.channel_max,
            idle_time_out: u32::try_from(half).ok(),
            outgoing_locales: Multiple::None,
            incoming_locales: Multiple::None,
            offered_capabilities: offered,
            desired_capabilities: Multiple::None,
            properties,
        };
        self.output.put(0, &Performative::Open(open));
        self.has_opened = true;
    }

    /// An answer to `open` stands before anything else that is sent.
    fn put_open_first(&mut self) {
        if !self.has_opened {
            self.put_open(Multiple::None, None);
        }
    }

    /// Answers `open`.
    pub fn accept_open(&mut self, offered: &[&str], properties: Option<Map<'_>>) {
        if self.stage == Stage::Opened {
            self.put_open(Multiple::These(offered), properties);
            self.stage = Stage::Running;
        }
    }

    /// Answers `open` with a refusal: an `open` with these properties, and a `close`.
    pub fn refuse_open(&mut self, properties: Map<'_>, error: Error<'_>) {
        if self.stage == Stage::Opened {
            self.put_open(Multiple::None, Some(properties));
            self.close(Some(error));
        }
    }

    /// Closes the connection, if it is not closed. Sessions and links are gone with it.
    pub fn close(&mut self, error: Option<Error<'_>>) {
        match self.stage {
            Stage::Closing | Stage::Over => return,
            // There is nobody to be told in frames.
            Stage::Greeting | Stage::Login(_) | Stage::LoggedIn => {
                self.stage = Stage::Over;
                return;
            }
            Stage::Opening | Stage::Opened | Stage::Running => {}
        }
        self.put_open_first();
        self.output.put(0, &Performative::Close(Close { error }));
        self.stage = Stage::Closing;
        self.drop_sessions();
    }

    /// Nothing is said on them any more.
    fn drop_sessions(&mut self) {
        self.sessions.clear();
        self.names.clear();
        self.links = 0;
        self.partial_bytes = 0;
    }

    /// Ends what a fault ends.
    fn fail(&mut self, fault: &Fault) {
        let error = Some(error(fault.condition, &fault.description));
        match fault.scope {
            Scope::Connection => self.close(error),
            Scope::Session(channel) => self.end_session(channel, error),
            Scope::Link(link) => self.detach(link, true, error),
        }
    }

    /// When [`Endpoint::tick`] is due, if nothing happens before.
    pub fn wakes_at(&self) -> Instant {
        let silent = self.heard_at + self.settings.silence_max;
        self.speaks_at().map_or(silent, |speaks| silent.min(speaks))
    }

    /// When a sign of life is due. What waits to be sent is one, as soon as the peer takes it.
    fn speaks_at(&self) -> Option<Instant> {
        let is_due = self.is_running() && self.output.bytes.is_empty();
        let every = self.speaks_every.filter(|_| is_due);
        every.map(|every| self.sent_at + every)
    }

    /// Looks at the time: closes a connection on which nothing comes, and gives a sign of life if one is due.
    /// Gives whether the peer was silent for too long.
    pub fn tick(&mut self, now: Instant) -> bool {
        if now >= self.heard_at + self.settings.silence_max {
            self.close(Some(error(
                ErrorCondition::ResourceLimitExceeded,
                "nothing came for longer than the idle time-out",
            )));
            self.stage = Stage::Over;
            return true;
        }
        if self.speaks_at().is_some_and(|at| now >= at) {
            frame::put(&mut self.output.bytes, FrameKind::Amqp, 0, |_| {});
            self.sent_at = now;
        }
        false
    }

    /// What is read is not waited for now: silence does not count against the peer.
    pub fn pauses(&mut self, now: Instant) {
        self.heard_at = now;
    }
}

/// An error with its condition and a text of bounded length.
pub fn error(condition: ErrorCondition, description: &str) -> Error<'_> {
    let mut end = description.len().min(DESCRIPTION_BYTES_MAX);
    while !description.is_char_boundary(end) {
        end -= 1;
    }
    Error {
        condition: Symbol(condition.symbol()),
        description: Some(&description[..end]).filter(|it| !it.is_empty()),
        info: None,
    }
}

fn put_login(output: &mut Output, frame: &SaslFrame<'_>) {
    frame::put(&mut output.bytes, FrameKind::Sasl, 0, |out| frame.put(out));
}

/// Our role in a link that the peer attaches in its own.
fn other(role: Role) -> Role {
    match role {
        Role::Sender => Role::Receiver,
        Role::Receiver => Role::Sender,
    }
}
