//! FindCoordinator: this broker coordinates every group. There are no transactions here to coordinate.

use std::collections::HashSet;

use wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

use super::Call;
use crate::broker::Refusal;
use crate::broker::access::right;
use crate::front::kafka::errors::{Failure, Misuse};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// The first version that asks for many keys at once.
const BATCHED: i16 = 4;

pub(super) async fn answer(request: FindCoordinatorRequest, call: Call) -> FindCoordinatorResponse {
    let refused: Option<Failure> = match request.key_type {
        GROUP => None,
        TRANSACTION => Some(Refusal::TransactionsUnsupported.into()),
        kind => Some(Misuse::UnknownCoordinatorType { kind }.into()),
    };
    let found = |key| coordinator(key, refused.as_ref(), &call);
    if call.version >= BATCHED {
        // One answer for all mentions of a key.
        let mut named = HashSet::new();
        let coordinators = request
            .coordinator_keys
            .into_iter()
            .filter(|key| named.insert(key.clone()))
            .map(found)
            .collect();
        return FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        };
    }
    let Coordinator {
        node_id,
        host,
        port,
        error_code,
        error_message,
        ..
    } = found(request.key);
    FindCoordinatorResponse {
        error_code,
        error_message,
        node_id,
        host,
        port,
        ..FindCoordinatorResponse::default()
    }
}

fn coordinator(key: String, refused: Option<&Failure>, call: &Call) -> Coordinator {
    let denied = call.door.group(&key, right::Describe).err();
    let denied = denied.map(Failure::from);
    if let Some(failure) = refused.or(denied.as_ref()) {
        return Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: failure.code(),
            error_message: Some(failure.to_string()),
            ..Coordinator::default()
        };
    }
    let config = call.broker().config();
    Coordinator {
        key,
        node_id: config.node_id,
        host: call.endpoint.advertised_host.clone(),
        port: call.endpoint.advertised_port.into(),
        ..Coordinator::default()
    }
}
