//! API tokens: what programs show instead of a user's name and password.
//! Callers: the broker, which makes and checks them; the fuzz target. Invariant: no token is kept, but the hash of its secret; a secret
//! has 256 bits that nobody chose, so that a hash that is fast to compute keeps it.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::hex::{from_hex, to_hex};

/// How a token begins: so that it is known for one where it lies about.
const HEAD: &str = "alv_";
/// How long the id is, which tells which token it is and opens nothing.
pub const TOKEN_ID_BYTES: usize = 8;
/// How long the secret is.
pub const TOKEN_SECRET_BYTES: usize = 32;
/// The longest text that says what a token is for.
const ABOUT_BYTES_MAX: usize = 255;

/// A token as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Which it is: 16 hexadecimal digits.
    pub id: String,
    /// As whom it lets in.
    pub user: String,
    /// What it is for.
    pub about: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// From when on it is no good; None if it does not end by itself.
    pub expires_ms: Option<i64>,
    pub(super) hash: [u8; 32],
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({}, {:?})", self.id, self.user)
    }
}

/// A token as it is shown.
pub struct ShownToken {
    /// Which it says it is.
    pub id: String,
    hash: [u8; 32],
}

impl ApiToken {
    /// Of random bytes that nobody can guess. Gives what is kept, and the token itself.
    pub fn new(
        (id, secret): (&[u8; TOKEN_ID_BYTES], &[u8; TOKEN_SECRET_BYTES]),
        user: &str,
        about: &str,
        created_ms: i64,
        expires_ms: Option<i64>,
    ) -> (ApiToken, Zeroizing<String>) {
        let (id, digits) = (to_hex(id), Zeroizing::new(to_hex(secret)));
        let text = Zeroizing::new(format!("{HEAD}{id}_{}", *digits));
        let token = ApiToken {
            id,
            user: user.to_owned(),
            about: about.to_owned(),
            created_ms,
            expires_ms,
            hash: Sha256::digest(secret).into(),
        };
        (token, text)
    }

    /// Whether this is the token, and it has not ended.
    pub fn is_shown_by(&self, shown: &ShownToken, now_ms: i64) -> bool {
        let is_same = bool::from(self.hash.ct_eq(&shown.hash)) && self.id == shown.id;
        is_same && !self.is_expired(now_ms)
    }

    /// Whether it has ended.
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|end| now_ms >= end)
    }

    /// Refuses what cannot be kept of one, but for the user's name.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        check_about(&self.about)?;
        check_id(&self.id)
    }
}

/// Refuses what cannot be said of a token: it stands in lists and log lines.
pub fn check_about(about: &str) -> Result<(), &'static str> {
    if about.len() > ABOUT_BYTES_MAX {
        return Err("what a token is for is said in at most 255 bytes");
    }
    if about.chars().any(char::is_control) {
        return Err("what a token is for has no control characters");
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), &'static str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_id = id.len() == 2 * TOKEN_ID_BYTES && id.bytes().all(is_digit);
    is_id
        .then_some(())
        .ok_or("a token's id has 16 hexadecimal digits")
}

impl ShownToken {
    /// None of what cannot be a token.
    pub fn parse(text: &[u8]) -> Option<ShownToken> {
        let text = std::str::from_utf8(text).ok()?;
        let (id, secret) = text.strip_prefix(HEAD)?.split_once('_')?;
        check_id(id).ok()?;
        let secret = Zeroizing::new(from_hex(secret)?);
        (secret.len() == TOKEN_SECRET_BYTES).then(|| ShownToken {
            id: id.to_owned(),
            hash: Sha256::digest(secret.as_slice()).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_until_it_ends_and_nothing_else_is() {
        let (kept, text) = ApiToken::new((&[1; 8], &[2; 32]), "alice", "press", 5, Some(100));
        let secret = "02".repeat(32);
        assert_eq!(*text, format!("alv_0101010101010101_{secret}"));
        let shown = ShownToken::parse(text.as_bytes()).unwrap();
        assert!(kept.is_shown_by(&shown, 99));
        assert!(!kept.is_shown_by(&shown, 100));
        let (endless, _) = ApiToken::new((&[1; 8], &[2; 32]), "alice", "", 5, None);
        assert!(endless.is_shown_by(&shown, i64::MAX));
        for other in [
            format!("alv_0101010101010102_{secret}"),
            format!("alv_0101010101010101_{}", "03".repeat(32)),
        ] {
            let shown = ShownToken::parse(other.as_bytes()).unwrap();
            assert!(!endless.is_shown_by(&shown, 0), "{other}");
        }
        for bad in [
            "",
            "alv_",
            "alv_01_02",
            &text[1..],
            &text[..text.len() - 2],
            &format!("{}00", *text),
            &text.replace("alv_01", "alv_0G"),
        ] {
            assert!(ShownToken::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(!format!("{kept:?}").contains("02"));
    }
}
