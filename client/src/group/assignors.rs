//! Who reads what: Kafka's own range and round-robin assignors, so that a group of mixed clients gets the assignment
//! that any of them would have made.

use std::collections::{BTreeMap, BTreeSet};

/// How a group shares its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Each topic by itself, in runs of neighbours; members that come first get one more.
    Range,
    /// All partitions of all topics, dealt out one by one.
    RoundRobin,
}

impl Assignor {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
        }
    }

    /// The assignor of a name.
    pub fn from_name(name: &str) -> Option<Assignor> {
        [Assignor::Range, Assignor::RoundRobin]
            .into_iter()
            .find(|a| a.name() == name)
    }

    /// Shares partitions. `counts` has the number of partitions of each topic that exists.
    pub fn assign(
        self,
        members: &[Member],
        counts: &BTreeMap<String, i32>,
    ) -> BTreeMap<String, Assignment> {
        let mut members: Vec<&Member> = members.iter().collect();
        members.sort_by_key(|m| m.place());
        let mut assigned: BTreeMap<String, Assignment> = members
            .iter()
            .map(|m| (m.id.clone(), Assignment::new()))
            .collect();
        let mut give = |member: &Member, topic: &str, partition: i32| {
            let partitions = assigned.entry(member.id.clone()).or_default();
            partitions
                .entry(topic.to_owned())
                .or_default()
                .push(partition);
        };
        match self {
            Assignor::Range => range(&members, counts, &mut give),
            Assignor::RoundRobin => round_robin(&members, counts, &mut give),
        }
        assigned
    }
}

/// Partitions by topic.
pub type Assignment = BTreeMap<String, Vec<i32>>;

/// A member of the group, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its name across restarts.
    pub instance_id: Option<String>,
    /// What it subscribes to.
    pub topics: BTreeSet<String>,
}

impl Member {
    /// Members with a name come first, by it; the others by id.
    fn place(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(name) => (false, name),
            None => (true, &self.id),
        }
    }
}

fn range(
    members: &[&Member],
    counts: &BTreeMap<String, i32>,
    give: &mut impl FnMut(&Member, &str, i32),
) {
    for (topic, &count) in counts {
        let readers: Vec<&&Member> = members
            .iter()
            .filter(|m| m.topics.contains(topic))
            .collect();
        let Ok(reader_count) = i32::try_from(readers.len()) else {
            continue;
        };
        if reader_count == 0 {
            continue;
        }
        let (each, more) = (count / reader_count, count % reader_count);
        let mut next = 0;
        for (place, reader) in (0..).zip(readers) {
            let end = next + each + i32::from(place < more);
            (next..end).for_each(|partition| give(reader, topic, partition));
            next = end;
        }
    }
}

fn round_robin(
    members: &[&Member],
    counts: &BTreeMap<String, i32>,
    give: &mut impl FnMut(&Member, &str, i32),
) {
    let mut turn = 0;
    for (topic, &count) in counts {
        if !members.iter().any(|m| m.topics.contains(topic)) {
            continue;
        }
        for partition in 0..count {
            while !members[turn % members.len()].topics.contains(topic) {
                turn += 1;
            }
            give(members[turn % members.len()], topic, partition);
            turn += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, topics: &[&str]) -> Member {
        Member {
            id: id.into(),
            instance_id: None,
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
        }
    }

    type Expected<'a> = (&'a str, &'a [(&'a str, &'a [i32])]);

    fn check(
        assignor: Assignor,
        members: &[Member],
        counts: &[(&str, i32)],
        expected: &[Expected<'_>],
    ) {
        let counts = counts.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect();
        let expected: BTreeMap<String, Assignment> = expected
            .iter()
            .map(|(id, topics)| {
                (
                    (*id).to_owned(),
                    topics
                        .iter()
                        .map(|(t, p)| ((*t).to_owned(), p.to_vec()))
                        .collect(),
                )
            })
            .collect();
        assert_eq!(assignor.assign(members, &counts), expected);
    }

    #[test]
    fn range_gives_neighbours_and_the_rest_to_the_first() {
        let members = [member("b", &["x", "y"]), member("a", &["x", "y"])];
        check(
            Assignor::Range,
            &members,
            &[("x", 3), ("y", 3)],
            &[
                ("a", &[("x", &[0, 1]), ("y", &[0, 1])]),
                ("b", &[("x", &[2]), ("y", &[2])]),
            ],
        );
    }

    #[test]
    fn round_robin_deals_across_topics() {
        let members = [member("a", &["x", "y"]), member("b", &["x", "y"])];
        check(
            Assignor::RoundRobin,
            &members,
            &[("x", 3), ("y", 3)],
            &[
                ("a", &[("x", &[0, 2]), ("y", &[1])]),
                ("b", &[("x", &[1]), ("y", &[0, 2])]),
            ],
        );
    }

    #[test]
    fn nobody_gets_what_it_did_not_ask_for() {
        let members = [
            member("a", &["x"]),
            member("b", &["x", "y"]),
            member("c", &["z"]),
        ];
        for assignor in [Assignor::Range, Assignor::RoundRobin] {
            check(
                assignor,
                &members,
                &[("x", 2), ("y", 2), ("unread", 5)],
                &[
                    ("a", &[("x", &[0])]),
                    ("b", &[("x", &[1]), ("y", &[0, 1])]),
                    ("c", &[]),
                ],
            );
        }
    }

    #[test]
    fn named_members_come_first() {
        let named = Member {
            instance_id: Some("n".into()),
            ..member("zzz", &["x"])
        };
        let members = [member("a", &["x"]), named];
        check(
            Assignor::Range,
            &members,
            &[("x", 1)],
            &[("a", &[]), ("zzz", &[("x", &[0])])],
        );
    }
}
