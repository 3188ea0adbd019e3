//! What consumers have settled in a transaction: it stays theirs until that is discharged.
//! Callers: `queue` makes pins of deliveries, `transactions` keeps them.

use amqp::endpoint::{Endpoint, LinkId};
use model::Offset;
use tokio::sync::mpsc;

use super::again::Sent;
use super::outcome::{Outcome, Ranges};
use crate::broker::share::{Place, Settlement, ShareConsumer, Verdict};

/// A delivery.
pub(super) struct Pin {
    pub(super) link: LinkId,
    pub(super) id: u32,
    pub(super) place: Place,
    pub(super) offset: Offset,
    pub(super) outcome: Outcome,
    /// Whether its consumer has settled it.
    pub(super) is_settled: bool,
    pub(super) said: ShareConsumer,
    /// Its consumer gives up nothing before this is gone.
    pub(super) _held: mpsc::Sender<()>,
}

impl Pin {
    /// Tells the consumer that what it said is done.
    pub(super) fn tell(&self, endpoint: &mut Endpoint) {
        let ids = (self.id, self.id);
        endpoint.settle_sent(self.link.channel, ids, Some(self.outcome.state()));
    }
}

/// A delivery of a topic, which its consumer does not share.
pub(super) struct TopicPin {
    pub(super) link: LinkId,
    pub(super) id: u32,
    pub(super) outcome: Outcome,
    /// Whether its consumer has settled it.
    pub(super) is_settled: bool,
    pub(super) sent: Sent,
}

/// Deliveries that go into a transaction, or come back of one.
#[derive(Default)]
pub(super) struct Pinned {
    /// Those of queues and subscriptions that are kept.
    pub(super) shared: Vec<Pin>,
    pub(super) of_topics: Vec<TopicPin>,
}

impl Pinned {
    pub(super) fn add(&mut self, other: Pinned) {
        self.shared.extend(other.shared);
        self.of_topics.extend(other.of_topics);
    }

    /// Tells consumers that what they said is done.
    pub(super) fn tell(&self, endpoint: &mut Endpoint) {
        self.shared.iter().for_each(|it| it.tell(endpoint));
        for pin in &self.of_topics {
            let ids = (pin.id, pin.id);
            endpoint.settle_sent(pin.link.channel, ids, Some(pin.outcome.state()));
        }
    }
}

/// Those of a transaction.
#[derive(Default)]
pub(super) struct Pins(Pinned);

impl Pins {
    pub(super) fn add(&mut self, pins: Pinned) {
        self.0.add(pins);
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.0.shared.len() + self.0.of_topics.len()
    }

    /// What is done with all of them.
    pub(super) fn settlements(&self) -> Vec<Settlement> {
        let mut pins: Vec<&Pin> = self.0.shared.iter().collect();
        pins.sort_by_key(|it| (it.link, it.place, it.offset));
        let of_one = pins.chunk_by(|one, next| one.link == next.link && one.place == next.place);
        let settlement = |pins: &[&Pin]| {
            let mut verdicts: Vec<(std::ops::Range<Offset>, Verdict)> = Vec::new();
            for pin in pins {
                let verdict = pin.outcome.verdict();
                match verdicts.last_mut() {
                    Some((range, last)) if range.end == pin.offset && *last == verdict => {
                        range.end = pin.offset.plus(1);
                    }
                    _ => verdicts.push((pin.offset..pin.offset.plus(1), verdict)),
                }
            }
            pins[0].said.settlement(pins[0].place, verdicts)
        };
        of_one.map(settlement).collect()
    }

    /// They are done. Gives those whose consumers wait to hear of it.
    pub(super) fn committed(mut self) -> Pinned {
        self.0.shared.retain(|it| !it.is_settled);
        self.0.of_topics.retain(|it| !it.is_settled);
        self.0
    }

    /// They are not done. Gives those that their consumers have not settled, and those of topics; the others anybody may have, and the
    /// deliveries count.
    pub(super) fn roll_back(self) -> Pinned {
        let Pinned { shared, of_topics } = self.0;
        let (settled, shared) = shared.into_iter().partition(|it| it.is_settled);
        give_up(settled);
        Pinned { shared, of_topics }
    }
}

/// Deliveries that their consumers know nothing of any more: anybody may have them.
pub(super) fn give_up(pins: Vec<Pin>) {
    if pins.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let mut pins = pins;
        pins.sort_by_key(|it| (it.link, it.place, it.offset));
        for of_one in pins.chunk_by(|one, next| one.link == next.link) {
            let mut ranges = Ranges::default();
            of_one.iter().for_each(|it| ranges.add(it.place, it.offset));
            if let Err(error) = ranges.settle(&of_one[0].said, Verdict::Release).await {
                tracing::debug!(%error, "what a transaction held is held by its consumer");
            }
        }
    });
}
