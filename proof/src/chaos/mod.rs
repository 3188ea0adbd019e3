//! The group protocol under chaos: `cargo xtask chaos --seed N --seconds N`. Members of four different clients share a
//! topic, join, leave, stall (SIGSTOP), crash (SIGKILL), come back under their instance ids or find another there, while
//! the broker is killed, stopped and started again. A seed fixes who does what when.
//!
//! `schedule` plans, `member` and `world` act and write down what happened (`history`), `checker` judges it. Against
//! Apache Kafka (`--against kafka`) the same must hold, which proves the judge.

mod checker;
mod history;
mod member;
mod schedule;
mod world;

use crate::compat::clients::{CLIENTS, Client};
use crate::compat::install::{self, Places};
use crate::compat::peer::{Kind, Peer, Stop};
use crate::compat::{self, Against};
use crate::exam::probe::Probe;
use crate::exam::random;
use anyhow::{Context, Result};
use checker::Verdict;
use history::{History, Partition, What};
use member::{Member, TOPIC, note, now_us};
use schedule::{Deed, SEATS, Step};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use xtask::Tally;

/// Clients whose programs are members, by their names in the matrix.
const MEMBERS: [&str; 4] = ["kafka-python", "confluent-newest", "franz-go", "java-4"];
/// The group is whole again within this time after the last deed: sessions and rebalances are shorter.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// And the last records are read within this.
const READ_OUT_MAX: Duration = Duration::from_secs(20);
/// It has settled when it stays so for this long.
const CALM: Duration = Duration::from_secs(1);
/// The short form always has the same schedule: it is to tell about a change, and the command about other seeds.
const SHORT_SEED: u64 = 1;
/// One member of each client, for this long.
const SHORT: Size = Size {
    seats: 4,
    length: Duration::from_secs(20),
};

/// Flags of `cargo xtask chaos`.
#[derive(clap::Args)]
pub struct Options {
    /// The seed of the schedule; printed, so that a failure can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// How long members and broker are disturbed.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often, each time with the next seed.
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Members at most, 2 to 8: one to two of each client.
    #[arg(long, default_value_t = SEATS.len(), value_parser = seats)]
    seats: usize,
    /// The broker to run against.
    #[arg(long, value_enum, default_value_t = Against::Alluvium)]
    against: Against,
    /// The broker's binary; built by cargo (development profile) if not given.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Print the schedule, and do nothing.
    #[arg(long)]
    plan: bool,
    /// Keep the logs of rounds that passed, too.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy)]
struct Size {
    seats: usize,
    length: Duration,
}

fn seats(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (2..=SEATS.len()).contains(&count) => Ok(count),
        _ => Err(format!("must be 2 to {}", SEATS.len())),
    }
}

/// Entry of `cargo xtask chaos`.
pub fn main(options: &Options) -> Result<ExitCode> {
    let first = options.seed.unwrap_or_else(random::fresh_seed);
    let size = Size {
        seats: options.seats,
        length: Duration::from_secs(options.seconds),
    };
    if options.plan {
        for step in schedule::plan(first, size.seats, size.length) {
            println!("{:>7.3} s  {}", step.at.as_secs_f64(), title(step.deed));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let places = Places::find();
    install::install(
        &places,
        members().flat_map(|client| client.kits.iter().copied()),
    )?;
    let kind = match options.against {
        Against::Alluvium => compat::alluvium(options.binary.clone())?,
        Against::Kafka => compat::kafka(&places)?,
    };
    let mut failed = 0;
    for seed in first..first.saturating_add(options.rounds) {
        failed += usize::from(!run_seed(&kind, &places, seed, size, options.keep)?);
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The short form, as `cargo xtask test` runs it.
pub fn run_short() -> Result<Tally> {
    let places = Places::find();
    install::install(
        &places,
        members().flat_map(|client| client.kits.iter().copied()),
    )?;
    let passed = run_seed(&compat::alluvium(None)?, &places, SHORT_SEED, SHORT, false)?;
    Ok(match passed {
        true => Tally::ONE_PASSED,
        false => Tally::one_failed(format!("chaos, seed {SHORT_SEED}")),
    })
}

fn members() -> impl Iterator<Item = &'static Client> {
    CLIENTS
        .iter()
        .filter(|client| MEMBERS.contains(&client.name))
}

/// Runs one seed, and prints its line. Answers whether all held.
fn run_seed(kind: &Kind, places: &Places, seed: u64, size: Size, keep: bool) -> Result<bool> {
    let directory = places.cache.join(format!("run/chaos-{seed}"));
    eprintln!(
        "chaos: seed {seed}, {} seats, {} s; logs: {}",
        size.seats,
        size.length.as_secs(),
        directory.display()
    );
    let begun = Instant::now();
    let verdict = run(kind, places, &directory, seed, size)?;
    for violation in verdict.violations.iter().take(20) {
        eprintln!("  did not hold: {violation}");
    }
    let counts = verdict.counts;
    let passed = verdict.violations.is_empty();
    println!(
        "chaos {}: {} generations, {} assignments, {} looks at a stable group | {} records, seen {} times | \
         {} commits acknowledged, {} not, {} members fenced | {} violations | seed {seed}, {:.1} s",
        if passed { "PASSED" } else { "FAILED" },
        counts.generations,
        counts.assignments,
        counts.described,
        counts.produced,
        counts.seen,
        counts.committed,
        counts.refused,
        counts.fenced,
        verdict.violations.len(),
        begun.elapsed().as_secs_f64()
    );
    if passed && !keep {
        fs::remove_dir_all(&directory)?;
    }
    Ok(passed)
}

fn run(kind: &Kind, places: &Places, directory: &Path, seed: u64, size: Size) -> Result<Verdict> {
    let settings = [("group.min.session.timeout.ms", "1000")];
    let peer = Peer::start_with(kind.clone(), directory, &settings)?;
    let address = peer.address().to_owned();
    Probe::connect(&address)?.create_topic(TOPIC, i32::try_from(world::PARTITIONS)?, &[])?;
    let history = Arc::new(Mutex::new(History {
        partition_count: world::PARTITIONS,
        events: Vec::new(),
    }));
    let (no_more_records, no_more_looks) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut director = Director {
        peer,
        places,
        directory,
        history: &history,
        members: Vec::new(),
        starts: 0,
    };
    let outcome = std::thread::scope(|scope| {
        let producer = scope.spawn(|| world::produce(&address, seed, &history, &no_more_records));
        scope.spawn(|| world::observe(&address, &history, &no_more_looks));
        let outcome = director
            .perform(&schedule::plan(seed, size.seats, size.length))
            .and_then(|()| director.settle());
        no_more_records.store(true, Relaxed);
        let _ = producer.join();
        let outcome = outcome.map(|()| director.read_out());
        no_more_looks.store(true, Relaxed);
        outcome.and_then(|()| director.end())
    });
    outcome?;
    let mut history = history.lock().expect("all threads have ended").clone();
    history.sort();
    write_down(&history, &directory.join("history.txt"))?;
    let mut verdict = checker::check(&history);
    if let Some(complaint) = kind.complaint(directory) {
        verdict
            .violations
            .push(format!("the broker complains: {complaint}"));
    }
    Ok(verdict)
}

/// For a reader who looks for the cause of a violation.
fn write_down(history: &History, path: &Path) -> Result<()> {
    let mut text = String::new();
    for event in &history.events {
        text.push_str(&format!("{} {:?}\n", event.at_us, event.what));
    }
    Ok(fs::write(path, text)?)
}

/// Does to the group what the schedule says.
struct Director<'a> {
    peer: Peer,
    places: &'a Places,
    directory: &'a Path,
    history: &'a Arc<Mutex<History>>,
    /// Every program that was started, with its seat; the newest of a seat is the one that deeds are about.
    members: Vec<(usize, Member)>,
    starts: usize,
}

impl Director<'_> {
    fn perform(&mut self, steps: &[Step]) -> Result<()> {
        let begun = Instant::now();
        for step in steps {
            std::thread::sleep(step.at.saturating_sub(begun.elapsed()));
            eprintln!(
                "  {:>7.3} s  {}",
                begun.elapsed().as_secs_f64(),
                title(step.deed)
            );
            self.act(step.deed).with_context(|| title(step.deed))?;
        }
        Ok(())
    }

    fn act(&mut self, deed: Deed) -> Result<()> {
        match deed {
            Deed::Join(seat) | Deed::Double(seat) => {
                self.starts += 1;
                let member = Member::start(
                    SEATS[seat],
                    self.starts,
                    self.peer.address(),
                    self.places,
                    self.directory,
                    self.history,
                )?;
                self.members.push((seat, member));
            }
            Deed::Leave(seat) => self.newest(seat)?.ask_to_leave(),
            Deed::Crash(seat) => self.newest(seat)?.crash()?,
            Deed::Stall(seat) => self.newest(seat)?.stall(),
            // Of a double, the one that is stalled is the elder; to wake the other does no harm.
            Deed::Wake(seat) => self
                .members
                .iter()
                .filter(|(of, _)| *of == seat)
                .for_each(|(_, member)| member.wake()),
            Deed::KillBroker => self.peer.stop(Stop::Kill)?,
            Deed::StopBroker => self.peer.stop(Stop::Term)?,
            Deed::StartBroker => self.peer.resume()?,
        }
        Ok(())
    }

    fn newest(&mut self, seat: usize) -> Result<&mut Member> {
        self.members
            .iter_mut()
            .rev()
            .find(|(of, _)| *of == seat)
            .map(|(_, member)| member)
            .context("the schedule names a seat that nobody took")
    }

    /// Waits until the group is stable with everyone who lives, all that was there is committed, and the members tell so
    /// themselves; and until it has stayed so. Notes it, or leaves it to the checker to miss it. Records go on coming: a
    /// member whose commit was cut off tries again with the next.
    fn settle(&mut self) -> Result<()> {
        let goal = world::ends(&mut Probe::connect(self.peer.address())?)?;
        let deadline = Instant::now() + SETTLE_MAX;
        let mut calm_since = None;
        while Instant::now() < deadline {
            match self.is_whole(&goal) {
                Ok(true) => {
                    let since = *calm_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= CALM {
                        note(self.history, now_us(), What::Settled);
                        return Ok(());
                    }
                }
                Ok(false) | Err(_) => calm_since = None,
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn is_whole(&mut self, goal: &BTreeMap<Partition, u64>) -> Result<bool> {
        let mut living = BTreeSet::new();
        for (_, member) in &mut self.members {
            if member.is_running()? {
                living.insert(member.owner().to_owned());
            }
        }
        let mut probe = Probe::connect(self.peer.address())?;
        let view = world::observe_once(&mut probe, self.history)?;
        let mut history = self.history();
        history.note(now_us(), What::Settled);
        history.sort();
        let mut told = Verdict::default();
        checker::the_end_is_complete(&history, &mut told);
        Ok(view.state == "Stable"
            && view.members.len() == living.len()
            && goal
                .iter()
                .all(|(partition, end)| view.committed.get(partition) >= Some(end))
            && told.violations.is_empty())
    }

    /// Waits until every record was seen, or leaves it to the checker to miss some.
    fn read_out(&self) {
        let deadline = Instant::now() + READ_OUT_MAX;
        while Instant::now() < deadline {
            let mut missed = Verdict::default();
            checker::all_is_seen(&self.history(), &mut missed);
            if missed.violations.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What happened so far, in order.
    fn history(&self) -> History {
        let mut history = self
            .history
            .lock()
            .expect("nothing panics under this lock")
            .clone();
        history.sort();
        history
    }

    fn end(&mut self) -> Result<()> {
        for (_, member) in &mut self.members {
            if member.is_running()? {
                member.ask_to_leave();
            }
        }
        for (_, member) in &mut self.members {
            member.see_it_leave()?;
        }
        self.peer.stop(Stop::Term)
    }
}

fn title(deed: Deed) -> String {
    match deed {
        Deed::Join(seat) => format!("{} joins", SEATS[seat].name),
        Deed::Leave(seat) => format!("{} leaves", SEATS[seat].name),
        Deed::Crash(seat) => format!("{} crashes", SEATS[seat].name),
        Deed::Stall(seat) => format!("{} stalls", SEATS[seat].name),
        Deed::Wake(seat) => format!("{} wakes", SEATS[seat].name),
        Deed::Double(seat) => format!("another takes the place of {}", SEATS[seat].name),
        Deed::KillBroker => "the broker is killed".to_owned(),
        Deed::StopBroker => "the broker is stopped".to_owned(),
        Deed::StartBroker => "the broker is started".to_owned(),
    }
}
