//! IncrementalAlterConfigs (44): sets, deletes, appends and subtracts single settings (KIP-339).

use std::collections::HashMap;

use wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::audit::{Change, some};
use super::{Call, config_resource};
use crate::broker::access::right;
use crate::broker::{Alteration, Operation};
use crate::front::kafka::errors::{self, Failure, Misuse};

pub(super) async fn answer(
    request: IncrementalAlterConfigsRequest,
    call: Call,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let named = |one: &AlterConfigsResource| (one.resource_type, one.resource_name.clone());
    let mut times: HashMap<(i8, String), u32> = HashMap::new();
    for resource in &request.resources {
        *times.entry(named(resource)).or_default() += 1;
    }
    for resource in request.resources {
        // What is named twice is changed by neither mention, as in Kafka.
        let failure = match times[&named(&resource)] {
            1 => alter(&resource, request.validate_only, &call).await.err(),
            _ => Some(Misuse::ResourceNamedTwice.into()),
        };
        if failure.is_none() && !request.validate_only {
            let changes = resource.configs.iter().map(|config| {
                let value = config.value.as_deref().unwrap_or_default();
                let name = &config.name;
                match config.config_operation {
                    1 => format!("{name} unset"),
                    2 => format!("{name}+={value}"),
                    3 => format!("{name}-={value}"),
                    _ => format!("{name}={value}"),
                }
            });
            call.changed(&Change::SettingsChanged {
                on: config_resource::on(resource.resource_type, &resource.resource_name),
                changes: &some(changes),
            });
        }
        responses.push(AlterConfigsResourceResponse {
            error_code: failure.as_ref().map_or(errors::NONE, Failure::code),
            error_message: failure.map(|failure| failure.to_string()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        });
    }
    IncrementalAlterConfigsResponse {
        responses,
        ..IncrementalAlterConfigsResponse::default()
    }
}

async fn alter(
    wanted: &AlterConfigsResource,
    validate_only: bool,
    call: &Call,
) -> Result<(), Failure> {
    let resource = config_resource::resource(
        wanted.resource_type,
        &wanted.resource_name,
        right::AlterConfigs,
        &call.door,
    )?;
    let mut alterations = Vec::with_capacity(wanted.configs.len());
    for config in &wanted.configs {
        let name = config.name.clone();
        let value = || {
            let missing = || Misuse::SettingWithoutValue { name: name.clone() };
            config.value.clone().ok_or_else(missing)
        };
        let operation = match config.config_operation {
            0 => Operation::Set(value()?),
            1 => Operation::Delete,
            2 => Operation::Append(value()?),
            3 => Operation::Subtract(value()?),
            operation => return Err(Misuse::UnknownOperation { name, operation }.into()),
        };
        alterations.push(Alteration { name, operation });
    }
    let values = wanted.configs.iter();
    let values = values.map(|config| (config.name.as_str(), config.value.as_deref()));
    config_resource::check_dead_letters(wanted.resource_type, values, &call.door)?;
    let altered = call
        .broker()
        .alter_configs(&resource, alterations, validate_only);
    Ok(altered.await?)
}
