//! InitProducerId (22): an id for an idempotent producer. Transactions are not offered.

use model::{ProducerEpoch, ProducerId};
use wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use super::Call;
use crate::broker::Refusal;
use crate::broker::access::right;
use crate::front::kafka::errors::{Failure, Misuse};

pub(super) async fn answer(request: InitProducerIdRequest, call: Call) -> InitProducerIdResponse {
    let result: Result<_, Failure> = match request.transactional_id.as_deref() {
        _ if (request.producer_id == -1) != (request.producer_epoch == -1) => {
            Err(Misuse::ProducerIdWithoutEpoch.into())
        }
        // Without a transactional id a known producer gets a new id too, whatever it sends (KIP-360).
        None => new_id(&call).await.map_err(Failure::from),
        Some("") => Err(Misuse::EmptyTransactionalId.into()),
        Some(_) => Err(Refusal::TransactionsUnsupported.into()),
    };
    match result {
        Ok((id, epoch)) => InitProducerIdResponse {
            producer_id: id.get(),
            producer_epoch: epoch.get(),
            ..InitProducerIdResponse::default()
        },
        Err(failure) => InitProducerIdResponse {
            error_code: failure.code(),
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }
}

async fn new_id(call: &Call) -> Result<(ProducerId, ProducerEpoch), Refusal> {
    let cluster = call.door.cluster(right::IdempotentWrite)?;
    call.broker()
        .new_producer_id(&cluster, call.door.owner())
        .await
}
