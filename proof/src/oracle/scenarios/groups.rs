//! Groups: the classic group protocol in every state of a group, and the offsets that groups commit.
//! Callers: `scenarios`.

use super::topics::{create, topic};
use crate::oracle::pair::{Both, Line, Pair, Side};
use anyhow::{Context, Result};
use bytes::Bytes;
use wire::consumer::encode_subscription;
use wire::messages::consumer_protocol::ConsumerProtocolSubscription;
use wire::messages::delete_groups::DeleteGroupsRequest;
use wire::messages::describe_groups::DescribeGroupsRequest;
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use wire::messages::list_groups::ListGroupsRequest;
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    create(pair, vec![topic("committed", 3, &[])])?;
    nobody(pair);
    joins_that_fail(pair);
    for version in 0..=9 {
        one_member(pair, version)?;
    }
    two_members(pair)?;
    static_members(pair)?;
    standalone(pair);
    pair.scene = "all groups".into();
    for states in [
        &[][..],
        &["Empty"],
        &["Stable", "Dead"],
        &["stable"],
        &["nonsense"],
    ] {
        for kinds in [
            &[][..],
            &["classic"],
            &["consumer"],
            &["Classic"],
            &["nonsense"],
        ] {
            pair.ask_each(|_, version| ListGroupsRequest {
                states_filter: if version >= 4 {
                    texts(states)
                } else {
                    Vec::new()
                },
                types_filter: if version >= 5 {
                    texts(kinds)
                } else {
                    Vec::new()
                },
            });
        }
    }
    Ok(())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Who asks: a member's id and generation.
#[derive(Clone)]
struct Member {
    id: Both<String>,
    generation: i32,
}

impl Member {
    fn nobody(id: &str) -> Member {
        Member {
            id: Both {
                ours: id.to_owned(),
                theirs: id.to_owned(),
            },
            generation: 1,
        }
    }

    fn in_generation(&self, generation: i32) -> Member {
        Member {
            generation,
            ..self.clone()
        }
    }
}

fn join(group: &str, member_id: &str, metadata: &'static str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member_id.to_owned(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: subscription(metadata),
        }],
        ..JoinGroupRequest::default()
    }
}

/// A consumer's subscription that can be told from others'. Kafka looks into it.
fn subscription(name: &'static str) -> Bytes {
    let subscription = ConsumerProtocolSubscription {
        topics: texts(&["committed"]),
        user_data: Some(Bytes::from_static(name.as_bytes())),
        ..ConsumerProtocolSubscription::default()
    };
    encode_subscription(&subscription, 0).expect("version 0 has these fields")
}

fn sync(
    group: &str,
    member: &Member,
    side: Side,
    assigned: &[(&Member, &'static str)],
) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: group.to_owned(),
        generation_id: member.generation,
        member_id: member.id.of(side).clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: assigned
            .iter()
            .map(|(member, assignment)| SyncGroupRequestAssignment {
                member_id: member.id.of(side).clone(),
                assignment: Bytes::from_static(assignment.as_bytes()),
            })
            .collect(),
        ..SyncGroupRequest::default()
    }
}

fn commit(group: &str, member: Option<(&Member, Side)>, offset: i64) -> OffsetCommitRequest {
    let row = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        committed_metadata: Some("where I am".into()),
        ..OffsetCommitRequestPartition::default()
    };
    let by = member.map(|(member, side)| (member.id.of(side).clone(), member.generation));
    let (member_id, generation) = by.unwrap_or((String::new(), -1));
    OffsetCommitRequest {
        group_id: group.to_owned(),
        generation_id_or_member_epoch: generation,
        member_id,
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "committed".into(),
            partitions: vec![row(0), row(1)],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// What a group has committed, in each version, all of it and some of it.
fn fetch(pair: &mut Pair, group: &str) {
    for rows in [
        None,
        Some(vec![("committed", vec![0, 2, 9]), ("not-there", vec![0])]),
        Some(vec![]),
    ] {
        for require_stable in [false, true] {
            pair.ask_each(|_, version| {
                let by_group = version >= 8;
                OffsetFetchRequest {
                    group_id: if by_group {
                        String::new()
                    } else {
                        group.to_owned()
                    },
                    topics: match by_group {
                        true => Some(Vec::new()),
                        false => rows.as_ref().map(|rows| {
                            rows.iter()
                                .map(|(name, indexes)| OffsetFetchRequestTopic {
                                    name: (*name).to_owned(),
                                    partition_indexes: indexes.clone(),
                                })
                                .collect()
                        }),
                    },
                    groups: match by_group {
                        true => vec![OffsetFetchRequestGroup {
                            group_id: group.to_owned(),
                            topics: rows.as_ref().map(|rows| {
                                rows.iter()
                                    .map(|(name, indexes)| OffsetFetchRequestTopics {
                                        name: (*name).to_owned(),
                                        partition_indexes: indexes.clone(),
                                        ..OffsetFetchRequestTopics::default()
                                    })
                                    .collect()
                            }),
                            ..OffsetFetchRequestGroup::default()
                        }],
                        false => Vec::new(),
                    },
                    require_stable: require_stable && version >= 7,
                }
            });
        }
    }
}

fn describe(pair: &mut Pair, groups: &[&str]) {
    for asked in [false, true] {
        pair.ask_each(|_, version| DescribeGroupsRequest {
            groups: texts(groups),
            include_authorized_operations: asked && version >= 3,
        });
    }
}

fn beat(pair: &mut Pair, group: &str, member: &Member) {
    pair.ask_each(|side, _| HeartbeatRequest {
        group_id: group.to_owned(),
        generation_id: member.generation,
        member_id: member.id.of(side).clone(),
        ..HeartbeatRequest::default()
    });
}

fn leave(pair: &mut Pair, group: &str, member: &Member) {
    pair.ask_each(|side, version| {
        let id = member.id.of(side).clone();
        LeaveGroupRequest {
            group_id: group.to_owned(),
            member_id: if version < 3 {
                id.clone()
            } else {
                String::new()
            },
            members: match version >= 3 {
                true => vec![MemberIdentity {
                    member_id: id,
                    ..MemberIdentity::default()
                }],
                false => Vec::new(),
            },
        }
    });
}

/// Everything that changes nothing, asked in one state of a group, by a member and by strangers.
fn look_around(pair: &mut Pair, state: &str, group: &str, member: &Member) {
    pair.scene = format!("{state}: described");
    describe(pair, &[group]);
    let strangers = [
        (
            "a member of an older generation",
            member.in_generation(member.generation - 1),
        ),
        (
            "a member of a newer generation",
            member.in_generation(member.generation + 1),
        ),
        (
            "a stranger",
            Member::nobody("stranger").in_generation(member.generation),
        ),
        ("nobody", Member::nobody("").in_generation(-1)),
    ];
    for (who, one) in &strangers {
        pair.scene = format!("{state}: heartbeat of {who}");
        beat(pair, group, one);
        pair.scene = format!("{state}: sync of {who}");
        pair.ask_each(|side, _| sync(group, one, side, &[]));
        pair.scene = format!("{state}: commit of {who}");
        pair.ask_each(|side, _| commit(group, Some((one, side)), 3));
    }
    pair.scene = format!("{state}: sync with another protocol");
    pair.ask(5, |side| SyncGroupRequest {
        protocol_name: Some("sticky".into()),
        ..sync(group, member, side, &[])
    });
    pair.scene = format!("{state}: leaving of a stranger");
    leave(pair, group, &strangers[2].1);
    pair.scene = format!("{state}: deletion");
    if member.generation > 0 && !state.starts_with("empty") {
        pair.ask_each(|_, _| DeleteGroupsRequest {
            groups_names: texts(&[group]),
        });
        forget(pair, group);
    }
    pair.scene = format!("{state}: offsets");
    fetch(pair, group);
}

fn forget(pair: &mut Pair, group: &str) {
    for (name, index) in [("committed", 0), ("committed", 9), ("not-there", 0)] {
        pair.ask_each(|_, _| OffsetDeleteRequest {
            group_id: group.to_owned(),
            topics: vec![OffsetDeleteRequestTopic {
                name: name.to_owned(),
                partitions: vec![OffsetDeleteRequestPartition {
                    partition_index: index,
                }],
            }],
        });
    }
}

fn nobody(pair: &mut Pair) {
    let stranger = Member::nobody("stranger");
    for group in ["not-there", ""] {
        let state = format!("no group {group:?}");
        pair.scene = format!("{state}: described");
        describe(pair, &[group]);
        describe(pair, &[group, group]);
        pair.scene = format!("{state}: heartbeat");
        beat(pair, group, &stranger);
        pair.scene = format!("{state}: sync");
        pair.ask_each(|side, _| sync(group, &stranger, side, &[]));
        pair.scene = format!("{state}: leave");
        leave(pair, group, &stranger);
        pair.scene = format!("{state}: commit of a stranger");
        pair.ask_each(|side, _| commit(group, Some((&stranger, side)), 1));
        pair.scene = format!("{state}: offsets");
        fetch(pair, group);
        pair.scene = format!("{state}: deletion");
        pair.ask_each(|_, _| DeleteGroupsRequest {
            groups_names: texts(&[group]),
        });
        pair.ask_each(|_, _| DeleteGroupsRequest {
            groups_names: texts(&[group, group]),
        });
        forget(pair, group);
    }
    pair.scene = "no groups".into();
    describe(pair, &[]);
    pair.ask_each(|_, _| DeleteGroupsRequest::default());
    pair.ask_each(|_, _| LeaveGroupRequest {
        group_id: "not-there".into(),
        ..LeaveGroupRequest::default()
    });
}

fn joins_that_fail(pair: &mut Pair) {
    let good = || join("failing", "", "m");
    let wrong: Vec<(&str, JoinGroupRequest)> = vec![
        ("no group id", join("", "", "m")),
        (
            "a session too short",
            JoinGroupRequest {
                session_timeout_ms: 5_999,
                ..good()
            },
        ),
        (
            "a session too long",
            JoinGroupRequest {
                session_timeout_ms: 1_800_001,
                ..good()
            },
        ),
        (
            "a session of -1",
            JoinGroupRequest {
                session_timeout_ms: -1,
                ..good()
            },
        ),
        ("a member that is unknown", join("failing", "stranger", "m")),
        (
            "no protocols",
            JoinGroupRequest {
                protocols: vec![],
                ..good()
            },
        ),
        (
            "no protocol type",
            JoinGroupRequest {
                protocol_type: String::new(),
                ..good()
            },
        ),
    ];
    for (scene, request) in wrong {
        pair.scene = format!("join: {scene}");
        pair.ask_each(|_, _| request.clone());
    }
}

/// Joins and answers with the member; takes the second step where the version wants one.
fn join_alone(pair: &mut Pair, version: i16, request: &JoinGroupRequest) -> Result<Member> {
    let mut answers = pair
        .ask(version, |_| request.clone())
        .context("no answer to a join")?;
    if answers.ours.error_code == 79 {
        let ids = answers.map(|answer| answer.member_id.clone());
        answers = pair
            .ask(version, |side| JoinGroupRequest {
                member_id: ids.of(side).clone(),
                ..request.clone()
            })
            .context("no answer to a join with an id")?;
    }
    Ok(Member {
        id: answers.map(|answer| answer.member_id.clone()),
        generation: answers.ours.generation_id,
    })
}

fn one_member(pair: &mut Pair, version: i16) -> Result<()> {
    let group = format!("single-{version}");
    pair.scene = format!("a first member by version {version}");
    let mut request = join(&group, "", "alone");
    if version == 0 {
        request.rebalance_timeout_ms = -1;
    }
    let member = join_alone(pair, version, &request)?;
    if version % 3 == 0 {
        look_around(pair, "completing", &group, &member);
    }
    pair.scene = format!("sync of version {}", version.min(5));
    pair.ask(version.min(5), |side| {
        sync(&group, &member, side, &[(&member, "all of it")])
    });
    if version % 3 == 0 {
        look_around(pair, "stable", &group, &member);
        pair.scene = "stable: by the member".into();
        beat(pair, &group, &member);
        pair.ask_each(|side, _| sync(&group, &member, side, &[]));
        pair.ask_each(|side, version| {
            commit(&group, Some((&member, side)), 10 + i64::from(version))
        });
        fetch(pair, &group);
    }
    pair.scene = "the leader joins again".into();
    let again = pair
        .ask(version, |side| JoinGroupRequest {
            member_id: member.id.of(side).clone(),
            ..request.clone()
        })
        .context("no answer to joining again")?;
    let member = member.in_generation(again.ours.generation_id);
    pair.scene = "sync without assignments".into();
    pair.ask(version.min(5), |side| sync(&group, &member, side, &[]));
    pair.scene = format!("leave of version {}", version.min(5));
    leave(pair, &group, &member);
    if version % 3 == 0 {
        look_around(pair, "empty", &group, &member);
        pair.scene = "empty: commit of nobody".into();
        pair.ask_each(|_, version| commit(&group, None, 20 + i64::from(version)));
        fetch(pair, &group);
        forget(pair, &group);
        fetch(pair, &group);
    }
    pair.scene = "deletion of an empty group".into();
    pair.ask(version.min(2), |_| DeleteGroupsRequest {
        groups_names: texts(&[&group]),
    });
    fetch(pair, &group);
    Ok(())
}

fn two_members(pair: &mut Pair) -> Result<()> {
    let group = "double";
    pair.scene = "a leader".into();
    let leader_join = join(group, "", "first");
    let leader = join_alone(pair, 5, &leader_join)?;
    pair.ask(3, |side| {
        sync(group, &leader, side, &[(&leader, "everything")])
    });
    pair.scene = "a follower joins".into();
    let mut follower_line: Line = pair.line();
    let follower_join = join(group, "", "second");
    let asked = pair
        .ask(5, |_| follower_join.clone())
        .context("no id for the follower")?;
    let ids = asked.map(|answer| answer.member_id.clone());
    let second = |side: Side| JoinGroupRequest {
        member_id: ids.of(side).clone(),
        ..follower_join.clone()
    };
    pair.send(&mut follower_line, 5, second);
    wait_for(pair, group, "PreparingRebalance")?;
    look_around(pair, "preparing", group, &leader);
    pair.scene = "preparing: by the leader".into();
    beat(pair, group, &leader);
    pair.ask_each(|side, _| sync(group, &leader, side, &[]));
    pair.ask_each(|side, _| commit(group, Some((&leader, side)), 5));
    pair.scene = "the leader joins again".into();
    let again = pair
        .ask(5, |side| JoinGroupRequest {
            member_id: leader.id.of(side).clone(),
            ..leader_join.clone()
        })
        .context("no answer to the leader")?;
    let leader = leader.in_generation(again.ours.generation_id);
    pair.scene = "the follower has joined".into();
    pair.receive(&mut follower_line, 5, &second(Side::Ours));
    let follower = Member {
        id: ids,
        generation: leader.generation,
    };
    pair.scene = "the follower syncs first".into();
    let wanted = |side: Side| sync(group, &follower, side, &[]);
    pair.send(&mut follower_line, 3, wanted);
    beat(pair, group, &follower);
    pair.scene = "the leader gives to both, and to a stranger".into();
    let stranger = Member::nobody("stranger");
    pair.ask(3, |side| {
        sync(
            group,
            &leader,
            side,
            &[
                (&leader, "half"),
                (&follower, "the other half"),
                (&stranger, "none"),
            ],
        )
    });
    pair.scene = "the follower has its half".into();
    pair.receive(&mut follower_line, 3, &wanted(Side::Ours));
    describe(pair, &[group]);
    pair.scene = "the follower joins again with the same".into();
    pair.ask(5, |side| JoinGroupRequest {
        member_id: follower.id.of(side).clone(),
        ..follower_join.clone()
    });
    pair.scene = "a member with no protocol in common".into();
    pair.ask_each(|_, _| JoinGroupRequest {
        protocols: vec![JoinGroupRequestProtocol {
            name: "sticky".into(),
            metadata: subscription("third"),
        }],
        ..join(group, "", "third")
    });
    pair.ask_each(|_, _| JoinGroupRequest {
        protocol_type: "connect".into(),
        ..join(group, "", "third")
    });
    pair.scene = "several leave".into();
    for version in 3..=5 {
        pair.ask(version, |side| LeaveGroupRequest {
            group_id: group.into(),
            members: [
                leader.id.of(side).as_str(),
                "stranger",
                follower.id.of(side),
            ]
            .map(|id| MemberIdentity {
                member_id: id.to_owned(),
                ..MemberIdentity::default()
            })
            .to_vec(),
            ..LeaveGroupRequest::default()
        });
    }
    describe(pair, &[group]);
    Ok(())
}

/// Waits until both say that the group is in this state: the request that brings it there is not answered yet.
fn wait_for(pair: &mut Pair, group: &str, state: &str) -> Result<()> {
    for side in [Side::Ours, Side::Theirs] {
        let request = DescribeGroupsRequest {
            groups: texts(&[group]),
            ..DescribeGroupsRequest::default()
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while pair.ask_one(side, 4, &request)?.groups[0].group_state != state {
            anyhow::ensure!(
                std::time::Instant::now() < deadline,
                "{side:?}: {group} does not get {state}"
            );
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    Ok(())
}

fn static_members(pair: &mut Pair) -> Result<()> {
    let group = "named";
    let request = |id: &str, metadata| JoinGroupRequest {
        group_instance_id: Some("chair".into()),
        ..join(group, id, metadata)
    };
    pair.scene = "a static member".into();
    let first = join_alone(pair, 7, &request("", "sits"))?;
    pair.ask(5, |side| SyncGroupRequest {
        group_instance_id: Some("chair".into()),
        ..sync(group, &first, side, &[(&first, "a seat")])
    });
    describe(pair, &[group]);
    for version in [5, 7, 9] {
        pair.scene = format!("a static member comes back by version {version}");
        let back = join_alone(pair, version, &request("", "sits"))?;
        pair.scene = "the one that was there before".into();
        pair.ask_each(|side, version| HeartbeatRequest {
            group_id: group.into(),
            generation_id: first.generation,
            member_id: first.id.of(side).clone(),
            group_instance_id: (version >= 3).then(|| "chair".into()),
        });
        pair.ask(8, |side| OffsetCommitRequest {
            group_instance_id: Some("chair".into()),
            ..commit(group, Some((&first, side)), 4)
        });
        pair.ask(5, |side| SyncGroupRequest {
            group_instance_id: Some("chair".into()),
            ..sync(group, &first, side, &[])
        });
        pair.ask(9, |side| JoinGroupRequest {
            member_id: first.id.of(side).clone(),
            ..request("", "sits")
        });
        pair.scene = "the one that came back".into();
        pair.ask(5, |side| SyncGroupRequest {
            group_instance_id: Some("chair".into()),
            ..sync(group, &back, side, &[])
        });
        pair.ask(4, |side| HeartbeatRequest {
            group_id: group.into(),
            generation_id: back.generation,
            member_id: back.id.of(side).clone(),
            group_instance_id: Some("chair".into()),
        });
    }
    pair.scene = "a static member is sent away".into();
    for (id, instance) in [
        ("wrong", Some("chair")),
        ("", Some("table")),
        ("", Some("chair")),
    ] {
        pair.ask_each(|_, version| LeaveGroupRequest {
            group_id: group.into(),
            members: match version >= 3 {
                true => vec![MemberIdentity {
                    member_id: id.into(),
                    group_instance_id: instance.map(str::to_owned),
                    ..MemberIdentity::default()
                }],
                false => Vec::new(),
            },
            ..LeaveGroupRequest::default()
        });
    }
    describe(pair, &[group]);
    Ok(())
}

fn standalone(pair: &mut Pair) {
    let group = "standalone";
    pair.scene = "commits without a group".into();
    for offset in [0, 5, -1, -2, i64::MAX, i64::MIN] {
        pair.ask_each(|_, _| commit(group, None, offset));
        fetch(pair, group);
    }
    pair.scene = "commits of odd metadata".into();
    for metadata in [
        None,
        Some(String::new()),
        Some("m".repeat(4096)),
        Some("m".repeat(4097)),
        Some("ü".repeat(2048)),
        Some("ü".repeat(4096)),
        Some("ü".repeat(4097)),
        // Two UTF-16 code units each.
        Some("\u{1f600}".repeat(2048)),
        Some("\u{1f600}".repeat(2049)),
    ] {
        pair.ask_each(|_, _| {
            let mut request = commit(group, None, 7);
            request.topics[0].partitions[0].committed_metadata = metadata.clone();
            request
        });
        fetch(pair, group);
    }
    pair.scene = "commits of what is not there".into();
    for (name, index) in [
        ("not-there", 0),
        ("a b", 0),
        ("", 0),
        ("committed", 9),
        ("committed", -1),
    ] {
        pair.ask_each(|_, _| {
            let mut request = commit(group, None, 7);
            request.topics[0].name = name.to_owned();
            request.topics[0].partitions[0].partition_index = index;
            request
        });
        fetch(pair, group);
    }
    pair.scene = "commits of nothing".into();
    pair.ask_each(|_, _| OffsetCommitRequest {
        topics: vec![],
        ..commit(group, None, 7)
    });
    pair.ask_each(|_, _| {
        let mut request = commit(group, None, 7);
        request.topics[0].partitions.clear();
        request
    });
    pair.scene = "commits of one partition twice".into();
    pair.ask_each(|_, _| {
        let mut request = commit(group, None, 7);
        request.topics[0].partitions[1].partition_index = 0;
        request.topics[0].partitions[1].committed_offset = 8;
        request
    });
    fetch(pair, group);
    pair.scene = "commits with epochs and retention".into();
    pair.ask_each(|_, version| {
        let mut request = commit(group, None, 9);
        request.topics[0].partitions[0].committed_leader_epoch = if version >= 6 { 17 } else { -1 };
        request.retention_time_ms = if version <= 4 { 1_000_000 } else { -1 };
        request
    });
    describe(pair, &[group]);
}
