//! Names of files: `0-4096-8192-v3-00a1b2c3d4e5f607.parquet`, of the partition, the offsets, the schema's version, and what else the
//! records depend on.

use std::fmt;
use std::sync::Arc;

use model::{Offset, PartitionId};

use crate::broker::access::{Granted, right};
use crate::broker::ranges::SealedRange;
use crate::broker::{Broker, Topic};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileName {
    partition: PartitionId,
    from: Offset,
    to: Offset,
    pub schema_version: u32,
    stamp: u64,
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileName {
            partition,
            from,
            to,
            schema_version,
            stamp,
        } = self;
        write!(
            f,
            "{partition}-{from}-{to}-v{schema_version}-{stamp:016x}.parquet"
        )
    }
}

impl FileName {
    pub fn of(range: &SealedRange, schema_version: u32) -> FileName {
        FileName {
            partition: range.partition,
            from: range.offsets.start,
            to: range.offsets.end,
            schema_version,
            stamp: range.stamp,
        }
    }

    /// None if no file is ever called so.
    pub fn parse(text: &str) -> Option<FileName> {
        let parts: Vec<&str> = text.strip_suffix(".parquet")?.split('-').collect();
        let [partition, from, to, version, stamp] = parts[..] else {
            return None;
        };
        let offset = |text: &str| text.parse().ok().and_then(Offset::from_wire);
        let name = FileName {
            partition: PartitionId::from_wire(partition.parse().ok()?)?,
            from: offset(from)?,
            to: offset(to)?,
            schema_version: version.strip_prefix('v')?.parse().ok()?,
            stamp: u64::from_str_radix(stamp, 16).ok()?,
        };
        (name.to_string() == text).then_some(name)
    }

    /// The range that it is of, if that is there, and as it was.
    pub fn range(
        &self,
        broker: &Broker,
        topic: &Granted<Arc<Topic>, right::Read>,
    ) -> Option<SealedRange> {
        let ranges = broker.sealed_ranges(topic, self.partition).ok()?;
        ranges
            .into_iter()
            .find(|range| FileName::of(range, self.schema_version) == *self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_not_otherwise() {
        let text = "0-4096-8192-v3-00a1b2c3d4e5f607.parquet";
        let name = FileName::parse(text).expect("a name");
        assert_eq!(name.to_string(), text);
        for wrong in [
            "",
            "0-4096-8192-v3-00a1b2c3d4e5f607",
            "00-4096-8192-v3-00a1b2c3d4e5f607.parquet",
            "0-4096-8192-3-00a1b2c3d4e5f607.parquet",
            "0-4096-8192-v3-a1b2c3d4e5f607.parquet",
            "0-4096-8192-v3-00A1B2C3D4E5F607.parquet",
            "-1-4096-8192-v3-00a1b2c3d4e5f607.parquet",
            "../0-4096-8192-v3-00a1b2c3d4e5f607.parquet",
        ] {
            assert_eq!(FileName::parse(wrong), None, "{wrong}");
        }
    }
}
