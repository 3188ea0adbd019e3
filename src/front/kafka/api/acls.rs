//! What the keys of access control lists share: the wire's numbers for types, patterns, operations and permissions.
//! Callers: `describe_acls`, `create_acls`, `delete_acls`.
//! Source: Kafka's `ResourceType`, `PatternType`, `AclOperation`, `AclPermissionType`.

use model::acl::{Acl, AclFilter, Operation, PatternFilter, PatternType, Permission, ResourceType};

use crate::front::kafka::errors::Misuse;

/// In a filter, all of them.
const ANY: i8 = 1;
/// In a filter, the patterns that match a name.
const MATCH: i8 = 2;
/// Kafka's type of delegation tokens, which there are none of.
const DELEGATION_TOKEN: i8 = 6;

/// A rule as a request has it.
pub(super) struct WireAcl {
    pub(super) resource_type: i8,
    pub(super) name: String,
    pub(super) pattern: i8,
    pub(super) principal: String,
    pub(super) host: String,
    pub(super) operation: i8,
    pub(super) permission: i8,
}

/// A filter as a request has it.
pub(super) struct WireFilter {
    pub(super) resource_type: i8,
    pub(super) name: Option<String>,
    pub(super) pattern: i8,
    pub(super) principal: Option<String>,
    pub(super) host: Option<String>,
    pub(super) operation: i8,
    pub(super) permission: i8,
}

impl TryFrom<WireAcl> for Acl {
    type Error = Misuse;

    fn try_from(wire: WireAcl) -> Result<Acl, Misuse> {
        let unknown = |field, code| Misuse::UnknownAclWord { field, code };
        let resource_type = match wire.resource_type {
            DELEGATION_TOKEN => return Err(Misuse::NoDelegationTokens),
            code => ResourceType::of_code(code).ok_or_else(|| unknown("type of resource", code))?,
        };
        let pattern = PatternType::of_code(wire.pattern);
        let operation = Operation::of_code(wire.operation);
        let permission = Permission::of_code(wire.permission);
        Ok(Acl {
            resource_type,
            name: wire.name,
            pattern: pattern.ok_or_else(|| unknown("type of pattern", wire.pattern))?,
            principal: wire.principal,
            host: wire.host,
            operation: operation.ok_or_else(|| unknown("operation", wire.operation))?,
            permission: permission.ok_or_else(|| unknown("permission", wire.permission))?,
        })
    }
}

/// The filter; None if nothing can be chosen by it.
pub(super) fn filter(wire: WireFilter) -> Result<Option<AclFilter>, Misuse> {
    fn one<T>(field: &'static str, code: i8, found: Option<T>) -> Result<Option<T>, Misuse> {
        match (code, found) {
            (ANY, _) => Ok(None),
            (_, Some(found)) => Ok(Some(found)),
            (code, None) => Err(Misuse::UnknownAclWord { field, code }),
        }
    }
    let pattern = match wire.pattern {
        ANY => PatternFilter::Any,
        MATCH => PatternFilter::Match,
        code => {
            let found = one("type of pattern", code, PatternType::of_code(code))?;
            found.map_or(PatternFilter::Any, PatternFilter::Only)
        }
    };
    let operation = Operation::of_code(wire.operation);
    let operation = one("operation", wire.operation, operation)?;
    let permission = Permission::of_code(wire.permission);
    let permission = one("permission", wire.permission, permission)?;
    if wire.resource_type == DELEGATION_TOKEN {
        return Ok(None);
    }
    let resource_type = ResourceType::of_code(wire.resource_type);
    Ok(Some(AclFilter {
        resource_type: one("type of resource", wire.resource_type, resource_type)?,
        name: wire.name,
        pattern,
        principal: wire.principal,
        host: wire.host,
        operation,
        permission,
    }))
}
