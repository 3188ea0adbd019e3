//! The settings of tokens that somebody else signed, by Kafka's names.
//! Callers: the table of settings.

use std::time::Duration;

use super::config::{JwksSource, JwtConfig};
use crate::setting::{Kind, Setting, millis, number, text_of_millis};

/// All of them.
pub const SETTINGS: &[Setting<JwtConfig>] = &[
    Setting {
        name: "sasl.oauthbearer.clock.skew.seconds",
        kind: Kind::Int,
        default: "30",
        is_live: false,
        doc: "By how much the clocks of who signs tokens and of this machine may differ, in seconds; 0 to 600.",
        get: |it| it.skew.as_secs().to_string(),
        set: |it, value| {
            it.skew = Duration::from_secs(number(value, 0..=600)?);
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.expected.audience",
        kind: Kind::List,
        default: "",
        is_live: false,
        doc: "For whom tokens have to be (`aud`), one of these, with commas between them; empty for anybody, which \
              is warned of.",
        get: |it| it.audiences.join(","),
        set: |it, value| {
            it.audiences = names(value);
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.expected.issuer",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "Whose tokens have to be (`iss`), to the letter; empty for anybody's whose signature is good.",
        get: |it| it.issuer.clone().unwrap_or_default(),
        set: |it, value| {
            it.issuer = Some(value.to_owned()).filter(|it| !it.is_empty());
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.expected.scope",
        kind: Kind::List,
        default: "",
        is_live: false,
        doc: "What tokens have to be good for: all of these scopes, with commas between them. Kafka has no such \
              setting.",
        get: |it| it.scopes.join(","),
        set: |it, value| {
            it.scopes = names(value);
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.jwks.endpoint.refresh.ms",
        kind: Kind::Long,
        default: "3600000",
        is_live: false,
        doc: "How often the keys are asked for at an address, in milliseconds; 1000 or more. A token of a key that \
              is not known has them asked for sooner. A file is looked at every two seconds.",
        get: |it| text_of_millis(it.refresh),
        set: |it, value| {
            it.refresh = millis(value, 1000)?;
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms",
        kind: Kind::Long,
        default: "10000",
        is_live: false,
        doc: "The longest wait between two tries to get the keys, in milliseconds; 1 or more.",
        get: |it| text_of_millis(it.retry_max),
        set: |it, value| {
            it.retry_max = millis(value, 1)?;
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms",
        kind: Kind::Long,
        default: "100",
        is_live: false,
        doc: "The wait after a first try that failed, in milliseconds; it doubles with each. 1 or more.",
        get: |it| text_of_millis(it.retry),
        set: |it, value| {
            it.retry = millis(value, 1)?;
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.jwks.endpoint.url",
        kind: Kind::String,
        default: "",
        is_live: false,
        doc: "Where the public keys are that tokens are signed with, a JSON Web Key Set: `https://…`, \
              `file:///path`, or `http://` of this machine. It lets in who shows such a token, by OAUTHBEARER and \
              over HTTP. Empty takes no such token.",
        get: |it| it.jwks.as_ref().map(JwksSource::text).unwrap_or_default(),
        set: |it, value| {
            it.jwks = match value {
                "" => None,
                url => Some(JwksSource::parse(url)?),
            };
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.scope.claim.name",
        kind: Kind::String,
        default: "scope",
        is_live: false,
        doc: "In which claim of a token its scopes are, a text with spaces between them or a list; it has to be \
              there.",
        get: |it| it.scope_claim.clone(),
        set: |it, value| {
            it.scope_claim = claim(value)?;
            Ok(())
        },
    },
    Setting {
        name: "sasl.oauthbearer.sub.claim.name",
        kind: Kind::String,
        default: "sub",
        is_live: false,
        doc: "In which claim of a token the user's name is.",
        get: |it| it.sub_claim.clone(),
        set: |it, value| {
            it.sub_claim = claim(value)?;
            Ok(())
        },
    },
];

fn names(value: &str) -> Vec<String> {
    let names = value.split(',').map(str::trim);
    names
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect()
}

fn claim(value: &str) -> Result<String, String> {
    match value.trim() {
        "" => Err("must be the name of a claim".to_owned()),
        name => Ok(name.to_owned()),
    }
}
