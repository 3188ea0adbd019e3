//! Carries one erasure out, phase by phase, from where it is.
//!
//! Caller: the worker, on a thread that may block. Each phase may end anywhere, also by a kill, and begins again: what is found
//! the second time is what is left. Before a segment is written again its partition's record says so, so that what went is counted
//! once, whenever the kill came.
//! Order: what there is is counted, and refused if it must not go; segments; the write-ahead log; every file searched; the
//! receipt, and with it, in one append, the end of the keys; and then their traces in the state log itself.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use model::state_log::{StateLogKind, name_of};
use model::{LogId, Offset, PartitionId, TopicId, partition_of_key};
use storage::cleanup::Policy;
use storage::cleanup::erase::{
    EraseError, EraseWatch, Erased, Found, Known, Sighting, Wanted, WatchFailed,
};
use storage::cleanup::run::{CleanupError, Progress, RunOptions};
use storage::rewrite::Rewritten;
use storage::{PurgeError, Storage};
use tokio::runtime::Handle;
use witness::{Quest, Report};

use super::book::{ENDED_MAX, Erasures};
use super::receipt;
use super::record::{Doing, Erasure, ErasureRecord, Outcome, Part, PartDone, Phase, Unreadable};
use super::stopped::{HELD, Stopped, disk_full};
use crate::broker::Broker;
use crate::broker::place::Place;

/// Batches that cannot be read that are listed of a partition.
const UNDECODABLE_LISTED_MAX: usize = 20;

fn stopping() -> Stopped {
    Stopped::because("stopping", "the server stops")
}

/// Carries an erasure out. Returns when it is over. Errors: why it does not go on now.
pub(super) fn run(
    broker: &Broker,
    id: &str,
    progress: &Arc<Progress>,
    handle: &Handle,
) -> Result<(), Stopped> {
    let mut work = Work {
        broker,
        erasures: broker.erasures_of(),
        id,
        progress,
        handle,
        known: HashMap::new(),
    };
    loop {
        let Some(erasure) = work.erasures.locked().erasures.get(id).cloned() else {
            return Ok(());
        };
        match (erasure.phase, erasure.outcome) {
            (Phase::Ended, _) => return Ok(()),
            (Phase::Forgetting, _) => work.forget(&erasure)?,
            (_, Some(outcome)) => work.conclude(&erasure, outcome, None)?,
            (_, None) if progress.is_cancelled() => return Err(stopping()),
            (Phase::Looking, _) => work.look(&erasure)?,
            (Phase::Erasing, _) => work.erase(&erasure)?,
            (Phase::Purging, _) => {
                work.purge()?;
                work.go_on(Phase::Verifying)?;
            }
            (Phase::Verifying, _) => work.verify(&erasure)?,
        }
    }
}

struct Work<'w> {
    broker: &'w Broker,
    erasures: &'w Erasures,
    id: &'w str,
    progress: &'w Arc<Progress>,
    handle: &'w Handle,
    /// What was found in sealed segments, by partition.
    known: HashMap<u32, Known>,
}

impl Work<'_> {
    fn storage(&self) -> &Storage {
        self.broker.storage()
    }

    fn keys(&self) -> Result<Vec<Bytes>, Stopped> {
        let book = self.erasures.locked();
        let keys = book.wanted.get(self.id).cloned();
        keys.ok_or_else(|| Stopped::because("internal", "its keys are not known any more"))
    }

    fn wanted(&self, part: &Part) -> Result<Wanted, Stopped> {
        Ok(Wanted::new(self.keys()?, Offset::new(part.before)))
    }

    fn write(&self, records: Vec<ErasureRecord>) -> Result<(), Stopped> {
        Ok(self.handle.block_on(self.erasures.write(records))?)
    }

    fn write_part(&self, part: &Part, done: &PartDone) -> Result<(), Stopped> {
        let id = self.id.to_owned();
        self.write(vec![ErasureRecord::Part(id, part.partition, done.clone())])
    }

    fn part(&self, part: &Part) -> PartDone {
        let book = self.erasures.locked();
        let parts = book.parts.get(self.id);
        let known = parts.and_then(|parts| parts.get(&part.partition));
        known.cloned().unwrap_or_else(PartDone::new)
    }

    fn change(&self, change: impl FnOnce(&mut Erasure) -> bool) -> Result<(), Stopped> {
        self.handle
            .block_on(self.erasures.change(self.id, change))?;
        Ok(())
    }

    /// Goes on to the next phase, unless somebody has ended it.
    fn go_on(&self, phase: Phase) -> Result<(), Stopped> {
        self.change(|erasure| {
            erasure.phase = phase;
            erasure.outcome.is_none()
        })
    }

    /// Nothing was done, and nothing will be.
    fn refuse(&self, detail: String) -> Result<(), Stopped> {
        tracing::warn!(erasure = self.id, reason = detail, "an erasure is refused");
        self.change(|erasure| {
            erasure.outcome = erasure.outcome.or(Some(Outcome::Refused));
            erasure.detail.get_or_insert(detail);
            true
        })
    }

    /// What an end before the end means: nothing where somebody has ended the erasure, which the next phase is.
    fn ended(&self) -> Result<(), Stopped> {
        let erasure = self.erasures.locked().erasures.get(self.id).cloned();
        match erasure.is_some_and(|erasure| erasure.outcome.is_some()) {
            true => Ok(()),
            false => Err(stopping()),
        }
    }

    /// Counts what there is, and refuses what must not go.
    fn look(&mut self, erasure: &Erasure) -> Result<(), Stopped> {
        let mut refusal = None;
        for part in &erasure.parts {
            let (wanted, log) = (self.wanted(part)?, erasure.log(part));
            let known = self.known.entry(part.partition).or_default();
            let looked = (self.broker.storage()).look_for_keys(log, &wanted, known, self.progress);
            let sighting = match looked {
                Ok(sighting) => sighting,
                Err(EraseError::NoLog) => Sighting::default(),
                Err(EraseError::Cancelled) => return self.ended(),
                Err(error) => return Err(stopped_by(error)),
            };
            if let Some(hold) = sighting.hold {
                let partition = part.partition;
                refusal = Some(format!(
                    "partition {partition}: {} keeps what is to be erased",
                    hold.name
                ));
                break;
            }
            let mut done = self.part(part);
            done.found = sighting.records;
            self.write_part(part, &done)?;
        }
        if refusal.is_none() && !erasure.removes_quarantined {
            let report = self.search_quarantine(erasure)?;
            refusal = (report.hit_count > 0).then(|| quarantine_text(&report));
        }
        match refusal {
            Some(detail) => self.refuse(detail),
            None => self.go_on(Phase::Erasing),
        }
    }

    fn erase(&mut self, erasure: &Erasure) -> Result<(), Stopped> {
        let mut trouble = None;
        for part in &erasure.parts {
            let mut done = self.part(part);
            if done.is_done {
                continue;
            }
            self.take_up(erasure, part, &mut done)?;
            let wanted = self.wanted(part)?;
            let mut known = self.known.remove(&part.partition).unwrap_or_default();
            let mut watch = Watch {
                work: self,
                erasure,
                part,
                done,
                failed: None,
            };
            let log = erasure.log(part);
            let storage = self.broker.storage();
            let erased = storage.erase(log, &wanted, &mut known, self.progress, &mut watch);
            let Watch { done, failed, .. } = watch;
            self.known.insert(part.partition, known);
            match erased {
                Ok(erased) => self.part_is_done(part, done, &erased)?,
                Err(EraseError::NoLog) => self.part_is_done(part, done, &Erased::default())?,
                Err(EraseError::Cancelled) => return self.ended(),
                Err(EraseError::Watch(_)) if failed.is_some() => {
                    return Err(failed.expect("just looked at"));
                }
                // The other partitions need not wait.
                Err(error @ (EraseError::Unreadable(_) | EraseError::Held(_))) => {
                    self.write_part(part, &done)?;
                    trouble = trouble.or(Some((part.partition, error)));
                }
                Err(error) => return Err(stopped_by(error)),
            }
        }
        match trouble {
            None => {
                self.erase_retained(erasure)?;
                self.go_on(Phase::Purging)
            }
            Some((partition, error)) => {
                let mut stopped = stopped_by(error);
                stopped.detail = format!("partition {partition}: {}", stopped.detail);
                Err(stopped)
            }
        }
    }

    /// Messages that were kept of the records go, and what the log of such messages still holds of them.
    fn erase_retained(&self, erasure: &Erasure) -> Result<(), Stopped> {
        let log = StateLogKind::Retained.id();
        // Those that others have taken the place of, and those that were removed.
        self.compact(log)?;
        let keys = self.keys()?;
        let topic = TopicId::from_uuid(erasure.topic_id);
        let count = self.broker.topic_by_id(topic);
        let count = count.map_or(1, |topic| topic.partition_count());
        let is_gone = |key: &[u8], place: Option<Place>| {
            let partition = match place {
                Some(place) => place.partition,
                None => PartitionId::new(partition_of_key(key, count)),
            };
            let is_in = |part: &Part| {
                let is_before = place.is_none_or(|place| place.offset.get() < part.before);
                part.partition == partition.get() && is_before
            };
            keys.iter().any(|one| **one == *key) && erasure.parts.iter().any(is_in)
        };
        let (gone, end) =
            (self.broker).retained_to_forget((topic, erasure.topic.as_str()), is_gone);
        let names = gone.iter().map(|kept| &*kept.name);
        // A name that was removed stands there with its removal.
        let removed = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
        let removed = removed.filter(|name| !self.broker.is_retained(name));
        let names = names.chain(removed).map(Broker::retained_key);
        let wanted = Wanted::new(names, end);
        let (mut known, mut watch) = (Known::default(), Unwatched);
        let storage = self.storage();
        match storage.erase(log, &wanted, &mut known, self.progress, &mut watch) {
            Ok(_) | Err(EraseError::NoLog) => {}
            Err(EraseError::Cancelled) => return self.ended(),
            Err(error) => return Err(stopped_by(error)),
        }
        self.broker.forget_retained(&gone);
        Ok(())
    }

    /// What was being done when the work ended: it was done if the segment is not there any more.
    fn take_up(&self, erasure: &Erasure, part: &Part, done: &mut PartDone) -> Result<(), Stopped> {
        let Some(doing) = done.doing.take() else {
            return Ok(());
        };
        let live = self.storage().sealed_segments(erasure.log(part));
        if live.iter().any(|entry| doing.is_of(entry.id)) {
            return Ok(());
        }
        self.count(erasure, part, done, &doing);
        self.write_part(part, done)
    }

    fn count(&self, erasure: &Erasure, part: &Part, done: &mut PartDone, doing: &Doing) {
        done.records += doing.records;
        done.windows += doing.windows;
        done.segments += 1;
        let by = reason_of(erasure);
        let (log, offsets) = (erasure.log(part), doing.offsets());
        self.broker.note_erased(log, offsets, doing.records, &by);
    }

    /// What is about to go. Those who read it now stand in the ledger when the erasure's progress, which is written next, is durable.
    fn announce(&self, erasure: &Erasure, part: &Part, found: &Found) {
        let by = reason_of(erasure);
        let (log, offsets) = (erasure.log(part), found.offsets.clone());
        let noted = (self.broker).note_erasing(log, offsets, found.records, &by);
        self.handle.block_on(noted);
    }

    fn part_is_done(
        &self,
        part: &Part,
        mut done: PartDone,
        erased: &Erased,
    ) -> Result<(), Stopped> {
        done.is_done = true;
        done.undecodable = erased.undecodable.len() as u64;
        let listed = erased.undecodable.iter().take(UNDECODABLE_LISTED_MAX);
        let listed = listed.map(|one| Unreadable {
            offset: one.base_offset.get(),
            reason: one.reason.clone(),
        });
        done.undecodable_listed = listed.collect();
        self.write_part(part, &done)
    }

    fn purge(&self) -> Result<(), Stopped> {
        self.storage().purge_wal().map_err(|error| match error {
            PurgeError::DiskFull => disk_full(),
            PurgeError::Stopped => stopping(),
            error @ (PurgeError::Remove { .. } | PurgeError::Failed(_)) => {
                Stopped::because("storage", error.to_string())
            }
        })
    }

    fn quest(&self, erasure: &Erasure) -> Result<Quest, Stopped> {
        let before = erasure
            .parts
            .iter()
            .map(|part| (part.partition, part.before));
        Ok(Quest {
            keys: self.keys()?.iter().map(|key| key.to_vec()).collect(),
            topic: Some(*erasure.topic_id.as_bytes()),
            before: Some(before.collect()),
        })
    }

    fn search(&self, quest: &Quest, below: &str) -> io::Result<Report> {
        let mut read = |bytes| {
            self.progress.done(bytes);
            !self.progress.is_cancelled()
        };
        let root = self.storage().directory();
        witness::search_below(root, below.as_ref(), quest, &mut read)
    }

    fn search_quarantine(&self, erasure: &Erasure) -> Result<Report, Stopped> {
        let found = self.search(&self.quest(erasure)?, "quarantine");
        found.map_err(search_failed)
    }

    /// Removes the files of the quarantine that hold the keys, or ends where that was not asked for.
    fn clear_quarantine(&self, erasure: &Erasure) -> Result<(), Stopped> {
        loop {
            let report = self.search_quarantine(erasure)?;
            if report.hit_count == 0 {
                return Ok(());
            }
            if !erasure.removes_quarantined {
                return Err(Stopped::because("quarantine", quarantine_text(&report)));
            }
            for hit in &report.hits {
                let name = hit.file.display().to_string();
                // Before it goes, so that the receipt names it whatever comes between.
                self.change(|erasure| {
                    let is_news = !erasure.quarantine_removed.contains(&name);
                    if is_news {
                        erasure.quarantine_removed.push(name.clone());
                    }
                    is_news
                })?;
                let path = self.storage().directory().join(&hit.file);
                match self.storage().remove_quarantined(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        let detail = format!("{name} could not be removed: {error}");
                        return Err(Stopped::because("quarantine", detail));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Searches every file. What is found is erased again.
    fn verify(&mut self, erasure: &Erasure) -> Result<(), Stopped> {
        let forget = self.erasures.on_erased.lock();
        let forget = forget
            .expect("nothing panics while it holds the list")
            .clone();
        for forget in forget {
            forget(&erasure.topic);
        }
        match self.clear_quarantine(erasure) {
            Err(stopped) if stopped.code == "stopping" => return self.ended(),
            cleared => cleared?,
        }
        let report = match self.search(&self.quest(erasure)?, "") {
            Ok(report) => report,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return self.ended(),
            Err(error) => return Err(search_failed(error)),
        };
        if report.hit_count > 0 {
            for part in &erasure.parts {
                let mut done = self.part(part);
                done.is_done = false;
                self.write_part(part, &done)?;
            }
            self.known.clear();
            self.go_on(Phase::Erasing)?;
            let places = receipt::describe(&report);
            let detail = format!("something of a key is left: {places}");
            return Err(Stopped::because("found", detail));
        }
        // As it is now: files of the quarantine were noted.
        let now = self.erasures.locked().erasures.get(self.id).cloned();
        let Some(erasure) = now.filter(|now| now.outcome.is_none()) else {
            return Ok(());
        };
        self.conclude(&erasure, Outcome::Done, Some(&report))
    }

    /// Writes the receipt, if there is something to be told, and in the same append ends the keys.
    fn conclude(
        &self,
        erasure: &Erasure,
        outcome: Outcome,
        verified: Option<&Report>,
    ) -> Result<(), Stopped> {
        let parts: Vec<PartDone> = erasure.parts.iter().map(|part| self.part(part)).collect();
        let is_anything = outcome == Outcome::Done || parts.iter().any(|done| done.segments > 0);
        let (last, written) = {
            let book = self.erasures.locked();
            let last = book.receipts.last_key_value();
            let last = last.map(|(number, text)| (*number, Arc::clone(text)));
            // A kill may have come between the receipt and what follows it.
            let is_its = format!("\"id\":\"{}\"", self.id);
            let written = book
                .receipts
                .iter()
                .find(|(_, text)| text.contains(&is_its));
            (last, written.map(|(number, _)| *number))
        };
        let mut records = Vec::new();
        let mut number = written;
        if is_anything && written.is_none() {
            let (last_number, previous) = match &last {
                Some((number, text)) => {
                    let hash = witness::receipts::hash_of(text);
                    (
                        *number,
                        Some(hash.map_err(|error| {
                            let detail = format!("receipt {number} is damaged: {error}");
                            Stopped::because("receipts", detail)
                        })?),
                    )
                }
                None => (0, None),
            };
            let facts = receipt::Facts {
                number: last_number + 1,
                previous: previous.as_deref(),
                store: self.storage().store_id(),
                now_ms: self.broker.now().millis(),
                parts: &parts,
                verified,
            };
            let text = receipt::write(erasure, outcome, &facts);
            number = Some(facts.number);
            records.push(ErasureRecord::Receipt(facts.number, text.into()));
        }
        let mut ended = Erasure::clone(erasure);
        ended.phase = Phase::Forgetting;
        ended.outcome = Some(outcome);
        ended.receipt = number;
        records.push(ErasureRecord::Erasure(Arc::new(ended)));
        records.push(ErasureRecord::WantedGone(self.id.to_owned()));
        let conclude = async {
            let _changes = self.erasures.changes.lock().await;
            let now = self.erasures.locked().erasures.get(self.id).cloned();
            // Somebody has ended it just now: it is looked at again.
            if now.is_none_or(|now| now.outcome.is_some_and(|other| other != outcome)) {
                return Ok(());
            }
            self.erasures.write_together(records).await
        };
        Ok(self.handle.block_on(conclude)?)
    }

    /// Removes what the state log still holds of the keys, and what the write-ahead log does.
    fn forget(&self, erasure: &Erasure) -> Result<(), Stopped> {
        let id = || self.id.to_owned();
        let mut gone = vec![ErasureRecord::WantedGone(id())];
        if let Some(parts) = self.erasures.locked().parts.get(self.id) {
            gone.extend(
                parts
                    .keys()
                    .map(|part| ErasureRecord::PartGone(id(), *part)),
            );
        }
        self.write(gone)?;
        self.compact(StateLogKind::Erasures.id())?;
        self.purge()?;
        let now = self.broker.now().millis();
        self.change(|erasure| {
            erasure.phase = Phase::Ended;
            erasure.ended_ms = Some(now);
            true
        })?;
        tracing::info!(erasure = self.id, topic = erasure.topic, outcome = ?erasure.outcome, receipt = erasure.receipt, "an erasure is over");
        self.drop_oldest()
    }

    /// Of a state log only what is live stays.
    fn compact(&self, log: LogId) -> Result<(), Stopped> {
        self.storage().tidy(log);
        let options = RunOptions {
            now: true,
            ..RunOptions::default()
        };
        // Not the one that a cancel has ended.
        let progress = Progress::default();
        let compacted = self
            .storage()
            .run_cleanup(log, Policy::Compaction, options, &progress);
        match compacted {
            Ok(report) if report.is_cut_short => return Err(stopping()),
            Ok(report) if report.set_aside.is_empty() => {}
            Ok(report) => {
                let (segment, reason) = report.set_aside.first().expect("there is one");
                let name = name_of(log).unwrap_or_default();
                let detail = format!("the state log {name}, segment {segment}: {reason}");
                return Err(Stopped::because("storage", detail));
            }
            Err(CleanupError::DiskFull) => return Err(disk_full()),
            Err(CleanupError::Cancelled) => return Err(stopping()),
            Err(error) => return Err(Stopped::because("storage", error.to_string())),
        }
        Ok(())
    }

    /// Of those that are over the oldest go, above a number. Their receipts stay.
    fn drop_oldest(&self) -> Result<(), Stopped> {
        let mut ended: Vec<(i64, String)> = {
            let book = self.erasures.locked();
            let ended = book.erasures.values().filter(|one| one.is_ended());
            ended.map(|one| (one.asked_ms, one.id.clone())).collect()
        };
        ended.sort();
        let more = ended.len().saturating_sub(ENDED_MAX);
        let gone = ended.into_iter().take(more);
        let gone: Vec<_> = gone.map(|(_, id)| ErasureRecord::ErasureGone(id)).collect();
        match gone.is_empty() {
            true => Ok(()),
            false => self.write(gone),
        }
    }
}

fn quarantine_text(report: &Report) -> String {
    format!(
        "in the quarantine there are files that hold a key: {}; they go too if that is asked for (remove_quarantined)",
        receipt::describe(report)
    )
}

fn search_failed(error: io::Error) -> Stopped {
    match error.kind() {
        io::ErrorKind::Interrupted => stopping(),
        _ => Stopped::because("unreadable", format!("a file cannot be searched: {error}")),
    }
}

fn stopped_by(error: EraseError) -> Stopped {
    let code = match &error {
        EraseError::Held(_) => HELD,
        EraseError::DiskFull => return disk_full(),
        EraseError::Cancelled => return stopping(),
        EraseError::Unreadable(_) => "damaged",
        EraseError::NoLog | EraseError::Restless => "busy",
        EraseError::Watch(_) | EraseError::Failed(_) => "storage",
    };
    Stopped::because(code, error.to_string())
}

/// What the loss ledger says of it.
fn reason_of(erasure: &Erasure) -> String {
    format!("erasure {} by {}", erasure.id, erasure.by)
}

/// What is erased is written down elsewhere.
struct Unwatched;

impl EraseWatch for Unwatched {
    fn begin(&mut self, _: &Found) -> Result<(), WatchFailed> {
        Ok(())
    }

    fn end(&mut self, _: &Found, _: Option<&Rewritten>) {}
}

/// Writes down what is done to a partition, before it is and behind it.
struct Watch<'w> {
    work: &'w Work<'w>,
    erasure: &'w Erasure,
    part: &'w Part,
    done: PartDone,
    failed: Option<Stopped>,
}

impl EraseWatch for Watch<'_> {
    fn begin(&mut self, found: &Found) -> Result<(), WatchFailed> {
        self.work.announce(self.erasure, self.part, found);
        self.done.doing = Some(Doing::of(found));
        let written = self.work.write_part(self.part, &self.done);
        written.map_err(|stopped| {
            let failed = WatchFailed(stopped.detail.clone());
            self.failed = Some(stopped);
            failed
        })
    }

    fn end(&mut self, _: &Found, rewritten: Option<&Rewritten>) {
        if let Some(doing) = self.done.doing.take().filter(|_| rewritten.is_some()) {
            let (work, done) = (self.work, &mut self.done);
            work.count(self.erasure, self.part, done, &doing);
        }
    }
}
