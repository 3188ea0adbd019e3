//! `backup`: copies a data directory into a place of backups.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use model::Timestamp;
use serde_json::json;
use storage::RealDisk;
use storage::acknowledged::{self, Acknowledgement};
use storage::backup::{BackupOrder, SummaryDamage, take_backup};
use storage::inspect::damage_on_record;
use storage::{Damage, backup::BackupTaken};

use super::{Meter, failed, refuse_nested, summary_value, summary_words};
use crate::failure::DAMAGED;
use crate::output::{say, size};

/// `backup` and its options.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The data directory
    #[arg(default_value = "data")]
    directory: PathBuf,
    /// The place of the store's backups; it is made if it is not there
    #[arg(long, value_name = "PLACE")]
    to: PathBuf,
    /// How many backups the place keeps; older ones are removed once the new one is whole
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// Read again what the backup before has, and copy again what is not as it was
    #[arg(long)]
    recheck: bool,
    /// Copy no faster, for example 100MiB; without it as fast as the disks can
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    bytes_per_second: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1u64 << 30,
        _ => return Err("must be a size: a number, or one with KiB, MiB or GiB".to_owned()),
    };
    let size = number
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(factor));
    size.filter(|size| *size > 0)
        .ok_or_else(|| "must be a size above 0".to_owned())
}

impl BackupArgs {
    /// Runs the command. Blocks.
    pub fn run(self) -> Result<ExitCode> {
        refuse_nested(&self.directory, &self.to)?;
        let order = BackupOrder {
            source: self.directory.clone(),
            place: self.to.clone(),
            keep: self.keep.into(),
            recheck: self.recheck,
            now: now(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let meter = Meter::new(self.bytes_per_second)?;
        let taken = take_backup(&RealDisk, &order, &now, &mut |progress| {
            meter.show(progress)
        });
        let seconds = meter.end();
        let taken = failed(taken)?;
        let new = self.unacknowledged(&taken)?;
        self.print(&taken, seconds, new)?;
        Ok(ExitCode::from(if new > 0 { DAMAGED } else { 0 }))
    }

    /// How much of the damage that was found nobody has acknowledged.
    fn unacknowledged(&self, taken: &BackupTaken) -> Result<usize> {
        let known = acknowledged::load(&RealDisk, &taken.directory)?;
        let is_new = |found: &&SummaryDamage| {
            let log = found.log.as_deref().and_then(|log| log.parse().ok());
            let range = found.from.zip(found.to);
            let Some((from, to)) = range else {
                return true;
            };
            let damage = Damage {
                log,
                range: model::Offset::new(from)..model::Offset::new(to),
                reason: found.reason.clone(),
            };
            !known
                .iter()
                .any(|line: &Acknowledgement| line.covers(&damage))
        };
        Ok(taken.summary.damage.iter().filter(is_new).count())
    }

    fn print(&self, taken: &BackupTaken, seconds: f64, new: usize) -> Result<()> {
        let on_record = damage_on_record(&RealDisk, &taken.directory)?.len();
        if self.json {
            let mut value = summary_value(&taken.directory, &taken.summary);
            value["copied_bytes"] = json!(taken.copied_bytes);
            value["reused_bytes"] = json!(taken.reused_bytes);
            value["passes"] = json!(taken.passes);
            value["removed"] = json!(taken.removed);
            value["unacknowledged"] = json!(new);
            value["on_record"] = json!(on_record);
            value["seconds"] = json!(seconds);
            say!("{value:#}");
            return Ok(());
        }
        for found in &taken.summary.damage {
            let offsets = match (&found.log, found.from, found.to) {
                (Some(log), Some(from), Some(to)) => format!(", {log}, offsets {from}..{to}"),
                _ => String::new(),
            };
            say!(
                "damaged in the store: {}{offsets}: {}",
                found.damage,
                found.reason
            );
        }
        if on_record > 0 {
            say!(
                "the store has damage on record: {on_record} ranges, which `alluvium log gaps` tells"
            );
        }
        for number in &taken.removed {
            say!("removed: backup {number}");
        }
        say!(
            "{}: {}",
            taken.directory.display(),
            summary_words(&taken.summary)
        );
        say!(
            "copied {}, {} were there already; {seconds:.1} s",
            size(taken.copied_bytes),
            size(taken.reused_bytes)
        );
        Ok(())
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_size_above_zero() {
        assert_eq!(bytes("17"), Ok(17));
        assert_eq!(bytes("100MiB"), Ok(100 << 20));
        for wrong in ["", "0", "MiB", "1 MiB", "1MB", "99999999999GiB", "-1"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
        }
    }
}
