//! What real clients said and were told, recorded: the seeds that no one would think of. `fuzz/seeds/traffic.gz` holds it; how
//! it is made stands in `fuzz/README.md`.
//!
//! ```text
//! gzip of: { direction u8: 0 request, 1 response | api key i16 | api version i16 | frame bytes u32 | frame }*   (big-endian)
//! ```
//! A frame is what follows the length on the wire, header included. Callers: targets, the exam.

use std::io::Read;

use bytes::Bytes;
use wire::messages::produce::ProduceRequest;
use wire::{ApiKey, Message, Reader, RequestHeader, decode_response_header};

const TRAFFIC: &[u8] = include_bytes!("../seeds/traffic.gz");

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A client.
    Request,
    /// The broker.
    Response,
}

/// A recorded frame.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Who sent it.
    pub direction: Direction,
    /// What was asked.
    pub key: ApiKey,
    /// In which version.
    pub version: i16,
    /// The frame without its length.
    pub frame: Vec<u8>,
}

impl Exchange {
    /// The frame without its header; nothing if the header is not whole.
    pub fn message(&self) -> &[u8] {
        let mut reader = Reader::new(Bytes::copy_from_slice(&self.frame));
        let is_whole = match self.direction {
            Direction::Request => RequestHeader::decode(&mut reader).is_ok(),
            Direction::Response => {
                decode_response_header(&mut reader, self.key, self.version).is_ok()
            }
        };
        match is_whole {
            true => &self.frame[reader.position()..],
            false => &[],
        }
    }
}

/// Everything that was recorded.
///
/// # Panics
/// If the file is not whole, which a test rules out.
pub fn traffic() -> Vec<Exchange> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(TRAFFIC)
        .read_to_end(&mut bytes)
        .expect("the recording is whole");
    let mut reader = Reader::new(bytes.into());
    let mut all = Vec::new();
    while reader.remaining() > 0 {
        all.push(take_exchange(&mut reader).expect("the recording is whole"));
    }
    all
}

fn take_exchange(reader: &mut Reader) -> Result<Exchange, wire::DecodeError> {
    let direction = match reader.i8()? {
        0 => Direction::Request,
        _ => Direction::Response,
    };
    let code = reader.i16()?;
    let key = ApiKey::from_code(code).ok_or(wire::DecodeError::Key { code })?;
    let version = reader.i16()?;
    let bytes = reader.u32()? as usize;
    let frame = reader.take(bytes)?.to_vec();
    Ok(Exchange {
        direction,
        key,
        version,
        frame,
    })
}

/// The record batches in what clients produced.
pub fn produced_batches() -> Vec<Bytes> {
    let mut batches = Vec::new();
    for exchange in traffic() {
        if exchange.key != ApiKey::Produce || exchange.direction != Direction::Request {
            continue;
        }
        let mut reader = Reader::new(Bytes::copy_from_slice(exchange.message()));
        let Ok(request) = ProduceRequest::decode(&mut reader, exchange.version) else {
            continue;
        };
        let partitions = request
            .topic_data
            .into_iter()
            .flat_map(|topic| topic.partition_data);
        batches.extend(
            partitions
                .filter_map(|partition| partition.records)
                .map(|records| records.into_bytes()),
        );
    }
    batches
}
