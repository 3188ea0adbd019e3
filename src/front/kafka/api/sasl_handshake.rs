//! SaslHandshake (17): chooses the mechanism by which a connection logs in.

use wire::messages::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::Call;
use crate::front::kafka::errors;

pub(super) async fn answer(request: SaslHandshakeRequest, call: Call) -> SaslHandshakeResponse {
    let chosen = call.login.choose(&request.mechanism, call.version).await;
    SaslHandshakeResponse {
        error_code: chosen.map_or_else(|refused| errors::login(&refused), |()| errors::NONE),
        mechanisms: call.login.mechanisms(),
    }
}
