//! Installs what the clients need, by package name, from the registries that their own installers
//! use; each kit once, into the cache directory, with a stamp that holds what it was made from.
//! Callers: `compat::main`, and `xtask test` ahead of time while other things build.
//! Invariant: what cannot be installed is an error that says what to do, never a client left out.

use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use xtask::{debian, run};

/// Packages of PyPI that are there as sources only; a C compiler builds them.
const UNBUILT: &[&str] = &["python-qpid-proton"];

/// One thing to install or build.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kit {
    /// A program on the PATH, from a Debian package.
    Debian {
        /// Name of the program.
        program: &'static str,
        /// Name of the package.
        package: &'static str,
    },
    /// Python 3 itself; only its standard library is used.
    SystemPython,
    /// A virtual environment with packages from PyPI.
    Python {
        /// Name of the environment.
        environment: &'static str,
        /// Packages with their versions.
        packages: &'static [&'static str],
    },
    /// A class path by Maven, and classes compiled against it.
    Java {
        /// `tests/compat/java/{project}.pom.xml`.
        project: &'static str,
        /// Files below `tests/compat/java`.
        sources: &'static [&'static str],
    },
    /// The same, of files in which one text stands for another: a program that two versions of an API have.
    JavaAs {
        /// `tests/compat/java/{project}.pom.xml`.
        project: &'static str,
        /// Files below `tests/compat/java`.
        sources: &'static [&'static str],
        /// What stands in them, and what is compiled instead.
        written: (&'static str, &'static str),
    },
    /// A folder below `tests/compat`, built by the go command to a program in the cache.
    Go {
        /// The folder.
        project: &'static str,
        /// The program.
        program: &'static str,
    },
    /// A folder below `tests/compat`, built by cargo.
    Cargo {
        /// The folder.
        project: &'static str,
    },
    /// A folder below `tests/compat`, its modules by npm.
    Node {
        /// The folder.
        project: &'static str,
    },
    /// A file out of a package of npm, as `npm/NAME/FILE` in the cache.
    NpmFile {
        /// Name of the package.
        name: &'static str,
        /// Its version.
        version: &'static str,
        /// Path inside it.
        file: &'static str,
    },
}

/// Where kits lie.
pub struct Places {
    /// `tests/compat`.
    pub sources: PathBuf,
    /// The cache directory.
    pub cache: PathBuf,
}

impl Places {
    /// The cache is `target/compat`, or `ALLUVIUM_COMPAT_CACHE` to share one between checkouts.
    pub fn find() -> Places {
        let cache = match std::env::var_os("ALLUVIUM_COMPAT_CACHE") {
            Some(directory) => PathBuf::from(directory),
            None => run::target_directory().join("compat"),
        };
        Places {
            sources: run::workspace().join("tests/compat"),
            cache,
        }
    }

    /// The interpreter of a virtual environment.
    pub fn python(&self, environment: Option<&str>) -> PathBuf {
        match environment {
            Some(name) => self.cache.join("python").join(name).join("bin/python"),
            None => PathBuf::from("python3"),
        }
    }

    /// The modules of a `Kit::Node`.
    pub fn node_modules(&self, project: &str) -> PathBuf {
        self.cache.join(project).join("node_modules")
    }

    /// The class path of a Maven project, its compiled classes first.
    pub fn classpath(&self, project: &str) -> Result<String> {
        let file = self.classpath_file(project);
        let jars =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let classes = self.classes(project);
        Ok(format!("{}:{}", classes.display(), jars.trim()))
    }

    fn classpath_file(&self, project: &str) -> PathBuf {
        self.cache.join("java").join(format!("{project}.classpath"))
    }

    fn classes(&self, project: &str) -> PathBuf {
        self.cache.join("java").join(project)
    }
}

/// Installs each kit that is not there yet, one after the other. Another process that is at the same place waits for each.
pub fn install(places: &Places, kits: impl IntoIterator<Item = Kit>) -> Result<()> {
    fs::create_dir_all(&places.cache)?;
    let mut done = HashSet::new();
    for kit in kits {
        if done.insert(kit) {
            // Let go with the file, also where this ends in an error.
            let lock = File::create(places.cache.join("install.lock"))?;
            lock.lock().context("the cache is locked")?;
            install_one(places, kit).with_context(|| format!("cannot set up {}", kit.title()))?;
        }
    }
    Ok(())
}

impl Kit {
    /// What a person calls it.
    fn title(&self) -> String {
        match self {
            Kit::Debian { package, .. } => format!("the Debian package {package}"),
            Kit::SystemPython => "Python 3".to_string(),
            Kit::Python { packages, .. } => packages.join(" "),
            Kit::Java { project, .. } | Kit::JavaAs { project, .. } => {
                format!("the Java classes of {project}")
            }
            Kit::Go { program, .. } => format!("the {program} program"),
            Kit::Cargo { project } => format!("the {project} program"),
            Kit::Node { project } => format!("the {project} modules"),
            Kit::NpmFile {
                name,
                version,
                file,
            } => format!("{file} of the npm package {name} {version}"),
        }
    }
}

fn install_one(places: &Places, kit: Kit) -> Result<()> {
    match kit {
        Kit::Debian { program, package } => need(program, package),
        Kit::SystemPython => need("python3", "python3"),
        Kit::Python {
            environment,
            packages,
        } => python(places, environment, packages),
        Kit::Java { project, sources } => java(places, project, sources, ("", "")),
        Kit::JavaAs {
            project,
            sources,
            written,
        } => java(places, project, sources, written),
        Kit::Go { project, program } => {
            need_newer("go", "the Go toolchain, 1.25 or newer")?;
            let mut command = Command::new("go");
            command
                .current_dir(places.sources.join(project))
                .args(["build", "-trimpath", "-o"])
                .arg(places.cache.join(program))
                .arg(".");
            run::quiet(&mut command).map(drop)
        }
        Kit::Cargo { project } => {
            let mut command = run::cargo();
            command
                .current_dir(places.sources.join(project))
                .env("CARGO_PROFILE_DEV_DEBUG", "false")
                .args(["build", "--locked", "--target-dir"])
                .arg(places.cache.join(project));
            run::quiet(&mut command).map(drop)
        }
        Kit::Node { project } => node(places, project),
        Kit::NpmFile {
            name,
            version,
            file,
        } => npm_file(places, name, version, file),
    }
}

fn python(places: &Places, environment: &str, packages: &[&str]) -> Result<()> {
    python_at(&places.cache.join("python").join(environment), packages)
}

/// Makes a virtual environment with packages from PyPI in `directory`, with its stamp beside it.
pub fn python_at(directory: &Path, packages: &[&str]) -> Result<()> {
    need("python3", "python3")?;
    let stamp = directory.with_extension("stamp");
    let recipe = packages.join("\n");
    if stamped(&stamp, &recipe) {
        return Ok(());
    }
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(directory);
    if run::quiet(&mut create).is_err() {
        debian::install("python3-venv")?;
        run::quiet(&mut create)?;
    }
    let mut command = Command::new(directory.join("bin/pip"));
    command
        .args(["install", "--quiet", "--only-binary", ":all:"])
        .args(UNBUILT.iter().flat_map(|name| ["--no-binary", *name]))
        .args(packages);
    run::quiet(&mut command)
        .context("pip needs the network, or an index that PIP_INDEX_URL names")?;
    Ok(fs::write(stamp, recipe)?)
}

/// `written` is what stands in the sources, and what is compiled instead.
fn java(places: &Places, project: &str, sources: &[&str], written: (&str, &str)) -> Result<()> {
    need("javac", "default-jdk-headless")?;
    need("mvn", "maven")?;
    let directory = places.cache.join("java");
    fs::create_dir_all(&directory)?;
    let pom = places
        .sources
        .join("java")
        .join(format!("{project}.pom.xml"));
    let classpath_file = places.classpath_file(project);
    let classpath_stamp = directory.join(format!("{project}.classpath.stamp"));
    let pom_text = fs::read_to_string(&pom)?;
    let jars_are_there = fs::read_to_string(&classpath_file)
        .is_ok_and(|jars| jars.trim().split(':').all(|jar| Path::new(jar).is_file()));
    if !stamped(&classpath_stamp, &pom_text) || !jars_are_there {
        let mut command = Command::new("mvn");
        command
            .args(["-q", "-B", "-f"])
            .arg(&pom)
            .args(["dependency:build-classpath", "-DincludeScope=runtime"])
            .arg(format!("-Dmdep.outputFile={}", classpath_file.display()));
        run::quiet(&mut command).context("Maven needs the network, or a filled ~/.m2")?;
        fs::write(&classpath_stamp, pom_text)?;
    }
    let classes = places.classes(project);
    let mut files = Vec::new();
    let mut recipe = String::new();
    for file in sources {
        let source = places.sources.join("java").join(file);
        let text = fs::read_to_string(&source)?;
        let (stands, instead) = written;
        if stands.is_empty() {
            files.push(source);
            recipe.push_str(&text);
        } else {
            let text = text.replace(stands, instead);
            let copy = directory.join(format!("{project}.sources")).join(file);
            fs::create_dir_all(copy.parent().context("it lies somewhere")?)?;
            fs::write(&copy, &text)?;
            files.push(copy);
            recipe.push_str(&text);
        }
    }
    let classes_stamp = directory.join(format!("{project}.classes.stamp"));
    if stamped(&classes_stamp, &recipe) {
        return Ok(());
    }
    let jars = fs::read_to_string(&classpath_file)?;
    let mut command = Command::new("javac");
    command
        .args(["-nowarn", "-cp", jars.trim(), "-d"])
        .arg(&classes)
        .args(&files);
    run::quiet(&mut command)?;
    Ok(fs::write(classes_stamp, recipe)?)
}

fn node(places: &Places, project: &str) -> Result<()> {
    need("node", "nodejs")?;
    need("npm", "npm")?;
    let directory = places.cache.join(project);
    let sources = places.sources.join(project);
    let stamp = directory.join("stamp");
    let lock = sources.join("package-lock.json");
    let recipe = fs::read_to_string(&lock)?;
    if stamped(&stamp, &recipe) {
        return Ok(());
    }
    fs::create_dir_all(&directory)?;
    fs::copy(&lock, directory.join("package-lock.json"))?;
    fs::copy(sources.join("package.json"), directory.join("package.json"))?;
    let mut command = Command::new("npm");
    command
        .current_dir(&directory)
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    run::quiet(&mut command).context("npm needs the network, or a filled cache")?;
    Ok(fs::write(stamp, recipe)?)
}

/// One file of a package, without what the package needs.
fn npm_file(places: &Places, name: &str, version: &str, file: &str) -> Result<()> {
    need("npm", "npm")?;
    let directory = places.cache.join("npm").join(name);
    let stamp = directory.join("stamp");
    let recipe = format!("{version} {file}");
    if stamped(&stamp, &recipe) {
        return Ok(());
    }
    fs::create_dir_all(&directory)?;
    let mut pack = Command::new("npm");
    pack.current_dir(&directory)
        .args(["pack", "--silent", &format!("{name}@{version}")]);
    run::quiet(&mut pack).context("npm needs the network, or a filled cache")?;
    let archive = directory.join(format!("{name}-{version}.tgz"));
    let mut unpack = Command::new("tar");
    unpack
        .current_dir(&directory)
        .args(["--strip-components=1", "-xzf"])
        .arg(&archive)
        .arg(format!("package/{file}"));
    run::quiet(&mut unpack)?;
    fs::remove_file(archive)?;
    Ok(fs::write(stamp, recipe)?)
}

fn stamped(stamp: &Path, recipe: &str) -> bool {
    fs::read_to_string(stamp).is_ok_and(|text| text == recipe)
}

/// Sees to a program on the PATH, from a Debian package.
pub fn need(program: &str, package: &str) -> Result<()> {
    if run::on_path(program).is_some() {
        return Ok(());
    }
    debian::install(package)?;
    match run::on_path(program) {
        Some(_) => Ok(()),
        None => bail!("{package} is installed, but there is no {program} on the PATH"),
    }
}

/// Sees to a file of a Debian package, which is installed if the file is not there.
pub fn need_file(file: &Path, package: &str) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    debian::install(package)?;
    if file.exists() {
        return Ok(());
    }
    bail!("{package} is installed, but there is no {}", file.display())
}

fn need_newer(program: &str, what: &str) -> Result<()> {
    match run::on_path(program) {
        Some(_) => Ok(()),
        None => {
            bail!("there is no {program} on the PATH: install {what} (Debian's own is too old)")
        }
    }
}
