//! Case 27: readers ask for everything and then take nothing, while what they are being sent is deleted, thinned, compacted, or goes with
//! its topic. When they read on, each record that they are shown is the one that was sent, byte for byte, or they are told that
//! it is gone; and when they have ended the broker holds none of the removed files any more.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;
use model::hex::to_hex;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::Value;
use wire::ErrorCode;

use crate::exam::cases::cleanup_jobs::run_now;
use crate::exam::cases::{crash, files};
use crate::exam::judge::Seen;
use crate::exam::ledger::{Digest, digest_of};
use crate::exam::probe::{Answer, Probe, note_records};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};

/// With what the records hold, more than the sockets between broker and reader take.
const BATCHES: u32 = 60;
const RECORDS: u32 = 100;
const NOISE_BYTES: usize = 1000;
const KEYS: u32 = 50;
/// Of a reader's socket; the broker's takes 4 MiB at most.
const SOCKET_BYTES: usize = 64 << 10;
const ANSWER_BYTES_MAX: i32 = 7 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// The case.
pub const CASE: Case = Case {
    number: 27,
    name: "paused-reader",
    about: "deletion, retention, compaction, thinning and the end of a topic under readers that pause",
    rounds: Rounds { full: 10, short: 1 },
    run,
};

/// What takes records from under the readers.
#[derive(Clone, Copy, Debug)]
enum Way {
    DeleteRecords,
    Retention,
    Compaction,
    Thinning,
    TopicDeleted,
}

const WAYS: [Way; 5] = [
    Way::DeleteRecords,
    Way::Retention,
    Way::Compaction,
    Way::Thinning,
    Way::TopicDeleted,
];

impl Way {
    fn configs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Way::DeleteRecords | Way::TopicDeleted => &[],
            Way::Retention => &[("retention.bytes", "1048576")],
            Way::Compaction => &[
                ("cleanup.policy", "compact"),
                ("min.cleanable.dirty.ratio", "0.01"),
            ],
            Way::Thinning => &[
                ("cleanup.policy", "thin"),
                ("thin.tiers", "0ms:1h:first+last"),
            ],
        }
    }

    fn take(self, victim: &Victim, topic: &str, end: i64) -> Result<()> {
        let job = match self {
            Way::DeleteRecords => {
                let start = Probe::connect(&victim.kafka)?.delete_records(topic, 0, end)?;
                ensure!(
                    start == end,
                    "the start is {start} after the deletion to {end}"
                );
                return Ok(());
            }
            Way::TopicDeleted => {
                let error = Probe::connect(&victim.kafka)?.delete_topic(topic)?;
                ensure!(error == ErrorCode::None, "deletion: {}", error.name());
                return Ok(());
            }
            Way::Retention => run_now(&victim.http, "retention", topic)?,
            Way::Compaction => run_now(&victim.http, "compact", topic)?,
            Way::Thinning => run_now(&victim.http, "thin", topic)?,
        };
        ensure!(job["state"] == "done", "the job ended so: {job}");
        Ok(())
    }
}

/// What was sent: a record's digest and its value, by offset.
type Sent = BTreeMap<i64, (Digest, String)>;

fn run(exam: &Exam) -> Result<Outcome> {
    let data = exam.work.join("data");
    // Nothing goes by itself.
    let plan = crash::small(Plan::new(&exam.binary, &data, &exam.work))
        .with("settle.age.ms", 50)
        .with("log.cleaner.backoff.ms", 3_600_000)
        .with("log.retention.check.interval.ms", 3_600_000);
    let mut victim = plan.start()?;
    let mut random = Random::new(exam.seed);
    let (mut after, mut taken) = (0, 0);
    let mut outcome = exam.each_round(CASE.about, |round, outcome| {
        for way in WAYS {
            let topic = format!("{way:?}-{round}").to_lowercase();
            let (shown, gone) = try_way(&victim, &topic, way, &mut random, outcome)
                .with_context(|| format!("{way:?}"))?;
            after += shown;
            taken += gone;
            let ended = victim.ended()?;
            ensure!(ended.is_none(), "the broker ended: {}", victim.log_tail());
            if !matches!(way, Way::TopicDeleted) {
                Probe::connect(&victim.kafka)?.delete_topic(&topic)?;
            }
            files::wait_until(PATIENCE, "removed files are held", || {
                Ok(victim.removed_files(&data)? == 0)
            })
            .with_context(|| format!("{way:?}"))?;
        }
        ensure!(outcome.passed(), "{}", outcome.failures.join("; "));
        Ok(())
    })?;
    outcome.require(after > 0 && taken > 0, || {
        format!("{after} records shown after they went, {taken} gone: the case proves nothing")
    });
    outcome.notes.push(format!(
        "{after} records were shown after the pause, {taken} were gone then"
    ));
    victim.terminate()?;
    Ok(outcome)
}

/// Gives how many records the readers were shown after the pause, and how many they did not find any more.
fn try_way(
    victim: &Victim,
    topic: &str,
    way: Way,
    random: &mut Random,
    outcome: &mut Outcome,
) -> Result<(u64, u64)> {
    let mut probe = Probe::connect(&victim.kafka)?;
    let configs = [&[("segment.bytes", "1048576")], way.configs()].concat();
    probe.create_topic(topic, 1, &configs)?;
    let sent = produce(&mut probe, topic, random)?;
    let end = sent.len() as i64;
    outcome.checked += sent.len() as u64;
    probe.takes_at_once(SOCKET_BYTES)?;
    probe.send_fetch(topic, 0, 0, ANSWER_BYTES_MAX, 0)?;
    probe.wait_for_answer()?;
    let lines = Lines::begin(&victim.http, topic)?;
    way.take(victim, topic, end)?;
    let (mut shown, mut offsets) = (0, Vec::new());
    let mut from = 0;
    let mut fetched = probe.receive_fetch()?;
    // The answer that was under way is whole; those that follow tell what is left.
    outcome.require(fetched.error == ErrorCode::None, || {
        format!("{way:?}: the answer under way: {}", fetched.error.name())
    });
    loop {
        let mut seen = Vec::new();
        from = note_records(fetched.records, from, &mut seen)?;
        for Seen { offset, digest, .. } in seen {
            shown += 1;
            offsets.push(offset);
            let is_right = sent.get(&offset).is_some_and(|(known, _)| *known == digest);
            outcome.require(is_right, || {
                format!("J2 {way:?}: offset {offset} is shown with other bytes")
            });
        }
        if from >= fetched.high_watermark {
            break;
        }
        fetched = probe.fetch(topic, 0, from, ANSWER_BYTES_MAX, 0)?;
        match fetched.error {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId => break,
            error => {
                outcome.require(false, || format!("{way:?}: at {from}: {}", error.name()));
                break;
            }
        }
    }
    let is_in_order = offsets.windows(2).all(|pair| pair[0] < pair[1]);
    outcome.require(is_in_order, || format!("J3 {way:?}: offsets do not rise"));
    shown += lines.judge(&sent, way, outcome)?;
    outcome.failures.truncate(20);
    let gone = sent.len() as u64 - offsets.len() as u64;
    Ok((shown, gone))
}

fn produce(probe: &mut Probe, topic: &str, random: &mut Random) -> Result<Sent> {
    let mut sent = Sent::new();
    for batch in 0..BATCHES {
        let mut builder = BatchBuilder::new(Codec::None);
        let mut records = Vec::new();
        for number in 0..RECORDS {
            let mut noise = [0; NOISE_BYTES];
            random.fill(&mut noise);
            let key = format!("key-{}", number % KEYS);
            // No number, whatever the digits are.
            let value = format!("noise {}", to_hex(noise));
            let time = Timestamp::from_millis(1_700_000_000_000 + i64::from(batch));
            builder.push(time, Some(key.as_bytes()), Some(value.as_bytes()), &[])?;
            records.push((digest_of(key.as_bytes(), value.as_bytes()), value));
        }
        let Answer::Acknowledged(base) = probe.produce(topic, 0, builder.build()?)? else {
            anyhow::bail!("produce was refused");
        };
        sent.extend((base..).zip(records));
    }
    Ok(sent)
}

/// A replay over HTTP of which nothing but the beginning was taken.
struct Lines(BufReader<TcpStream>);

impl Lines {
    fn begin(http: &str, topic: &str) -> Result<Lines> {
        let mut stream = TcpStream::connect(http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        set_socket_recv_buffer_size(&stream, SOCKET_BYTES)?;
        write!(
            stream,
            "GET /api/v1/topics/{topic}/replay?from=earliest HTTP/1.0\r\nHost: localhost\r\n\r\n"
        )?;
        // Without a buffer, so that nothing more is taken.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).context("no answer")?;
            head.extend(byte);
        }
        let head = String::from_utf8(head)?;
        ensure!(head.contains(" 200 "), "the replay was answered {head}");
        Ok(Lines(BufReader::new(stream)))
    }

    /// Reads on to the end, or to where the answer breaks off. Gives how many records there were.
    fn judge(mut self, sent: &Sent, way: Way, outcome: &mut Outcome) -> Result<u64> {
        let mut count = 0;
        let mut before = -1;
        loop {
            let mut line = String::new();
            // An answer that breaks off ends so. One that stands still is none.
            let is_over = match self.0.read_line(&mut line) {
                Ok(bytes) => bytes == 0,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Err(error).context("the replay stands still");
                }
                Err(_) => true,
            };
            if is_over || !line.ends_with('\n') {
                return Ok(count);
            }
            let row: Value = serde_json::from_str(&line).context("a line that is no JSON")?;
            let offset = row["offset"].as_i64().context("a row without an offset")?;
            let known = sent.get(&offset).map(|(_, value)| value.as_str());
            let is_right = known.is_some() && row["value"].as_str() == known && offset > before;
            outcome.require(is_right, || {
                format!(
                    "J2 {way:?}: over HTTP offset {offset} follows {before}, or has other bytes"
                )
            });
            before = offset;
            count += 1;
        }
    }
}
