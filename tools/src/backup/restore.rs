//! `restore`: makes a data directory of a backup, or only checks one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use storage::RealDisk;
use storage::backup::{BackupError, BadFile, RestoreOrder, check_backup, list, restore};

use super::{Meter, failed, refuse_nested, summary_value, summary_words};
use crate::failure::{DAMAGED, Failure};
use crate::output::{say, size};

/// `restore` and its options.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// A place of backups, of which the newest is taken, or one backup
    backup: PathBuf,
    /// The data directory to make
    #[arg(long, value_name = "DIRECTORY", required_unless_present_any = ["check", "list"])]
    to: Option<PathBuf>,
    /// Read every byte of the backup and compare it with its sums; write nothing
    #[arg(long, conflicts_with_all = ["to", "list"])]
    check: bool,
    /// Show which backups there are
    #[arg(long, conflicts_with = "to")]
    list: bool,
    /// Restore files that are damaged in the backup as they are: what cannot be read in them is named, and readers are told
    #[arg(long, requires = "to")]
    keep_damaged: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl RestoreArgs {
    /// Runs the command. Blocks.
    pub fn run(self) -> Result<ExitCode> {
        if !self.backup.exists() {
            bail!(Failure::NotFound(format!(
                "there is no {}",
                self.backup.display()
            )));
        }
        if self.list {
            return self.show();
        }
        let Some((newest, _)) = failed(list(&RealDisk, &self.backup))?.pop() else {
            let path = self.backup.clone();
            return failed(Err(BackupError::NoBackup { path }));
        };
        match &self.to {
            Some(target) => self.restore(newest, target.clone()),
            None => self.check(&newest),
        }
    }

    fn show(&self) -> Result<ExitCode> {
        let mut values = Vec::new();
        let mut is_damaged = false;
        for (directory, summary) in failed(list(&RealDisk, &self.backup))? {
            match &summary {
                Ok(summary) if self.json => values.push(summary_value(&directory, summary)),
                Ok(summary) => {
                    let began = jiff::Timestamp::from_millisecond(summary.head.began_ms)?;
                    say!(
                        "{}: {began:.0}, {}",
                        directory.display(),
                        summary_words(summary)
                    );
                }
                Err(error) => {
                    is_damaged = true;
                    values.push(json!({ "directory": directory, "error": error.to_string() }));
                    if !self.json {
                        say!("damaged: {error}");
                    }
                }
            }
        }
        if self.json {
            say!("{:#}", Value::from(values));
        }
        Ok(ExitCode::from(if is_damaged { DAMAGED } else { 0 }))
    }

    fn check(&self, backup: &std::path::Path) -> Result<ExitCode> {
        let meter = Meter::new(None)?;
        let checked = check_backup(&RealDisk, backup, &mut |progress| meter.show(progress));
        meter.end();
        let (summary, bad) = match checked {
            Err(BackupError::Summary { path, reason }) => {
                return Ok(self.bad(&[BadFile { path, reason }]));
            }
            checked => failed(checked)?,
        };
        if !bad.is_empty() {
            return Ok(self.bad(&bad));
        }
        if self.json {
            let mut value = summary_value(backup, &summary);
            value["damaged_files"] = json!([]);
            say!("{value:#}");
        } else {
            say!(
                "{}: as it was written: {}",
                backup.display(),
                summary_words(&summary)
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Files of the backup are damaged.
    fn bad(&self, bad: &[BadFile]) -> ExitCode {
        if self.json {
            say!(
                "{:#}",
                json!({ "backup": self.backup, "damaged_files": bad })
            );
        } else {
            for one in bad {
                say!("damaged: {}: {}", one.path.display(), one.reason);
            }
        }
        ExitCode::from(DAMAGED)
    }

    fn restore(&self, backup: PathBuf, target: PathBuf) -> Result<ExitCode> {
        refuse_nested(&self.backup, &target)?;
        let order = RestoreOrder {
            backup,
            target,
            keep_damaged: self.keep_damaged,
        };
        let meter = Meter::new(None)?;
        let restored = restore(&RealDisk, &order, &mut |progress| meter.show(progress));
        let seconds = meter.end();
        let restored = match restored {
            Err(BackupError::Damaged { bad }) => {
                let code = self.bad(&bad);
                crate::output::note!(
                    "error: {} is not restored: take another backup, or run it again with --keep-damaged for what is whole",
                    order.target.display()
                );
                return Ok(code);
            }
            Err(BackupError::Summary { path, reason }) => {
                return Ok(self.bad(&[BadFile { path, reason }]));
            }
            restored => failed(restored)?,
        };
        if self.json {
            let mut value = summary_value(&order.backup, &restored.summary);
            value["restored"] = json!(order.target);
            value["copied_bytes"] = json!(restored.copied_bytes);
            value["reused_bytes"] = json!(restored.reused_bytes);
            value["damaged_files"] = json!(restored.bad);
            value["findings"] = json!(restored.findings);
            value["seconds"] = json!(seconds);
            say!("{value:#}");
        } else {
            for one in &restored.bad {
                say!("damaged: {}: {}", one.path.display(), one.reason);
            }
            for finding in &restored.findings {
                let place = finding.path.display();
                say!("damaged in the restored store: {place}: {}", finding.reason);
            }
            say!(
                "{}: {}",
                order.target.display(),
                summary_words(&restored.summary)
            );
            let (copied, reused) = (size(restored.copied_bytes), size(restored.reused_bytes));
            say!("copied {copied}, {reused} were there already; verified; {seconds:.1} s");
        }
        let is_damaged = !restored.findings.is_empty() || !restored.bad.is_empty();
        Ok(ExitCode::from(if is_damaged { DAMAGED } else { 0 }))
    }
}
