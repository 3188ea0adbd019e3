//! SaslAuthenticate (36): never follows a handshake that succeeded.

use wire::messages::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};

use super::Call;
use crate::front::kafka::errors::Misuse;

pub(super) async fn answer(
    _request: SaslAuthenticateRequest,
    _call: Call,
) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: Misuse::Sasl.code(),
        error_message: Some(Misuse::Sasl.to_string()),
        ..SaslAuthenticateResponse::default()
    }
}
