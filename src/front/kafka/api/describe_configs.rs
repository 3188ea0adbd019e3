//! DescribeConfigs (32): settings of topics and of the broker, with where each value comes from.

use std::collections::HashSet;

use wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};

use super::{Call, config_resource};
use crate::broker::access::right;
use crate::broker::{Entry, Synonym};
use crate::front::kafka::errors::{self, Failure};

pub(super) async fn answer(request: DescribeConfigsRequest, call: Call) -> DescribeConfigsResponse {
    let mut results = Vec::new();
    for resource in asked_once(request.resources) {
        let found = match entries(&resource, &call) {
            Ok(found) => {
                let held = call.answer.hold(found.iter().map(bytes_of).sum()).await;
                held.map(|()| found).map_err(Failure::from)
            }
            Err(failure) => Err(failure),
        };
        let (error_code, error_message) = match &found {
            Ok(_) => (errors::NONE, None),
            Err(failure) => (failure.code(), Some(failure.to_string())),
        };
        let described = |entry| {
            described(
                entry,
                request.include_synonyms,
                request.include_documentation,
            )
        };
        results.push(DescribeConfigsResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs: found
                .unwrap_or_default()
                .into_iter()
                .map(described)
                .collect(),
        });
    }
    DescribeConfigsResponse {
        results,
        ..DescribeConfigsResponse::default()
    }
}

/// Mentions of one resource that ask for the same are answered once; others each, as in Kafka.
fn asked_once(resources: Vec<DescribeConfigsResource>) -> Vec<DescribeConfigsResource> {
    let mut named = HashSet::new();
    let mut once = resources;
    once.retain(|one| {
        let mut keys = one.configuration_keys.clone().unwrap_or_default();
        keys.sort_unstable();
        named.insert((one.resource_type, one.resource_name.clone(), keys))
    });
    once
}

/// What a setting takes, in the answer and before it.
fn bytes_of(entry: &Entry) -> usize {
    let synonym = |synonym: &Synonym| 64 + 2 * (synonym.name.len() + synonym.value.len());
    256 + 2 * (entry.name.len() + entry.value.len() + entry.doc.len())
        + entry.synonyms.iter().map(synonym).sum::<usize>()
}

fn entries(wanted: &DescribeConfigsResource, call: &Call) -> Result<Vec<Entry>, Failure> {
    let resource = config_resource::resource(
        wanted.resource_type,
        &wanted.resource_name,
        right::DescribeConfigs,
        &call.door,
    )?;
    // Null and empty both ask for all (K: ConfigHelper).
    let names = wanted
        .configuration_keys
        .as_deref()
        .filter(|names| !names.is_empty());
    Ok(call.broker().describe_configs(&resource, names))
}

fn described(entry: Entry, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let synonym = |synonym: Synonym| DescribeConfigsSynonym {
        name: synonym.name,
        value: Some(synonym.value),
        source: config_resource::source(synonym.origin),
    };
    DescribeConfigsResourceResult {
        name: entry.name,
        value: Some(entry.value),
        read_only: entry.read_only,
        config_source: config_resource::source(entry.origin),
        is_sensitive: false,
        synonyms: if synonyms {
            entry.synonyms.into_iter().map(synonym).collect()
        } else {
            Vec::new()
        },
        config_type: entry.kind.wire(),
        documentation: documentation.then_some(entry.doc),
    }
}
