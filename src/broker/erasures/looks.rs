//! Looks: what an erasure would erase, and whether anything of a key is left, without changing anything.
//!
//! Callers: fronts. A look runs on a thread that may block, and is in memory only: the keys are nowhere else. Invariants: a few
//! run at a time, and a bounded number of results is kept.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{LogId, Offset, PartitionId};
use storage::cleanup::erase::{EraseError, Known, Wanted};
use storage::cleanup::run::Progress;
use witness::{Quest, Report};

use super::error::ErasureError;
use super::look::{Look, LookKind, LookResult, LookState, OfPartition, Sighted};
use super::receipt;
use super::record::Part;
use super::request::{NewErasure, check};
use crate::broker::Broker;
use crate::broker::access::{Cluster, Granted, right};
use crate::broker::catalog::Topic;

impl Broker {
    /// Begins a look.
    pub fn begin_look(
        &self,
        topic: &Granted<Arc<Topic>, right::Read>,
        kind: LookKind,
        partition: Option<PartitionId>,
        keys: Vec<Bytes>,
    ) -> Result<Look, ErasureError> {
        let parts = self.parts_of(topic, partition)?;
        let new = NewErasure {
            keys,
            ..NewErasure::default()
        };
        check(&new)?;
        let look = self.erasures_of().looks().add(Look {
            id: String::new(),
            kind,
            topic: topic.name.as_str().to_owned(),
            partition: partition.map(PartitionId::get),
            state: LookState::Running,
            progress: Arc::new(Progress::default()),
        })?;
        let (broker, id, topic) = (self.clone(), look.id.clone(), Arc::clone(topic));
        let progress = Arc::clone(&look.progress);
        tokio::spawn(async move {
            let work = {
                let broker = broker.clone();
                move || broker.look(kind, &topic, &parts, &new.keys, &progress)
            };
            let state = match tokio::task::spawn_blocking(work).await {
                Ok(Ok(result)) => LookState::Done(result),
                Ok(Err(reason)) => LookState::Failed(reason),
                Err(error) => LookState::Failed(error.to_string()),
            };
            let erasures = broker.erasures_of();
            erasures.looks().end(&id, state);
            erasures.changed.send_replace(());
        });
        Ok(look)
    }

    /// A look: as soon as it has ended, or after `wait` as it is then.
    pub async fn look_state(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        id: &str,
        wait: Duration,
    ) -> Result<Look, ErasureError> {
        let erasures = self.erasures_of();
        let mut changed = erasures.changed.subscribe();
        let ended = async {
            loop {
                let look = erasures.looks().get(id)?;
                if !matches!(look.state, LookState::Running) {
                    return Ok(look);
                }
                // The sender lives as long as the broker.
                let _ = changed.changed().await;
            }
        };
        match tokio::time::timeout(wait, ended).await {
            Ok(look) => look,
            Err(_) => erasures.looks().get(id),
        }
    }

    fn look(
        &self,
        kind: LookKind,
        topic: &Topic,
        parts: &[Part],
        keys: &[Bytes],
        progress: &Progress,
    ) -> Result<LookResult, String> {
        match kind {
            LookKind::Verify => {
                let quest = quest(topic, keys, None);
                let report = self.search_for(&quest, "", progress)?;
                Ok(LookResult::Verify(Arc::new(report)))
            }
            LookKind::Plan => {
                let mut sighted = Sighted::default();
                for part in parts {
                    sighted
                        .partitions
                        .push(self.sight(topic, part, keys, progress)?);
                }
                let quest = quest(topic, keys, Some(parts));
                let report = self.search_for(&quest, "quarantine", progress)?;
                sighted.quarantine = receipt::describe(&report);
                Ok(LookResult::Plan(Arc::new(sighted)))
            }
        }
    }

    fn sight(
        &self,
        topic: &Topic,
        part: &Part,
        keys: &[Bytes],
        progress: &Progress,
    ) -> Result<OfPartition, String> {
        let wanted = Wanted::new(keys.iter().cloned(), Offset::new(part.before));
        let log = LogId::new(topic.id, PartitionId::new(part.partition));
        let mut known = Known::new();
        let looked = self
            .storage()
            .look_for_keys(log, &wanted, &mut known, progress);
        let sighting = match looked {
            Ok(sighting) => sighting,
            Err(EraseError::NoLog) => return Err("the topic was deleted".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let unreadable = sighting.unreadable.iter();
        Ok(OfPartition {
            part: *part,
            records: sighting.records,
            segments: sighting.segments,
            segments_read: sighting.segments_read,
            windows: sighting.windows,
            undecodable: sighting.undecodable.len() as u64,
            unreadable: unreadable.map(|(_, reason)| reason.to_string()).collect(),
            hold: sighting.hold.map(|hold| hold.name.to_string()),
        })
    }

    fn search_for(
        &self,
        quest: &Quest,
        below: &str,
        progress: &Progress,
    ) -> Result<Report, String> {
        let mut read = |bytes| {
            progress.done(bytes);
            !progress.is_cancelled()
        };
        let root = self.storage().directory();
        witness::search_below(root, below.as_ref(), quest, &mut read)
            .map_err(|error| error.to_string())
    }
}

fn quest(topic: &Topic, keys: &[Bytes], parts: Option<&[Part]>) -> Quest {
    Quest {
        keys: keys.iter().map(|key| key.to_vec()).collect(),
        topic: Some(topic.id.to_bytes()),
        before: parts.map(|parts| {
            let before = parts.iter().map(|part| (part.partition, part.before));
            before.collect()
        }),
    }
}
