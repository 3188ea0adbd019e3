//! `cargo xtask package`: the Debian package, built with Debian's own tools from the release binary and `packaging/`.
//! Callers: whoever makes a release; `cargo xtask test`, with `--check`.
//! Invariant: nothing is downloaded. What the package holds is staged in a directory of its own, with the modes it is to have.

mod check;
mod stage;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{Tally, debian, run};

/// Flags of `cargo xtask package`.
#[derive(clap::Args)]
pub struct Options {
    /// Package this binary instead of building one.
    #[arg(long, value_name = "FILE")]
    bin: Option<PathBuf>,
    /// Where the package is written; the default is target/package.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Install the package into an empty root directory with dpkg, start its server, upgrade, remove and purge it.
    #[arg(long)]
    check: bool,
}

/// What builds the package, each with the Debian package that holds it.
const TOOLS: [(&str, &str); 3] = [
    ("dpkg-deb", "dpkg"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("gzip", "gzip"),
];
/// What the check wants besides.
const CHECKING: (&str, &str) = ("systemd-analyze", "systemd");

/// How a package is compressed that is given to others, and one that is only tried.
const SMALL: &str = "-Zxz";
const QUICK: &str = "-Znone";

/// Entry of `cargo xtask package`.
pub fn run(options: &Options) -> Result<()> {
    let package = build(options.bin.as_deref(), options.out.as_deref(), SMALL)?;
    println!("{}", package.display());
    if options.check {
        check::run(&package)?;
    }
    Ok(())
}

/// Packages this binary and checks the package, as one of the chores of `cargo xtask test`.
pub fn run_check(binary: &Path) -> Result<Tally> {
    for (tool, package) in TOOLS.into_iter().chain([CHECKING]) {
        if run::on_path(tool).is_none() {
            debian::install(package)?;
        }
    }
    let package = build(Some(binary), None, QUICK)?;
    check::run(&package)?;
    Ok(Tally::ONE_PASSED)
}

/// Builds the package, from a release binary if none is given; returns its path.
fn build(binary: Option<&Path>, out: Option<&Path>, compression: &str) -> Result<PathBuf> {
    for (tool, package) in TOOLS {
        if run::on_path(tool).is_none() {
            bail!("{tool} is missing: install the Debian package {package}");
        }
    }
    let binary = match binary {
        Some(binary) => std::path::absolute(binary)?,
        None => run::build_release()?,
    };
    let out = match out {
        Some(out) => std::path::absolute(out)?,
        None => run::target_directory().join("package"),
    };
    std::fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let staged = tempfile::tempdir_in(&out)?;
    let facts = stage::stage(&binary, staged.path())?;
    let name = format!("alluvium_{}_{}.deb", facts.version, facts.architecture);
    let package = out.join(name);
    run::quiet(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", compression, "--build"])
            .arg(staged.path().join("root"))
            .arg(&package),
    )?;
    Ok(package)
}
