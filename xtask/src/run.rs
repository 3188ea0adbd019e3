//! Runs other programs: what every chore needs for that.
//! Invariant: a program that fails takes its chore down with it, and its output is shown.

use anyhow::{Context, Result, bail};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// The workspace's root directory.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_path_buf()
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR` or `target/` of the workspace.
pub fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace().join(directory),
        None => workspace().join("target"),
    }
}

/// The cargo that runs this chore.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Builds all programs and all that is tested by one call: for a call each, cargo would compile the crates again, as features of
/// what they depend on differ.
pub fn build_all() -> Result<()> {
    let whole = ["build", "--workspace", "--bins", "--tests", "--examples"];
    shown(cargo().args(whole).arg("--quiet"))
}

/// Builds the broker as users get it; returns its path.
pub fn build_release() -> Result<PathBuf> {
    let arguments = ["build", "--release", "--locked", "--bin", "alluvium"];
    shown(cargo().args(arguments))?;
    Ok(target_directory().join("release/alluvium"))
}

/// The path of a program that [`build_all`] builds.
pub fn built(program: &str) -> PathBuf {
    target_directory().join("debug").join(program)
}

/// The full path of `program`, if it is on the PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Runs to the end with the output on ours. Error: the program cannot be started, or it fails.
pub fn shown(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", spelled(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", spelled(command));
    }
    Ok(())
}

/// Runs to the end with the output on ours, and returns how it ended and those lines of its stdout that are to be kept.
/// Error: the program cannot be started, or its output not read.
pub fn shown_and_kept(
    command: &mut Command,
    is_kept: impl Fn(&str) -> bool,
) -> Result<(ExitStatus, Vec<String>)> {
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = started.with_context(|| format!("cannot start {}", spelled(command)))?;
    let output = child.stdout.take().expect("piped");
    let mut kept = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if is_kept(&line) {
            kept.push(line.trim().to_owned());
        }
    }
    Ok((child.wait()?, kept))
}

/// Runs to the end and returns what it printed on stdout. Error: with the end of its output.
pub fn quiet(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", spelled(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = stdout.lines().chain(stderr.lines()).collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        bail!("{} failed ({})\n{tail}", spelled(command), output.status);
    }
    Ok(stdout)
}

fn spelled(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    let text = words.join(" ");
    match text.char_indices().nth(160) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
