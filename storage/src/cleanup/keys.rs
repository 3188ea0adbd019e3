//! The key map: where the newest record of each key is, within a set amount of memory.
//!
//! Caller: compaction, which fills it from the dirty part of a log, up to where it is full, and then asks it for each record.
//! Open addressing with linear probing over slots of the key's 128-bit hash and the offset. The hash, SipHash, is keyed at random for
//! each map, so that nobody can choose keys that collide: two keys that were taken for one would lose a record. By chance that
//! happens to one pair in 2^128.
//! The slots are zero pages until they are written, and are given back with the map. A map is much larger than the processor's
//! caches: [`KeyMap::fetch`] has the slots of many keys brought near at once, instead of waiting for one after the other.

use std::hash::{BuildHasher as _, RandomState};

use model::Offset;
use siphasher::sip128::SipHasher13;

/// Four parts of a hash; and an offset less the map's base, plus one, or 0 if the slot is free.
type Slot = [u32; 5];
const SLOT_BYTES: u64 = size_of::<Slot>() as u64;
const _: () = assert!(SLOT_BYTES == 20);
/// Where in a slot the offset is.
const OFFSET: usize = 4;
/// The map is full when so many of a hundred slots are taken: beyond it probing gets slow.
const LOAD_PERCENT: u64 = 85;
/// No map is smaller.
const SLOTS_MIN: u64 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct KeyMap {
    hasher: SipHasher13,
    /// The first offset that can be in it.
    base: Offset,
    slots: Vec<Slot>,
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
        let [first, second] = [(); 2].map(|()| RandomState::new().hash_one(0));
        KeyMap {
            hasher: SipHasher13::new_with_keys(first, second),
            base,
            slots: vec![[0; 5]; count],
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
        let known = self.slots[slot][OFFSET];
        if known == 0 {
            if self.len == self.len_max {
                return Err(Full);
            }
            self.len += 1;
        }
        assert!(known <= stored, "offsets come in order");
        let [first, second, third, fourth] = parts(hash);
        self.slots[slot] = [first, second, third, fourth, stored];
        Ok(())
    }

    /// The newest offset of the key with this hash, if it is in the map.
    pub fn get(&self, hash: u128) -> Option<Offset> {
        let relative = self.slots[self.slot_of(hash)][OFFSET].checked_sub(1)?;
        Some(self.base.plus(relative.into()))
    }

    /// Brings the slots near where these hashes are looked for first: the loads do not wait for each other.
    pub fn fetch(&self, hashes: impl Iterator<Item = u128>) {
        let touched = hashes.fold(0, |sum, hash| {
            sum ^ self.slots[self.first_slot(hash)][OFFSET]
        });
        std::hint::black_box(touched);
    }

    /// The slot that has the hash, or the free one where it goes.
    fn slot_of(&self, hash: u128) -> usize {
        let parts = parts(hash);
        let mut slot = self.first_slot(hash);
        loop {
            let [first, second, third, fourth, offset] = self.slots[slot];
            if offset == 0 || [first, second, third, fourth] == parts {
                return slot;
            }
            slot += 1;
            if slot == self.slots.len() {
                slot = 0;
            }
        }
    }

    fn first_slot(&self, hash: u128) -> usize {
        // The upper half of the product: a number below the count of slots, evenly, without a division.
        let spread = (hash >> 64) * self.slots.len() as u128;
        usize::try_from(spread >> 64).expect("less than there are slots")
    }

    /// The hash of a key in this map.
    pub fn hash(&self, key: &[u8]) -> u128 {
        self.hasher.hash(key).as_u128()
    }
}

/// A hash in parts that need no alignment.
fn parts(hash: u128) -> [u32; 4] {
    [0, 32, 64, 96]
        .map(|shift| u32::try_from(hash >> shift & u128::from(u32::MAX)).expect("32 bits"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn put(map: &mut KeyMap, key: &[u8], offset: u64) -> Result<(), Full> {
        map.put(map.hash(key), Offset::new(offset))
    }

    fn get(map: &KeyMap, key: &[u8]) -> Option<Offset> {
        map.get(map.hash(key))
    }

    #[test]
    fn a_full_map_takes_known_keys_and_refuses_new_ones() {
        let mut map = KeyMap::new(Offset::ZERO, u64::MAX, 100 * SLOT_BYTES);
        for number in 0..85u64 {
            put(&mut map, &number.to_be_bytes(), number).unwrap();
        }
        assert_eq!(put(&mut map, b"one too many", 85), Err(Full));
        put(&mut map, &3u64.to_be_bytes(), 86).unwrap();
        assert_eq!(get(&map, &3u64.to_be_bytes()), Some(Offset::new(86)));
        assert_eq!(get(&map, b"one too many"), None);
        assert_eq!(map.len(), 85);
    }

    #[test]
    fn a_map_takes_no_more_memory_than_it_is_allowed_and_no_more_than_it_needs() {
        let bytes = |map: &KeyMap| map.slots.len() as u64 * SLOT_BYTES;
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
                prop_assert_eq!(get(&map, key), plain.get(&key[..]).copied());
            }
            prop_assert_eq!(get(&map, b"another"), None);
        }
    }
}
