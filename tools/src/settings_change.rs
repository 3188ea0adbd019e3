//! Changing settings of a topic or a broker: the broker checks the changes, they are shown, asked about where records may be
//! deleted, and made, all or none.
//! Callers: `topic alter`, `broker alter`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use client::admin::{Admin, ConfigChange, ConfigEntry, ConfigSource, Resource};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{aside, confirm, print, similar};
use crate::table::Table;
use model::time_spec::parse_duration;

/// What to change, and how far to go.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("changes").required(true).multiple(true).args(["set", "unset"])))]
pub(crate) struct ChangeArgs {
    /// Set a setting; may be repeated. Takes 7d for milliseconds and 16MiB for bytes
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

/// Whose settings are changed.
pub(crate) struct Target<'a> {
    /// In the request.
    pub(crate) resource: Resource,
    /// What it is, and its name: the first key of the JSON object.
    pub(crate) named: (&'static str, Value),
    /// The source of values that were set on it.
    pub(crate) own: ConfigSource,
    /// Settings of which a lower value may delete records.
    pub(crate) limits: &'a [&'a str],
}

/// `key=value` of a setting. A value in milliseconds may be a duration, one in bytes a size with a unit; whatever is neither is
/// the broker's to refuse.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    let has = |unit: &str| key.split('.').any(|word| word == unit);
    let number = match value.parse::<i128>() {
        Ok(_) => None,
        Err(_) if has("ms") => parse_duration(value).ok().map(|millis| millis.to_string()),
        Err(_) if has("bytes") => parse_bytes(value).map(|bytes| bytes.to_string()),
        Err(_) => None,
    };
    Ok((key.to_owned(), number.unwrap_or_else(|| value.to_owned())))
}

/// A size with a unit: `K`, `KiB`, `M`, `MiB` … are powers of 1,024. `kB` and `MB` mean two things, and are not taken.
fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = unit.trim().to_ascii_lowercase();
    let letter = unit.strip_suffix("ib").unwrap_or(&unit);
    let power = ["k", "m", "g", "t"]
        .iter()
        .position(|known| *known == letter)?;
    let factor = 1024_u64.checked_pow(u32::try_from(power).ok()? + 1)?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A change that is one.
struct Change {
    setting: String,
    old: Option<String>,
    /// None for the default.
    new: Option<String>,
}

impl Change {
    /// Whether less is kept than before. What goes back to the default may be less.
    fn may_delete(&self, limits: &[&str]) -> bool {
        let limit = |value: &Option<String>| value.as_deref()?.parse::<i64>().ok();
        limits.contains(&self.setting.as_str())
            && match (limit(&self.old), limit(&self.new)) {
                (_, Some(-1)) => false,
                (Some(-1), _) => true,
                (Some(old), Some(new)) => new < old,
                _ => true,
            }
    }
}

/// Makes the changes and prints them.
pub(crate) async fn alter(
    args: &ChangeArgs,
    target: &Target<'_>,
    admin: &Admin,
    json: bool,
) -> Result<ExitCode> {
    let before = admin.describe_configs(&target.resource).await?;
    for name in &args.unset {
        check_known(name, target, &before)?;
    }
    let set = |(name, value): &(String, String)| ConfigChange::Set(name.clone(), value.clone());
    let mut wanted: Vec<ConfigChange> = args.set.iter().map(set).collect();
    wanted.extend(args.unset.iter().cloned().map(ConfigChange::Delete));
    let resource = &target.resource;
    admin.alter_configs(resource, &wanted, true).await?;
    let changes = changes(args, target, &before);
    if !args.dry_run {
        let may_delete = |change: &Change| change.may_delete(target.limits);
        if !args.yes && changes.iter().any(may_delete) {
            aside(format_args!("{}", table(&changes)));
            confirm("keep less, and delete records that are beyond it")?;
        }
        admin.alter_configs(resource, &wanted, false).await?;
    }
    let value = || {
        let changes = changes.iter().map(
            |change| json!({ "setting": change.setting, "old": change.old, "new": change.new }),
        );
        let changes: Vec<_> = changes.collect();
        let (what, name) = &target.named;
        json!({ *what: name, "applied": !args.dry_run, "changes": changes })
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

impl ChangeArgs {
    /// Refuses a setting that is named twice.
    pub(crate) fn check(&self) -> Result<()> {
        let mut names: Vec<&String> = self.set.iter().map(|(name, _)| name).collect();
        names.extend(&self.unset);
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!(Failure::Usage(format!("{} is set or unset twice", pair[0])));
        }
        Ok(())
    }
}

/// Refuses to put back a setting that the broker does not know: it would say that this is done.
fn check_known(name: &str, target: &Target<'_>, before: &[ConfigEntry]) -> Result<()> {
    let known = || before.iter().map(|entry| entry.name.as_str());
    if known().any(|known| known == name) {
        return Ok(());
    }
    let meant =
        similar(name, known()).map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    let what = target.named.0;
    bail!(Failure::Usage(format!(
        "there is no {what} setting {name}{meant}"
    )))
}

/// What really changes.
fn changes(args: &ChangeArgs, target: &Target<'_>, before: &[ConfigEntry]) -> Vec<Change> {
    let old = |name: &str| {
        let entry = before.iter().find(|entry| entry.name == name);
        entry.and_then(|entry| entry.value.clone())
    };
    let is_own = |name: &str| {
        let entry = before.iter().find(|entry| entry.name == name);
        entry.is_none_or(|entry| entry.source == target.own)
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
            change.may_delete(&["retention.ms", "retention.bytes"])
        };
        assert!(may_delete("retention.ms", "100", Some("99")));
        assert!(may_delete("retention.bytes", "-1", Some("99")));
        assert!(may_delete("retention.ms", "100", None));
        assert!(!may_delete("retention.ms", "100", Some("101")));
        assert!(!may_delete("retention.ms", "100", Some("-1")));
        assert!(!may_delete("segment.bytes", "100", Some("99")));
    }

    #[test]
    fn a_setting_is_a_key_and_a_value() {
        assert_eq!(
            setting("retention.ms = 5"),
            Ok(("retention.ms".into(), "5".into()))
        );
        assert_eq!(setting("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(setting("a").is_err());
    }

    #[test]
    fn settings_take_durations_and_sizes_and_leave_everything_else_to_the_broker() {
        let value = |text: &str| setting(text).map(|(_, value)| value);
        for (text, expected) in [
            ("retention.ms=7d", "604800000"),
            ("segment.ms = 1h30m", "5400000"),
            ("retention.ms=-1", "-1"),
            ("retention.bytes=10GiB", "10737418240"),
            ("segment.bytes=16M", "16777216"),
            ("retention.bytes=5", "5"),
            ("cleanup.policy=delete", "delete"),
            ("retention.ms=", ""),
            ("store.bytes.max=1GiB", "1073741824"),
        ] {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
        }
        for (text, unchanged) in [
            ("retention.ms=soon", "soon"),
            ("retention.bytes=1MB", "1MB"),
            ("segment.bytes=99999999T", "99999999T"),
        ] {
            assert_eq!(value(text).as_deref(), Ok(unchanged), "{text}");
        }
    }
}
