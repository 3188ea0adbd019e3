//! DescribeAcls (29): the access control lists that a filter chooses.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::acl::Acl;
use wire::messages::describe_acls::{
    AclDescription, DescribeAclsRequest, DescribeAclsResource, DescribeAclsResponse,
};

use super::Call;
use super::acls::{WireFilter, filter};
use crate::broker::access::right;
use crate::front::kafka::errors::Failure;

pub(super) async fn answer(request: DescribeAclsRequest, call: Call) -> DescribeAclsResponse {
    let chosen = match chosen(request, &call) {
        Ok(chosen) => chosen,
        Err(failure) => return refused(&failure),
    };
    let bytes = |acl: &Arc<Acl>| 256 + 2 * (acl.name.len() + acl.principal.len() + acl.host.len());
    if let Err(misuse) = call.answer.hold(chosen.iter().map(bytes).sum()).await {
        return refused(&misuse.into());
    }
    let mut resources: BTreeMap<(i8, &str, i8), Vec<AclDescription>> = BTreeMap::new();
    for acl in &chosen {
        let resource = (
            acl.resource_type.code(),
            acl.name.as_str(),
            acl.pattern.code(),
        );
        resources.entry(resource).or_default().push(AclDescription {
            principal: acl.principal.clone(),
            host: acl.host.clone(),
            operation: acl.operation.code(),
            permission_type: acl.permission.code(),
        });
    }
    let resource = |((resource_type, name, pattern_type), acls): ((i8, &str, i8), Vec<_>)| {
        DescribeAclsResource {
            resource_type,
            resource_name: name.to_owned(),
            pattern_type,
            acls,
        }
    };
    DescribeAclsResponse {
        resources: resources.into_iter().map(resource).collect(),
        ..DescribeAclsResponse::default()
    }
}

fn chosen(request: DescribeAclsRequest, call: &Call) -> Result<Vec<Arc<Acl>>, Failure> {
    let cluster = call.door.cluster(right::Describe)?;
    call.broker().controls_access()?;
    let filter = filter(WireFilter {
        resource_type: request.resource_type_filter,
        name: request.resource_name_filter,
        pattern: request.pattern_type_filter,
        principal: request.principal_filter,
        host: request.host_filter,
        operation: request.operation,
        permission: request.permission_type,
    })?;
    match filter {
        Some(filter) => Ok(call.broker().acls(&cluster, &filter)?),
        None => Ok(Vec::new()),
    }
}

fn refused(failure: &Failure) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: failure.code(),
        error_message: Some(failure.to_string()),
        ..DescribeAclsResponse::default()
    }
}
