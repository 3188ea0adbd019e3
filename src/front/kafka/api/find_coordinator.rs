//! FindCoordinator: this broker coordinates every group. There are no transactions here to coordinate.

use std::collections::HashSet;

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
    let refused = match request.key_type {
        GROUP => None,
        TRANSACTION => {
            let refusal = Refusal::TransactionsUnsupported;
            Some((errors::code(&refusal), refusal.to_string()))
        }
        other => Some((
            errors::misuse(Misuse::InvalidRequest),
            format!("there are no coordinators of type {other}"),
        )),
    };
    let found = |key| coordinator(key, refused.clone(), &call);
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

fn coordinator(key: String, refused: Option<(i16, String)>, call: &Call) -> Coordinator {
    if let Some((error_code, reason)) = refused {
        return Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code,
            error_message: Some(reason),
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
