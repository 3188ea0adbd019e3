//! Frames: cuts packets off a connection's stream. A packet's length is checked before a buffer grows for it, what a longer packet
//! grows to is taken from a budget that all connections share, and a connection from which nothing comes holds no buffer.
//! Callers: `greeting` and `connection`. A read that is given up loses nothing.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::ending::Ending;
use super::packet::{Fault, header};
use crate::front::budget::{Budget, Claim, ClaimError};

/// What is read at once from a connection that has been quiet, onto the stack: so it holds no buffer while it waits.
const QUIET_BYTES: usize = 4 << 10;
/// What is read and forgotten at once.
const FORGOTTEN_BYTES: usize = 256;
/// What is read at once from one that sends much. So much of a buffer is not counted in the budget.
const BUSY_BYTES: usize = 8 << 10;

/// So much is read and forgotten after the last packet.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// A packet: its header's first byte, and what lies behind the header.
#[derive(Debug)]
pub(super) struct Frame {
    /// Type and flags.
    pub(super) first: u8,
    /// What follows the header.
    pub(super) body: Bytes,
    /// Bytes of the whole packet.
    pub(super) bytes: usize,
    /// The memory that it takes from the budget, until it is dropped.
    _claim: Option<Claim>,
}

/// The reading side of a connection.
pub(super) struct Frames<R> {
    stream: R,
    buffer: BytesMut,
    /// Whether more came at once than a quiet connection sends.
    is_busy: bool,
    budget: Arc<Budget>,
    claim: Option<Claim>,
    /// The longest packet that is taken now.
    packet_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// Over a stream, whose packets have so many bytes at most.
    pub(super) fn new(stream: R, budget: Arc<Budget>, packet_bytes_max: usize) -> Frames<R> {
        Frames {
            stream,
            buffer: BytesMut::new(),
            is_busy: false,
            budget,
            claim: None,
            packet_bytes_max,
        }
    }

    /// From now on packets may have so many bytes.
    pub(super) fn limit(&mut self, packet_bytes_max: usize) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// The next packet; None where the peer ends between two.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, Ending> {
        loop {
            let missing = match self.cut()? {
                Ok(frame) => return Ok(Some(frame)),
                Err(missing) => missing,
            };
            let read = self.read(missing).await;
            match read? {
                0 if self.buffer.is_empty() => return Ok(None),
                0 => return Err(Ending::Gone),
                _ => {}
            }
        }
    }

    /// Reads what still comes, and forgets it: a socket that is closed with bytes that nobody has read is reset, and with it the last
    /// packet may be lost.
    pub(super) async fn linger(&mut self) {
        self.buffer = BytesMut::new();
        let mut forgotten = 0;
        let mut piece = [0; FORGOTTEN_BYTES];
        while forgotten < LINGER_BYTES_MAX {
            match self.stream.read(&mut piece).await {
                Ok(count) if count > 0 => forgotten += count,
                _ => return,
            }
        }
    }

    /// The packet at the beginning of the buffer; or how many bytes of it are missing at least.
    fn cut(&mut self) -> Result<Result<Frame, usize>, Ending> {
        const LENGTH: Fault = Fault::Malformed("a length of more than four bytes");
        let Some(header) = header(&self.buffer).map_err(|_| LENGTH)? else {
            return Ok(Err(1));
        };
        if header.packet_bytes > self.packet_bytes_max {
            let bytes_max = self.packet_bytes_max;
            return Err(Ending::TooLarge { bytes_max });
        }
        if let Some(missing) = header.packet_bytes.checked_sub(self.buffer.len())
            && missing > 0
        {
            return Ok(Err(missing));
        }
        let mut packet = self.buffer.split_to(header.packet_bytes).freeze();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        let claim = self.claim.take();
        if let Some(claim) = &claim {
            claim.received();
        }
        Ok(Ok(Frame {
            first: header.first,
            bytes: header.packet_bytes,
            body: packet.split_off(header.header_bytes),
            _claim: claim,
        }))
    }

    /// Whether nothing of a packet is here yet.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Reads what has come where nothing was here.
    fn poll_quiet(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut quiet = [MaybeUninit::uninit(); QUIET_BYTES];
        let mut quiet = ReadBuf::uninit(&mut quiet);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut quiet))?;
        let read = quiet.filled();
        self.buffer.extend_from_slice(read);
        self.is_busy = read.len() == QUIET_BYTES;
        Poll::Ready(Ok(read.len()))
    }

    /// Resolves when something has come where nothing was here; the end of the stream is an ending.
    pub(super) fn poll_came(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        assert!(self.is_empty(), "what is here is to be taken first");
        Poll::Ready(match ready!(self.poll_quiet(context)) {
            Ok(0) => Err(Ending::Gone),
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "an MQTT connection could not be read");
                Err(Ending::Gone)
            }
        })
    }

    /// Reads what has come, of which so much is wanted at least.
    async fn read(&mut self, missing: usize) -> Result<usize, Ending> {
        let gone = |error: io::Error| {
            tracing::debug!(%error, "an MQTT connection could not be read");
            Ending::Gone
        };
        if self.buffer.is_empty() && !self.is_busy {
            let read = std::future::poll_fn(|context| self.poll_quiet(context));
            return read.await.map_err(gone);
        }
        let wanted = missing.max(BUSY_BYTES);
        let total = self.buffer.len() + missing;
        if total <= BUSY_BYTES {
            self.buffer.reserve(wanted);
            let count = self.stream.read_buf(&mut self.buffer).await.map_err(gone)?;
            self.is_busy = count >= QUIET_BYTES;
            return Ok(count);
        }
        let claim = self.claim.get_or_insert_with(|| self.budget.claim());
        claim.hold(total, 0).await.map_err(|error| match error {
            ClaimError::Evicted => Ending::Evicted,
            ClaimError::TooLarge { bytes_max } => Ending::TooLarge { bytes_max },
        })?;
        claim.await_peer();
        self.buffer.reserve(missing);
        let mut rest = (&mut self.stream).take(missing as u64);
        let count = tokio::select! {
            read = rest.read_buf(&mut self.buffer) => read.map_err(gone)?,
            () = claim.evicted() => return Err(Ending::Evicted),
        };
        claim.moved(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn frames<R: AsyncRead + Unpin>(stream: R) -> Frames<R> {
        Frames::new(stream, Budget::new(1 << 20, 256 << 10), 100_000)
    }

    fn packet(first: u8, length: usize) -> Vec<u8> {
        let mut packet = bytes::BytesMut::new();
        bytes::BufMut::put_u8(&mut packet, first);
        let mut rest = length;
        loop {
            let byte = (rest & 0x7f) as u8;
            rest >>= 7;
            bytes::BufMut::put_u8(&mut packet, byte | if rest > 0 { 0x80 } else { 0 });
            if rest == 0 {
                break;
            }
        }
        packet.extend((0..length).map(|index| index as u8));
        packet.to_vec()
    }

    #[tokio::test]
    async fn packets_come_whole_however_the_bytes_come() {
        let lengths = [0, 1, 5, 127, 128, 300, 20_000, 2, 99_990, 0];
        let all: Vec<u8> = lengths.iter().flat_map(|it| packet(0x30, *it)).collect();
        for piece in [1, 7, 255, 256, 257, 9_000, all.len()] {
            let (mut theirs, ours) = tokio::io::duplex(4_096);
            let mut frames = frames(ours);
            let sent = all.clone();
            let sending = tokio::spawn(async move {
                for piece in sent.chunks(piece) {
                    theirs.write_all(piece).await.expect("it is read");
                }
            });
            for length in lengths {
                let frame = frames.next().await.expect("a packet").expect("one more");
                assert_eq!(frame.body.len(), length);
                assert!(
                    frame
                        .body
                        .iter()
                        .enumerate()
                        .all(|(at, it)| *it == at as u8)
                );
            }
            assert!(frames.next().await.expect("the end").is_none());
            sending.await.expect("all was sent");
        }
    }

    #[tokio::test]
    async fn a_length_is_judged_before_anything_is_kept_for_it() {
        // 256 MiB, of which nothing else comes.
        let mut claimed = frames(&[0x30, 0xff, 0xff, 0xff, 0x7f][..]);
        let ending = claimed.next().await.expect_err("too long");
        assert_eq!(ending, Ending::TooLarge { bytes_max: 100_000 });
        assert!(claimed.buffer.capacity() <= QUIET_BYTES);
        let mut longer = frames(&[0x30, 0xff, 0xff, 0xff, 0xff][..]);
        let ending = longer.next().await.expect_err("no length");
        assert!(matches!(ending, Ending::Fault(Fault::Malformed(_))));
        // The limit itself passes, one byte more does not.
        let limit = packet(0x30, 99_996);
        assert_eq!(limit.len(), 100_000);
        assert!(frames(&limit[..]).next().await.expect("a packet").is_some());
        let over = packet(0x30, 99_997);
        assert!(frames(&over[..]).next().await.is_err());
    }

    #[tokio::test]
    async fn an_end_inside_of_a_packet_is_no_end_between_two() {
        let packet = packet(0x30, 300);
        for cut in 1..packet.len() {
            let ending = frames(&packet[..cut]).next().await.expect_err("cut");
            assert_eq!(ending, Ending::Gone, "{cut}");
        }
    }
}
