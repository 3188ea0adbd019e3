//! Consumer groups: list, describe with how far they are behind, delete, and delete single offsets.
//!
//! Callers: `api::routes`.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use model::{PartitionId, TopicName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::listing::Listing;
use super::named::partition_number;
use super::topics::DryRun;
use crate::broker::GroupLag;
use crate::broker::access::{Door, Granted, Group, Resource, ResourceKind, Right, right};
use crate::broker::groups::{CommittedOffset, GroupDescription, GroupError};
use crate::front::audit::{self, Change};
use crate::front::http::errors::Failure;
use crate::front::http::request::{At, parsed};
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{
    Schema, boolean, integer, integer_from, list, number, object, text,
};

/// All groups.
const GROUPS: &str = "/api/v1/groups";
/// One of them.
const GROUP: &str = "/api/v1/groups/{group}";
/// What it has committed.
const OFFSETS: &str = "/api/v1/groups/{group}/offsets";
/// Offsets that one answer has at most.
const OFFSETS_MAX: usize = 10_000;
/// Offsets that are copied out of a group at a time.
const PAGE: usize = 1_000;
/// How long an answer waits for times that have to come from the disk.
const LAG_WAIT: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "groups", summary);
    let on_group = |about: Operation| {
        about
            .path("group", text().example("dashboard"), "the group's id")
            .refuses(404, "unknown_group")
    };
    let head = object([("id", text()), ("state", text()), ("protocol_type", text())]);
    let page = object([("groups", list(head)), ("next_after", text().or_null())]);
    let deleted = object([("group", text()), ("dry_run", boolean())]);
    let offset_deleted = object([
        ("group", text()),
        ("topic", text()),
        ("partition", partition_number()),
        ("dry_run", boolean()),
    ]);
    Routes::new()
        .get(
            GROUPS,
            list_groups,
            Listing::describe(of("listGroups", "Consumer groups by id"))
                .needs(ResourceKind::Group, Right::Describe)
                .answers_json(200, "a page of them", page),
        )
        .get(
            GROUP,
            describe,
            on_group(of(
                "describeGroup",
                "A group: its members, what it has committed, and how far it is behind",
            ))
            .needs(ResourceKind::Group, Right::Describe)
            .answers_json(200, "the group", group_schema()),
        )
        .delete(
            GROUP,
            delete,
            on_group(of(
                "deleteGroup",
                "Deletes a group that has no members, with its offsets",
            ))
            .needs(ResourceKind::Group, Right::Delete)
            .needs(ResourceKind::Group, Right::Describe)
            .query("dry_run", boolean(), "check, and change nothing")
            .answers_json(200, "it is gone", deleted)
            .refuses(409, "group_not_empty"),
        )
        .get(
            OFFSETS,
            offsets,
            on_group(of(
                "listGroupOffsets",
                "What a group has committed, and how far it is behind",
            ))
            .needs(ResourceKind::Group, Right::Describe)
            .query("topic", text(), "of this topic alone")
            .answers_json(
                200,
                "one for each partition",
                object([
                    ("offsets", list(offset_schema())),
                    ("left_out", integer_from(0)),
                ]),
            ),
        )
        .delete(
            OFFSETS,
            delete_offset,
            on_group(of(
                "deleteGroupOffset",
                "Deletes what a group has committed in one partition",
            ))
            .needs(ResourceKind::Group, Right::Delete)
            .needs(ResourceKind::Group, Right::Describe)
            .needs(ResourceKind::Topic, Right::Read)
            .query_required("topic", text(), "the topic")
            .query_required("partition", partition_number(), "the partition")
            .query("dry_run", boolean(), "check, and change nothing")
            .answers_json(200, "it is gone", offset_deleted)
            .refuses(404, "unknown_topic, unknown_partition, unknown_offset")
            .refuses(409, "group_subscribed"),
        )
}

fn offset_schema() -> Schema {
    object([
        ("topic", text()),
        ("partition", partition_number()),
        ("offset", integer()),
        ("metadata", text()),
        ("committed_ms", integer()),
        ("lag_records", integer_from(0).or_null()),
        ("lag_seconds", number().or_null()),
        ("lag_event_seconds", number().or_null()),
    ])
}

fn group_schema() -> Schema {
    let member = object([
        ("member_id", text()),
        ("instance_id", text().or_null()),
        ("client_id", text()),
        ("host", text()),
    ]);
    let lag = object([
        ("records", integer_from(0)),
        ("seconds", number().or_null()),
    ]);
    object([
        ("id", text()),
        ("state", text()),
        ("protocol_type", text()),
        ("protocol", text()),
        ("generation", integer()),
        ("members", list(member)),
        ("lag", lag),
        ("offsets", list(offset_schema())),
        ("left_out", integer_from(0)),
    ])
}

async fn list_groups(
    door: Door,
    query: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let listing = parsed(query)?;
    let page = listing.page(door.groups(), |group| &group.id)?;
    let groups: Vec<Value> = page
        .entries
        .iter()
        .map(|group| {
            json!({
                "id": group.id, "state": group.state.name(), "protocol_type": group.protocol_type,
            })
        })
        .collect();
    Ok(Json(
        json!({ "groups": groups, "next_after": page.next_after }),
    ))
}

/// What a group has committed, with how far it is behind.
struct Progress {
    offsets: Vec<(TopicName, PartitionId, CommittedOffset)>,
    left_out: usize,
    lags: HashMap<(TopicName, PartitionId), GroupLag>,
    /// Records still to be read, in all partitions.
    records: u64,
    /// The longest that a record has waited; None if that is not known of one.
    seconds: Option<f64>,
}

/// Committed offsets of these topics, the first that are shown, and how many others there are.
fn committed(
    group: &Granted<Group<'_>, right::Describe>,
    is_told: impl Fn(&TopicName) -> bool,
) -> (Vec<(TopicName, PartitionId, CommittedOffset)>, usize) {
    let (mut shown, mut left_out) = (Vec::new(), 0);
    let mut after = None;
    loop {
        let page = group.fetch_after(after.take(), PAGE);
        let Some((topic, partition, _)) = page.last() else {
            return (shown, left_out);
        };
        after = Some((topic.clone(), *partition));
        for one in page.into_iter().filter(|(topic, _, _)| is_told(topic)) {
            match shown.len() < OFFSETS_MAX {
                true => shown.push(one),
                false => left_out += 1,
            }
        }
    }
}

async fn progress_of(door: &Door, id: &str) -> Result<Progress, Failure> {
    let group = door.group(id, right::Describe)?;
    // Topics that the caller may not describe are not told, nor counted.
    let is_told = |topic: &TopicName| {
        let topic = Resource::Topic(topic.as_str());
        door.may(topic, Right::Describe)
    };
    let (offsets, left_out) = committed(&group, is_told);
    let lags = door
        .broker()
        .group_lag(&group, is_told, OFFSETS_MAX, LAG_WAIT)
        .await;
    let single = lags.single.iter();
    let records = single.clone().map(|lag| lag.records).sum::<u64>() + lags.other_records;
    let mut seconds = Some(0.0);
    for lag in single {
        let age = lag.age.map(|age| age.as_secs_f64());
        seconds = seconds
            .zip(age)
            .map(|(most, age): (f64, f64)| most.max(age));
    }
    let lags = lags
        .single
        .into_iter()
        .map(|lag| ((lag.topic.clone(), lag.partition), lag));
    Ok(Progress {
        offsets,
        left_out,
        lags: lags.collect(),
        records,
        seconds,
    })
}

impl Progress {
    fn of_offsets(&self, topic: Option<&str>) -> Vec<Value> {
        let wanted = |of: &TopicName| topic.is_none_or(|topic| topic == of.as_str());
        let shown = self.offsets.iter().filter(|(topic, _, _)| wanted(topic));
        shown.map(|(topic, partition, committed)| {
            let lag = self.lags.get(&(topic.clone(), *partition));
            let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
            json!({
                "topic": topic.as_str(), "partition": partition.get(), "offset": committed.offset.to_wire(),
                "metadata": committed.metadata, "committed_ms": committed.committed_at.millis(),
                "lag_records": lag.map(|lag| lag.records), "lag_seconds": lag.and_then(|lag| seconds(lag.age)),
                "lag_event_seconds": lag.and_then(|lag| seconds(lag.event_age)),
            })
        }).collect()
    }
}

/// The group, which must be there.
pub(super) fn described(door: &Door, id: &str) -> Result<GroupDescription, Failure> {
    let group = door.group(id, right::Describe)?;
    Ok(group.describe().ok_or(GroupError::NotFound)?)
}

async fn describe(door: Door, At(id): At<String>) -> Result<Json<Value>, Failure> {
    let group = described(&door, &id)?;
    let progress = progress_of(&door, &id).await?;
    let members: Vec<Value> = group.members.iter().map(|member| json!({
        "member_id": member.member_id, "instance_id": member.instance_id, "client_id": member.client.client_id,
        "host": member.client.host,
    })).collect();
    Ok(Json(json!({
        "id": id, "state": group.state.name(), "protocol_type": group.protocol_type, "protocol": group.protocol,
        "generation": group.generation.get(), "members": members,
        "lag": { "records": progress.records, "seconds": progress.seconds },
        "offsets": progress.of_offsets(None), "left_out": progress.left_out,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OffsetsQuery {
    topic: Option<String>,
}

async fn offsets(
    door: Door,
    At(id): At<String>,
    query: Result<Query<OffsetsQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let query = parsed(query)?;
    described(&door, &id)?;
    let progress = progress_of(&door, &id).await?;
    let shown = progress.of_offsets(query.topic.as_deref());
    Ok(Json(
        json!({ "offsets": shown, "left_out": progress.left_out }),
    ))
}

async fn delete(
    door: Door,
    At(id): At<String>,
    query: Result<Query<DryRun>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let DryRun { dry_run } = parsed(query)?;
    let group = door.group(&id, right::Delete)?;
    let shown = described(&door, &id)?;
    if dry_run {
        if !shown.members.is_empty() {
            return Err(GroupError::NonEmpty { state: shown.state }.into());
        }
    } else {
        group.delete().await?;
        audit::log(&door, &Change::GroupDeleted { group: &id });
    }
    Ok(Json(json!({ "group": id, "dry_run": dry_run })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OffsetQuery {
    topic: String,
    partition: u32,
    #[serde(default)]
    dry_run: bool,
}

async fn delete_offset(
    door: Door,
    At(id): At<String>,
    query: Result<Query<OffsetQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let query = parsed(query)?;
    let group = door.group(&id, right::Delete)?;
    let topic = door.topic(&query.topic, right::Read)?;
    let partition = PartitionId::new(query.partition);
    let wanted = [(topic.name.clone(), partition)];
    let shown = door.group(&id, right::Describe)?;
    shown.describe().ok_or(GroupError::NotFound)?;
    if shown.fetch(&wanted)[0].is_none() {
        return Err(Failure::UnknownOffset);
    }
    if !query.dry_run {
        group
            .delete_offsets(&wanted)
            .await?
            .pop()
            .expect("one result for one offset")?;
        let change = Change::OffsetsDeleted {
            group: &id,
            partitions: &format!("{}-{partition}", topic.name),
        };
        audit::log(&door, &change);
    }
    Ok(Json(json!({
        "group": id, "topic": query.topic, "partition": query.partition, "dry_run": query.dry_run,
    })))
}
