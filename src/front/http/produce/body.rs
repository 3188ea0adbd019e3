//! A body's bytes as they come: decompressed, in pieces of bounded size, and late if nothing comes for too long.
//!
//! Memory beyond a small piece is taken from what all bodies may hold together ([`Memory`]); who cannot have it is told so, and
//! waits for nothing that another body holds.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::fault::Stop;

/// A body of which nothing comes for so long is late.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// What is decompressed at a time.
const PIECE_BYTES: usize = 128 << 10;
/// A body may be so many times as long decompressed, beyond the first [`FREE_BYTES`]: telemetry repeats itself, a bomb does
/// nothing else.
const RATIO_MAX: u64 = 1_000;
const FREE_BYTES: u64 = 16 << 20;
/// A frame of zstd may look back so far (RFC 9659, which HTTP's `zstd` is bound by).
const WINDOW_BYTES: usize = 8 << 20;
const WINDOW_LOG_MAX: u32 = WINDOW_BYTES.ilog2();
/// What all bodies together may hold beside their small pieces.
const MEMORY_BYTES: usize = 128 << 20;
/// How long a body waits for memory before it has taken any.
const MEMORY_WAIT: Duration = Duration::from_secs(5);

/// What bodies may hold, all of them together.
#[derive(Debug, Clone)]
pub(in crate::front::http) struct Memory(Arc<Semaphore>);

/// A part of it.
#[derive(Debug)]
pub(super) struct Held {
    memory: Memory,
    permit: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Nothing is held yet.
    pub fn new() -> Memory {
        Memory(Arc::new(Semaphore::new(MEMORY_BYTES)))
    }

    /// Holds nothing yet.
    pub(super) fn holder(&self) -> Held {
        Held {
            memory: self.clone(),
            permit: None,
        }
    }
}

impl Held {
    /// Holds at least so much from now on, if it is to be had at once.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Stop> {
        let held = self
            .permit
            .as_ref()
            .map_or(0, |permit| permit.num_permits());
        let Some(more) = bytes.checked_sub(held).filter(|more| *more > 0) else {
            return Ok(());
        };
        let more = u32::try_from(more).map_err(|_| Stop::Overloaded)?;
        let permit = Arc::clone(&self.memory.0).try_acquire_many_owned(more);
        let permit = permit.map_err(|_| Stop::Overloaded)?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }

    /// Waits a little for so much, holding nothing.
    async fn wait_for(&mut self, bytes: usize) -> Result<(), Stop> {
        let bytes = u32::try_from(bytes).map_err(|_| Stop::Overloaded)?;
        let permit = Arc::clone(&self.memory.0).acquire_many_owned(bytes);
        let permit = tokio::time::timeout(MEMORY_WAIT, permit).await;
        let permit = permit.map_err(|_| Stop::Overloaded)?;
        self.permit = Some(permit.expect("nobody closes what bodies hold"));
        Ok(())
    }
}

enum Inflate {
    Gzip(Box<Decompress>),
    Zstd {
        decoder: Box<Decoder<'static>>,
        /// What its window may take.
        _held: Held,
    },
}

/// See the module.
pub(super) struct BodyReader {
    body: Body,
    inflate: Option<Inflate>,
    /// What came and is not decompressed yet.
    rest: Bytes,
    /// Between two members or frames: the body may end here.
    at_end_of_member: bool,
    wire_bytes: u64,
    bytes: u64,
    /// Of the bytes as they came.
    hash: Option<Sha256>,
}

impl BodyReader {
    /// Reads a body with this content encoding.
    pub async fn new(body: Body, encoding: &str, memory: &Memory) -> Result<BodyReader, Stop> {
        let inflate = match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => None,
            "gzip" | "x-gzip" => Some(Inflate::Gzip(Box::new(Decompress::new_gzip(15)))),
            "zstd" => {
                let mut held = memory.holder();
                held.wait_for(WINDOW_BYTES).await?;
                let decoder = Decoder::new().and_then(|mut decoder| {
                    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
                    Ok(decoder)
                });
                let decoder = decoder.map_err(|error| Stop::Body(error.to_string()))?;
                Some(Inflate::Zstd {
                    decoder: Box::new(decoder),
                    _held: held,
                })
            }
            _ => return Err(Stop::Encoding(encoding.to_owned())),
        };
        Ok(BodyReader {
            body,
            inflate,
            rest: Bytes::new(),
            at_end_of_member: true,
            wire_bytes: 0,
            bytes: 0,
            hash: None,
        })
    }

    /// From now on the bytes are hashed as they come, on what was hashed before.
    pub fn hash(&mut self, before: Sha256) {
        self.hash = Some(before);
    }

    /// The hash, if that was asked for.
    pub fn hashed(&mut self) -> Option<[u8; 32]> {
        Some(self.hash.take()?.finalize().into())
    }

    /// The next bytes; None at the end of the body.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        loop {
            if self.inflate.is_some() && !self.rest.is_empty() {
                let piece = self.inflate()?;
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
                continue;
            }
            let Some(bytes) = self.receive().await? else {
                if self.inflate.is_some() && !self.at_end_of_member {
                    let reason = "the compressed body breaks off";
                    return Err(Stop::Body(reason.to_owned()));
                }
                return Ok(None);
            };
            if self.inflate.is_none() {
                return Ok(Some(bytes));
            }
            self.rest = bytes;
        }
    }

    /// The next bytes as they come.
    async fn receive(&mut self) -> Result<Option<Bytes>, Stop> {
        loop {
            let frame = tokio::time::timeout(SILENT_MAX, self.body.frame()).await;
            let frame = frame.map_err(|_| Stop::Late {
                seconds_max: SILENT_MAX.as_secs(),
            })?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame
                .map_err(|error| Stop::Body(format!("the body could not be read: {error}")))?;
            // What is no data is trailers.
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                self.wire_bytes += bytes.len() as u64;
                if let Some(hash) = &mut self.hash {
                    hash.update(&bytes);
                }
                return Ok(Some(bytes));
            }
        }
    }

    /// Decompresses a piece of what came.
    fn inflate(&mut self) -> Result<Bytes, Stop> {
        let mut piece = vec![0; PIECE_BYTES];
        let (taken, written, ended) = match &mut self.inflate {
            Some(Inflate::Gzip(gzip)) => {
                if self.at_end_of_member {
                    gzip.reset(true);
                    **gzip = Decompress::new_gzip(15);
                }
                let (read_before, written_before) = (gzip.total_in(), gzip.total_out());
                let status = gzip.decompress(&self.rest, &mut piece, FlushDecompress::None);
                let status =
                    status.map_err(|error| Stop::Body(format!("the body is no gzip: {error}")))?;
                let taken = gzip.total_in() - read_before;
                let written = gzip.total_out() - written_before;
                (
                    usize::try_from(taken).expect("no more than there was"),
                    usize::try_from(written).expect("no more than fits"),
                    status == Status::StreamEnd,
                )
            }
            Some(Inflate::Zstd { decoder, .. }) => {
                let mut input = InBuffer::around(&self.rest);
                let mut output = OutBuffer::around(&mut piece);
                let left = decoder
                    .run(&mut input, &mut output)
                    .map_err(|error| Stop::Body(format!("the body is no zstd: {error}")))?;
                (input.pos(), output.pos(), left == 0)
            }
            None => unreachable!("only what is compressed is decompressed"),
        };
        self.at_end_of_member = ended;
        self.rest = self.rest.slice(taken..);
        if taken == 0 && written == 0 && !ended {
            return Err(Stop::Body("the compressed body does not go on".to_owned()));
        }
        self.bytes += written as u64;
        if self.bytes > FREE_BYTES.max(self.wire_bytes.saturating_mul(RATIO_MAX)) {
            let ratio_max = RATIO_MAX;
            return Err(Stop::Inflates { ratio_max });
        }
        piece.truncate(written);
        Ok(piece.into())
    }
}
