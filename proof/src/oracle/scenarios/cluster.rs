//! Cluster: what a client asks before anything else.
//! Callers: `scenarios`.

use crate::oracle::pair::Pair;
use anyhow::Result;
use wire::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use wire::messages::api_versions::ApiVersionsRequest;
use wire::messages::describe_cluster::DescribeClusterRequest;
use wire::messages::describe_quorum::{
    DescribeQuorumRequest, RequestPartitionData, RequestTopicData,
};
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::sasl_authenticate::SaslAuthenticateRequest;
use wire::messages::sasl_handshake::SaslHandshakeRequest;

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    pair.scene = "what is offered".into();
    for (name, version) in [
        ("oracle", "1.0"),
        ("", ""),
        ("a b", "1"),
        ("a", "-1"),
        ("ok-1.a", "é"),
    ] {
        pair.ask_each(|_, _| ApiVersionsRequest {
            client_software_name: name.to_owned(),
            client_software_version: version.to_owned(),
        });
    }
    pair.scene = "the cluster".into();
    for endpoint_type in [1, 2, 0, 9] {
        for asked in [false, true] {
            pair.ask_each(|_, version| DescribeClusterRequest {
                include_cluster_authorized_operations: asked,
                endpoint_type: if version >= 1 { endpoint_type } else { 1 },
                include_fenced_brokers: asked && version >= 2,
            });
        }
    }
    pair.scene = "coordinators".into();
    for key in ["some-group", "", "a group, with spaces"] {
        for key_type in [0, 2, 9, -1] {
            pair.ask_each(|_, version| FindCoordinatorRequest {
                key: if version < 4 {
                    key.to_owned()
                } else {
                    String::new()
                },
                key_type: if version >= 1 { key_type } else { 0 },
                coordinator_keys: if version >= 4 {
                    vec![key.to_owned()]
                } else {
                    Vec::new()
                },
            });
        }
    }
    pair.ask_each(|_, version| FindCoordinatorRequest {
        coordinator_keys: match version >= 4 {
            true => vec!["a".into(), "b".into(), "a".into()],
            false => Vec::new(),
        },
        ..FindCoordinatorRequest::default()
    });
    pair.ask_each(|_, _| FindCoordinatorRequest::default());
    pair.scene = "the quorum".into();
    for (topic, partitions) in [
        ("__cluster_metadata", &[0][..]),
        ("__cluster_metadata", &[1]),
        ("__cluster_metadata", &[0, 0]),
        ("__cluster_metadata", &[0, 7]),
        ("__cluster_metadata", &[]),
        ("elsewhere", &[0]),
        ("", &[0]),
    ] {
        let topic = RequestTopicData {
            topic_name: topic.to_owned(),
            partitions: partitions
                .iter()
                .map(|&partition_index| RequestPartitionData { partition_index })
                .collect(),
        };
        pair.ask_each(|_, _| DescribeQuorumRequest {
            topics: vec![topic.clone()],
        });
        pair.ask_each(|_, _| DescribeQuorumRequest {
            topics: vec![topic.clone(), topic.clone()],
        });
    }
    pair.ask_each(|_, _| DescribeQuorumRequest::default());
    pair.scene = "directories that nobody has".into();
    for (topic, partitions) in [("nowhere", &[0][..]), ("nowhere", &[]), ("", &[-1, 0, 0])] {
        for path in ["/nowhere", "relative", ""] {
            let dir = AlterReplicaLogDir {
                path: path.to_owned(),
                topics: vec![AlterReplicaLogDirTopic {
                    name: topic.to_owned(),
                    partitions: partitions.to_vec(),
                }],
            };
            pair.ask_each(|_, _| AlterReplicaLogDirsRequest {
                dirs: vec![dir.clone()],
            });
        }
    }
    pair.ask_each(|_, _| AlterReplicaLogDirsRequest {
        dirs: vec![AlterReplicaLogDir {
            path: "/nowhere".to_owned(),
            topics: Vec::new(),
        }],
    });
    pair.ask_each(|_, _| AlterReplicaLogDirsRequest::default());
    pair.scene = "no mechanism".into();
    pair.ask_each(|_, _| SaslHandshakeRequest {
        mechanism: "PLAIN".into(),
    });
    pair.ask_each(|_, _| SaslAuthenticateRequest {
        auth_bytes: bytes::Bytes::from_static(b"\0user\0password"),
    });
    Ok(())
}
