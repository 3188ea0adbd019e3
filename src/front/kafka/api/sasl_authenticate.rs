//! SaslAuthenticate (36): never follows a handshake that succeeded.

use wire::messages::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};

use super::Call;
use crate::front::kafka::errors::{self, Misuse};

pub(super) async fn answer(
    _request: SaslAuthenticateRequest,
    _call: Call,
) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: errors::misuse(Misuse::IllegalSaslState),
        error_message: Some("this listener does not authenticate".into()),
        ..SaslAuthenticateResponse::default()
    }
}
