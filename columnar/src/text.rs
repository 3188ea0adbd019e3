//! Texts of what is no text: times, bytes, headers.
//!
//! Callers: the encoders of texts. A time is RFC 3339 in UTC with milliseconds; bytes that are no UTF-8 are base64 (RFC 4648 §4), and
//! a member beside them says so.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use model::Timestamp;
use model::batch::HeaderRefs;

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// Adds a time: RFC 3339 with milliseconds, in UTC. False, and nothing is added, if no calendar has it.
pub fn put_time(out: &mut Vec<u8>, time: Timestamp) -> bool {
    let Ok(time) = jiff::Timestamp::from_millisecond(time.millis()) else {
        return false;
    };
    if time.as_second() < FIRST_SECOND {
        return false;
    }
    let mut text = String::with_capacity(24);
    if PRINTER
        .print_timestamp(&time, StdFmtWrite(&mut text))
        .is_err()
    {
        return false;
    }
    out.extend_from_slice(text.as_bytes());
    true
}

/// Midnight of 0000-01-01: RFC 3339 has no years before.
const FIRST_SECOND: i64 = -62_167_219_200;

/// Adds a JSON string.
pub fn put_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is JSON, and memory takes it");
}

/// Adds bytes as base64.
pub fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let begin = out.len();
    let room = bytes.len().div_ceil(3) * 4;
    out.resize(begin + room, 0);
    let written = STANDARD
        .encode_slice(bytes, &mut out[begin..])
        .expect("there is room for four characters of three bytes");
    out.truncate(begin + written);
}

/// Adds headers as a JSON array: `[{"key":"a","value":"b"}]`, in their order. A key or value that is no UTF-8 is base64, and
/// `key_encoding` or `value_encoding` says so. A header without a value has null.
pub fn put_headers(out: &mut Vec<u8>, headers: HeaderRefs<'_>) {
    out.push(b'[');
    for (index, (key, value)) in headers.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'{');
        put_member(out, "key", Some(key));
        out.push(b',');
        put_member(out, "value", value);
        out.push(b'}');
    }
    out.push(b']');
}

/// Adds a member that holds bytes: text, or base64 and its marker.
pub fn put_member(out: &mut Vec<u8>, name: &str, bytes: Option<&[u8]>) {
    put_name(out, name);
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return;
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => put_json_string(out, text),
        Err(_) => put_base64_member(out, name, bytes),
    }
}

/// Adds bytes behind a member's name as base64, and the marker.
pub fn put_base64_member(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    out.push(b'"');
    put_base64(out, bytes);
    out.extend_from_slice(b"\",");
    put_name(out, &format!("{name}_encoding"));
    out.extend_from_slice(b"\"base64\"");
}

/// Adds a member's name.
pub fn put_name(out: &mut Vec<u8>, name: &str) {
    put_json_string(out, name);
    out.push(b':');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(millis: i64) -> Option<String> {
        let mut out = Vec::new();
        put_time(&mut out, Timestamp::from_millis(millis))
            .then(|| String::from_utf8(out).expect("text"))
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        assert_eq!(time(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(
            time(1_700_000_000_123).as_deref(),
            Some("2023-11-14T22:13:20.123Z")
        );
        assert_eq!(time(-1_000).as_deref(), Some("1969-12-31T23:59:59.000Z"));
        assert_eq!(time(i64::MAX), None);
        assert_eq!(time(i64::MIN), None);
    }

    #[test]
    fn bytes_are_base64_with_padding() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
        ] {
            let mut out = Vec::new();
            put_base64(&mut out, bytes);
            assert_eq!(out, text.as_bytes());
        }
    }
}
