//! Messages that a client was sent and has not acknowledged, by identifier (§4.3, §4.4).
//! Callers: `outbound`. Pure. Invariants: no more than the client takes are in flight, and each identifier is one message's at a time,
//! those of an earlier connection that are still to be sent again among them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::packet::Qos;
use crate::broker::place::Place;
use crate::broker::sessions::Pending;

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    Puback,
    Pubrec,
    Pubcomp,
}

/// Where a message came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The log.
    Log(Place),
    /// What was retained, for this filter, behind this name.
    Retained(Arc<str>, Arc<str>),
    /// The client's shared subscription of this number, to which it goes back if it is not finished.
    Shared(u64, Place),
}

/// A message in flight.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) waits: Waits,
    pub(super) from: Source,
}

/// See the module.
pub(super) struct Window {
    count_max: usize,
    pub(super) sent: BTreeMap<u16, Sent>,
    /// Messages that are to be sent again, by place, with the QoS that they were sent with.
    pub(super) again: BTreeMap<Place, Vec<(u16, Qos)>>,
    last_id: u16,
}

impl Window {
    /// An empty one.
    pub(super) fn new(count_max: usize) -> Window {
        Window {
            count_max,
            sent: BTreeMap::new(),
            again: BTreeMap::new(),
            last_id: 0,
        }
    }

    /// Whether nothing is in flight, and nothing is to be sent again.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.again.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// So many further messages may be in flight.
    pub(super) fn room(&self) -> usize {
        self.count_max.saturating_sub(self.sent.len())
    }

    /// Messages that are to be sent again, each with its place.
    fn all_again(&self) -> impl Iterator<Item = (Place, u16, Qos)> {
        let all = self.again.iter();
        all.flat_map(|(place, all)| all.iter().map(|(id, qos)| (*place, *id, *qos)))
    }

    /// Whether messages of a shared subscription are in flight that go back to it if they are not finished.
    pub(super) fn has_shared(&self, number: u64) -> bool {
        let mut sent = self.sent.values();
        sent.any(|sent| {
            sent.waits == Waits::Puback
                && matches!(sent.from, Source::Shared(of, _) if of == number)
        })
    }

    /// Puts a message in flight, under an identifier of its own; 0 for one that nobody acknowledges.
    pub(super) fn take(&mut self, qos: Qos, from: Source) -> u16 {
        if qos == Qos::AtMostOnce {
            return 0;
        }
        let packet_id = self.free_id();
        self.put(packet_id, qos, from);
        packet_id
    }

    /// Whether a message is to be sent again under this identifier.
    pub(super) fn is_to_come(&self, packet_id: u16) -> bool {
        self.all_again().any(|(_, id, _)| id == packet_id)
    }

    /// An identifier that no message has. There is one: the window is smaller than there are.
    pub(super) fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.is_to_come(self.last_id) && !self.sent.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// A message is in flight, under this identifier.
    pub(super) fn put(&mut self, packet_id: u16, qos: Qos, from: Source) {
        let waits = match qos {
            Qos::ExactlyOnce => Waits::Pubrec,
            Qos::AtMostOnce | Qos::AtLeastOnce => Waits::Puback,
        };
        self.sent.insert(packet_id, Sent { waits, from });
    }

    /// What is not done of what is sent exactly once, in the order of the log.
    pub(super) fn pending(&self) -> Vec<Pending> {
        let sent = self.sent.iter().filter_map(|(id, sent)| match &sent.from {
            Source::Log(place) | Source::Shared(_, place) if sent.waits != Waits::Puback => {
                Some(Pending {
                    packet_id: *id,
                    place: *place,
                    is_released: sent.waits == Waits::Pubcomp,
                })
            }
            _ => None,
        });
        let again = self.all_again().filter_map(|(place, packet_id, qos)| {
            (qos == Qos::ExactlyOnce).then_some(Pending {
                packet_id,
                place,
                is_released: false,
            })
        });
        let mut pending: Vec<_> = sent.chain(again).collect();
        pending.sort_unstable_by_key(|it| it.place);
        pending
    }

    /// What was sent at least once and is not acknowledged, in the order of the log.
    pub(super) fn unacked(&self) -> Vec<(u16, Place)> {
        let sent = self.sent.iter().filter_map(|(id, sent)| match &sent.from {
            Source::Log(place) if sent.waits == Waits::Puback => Some((*id, *place)),
            _ => None,
        });
        let again = self.all_again();
        let again =
            again.filter_map(|(place, id, qos)| (qos != Qos::ExactlyOnce).then_some((id, place)));
        let mut unacked: Vec<_> = sent.chain(again).collect();
        unacked.sort_unstable_by_key(|(_, place)| *place);
        unacked
    }

    /// Whether retained messages are among them.
    pub(super) fn has_retained(&self) -> bool {
        let mut sent = self.sent.values();
        sent.any(|sent| matches!(sent.from, Source::Retained(..)))
    }

    /// Behind which name a filter's retained messages are not all done, of those in flight.
    pub(super) fn retained_behind(&self, filter: &str) -> Option<Arc<str>> {
        let in_flight = self.sent.values().filter_map(|sent| match &sent.from {
            Source::Retained(of, behind) if &**of == filter => Some(Arc::clone(behind)),
            _ => None,
        });
        in_flight.min()
    }
}

#[cfg(test)]
mod tests {
    use model::{Offset, PartitionId, TopicId};

    use super::*;

    fn at(offset: u64) -> Place {
        Place {
            topic: TopicId::from_uuid(uuid::Uuid::from_u128(7)),
            partition: PartitionId::new(0),
            offset: Offset::new(offset),
        }
    }

    #[test]
    fn identifiers_are_one_messages_each_and_what_is_kept_is_in_the_order_of_the_log() {
        let mut window = Window::new(4);
        window.again.insert(at(1), vec![(2, Qos::AtLeastOnce)]);
        window.again.insert(at(2), vec![(3, Qos::ExactlyOnce)]);
        let one = window.take(Qos::AtLeastOnce, Source::Log(at(9)));
        let two = window.take(Qos::ExactlyOnce, Source::Log(at(5)));
        assert_eq!((one, two), (1, 4), "2 and 3 are to be sent again");
        assert_eq!(window.unacked(), [(2, at(1)), (1, at(9))]);
        let pending: Vec<_> = window.pending().iter().map(|it| it.packet_id).collect();
        assert_eq!(pending, [3, 4]);
        let retained = |name: &str| Source::Retained("a/#".into(), name.into());
        window.take(Qos::AtLeastOnce, retained("a/7"));
        assert!(window.has_room());
        window.take(Qos::AtLeastOnce, retained("a/3"));
        assert!(!window.has_room());
        assert_eq!(window.retained_behind("a/#").as_deref(), Some("a/3"));
        assert_eq!(window.retained_behind("#"), None);
        assert_eq!(window.pending().len(), 2);
    }

    #[test]
    fn of_what_is_shared_the_session_keeps_what_is_sent_exactly_once() {
        let mut window = Window::new(4);
        let once = window.take(Qos::ExactlyOnce, Source::Shared(1, at(5)));
        assert!(!window.has_shared(1), "the others have finished it");
        let often = window.take(Qos::AtLeastOnce, Source::Shared(1, at(6)));
        assert!(window.has_shared(1) && !window.has_shared(2));
        assert_eq!((window.room(), window.unacked()), (2, Vec::new()));
        let pending: Vec<_> = window.pending().iter().map(|it| it.packet_id).collect();
        assert_eq!((pending, often), (vec![once], 2));
    }
}
