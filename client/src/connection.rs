//! One connection to one broker. Requests are pipelined: many may be in-flight, and their answers come in order.
//!
//! Two tasks belong to a connection: one writes what is queued, one reads frames and hands each to the oldest request
//! that waits. Either ending ends the connection, and every request that waits gets the reason.

use crate::{ClientConfig, Error, Result, tls};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use wire::{ApiKey, ErrorCode, Message, Reader, Request, RequestHeader, frame};

/// Requests that may be queued before a sender has to wait.
const QUEUE_REQUESTS: usize = 64;
/// What a read makes room for at least.
const READ_BYTES: usize = 64 << 10;
/// The most that one vectored write is given.
const WRITE_PIECES: usize = 256;

/// For how much of the time that a login holds its connection is used: what waits then has the rest of it.
const SESSION_PART: f64 = 0.8;

/// First and last version that a broker has, by key.
pub type Versions = BTreeMap<i16, (i16, i16)>;

/// A connection whose broker's versions are known. Clones share it; it closes when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: String,
    client_id: String,
    request_timeout: Duration,
    next_correlation_id: AtomicI32,
    queue: mpsc::Sender<Outgoing>,
    waiting: Arc<Waiting>,
    versions: OnceLock<Versions>,
    /// When another is to take its place, as its login ends.
    renewed_at: OnceLock<Instant>,
    tasks: [AbortHandle; 2],
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Requests that were written and not answered yet, oldest first; or why there will be no answer.
#[derive(Debug)]
struct Waiting {
    address: String,
    state: Mutex<WaitingState>,
}

#[derive(Debug, Default)]
struct WaitingState {
    answers: VecDeque<Expected>,
    ended: Option<Ended>,
}

/// Why a connection ended.
#[derive(Clone, Debug)]
enum Ended {
    /// It broke, or was closed.
    Because(Arc<str>),
    /// TLS does not go on, and says why.
    Refused(Arc<str>),
    /// Whoever listens there speaks this protocol.
    Speaks(&'static str),
}

impl Ended {
    fn of_io(error: &std::io::Error) -> Ended {
        match tls::is_refusal(error) {
            true => Ended::Refused(Arc::from(error.to_string())),
            false => Ended::because(error.to_string()),
        }
    }

    fn because(reason: impl AsRef<str>) -> Ended {
        Ended::Because(Arc::from(reason.as_ref()))
    }

    fn error(&self, address: &str) -> Error {
        let address = address.to_owned();
        match self {
            Ended::Because(reason) => Error::Disconnected {
                address,
                reason: reason.clone(),
            },
            Ended::Refused(reason) => Error::Tls {
                address,
                reason: reason.clone(),
            },
            Ended::Speaks(protocol) => Error::NotKafka { address, protocol },
        }
    }
}

#[derive(Debug)]
struct Expected {
    correlation_id: i32,
    /// Gets the frame, header included.
    answer: oneshot::Sender<Result<Bytes>>,
}

#[derive(Debug)]
struct Outgoing {
    pieces: Vec<Bytes>,
    /// None for a request that is never answered.
    expected: Option<Expected>,
}

/// A request that was sent. Dropping it does not take it back.
#[derive(Debug)]
#[must_use = "the request is sent, but nobody waits for its answer"]
pub struct Pending<R: Request> {
    version: i16,
    answer: Answer,
    request: PhantomData<fn() -> R>,
}

/// The answer to a request of any type: what does not encode or decode is compiled once, and not for each type.
#[derive(Debug)]
struct Answer {
    connection: Connection,
    key: ApiKey,
    frame: oneshot::Receiver<Result<Bytes>>,
}

impl Connection {
    /// Connects, asks for the broker's versions, and logs in.
    pub async fn open(address: &str, config: &ClientConfig) -> Result<Connection> {
        let failed = |source| Error::Connect {
            address: address.to_owned(),
            source: Arc::new(source),
        };
        let stream = timeout(config.connect_timeout, TcpStream::connect(address))
            .await
            .map_err(|_| Error::TimedOut {
                what: format!("connecting to {address}"),
                after: config.connect_timeout,
            })?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let connection = match &config.tls {
            None => {
                let (read, write) = stream.into_split();
                Connection::over(read, write, address, config)
            }
            Some(tls) => {
                let handshake = timeout(config.connect_timeout, tls.connect(stream, address));
                let stream = handshake.await.map_err(|_| Error::TimedOut {
                    what: format!("the TLS handshake with {address}"),
                    after: config.connect_timeout,
                })?;
                let stream = stream.map_err(|error| match tls::is_refusal(&error) {
                    true => Ended::Refused(Arc::from(error.to_string())).error(address),
                    false => failed(error),
                })?;
                let (read, write) = tokio::io::split(stream);
                Connection::over(read, write, address, config)
            }
        };
        let versions = connection.ask_versions().await?;
        connection.shared.versions.get_or_init(|| versions);
        if let Some(sasl) = &config.sasl
            && let Some(session) = sasl.log_in(&connection).await?
        {
            let until = Instant::now() + session.mul_f64(SESSION_PART);
            connection.shared.renewed_at.get_or_init(|| until);
        }
        Ok(connection)
    }

    fn over(
        read: impl AsyncRead + Unpin + Send + 'static,
        write: impl AsyncWrite + Unpin + Send + 'static,
        address: &str,
        config: &ClientConfig,
    ) -> Connection {
        let (queue, queued) = mpsc::channel(QUEUE_REQUESTS);
        let waiting = Arc::new(Waiting {
            address: address.to_owned(),
            state: Mutex::default(),
        });
        let reader = tokio::spawn(read_frames(
            read,
            waiting.clone(),
            config.response_bytes_max,
        ));
        let writer = tokio::spawn(write_requests(write, queued, waiting.clone()));
        Connection {
            shared: Arc::new(Shared {
                address: address.to_owned(),
                client_id: config.client_id.clone(),
                request_timeout: config.request_timeout,
                next_correlation_id: AtomicI32::new(1),
                queue,
                waiting,
                versions: OnceLock::new(),
                renewed_at: OnceLock::new(),
                tasks: [reader.abort_handle(), writer.abort_handle()],
            }),
        }
    }

    /// The broker's address, as it was connected to.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// What the broker has, by key.
    pub fn versions(&self) -> Versions {
        self.shared.versions.get().cloned().unwrap_or_default()
    }

    /// Whether it ended, or another is to take its place before its login ends.
    pub fn is_closed(&self) -> bool {
        let renewed_at = self.shared.renewed_at.get();
        renewed_at.is_some_and(|at| Instant::now() >= *at)
            || self.shared.waiting.lock().ended.is_some()
    }

    /// The newest version of a request that both sides know, and that is not above `version_max`.
    pub fn version_for<R: Request>(&self, version_max: i16) -> Result<i16> {
        let here = (R::VERSIONS.0, R::VERSIONS.1.min(version_max));
        let broker = self
            .shared
            .versions
            .get()
            .and_then(|all| all.get(&R::KEY.code()).copied());
        match broker {
            Some((first, last)) if first.max(here.0) <= last.min(here.1) => Ok(last.min(here.1)),
            broker => Err(Error::NoCommonVersion {
                key: R::KEY,
                broker,
                here,
            }),
        }
    }

    /// Sends a request in its newest version and waits for the answer.
    pub async fn call<R: Request>(&self, request: &R) -> Result<R::Response> {
        self.start(request, i16::MAX)
            .await?
            .wait(Duration::ZERO)
            .await
    }

    /// Sends a request in its newest version up to `version_max`. Requests leave in the order of these calls.
    pub async fn start<R: Request>(&self, request: &R, version_max: i16) -> Result<Pending<R>> {
        let version = self.version_for::<R>(version_max)?;
        self.start_as(request, version).await
    }

    async fn start_as<R: Request>(&self, request: &R, version: i16) -> Result<Pending<R>> {
        let (correlation_id, pieces) = self.encode(request, version)?;
        Ok(Pending {
            version,
            answer: self.ask(R::KEY, correlation_id, pieces).await?,
            request: PhantomData,
        })
    }

    /// Sends a request that the broker does not answer (Produce with acks=0). Yields once it is queued.
    pub async fn send_unanswered<R: Request>(&self, request: &R, version_max: i16) -> Result<()> {
        let version = self.version_for::<R>(version_max)?;
        let (_, pieces) = self.encode(request, version)?;
        self.enqueue(pieces, None).await
    }

    /// The pieces of a request's frame, and the id that its answer will carry.
    fn encode<R: Request>(&self, request: &R, version: i16) -> Result<(i32, Vec<Bytes>)> {
        let correlation_id = self
            .shared
            .next_correlation_id
            .fetch_add(1, Ordering::Relaxed);
        let client_id = Some(self.shared.client_id.clone());
        let header = RequestHeader {
            key: R::KEY,
            version,
            correlation_id,
            client_id,
        };
        Ok((correlation_id, frame::request(&header, request)?))
    }

    async fn ask(&self, key: ApiKey, correlation_id: i32, pieces: Vec<Bytes>) -> Result<Answer> {
        let (answer, frame) = oneshot::channel();
        let expected = Expected {
            correlation_id,
            answer,
        };
        self.enqueue(pieces, Some(expected)).await?;
        Ok(Answer {
            connection: self.clone(),
            key,
            frame,
        })
    }

    async fn enqueue(&self, pieces: Vec<Bytes>, expected: Option<Expected>) -> Result<()> {
        let outgoing = Outgoing { pieces, expected };
        self.shared
            .queue
            .send(outgoing)
            .await
            .map_err(|_| self.shared.waiting.reason())
    }

    /// ApiVersions, in the newest version that the broker takes: it answers an unknown one in version 0.
    async fn ask_versions(&self) -> Result<Versions> {
        let request = ApiVersionsRequest {
            client_software_name: "alluvium".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        for version in [ApiVersionsRequest::VERSIONS.1, 0] {
            let pending = self.start_as(&request, version).await?;
            let mut body = pending.answer.wait(Duration::ZERO).await?;
            let decode = |source| Error::Decode {
                key: ApiKey::ApiVersions,
                source,
            };
            wire::decode_response_header(&mut body, ApiKey::ApiVersions, version)
                .map_err(decode)?;
            let rest = body.remaining();
            let body = body.take(rest).map_err(decode)?;
            if body.starts_with(&ErrorCode::UnsupportedVersion.code().to_be_bytes()) && version > 0
            {
                continue;
            }
            let answer =
                ApiVersionsResponse::decode(&mut Reader::new(body), version).map_err(decode)?;
            crate::error::check(answer.error_code, || "versions".to_owned(), None)?;
            let ranges = answer
                .api_keys
                .iter()
                .map(|k| (k.api_key, (k.min_version, k.max_version)));
            return Ok(ranges.collect());
        }
        Err(Error::broker(
            ErrorCode::UnsupportedVersion,
            "versions",
            None,
        ))
    }
}

impl<R: Request> Pending<R> {
    /// The version that was sent.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Waits for the answer: the request timeout, and `longer` beside it for what the broker itself may wait.
    /// After a timeout the connection ends, as every later answer would stand behind this one.
    pub async fn wait(self, longer: Duration) -> Result<R::Response> {
        let version = self.version;
        let mut reader = self.answer.wait(longer).await?;
        let decode = |source| Error::Decode {
            key: R::KEY,
            source,
        };
        wire::decode_response_header(&mut reader, R::KEY, version).map_err(decode)?;
        R::Response::decode(&mut reader, version).map_err(decode)
    }
}

impl Answer {
    /// Waits as [`Pending::wait`] does. Yields the frame, header included.
    async fn wait(self, longer: Duration) -> Result<Reader> {
        let after = self
            .connection
            .shared
            .request_timeout
            .saturating_add(longer);
        match timeout(after, self.frame).await {
            Ok(Ok(frame)) => Ok(Reader::new(frame?)),
            // The writer dropped the request: the connection ended before it was written.
            Ok(Err(_)) => Err(self.connection.shared.waiting.reason()),
            Err(_) => {
                self.connection
                    .shared
                    .waiting
                    .end(Ended::because("an answer did not come in time"));
                let what = format!("{} to {}", self.key.name(), self.connection.address());
                Err(Error::TimedOut { what, after })
            }
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, WaitingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request that is about to be written, unless the connection ended.
    fn expect(&self, expected: Expected) -> bool {
        let mut state = self.lock();
        if state.ended.is_some() {
            return false;
        }
        state.answers.push_back(expected);
        true
    }

    /// Ends the connection for all that wait and all that come. The first reason stands.
    fn end(&self, reason: Ended) {
        let mut state = self.lock();
        let error = state.ended.get_or_insert(reason).error(&self.address);
        let answers = std::mem::take(&mut state.answers);
        drop(state);
        for expected in answers {
            // Nobody may be waiting any more.
            let _ = expected.answer.send(Err(error.clone()));
        }
    }

    fn reason(&self) -> Error {
        let ended = self.lock().ended.clone();
        let ended = ended.unwrap_or_else(|| Ended::because("it was closed"));
        ended.error(&self.address)
    }

    fn deliver(&self, frame: Bytes) -> std::result::Result<(), String> {
        let id = frame
            .first_chunk::<4>()
            .map(|b| i32::from_be_bytes(*b))
            .ok_or("an answer without a header")?;
        let expected = self
            .lock()
            .answers
            .pop_front()
            .ok_or("an answer that nobody asked for")?;
        if expected.correlation_id != id {
            let wanted = expected.correlation_id;
            let _ = expected.answer.send(Err(Error::Disconnected {
                address: self.address.clone(),
                reason: Arc::from("an answer out of order"),
            }));
            return Err(format!("an answer out of order: {id} instead of {wanted}"));
        }
        // Nobody may be waiting any more.
        let _ = expected.answer.send(Ok(frame));
        Ok(())
    }
}

async fn read_frames(mut from: impl AsyncRead + Unpin, waiting: Arc<Waiting>, bytes_max: usize) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let reason = loop {
        match frame::split(&mut buffer, bytes_max) {
            Ok(Some(frame)) => {
                if let Err(reason) = waiting.deliver(frame) {
                    break Ended::because(reason);
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                break match foreign_protocol(&buffer) {
                    Some(protocol) => Ended::Speaks(protocol),
                    None => Ended::because(error.to_string()),
                };
            }
        }
        let missing = frame::missing(&buffer).max(READ_BYTES);
        buffer.reserve(missing);
        match from.read_buf(&mut buffer).await {
            Ok(0) => break Ended::because("the broker closed it"),
            Ok(_) => {}
            Err(error) => break Ended::of_io(&error),
        }
        if waiting.lock().ended.is_some() {
            return;
        }
    };
    waiting.end(reason);
}

/// What the bytes of an answer say if they are no frame: who answers a Kafka request in another protocol does so at once.
fn foreign_protocol(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', ..] => Some("HTTP"),
        // An alert, in any version of TLS.
        [0x15, 0x03, 0..=4, ..] => Some("TLS"),
        _ => None,
    }
}

async fn write_requests(
    mut to: impl AsyncWrite + Unpin,
    mut queued: mpsc::Receiver<Outgoing>,
    waiting: Arc<Waiting>,
) {
    while let Some(outgoing) = queued.recv().await {
        if let Some(expected) = outgoing.expected
            && !waiting.expect(expected)
        {
            break;
        }
        if let Err(error) = write_pieces(&mut to, outgoing.pieces).await {
            waiting.end(Ended::of_io(&error));
            break;
        }
    }
    // Dropping the queue fails whatever still stands in it, and dropping the socket's half closes it.
    waiting.end(Ended::because("it was closed"));
}

async fn write_pieces(
    to: &mut (impl AsyncWrite + Unpin),
    pieces: Vec<Bytes>,
) -> std::io::Result<()> {
    let mut pieces: VecDeque<Bytes> = pieces.into();
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces
            .iter()
            .take(WRITE_PIECES)
            .map(|p| IoSlice::new(p))
            .collect();
        let mut written = to.write_vectored(&slices).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        while let Some(front) = pieces.front_mut() {
            if written < front.len() {
                bytes::Buf::advance(front, written);
                break;
            }
            written -= front.len();
            pieces.pop_front();
        }
    }
    to.flush().await
}
