//! Thinning, in the engine without sockets: how fast, and in how much memory.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use model::Timestamp;
use model::batch::{Batch, BatchBuilder, Codec};
use storage::LogSettings;
use storage::cleanup::Policy;

use crate::bench::figures::{Figure, Mark};
use crate::bench::store::{self, Store};
use crate::bench::{Bench, Case, limits};

/// The case.
pub const CASE: Case = Case {
    name: "thinning",
    about: "Thinning in the engine by itself: logs of 1 GiB, not compressed, of 1,000 devices that measure 8 times a second, \
            thinned to first, last, smallest and largest of a value in windows of a second, so that half of the records stay, and \
            some of nearly every batch; bytes of the log before, for each second. Once JSON documents of 1 KiB, and once \
            readings of 12 bytes with a number of 32 bits in them. The limit is a bare loop that reads as many bytes and writes \
            half of them, synced at the end. Memory is that of the whole process meanwhile, with 128 MiB in \
            cleaner.memory.bytes.",
    uses_binary: false,
    run,
};

const LOG_BYTES: u64 = 1 << 30;
const BATCH_BYTES: usize = 64 << 10;
const DEVICES: u64 = 1_000;
const A_WINDOW: u64 = 8;
const WINDOW_MS: u64 = 1_000;
const BEGAN_MS: u64 = 1_700_000_000_000;

/// What the devices send.
struct Shape {
    what: &'static str,
    tiers: &'static str,
    value: fn(u64) -> Vec<u8>,
}

const SHAPES: [Shape; 2] = [
    Shape {
        what: "documents of 1 KiB",
        tiers: "0ms:1s:first+last+min(json/temp)+max(json/temp)",
        value: |reading| {
            let number = reading as f64 / 4.0;
            let note = "measured ".repeat(100);
            format!("{{\"unit\":\"C\",\"temp\":{number},\"ok\":true,\"note\":\"{note}\"}}")
                .into_bytes()
        },
    },
    Shape {
        what: "readings of 12 bytes",
        tiers: "0ms:1s:first+last+min(f32@4)+max(f32@4)",
        value: |reading| {
            let number = reading as f32 / 4.0;
            [&[1; 4][..], &number.to_le_bytes(), &[2; 4]].concat()
        },
    },
];

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for shape in &SHAPES {
        let what = shape.what;
        let mut speed = Figure::new(format!("thinned, {what}"), "MB/s").marked(Mark::OfLimit(0.5));
        let mut records = Figure::new(format!("thinned, {what}: records"), "1000/s");
        let mut memory = Figure::new(
            format!("{what}: memory of the process, not of files, at most"),
            "MiB",
        )
        .marked(Mark::AtMost(160.0));
        let mut before = Figure::new(format!("{what}: the same before thinning began"), "MiB");
        for _ in 0..bench.runs {
            let directory = bench.directory()?;
            let settings = LogSettings {
                thinning: Some(shape.tiers.parse().context("thin.tiers")?),
                ..store::kept_for_ever()
            };
            let store = Store::open(directory.path(), settings)?;
            let appended = fill(&store, shape)?;
            // A window is over when its length has passed since the append.
            std::thread::sleep(2 * Duration::from_millis(WINDOW_MS));
            let limit = limits::read_and_write_half(directory.path(), LOG_BYTES)?;
            let idle = store::anonymous_mib(std::process::id())?;
            let (report, most) = store.clean_up_watched(0, Policy::Thin)?;
            store.shutdown();
            // A window that lies in two pieces of the work keeps its own in both.
            let part = report.records_removed as f64 / appended as f64;
            ensure!((0.45..=0.5).contains(&part), "{part:.3} of all went");
            speed.runs.push(store::rate(&report));
            speed.limits.push(limit / 1e6);
            records
                .runs
                .push(appended as f64 / report.took.as_secs_f64() / 1e3);
            memory.runs.push(most);
            before.runs.push(idle);
            bench.progress(&format!(
                "{what}: {:.0} MB/s, the limit {:.0} MB/s, {idle:.0} to {most:.0} MiB, {part:.3} of {appended} records went",
                store::rate(&report),
                limit / 1e6
            ));
        }
        figures.extend([speed, records, memory, before]);
    }
    Ok(figures)
}

/// Fills a log; gives the number of records. Each device's smallest and largest reading of a window are neither its first nor
/// its last, and in another place for each device.
fn fill(store: &Store, shape: &Shape) -> Result<u64> {
    let record_bytes = (shape.value)(0).len() as u64 + 20;
    let windows = LOG_BYTES / record_bytes / (DEVICES * A_WINDOW);
    let mut measured = 0..windows * A_WINDOW * DEVICES;
    let count = measured.end;
    let batches = std::iter::from_fn(|| {
        if measured.is_empty() {
            return None;
        }
        let mut builder = BatchBuilder::new(Codec::None);
        let full = BATCH_BYTES - usize::try_from(2 * record_bytes).ok()?;
        while builder.plain_bytes() < full
            && let Some(number) = measured.next()
        {
            let (tick, device) = (number / DEVICES, number % DEVICES);
            let time = BEGAN_MS + tick * WINDOW_MS / A_WINDOW;
            let key = format!("device-{device:03}");
            let value = (shape.value)(reading(device, tick % A_WINDOW));
            let time = Timestamp::from_millis(i64::try_from(time).ok()?);
            if let Err(error) = builder.push(time, Some(key.as_bytes()), Some(&value), &[]) {
                return Some(Err(error.into()));
            }
        }
        let built = builder.build().map_err(anyhow::Error::from);
        Some(built.and_then(|bytes| Ok(Batch::parse(bytes)?)))
    });
    store.append(0, batches)?;
    Ok(count)
}

/// What a device measures at this place of a window.
fn reading(device: u64, place: u64) -> u64 {
    let (smallest, largest) = (1 + device % 6, 1 + (device + 3) % 6);
    match place {
        place if place == smallest => 60,
        place if place == largest => 120,
        place => 80 + place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extremes_of_a_window_are_neither_its_first_nor_its_last() {
        for device in 0..DEVICES {
            let readings: Vec<u64> = (0..A_WINDOW).map(|place| reading(device, place)).collect();
            let inner = &readings[1..readings.len() - 1];
            let (least, most) = (readings.iter().min(), readings.iter().max());
            assert_eq!(inner.iter().min(), least);
            assert_eq!(inner.iter().max(), most);
            let twice = |wanted| readings.iter().filter(|one| Some(*one) == wanted).count();
            assert_eq!((twice(least), twice(most)), (1, 1), "device {device}");
        }
    }
}
