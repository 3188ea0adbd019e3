//! `topic delete-records`: moves the start of partitions forward, by offset or by time.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use client::Client;
use client::admin::{Admin, At};
use model::{Offset, Timestamp, TopicPartition};
use serde_json::json;

use super::places::{Held, ask, held, partitions_of};
use crate::failure::Failure;
use crate::output::{confirm, counted, print};
use crate::table::Table;
use crate::topic_choice::TopicChoice;
use model::time_spec::Position;

pub(super) const EXAMPLES: &str = "\
PLACE is an offset, a time (-10m, 2026-03-01, 2026-03-01T14:03:05Z), latest (all there are), +N or -N (so many after the \
earliest, before the latest). A time means the first record at or after it: everything before that goes.
--json: an object: topic, deleted, partitions (an array of partition, old_start, new_start, records).

Examples:
  alluvium topic delete-records readings --before -7d --dry-run
  alluvium topic delete-records readings:0,3 --before 1200 --yes
  alluvium topic delete-records readings --before latest";

/// What to delete.
#[derive(Debug, clap::Args)]
pub(super) struct DeleteRecordsArgs {
    /// The topic, or some of its partitions (`readings:0,3`)
    #[arg(value_name = "TOPIC[:PARTITIONS]")]
    topic: TopicChoice,
    /// Delete what lies before this place
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    before: String,
    /// Only show what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What becomes of one partition.
struct Step {
    partition: TopicPartition,
    old: Offset,
    new: Offset,
}

impl Step {
    fn records(&self) -> u64 {
        self.new.get() - self.old.get()
    }
}

pub(super) async fn run(
    args: &DeleteRecordsArgs,
    client: &Client,
    json: bool,
    now: Timestamp,
) -> Result<ExitCode> {
    let before = Position::parse(&args.before, now).context("--before")?;
    let admin = Admin::new(client);
    let mut steps = plan(args, client, &admin, before).await?;
    let records: u64 = steps.iter().map(Step::records).sum();
    if !args.dry_run && records > 0 {
        if !args.yes {
            crate::output::aside(format_args!("{}", table(&steps)));
            let records = counted(usize::try_from(records)?, "record");
            confirm(&format!("delete {records} of {}", args.topic.topic))?;
        }
        let wanted: Vec<(TopicPartition, Option<Offset>)> = steps
            .iter()
            .filter(|step| step.records() > 0)
            .map(|step| (step.partition.clone(), Some(step.new)))
            .collect();
        let left = admin.delete_records(&wanted).await?;
        for step in &mut steps {
            step.new = left
                .get(&step.partition)
                .map_or(step.new, |left| (*left).max(step.old));
        }
    }
    let value = || {
        let partitions = steps.iter().map(|step| {
            json!({
                "partition": step.partition.partition.get(), "old_start": step.old.get(), "new_start": step.new.get(),
                "records": step.records(),
            })
        });
        json!({
            "topic": args.topic.topic.as_str(), "deleted": !args.dry_run, "partitions": partitions.collect::<Vec<_>>(),
        })
    };
    let text = || {
        let done = match args.dry_run {
            true => "would be deleted",
            false => "deleted",
        };
        let records = counted(usize::try_from(records).unwrap_or(usize::MAX), "record");
        format!("{}{records} {done}\n", table(&steps))
    };
    print(json, value, text)?;
    Ok(ExitCode::SUCCESS)
}

async fn plan(
    args: &DeleteRecordsArgs,
    client: &Client,
    admin: &Admin,
    before: Position,
) -> Result<Vec<Step>> {
    let name = &args.topic.topic;
    let known = client.topic_anew(name, false).await?;
    let all = partitions_of(&known)?;
    for number in &args.topic.partitions {
        if !all.iter().any(|partition| partition.partition == *number) {
            let count = counted(all.len(), "partition");
            bail!(Failure::NotFound(format!(
                "topic {name} has no partition {}: it has {count}, from 0 on",
                number.get()
            )));
        }
    }
    let chosen: Vec<TopicPartition> = all
        .into_iter()
        .filter(|partition| args.topic.takes(partition))
        .collect();
    let times = match before {
        Position::At(time) => ask(admin, &chosen, At::Time(time)).await?,
        _ => Default::default(),
    };
    let held = held(admin, &chosen).await?;
    let steps = held.into_iter().map(|(partition, held)| {
        let time = times.get(&partition).and_then(|place| place.offset);
        let new = target(before, held, time);
        if new > held.end {
            bail!(Failure::Usage(format!(
                "{partition} ends at offset {}: there is nothing to delete before {new}",
                held.end
            )));
        }
        Ok(Step {
            partition,
            old: held.start,
            new: new.max(held.start),
        })
    });
    steps.collect()
}

/// Where a partition shall begin. Without a record at or after a time, everything is before it.
fn target(before: Position, held: Held, time: Option<Offset>) -> Offset {
    match before {
        Position::Earliest => held.start,
        Position::Latest => held.end,
        Position::Offset(offset) => offset,
        Position::AfterEarliest(count) => held.start.plus(count).min(held.end),
        Position::BeforeLatest(count) => Offset::new(held.end.get().saturating_sub(count)),
        Position::At(_) => time.unwrap_or(held.end),
    }
}

fn table(steps: &[Step]) -> String {
    let mut table = Table::new(&["PARTITION", "START", "NEW START", "RECORDS"]);
    for step in steps {
        table.row([
            u64::from(step.partition.partition.get()),
            step.old.get(),
            step.new.get(),
            step.records(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_becomes_the_first_offset_that_stays() {
        let held = Held {
            start: Offset::new(10),
            end: Offset::new(20),
            bytes: None,
        };
        let at = Position::At(Timestamp::from_millis(1));
        for (before, time, expected) in [
            (Position::Earliest, None, 10),
            (Position::Latest, None, 20),
            (Position::Offset(Offset::new(15)), None, 15),
            (Position::AfterEarliest(3), None, 13),
            (Position::AfterEarliest(30), None, 20),
            (Position::BeforeLatest(3), None, 17),
            (at, Some(Offset::new(12)), 12),
            (at, None, 20),
        ] {
            assert_eq!(target(before, held, time).get(), expected, "{before:?}");
        }
    }
}
