//! Health in JSON: what keeps the store from taking records, and what else is wrong with it.
//!
//! Callers: `/readyz`, and the cluster's description.

use serde_json::{Value, json};

use crate::broker::{Damage, Health};

/// A damaged range.
pub(super) fn place_of(damage: &Damage) -> Value {
    json!({
        "code": "damaged", "log": damage.log.map(|log| log.to_string()), "from": damage.range.start.get(),
        "to": damage.range.end.get(), "detail": damage.reason,
    })
}

/// Whether records are taken; and why not, or what else is wrong.
pub(super) fn reasons(health: &Health) -> (bool, Vec<Value>) {
    let mut reasons = Vec::new();
    if health.disk_full {
        reasons.push(json!({ "code": "disk_full", "detail": "the disk is full: appends are refused until there is space, reads go on" }));
    }
    if let Some(waited) = health.stalled {
        let seconds = waited.as_secs();
        reasons.push(json!({ "code": "disk_stalled", "detail": format!("the disk does not answer: an append has waited for {seconds} s; reads go on, nothing is lost") }));
    }
    if let Some(failed) = &health.failed {
        reasons.push(json!({ "code": "storage_failed", "detail": failed }));
    }
    let ready = reasons.is_empty();
    for damage in &health.damage {
        reasons.push(place_of(damage));
    }
    for one in &health.uncleanable {
        reasons.push(json!({
            "code": "cleanup_set_aside", "log": one.log.to_string(), "from": one.segment.base.get(), "detail": &*one.reason,
        }));
    }
    (ready, reasons)
}

/// Leaves of each reason its code alone.
pub(super) fn keep_codes(reasons: &mut [Value]) {
    for reason in reasons {
        *reason = json!({ "code": reason["code"] });
    }
}
