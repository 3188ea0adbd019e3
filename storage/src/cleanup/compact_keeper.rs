//! What compaction keeps of each batch: the newest record of each key, tombstones until their delete horizon, and what the key
//! map does not reach yet.
//!
//! Caller: `execute`, which fills the map from the dirty part and then has segments rewritten by this keeper, oldest first.
//! Source: Kafka's `Cleaner`. As there, a record without a key goes once the map covers it: a topic that is compacted takes none,
//! so that it is from before the policy was set. The last batch of each producer stays, as an empty one if need be. Control
//! batches stay. A batch whose records cannot be read stays as it is: one bad batch does not end the compaction of its log.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, LazyLock, RwLockReadGuard};

use bytes::Bytes;
use model::batch::{
    Batch, BatchError, BatchHeader, Codec, DecompressLimit, Filter, Rest, without_records,
};
use model::{Offset, ProducerId, Timestamp};

use super::hold_source::LogHolds;
use super::keys::{Full, KeyMap};
use super::policy::Policy;
use crate::rewrite::{KeepError, Keeper, Verdict};
use crate::segment::SegmentId;

/// So many keys are looked up at a time: their slots fit into a processor's nearer caches.
const FETCH_COUNT: usize = 256;

/// What a run has come across.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Records that went.
    pub records: u64,
    /// Of those: tombstones.
    pub tombstones: u64,
    /// Of those: records without a key.
    pub keyless: u64,
    /// Batches whose records cannot be read.
    pub unreadable: u64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.records += other.records;
        self.tombstones += other.tombstones;
        self.keyless += other.keyless;
        self.unreadable += other.unreadable;
    }
}

/// The last batch of each producer: its id and last offset.
pub(super) type LastBatches = HashSet<(ProducerId, Offset)>;

/// What the newest record of each key in a dirty range is.
#[derive(Debug)]
pub(super) struct Newest {
    map: KeyMap,
    /// What lies before it was seen already.
    from: Offset,
    /// The map knows all keys of the records from `from` to here.
    covered: Offset,
    limit: DecompressLimit,
    /// Hashes of the batch at hand: none of it is in the map before all of it could be read.
    batch: Vec<(u128, Offset)>,
}

impl Newest {
    /// Nothing yet, for a range that begins at `from` and holds so many records at most.
    pub fn new(from: Offset, records: u64, bytes_max: u64) -> Newest {
        Newest {
            map: KeyMap::new(from, records, bytes_max),
            from,
            covered: from,
            limit: DecompressLimit::default(),
            batch: Vec::new(),
        }
    }

    /// The end of what the map covers.
    pub fn covered(&self) -> Offset {
        self.covered
    }

    /// Nothing more comes before this offset.
    pub fn reach(&mut self, end: Offset) {
        self.covered = self.covered.max(end);
    }

    /// Takes the keys of a batch. Errors: `Enough` when the map is full; it covers what comes before the record that did not fit.
    pub fn take(&mut self, header: &BatchHeader, bytes: &Bytes) -> Result<(), KeepError> {
        if header.next_offset() <= self.from {
            return Ok(());
        }
        if !header.is_control() && header.record_count > 0 {
            self.take_records(bytes)?;
        }
        self.reach(header.next_offset());
        Ok(())
    }

    fn take_records(&mut self, bytes: &Bytes) -> Result<(), KeepError> {
        if self.hash_records(bytes).is_err() {
            // It stays as it is, and what it may hold replaces nothing.
            return Ok(());
        }
        for piece in self.batch.chunks(FETCH_COUNT) {
            self.map.fetch(piece.iter().map(|(hash, _)| *hash));
            for (hash, offset) in piece {
                if let Err(Full) = self.map.put(*hash, *offset) {
                    self.covered = self.covered.max(*offset);
                    return Err(KeepError::Enough);
                }
            }
        }
        Ok(())
    }

    fn hash_records(&mut self, bytes: &Bytes) -> Result<(), BatchError> {
        self.batch.clear();
        let batch = Batch::parse_unverified(bytes.clone())?;
        let mut records = batch.records(self.limit)?;
        while let Some(record) = records.next_ref() {
            let record = record?;
            if let Some(key) = record.key.filter(|_| record.offset >= self.from) {
                self.batch.push((self.map.hash(key), record.offset));
            }
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct CompactKeeper<'r> {
    newest: &'r Newest,
    last_batches: &'r LastBatches,
    filter: Filter,
    now: Timestamp,
    /// The delete horizon of tombstones that are seen for the first time.
    horizon: Timestamp,
    /// A segment before these could not be cleaned: what it holds of a key must not come back.
    keeps_tombstones: bool,
    /// Hashes of the keys of the batch at hand, whose slots were fetched; none of a compressed batch.
    hashes: Vec<u128>,
    /// The records of those keys.
    records: Vec<Seen>,
    /// Which of those stay.
    stays: Vec<bool>,
    pub counts: Counts,
    holds: LogHolds<'r>,
    /// The segment that is written.
    new: SegmentId,
    /// From the first to the last batch of which something went.
    gone: Option<Range<Offset>>,
}

/// A record whose key was hashed.
#[derive(Clone, Copy, Debug)]
struct Seen {
    offset: Offset,
    has_value: bool,
}

impl<'r> CompactKeeper<'r> {
    /// Keeps what `newest` says, and what is held when it is to go. `horizon` is when tombstones may go that are seen for the first time.
    pub fn new(
        (newest, last_batches): (&'r Newest, &'r LastBatches),
        (holds, new): (LogHolds<'r>, SegmentId),
        now: Timestamp,
        horizon: Timestamp,
        keeps_tombstones: bool,
    ) -> CompactKeeper<'r> {
        CompactKeeper {
            newest,
            last_batches,
            filter: Filter::new(newest.limit),
            now,
            horizon,
            keeps_tombstones,
            hashes: Vec::new(),
            records: Vec::new(),
            stays: Vec::new(),
            counts: Counts::default(),
            holds,
            new,
            gone: None,
        }
    }

    /// Something of a batch goes.
    fn goes(&mut self, header: &BatchHeader) {
        let from = self.gone.as_ref().map_or(header.base(), |gone| gone.start);
        self.gone = Some(from..header.next_offset());
    }

    /// Hashes the keys of a batch that the map covers, and brings their slots near. Not of a compressed one, which would have
    /// to be decompressed for it.
    fn fetch(&mut self, batch: &Batch) -> Result<(), BatchError> {
        self.hashes.clear();
        self.records.clear();
        if batch.header().codec()? != Codec::None {
            return Ok(());
        }
        let Newest { map, covered, .. } = self.newest;
        let mut records = batch.records(self.newest.limit)?;
        while let Some(record) = records.next_ref() {
            let record = record?;
            if let Some(key) = record.key.filter(|_| record.offset < *covered) {
                self.hashes.push(map.hash(key));
                self.records.push(Seen {
                    offset: record.offset,
                    has_value: record.value.is_some(),
                });
            }
        }
        map.fetch(self.hashes.iter().copied());
        Ok(())
    }

    /// What becomes of a batch, if its keys alone tell that: each of its records was hashed and has a value. None if it has to be
    /// looked at again.
    fn judge_by_keys(&mut self, batch: &Batch) -> Result<Option<Rest>, BatchError> {
        let count = batch.header().record_count.unsigned_abs() as usize;
        let has_all = count > 0 && self.records.len() == count;
        if !has_all || self.records.iter().any(|it| !it.has_value) {
            return Ok(None);
        }
        let map = &self.newest.map;
        let seen = self.records.iter().zip(&self.hashes);
        self.stays.clear();
        self.stays.extend(
            seen.map(|(seen, hash)| map.get(*hash).is_none_or(|newest| seen.offset >= newest)),
        );
        let kept = self.stays.iter().filter(|stays| **stays).count();
        let rest = if kept == count {
            Rest::Whole
        } else if kept == 0 {
            Rest::Nothing
        } else {
            let mut stays = self.stays.iter();
            let mut goes = |_| !*stays.next().expect("each record was hashed");
            self.filter.take_out(batch, &mut goes)?.0
        };
        self.counts.records += (count - kept) as u64;
        Ok(Some(rest))
    }

    fn verdict(&self, header: &BatchHeader, rest: Rest) -> Verdict {
        match rest {
            Rest::Whole => Verdict::Keep,
            Rest::Rebuilt(bytes) => Verdict::Replace(bytes),
            Rest::Nothing => self.nothing_of(header),
        }
    }

    /// A batch without a record keeps its place if it is the last one of its producer.
    fn nothing_of(&self, header: &BatchHeader) -> Verdict {
        let is_last = header
            .producer()
            .is_some_and(|(id, ..)| self.last_batches.contains(&(id, header.last_offset())));
        match is_last {
            true => Verdict::Replace(without_records(header)),
            false => Verdict::Drop,
        }
    }
}

impl Keeper for CompactKeeper<'_> {
    fn judge(&mut self, header: &BatchHeader, bytes: &Bytes) -> Result<Verdict, KeepError> {
        let Newest { map, covered, .. } = self.newest;
        if header.is_control() || header.base() >= *covered {
            return Ok(Verdict::Keep);
        }
        let may_drop_tombstones = !self.keeps_tombstones
            && header
                .delete_horizon()
                .is_some_and(|horizon| horizon <= self.now);
        let mut keyless = 0;
        let batch = Batch::parse_unverified(bytes.clone());
        let fetched = batch.and_then(|batch| self.fetch(&batch).map(|()| batch));
        let by_keys = match &fetched {
            Ok(batch) => self.judge_by_keys(batch),
            Err(_) => Ok(None),
        };
        if let Ok(Some(rest)) = by_keys {
            if rest != Rest::Whole {
                self.goes(header);
            }
            return Ok(self.verdict(header, rest));
        }
        let filtered = fetched.and_then(|batch| {
            let mut hashes = self.hashes.iter();
            self.filter
                .apply(&batch, Some(self.horizon), &mut |record| {
                    if record.offset >= *covered {
                        return true;
                    }
                    let Some(key) = record.key else {
                        keyless += 1;
                        return false;
                    };
                    let hash = hashes.next().map_or_else(|| map.hash(key), |hash| *hash);
                    let is_newest = map.get(hash).is_none_or(|newest| record.offset >= newest);
                    is_newest && (record.value.is_some() || !may_drop_tombstones)
                })
        });
        let Ok(filtered) = filtered else {
            self.counts.unreadable += 1;
            return Ok(Verdict::Keep);
        };
        self.counts.records += u64::from(filtered.dropped);
        if filtered.dropped > 0 {
            self.goes(header);
        }
        self.counts.tombstones += u64::from(filtered.tombstones_dropped);
        self.counts.keyless += keyless;
        Ok(self.verdict(header, filtered.rest))
    }

    fn may_switch(&self) -> Result<Option<RwLockReadGuard<'_, ()>>, KeepError> {
        let Some(gone) = &self.gone else {
            return Ok(None);
        };
        let guard = self.holds.may_go(gone, &NO_KEYS)?;
        self.holds
            .tell(Policy::Compaction, gone, self.counts.records, self.new)?;
        Ok(Some(guard))
    }
}

/// No key's records stay whatever happens.
static NO_KEYS: LazyLock<HashSet<Arc<[u8]>>> = LazyLock::new(HashSet::new);

/// Keeps everything: for neighbours that are only put together.
#[derive(Debug)]
pub(super) struct KeepAll;

impl Keeper for KeepAll {
    fn judge(&mut self, _: &BatchHeader, _: &Bytes) -> Result<Verdict, KeepError> {
        Ok(Verdict::Keep)
    }
}
