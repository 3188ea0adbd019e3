//! Changes of quotas.
//! Callers: fronts, by way of [`Broker::alter_quotas`] and [`Broker::quotas_set`].
//! Invariants: a change is in force when it is durable, and not before; an entity that a request names twice is changed by neither
//! mention.

use std::collections::BTreeMap;

use model::quota::{Entity, Parts, Quota, QuotaRecord, Values};
use storage::Purpose;

use super::Quotas;
use super::book::{Alteration, Book, ENTITIES_MAX, QuotaError};
use crate::broker::access::{Cluster, Granted, right};
use crate::broker::{Broker, state_refusal};

impl Broker {
    /// What clients may use.
    pub fn quotas(&self) -> &Quotas {
        &self.shared.quotas
    }

    /// Changes quotas, each entity for itself; or only says what would come of it. One result for each entity, in the order in
    /// which they are named first. What is changed is durable and in force when this returns.
    pub async fn alter_quotas(
        &self,
        _cluster: &Granted<Cluster, right::AlterConfigs>,
        alterations: &[Alteration],
        validate_only: bool,
    ) -> Vec<(Parts, Result<(), QuotaError>)> {
        let quotas = &self.shared.quotas;
        let _change = quotas.changes.lock().await;
        let mut outcomes = plan(&quotas.book(), alterations);
        if !validate_only {
            let mut changed: Vec<QuotaRecord> = Vec::new();
            for (_, planned) in &outcomes {
                changed.extend(planned.iter().flatten().cloned());
            }
            let written = quotas.log.write_each(changed.iter(), Purpose::State).await;
            let mut written = written.into_iter();
            let mut durable = Vec::new();
            for (_, planned) in &mut outcomes {
                let Ok(Some(record)) = planned else { continue };
                match written.next().expect("one result for each record") {
                    Ok(()) => durable.push(record.clone()),
                    Err(error) => *planned = Err(state_refusal(error).into()),
                }
            }
            quotas.put_in_force(durable);
        }
        let outcome = |(parts, planned): (Parts, Result<_, QuotaError>)| (parts, planned.map(drop));
        outcomes.into_iter().map(outcome).collect()
    }

    /// All quotas that are set.
    pub fn quotas_set(
        &self,
        _cluster: &Granted<Cluster, right::DescribeConfigs>,
    ) -> Vec<(Entity, Values)> {
        let book = self.shared.quotas.book();
        let entries = book.iter();
        entries
            .map(|(entity, values)| (entity.clone(), values.clone()))
            .collect()
    }
}

impl Quotas {
    fn put_in_force(&self, records: Vec<QuotaRecord>) {
        if records.is_empty() {
            return;
        }
        let mut book = self.book.write();
        let book = book
            .as_mut()
            .expect("nothing panics while it holds the book");
        for QuotaRecord { entity, values } in records {
            match values.is_empty() {
                true => drop(book.remove(&entity)),
                false => drop(book.insert(entity, values)),
            }
        }
        self.heed(book);
    }
}

type Planned = Result<Option<QuotaRecord>, QuotaError>;

/// What becomes of each entity: its record, if anything changes.
fn plan(book: &Book, alterations: &[Alteration]) -> Vec<(Parts, Planned)> {
    let mut times: BTreeMap<&Parts, u32> = BTreeMap::new();
    for alteration in alterations {
        *times.entry(&alteration.parts).or_default() += 1;
    }
    let mut planned: Vec<(Parts, Planned)> = Vec::new();
    let mut count = book.len();
    for alteration in alterations {
        let outcome = match times.get_mut(&alteration.parts) {
            Some(1) => altered(book, alteration, &mut count),
            Some(0) | None => continue,
            Some(times) => {
                // Told once.
                *times = 0;
                Err(QuotaError::EntityNamedTwice)
            }
        };
        planned.push((alteration.parts.clone(), outcome));
    }
    planned
}

fn altered(book: &Book, alteration: &Alteration, count: &mut usize) -> Planned {
    let entity = Entity::of_parts(&alteration.parts)?;
    let before = book.get(&entity);
    let mut values = before.cloned().unwrap_or_default();
    let mut named: Vec<&str> = Vec::new();
    for (name, value) in &alteration.changes {
        if named.contains(&name.as_str()) {
            return Err(QuotaError::QuotaNamedTwice(name.clone()));
        }
        named.push(name);
        match value {
            Some(value) => {
                let quota = entity.quota(name)?;
                quota.check(*value)?;
                values.insert(quota, *value);
            }
            // What there is not is removed already, whatever it is.
            None => drop(Quota::of_name(name).map(|quota| values.remove(&quota))),
        }
    }
    if before.unwrap_or(&Values::new()) == &values {
        return Ok(None);
    }
    match (before.is_some(), values.is_empty()) {
        (false, _) if *count >= ENTITIES_MAX => return Err(QuotaError::TooMany),
        (false, _) => *count += 1,
        (true, true) => *count -= 1,
        (true, false) => {}
    }
    Ok(Some(QuotaRecord { entity, values }))
}

#[cfg(test)]
mod tests {
    use model::quota::Named;

    use super::*;

    fn of_user(name: &str, changes: &[(&str, Option<f64>)]) -> Alteration {
        let owned = |(name, value): &(&str, Option<f64>)| ((*name).to_owned(), *value);
        Alteration {
            parts: Parts::from([("user".to_owned(), Some(name.to_owned()))]),
            changes: changes.iter().map(owned).collect(),
        }
    }

    fn user(name: &str) -> Entity {
        Entity::User(Named::Name(name.to_owned()))
    }

    #[test]
    fn changes_are_of_one_entity_each_and_what_is_named_twice_stays() {
        let rate = Quota::ProducerByteRate;
        let book = Book::from([
            (user("a"), Values::from([(rate, 5.0)])),
            (user("b"), Values::from([(rate, 5.0)])),
        ]);
        let planned = plan(
            &book,
            &[
                of_user("a", &[("producer_byte_rate", None)]),
                of_user("b", &[("producer_byte_rate", Some(5.0)), ("nothing", None)]),
                of_user("c", &[("request_percentage", Some(1.5))]),
                of_user("d", &[("request_percentage", Some(1.0))]),
                of_user("d", &[]),
                of_user(
                    "e",
                    &[("producer_byte_rate", Some(1.0)), ("nothing", Some(1.0))],
                ),
                of_user(
                    "f",
                    &[
                        ("producer_byte_rate", Some(1.0)),
                        ("producer_byte_rate", None),
                    ],
                ),
            ],
        );
        let shown: Vec<String> = planned
            .into_iter()
            .map(|(parts, outcome)| {
                let name = parts["user"].clone().expect("a name");
                match outcome {
                    Ok(None) => format!("{name}: as it was"),
                    Ok(Some(record)) => format!("{name}: {:?}", record.values),
                    Err(error) => format!("{name}: {error}"),
                }
            })
            .collect();
        assert_eq!(
            shown,
            [
                "a: {}",
                "b: as it was",
                "c: {RequestPercentage: 1.5}",
                "d: Duplicate entity: its quotas are as they were",
                "e: Invalid configuration key nothing",
                "f: Duplicate quota key producer_byte_rate: the entity's quotas are as they were",
            ]
        );
    }

    #[test]
    fn no_more_entities_have_quotas_than_may() {
        let values = Values::from([(Quota::ProducerByteRate, 5.0)]);
        let book: Book = (0..ENTITIES_MAX - 1)
            .map(|index| (user(&index.to_string()), values.clone()))
            .collect();
        let more = [Some(1.0), Some(2.0)].map(|value| {
            let name = format!("new{value:?}");
            of_user(&name, &[("producer_byte_rate", value)])
        });
        let planned = plan(&book, &more);
        assert!(planned[0].1.is_ok());
        assert!(matches!(planned[1].1, Err(QuotaError::TooMany)));
        // One that goes makes room.
        let goes = of_user("0", &[("producer_byte_rate", None)]);
        let [first, second] = more;
        let planned = plan(&book, &[goes, first, second]);
        assert!(planned.iter().all(|(_, outcome)| outcome.is_ok()));
    }
}
