//! `topic settings`: the table of topic settings, as this release has it.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};
use model::topic_config::{Holds, SETTINGS, Setting};
use serde_json::json;

use crate::failure::Failure;
use crate::output::print;
use crate::table::Table;

pub(super) const EXAMPLES: &str = "\
--json: an array with an object for each setting: setting, default, about, holds (enforced, trivially or refused), reason.

Examples:
  alluvium topic settings
  alluvium topic settings retention.ms durability";

/// Which settings.
#[derive(Debug, clap::Args)]
pub(super) struct SettingsArgs {
    /// Only these, and all about them
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
}

fn holds(setting: &Setting) -> (&'static str, Option<&'static str>) {
    match setting.holds {
        Holds::Enforced => ("enforced", None),
        Holds::HoldsTrivially(reason) => ("trivially", Some(reason)),
        Holds::Refused(reason) => ("refused", Some(reason)),
    }
}

pub(super) fn run(args: &SettingsArgs, json: bool) -> Result<ExitCode> {
    let mut chosen = Vec::new();
    for key in &args.keys {
        let Some(setting) = Setting::find(key) else {
            bail!(Failure::NotFound(format!(
                "no topic setting is named {key}"
            )));
        };
        chosen.push(setting);
    }
    if chosen.is_empty() {
        chosen.extend(SETTINGS);
    }
    let value = || {
        let settings = chosen.iter().map(|setting| {
            let (holds, reason) = holds(setting);
            json!({
                "setting": setting.name, "default": setting.default, "about": setting.doc, "holds": holds,
                "reason": reason,
            })
        });
        settings.collect::<Vec<_>>().into()
    };
    let text = || match args.keys.is_empty() {
        true => overview(&chosen),
        false => details(&chosen),
    };
    print(json, value, text)?;
    Ok(ExitCode::SUCCESS)
}

fn overview(settings: &[&Setting]) -> String {
    let mut table = Table::new(&["SETTING", "DEFAULT", "HOLDS"]);
    for setting in settings {
        table.row([setting.name, setting.default, holds(setting).0]);
    }
    format!(
        "{table}\nenforced: the store acts on it; trivially: it is the case whatever its value; refused: only the default is \
         taken.\nName a setting to read about it.\n"
    )
}

fn details(settings: &[&Setting]) -> String {
    let mut text = String::new();
    for setting in settings {
        let default = match setting.default {
            "" => "(empty)",
            default => default,
        };
        let _ = writeln!(
            text,
            "{}  default {default}\n  {}",
            setting.name, setting.doc
        );
        let _ = match holds(setting) {
            ("trivially", Some(reason)) => writeln!(text, "  Holds whatever its value: {reason}."),
            (_, Some(reason)) => writeln!(text, "  Only the default is taken: {reason}."),
            (_, None) => Ok(()),
        };
    }
    text
}
