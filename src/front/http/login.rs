//! Login: who sends a request, by its `Authorization`, or else by its connection.
//!
//! Callers: the middleware, for each request to a route that is not open, before it has a place among those that are answered: who
//! guesses holds nothing but a connection. The door takes what it finds.
//! Invariants: what is shown is checked, on every such route and whether access is controlled or not; what is no good is refused
//! late and in the same words, whatever was wrong with it. A password is not taken where others can read it.
//! Source: RFC 9110 (section 11), RFC 7617 (Basic), RFC 6750 (Bearer, in the header only).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{Extensions, HeaderValue, header};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::errors::Turned;
use super::state::Front;
use super::table::Row;
use crate::broker::access::Principal;
use crate::broker::credentials::{LoginKind, Proven};
use crate::front::listener::Transport;

/// What an answer asks for that wants credentials.
pub(super) const CHALLENGES: [HeaderValue; 2] = [
    HeaderValue::from_static("Basic realm=\"alluvium\", charset=\"UTF-8\""),
    HeaderValue::from_static("Bearer realm=\"alluvium\""),
];

/// Padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request shows.
enum Shown {
    /// A user's name and password.
    Basic {
        user: String,
        password: Zeroizing<Vec<u8>>,
    },
    /// An API token, or one that somebody else signed.
    Bearer(Zeroizing<Vec<u8>>),
}

/// Looks at what a request shows, and leaves in it who sends it.
pub(super) async fn enter(
    front: &Arc<Front>,
    row: Option<&Row>,
    request: &mut Request,
) -> Result<(), Turned> {
    if row.is_none_or(|row| row.is_open) {
        return Ok(());
    }
    let mut given = request.headers().get_all(header::AUTHORIZATION).iter();
    let Some(first) = given.next() else {
        return Ok(());
    };
    let shown = match given.next() {
        Some(_) => None,
        None => Shown::parse(first.as_bytes()),
    };
    request.headers_mut().remove(header::AUTHORIZATION);
    let address = request.extensions().get::<SocketAddr>();
    let address = address.map_or(Ipv4Addr::UNSPECIFIED.into(), SocketAddr::ip);
    if !is_private(request.extensions(), address) {
        return Err(Turned::NotEncrypted);
    }
    match log_in(front, shown, address).await {
        Some(user) => {
            request.extensions_mut().insert(Principal::User(user));
            Ok(())
        }
        None => {
            tokio::time::sleep(front.shared.sasl.failed_delay).await;
            Err(Turned::LoginFailed)
        }
    }
}

/// Whether nobody else reads what passes between this address and the server.
pub(super) fn is_private(of_request: &Extensions, address: IpAddr) -> bool {
    match of_request.get::<Transport>() {
        Some(transport) => transport.is_private(address),
        None => address.to_canonical().is_loopback(),
    }
}

async fn log_in(front: &Front, shown: Option<Shown>, address: IpAddr) -> Option<Arc<str>> {
    let logged_in = match shown? {
        Shown::Basic { user, password } => {
            let logged_in = front
                .broker
                .log_in(LoginKind::Basic, &user, password, address);
            logged_in.await
        }
        // Tokens of our own have no dot in them.
        Shown::Bearer(token) if token.contains(&b'.') && front.broker.takes_jwt() => {
            front.broker.log_in_by_jwt(LoginKind::Jwt, &token, address)
        }
        Shown::Bearer(token) => front.broker.log_in_by_token(&token, address),
    };
    logged_in.ok().map(Proven::accept)
}

impl Shown {
    /// None of what is in no form that is known.
    fn parse(value: &[u8]) -> Option<Shown> {
        let space = value.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"Bearer") {
            return Some(Shown::Bearer(Zeroizing::new(rest.to_vec())));
        }
        if !scheme.eq_ignore_ascii_case(b"Basic") {
            return None;
        }
        let both = Zeroizing::new(BASE64.decode(rest).ok()?);
        let colon = both.iter().position(|byte| *byte == b':')?;
        let user = std::str::from_utf8(&both[..colon]).ok()?.to_owned();
        let password = Zeroizing::new(both[colon + 1..].to_vec());
        (!user.is_empty() && !password.is_empty()).then_some(Shown::Basic { user, password })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rights_tests::front_of;
    use super::*;
    use crate::broker::credentials::jwt::signer::Signer;

    #[tokio::test]
    async fn a_token_that_somebody_else_signed_lets_in_whom_it_names() {
        let signer = Signer::new();
        let broker = signer.broker();
        let front = front_of(&broker);
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let enter = async |token: &str| {
            let shown = Shown::parse(format!("Bearer {token}").as_bytes());
            log_in(&front, shown, elsewhere).await
        };
        let entered = enter(&signer.token("press4", 60)).await;
        assert_eq!(entered.as_deref(), Some("press4"));
        let forged = Signer::new().token("press4", 60);
        for bad in [&signer.token("press4", -60), &forged, "a.b.c", "."] {
            assert_eq!(enter(bad).await, None, "{bad}");
        }
    }

    fn basic(value: &str) -> Option<(String, String)> {
        let Shown::Basic { user, password } = Shown::parse(value.as_bytes())? else {
            return None;
        };
        Some((user, String::from_utf8_lossy(&password).into_owned()))
    }

    #[test]
    fn basic_is_a_name_and_a_password_with_the_first_colon_between_them() {
        // The first is RFC 7617's own.
        for (value, user, password) in [
            (
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
                "Aladdin",
                "open sesame",
            ),
            ("bAsIc QWxhZGRpbjpvcGVuIHNlc2FtZQ", "Aladdin", "open sesame"),
            ("Basic  dGVzdDoxMjPCow== ", "test", "123\u{a3}"),
            ("Basic YTpiOmM=", "a", "b:c"),
        ] {
            let expected = (user.to_owned(), password.to_owned());
            assert_eq!(basic(value), Some(expected), "{value}");
        }
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            "Basic YTo=",
            "Basic OmI=",
            "Basic YWI=",
            "Basic /zpi",
            "Digest YTpi",
            "YTpi",
        ] {
            assert_eq!(basic(bad), None, "{bad}");
        }
    }
}
