//! Sends a file, or a part of it (RFC 9110 §13 and §14).
//!
//! A range is heeded if it is one range of bytes that can be read; several ranges, or what is no range, are answered by the whole
//! file. The file is read where that may block, a piece at a time, as its reader takes it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::response::{IntoResponse, Response};
use columnar::Format;

use super::cache::Made;
use crate::front::http::errors::{self, Failure};

/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 256 * 1024;

/// The part of a file that is wanted.
#[derive(Debug, PartialEq)]
enum Part {
    Whole,
    Some(Range<u64>),
    Unsatisfiable,
}

/// The answer to a request for this file.
pub(super) fn answer(
    made: Made,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    let Made { file, bytes, etag } = made;
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_MATCH).is_some_and(|tags| !has_tag(tags, &etag, Comparison::Strong)) {
        return Err(Failure::FileChanged);
    }
    let common = [
        (header::ETAG, etag.clone()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (
            header::CONTENT_TYPE,
            Format::Parquet.content_type().to_owned(),
        ),
    ];
    if text(header::IF_NONE_MATCH).is_some_and(|tags| has_tag(tags, &etag, Comparison::Weak)) {
        return Ok(errors::not_modified(common.into_response()));
    }
    // A date never stands for a file: there is none, and a strong tag is wanted.
    let is_same = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let part = match text(header::RANGE) {
        Some(range) if is_same && *method == Method::GET => part_of(range, bytes),
        _ => Part::Whole,
    };
    Ok(match part {
        Part::Whole => {
            let length = [(header::CONTENT_LENGTH, bytes.to_string())];
            (common, length, body(file, 0..bytes)).into_response()
        }
        Part::Some(range) => {
            let (from, to) = (range.start, range.end);
            let about = [
                (header::CONTENT_LENGTH, (to - from).to_string()),
                (
                    header::CONTENT_RANGE,
                    format!("bytes {from}-{}/{bytes}", to - 1),
                ),
            ];
            errors::partial((common, about, body(file, range)).into_response())
        }
        Part::Unsatisfiable => return Err(Failure::Range { bytes }),
    })
}

#[derive(PartialEq)]
enum Comparison {
    Strong,
    Weak,
}

fn has_tag(tags: &str, etag: &str, comparison: Comparison) -> bool {
    let weak_too = |tag: &str| match comparison {
        Comparison::Weak => tag.strip_prefix("W/") == Some(etag),
        Comparison::Strong => false,
    };
    tags.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag == etag || weak_too(tag))
}

fn part_of(text: &str, length: u64) -> Part {
    let Some((unit, range)) = text.split_once('=') else {
        return Part::Whole;
    };
    let range = range.trim();
    let Some((first, last)) = range.split_once('-') else {
        return Part::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return Part::Whole;
    }
    // More digits than a number holds are more than any file.
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let part = match (number(first.trim()), number(last.trim())) {
        (Some(first), Some(last)) if last < first => return Part::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.trim().is_empty() => first..length,
        (None, Some(0)) if first.trim().is_empty() => return Part::Unsatisfiable,
        (None, Some(suffix)) if first.trim().is_empty() => length.saturating_sub(suffix)..length,
        _ => return Part::Whole,
    };
    match part.start < part.end {
        true => Part::Some(part),
        false => Part::Unsatisfiable,
    }
}

fn body(file: File, part: Range<u64>) -> Body {
    let state = (Arc::new(file), part);
    let pieces = futures_util::stream::try_unfold(state, |(file, part)| async move {
        if part.is_empty() {
            return Ok::<_, io::Error>(None);
        }
        let count = (part.end - part.start).min(PIECE_BYTES);
        let reader = Arc::clone(&file);
        let read = move || {
            let mut bytes = vec![0; usize::try_from(count).expect("a piece is short")];
            reader.read_exact_at(&mut bytes, part.start).map(|()| bytes)
        };
        let bytes = tokio::task::spawn_blocking(read).await;
        let bytes = bytes.map_err(io::Error::other)??;
        Ok(Some((
            Bytes::from(bytes),
            (file, part.start + count..part.end),
        )))
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_heeded_and_others_are_not() {
        let parts = [
            ("bytes=0-0", Part::Some(0..1)),
            ("bytes=2-5", Part::Some(2..6)),
            ("bytes=2-", Part::Some(2..10)),
            ("bytes=8-99", Part::Some(8..10)),
            ("bytes=-3", Part::Some(7..10)),
            ("bytes=-99", Part::Some(0..10)),
            ("Bytes = 1-2", Part::Some(1..3)),
            ("bytes=-99999999999999999999999", Part::Some(0..10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-12", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes", Part::Whole),
        ];
        for (text, part) in parts {
            assert_eq!(part_of(text, 10), part, "{text}");
        }
        assert_eq!(part_of("bytes=0-", 0), Part::Unsatisfiable);
    }

    #[test]
    fn tags_are_compared() {
        assert!(has_tag("\"a\", \"b\"", "\"b\"", Comparison::Strong));
        assert!(has_tag("*", "\"b\"", Comparison::Strong));
        assert!(has_tag("W/\"b\"", "\"b\"", Comparison::Weak));
        assert!(!has_tag("W/\"b\"", "\"b\"", Comparison::Strong));
        assert!(!has_tag("\"a\"", "\"b\"", Comparison::Weak));
    }
}
