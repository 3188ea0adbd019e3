//! A connection's bytes: read into memory that is counted, and written as the peer takes them.
//! Callers: `connection`. What is given up loses nothing. A connection from which nothing comes holds no buffer.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use amqp::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::{Instant, timeout};

use super::errors::Ending;
use super::state::Front;
use crate::front::budget::{Claim, ClaimError};
use crate::front::listener::AnyStream;

/// What is read at once from a connection that has been quiet, into the task itself.
const QUIET_BYTES: usize = 256;
/// What is read at once from one that sends much. So much is not counted.
const BUSY_BYTES: usize = 16 << 10;
/// How long a last word may take to leave.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);
/// How long, and how much, is read and forgotten behind the last word: a socket that is closed with bytes that nobody has read is
/// reset, and with it what was said last may be lost.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 << 10;

/// The reading side.
pub(super) struct Reader {
    front: Arc<Front>,
    stream: ReadHalf<AnyStream>,
    /// What was read and is not taken.
    pub(super) input: BytesMut,
    is_busy: bool,
    claim: Option<Claim>,
}

impl Reader {
    pub(super) fn new(front: &Arc<Front>, stream: ReadHalf<AnyStream>) -> Reader {
        Reader {
            front: Arc::clone(front),
            stream,
            input: BytesMut::new(),
            is_busy: false,
            claim: None,
        }
    }

    /// Says what the connection holds besides: what is not held any more is given back. While the server does not read, the peer
    /// is not the one that is slow.
    pub(super) fn holds(&mut self, others: usize, reads: bool) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        let held = self.input.len() + others;
        if held <= BUSY_BYTES {
            self.claim = None;
        } else if let Some(claim) = &self.claim {
            claim.shrink(held + BUSY_BYTES);
            if !reads {
                claim.received();
            }
        }
    }

    /// Reads what has come; `others` is what the connection holds besides, of which `partial` is what the peer has to go on with.
    pub(super) async fn read(&mut self, others: usize, partial: bool) -> Result<(), Ending> {
        let gone = |error: std::io::Error| {
            tracing::debug!(%error, "an AMQP connection could not be read");
            Ending::Over
        };
        let held = self.input.len() + others;
        let count = if held == 0 && !self.is_busy {
            let mut quiet = [0; QUIET_BYTES];
            let count = self.stream.read(&mut quiet).await.map_err(gone)?;
            self.input.extend_from_slice(&quiet[..count]);
            self.is_busy = count == QUIET_BYTES;
            count
        } else if held <= BUSY_BYTES {
            self.input.reserve(BUSY_BYTES);
            let count = self.stream.read_buf(&mut self.input).await.map_err(gone)?;
            self.is_busy = count > QUIET_BYTES;
            count
        } else {
            let budget = &self.front.received;
            let claim = self.claim.get_or_insert_with(|| budget.claim());
            let total = held + BUSY_BYTES;
            claim.hold(total, 0).await.map_err(|error| match error {
                ClaimError::Evicted | ClaimError::TooLarge { .. } => Ending::Evicted,
            })?;
            match partial || !self.input.is_empty() {
                true => claim.await_peer(),
                false => claim.received(),
            }
            self.input.reserve(BUSY_BYTES);
            let count = tokio::select! {
                read = self.stream.read_buf(&mut self.input) => read.map_err(gone)?,
                () = claim.evicted() => return Err(Ending::Evicted),
            };
            claim.moved(count);
            count
        };
        if count == 0 {
            return Err(Ending::Over);
        }
        let received = &self.front.stats.received_bytes;
        received.fetch_add(count as u64, Relaxed);
        Ok(())
    }

    /// Reads what still comes, and forgets it.
    pub(super) async fn linger(&mut self) {
        self.input = BytesMut::new();
        let forget = async {
            let mut forgotten = 0;
            let mut piece = [0; QUIET_BYTES];
            while forgotten < LINGER_BYTES_MAX {
                match self.stream.read(&mut piece).await {
                    Ok(count) if count > 0 => forgotten += count,
                    _ => return,
                }
            }
        };
        let _ = timeout(LINGER_MAX, forget).await;
    }
}

/// The writing side.
pub(super) struct Writer {
    front: Arc<Front>,
    stream: WriteHalf<AnyStream>,
    /// Whether what was written may wait in the stream.
    is_dirty: bool,
    /// When the peer last took something, or had nothing to take.
    pub(super) moved_at: Instant,
}

impl Writer {
    pub(super) fn new(front: &Arc<Front>, stream: WriteHalf<AnyStream>) -> Writer {
        Writer {
            front: Arc::clone(front),
            stream,
            is_dirty: false,
            moved_at: Instant::now(),
        }
    }

    /// Whether something is to be sent.
    pub(super) fn has_something(&self, out: &BytesMut) -> bool {
        !out.is_empty() || self.is_dirty
    }

    /// Sends something of it.
    pub(super) async fn write(&mut self, out: &mut BytesMut) -> Result<(), Ending> {
        if out.is_empty() {
            self.stream.flush().await.map_err(|_| Ending::Over)?;
            self.is_dirty = false;
            return Ok(());
        }
        let count = self.stream.write_buf(out).await;
        let count = count.map_err(|_| Ending::Over)?;
        if count == 0 {
            return Err(Ending::Over);
        }
        self.is_dirty = true;
        self.moved_at = Instant::now();
        self.front.stats.sent_bytes.fetch_add(count as u64, Relaxed);
        if out.is_empty() {
            // Memory that an idle connection would hold.
            *out = BytesMut::new();
        }
        Ok(())
    }

    /// Sends all that is left, and ends the stream.
    pub(super) async fn last(&mut self, out: &mut BytesMut) {
        let sent = async {
            while self.has_something(out) {
                if self.write(out).await.is_err() {
                    return;
                }
            }
            let _ = self.stream.shutdown().await;
        };
        let _ = timeout(LAST_WORDS_MAX, sent).await;
    }
}
