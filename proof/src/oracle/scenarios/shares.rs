//! Shares: groups that share records (KIP-932): their members, records that are taken and what becomes of them, and their offsets.
//! Kafka begins with a group's partitions after the heartbeat that asks for them is answered, so each side is asked until its member
//! has its partitions; from there on both are asked the same.
//! Callers: `scenarios`.

use super::produce::one_batch;
use super::topics::{create, topic};
use crate::oracle::batches::Batch;
use crate::oracle::pair::{Both, Line, Pair, Side};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use wire::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
};
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequestTopic,
};
use wire::messages::describe_groups::DescribeGroupsRequest;
use wire::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic,
};
use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::share_acknowledge::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch as Said, ShareAcknowledgeRequest,
};
use wire::messages::share_fetch::{
    AcknowledgementBatch, FetchPartition, FetchTopic, ForgottenTopic, ShareFetchRequest,
};
use wire::messages::share_group_describe::ShareGroupDescribeRequest;
use wire::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;
use wire::{ApiKey, Request, Uuid};

const TOPIC: &str = "shared";
/// A group's settings, as a resource.
const GROUP_RESOURCE: i8 = 32;
/// Ids of members, which clients draw as uuids.
const ONE: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAg";
/// How long a partition may take until it is a member's.
const READY_SECONDS_MAX: u64 = 30;

const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const RENEW: i8 = 4;

/// What is said of records: from, to, and how.
type Words<'a> = &'a [(i64, i64, &'a [i8])];

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    create(pair, vec![topic(TOPIC, 2, &[])])?;
    for records in [3, 2, 1] {
        pair.ask(9, |_| one_batch(TOPIC, 0, Some(Batch::of(records).bytes())));
    }
    nobody(pair)?;
    offsets(pair)?;
    let (first, last) = pair.versions(ApiKey::ShareFetch).unwrap_or((1, 0));
    for version in first..=last {
        one_member(pair, version)?;
        sessions_that_fail(pair, version)?;
    }
    groups(pair)
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn beat(
    group: &str,
    member: &str,
    epoch: i32,
    topics: Option<&[&str]>,
) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: member.to_owned(),
        member_epoch: epoch,
        rack_id: None,
        subscribed_topic_names: topics.map(texts),
    }
}

fn fetch(group: &str, member: &str, epoch: i32, topics: Vec<FetchTopic>) -> ShareFetchRequest {
    ShareFetchRequest {
        group_id: Some(group.to_owned()),
        member_id: Some(member.to_owned()),
        share_session_epoch: epoch,
        max_wait_ms: 5_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_records: 500,
        batch_size: 500,
        topics,
        ..ShareFetchRequest::default()
    }
}

/// A partition to be fetched from, and what is said of earlier records: from, to, and how.
fn of(id: Uuid, index: i32, said: Words<'_>) -> Vec<FetchTopic> {
    let batch = |(first_offset, last_offset, types): &(i64, i64, &[i8])| AcknowledgementBatch {
        first_offset: *first_offset,
        last_offset: *last_offset,
        acknowledge_types: types.to_vec(),
    };
    vec![FetchTopic {
        topic_id: id,
        partitions: vec![FetchPartition {
            partition_index: index,
            acknowledgement_batches: said.iter().map(batch).collect(),
        }],
    }]
}

fn acknowledge(
    group: &str,
    member: &str,
    epoch: i32,
    (id, index): (Uuid, i32),
    said: Words<'_>,
) -> ShareAcknowledgeRequest {
    let batch = |(first_offset, last_offset, types): &(i64, i64, &[i8])| Said {
        first_offset: *first_offset,
        last_offset: *last_offset,
        acknowledge_types: types.to_vec(),
    };
    ShareAcknowledgeRequest {
        group_id: Some(group.to_owned()),
        member_id: Some(member.to_owned()),
        share_session_epoch: epoch,
        is_renew_ack: false,
        topics: vec![AcknowledgeTopic {
            topic_id: id,
            partitions: vec![AcknowledgePartition {
                partition_index: index,
                acknowledgement_batches: said.iter().map(batch).collect(),
            }],
        }],
    }
}

/// Asks both on a connection: a share session is one's.
fn ask_on<R: Request>(
    pair: &mut Pair,
    line: &mut Line,
    version: i16,
    request: impl Fn(Side) -> R,
) -> Option<Both<R::Response>> {
    match pair.send(line, version, &request) {
        true => pair.receive::<R>(line, version, &request(Side::Ours)),
        false => None,
    }
}

/// What a group has begun with, in each version. Of partitions that are not there Kafka asks its own coordinator for longer than an answer
/// is waited for.
fn described(pair: &mut Pair, group: &str) {
    for rows in [
        None,
        Some(vec![(TOPIC, vec![0, 1]), ("not-there", vec![0])]),
        Some(vec![]),
    ] {
        pair.ask_each(|_, _| DescribeShareGroupOffsetsRequest {
            groups: vec![DescribeShareGroupOffsetsRequestGroup {
                group_id: group.to_owned(),
                topics: rows.as_ref().map(|rows| {
                    let row = |(name, partitions): &(&str, Vec<i32>)| {
                        DescribeShareGroupOffsetsRequestTopic {
                            topic_name: (*name).to_owned(),
                            partitions: partitions.clone(),
                        }
                    };
                    rows.iter().map(row).collect()
                }),
            }],
        });
    }
}

fn alter(group: &str, rows: &[(&str, &[(i32, i64)])]) -> AlterShareGroupOffsetsRequest {
    let partition =
        |(partition_index, start_offset): &(i32, i64)| AlterShareGroupOffsetsRequestPartition {
            partition_index: *partition_index,
            start_offset: *start_offset,
        };
    let row = |(name, partitions): &(&str, &[(i32, i64)])| AlterShareGroupOffsetsRequestTopic {
        topic_name: (*name).to_owned(),
        partitions: partitions.iter().map(partition).collect(),
    };
    AlterShareGroupOffsetsRequest {
        group_id: group.to_owned(),
        topics: rows.iter().map(row).collect(),
    }
}

fn delete_offsets(group: &str, names: &[&str]) -> DeleteShareGroupOffsetsRequest {
    let row = |name: &&str| DeleteShareGroupOffsetsRequestTopic {
        topic_name: (*name).to_owned(),
    };
    DeleteShareGroupOffsetsRequest {
        group_id: group.to_owned(),
        topics: names.iter().map(row).collect(),
    }
}

fn describe(pair: &mut Pair, groups: &[&str]) {
    for include_authorized_operations in [false, true] {
        pair.ask_each(|_, _| ShareGroupDescribeRequest {
            group_ids: texts(groups),
            include_authorized_operations,
        });
    }
}

fn delete(pair: &mut Pair, groups: &[&str]) {
    pair.ask(2, |_| DeleteGroupsRequest {
        groups_names: texts(groups),
    });
}

/// Makes somebody a member, and waits until it has its partitions; its epoch.
fn joined(pair: &mut Pair, group: &str, member: &str) -> Result<Both<i32>> {
    let mut epochs = Both::default();
    for side in [Side::Ours, Side::Theirs] {
        let deadline = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        let mut request = beat(group, member, 0, Some(&[TOPIC]));
        let epoch = loop {
            let told = pair.ask_one(side, 1, &request)?;
            ensure!(
                told.error_code == 0,
                "{side:?} refuses a member: {} {:?}",
                told.error_code,
                told.error_message
            );
            let partitions = told.assignment.iter().flat_map(|it| &it.topic_partitions);
            if partitions.map(|it| it.partitions.len()).sum::<usize>() == 2 {
                break told.member_epoch;
            }
            ensure!(
                Instant::now() < deadline,
                "{side:?} gives a member nothing to fetch"
            );
            std::thread::sleep(Duration::from_millis(50));
            request = beat(group, member, told.member_epoch, None);
        };
        match side {
            Side::Ours => epochs.ours = epoch,
            Side::Theirs => epochs.theirs = epoch,
        }
    }
    Ok(epochs)
}

fn from_the_first(pair: &mut Pair, group: &str) {
    pair.ask(1, |_| IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP_RESOURCE,
            resource_name: group.to_owned(),
            configs: vec![AlterableConfig {
                name: "share.auto.offset.reset".to_owned(),
                config_operation: 0,
                value: Some("earliest".to_owned()),
            }],
        }],
        validate_only: false,
    });
}

/// Groups that are not there, and members that are not in them.
fn nobody(pair: &mut Pair) -> Result<()> {
    let id = pair.topic_id(TOPIC)?;
    for (what, request) in [
        ("no group's id", beat("", ONE, 0, Some(&[TOPIC]))),
        ("a blank group's id", beat(" ", ONE, 0, Some(&[TOPIC]))),
        ("no member's id", beat("nobody", "", 0, Some(&[TOPIC]))),
        ("no topics", beat("nobody", ONE, 0, None)),
        ("an empty list of topics", beat("nobody", ONE, 0, Some(&[]))),
        (
            "an epoch before all",
            beat("nobody", ONE, -2, Some(&[TOPIC])),
        ),
        ("a group that is not there", beat("nobody", ONE, 5, None)),
        (
            "a group that is not there, left",
            beat("nobody", ONE, -1, None),
        ),
        (
            "an empty rack",
            ShareGroupHeartbeatRequest {
                rack_id: Some(String::new()),
                ..beat("nobody", ONE, 0, Some(&[TOPIC]))
            },
        ),
    ] {
        pair.scene = format!("heartbeat of a share group with {what}");
        pair.ask_each(|_, _| request.clone());
    }
    pair.scene = "a share group that is not there".into();
    describe(pair, &["nobody"]);
    describe(pair, &[""]);
    described(pair, "nobody");
    described(pair, "");
    for names in [&[TOPIC][..], &["not-there"], &[]] {
        pair.ask_each(|_, _| delete_offsets("nobody", names));
        pair.ask_each(|_, _| delete_offsets("", names));
    }
    pair.ask_each(|_, _| alter("", &[(TOPIC, &[(0, 0)])]));
    let short = |request: ShareFetchRequest| ShareFetchRequest {
        max_wait_ms: 100,
        ..request
    };
    for (what, group, member, epoch) in [
        ("no group", None, Some(ONE), 0),
        ("an empty group", Some(""), Some(ONE), 0),
        ("no member", Some("nobody"), None, 0),
        ("an empty member", Some("nobody"), Some(""), 0),
        ("a member that is no uuid", Some("nobody"), Some("m"), 0),
        ("a group that is not there", Some("nobody"), Some(ONE), 0),
        ("no session", Some("nobody"), Some(ONE), 5),
        ("no session to be ended", Some("nobody"), Some(ONE), -1),
    ] {
        pair.scene = format!("share fetch with {what}");
        pair.ask_each(|side, _| ShareFetchRequest {
            group_id: group.map(str::to_owned),
            member_id: member.map(str::to_owned),
            ..short(fetch("", "", epoch, of(*id.of(side), 0, &[])))
        });
        pair.scene = format!("share acknowledgement with {what}");
        pair.ask_each(|side, _| ShareAcknowledgeRequest {
            group_id: group.map(str::to_owned),
            member_id: member.map(str::to_owned),
            ..acknowledge("", "", epoch, (*id.of(side), 0), &[(0, 0, &[ACCEPT])])
        });
    }
    Ok(())
}

/// Offsets of a group without members.
fn offsets(pair: &mut Pair) -> Result<()> {
    pair.scene = "offsets of a share group that comes into being by them".into();
    pair.ask_each(|_, _| {
        alter(
            "moved",
            &[(TOPIC, &[(0, 2), (1, 0)]), ("not-there", &[(0, 0)])],
        )
    });
    described(pair, "moved");
    describe(pair, &["moved"]);
    pair.scene = "offsets of a share group, set again".into();
    for offset in [0, 6, 99, -1] {
        pair.ask_each(|_, _| alter("moved", &[(TOPIC, &[(0, offset)])]));
        described(pair, "moved");
    }
    pair.ask_each(|_, _| alter("moved", &[]));
    pair.ask_each(|_, _| alter("moved", &[(TOPIC, &[])]));
    pair.scene = "offsets of a share group, deleted".into();
    pair.ask_each(|_, _| delete_offsets("moved", &[TOPIC, "not-there"]));
    described(pair, "moved");
    pair.ask_each(|_, _| delete_offsets("moved", &[TOPIC]));
    delete(pair, &["moved"]);
    described(pair, "moved");
    Ok(())
}

/// A member takes records, and says what becomes of them.
fn one_member(pair: &mut Pair, version: i16) -> Result<()> {
    let group = &format!("shares-{version}");
    let id = pair.topic_id(TOPIC)?;
    pair.scene = format!("a share group of one member, fetch version {version}");
    from_the_first(pair, group);
    pair.settle()?;
    let epochs = joined(pair, group, ONE)?;
    pair.ask_each(|side, _| beat(group, ONE, *epochs.of(side), None));
    describe(pair, &[group]);
    let mut line = pair.line();
    let line = &mut line;
    pair.scene = format!("records of a share group, fetch version {version}");
    ask_on(pair, line, version, |side| {
        fetch(group, ONE, 0, of(*id.of(side), 0, &[]))
    });
    pair.scene = format!("records of a share group, acknowledged, version {version}");
    ask_on(pair, line, version, |side| {
        let said: Words<'_> = &[(0, 2, &[ACCEPT, RELEASE, REJECT])];
        acknowledge(group, ONE, 1, (*id.of(side), 0), said)
    });
    described(pair, group);
    ask_on(pair, line, version, |side| {
        fetch(group, ONE, 2, of(*id.of(side), 0, &[]))
    });
    pair.scene =
        format!("records of a share group, acknowledged with the next fetch, version {version}");
    ask_on(pair, line, version, |side| {
        let said: Words<'_> = &[(1, 1, &[ACCEPT]), (3, 4, &[ACCEPT, RELEASE])];
        fetch(group, ONE, 3, of(*id.of(side), 0, said))
    });
    described(pair, group);
    wrong_words(pair, (group, version), line, 4)?;
    pair.scene = format!("a share session that ends, version {version}");
    ask_on(pair, line, version, |side| {
        acknowledge(group, ONE, -1, (*id.of(side), 0), &[(5, 5, &[ACCEPT])])
    });
    described(pair, group);
    pair.scene = format!("a share group whose member leaves, version {version}");
    delete(pair, &[group]);
    for (member, epoch) in [(ONE, 99), (OTHER, 1), (OTHER, -1), (ONE, -1), (ONE, -1)] {
        pair.ask_each(|_, _| beat(group, member, epoch, None));
    }
    describe(pair, &[group]);
    delete(pair, &[group]);
    describe(pair, &[group]);
    Ok(())
}

/// What is said of records wrongly. Each of it counts as a request of the session.
fn wrong_words(
    pair: &mut Pair,
    (group, version): (&str, i16),
    line: &mut Line,
    epoch: i32,
) -> Result<()> {
    let id = pair.topic_id(TOPIC)?;
    let wrong: &[(&str, i32, Words<'_>)] = &[
        ("records that nobody holds", 0, &[(0, 0, &[ACCEPT])]),
        ("records behind the end", 0, &[(50, 51, &[ACCEPT])]),
        ("a partition that is not there", 7, &[(0, 0, &[ACCEPT])]),
        (
            "a partition of which it holds nothing",
            1,
            &[(0, 0, &[ACCEPT])],
        ),
    ];
    for ((what, index, said), epoch) in wrong.iter().zip(epoch..) {
        pair.scene = format!("acknowledgement of {what}, version {version}");
        ask_on(pair, line, version, |side| {
            acknowledge(group, ONE, epoch, (*id.of(side), *index), said)
        });
    }
    Ok(())
}

/// Requests that end, or do not come to, a session; each on a connection of its own, and in a group of its own where it takes records:
/// those that were delivered in vain often Kafka gives in smaller pieces.
fn sessions_that_fail(pair: &mut Pair, version: i16) -> Result<()> {
    let id = pair.topic_id(TOPIC)?;
    let wrong: &[(&str, Words<'_>)] = &[
        ("records the wrong way round", &[(2, 1, &[ACCEPT])]),
        ("records with too many words", &[(0, 1, &[ACCEPT; 3])]),
        ("records without a word", &[(0, 1, &[])]),
        ("records with an unknown word", &[(0, 0, &[9])]),
        ("records twice", &[(0, 1, &[ACCEPT]), (1, 2, &[ACCEPT])]),
        ("records to be held on", &[(0, 0, &[RENEW])]),
    ];
    for (number, (what, said)) in wrong.iter().enumerate() {
        let group = &format!("failing-{version}-{number}");
        pair.scene = format!("acknowledgement of {what}, version {version}");
        from_the_first(pair, group);
        pair.settle()?;
        joined(pair, group, ONE)?;
        let mut line = pair.line();
        ask_on(pair, &mut line, version, |side| {
            fetch(group, ONE, 0, of(*id.of(side), 0, &[]))
        })
        .with_context(|| format!("no answer to the first fetch: {what}"))?;
        ask_on(pair, &mut line, version, |side| {
            acknowledge(group, ONE, 1, (*id.of(side), 0), said)
        });
        // What it holds is released with the session.
        ask_on(pair, &mut line, version, |side| {
            fetch(group, ONE, -1, of(*id.of(side), 0, &[]))
        });
        leave(pair, group)?;
    }
    let group = &format!("failing-{version}");
    pair.scene = format!("a share group for sessions that fail, version {version}");
    from_the_first(pair, group);
    pair.settle()?;
    joined(pair, group, ONE)?;
    pair.scene = format!("a member that says something in its first fetch, version {version}");
    let mut line = pair.line();
    ask_on(pair, &mut line, version, |side| {
        fetch(group, ONE, 0, of(*id.of(side), 1, &[(0, 0, &[ACCEPT])]))
    });
    pair.scene = format!("a member that has another epoch than its session, version {version}");
    let mut line = pair.line();
    for epoch in [0, 7] {
        ask_on(pair, &mut line, version, |side| ShareFetchRequest {
            max_wait_ms: 100,
            ..fetch(group, ONE, epoch, of(*id.of(side), 1, &[]))
        });
    }
    pair.scene = format!("a share fetch of what is not there, version {version}");
    let mut line = pair.line();
    ask_on(pair, &mut line, version, |side| ShareFetchRequest {
        max_wait_ms: 100,
        ..fetch(group, ONE, 0, of(*id.of(side), 9, &[]))
    });
    ask_on(pair, &mut line, version, |side| ShareFetchRequest {
        max_wait_ms: 100,
        forgotten_topics_data: vec![ForgottenTopic {
            topic_id: *id.of(side),
            partitions: vec![9],
        }],
        ..fetch(group, ONE, 1, of(Uuid::from_u128(80), 0, &[]))
    });
    leave(pair, group)
}

/// The one member of a group leaves, and the group ends.
fn leave(pair: &mut Pair, group: &str) -> Result<()> {
    for side in [Side::Ours, Side::Theirs] {
        pair.ask_one(side, 1, &beat(group, ONE, -1, None))?;
    }
    delete(pair, &[group]);
    Ok(())
}

/// Groups of both kinds under one id, and lists of them.
fn groups(pair: &mut Pair) -> Result<()> {
    let group = "of-this-kind";
    joined(pair, group, ONE)?;
    pair.scene = "a share group that is asked for as another".into();
    pair.ask_each(|_, _| DescribeGroupsRequest {
        groups: texts(&[group]),
        ..DescribeGroupsRequest::default()
    });
    pair.scene = "lists of share groups".into();
    for kinds in [&["share"][..], &["Share"], &["share", "classic"]] {
        for states in [&[][..], &["Stable"], &["Empty"]] {
            pair.ask_each(|_, version| ListGroupsRequest {
                states_filter: match version {
                    4.. => texts(states),
                    _ => Vec::new(),
                },
                types_filter: match version {
                    5.. => texts(kinds),
                    _ => Vec::new(),
                },
            });
        }
    }
    pair.scene = "offsets of a share group with members".into();
    pair.ask_each(|_, _| alter(group, &[(TOPIC, &[(0, 0)])]));
    pair.ask_each(|_, _| delete_offsets(group, &[TOPIC]));
    pair.scene = "a share group that ends".into();
    leave(pair, group)
}
