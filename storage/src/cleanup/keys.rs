//! The key map: where the newest record of each key is, within a set amount of memory.
//!
//! Caller: compaction, which fills it from the dirty part of a log, up to where it is full, and then asks it for each record.
//! Open addressing with linear probing over two arrays: the key's 128-bit hash, and the offset. The hash is keyed at random for
//! each map, so that nobody can choose keys that collide: two keys that were taken for one would lose a record. By chance that
//! happens to one pair in 2^128.
//! The arrays are zero pages until they are written, and are given back with the map.

use std::hash::{BuildHasher, Hasher, RandomState};

use model::Offset;

/// What a slot takes: hash and offset.
const SLOT_BYTES: u64 = 16 + 4;
/// The map is full when so many of a hundred slots are taken: beyond it probing gets slow.
const LOAD_PERCENT: u64 = 85;
/// No map is smaller.
const SLOTS_MIN: u64 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct KeyMap {
    low: RandomState,
    high: RandomState,
    /// The first offset that can be in it.
    base: Offset,
    hashes: Vec<u128>,
    /// An offset less `base`, plus one; 0 for a free slot.
    offsets: Vec<u32>,
    len: u64,
    len_max: u64,
}

/// There is no room for another key, or for so large an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl KeyMap {
    /// For offsets from `base` on, and as many keys as `records` at most, within so many bytes.
    pub fn new(base: Offset, records: u64, bytes_max: u64) -> KeyMap {
        let wanted = records.saturating_mul(100) / LOAD_PERCENT + 1;
        let slots = wanted.min(bytes_max / SLOT_BYTES).max(SLOTS_MIN);
        let count = usize::try_from(slots).expect("a map fits into memory");
        KeyMap {
            low: RandomState::new(),
            high: RandomState::new(),
            base,
            hashes: vec![0; count],
            offsets: vec![0; count],
            len: 0,
            len_max: slots * LOAD_PERCENT / 100,
        }
    }

    /// How many keys are in it.
    #[cfg(test)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Notes that `offset` is the newest of the key with this hash. Offsets come in order.
    pub fn put(&mut self, hash: u128, offset: Offset) -> Result<(), Full> {
        assert!(offset >= self.base, "only what is dirty is in the map");
        let relative = u32::try_from(offset.since(self.base)).map_err(|_| Full)?;
        let stored = relative.checked_add(1).ok_or(Full)?;
        let slot = self.slot_of(hash);
        if self.offsets[slot] == 0 {
            if self.len == self.len_max {
                return Err(Full);
            }
            self.hashes[slot] = hash;
            self.len += 1;
        }
        assert!(self.offsets[slot] <= stored, "offsets come in order");
        self.offsets[slot] = stored;
        Ok(())
    }

    /// The newest offset of a key, if it is in the map.
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let stored = self.offsets[self.slot_of(self.hash(key))];
        let relative = stored.checked_sub(1)?;
        Some(self.base.plus(relative.into()))
    }

    /// The slot that has the hash, or the free one where it goes.
    fn slot_of(&self, hash: u128) -> usize {
        let slots = self.offsets.len();
        // The upper half of the product: a number below `slots`, evenly, without a division.
        let spread = (hash >> 64) * slots as u128;
        let mut slot = usize::try_from(spread >> 64).expect("less than there are slots");
        while self.offsets[slot] != 0 && self.hashes[slot] != hash {
            slot += 1;
            if slot == slots {
                slot = 0;
            }
        }
        slot
    }

    /// The hash of a key in this map.
    pub fn hash(&self, key: &[u8]) -> u128 {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write(key);
            u128::from(hasher.finish())
        };
        half(&self.high) << 64 | half(&self.low)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn put(map: &mut KeyMap, key: &[u8], offset: u64) -> Result<(), Full> {
        map.put(map.hash(key), Offset::new(offset))
    }

    #[test]
    fn a_full_map_takes_known_keys_and_refuses_new_ones() {
        let mut map = KeyMap::new(Offset::ZERO, u64::MAX, 100 * SLOT_BYTES);
        for number in 0..85u64 {
            put(&mut map, &number.to_be_bytes(), number).unwrap();
        }
        assert_eq!(put(&mut map, b"one too many", 85), Err(Full));
        put(&mut map, &3u64.to_be_bytes(), 86).unwrap();
        assert_eq!(map.get(&3u64.to_be_bytes()), Some(Offset::new(86)));
        assert_eq!(map.get(b"one too many"), None);
        assert_eq!(map.len(), 85);
    }

    #[test]
    fn a_map_takes_no_more_memory_than_it_is_allowed_and_no_more_than_it_needs() {
        let bytes = |map: &KeyMap| map.hashes.len() as u64 * SLOT_BYTES;
        let budget = 1 << 20;
        assert!(bytes(&KeyMap::new(Offset::ZERO, 10_000_000, budget)) <= budget);
        let small = KeyMap::new(Offset::ZERO, 1_000, budget);
        assert!(bytes(&small) < 1_300 * SLOT_BYTES);
        assert!(small.len_max >= 1_000);
    }

    #[test]
    fn an_offset_that_is_too_far_off_is_for_the_next_pass() {
        let mut map = KeyMap::new(Offset::new(10), 10, 1 << 20);
        assert_eq!(put(&mut map, b"k", 10 + u64::from(u32::MAX)), Err(Full));
        put(&mut map, b"k", 9 + u64::from(u32::MAX)).unwrap();
    }

    proptest! {
        #[test]
        fn it_holds_what_a_hash_map_holds(keys in prop::collection::vec(prop::collection::vec(0u8..4, 0..4), 1..300)) {
            let mut map = KeyMap::new(Offset::new(7), keys.len() as u64, 1 << 20);
            let mut plain: HashMap<&[u8], Offset> = HashMap::new();
            for (index, key) in keys.iter().enumerate() {
                let offset = Offset::new(7 + index as u64);
                put(&mut map, key, offset.get()).unwrap();
                plain.insert(key, offset);
            }
            prop_assert_eq!(map.len(), plain.len() as u64);
            for key in &keys {
                prop_assert_eq!(map.get(key), plain.get(&key[..]).copied());
            }
            prop_assert_eq!(map.get(b"another"), None);
        }
    }
}
