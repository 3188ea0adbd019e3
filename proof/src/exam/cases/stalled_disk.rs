//! Case 37: the disk takes no write for 20 s (the file system is frozen, as by a snapshot, a multipath switch or a hung array).
//! Health and metrics answer all the time and say so, readers go on, and when the disk answers again so does the broker,
//! without a restart, and nothing is lost.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::exam::cases::crash;
use crate::exam::cases::full::{self, TOPIC, judge, produce};
use crate::exam::disk::LoopDisk;
use crate::exam::judge::Shown;
use crate::exam::ledger::Ledger;
use crate::exam::probe::{Answer, Probe};
use crate::exam::random::Random;
use crate::exam::victim::{Plan, Victim};
use crate::exam::{Case, Exam, Outcome, Rounds};
use xtask::run;

const DISK_BYTES: u64 = 512 << 20;
const VALUE_BYTES: usize = 4 << 10;
/// How long the disk stands still, in the full form and in the short one.
const STILL: Duration = Duration::from_secs(20);
const STILL_SHORT: Duration = Duration::from_secs(8);
/// An append that waits for so long means a stall: `storage::STALL_AFTER`, and a second for the watch.
const NAMED_WITHIN: Duration = Duration::from_secs(7);
/// Health and metrics never take longer.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Once the disk answers, so does the broker.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// The case.
pub const CASE: Case = Case {
    number: 37,
    name: "stalled-disk",
    about: "the disk takes no write for 20 s (8 s in the short form)",
    rounds: Rounds { full: 2, short: 1 },
    run,
};

fn run(exam: &Exam) -> Result<Outcome> {
    ensure!(
        run::on_path("fsfreeze").is_some(),
        "`fsfreeze` is not installed (Debian: apt-get install util-linux)"
    );
    let still = if exam.rounds < CASE.rounds.full {
        STILL_SHORT
    } else {
        STILL
    };
    full::each_disk(
        exam,
        CASE.about,
        |_| DISK_BYTES,
        |round, disk, outcome| try_round(exam, round, still, disk, outcome),
    )
}

/// A frozen file system, which goes on when this goes out of scope.
struct Frozen<'d>(&'d Path);

impl Frozen<'_> {
    fn new(path: &Path) -> Result<Frozen<'_>> {
        run::quiet(Command::new("fsfreeze").arg("--freeze").arg(path))?;
        Ok(Frozen(path))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = run::quiet(Command::new("fsfreeze").arg("--unfreeze").arg(self.0)) {
            eprintln!("  {} stays frozen: {error:#}", self.0.display());
        }
    }
}

fn try_round(
    exam: &Exam,
    round: u32,
    still: Duration,
    disk: &LoopDisk,
    outcome: &mut Outcome,
) -> Result<()> {
    let ledger = Ledger::create(&exam.work.join(format!("ledger-{round}")))?;
    let shown = Shown::default();
    let mut random = Random::new(exam.seed.wrapping_add(round.into()));
    let mut plan = crash::small(Plan::new(
        &exam.binary,
        &disk.path().join("data"),
        &exam.work,
    ));
    plan.log = exam.work.join(format!("broker-{round}.log"));
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    probe.create_topic(TOPIC, 1, &[("segment.bytes", "1048576")])?;
    for _ in 0..40 {
        let answer = produce(&mut probe, &ledger, &mut random, VALUE_BYTES)?;
        ensure!(
            matches!(answer, Answer::Acknowledged(_)),
            "before the fault: {answer:?}"
        );
    }
    let (status, said) = victim.get("/readyz")?;
    ensure!(status == 200, "before the fault: {status} {said}");

    let frozen = Frozen::new(disk.path())?;
    let began = Instant::now();
    let (waiting, took) = std::thread::scope(|scope| -> Result<_> {
        let waiting = scope.spawn(|| {
            let answer = produce(&mut probe, &ledger, &mut random, VALUE_BYTES);
            (answer, began.elapsed())
        });
        let took = watch(&victim, &ledger, &shown, began, still, outcome);
        drop(frozen);
        let waited = waiting
            .join()
            .map_err(|_| anyhow::anyhow!("the producer panicked"))?;
        Ok((waited, took?))
    })?;
    let (answer, acked_after) = waiting;
    let answer = answer.context("the produce that waited for the disk")?;
    outcome.require(matches!(answer, Answer::Acknowledged(_)), || {
        format!("the produce that waited was answered {answer:?}")
    });
    outcome.require(
        acked_after >= still && acked_after < still + BACK_WITHIN,
        || {
            format!(
                "the disk stood still for {still:?}, the acknowledgement came after {acked_after:?}"
            )
        },
    );
    let back = Instant::now();
    while victim.get("/readyz")?.0 != 200 && back.elapsed() < BACK_WITHIN {
        std::thread::sleep(Duration::from_millis(50));
    }
    outcome.require(victim.get("/readyz")?.0 == 200, || {
        format!("the disk answers again, and /readyz does not within {BACK_WITHIN:?}")
    });
    outcome.notes.push(format!(
        "round {round}: named after {:.1} s, slowest page {:.0} ms",
        took.named.as_secs_f64(),
        took.slowest.as_secs_f64() * 1e3
    ));
    let mut probe = Probe::connect(&victim.kafka)?;
    judge(&mut probe, &ledger, &shown, outcome)?;
    require_one_line_each_way(&victim, outcome);
    victim.kill()?;
    let mut victim = plan.start()?;
    let mut probe = Probe::connect(&victim.kafka)?;
    judge(&mut probe, &ledger, &shown, outcome)?;
    victim.terminate()
}

/// What health and metrics said while the disk stood still.
struct Watched {
    /// After how long they named it.
    named: Duration,
    /// The slowest answer.
    slowest: Duration,
}

fn watch(
    victim: &Victim,
    ledger: &Ledger,
    shown: &Shown,
    began: Instant,
    still: Duration,
    outcome: &mut Outcome,
) -> Result<Watched> {
    let mut named = None;
    let mut slowest = Duration::ZERO;
    let mut has_read = false;
    while began.elapsed() < still {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let asked = Instant::now();
            let (status, said) = victim
                .get(path)
                .with_context(|| format!("{path}, {:?} after the disk stopped", began.elapsed()))?;
            slowest = slowest.max(asked.elapsed());
            if path == "/readyz" && status == 503 && said.contains("disk_stalled") {
                named.get_or_insert(began.elapsed());
            }
            if path == "/metrics" && named.is_some() {
                outcome.require(said.contains("alluvium_appends_stalled 1"), || {
                    "/readyz names the stall, /metrics does not".to_owned()
                });
            }
        }
        if named.is_some() && !std::mem::replace(&mut has_read, true) {
            let mut reader = Probe::connect(&victim.kafka)?;
            judge(&mut reader, ledger, shown, outcome).context("reading while the disk stalls")?;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    outcome.require(slowest < ANSWER_MAX, || {
        format!("a page took {slowest:?} while the disk stood still")
    });
    outcome.require(named.is_some_and(|after| after < NAMED_WITHIN), || {
        format!("/readyz named the stall after {named:?}, not within {NAMED_WITHIN:?}")
    });
    Ok(Watched {
        named: named.unwrap_or(still),
        slowest,
    })
}

/// J7: the log says it, once each way.
fn require_one_line_each_way(victim: &Victim, outcome: &mut Outcome) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let count = |text: &str| victim.log().matches(text).count();
    let (stalls, goes_on) = ("appends stall", "appends go on");
    while count(goes_on) == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    let counts = (count(stalls), count(goes_on));
    outcome.require(counts == (1, 1), || {
        format!("the log says {counts:?} times that appends stall and go on, not once each")
    });
}
