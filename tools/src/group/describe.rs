//! `group describe`: members and their partitions, committed offsets, lag in records and in time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use client::Client;
use client::admin::{Admin, Committed, GroupDescription, GroupMember};
use model::{Offset, Timestamp, TopicPartition};
use serde_json::{Value, json};

use super::places::{self, Bounds};
use super::{find, not_found, print};
use crate::http::HttpServer;
use crate::loss;
use crate::output::duration;
use crate::table::Table;

/// Which groups.
#[derive(Debug, clap::Args)]
pub struct DescribeArgs {
    /// Groups; all of them by default
    groups: Vec<String>,
}

/// A group in a partition.
struct Row {
    partition: TopicPartition,
    committed: Option<Committed>,
    /// None if the partition is not there any more.
    bounds: Option<Bounds>,
    /// How old the record is that is read next; zero if there is none.
    age: Option<Duration>,
    /// Index into the group's members.
    member: Option<usize>,
}

impl Row {
    /// The record that is read next.
    fn next(&self) -> Option<Offset> {
        Some(self.committed.as_ref()?.offset.max(self.bounds?.start))
    }

    fn lag(&self) -> Option<u64> {
        Some(self.bounds?.end.since(self.next()?))
    }

    /// Records that retention took before the group had read them.
    fn lost(&self) -> Option<u64> {
        Some(self.bounds?.start.since(self.committed.as_ref()?.offset))
    }
}

pub(super) async fn run(
    args: DescribeArgs,
    client: &Client,
    json: bool,
    now: Timestamp,
    ledger: Option<HttpServer>,
) -> Result<ExitCode> {
    let admin = Admin::new(client);
    let (mut values, mut text) = (Vec::new(), String::new());
    let mut names = args.groups;
    if names.is_empty() {
        let listed = admin.list_groups().await?;
        names = listed.into_iter().map(|group| group.group).collect();
    }
    for name in &names {
        let Some(group) = find(&admin, name).await? else {
            return Ok(not_found(&format!("there is no group {name}")));
        };
        let rows = rows(client, &group, now).await?;
        let losses = losses(client, ledger.as_ref(), name).await?;
        let mut described = value(&group, &rows);
        described["losses"] = json!(losses);
        values.push(described);
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&page(&group, &rows)?);
        if let Some(losses) = losses.filter(|losses| !losses.is_empty()) {
            let table = loss::page(&losses);
            writeln!(text, "\nlost before the group had read it:\n{table}")?;
        }
    }
    print(json, || values.into(), || text)?;
    Ok(ExitCode::SUCCESS)
}

/// What the loss ledger has of the group, if the server's HTTP port tells.
async fn losses(
    client: &Client,
    ledger: Option<&HttpServer>,
    group: &str,
) -> Result<Option<Vec<Value>>> {
    let Some(server) = ledger else {
        return Ok(None);
    };
    let known = client.refresh(None).await?;
    match &known.cluster_id {
        Some(cluster_id) => Ok(loss::of_group(server, cluster_id, group).await),
        None => Ok(None),
    }
}

async fn rows(client: &Client, group: &GroupDescription, now: Timestamp) -> Result<Vec<Row>> {
    let mut committed = Admin::new(client).committed(&group.group, None).await?;
    let mut readers: BTreeMap<TopicPartition, usize> = BTreeMap::new();
    for (index, member) in group.members.iter().enumerate() {
        let read = member.partitions.iter().cloned();
        readers.extend(read.map(|partition| (partition, index)));
    }
    let partitions: BTreeSet<TopicPartition> =
        committed.keys().chain(readers.keys()).cloned().collect();
    let bounds = places::bounds(client, &partitions).await?;
    let mut rows: Vec<Row> = partitions
        .into_iter()
        .map(|partition| Row {
            committed: committed.remove(&partition),
            bounds: bounds.get(&partition).copied(),
            age: None,
            member: readers.get(&partition).copied(),
            partition,
        })
        .collect();
    let behind = rows
        .iter()
        .filter(|row| row.lag().is_some_and(|lag| lag > 0));
    let unread = behind
        .filter_map(|row| Some((row.partition.clone(), row.next()?)))
        .collect();
    let times = places::times(client, &unread).await?;
    for row in &mut rows {
        row.age = match row.lag() {
            Some(0) => Some(Duration::ZERO),
            _ => times
                .get(&row.partition)
                .map(|time| places::age(*time, now)),
        };
    }
    Ok(rows)
}

fn value(group: &GroupDescription, rows: &[Row]) -> Value {
    let names = |partitions: &[TopicPartition]| -> Vec<Value> {
        partitions
            .iter()
            .map(|one| json!({ "topic": one.topic.as_str(), "partition": one.partition.get() }))
            .collect()
    };
    let members = group.members.iter().map(|member| {
        json!({
            "member_id": member.member_id, "instance_id": member.instance_id, "client_id": member.client_id,
            "host": member.host, "partitions": names(&member.partitions),
        })
    });
    let partitions = rows.iter().map(|row| {
        json!({
            "topic": row.partition.topic.as_str(),
            "partition": row.partition.partition.get(),
            "committed": row.committed.as_ref().map(|committed| committed.offset.get()),
            "metadata": row.committed.as_ref().map(|committed| &committed.metadata),
            "start": row.bounds.map(|bounds| bounds.start.get()),
            "end": row.bounds.map(|bounds| bounds.end.get()),
            "lag": row.lag(),
            "lag_seconds": row.age.map(|age| age.as_secs_f64()),
            "lost": row.lost(),
            "member_id": row.member.map(|index| &group.members[index].member_id),
        })
    });
    json!({
        "group": group.group, "state": group.state, "protocol_type": group.protocol_type, "protocol": group.protocol,
        "coordinator": group.coordinator, "members": members.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
        "lag": rows.iter().filter_map(Row::lag).sum::<u64>(),
        "lag_seconds": rows.iter().filter_map(|row| row.age).max().map(|age| age.as_secs_f64()),
    })
}

fn page(group: &GroupDescription, rows: &[Row]) -> Result<String> {
    let mut page = format!(
        "group        {}\nstate        {}\n",
        group.group, group.state
    );
    if !group.protocol.is_empty() {
        writeln!(page, "assignor     {}", group.protocol)?;
    }
    writeln!(page, "coordinator  {}", group.coordinator)?;
    writeln!(page, "members      {}", group.members.len())?;
    let lag: u64 = rows.iter().filter_map(Row::lag).sum();
    let oldest = rows.iter().filter_map(|row| row.age).max();
    let age = oldest.map_or_else(String::new, |age| format!(", {}", duration(age)));
    let records = super::counted(usize::try_from(lag)?, "record");
    writeln!(page, "lag          {records}{age}")?;
    if rows.is_empty() {
        return Ok(page);
    }
    let mut table = Table::new(&[
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "END",
        "LAG",
        "LAG TIME",
        "MEMBER",
        "CLIENT",
        "HOST",
    ]);
    for row in rows {
        let member: Option<&GroupMember> = row.member.map(|index| &group.members[index]);
        let name = |member: &GroupMember| {
            member
                .instance_id
                .clone()
                .unwrap_or_else(|| member.member_id.clone())
        };
        table.row([
            row.partition.topic.to_string(),
            row.partition.partition.to_string(),
            or_dash(row.committed.as_ref().map(|committed| committed.offset)),
            or_dash(row.bounds.map(|bounds| bounds.end)),
            or_dash(row.lag()),
            or_dash(row.age.map(duration)),
            or_dash(member.map(name)),
            or_dash(member.map(|member| &member.client_id)),
            or_dash(member.map(|member| member.host.trim_start_matches('/'))),
        ]);
    }
    write!(page, "\n{table}")?;
    for row in rows {
        if let Some(lost) = row.lost().filter(|lost| *lost > 0) {
            let records = super::counted(usize::try_from(lost)?, "record");
            writeln!(
                page,
                "{}: {records} went before the group had read them",
                row.partition
            )?;
        }
        if row.bounds.is_none() {
            writeln!(
                page,
                "{}: there is no such partition any more",
                row.partition
            )?;
        }
    }
    Ok(page)
}

fn or_dash<T: ToString>(cell: Option<T>) -> String {
    cell.map_or_else(|| "-".to_owned(), |cell| cell.to_string())
}
