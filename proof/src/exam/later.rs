//! What a later release would have written: the files of `docs/formats.md` with a higher version, valid otherwise, their checksums
//! included. Each function takes what this release wrote, adds `more` to its version, and gives the sum.

use anyhow::{Context as _, Result, ensure};
use flate2::Crc;

/// Frames of the write-ahead log begin at its multiples.
const FRAME_ALIGN: usize = 4096;
const FRAME_HEAD_BYTES: usize = 80;
const FRAME_ENTRY_BYTES: usize = 40;
const ENVELOPE_HEAD_BYTES: usize = 20;
/// What precedes the checksum of a line of `DAMAGE`.
const DAMAGE_CHECKSUM: &str = ",\"crc32\":\"";

/// An envelope: `STORE` (each of its copies), `CLOCK`, checkpoints, manifests.
pub fn envelope(bytes: &mut [u8], more: u32) -> Result<u32> {
    let body = usize::try_from(u32_at(bytes, 12)?)?;
    let end = ENVELOPE_HEAD_BYTES + body;
    ensure!(bytes.len() >= end, "an envelope that is cut");
    let stored = u32_at(bytes, 16)?;
    let sum = |bytes: &[u8]| crc_of(&[&bytes[..16], &bytes[ENVELOPE_HEAD_BYTES..end]]);
    ensure!(sum(bytes) == stored, "an envelope that is damaged");
    let version = u32_at(bytes, 8)? + more;
    put(bytes, 8, &version.to_le_bytes());
    let sum = sum(bytes);
    put(bytes, 16, &sum.to_le_bytes());
    Ok(version)
}

/// An index: the version stands at its front and near its end, behind the checksum of all before.
pub fn index(bytes: &mut [u8], more: u32) -> Result<u32> {
    ensure!(bytes.len() > 32, "an index that is cut");
    let end = bytes.len() - 16;
    let stored = u32_at(bytes, end)?;
    ensure!(crc_of(&[&bytes[..end]]) == stored, "a damaged index");
    let version = u32_at(bytes, 8)? + more;
    put(bytes, 8, &version.to_le_bytes());
    put(bytes, end + 4, &version.to_le_bytes());
    let sum = crc_of(&[&bytes[..end]]);
    put(bytes, end, &sum.to_le_bytes());
    Ok(version)
}

/// The last line of `DAMAGE`.
pub fn damage(bytes: &mut Vec<u8>, more: u32) -> Result<u32> {
    let text = std::str::from_utf8(bytes)?;
    let text = text.strip_suffix('\n').context("a line that has an end")?;
    let (lines, last) = text
        .rsplit_once('\n')
        .map_or((String::new(), text), |(lines, last)| {
            (format!("{lines}\n"), last)
        });
    let (line, _) = last
        .rsplit_once(DAMAGE_CHECKSUM)
        .context("a line with a checksum")?;
    let known: serde_json::Value = serde_json::from_str(last)?;
    let known = known["version"].as_u64().context("a version")?;
    let version = u32::try_from(known)? + more;
    let old = format!("\"version\":{known}");
    ensure!(line.matches(&old).count() == 1, "one version in a line");
    let line = line.replace(&old, &format!("\"version\":{version}"));
    let sum = crc_of(&[line.as_bytes()]);
    *bytes = format!("{lines}{line}{DAMAGE_CHECKSUM}{sum:08x}\"}}\n").into_bytes();
    Ok(version)
}

/// A frame of the write-ahead log, which begins at the front of `bytes`.
pub fn frame(bytes: &mut [u8], more: u32) -> Result<u32> {
    let version = u32_at(bytes, 4)? & 0xffff;
    let version = u16::try_from(version + more)?;
    put(bytes, 4, &version.to_le_bytes());
    let sum = frame_sum(bytes).context("a frame that is cut")?;
    put(bytes, 76, &sum.to_le_bytes());
    Ok(version.into())
}

/// Where the frames of a file of the write-ahead log with this sequence begin.
pub fn frames(bytes: &[u8], sequence: u64) -> Vec<u64> {
    let starts = (0..bytes.len()).step_by(FRAME_ALIGN);
    let is_frame = |at: &usize| {
        let head = &bytes[*at..];
        head.starts_with(b"WALF")
            && head[24..32] == sequence.to_le_bytes()
            && frame_sum(head) == u32_at(head, 76).ok()
    };
    starts.filter(is_frame).map(|at| at as u64).collect()
}

/// What a checkpoint covers: file of the write-ahead log and position up to which everything has settled.
pub fn covered_by(checkpoint: &[u8]) -> Result<(u64, u64)> {
    let at = ENVELOPE_HEAD_BYTES + 16 + 8 + 4;
    let number = |at: usize| -> Result<u64> {
        let bytes = checkpoint.get(at..).and_then(|rest| rest.first_chunk());
        Ok(u64::from_le_bytes(
            *bytes.context("a checkpoint that is cut")?,
        ))
    };
    Ok((number(at)?, number(at + 8)?))
}

/// The checksum of a frame's head and table; None if they are cut.
fn frame_sum(bytes: &[u8]) -> Option<u32> {
    let count = usize::try_from(u32_at(bytes, 60).ok()?).ok()?;
    let end = FRAME_HEAD_BYTES.checked_add(count.checked_mul(FRAME_ENTRY_BYTES)?)?;
    Some(crc_of(&[
        bytes.get(..76)?,
        bytes.get(FRAME_HEAD_BYTES..end)?,
    ]))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u32::from_le_bytes(*bytes.context("a file that is cut")?))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// CRC-32 (IEEE) over all pieces in a row.
fn crc_of(pieces: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    for piece in pieces {
        crc.update(piece);
    }
    crc.sum()
}
