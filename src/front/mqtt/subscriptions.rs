//! The subscriptions of one client, and which of them a message is for.
//! Callers: `outbound`, which changes them; the reader of its log, which asks for each record.

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use model::{Offset, PartitionId};

use super::naming::Names;
use super::packet::Qos;
use super::topic::TopicFilter;
use crate::broker::place::offset_of;

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Subscribed {
    pub(super) filter: TopicFilter,
    /// The highest that messages are sent with.
    pub(super) qos: Qos,
    /// Whether the client's own messages are left out.
    pub(super) no_local: bool,
    /// Whether messages say that they were retained.
    pub(super) retain_as_published: bool,
    /// What its messages carry.
    pub(super) id: Option<u32>,
    /// Where it begins, partition by partition; in those that came later at their start.
    pub(super) since: Arc<[Offset]>,
}

/// What the subscriptions that a message is for ask for together: it is sent once (§3.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The highest of theirs.
    pub(super) qos: Qos,
    /// All of theirs.
    pub(super) ids: Vec<u32>,
    /// Whether any wants it.
    pub(super) retain_as_published: bool,
    /// Whether all of them match it as a record of its Kafka topic: then it is sent under that name.
    pub(super) is_of_kafka: bool,
}

/// Filters, each once. Most clients have one or none.
#[derive(Debug, Default)]
pub(super) struct Filters(Vec<Arc<str>>);

impl Filters {
    fn find(&self, filter: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|it| (**it).cmp(filter))
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether one is there.
    pub(super) fn has(&self, filter: &str) -> bool {
        self.find(filter).is_ok()
    }

    /// Adds one.
    pub(super) fn insert(&mut self, filter: Arc<str>) {
        if let Err(at) = self.find(&filter) {
            self.0.reserve_exact(1);
            self.0.insert(at, filter);
        }
    }

    /// Takes one out; whether it was there.
    pub(super) fn remove(&mut self, filter: &str) -> bool {
        let found = self.find(filter);
        found.is_ok_and(|at| {
            self.0.remove(at);
            true
        })
    }
}

/// A message, as far as subscriptions look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) names: &'a Names<'a>,
    /// Whether the subscriber published it.
    pub(super) is_own: bool,
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
}

/// All of them. Cheap to clone: all clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions(Arc<RwLock<Vec<Subscribed>>>);

impl Subscribed {
    fn wants(&self, seen: &Seen<'_>) -> bool {
        let since = offset_of(&self.since, seen.partition);
        seen.offset >= since
            && !(self.no_local && seen.is_own)
            && seen.names.is_matched_by(&self.filter)
    }
}

impl Subscriptions {
    fn read(&self) -> RwLockReadGuard<'_, Vec<Subscribed>> {
        self.0
            .read()
            .expect("nothing panics while it holds subscriptions")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Subscribed>> {
        self.0
            .write()
            .expect("nothing panics while it holds subscriptions")
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.read().len()
    }

    /// All of them, in the order in which they came.
    pub(super) fn all(&self) -> Vec<Subscribed> {
        self.read().clone()
    }

    /// Whether there is one of this filter.
    pub(super) fn has(&self, filter: &str) -> bool {
        self.read().iter().any(|it| it.filter.as_str() == filter)
    }

    /// The filters of all.
    pub(super) fn filters(&self) -> Vec<TopicFilter> {
        self.read().iter().map(|it| it.filter.clone()).collect()
    }

    /// Adds one, or changes that of the same filter, which then gives what it has not given yet.
    pub(super) fn insert(&self, mut new: Subscribed) {
        let mut all = self.write();
        match all.iter_mut().find(|it| it.filter == new.filter) {
            Some(before) => {
                new.since = Arc::clone(&before.since);
                *before = new;
            }
            None => {
                // As a rule there is one.
                all.reserve_exact(1);
                all.push(new);
            }
        }
    }

    /// Says where that of a filter begins.
    pub(super) fn begin(&self, filter: &TopicFilter, since: Arc<[Offset]>) {
        let mut all = self.write();
        if let Some(it) = all.iter_mut().find(|it| it.filter == *filter) {
            it.since = since;
        }
    }

    /// Takes one out; whether it was there.
    pub(super) fn remove(&self, filter: &str) -> bool {
        let mut all = self.write();
        let before = all.len();
        all.retain(|it| it.filter.as_str() != filter);
        all.len() < before
    }

    /// Whether a message is for any.
    pub(super) fn want(&self, seen: &Seen<'_>) -> bool {
        self.read().iter().any(|it| it.wants(seen))
    }

    /// What those ask for that it is for; None if there is none.
    pub(super) fn wanted(&self, seen: &Seen<'_>) -> Option<Wanted> {
        let all = self.read();
        let mut found: Option<Wanted> = None;
        for it in all.iter().filter(|it| it.wants(seen)) {
            let wanted = found.get_or_insert(Wanted {
                qos: it.qos,
                ids: Vec::new(),
                retain_as_published: false,
                is_of_kafka: true,
            });
            wanted.qos = wanted.qos.max(it.qos);
            wanted.ids.extend(it.id);
            wanted.retain_as_published |= it.retain_as_published;
            wanted.is_of_kafka &= it.filter.is_of_kafka();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribed(filter: &str, qos: u8, id: Option<u32>) -> Subscribed {
        Subscribed {
            filter: TopicFilter::parse(filter).expect("a filter"),
            qos: Qos::of(qos).expect("a QoS"),
            no_local: false,
            retain_as_published: false,
            id,
            since: [Offset::new(10), Offset::new(20)].into(),
        }
    }

    fn seen<'a>(names: &'a Names<'a>, partition: u32, offset: u64) -> Seen<'a> {
        Seen {
            names,
            is_own: false,
            partition: PartitionId::new(partition),
            offset: Offset::new(offset),
        }
    }

    #[test]
    fn overlapping_subscriptions_make_one_message_with_the_highest_qos_and_all_identifiers() {
        let all = Subscriptions::default();
        all.insert(subscribed("a/+", 0, Some(7)));
        all.insert(subscribed("a/#", 2, Some(9)));
        all.insert(subscribed("b", 1, Some(1)));
        let names = Names::of_published("a/x");
        let wanted = all.wanted(&seen(&names, 0, 10)).expect("both");
        assert_eq!((wanted.qos.number(), wanted.ids), (2, vec![7, 9]));
        assert!(all.remove("a/#") && !all.remove("a/#"));
        let wanted = all.wanted(&seen(&names, 0, 10)).expect("one");
        assert_eq!((wanted.qos.number(), wanted.ids), (0, vec![7]));
    }

    #[test]
    fn a_message_that_is_wanted_under_both_of_its_names_is_one_under_its_topic() {
        let all = Subscriptions::default();
        all.insert(subscribed("$kafka/mqtt/+/x", 2, Some(1)));
        let names = Names::of_published("a/x");
        let wanted = all.wanted(&seen(&names, 0, 10)).expect("one");
        assert_eq!((wanted.is_of_kafka, wanted.ids), (true, vec![1]));
        all.insert(subscribed("a/#", 0, Some(2)));
        let wanted = all.wanted(&seen(&names, 0, 10)).expect("both");
        assert_eq!((wanted.is_of_kafka, wanted.ids), (false, vec![1, 2]));
        assert_eq!(wanted.qos.number(), 2);
        let other = Names::of_published("b/y");
        assert_eq!(all.wanted(&seen(&other, 0, 10)), None);
    }

    #[test]
    fn a_subscription_begins_where_its_log_ended_and_a_new_one_of_the_filter_changes_nothing_of_that()
     {
        let all = Subscriptions::default();
        all.insert(subscribed("a", 1, None));
        let names = Names::of_published("a");
        for (partition, offset, is_wanted) in [
            (0, 9, false),
            (0, 10, true),
            (1, 19, false),
            (1, 20, true),
            (2, 0, true),
        ] {
            assert_eq!(all.want(&seen(&names, partition, offset)), is_wanted);
        }
        all.insert(Subscribed {
            since: [Offset::new(1_000)].into(),
            ..subscribed("a", 0, None)
        });
        assert_eq!(all.count(), 1);
        assert!(all.want(&seen(&names, 0, 10)));
    }

    #[test]
    fn no_local_leaves_out_what_the_client_published_and_nothing_else() {
        let all = Subscriptions::default();
        all.insert(Subscribed {
            no_local: true,
            ..subscribed("#", 1, None)
        });
        let names = Names::of_published("a");
        let other = seen(&names, 0, 10);
        assert!(all.want(&other));
        assert!(!all.want(&Seen {
            is_own: true,
            ..other
        }));
    }
}
