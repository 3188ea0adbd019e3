//! The formats of `consume`: `format chunk | topic chunk | partition i32 | offset i64 | time i64 | attributes i16 | headers u8 | key | value | header parts`.
//! Any record in any format that compiles; in JSON any record comes back as it was.

use model::batch::{Attributes, HeaderRef};
use tools::format::{Headers, InputFormat, InputReader, OutputFormat, OutputRecord};

use crate::Input;
use crate::input::put_chunk;

/// See the module.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let layout = String::from_utf8_lossy(input.chunk());
    let topic = String::from_utf8_lossy(input.chunk());
    let mut record = OutputRecord::new(&topic, input.i32() & i32::MAX, input.i64());
    record.timestamp = input.i64();
    record.attributes = Attributes::from_bits(input.i16());
    let header_count = input.u8() % 8;
    record.key = input.nullable_chunk();
    record.value = input.nullable_chunk();
    let headers: Vec<HeaderRef<'_>> = (0..header_count)
        .map(|_| (input.chunk(), input.nullable_chunk()))
        .collect();
    record.headers = Headers::Slice(&headers);
    let mut out = Vec::new();
    if let Ok(mut format) = OutputFormat::parse(&layout) {
        format.write(&record, &mut out);
        let once = out.len();
        format.write(&record, &mut out);
        assert!(out.len() >= once);
    }
    out.clear();
    OutputFormat::json().write(&record, &mut out);
    assert_eq!(
        out.iter().filter(|byte| **byte == b'\n').count(),
        1,
        "a line each"
    );
    comes_back(&out, &record, &headers);
}

fn comes_back(json: &[u8], record: &OutputRecord<'_>, headers: &[HeaderRef<'_>]) {
    let mut reader = InputReader::new(json, InputFormat::json());
    let read = reader
        .next_record()
        .expect("our own JSON is JSON")
        .expect("a record");
    assert_eq!(read.key, record.key);
    assert_eq!(read.value, record.value);
    assert_eq!(read.headers, headers);
    assert_eq!(read.topic, Some(record.topic.as_bytes()));
}

/// Each letter with its modifiers.
pub fn seeds() -> Vec<Vec<u8>> {
    let layouts = [
        "%t %T %k{hex} %K %v{base64} %V{big32}\n",
        "%o{hex16} %p %e %d{go[2006-01-02T15:04:05Z07:00]}\n",
        "%d{strftime##%F##} %a{compression} %x %y %[ %| %] %i{ascii}\n",
        "%h{%k{hex}=%v%{%}%%\\x20} %H{little16}\\t\\r",
        "%v{unpack[>iIqQ]}",
        "json",
        "%d{go##Mon Jan _2 15:04:05.000000 2006##}",
        "%a{transactional-bit} %a{timestamp-type;number}",
    ];
    layouts
        .iter()
        .map(|layout| {
            let mut seed = Vec::new();
            put_chunk(&mut seed, layout.as_bytes());
            put_chunk(&mut seed, b"buoys");
            seed.extend_from_slice(&3i32.to_be_bytes());
            seed.extend_from_slice(&77i64.to_be_bytes());
            seed.extend_from_slice(&1_700_000_000_123i64.to_be_bytes());
            seed.extend_from_slice(&4i16.to_be_bytes());
            seed.push(2);
            for part in [
                &b"key"[..],
                b"a value \xff",
                b"unit",
                b"m/s",
                b"raw",
                b"\x00\xfe",
            ] {
                put_chunk(&mut seed, part);
            }
            seed
        })
        .collect()
}
