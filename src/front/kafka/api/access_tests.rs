//! Every request by everybody: without the right, with it, with a denial, and by who has not said who they are. The requests are those of
//! `rights_tests`, where a key without one fails.

use std::collections::BTreeSet;

use bytes::Bytes;
use model::acl::{
    Acl, AclFilter, CLUSTER_NAME, Operation, PatternType, Permission, ResourceType, WILDCARD,
};

use super::rights_tests::{
    Answered, Rights, TOPIC, answered, commit_of, requests, requests_of_all,
};
use crate::broker::access::{Caller, Door, Principal, Protocol, ResourceKind, right};
use crate::broker::scratch::Scratch;
use crate::broker::{Layout, NewTopic};

const DENIALS: [&str; 3] = [
    "TOPIC_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
];
/// Keys whose answers leave out what the caller may not see, or name topics by an id that nobody has.
const SILENT: [&str; 2] = ["ListGroups", "Fetch"];

fn user(name: &str) -> Principal {
    Principal::User(name.into())
}

fn root(broker: &Scratch) -> Door {
    broker.door_of_user("root", Protocol::Kafka)
}

async fn make_topic(broker: &Scratch, name: &str) {
    let door = root(broker);
    let new = NewTopic {
        name: door.new_topic(name).expect("a free name"),
        layout: Layout::Counted {
            partitions: Some(3),
            replicas: None,
        },
        settings: Vec::new(),
    };
    let made = broker.create_topics(vec![new], false).await;
    assert!(made[0].is_ok());
}

/// Everything of the broker that a request could change.
fn state(broker: &Scratch) -> String {
    let door = root(broker);
    let topics = door.topics(right::Describe);
    let shape = |topic: &crate::broker::Topic| {
        let settings = format!("{:?}", topic.overrides);
        format!("{} {} {settings}", topic.name, topic.partition_count())
    };
    let topics: Vec<String> = topics.iter().map(|topic| shape(topic)).collect();
    let groups: Vec<String> = door.groups().into_iter().map(|group| group.id).collect();
    let cluster = door.cluster(right::Describe).expect("a super user");
    let acls = broker
        .acls(&cluster, &AclFilter::default())
        .expect("it is on");
    let held = broker.held_in_memory();
    format!("{topics:?} {groups:?} {acls:?} {held:?}")
}

/// A rule on all resources of a kind.
fn rule(kind: ResourceKind, operation: Operation, permission: Permission) -> Acl {
    let (resource_type, name) = match kind {
        ResourceKind::Topic => (ResourceType::Topic, WILDCARD),
        ResourceKind::Group => (ResourceType::Group, WILDCARD),
        ResourceKind::Cluster => (ResourceType::Cluster, CLUSTER_NAME),
    };
    Acl {
        resource_type,
        name: name.to_owned(),
        pattern: PatternType::Literal,
        principal: "User:alice".to_owned(),
        host: "*".to_owned(),
        operation,
        permission,
    }
}

async fn put(broker: &Scratch, rights: &Rights, permission: Permission) {
    let door = root(broker);
    let cluster = door.cluster(right::Alter).expect("a super user");
    let rules = rights
        .iter()
        .map(|(kind, right)| rule(*kind, right.operation(), permission));
    for made in broker.create_acls(&cluster, rules.collect()).await {
        made.expect("a rule");
    }
}

async fn remove_rules(broker: &Scratch) {
    let door = root(broker);
    let cluster = door.cluster(right::Alter).expect("a super user");
    let removed = broker.delete_acls(&cluster, &[AclFilter::default()]).await;
    assert!(
        removed.expect("it is on")[0]
            .iter()
            .all(|(_, gone)| gone.is_ok())
    );
}

fn denials(answered: &Answered) -> BTreeSet<&'static str> {
    let is_denial = |name: &&&str| DENIALS.contains(*name);
    answered.errors.iter().filter(is_denial).copied().collect()
}

/// What is wrong with the answer to a denied request, if it does not say so.
fn undenied(answered: &Answered) -> Option<String> {
    let key = answered.key.name();
    let is_silent = answered.asked.is_empty() || SILENT.contains(&key);
    let is_right = denials(answered).is_empty() == is_silent;
    (!is_right).then(|| format!("{key}: {:?} {:?}", answered.asked, answered.errors))
}

#[tokio::test]
async fn every_request_is_answered_by_what_the_caller_may() {
    let broker = Scratch::with_access_control();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = broker.clone();
    let running = tokio::spawn(async move { running.run(stopped).await });
    let requests = requests();

    let mut before: Vec<Answered> = Vec::new();
    let mut wrong: Vec<String> = Vec::new();
    let empty = state(&broker);
    for frame in &requests {
        let answered = answered(frame.clone(), &broker, user("alice")).await;
        wrong.extend(undenied(&answered));
        before.push(answered);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(state(&broker), empty, "nothing was changed or is held");

    make_topic(&broker, TOPIC).await;
    let full = state(&broker);
    for (frame, before) in requests.iter().zip(&before) {
        let key = before.key.name();
        let told = answered(frame.clone(), &broker, user("alice")).await;
        assert_eq!(told.bytes, before.bytes, "{key} tells of the topic");
        let told = answered(frame.clone(), &broker, Principal::Anonymous).await;
        assert_eq!(told.errors, before.errors, "{key} by nobody");
    }
    assert_eq!(state(&broker), full, "nothing was changed or is held");

    for (frame, before) in requests.iter().zip(&before) {
        with_rules(&broker, frame, before).await;
    }
    stop.send_replace(true);
    running.await.expect("the groups end");
}

/// With the rights that the key asks for, and then with a denial of each beside them.
async fn with_rules(broker: &Scratch, frame: &Bytes, before: &Answered) {
    let key = before.key.name();
    // What is asked for second is asked for only by who has the first.
    let mut rights = before.asked.clone();
    loop {
        put(broker, &rights, Permission::Deny).await;
        put(broker, &rights, Permission::Allow).await;
        let held = state(broker);
        let denied = answered(frame.clone(), broker, user("alice")).await;
        assert_eq!(undenied(&denied), None, "with a denial");
        assert_eq!(denied.errors, before.errors, "{key} with a denial");
        assert_eq!(state(broker), held, "{key} with a denial");
        remove_rules(broker).await;

        put(broker, &rights, Permission::Allow).await;
        let held = state(broker);
        let anonymous = answered(frame.clone(), broker, Principal::Anonymous).await;
        assert_eq!(anonymous.errors, before.errors, "{key} by nobody");
        assert_eq!(state(broker), held, "{key} by nobody");
        let allowed = answered(frame.clone(), broker, user("alice")).await;
        remove_rules(broker).await;
        if allowed.asked.is_subset(&rights) {
            assert!(denials(&allowed).is_empty(), "{key}: {:?}", allowed.errors);
            return;
        }
        rights.extend(allowed.asked);
    }
}

#[tokio::test]
async fn a_request_that_is_denied_is_denied_once() {
    let broker = Scratch::with_access_control();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = broker.clone();
    let running = tokio::spawn(async move { running.run(stopped).await });
    make_topic(&broker, TOPIC).await;
    let mut seen = 0;
    for frame in requests() {
        let before = broker.denials();
        let answered = answered(frame, &broker, user("alice")).await;
        let (key, told) = (answered.key.name(), broker.denials() - before);
        // It looks at a topic several times: who has named it twice, what may be told of it.
        if key == "DeleteTopics" {
            seen += 1;
            assert!(!denials(&answered).is_empty());
            assert_eq!(told, 1, "{:?}", answered.asked);
        }
    }
    assert_eq!(seen, 1);
    stop.send_replace(true);
    running.await.expect("the groups end");
}

#[tokio::test]
async fn no_answer_tells_of_what_its_caller_may_not_describe() {
    const HIDDEN: &str = "hidden-7c1";
    let broker = Scratch::with_access_control();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let running = broker.clone();
    let running = tokio::spawn(async move { running.run(stopped).await });
    for name in [TOPIC, HIDDEN] {
        make_topic(&broker, name).await;
    }
    let told = |answered: &Answered| {
        let bytes = answered.bytes.windows(HIDDEN.len());
        bytes.filter(|it| *it == HIDDEN.as_bytes()).count()
    };
    for (group, topic) in [
        ("group", TOPIC),
        ("group", HIDDEN),
        ("hidden-7c1-group", HIDDEN),
    ] {
        let answered = answered(commit_of(group, topic), &broker, user("root")).await;
        assert_eq!(answered.errors, BTreeSet::new(), "{group} {topic}");
    }
    let door = root(&broker);
    let cluster = door.cluster(right::Alter).expect("a super user");
    let named = [(ResourceType::Topic, TOPIC), (ResourceType::Group, "group")];
    let rules = named.map(|(resource_type, name)| Acl {
        resource_type,
        name: name.to_owned(),
        ..rule(ResourceKind::Topic, Operation::All, Permission::Allow)
    });
    for made in broker.create_acls(&cluster, rules.to_vec()).await {
        made.expect("a rule");
    }
    let mut told_to_root = 0;
    for frame in requests_of_all().into_iter().chain(requests()) {
        let by_root = matches!(frame[1], 3 | 9 | 16);
        let answered_alice = answered(frame.clone(), &broker, user("alice")).await;
        let key = answered_alice.key.name();
        assert_eq!(told(&answered_alice), 0, "{key}");
        if by_root {
            told_to_root += told(&answered(frame, &broker, user("root")).await);
        }
    }
    // Metadata, OffsetFetch and ListGroups tell it to who may see it.
    assert_eq!(told_to_root, 3);
    stop.send_replace(true);
    running.await.expect("the groups end");
}

#[tokio::test]
async fn a_topics_id_tells_nothing_to_who_may_not_describe_it() {
    let broker = Scratch::with_access_control();
    make_topic(&broker, TOPIC).await;
    let id = broker_topic_id(&broker);
    let door = |name: &str| {
        broker.door(Caller {
            principal: user(name),
            ..root(&broker).caller().clone()
        })
    };
    let found = door("alice").topic_by_id(id, right::Read).err();
    let other = door("alice").topic_by_id(model::TopicId::random(), right::Read);
    assert_eq!(format!("{found:?}"), format!("{:?}", other.err()));
    let describe = Rights::from([(ResourceKind::Topic, crate::broker::access::Right::Describe)]);
    put(&broker, &describe, Permission::Allow).await;
    let found = door("alice").topic_by_id(id, right::Read).err();
    assert!(matches!(found, Some(crate::broker::Refusal::Denied { .. })));
    assert!(door("alice").topic_by_id(id, right::Describe).is_ok());
}

fn broker_topic_id(broker: &Scratch) -> model::TopicId {
    let door = root(broker);
    door.topic(TOPIC, right::Describe).expect("it is there").id
}
