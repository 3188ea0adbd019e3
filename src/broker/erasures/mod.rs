//! Erasure by key: requests that are durable, the worker that carries them out, and their receipts.
//!
//! Callers: fronts, which ask, look, cancel and read receipts; `Broker::run` drives the worker. `work.rs` carries one erasure out,
//! phase by phase; `looks.rs` only looks: what an erasure would erase, or whether anything of a key is left. The engine erases
//! (`storage::cleanup::erase`), and the witness, which shares no code with it, searches every file behind it.
//! Invariants: an erasure is durable before whoever asked for it hears of it, and goes on at the next start by itself; it covers
//! what lies below each partition's end at the time of the request, and nothing behind it; the keys are in the state log until
//! their records are gone and verified to be, and never in a line of the log or a receipt; receipts are never removed.

mod book;
mod error;
mod look;
mod looks;
mod receipt;
mod record;
mod request;
mod stopped;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::hex::to_hex;
use model::state_log::ERASURES_VERSION;
use model::{LogId, PartitionId, Timestamp};
use storage::cleanup::run::Progress;
use tokio::sync::watch;

use super::access::{Caller, Cluster, Granted, asked_by, right};
use super::audit::On;
use super::catalog::Topic;
use super::{Broker, Refusal};

pub(super) use book::Erasures;
pub use book::{ENDED_MAX, ErasureState, ErasuresError, OnErased};
pub use error::{ErasureError, RECEIPTS_MAX};
pub use look::{LOOKS_MAX, Look, LookKind, LookResult, LookState, OfPartition, Sighted};
use record::ErasureRecord;
pub use record::{Erasure, Outcome, Part, PartDone, Phase, UnknownErasure, Unreadable, read_again};
use request::check;
pub use request::{KEYS_MAX, NewErasure, REASON_BYTES_MAX};
pub use stopped::Stopped;

/// Erasures that are not over, at a time.
pub const WAITING_MAX: usize = 100;
/// What a partition takes in a receipt at most, beside what cannot be read.
const PART_BYTES: usize = 200;
/// What a receipt takes beside its partitions.
const HEAD_BYTES: usize = 64 << 10;
/// How often it is looked whether one that was stopped can go on.
const TICK: Duration = Duration::from_millis(500);

impl Broker {
    fn erasures_of(&self) -> &Erasures {
        &self.shared.erasures
    }

    /// Has the records of some keys erased. Durable when this returns.
    pub async fn request_erasure(
        &self,
        topic: &Granted<Arc<Topic>, right::DeleteRecords>,
        new: NewErasure,
        caller: &Caller,
    ) -> Result<ErasureState, ErasureError> {
        let parts = self.parts_of(topic, new.partition)?;
        check(&new)?;
        self.check_whole_holds(topic, &parts, &new.keys)?;
        let erasures = self.erasures_of();
        let needs = HEAD_BYTES + parts.len() * PART_BYTES;
        if needs > erasures.log.record_bytes_max() {
            return Err(ErasureError::Invalid(
                "the topic has too many partitions for one receipt: ask for some of them"
                    .to_owned(),
            ));
        }
        let _changes = erasures.changes.lock().await;
        let (waiting, receipts) = {
            let book = erasures.locked();
            (book.open().count(), book.receipts.len())
        };
        if waiting >= WAITING_MAX {
            return Err(ErasureError::TooMany { waiting });
        }
        if receipts + waiting >= RECEIPTS_MAX {
            return Err(ErasureError::TooManyReceipts);
        }
        let salt: [u8; 16] = *uuid::Uuid::new_v4().as_bytes();
        let hash = |key: &Bytes| witness::receipts::hash_of_key(&salt, key);
        let erasure = Arc::new(Erasure {
            version: ERASURES_VERSION,
            id: uuid::Uuid::new_v4().simple().to_string()[..12].to_owned(),
            topic: topic.name.as_str().to_owned(),
            topic_id: topic.id.as_uuid(),
            partition: new.partition.map(PartitionId::get),
            salt: to_hex(salt),
            keys: new.keys.iter().map(hash).collect(),
            reason: new.reason,
            by: asked_by(caller),
            asked_ms: self.now().millis(),
            removes_quarantined: new.removes_quarantined,
            parts,
            phase: Phase::Looking,
            outcome: None,
            detail: None,
            quarantine_removed: Vec::new(),
            receipt: None,
            ended_ms: None,
        });
        let wanted = ErasureRecord::Wanted(erasure.id.clone(), new.keys);
        let asked = ErasureRecord::Erasure(Arc::clone(&erasure));
        let written = erasures.write_together(vec![wanted, asked]).await;
        written.map_err(super::state_refusal)?;
        tracing::info!(
            erasure = erasure.id,
            topic = erasure.topic,
            keys = erasure.keys.len(),
            by = erasure.by,
            "an erasure was asked for"
        );
        // The keys are what is to be forgotten.
        let on = On::Topic(erasure.topic.as_str());
        self.note_change(caller, "erase", on, &format!("erasure {}", erasure.id));
        Ok(erasures.locked().state(&erasure))
    }

    /// The partitions that are meant, and where they end now.
    fn parts_of(
        &self,
        topic: &Topic,
        partition: Option<PartitionId>,
    ) -> Result<Vec<Part>, Refusal> {
        let partitions: Vec<PartitionId> = match partition {
            None => topic.partitions().collect(),
            Some(one) if topic.has(one) => vec![one],
            Some(_) => return Err(Refusal::UnknownTopicOrPartition),
        };
        let part = |partition: PartitionId| {
            let bounds = topic.log(partition)?.bounds();
            Ok(Part {
                partition: partition.get(),
                start: bounds.start.get(),
                before: bounds.durable_end.get(),
            })
        };
        partitions.into_iter().map(part).collect()
    }

    /// Refuses at once where all that a partition has is held; what is held in part is known when it was looked at.
    /// A hold on a key that is not among those to be erased holds nothing of them.
    fn check_whole_holds(
        &self,
        topic: &Topic,
        parts: &[Part],
        keys: &[Bytes],
    ) -> Result<(), Refusal> {
        for part in parts.iter().filter(|part| part.start < part.before) {
            let log = LogId::new(topic.id, PartitionId::new(part.partition));
            let holds = self.storage().holds_on(log);
            let is_whole = |hold: &&storage::cleanup::Hold| {
                let held = hold.key.as_deref();
                held.is_none_or(|held| keys.iter().any(|key| key == held))
                    && hold.offsets.start.get() <= part.start
                    && part.before <= hold.offsets.end.get()
            };
            if let Some(hold) = holds.iter().find(is_whole) {
                return Err(super::holds::held(&topic.name, hold));
            }
        }
        Ok(())
    }

    /// The erasures that are known, the newest first.
    pub fn erasures(&self, _cluster: &Granted<Cluster, right::Describe>) -> Vec<ErasureState> {
        let book = self.erasures_of().locked();
        let mut all: Vec<ErasureState> =
            book.erasures.values().map(|one| book.state(one)).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.erasure.asked_ms));
        all
    }

    /// One erasure: as soon as it is over or does not go on, or after `wait` as it is then.
    pub async fn erasure(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        id: &str,
        wait: Duration,
    ) -> Result<ErasureState, ErasureError> {
        let erasures = self.erasures_of();
        let mut changed = erasures.changed.subscribe();
        let look = || {
            let book = erasures.locked();
            let known = book.erasures.get(id);
            let known = known.ok_or_else(|| ErasureError::Unknown(id.to_owned()))?;
            Ok(book.state(known))
        };
        let over = async {
            loop {
                let state: Result<ErasureState, ErasureError> = look();
                let is_open =
                    |state: &ErasureState| !state.erasure.is_ended() && state.stopped.is_none();
                if !state.as_ref().is_ok_and(is_open) {
                    return state;
                }
                // The sender lives as long as the broker.
                let _ = changed.changed().await;
            }
        };
        match tokio::time::timeout(wait, over).await {
            Ok(state) => state,
            Err(_) => look(),
        }
    }

    /// Ends an erasure. What it has done stays done, and has a receipt that says so.
    pub async fn cancel_erasure(
        &self,
        _cluster: &Granted<Cluster, right::Clean>,
        id: &str,
        caller: &Caller,
    ) -> Result<ErasureState, ErasureError> {
        let erasures = self.erasures_of();
        if !erasures.locked().erasures.contains_key(id) {
            return Err(ErasureError::Unknown(id.to_owned()));
        }
        let cancel = |erasure: &mut Erasure| {
            let may = matches!(
                erasure.phase,
                Phase::Looking | Phase::Erasing | Phase::Purging | Phase::Verifying
            );
            if may {
                erasure.outcome = Some(Outcome::Cancelled);
                erasure.detail = Some(format!("cancelled by {}", asked_by(caller)));
            }
            may
        };
        let changed = erasures.change(id, cancel).await;
        let changed = changed.map_err(super::state_refusal)?;
        let erasure = changed.ok_or_else(|| ErasureError::TooLate(id.to_owned()))?;
        let mut book = erasures.locked();
        // It goes on at once, to forget the keys.
        book.stopped.remove(id);
        if let Some((_, progress)) = book.running.as_ref().filter(|(running, _)| running == id) {
            progress.cancel();
        }
        tracing::info!(
            erasure = id,
            by = asked_by(caller),
            "an erasure was cancelled"
        );
        let on = On::Topic(erasure.topic.as_str());
        self.note_change(caller, "cancel_erasure", on, &format!("erasure {id}"));
        Ok(book.state(&erasure))
    }

    /// The receipt of an erasure, to the byte.
    pub fn receipt(
        &self,
        _cluster: &Granted<Cluster, right::Describe>,
        id: &str,
    ) -> Result<Arc<str>, ErasureError> {
        let book = self.erasures_of().locked();
        let known = book.erasures.get(id);
        let erasure = known.ok_or_else(|| ErasureError::Unknown(id.to_owned()))?;
        let number = erasure.receipt.filter(|_| erasure.is_ended());
        let receipt = number.and_then(|number| book.receipts.get(&number));
        receipt
            .cloned()
            .ok_or_else(|| ErasureError::NoReceipt(id.to_owned()))
    }

    /// All receipts, oldest first, to the byte.
    pub fn receipts(&self, _cluster: &Granted<Cluster, right::Describe>) -> Vec<Arc<str>> {
        self.erasures_of()
            .locked()
            .receipts
            .values()
            .cloned()
            .collect()
    }

    /// Adds somebody who has something on the disk that was made of records: told when some of a topic's were erased, before it is
    /// searched whether anything is left.
    pub fn on_erased(&self, forget: OnErased) {
        let mut all = self.erasures_of().on_erased.lock();
        all.as_mut()
            .expect("nothing panics while it holds the list")
            .push(forget);
    }

    /// How many erasures are not over, and of those how many do not go on now.
    pub(super) fn open_erasures(&self) -> (usize, usize) {
        let book = self.erasures_of().locked();
        let stopped = book.open().filter(|one| book.stopped.contains_key(&one.id));
        (book.open().count(), stopped.count())
    }

    /// Carries erasures out, one after the other, until `shutdown` turns true. One that does not go on is tried again, and the
    /// others go on meanwhile.
    pub(super) async fn run_erasures(&self, mut shutdown: watch::Receiver<bool>) {
        let erasures = self.erasures_of();
        let mut changed = erasures.changed.subscribe();
        while !*shutdown.borrow_and_update() {
            let Some(id) = self.next_erasure() else {
                tokio::select! {
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(TICK) => {}
                    stopped = shutdown.changed() => if stopped.is_err() { break },
                }
                continue;
            };
            let progress = Arc::new(Progress::default());
            erasures.locked().running = Some((id.clone(), Arc::clone(&progress)));
            let work = tokio::task::spawn_blocking({
                let (broker, id, progress) = (self.clone(), id.clone(), Arc::clone(&progress));
                let handle = tokio::runtime::Handle::current();
                move || work::run(&broker, &id, &progress, &handle)
            });
            tokio::pin!(work);
            let stop = async {
                let _ = shutdown.wait_for(|stop| *stop).await;
            };
            let ran = tokio::select! {
                ran = &mut work => ran,
                () = stop => {
                    progress.cancel();
                    (&mut work).await
                }
            };
            let ran = ran.unwrap_or_else(|error| {
                tracing::error!(erasure = id, %error, "an erasure panicked");
                Err(Stopped::because("internal", error.to_string()))
            });
            self.note_end(&id, ran);
        }
        erasures.looks().cancel_all();
    }

    /// The erasure whose turn it is: the oldest of those that are not stopped, or whose time to be tried again has come.
    fn next_erasure(&self) -> Option<String> {
        let now = self.storage().steady_clock().now();
        let book = self.erasures_of().locked();
        let may_run = |one: &&Arc<Erasure>| {
            let stopped = book.stopped.get(&one.id);
            stopped.is_none_or(|stopped| stopped.is_due(now))
        };
        let next = book.open().filter(may_run).min_by_key(|one| one.asked_ms);
        next.map(|one| one.id.clone())
    }

    /// Notes how the work on an erasure ended.
    fn note_end(&self, id: &str, ran: Result<(), Stopped>) {
        let now = self.storage().steady_clock().now();
        let erasures = self.erasures_of();
        let mut book = erasures.locked();
        book.running = None;
        let before = book.stopped.remove(id);
        if let Err(stopped) = ran {
            let stopped = stopped.after(before.as_ref(), now);
            if before.is_none_or(|before| before.detail != stopped.detail) {
                tracing::warn!(
                    erasure = id,
                    code = stopped.code,
                    reason = stopped.detail,
                    "an erasure does not go on now: it is tried again"
                );
            }
            book.stopped.insert(id.to_owned(), stopped);
        }
        drop(book);
        erasures.changed.send_replace(());
    }

    /// What is held has changed: erasures that a hold has stopped are tried again.
    pub(super) fn retry_held_erasures(&self) {
        let erasures = self.erasures_of();
        let mut book = erasures.locked();
        for stopped in book.stopped.values_mut() {
            if stopped.code == stopped::HELD {
                stopped.retry_at = Timestamp::from_millis(i64::MIN);
            }
        }
        drop(book);
        erasures.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests;
