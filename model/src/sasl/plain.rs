//! PLAIN: a name and a password. Source: RFC 4616.
//! Callers: both sides of it; the fuzz target.

use std::fmt;

use zeroize::Zeroizing;

use super::message::Malformed;

/// What a client says.
pub struct Plain {
    /// Whom it wants to be, if it says so.
    pub authorization: Option<String>,
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

impl Plain {
    /// Reads it.
    pub fn parse(bytes: &[u8]) -> Result<Plain, Malformed> {
        let mut fields = bytes.split(|byte| *byte == 0);
        let mut next = || fields.next().ok_or(Malformed("three fields are expected"));
        let (authorization, user, password) = (next()?, next()?, next()?);
        if fields.next().is_some() {
            return Err(Malformed("three fields are expected"));
        }
        let text = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).map_err(|_| Malformed("not UTF-8"))?;
            Ok(text.to_owned())
        };
        if user.is_empty() || password.is_empty() {
            return Err(Malformed("the name or the password is empty"));
        }
        Ok(Plain {
            authorization: match authorization {
                [] => None,
                given => Some(text(given)?),
            },
            user: text(user)?,
            password: Zeroizing::new(password.to_vec()),
        })
    }

    /// Writes it, for nobody but oneself.
    pub fn message(user: &str, password: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut message = Zeroizing::new(Vec::with_capacity(2 + user.len() + password.len()));
        message.push(0);
        message.extend_from_slice(user.as_bytes());
        message.push(0);
        message.extend_from_slice(password);
        message
    }
}
