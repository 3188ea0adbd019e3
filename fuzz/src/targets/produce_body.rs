//! Bodies of records as produce over HTTP takes them: `choices u8 | query u8 | piece bytes u16 | body`. However a body is cut into
//! pieces, the same rows come; compressed it is the same body; each row of lines is a line of it.

use alluvium::front::http::foreign::{ForeignBody, read_body};
use bytes::Bytes;
use model::codec::{Codec, compress};

use crate::Input;

/// Longer rows are refused.
const ROW_BYTES_MAX: usize = 16 << 10;
/// The forms by their names in a query.
const FORMATS: [&str; 4] = ["ndjson", "json", "csv", "raw"];
/// What a query may say beside the form.
const QUERIES: [&[(&str, &str)]; 6] = [
    &[],
    &[("key_field", "/k"), ("header", "a: b")],
    &[("timestamp_field", "/t"), ("timestamp_unit", "ms")],
    &[
        ("key_field", "k"),
        ("timestamp_field", "t"),
        ("timestamp_unit", "rfc3339"),
    ],
    &[("delimiter", "tab"), ("value_column", "v")],
    &[("key", "k"), ("timestamp", "1.5"), ("timestamp_unit", "s")],
];

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.u8();
    let extra = QUERIES[usize::from(input.u8()) % QUERIES.len()];
    let piece = usize::from(input.u16()).max(1);
    let body = input.rest();
    let format = FORMATS[usize::from(choices & 3)];
    let mut query = vec![("format", format)];
    query.extend_from_slice(extra);
    let encoding = match choices >> 2 & 3 {
        0 => "gzip",
        1 => "zstd",
        _ => return check_plain(&query, body, piece),
    };
    // Foreign bytes behind a compression: where they are none, rows before that may come or not.
    let at_once = read(&query, encoding, body, body.len());
    let in_pieces = read(&query, encoding, body, piece);
    if at_once.stopped.is_none() && in_pieces.stopped.is_none() {
        assert_eq!(at_once, in_pieces, "however it is cut");
    }
}

fn check_plain(query: &[(&str, &str)], body: &[u8], piece: usize) {
    let at_once = read(query, "", body, body.len());
    assert_eq!(at_once, read(query, "", body, piece), "however it is cut");
    let gzip = read(query, "gzip", &gzip(body), piece);
    assert_eq!(at_once, gzip, "compressed by gzip");
    let zstd = read(query, "zstd", &zstd(body), piece);
    assert_eq!(at_once, zstd, "compressed by zstd");
    match query[0].1 {
        "ndjson" => check_lines(&at_once, body),
        "raw" => check_raw(&at_once, body),
        _ => {}
    }
    for row in &at_once.rows {
        let bytes = row.value.as_ref().map_or(0, Vec::len);
        assert!(
            bytes <= ROW_BYTES_MAX || query[0].1 == "csv",
            "{bytes} bytes"
        );
    }
}

/// Each line is a row, is named as none, or has nothing in it.
fn check_lines(read: &ForeignBody, body: &[u8]) {
    if read.stopped.is_some() {
        return;
    }
    let mut rows = read.rows.iter().peekable();
    let mut faults = read.faults.iter().peekable();
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    for (line, number) in body.split(|byte| *byte == b'\n').zip(1..) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(row) = rows.next_if(|row| row.line == number) {
            assert_eq!(row.value.as_deref(), Some(line), "line {number}");
        } else if faults.next_if(|(line, _)| *line == number).is_none() {
            assert!(line.trim_ascii().is_empty(), "line {number} is lost");
        }
    }
    assert!(rows.next().is_none() && faults.next().is_none());
}

/// The body is the one record.
fn check_raw(read: &ForeignBody, body: &[u8]) {
    if read.stopped.is_none() {
        let [row] = &read.rows[..] else {
            panic!("one record");
        };
        assert_eq!(row.value.as_deref(), Some(body));
    }
}

fn read(query: &[(&str, &str)], encoding: &'static str, body: &[u8], piece: usize) -> ForeignBody {
    let pieces = body.chunks(piece.max(1)).map(Bytes::copy_from_slice);
    read_body(query, encoding, pieces.collect(), ROW_BYTES_MAX)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    compressed(Codec::Gzip, body)
}

fn zstd(body: &[u8]) -> Vec<u8> {
    compressed(Codec::Zstd, body)
}

fn compressed(codec: Codec, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(codec, body, &mut out).expect("whatever fits memory");
    out
}

/// A body of each form, plain and compressed, and some that are broken.
pub fn seeds() -> Vec<Vec<u8>> {
    let lines = "{\"k\":\"a\",\"t\":1700000000000,\"n\":1}\r\n\n{\"k\":7,\"t\":\"2026-03-01T14:03:05Z\"}\n[1,\n\"x\"\n{\"k\":null}";
    let array = "[{\"k\":\"a\",\"t\":1} , \"a]\\\",b\", [1,[2]], 17,\n{\"k\":{}}]";
    let table = "k,t,v\r\na,1,\"x\"\"y\"\n,2026-03-01T14:03:05Z,1e5\nb,2\n\n\"c\nd\",3,true";
    let tabs = "k\tv\na\tb\n";
    let mut seeds = Vec::new();
    for (format, text) in [(0, lines), (1, array), (2, table), (2, tabs), (3, "raw")] {
        for query in 0..6 {
            seeds.push([&[format | 8, query, 0, 5], text.as_bytes()].concat());
        }
        seeds.push([&[format, 0, 0, 3][..], &gzip(text.as_bytes())].concat());
        let two = [gzip(text.as_bytes()), gzip(b"\n17\n")].concat();
        seeds.push([&[format, 1, 0, 7][..], &two].concat());
        seeds.push([&[format | 4, 0, 0, 3][..], &zstd(text.as_bytes())].concat());
    }
    seeds
}
