//! Whether a token lets somebody in.
//! Callers: `holder`. Pure: keys and time are given. Invariant: nothing that a token says counts before its signature was checked, but
//! which key and algorithm to check it with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::JwtConfig;
use super::keys::{Algorithm, Keys};

/// The longest token.
pub(super) const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Characters of a subject.
const SUBJECT_CHARS_MAX: usize = 255;
/// Seconds that a time is of: more is no date.
const SECONDS_MAX: f64 = 1e11;

/// Who a token lets in, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker) struct Shown {
    pub(in crate::broker) user: String,
    pub(in crate::broker) expires_ms: i64,
}

/// Why it does not. Whoever shows it is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::broker) enum Unfit {
    #[error("it is no signed token")]
    Malformed,
    #[error("its algorithm is not taken")]
    Algorithm,
    #[error("no key of its id is known")]
    UnknownKey,
    #[error("no key has signed it")]
    Signature,
    #[error("it has no {0} that is one")]
    Claim(&'static str),
    #[error("it has expired")]
    Expired,
    #[error("it does not hold yet")]
    Early,
    #[error("another issuer's")]
    Issuer,
    #[error("for another audience")]
    Audience,
    #[error("a scope is missing")]
    Scope,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What whoever checks it has to understand: nothing here does.
    crit: Option<Value>,
}

/// Checks a token.
pub(super) fn check(
    token: &[u8],
    keys: &Keys,
    config: &JwtConfig,
    now_ms: i64,
) -> Result<Shown, Unfit> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Unfit::Malformed);
    }
    let token = std::str::from_utf8(token).map_err(|_| Unfit::Malformed)?;
    let (signed, signature) = token.rsplit_once('.').ok_or(Unfit::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Unfit::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Unfit::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Unfit::Malformed)?;
    if header.crit.is_some() {
        return Err(Unfit::Malformed);
    }
    let algorithm = Algorithm::of_name(&header.alg).ok_or(Unfit::Algorithm)?;
    let signature = decode(signature)?;
    let claims = decode(claims)?;
    let mut fitting = keys.fitting(header.kid.as_deref(), algorithm).peekable();
    if fitting.peek().is_none() {
        return Err(Unfit::UnknownKey);
    }
    let is_signed = fitting.any(|key| key.has_signed(algorithm, signed.as_bytes(), &signature));
    if !is_signed {
        return Err(Unfit::Signature);
    }
    let claims = serde_json::from_slice(&claims).map_err(|_| Unfit::Malformed)?;
    check_claims(&claims, config, now_ms)
}

/// What the claims have to be. As in Kafka, `exp`, `iat`, the scope and the subject are there.
fn check_claims(
    claims: &Map<String, Value>,
    config: &JwtConfig,
    now_ms: i64,
) -> Result<Shown, Unfit> {
    let skew_ms = i64::try_from(config.skew.as_millis()).unwrap_or(i64::MAX);
    let expires_ms = time_of(claims, "exp")?.ok_or(Unfit::Claim("exp"))?;
    if now_ms >= expires_ms.saturating_add(skew_ms) {
        return Err(Unfit::Expired);
    }
    let early = |time_ms: i64| now_ms.saturating_add(skew_ms) < time_ms;
    if time_of(claims, "nbf")?.is_some_and(early) {
        return Err(Unfit::Early);
    }
    let issued_ms = time_of(claims, "iat")?.ok_or(Unfit::Claim("iat"))?;
    if issued_ms > expires_ms {
        return Err(Unfit::Claim("iat"));
    }
    if let Some(issuer) = &config.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Unfit::Issuer);
    }
    if !config.audiences.is_empty() {
        let named = texts(claims.get("aud")).ok_or(Unfit::Audience)?;
        if !named
            .iter()
            .any(|one| config.audiences.iter().any(|it| it == one))
        {
            return Err(Unfit::Audience);
        }
    }
    check_scopes(claims, config)?;
    let subject = claims.get(&config.sub_claim).and_then(Value::as_str);
    let subject = subject.map(str::trim).ok_or(Unfit::Claim("subject"))?;
    let is_name = !subject.is_empty()
        && subject.chars().count() <= SUBJECT_CHARS_MAX
        && !subject.chars().any(char::is_control);
    match is_name {
        true => Ok(Shown {
            user: subject.to_owned(),
            expires_ms,
        }),
        false => Err(Unfit::Claim("subject")),
    }
}

/// The scopes: a text with spaces between them (RFC 8693), or a list. There, not empty, and none twice.
fn check_scopes(claims: &Map<String, Value>, config: &JwtConfig) -> Result<(), Unfit> {
    let found = texts(claims.get(&config.scope_claim)).ok_or(Unfit::Claim("scope"))?;
    let scopes: Vec<&str> = match claims.get(&config.scope_claim) {
        Some(Value::String(text)) => text.split_whitespace().collect(),
        _ => found.iter().map(|one| one.trim()).collect(),
    };
    let mut sorted = scopes.clone();
    sorted.sort_unstable();
    let is_twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
    if scopes.is_empty() || is_twice || scopes.iter().any(|one| one.is_empty()) {
        return Err(Unfit::Claim("scope"));
    }
    let has = |wanted: &String| scopes.iter().any(|one| one == wanted);
    match config.scopes.iter().all(has) {
        true => Ok(()),
        false => Err(Unfit::Scope),
    }
}

/// A text or a list of texts.
fn texts(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::String(text) => Some(vec![text]),
        Value::Array(all) => all.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// A time in seconds, perhaps with a fraction, as milliseconds.
fn time_of(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, Unfit> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value.as_f64().ok_or(Unfit::Claim(name))?;
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(Unfit::Claim(name));
    }
    let time = std::time::Duration::from_secs_f64(seconds).as_millis();
    i64::try_from(time)
        .map(Some)
        .map_err(|_| Unfit::Claim(name))
}
