//! Judges the history of a group: a pure function, so that histories which must fail can be shown to it.
//! Caller: `chaos::run`. What must hold:
//!
//! - *owned twice*: within a generation no partition has two owners;
//! - *forgotten*: whenever the group is stable, its members' assignments cover every partition once; and when the dust
//!   has settled, the living members themselves own every partition once, in one generation, and every acknowledged
//!   record was seen, with its own value;
//! - *moved back*: generations only rise; no commit that begins after another's acknowledgement is acknowledged with less;
//! - *lost*: whatever the broker shows as committed is no less than what was acknowledged before it was asked, and
//!   nothing that nobody tried to commit;
//! - *not fenced*: no commit is acknowledged to a member of a generation that is known to be over, nor to a program whose
//!   instance id another has taken;
//! - *failed*: no program ends by itself.

use super::history::{Ending, History, Partition, Telling, What, Who};
use std::collections::{BTreeMap, BTreeSet};

/// What came of a history.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What did not hold; empty if all did.
    pub violations: Vec<String>,
    /// How much there was to judge.
    pub counts: Counts,
}

/// How much a history holds: too little of it proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Generations in which somebody owned something.
    pub generations: usize,
    /// Assignments that members told.
    pub assignments: usize,
    /// Times that the broker described the group as stable.
    pub described: usize,
    /// Records acknowledged.
    pub produced: usize,
    /// Records shown to members, repetitions included.
    pub seen: usize,
    /// Commits acknowledged.
    pub committed: usize,
    /// Commits refused, or of unknown fate.
    pub refused: usize,
    /// Programs that were fenced.
    pub fenced: usize,
}

/// Judges a history, whose events are in order.
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict {
        violations: Vec::new(),
        counts: count(history),
    };
    owned_once(history, &mut verdict);
    generations_rise(history, &mut verdict);
    stable_groups_are_complete(history, &mut verdict);
    commits_stay(history, &mut verdict);
    fences_hold(history, &mut verdict);
    all_is_seen(history, &mut verdict);
    the_end_is_complete(history, &mut verdict);
    nobody_failed(history, &mut verdict);
    verdict
}

impl Verdict {
    fn require(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(what());
        }
    }
}

fn count(history: &History) -> Counts {
    let mut counts = Counts::default();
    let mut generations = BTreeSet::new();
    for event in &history.events {
        match &event.what {
            What::Told(_, Telling::Assigned { generation, .. }) => {
                counts.assignments += 1;
                generations.insert(*generation);
            }
            What::Told(_, Telling::Seen { records, .. }) => counts.seen += records.len(),
            What::Told(_, Telling::Committed { .. }) => counts.committed += 1,
            What::Told(_, Telling::Refused { .. }) => counts.refused += 1,
            What::Told(_, Telling::Fenced { .. }) => counts.fenced += 1,
            What::Stable(_) => counts.described += 1,
            What::Produced { .. } => counts.produced += 1,
            _ => {}
        }
    }
    counts.generations = generations.len();
    counts
}

/// Assignments that members told, with a generation that they still had.
fn assignments(history: &History) -> impl Iterator<Item = (u64, &Who, i64, &[Partition])> {
    history.events.iter().filter_map(|event| match &event.what {
        What::Told(
            who,
            Telling::Assigned {
                generation,
                partitions,
            },
        ) if *generation >= 0 => Some((event.at_us, who, *generation, &partitions[..])),
        _ => None,
    })
}

fn owned_once(history: &History, verdict: &mut Verdict) {
    let mut owners: BTreeMap<(i64, Partition), &str> = BTreeMap::new();
    for (_, who, generation, partitions) in assignments(history) {
        for partition in partitions {
            let owner = owners.entry((generation, *partition)).or_insert(&who.owner);
            verdict.require(*owner == who.owner, || {
                format!("owned twice: in generation {generation} partition {partition} by {owner} and by {}", who.owner)
            });
        }
    }
}

/// For one owner in the order of its assignments, and for everyone who comes after a generation was seen.
fn generations_rise(history: &History, verdict: &mut Verdict) {
    let mut highest = -1;
    let mut least: BTreeMap<&str, (i64, String)> = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            What::Started(who) => {
                least.insert(&who.process, (highest, "when it was started".to_owned()));
            }
            What::Told(who, Telling::Assigned { generation, .. }) if *generation >= 0 => {
                let entry = least.entry(&who.process).or_insert((-1, String::new()));
                let (least, since) = entry.clone();
                verdict.require(*generation >= least, || {
                    format!("moved back: {} is assigned in generation {generation}, after generation {least} {since}", who.process)
                });
                *entry = (least.max(*generation), "was its own".to_owned());
                highest = highest.max(*generation);
            }
            _ => {}
        }
    }
}

fn stable_groups_are_complete(history: &History, verdict: &mut Verdict) {
    for event in &history.events {
        let What::Stable(members) = &event.what else {
            continue;
        };
        let mut owners: BTreeMap<Partition, Vec<&str>> = (0..history.partition_count)
            .map(|partition| (partition, Vec::new()))
            .collect();
        for member in members {
            for partition in &member.partitions {
                owners
                    .entry(*partition)
                    .or_default()
                    .push(&member.member_id);
            }
        }
        for (partition, owners) in owners {
            verdict.require(owners.len() == 1, || {
                let fault = if owners.is_empty() { "forgotten" } else { "owned twice" };
                format!("{fault}: at {} the group is stable, and partition {partition} is owned by {owners:?}", event.at_us)
            });
        }
    }
}

/// One member's attempt to commit, and its end.
struct Commit<'a> {
    who: &'a Who,
    begun_us: u64,
    /// None if it was refused, or nobody knows.
    acknowledged: Option<Acknowledged>,
    offsets: &'a BTreeMap<Partition, u64>,
}

#[derive(Clone, Copy)]
struct Acknowledged {
    at_us: u64,
    /// The member's generation after the attempt, if it was the same before: that is what the attempt named.
    generation: Option<i64>,
}

/// Every attempt in the order in which they began. A program has one at a time.
fn commits(history: &History) -> Vec<Commit<'_>> {
    let mut commits: Vec<Commit<'_>> = Vec::new();
    let mut open: BTreeMap<&str, (usize, i64)> = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            What::Told(
                who,
                Telling::Committing {
                    generation,
                    offsets,
                },
            ) => {
                open.insert(&who.process, (commits.len(), *generation));
                commits.push(Commit {
                    who,
                    begun_us: event.at_us,
                    acknowledged: None,
                    offsets,
                });
            }
            What::Told(who, Telling::Committed { generation }) => {
                if let Some((index, before)) = open.remove(&who.process[..]) {
                    commits[index].acknowledged = Some(Acknowledged {
                        at_us: event.at_us,
                        generation: (before == *generation && before >= 0).then_some(before),
                    });
                }
            }
            What::Told(who, Telling::Refused { .. }) => {
                open.remove(&who.process[..]);
            }
            _ => {}
        }
    }
    commits
}

/// What is known to be committed, as time goes on.
#[derive(Clone, Copy)]
enum Mark<'a> {
    Begun(usize, &'a Commit<'a>),
    Acknowledged(usize, &'a Commit<'a>),
    Asked(usize),
    Answered(usize, &'a BTreeMap<Partition, u64>),
}

/// The highest offset of each partition that counts as committed, and why.
type Known = BTreeMap<Partition, (u64, String)>;

fn commits_stay(history: &History, verdict: &mut Verdict) {
    let commits = commits(history);
    let mut marks: Vec<(u64, Mark<'_>)> = Vec::new();
    for (number, commit) in commits.iter().enumerate() {
        marks.push((commit.begun_us, Mark::Begun(number, commit)));
        if let Some(acknowledged) = commit.acknowledged {
            marks.push((acknowledged.at_us, Mark::Acknowledged(number, commit)));
        }
    }
    for (number, event) in history.events.iter().enumerate() {
        if let What::Fetched { begun_us, offsets } = &event.what {
            marks.push((*begun_us, Mark::Asked(number)));
            marks.push((event.at_us, Mark::Answered(number, offsets)));
        }
    }
    marks.sort_by_key(|(at_us, _)| *at_us);
    // What was known when an attempt or a question began is what its end is held against.
    let mut known = Known::new();
    let mut known_at_begin: BTreeMap<usize, Known> = BTreeMap::new();
    let mut known_when_asked: BTreeMap<usize, Known> = BTreeMap::new();
    let mut tried: BTreeMap<Partition, BTreeSet<u64>> = BTreeMap::new();
    for (at_us, mark) in marks {
        match mark {
            Mark::Begun(number, commit) => {
                known_at_begin.insert(number, known.clone());
                for (partition, offset) in commit.offsets {
                    tried.entry(*partition).or_default().insert(*offset);
                }
            }
            Mark::Acknowledged(number, commit) => {
                let before = known_at_begin.remove(&number).unwrap_or_default();
                for (partition, offset) in commit.offsets {
                    if let Some((least, whose)) = before.get(partition) {
                        verdict.require(offset >= least, || {
                            format!(
                                "moved back: partition {partition} is committed at {offset} by {}, begun at {}, after {least} {whose}",
                                commit.who.process, commit.begun_us
                            )
                        });
                    }
                    raise(&mut known, *partition, *offset, || {
                        format!("was acknowledged to {} at {at_us}", commit.who.process)
                    });
                }
            }
            Mark::Asked(number) => {
                known_when_asked.insert(number, known.clone());
            }
            Mark::Answered(number, offsets) => {
                for (partition, (least, whose)) in
                    known_when_asked.remove(&number).unwrap_or_default()
                {
                    let shown = offsets.get(&partition).copied();
                    verdict.require(shown.is_some_and(|shown| shown >= least), || {
                        format!("lost: at {at_us} partition {partition} is committed at {shown:?}, after {least} {whose}")
                    });
                }
                for (partition, offset) in offsets {
                    let was_tried = tried
                        .get(partition)
                        .is_some_and(|tried| tried.contains(offset));
                    verdict.require(was_tried, || {
                        format!("invented: at {at_us} partition {partition} is committed at {offset}, which nobody tried")
                    });
                    raise(&mut known, *partition, *offset, || {
                        format!("was shown at {at_us}")
                    });
                }
            }
        }
    }
}

fn raise(known: &mut Known, partition: Partition, offset: u64, whose: impl FnOnce() -> String) {
    if known.get(&partition).is_none_or(|(old, _)| *old < offset) {
        known.insert(partition, (offset, whose()));
    }
}

fn fences_hold(history: &History, verdict: &mut Verdict) {
    let commits = commits(history);
    let acknowledged = commits
        .iter()
        .filter_map(|commit| Some((commit, commit.acknowledged?)));
    let mut over: Option<(i64, &Who, u64)> = None;
    let mut bearers: BTreeMap<&str, (&Who, u64)> = BTreeMap::new();
    // What was told until a commit began is what the broker knew by then.
    let mut told = assignments(history).peekable();
    for (commit, end) in acknowledged {
        while let Some((at_us, who, generation, _)) = told.next_if(|told| told.0 < commit.begun_us)
        {
            if over.is_none_or(|(highest, _, _)| highest < generation) {
                over = Some((generation, who, at_us));
            }
            bearers.insert(&who.owner, (who, at_us));
        }
        if let (Some(named), Some((highest, who, at_us))) = (end.generation, over) {
            verdict.require(named >= highest, || {
                format!(
                    "not fenced: {} commits in generation {named} at {}, and {} was assigned in generation {highest} at {at_us}",
                    commit.who.process, commit.begun_us, who.process
                )
            });
        }
        if let Some((bearer, at_us)) = bearers.get(&commit.who.owner[..]) {
            verdict.require(bearer.process == commit.who.process, || {
                format!(
                    "not fenced: {} commits at {}, and {} had its instance id since {at_us}",
                    commit.who.process, commit.begun_us, bearer.process
                )
            });
        }
    }
}

/// Which acknowledged records nobody saw, and what was seen that is wrong.
pub fn all_is_seen(history: &History, verdict: &mut Verdict) {
    let mut values: BTreeMap<(Partition, u64), &str> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut sent = BTreeSet::new();
    for event in &history.events {
        let records: Vec<(Partition, u64, &str)> = match &event.what {
            What::Produced {
                partition,
                offset,
                value,
            } => {
                sent.insert((*partition, *offset));
                vec![(*partition, *offset, value)]
            }
            What::Told(who, Telling::Seen { partition, records }) => {
                let mut last = None;
                for (offset, _) in records {
                    verdict.require(last.is_none_or(|last| *offset == last + 1), || {
                        format!(
                            "forgotten: {} is shown {partition}:{offset} after {last:?}",
                            who.process
                        )
                    });
                    last = Some(*offset);
                    seen.insert((*partition, *offset));
                }
                let at = |(offset, value)| (*partition, offset, value);
                records
                    .iter()
                    .map(|(offset, value)| at((*offset, value.as_str())))
                    .collect()
            }
            _ => continue,
        };
        for (partition, offset, value) in records {
            let known = values.entry((partition, offset)).or_insert(value);
            verdict.require(*known == value, || {
                format!("invented: {partition}:{offset} says `{known}` and `{value}`")
            });
        }
    }
    let missing: Vec<String> = sent
        .difference(&seen)
        .map(|(partition, offset)| format!("{partition}:{offset}"))
        .collect();
    verdict.require(missing.is_empty(), || {
        let first = missing[..missing.len().min(5)].join(", ");
        format!(
            "forgotten: {} acknowledged records were seen by nobody: {first}",
            missing.len()
        )
    });
}

/// What is wrong with who owns what in the end: before all settled, if that was noted.
pub fn the_end_is_complete(history: &History, verdict: &mut Verdict) {
    let mut owned: BTreeMap<&Who, Option<(i64, &[Partition])>> = BTreeMap::new();
    let mut settled = false;
    for event in &history.events {
        match &event.what {
            What::Started(who) => drop(owned.insert(who, None)),
            What::Ended(who, _) => drop(owned.remove(who)),
            What::Told(
                who,
                Telling::Assigned {
                    generation,
                    partitions,
                },
            ) => {
                // A program that was replaced may not notice: some clients keep to themselves that they were fenced.
                // It does no harm, as its commits are refused.
                owned.retain(|other, _| other.owner != who.owner);
                owned.insert(who, Some((*generation, partitions)));
            }
            What::Told(who, Telling::Revoked | Telling::Lost) => drop(owned.insert(who, None)),
            What::Told(who, Telling::Fenced { .. }) => drop(owned.remove(who)),
            What::Settled => {
                settled = true;
                break;
            }
            _ => {}
        }
    }
    verdict.require(settled, || "the group did not settle".to_owned());
    if !settled {
        return;
    }
    let mut owners: BTreeMap<Partition, Vec<&str>> = (0..history.partition_count)
        .map(|partition| (partition, Vec::new()))
        .collect();
    let mut generations = BTreeSet::new();
    for (who, owned) in owned {
        let Some((generation, partitions)) = owned else {
            continue;
        };
        if !partitions.is_empty() {
            generations.insert(generation);
        }
        for partition in partitions {
            owners.entry(*partition).or_default().push(&who.process);
        }
    }
    for (partition, owners) in owners {
        verdict.require(owners.len() == 1, || {
            let fault = if owners.is_empty() {
                "forgotten"
            } else {
                "owned twice"
            };
            format!("{fault}: in the end partition {partition} is owned by {owners:?}")
        });
    }
    verdict.require(generations.len() <= 1, || {
        format!("in the end the owners are of several generations: {generations:?}")
    });
}

fn nobody_failed(history: &History, verdict: &mut Verdict) {
    for event in &history.events {
        match &event.what {
            What::Ended(who, Ending::Failed) => verdict.violations.push(format!(
                "failed: {} ended by itself, or not as it was told",
                who.process
            )),
            // What is not understood cannot be judged.
            What::Garbled(who, line) => verdict.violations.push(format!(
                "failed: {} wrote a line that is none: {line}",
                who.process
            )),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
