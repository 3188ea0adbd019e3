//! SaslHandshake (17): there is no mechanism to agree on.

use wire::messages::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::Call;
use crate::front::kafka::errors::Misuse;

pub(super) async fn answer(_request: SaslHandshakeRequest, _call: Call) -> SaslHandshakeResponse {
    SaslHandshakeResponse {
        error_code: Misuse::Sasl.code(),
        ..SaslHandshakeResponse::default()
    }
}
