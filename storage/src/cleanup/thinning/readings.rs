//! What thinning holds of records while they are looked at: a list for each field.
//!
//! Callers: the piece, which fills it, and `dealt`, which takes it apart.

use model::Offset;

use super::number::Numbers;
use super::policy::ThinPolicy;

/// What is held of records, in the order of their offsets: a list for each field.
#[derive(Debug)]
pub(super) struct Readings {
    /// The first one's offset.
    pub base: Offset,
    /// Counted from the first one's.
    pub offsets: Vec<u32>,
    pub keys: Vec<u32>,
    pub times: Vec<i64>,
    /// Whether a summary that was read with it counts it.
    pub counted: Vec<bool>,
    /// The bits of the conditions that hold; nothing if the policy has none.
    pub conditions: Vec<u32>,
    /// As many for each as the policy looks at values.
    pub numbers: Numbers,
    /// When they were appended: from this place on at this time.
    pub appended: Vec<(usize, i64)>,
}

impl Readings {
    /// An empty one, with room for so many.
    pub fn with_capacity(count: usize, policy: &ThinPolicy) -> Readings {
        Readings {
            base: Offset::ZERO,
            offsets: Vec::with_capacity(count),
            keys: Vec::with_capacity(count),
            times: Vec::with_capacity(count),
            counted: Vec::with_capacity(count),
            conditions: Vec::with_capacity(count * usize::from(policy.has_conditions())),
            numbers: Numbers::with_capacity(count * policy.value_count()),
            appended: Vec::new(),
        }
    }

    /// How much memory each costs, until all of them are decided.
    pub fn bytes_each(policy: &ThinPolicy) -> usize {
        let conditions = usize::from(policy.has_conditions()) * size_of::<u32>();
        let numbers = policy.value_count() * size_of::<u64>();
        // One list at a time is there twice, while it is dealt out.
        let dealt = numbers.max(size_of::<i64>());
        let fate = 2 * size_of::<u32>() + size_of::<bool>() + size_of::<u8>();
        let own = 2 * size_of::<u32>() + size_of::<i64>() + size_of::<bool>();
        own + conditions + numbers + dealt + fate
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Where the first lies that has this offset or a later one.
    pub fn place(&self, offset: Offset) -> usize {
        place_of(self.base, &self.offsets, offset)
    }

    /// Only the first so many stay, of so many values each.
    pub fn truncate(&mut self, left: usize, values: usize) {
        self.offsets.truncate(left);
        self.keys.truncate(left);
        self.times.truncate(left);
        self.counted.truncate(left);
        self.conditions.truncate(left);
        self.numbers.truncate(left * values);
        while self.appended.pop_if(|(from, _)| *from >= left).is_some() {}
    }
}

/// Where the first of some offsets lies that is this one or a later one. They are counted from `base`.
pub(super) fn place_of(base: Offset, offsets: &[u32], offset: Offset) -> usize {
    let from_base = offset.since(base);
    offsets.partition_point(|it| u64::from(*it) < from_base)
}
