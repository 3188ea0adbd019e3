//! What is done to the group and when, fixed by a seed: a pure function. Caller: `chaos::run`.
//! Invariants: every step is possible when it comes (nobody is stalled who is away); the broker is up, and nobody is
//! stalled, when the last step is done; every kind of deed comes before one comes for the third time.

use crate::exam::random::Random;
use std::collections::BTreeMap;
use std::time::Duration;

/// A client's name, as its programs are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// kafka-python.
    KafkaPython,
    /// confluent-kafka, which is librdkafka.
    Librdkafka,
    /// franz-go.
    FranzGo,
    /// The Java client.
    Java,
}

/// A place for a member: the client that takes it, and whether it has an instance id.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// A name for logs; the instance id too.
    pub name: &'static str,
    /// Which client's program.
    pub client: Client,
    /// Whether it is a static member.
    pub is_static: bool,
}

const fn seat(name: &'static str, client: Client, is_static: bool) -> Seat {
    Seat {
        name,
        client,
        is_static,
    }
}

/// All seats. The first four are one of each client, two of them static.
pub const SEATS: [Seat; 8] = [
    seat("kafka-python", Client::KafkaPython, false),
    seat("librdkafka-static", Client::Librdkafka, true),
    seat("franz-go", Client::FranzGo, false),
    seat("java-static", Client::Java, true),
    seat("librdkafka", Client::Librdkafka, false),
    seat("kafka-python-static", Client::KafkaPython, true),
    seat("java", Client::Java, false),
    seat("franz-go-static", Client::FranzGo, true),
];

/// A seat's number.
pub type SeatNumber = usize;

/// Something that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A program takes its seat.
    Join(SeatNumber),
    /// It is told to leave.
    Leave(SeatNumber),
    /// SIGKILL.
    Crash(SeatNumber),
    /// SIGSTOP.
    Stall(SeatNumber),
    /// SIGCONT.
    Wake(SeatNumber),
    /// A second program takes the instance id of one that is stalled.
    Double(SeatNumber),
    /// SIGKILL to the broker.
    KillBroker,
    /// SIGTERM to the broker.
    StopBroker,
    /// The broker is started again.
    StartBroker,
}

/// A deed and its time since the begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

/// Kinds of deeds as they are drawn; what follows from them (waking, coming back) is planned with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Join,
    Leave,
    Crash,
    CrashStatic,
    Stall,
    LongStall,
    Double,
    KillBroker,
    StopBroker,
}

const DECK: [Kind; 13] = [
    Kind::Join,
    Kind::Join,
    Kind::Leave,
    Kind::Crash,
    Kind::CrashStatic,
    Kind::Stall,
    Kind::LongStall,
    Kind::LongStall,
    Kind::LongStall,
    Kind::Double,
    Kind::KillBroker,
    Kind::KillBroker,
    Kind::StopBroker,
];

/// How long members keep still until the group throws them out; stalls are shorter and longer than that.
pub const SESSION: Duration = Duration::from_secs(3);
/// Never fewer run than this.
const RUNNING_MIN: usize = 2;
/// The first members may need this long to start.
const FIRST_MS: u64 = 3_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nobody is there, and nobody is on the way.
    Empty,
    /// Whoever was there is back at this time.
    Returning,
    Running,
    Stalled,
}

/// The steps of a seed, in order, for the first `seats` of [`SEATS`], about `length` long.
pub fn plan(seed: u64, seats: usize, length: Duration) -> Vec<Step> {
    let mut planner = Planner {
        random: Random::new(seed),
        places: vec![Place::Empty; seats],
        steps: BTreeMap::new(),
        broker_up_at_ms: 0,
    };
    for seat in 0..seats.min(4) {
        planner.places[seat] = Place::Running;
        planner.add(0, Deed::Join(seat));
    }
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut deck = Vec::new();
    let mut at_ms = FIRST_MS;
    while at_ms < length_ms {
        if deck.is_empty() {
            deck = shuffled(&mut planner.random);
        }
        planner.settle(at_ms);
        // What cannot be done now comes later.
        if let Some(index) = deck
            .iter()
            .position(|kind| planner.draw(*kind, at_ms, length_ms))
        {
            deck.remove(index);
        }
        at_ms += planner.random.between(500, 2_000);
    }
    let of_moment = |(at_ms, deeds): (u64, Vec<Deed>)| {
        deeds.into_iter().map(move |deed| Step {
            at: Duration::from_millis(at_ms),
            deed,
        })
    };
    planner.steps.into_iter().flat_map(of_moment).collect()
}

fn shuffled(random: &mut Random) -> Vec<Kind> {
    let mut deck = DECK.to_vec();
    for index in (1..deck.len()).rev() {
        let other = random.between(0, index as u64 + 1) as usize;
        deck.swap(index, other);
    }
    deck
}

struct Planner {
    random: Random,
    /// As they are after all steps up to now.
    places: Vec<Place>,
    steps: BTreeMap<u64, Vec<Deed>>,
    broker_up_at_ms: u64,
}

impl Planner {
    fn add(&mut self, at_ms: u64, deed: Deed) {
        self.steps.entry(at_ms).or_default().push(deed);
    }

    /// Carries out what was planned for the time up to now.
    fn settle(&mut self, now_ms: u64) {
        for seat in 0..self.places.len() {
            let last = self
                .steps
                .range(..=now_ms)
                .flat_map(|(_, deeds)| deeds)
                .rfind(|deed| of_seat(**deed) == Some(seat));
            let will = self
                .steps
                .range(now_ms + 1..)
                .flat_map(|(_, deeds)| deeds)
                .any(|deed| of_seat(*deed) == Some(seat));
            self.places[seat] = match (last, will) {
                (Some(Deed::Stall(_) | Deed::Double(_)), true) => Place::Stalled,
                (Some(Deed::Join(_) | Deed::Wake(_) | Deed::Double(_) | Deed::Stall(_)), false) => {
                    Place::Running
                }
                (Some(Deed::Crash(_)), true) => Place::Returning,
                (_, true) => Place::Returning,
                (_, false) => Place::Empty,
            };
        }
    }

    /// Plans a deed of this kind with what follows from it; false if it is not possible now.
    fn draw(&mut self, kind: Kind, now_ms: u64, end_ms: u64) -> bool {
        let running = self.seats(|place, _| place == Place::Running);
        let enough = running.len() > RUNNING_MIN;
        let returns = |planner: &mut Planner, seat| {
            let back = now_ms + planner.random.between(200, 6_000);
            planner.add(back.min(end_ms), Deed::Join(seat));
        };
        match kind {
            Kind::Join => {
                let empty = self.seats(|place, _| place == Place::Empty);
                self.pick(&empty, |planner, seat| {
                    planner.add(now_ms, Deed::Join(seat))
                })
            }
            Kind::Leave => {
                enough
                    && self.pick(&running, |planner, seat| {
                        planner.add(now_ms, Deed::Leave(seat))
                    })
            }
            Kind::Crash | Kind::CrashStatic => {
                let wanted = self.seats(|place, seat| {
                    place == Place::Running && (kind == Kind::Crash || seat.is_static)
                });
                enough
                    && self.pick(&wanted, |planner, seat| {
                        planner.add(now_ms, Deed::Crash(seat));
                        returns(planner, seat);
                    })
            }
            Kind::Stall | Kind::LongStall => {
                let session = u64::try_from(SESSION.as_millis()).unwrap_or(u64::MAX);
                // Whoever wakes after its session is likely to commit for a generation that is over.
                let (low, high) = match kind {
                    Kind::LongStall => (session + 500, 2 * session + 500),
                    _ => (300, session),
                };
                enough
                    && self.pick(&running, |planner, seat| {
                        planner.add(now_ms, Deed::Stall(seat));
                        let wakes = now_ms + planner.random.between(low, high);
                        planner.add(wakes.min(end_ms), Deed::Wake(seat));
                    })
            }
            Kind::Double => {
                let wanted = self.seats(|place, seat| place == Place::Running && seat.is_static);
                enough
                    && self.pick(&wanted, |planner, seat| {
                        let doubled = now_ms + planner.random.between(100, 2_000);
                        let wakes = doubled + planner.random.between(1_000, 5_000);
                        planner.add(now_ms, Deed::Stall(seat));
                        planner.add(doubled.min(end_ms), Deed::Double(seat));
                        planner.add(wakes.min(end_ms), Deed::Wake(seat));
                    })
            }
            Kind::KillBroker | Kind::StopBroker => {
                if now_ms <= self.broker_up_at_ms {
                    return false;
                }
                let back = (now_ms + self.random.between(50, 2_500)).min(end_ms);
                self.broker_up_at_ms = back;
                let deed = if kind == Kind::KillBroker {
                    Deed::KillBroker
                } else {
                    Deed::StopBroker
                };
                self.add(now_ms, deed);
                self.add(back, Deed::StartBroker);
                true
            }
        }
    }

    fn seats(&self, wanted: impl Fn(Place, Seat) -> bool) -> Vec<SeatNumber> {
        (0..self.places.len())
            .filter(|seat| wanted(self.places[*seat], SEATS[*seat]))
            .collect()
    }

    fn pick(&mut self, from: &[SeatNumber], act: impl FnOnce(&mut Planner, SeatNumber)) -> bool {
        if from.is_empty() {
            return false;
        }
        let index = self.random.between(0, from.len() as u64) as usize;
        act(self, from[index]);
        true
    }
}

fn of_seat(deed: Deed) -> Option<SeatNumber> {
    match deed {
        Deed::Join(seat)
        | Deed::Leave(seat)
        | Deed::Crash(seat)
        | Deed::Stall(seat)
        | Deed::Wake(seat)
        | Deed::Double(seat) => Some(seat),
        Deed::KillBroker | Deed::StopBroker | Deed::StartBroker => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_seed_fixes_the_schedule() {
        assert_eq!(plan(7, 8, MINUTE), plan(7, 8, MINUTE));
        assert_ne!(plan(7, 8, MINUTE), plan(8, 8, MINUTE));
    }

    #[test]
    fn every_step_is_possible_when_it_comes_and_the_end_is_calm() {
        #[derive(Clone, Copy, PartialEq, Debug)]
        enum Now {
            Away,
            Running,
            Stalled,
            Doubled,
        }
        for seed in 0..500 {
            for (seats, length) in [(4, Duration::from_secs(20)), (8, MINUTE)] {
                let mut now = vec![Now::Away; seats];
                let mut broker_is_up = true;
                for Step { at, deed } in plan(seed, seats, length) {
                    assert!(at <= length, "seed {seed}");
                    let (seat, from, to) = match deed {
                        Deed::Join(seat) => (seat, Now::Away, Now::Running),
                        Deed::Leave(seat) | Deed::Crash(seat) => (seat, Now::Running, Now::Away),
                        Deed::Stall(seat) => (seat, Now::Running, Now::Stalled),
                        Deed::Double(seat) => (seat, Now::Stalled, Now::Doubled),
                        Deed::Wake(seat) if now[seat] == Now::Doubled => {
                            (seat, Now::Doubled, Now::Running)
                        }
                        Deed::Wake(seat) => (seat, Now::Stalled, Now::Running),
                        Deed::KillBroker | Deed::StopBroker => {
                            assert!(broker_is_up, "seed {seed}");
                            broker_is_up = false;
                            continue;
                        }
                        Deed::StartBroker => {
                            assert!(!broker_is_up, "seed {seed}");
                            broker_is_up = true;
                            continue;
                        }
                    };
                    assert_eq!(now[seat], from, "seed {seed}, {deed:?} at {at:?}");
                    now[seat] = to;
                    assert!(
                        deed != Deed::Double(seat) || SEATS[seat].is_static,
                        "seed {seed}"
                    );
                }
                assert!(broker_is_up, "seed {seed}");
                let running = now.iter().filter(|now| **now == Now::Running).count();
                assert!(running >= RUNNING_MIN, "seed {seed}: {now:?}");
                assert!(
                    !now.contains(&Now::Stalled) && !now.contains(&Now::Doubled),
                    "seed {seed}"
                );
            }
        }
    }

    #[test]
    fn a_minute_has_every_kind_of_deed() {
        for seed in 0..100 {
            let kinds: std::collections::HashSet<_> = plan(seed, 8, MINUTE)
                .iter()
                .map(|step| std::mem::discriminant(&step.deed))
                .collect();
            assert_eq!(kinds.len(), 9, "seed {seed}");
        }
    }
}
