//! Reads all groups that share records back when the broker starts.
//! Callers: `Broker::open`. Invariants: what an earlier start let in stays, whatever the bounds are now. Records that count for nothing are
//! told, so that they are removed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use model::Offset;
use storage::io::Clock;

use super::coordinator::{Shares, SharesTask, new_incarnation};
use super::machine::{OfAll, ShareMachine};
use super::partition::{SharePartition, StoredRun};
use super::record::{Incarnation, Place, ShareRecord, SharesError};
use super::settings::GroupSettings;
use crate::broker::access::Owner;
use crate::broker::coordination::{Runtime, Shape};
use crate::broker::groups::Ledger;
use crate::broker::state_log::{Replayed, StateLog};

/// Groups are spread over so many shards, and so many of each shard's steps may wait for their sync.
const SHAPE: Shape = Shape {
    shards: 8,
    places: 512,
};

/// The runs of a partition, by beginning.
type StoredRuns = HashMap<(String, Place, Incarnation), Vec<(Offset, StoredRun)>>;

/// A partition as its log and its topic are, and not this state log.
#[derive(Clone, Debug)]
pub(in crate::broker) struct FoundPlace {
    /// Where the log ends.
    pub end: Offset,
    /// Who has made the topic.
    pub maker: Option<Owner>,
}

impl Shares {
    /// Reads all groups back. Nobody holds anything. `find` tells of the partitions that are there: a topic that does not wait for the disk
    /// may have lost records that a group had finished, and what comes at their offsets is not to be taken for them.
    pub(in crate::broker) fn open(
        log: StateLog<ShareRecord>,
        replayed: Replayed<ShareRecord>,
        clock: Arc<dyn Clock>,
        ledger: Arc<Ledger>,
        find: impl Fn(Place) -> Option<FoundPlace>,
    ) -> Result<(Shares, SharesTask), SharesError> {
        let (runtime, task) = Runtime::new(SHAPE, log, clock);
        let all = OfAll {
            totals: Arc::default(),
            dead: Arc::default(),
            ledger,
        };
        let mut runs = StoredRuns::new();
        let mut starts = Vec::new();
        let restore = |group: &str, change: &dyn Fn(&mut ShareMachine)| {
            let id: Arc<str> = group.into();
            let made = runtime.cell_or(Arc::clone(&id), || {
                Some(ShareMachine::new(id, None, all.clone()))
            });
            made.expect("one is made").restore(change);
        };
        for record in replayed {
            match record? {
                ShareRecord::Group(group, created) => {
                    restore(&group, &|machine| machine.created = created);
                }
                ShareRecord::Settings(group, Some(values)) => {
                    let settings = GroupSettings::of(&group, &values);
                    let settings =
                        settings.map_err(|_| SharesError::Malformed("no value of a setting"))?;
                    restore(&group, &|machine| {
                        machine.values.clone_from(&values);
                        machine.settings = settings;
                    });
                }
                ShareRecord::Owner(group, Some(owner)) => {
                    restore(&group, &|machine| machine.restore_owner(&owner));
                }
                ShareRecord::Start(group, place, Some(start)) => starts.push((group, place, start)),
                ShareRecord::Run(group, place, incarnation, base, Some(run)) => {
                    let of = runs.entry((group, place, incarnation)).or_default();
                    of.push((base, run));
                }
                ShareRecord::Settings(_, None)
                | ShareRecord::Owner(_, None)
                | ShareRecord::Start(_, _, None)
                | ShareRecord::Run(_, _, _, _, None) => {}
            }
        }
        let mut cut = Vec::new();
        for (group, place, (incarnation, start)) in starts {
            let found = find(place);
            let log_end = found.as_ref().map_or(Offset::MAX, |found| found.end);
            let maker = found.and_then(|found| found.maker);
            let key = (group, place, incarnation);
            // The runs of one that begins anew are left over.
            let (incarnation, stored) = match start > log_end {
                true => (new_incarnation(), Vec::new()),
                false => (incarnation, runs.remove(&key).unwrap_or_default()),
            };
            let is_beyond = |(_, run): &(Offset, StoredRun)| run.end > log_end;
            if start > log_end || stored.iter().any(is_beyond) {
                tracing::warn!(group = key.0, ?place, %start, %log_end, "the log ends before what the group has finished of it: records were lost that were not on the disk; what comes from its end on is for the group");
                cut.push((key.0.clone(), place));
            }
            restore(&key.0, &|machine| {
                let runs = match start > log_end {
                    true => SharePartition::cut(start, log_end),
                    false => SharePartition::restore(start, stored.iter().copied(), log_end),
                };
                machine.restore_partition(place, (incarnation, runs), maker.as_ref());
            });
        }
        let leftover = |((group, place, incarnation), runs): (_, Vec<(Offset, StoredRun)>)| {
            let group: String = group;
            runs.into_iter().map(move |(base, _)| {
                ShareRecord::Run(group.clone(), place, incarnation, base, None)
            })
        };
        let leftovers = runs.into_iter().flat_map(leftover).collect();
        for cell in runtime.cells() {
            cell.restore(ShareMachine::restored);
        }
        runtime.begin();
        let shares = Shares {
            runtime,
            leftovers: Arc::new(Mutex::new(leftovers)),
            cut: Arc::new(Mutex::new(cut)),
            all,
        };
        Ok((shares, SharesTask(task)))
    }
}
