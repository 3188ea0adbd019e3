//! Socket: the two directions of a connection, plain or encrypted.
//! Callers: `frame`, which reads and writes by them; `connection`, which cuts a stream into them.
//! Invariants: a plain connection's answers go from the log's maps to the kernel without a copy. An encrypted one's are copied
//! out of them by the kernel first (`copied`): a page that cannot be read ends the connection, and not the process.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::{BufMut as _, BytesMut};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf, ReadHalf as Part, WriteHalf as Rest,
};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_rustls::server::TlsStream;

use super::copied;
use crate::front::listener::Stream;

/// What is read of an encrypted connection that was silent, so that it holds no buffer: a length field.
const WAKE_BYTES: usize = 4;

/// What comes from the peer.
pub(super) enum Reading<'a> {
    Plain(ReadHalf<'a>),
    Tls(Part<&'a mut TlsStream<TcpStream>>),
}

/// What goes to the peer.
pub(super) enum Writing<'a> {
    Plain(WriteHalf<'a>),
    Tls(Rest<&'a mut TlsStream<TcpStream>>),
}

/// The two directions of a stream.
pub(super) fn split(stream: &mut Stream) -> (Reading<'_>, Writing<'_>) {
    match stream {
        Stream::Plain(stream) => {
            let (reading, writing) = stream.split();
            (Reading::Plain(reading), Writing::Plain(writing))
        }
        Stream::Tls(stream) => {
            let (reading, writing) = tokio::io::split(&mut **stream);
            (Reading::Tls(reading), Writing::Tls(writing))
        }
    }
}

impl Reading<'_> {
    /// Waits until there is something to read. What had to be read for that is in `buffer`, which was empty; false if the
    /// peer has closed. Cancelling the future loses no byte.
    pub(super) async fn arrived(&mut self, buffer: &mut BytesMut) -> io::Result<bool> {
        match self {
            Reading::Plain(half) => half.readable().await.map(|()| true),
            Reading::Tls(half) => {
                let received = woken(half, buffer).await?;
                Ok(received > 0)
            }
        }
    }

    /// Reads some of what there is.
    pub(super) async fn read_buf(&mut self, target: &mut impl bytes::BufMut) -> io::Result<usize> {
        match self {
            Reading::Plain(half) => half.read_buf(target).await,
            Reading::Tls(half) => half.read_buf(target).await,
        }
    }

    /// Waits until there is something to read, or the peer has closed: false. `buffer`, which was empty, gets what had to be
    /// read for that.
    pub(super) async fn is_open(&mut self, buffer: &mut BytesMut) -> bool {
        match self {
            Reading::Plain(half) => !matches!(half.peek(&mut [0; 1]).await, Ok(0) | Err(_)),
            Reading::Tls(half) => !matches!(woken(half, buffer).await, Ok(0) | Err(_)),
        }
    }
}

/// Reads a few bytes into `buffer`.
async fn woken(
    half: &mut Part<&mut TlsStream<TcpStream>>,
    buffer: &mut BytesMut,
) -> io::Result<usize> {
    let mut first = [0; WAKE_BYTES];
    std::future::poll_fn(|context| {
        let mut target = ReadBuf::new(&mut first);
        ready!(Pin::new(&mut *half).poll_read(context, &mut target))?;
        buffer.put_slice(target.filled());
        Poll::Ready(Ok(target.filled().len()))
    })
    .await
}

impl Writing<'_> {
    /// Writes some of these slices; how many bytes.
    pub(super) async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Writing::Plain(half) => half.write_vectored(slices).await,
            Writing::Tls(half) => {
                let piece = copied::copied(slices)?;
                half.write_all(&piece).await?;
                Ok(piece.len())
            }
        }
    }

    /// Sends what is written and was not sent yet.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match self {
            // Nothing is held back.
            Writing::Plain(_) => Ok(()),
            Writing::Tls(half) => half.flush().await,
        }
    }
}
