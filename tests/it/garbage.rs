//! Requests that nobody should send: each ends in an answer or in a closed connection, never in a panic, and never in
//! memory that only a length field asked for.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use model::batch::BatchBuilder;
use model::codec::Codec;
use model::{LogId, Timestamp};
use rustix::process::Signal;

use crate::binary::{Running, serve};

/// Requests of each key and version; more of them by hand with `GARBAGE_ROUNDS`.
const ROUNDS: u64 = 12;
/// A debug build of the server at rest has a tenth of it.
const RESIDENT_KIB_MAX: u64 = 400 << 10;

/// A small generator of its own, so that a seed gives the same bytes for good.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }
}

/// Pieces that requests are made of, in the old and in the compact spelling, and lengths that lie.
fn pieces() -> Vec<Vec<u8>> {
    let mut builder = BatchBuilder::new(Codec::Gzip);
    builder
        .push(
            Timestamp::from_millis(1),
            Some(b"key"),
            Some(b"reading"),
            &[],
        )
        .expect("a small record");
    let batch = builder.build().expect("one record");
    let mut sized = u32::try_from(batch.len())
        .expect("small")
        .to_be_bytes()
        .to_vec();
    sized.extend_from_slice(&batch);
    let mut compact = vec![u8::try_from(batch.len() + 1).expect("small")];
    compact.extend_from_slice(&batch);
    vec![
        sized,
        compact,
        vec![0],
        vec![1],
        vec![2],
        vec![0xff],
        vec![0, 0],
        vec![0, 1],
        vec![0xff, 0xff],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 1],
        vec![0, 0, 0, 2],
        vec![0xff; 4],
        vec![0x7f, 0xff, 0xff, 0xff],
        vec![0xff, 0xff, 0xff, 0xff, 0x07],
        vec![0xff, 0xff, 0xff, 0xff, 0x0f],
        vec![0xff; 8],
        vec![0, 0, 0, 0, 0, 0, 0, 7],
        vec![0, 1, b't'],
        vec![2, b't'],
        vec![0, 4, b't', b'o', b'p', b'i'],
        vec![0x7f, 0xff],
        LogId::METADATA.to_string().into_bytes(),
    ]
}

/// Every key and version that the broker lists, by a request of version 0.
fn listed(address: &str) -> Vec<(i16, i16)> {
    let answer = exchange(address, &frame(18, 0, &[])).expect("ApiVersions is answered");
    let mut rows = answer[14..].chunks_exact(6);
    let field = |row: &[u8], at: usize| i16::from_be_bytes([row[at], row[at + 1]]);
    let mut all = Vec::new();
    for row in &mut rows {
        all.extend((field(row, 2)..=field(row, 4)).map(|version| (field(row, 0), version)));
    }
    all
}

/// A frame whose header is well formed in every version: without flexible fields it is the body's first byte that lies.
fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    content.extend(key.to_be_bytes());
    content.extend(version.to_be_bytes());
    content.extend(7_i32.to_be_bytes());
    content.extend(3_i16.to_be_bytes());
    content.extend(b"raw");
    content.extend(body);
    let mut frame = u32::try_from(content.len())
        .expect("small")
        .to_be_bytes()
        .to_vec();
    frame.extend(content);
    frame
}

/// Sends bytes and says that no more come; what comes back until the broker closes. None: it doesn't.
fn exchange(address: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).expect("the broker listens");
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).expect("a socket");
    // A broker that has closed the connection already may refuse the rest.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Some(answer),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(answer),
        Err(_) => None,
    }
}

fn resident_kib_max(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words: Vec<&str> = line.expect("a Linux").split_whitespace().collect();
    words[1].parse().expect("a number")
}

#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let stderr = File::create(&log).expect("a file");
    let data = directory.path().join("data");
    let running = Running::start_logged(&mut serve(&data), stderr.into());
    let seed = std::env::var("GARBAGE_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let rounds = std::env::var("GARBAGE_ROUNDS").map_or(ROUNDS, |n| n.parse().expect("a number"));
    println!("seed {seed}");
    let mut random = Random(seed);
    let pieces = pieces();
    for (key, version) in listed(&running.kafka) {
        for _ in 0..rounds {
            let mut body = Vec::new();
            for _ in 0..random.next(14) {
                body.extend(&pieces[random.next(pieces.len())]);
            }
            let sent = frame(key, version, &body);
            assert!(
                exchange(&running.kafka, &sent).is_some(),
                "key {key} version {version} hangs: {body:02x?}"
            );
        }
    }
    // Frames that are none.
    for bytes in [
        &[0x7f, 0xff, 0xff, 0xff][..],
        &[0xff; 4],
        &[0, 0, 0, 0],
        &[0, 0, 0, 2, 0, 3],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 0, 0, 100, 0, 3],
    ] {
        assert_eq!(
            exchange(&running.kafka, bytes),
            Some(Vec::new()),
            "{bytes:02x?}"
        );
    }
    assert!(!listed(&running.kafka).is_empty(), "others are served");
    let resident = resident_kib_max(running.id());
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
    assert_eq!(running.end(Signal::TERM).0, Some(0));
    let log = std::fs::read_to_string(log).expect("text");
    let bad = log
        .lines()
        .find(|line| line.contains("panicked") || line.contains(" ERROR "));
    assert_eq!(bad, None);
}
