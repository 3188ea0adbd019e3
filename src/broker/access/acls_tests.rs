//! The index against an evaluator that looks at every rule, written from what Kafka documents.

use model::acl::CLUSTER_NAME;
use proptest::prelude::*;

use super::*;

/// Every rule is looked at: Kafka's documentation of authorization, sentence by sentence.
fn naive(
    rules: &[Acl],
    everyone_if_none: bool,
    principal: &str,
    host: &str,
    wanted: Operation,
    (kind, name): (ResourceType, &str),
) -> bool {
    let is_on = |rule: &&Acl| {
        rule.resource_type == kind
            && match rule.pattern {
                PatternType::Literal => rule.name == name || rule.name == "*",
                PatternType::Prefixed => name.starts_with(rule.name.as_str()),
            }
    };
    let on: Vec<&Acl> = rules.iter().filter(is_on).collect();
    if on.is_empty() {
        return everyone_if_none;
    }
    let is_for = |rule: &&&Acl| {
        (rule.principal == principal || rule.principal == "User:*")
            && (rule.host == "*" || rule.host == host)
    };
    let mine: Vec<&Acl> = on.iter().filter(is_for).copied().collect();
    let said = |permission: Permission, operations: &[Operation]| {
        mine.iter().any(|rule| {
            rule.permission == permission
                && (rule.operation == Operation::All || operations.contains(&rule.operation))
        })
    };
    let mut enough = vec![wanted];
    // "ALLOW for READ, WRITE, DELETE or ALTER implies DESCRIBE; ALTER_CONFIGS implies DESCRIBE_CONFIGS."
    if wanted == Operation::Describe {
        enough.extend([
            Operation::Read,
            Operation::Write,
            Operation::Delete,
            Operation::Alter,
        ]);
    }
    if wanted == Operation::DescribeConfigs {
        enough.push(Operation::AlterConfigs);
    }
    !said(Permission::Deny, &[wanted]) && said(Permission::Allow, &enough)
}

/// The same of any resource of a type: whether some name can be found that it is allowed on, among those that could matter.
fn naive_any(rules: &[Acl], principal: &str, host: &str, wanted: Operation) -> bool {
    // Kafka does not count what is implied here, nor does it when it is asked so.
    let kind = ResourceType::Topic;
    let mine = |permission: Permission| {
        rules.iter().filter(move |rule| {
            rule.resource_type == kind
                && rule.permission == permission
                && (rule.principal == principal || rule.principal == "User:*")
                && (rule.host == "*" || rule.host == host)
                && (rule.operation == wanted || rule.operation == Operation::All)
        })
    };
    let is_denied = |allow: &Acl| {
        mine(Permission::Deny).any(|deny| match (deny.pattern, allow.pattern) {
            (PatternType::Literal, _) if deny.name == "*" => true,
            _ if allow.pattern == PatternType::Literal && allow.name == "*" => false,
            (PatternType::Literal, PatternType::Literal) => deny.name == allow.name,
            (PatternType::Literal, PatternType::Prefixed) => false,
            (PatternType::Prefixed, _) => allow.name.starts_with(&deny.name),
        })
    };
    mine(Permission::Allow).any(|allow| !is_denied(allow))
}

fn acl() -> impl Strategy<Value = Acl> {
    let name = prop_oneof!["[ab]{1,3}", "[aä]{1,3}", Just("*".to_owned())];
    let principal = prop::sample::select(vec!["User:a", "User:b", "User:*"]);
    let host = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "*"]);
    let kind = prop::sample::select(vec![ResourceType::Topic, ResourceType::Group]);
    let pattern = prop::sample::select(PatternType::ALL);
    let operation = prop::sample::select(vec![
        Operation::All,
        Operation::Read,
        Operation::Write,
        Operation::Describe,
        Operation::Delete,
        Operation::AlterConfigs,
        Operation::DescribeConfigs,
    ]);
    let permission = prop::sample::select(Permission::ALL);
    (kind, name, pattern, principal, host, operation, permission).prop_map(
        |(resource_type, name, pattern, principal, host, operation, permission)| Acl {
            resource_type,
            name,
            pattern,
            principal: principal.to_owned(),
            host: host.to_owned(),
            operation,
            permission,
        },
    )
}

fn user(name: &str) -> Principal {
    Principal::User(name.into())
}

fn rules_of(acls: &[Acl], everyone_if_none: bool) -> Rules {
    let mut rules = Rules::new(HashSet::from(["root".to_owned()]), everyone_if_none);
    for acl in acls {
        assert_eq!(acl.check(), Ok(()));
        rules.add(Arc::new(acl.clone()));
    }
    rules
}

/// Asks for everything that could make a difference.
fn compare(acls: &[Acl], rules: &Rules, everyone_if_none: bool) {
    for name in [
        "a", "ab", "aba", "b", "bb", "ä", "aä", "aäa", "c", "*", "abab",
    ] {
        for kind in [ResourceType::Topic, ResourceType::Group] {
            for (who, host) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.1")] {
                for wanted in [
                    Operation::Read,
                    Operation::Write,
                    Operation::Describe,
                    Operation::Create,
                    Operation::AlterConfigs,
                    Operation::DescribeConfigs,
                ] {
                    let address = host.parse().unwrap();
                    let found = allows(rules, &user(who), address, wanted, (kind, name));
                    let principal = format!("User:{who}");
                    let wished = naive(
                        acls,
                        everyone_if_none,
                        &principal,
                        host,
                        wanted,
                        (kind, name),
                    );
                    let told = (who, host, wanted, kind, name, &found);
                    assert_eq!(found.is_allowed(), wished, "{told:?}");
                    let short = rules.allow(&user(who), address, wanted, (kind, name));
                    assert_eq!(short, wished, "{told:?}");
                    if let Verdict::Allowed(by) | Verdict::Denied(by) = &found {
                        assert!(acls.contains(by));
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_index_says_what_a_look_at_every_rule_says(
        acls in prop::collection::btree_set(acl(), 0..14),
        everyone_if_none in any::<bool>(),
    ) {
        let mut acls: Vec<Acl> = acls.into_iter().collect();
        let mut rules = rules_of(&acls, everyone_if_none);
        compare(&acls, &rules, everyone_if_none);
        for (who, host) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
            let address: IpAddr = host.parse().unwrap();
            let hardcode = (ResourceType::Topic, "hardcode");
            let any = allows_any(&rules, &user(who), address, Operation::Write, ResourceType::Topic);
            let principal = format!("User:{who}");
            let wished = naive_any(&acls, &principal, host, Operation::Write)
                || naive(&acls, everyone_if_none, &principal, host, Operation::Write, hardcode);
            prop_assert_eq!(any, wished);
        }
        // What is removed leaves nothing behind.
        while acls.len() > 3 {
            rules.remove(&acls.remove(1));
            compare(&acls, &rules, everyone_if_none);
        }
        for acl in &acls {
            rules.remove(acl);
        }
        prop_assert!(rules.by_user.is_empty() && rules.of_everybody.is_empty());
        prop_assert!(rules.counts.iter().all(Patterns::is_empty));
    }
}

fn on_cluster(principal: &str, permission: Permission, operation: Operation) -> Acl {
    Acl {
        resource_type: ResourceType::Cluster,
        name: CLUSTER_NAME.to_owned(),
        pattern: PatternType::Literal,
        principal: principal.to_owned(),
        host: "*".to_owned(),
        operation,
        permission,
    }
}

#[test]
fn super_users_may_what_is_denied_and_a_denial_of_read_leaves_describe() {
    let all = [
        on_cluster("User:*", Permission::Deny, Operation::Alter),
        on_cluster("User:a", Permission::Allow, Operation::Alter),
    ];
    let rules = rules_of(&all, false);
    let host = [127, 0, 0, 1].into();
    let ask = |who: Principal, operation| {
        let cluster = (ResourceType::Cluster, CLUSTER_NAME);
        allows(&rules, &who, host, operation, cluster)
    };
    assert_eq!(ask(user("root"), Operation::Alter), Verdict::SuperUser);
    let denied = Verdict::Denied(Arc::new(all[0].clone()));
    assert_eq!(ask(user("a"), Operation::Alter), denied);
    let allowed = Verdict::Allowed(Arc::new(all[1].clone()));
    assert_eq!(ask(user("a"), Operation::Describe), allowed);
    let anonymous = ask(Principal::Anonymous, Operation::Describe);
    assert_eq!(anonymous, Verdict::NoneAllows);
}

#[test]
fn one_address_is_the_same_however_it_is_written() {
    let from = |host: &str| Acl {
        host: host.to_owned(),
        ..on_cluster("User:ANONYMOUS", Permission::Allow, Operation::All)
    };
    for (written, comes) in [
        ("10.0.0.1", "::ffff:10.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
    ] {
        let rules = rules_of(&[from(written)], false);
        let cluster = (ResourceType::Cluster, CLUSTER_NAME);
        let host = comes.parse().unwrap();
        let asked = allows(
            &rules,
            &Principal::Anonymous,
            host,
            Operation::Read,
            cluster,
        );
        assert!(asked.is_allowed(), "{written} {comes}");
    }
}

fn on_topic(name: &str, principal: &str, permission: Permission, operation: Operation) -> Acl {
    Acl {
        resource_type: ResourceType::Topic,
        name: name.to_owned(),
        ..on_cluster(principal, permission, operation)
    }
}

#[test]
fn a_rule_on_a_part_of_a_topic_is_about_that_part_and_leaves_nobody_the_rest() {
    use Permission::{Allow, Deny};
    let all = [
        on_topic("t/d/%c/#", "User:*", Allow, Operation::Write),
        on_topic("t/%u/#", "User:*", Allow, Operation::All),
        on_topic("t/d/+/secret", "User:*", Deny, Operation::Write),
        on_topic("t", "User:whole", Allow, Operation::All),
    ];
    let host = [127, 0, 0, 1].into();
    for everyone_if_none in [false, true] {
        let mut rules = rules_of(&all, everyone_if_none);
        let may = |rules: &Rules, name: &str, operation, part| {
            rules.allow_part((&user(name), Some("pump")), host, operation, part)
        };
        for (name, operation, filter, expected) in [
            ("a", Operation::Write, "d/pump/x", true),
            ("a", Operation::Write, "d/pump/#", false),
            ("a", Operation::Write, "d/fan/x", false),
            ("a", Operation::Write, "d/pump/secret", false),
            ("a", Operation::Read, "d/pump/x", false),
            ("a", Operation::Read, "a/#", true),
            ("a", Operation::Read, "b/#", false),
            ("a", Operation::Read, "#", false),
            ("whole", Operation::Read, "#", true),
            ("whole", Operation::Write, "d/fan/x", true),
            ("whole", Operation::Write, "d/fan/secret", false),
            ("root", Operation::Write, "d/fan/secret", true),
        ] {
            let told = may(&rules, name, operation, ("t", filter));
            assert_eq!(told, expected, "{name} {operation} {filter}");
        }
        // Nobody has the whole of it by a part, nor is anybody a producer somewhere by one.
        let topic = (ResourceType::Topic, "t");
        assert!(!rules.allow(&user("a"), host, Operation::Write, topic));
        let topics = ResourceType::Topic;
        let any = allows_any(&rules, &user("a"), host, Operation::Write, topics);
        assert_eq!(any, everyone_if_none);
        let check = |name: &str| {
            let of_topic = (ResourceType::Topic, name);
            allows(&rules, &user("a"), host, Operation::Read, of_topic)
        };
        assert_eq!(check("t/a/x"), Verdict::Allowed(Arc::new(all[1].clone())));
        assert_eq!(check("t/b/x"), Verdict::NoneAllows);
        // Of a topic without a rule it is as it ever was.
        let other = may(&rules, "a", Operation::Read, ("other", "x"));
        assert_eq!(other, everyone_if_none);
        for acl in &all {
            rules.remove(acl);
        }
        assert!(rules.on_parts.is_empty());
        let gone = may(&rules, "a", Operation::Read, ("t", "a/#"));
        assert_eq!(gone, everyone_if_none);
    }
}
