//! `context`: addresses of brokers under names, for people who have more than one store.
//!
//! Callers: the command line; `cli` asks [`brokers`] and [`http`] where a command goes. The names are kept in
//! `$XDG_CONFIG_HOME/alluvium/contexts.toml`, or `~/.config/alluvium/contexts.toml`:
//!
//! ```toml
//! current = "plant"
//!
//! [contexts]
//! plant = "store.plant.example:9092"
//!
//! [http]
//! plant = "store.plant.example:8081"
//!
//! [properties.plant]
//! "security.protocol" = "SSL"
//! ```
//!
//! Where a context says nothing of HTTP, it is port 8080 of the first broker's host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::failure::Failure;
use crate::output::print;
use crate::protection::{Protection, pair};
use crate::reach;
use crate::table::Table;

/// Where commands go if nothing says otherwise.
pub const DEFAULT_BROKERS: &str = "127.0.0.1:9092";
/// The variable that says otherwise.
const BROKERS_VARIABLE: &str = "ALLUVIUM_BROKERS";
/// The variable that says where HTTP is served.
const HTTP_VARIABLE: &str = "ALLUVIUM_HTTP";
/// The port of HTTP where nothing says otherwise.
const HTTP_PORT: u16 = 8080;

pub(crate) const EXAMPLES: &str = "\
A command goes to the brokers that -b names, or else --context, ALLUVIUM_BROKERS, the context in use, or 127.0.0.1:9092.
--json: list prints an array of context, brokers, http, in_use; the others an object of the context that they are about.

Examples:
  alluvium context set plant store.plant.example:9092
  alluvium context set plant store.plant.example:9093 --http https://store.plant.example:8443 \\
      -X security.protocol=SASL_SSL -X sasl.username=alice -X sasl.password.location=store-password
  alluvium context use plant                       from now on
  alluvium topic list --context plant              this once
  alluvium context list";

/// `context` and its commands.
#[derive(Debug, clap::Args)]
pub struct ContextArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ContextCommand {
    /// List the names, and which is in use.
    List,
    /// Give brokers a name, or a name other brokers.
    Set {
        /// The name
        name: String,
        /// HOST or HOST:PORT, separated by commas
        brokers: String,
        /// Where the first of them serves HTTP, HOST or HOST:PORT [default: port 8080 there]
        #[arg(long, value_name = "ADDR")]
        http: Option<String>,
        /// How connections to them are protected, as all commands take it; no password is kept, but the name of its file
        #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = pair)]
        properties: Vec<(String, String)>,
    },
    /// Let commands go there from now on.
    Use {
        /// The name
        name: String,
    },
    /// Forget a name.
    Remove {
        /// The name
        name: String,
    },
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    contexts: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    http: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: BTreeMap<String, BTreeMap<String, String>>,
}

impl Contexts {
    /// No file is an empty one.
    fn read(path: &Path) -> Result<Contexts> {
        match fs::read_to_string(path) {
            Ok(text) => {
                let what = || format!("{} is not as it must be", path.display());
                toml::from_str(&text).with_context(what)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// All or nothing: another command may read it meanwhile.
    fn write(&self, path: &Path) -> Result<()> {
        let directory = path.parent().context("the file has a directory")?;
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(directory)?;
            let mut file = tempfile::NamedTempFile::new_in(directory)?;
            file.write_all(
                toml::to_string(self)
                    .map_err(std::io::Error::other)?
                    .as_bytes(),
            )?;
            file.persist(path)?;
            Ok(())
        };
        write().with_context(|| path.display().to_string())
    }

    fn brokers_of(&self, name: &str) -> Result<&str> {
        match self.contexts.get(name) {
            Some(brokers) => Ok(brokers),
            None if self.contexts.is_empty() => bail!(Failure::NotFound(format!(
                "there is no context {name}: `alluvium context set {name} HOST:PORT` makes it"
            ))),
            None => {
                let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
                bail!(Failure::NotFound(format!(
                    "there is no context {name}: there are {}",
                    names.join(", ")
                )))
            }
        }
    }

    /// Where a command goes that says nothing, or names a context.
    fn choose(&self, named: Option<&str>, variable: Option<String>) -> Result<String> {
        match (named, variable, &self.current) {
            (Some(name), _, _) => self.brokers_of(name).map(str::to_owned),
            (None, Some(brokers), _) => Ok(brokers),
            (None, None, Some(current)) => self.brokers_of(current).map(str::to_owned),
            (None, None, None) => Ok(DEFAULT_BROKERS.to_owned()),
        }
    }
}

/// Where a command goes: `given` by -b, or by the context that is `named`, the environment, or the context in use.
pub(crate) fn brokers(given: Option<&str>, named: Option<&str>) -> Result<String> {
    let checked = |brokers: &str| reach::addresses(brokers).map_err(Failure::Usage);
    if let Some(given) = given {
        return Ok(checked(given)?);
    }
    let variable = std::env::var(BROKERS_VARIABLE)
        .ok()
        .filter(|brokers| !brokers.is_empty());
    let contexts = match path() {
        // The file does not count, so that it may be damaged.
        _ if named.is_none() && variable.is_some() => Contexts::default(),
        Some(path) => Contexts::read(&path)?,
        None => Contexts::default(),
    };
    let is_from_variable = named.is_none() && variable.is_some();
    let chosen = contexts.choose(named, variable)?;
    let checked = checked(&chosen);
    match is_from_variable {
        true => checked.context(BROKERS_VARIABLE),
        false => Ok(checked?),
    }
}

/// Where a command finds HTTP: `given` by --http, the environment or the context, or else at the first of `brokers`, to which
/// the command goes otherwise. The context counts if it is `named`, or in use and nothing else said which brokers.
pub(crate) fn http(
    given: Option<&str>,
    named: Option<&str>,
    brokers_given: bool,
    brokers: &str,
) -> Result<String> {
    let checked = |address: &str| reach::http_address(address, HTTP_PORT).map_err(Failure::Usage);
    if let Some(given) = given {
        return checked(given).context("--http");
    }
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(variable) = set(HTTP_VARIABLE).filter(|_| named.is_none()) {
        return checked(&variable).context(HTTP_VARIABLE);
    }
    let no_context = named.is_none() && (brokers_given || set(BROKERS_VARIABLE).is_some());
    let contexts = match path() {
        Some(path) if !no_context => Contexts::read(&path)?,
        _ => Contexts::default(),
    };
    let name = named.or(contexts.current.as_deref());
    if let Some(http) = name.and_then(|name| contexts.http.get(name)) {
        return Ok(http.clone());
    }
    let first = brokers.split(',').next().unwrap_or_default();
    let host = first.rsplit_once(':').map_or(first, |(host, _)| host);
    Ok(format!("{host}:{HTTP_PORT}"))
}

/// How connections are protected, by the context that counts: as with [`http`].
pub(crate) fn properties(
    brokers_given: bool,
    named: Option<&str>,
) -> Result<Vec<(String, String)>> {
    let variable = std::env::var(BROKERS_VARIABLE);
    let no_context = named.is_none() && (brokers_given || variable.is_ok_and(|it| !it.is_empty()));
    let contexts = match path() {
        Some(path) if !no_context => Contexts::read(&path)?,
        _ => Contexts::default(),
    };
    let name = named.or(contexts.current.as_deref());
    let kept = name.and_then(|name| contexts.properties.get(name));
    Ok(kept.cloned().unwrap_or_default().into_iter().collect())
}

/// Where the file is; None if there is no home.
fn path() -> Option<PathBuf> {
    let directory = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let config =
        directory("XDG_CONFIG_HOME").or_else(|| Some(directory("HOME")?.join(".config")))?;
    Some(config.join("alluvium").join("contexts.toml"))
}

impl ContextArgs {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let path = path().context("neither XDG_CONFIG_HOME nor HOME says where to keep names")?;
        let mut contexts = Contexts::read(&path)?;
        let about = match &self.command {
            ContextCommand::List => {
                print(self.json, || in_json(&contexts), || in_text(&contexts))?;
                return Ok(ExitCode::SUCCESS);
            }
            ContextCommand::Set {
                name,
                brokers,
                http,
                properties,
            } => {
                Protection::check_kept(properties)?;
                let brokers = reach::addresses(brokers).map_err(Failure::Usage)?;
                let http = http
                    .as_deref()
                    .map(|http| reach::http_address(http, HTTP_PORT));
                match http.transpose().map_err(Failure::Usage)? {
                    Some(http) => contexts.http.insert(name.clone(), http),
                    None => contexts.http.remove(name),
                };
                match properties.is_empty() {
                    false => {
                        let properties = properties.iter().cloned().collect();
                        contexts.properties.insert(name.clone(), properties)
                    }
                    true => contexts.properties.remove(name),
                };
                contexts.contexts.insert(name.clone(), brokers);
                name
            }
            ContextCommand::Use { name } => {
                contexts.brokers_of(name)?;
                contexts.current = Some(name.clone());
                name
            }
            ContextCommand::Remove { name } => {
                contexts.brokers_of(name)?;
                contexts.contexts.remove(name);
                contexts.http.remove(name);
                contexts.properties.remove(name);
                contexts.current = contexts.current.filter(|current| current != name);
                name
            }
        };
        contexts.write(&path)?;
        let brokers = contexts.contexts.get(about);
        let in_use = contexts.current.as_ref() == Some(about);
        let http = contexts.http.get(about);
        let value =
            || json!({ "context": about, "brokers": brokers, "http": http, "in_use": in_use });
        let text = || match brokers {
            Some(brokers) if in_use => format!("{about} is {brokers}, and in use\n"),
            Some(brokers) => format!("{about} is {brokers}\n"),
            None => format!("{about} is forgotten\n"),
        };
        print(self.json, value, text)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn in_json(contexts: &Contexts) -> serde_json::Value {
    let one = |(name, brokers): (&String, &String)| json!({ "context": name, "brokers": brokers, "http": contexts.http.get(name), "in_use": contexts.current.as_ref() == Some(name) });
    contexts.contexts.iter().map(one).collect()
}

fn in_text(contexts: &Contexts) -> String {
    let mut table = Table::new(&["CONTEXT", "BROKERS", ""]);
    for (name, brokers) in &contexts.contexts {
        let in_use = match contexts.current.as_ref() == Some(name) {
            true => "in use",
            false => "",
        };
        table.row([name.as_str(), brokers, in_use]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts(current: Option<&str>) -> Contexts {
        let pair = |name: &str, brokers: &str| (name.to_owned(), brokers.to_owned());
        Contexts {
            current: current.map(str::to_owned),
            contexts: BTreeMap::from([pair("a", "a:1"), pair("b", "b:1,b:2")]),
            http: BTreeMap::from([pair("b", "b:3")]),
            properties: BTreeMap::from([(
                "b".to_owned(),
                BTreeMap::from([pair("security.protocol", "SSL")]),
            )]),
        }
    }

    #[test]
    fn a_named_context_goes_before_the_variable_and_that_before_the_one_in_use() {
        let variable = || Some("v:1".to_owned());
        let used = contexts(Some("b"));
        assert_eq!(used.choose(Some("a"), variable()).unwrap(), "a:1");
        assert_eq!(used.choose(None, variable()).unwrap(), "v:1");
        assert_eq!(used.choose(None, None).unwrap(), "b:1,b:2");
        assert_eq!(contexts(None).choose(None, None).unwrap(), DEFAULT_BROKERS);
        assert!(used.choose(Some("c"), None).is_err());
        assert!(contexts(Some("c")).choose(None, None).is_err());
    }

    #[test]
    fn the_file_is_read_as_it_was_written_and_refused_if_it_is_something_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new").join("contexts.toml");
        assert_eq!(Contexts::read(&path).unwrap(), Contexts::default());
        for contexts in [contexts(None), contexts(Some("a")), Contexts::default()] {
            contexts.write(&path).unwrap();
            assert_eq!(Contexts::read(&path).unwrap(), contexts);
        }
        fs::write(&path, "curent = \"a\"").unwrap();
        let error = format!("{:#}", Contexts::read(&path).unwrap_err());
        assert!(error.contains("curent"), "{error}");
    }
}
