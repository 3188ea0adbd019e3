//! The topic that records are brought to.

use super::fault::Stop;
use crate::broker::access::{Door, right};
pub(super) use crate::front::written::Writable as Written;
use crate::front::written::made;

/// The topic; made, where the broker makes topics that somebody writes to.
pub(super) async fn writable(door: &Door, name: &str) -> Result<Written, Stop> {
    let topic = made(door, name, right::Write).await;
    topic.map_err(|refusal| Stop::Refused(refusal.into()))
}
