//! Plans, erasures and searches in words.
//!
//! Callers: the commands of `erase`. What is read is the server's JSON, or the witness's report in the same form.

use serde_json::Value;

use crate::hold::time_text;
use crate::output::{counted, grouped, size};
use crate::table::Table;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn count(value: &Value, thing: &str) -> String {
    counted(usize::try_from(number(value)).unwrap_or(usize::MAX), thing)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// How far something is.
pub fn progress(state: &Value) -> String {
    let progress = &state["progress"];
    let done = size(number(&progress["bytes_done"]));
    let phase = word(&state["state"]);
    match progress["bytes"].as_u64() {
        Some(total) if total > 0 => format!("{phase}: {done} of about {}", size(total)),
        _ => format!("{phase}: {done}"),
    }
}

/// What an erasure would erase.
pub fn of_plan(plan: &Value) -> String {
    let mut table = Table::new(&["PARTITION", "OFFSETS", "RECORDS", "SEGMENTS", "OF", "NOTE"]);
    let partitions = plan["partitions"].as_array();
    for one in partitions.into_iter().flatten() {
        let mut notes = Vec::new();
        if let Some(hold) = one["hold"].as_str() {
            notes.push(format!("kept by {hold}"));
        }
        for reason in one["unreadable"].as_array().into_iter().flatten() {
            notes.push(word(reason).to_owned());
        }
        if number(&one["undecodable"]) > 0 {
            notes.push(format!("{} cannot be read", batches(&one["undecodable"])));
        }
        let has_something = number(&one["records"]) + number(&one["windows"]) > 0;
        if !has_something && notes.is_empty() {
            continue;
        }
        table.row([
            one["partition"].to_string(),
            format!("{} to {}", one["start_offset"], one["before_offset"]),
            number(&one["records"]).to_string(),
            number(&one["segments"]).to_string(),
            number(&one["segments_read"]).to_string(),
            notes.join("; "),
        ]);
    }
    let mut text = format!(
        "{} in {} of {} read",
        count(&plan["records"], "record"),
        count(&plan["segments"], "segment"),
        number(&plan["segments_read"]),
    );
    if number(&plan["windows"]) > 0 {
        text += &format!(", {} of summaries", count(&plan["windows"], "window"));
    }
    if let Some(files) = plan["quarantine"].as_str() {
        text += &format!("\nin the quarantine: {files}");
    }
    format!("{table}{text}\n")
}

fn batches(value: &Value) -> String {
    match number(value) {
        1 => "1 batch".to_owned(),
        many => format!("{many} batches"),
    }
}

/// One erasure.
pub fn of_erasure(one: &Value) -> String {
    let progress = &one["progress"];
    let mut text = format!(
        "erasure {} of {} in {}: {}\n",
        word(&one["id"]),
        match one["keys"].as_array().map_or(0, Vec::len) {
            1 => "1 key".to_owned(),
            many => format!("{many} keys"),
        },
        word(&one["topic"]),
        word(
            one.get("outcome")
                .filter(|outcome| one["state"] == "ended" && !outcome.is_null())
                .unwrap_or(&one["state"])
        ),
    );
    if one["state"] != "ended" {
        text += &format!(
            "{} of {} done, {} erased so far\n",
            number(&progress["partitions_done"]),
            count(&progress["partitions"], "partition"),
            count(&progress["records_erased"], "record"),
        );
    }
    if let Some(reason) = one["stopped"]["detail"].as_str() {
        text += &format!("it does not go on now, and is tried again: {reason}\n");
    }
    if let Some(detail) = one["detail"].as_str() {
        text += &format!("{detail}\n");
    }
    if let Some(receipt) = one["receipt"].as_u64() {
        let id = word(&one["id"]);
        text += &format!("receipt {receipt}: alluvium erase receipts {id}\n");
    }
    text
}

/// All erasures.
pub fn of_all(all: &Value) -> String {
    let mut table = Table::new(&[
        "ERASURE",
        "TOPIC",
        "KEYS",
        "STATE",
        "ASKED",
        "BY",
        "RECEIPT",
        "STOPPED BY",
    ]);
    for one in all.as_array().into_iter().flatten() {
        let is_ended = one["state"] == "ended";
        let state = if is_ended {
            &one["outcome"]
        } else {
            &one["state"]
        };
        table.row([
            word(&one["id"]).to_owned(),
            word(&one["topic"]).to_owned(),
            one["keys"].as_array().map_or(0, Vec::len).to_string(),
            word(state).to_owned(),
            time_text(&one["asked_ms"], "-"),
            word(&one["by"]).to_owned(),
            one["receipt"]
                .as_u64()
                .map_or("-".to_owned(), |number| number.to_string()),
            one["stopped"]["detail"].as_str().unwrap_or("").to_owned(),
        ]);
    }
    table.to_string()
}

/// What a search found.
pub fn of_search(report: &Value) -> String {
    let mut text = format!(
        "searched {} with {}, {} batches, {} records compared: ",
        count(&report["files"], "file"),
        size(number(&report["bytes"])),
        grouped(number(&report["batches"])),
        grouped(number(&report["records"])),
    );
    text += &match number(&report["found"]) {
        0 => "nothing of a key is left\n".to_owned(),
        found => format!("found {found} times\n"),
    };
    for hit in report["found_listed"].as_array().into_iter().flatten() {
        let offset = hit["offset"].as_u64();
        let what = offset.map_or(word(&hit["what"]).to_owned(), |offset| {
            format!("a record at offset {offset}")
        });
        text += &format!(
            "  {} position {}: {what}\n",
            word(&hit["file"]),
            hit["position"]
        );
    }
    for place in report["unread_listed"].as_array().into_iter().flatten() {
        let reason = word(&place["reason"]);
        text += &format!(
            "  {} position {}: not read: {reason}\n",
            word(&place["file"]),
            place["position"]
        );
    }
    text
}
