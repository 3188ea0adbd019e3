//! ACLs: rules that can and cannot be, and what filters choose of them and delete.
//! Callers: `scenarios`; `rights` makes its rules here.

use crate::oracle::pair::{Pair, Side};
use anyhow::Result;
use wire::messages::create_acls::{AclCreation, CreateAclsRequest};
use wire::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use wire::messages::describe_acls::DescribeAclsRequest;

pub const ANY: i8 = 1;
pub const TOPIC: i8 = 2;
pub const GROUP: i8 = 3;
pub const CLUSTER: i8 = 4;
const TRANSACTIONAL_ID: i8 = 5;
const DELEGATION_TOKEN: i8 = 6;
const USER: i8 = 7;

const MATCH: i8 = 2;
pub const LITERAL: i8 = 3;
pub const PREFIXED: i8 = 4;

pub const ALL: i8 = 2;
pub const READ: i8 = 3;
pub const WRITE: i8 = 4;
pub const CREATE: i8 = 5;
pub const DELETE: i8 = 6;
pub const ALTER: i8 = 7;
pub const DESCRIBE: i8 = 8;
pub const CLUSTER_ACTION: i8 = 9;
pub const DESCRIBE_CONFIGS: i8 = 10;
pub const ALTER_CONFIGS: i8 = 11;
pub const IDEMPOTENT_WRITE: i8 = 12;

pub const DENY: i8 = 2;
pub const ALLOW: i8 = 3;

pub const CLUSTER_NAME: &str = "kafka-cluster";

/// A rule: type, name, pattern, principal, host, operation, permission.
pub type Rule = (i8, &'static str, i8, &'static str, &'static str, i8, i8);

/// A filter, in the same order.
type Filter = (
    i8,
    Option<&'static str>,
    i8,
    Option<&'static str>,
    Option<&'static str>,
    i8,
    i8,
);

const EVERYTHING: Filter = (ANY, None, ANY, None, None, ANY, ANY);

/// Rules that both take.
const RULES: &[Rule] = &[
    (TOPIC, "ruled", LITERAL, "User:alice", "*", READ, ALLOW),
    (
        TOPIC,
        "ruled",
        LITERAL,
        "User:alice",
        "10.0.0.7",
        READ,
        DENY,
    ),
    (TOPIC, "ruled", LITERAL, "User:bob", "*", WRITE, ALLOW),
    (TOPIC, "ruled", PREFIXED, "User:bob", "*", ALL, ALLOW),
    (TOPIC, "rule", PREFIXED, "User:carol", "*", DESCRIBE, ALLOW),
    (TOPIC, "other", LITERAL, "User:alice", "*", READ, ALLOW),
    (
        TOPIC,
        "not a topic",
        LITERAL,
        "User:alice",
        "*",
        ALTER,
        ALLOW,
    ),
    (GROUP, "ruled", LITERAL, "User:alice", "*", READ, ALLOW),
    (GROUP, "*", LITERAL, "User:dave", "*", READ, ALLOW),
    (GROUP, "*", PREFIXED, "User:dave", "*", READ, ALLOW),
    (
        TRANSACTIONAL_ID,
        "t-",
        PREFIXED,
        "User:*",
        "*",
        WRITE,
        ALLOW,
    ),
    (USER, "eve", LITERAL, "User:eve", "::1", 13, ALLOW),
    (GROUP, "odd", LITERAL, "User:alice", "*", CREATE, ALLOW),
    (TOPIC, "ruled", LITERAL, "User:CN=a b,O=c", "*", READ, ALLOW),
];

/// Rules that Kafka refuses, or that are refused here alone.
const WRONG: &[Rule] = &[
    (0, "wrong", LITERAL, "User:a", "*", READ, ALLOW),
    (ANY, "wrong", LITERAL, "User:a", "*", READ, ALLOW),
    (99, "wrong", LITERAL, "User:a", "*", READ, ALLOW),
    (TOPIC, "wrong", 0, "User:a", "*", READ, ALLOW),
    (TOPIC, "wrong", ANY, "User:a", "*", READ, ALLOW),
    (TOPIC, "wrong", MATCH, "User:a", "*", READ, ALLOW),
    (TOPIC, "wrong", 99, "User:a", "*", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, "User:a", "*", 0, ALLOW),
    (TOPIC, "wrong", LITERAL, "User:a", "*", ANY, ALLOW),
    (TOPIC, "wrong", LITERAL, "User:a", "*", 99, ALLOW),
    (TOPIC, "wrong", LITERAL, "User:a", "*", READ, 0),
    (TOPIC, "wrong", LITERAL, "User:a", "*", READ, ANY),
    (TOPIC, "wrong", LITERAL, "User:a", "*", READ, 99),
    (TOPIC, "", LITERAL, "User:a", "*", READ, ALLOW),
    (TOPIC, "", PREFIXED, "User:a", "*", READ, ALLOW),
    (CLUSTER, "wrong", LITERAL, "User:a", "*", ALTER, ALLOW),
    (CLUSTER, "*", LITERAL, "User:a", "*", ALTER, ALLOW),
    (CLUSTER, "kafka", PREFIXED, "User:a", "*", ALTER, ALLOW),
    (TOPIC, "wrong", LITERAL, "a", "*", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, "", "*", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, "*", "*", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, "User:", "*", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, ":a", "*", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, "Group:a", "*", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, "User:a", "", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, "User:a", "10.0.0.0/8", READ, ALLOW),
    (TOPIC, "wrong", LITERAL, "User:a", "a.example", READ, ALLOW),
    (
        DELEGATION_TOKEN,
        "wrong",
        LITERAL,
        "User:a",
        "*",
        DESCRIBE,
        ALLOW,
    ),
];

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    pair.scene = "rules when there are none".into();
    describe(pair, EVERYTHING);
    delete(pair, &[EVERYTHING]);
    delete(pair, &[]);
    wrong(pair)?;
    pair.scene = "rules are made".into();
    create(pair, &[]);
    create(pair, RULES);
    pair.scene = "the same rules once more".into();
    create(pair, &RULES[..2]);
    create(pair, &[RULES[0], RULES[0]]);
    pair.settle()?;
    choose(pair);
    wrong_filters(pair);
    remove(pair)?;
    clear(pair)
}

/// Makes these on both.
pub fn create(pair: &mut Pair, rules: &[Rule]) {
    pair.ask_each(|_, _| creation(rules));
}

/// Takes away all rules there are, on both, without comparing what they were.
pub fn clear(pair: &mut Pair) -> Result<()> {
    for side in [Side::Ours, Side::Theirs] {
        pair.ask_one(side, 2, &deletion(&[EVERYTHING]))?;
    }
    pair.settle()
}

fn creation(rules: &[Rule]) -> CreateAclsRequest {
    let one = |&(kind, name, pattern, principal, host, operation, permission): &Rule| AclCreation {
        resource_type: kind,
        resource_name: name.to_owned(),
        resource_pattern_type: pattern,
        principal: principal.to_owned(),
        host: host.to_owned(),
        operation,
        permission_type: permission,
    };
    CreateAclsRequest {
        creations: rules.iter().map(one).collect(),
    }
}

fn deletion(filters: &[Filter]) -> DeleteAclsRequest {
    let one = |&(kind, name, pattern, principal, host, operation, permission): &Filter| {
        DeleteAclsFilter {
            resource_type_filter: kind,
            resource_name_filter: name.map(str::to_owned),
            pattern_type_filter: pattern,
            principal_filter: principal.map(str::to_owned),
            host_filter: host.map(str::to_owned),
            operation,
            permission_type: permission,
        }
    };
    DeleteAclsRequest {
        filters: filters.iter().map(one).collect(),
    }
}

fn describe(pair: &mut Pair, filter: Filter) {
    let (kind, name, pattern, principal, host, operation, permission) = filter;
    pair.ask_each(|_, _| DescribeAclsRequest {
        resource_type_filter: kind,
        resource_name_filter: name.map(str::to_owned),
        pattern_type_filter: pattern,
        principal_filter: principal.map(str::to_owned),
        host_filter: host.map(str::to_owned),
        operation,
        permission_type: permission,
    });
}

fn delete(pair: &mut Pair, filters: &[Filter]) {
    pair.ask_each(|_, _| deletion(filters));
}

fn wrong(pair: &mut Pair) -> Result<()> {
    for rule in WRONG {
        pair.scene = format!("a rule that is refused: {rule:?}");
        create(pair, &[*rule]);
    }
    pair.scene = "one rule of three is refused".into();
    create(pair, &[RULES[0], WRONG[13], RULES[1]]);
    pair.settle()?;
    describe(pair, (TOPIC, Some("ruled"), LITERAL, None, None, ANY, ANY));
    clear(pair)
}

/// What filters choose of `RULES`.
fn choose(pair: &mut Pair) {
    pair.scene = "all rules".into();
    describe(pair, EVERYTHING);
    pair.scene = "rules by their type".into();
    for kind in [
        TOPIC,
        GROUP,
        CLUSTER,
        TRANSACTIONAL_ID,
        DELEGATION_TOKEN,
        USER,
    ] {
        describe(pair, (kind, None, ANY, None, None, ANY, ANY));
    }
    pair.scene = "rules by their name".into();
    for kind in [ANY, TOPIC, GROUP] {
        for name in ["ruled", "rule", "ruled-too", "*", "r*", "none", "t-1", "x"] {
            for pattern in [ANY, MATCH, LITERAL, PREFIXED] {
                describe(pair, (kind, Some(name), pattern, None, None, ANY, ANY));
            }
        }
    }
    for pattern in [MATCH, LITERAL, PREFIXED] {
        describe(pair, (ANY, None, pattern, None, None, ANY, ANY));
    }
    pair.scene = "rules by whom they are about".into();
    for principal in [
        "User:alice",
        "User:*",
        "User:nobody",
        "alice",
        "*",
        "user:alice",
    ] {
        describe(pair, (ANY, None, ANY, Some(principal), None, ANY, ANY));
    }
    for host in ["*", "10.0.0.7", "::1", "0:0:0:0:0:0:0:1", "10.0.0.8"] {
        describe(pair, (ANY, None, ANY, None, Some(host), ANY, ANY));
    }
    pair.scene = "rules by what they say".into();
    for operation in ALL..=15 {
        describe(pair, (ANY, None, ANY, None, None, operation, ANY));
    }
    for permission in [DENY, ALLOW] {
        describe(pair, (ANY, None, ANY, None, None, ANY, permission));
    }
}

fn wrong_filters(pair: &mut Pair) {
    for filter in [
        (0, None, ANY, None, None, ANY, ANY),
        (99, None, ANY, None, None, ANY, ANY),
        (-1, None, ANY, None, None, ANY, ANY),
        (ANY, None, 0, None, None, ANY, ANY),
        (ANY, None, 99, None, None, ANY, ANY),
        (ANY, None, ANY, None, None, 0, ANY),
        (ANY, None, ANY, None, None, 99, ANY),
        (ANY, None, ANY, None, None, ANY, 0),
        (ANY, None, ANY, None, None, ANY, 99),
        (ANY, Some(""), ANY, None, None, ANY, ANY),
        (ANY, None, ANY, Some(""), None, ANY, ANY),
        (ANY, None, ANY, None, Some(""), ANY, ANY),
        (CLUSTER, Some("other"), LITERAL, None, None, ANY, ANY),
    ] {
        pair.scene = format!("a filter that chooses nothing: {filter:?}");
        describe(pair, filter);
        delete(pair, &[filter]);
    }
}

fn remove(pair: &mut Pair) -> Result<()> {
    pair.scene = "rules are deleted".into();
    // Each version has something to delete.
    for filters in [
        vec![(
            TOPIC,
            Some("ruled"),
            LITERAL,
            Some("User:alice"),
            None,
            ANY,
            ANY,
        )],
        vec![(GROUP, Some("*"), LITERAL, None, None, ANY, ANY)],
        vec![(ANY, Some("ruled"), MATCH, None, None, ANY, ANY)],
        vec![
            (GROUP, None, ANY, None, None, ANY, ANY),
            (GROUP, Some("ruled"), LITERAL, None, None, ANY, ANY),
        ],
        vec![
            (TOPIC, Some("other"), LITERAL, None, None, ANY, ANY),
            (99, None, ANY, None, None, ANY, ANY),
            (TOPIC, None, ANY, None, None, ANY, DENY),
        ],
        vec![EVERYTHING],
    ] {
        for version in 1..=3 {
            for side in [Side::Ours, Side::Theirs] {
                pair.ask_one(side, 2, &creation(RULES))?;
            }
            pair.settle()?;
            pair.ask(version, |_| deletion(&filters));
            pair.settle()?;
            describe(pair, EVERYTHING);
        }
    }
    Ok(())
}
