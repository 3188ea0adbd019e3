//! What partitions cost: resident memory and start-up with 1, 1,000 and 10,000 of them.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use model::Timestamp;
use model::batch::BatchBuilder;
use model::codec::Codec;

use crate::bench::broker;
use crate::bench::figures::{Figure, Mark};
use crate::bench::{Bench, Case};
use crate::exam::probe::{Answer, Probe};
use crate::exam::victim::Victim;

/// The case.
pub const CASE: Case = Case {
    name: "partitions",
    about: "Memory and start-up with 1, 1,000 and 10,000 partitions: each gets two records of 100 bytes, a second apart, and all \
            of it settles. Resident memory is the process's peak (VmHWM), mapped files of the WAL included. Then SIGKILL, and \
            the time to the next ready line.",
    uses_binary: true,
    run,
};

const TOPIC: &str = "many";
const COUNTS: [i32; 3] = [1, 1000, 10_000];

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for count in COUNTS {
        let mut peak = Figure::new(format!("resident at most, {count} partitions"), "MiB");
        let mut own = Figure::new(format!("of it not of files, {count} partitions"), "MiB");
        let mut up = Figure::new(format!("ready after SIGKILL, {count} partitions"), "s");
        let mut again = Figure::new(format!("resident after that, {count} partitions"), "MiB");
        if count == 10_000 {
            peak.mark = Some(Mark::AtMost(200.0));
            up.mark = Some(Mark::AtMost(3.0));
            again.mark = Some(Mark::AtMost(200.0));
        }
        for _ in 0..bench.runs {
            let directory = bench.directory()?;
            let plan = broker::plan(bench, directory.path())?.with("settle.age.ms", 1000);
            let mut victim = plan.start()?;
            let mut probe = Probe::connect(&victim.kafka)?;
            probe.create_topic(TOPIC, count, &[])?;
            let batch = batch()?;
            for _ in 0..2 {
                write_each(&mut probe, TOPIC, count, &batch)?;
                std::thread::sleep(Duration::from_secs(1));
            }
            wait_until_settled(&victim, directory.path())?;
            peak.runs.push(mib(victim.peak_resident_bytes()?));
            own.runs.push(mib(victim.anonymous_bytes()?));
            write_each(&mut probe, TOPIC, count, &batch)?;
            victim.kill()?;
            let mut victim = plan.start()?;
            up.runs.push(victim.up_in.as_secs_f64());
            let mut probe = Probe::connect(&victim.kafka)?;
            write_each(&mut probe, TOPIC, count, &batch)?;
            again.runs.push(mib(victim.peak_resident_bytes()?));
            bench.progress(&format!(
                "{count} partitions: {:.0} MiB, up again in {:.2} s",
                mib(victim.peak_resident_bytes()?),
                victim.up_in.as_secs_f64()
            ));
            victim.kill()?;
        }
        figures.extend([peak, own, up, again]);
    }
    Ok(figures)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A batch of one record of 100 bytes.
pub(super) fn batch() -> Result<Bytes> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(Timestamp::from_millis(0), None, Some(&[7; 100]), &[])?;
    Ok(builder.build()?)
}

/// One batch to every partition, some of them under way at a time.
pub(super) fn write_each(probe: &mut Probe, topic: &str, count: i32, batch: &Bytes) -> Result<()> {
    const UNDER_WAY: i32 = 32;
    for partition in 0..count + UNDER_WAY {
        if partition >= UNDER_WAY.min(count) && partition - UNDER_WAY.min(count) < count {
            match probe.receive_produce()? {
                Answer::Acknowledged(_) => {}
                Answer::Refused(error) => bail!("refused: {}", error.name()),
            }
        }
        if partition < count {
            probe.send_produce(topic, partition, batch.clone())?;
        }
    }
    Ok(())
}

/// Waits until the partitions' directories stop changing in number.
pub(super) fn wait_until_settled(victim: &Victim, directory: &std::path::Path) -> Result<()> {
    let data = directory.join("data");
    let (mut before, mut same) = (0, 0);
    for _ in 0..120 {
        std::thread::sleep(Duration::from_millis(500));
        let files = super::replay::log_files(&data).map_or(0, |files| files.len());
        same = if files == before && files > 0 {
            same + 1
        } else {
            0
        };
        before = files;
        if same == 4 {
            return Ok(());
        }
    }
    ensure!(before > 0, "nothing settled: {}", victim.log());
    Ok(())
}
