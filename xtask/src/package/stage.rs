//! The package's files: what is installed where, with which mode, and the control files that describe it.
//! Callers: `package::build`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;

/// Who answers for the package; Debian's format asks for an address.
const MAINTAINER: &str = "The Alluvium authors <alluvium@localhost>";

/// What the package's name says.
pub(super) struct Facts {
    pub(super) version: String,
    pub(super) architecture: String,
}

/// Files of the source tree, where they are installed, and their modes.
const FILES: &[(&str, &str, u32)] = &[
    (
        "packaging/alluvium.service",
        "usr/lib/systemd/system/alluvium.service",
        0o644,
    ),
    (
        "packaging/alluvium.sysusers",
        "usr/lib/sysusers.d/alluvium.conf",
        0o644,
    ),
    (
        "packaging/alluvium.toml",
        "etc/alluvium/alluvium.toml",
        0o644,
    ),
    (
        "packaging/debian/copyright",
        "usr/share/doc/alluvium/copyright",
        0o644,
    ),
    ("README.md", "usr/share/doc/alluvium/README.md", 0o644),
    ("packaging/debian/conffiles", "DEBIAN/conffiles", 0o644),
    ("packaging/debian/postinst", "DEBIAN/postinst", 0o755),
    ("packaging/debian/prerm", "DEBIAN/prerm", 0o755),
    ("packaging/debian/postrm", "DEBIAN/postrm", 0o755),
];

/// What the binary prints for a shell, and where that shell looks for it.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/alluvium"),
    ("fish", "usr/share/fish/vendor_completions.d/alluvium.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_alluvium"),
];

/// Puts the package's tree into `staging/root`.
pub(super) fn stage(binary: &Path, staging: &Path) -> Result<Facts> {
    let root = staging.join("root");
    let source = run::workspace();
    put(&fs::read(binary)?, &root.join("usr/bin/alluvium"), 0o755)?;
    for (from, to, mode) in FILES {
        let bytes = fs::read(source.join(from)).with_context(|| format!("read {from}"))?;
        put(&bytes, &root.join(to), *mode)?;
    }
    // Below `docs`, where README's links point.
    let docs = root.join("usr/share/doc/alluvium/docs");
    put_tree(&source.join("docs"), &docs)?;
    // The staged binary describes itself, so that pages and completions are those of this very build.
    let staged = root.join("usr/bin/alluvium");
    for (shell, to) in COMPLETIONS {
        let script = run::quiet(Command::new(&staged).args(["completions", shell]))?;
        put(script.as_bytes(), &root.join(to), 0o644)?;
    }
    let pages = root.join("usr/share/man/man1");
    run::quiet(Command::new(&staged).args(["man", "--dir"]).arg(&pages))?;
    let mut compressed = Vec::new();
    for entry in fs::read_dir(&pages)? {
        compressed.push(entry?.path());
    }
    let version = run::quiet(Command::new(&staged).arg("-V"))?;
    let version = version.split_whitespace().last().context("a version")?;
    let changelog = root.join("usr/share/doc/alluvium/changelog");
    put(changes(version)?.as_bytes(), &changelog, 0o644)?;
    compressed.push(changelog);
    for path in compressed {
        run::quiet(Command::new("gzip").args(["-9n"]).arg(&path))?;
        let mut zipped = path.into_os_string();
        zipped.push(".gz");
        fs::set_permissions(&zipped, Permissions::from_mode(0o644))?;
    }
    let architecture = run::quiet(Command::new("dpkg").arg("--print-architecture"))?;
    let facts = Facts {
        version: version.to_owned(),
        architecture: architecture.trim().to_owned(),
    };
    let control = control(&facts, &libraries(staging, &staged)?, kibibytes(&root)?);
    put(control.as_bytes(), &root.join("DEBIAN/control"), 0o644)?;
    put(sums(&root)?.as_bytes(), &root.join("DEBIAN/md5sums"), 0o644)?;
    directories(&root)?;
    Ok(facts)
}

/// Every file below a directory, at the same place below another one.
fn put_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            put_tree(&path, &to)?;
        } else {
            put(&fs::read(&path)?, &to, 0o644)?;
        }
    }
    Ok(())
}

fn put(bytes: &[u8], to: &Path, mode: u32) -> Result<()> {
    let above = to.parent().context("a file lies in a directory")?;
    fs::create_dir_all(above)?;
    fs::write(to, bytes).with_context(|| format!("write {}", to.display()))?;
    fs::set_permissions(to, Permissions::from_mode(mode))?;
    Ok(())
}

/// Debian's changelog: this version, and where its changes are written.
fn changes(version: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["-u", "-R"]);
    // So that one source gives one package: https://reproducible-builds.org/specs/source-date-epoch/
    if let Ok(seconds) = std::env::var("SOURCE_DATE_EPOCH") {
        date.args(["-d", &format!("@{seconds}")]);
    }
    let date = run::quiet(&mut date)?;
    Ok(format!(
        "alluvium ({version}) stable; urgency=medium\n\n  * Version {version}. See CHANGELOG.md in the source.\n\n -- {MAINTAINER}  {}\n",
        date.trim()
    ))
}

/// The libraries that the binary is linked to, as packages with their least versions.
fn libraries(staging: &Path, binary: &Path) -> Result<String> {
    // dpkg-shlibdeps wants a source tree around itself.
    let source = staging.join("source");
    fs::create_dir_all(source.join("debian"))?;
    fs::write(
        source.join("debian/control"),
        "Source: alluvium\n\nPackage: alluvium\nArchitecture: any\n",
    )?;
    let found = run::quiet(
        Command::new("dpkg-shlibdeps")
            .current_dir(&source)
            .arg("-O")
            .arg(binary),
    )?;
    let found = found
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="))
        .context("dpkg-shlibdeps names the libraries")?;
    Ok(found.to_owned())
}

fn control(facts: &Facts, libraries: &str, kibibytes: u64) -> String {
    let Facts {
        version,
        architecture,
    } = facts;
    format!(
        "Package: alluvium
Version: {version}
Architecture: {architecture}
Maintainer: {MAINTAINER}
Installed-Size: {kibibytes}
Depends: {libraries}, init-system-helpers (>= 1.51), passwd
Suggests: kcat
Section: database
Priority: optional
Description: persistent, log-structured stream store for telemetry
 Alluvium keeps streams of telemetry in one log on disk. It speaks the Kafka
 protocol, so that kcat, Kafka's console tools and Kafka's client libraries
 work with it. A record is acknowledged only after the fsync that covers it.
 .
 This package contains the server as a systemd service that listens on the
 loopback interface, the command line tools, and the documentation.
"
    )
}

/// All files below, in order.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn kibibytes(root: &Path) -> Result<u64> {
    let mut sum = 0;
    for path in files(root)? {
        sum += fs::metadata(path)?.len().div_ceil(1024);
    }
    Ok(sum)
}

/// What `dpkg --verify` compares with.
fn sums(root: &Path) -> Result<String> {
    let mut command = Command::new("md5sum");
    command.current_dir(root).arg("--");
    for path in files(root)? {
        let path = path.strip_prefix(root)?.to_owned();
        if !path.starts_with("DEBIAN") {
            command.arg(path);
        }
    }
    run::quiet(&mut command)
}

/// Directories of a package are everybody's to look into, whatever the umask was here.
fn directories(root: &Path) -> Result<()> {
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() {
            directories(&path)?;
        }
    }
    Ok(())
}
