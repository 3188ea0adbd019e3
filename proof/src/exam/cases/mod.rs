//! The cases: one file each, one row each. `docs/reliability.md` tells what each of them proves.

mod backup_killed;
mod bad_sector;
mod cleanup_jobs;
mod cleanup_killed;
mod clock;
mod control;
mod crash;
mod descriptors;
mod disk_full;
mod erase_killed;
mod files;
mod full;
mod full_compaction;
mod full_disk_escape;
mod full_start;
mod fuzzed;
mod greedy;
mod guessed;
mod handshakes;
mod http_killed;
mod hundred_thousand;
mod keyed;
mod kill;
mod lies;
mod many;
mod many_dirty;
mod memory;
mod nested;
mod newer_formats;
mod paused_reader;
mod power_cut;
mod read_only;
mod restart_storm;
mod revoked;
mod sasl_frames;
mod selective;
mod served;
mod simulated;
mod stalled_disk;
mod stop;
mod storm;
mod sync_error;
mod syscalls;
mod torn;

use super::Case;

/// Every case, by number.
pub const ALL: &[Case] = &[
    kill::CASE,
    nested::CASE,
    power_cut::CASE,
    torn::CASE,
    simulated::CASE,
    control::CASE,
    syscalls::CASE,
    sync_error::CASE,
    bad_sector::CASE,
    disk_full::CASE,
    full_start::CASE,
    read_only::CASE,
    files::FLIPS,
    files::FILES,
    clock::CASE,
    storm::CASE,
    descriptors::CASE,
    lies::CASE,
    fuzzed::CASE,
    paused_reader::CASE,
    memory::CASE,
    cleanup_killed::CASE,
    greedy::CASE,
    full_disk_escape::CASE,
    restart_storm::CASE,
    stalled_disk::CASE,
    newer_formats::CASE,
    stop::CASE,
    served::CASE,
    many_dirty::CASE,
    hundred_thousand::CASE,
    backup_killed::CASE,
    full_compaction::CASE,
    erase_killed::CASE,
    cleanup_killed::POWER_CUT,
    handshakes::CASE,
    guessed::CASE,
    sasl_frames::CASE,
    revoked::CASE,
    http_killed::CASE,
    selective::CASE,
];

/// The cases whose short form is a part of `cargo xtask test`.
pub const FAST: &[u32] = &[
    1, 5, 7, 8, 9, 12, 13, 23, 25, 26, 27, 29, 34, 35, 36, 37, 38, 39, 40, 42, 43, 44, 45, 46, 50,
    51, 52, 53, 57, 60,
];

/// The cases that have clients of AMQP, and with `--jms` of JMS.
pub const WITH_AMQP: &[u32] = &[1, 3, 4, 7, 9, 12, 25, 26];

/// The one whose short form with `--jms` is a part of `cargo xtask test`, too.
pub const WITH_JMS: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_stand_once_each_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].number < pair[1].number));
        let named = FAST.iter().chain(WITH_AMQP);
        assert!(
            named
                .into_iter()
                .all(|fast| ALL.iter().any(|case| case.number == *fast))
        );
    }
}
