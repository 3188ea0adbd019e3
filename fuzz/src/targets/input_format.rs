//! The formats of `produce`: `format chunk | read bytes u8 | input`. However the input is cut into reads, the same records come.

use std::io::Read;

use tools::format::{InputFormat, InputReader};

use crate::Input;
use crate::input::put_chunk;

/// No input holds more; a format may read records of no bytes for ever.
const RECORDS_MAX: usize = 2_000;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let layout = String::from_utf8_lossy(input.chunk());
    let read_bytes = usize::from(input.u8()).max(1);
    let Ok(format) = InputFormat::parse(&layout) else {
        return;
    };
    let stream = input.rest();
    let at_once = records(InputReader::new(stream, format.clone()));
    let slow = Slow {
        rest: stream,
        bytes_max: read_bytes,
    };
    assert_eq!(
        records(InputReader::new(slow, format)),
        at_once,
        "however it is read"
    );
}

/// Gives a few bytes at a time.
struct Slow<'a> {
    rest: &'a [u8],
    bytes_max: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let bytes = self.bytes_max.min(into.len());
        self.rest.read(&mut into[..bytes])
    }
}

/// The records as text, and whether an error ended them.
fn records<R: Read>(mut reader: InputReader<R>) -> (Vec<String>, bool) {
    let mut records = Vec::new();
    while records.len() < RECORDS_MAX {
        match reader.next_record() {
            Ok(Some(record)) => records.push(format!("{record:?}")),
            Ok(None) => return (records, false),
            Err(_) => return (records, true),
        }
    }
    (records, false)
}

/// Formats with delimiters, sizes, numbers and headers, each with input that fits.
pub fn seeds() -> Vec<Vec<u8>> {
    let pairs: [(&str, &[u8]); 9] = [
        ("%v\n", b"one\ntwo\n\nthree"),
        ("%k %v\n", b"key value\nk v\n"),
        ("%K{big16}%k%V{little32}%v", b"\x00\x03key\x05\x00\x00\x00value"),
        ("%K{3}%V{2}%k%v", b"keyvakeyva"),
        ("%k{hex}:%v{base64}\n", b"6b6579:dmFsdWU=\n00:\n"),
        ("%t %p %d %k=%v\\n", b"buoys 3 1700000000123 a=b\n"),
        ("%H{byte}%h{%K{byte}%k%V{byte}%v}%v\n", b"\x02\x01a\x01b\x01c\x00x\n"),
        ("%v{json}\n", b"{\"a\":[1,2,{\"b\":null}]}\n1\n"),
        ("json", b"{\"topic\":\"t\",\"key\":\"k\",\"payload\":null,\"headers\":[\"a\",\"b\"],\"ts\":5}\n{\"payload\":\"AA==\",\"payload_encoding\":\"base64\"}\n"),
    ];
    pairs
        .iter()
        .map(|(layout, stream)| {
            let mut seed = Vec::new();
            put_chunk(&mut seed, layout.as_bytes());
            seed.push(3);
            seed.extend_from_slice(stream);
            seed
        })
        .collect()
}
