//! ListPartitionReassignments (46): there are never any.

use wire::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::Call;

pub(super) async fn answer(
    _request: ListPartitionReassignmentsRequest,
    _call: Call,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}
