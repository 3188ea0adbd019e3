//! Who is in a group that shares records, and which partitions each member is to fetch from. Pure.
//! Callers: a group's machine. Members are not stored: after a start they are unknown, and come back by themselves.
//! Invariants: each partition of a subscribed topic is somebody's; where there are more members than partitions each has one. A member
//! learns of a change with its next heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{PartitionId, TopicId};

use super::ShareError;
use crate::broker::groups::ClientIdentity;

/// A group has so many members at most.
const MEMBERS_MAX: usize = 200;
/// A member subscribes to so many topics at most.
const TOPICS_MAX: usize = 10_000;
/// What a member takes in memory, about, beside its texts and its partitions; and each topic of it.
const MEMBER_BYTES: usize = 256;
const TOPIC_BYTES: usize = 48;

/// The partitions of a member.
pub type Assigned = BTreeMap<TopicId, Vec<PartitionId>>;

/// What a topic is now: its id, and how many partitions it has.
pub type Topic = (TopicId, u32);

/// A sign of life.
#[derive(Clone, Debug)]
pub struct Beat {
    /// Who; the client chooses its id.
    pub member_id: String,
    /// Where it believes to be; 0 to become a member.
    pub epoch: i32,
    /// What it subscribes to, if that is new.
    pub topics: Option<Vec<String>>,
    /// Where it runs.
    pub rack: Option<String>,
    /// How it calls itself.
    pub client: ClientIdentity,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beaten {
    /// Where it is now.
    pub epoch: i32,
    /// How soon it is to be heard of again.
    pub interval: Duration,
    /// Its partitions, if they are news.
    pub assigned: Option<Assigned>,
}

/// A member as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareMember {
    /// Its id.
    pub member_id: String,
    /// Where it runs.
    pub rack: Option<String>,
    /// Where it is.
    pub epoch: i32,
    /// Who it is.
    pub client: ClientIdentity,
    /// What it subscribes to.
    pub topics: Vec<String>,
    /// What it was told to fetch.
    pub assigned: Assigned,
}

#[derive(Clone, Debug)]
struct Member {
    shown: ShareMember,
    previous_epoch: i32,
    deadline: Duration,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Members {
    epoch: i32,
    all: BTreeMap<Arc<str>, Member>,
    targets: BTreeMap<Arc<str>, Assigned>,
    topics: BTreeMap<String, Topic>,
    /// What they take in memory, about.
    bytes: usize,
}

fn bytes_of_topics(topics: &[String]) -> usize {
    topics.iter().map(|topic| TOPIC_BYTES + topic.len()).sum()
}

fn bytes_of_partitions(assigned: &Assigned) -> usize {
    let bytes = |partitions: &Vec<PartitionId>| TOPIC_BYTES + size_of_val(partitions.as_slice());
    assigned.values().map(bytes).sum()
}

fn bytes_of_member(id: &str, rack: Option<&str>, client: &ClientIdentity) -> usize {
    // The id stands in three places.
    MEMBER_BYTES
        + 3 * id.len()
        + rack.map_or(0, str::len)
        + client.client_id.len()
        + client.host.len()
}

impl Members {
    /// How often anything changed.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// What they take in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many members a sign of life would add at most, and how many bytes. Partitions, which follow from all of them, are not in it.
    pub fn growth(&self, beat: &Beat) -> (usize, usize) {
        let topics = beat.topics.as_deref().map_or(0, bytes_of_topics);
        match self.all.get(beat.member_id.as_str()) {
            Some(member) => {
                let before = bytes_of_topics(&member.shown.topics);
                (0, topics.saturating_sub(before))
            }
            None if beat.epoch == 0 => {
                let of_it = bytes_of_member(&beat.member_id, beat.rack.as_deref(), &beat.client);
                (1, of_it + topics)
            }
            None => (0, 0),
        }
    }

    fn count_bytes(&mut self) {
        let of = |member: &Member| {
            let shown = &member.shown;
            bytes_of_member(&shown.member_id, shown.rack.as_deref(), &shown.client)
                + bytes_of_topics(&shown.topics)
                + bytes_of_partitions(&shown.assigned)
        };
        let members: usize = self.all.values().map(of).sum();
        let targets: usize = self.targets.values().map(bytes_of_partitions).sum();
        self.bytes = members + targets;
    }

    /// All of them.
    pub fn shown(&self) -> Vec<ShareMember> {
        self.all
            .values()
            .map(|member| member.shown.clone())
            .collect()
    }

    /// The first session's end.
    pub fn wake_at(&self) -> Option<Duration> {
        self.all.values().map(|member| member.deadline).min()
    }

    /// Takes a sign of life, by the topics as they are.
    pub fn beat(
        &mut self,
        beat: Beat,
        (now, interval, session): (Duration, Duration, Duration),
        topic: impl Fn(&str) -> Option<Topic>,
    ) -> Result<Beaten, ShareError> {
        let topics = beat.topics.map(|mut topics| {
            topics.sort_unstable();
            topics.dedup();
            topics
        });
        if topics
            .as_ref()
            .is_some_and(|topics| topics.len() > TOPICS_MAX)
        {
            return Err(ShareError::Invalid("too many topics"));
        }
        let is_new = beat.epoch == 0;
        let id: Arc<str> = beat.member_id.as_str().into();
        if is_new {
            let topics = topics.clone().filter(|topics| !topics.is_empty());
            let topics = topics.ok_or(ShareError::Invalid(
                "SubscribedTopicNames must be set in first request.",
            ))?;
            if !self.all.contains_key(&id) && self.all.len() >= MEMBERS_MAX {
                return Err(ShareError::MaxSizeReached);
            }
            let shown = ShareMember {
                member_id: beat.member_id.clone(),
                rack: beat.rack.clone(),
                epoch: 0,
                client: beat.client.clone(),
                topics,
                assigned: Assigned::new(),
            };
            let member = Member {
                shown,
                previous_epoch: 0,
                deadline: now,
            };
            self.all.insert(Arc::clone(&id), member);
        }
        let member = self.all.get_mut(&id).ok_or(ShareError::UnknownMember)?;
        let is_known = is_new
            || beat.epoch == member.shown.epoch
            || beat.epoch == member.previous_epoch && beat.epoch < member.shown.epoch;
        if !is_known {
            return Err(ShareError::FencedEpoch);
        }
        member.deadline = now + session;
        let has_told = topics.is_some();
        let mut is_changed = is_new;
        if let Some(topics) = topics.filter(|topics| *topics != member.shown.topics) {
            member.shown.topics = topics;
            is_changed = true;
        }
        self.look(is_changed, topic);
        let member = self.all.get_mut(&id).expect("it was just found");
        let target = self.targets.get(&id).cloned().unwrap_or_default();
        let is_news = is_new || has_told || member.shown.assigned != target;
        if member.shown.epoch != self.epoch {
            member.previous_epoch = member.shown.epoch;
            member.shown.epoch = self.epoch;
        }
        member.shown.assigned = target.clone();
        if is_news {
            self.count_bytes();
        }
        Ok(Beaten {
            epoch: self.epoch,
            interval,
            assigned: is_news.then_some(target),
        })
    }

    /// Takes a member out; whether it was one.
    pub fn leave(&mut self, member_id: &str, topic: impl Fn(&str) -> Option<Topic>) -> bool {
        let was_there = self.all.remove(member_id).is_some();
        self.look(was_there, topic);
        was_there
    }

    /// Takes those out that were not heard of. The others learn of it with the next heartbeat.
    pub fn expire(&mut self, now: Duration) -> usize {
        let before = self.all.len();
        self.all.retain(|_, member| member.deadline > now);
        let gone = before - self.all.len();
        if gone > 0 {
            self.assign();
            self.count_bytes();
        }
        gone
    }

    /// Assigns anew, if anything has changed.
    fn look(&mut self, is_changed: bool, topic: impl Fn(&str) -> Option<Topic>) {
        let names: BTreeSet<&String> = self.all.values().flat_map(|it| &it.shown.topics).collect();
        let topics = names
            .into_iter()
            .filter_map(|name| Some((name.clone(), topic(name)?)));
        let topics: BTreeMap<String, Topic> = topics.collect();
        if is_changed || topics != self.topics {
            self.topics = topics;
            self.assign();
            self.count_bytes();
        }
    }

    fn assign(&mut self) {
        self.epoch += 1;
        self.targets = self
            .all
            .keys()
            .map(|id| (Arc::clone(id), Assigned::new()))
            .collect();
        for (name, (topic, partitions)) in &self.topics {
            let wants = |(_, member): &(&Arc<str>, &Member)| {
                member.shown.topics.binary_search(name).is_ok()
            };
            let subscribers: Vec<&Arc<str>> =
                self.all.iter().filter(wants).map(|(id, _)| id).collect();
            if subscribers.is_empty() || *partitions == 0 {
                continue;
            }
            let count = subscribers.len().max(*partitions as usize);
            for turn in 0..count {
                let id = subscribers[turn % subscribers.len()];
                let partition = u32::try_from(turn).unwrap_or(0) % partitions;
                let target = self.targets.get_mut(id).expect("every member has a target");
                target
                    .entry(*topic)
                    .or_default()
                    .push(PartitionId::new(partition));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Option<Topic> {
        let count = name.strip_prefix('t')?.parse().ok()?;
        let id = uuid::Uuid::from_u128(count);
        Some((TopicId::from_uuid(id), u32::try_from(count).ok()?))
    }

    fn beat(
        members: &mut Members,
        id: &str,
        epoch: i32,
        topics: Option<&[&str]>,
        now: u64,
    ) -> Result<Beaten, ShareError> {
        let beat = Beat {
            member_id: id.into(),
            epoch,
            topics: topics.map(|topics| topics.iter().map(|name| (*name).to_owned()).collect()),
            rack: None,
            client: ClientIdentity::default(),
        };
        let seconds = Duration::from_secs;
        members.beat(beat, (seconds(now), seconds(5), seconds(45)), topic)
    }

    fn partitions(beaten: Result<Beaten, ShareError>) -> Vec<u32> {
        let assigned = beaten.expect("a member").assigned.expect("news");
        assigned
            .into_values()
            .flatten()
            .map(PartitionId::get)
            .collect()
    }

    #[test]
    fn every_partition_is_somebodys_and_every_member_has_one() {
        let mut members = Members::default();
        assert_eq!(
            partitions(beat(&mut members, "a", 0, Some(&["t3"]), 0)),
            [0, 1, 2]
        );
        assert_eq!(
            partitions(beat(&mut members, "b", 0, Some(&["t3"]), 0)),
            [1]
        );
        assert_eq!(partitions(beat(&mut members, "a", 1, None, 0)), [0, 2]);
        let quiet = beat(&mut members, "a", 2, None, 0).expect("a member");
        assert_eq!((quiet.epoch, quiet.assigned), (2, None));
        let mut members = Members::default();
        for id in ["a", "b", "c"] {
            beat(&mut members, id, 0, Some(&["t2"]), 0).expect("a member");
        }
        let of = |id: &str| {
            members.targets[id]
                .values()
                .flatten()
                .map(|it| it.get())
                .collect::<Vec<_>>()
        };
        assert_eq!((of("a"), of("b"), of("c")), (vec![0], vec![1], vec![0]));
    }

    #[test]
    fn what_members_take_is_counted_and_nothing_is_when_they_have_gone() {
        let mut members = Members::default();
        let growth = |members: &Members, topics: Option<&[&str]>| {
            let topics = topics.map(|topics| topics.iter().map(|it| (*it).to_owned()).collect());
            members.growth(&Beat {
                member_id: "a".into(),
                epoch: 0,
                topics,
                rack: None,
                client: ClientIdentity::default(),
            })
        };
        let (count, bytes) = growth(&members, Some(&["t3"]));
        assert_eq!(count, 1);
        beat(&mut members, "a", 0, Some(&["t3"]), 0).expect("a member");
        assert!(members.bytes() >= bytes && bytes > 0);
        assert_eq!(growth(&members, None), (0, 0));
        assert_eq!(growth(&members, Some(&["t3"])), (0, 0), "as it is");
        assert_eq!(growth(&members, Some(&["t3", "t4"])), (0, TOPIC_BYTES + 2));
        let before = members.bytes();
        beat(&mut members, "b", 0, Some(&["t1"]), 30).expect("a member");
        assert!(members.bytes() > before);
        assert_eq!(members.expire(Duration::from_secs(45)), 1);
        assert!(members.leave("b", topic));
        assert_eq!(members.bytes(), 0);
    }

    #[test]
    fn epochs_that_are_not_the_members_are_fenced_and_an_answer_that_was_lost_is_not() {
        let mut members = Members::default();
        let epoch = |beaten: Result<Beaten, ShareError>| beaten.map(|it| it.epoch);
        assert_eq!(epoch(beat(&mut members, "a", 0, Some(&["t1"]), 0)), Ok(1));
        assert_eq!(epoch(beat(&mut members, "b", 0, Some(&["t1"]), 0)), Ok(2));
        assert_eq!(epoch(beat(&mut members, "a", 1, None, 0)), Ok(2));
        assert_eq!(
            epoch(beat(&mut members, "a", 1, None, 0)),
            Ok(2),
            "asked again"
        );
        assert_eq!(
            epoch(beat(&mut members, "a", 3, None, 0)),
            Err(ShareError::FencedEpoch)
        );
        assert_eq!(
            epoch(beat(&mut members, "c", 1, None, 0)),
            Err(ShareError::UnknownMember)
        );
        assert!(matches!(
            beat(&mut members, "c", 0, None, 0),
            Err(ShareError::Invalid(_))
        ));
    }

    #[test]
    fn who_is_not_heard_of_is_no_member_and_leaves_its_partitions_to_others() {
        let mut members = Members::default();
        beat(&mut members, "a", 0, Some(&["t2"]), 0).expect("a member");
        beat(&mut members, "b", 0, Some(&["t2"]), 30).expect("a member");
        assert_eq!(members.wake_at(), Some(Duration::from_secs(45)));
        assert_eq!(members.expire(Duration::from_secs(45)), 1);
        assert_eq!(partitions(beat(&mut members, "b", 2, None, 46)), [0, 1]);
        assert!(members.leave("b", topic) && !members.leave("b", topic));
        assert_eq!(members.wake_at(), None);
    }
}
