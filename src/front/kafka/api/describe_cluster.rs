//! DescribeCluster (60): this broker, alone and its own controller.

use wire::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

use super::{Call, operations};
use crate::front::kafka::errors::Misuse;

/// Endpoints of brokers, as against controllers (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) async fn answer(request: DescribeClusterRequest, call: Call) -> DescribeClusterResponse {
    if call.version >= 1 && request.endpoint_type != BROKERS {
        let misuse = match request.endpoint_type {
            CONTROLLERS => Misuse::MismatchedEndpointType,
            _ => Misuse::UnsupportedEndpointType,
        };
        return DescribeClusterResponse {
            error_code: misuse.code(),
            error_message: Some(misuse.to_string()),
            ..DescribeClusterResponse::default()
        };
    }
    let config = call.broker().config();
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: call.broker().cluster_id(),
        controller_id: config.node_id,
        brokers: vec![DescribeClusterBroker {
            broker_id: config.node_id,
            host: call.endpoint.advertised_host.clone(),
            port: i32::from(call.endpoint.advertised_port),
            rack: config.rack.clone(),
            is_fenced: false,
        }],
        cluster_authorized_operations: operations::of_cluster(
            request.include_cluster_authorized_operations,
            &call.door,
        ),
        ..DescribeClusterResponse::default()
    }
}
