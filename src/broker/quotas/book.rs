//! Book: the quotas that are set, as they are kept in the state log `quotas`, and why a change is refused.
//! Callers: `Quotas`, and `changes`, which alone changes it.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::quota::{Entity, InvalidQuota, Parts, QuotaRecord, UnknownQuotaRecord, Values};
use model::state_log::StateLogKind;

use crate::broker::Refusal;
use crate::broker::state_log::{Change, StateLogError, StateRecord};

/// Entities that may have quotas.
pub const ENTITIES_MAX: usize = 10_000;

/// The quotas that are set.
pub(super) type Book = BTreeMap<Entity, Values>;

/// What is to be changed of one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct Alteration {
    /// Whom it is about.
    pub parts: Parts,
    /// Quotas by name, each with its new value; none removes it.
    pub changes: Vec<(String, Option<f64>)>,
}

/// Why quotas are not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QuotaError {
    /// It cannot be.
    #[error(transparent)]
    Invalid(#[from] InvalidQuota),
    /// A quota is named twice.
    #[error("Duplicate quota key {0}: the entity's quotas are as they were")]
    QuotaNamedTwice(String),
    /// An entity is named twice.
    #[error("Duplicate entity: its quotas are as they were")]
    EntityNamedTwice,
    /// There are as many as there may be.
    #[error("{ENTITIES_MAX} entities have quotas, and no more may have")]
    TooMany,
    /// The store did not take it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why the quotas cannot be read at a start.
#[derive(Debug, thiserror::Error)]
pub enum QuotasError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] StateLogError),
    /// A record is not understood.
    #[error(transparent)]
    Unknown(#[from] UnknownQuotaRecord),
}

impl StateRecord for QuotaRecord {
    const LOG: StateLogKind = StateLogKind::Quotas;
    type Unknown = UnknownQuotaRecord;

    fn encode(&self) -> Change {
        (Bytes::from(self.key()), self.value().map(Bytes::from))
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<QuotaRecord, UnknownQuotaRecord> {
        QuotaRecord::decode(key, value)
    }
}
