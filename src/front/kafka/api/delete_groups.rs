//! DeleteGroups: empty groups, with their offsets.

use std::collections::HashSet;

use wire::messages::delete_groups::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse,
};

use super::Call;
use super::audit::Change;
use crate::broker::access::right;
use crate::front::kafka::errors;

pub(super) async fn answer(request: DeleteGroupsRequest, call: Call) -> DeleteGroupsResponse {
    let mut seen = HashSet::new();
    let mut results = Vec::new();
    for group_id in request.groups_names {
        if seen.insert(group_id.clone()) {
            let error_code = match call.door.group(&group_id, right::Delete) {
                Ok(group) if group.is_share() => {
                    let deleted = group.delete_shared().await;
                    deleted.map_or_else(errors::share, |()| errors::NONE)
                }
                Ok(group) => group
                    .delete()
                    .await
                    .map_or_else(errors::group, |()| errors::NONE),
                Err(refusal) => errors::code(&refusal),
            };
            if error_code == errors::NONE {
                call.changed(&Change::GroupDeleted { group: &group_id });
            }
            results.push(DeletableGroupResult {
                group_id,
                error_code,
            });
        }
    }
    DeleteGroupsResponse {
        results,
        ..DeleteGroupsResponse::default()
    }
}
