//! ApiVersions (18): what is offered. Answered from the table, in the order of keys.

use wire::ApiKey;
use wire::messages::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};

use super::call::{Call, Row};
use crate::front::kafka::errors::Misuse;

pub(super) async fn answer(request: ApiVersionsRequest, call: Call) -> ApiVersionsResponse {
    if call.version >= 3
        && !(is_software_word(&request.client_software_name)
            && is_software_word(&request.client_software_version))
    {
        return ApiVersionsResponse {
            error_code: Misuse::ClientSoftware.code(),
            ..ApiVersionsResponse::default()
        };
    }
    ApiVersionsResponse {
        api_keys: listed(call.offered, |_| true),
        ..ApiVersionsResponse::default()
    }
}

/// The answer to a version that is not offered, in version 0: which ones are.
pub(super) fn unsupported_version(offered: &[Row]) -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: Misuse::Version.code(),
        api_keys: listed(offered, |key| key == ApiKey::ApiVersions),
        ..ApiVersionsResponse::default()
    }
}

fn listed(offered: &[Row], wanted: impl Fn(ApiKey) -> bool) -> Vec<ApiVersion> {
    let mut rows: Vec<_> = offered.iter().filter(|row| wanted(row.key)).collect();
    rows.sort_by_key(|row| row.key.code());
    rows.iter()
        .map(|row| ApiVersion {
            api_key: row.key.code(),
            min_version: *row.listed.start(),
            max_version: *row.listed.end(),
        })
        .collect()
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?` (KIP-511).
fn is_software_word(word: &str) -> bool {
    let bytes = word.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    matches!((bytes.first(), bytes.last()), (Some(first), Some(last)) if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_words_are_those_of_kip_511() {
        for word in ["a", "librdkafka", "2.10.0", "apache-kafka-java", "A1"] {
            assert!(is_software_word(word), "{word:?}");
        }
        for word in ["", "-a", "a-", ".1", "1.", "a b", "ä", "a_b", "a\n"] {
            assert!(!is_software_word(word), "{word:?}");
        }
    }
}
