//! Frames: cuts a connection's bytes into requests, and writes responses.
//! Callers: `connection` only.
//! Invariants: a length field is checked against the bound before it is believed, and memory grows with the bytes
//! that have arrived, not with what a length promises. What frames of all connections hold beyond their first
//! [`FIRST_READ_BYTES`] is taken from one budget before it is allocated. An idle connection holds no buffer.
//! `FrameReader::next` loses nothing when it is cancelled. A message of a login is cleared from memory once it was taken.
//! Source: a frame is a big-endian i32 length and as many bytes.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::time::Instant;
use wire::ApiKey;
use zeroize::{Zeroize as _, Zeroizing};

use super::socket::{Reading, Writing};
use crate::front::budget::{Budget, Claim, ClaimError};

/// The length field of a frame.
pub(super) const LENGTH_BYTES: usize = 4;
/// The smallest header: API key, version, correlation id.
const FRAME_BYTES_MIN: usize = 8;
/// What is read when nothing is known of the next frame; most requests but Produce fit.
const FIRST_READ_BYTES: usize = 4 * 1024;
/// A promised length up to this is reserved at once; a larger frame doubles as its bytes arrive.
const RESERVE_BYTES_MAX: usize = 1024 * 1024;
/// Slices handed to one vectored write; the kernel takes at most 1,024.
const SLICES_MAX: usize = 64;

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The length field is outside the bounds.
    #[error("a frame of {bytes} bytes is outside {FRAME_BYTES_MIN}..={bytes_max}")]
    Length {
        /// What the length field says.
        bytes: i32,
        /// The bound, `socket.request.max.bytes`.
        bytes_max: usize,
    },
    /// The peer closed in the middle of a frame.
    #[error("the peer closed after {received} bytes of a frame")]
    Truncated {
        /// Bytes of the unfinished frame.
        received: usize,
    },
    /// Others waited for the memory that this frame held.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// A whole frame without its length field, with the memory that it holds if that is more than [`FIRST_READ_BYTES`].
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) claim: Option<Claim>,
}

/// Reads frames off one socket.
pub(super) struct FrameReader<'a> {
    socket: Reading<'a>,
    buffer: BytesMut,
    frame_bytes_min: usize,
    frame_bytes_max: usize,
    budget: Arc<Budget>,
    /// What the unfinished frame holds.
    claim: Option<Claim>,
}

impl<'a> FrameReader<'a> {
    /// One claim of `budget` may hold `frame_bytes_max` and a length field.
    pub(super) fn new(
        socket: Reading<'a>,
        frame_bytes_max: usize,
        budget: Arc<Budget>,
    ) -> FrameReader<'a> {
        FrameReader {
            socket,
            buffer: BytesMut::new(),
            frame_bytes_min: FRAME_BYTES_MIN,
            frame_bytes_max,
            budget,
            claim: None,
        }
    }

    /// How long the frames after the last one may be: no longer than at first, and without a header if they are bare.
    pub(super) fn bound(&mut self, is_bare: bool, frame_bytes_max: usize) {
        self.frame_bytes_min = if is_bare { 0 } else { FRAME_BYTES_MIN };
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The next frame, or `None` when the peer closed between two frames. Waits, without reading on, while others hold all
    /// the memory that there is for frames. Cancelling the future loses no byte.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let missing_bytes = match self.frame_bytes()? {
                Some(frame_bytes) => {
                    match (LENGTH_BYTES + frame_bytes).checked_sub(self.buffer.len()) {
                        None | Some(0) => {
                            self.buffer.advance(LENGTH_BYTES);
                            let claim = self.claim.take();
                            if let Some(claim) = &claim {
                                claim.received();
                            }
                            let bytes = self.buffer.split_to(frame_bytes);
                            let bytes = match self.frame_bytes_min == 0 || is_secret(&bytes) {
                                true => cleared_when_dropped(bytes),
                                false => bytes.freeze(),
                            };
                            return Ok(Some(Frame { bytes, claim }));
                        }
                        Some(missing_bytes) => missing_bytes,
                    }
                }
                None => FIRST_READ_BYTES,
            };
            if self.buffer.is_empty() {
                // Idle: the memory goes back until something arrives.
                self.buffer = BytesMut::new();
                if !self.socket.arrived(&mut self.buffer).await? {
                    return Ok(None);
                }
                if !self.buffer.is_empty() {
                    continue;
                }
            }
            let room = missing_bytes.min((self.buffer.len() / 4).max(RESERVE_BYTES_MAX));
            let total = self.buffer.len() + room;
            if total > FIRST_READ_BYTES {
                let claim = self.claim.get_or_insert_with(|| self.budget.claim());
                claim.hold(total, missing_bytes - room).await?;
                claim.await_peer();
            }
            self.buffer.reserve(room);
            let mut target = (&mut self.buffer).limit(room);
            let read = self.socket.read_buf(&mut target);
            let received = match &self.claim {
                None => read.await?,
                Some(claim) => {
                    let received = tokio::select! {
                        biased;
                        read = read => read?,
                        () = claim.evicted() => return Err(ClaimError::Evicted.into()),
                    };
                    claim.moved(received);
                    received
                }
            };
            if received == 0 {
                return match self.buffer.len() {
                    0 => Ok(None),
                    received => Err(FrameError::Truncated { received }),
                };
            }
        }
    }

    /// The length of the frame at the head of the buffer, once its length field is there.
    fn frame_bytes(&self) -> Result<Option<usize>, FrameError> {
        let Some(field) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let bytes = i32::from_be_bytes(*field);
        match usize::try_from(bytes) {
            Ok(frame_bytes)
                if (self.frame_bytes_min..=self.frame_bytes_max).contains(&frame_bytes) =>
            {
                Ok(Some(frame_bytes))
            }
            _ => Err(FrameError::Length {
                bytes,
                bytes_max: self.frame_bytes_max,
            }),
        }
    }

    /// Resolves once the peer has closed its side. Never resolves while unread bytes are waiting, because then
    /// only reading them could tell.
    pub(super) async fn closed(&mut self) {
        if self.buffer.is_empty() && !self.socket.is_open(&mut self.buffer).await {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Whether a frame may hold a password: it says SaslAuthenticate first.
fn is_secret(frame: &[u8]) -> bool {
    frame.starts_with(&ApiKey::SaslAuthenticate.code().to_be_bytes())
}

/// The same bytes, which nobody finds in memory when they were taken.
fn cleared_when_dropped(mut bytes: BytesMut) -> Bytes {
    let copy = Zeroizing::new(bytes.to_vec());
    bytes.as_mut().zeroize();
    Bytes::from_owner(copy)
}

/// Writes the slices in order by vectored writes, without copying them unless they are encrypted. `TimedOut` if the peer has not taken all of them
/// after `most`; `moved` is called with what it takes.
pub(super) async fn write_all(
    socket: &mut Writing<'_>,
    slices: &[Bytes],
    most: Duration,
    moved: impl Fn(usize),
) -> io::Result<()> {
    let deadline = Instant::now() + most;
    let mut slice_index = 0;
    let mut written_in_slice = 0;
    while slice_index < slices.len() {
        let written = {
            let window = &slices[slice_index..slices.len().min(slice_index + SLICES_MAX)];
            let mut vector = [IoSlice::new(&[]); SLICES_MAX];
            for (position, slice) in window.iter().enumerate() {
                let skip = if position == 0 { written_in_slice } else { 0 };
                vector[position] = IoSlice::new(&slice[skip..]);
            }
            tokio::time::timeout_at(deadline, socket.write_vectored(&vector[..window.len()]))
                .await
                .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?
        };
        moved(written);
        let mut left = written;
        while slice_index < slices.len() {
            let rest = slices[slice_index].len() - written_in_slice;
            if left < rest {
                written_in_slice += left;
                break;
            }
            left -= rest;
            slice_index += 1;
            written_in_slice = 0;
        }
        if written == 0 && slice_index < slices.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    tokio::time::timeout_at(deadline, socket.flush())
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    fn reader(socket: Reading<'_>, frame_bytes_max: usize) -> FrameReader<'_> {
        let most = frame_bytes_max + LENGTH_BYTES;
        FrameReader::new(socket, frame_bytes_max, Budget::new(2 * most, most))
    }

    /// Sends `bytes` and closes; returns the frames read and how the reading ended.
    async fn check(bytes: Vec<u8>, frame_bytes_max: usize) -> (Vec<Bytes>, Result<(), String>) {
        let (mut near, mut far) = pair().await;
        let sender = tokio::spawn(async move {
            // The reader may refuse and close first.
            let _ = near.write_all(&bytes).await;
        });
        let (read_half, _write_half) = far.split();
        let mut reader = reader(Reading::Plain(read_half), frame_bytes_max);
        let mut frames = Vec::new();
        let end = loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame.bytes),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        drop(far);
        sender.await.unwrap();
        (frames, end)
    }

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[tokio::test]
    async fn frames_come_out_in_order_whatever_their_size() {
        let payloads: Vec<Vec<u8>> = [8usize, 4096, 9, 3_000_000, 4092, 4093, 1_048_576]
            .iter()
            .map(|&size| vec![(size % 251) as u8; size])
            .collect();
        let bytes = payloads
            .iter()
            .flat_map(|payload| framed(payload))
            .collect();
        let (frames, end) = check(bytes, 100 << 20).await;
        assert_eq!(end, Ok(()));
        assert_eq!(frames, payloads);
    }

    #[tokio::test]
    async fn lengths_outside_the_bounds_are_refused_before_any_byte_is_awaited() {
        for length in [-1i32, i32::MIN, 0, 7, 101, i32::MAX] {
            let (frames, end) = check(length.to_be_bytes().to_vec(), 100).await;
            assert!(frames.is_empty());
            assert!(
                end.unwrap_err().contains("outside 8..=100"),
                "length {length}"
            );
        }
    }

    #[tokio::test]
    async fn a_promised_length_is_not_allocated() {
        let (mut near, mut far) = pair().await;
        near.write_all(&(100i32 << 20).to_be_bytes()).await.unwrap();
        near.write_all(&[0; 10]).await.unwrap();
        drop(near);
        let (read_half, _write_half) = far.split();
        let mut reader = reader(Reading::Plain(read_half), 100 << 20);
        assert!(matches!(
            reader.next().await,
            Err(FrameError::Truncated { received: 14 })
        ));
        assert!(reader.buffer.capacity() <= 2 * RESERVE_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (mut near, mut far) = pair().await;
        let bytes = framed(&[7; 20]);
        let (read_half, _write_half) = far.split();
        let mut reader = reader(Reading::Plain(read_half), 1000);
        near.write_all(&bytes[..10]).await.unwrap();
        tokio::select! {
            biased;
            _ = reader.next() => panic!("half a frame is no frame"),
            () = async { for _ in 0..50 { tokio::task::yield_now().await } } => {}
        }
        near.write_all(&bytes[10..]).await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap().bytes, vec![7; 20]);
    }

    #[tokio::test]
    async fn writes_arrive_whole_and_in_order_with_more_slices_than_one_write_takes() {
        let (mut near, mut far) = pair().await;
        let slices: Vec<Bytes> = (0..300usize)
            .map(|n| Bytes::from(vec![(n % 251) as u8; (n * 37) % 20_000]))
            .collect();
        let expected: Vec<u8> = slices.iter().flatten().copied().collect();
        let reader = tokio::spawn(async move {
            let mut received = Vec::new();
            far.read_to_end(&mut received).await.unwrap();
            received
        });
        {
            let (_read_half, write_half) = near.split();
            write_all(
                &mut Writing::Plain(write_half),
                &slices,
                Duration::from_secs(60),
                |_| {},
            )
            .await
            .unwrap();
        }
        drop(near);
        assert!(reader.await.unwrap() == expected);
    }

    #[tokio::test]
    async fn half_received_frames_hold_no_more_than_the_budget_and_none_waits_for_ever() {
        const FRAME_BYTES: usize = 3 << 20;
        let budget = Budget::new(8 << 20, FRAME_BYTES + LENGTH_BYTES);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let senders = (0..20).map(|n| async move {
            let mut near = TcpStream::connect(address).await.unwrap();
            // One in three stops in the middle of its frame and stays.
            let bytes = framed(&vec![n; FRAME_BYTES]);
            let sent = if n % 3 == 0 {
                bytes.len() / 2
            } else {
                bytes.len()
            };
            let _ = near.write_all(&bytes[..sent]).await;
            near
        });
        let senders = tokio::spawn(futures_util::future::join_all(senders));
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (mut far, _) = listener.accept().await.unwrap();
            let budget = budget.clone();
            readers.spawn(async move {
                let (read_half, _write_half) = far.split();
                let mut reader = FrameReader::new(Reading::Plain(read_half), FRAME_BYTES, budget);
                reader.next().await.is_ok_and(|frame| frame.is_some())
            });
        }
        let mut whole = 0;
        while whole < 13 {
            // Those that stand still are evicted, but for some at the end: nobody needs what they hold.
            let read = readers.join_next().await.expect("13 senders sent all");
            whole += usize::from(read.unwrap());
        }
        assert!(budget.usage().held_most <= 8 << 20, "{:?}", budget.usage());
        drop(senders);
    }
}
