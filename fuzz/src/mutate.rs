//! Changes inputs at random, under a seed: for the fuzzer that needs no instrumented build.

/// Numbers at which code changes its mind.
const EDGES: [i64; 14] = [
    0,
    1,
    -1,
    -2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    i64::MAX,
    i64::MIN,
];

/// Numbers from a seed (SplitMix64, Steele and others, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The row of numbers that belongs to a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u64;
        usize::try_from(self.next_u64() % end).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next_u64().to_le_bytes()[0]
    }
}

/// One of the seeds, changed in up to eight places, of at most `bytes_max` bytes.
pub fn mutated(seeds: &[Vec<u8>], bytes_max: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = match seeds.get(random.below(seeds.len())) {
        Some(seed) => seed.clone(),
        None => Vec::new(),
    };
    for _ in 0..=random.below(8) {
        change(&mut bytes, seeds, random);
    }
    bytes.truncate(bytes_max);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    // Heads hold what decides; half of all changes are made there.
    let reach = match random.below(2) {
        0 => bytes.len().min(64),
        _ => bytes.len(),
    };
    let at = random.below(reach);
    match random.below(9) {
        0 => set(bytes, at, &[random.byte()]),
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            let edge = EDGES[random.below(EDGES.len())];
            match random.below(4) {
                0 => set(bytes, at, &edge.to_be_bytes()[6..]),
                1 => set(bytes, at, &edge.to_be_bytes()[4..]),
                2 => set(bytes, at, &edge.to_le_bytes()[..4]),
                _ => set(bytes, at, &edge.to_be_bytes()),
            }
        }
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                let step = i8::try_from(random.below(9)).expect("below nine") - 4;
                *byte = byte.wrapping_add_signed(step);
            }
        }
        4 => bytes.truncate(at),
        5 => {
            let count = random.below(16);
            let new: Vec<u8> = (0..count).map(|_| random.byte()).collect();
            bytes.splice(at..at, new);
        }
        6 => {
            let end = bytes.len().min(at + random.below(16));
            bytes.drain(at.min(end)..end);
        }
        7 => {
            let end = bytes.len().min(at + random.below(64));
            let again = bytes[at.min(end)..end].to_vec();
            bytes.splice(end..end, again);
        }
        _ => {
            if let Some(other) = seeds.get(random.below(seeds.len())) {
                let from = random.below(other.len());
                let count = random.below(other.len() - from + 1);
                bytes.splice(at..at, other[from..from + count].iter().copied());
            }
        }
    }
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_again() {
        let seeds = vec![vec![7; 100], Vec::new(), b"text".to_vec()];
        let row = |seed| {
            let mut random = Random::new(seed);
            (0..1_000)
                .map(|_| mutated(&seeds, 150, &mut random))
                .collect::<Vec<_>>()
        };
        assert_eq!(row(1), row(1));
        assert_ne!(row(1), row(2));
        assert!(row(3).iter().all(|bytes| bytes.len() <= 150));
    }
}
