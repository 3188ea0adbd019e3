//! Gives the binary the commit that it is built from, where that is known: in a git checkout of this project. A source archive
//! has none, and neither has an archive that was unpacked inside another project's checkout. The variables have no prefix of
//! the product: cargo sets them for what it runs, too, and the server would take them for settings.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=bin/build.rs");
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let commit = commit();
    let long = match &commit {
        Some(commit) => format!("{version} (commit {commit})"),
        None => version,
    };
    println!("cargo::rustc-env=BUILD_VERSION={long}");
    let commit = commit.unwrap_or_default();
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
}

fn commit() -> Option<String> {
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // Both change when another commit is checked out or made.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// The one line that git prints; None if there is no git, or if it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
