//! OAUTHBEARER: a token that somebody else signed. Source: RFC 7628, and Kafka's `OAuthBearerClientInitialResponse`.
//! Callers: both sides of it. Pure. What the token says is not looked at here.

use std::fmt;

use zeroize::Zeroizing;

use super::message::Malformed;

/// Ends a pair, and all of them.
const END: u8 = 1;

/// What a client says first.
pub struct Bearer<'a> {
    /// Whom it wants to be, if it says so.
    pub authorization: Option<String>,
    /// The token.
    pub token: &'a [u8],
}

impl fmt::Debug for Bearer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").finish_non_exhaustive()
    }
}

impl<'a> Bearer<'a> {
    /// What is answered to a token that is not taken, in Kafka's words.
    pub const REFUSAL: &'static str = "{\"status\":\"invalid_token\"}";

    /// What a client answers to it.
    pub const SEEN: &'static [u8] = &[END];

    /// Writes it, for whoever the token is of.
    pub fn message(token: &[u8]) -> Zeroizing<Vec<u8>> {
        let (head, tail) = (b"n,,\x01auth=Bearer ", [END, END]);
        let mut message = Zeroizing::new(Vec::with_capacity(head.len() + token.len() + tail.len()));
        message.extend_from_slice(head);
        message.extend_from_slice(token);
        message.extend_from_slice(&tail);
        message
    }

    /// Reads it. Pairs beside `auth` are extensions, which nothing here asks for.
    pub fn parse(message: &'a [u8]) -> Result<Bearer<'a>, Malformed> {
        let rest = message
            .strip_prefix(b"n,")
            .ok_or(Malformed("channels are not bound here"))?;
        let comma = rest.iter().position(|byte| *byte == b',');
        let (named, rest) = rest.split_at(comma.ok_or(Malformed("it begins with n,,"))?);
        let authorization = match named {
            [] => None,
            [b'a', b'=', name @ ..] => Some(name_of(name)?),
            _ => return Err(Malformed("it begins with n,a=name, or n,,")),
        };
        let mut rest = rest
            .strip_prefix(b",\x01")
            .ok_or(Malformed("pairs follow"))?;
        let mut token = None;
        while rest != [END] {
            let end = rest.iter().position(|byte| *byte == END);
            let pair = &rest[..end.ok_or(Malformed("a pair has no end"))?];
            rest = &rest[pair.len() + 1..];
            let (key, value) = pair_of(pair)?;
            if key == b"auth" && token.replace(token_of(value)?).is_some() {
                return Err(Malformed("it has two tokens"));
            }
        }
        Ok(Bearer {
            authorization,
            token: token.ok_or(Malformed("it has no token"))?,
        })
    }
}

/// A name in SASL's quotes: `=2C` is a comma, `=3D` an equals sign.
fn name_of(quoted: &[u8]) -> Result<String, Malformed> {
    let quoted = std::str::from_utf8(quoted).map_err(|_| Malformed("not UTF-8"))?;
    let mut pieces = quoted.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Malformed("= stands for itself in no name")),
        };
        name.push(character);
        name.push_str(rest);
    }
    match name.is_empty() || name.contains('\0') {
        true => Err(Malformed("the name is none")),
        false => Ok(name),
    }
}

fn pair_of(pair: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let equals = pair.iter().position(|byte| *byte == b'=');
    let (key, value) = pair.split_at(equals.ok_or(Malformed("a pair has no ="))?);
    let value = &value[1..];
    let is_value = |byte: &u8| matches!(byte, 0x21..=0x7e | b' ' | b'\t' | b'\r' | b'\n');
    let is_good = !key.is_empty() && key.iter().all(u8::is_ascii_alphabetic);
    match is_good && !value.is_empty() && value.iter().all(is_value) {
        true => Ok((key, value)),
        false => Err(Malformed("a pair is none")),
    }
}

fn token_of(value: &[u8]) -> Result<&[u8], Malformed> {
    let space = value.iter().position(|byte| *byte == b' ');
    let (scheme, token) = value.split_at(space.ok_or(Malformed("auth is a scheme and a token"))?);
    let token = token.trim_ascii_start();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_good = !token.is_empty() && token.iter().all(is_token);
    match is_good && scheme.eq_ignore_ascii_case(b"bearer") {
        true => Ok(token),
        false => Err(Malformed("auth is no bearer token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(message: &str) -> Option<(Option<String>, String)> {
        let bearer = Bearer::parse(message.as_bytes()).ok()?;
        let token = std::str::from_utf8(bearer.token).expect("ASCII").to_owned();
        Some((bearer.authorization, token))
    }

    #[test]
    fn what_kafkas_clients_and_the_rfc_say_is_read() {
        let both =
            |name: Option<&str>, token: &str| Some((name.map(str::to_owned), token.to_owned()));
        // RFC 7628, section 4.1.
        let rfc = "n,a=user@example.com,\u{1}host=server.example.com\u{1}port=143\u{1}auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg\u{1}\u{1}";
        let token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg";
        assert_eq!(parsed(rfc), both(Some("user@example.com"), token));
        let message = Bearer::message(b"t");
        assert_eq!(Bearer::parse(&message).expect("it is one").token, b"t");
        assert_eq!(
            parsed("n,,\u{1}auth=Bearer a.b-c_d\u{1}\u{1}"),
            both(None, "a.b-c_d")
        );
        assert_eq!(
            parsed("n,a=a=2Cb=3D,\u{1}auth=bEARER  t\u{1}x=1 2\u{1}\u{1}"),
            both(Some("a,b="), "t")
        );
    }

    #[test]
    fn what_is_no_such_message_is_refused() {
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "y,,\u{1}auth=Bearer t\u{1}\u{1}",
            "p=tls-unique,,\u{1}auth=Bearer t\u{1}\u{1}",
            "n,,\u{1}\u{1}",
            "n,,\u{1}auth=Bearer t\u{1}",
            "n,,\u{1}auth=Bearer t\u{1}\u{1}x",
            "n,,\u{1}auth=Bearer \u{1}\u{1}",
            "n,,\u{1}auth=Bearer t=\u{1}\u{1}",
            "n,,\u{1}auth=Basic t\u{1}\u{1}",
            "n,,\u{1}auth=Bearer t\u{1}auth=Bearer u\u{1}\u{1}",
            "n,,\u{1}Auth=Bearer t\u{1}\u{1}",
            "n,,\u{1}a1=b\u{1}auth=Bearer t\u{1}\u{1}",
            "n,a=,\u{1}auth=Bearer t\u{1}\u{1}",
            "n,a==41,\u{1}auth=Bearer t\u{1}\u{1}",
            "n,b=x,\u{1}auth=Bearer t\u{1}\u{1}",
        ] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
