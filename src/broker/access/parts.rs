//! Rules on parts of a topic: one whose name is a topic's, `/` and a filter is about the messages whose names the filter stands for.
//! Names and filters have levels, with `/` between them; in a filter `+` is any one level, and `#`, at the end, all further ones and none.
//! In a rule the level `%u` is the name of the user who asks, and `%c` what its client calls itself.
//! Callers: `acls`, which keeps such rules and asks here which of them are about what is asked for; fronts whose topics are filters, too. Pure.
//! Invariant: a part is allowed if a rule's filter stands for all of it, and denied if one stands for something of it.

use model::TopicName;
use model::acl::{Acl, InvalidAcl, Operation, PatternType, ResourceType};

const USER: &str = "%u";
const CLIENT: &str = "%c";

/// Who asks, as levels of filters say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) user: &'a str,
    pub(super) client_id: Option<&'a str>,
}

/// A topic, and the filter of a part of it, of which a rule is; None if it is about whole resources.
pub(super) fn of(acl: &Acl) -> Option<(&str, &str)> {
    let is_checked = acl.pattern == PatternType::Literal && check(acl).is_ok();
    is_checked.then(|| of_name(acl)).flatten()
}

fn of_name(acl: &Acl) -> Option<(&str, &str)> {
    let is_of_topic = acl.resource_type == ResourceType::Topic;
    acl.name.split_once('/').filter(|_| is_of_topic)
}

/// Refuses a rule on a part that nothing could match.
pub(super) fn check(acl: &Acl) -> Result<(), InvalidAcl> {
    let Some((topic, filter)) = of_name(acl) else {
        return Ok(());
    };
    let refuse = |reason| Err(InvalidAcl::Part(reason));
    if acl.pattern == PatternType::Prefixed {
        return refuse("it is literal, and may end in # where a prefix would");
    }
    if TopicName::parse(topic).is_err() {
        return refuse("what stands before the first / is no topic's name");
    }
    if !matches!(
        acl.operation,
        Operation::Read | Operation::Write | Operation::All
    ) {
        return refuse("it is about read, write or all");
    }
    let mut levels = filter.split('/').peekable();
    if filter.is_empty() {
        return refuse("a filter has one character at least");
    }
    while let Some(level) = levels.next() {
        let stands_for = ["#", "+", USER, CLIENT];
        if !stands_for.contains(&level) && stands_for.iter().any(|it| level.contains(it)) {
            return refuse("#, +, %u and %c stand alone in their level");
        }
        if level == "#" && levels.peek().is_some() {
            return refuse("# stands in the last level");
        }
    }
    Ok(())
}

impl Asking<'_> {
    /// Whether a level of a rule is this one of a name or filter.
    fn is_level(&self, of_rule: &str, level: &str) -> bool {
        let is_it = |of_client: Option<&str>| {
            // What a client calls itself may look like a wildcard, and is none.
            of_client.is_some_and(|it| it == level && !it.is_empty() && !it.contains(['+', '#']))
        };
        match of_rule {
            USER => is_it(Some(self.user)),
            CLIENT => is_it(self.client_id),
            of_rule => of_rule == level,
        }
    }

    /// Whether the filter of a rule stands for all that another filter, or a name, does.
    pub(super) fn covers(&self, of_rule: &str, filter: &str) -> bool {
        covers(of_rule, filter, |ours, theirs| self.is_level(ours, theirs))
    }

    /// Whether there may be names that both stand for.
    pub(super) fn overlaps(&self, of_rule: &str, filter: &str) -> bool {
        overlaps(of_rule, filter, |ours, theirs| self.is_level(ours, theirs))
    }
}

/// Whether a filter stands for all names that another one stands for, where this says which levels are the same.
pub fn covers(filter: &str, other: &str, is_same: impl Fn(&str, &str) -> bool) -> bool {
    let (mut ours, mut theirs) = (filter.split('/'), other.split('/'));
    loop {
        match (ours.next(), theirs.next()) {
            (Some("#"), _) | (None, None) => return true,
            (_, Some("#")) => return false,
            (Some(one), Some(two)) if one == "+" || is_same(one, two) => {}
            _ => return false,
        }
    }
}

/// Whether there may be names that both filters stand for, where this says which levels are the same.
pub fn overlaps(filter: &str, other: &str, is_same: impl Fn(&str, &str) -> bool) -> bool {
    let (mut ours, mut theirs) = (filter.split('/'), other.split('/'));
    loop {
        match (ours.next(), theirs.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(one), Some(two)) if one == "+" || two == "+" || is_same(one, two) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::acl::Permission;

    use super::*;

    #[test]
    fn a_rule_stands_for_what_its_filter_does_and_for_the_user_and_client_that_ask() {
        let asking = Asking {
            user: "alice",
            client_id: Some("pump"),
        };
        for (of_rule, filter, covers, overlaps) in [
            ("site/#", "site", true, true),
            ("site/#", "site/1/temp", true, true),
            ("site/+", "site/1", true, true),
            ("site/+", "site/#", false, true),
            ("site/+/temp", "site/+/+", false, true),
            ("site/1", "site/2", false, false),
            ("#", "#", true, true),
            ("%u/#", "alice/a", true, true),
            ("%u/#", "bob/a", false, false),
            ("%u/#", "%u/a", false, false),
            ("%u/#", "+/a", false, true),
            ("devices/%c/#", "devices/pump/temp", true, true),
            ("devices/%c/#", "devices/pump/#", true, true),
            ("devices/%c/#", "devices/+/temp", false, true),
            ("devices/%c/#", "devices/fan/temp", false, false),
            ("devices/%c/#", "#", false, true),
        ] {
            assert_eq!(asking.covers(of_rule, filter), covers, "{of_rule} {filter}");
            assert_eq!(
                asking.overlaps(of_rule, filter),
                overlaps,
                "{of_rule} {filter}"
            );
        }
    }

    #[test]
    fn who_calls_itself_a_wildcard_is_allowed_nothing_by_that() {
        for client_id in ["+", "#", "", "a/b", "a+"] {
            let asking = Asking {
                user: client_id,
                client_id: Some(client_id),
            };
            for filter in ["d/+/t", "d/#", "d//t", "d/a/b", "d/a/t", "d/a+/t"] {
                for of_rule in ["d/%c/t", "d/%u/t", "d/%c", "d/%c/#"] {
                    assert!(!asking.covers(of_rule, filter), "{of_rule} {filter}");
                }
            }
        }
        let nobody = Asking {
            user: "alice",
            client_id: None,
        };
        assert!(!nobody.covers("%c", "pump"));
    }

    #[test]
    fn rules_on_parts_that_nothing_could_match_are_refused_and_others_are_as_they_were() {
        let acl = |name: &str, pattern, operation| Acl {
            resource_type: ResourceType::Topic,
            name: name.to_owned(),
            pattern,
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation,
            permission: Permission::Allow,
        };
        let literal = |name: &str| acl(name, PatternType::Literal, Operation::Read);
        for good in ["t/#", "t/a/+/%u", "t/%c/#", "t//", "t/100%", "t/a/#"] {
            let acl = literal(good);
            assert_eq!(check(&acl), Ok(()), "{good}");
            assert_eq!(of(&acl), good.split_once('/'));
        }
        for bad in [
            "t/", "t/#/a", "t/a#", "t/a+", "t/x%c", "t/%u%c", "/a", "a b/c",
        ] {
            let acl = literal(bad);
            assert!(check(&acl).is_err(), "{bad}");
            assert_eq!(of(&acl), None);
        }
        assert!(check(&acl("t/a/", PatternType::Prefixed, Operation::Read)).is_err());
        assert!(check(&acl("t/a", PatternType::Literal, Operation::Delete)).is_err());
        for whole in [
            literal("t"),
            acl("t", PatternType::Prefixed, Operation::Delete),
        ] {
            assert_eq!(check(&whole), Ok(()));
            assert_eq!(of(&whole), None);
        }
        let group = Acl {
            resource_type: ResourceType::Group,
            ..acl("$share/workers/", PatternType::Prefixed, Operation::Read)
        };
        assert_eq!((check(&group), of(&group)), (Ok(()), None));
    }
}
