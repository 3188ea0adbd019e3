//! Case 39: a stop does not wait for what is unsettled, also while the disk is busy: the write-ahead log holds it.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::exam::cases::many::{TOPIC, produce_to_all, require_all};
use crate::exam::probe::Probe;
use crate::exam::victim::Plan;
use crate::exam::{Case, Exam, Outcome, Rounds};

const PARTITIONS: u32 = 10_000;
/// The short form's.
const PARTITIONS_SHORT: u32 = 2_000;
const STOP_MAX: Duration = Duration::from_secs(5);
/// The start after it reads the write-ahead log.
const START_MAX: Duration = Duration::from_secs(10);
const BUSY_BYTES: usize = 8 << 20;

/// The case.
pub const CASE: Case = Case {
    number: 39,
    name: "stop",
    about: "SIGTERM with 10,000 unsettled partitions, on an idle and on a busy disk",
    rounds: Rounds { full: 4, short: 1 },
    run: |exam| exam.each_round(CASE.about, |round, outcome| try_round(exam, round, outcome)),
};

fn try_round(exam: &Exam, round: u32, outcome: &mut Outcome) -> Result<()> {
    let is_busy = round.is_multiple_of(2);
    let partitions = if exam.rounds >= CASE.rounds.full {
        PARTITIONS
    } else {
        PARTITIONS_SHORT
    };
    let data = exam.work.join(format!("data-{round}"));
    // Every other time the settler is at work when the signal comes.
    let age_ms = if round % 4 < 2 { 600_000 } else { 500 };
    let plan = Plan::new(&exam.binary, &data, &exam.work).with("settle.age.ms", age_ms);
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, i32::try_from(partitions)?, &[])?;
    let load = is_busy.then(|| Busy::begin(&exam.work));
    let sent = produce_to_all(&mut probe, partitions)?;
    drop(probe);
    let began = Instant::now();
    victim.terminate()?;
    let stopped_in = began.elapsed();
    if let Some(load) = load {
        load.end()?;
    }
    outcome.require(stopped_in <= STOP_MAX, || {
        format!("round {round}: it stopped after {stopped_in:?}")
    });
    let mut victim = plan.start()?;
    let up_in = victim.up_in;
    outcome.require(up_in <= START_MAX, || {
        format!("round {round}: up after {up_in:?}")
    });
    outcome.notes.push(format!(
        "round {round}: {partitions} partitions, {} disk: stopped in {:.1} s, up in {:.1} s",
        if is_busy { "busy" } else { "idle" },
        stopped_in.as_secs_f64(),
        up_in.as_secs_f64()
    ));
    require_all(&mut Probe::connect(&victim.kafka)?, &sent, outcome)?;
    victim.terminate()
}

/// Somebody else who writes to the same disk all the time.
struct Busy {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Busy {
    fn begin(work: &Path) -> Busy {
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, path) = (Arc::clone(&over), work.join("busy"));
        let thread = thread::spawn(move || {
            let piece = vec![0x5a; BUSY_BYTES];
            let mut file = File::create(&path)?;
            while !is_over.load(Ordering::Relaxed) {
                file.rewind()?;
                for _ in 0..8 {
                    file.write_all(&piece)?;
                }
                file.sync_data()?;
            }
            Ok(std::fs::remove_file(&path)?)
        });
        Busy { over, thread }
    }

    fn end(self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the other writer panicked"))?
    }
}
