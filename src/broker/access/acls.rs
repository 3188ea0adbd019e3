//! Access control lists in a form in which a question costs the same, however many there are, and the one function that answers it.
//! Callers: `book`, which keeps them; `rules`, which asks. Pure.
//! Invariants: [`allows`] says what Kafka's `StandardAuthorizer` says. Rules that name other principals are never looked at, but for
//! whether there are any on a resource, which is counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use model::acl::{Acl, Operation, PatternType, Permission, ResourceType, WILDCARD};

use super::Principal;

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
    /// By the user that they name; `*` is everybody.
    by_user: HashMap<String, [Patterns<Vec<Entry>>; ResourceType::ALL.len()]>,
    /// How many rules there are on each pattern, whoever they name.
    counts: [Patterns<usize>; ResourceType::ALL.len()],
}

/// A rule, with what is compared.
#[derive(Debug)]
struct Entry {
    acl: Arc<Acl>,
    address: Option<IpAddr>,
}

/// Values by patterns of names.
#[derive(Debug)]
struct Patterns<V> {
    literal: HashMap<String, V>,
    prefixed: BTreeMap<String, V>,
}

impl<V> Default for Patterns<V> {
    fn default() -> Patterns<V> {
        Patterns {
            literal: HashMap::new(),
            prefixed: BTreeMap::new(),
        }
    }
}

impl<V: Default> Patterns<V> {
    fn entry(&mut self, pattern: PatternType, name: &str) -> &mut V {
        let name = name.to_owned();
        match pattern {
            PatternType::Literal => self.literal.entry(name).or_default(),
            PatternType::Prefixed => self.prefixed.entry(name).or_default(),
        }
    }

    fn remove(&mut self, pattern: PatternType, name: &str) {
        match pattern {
            PatternType::Literal => drop(self.literal.remove(name)),
            PatternType::Prefixed => drop(self.prefixed.remove(name)),
        }
    }

    /// Values of all patterns that match the name.
    fn each_matching<'a>(&'a self, name: &str, mut each: impl FnMut(&'a V)) {
        for literal in [name, WILDCARD] {
            if let Some(value) = self.literal.get(literal) {
                each(value);
            }
            if name == WILDCARD {
                break;
            }
        }
        // Every prefix of a name stands before it, and what stands between the two begins with that prefix.
        let mut before = Bound::Included(name);
        while let Some((prefix, value)) = self
            .prefixed
            .range::<str, _>((Bound::Unbounded, before))
            .next_back()
        {
            let same = common_bytes(prefix, name);
            before = if same == prefix.len() {
                each(value);
                Bound::Excluded(prefix)
            } else {
                Bound::Included(&name[..same])
            };
        }
    }

    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.prefixed.is_empty()
    }
}

/// Bytes of whole characters with which both begin.
fn common_bytes(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(one, _)| one.len_utf8()).sum()
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
        let place = of_type(acl.resource_type);
        let user = acl.user().expect("it was checked").to_owned();
        let address = acl.address();
        *self.counts[place].entry(acl.pattern, &acl.name) += 1;
        let patterns = &mut self.by_user.entry(user).or_default()[place];
        let entries = patterns.entry(acl.pattern, &acl.name);
        entries.push(Entry { acl, address });
    }

    /// Removes a rule that is there.
    pub fn remove(&mut self, acl: &Acl) {
        let place = of_type(acl.resource_type);
        let count = self.counts[place].entry(acl.pattern, &acl.name);
        *count -= 1;
        if *count == 0 {
            self.counts[place].remove(acl.pattern, &acl.name);
        }
        let user = acl.user().expect("it was checked");
        let Some(patterns) = self.by_user.get_mut(user) else {
            return;
        };
        let entries = patterns[place].entry(acl.pattern, &acl.name);
        entries.retain(|entry| *entry.acl != *acl);
        if entries.is_empty() {
            patterns[place].remove(acl.pattern, &acl.name);
        }
        if patterns.iter().all(Patterns::is_empty) {
            self.by_user.remove(user);
        }
    }

    /// Rules that name this principal, or everybody, on resources of a type.
    fn of<'a>(
        &'a self,
        user: &'a str,
        place: usize,
    ) -> impl Iterator<Item = &'a Patterns<Vec<Entry>>> {
        let named = [Some(user), (user != WILDCARD).then_some(WILDCARD)];
        let users = named.into_iter().flatten();
        users.filter_map(move |user| Some(&self.by_user.get(user)?[place]))
    }

    fn has_rules_on(&self, place: usize, name: &str) -> bool {
        let mut found = false;
        self.counts[place].each_matching(name, |_| found = true);
        found
    }
}

/// Whether a principal may do something to a resource from this address.
///
/// Source: Kafka's `StandardAuthorizerData`.
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
    let place = of_type(kind);
    let host = host.to_canonical();
    let (mut allowed, mut denied) = (None, None);
    for patterns in rules.of(user, place) {
        patterns.each_matching(name, |entries| {
            for entry in entries.iter().filter(|entry| entry.is_from(host)) {
                let (found, is_about) = match entry.acl.permission {
                    Permission::Deny => (&mut denied, is_same(operation, entry.acl.operation)),
                    Permission::Allow => (&mut allowed, implies(entry.acl.operation, operation)),
                };
                if is_about && found.is_none() {
                    *found = Some(&entry.acl);
                }
            }
        });
    }
    match (denied, allowed) {
        (Some(acl), _) => Verdict::Denied(Arc::clone(acl)),
        (None, Some(acl)) => Verdict::Allowed(Arc::clone(acl)),
        (None, None) if rules.has_rules_on(place, name) => Verdict::NoneAllows,
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
    if allows(rules, principal, host, operation, (kind, SOME_NAME)).is_allowed() {
        return true;
    }
    let host = host.to_canonical();
    let mut literals = [HashSet::new(), HashSet::new()];
    let mut prefixes = [HashSet::new(), HashSet::new()];
    for patterns in rules.of(principal.name(), of_type(kind)) {
        let entries = patterns.literal.values().chain(patterns.prefixed.values());
        for entry in entries.flatten().filter(|entry| entry.is_from(host)) {
            if is_same(operation, entry.acl.operation) {
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
