//! What reads bytes from outside, as functions that a fuzzer drives: one per reader, each with its seeds.
//!
//! Callers: this crate's binary, a fuzzer of its own for stable Rust, and `fuzz/libfuzzer`, which puts the same functions under
//! libFuzzer. `cargo xtask fuzz` runs both. Invariant: a target does nothing but call public doors of the crates and assert
//! what they promise; whatever the bytes, it must neither panic nor take long nor allocate by what they claim.

mod input;
pub mod mutate;
pub mod seeds;
pub mod targets;

pub use input::Input;

/// One reader of foreign bytes.
pub struct Target {
    /// Its name: that of its module, and of its binary under libFuzzer.
    pub name: &'static str,
    /// Reads the bytes, and panics if a promise is broken.
    pub run: fn(&[u8]),
    /// What to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The longest input that makes sense.
    pub bytes_max: usize,
}

macro_rules! targets {
    ($($name:ident $bytes_max:expr),* $(,)?) => {
        &[$(Target {
            name: stringify!($name),
            run: targets::$name::run,
            seeds: targets::$name::seeds,
            bytes_max: $bytes_max,
        }),*]
    };
}

/// Every target.
pub const TARGETS: &[Target] = targets![
    messages 64 << 10,
    consumer_protocol 16 << 10,
    quotas 4 << 10,
    shares 4 << 10,
    frames 64 << 10,
    batches 64 << 10,
    codecs 64 << 10,
    wal 64 << 10,
    segment 64 << 10,
    index 16 << 10,
    key_index 16 << 10,
    manifest 16 << 10,
    summary 16 << 10,
    thin_tiers 4 << 10,
    checkpoint 16 << 10,
    snapshots 16 << 10,
    recovery 4 << 10,
    output_format 4 << 10,
    input_format 16 << 10,
    time_spec 256,
    acls 4 << 10,
    erasures 16 << 10,
    witness 16 << 10,
    arrow_body 64 << 10,
    condition 4 << 10,
    sasl 4 << 10,
    rows 64 << 10,
    produce_body 16 << 10,
    follow_position 1 << 10,
    mqtt 16 << 10,
    amqp 16 << 10,
    selector 8 << 10,
    losses 4 << 10,
    retained 4 << 10,
    sessions 4 << 10,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::{Direction, traffic};
    use std::collections::BTreeSet;

    #[test]
    fn every_seed_is_read_and_no_promise_is_broken() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} starts from something", target.name);
            for seed in seeds {
                (target.run)(&seed);
            }
        }
    }

    #[test]
    fn no_input_is_too_short() {
        for target in TARGETS {
            for bytes in 0..8 {
                (target.run)(&vec![0; bytes]);
                (target.run)(&vec![0xff; bytes]);
            }
        }
    }

    #[test]
    fn each_target_has_its_binary_under_libfuzzer() {
        let manifest = include_str!("../libfuzzer/Cargo.toml");
        let binaries: Vec<&str> = manifest
            .lines()
            .filter_map(|line| {
                line.strip_prefix("path = \"fuzz_targets/")?
                    .strip_suffix(".rs\"")
            })
            .collect();
        let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        assert_eq!(binaries, targets);
    }

    #[test]
    fn recorded_messages_are_whole_and_of_many_kinds() {
        let mut kinds = BTreeSet::new();
        for exchange in traffic() {
            assert!(!exchange.message().is_empty() || exchange.frame.len() <= 40);
            kinds.insert((
                exchange.key,
                exchange.version,
                exchange.direction == Direction::Response,
            ));
        }
        assert!(kinds.len() > 60, "{}", kinds.len());
    }
}
