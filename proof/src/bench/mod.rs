//! Benchmarks: `cargo xtask bench [NAME]`. Each measures the store from outside, several times, beside what the machine
//! does in a bare loop in the same run, and prints a table; `--write` puts it into `docs/performance.md`.
//!
//! A case is one file under `cases/` and one row in [`cases::ALL`]. Load comes from a process of its own (this one), with
//! batches that are made beforehand, and latencies are taken from the moment a batch was due.

mod amqp;
mod beside;
mod broker;
mod cases;
mod figures;
mod kafka;
mod limits;
mod mqtt;
mod pace;
mod peers;
mod store;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::exam::victim;
use figures::Figure;
use xtask::run;

/// What `cargo xtask bench` takes.
#[derive(clap::Args, Debug)]
pub struct BenchArgs {
    /// The case's name; all of them without it.
    case: Option<String>,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Bytes that the throughput cases move in each run, in GiB.
    #[arg(long, default_value_t = 20)]
    gib: u64,
    /// How long the paced cases run at each rate, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Put the tables into docs/performance.md.
    #[arg(long)]
    write: bool,
    /// Fail if a mark is missed.
    #[arg(long)]
    strict: bool,
    /// Where the data goes: a directory on the disk that is to be measured. By default below cargo's target directory.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// The broker's binary (built in release mode when not given).
    #[arg(long, env = "ALLUVIUM_BIN")]
    binary: Option<PathBuf>,
    /// Measures with a load that is not optimised: to see whether a case runs, not how fast.
    #[arg(long, hide = true, conflicts_with = "write")]
    unoptimised: bool,
    /// Another build's binary: both are measured in turn, and compared pair by pair. With --strict it fails if this
    /// build is worse by more than a twentieth.
    #[arg(long, value_name = "BINARY", conflicts_with = "write")]
    beside: Option<PathBuf>,
}

/// One thing that is measured.
pub struct Case {
    /// A name to call it by.
    pub name: &'static str,
    /// One line: what is measured, and how.
    pub about: &'static str,
    /// Whether it measures a broker's binary, or the engine in this process.
    pub uses_binary: bool,
    /// Measures it.
    pub run: fn(&Bench) -> Result<Vec<Figure>>,
}

/// What a case is given.
pub struct Bench {
    /// How often to measure.
    pub runs: u32,
    /// Bytes to move in each run of a throughput case.
    pub bytes: u64,
    /// How long a paced case runs at each rate.
    pub time: std::time::Duration,
    /// The broker's binary.
    pub binary: PathBuf,
    /// A directory of this run's own.
    pub work: PathBuf,
}

impl Bench {
    /// Says on stderr how far it has come.
    pub fn progress(&self, message: &str) {
        eprintln!("  {message}");
    }

    /// A new directory for one run's data. Removed when it goes out of scope.
    pub fn directory(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::tempdir_in(&self.work)?)
    }
}

/// Runs what the arguments ask for.
pub fn run(args: &BenchArgs) -> Result<()> {
    if cfg!(debug_assertions) && !args.unoptimised {
        // A load that is not optimised would measure itself.
        eprintln!("building the load in release mode");
        let mut command = run::cargo();
        command
            .args([
                "run",
                "--release",
                "--quiet",
                "--package",
                "alluvium-proof",
                "--",
            ])
            .args(std::env::args_os().skip(1));
        return run::shown(&mut command);
    }
    let chosen: Vec<&Case> = match &args.case {
        None => cases::ALL
            .iter()
            .filter(|case| args.beside.is_none() || case.uses_binary)
            .collect(),
        Some(name) => {
            let found = cases::ALL.iter().find(|case| case.name == name);
            vec![found.with_context(|| {
                let names: Vec<&str> = cases::ALL.iter().map(|case| case.name).collect();
                format!("no benchmark `{name}`; there are: {}", names.join(", "))
            })?]
        }
    };
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => victim::build_release()?,
    };
    let parent = args.directory.clone().unwrap_or_else(run::target_directory);
    std::fs::create_dir_all(&parent)?;
    let mut missed = Vec::new();
    for case in chosen {
        eprintln!("bench {}: {}", case.name, case.about);
        let work = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&parent)?;
        let bench = Bench {
            runs: args.runs.max(1),
            bytes: args.gib.max(1) << 30,
            time: std::time::Duration::from_secs(args.seconds.max(1)),
            binary: binary.clone(),
            work: work.path().to_path_buf(),
        };
        let load_before = load_average();
        if let Some(other) = &args.beside {
            let compared = beside::run(case, &bench, other)
                .with_context(|| format!("bench {} --beside", case.name))?;
            println!(
                "{}",
                section(case, args, &beside::table(&compared), &load_before)
            );
            let worse = compared.iter().filter(|row| row.is_worse());
            missed.extend(worse.map(|row| row.measurement().to_owned()));
            continue;
        }
        let figures = (case.run)(&bench).with_context(|| format!("bench {}", case.name))?;
        let text = section(case, args, &figures::table(&figures), &load_before);
        println!("{text}");
        if args.write {
            write(
                &run::workspace().join("docs/performance.md"),
                case.name,
                &text,
            )?;
        }
        missed.extend(
            figures
                .iter()
                .filter(|figure| figure.passed() == Some(false))
                .map(|figure| figure.what.clone()),
        );
    }
    if args.strict && !missed.is_empty() {
        bail!("marks missed: {}", missed.join("; "));
    }
    Ok(())
}

/// A case's part of the page.
fn section(case: &Case, args: &BenchArgs, table: &str, load: &str) -> String {
    format!(
        "{}\n\n`cargo xtask bench {} --runs {} --gib {} --seconds {}{}`, with a load average of {load} before it began.\n\n{}",
        case.about,
        case.name,
        args.runs,
        args.gib,
        args.seconds,
        args.beside.as_ref().map_or("", |_| " --beside BINARY"),
        table
    )
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Puts a case's part between its marks in the page.
pub fn write(page: &Path, name: &str, text: &str) -> Result<()> {
    let old = std::fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let new = replaced(&old, name, text)
        .with_context(|| format!("{} has no marks for `{name}`", page.display()))?;
    Ok(std::fs::write(page, new)?)
}

fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- begin {name} -->\n");
    let end = format!("<!-- end {name} -->");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_case_s_own_part_of_the_page_is_replaced() {
        let page =
            "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n";
        let new = replaced(page, "x", "new").unwrap();
        assert_eq!(
            new,
            "a\n<!-- begin x -->\n\nnew\n<!-- end x -->\nb\n<!-- begin y -->\n<!-- end y -->\n"
        );
        assert_eq!(replaced(&new, "x", "new").unwrap(), new);
        assert_eq!(replaced(page, "z", "new"), None);
    }

    #[test]
    fn the_page_has_marks_for_every_case() {
        let page = std::fs::read_to_string(run::workspace().join("docs/performance.md")).unwrap();
        for case in cases::ALL {
            assert!(replaced(&page, case.name, "").is_some(), "{}", case.name);
        }
    }
}
