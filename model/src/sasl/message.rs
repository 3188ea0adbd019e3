//! The messages of SCRAM: read without copying more than they hold, and written. Source: RFC 5802 §7.
//! Callers: both sides of the exchange; the fuzz target.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest nonce that is read: those of the clients that there are have 20 to 60 characters.
const NONCE_BYTES_MAX: usize = 256;

/// What is no message of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM message: {0}")]
pub struct Malformed(pub(super) &'static str);

/// The first message of a client: who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// The user's name.
    pub user: String,
    /// Whom it wants to be, if it says so.
    pub authorization: Option<String>,
    /// The client's half of the nonce.
    pub nonce: String,
    /// What it says beside.
    pub extensions: Vec<(char, String)>,
    /// The header of channel binding, up to the bare message.
    pub(super) header: String,
    /// The message without the header.
    pub(super) bare: String,
}

/// The first message of a server: how to make the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFirst {
    /// Both halves of the nonce.
    pub nonce: String,
    /// The user's salt.
    pub salt: Vec<u8>,
    /// How often to hash.
    pub iterations: u32,
}

/// The last message of a client: the proof.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientFinal {
    /// The header of channel binding, again.
    pub header: Vec<u8>,
    /// Both halves of the nonce.
    pub nonce: String,
    /// That it knows the password.
    pub proof: Vec<u8>,
    /// The message without the proof.
    pub(super) without_proof: String,
}

impl ClientFirst {
    /// Reads it.
    pub fn parse(bytes: &[u8]) -> Result<ClientFirst, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("not UTF-8"))?;
        let rest = text.strip_prefix("n,").or_else(|| text.strip_prefix("y,"));
        let rest = rest.ok_or(Malformed("channel binding is not offered"))?;
        let (authorization, bare) = rest.split_once(',').ok_or(Malformed("no header"))?;
        let authorization = match authorization {
            "" => None,
            given => {
                let name = given.strip_prefix("a=").ok_or(Malformed("no header"))?;
                Some(name_of(name)?)
            }
        };
        let header = text[..text.len() - bare.len()].to_owned();
        let mut fields = bare.split(',');
        let mut next = |head| {
            let field = fields.next().and_then(|field| field.strip_prefix(head));
            field.ok_or(Malformed("a field is missing"))
        };
        let user = name_of(next("n=")?)?;
        let nonce = nonce_of(next("r=")?)?;
        let extensions = fields.map(extension).collect::<Result<_, _>>()?;
        Ok(ClientFirst {
            user,
            authorization,
            nonce,
            extensions,
            header,
            bare: bare.to_owned(),
        })
    }
}

impl ServerFirst {
    /// Reads it.
    pub fn parse(bytes: &[u8]) -> Result<ServerFirst, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("not UTF-8"))?;
        let mut fields = text.split(',');
        let mut next = |head| {
            let field = fields.next().and_then(|field| field.strip_prefix(head));
            field.ok_or(Malformed("a field is missing"))
        };
        let nonce = nonce_of(next("r=")?)?;
        let salt = base64_of(next("s=")?)?;
        let iterations = next("i=")?;
        if !iterations.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(Malformed("a count of iterations is a number"));
        }
        let iterations = iterations
            .parse()
            .map_err(|_| Malformed("a count of iterations is a number"))?;
        Ok(ServerFirst {
            nonce,
            salt,
            iterations,
        })
    }

    /// Writes it.
    pub fn text(&self) -> String {
        let salt = STANDARD.encode(&self.salt);
        format!("r={},s={salt},i={}", self.nonce, self.iterations)
    }
}

impl ClientFinal {
    /// Reads it.
    pub fn parse(bytes: &[u8]) -> Result<ClientFinal, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("not UTF-8"))?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Malformed("no proof"))?;
        let proof = base64_of(proof)?;
        let mut fields = without_proof.split(',');
        let mut next = |head| {
            let field = fields.next().and_then(|field| field.strip_prefix(head));
            field.ok_or(Malformed("a field is missing"))
        };
        let header = base64_of(next("c=")?)?;
        let nonce = nonce_of(next("r=")?)?;
        for field in fields {
            extension(field)?;
        }
        Ok(ClientFinal {
            header,
            nonce,
            proof,
            without_proof: without_proof.to_owned(),
        })
    }
}

/// Bytes as the messages hold them.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn base64_of(text: &str) -> Result<Vec<u8>, Malformed> {
    STANDARD
        .decode(text)
        .map_err(|_| Malformed("a field is not base64"))
}

/// A name as the messages hold it: `,` and `=` stand for themselves nowhere.
pub(super) fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn name_of(text: &str) -> Result<String, Malformed> {
    let wrong = Malformed("a name is empty or badly escaped");
    let mut pieces = text.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (None, Some(rest)) => ('=', rest),
            (None, None) => return Err(wrong),
        };
        name.push(sign);
        name.push_str(rest);
    }
    match name.is_empty() || name.contains('\0') {
        true => Err(wrong),
        false => Ok(name),
    }
}

fn nonce_of(text: &str) -> Result<String, Malformed> {
    let is_printable = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    match is_printable && (1..=NONCE_BYTES_MAX).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(Malformed("a nonce has 1 to 256 printable characters")),
    }
}

fn extension(field: &str) -> Result<(char, String), Malformed> {
    let wrong = Malformed("a field without a name");
    let (name, value) = field.split_once('=').ok_or(wrong)?;
    let first = name.chars().next().filter(|_| !value.is_empty());
    match first {
        // Kafka's clients name theirs by whole words.
        Some(first) if name.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            Ok((first, format!("{name}={value}")))
        }
        _ => Err(wrong),
    }
}
