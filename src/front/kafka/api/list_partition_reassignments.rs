//! ListPartitionReassignments (46): there are never any.

use wire::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::Call;
use crate::broker::access::right;
use crate::front::kafka::errors;

pub(super) async fn answer(
    _request: ListPartitionReassignmentsRequest,
    call: Call,
) -> ListPartitionReassignmentsResponse {
    let refused = call.door.cluster(right::Describe).err();
    ListPartitionReassignmentsResponse {
        error_code: refused.as_ref().map_or(errors::NONE, errors::code),
        error_message: refused.as_ref().map(errors::text),
        ..ListPartitionReassignmentsResponse::default()
    }
}
