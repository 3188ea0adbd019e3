//! Moving a consumer group to another place: to a place or time, or by a number of records.
//!
//! Callers: `api::routes`. A group may be moved while it has no members, also one that does not exist yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::HeaderMap;
use model::time_spec::Position;
use model::{Offset, PartitionId, TopicName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::named::{partition_number, partitions_of};
use super::offsets::{offset_at, place, position};
use crate::broker::Topic;
use crate::broker::access::{Door, Granted, Group, ResourceKind, Right, right};
use crate::broker::groups::{CommittedPlace, GroupError, GroupState, MemberClaim, OffsetCommit};
use crate::front::audit::{self, Change, some};
use crate::front::http::errors::Failure;
use crate::front::http::request::{At, body_of};
use crate::front::http::routes::{Operation, Routes};
use crate::front::http::schema::{boolean, integer, integer_from, list, object, text};

const RESET: &str = "/api/v1/groups/{group}/reset";

pub(super) fn routes() -> Routes {
    let body = object([])
        .optional([
            (
                "topic",
                text()
                    .or_null()
                    .about("this topic alone; without it all that the group has committed"),
            ),
            (
                "partition",
                partition_number()
                    .or_null()
                    .about("this partition of it alone"),
            ),
            ("to", place().or_null()),
            (
                "shift_by",
                integer()
                    .or_null()
                    .about("so many records on, or back if negative"),
            ),
            ("dry_run", boolean()),
        ])
        .closed();
    let moved = object([
        ("topic", text()),
        ("partition", partition_number()),
        ("before", integer().or_null()),
        ("after", integer_from(0)),
        (
            "records",
            integer()
                .or_null()
                .about("`after` less `before`: those that are skipped, or read again if negative"),
        ),
    ]);
    let about = Operation::new(
        "resetGroup",
        "groups",
        "Moves a group that has no members to another place",
    )
    .path("group", text().example("dashboard"), "the group's id")
    .needs(ResourceKind::Group, Right::Read)
    .needs(ResourceKind::Group, Right::Describe)
    .needs(ResourceKind::Topic, Right::Read)
    .needs(ResourceKind::Topic, Right::Describe)
    .takes_json("where to: either `to` or `shift_by`", body)
    .answers_json(
        200,
        "where it was, and where it is now, or would be",
        object([
            ("group", text()),
            ("dry_run", boolean()),
            ("partitions", list(moved)),
        ]),
    )
    .refuses(400, "invalid_body, invalid_place")
    .refuses(404, "unknown_group, unknown_topic, unknown_partition")
    .refuses(409, "group_not_empty")
    .refuses(429, "limit_reached");
    Routes::new().post(RESET, reset, about)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    topic: Option<String>,
    partition: Option<u32>,
    to: Option<String>,
    shift_by: Option<i64>,
    #[serde(default)]
    dry_run: bool,
}

/// Where to.
#[derive(Clone, Copy)]
enum Target {
    Place(Position),
    Shift(i64),
}

/// One partition's way.
struct Move {
    topic: Granted<Arc<Topic>, right::Read>,
    partition: PartitionId,
    before: Option<i64>,
    after: Offset,
}

async fn reset(
    door: Door,
    headers: HeaderMap,
    At(id): At<String>,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let body: ResetBody = body_of(&headers, body).await?;
    let target = match (&body.to, body.shift_by) {
        (Some(to), None) => Target::Place(position(to, door.broker().now())?),
        (None, Some(by)) => Target::Shift(by),
        _ => {
            return Err(Failure::Body(
                "either `to` or `shift_by` must be given".to_owned(),
            ));
        }
    };
    if body.partition.is_some() && body.topic.is_none() {
        return Err(Failure::Body(
            "`partition` is of a `topic`, which must be given".to_owned(),
        ));
    }
    let group = door.group(&id, right::Read)?;
    let shown = door.group(&id, right::Describe)?;
    let known = shown.describe();
    if let Some(known) = &known
        && !known.members.is_empty()
    {
        return Err(GroupError::NonEmpty { state: known.state }.into());
    }
    if known.is_none() && body.topic.is_none() {
        return Err(GroupError::NotFound.into());
    }
    let moves = plan(&door, &shown, &body, target).await?;
    if !body.dry_run && !moves.is_empty() {
        commit(&group, &moves).await?;
        let offsets = moves
            .iter()
            .map(|one| format!("{}-{}: {}", one.topic.name, one.partition, one.after));
        let change = Change::OffsetsSet {
            group: &id,
            offsets: &some(offsets),
        };
        audit::log(&door, &change);
    }
    let moved: Vec<Value> = moves.iter().map(|one| json!({
        "topic": one.topic.name.as_str(), "partition": one.partition.get(), "before": one.before, "after": one.after.get(),
        "records": one.before.filter(|before| *before >= 0).map(|before| one.after.to_wire() - before),
    })).collect();
    Ok(Json(
        json!({ "group": id, "dry_run": body.dry_run, "partitions": moved }),
    ))
}

/// Which partitions move, and where to.
async fn plan(
    door: &Door,
    group: &Granted<Group<'_>, right::Describe>,
    body: &ResetBody,
    target: Target,
) -> Result<Vec<Move>, Failure> {
    let mut wanted: BTreeMap<TopicName, Vec<PartitionId>> = BTreeMap::new();
    let mut before = BTreeMap::new();
    for (topic, partition, committed) in group.fetch_after(None, usize::MAX) {
        before.insert((topic.clone(), partition), committed.offset.to_wire());
        let known = door.topic_if_allowed(topic.as_str(), right::Describe);
        if body.topic.is_none() && known.is_some() {
            wanted.entry(topic).or_default().push(partition);
        }
    }
    if let Some(name) = &body.topic {
        let topic = door.topic(name, right::Describe)?;
        wanted.insert(topic.name.clone(), partitions_of(&topic, body.partition)?);
    }
    let mut moves = Vec::new();
    for (name, partitions) in wanted {
        let topic = door.topic(name.as_str(), right::Read)?;
        let shown = door.topic(name.as_str(), right::Describe)?;
        for partition in partitions
            .into_iter()
            .filter(|partition| topic.has(*partition))
        {
            let before = before.get(&(name.clone(), partition)).copied();
            let place = match (target, before) {
                (Target::Place(place), _) => place,
                // Who has committed nothing has no place to be moved from.
                (Target::Shift(_), None) => continue,
                (Target::Shift(by), Some(before)) => {
                    let after = before.max(0).saturating_add(by).max(0);
                    Position::Offset(Offset::from_wire(after).unwrap_or(Offset::ZERO))
                }
            };
            let (after, _) = offset_at(door.broker(), &shown, partition, place).await?;
            let topic = topic.clone();
            moves.push(Move {
                topic,
                partition,
                before,
                after,
            });
        }
    }
    Ok(moves)
}

/// Commits as a client does that is no member.
async fn commit(group: &Granted<Group<'_>, right::Read>, moves: &[Move]) -> Result<(), Failure> {
    let commits = moves.iter().map(|one| OffsetCommit {
        topic: one.topic.name.clone(),
        topic_id: one.topic.id,
        partition: one.partition,
        offset: CommittedPlace::Next(one.after),
        leader_epoch: None,
        metadata: String::new(),
    });
    let claim = MemberClaim::default();
    let results = group.commit(&claim, commits.collect(), None).await;
    // Between the look at its members and now somebody may have joined.
    let members = |error| match error {
        GroupError::UnknownMember { .. } | GroupError::IllegalGeneration { .. } => {
            GroupError::NonEmpty {
                state: GroupState::Stable,
            }
        }
        other => other,
    };
    for result in results.map_err(members)? {
        result.map_err(members)?;
    }
    Ok(())
}
