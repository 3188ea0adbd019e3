//! AlterClientQuotas (49): sets and removes what clients may use (KIP-546). Each entity for itself, answered when it is durable.

use model::quota::Parts;
use wire::messages::alter_client_quotas::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, RequestEntryData, ResponseEntityData,
    ResponseEntryData,
};

use super::Call;
use super::audit::{Change, some};
use crate::broker::access::right;
use crate::broker::audit::On;
use crate::broker::quotas::Alteration;
use crate::front::kafka::errors::{self, Failure};

pub(super) async fn answer(
    request: AlterClientQuotasRequest,
    call: Call,
) -> AlterClientQuotasResponse {
    let alterations: Vec<Alteration> = request.entries.into_iter().map(alteration).collect();
    let outcomes: Vec<(Parts, Option<Failure>)> = match call.door.cluster(right::AlterConfigs) {
        Ok(cluster) => {
            let altered = call
                .broker()
                .alter_quotas(&cluster, &alterations, request.validate_only);
            let outcome = |(parts, outcome): (Parts, Result<_, _>)| {
                (parts, outcome.err().map(Failure::Quota))
            };
            altered.await.into_iter().map(outcome).collect()
        }
        Err(refusal) => {
            let parts = alterations
                .iter()
                .map(|alteration| alteration.parts.clone());
            let refused = |parts| (parts, Some(Failure::from(refusal.clone())));
            parts.map(refused).collect()
        }
    };
    if !request.validate_only {
        for (parts, failure) in &outcomes {
            if failure.is_none() {
                log(parts, &alterations, &call);
            }
        }
    }
    AlterClientQuotasResponse {
        entries: outcomes.into_iter().map(entry).collect(),
        ..AlterClientQuotasResponse::default()
    }
}

/// As the wire has it; of a part that is named twice the last mention counts, as in Kafka.
fn alteration(entry: RequestEntryData) -> Alteration {
    let parts = entry.entity.into_iter();
    let changes = entry.ops.into_iter();
    Alteration {
        parts: parts
            .map(|part| (part.entity_type, part.entity_name))
            .collect(),
        changes: changes
            .map(|op| (op.key, (!op.remove).then_some(op.value)))
            .collect(),
    }
}

fn log(parts: &Parts, alterations: &[Alteration], call: &Call) {
    let of = alterations.iter().filter(|one| one.parts == *parts);
    let changes = of
        .flat_map(|one| &one.changes)
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => format!("{name} unset"),
        });
    let changes: Vec<String> = changes.collect();
    let shown = parts.iter().map(|(kind, name)| {
        let name = name.as_deref().unwrap_or("<default>");
        format!("{kind} {name}")
    });
    let resource: Vec<String> = shown.collect();
    call.changed(&Change::SettingsChanged {
        on: On::Quotas(&resource.join(", ")),
        changes: &some(changes.into_iter()),
    });
}

fn entry((parts, failure): (Parts, Option<Failure>)) -> ResponseEntryData {
    let part = |(entity_type, entity_name)| ResponseEntityData {
        entity_type,
        entity_name,
    };
    ResponseEntryData {
        error_code: failure.as_ref().map_or(errors::NONE, Failure::code),
        error_message: failure.map(|failure| failure.to_string()),
        entity: parts.into_iter().map(part).collect(),
    }
}
