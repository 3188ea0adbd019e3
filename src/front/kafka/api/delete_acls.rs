//! DeleteAcls (31): all rules that each filter chooses, answered when they are gone for good.

use std::sync::Arc;

use model::acl::{Acl, AclFilter};
use wire::messages::delete_acls::{
    DeleteAclsFilter, DeleteAclsFilterResult, DeleteAclsMatchingAcl, DeleteAclsRequest,
    DeleteAclsResponse,
};

use super::Call;
use super::acls::{WireFilter, filter};
use super::audit::Change;
use crate::broker::access::{AclError, right};
use crate::front::kafka::errors::Failure;

pub(super) async fn answer(request: DeleteAclsRequest, call: Call) -> DeleteAclsResponse {
    let asked: Vec<Result<Option<AclFilter>, Failure>> = request
        .filters
        .into_iter()
        .map(|it| filter(wire(it)).map_err(Failure::from))
        .collect();
    let filters: Vec<AclFilter> = asked.iter().flatten().flatten().cloned().collect();
    let deleted = match call.door.cluster(right::Alter) {
        Ok(cluster) => {
            let deleted = call.broker().delete_acls(&cluster, &filters).await;
            deleted.map_err(Failure::from)
        }
        Err(refusal) => Err(refusal.into()),
    };
    let mut deleted = match deleted {
        Ok(deleted) => deleted.into_iter(),
        Err(failure) => {
            let results = asked.iter().map(|_| refused(&failure));
            return DeleteAclsResponse {
                filter_results: results.collect(),
                ..DeleteAclsResponse::default()
            };
        }
    };
    let results = asked.into_iter().map(|asked| match asked {
        Ok(None) => DeleteAclsFilterResult::default(),
        Ok(Some(_)) => {
            let deleted = deleted.next().expect("one result for each filter");
            DeleteAclsFilterResult {
                matching_acls: deleted.iter().map(|one| matching(one, &call)).collect(),
                ..DeleteAclsFilterResult::default()
            }
        }
        Err(failure) => refused(&failure),
    });
    DeleteAclsResponse {
        filter_results: results.collect(),
        ..DeleteAclsResponse::default()
    }
}

fn matching(
    (acl, deleted): &(Arc<Acl>, Result<(), AclError>),
    call: &Call,
) -> DeleteAclsMatchingAcl {
    let failure = deleted.clone().err().map(Failure::from);
    if failure.is_none() {
        call.changed(&Change::AclRemoved { acl });
    }
    DeleteAclsMatchingAcl {
        error_code: failure.as_ref().map_or(0, Failure::code),
        error_message: failure.map(|failure| failure.to_string()),
        resource_type: acl.resource_type.code(),
        resource_name: acl.name.clone(),
        pattern_type: acl.pattern.code(),
        principal: acl.principal.clone(),
        host: acl.host.clone(),
        operation: acl.operation.code(),
        permission_type: acl.permission.code(),
    }
}

fn wire(filter: DeleteAclsFilter) -> WireFilter {
    WireFilter {
        resource_type: filter.resource_type_filter,
        name: filter.resource_name_filter,
        pattern: filter.pattern_type_filter,
        principal: filter.principal_filter,
        host: filter.host_filter,
        operation: filter.operation,
        permission: filter.permission_type,
    }
}

fn refused(failure: &Failure) -> DeleteAclsFilterResult {
    DeleteAclsFilterResult {
        error_code: failure.code(),
        error_message: Some(failure.to_string()),
        ..DeleteAclsFilterResult::default()
    }
}
