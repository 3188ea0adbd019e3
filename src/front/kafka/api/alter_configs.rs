//! AlterConfigs (33): replaces all settings of a resource.

use std::collections::{BTreeMap, HashMap};

use wire::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};

use super::audit::{Change, some};
use super::{Call, config_resource};
use crate::broker::access::right;
use crate::front::kafka::errors::{self, Failure, Misuse};

pub(super) async fn answer(request: AlterConfigsRequest, call: Call) -> AlterConfigsResponse {
    let mut times: HashMap<(i8, String), u32> = HashMap::new();
    let named = |one: &AlterConfigsResource| (one.resource_type, one.resource_name.clone());
    for resource in &request.resources {
        *times.entry(named(resource)).or_default() += 1;
    }
    let mut responses = Vec::new();
    for resource in request.resources {
        // What is named twice is changed by neither mention, and answered once.
        let failure = match times.remove(&named(&resource)) {
            None => continue,
            Some(1) => replace(&resource, request.validate_only, &call).await.err(),
            Some(_) => Some(Misuse::ResourceNamedTwice.into()),
        };
        if failure.is_none() && !request.validate_only {
            let set = resource.configs.iter().map(|config| {
                let value = config.value.as_deref().unwrap_or_default();
                format!("{}={value}", config.name)
            });
            call.changed(&Change::SettingsReplaced {
                on: config_resource::on(resource.resource_type, &resource.resource_name),
                settings: &some(set),
            });
        }
        responses.push(AlterConfigsResourceResponse {
            error_code: failure.as_ref().map_or(errors::NONE, Failure::code),
            error_message: failure.map(|failure| failure.to_string()),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
        });
    }
    AlterConfigsResponse {
        responses,
        ..AlterConfigsResponse::default()
    }
}

async fn replace(
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
    let mut settings = BTreeMap::new();
    for config in &wanted.configs {
        let name = config.name.clone();
        let Some(value) = config.value.clone() else {
            return Err(Misuse::SettingWithoutValue { name }.into());
        };
        if settings.insert(name.clone(), value).is_some() {
            return Err(Misuse::SettingAlteredTwice { name }.into());
        }
    }
    let values = settings.iter();
    let values = values.map(|(name, value)| (name.as_str(), Some(value.as_str())));
    config_resource::check_dead_letters(wanted.resource_type, values, &call.door)?;
    let replaced = call
        .broker()
        .replace_configs(&resource, settings, validate_only);
    Ok(replaced.await?)
}
