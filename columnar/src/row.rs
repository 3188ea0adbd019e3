//! A row: a record and where it is from.

use model::PartitionId;
use model::batch::RecordRef;

/// A record with its topic and partition.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: PartitionId,
    /// The record.
    pub record: RecordRef<'a>,
}
