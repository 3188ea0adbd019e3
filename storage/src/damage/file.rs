//! The file `DAMAGE`: what was ever found damaged, a JSON object a line. A line is never taken off; `docs/formats.md` draws it.
//!
//! Callers: a start and the offline verification load it, the record stores it.

use std::path::Path;

use model::{Offset, Timestamp};
use serde::{Deserialize, Serialize};

use super::Damage;
use crate::error::OpenError;
use crate::io::{Disk, read_file, write_new_file};

/// The version of the lines of `DAMAGE` that are written; version 1 had neither version nor checksum.
pub(crate) const DAMAGE_VERSION: u32 = 2;
/// What separates a line's checksum from what it covers.
const DAMAGE_CHECKSUM: &str = ",\"crc32\":\"";

/// One line of the file `DAMAGE`: what was found damaged at some start stays on record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DamageLine {
    pub log: Option<String>,
    pub from: u64,
    pub to: u64,
    pub reason: String,
    pub found_ms: i64,
    /// None in lines of version 1.
    #[serde(default)]
    pub version: Option<u32>,
}

impl DamageLine {
    /// The line, with a checksum (CRC-32, IEEE) of all before the checksum's own field.
    fn encode(&self) -> String {
        let mut text = serde_json::to_string(self).expect("a line of plain fields is JSON");
        assert!(text.pop() == Some('}'), "an object");
        let checksum = crc32fast::hash(text.as_bytes());
        format!("{text}{DAMAGE_CHECKSUM}{checksum:08x}\"}}\n")
    }

    /// Reads a line back. The inner error is the version of one that is whole and not known.
    fn decode(line: &[u8]) -> Result<Result<DamageLine, u32>, String> {
        let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
        let covered = text.rsplit_once(DAMAGE_CHECKSUM);
        if let Some((covered, stored)) = covered {
            let computed = format!("{:08x}\"}}", crc32fast::hash(covered.as_bytes()));
            if stored.trim_end() != computed {
                return Err("its checksum does not match".to_owned());
            }
            let head: serde_json::Value =
                serde_json::from_str(text).map_err(|error| error.to_string())?;
            let version = head["version"].as_u64().unwrap_or(0);
            if version != u64::from(DAMAGE_VERSION) {
                return Ok(Err(u32::try_from(version).unwrap_or(u32::MAX)));
            }
        }
        let line: DamageLine = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if covered.is_none() && line.version.is_some() {
            return Err("its checksum is missing".to_owned());
        }
        Ok(Ok(line))
    }
}

/// The version of a line of `DAMAGE` that is whole and not known.
pub(crate) fn newer_damage(bytes: &[u8]) -> Option<u32> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .find_map(|line| DamageLine::decode(line).ok()?.err())
}

/// The damage that earlier starts found. A line that cannot be read is itself reported.
pub(crate) fn load_damage(disk: &dyn Disk, directory: &Path) -> Result<Vec<Damage>, OpenError> {
    let path = directory.join("DAMAGE");
    if !disk
        .exists(&path)
        .map_err(OpenError::io("look for", &path))?
    {
        return Ok(Vec::new());
    }
    let bytes = read_file(disk, &path, 64 << 20).map_err(OpenError::io("read", &path))?;
    let lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let read = |line: &[u8]| match DamageLine::decode(line) {
        Ok(Ok(line)) => Ok(line),
        Ok(Err(version)) => Err(format!("version {version} is not known")),
        Err(reason) => Err(reason),
    };
    Ok(lines
        .map(|line| match read(line) {
            Ok(line) => Damage {
                log: line.log.and_then(|log| log.parse().ok()),
                range: Offset::new(line.from)..Offset::new(line.to),
                reason: line.reason,
            },
            Err(error) => Damage {
                log: None,
                range: Offset::ZERO..Offset::ZERO,
                reason: format!("{}: a line cannot be read: {error}", path.display()),
            },
        })
        .collect())
}

/// Puts all known damage on record, durably: a new file in place of the old one.
pub(crate) fn store_damage(
    disk: &dyn Disk,
    directory: &Path,
    damage: &[Damage],
    now: Timestamp,
) -> Result<(), OpenError> {
    let mut bytes = Vec::new();
    for found in damage {
        let line = DamageLine {
            log: found.log.map(|log| log.to_string()),
            from: found.range.start.get(),
            to: found.range.end.get(),
            reason: found.reason.clone(),
            found_ms: now.millis(),
            version: Some(DAMAGE_VERSION),
        };
        bytes.extend_from_slice(line.encode().as_bytes());
    }
    let (path, temporary) = (directory.join("DAMAGE"), directory.join("DAMAGE.new"));
    if disk
        .exists(&temporary)
        .map_err(OpenError::io("look for", &temporary))?
    {
        disk.remove_file(&temporary)
            .map_err(OpenError::io("remove", &temporary))?;
    }
    write_new_file(disk, &temporary, &bytes).map_err(OpenError::io("write", &temporary))?;
    disk.rename(&temporary, &path)
        .map_err(OpenError::io("create", &path))?;
    disk.sync_dir(directory)
        .map_err(OpenError::io("sync", directory))
}
