//! `group reset`: moves a group to other offsets, with the options of Kafka's own tool. Without `--execute` it only shows
//! the plan: old and new offset, and how many records and how much time are skipped, or read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use client::Client;
use client::admin::{Admin, At, Committed, GroupDescription};
use model::{Offset, PartitionId, Timestamp, TopicName, TopicPartition};
use serde_json::{Value, json};

use super::places::{self, Bounds};
use super::{TopicChoice, find, members_to_stop, not_found, print};
use crate::failure::Failure;
use crate::output::{duration, grouped, note, say};
use crate::table::Table;
use model::time_spec::{Position, before, parse_duration, parse_time};

pub(super) const EXAMPLES: &str = "\
Examples:
  alluvium group reset dashboard -t readings --to -1h              the plan
  alluvium group reset dashboard -t readings --to -1h --execute
  alluvium group reset dashboard -t readings:0,3 --to earliest
  alluvium group reset dashboard alarms --all-topics --to 2026-03-01
  alluvium group reset dashboard --all-topics --to-current --export > offsets.csv
  alluvium group reset dashboard --from-file offsets.csv --execute";

/// What to move, and where to.
#[derive(Debug, clap::Args)]
pub struct ResetArgs {
    /// Groups; one that does not exist yet is created by this
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// A topic, or some of its partitions (`readings:0,3`)
    #[arg(short, long = "topic", value_name = "TOPIC[:PARTITIONS]")]
    topics: Vec<TopicChoice>,
    /// All topics that the group committed for
    #[arg(long, conflicts_with = "topics")]
    all_topics: bool,
    #[command(flatten)]
    to: To,
    /// Do it
    #[arg(long)]
    execute: bool,
    /// Only show what would change, which is also the default
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// Print the plan as CSV, as --from-file reads it
    #[arg(long)]
    export: bool,
}

/// Where to.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct To {
    /// To any place: an offset, earliest, latest, +10, -10, -10m, a date, an RFC 3339 time
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    to: Option<String>,
    /// To the first record that is kept
    #[arg(long)]
    to_earliest: bool,
    /// To the end
    #[arg(long)]
    to_latest: bool,
    /// To where it is now, which makes what it would read explicit
    #[arg(long)]
    to_current: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET")]
    to_offset: Option<u64>,
    /// To the first record at or after this time
    #[arg(
        long,
        value_name = "TIME",
        visible_alias = "to-time",
        allow_hyphen_values = true
    )]
    to_datetime: Option<String>,
    /// To the first record that is as young as this (PT10M, 10m)
    #[arg(long, value_name = "DURATION")]
    by_duration: Option<String>,
    /// So many records on, or back
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the offsets in a CSV file of lines `topic,partition,offset`
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
}

/// Where to, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Place(Position),
    Current,
    Shift(i64),
    Given(BTreeMap<TopicPartition, Offset>),
}

/// One partition's move.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Move {
    partition: TopicPartition,
    old: Option<Offset>,
    new: Offset,
    bounds: Bounds,
    /// The new offset is not the one that was asked for, and why.
    note: Option<String>,
}

impl Move {
    /// From where it would have read on.
    fn old_next(&self) -> Option<Offset> {
        Some(self.old?.max(self.bounds.start).min(self.bounds.end))
    }

    /// Records that are skipped; negative if they are read again.
    fn records(&self) -> Option<i64> {
        Some(self.new.to_wire() - self.old_next()?.to_wire())
    }
}

/// What becomes of one group.
struct Plan {
    group: String,
    /// Has members, so that it cannot be moved now.
    active: Option<GroupDescription>,
    moves: Vec<Move>,
    skipped: Vec<Option<i64>>,
}

pub(super) async fn run(
    args: ResetArgs,
    client: &Client,
    json: bool,
    now: Timestamp,
) -> Result<ExitCode> {
    let target = args.to.target(now)?;
    let is_one = args.groups.len() == 1;
    if !is_one && (args.export || matches!(target, Target::Given(_))) {
        bail!(Failure::Usage(
            "--export and --from-file are for one group".to_owned()
        ));
    }
    let mut plans = Vec::new();
    for group in &args.groups {
        match plan(&args, group, &target, client, now).await? {
            Ok(plan) => plans.push(plan),
            Err(missing) => return Ok(not_found(&missing)),
        }
    }
    let active: Vec<&GroupDescription> = plans.iter().filter_map(|p| p.active.as_ref()).collect();
    if let Some(group) = active.first().filter(|_| args.execute) {
        bail!("{}", members_to_stop(group));
    }
    if args.execute {
        for plan in &plans {
            execute(plan, client).await?;
        }
    }
    if let [plan] = &plans[..]
        && args.export
    {
        for one in &plan.moves {
            let (topic, partition) = (&one.partition.topic, one.partition.partition);
            say!("{topic},{partition},{}", one.new);
        }
    } else {
        let values = || plans.iter().map(|plan| value(plan, args.execute));
        let value = || match is_one {
            true => values().next().unwrap_or_default(),
            false => values().collect(),
        };
        let text = || match is_one {
            true => plans.iter().map(table).collect(),
            false => {
                let texts = plans
                    .iter()
                    .map(|plan| format!("group {}\n{}", plan.group, table(plan)));
                texts.collect::<Vec<_>>().join("\n")
            }
        };
        print(json, value, text)?;
    }
    for group in &active {
        note!(
            "note: --execute would be refused now: {}",
            members_to_stop(group)
        );
    }
    if active.is_empty() && !args.execute {
        note!("note: nothing was changed; --execute does it");
    }
    Ok(ExitCode::SUCCESS)
}

/// What would become of a group, or what is missing.
async fn plan(
    args: &ResetArgs,
    name: &str,
    target: &Target,
    client: &Client,
    now: Timestamp,
) -> Result<Result<Plan, String>> {
    let admin = Admin::new(client);
    let group = find(&admin, name).await?;
    let active = group.filter(|group| !group.members.is_empty());
    let mut committed: HashMap<TopicPartition, Committed> = admin.committed(name, None).await?;
    let partitions = match chosen(client, args, name, target, &committed).await? {
        Ok(partitions) => partitions,
        Err(missing) => return Ok(Err(missing)),
    };
    let bounds = places::bounds(client, &partitions).await?;
    if let Some(gone) = partitions
        .iter()
        .find(|partition| !bounds.contains_key(partition))
    {
        return Ok(Err(format!("there is no partition {gone}")));
    }
    let at_time = match target {
        Target::Place(Position::At(time)) => {
            places::offsets(client, &partitions, At::Time(*time)).await?
        }
        _ => HashMap::new(),
    };
    let mut moves = Vec::new();
    for (partition, bounds) in bounds {
        let old = committed
            .remove(&partition)
            .map(|committed| committed.offset);
        let at_time = at_time.get(&partition).copied();
        let wanted = target.offset(&partition, bounds, old, at_time).with_context(|| {
            format!("{partition}: group {name} committed nothing there, so there is nothing to count from")
        })?;
        moves.push(planned(partition, old, bounds, wanted));
    }
    let skipped = time_skipped(client, &moves, now).await?;
    Ok(Ok(Plan {
        group: name.to_owned(),
        active,
        moves,
        skipped,
    }))
}

async fn execute(plan: &Plan, client: &Client) -> Result<()> {
    let offsets = plan.moves.iter().map(|one| {
        let committed = Committed {
            offset: one.new,
            metadata: String::new(),
        };
        (one.partition.clone(), committed)
    });
    let offsets: Vec<(TopicPartition, Committed)> = offsets.collect();
    Ok(Admin::new(client).commit(&plan.group, &offsets).await?)
}

/// The partitions that are meant, or what is missing.
async fn chosen(
    client: &Client,
    args: &ResetArgs,
    group: &str,
    target: &Target,
    committed: &HashMap<TopicPartition, Committed>,
) -> Result<Result<BTreeSet<TopicPartition>, String>> {
    if let Target::Given(given) = target {
        let meant = |one: &&TopicPartition| {
            args.topics.is_empty() || args.topics.iter().any(|choice| choice.takes(one))
        };
        return Ok(Ok(given.keys().filter(meant).cloned().collect()));
    }
    if args.all_topics {
        let all: BTreeSet<TopicPartition> = committed.keys().cloned().collect();
        let missing = format!("group {group} committed nothing: name topics with --topic");
        return Ok(if all.is_empty() {
            Err(missing)
        } else {
            Ok(all)
        });
    }
    if args.topics.is_empty() {
        bail!(Failure::Usage(
            "name topics with --topic, or say --all-topics".to_owned()
        ));
    }
    let mut all = BTreeSet::new();
    for choice in &args.topics {
        let Some(partitions) = places::partitions_of(client, &choice.topic).await? else {
            return Ok(Err(format!("there is no topic {}", choice.topic)));
        };
        match choice.partitions.is_empty() {
            true => all.extend(partitions),
            // One that is not there is found out when its bounds are.
            false => all.extend(
                choice
                    .partitions
                    .iter()
                    .map(|number| TopicPartition::new(choice.topic.clone(), *number)),
            ),
        }
    }
    Ok(Ok(all))
}

impl To {
    fn target(&self, now: Timestamp) -> Result<Target> {
        let place = |position| Ok(Target::Place(position));
        if let Some(text) = &self.to {
            return place(Position::parse(text, now)?);
        }
        if let Some(text) = &self.to_datetime {
            return place(Position::At(parse_time(text, now)?));
        }
        if let Some(text) = &self.by_duration {
            let millis = parse_duration(text)?.saturating_abs();
            return place(Position::At(before(now, millis)));
        }
        if let Some(offset) = self.to_offset {
            return place(Position::Offset(Offset::new(offset)));
        }
        if let Some(count) = self.shift_by {
            return Ok(Target::Shift(count));
        }
        if let Some(path) = &self.from_file {
            return Ok(Target::Given(read_file(path)?));
        }
        match (self.to_earliest, self.to_current) {
            (true, _) => place(Position::Earliest),
            (_, true) => Ok(Target::Current),
            _ => place(Position::Latest),
        }
    }
}

impl Target {
    /// None if it counts from where the group is, and it is nowhere.
    fn offset(
        &self,
        partition: &TopicPartition,
        bounds: Bounds,
        old: Option<Offset>,
        at_time: Option<Offset>,
    ) -> Option<Offset> {
        Some(match self {
            Target::Place(Position::Earliest) => bounds.start,
            Target::Place(Position::Latest) => bounds.end,
            Target::Place(Position::Offset(offset)) => *offset,
            Target::Place(Position::AfterEarliest(count)) => bounds.start.plus(*count),
            Target::Place(Position::BeforeLatest(count)) => {
                Offset::new(bounds.end.get().saturating_sub(*count))
            }
            Target::Place(Position::At(_)) => at_time.unwrap_or(bounds.end),
            Target::Current => old?,
            Target::Shift(count) => Offset::new(old?.get().saturating_add_signed(*count)),
            Target::Given(given) => *given.get(partition)?,
        })
    }
}

/// An offset that cannot be read becomes the nearest that can.
fn planned(partition: TopicPartition, old: Option<Offset>, bounds: Bounds, wanted: Offset) -> Move {
    let note = if wanted < bounds.start {
        Some(format!("{wanted} is not kept any more"))
    } else if wanted > bounds.end {
        Some(format!("{wanted} is not there yet"))
    } else {
        None
    };
    let new = wanted.clamp(bounds.start, bounds.end);
    Move {
        partition,
        old,
        new,
        bounds,
        note,
    }
}

/// How much time each move skips, in milliseconds: the age of what would be read next now less that of what will be.
/// At the end that age is zero. None where it is not known.
async fn time_skipped(client: &Client, moves: &[Move], now: Timestamp) -> Result<Vec<Option<i64>>> {
    let ages = async |offset: &dyn Fn(&Move) -> Option<Offset>| -> Result<Vec<Option<Duration>>> {
        let wanted = moves
            .iter()
            .filter_map(|one| {
                Some((
                    one.partition.clone(),
                    offset(one).filter(|at| *at < one.bounds.end)?,
                ))
            })
            .collect();
        let times = places::times(client, &wanted).await?;
        let age = |one: &Move| match offset(one)? {
            at if at >= one.bounds.end => Some(Duration::ZERO),
            _ => times
                .get(&one.partition)
                .map(|time| places::age(*time, now)),
        };
        Ok(moves.iter().map(age).collect())
    };
    let old = ages(&Move::old_next).await?;
    let new = ages(&|one| Some(one.new)).await?;
    let millis = |age: Duration| i64::try_from(age.as_millis()).ok();
    Ok(old
        .into_iter()
        .zip(new)
        .map(|(old, new)| Some(millis(old?)? - millis(new?)?))
        .collect())
}

fn value(plan: &Plan, done: bool) -> Value {
    let partitions = plan.moves.iter().zip(&plan.skipped).map(|(one, skipped)| {
        json!({
            "topic": one.partition.topic.as_str(), "partition": one.partition.partition.get(),
            "old": one.old.map(Offset::get), "new": one.new.get(),
            "records_skipped": one.records(),
            "seconds_skipped": skipped.map(|millis| Duration::from_millis(millis.unsigned_abs()).as_secs_f64() * millis.signum() as f64),
            "note": one.note,
        })
    });
    json!({ "group": plan.group, "executed": done, "partitions": partitions.collect::<Vec<_>>() })
}

/// `skips 1,234`, or `re-reads 1,234`.
fn in_words(records: i64) -> String {
    let count = grouped(records.unsigned_abs());
    match records {
        0 => "-".to_owned(),
        1.. => format!("skips {count}"),
        _ => format!("re-reads {count}"),
    }
}

fn table(plan: &Plan) -> String {
    let mut table = Table::new(&[
        "TOPIC",
        "PARTITION",
        "OLD",
        "NEW",
        "RECORDS",
        "TIME",
        "NOTE",
    ]);
    let dash = || "-".to_owned();
    for (one, skipped) in plan.moves.iter().zip(&plan.skipped) {
        let time = skipped.map(|millis| {
            let back = if millis < 0 { " back" } else { "" };
            format!(
                "{}{back}",
                duration(Duration::from_millis(millis.unsigned_abs()))
            )
        });
        table.row([
            one.partition.topic.to_string(),
            one.partition.partition.to_string(),
            one.old.map_or_else(dash, |old| old.to_string()),
            one.new.to_string(),
            one.records().map_or_else(dash, in_words),
            time.unwrap_or_else(dash),
            one.note.clone().unwrap_or_default(),
        ]);
    }
    table.to_string()
}

/// Lines `topic,partition,offset`, or with a group's name before them, as Kafka's tool exports them.
fn read_file(path: &Path) -> Result<BTreeMap<TopicPartition, Offset>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    parse_lines(&text).with_context(|| path.display().to_string())
}

fn parse_lines(text: &str) -> Result<BTreeMap<TopicPartition, Offset>> {
    let mut offsets = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let fields: Vec<&str> = line
            .split(',')
            .map(|field| field.trim().trim_matches('"'))
            .collect();
        let (topic, partition, offset) = match fields[..] {
            [topic, partition, offset] | [_, topic, partition, offset] => {
                (topic, partition, offset)
            }
            _ => bail!("line {}: not topic,partition,offset", number + 1),
        };
        let parsed = || -> Option<(TopicPartition, Offset)> {
            let partition = PartitionId::from_wire(partition.parse().ok()?)?;
            let topic = TopicName::parse(topic).ok()?;
            let offset = Offset::from_wire(offset.parse().ok()?)?;
            Some((TopicPartition::new(topic, partition), offset))
        };
        let (partition, offset) =
            parsed().with_context(|| format!("line {}: not topic,partition,offset", number + 1))?;
        if offsets.insert(partition.clone(), offset).is_some() {
            bail!("line {}: {partition} stands there twice", number + 1);
        }
    }
    if offsets.is_empty() {
        bail!("no line with topic,partition,offset");
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: u32) -> TopicPartition {
        TopicPartition::new(TopicName::parse("t").unwrap(), PartitionId::new(number))
    }

    const BOUNDS: Bounds = Bounds {
        start: Offset::new(10),
        end: Offset::new(100),
    };

    #[test]
    fn every_target_is_an_offset_within_the_bounds() {
        let at = |offset| Some(Offset::new(offset));
        for (target, old, time, expected) in [
            (Target::Place(Position::Earliest), None, None, Some(10)),
            (Target::Place(Position::Latest), None, None, Some(100)),
            (
                Target::Place(Position::Offset(Offset::new(50))),
                None,
                None,
                Some(50),
            ),
            (
                Target::Place(Position::Offset(Offset::new(5))),
                None,
                None,
                Some(10),
            ),
            (
                Target::Place(Position::Offset(Offset::new(500))),
                None,
                None,
                Some(100),
            ),
            (
                Target::Place(Position::AfterEarliest(3)),
                None,
                None,
                Some(13),
            ),
            (
                Target::Place(Position::BeforeLatest(3)),
                None,
                None,
                Some(97),
            ),
            (
                Target::Place(Position::BeforeLatest(3_000)),
                None,
                None,
                Some(10),
            ),
            (
                Target::Place(Position::At(Timestamp::from_millis(1))),
                None,
                at(42),
                Some(42),
            ),
            (
                Target::Place(Position::At(Timestamp::from_millis(1))),
                None,
                None,
                Some(100),
            ),
            (Target::Shift(-7), at(50), None, Some(43)),
            (Target::Shift(i64::MIN), at(50), None, Some(10)),
            (Target::Shift(i64::MAX), at(50), None, Some(100)),
            (Target::Shift(1), None, None, None),
            (Target::Current, at(20), None, Some(20)),
            (Target::Current, None, None, None),
        ] {
            let wanted = target.offset(&partition(0), BOUNDS, old, time);
            let new = wanted.map(|wanted| planned(partition(0), old, BOUNDS, wanted).new.get());
            assert_eq!(new, expected, "{target:?} from {old:?}");
        }
    }

    #[test]
    fn what_was_lost_anyway_is_not_skipped() {
        let moved = planned(partition(0), Some(Offset::new(2)), BOUNDS, Offset::new(12));
        assert_eq!(moved.records(), Some(2));
        let moved = planned(partition(0), Some(Offset::new(90)), BOUNDS, Offset::new(3));
        assert_eq!(moved.records(), Some(-80));
        assert!(moved.note.is_some_and(|note| note.contains("not kept")));
    }

    #[test]
    fn files_of_kafkas_tool_are_read() {
        let given = parse_lines("t,0,5\n\"g\",\"t\",1,6\n\n").unwrap();
        assert_eq!(given.len(), 2);
        assert_eq!(given[&partition(1)], Offset::new(6));
        for wrong in ["", "t,0", "t,x,5", "t,0,-1", "t,0,5\nt,0,6", "a b,0,1"] {
            assert!(parse_lines(wrong).is_err(), "{wrong}");
        }
    }
}
