//! Access control lists in a form in which a question costs the same, however many there are, and what answers it.
//! Callers: `book`, which keeps them; `rules`, which asks. Pure.
//! Invariants: [`allows`] says what Kafka's `StandardAuthorizer` says. Rules that name other principals are never looked at, but for
//! whether there are any on a resource, which is counted.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::acl::{Acl, Operation, PatternType, Permission, ResourceType, WILDCARD};

use super::Principal;
use super::parts::{self, Asking};

/// What was decided, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Access is not controlled.
    Off,
    /// Super users may do everything.
    SuperUser,
    /// This rule allows it, and none denies it.
    Allowed(Arc<Acl>),
    /// This rule denies it.
    Denied(Arc<Acl>),
    /// There is no rule on the resource, for anybody.
    NoRule {
        /// `allow.everyone.if.no.acl.found`.
        allowed: bool,
    },
    /// There are rules on the resource, and none allows it.
    NoneAllows,
}

impl Verdict {
    /// Whether the caller may.
    pub fn is_allowed(&self) -> bool {
        match self {
            Verdict::Off | Verdict::SuperUser | Verdict::Allowed(_) => true,
            Verdict::NoRule { allowed } => *allowed,
            Verdict::Denied(_) | Verdict::NoneAllows => false,
        }
    }
}

/// All rules, by whom and what they are about.
#[derive(Debug, Default)]
pub struct Rules {
    super_users: HashSet<String>,
    everyone_if_none: bool,
    /// By the user that they name.
    by_user: HashMap<String, OfUser>,
    /// Those that name everybody.
    of_everybody: OfUser,
    /// Those on parts of topics, by the user that they name, or `*`, and the topic.
    on_parts: HashMap<String, HashMap<String, Vec<Entry>>>,
    /// How many rules there are on each pattern, whoever they name.
    counts: [Patterns<usize>; ResourceType::ALL.len()],
}

/// One user's rules, of the types of resources that they are about: few, and so a list.
type OfUser = Vec<(ResourceType, Patterns<Vec<Entry>>)>;

/// A rule, with what is compared: the rule itself lies elsewhere, and is looked at only to be told.
#[derive(Debug)]
struct Entry {
    acl: Arc<Acl>,
    address: Option<IpAddr>,
    operation: Operation,
    permission: Permission,
}

/// Values by patterns of names. A name is looked for whole, and cut to each length that a prefix has.
#[derive(Debug)]
struct Patterns<V> {
    literal: HashMap<String, V>,
    /// That of every name.
    any: Option<V>,
    prefixed: HashMap<String, V>,
    /// The prefixes' lengths in bytes, with how many have each.
    lengths: Vec<(usize, usize)>,
}

impl<V> Default for Patterns<V> {
    fn default() -> Patterns<V> {
        Patterns {
            literal: HashMap::new(),
            any: None,
            prefixed: HashMap::new(),
            lengths: Vec::new(),
        }
    }
}

impl<V: Default> Patterns<V> {
    fn entry(&mut self, pattern: PatternType, name: &str) -> &mut V {
        match pattern {
            PatternType::Literal if name == WILDCARD => self.any.get_or_insert_default(),
            PatternType::Literal => self.literal.entry(name.to_owned()).or_default(),
            PatternType::Prefixed => {
                if !self.prefixed.contains_key(name) {
                    let found = self
                        .lengths
                        .iter_mut()
                        .find(|(bytes, _)| *bytes == name.len());
                    match found {
                        Some((_, count)) => *count += 1,
                        None => self.lengths.push((name.len(), 1)),
                    }
                }
                self.prefixed.entry(name.to_owned()).or_default()
            }
        }
    }

    fn remove(&mut self, pattern: PatternType, name: &str) {
        match pattern {
            PatternType::Literal if name == WILDCARD => drop(self.any.take()),
            PatternType::Literal => drop(self.literal.remove(name)),
            PatternType::Prefixed => {
                if self.prefixed.remove(name).is_some() {
                    for (bytes, count) in &mut self.lengths {
                        *count -= usize::from(*bytes == name.len());
                    }
                    self.lengths.retain(|(_, count)| *count > 0);
                }
            }
        }
    }

    /// Values of all patterns that match the name.
    fn each_matching<'a>(&'a self, name: &str, mut each: impl FnMut(&'a V)) {
        if let Some(value) = self.literal.get(name) {
            each(value);
        }
        if let Some(value) = &self.any {
            each(value);
        }
        for (bytes, _) in &self.lengths {
            // Where that is within a character no prefix ends.
            let head = name.get(..*bytes);
            if let Some(value) = head.and_then(|head| self.prefixed.get(head)) {
                each(value);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.any.is_none() && self.prefixed.is_empty()
    }
}

fn of_type(kind: ResourceType) -> usize {
    let place = ResourceType::ALL.iter().position(|one| *one == kind);
    place.expect("all types are listed")
}

impl Rules {
    /// None yet.
    pub fn new(super_users: HashSet<String>, everyone_if_none: bool) -> Rules {
        Rules {
            super_users,
            everyone_if_none,
            ..Rules::default()
        }
    }

    /// Adds a rule that was checked and is not there yet.
    pub fn add(&mut self, acl: Arc<Acl>) {
        if let Some((topic, _)) = parts::of(&acl) {
            // Who gives away a part does not leave the rest to everybody.
            let counts = &mut self.counts[of_type(ResourceType::Topic)];
            *counts.entry(PatternType::Literal, topic) += 1;
            let user = acl.user().expect("it was checked").to_owned();
            let of_user = self.on_parts.entry(user).or_default();
            let entries = of_user.entry(topic.to_owned()).or_default();
            entries.push(Entry::of(acl));
            return;
        }
        *self.counts[of_type(acl.resource_type)].entry(acl.pattern, &acl.name) += 1;
        let of_user = match acl.user().expect("it was checked") {
            WILDCARD => &mut self.of_everybody,
            user => self.by_user.entry(user.to_owned()).or_default(),
        };
        let kind = acl.resource_type;
        let place = of_user.iter().position(|(found, _)| *found == kind);
        let place = place.unwrap_or_else(|| {
            of_user.push((kind, Patterns::default()));
            of_user.len() - 1
        });
        let entries = of_user[place].1.entry(acl.pattern, &acl.name);
        entries.push(Entry::of(acl));
    }

    /// Removes a rule that is there.
    pub fn remove(&mut self, acl: &Acl) {
        let part = parts::of(acl);
        let name = part.map_or(acl.name.as_str(), |(topic, _)| topic);
        let counts = &mut self.counts[of_type(acl.resource_type)];
        let count = counts.entry(acl.pattern, name);
        *count -= 1;
        if *count == 0 {
            counts.remove(acl.pattern, name);
        }
        let user = acl.user().expect("it was checked");
        if let (Some((topic, _)), Some(of_user)) = (part, self.on_parts.get_mut(user)) {
            if let Some(entries) = of_user.get_mut(topic) {
                entries.retain(|entry| *entry.acl != *acl);
            }
            of_user.retain(|_, entries| !entries.is_empty());
            if of_user.is_empty() {
                self.on_parts.remove(user);
            }
            return;
        }
        let of_user = match user {
            WILDCARD => Some(&mut self.of_everybody),
            user => self.by_user.get_mut(user),
        };
        let Some(of_user) = of_user else { return };
        for (_, patterns) in of_user
            .iter_mut()
            .filter(|(kind, _)| *kind == acl.resource_type)
        {
            let entries = patterns.entry(acl.pattern, &acl.name);
            entries.retain(|entry| *entry.acl != *acl);
            if entries.is_empty() {
                patterns.remove(acl.pattern, &acl.name);
            }
        }
        of_user.retain(|(_, patterns)| !patterns.is_empty());
        if of_user.is_empty() && user != WILDCARD {
            self.by_user.remove(user);
        }
    }

    /// Rules that name this principal, or everybody, on resources of a type.
    fn of<'a>(
        &'a self,
        user: &str,
        kind: ResourceType,
    ) -> impl Iterator<Item = &'a Patterns<Vec<Entry>>> {
        let named = self.by_user.get(user).into_iter();
        let all = named.chain([&self.of_everybody]).flatten();
        all.filter(move |(found, _)| *found == kind)
            .map(|(_, patterns)| patterns)
    }

    /// The rule that denies it, and the one that allows it, if there are such.
    fn about<'a>(
        &'a self,
        user: &str,
        host: IpAddr,
        operation: Operation,
        (kind, name): (ResourceType, &str),
    ) -> (Option<&'a Entry>, Option<&'a Entry>) {
        let host = host.to_canonical();
        let (mut allowed, mut denied) = (None, None);
        for patterns in self.of(user, kind) {
            patterns.each_matching(name, |entries| {
                for entry in entries.iter().filter(|entry| entry.is_from(host)) {
                    let (found, is_about) = match entry.permission {
                        Permission::Deny => (&mut denied, is_same(operation, entry.operation)),
                        Permission::Allow => (&mut allowed, implies(entry.operation, operation)),
                    };
                    if is_about && found.is_none() {
                        *found = Some(entry);
                    }
                }
            });
        }
        (denied, allowed)
    }

    /// The same of a part of a topic: rules on all of the topic are about it, too.
    fn about_part<'a>(
        &'a self,
        asking: Asking<'_>,
        host: IpAddr,
        operation: Operation,
        (topic, filter): (&str, &str),
    ) -> (Option<&'a Entry>, Option<&'a Entry>) {
        let of_topic = (ResourceType::Topic, topic);
        let (mut denied, mut allowed) = self.about(asking.user, host, operation, of_topic);
        let host = host.to_canonical();
        for user in [asking.user, WILDCARD] {
            let of_user = self.on_parts.get(user);
            let entries = of_user.and_then(|it| it.get(topic)).into_iter().flatten();
            for entry in entries.filter(|entry| entry.is_from(host)) {
                // The topic's name and a `/` stand before it.
                let of_rule = &entry.acl.name[topic.len() + 1..];
                let (found, is_about) = match entry.permission {
                    Permission::Deny => {
                        let is_about = is_same(operation, entry.operation);
                        (&mut denied, is_about && asking.overlaps(of_rule, filter))
                    }
                    Permission::Allow => {
                        let is_about = implies(entry.operation, operation);
                        (&mut allowed, is_about && asking.covers(of_rule, filter))
                    }
                };
                if is_about && found.is_none() {
                    *found = Some(entry);
                }
            }
        }
        (denied, allowed)
    }

    /// Whether a principal may do something to a part of a topic from this address, as a client that calls itself so.
    pub fn allow_part(
        &self,
        (principal, client_id): (&Principal, Option<&str>),
        host: IpAddr,
        operation: Operation,
        part: (&str, &str),
    ) -> bool {
        let user = principal.name();
        if self.super_users.contains(user) {
            return true;
        }
        match self.about_part(Asking { user, client_id }, host, operation, part) {
            (Some(_), _) => false,
            (None, Some(_)) => true,
            (None, None) => {
                self.everyone_if_none && !self.has_rules_on(of_type(ResourceType::Topic), part.0)
            }
        }
    }

    /// Whether a principal may do something to a resource from this address: what [`allows`] says, without the reason.
    pub fn allow(
        &self,
        principal: &Principal,
        host: IpAddr,
        operation: Operation,
        resource: (ResourceType, &str),
    ) -> bool {
        let user = principal.name();
        if self.super_users.contains(user) {
            return true;
        }
        match self.about(user, host, operation, resource) {
            (Some(_), _) => false,
            (None, Some(_)) => true,
            // Whether there are rules for others is asked only where that makes a difference.
            (None, None) => {
                self.everyone_if_none && !self.has_rules_on(of_type(resource.0), resource.1)
            }
        }
    }

    fn has_rules_on(&self, place: usize, name: &str) -> bool {
        let mut found = false;
        self.counts[place].each_matching(name, |_| found = true);
        found
    }
}

/// Whether a principal may do something to a resource from this address.
///
/// Source: Kafka's `StandardAuthorizerData`. Of a part of a topic, its name, `/` and a filter, it is not said for any client in particular.
pub fn allows(
    rules: &Rules,
    principal: &Principal,
    host: IpAddr,
    operation: Operation,
    (kind, name): (ResourceType, &str),
) -> Verdict {
    let user = principal.name();
    if rules.super_users.contains(user) {
        return Verdict::SuperUser;
    }
    // Of a part of a topic: no topic's name has a `/`.
    let part = name.split_once('/').filter(|_| kind == ResourceType::Topic);
    let client_id = None;
    let (found, name) = match part {
        Some(part) => {
            let asking = Asking { user, client_id };
            (rules.about_part(asking, host, operation, part), part.0)
        }
        None => (rules.about(user, host, operation, (kind, name)), name),
    };
    match found {
        (Some(entry), _) => Verdict::Denied(Arc::clone(&entry.acl)),
        (None, Some(entry)) => Verdict::Allowed(Arc::clone(&entry.acl)),
        (None, None) if rules.has_rules_on(of_type(kind), name) => Verdict::NoneAllows,
        (None, None) => Verdict::NoRule {
            allowed: rules.everyone_if_none,
        },
    }
}

/// Whether a principal may do something to any resource of a type, as far as rules tell.
///
/// Source: Kafka's `Authorizer.authorizeByResourceType`.
pub fn allows_any(
    rules: &Rules,
    principal: &Principal,
    host: IpAddr,
    operation: Operation,
    kind: ResourceType,
) -> bool {
    /// Some name that no rule is likely to have; Kafka's.
    const SOME_NAME: &str = "hardcode";
    if rules.allow(principal, host, operation, (kind, SOME_NAME)) {
        return true;
    }
    let host = host.to_canonical();
    let mut literals = [HashSet::new(), HashSet::new()];
    let mut prefixes = [HashSet::new(), HashSet::new()];
    for patterns in rules.of(principal.name(), kind) {
        let named = patterns.literal.values().chain(patterns.prefixed.values());
        let entries = named.chain(&patterns.any);
        for entry in entries.flatten().filter(|entry| entry.is_from(host)) {
            if is_same(operation, entry.operation) {
                let set = match entry.acl.pattern {
                    PatternType::Literal => &mut literals,
                    PatternType::Prefixed => &mut prefixes,
                };
                let place = usize::from(entry.acl.permission == Permission::Allow);
                set[place].insert(entry.acl.name.as_str());
            }
        }
    }
    let [denied, allowed] = literals;
    let [denied_prefixes, allowed_prefixes] = prefixes;
    if denied.contains(WILDCARD) {
        return false;
    }
    let is_free = |name: &str| {
        let ends = name.char_indices().map(|(at, one)| at + one.len_utf8());
        let mut heads = ends.map(|end| &name[..end]);
        !heads.any(|head| denied_prefixes.contains(head))
    };
    allowed.contains(WILDCARD)
        || allowed_prefixes.iter().any(|prefix| is_free(prefix))
        || allowed
            .iter()
            .any(|name| !denied.contains(name) && is_free(name))
}

impl Entry {
    fn of(acl: Arc<Acl>) -> Entry {
        Entry {
            address: acl.address(),
            operation: acl.operation,
            permission: acl.permission,
            acl,
        }
    }

    fn is_from(&self, host: IpAddr) -> bool {
        self.address.is_none_or(|only| only == host)
    }
}

/// Whether a rule about `found` is about `wanted`, without what is implied: so it is for a rule that denies.
fn is_same(wanted: Operation, found: Operation) -> bool {
    found == Operation::All || found == wanted
}

/// Whether who may do `found` may do `wanted`.
fn implies(found: Operation, wanted: Operation) -> bool {
    match wanted {
        Operation::Describe => matches!(
            found,
            Operation::All
                | Operation::Describe
                | Operation::Read
                | Operation::Write
                | Operation::Delete
                | Operation::Alter
        ),
        Operation::DescribeConfigs => matches!(
            found,
            Operation::All | Operation::DescribeConfigs | Operation::AlterConfigs
        ),
        other => is_same(other, found),
    }
}

#[cfg(test)]
#[path = "acls_tests.rs"]
mod tests;
