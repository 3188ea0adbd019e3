//! CreateAcls (30): each rule for itself, answered when it is durable and in force.

use model::acl::Acl;
use wire::messages::create_acls::{
    AclCreation, AclCreationResult, CreateAclsRequest, CreateAclsResponse,
};

use super::Call;
use super::acls::WireAcl;
use super::audit::Change;
use crate::broker::access::right;
use crate::front::kafka::errors::Failure;

pub(super) async fn answer(request: CreateAclsRequest, call: Call) -> CreateAclsResponse {
    let granted = call.door.cluster(right::Alter).map_err(Failure::from);
    let is_on = || call.broker().controls_access().map_err(Failure::from);
    let cluster = match granted.and_then(|cluster| is_on().map(|()| cluster)) {
        Ok(cluster) => cluster,
        Err(failure) => {
            let results = request.creations.iter().map(|_| refused(&failure));
            return CreateAclsResponse {
                results: results.collect(),
                ..CreateAclsResponse::default()
            };
        }
    };
    let asked: Vec<Result<Acl, Failure>> = request
        .creations
        .into_iter()
        .map(|creation| Acl::try_from(wire(creation)).map_err(Failure::from))
        .collect();
    let acls = asked.iter().flatten().cloned().collect();
    let mut made = call.broker().create_acls(&cluster, acls).await.into_iter();
    let results = asked.into_iter().map(|asked| {
        let made = asked.and_then(|_| {
            let made = made.next().expect("one result for each rule");
            made.map_err(Failure::from)
        });
        match made {
            Ok(acl) => {
                call.changed(&Change::AclMade { acl: &acl });
                AclCreationResult::default()
            }
            Err(failure) => refused(&failure),
        }
    });
    CreateAclsResponse {
        results: results.collect(),
        ..CreateAclsResponse::default()
    }
}

fn wire(creation: AclCreation) -> WireAcl {
    WireAcl {
        resource_type: creation.resource_type,
        name: creation.resource_name,
        pattern: creation.resource_pattern_type,
        principal: creation.principal,
        host: creation.host,
        operation: creation.operation,
        permission: creation.permission_type,
    }
}

fn refused(failure: &Failure) -> AclCreationResult {
    AclCreationResult {
        error_code: failure.code(),
        error_message: Some(failure.to_string()),
    }
}
