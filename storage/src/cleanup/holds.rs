//! Holds: what forbids cleanup to remove something. They come in as data; a policy asks here whether it may.

use std::ops::Range;
use std::sync::Arc;

use model::Offset;

/// A veto on the removal of records of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What it is called, in words that an operator knows.
    pub name: Arc<str>,
    /// The records that it keeps.
    pub offsets: Range<Offset>,
}

/// The first hold on some records of a range.
pub fn first_on<'a>(holds: &'a [Hold], range: &Range<Offset>) -> Option<&'a Hold> {
    holds
        .iter()
        .find(|hold| hold.offsets.start < range.end && range.start < hold.offsets.end)
}
