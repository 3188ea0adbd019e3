//! SaslAuthenticate (36): carries the messages of the mechanism that SaslHandshake has chosen.

use wire::messages::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};

use super::Call;
use crate::front::kafka::errors;

pub(super) async fn answer(
    request: SaslAuthenticateRequest,
    call: Call,
) -> SaslAuthenticateResponse {
    let taken = call.login.take(call.broker(), &request.auth_bytes).await;
    match taken {
        Ok(answered) => {
            let session_ms = answered.session.map_or(0, |time| time.as_millis());
            SaslAuthenticateResponse {
                auth_bytes: answered.token,
                session_lifetime_ms: i64::try_from(session_ms).unwrap_or(i64::MAX),
                ..SaslAuthenticateResponse::default()
            }
        }
        Err(refused) => SaslAuthenticateResponse {
            error_code: errors::login(&refused),
            error_message: Some(refused.to_string()),
            ..SaslAuthenticateResponse::default()
        },
    }
}
