//! What was written of a body, and what was not: bounded, however long the body is.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use model::{Offset, PartitionId};
use serde_json::{Value, json};

use super::fault::RowFault;
use crate::broker::publish::{PublishRefusal, Publishing};

/// Faults that are told one by one.
const FAULTS_TOLD_MAX: usize = 100;

/// A partition's records of one body.
#[derive(Debug, Clone, Copy)]
struct Span {
    base: Offset,
    end: Offset,
    records: u64,
}

/// What has become of a body so far.
#[derive(Debug, Default)]
pub(in crate::front::http) struct Report {
    written: BTreeMap<PartitionId, Span>,
    records: u64,
    faults: Vec<Value>,
    pub(super) refused: u64,
}

impl Report {
    pub(super) fn wrote(&mut self, partition: PartitionId, offset: Offset) {
        self.records += 1;
        let next = offset.plus(1);
        let span = self.written.entry(partition).or_insert(Span {
            base: offset,
            end: next,
            records: 0,
        });
        span.base = span.base.min(offset);
        span.end = span.end.max(next);
        span.records += 1;
    }

    pub(super) fn refuse(&mut self, line: u64, fault: &RowFault) {
        self.refused += 1;
        if self.faults.len() < FAULTS_TOLD_MAX {
            let (code, detail) = (fault.code(), fault.to_string());
            self.faults
                .push(json!({ "line": line, "code": code, "detail": detail }));
        }
    }

    /// The same, with all records where they went.
    pub(super) fn placed(&self, ranges: &[(PartitionId, Range<Offset>)]) -> Report {
        let mut placed = Report {
            faults: self.faults.clone(),
            refused: self.refused,
            ..Report::default()
        };
        for (partition, range) in ranges {
            let records = range.end.since(range.start);
            placed.records += records;
            let span = Span {
                base: range.start,
                end: range.end,
                records,
            };
            placed.written.insert(*partition, span);
        }
        placed
    }

    /// As an answer says it.
    pub(in crate::front::http) fn fields(&self) -> serde_json::Map<String, Value> {
        let offsets: Vec<Value> = self
            .written
            .iter()
            .map(|(partition, span)| {
                json!({
                    "partition": partition.get(), "base_offset": span.base.get(), "end_offset": span.end.get(),
                    "records": span.records,
                })
            })
            .collect();
        let left_out = self.refused - self.faults.len() as u64;
        let fields = json!({
            "records": self.records, "offsets": offsets, "refused": self.refused, "errors": self.faults,
            "errors_left_out": left_out,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => unreachable!("it was written as an object"),
        }
    }
}

/// Rows on their way to the disk, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct OnTheWay {
    rows: VecDeque<(u64, Publishing)>,
}

impl OnTheWay {
    pub fn push(&mut self, line: u64, publishing: Publishing) {
        self.rows.push_back((line, publishing));
    }

    /// Waits until no more than so many are on their way. Errors: why one of them was not written; all that follow are still
    /// waited for by the next call.
    pub async fn wait_down_to(
        &mut self,
        count: usize,
        report: &mut Report,
    ) -> Result<(), PublishRefusal> {
        let mut first = None;
        while self.rows.len() > count
            && let Some((line, publishing)) = self.rows.pop_front()
        {
            let partition = publishing.partition;
            match publishing.durable().await {
                Ok(offset) => report.wrote(partition, offset),
                Err(refusal) => {
                    report.refuse(line, &RowFault::Refused(refusal.clone()));
                    first.get_or_insert(refusal);
                }
            }
        }
        first.map_or(Ok(()), Err)
    }
}
