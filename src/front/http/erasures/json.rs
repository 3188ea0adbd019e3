//! What erasures and looks are in JSON. Names in it stay.
//!
//! Callers: the routes of erasures.

use serde_json::{Value, json};

use crate::broker::erasures::{
    Erasure, ErasureState, Look, LookKind, LookResult, LookState, OfPartition, Part, PartDone,
    Sighted,
};
use crate::front::http::schema::{
    Schema, anything, boolean, integer, integer_from, list, map, object, one_of, text,
};

pub(super) fn schema() -> Schema {
    object([
        ("id", text()),
        (
            "state",
            one_of(&[
                "looking",
                "erasing",
                "purging",
                "verifying",
                "forgetting",
                "ended",
            ]),
        ),
        (
            "outcome",
            one_of(&["done", "refused", "cancelled"]).or_null(),
        ),
        ("detail", text().or_null()),
        (
            "stopped",
            object([("code", text()), ("detail", text()), ("tries", integer())]).or_null(),
        ),
        ("topic", text()),
        ("partition", integer_from(0).or_null()),
        ("salt", text()),
        (
            "keys",
            list(text()).about("SHA-256 of salt and key, of each"),
        ),
        ("reason", text().or_null()),
        ("by", text()),
        ("asked_ms", integer()),
        ("ended_ms", integer().or_null()),
        ("remove_quarantined", boolean()),
        ("receipt", integer_from(1).or_null()),
        ("progress", map(anything())),
        ("partitions", list(map(anything()))),
    ])
}

pub(super) fn receipt_schema() -> Schema {
    object([
        ("version", integer_from(1)),
        ("number", integer_from(1)),
        ("id", text()),
        ("outcome", one_of(&["done", "cancelled"])),
        ("topic", text()),
        ("records_erased", integer_from(0)),
        ("partitions", list(map(anything()))),
        ("verified", map(anything()).or_null()),
        ("previous", text().or_null()),
        ("sha256", text()),
    ])
}

pub(super) fn look_schema() -> Schema {
    object([
        ("id", text()),
        ("kind", one_of(&["plan", "verify"])),
        ("state", one_of(&["running", "done", "failed"])),
        ("topic", text()),
        ("partition", integer_from(0).or_null()),
        ("progress", map(anything())),
        ("detail", text().or_null()),
        ("result", map(anything()).or_null()),
    ])
}

pub(super) fn of_erasure(state: &ErasureState) -> Value {
    let ErasureState {
        erasure,
        parts,
        stopped,
        bytes,
    } = state;
    let stopped = stopped.as_ref().map(
        |stopped| json!({ "code": stopped.code, "detail": stopped.detail, "tries": stopped.tries }),
    );
    let done = parts.iter().filter(|part| part.is_done).count();
    let sum = |of: fn(&PartDone) -> u64| parts.iter().map(of).sum::<u64>();
    json!({
        "id": erasure.id, "state": erasure.phase, "outcome": erasure.outcome, "detail": erasure.detail, "stopped": stopped,
        "topic": erasure.topic, "partition": erasure.partition, "salt": erasure.salt, "keys": erasure.keys,
        "reason": erasure.reason, "by": erasure.by, "asked_ms": erasure.asked_ms, "ended_ms": erasure.ended_ms,
        "remove_quarantined": erasure.removes_quarantined, "receipt": erasure.receipt.filter(|_| erasure.is_ended()),
        "progress": {
            "partitions": erasure.parts.len(), "partitions_done": done, "records_found": sum(|part| part.found),
            "records_erased": sum(|part| part.records), "segments_rewritten": sum(|part| part.segments),
            "bytes_done": bytes.map(|(done, _)| done), "bytes": bytes.map(|(_, total)| total),
        },
        "partitions": of_parts(erasure, parts),
    })
}

fn of_parts(erasure: &Erasure, parts: &[PartDone]) -> Vec<Value> {
    let none = PartDone::default();
    let each = erasure.parts.iter().enumerate().map(|(index, part)| {
        let done = parts.get(index).unwrap_or(&none);
        let mut value = of_part(part);
        if !parts.is_empty() {
            value["records_found"] = done.found.into();
            value["records_erased"] = done.records.into();
            value["segments_rewritten"] = done.segments.into();
            value["undecodable"] = done.undecodable.into();
            value["done"] = done.is_done.into();
        }
        value
    });
    each.collect()
}

fn of_part(part: &Part) -> Value {
    json!({ "partition": part.partition, "start_offset": part.start, "before_offset": part.before })
}

pub(super) fn of_look(look: &Look) -> Value {
    let (state, detail, result) = match &look.state {
        LookState::Running => ("running", None, None),
        LookState::Failed(reason) => ("failed", Some(reason), None),
        LookState::Done(LookResult::Plan(sighted)) => ("done", None, Some(of_plan(sighted))),
        LookState::Done(LookResult::Verify(report)) => ("done", None, Some(report.to_json())),
    };
    let kind = match look.kind {
        LookKind::Plan => "plan",
        LookKind::Verify => "verify",
    };
    let (done, total) = look.bytes();
    json!({
        "id": look.id, "kind": kind, "state": state, "topic": look.topic, "partition": look.partition,
        "progress": { "bytes_done": done, "bytes": total }, "detail": detail, "result": result,
    })
}

fn of_plan(sighted: &Sighted) -> Value {
    let sum = |of: fn(&OfPartition) -> u64| sighted.partitions.iter().map(of).sum::<u64>();
    let partitions = sighted.partitions.iter().map(|one| {
        let mut value = of_part(&one.part);
        value["records"] = one.records.into();
        value["segments"] = one.segments.into();
        value["segments_read"] = one.segments_read.into();
        value["windows"] = one.windows.into();
        value["undecodable"] = one.undecodable.into();
        value["unreadable"] = one.unreadable.clone().into();
        value["hold"] = one.hold.clone().into();
        value
    });
    json!({
        "records": sum(|one| one.records), "segments": sum(|one| one.segments), "segments_read": sum(|one| one.segments_read),
        "windows": sum(|one| one.windows), "undecodable": sum(|one| one.undecodable), "refusal": sighted.refusal(),
        "quarantine": Some(&sighted.quarantine).filter(|text| !text.is_empty()),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}
