//! Users and their API tokens over HTTP, at `/api/v1/users`. The page `docs/http-api.md` describes each route.
//!
//! Callers: `http::routes`. Invariant: what is secret, a password that is given or a token that is made, passes where nobody else
//! reads it only.

use std::net::SocketAddr;

use axum::Json;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use model::sasl::ApiToken;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::errors::{self, Failure, Turned};
use super::login;
use super::request::{At, body_of};
use super::routes::{Operation, Routes};
use super::schema::{Schema, integer, list, object, text};
use crate::broker::access::{Door, ResourceKind, Right, right};

/// All of them.
const USERS: &str = "/api/v1/users";
/// One of them.
const USER: &str = "/api/v1/users/{user}";
/// A user's tokens.
const TOKENS: &str = "/api/v1/users/{user}/tokens";
/// One of them.
const TOKEN: &str = "/api/v1/users/{user}/tokens/{id}";

pub(super) fn routes() -> Routes {
    let of = |id, summary| Operation::new(id, "users", summary);
    let password = || text().about("in the clear: over https, or on the server's own machine");
    let new_token = object([])
        .optional([
            ("about", text().about("what it is for")),
            ("expires_ms", integer().or_null()),
        ])
        .closed();
    let user = || {
        object([
            ("name", text()),
            ("mechanisms", list(text())),
            ("tokens", list(token_schema())),
        ])
    };
    let named = || object([("name", text())]);
    Routes::new()
        .get(
            USERS,
            list_users,
            of("listUsers", "Users, and their tokens")
                .needs(ResourceKind::Cluster, Right::Describe)
                .answers_json(200, "all users", object([("users", list(user()))])),
        )
        .post(
            USERS,
            add,
            of("addUser", "Adds a user with a password")
                .needs(ResourceKind::Cluster, Right::Alter)
                .takes_json(
                    "the user",
                    object([("name", text()), ("password", password())]).closed(),
                )
                .answers_json(201, "the user, who may log in", named())
                .refuses(400, "invalid_user, invalid_body")
                .refuses(409, "user_exists")
                .refuses(429, "too_many_users")
                .refuses(507, "disk_full"),
        )
        .patch(
            USER,
            change,
            of("changePassword", "Gives a user another password")
                .needs(ResourceKind::Cluster, Right::Alter)
                .path("user", text(), "the user's name")
                .takes_json("the password", object([("password", password())]).closed())
                .answers_json(200, "the user", named())
                .refuses(400, "invalid_user, invalid_body")
                .refuses(404, "unknown_user")
                .refuses(507, "disk_full"),
        )
        .delete(
            USER,
            remove,
            of("removeUser", "Removes a user and the tokens")
                .needs(ResourceKind::Cluster, Right::Alter)
                .path("user", text(), "the user's name")
                .answers_json(200, "the user that was", named())
                .refuses(404, "unknown_user")
                .refuses(507, "disk_full"),
        )
        .post(
            TOKENS,
            add_token,
            of(
                "addToken",
                "Makes a token that lets in as a user, who need not have a password",
            )
            .needs(ResourceKind::Cluster, Right::Alter)
            .path("user", text(), "the user's name")
            .takes_json("what it is for, and when it ends", new_token)
            .answers_json(
                201,
                "the token, which is told this once",
                token_schema().optional([("token", text())]),
            )
            .refuses(400, "invalid_user, invalid_body")
            .refuses(429, "too_many_users")
            .refuses(507, "disk_full"),
        )
        .delete(
            TOKEN,
            remove_token,
            of("removeToken", "Revokes a token")
                .needs(ResourceKind::Cluster, Right::Alter)
                .path("user", text(), "the user's name")
                .path("id", text(), "the token's id")
                .answers_json(200, "the token that was", token_schema())
                .refuses(404, "unknown_token")
                .refuses(507, "disk_full"),
        )
}

/// What is told of a token.
fn token_schema() -> Schema {
    object([
        ("id", text()),
        ("user", text()),
        ("about", text()),
        ("created_ms", integer()),
        ("expires_ms", integer().or_null()),
    ])
}

fn token_value(token: &ApiToken) -> Value {
    json!({
        "id": token.id, "user": token.user, "about": token.about, "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
    })
}

/// That nobody else reads what this request says, and is answered.
struct Private;

impl<S: Send + Sync> FromRequestParts<S> for Private {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Private, Response> {
        let peer = parts.extensions.get::<SocketAddr>();
        match peer.is_some_and(|peer| login::is_private(&parts.extensions, peer.ip())) {
            true => Ok(Private),
            false => Err(errors::turned(&Turned::NotEncrypted)),
        }
    }
}

async fn list_users(door: Door) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Describe)?;
    let users = door.broker().users(&cluster).into_iter().map(|user| {
        let mechanisms: Vec<&str> = user.mechanisms.iter().map(|it| it.name()).collect();
        let tokens: Vec<Value> = user.tokens.iter().map(|token| token_value(token)).collect();
        json!({ "name": &*user.name, "mechanisms": mechanisms, "tokens": tokens })
    });
    Ok(Json(json!({ "users": users.collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddBody {
    name: String,
    password: String,
}

async fn add(
    door: Door,
    _private: Private,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let cluster = door.cluster(right::Alter)?;
    let body: AddBody = body_of(&headers, body).await?;
    let password = Zeroizing::new(body.password.into_bytes());
    let (broker, name) = (door.broker(), body.name);
    broker
        .set_password(&cluster, &name, password, true, door.caller())
        .await?;
    Ok(errors::created(
        Json(json!({ "name": name })).into_response(),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    password: String,
}

async fn change(
    door: Door,
    _private: Private,
    At(name): At<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Alter)?;
    let body: ChangeBody = body_of(&headers, body).await?;
    let password = Zeroizing::new(body.password.into_bytes());
    let broker = door.broker();
    broker
        .set_password(&cluster, &name, password, false, door.caller())
        .await?;
    Ok(Json(json!({ "name": name })))
}

async fn remove(door: Door, At(name): At<String>) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Alter)?;
    let broker = door.broker();
    broker.remove_user(&cluster, &name, door.caller()).await?;
    Ok(Json(json!({ "name": name })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    #[serde(default)]
    about: String,
    expires_ms: Option<i64>,
}

async fn add_token(
    door: Door,
    _private: Private,
    At(name): At<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let cluster = door.cluster(right::Alter)?;
    let TokenBody { about, expires_ms } = body_of(&headers, body).await?;
    let broker = door.broker();
    let made = broker.add_token(&cluster, &name, &about, expires_ms, door.caller());
    let (token, secret) = made.await?;
    let mut told = token_value(&token);
    told["token"] = secret.as_str().into();
    Ok(errors::created(Json(told).into_response()))
}

async fn remove_token(
    door: Door,
    At((name, id)): At<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let cluster = door.cluster(right::Alter)?;
    let removed = door
        .broker()
        .remove_token(&cluster, &name, &id, door.caller());
    Ok(Json(token_value(&*removed.await?)))
}
