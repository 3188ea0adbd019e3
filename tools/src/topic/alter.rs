//! `topic alter`: changes settings, and shows what they were.

use std::process::ExitCode;

use anyhow::{Result, bail};
use client::Client;
use client::admin::{Admin, ConfigChange, ConfigEntry, Resource};
use model::TopicName;
use serde_json::json;

use super::setting;
use crate::failure::Failure;
use crate::output::{confirm, print, similar};
use crate::table::Table;

pub(super) const EXAMPLES: &str = "\
The broker checks all changes together: all are made, or none. Less retention may delete records, so that is asked about \
first; --yes says so beforehand.
--json: an object: topic, applied, changes (an array of setting, old, new; null stands for the default).

Examples:
  alluvium topic alter readings --set retention.ms=604800000 --set durability=os
  alluvium topic alter readings --unset retention.ms --dry-run
  alluvium topic settings                            what --set takes";

/// What to change.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("changes").required(true).multiple(true).args(["set", "unset"])))]
pub(super) struct AlterArgs {
    /// The topic
    topic: String,
    /// Set a setting; may be repeated
    #[arg(short, long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Put a setting back to its default; may be repeated
    #[arg(short, long = "unset", value_name = "KEY")]
    unset: Vec<String>,
    /// Let the broker check the changes and show them, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask, even if records may be deleted
    #[arg(short, long)]
    yes: bool,
}

/// Lowering one of these may delete records.
const LIMITS: [&str; 2] = ["retention.ms", "retention.bytes"];

struct Change {
    setting: String,
    old: Option<String>,
    /// None for the default.
    new: Option<String>,
}

impl Change {
    /// Whether less is kept than before. What goes back to the default may be less.
    fn may_delete(&self) -> bool {
        let limit = |value: &Option<String>| value.as_deref()?.parse::<i64>().ok();
        LIMITS.contains(&self.setting.as_str())
            && match (limit(&self.old), limit(&self.new)) {
                (_, Some(-1)) => false,
                (Some(-1), _) => true,
                (Some(old), Some(new)) => new < old,
                _ => true,
            }
    }
}

pub(super) async fn run(args: &AlterArgs, client: &Client, json: bool) -> Result<ExitCode> {
    TopicName::parse(&args.topic)?;
    let mut names: Vec<&String> = args.set.iter().map(|(name, _)| name).collect();
    names.extend(&args.unset);
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!(Failure::Usage(format!("{} is set or unset twice", pair[0])));
    }
    let admin = Admin::new(client);
    client.topic_anew(&args.topic, false).await?;
    let topic = Resource::Topic(args.topic.clone());
    let before = admin.describe_configs(&topic).await?;
    for name in &args.unset {
        check_known(name, &before)?;
    }
    let set = |(name, value): &(String, String)| ConfigChange::Set(name.clone(), value.clone());
    let mut wanted: Vec<ConfigChange> = args.set.iter().map(set).collect();
    wanted.extend(args.unset.iter().cloned().map(ConfigChange::Delete));
    admin.alter_configs(&topic, &wanted, true).await?;
    let changes = changes(args, &before);
    if !args.dry_run {
        if !args.yes && changes.iter().any(Change::may_delete) {
            crate::output::aside(format_args!("{}", table(&changes)));
            confirm("keep less, and delete records that are beyond it")?;
        }
        admin.alter_configs(&topic, &wanted, false).await?;
    }
    let value = || {
        let changes = changes.iter().map(
            |change| json!({ "setting": change.setting, "old": change.old, "new": change.new }),
        );
        json!({ "topic": args.topic, "applied": !args.dry_run, "changes": changes.collect::<Vec<_>>() })
    };
    let text = || {
        let what = match (args.dry_run, changes.is_empty()) {
            (_, true) => "nothing changes: the settings are so already",
            (true, false) => "these changes would be made",
            (false, false) => "changed",
        };
        format!("{}{what}\n", table(&changes))
    };
    print(json, value, text)?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses to put back a setting that the broker does not know: it would say that this is done.
fn check_known(name: &str, before: &[ConfigEntry]) -> Result<()> {
    let known = || before.iter().map(|entry| entry.name.as_str());
    if known().any(|known| known == name) {
        return Ok(());
    }
    let meant =
        similar(name, known()).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    bail!(Failure::Usage(format!(
        "there is no topic setting {name}{meant}"
    )))
}

/// What really changes.
fn changes(args: &AlterArgs, before: &[ConfigEntry]) -> Vec<Change> {
    let old = |name: &str| {
        let entry = before.iter().find(|entry| entry.name == name);
        entry.and_then(|entry| entry.value.clone())
    };
    let is_own = |name: &str| {
        let entry = before.iter().find(|entry| entry.name == name);
        entry.is_none_or(|entry| entry.source == client::admin::ConfigSource::Topic)
    };
    let set = args.set.iter().map(|(name, value)| Change {
        setting: name.clone(),
        old: old(name),
        new: Some(value.clone()),
    });
    let unset = args.unset.iter().filter(|name| is_own(name));
    let unset = unset.map(|name| Change {
        setting: name.clone(),
        old: old(name),
        new: None,
    });
    set.filter(|change| change.old != change.new || !is_own(&change.setting))
        .chain(unset)
        .collect()
}

fn table(changes: &[Change]) -> String {
    if changes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["SETTING", "OLD", "NEW"]);
    for change in changes {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "default".to_owned());
        table.row([
            change.setting.clone(),
            shown(&change.old),
            shown(&change.new),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_less_retention_may_delete() {
        let may_delete = |setting: &str, old: &str, new: Option<&str>| {
            let change = Change {
                setting: setting.to_owned(),
                old: Some(old.to_owned()),
                new: new.map(str::to_owned),
            };
            change.may_delete()
        };
        assert!(may_delete("retention.ms", "100", Some("99")));
        assert!(may_delete("retention.bytes", "-1", Some("99")));
        assert!(may_delete("retention.ms", "100", None));
        assert!(!may_delete("retention.ms", "100", Some("101")));
        assert!(!may_delete("retention.ms", "100", Some("-1")));
        assert!(!may_delete("segment.bytes", "100", Some("99")));
    }
}
