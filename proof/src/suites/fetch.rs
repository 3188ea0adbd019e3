//! Fetch: gets the sources that a suite lies in, by its package's name, through the package's own installer.
//! Callers: the suites' `prepare`.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::run;

/// Copies the source of a crate, as its registry has it, to `place`/source; keeps it if it is there. Returns that path.
pub fn crate_source(place: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let source = place.join("source");
    let stamp = place.join("source.stamp");
    let recipe = format!("{name} {version}");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
        return Ok(source);
    }
    let project = place.join("fetch");
    fs::create_dir_all(project.join("src"))?;
    fs::write(project.join("src/lib.rs"), "")?;
    fs::write(
        project.join("Cargo.toml"),
        format!(
            "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n\
             {name} = {{ version = \"={version}\", default-features = false }}\n"
        ),
    )?;
    let metadata =
        run::quiet(
            run::cargo()
                .current_dir(&project)
                .args(["metadata", "--format-version", "1"]),
        )
        .context("cargo needs the network, or a filled cache")?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| {
            package["name"] == name
                && package["version"].as_str().is_some_and(|found| {
                    found == version || found.starts_with(&format!("{version}+"))
                })
        })
        .and_then(|package| package["manifest_path"].as_str())
        .with_context(|| format!("cargo knows no {recipe}"))?;
    let from = Path::new(manifest)
        .parent()
        .context("a manifest lies in a directory")?;
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    run::quiet(Command::new("cp").arg("-r").arg(from).arg(&source))?;
    // Registries' sources may be read-only, and they are built in place.
    run::quiet(Command::new("chmod").args(["-R", "u+w"]).arg(&source))?;
    fs::write(stamp, recipe)?;
    Ok(source)
}

/// Copies a Go module, as its proxy has it, with its tests, to `place`/source; keeps it if it is there.
pub fn go_module(place: &Path, module: &str, version: &str) -> Result<()> {
    let source = place.join("source");
    let stamp = place.join("source.stamp");
    let recipe = format!("{module} {version}");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
        return Ok(());
    }
    let mut download = Command::new("go");
    download
        .current_dir(place)
        .args(["mod", "download", "-json"])
        .arg(format!("{module}@{version}"));
    let told = run::quiet(&mut download).context("go needs the network, or a filled cache")?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let from = told["Dir"]
        .as_str()
        .with_context(|| format!("go knows no {recipe}"))?;
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    run::quiet(Command::new("cp").arg("-r").arg(from).arg(&source))?;
    // The cache of modules is read-only.
    run::quiet(Command::new("chmod").args(["-R", "u+w"]).arg(&source))?;
    Ok(fs::write(stamp, recipe)?)
}

/// Unpacks a source package from PyPI to `place`/source, by the pip beside `python`; keeps it if it is there.
pub fn python_source(python: &Path, place: &Path, name: &str, version: &str) -> Result<()> {
    let source = place.join("source");
    let stamp = place.join("source.stamp");
    let recipe = format!("{name} {version}");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == recipe) {
        return Ok(());
    }
    let download = place.join("download");
    for directory in [&source, &download] {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory)?;
    }
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
    ])
    .arg(&download)
    .arg(format!("{name}=={version}"));
    run::quiet(&mut pip).context("pip needs the network, or an index that PIP_INDEX_URL names")?;
    let archive = fs::read_dir(&download)?
        .next()
        .context("pip downloaded nothing")??
        .path();
    let mut unpack = Command::new("tar");
    unpack
        .args(["--strip-components", "1", "-xf"])
        .arg(archive)
        .arg("-C")
        .arg(&source);
    run::quiet(&mut unpack)?;
    Ok(fs::write(stamp, recipe)?)
}
