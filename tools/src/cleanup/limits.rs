//! Which settings hold for a topic where no server says so: those that the store keeps, over those that the server was started
//! with, which only its configuration knows.
//!
//! Callers: cleanup over a directory. Invariant: nothing is removed by a limit that nobody has said: a server that keeps records
//! for ever by its configuration would otherwise lose them to the default of seven days.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use model::topic_config::{Defaults, Setting, Source, TopicConfig, effective};

use crate::failure::Failure;
use crate::log::names::{Names, Topic};

/// What the server would be started with.
#[derive(Debug, Args)]
pub(super) struct GivenSettings {
    /// With --dir: the server's configuration file, for topics that say nothing [env: ALLUVIUM_CONFIG]
    #[arg(long, value_name = "FILE", requires = "dir", conflicts_with = "http")]
    config: Option<PathBuf>,
    /// With --dir, `-X` is a setting for topics that say nothing, as the server is started with it (log.retention.ms=…)
    #[arg(skip)]
    pub(super) overrides: Vec<(String, String)>,
    /// With --dir: the server is started without settings for topics that say nothing
    #[arg(long, requires = "dir", conflicts_with_all = ["config", "http"])]
    defaults: bool,
}

/// What holds for topics that say nothing.
pub(super) struct Limits {
    defaults: Defaults,
    /// Whether all that the server would be started with is known.
    is_complete: bool,
}

impl GivenSettings {
    /// Together with what the store keeps.
    pub(super) fn limits(&self, names: &Names) -> Result<Limits> {
        let mut defaults = Defaults::default();
        let variable = std::env::var_os("ALLUVIUM_CONFIG").filter(|_| !self.defaults);
        let file = self.config.clone().or(variable.map(PathBuf::from));
        if let Some(file) = &file {
            read(file, &mut defaults)?;
        }
        for (key, value) in &self.overrides {
            if Setting::find_by_server_name(key).is_none() {
                bail!(Failure::Usage(format!(
                    "-X {key}: not a setting that topics take where they say nothing, as log.retention.ms is"
                )));
            }
            set(&mut defaults, key, value)
                .map_err(|error| Failure::Usage(format!("-X: {error}")))?;
        }
        // What was set while a server ran goes before what it was started with.
        for (key, value) in names.broker_settings() {
            if Setting::find_by_server_name(key).is_some() {
                set(&mut defaults, key, value).map_err(anyhow::Error::msg)?;
            }
        }
        Ok(Limits {
            defaults,
            is_complete: self.defaults || file.is_some(),
        })
    }
}

fn set(defaults: &mut Defaults, key: &str, value: &str) -> Result<(), String> {
    defaults.set(key, value).map_err(|error| error.to_string())
}

/// Takes from a server's configuration what topics use where they say nothing.
fn read(path: &Path, defaults: &mut Defaults) -> Result<()> {
    let about = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(about)?;
    let table: toml::Table = text.parse().with_context(about)?;
    let mut found = Vec::new();
    flatten("", &table, &mut found);
    for (key, value) in found {
        if Setting::find_by_server_name(&key).is_some() {
            set(defaults, &key, &value)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
        }
    }
    Ok(())
}

/// `a.b = 1` and `[a]` `b = 1` are the same.
fn flatten(prefix: &str, table: &toml::Table, found: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let key = match prefix {
            "" => name.clone(),
            _ => format!("{prefix}.{name}"),
        };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, found),
            toml::Value::String(text) => found.push((key, text.clone())),
            other => found.push((key, other.to_string())),
        }
    }
}

impl Limits {
    /// The typed settings of a topic.
    pub(super) fn of(&self, topic: &Topic) -> Result<TopicConfig> {
        TopicConfig::from_overrides(&topic.settings, &self.defaults)
            .with_context(|| format!("topic {}", topic.name))
    }

    /// Those of the named settings of a topic that nobody has said, with their default values.
    pub(super) fn unsaid(&self, topic: &Topic, names: &[&str]) -> BTreeMap<&'static str, String> {
        if self.is_complete {
            return BTreeMap::new();
        }
        let settings = names.iter().filter_map(|name| Setting::find(name));
        settings
            .filter_map(|setting| {
                let (value, source) = effective(setting, &topic.settings, &self.defaults);
                (source == Source::Default).then(|| (setting.name, value.to_owned()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(overrides: &[(&str, &str)], config: Option<PathBuf>, defaults: bool) -> GivenSettings {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        GivenSettings {
            config,
            overrides: overrides.iter().map(pair).collect(),
            defaults,
        }
    }

    fn topic(settings: &[(&str, &str)]) -> Topic {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Topic {
            name: "readings".to_owned(),
            partitions: 1,
            settings: settings.iter().map(pair).collect(),
        }
    }

    const WANTED: &[&str] = &["retention.ms", "retention.bytes"];

    /// The settings of `topic` that nobody has said.
    fn unsaid(given: &GivenSettings, topic: &Topic) -> Vec<&'static str> {
        let limits = given.limits(&Names::default()).expect("settings");
        limits.unsaid(topic, WANTED).into_keys().collect()
    }

    #[test]
    fn what_nobody_has_said_is_told_and_a_file_or_the_word_for_it_says_all() {
        let none = given(&[], None, false);
        assert_eq!(
            unsaid(&none, &topic(&[])),
            ["retention.bytes", "retention.ms"]
        );
        let own = topic(&[("retention.ms", "5"), ("retention.bytes", "-1")]);
        assert!(unsaid(&none, &own).is_empty());
        let one = given(&[("log.retention.ms", "5")], None, false);
        assert_eq!(unsaid(&one, &topic(&[])), ["retention.bytes"]);
        assert!(unsaid(&given(&[], None, true), &topic(&[])).is_empty());
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "data.dir = \"d\"\n[log.retention]\nms = 7\n")
            .expect("written");
        let config = given(
            &[("log.retention.bytes", "9")],
            Some(file.path().to_owned()),
            false,
        );
        assert!(unsaid(&config, &topic(&[])).is_empty());
        let limits = config.limits(&Names::default()).expect("settings");
        let config = limits.of(&topic(&[])).expect("a topic's");
        assert_eq!(
            (config.retention_ms, config.retention_bytes),
            (Some(7), Some(9))
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (key, value) in [
            ("log.retention.ms", "x"),
            ("data.dir", "d"),
            ("nosuch", "1"),
        ] {
            let refused = given(&[(key, value)], None, false).limits(&Names::default());
            assert!(refused.is_err(), "{key}={value}");
        }
    }
}
