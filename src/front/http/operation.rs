//! What one method of one path does, as data: for the OpenAPI document, the guard, the limits and the rights.
//!
//! Callers: whoever declares a route, through `routes`.

use axum::http::Method;

use super::schema::Schema;
use crate::broker::access::{ResourceKind, Right};

/// One method of one path.
pub(super) struct Described {
    pub(super) method: Method,
    /// As axum and OpenAPI write it, `/api/v1/topics/{topic}`.
    pub(super) path: &'static str,
    pub(super) about: Operation,
}

/// In which form a route tells errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errors {
    /// `application/problem+json` with a stable code.
    Problem,
    /// `{"error_code": 40401, "message": "…"}`, as Confluent's REST proxy has them.
    Proxy,
}

/// Whom a browser may ask for it on behalf of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Pages of this server, pages that `http.cors.allow.origins` names, and whoever is no page.
    SameOrigin,
    /// Everybody: it changes nothing and tells nothing of records.
    Everybody,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum In {
    Path,
    Query,
    Header,
}

/// One parameter of an operation.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: In,
    pub(super) required: bool,
    pub(super) schema: Schema,
    pub(super) about: &'static str,
}

/// An answer, or a body that is taken: what it says, and its types of content.
pub(super) struct Content {
    pub(super) about: &'static str,
    /// Content types with what is in them.
    pub(super) types: Vec<(&'static str, Schema)>,
}

/// What one method of one path does.
pub(super) struct Operation {
    pub(super) id: &'static str,
    /// The part of the API, as documents group it.
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) details: &'static str,
    pub(super) rights: Vec<(ResourceKind, Right)>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Content>,
    pub(super) answers: Vec<(u16, Content)>,
    /// Statuses of refusals beyond those that every route may answer, with their codes.
    pub(super) refusals: Vec<(u16, &'static str)>,
    pub(super) errors: Errors,
    pub(super) reach: Reach,
    /// Whether an answer goes on for as long as its reader likes: it ends early at shutdown and is no request that takes long.
    pub(super) follows: bool,
}

impl Operation {
    /// An operation by its unique name in camel case, the part of the API it belongs to, and what it does, in half a sentence.
    pub(super) fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Operation {
        Operation {
            id,
            tag,
            summary,
            details: "",
            rights: Vec::new(),
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            refusals: Vec::new(),
            errors: Errors::Problem,
            reach: Reach::SameOrigin,
            follows: false,
        }
    }

    /// More about it, in whole sentences.
    pub(super) fn details(mut self, details: &'static str) -> Operation {
        self.details = details;
        self
    }

    /// It asks the door for this right; once for each.
    pub(super) fn needs(mut self, kind: ResourceKind, right: Right) -> Operation {
        self.rights.push((kind, right));
        self
    }

    fn parameter(
        mut self,
        place: In,
        required: bool,
        (name, schema, about): (&'static str, Schema, &'static str),
    ) -> Operation {
        self.parameters.push(Parameter {
            name,
            place,
            required,
            schema,
            about,
        });
        self
    }

    /// A name in braces in the path.
    pub(super) fn path(self, name: &'static str, schema: Schema, about: &'static str) -> Operation {
        self.parameter(In::Path, true, (name, schema, about))
    }

    /// A parameter behind `?` that may be left out.
    pub(super) fn query(
        self,
        name: &'static str,
        schema: Schema,
        about: &'static str,
    ) -> Operation {
        self.parameter(In::Query, false, (name, schema, about))
    }

    /// A parameter behind `?` that must be there.
    pub(super) fn query_required(
        self,
        name: &'static str,
        schema: Schema,
        about: &'static str,
    ) -> Operation {
        self.parameter(In::Query, true, (name, schema, about))
    }

    /// A header that may be left out.
    pub(super) fn header(
        self,
        name: &'static str,
        schema: Schema,
        about: &'static str,
    ) -> Operation {
        self.parameter(In::Header, false, (name, schema, about))
    }

    /// It takes a JSON body.
    pub(super) fn takes_json(self, about: &'static str, schema: Schema) -> Operation {
        self.takes(about, vec![("application/json", schema)])
    }

    /// It takes a body of one of these content types.
    pub(super) fn takes(
        mut self,
        about: &'static str,
        types: Vec<(&'static str, Schema)>,
    ) -> Operation {
        self.body = Some(Content { about, types });
        self
    }

    /// A good answer in JSON.
    pub(super) fn answers_json(
        self,
        status: u16,
        about: &'static str,
        schema: Schema,
    ) -> Operation {
        self.answers(status, about, vec![("application/json", schema)])
    }

    /// A good answer in these content types, or without a body if there are none.
    pub(super) fn answers(
        mut self,
        status: u16,
        about: &'static str,
        types: Vec<(&'static str, Schema)>,
    ) -> Operation {
        self.answers.push((status, Content { about, types }));
        self
    }

    /// A refusal beyond those of every route: its status, and the code or codes.
    pub(super) fn refuses(mut self, status: u16, codes: &'static str) -> Operation {
        self.refusals.push((status, codes));
        self
    }

    /// Its errors have the form of Confluent's REST proxy.
    pub(super) fn told_as_proxy(mut self) -> Operation {
        self.errors = Errors::Proxy;
        self
    }

    /// Pages of other sites may ask for it too: it changes nothing and tells nothing of records.
    pub(super) fn for_everybody(mut self) -> Operation {
        self.reach = Reach::Everybody;
        self
    }

    /// Its answer goes on for as long as its reader likes.
    pub(super) fn follows(mut self) -> Operation {
        self.follows = true;
        self
    }
}
