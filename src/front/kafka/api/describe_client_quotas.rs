//! DescribeClientQuotas (48): what clients may use, of the entities that fit a filter (KIP-546).

use std::collections::BTreeMap;

use model::quota::{self, Entity, Parts, Values};
use wire::messages::describe_client_quotas::{
    ComponentData, DescribeClientQuotasRequest, DescribeClientQuotasResponse, EntityData,
    EntryData, ValueData,
};

use super::Call;
use crate::broker::access::right;
use crate::front::kafka::errors::{Failure, Misuse};

/// What an entity's answer takes in memory, without its names.
const ENTRY_BYTES: usize = 512;

pub(super) async fn answer(
    request: DescribeClientQuotasRequest,
    call: Call,
) -> DescribeClientQuotasResponse {
    match entries(&request, &call).await {
        Ok(entries) => DescribeClientQuotasResponse {
            error_message: None,
            entries: Some(entries),
            ..DescribeClientQuotasResponse::default()
        },
        Err(failure) => DescribeClientQuotasResponse {
            error_code: failure.code(),
            error_message: Some(failure.to_string()),
            entries: None,
            ..DescribeClientQuotasResponse::default()
        },
    }
}

async fn entries(
    request: &DescribeClientQuotasRequest,
    call: &Call,
) -> Result<Vec<EntryData>, Failure> {
    let cluster = call.door.cluster(right::DescribeConfigs)?;
    let filter = Filter::of(&request.components, request.strict)?;
    let mut found = Vec::new();
    for (entity, values) in call.broker().quotas_set(&cluster) {
        let parts = entity.parts();
        if !filter.takes(&parts) {
            continue;
        }
        let names: usize = parts.values().flatten().map(String::len).sum();
        call.answer.hold(ENTRY_BYTES + 2 * names).await?;
        found.push(entry(&entity, &values));
    }
    Ok(found)
}

/// Which entities are wanted.
struct Filter {
    /// By type: the name, none for the default; or any of the type.
    wanted: BTreeMap<String, Option<Option<String>>>,
    /// Entities with other types too are not wanted.
    is_strict: bool,
}

impl Filter {
    fn of(components: &[ComponentData], is_strict: bool) -> Result<Filter, Misuse> {
        let mut wanted = BTreeMap::new();
        for component in components {
            let kind = component.entity_type.as_str();
            if kind.is_empty() {
                return Err(Misuse::QuotaFilter("an entity type is empty".into()));
            }
            if wanted.contains_key(kind) {
                let named = format!("entity type {kind} is named twice");
                return Err(Misuse::QuotaFilter(named));
            }
            if ![quota::USER, quota::CLIENT_ID, quota::IP].contains(&kind) {
                return Err(Misuse::UnknownQuotaEntity(kind.to_owned()));
            }
            let one = match (component.match_type, &component.r#match) {
                (0, Some(name)) => Some(Some(name.clone())),
                (1, None) => Some(None),
                (2, None) => None,
                (0, None) => return Err(Misuse::QuotaFilter("a name to match is missing".into())),
                (1 | 2, Some(_)) => {
                    return Err(Misuse::QuotaFilter(
                        "a name is matched by type 0 only".into(),
                    ));
                }
                (unknown, _) => {
                    let unknown = format!("unknown type of match {unknown}");
                    return Err(Misuse::QuotaFilter(unknown));
                }
            };
            wanted.insert(kind.to_owned(), one);
        }
        if wanted.len() > 1 && wanted.contains_key(quota::IP) {
            let both = "addresses have no users and client ids";
            return Err(Misuse::QuotaFilter(both.into()));
        }
        Ok(Filter { wanted, is_strict })
    }

    fn takes(&self, parts: &Parts) -> bool {
        let fits = |(kind, wanted): (&String, &Option<Option<String>>)| {
            let found = parts.get(kind);
            found.is_some_and(|name| wanted.as_ref().is_none_or(|wanted| wanted == name))
        };
        // As in Kafka, who strictly wants nothing gets nothing: every entity has a type.
        let has_no_others = !self.is_strict || parts.len() == self.wanted.len();
        has_no_others && self.wanted.iter().all(fits)
    }
}

fn entry(entity: &Entity, values: &Values) -> EntryData {
    let part = |(entity_type, entity_name)| EntityData {
        entity_type,
        entity_name,
    };
    EntryData {
        entity: entity.parts().into_iter().map(part).collect(),
        values: values
            .iter()
            .map(|(quota, value)| ValueData {
                key: quota.name().to_owned(),
                value: *value,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(kind: &str, match_type: i8, name: Option<&str>) -> ComponentData {
        ComponentData {
            entity_type: kind.to_owned(),
            match_type,
            r#match: name.map(str::to_owned),
        }
    }

    /// The parts of an entity: kinds with names, none for the default.
    type Parts = &'static [(&'static str, Option<&'static str>)];

    /// Which of some entities a filter takes.
    fn taken(components: &[ComponentData], is_strict: bool) -> String {
        let filter = Filter::of(components, is_strict).expect("a filter");
        let all: [(&str, Parts); 6] = [
            ("alice", &[("user", Some("alice"))]),
            ("others", &[("user", None)]),
            ("app", &[("client-id", Some("app"))]),
            (
                "alice+app",
                &[("user", Some("alice")), ("client-id", Some("app"))],
            ),
            ("others+app", &[("user", None), ("client-id", Some("app"))]),
            ("ip", &[("ip", Some("::1"))]),
        ];
        let fits = all.iter().filter(|(_, parts)| {
            let owned = |(kind, name): &(&str, Option<&str>)| {
                ((*kind).to_owned(), (*name).map(str::to_owned))
            };
            filter.takes(&parts.iter().map(owned).collect())
        });
        let names: Vec<&str> = fits.map(|(name, _)| *name).collect();
        names.join(" ")
    }

    #[test]
    fn filters_take_names_the_default_or_any_strictly_or_with_other_types() {
        let user = |kind, name| component("user", kind, name);
        let app = || component("client-id", 0, Some("app"));
        assert_eq!(
            taken(&[], false),
            "alice others app alice+app others+app ip"
        );
        assert_eq!(taken(&[], true), "");
        assert_eq!(taken(&[user(0, Some("alice"))], false), "alice alice+app");
        assert_eq!(taken(&[user(0, Some("alice"))], true), "alice");
        assert_eq!(taken(&[user(1, None)], false), "others others+app");
        assert_eq!(taken(&[user(2, None)], true), "alice others");
        assert_eq!(taken(&[user(2, None), app()], true), "alice+app others+app");
        assert_eq!(taken(&[app()], false), "app alice+app others+app");
        assert_eq!(taken(&[component("ip", 2, None)], true), "ip");
    }

    #[test]
    fn filters_that_say_nothing_are_refused() {
        let code = |components: &[ComponentData]| {
            let refused = Filter::of(components, false).err().expect("refused");
            refused.code()
        };
        for components in [
            vec![component("", 0, Some("x"))],
            vec![component("user", 0, None)],
            vec![component("user", 1, Some("x"))],
            vec![component("user", 2, Some("x"))],
            vec![component("user", 3, None)],
            vec![component("user", 1, None), component("user", 2, None)],
            vec![component("user", 1, None), component("ip", 1, None)],
        ] {
            assert_eq!(code(&components), 42, "{components:?}");
        }
        assert_eq!(code(&[component("group", 2, None)]), 35);
    }
}
