//! Random members that join, sync, stall, bounce, leave and crash, and a broker that restarts, against what always holds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// The client does the next thing its protocol asks of it.
    Go(usize),
    /// It sends its last request once more.
    Repeat(usize),
    /// It rejoins with another subscription.
    Change(usize),
    Heartbeat(usize),
    Commit(usize),
    Leave(usize),
    /// It forgets everything, as a new process does.
    Crash(usize),
    Pass(u64),
    RestartBroker,
    LoseRecords,
}

#[derive(Clone, Debug)]
struct Client {
    instance: Option<String>,
    metadata: u8,
    member_id: String,
    generation: Generation,
    joining: Option<Ticket>,
    syncing: Option<Ticket>,
    leads: Option<Vec<String>>,
}

impl Client {
    fn new(instance: Option<String>) -> Client {
        Client {
            instance,
            metadata: 0,
            member_id: String::new(),
            generation: Generation::default(),
            joining: None,
            syncing: None,
            leads: None,
        }
    }

    fn forget(&mut self) {
        *self = Client {
            metadata: self.metadata,
            ..Client::new(self.instance.clone())
        };
    }

    fn ask(&self) -> Ask {
        let mut ask = ask(&self.member_id)
            .protocols(&[("range", &self.metadata.to_string()), ("sticky", "")]);
        ask.request.instance_id.clone_from(&self.instance);
        ask
    }
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..6usize;
    prop_oneof![
        12 => who.clone().prop_map(Step::Go),
        1 => who.clone().prop_map(Step::Repeat),
        1 => who.clone().prop_map(Step::Change),
        4 => who.clone().prop_map(Step::Heartbeat),
        2 => who.clone().prop_map(Step::Commit),
        1 => who.clone().prop_map(Step::Leave),
        1 => who.clone().prop_map(Step::Crash),
        4 => (1..8_000u64).prop_map(Step::Pass),
        1 => (20_000..90_000u64).prop_map(Step::Pass),
        1 => Just(Step::RestartBroker),
        1 => Just(Step::LoseRecords),
    ]
}

struct World {
    bench: Bench,
    clients: Vec<Client>,
    /// Every ticket that was ever parked or answered since the broker's start.
    asked: BTreeSet<Ticket>,
    /// Who was told, by whom, to lead which generation.
    leaders: BTreeMap<Generation, String>,
    generation: Generation,
    /// Every generation that anyone was told, over all restarts.
    told: BTreeSet<Generation>,
}

impl World {
    fn new(size_max: usize) -> World {
        let instance = |index: usize| (index >= 4).then(|| format!("static-{index}"));
        World {
            bench: Bench::with(GroupSettings {
                initial_rebalance_delay: Duration::from_millis(DELAY),
                size_max,
                ..GroupSettings::default()
            }),
            clients: (0..6).map(|index| Client::new(instance(index))).collect(),
            asked: BTreeSet::new(),
            leaders: BTreeMap::new(),
            generation: Generation::default(),
            told: BTreeSet::new(),
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Go(who) => self.go(who),
            Step::Repeat(who) => self.repeat(who),
            Step::Change(who) => {
                self.clients[who].metadata = self.clients[who].metadata.wrapping_add(1);
                if !self.clients[who].member_id.is_empty() {
                    self.join(who);
                }
            }
            Step::Heartbeat(who) => self.heartbeat(who),
            Step::Commit(who) => {
                let client = &self.clients[who];
                let claim = MemberClaim {
                    member_id: client.member_id.clone(),
                    instance_id: client.instance.clone(),
                    generation: Some(client.generation),
                };
                let now = self.bench.now();
                if self.bench.group.authorize_commit(now, &claim).is_ok() {
                    assert_eq!(claim.generation, Some(self.bench.group.generation()));
                }
            }
            Step::Leave(who) => {
                let client = self.clients[who].clone();
                self.bench
                    .leave(&[(&client.member_id, client.instance.as_deref())]);
                self.hear();
                self.clients[who].forget();
            }
            Step::Crash(who) => self.clients[who].forget(),
            Step::Pass(millis) => self.bench.pass(millis),
            Step::RestartBroker => {
                self.bench.restart();
                self.asked.clear();
                self.generation = self.bench.group.generation();
                for client in &mut self.clients {
                    client.joining = None;
                    client.syncing = None;
                }
            }
            Step::LoseRecords => {
                let mut effects = Effects::default();
                let now = self.bench.now();
                self.bench.group.on_records_lost(now, &mut effects);
                self.bench.take(effects);
            }
        }
        self.hear();
    }

    fn go(&mut self, who: usize) {
        let client = &self.clients[who];
        if client.joining.is_some() || client.syncing.is_some() {
            return;
        }
        if client.generation > 0 && client.leads.is_some() {
            self.sync(who);
        } else if client.generation == 0 {
            self.join(who);
        } else {
            self.heartbeat(who);
        }
    }

    fn repeat(&mut self, who: usize) {
        let client = &self.clients[who];
        if client.joining.is_some() {
            self.join(who);
        } else if client.syncing.is_some() {
            self.sync(who);
        }
    }

    fn join(&mut self, who: usize) {
        let ticket = self.bench.join(self.clients[who].ask());
        self.asked.insert(ticket);
        self.clients[who].joining = Some(ticket);
        self.clients[who].syncing = None;
    }

    fn sync(&mut self, who: usize) {
        let client = self.clients[who].clone();
        let members = client.leads.unwrap_or_default();
        let assignments = members
            .into_iter()
            .map(|id| {
                (
                    id.clone(),
                    Bytes::from(format!("{}:{id}", client.generation)),
                )
            })
            .collect();
        let ticket = self.bench.sync_with(SyncRequest {
            member_id: client.member_id,
            instance_id: client.instance,
            generation: Some(client.generation),
            protocol_type: Some("consumer".into()),
            protocol: None,
            assignments,
        });
        self.asked.insert(ticket);
        self.clients[who].syncing = Some(ticket);
    }

    fn heartbeat(&mut self, who: usize) {
        let client = &self.clients[who];
        let claim = MemberClaim {
            member_id: client.member_id.clone(),
            instance_id: client.instance.clone(),
            generation: Some(client.generation),
        };
        let now = self.bench.now();
        let result = self.bench.group.heartbeat(now, &claim);
        self.obey(who, result.err());
    }

    /// Each client takes note of its answers, as real clients do.
    fn hear(&mut self) {
        for who in 0..self.clients.len() {
            let joined = self.clients[who]
                .joining
                .and_then(|ticket| self.bench.joins.get(&ticket).cloned());
            match joined {
                None => {}
                Some(Ok(joined)) => self.on_joined(who, joined),
                Some(Err(refused)) => {
                    let client = &mut self.clients[who];
                    client.joining = None;
                    if refused.error == GroupError::MemberIdRequired {
                        client.member_id = refused.member_id;
                        client.generation = Generation::default();
                    } else {
                        self.obey(who, Some(refused.error));
                    }
                }
            }
            let synced = self.clients[who]
                .syncing
                .and_then(|ticket| self.bench.syncs.get(&ticket).cloned());
            if let Some(synced) = synced {
                self.clients[who].syncing = None;
                self.clients[who].leads = None;
                self.obey(who, synced.err());
            }
        }
        // Answers nobody waits for any more still count for who leads.
        for joined in self.bench.joins.values().flatten() {
            if !self.told.contains(&joined.generation) {
                assert!(
                    self.told
                        .last()
                        .is_none_or(|last| *last < joined.generation),
                    "a new generation was not higher"
                );
                self.told.insert(joined.generation);
            }
            if joined.leader == joined.member_id && !joined.skip_assignment {
                let leader = self
                    .leaders
                    .entry(joined.generation)
                    .or_insert_with(|| joined.leader.clone());
                assert_eq!(
                    *leader, joined.leader,
                    "two members were told to lead generation {}",
                    joined.generation
                );
            }
        }
    }

    fn on_joined(&mut self, who: usize, joined: Joined) {
        let client = &mut self.clients[who];
        client.joining = None;
        client.member_id = joined.member_id;
        client.generation = joined.generation;
        client.leads = Some(
            joined
                .members
                .into_iter()
                .map(|member| member.member_id)
                .collect(),
        );
    }

    fn obey(&mut self, who: usize, error: Option<GroupError>) {
        let client = &mut self.clients[who];
        match error {
            None => {}
            Some(GroupError::RebalanceInProgress) => client.generation = Generation::default(),
            Some(_) => client.forget(),
        }
    }

    fn check(&mut self) {
        let group = &self.bench.group;
        let described = group.describe();
        assert!(group.generation() >= self.generation, "the generation fell");
        self.generation = group.generation();
        let parked: Vec<_> = self
            .asked
            .iter()
            .filter(|ticket| self.bench.is_parked(**ticket))
            .collect();
        let waiting = group.parked_count();
        assert_eq!(parked.len(), waiting, "every ticket is parked or answered");
        match described.state {
            GroupState::Empty => {
                assert!(described.members.is_empty());
                assert_eq!(waiting, 0);
            }
            GroupState::Stable => {
                assert!(!described.members.is_empty());
                assert_eq!(waiting, 0, "nobody waits in a stable group");
                let generation = format!("{}:", described.generation);
                for member in &described.members {
                    let is_of_this_generation =
                        member.assignment.starts_with(generation.as_bytes());
                    assert!(
                        is_of_this_generation || member.assignment.is_empty(),
                        "an assignment of another generation"
                    );
                }
            }
            GroupState::PreparingRebalance | GroupState::CompletingRebalance => {}
            GroupState::Dead => panic!("nobody deletes this group"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_members_never_break_what_always_holds(size_max in 2..8usize, steps in prop::collection::vec(step(), 1..250)) {
        let mut world = World::new(size_max);
        for step in &steps {
            world.apply(step);
            world.check();
        }
        // Left alone, whatever is parked is answered, and whoever is not heard of is gone.
        world.bench.pass(20 * 60_000);
        world.hear();
        world.check();
        prop_assert_eq!(world.bench.group.parked_count(), 0);
        prop_assert_eq!(world.bench.group.state(), GroupState::Empty);
    }

    #[test]
    fn members_that_keep_asking_become_stable_after_any_trouble(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new(usize::MAX);
        for step in &steps {
            world.apply(step);
            world.check();
        }
        for _ in 0..400 {
            for who in 0..world.clients.len() {
                world.apply(&Step::Go(who));
            }
            world.apply(&Step::Pass(1_000));
            world.check();
        }
        prop_assert_eq!(world.bench.group.state(), GroupState::Stable);
        prop_assert_eq!(world.bench.group.describe().members.len(), 6);
    }
}
