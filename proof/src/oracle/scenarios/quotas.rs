//! Quotas: what clients may use, told and changed (KIP-546).
//! Callers: `scenarios`.

use crate::oracle::pair::Pair;
use anyhow::Result;
use wire::messages::alter_client_quotas::{
    AlterClientQuotasRequest, OpData, RequestEntityData, RequestEntryData,
};
use wire::messages::describe_client_quotas::{ComponentData, DescribeClientQuotasRequest};

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

const PRODUCER: &str = "producer_byte_rate";
const CONSUMER: &str = "consumer_byte_rate";
const REQUESTS: &str = "request_percentage";
const MUTATIONS: &str = "controller_mutation_rate";
const CONNECTIONS: &str = "connection_creation_rate";

/// An entity: types with names, none for the default.
type Parts<'a> = &'a [(&'a str, Option<&'a str>)];
/// Changes: a quota and its value, none to remove it.
type Changes = &'static [(&'static str, Option<f64>)];

/// Entities that are there while filters are asked for.
const ENTITIES: &[(Parts<'static>, Changes)] = &[
    (
        &[(USER, Some("alice"))],
        &[(PRODUCER, Some(1e9)), (REQUESTS, Some(500.5))],
    ),
    (&[(USER, None)], &[(CONSUMER, Some(2e9))]),
    (
        &[(CLIENT_ID, Some("app"))],
        &[(CONSUMER, Some(3e9)), (MUTATIONS, Some(1000.0))],
    ),
    (&[(CLIENT_ID, None)], &[(PRODUCER, Some(4e9))]),
    (
        &[(USER, Some("alice")), (CLIENT_ID, Some("app"))],
        &[(PRODUCER, Some(5e9))],
    ),
    (
        &[(USER, Some("alice")), (CLIENT_ID, None)],
        &[(PRODUCER, Some(6e9))],
    ),
    (
        &[(USER, None), (CLIENT_ID, Some("app"))],
        &[(PRODUCER, Some(7e9))],
    ),
    (&[(CLIENT_ID, None), (USER, None)], &[(PRODUCER, Some(8e9))]),
    (&[(IP, Some("10.9.8.7"))], &[(CONNECTIONS, Some(1000.0))]),
    (&[(IP, None)], &[(CONNECTIONS, Some(2000.0))]),
];

/// Alterations that Kafka refuses, or that are refused here alone.
const WRONG: &[(&str, Parts<'static>, Changes)] = &[
    ("no entity", &[], &[(PRODUCER, Some(1e9))]),
    (
        "an unknown type",
        &[("group", Some("a"))],
        &[(PRODUCER, Some(1e9))],
    ),
    (
        "an empty type",
        &[("", Some("a"))],
        &[(PRODUCER, Some(1e9))],
    ),
    (
        "an empty name",
        &[(USER, Some(""))],
        &[(PRODUCER, Some(1e9))],
    ),
    (
        "a type twice",
        &[(USER, Some("a")), (USER, Some("b"))],
        &[(PRODUCER, Some(1e9))],
    ),
    (
        "a user and an address",
        &[(USER, Some("a")), (IP, Some("10.0.0.1"))],
        &[(PRODUCER, Some(1e9))],
    ),
    (
        "an address of no machine",
        &[(IP, Some("10.0.0.1.1"))],
        &[(CONNECTIONS, Some(1e3))],
    ),
    (
        "a network",
        &[(IP, Some("10.0.0.0/8"))],
        &[(CONNECTIONS, Some(1e3))],
    ),
    (
        "an empty address",
        &[(IP, Some(""))],
        &[(CONNECTIONS, Some(1e3))],
    ),
    (
        "an unknown quota",
        &[(USER, Some("a"))],
        &[("no_such_rate", Some(1e9))],
    ),
    ("an empty quota", &[(USER, Some("a"))], &[("", Some(1e9))]),
    (
        "an unknown quota removed",
        &[(USER, Some("a"))],
        &[("no_such_rate", None)],
    ),
    (
        "a user's connections",
        &[(USER, Some("a"))],
        &[(CONNECTIONS, Some(1e3))],
    ),
    (
        "an address's bytes",
        &[(IP, Some("10.0.0.1"))],
        &[(PRODUCER, Some(1e9))],
    ),
    ("zero", &[(USER, Some("zero"))], &[(PRODUCER, Some(0.0))]),
    (
        "a negative value",
        &[(USER, Some("a"))],
        &[(PRODUCER, Some(-1.0))],
    ),
    (
        "half a byte",
        &[(USER, Some("half"))],
        &[(PRODUCER, Some(1000.5))],
    ),
    (
        "half a connection",
        &[(IP, Some("10.0.0.2"))],
        &[(CONNECTIONS, Some(1.5))],
    ),
    (
        "nearly a number",
        &[(USER, Some("near"))],
        &[(PRODUCER, Some(1_000.000_000_1))],
    ),
    (
        "half a percent",
        &[(USER, Some("half"))],
        &[(REQUESTS, Some(0.5))],
    ),
    (
        "more than all",
        &[(USER, Some("more"))],
        &[(REQUESTS, Some(1e6))],
    ),
    (
        "half a mutation",
        &[(USER, Some("half"))],
        &[(MUTATIONS, Some(0.5))],
    ),
    (
        "no end",
        &[(USER, Some("a"))],
        &[(PRODUCER, Some(f64::INFINITY))],
    ),
    (
        "more than counts",
        &[(USER, Some("a"))],
        &[(PRODUCER, Some(1e300))],
    ),
    (
        "many connections",
        &[(IP, Some("10.0.0.3"))],
        &[(CONNECTIONS, Some(1e12))],
    ),
    ("nothing", &[(USER, Some("a"))], &[]),
    (
        "one of two wrong",
        &[(USER, Some("a"))],
        &[(PRODUCER, Some(1e9)), ("no", Some(1.0))],
    ),
    (
        "twice the same",
        &[(USER, Some("twice"))],
        &[(PRODUCER, Some(1e9)), (PRODUCER, Some(2e9))],
    ),
    (
        "set and removed",
        &[(USER, Some("twice"))],
        &[(PRODUCER, Some(1e9)), (PRODUCER, None)],
    ),
    (
        "removed, not there",
        &[(USER, Some("a"))],
        &[(PRODUCER, None)],
    ),
    (
        "a name of two words",
        &[(USER, Some("a b/c"))],
        &[(PRODUCER, Some(1e9))],
    ),
    (
        "an address of six",
        &[(IP, Some("::1"))],
        &[(CONNECTIONS, Some(1e3))],
    ),
    (
        "an address in words",
        &[(IP, Some("0:0:0:0:0:0:0:2"))],
        &[(CONNECTIONS, Some(1e3))],
    ),
];

/// What Kafka takes and what is refused here; only tried.
const TAKEN_BY_KAFKA: &[(&str, Parts<'static>, Changes)] = &[
    (
        "not a number",
        &[(USER, Some("a"))],
        &[(PRODUCER, Some(f64::NAN))],
    ),
    (
        "a name for localhost",
        &[(IP, Some("localhost"))],
        &[(CONNECTIONS, Some(1e3))],
    ),
];

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    pair.scene = "quotas when there are none".into();
    describe(pair, &[], false);
    describe(pair, &[], true);
    alter(pair, &[], false);
    for (what, parts, changes) in WRONG {
        pair.scene = format!("quotas with {what}");
        alter(pair, &[(*parts, *changes)], true);
        alter(pair, &[(*parts, *changes)], false);
        pair.settle()?;
        describe(pair, &[], false);
        remove(pair, parts);
    }
    for (what, parts, changes) in TAKEN_BY_KAFKA {
        pair.scene = format!("quotas with {what}");
        alter(pair, &[(*parts, *changes)], true);
    }
    several(pair)?;
    pair.scene = "quotas are set".into();
    alter(pair, ENTITIES, true);
    pair.settle()?;
    describe(pair, &[], false);
    alter(pair, ENTITIES, false);
    pair.settle()?;
    choose(pair);
    wrong_filters(pair);
    pair.scene = "quotas change".into();
    alter(
        pair,
        &[
            (
                &[(USER, Some("alice"))],
                &[(PRODUCER, Some(9e9)), (REQUESTS, None)],
            ),
            (&[(IP, None)], &[(CONNECTIONS, None)]),
        ],
        false,
    );
    pair.settle()?;
    describe(pair, &[], false);
    for (parts, _) in ENTITIES {
        remove(pair, parts);
    }
    pair.settle()?;
    pair.scene = "all quotas are gone".into();
    describe(pair, &[], false);
    Ok(())
}

fn alter(pair: &mut Pair, rows: &[(Parts<'_>, Changes)], validate_only: bool) {
    let entry = |(parts, changes): &(Parts<'_>, Changes)| RequestEntryData {
        entity: parts
            .iter()
            .map(|(kind, name)| RequestEntityData {
                entity_type: (*kind).to_owned(),
                entity_name: name.map(str::to_owned),
            })
            .collect(),
        ops: changes
            .iter()
            .map(|(key, value)| OpData {
                key: (*key).to_owned(),
                value: value.unwrap_or_default(),
                remove: value.is_none(),
            })
            .collect(),
    };
    pair.ask_each(|_, _| AlterClientQuotasRequest {
        entries: rows.iter().map(entry).collect(),
        validate_only,
    });
}

/// A filter's component: a type, how it matches, and the name.
type Component = (&'static str, i8, Option<&'static str>);

fn describe(pair: &mut Pair, components: &[Component], strict: bool) {
    let component = |&(kind, match_type, name): &Component| ComponentData {
        entity_type: kind.to_owned(),
        match_type,
        r#match: name.map(str::to_owned),
    };
    pair.ask_each(|_, _| DescribeClientQuotasRequest {
        components: components.iter().map(component).collect(),
        strict,
    });
}

/// Takes away all that is set for this entity.
fn remove(pair: &mut Pair, parts: Parts<'_>) {
    let changes: Changes = match parts {
        [(IP, _)] => &[(CONNECTIONS, None)],
        _ => &[
            (PRODUCER, None),
            (CONSUMER, None),
            (REQUESTS, None),
            (MUTATIONS, None),
        ],
    };
    pair.scene = "quotas are removed".into();
    alter(pair, &[(parts, changes)], false);
}

/// Several entities in a request, some of them wrong, some twice.
fn several(pair: &mut Pair) -> Result<()> {
    pair.scene = "one entity of two is wrong".into();
    let good: (Parts<'_>, Changes) = (&[(USER, Some("a"))], &[(PRODUCER, Some(1e9))]);
    let wrong: (Parts<'_>, Changes) = (&[(USER, Some("half"))], &[(CONNECTIONS, Some(1e3))]);
    alter(pair, &[good, wrong], false);
    pair.settle()?;
    describe(pair, &[], false);
    remove(pair, good.0);
    pair.scene = "an entity twice".into();
    alter(
        pair,
        &[good, (&[(USER, Some("a"))], &[(CONSUMER, Some(2e9))])],
        false,
    );
    pair.settle()?;
    describe(pair, &[], false);
    remove(pair, good.0);
    Ok(())
}

fn choose(pair: &mut Pair) {
    pair.scene = "quotas by filters".into();
    for strict in [false, true] {
        describe(pair, &[], strict);
        for kind in [USER, CLIENT_ID, IP] {
            for (match_type, name) in [
                (0, Some("alice")),
                (0, Some("app")),
                (0, Some("10.9.8.7")),
                (0, Some("nobody")),
                (0, Some("")),
                (1, None),
                (2, None),
            ] {
                describe(pair, &[(kind, match_type, name)], strict);
            }
        }
        for user in [(USER, 0, Some("alice")), (USER, 1, None), (USER, 2, None)] {
            for client in [
                (CLIENT_ID, 0, Some("app")),
                (CLIENT_ID, 1, None),
                (CLIENT_ID, 2, None),
            ] {
                describe(pair, &[user, client], strict);
                describe(pair, &[client, user], strict);
            }
        }
    }
}

fn wrong_filters(pair: &mut Pair) {
    for components in [
        &[("", 0, Some("x"))][..],
        &[("group", 2, None)],
        &[(USER, 0, None)],
        &[(USER, 1, Some("x"))],
        &[(USER, 2, Some("x"))],
        &[(USER, 3, None)],
        &[(USER, -1, None)],
        &[(USER, 1, None), (USER, 2, None)],
        &[(USER, 1, None), (IP, 1, None)],
        &[(CLIENT_ID, 2, None), (IP, 2, None)],
        &[(IP, 0, Some("not an address"))],
    ] {
        for strict in [false, true] {
            pair.scene = format!("a filter of quotas that says nothing: {components:?}");
            describe(pair, components, strict);
        }
    }
}
