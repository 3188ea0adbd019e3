//! `log gaps`: every range of offsets that a reader does not get, and why: the start was raised, damage is on record, a segment is
//! missing or does not hold what it should, compaction or thinning left records out.
//!
//! Reads listings, manifests and the write-ahead log; of segments only those that were rewritten. `log verify` reads all.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use model::batch::{Batch, DecompressLimit};
use model::{LogId, Offset};
use serde::Serialize;
use serde_json::json;
use storage::RealDisk;
use storage::acknowledged::{self, Acknowledgement};
use storage::inspect::{self, BatchLine, damage_on_record};
use storage::manifest::SegmentKind;

use super::directory::{Directory, Segment};
use super::{DAMAGED, lock};
use crate::failure::Failure;
use crate::output::{grouped, say};

/// Where to look.
#[derive(Debug, clap::Args)]
pub(super) struct GapsArgs {
    /// The data directory
    #[arg(default_value = "data")]
    directory: PathBuf,
    /// Only this topic
    #[arg(short, long)]
    topic: Option<String>,
    /// Only this partition of it
    #[arg(short, long, requires = "topic")]
    partition: Option<u32>,
    /// Look while a server has the directory open: what it is writing just then may look wrong
    #[arg(long, alias = "read-only")]
    while_running: bool,
}

/// Why a reader does not get a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Why {
    /// They lie before the start: removed by retention, or by DeleteRecords at a segment's end.
    StartRaised,
    /// They lie before the start, which stands within a segment: DeleteRecords.
    Deleted,
    /// On record as damaged.
    Damaged,
    /// On record as damaged, and acknowledged.
    Acknowledged,
    /// Not on record: a file is missing or not as long as it was.
    Lost,
    /// Left out when the segment was rewritten.
    Rewritten,
}

impl Why {
    /// Whether it is something that should not be.
    fn is_damage(self) -> bool {
        matches!(self, Why::Damaged | Why::Lost)
    }

    fn words(self) -> &'static str {
        match self {
            Why::StartRaised => "removed by retention or DeleteRecords",
            Why::Deleted => "removed by DeleteRecords",
            Why::Damaged => "damaged",
            Why::Acknowledged => "damaged, acknowledged",
            Why::Lost => "lost, and not on record yet",
            Why::Rewritten => "left out by compaction, thinning or erasure",
        }
    }
}

/// A range of offsets without records for a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Gap {
    /// The topic; None for the store's own logs.
    topic: Option<String>,
    partition: u32,
    log: String,
    from: u64,
    to: u64,
    why: Why,
    reason: String,
}

pub(super) fn run(args: &GapsArgs, json: bool) -> Result<ExitCode> {
    let _lock = lock(&args.directory, args.while_running)?;
    let found = Directory::read(&args.directory)?;
    let mut logs: Vec<LogId> = found.logs.keys().copied().collect();
    if let Some(topic) = &args.topic {
        logs.retain(|log| found.names.topic(*log) == Some(topic));
        logs.retain(|log| {
            args.partition
                .is_none_or(|wanted| wanted == log.partition.get())
        });
        if logs.is_empty() {
            let place = args.directory.display();
            bail!(Failure::NotFound(format!(
                "{place} holds nothing of topic {topic}"
            )));
        }
    }
    let mut gaps = Vec::new();
    for log in logs {
        gaps.extend(of_log(&args.directory, &found, log)?);
    }
    if args.topic.is_none() {
        gaps.extend(of_unknown_logs(&args.directory)?);
    }
    let is_damaged = gaps.iter().any(|gap| gap.why.is_damage());
    if json {
        say!("{:#}", json!({ "path": args.directory, "gaps": gaps }));
    } else {
        for gap in &gaps {
            let name = gap
                .log
                .parse()
                .map_or_else(|_| gap.log.clone(), |log| found.names.of(log));
            let reason = match gap.reason.is_empty() {
                true => String::new(),
                false => format!(": {}", gap.reason),
            };
            say!(
                "{name} {}..{}: {}{reason}",
                gap.from,
                gap.to,
                gap.why.words()
            );
        }
        let offsets: u64 = gaps.iter().map(|gap| gap.to - gap.from).sum();
        say!(
            "{} gaps, {} offsets",
            grouped(gaps.len() as u64),
            grouped(offsets)
        );
    }
    Ok(ExitCode::from(if is_damaged { DAMAGED } else { 0 }))
}

/// The gaps of a log, in order.
fn of_log(path: &Path, found: &Directory, id: LogId) -> Result<Vec<Gap>> {
    let log = found.logs[&id];
    let gap = |from: Offset, to: Offset, why, reason: String| Gap {
        topic: found.names.topic(id).map(str::to_owned),
        partition: id.partition.get(),
        log: id.to_string(),
        from: from.get(),
        to: to.get(),
        why,
        reason,
    };
    let mut gaps = Vec::new();
    let segments = found.segments.get(&id).map_or(&[][..], Vec::as_slice);
    if log.start > Offset::ZERO {
        let is_within = segments
            .iter()
            .any(|one| one.id.base < log.start && log.start < one.end);
        let why = if is_within {
            Why::Deleted
        } else {
            Why::StartRaised
        };
        gaps.push(gap(Offset::ZERO, log.start, why, String::new()));
    }
    let known = on_record(path, id)?;
    for (damage, why) in &known {
        let from = damage.range.start.max(log.start);
        if from < damage.range.end {
            gaps.push(gap(from, damage.range.end, *why, damage.reason.clone()));
        }
    }
    let is_known = |from: Offset, to: Offset| {
        let covers = |range: &std::ops::Range<Offset>| range.start <= from && to <= range.end;
        known.iter().any(|(damage, _)| covers(&damage.range))
    };
    let mut lose = |from: Offset, to: Offset, reason: String| {
        let from = from.max(log.start);
        if from < to && !is_known(from, to) {
            gaps.push(gap(from, to, Why::Lost, reason));
        }
    };
    let mut reached = log.start;
    for segment in segments {
        lose(reached, segment.id.base, "no segment holds them".to_owned());
        reached = reached.max(segment.end);
        if let Some(trouble) = &segment.trouble {
            lose(segment.id.base, segment.end, trouble.clone());
        }
    }
    lose(reached, log.settled_end, "no segment holds them".to_owned());
    for segment in segments {
        if segment.kind == SegmentKind::Sparse && segment.trouble.is_none() {
            for (from, to) in left_out(segment)? {
                let from = from.max(log.start);
                if from < to {
                    gaps.push(gap(
                        from,
                        to,
                        Why::Rewritten,
                        format!("segment {}", segment.id),
                    ));
                }
            }
        }
    }
    gaps.sort_by_key(|gap| (gap.from, gap.to));
    Ok(gaps)
}

/// The damage of a log that is on record, and whether it is acknowledged.
fn on_record(path: &Path, log: LogId) -> Result<Vec<(storage::Damage, Why)>> {
    let acknowledged = acknowledged::load(&RealDisk, path)?;
    let why = |damage: &storage::Damage| {
        let covers = |line: &Acknowledgement| line.covers(damage);
        match acknowledged.iter().any(covers) {
            true => Why::Acknowledged,
            false => Why::Damaged,
        }
    };
    let all = damage_on_record(&RealDisk, path)?.into_iter();
    Ok(all
        .filter(|damage| damage.log == Some(log))
        .map(|damage| (damage.clone(), why(&damage)))
        .collect())
}

/// Damage of which nobody can tell the log.
fn of_unknown_logs(path: &Path) -> Result<Vec<Gap>> {
    let acknowledged = acknowledged::load(&RealDisk, path)?;
    let all = damage_on_record(&RealDisk, path)?.into_iter();
    let unknown = all.filter(|damage| damage.log.is_none());
    Ok(unknown
        .map(|damage| Gap {
            topic: None,
            partition: 0,
            log: "an unknown log".to_owned(),
            from: damage.range.start.get(),
            to: damage.range.end.get(),
            why: match acknowledged.iter().any(|line| line.covers(&damage)) {
                true => Why::Acknowledged,
                false => Why::Damaged,
            },
            reason: damage.reason,
        })
        .collect())
}

/// The offsets that a rewritten segment does not hold.
fn left_out(segment: &Segment) -> Result<Vec<(Offset, Offset)>> {
    let mut file =
        std::fs::File::open(&segment.path).with_context(|| segment.path.display().to_string())?;
    let mut held: Vec<(u64, u64)> = Vec::new();
    let mut failed = None;
    let mut visit = |line: BatchLine| {
        if line.fault.is_some() {
            // Its offsets are told as damage, by whoever finds it.
            held.push((line.base_offset, line.last_offset + 1));
            return;
        }
        let span = line.last_offset - line.base_offset + 1;
        if u64::from(line.records.unsigned_abs()) == span {
            held.push((line.base_offset, line.last_offset + 1));
        } else if let Err(error) = offsets_of(&mut file, &line, &mut held) {
            failed.get_or_insert(error);
        }
    };
    inspect::dump_segment(&RealDisk, &segment.path, &mut visit)
        .with_context(|| segment.path.display().to_string())?;
    if let Some(error) = failed {
        return Err(error);
    }
    let mut gaps = Vec::new();
    let mut next = segment.id.base.get();
    for (from, to) in held {
        if from > next {
            gaps.push((Offset::new(next), Offset::new(from)));
        }
        next = next.max(to);
    }
    if next < segment.end.get() {
        gaps.push((Offset::new(next), segment.end));
    }
    Ok(gaps)
}

/// The offsets of a batch of which some records were left out.
fn offsets_of(
    file: &mut std::fs::File,
    line: &BatchLine,
    held: &mut Vec<(u64, u64)>,
) -> Result<()> {
    let mut bytes = vec![0; usize::try_from(line.bytes)?];
    file.seek(SeekFrom::Start(line.position))?;
    file.read_exact(&mut bytes)?;
    let batch = Batch::parse(bytes.into())?;
    for record in batch.records(DecompressLimit::default())? {
        let offset = record?.offset.get();
        held.push((offset, offset + 1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use model::batch::{BatchBuilder, Codec};
    use storage::segment::SegmentId;

    use super::*;

    #[test]
    fn what_a_rewrite_left_out_is_told_between_batches_and_behind_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let id = SegmentId {
            base: Offset::new(10),
            generation: 1,
        };
        let path = id.log_path(directory.path());
        let mut bytes = Vec::new();
        for base in [12, 20, 23] {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.base_offset(Offset::new(base));
            for _ in 0..3 {
                let time = Timestamp::from_millis(1);
                builder.push(time, None, Some(b"value"), &[]).unwrap();
            }
            bytes.extend_from_slice(&builder.build().unwrap());
        }
        std::fs::write(&path, bytes).unwrap();
        let segment = Segment {
            id,
            kind: SegmentKind::Sparse,
            end: Offset::new(30),
            path,
            trouble: None,
        };
        let gaps = left_out(&segment).unwrap();
        let gaps: Vec<(u64, u64)> = gaps
            .iter()
            .map(|(from, to)| (from.get(), to.get()))
            .collect();
        assert_eq!(gaps, [(10, 12), (15, 20), (26, 30)]);
    }
}
