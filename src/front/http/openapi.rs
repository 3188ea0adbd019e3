//! The OpenAPI document (3.1) of everything that is served, made of the table of routes.
//!
//! Callers: `http::routes`, once at start; the document is served at [`DOCUMENT`].
//! Source: <https://spec.openapis.org/oas/v3.1.0>.

use axum::extract::Extension;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::operation::{Content, Described, Errors, In, Operation, Parameter};
use super::routes::Routes;
use super::schema::{self, Schema, integer, integer_in, object, text};

/// Where it is served.
pub(super) const DOCUMENT: &str = "/api/v1/openapi.json";

/// What every route may answer, with its codes: the guard, the limits, the store.
const EVERYWHERE: &[(u16, &str)] = &[
    (400, "no_host, invalid_path, invalid_query"),
    (401, "unauthorized"),
    (403, "cross_site, denied, not_encrypted"),
    (406, "not_acceptable"),
    (414, "uri_too_long"),
    (421, "unknown_host"),
    (431, "headers_too_large"),
    (500, "internal"),
    (503, "overloaded, stopping, storage"),
];
/// What routes that take a body may answer beyond that.
const WITH_BODY: &[(u16, &str)] = &[
    (408, "body_late"),
    (413, "body_too_large"),
    (415, "unsupported_media_type"),
];

/// The document, ready to be sent.
#[derive(Clone)]
pub(super) struct Document(pub(super) Bytes);

pub(super) fn routes() -> Routes {
    let about = Operation::new("openapi", "server", "This document")
        .answers_json(
            200,
            "an OpenAPI 3.1 document",
            schema::map(schema::anything()),
        )
        .for_everybody();
    Routes::new().get(DOCUMENT, document, about)
}

async fn document(Extension(Document(text)): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text)
}

/// The document of these routes.
pub(super) fn of(described: &[Described]) -> Value {
    let mut paths = Map::new();
    for one in described {
        let path = paths
            .entry(one.path)
            .or_insert_with(|| Value::Object(Map::new()));
        let method = one.method.as_str().to_ascii_lowercase();
        path[method] = operation(one);
        if one.method == Method::GET {
            let mut head = operation(one);
            head["operationId"] = format!("{}Head", one.about.id).into();
            head["summary"] = format!("{}: the head of the answer alone", one.about.summary).into();
            path["head"] = head;
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Alluvium",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything that is served on the HTTP port. Errors of the API are problem documents (RFC 9457) \
                            with a `code` that stays; those of the REST proxy have Confluent's form.",
        },
        "paths": paths,
        "components": { "schemas": {
            "Problem": problem().value(),
            "ProxyError": proxy_error().value(),
        } },
    })
}

/// What an error of the API looks like.
fn problem() -> Schema {
    object([
        ("type", text()),
        ("title", text()),
        ("status", integer_in(400..=599)),
        ("code", text().about("the error's name, which stays")),
        ("detail", text().about("for people")),
        (
            "request_id",
            text().or_null().about("what X-Request-Id says"),
        ),
    ])
}

/// What an error of the REST proxy looks like.
fn proxy_error() -> Schema {
    object([("error_code", integer()), ("message", text())])
}

fn operation(one: &Described) -> Value {
    let about = &one.about;
    let rights = about.rights.iter();
    let rights: Vec<String> = rights
        .map(|(kind, right)| format!("{kind:?} {right:?}"))
        .collect();
    let mut value = json!({
        "operationId": about.id, "tags": [about.tag], "summary": about.summary,
        "responses": responses(about), "x-rights": rights,
    });
    if !about.details.is_empty() {
        value["description"] = about.details.into();
    }
    if !about.parameters.is_empty() {
        value["parameters"] = about.parameters.iter().map(parameter).collect();
    }
    if let Some(body) = &about.body {
        value["requestBody"] =
            json!({ "required": true, "description": body.about, "content": content(body) });
    }
    value
}

fn parameter(one: &Parameter) -> Value {
    let place = match one.place {
        In::Path => "path",
        In::Query => "query",
        In::Header => "header",
    };
    json!({
        "name": one.name, "in": place, "required": one.required, "description": one.about,
        "schema": one.schema.clone().value(),
    })
}

fn content(content: &Content) -> Value {
    let types = content.types.iter();
    let types: Map<_, _> = types
        .map(|(name, schema)| {
            let schema = schema.clone().value();
            ((*name).to_owned(), json!({ "schema": schema }))
        })
        .collect();
    Value::Object(types)
}

fn responses(about: &Operation) -> Value {
    let mut all = Map::new();
    for (status, answer) in &about.answers {
        let mut value = json!({ "description": answer.about });
        if !answer.types.is_empty() {
            value["content"] = content(answer);
        }
        all.insert(status.to_string(), value);
    }
    let (kinds, shape) = match about.errors {
        Errors::Problem => (&["application/problem+json"][..], "Problem"),
        Errors::Proxy => (
            &["application/vnd.kafka.v2+json", "application/json"][..],
            "ProxyError",
        ),
    };
    let with_body = about.body.iter().flat_map(|_| WITH_BODY);
    let refusals = about.refusals.iter().chain(EVERYWHERE).chain(with_body);
    for (status, codes) in refusals {
        let value = all.entry(status.to_string()).or_insert_with(|| {
            let schema = schema::named(shape).value();
            let content = kinds
                .iter()
                .map(|kind| ((*kind).to_owned(), json!({ "schema": schema })));
            json!({ "description": "", "content": content.collect::<Map<_, _>>() })
        });
        let said = value["description"].as_str().unwrap_or_default();
        value["description"] = match said {
            "" => (*codes).into(),
            said => format!("{said}, {codes}").into(),
        };
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names in braces.
    fn names_in(path: &str) -> BTreeSet<&str> {
        path.split('{')
            .skip(1)
            .filter_map(|part| part.split('}').next())
            .collect()
    }

    #[test]
    fn every_route_is_described_whole() {
        let (_, described) = super::super::all_routes().into_parts();
        let mut ids = BTreeSet::new();
        for one in &described {
            let (about, path) = (&one.about, one.path);
            assert!(ids.insert(about.id), "{}: a second one", about.id);
            assert!(!about.summary.is_empty() && !about.tag.is_empty(), "{path}");
            assert!(!about.answers.is_empty(), "{path}: no good answer");
            let named = about.parameters.iter();
            let named: BTreeSet<_> = named
                .filter(|one| one.place == In::Path)
                .map(|one| one.name)
                .collect();
            assert_eq!(named, names_in(path), "{path}");
            if one.about.reach == super::super::operation::Reach::Everybody {
                assert_eq!(one.method, Method::GET, "{path} changes something");
            }
        }
        let document = of(&described);
        let paths = document["paths"].as_object().expect("an object");
        assert!(paths.contains_key(DOCUMENT));
    }
}
