//! Access control lists over HTTP, at `/api/v1/acls`. The page `docs/http-api.md` describes each route.
//!
//! Callers: `http::routes`.

use std::net::IpAddr;

use axum::Json;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use model::acl::{
    Acl, AclFilter, InvalidAcl, Operation as AclOperation, PatternFilter, PatternType, Permission,
    ResourceType, USER_HEAD, UnknownWord,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::errors::{self, Failure};
use super::request::{body_of, parsed};
use super::routes::{Operation, Routes};
use super::schema::{Schema, boolean, list, object, one_of, text};
use crate::broker::access::{AclError, Door, Principal, ResourceKind, Right, Verdict, right};
use crate::front::audit::{self, Change};

/// All of them.
const ACLS: &str = "/api/v1/acls";
/// Whether somebody may do something.
const CHECK: &str = "/api/v1/acls/check";

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "acls", summary);
    let found = || object([("acls", list(schema()))]);
    let checked = object([
        ("allowed", boolean()),
        ("because", text()),
        ("acl", schema().or_null().about("the rule that decides")),
    ]);
    Routes::new()
        .get(
            ACLS,
            list_acls,
            filtered(of("listAcls", "Rules: who may do what"))
                .needs(ResourceKind::Cluster, Right::Describe)
                .answers_json(200, "the rules that are chosen", found())
                .refuses(400, "invalid_acl")
                .refuses(409, "no_access_control"),
        )
        .post(
            ACLS,
            add,
            of(
                "addAcl",
                "Makes a rule, which is there once however often it is made",
            )
            .needs(ResourceKind::Cluster, Right::Alter)
            .takes_json("the rule", schema().closed())
            .answers_json(201, "the rule, in force", schema())
            .refuses(400, "invalid_acl, invalid_body")
            .refuses(409, "no_access_control")
            .refuses(429, "too_many_acls")
            .refuses(507, "disk_full"),
        )
        .delete(
            ACLS,
            remove,
            filtered(of(
                "removeAcls",
                "Removes all rules that are chosen, of which one thing must be said",
            ))
            .needs(ResourceKind::Cluster, Right::Alter)
            .answers_json(200, "the rules that were", found())
            .refuses(400, "invalid_acl")
            .refuses(409, "no_access_control")
            .refuses(507, "disk_full"),
        )
        .get(
            CHECK,
            check,
            of(
                "checkAccess",
                "Whether somebody may do something, and by which rule",
            )
            .needs(ResourceKind::Cluster, Right::Describe)
            .query_required("principal", text(), "User: and a name")
            .query_required(
                "operation",
                words(AclOperation::ALL, AclOperation::name),
                "what",
            )
            .query_required(
                "resource_type",
                words(ResourceType::ALL, ResourceType::name),
                "to what",
            )
            .query_required("name", text(), "its name")
            .query("host", text(), "from which address; 127.0.0.1 if not given")
            .answers_json(200, "the decision", checked)
            .refuses(400, "invalid_acl"),
        )
}

fn words<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> Schema {
    let names: Vec<&str> = all.iter().map(|one| name(*one)).collect();
    one_of(&names)
}

/// With the parameters that choose rules.
fn filtered(operation: Operation) -> Operation {
    operation
        .query(
            "resource_type",
            words(ResourceType::ALL, ResourceType::name),
            "rules on this type",
        )
        .query("name", text(), "rules on this name")
        .query(
            "pattern",
            one_of(&["any", "match", "literal", "prefixed"]),
            "how the name is meant; match: all rules on a resource of this name",
        )
        .query("principal", text(), "rules for exactly this principal")
        .query("host", text(), "rules for exactly this host")
        .query(
            "operation",
            words(AclOperation::ALL, AclOperation::name),
            "rules about this",
        )
        .query(
            "permission",
            words(Permission::ALL, Permission::name),
            "allow or deny",
        )
}

/// What a rule looks like.
fn schema() -> Schema {
    object([
        (
            "resource_type",
            words(ResourceType::ALL, ResourceType::name),
        ),
        ("name", text()),
        ("pattern", words(PatternType::ALL, PatternType::name)),
        ("principal", text().about("User: and a name, or User:*")),
        ("host", text().about("an address, or *")),
        ("operation", words(AclOperation::ALL, AclOperation::name)),
        ("permission", words(Permission::ALL, Permission::name)),
    ])
}

fn value(acl: &Acl) -> Value {
    serde_json::to_value(acl).expect("plain fields are JSON")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterQuery {
    resource_type: Option<String>,
    name: Option<String>,
    pattern: Option<String>,
    principal: Option<String>,
    host: Option<String>,
    operation: Option<String>,
    permission: Option<String>,
}

impl TryFrom<FilterQuery> for AclFilter {
    type Error = UnknownWord;

    fn try_from(query: FilterQuery) -> Result<AclFilter, UnknownWord> {
        fn word<T: std::str::FromStr>(text: Option<String>) -> Result<Option<T>, T::Err> {
            text.as_deref().map(str::parse).transpose()
        }
        let pattern = match query.pattern.as_deref() {
            None | Some("any") => PatternFilter::Any,
            Some("match") => PatternFilter::Match,
            Some(other) => PatternFilter::Only(other.parse()?),
        };
        Ok(AclFilter {
            resource_type: word(query.resource_type)?,
            name: query.name,
            pattern,
            principal: query.principal,
            host: query.host,
            operation: word(query.operation)?,
            permission: word(query.permission)?,
        })
    }
}

async fn list_acls(
    door: Door,
    query: Result<Query<FilterQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Describe)?;
    let filter = AclFilter::try_from(parsed(query)?)?;
    let acls = door.broker().acls(&cluster, &filter)?;
    let acls: Vec<Value> = acls.iter().map(|acl| value(acl)).collect();
    Ok(Json(json!({ "acls": acls })))
}

async fn add(door: Door, headers: HeaderMap, body: Body) -> Result<Response, Failure> {
    let acl: Acl = body_of(&headers, body).await?;
    let cluster = door.cluster(right::Alter)?;
    let mut made = door.broker().create_acls(&cluster, vec![acl]).await;
    let acl = made.remove(0)?;
    audit::log(&door, &Change::AclMade { acl: &acl });
    Ok(errors::created(Json(value(&acl)).into_response()))
}

async fn remove(
    door: Door,
    query: Result<Query<FilterQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Alter)?;
    let filter = AclFilter::try_from(parsed(query)?)?;
    let says_nothing = AclFilter {
        pattern: filter.pattern,
        ..AclFilter::default()
    };
    if filter == says_nothing {
        return Err(Failure::AllAcls);
    }
    let mut removed = door.broker().delete_acls(&cluster, &[filter]).await?;
    let mut acls = Vec::new();
    let mut failed: Option<AclError> = None;
    for (acl, gone) in removed.remove(0) {
        match gone {
            Ok(()) => {
                audit::log(&door, &Change::AclRemoved { acl: &acl });
                acls.push(value(&acl));
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        None => Ok(Json(json!({ "acls": acls }))),
        Some(error) => Err(error.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckQuery {
    principal: String,
    operation: String,
    resource_type: String,
    name: String,
    host: Option<String>,
}

async fn check(
    door: Door,
    query: Result<Query<CheckQuery>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Describe)?;
    let query = parsed(query)?;
    let invalid = |error: InvalidAcl| Failure::from(AclError::from(error));
    let principal = match query.principal.strip_prefix(USER_HEAD) {
        Some(Principal::ANONYMOUS_NAME) => Principal::Anonymous,
        Some(name) if !name.is_empty() => Principal::User(name.into()),
        _ => return Err(invalid(InvalidAcl::Principal(query.principal))),
    };
    let host = query.host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let host: IpAddr = host.parse().map_err(|_| invalid(InvalidAcl::Host(host)))?;
    let resource = (query.resource_type.parse()?, query.name.as_str());
    let operation = query.operation.parse()?;
    let broker = door.broker();
    let verdict = broker.check_access(&cluster, &principal, host, operation, resource);
    let (because, acl) = match &verdict {
        Verdict::Off => ("access is not controlled", None),
        Verdict::SuperUser => ("a super user may do everything", None),
        Verdict::Allowed(acl) => ("a rule allows it, and none denies it", Some(acl)),
        Verdict::Denied(acl) => ("a rule denies it", Some(acl)),
        Verdict::NoRule { .. } => (
            "no rule is about the resource: allow.everyone.if.no.acl.found decides",
            None,
        ),
        Verdict::NoneAllows => ("rules are about the resource, and none allows it", None),
    };
    let acl = acl.map(|acl| value(acl));
    Ok(Json(
        json!({ "allowed": verdict.is_allowed(), "because": because, "acl": acl }),
    ))
}
