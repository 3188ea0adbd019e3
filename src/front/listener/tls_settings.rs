//! The settings of TLS: which files, which versions, whether clients show certificates.
//! Callers: the one table, through `front::Settings`; `tls`, which is made by them.

use std::path::PathBuf;

use super::principal::PrincipalRules;
use crate::setting::{Kind, Setting};

/// What encrypted listeners are started with.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// `ssl.keystore.location`: the server's certificate and those that lead to its authority, and its key.
    pub keystore: Option<PathBuf>,
    /// `ssl.key.location`: the key, if it stands in a file of its own.
    pub key: Option<PathBuf>,
    /// `ssl.truststore.location`: the authorities whose certificates clients may show.
    pub truststore: Option<PathBuf>,
    /// `ssl.client.auth`.
    pub client_auth: ClientAuth,
    /// `ssl.enabled.protocols`.
    pub versions: Versions,
    /// `ssl.principal.mapping.rules`.
    pub principal_rules: PrincipalRules,
}

impl Default for TlsSettings {
    fn default() -> TlsSettings {
        TlsSettings {
            keystore: None,
            key: None,
            truststore: None,
            client_auth: ClientAuth::None,
            versions: Versions {
                tls12: true,
                tls13: true,
            },
            principal_rules: PrincipalRules::default(),
        }
    }
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No.
    None,
    /// Yes, and they need not have one.
    Requested,
    /// Yes, and they must have one.
    Required,
}

impl ClientAuth {
    fn name(self) -> &'static str {
        match self {
            ClientAuth::None => "none",
            ClientAuth::Requested => "requested",
            ClientAuth::Required => "required",
        }
    }
}

/// Which versions are spoken; one at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

const TLS12: &str = "TLSv1.2";
const TLS13: &str = "TLSv1.3";

fn versions(text: &str) -> Result<Versions, String> {
    let mut versions = Versions {
        tls12: false,
        tls13: false,
    };
    for name in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        match name {
            TLS12 => versions.tls12 = true,
            TLS13 => versions.tls13 = true,
            _ => return Err(format!("{name} is not spoken: {TLS12} and {TLS13} are")),
        }
    }
    match versions.tls12 || versions.tls13 {
        true => Ok(versions),
        false => Err(format!("must be {TLS12}, {TLS13} or both")),
    }
}

fn versions_text(versions: Versions) -> String {
    let all = [(versions.tls12, TLS12), (versions.tls13, TLS13)];
    let spoken: Vec<&str> = all.iter().filter(|it| it.0).map(|it| it.1).collect();
    spoken.join(",")
}

fn path(value: &str) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(value))
}

fn path_text(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(String::new, |path| path.display().to_string())
}

fn only_pem(value: &str) -> Result<(), String> {
    match value {
        "PEM" => Ok(()),
        _ => Err(
            "must be PEM: `openssl pkcs12 -in FILE -nodes` makes it of a PKCS12 file".to_owned(),
        ),
    }
}

/// All of them, by name.
pub const SETTINGS: &[Setting<TlsSettings>] = &[
    Setting {
        name: "ssl.client.auth",
        kind: Kind::String,
        default: "none",
        is_live: false,
        doc: "Whether clients of encrypted listeners show a certificate, by which they are known: `none`; `requested`, with \
              which those that show none are anonymous; `required`. Their certificates are checked against \
              ssl.truststore.location.",
        get: |it| it.client_auth.name().to_owned(),
        set: |it, value| {
            let all = [
                ClientAuth::None,
                ClientAuth::Requested,
                ClientAuth::Required,
            ];
            let found = all.into_iter().find(|auth| auth.name() == value);
            it.client_auth = found.ok_or("must be none, requested or required")?;
            Ok(())
        },
    },
    Setting {
        name: "ssl.enabled.protocols",
        kind: Kind::List,
        default: "TLSv1.2,TLSv1.3",
        is_live: false,
        doc: "The versions of TLS that encrypted listeners speak: TLSv1.2, TLSv1.3 or both.",
        get: |it| versions_text(it.versions),
        set: |it, value| {
            it.versions = versions(value)?;
            Ok(())
        },
    },
    Setting {
        name: "ssl.key.location",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "A PEM file with the server's private key, if it does not stand in ssl.keystore.location. The key is not \
              encrypted, and nobody but the server's user, and a group for reading, may have access to its file.",
        get: |it| path_text(&it.key),
        set: |it, value| {
            it.key = path(value);
            Ok(())
        },
    },
    Setting {
        name: "ssl.keystore.location",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "A PEM file with the server's certificate, behind it those that lead to its authority, and the private key \
              unless ssl.key.location names it. Encrypted listeners need it. It is read again when it changes: new \
              connections get the new certificate, and none is closed; a file that cannot be used is logged, and the \
              last good one stays in use.",
        get: |it| path_text(&it.keystore),
        set: |it, value| {
            it.keystore = path(value);
            Ok(())
        },
    },
    Setting {
        name: "ssl.keystore.type",
        kind: Kind::String,
        default: "PEM",
        is_live: false,
        doc: "The form of ssl.keystore.location: PEM.",
        get: |_| "PEM".to_owned(),
        set: |_, value| only_pem(value),
    },
    Setting {
        name: "ssl.principal.mapping.rules",
        kind: Kind::String,
        default: "DEFAULT",
        is_live: false,
        doc: "How the subject of a client's certificate (RFC 2253, as in `CN=press4,O=Plant`) becomes its user's name: rules \
              with commas between them, of which the first that applies counts. DEFAULT takes the subject as it is. \
              `RULE:pattern/replacement/` applies if the pattern matches the whole subject, as in \
              `RULE:^CN=(.*?),.*$/$1/L`; L behind it makes the name lower-case, U upper-case. A connection to whose \
              subject no rule applies is closed.",
        get: |it| it.principal_rules.to_string(),
        set: |it, value| {
            it.principal_rules = PrincipalRules::parse(value)?;
            Ok(())
        },
    },
    Setting {
        name: "ssl.truststore.location",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "A PEM file with the certificates of the authorities whose certificates clients may show. It is wanted with \
              ssl.client.auth=requested and required, and read again when it changes.",
        get: |it| path_text(&it.truststore),
        set: |it, value| {
            it.truststore = path(value);
            Ok(())
        },
    },
    Setting {
        name: "ssl.truststore.type",
        kind: Kind::String,
        default: "PEM",
        is_live: false,
        doc: "The form of ssl.truststore.location: PEM.",
        get: |_| "PEM".to_owned(),
        set: |_, value| only_pem(value),
    },
];
