//! Whether the disk keeps up: durations of syncs, and how long appends wait.

use super::Page;
use crate::broker::{Broker, SYNC_BUCKETS_MICROS};

pub(super) fn write(page: &mut Page, broker: &Broker) {
    let waits = broker.append_waits();
    page.single(
        "alluvium_append_oldest_unsynced_seconds",
        "gauge",
        "The age of the oldest append that is not durable; 0 if there is none.",
        waits.oldest.as_secs_f64(),
    );
    page.single(
        "alluvium_append_oldest_waiting_seconds",
        "gauge",
        "For how long a producer has waited for room to append; 0 if none does.",
        waits.oldest_at_gate.as_secs_f64(),
    );
    page.single(
        "alluvium_appends_stalled",
        "gauge",
        "1 while appends wait for a disk that does not answer.",
        u8::from(waits.is_stalled),
    );
    let name = "alluvium_wal_sync_duration_seconds";
    page.family(
        name,
        "histogram",
        "How long syncs of the write-ahead log took; every acknowledgement waits for one.",
    );
    let durations = broker.sync_durations();
    let mut count = 0;
    let bounds = SYNC_BUCKETS_MICROS
        .iter()
        .map(|micros| seconds(*micros).to_string());
    for (bound, within) in bounds.chain(["+Inf".to_owned()]).zip(durations.buckets) {
        count += within;
        page.sample(&format!("{name}_bucket"), &[("le", &bound)], count);
    }
    page.sample(&format!("{name}_sum"), &[], seconds(durations.micros));
    page.sample(&format!("{name}_count"), &[], count);
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
