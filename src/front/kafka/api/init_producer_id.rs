//! InitProducerId (22): an id for an idempotent producer. Transactions are not offered.

use wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use super::Call;
use crate::broker::Refusal;
use crate::front::kafka::errors;

pub(super) async fn answer(request: InitProducerIdRequest, call: Call) -> InitProducerIdResponse {
    let result = match request.transactional_id.as_deref() {
        _ if (request.producer_id == -1) != (request.producer_epoch == -1) => {
            let reason = "a producer id and its epoch come together";
            Err(Refusal::InvalidRequest(reason.into()))
        }
        // Without a transactional id a known producer gets a new id too, whatever it sends (KIP-360).
        None => call.broker.new_producer_id().await,
        Some("") => Err(Refusal::InvalidRequest("an empty transactional id".into())),
        Some(_) => Err(Refusal::TransactionsUnsupported),
    };
    match result {
        Ok((id, epoch)) => InitProducerIdResponse {
            producer_id: id.get(),
            producer_epoch: epoch.get(),
            ..InitProducerIdResponse::default()
        },
        Err(refusal) => InitProducerIdResponse {
            error_code: errors::code(&refusal),
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }
}
