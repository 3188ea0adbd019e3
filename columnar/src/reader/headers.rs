//! Headers of a row, as JSON: what `crate::text::put_headers` writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A header: key and value.
pub type Header = (Vec<u8>, Option<Vec<u8>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    key: String,
    value: Option<String>,
    key_encoding: Option<String>,
    value_encoding: Option<String>,
}

/// Reads headers. Errors: what is wrong, behind "the headers".
pub fn parse_headers(text: &[u8]) -> Result<Vec<Header>, String> {
    let members: Vec<Member> = serde_json::from_slice(text)
        .map_err(|error| format!("are not [{{\"key\":…,\"value\":…}}]: {error}"))?;
    let header = |member: Member| {
        let key = decoded(member.key, member.key_encoding.as_deref())?;
        let encoding = member.value_encoding;
        let value = member
            .value
            .map(|value| decoded(value, encoding.as_deref()));
        Ok((key, value.transpose()?))
    };
    members.into_iter().map(header).collect()
}

fn decoded(text: String, encoding: Option<&str>) -> Result<Vec<u8>, String> {
    match encoding {
        None => Ok(text.into_bytes()),
        Some("base64") => {
            let decoded = STANDARD.decode(&text);
            decoded.map_err(|error| format!("are no base64: {error}"))
        }
        Some(other) => Err(format!(
            "are encoded as {other:?}, and base64 alone is known"
        )),
    }
}
