//! Checks a package as Debian's tools and an operator would: its contents, its unit, and installing, running, upgrading,
//! removing and purging it in a root directory of its own. Nothing of the machine is changed.
//! Callers: `package::run`, `package::run_check`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::run;

/// The most that the installed binary may be: with line tables and symbols it is more than twice as large.
const BINARY_BYTES_MAX: u64 = 48 << 20;

/// Checks the package. Error: the first thing that is not as it should be.
pub(super) fn run(package: &Path) -> Result<()> {
    let root = tempfile::tempdir()?;
    contents(package)?;
    let root = Root::new(root.path())?;
    root.dpkg("--install", package.as_os_str())?;
    installed(&root.0)?;
    unit(&root.0)?;
    let store = tempfile::tempdir()?;
    served(&root.0, &store.path().join("data"))?;

    let settings = root.0.join("etc/alluvium/alluvium.toml");
    let changed = fs::read_to_string(&settings)? + "node.id = 7\n";
    fs::write(&settings, &changed)?;
    root.dpkg("--install", package.as_os_str())?;
    ensure!(
        fs::read_to_string(&settings)? == changed,
        "an upgrade keeps the settings that an operator changed"
    );
    let data = root.0.join("var/lib/alluvium/STORE");
    fs::create_dir_all(data.parent().context("a directory")?)?;
    fs::write(&data, "")?;
    root.dpkg("--remove", "alluvium".as_ref())?;
    ensure!(
        settings.exists() && !root.0.join("usr/bin/alluvium").exists(),
        "removing leaves the settings and nothing else"
    );
    root.dpkg("--purge", "alluvium".as_ref())?;
    ensure!(
        !settings.exists() && data.exists(),
        "purging takes the settings and leaves the store"
    );
    println!("package: installed, served, upgraded, removed and purged");
    Ok(())
}

/// What Debian's policy and `lintian` ask of every package's files.
fn contents(package: &Path) -> Result<()> {
    let listed = run::quiet(Command::new("dpkg-deb").arg("--contents").arg(package))?;
    for line in listed.lines() {
        let mut words = line.split_whitespace();
        let (mode, owner) = (words.next(), words.next());
        let path = words.nth(3).unwrap_or_default();
        let executable = path == "./usr/bin/alluvium";
        let expected = match mode.unwrap_or_default() {
            mode if mode.starts_with('d') => mode == "drwxr-xr-x",
            mode if executable => mode == "-rwxr-xr-x",
            mode => mode == "-rw-r--r--",
        };
        ensure!(
            expected && owner == Some("root/root"),
            "mode or owner of a packaged file: {line}"
        );
    }
    for path in [
        "./usr/bin/alluvium",
        "./usr/lib/systemd/system/alluvium.service",
        "./etc/alluvium/alluvium.toml",
        "./usr/share/doc/alluvium/copyright",
        "./usr/share/doc/alluvium/changelog.gz",
        "./usr/share/doc/alluvium/docs/operations.md",
        "./usr/share/man/man1/alluvium.1.gz",
        "./usr/share/man/man1/alluvium-serve.1.gz",
    ] {
        ensure!(
            listed.lines().any(|line| line.ends_with(path)),
            "{path} is missing"
        );
    }
    let fields = run::quiet(Command::new("dpkg-deb").arg("--field").arg(package))?;
    for field in [
        "Package",
        "Version",
        "Architecture",
        "Maintainer",
        "Depends",
        "Installed-Size",
    ] {
        ensure!(
            fields
                .lines()
                .any(|line| line.strip_prefix(field).is_some_and(|rest| rest.len() > 2)),
            "control has no {field}"
        );
    }
    ensure!(
        fields.contains("libc6 (>= "),
        "the C library is a dependency, with its version"
    );
    Ok(())
}

/// An empty root directory with a package database of its own.
struct Root(PathBuf);

impl Root {
    fn new(path: &Path) -> Result<Root> {
        for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "tmp"] {
            fs::create_dir_all(path.join(directory))?;
        }
        fs::write(path.join("var/lib/dpkg/status"), "")?;
        Ok(Root(path.to_owned()))
    }

    /// Maintainer scripts run, with DPKG_ROOT; dependencies are not there, as nothing is.
    fn dpkg(&self, action: &str, what: &std::ffi::OsStr) -> Result<()> {
        let done = run::quiet(
            Command::new("dpkg")
                .arg(format!("--root={}", self.0.display()))
                .args(["--force-not-root", "--force-script-chrootless"])
                .args(["--force-depends", "--force-confold", "--no-triggers"])
                .arg("--log=/dev/null")
                .arg(action)
                .arg(what),
        );
        done.map(drop).with_context(|| format!("dpkg {action}"))
    }
}

fn installed(root: &Path) -> Result<()> {
    let status = run::quiet(
        Command::new("dpkg-query")
            .arg(format!(
                "--admindir={}",
                root.join("var/lib/dpkg").display()
            ))
            .args(["--show", "--showformat=${Status}", "alluvium"]),
    )?;
    ensure!(status == "install ok installed", "dpkg says: {status}");
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    ensure!(
        passwd.lines().any(|line| line.starts_with("alluvium:")),
        "the installation makes the user"
    );
    let enabled = "etc/systemd/system/multi-user.target.wants/alluvium.service";
    ensure!(
        root.join(enabled).symlink_metadata().is_ok(),
        "the unit is enabled"
    );
    let binary = root.join("usr/bin/alluvium");
    let bytes = fs::metadata(&binary)?.len();
    // A debug build, which only `--bin` brings here, is as large as it is.
    let is_release = !fs::read(&binary)?
        .windows(11)
        .any(|part| part == b".debug_info");
    ensure!(
        !is_release || bytes <= BINARY_BYTES_MAX,
        "the binary has {bytes} bytes"
    );
    println!("package: {bytes} bytes of binary");
    Ok(())
}

/// The unit as systemd reads it, where systemd's tools are.
fn unit(root: &Path) -> Result<()> {
    if run::on_path("systemd-analyze").is_none() {
        bail!("systemd-analyze is missing: install the Debian package systemd");
    }
    let target = root.join("usr/lib/systemd/system");
    // What the unit names besides its own binary, as far as a root directory without a system needs it.
    for name in [
        "sysinit.target",
        "basic.target",
        "shutdown.target",
        "multi-user.target",
        "network-online.target",
    ] {
        fs::write(target.join(name), "[Unit]\nDescription=stands in\n")?;
    }
    run::quiet(
        Command::new("systemd-analyze")
            .arg(format!("--root={}", root.display()))
            .args(["--man=no", "--recursive-errors=yes", "verify"])
            .arg("alluvium.service"),
    )
    .map(drop)
    .context("the unit")
}

/// Starts the installed server as the unit does, but for places that only a whole system has.
fn served(root: &Path, data: &Path) -> Result<()> {
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/alluvium.service"))?;
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .context("the unit starts something")?;
    let mut words = start.split_whitespace().map(|word| {
        let inside = word.strip_prefix('/').map(|path| root.join(path));
        inside.map_or_else(|| word.into(), PathBuf::into_os_string)
    });
    let mut child = Command::new(words.next().context("a program")?)
        .args(words)
        .args(["--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    let status = child.wait()?;
    ensure!(
        line.starts_with("ready ") && status.success(),
        "the installed server said {line:?} and ended with {status}"
    );
    Ok(())
}
