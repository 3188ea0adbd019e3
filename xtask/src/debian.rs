//! Debian packages that a chore needs.
//! Callers: `package`; the crate `proof`, for the programs that clients and suites are built with.

use crate::run;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Installs a Debian package by name. Fails with what to do where that is not possible.
pub fn install(package: &str) -> Result<()> {
    let advice = || format!("install it by hand: apt-get install {package}");
    if run::on_path("apt-get").is_none() {
        bail!("this is no Debian; install the equivalent of its package {package}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("only root may install packages; {}", advice());
    }
    eprintln!("installing the Debian package {package}");
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").args([
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
        package,
    ]);
    if run::quiet(&mut install).is_err() {
        run::quiet(Command::new("apt-get").args(["update", "-qq"])).with_context(advice)?;
        run::quiet(&mut install).with_context(advice)?;
    }
    Ok(())
}
