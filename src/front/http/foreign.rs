//! Foreign bytes as the routes read them, without a request, a topic and a disk.
//!
//! Caller: the fuzzer. Invariant: nothing is read here that a route would read otherwise; what is given is what came, made comparable.

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, HeaderValue};
use bytes::Bytes;
use model::Timestamp;

use super::{follow, produce};

/// A row of a body, as it would be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRow {
    /// Its line, or its number, from 1.
    pub line: u64,
    /// The key of its record.
    pub key: Option<Vec<u8>>,
    /// The value of its record.
    pub value: Option<Vec<u8>>,
    /// The timestamp of its record, if the body has one.
    pub time: Option<Timestamp>,
    /// The headers of its record.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What was read of a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ForeignBody {
    /// Its rows, in their order.
    pub rows: Vec<ForeignRow>,
    /// The lines that are no records, and what is wrong with each.
    pub faults: Vec<(u64, String)>,
    /// Why it was not read to its end.
    pub stopped: Option<String>,
}

/// Reads a body of records that comes in these pieces: `query` is what stands behind `?`, `encoding` the header Content-Encoding.
pub fn read_body(
    query: &[(&str, &str)],
    encoding: &'static str,
    pieces: Vec<Bytes>,
    row_bytes_max: usize,
) -> ForeignBody {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    let query = query.iter().map(|(name, value)| pair(name, value));
    produce::read_foreign(query.collect(), &headers, pieces, row_bytes_max)
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Reads where a follower was, out of the header Last-Event-ID, and writes it as its next event would if nothing came. None if it
/// is no position.
pub fn read_position(last_event_id: &[u8]) -> Option<String> {
    let mut headers = HeaderMap::new();
    headers.insert(
        "last-event-id",
        HeaderValue::from_bytes(last_event_id).ok()?,
    );
    follow::read_foreign(&headers)
}
