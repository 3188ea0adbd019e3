//! FindCoordinator: this broker coordinates every group. There are no transactions here to coordinate.

use wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

use super::Call;
use crate::broker::Refusal;
use crate::front::kafka::errors::{self, Misuse};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// The first version that asks for many keys at once.
const BATCHED: i16 = 4;

pub(super) async fn answer(request: FindCoordinatorRequest, call: Call) -> FindCoordinatorResponse {
    let error_code = match request.key_type {
        GROUP => errors::NONE,
        TRANSACTION => errors::code(&Refusal::TransactionsUnsupported),
        _ => errors::misuse(Misuse::InvalidRequest),
    };
    let found = |key| coordinator(key, error_code, &call);
    if call.version >= BATCHED {
        let coordinators = request.coordinator_keys.into_iter().map(found).collect();
        return FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        };
    }
    let Coordinator {
        node_id,
        host,
        port,
        ..
    } = found(request.key);
    FindCoordinatorResponse {
        error_code,
        node_id,
        host,
        port,
        ..FindCoordinatorResponse::default()
    }
}

fn coordinator(key: String, error_code: i16, call: &Call) -> Coordinator {
    if error_code != errors::NONE {
        return Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code,
            ..Coordinator::default()
        };
    }
    let config = call.broker.config();
    Coordinator {
        key,
        node_id: config.node_id,
        host: config.advertised_host.clone(),
        port: config.advertised_port.into(),
        ..Coordinator::default()
    }
}
