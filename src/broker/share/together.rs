//! Settlements that become durable with messages, in one frame: what a transaction consumed, and what it sent.
//! Callers: fronts whose protocols have transactions. All of it is stored or nothing, however many topics and groups it is about; nobody is
//! told before it is durable.

use super::ShareError;
use super::coordinator::{NotSettled, Settlement};
use crate::broker::publish::{OfTopic, PublishRefusal, Publishing, promised};
use crate::broker::{Broker, state_refusal};

/// Why nothing of it is stored.
#[derive(Debug, thiserror::Error)]
pub enum TogetherError {
    /// A message.
    #[error(transparent)]
    Publish(#[from] PublishRefusal),
    /// A settlement.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// It is more than one frame of the log takes.
    #[error("it is more than is written at once")]
    TooMuch,
}

impl Broker {
    /// Publishes messages and settles records together. Gives what becomes of all of it. Waits only while too much waits for the disk.
    pub async fn publish_and_settle(
        &self,
        outgoing: &[OfTopic<'_>],
        settlements: &[Settlement],
    ) -> Result<Publishing, TogetherError> {
        let across = self.encode_across(outgoing).await?;
        let appends = across.appends.clone();
        let settled = self
            .shares()
            .settle_together(self.storage(), settlements, appends);
        match settled.await {
            Ok(durable) => {
                across.appended();
                Ok(promised(async move {
                    let stored = durable.await;
                    stored.map_err(|error| PublishRefusal::from(state_refusal(error)))
                }))
            }
            Err(why) => {
                across.refused(self);
                Err(match why {
                    NotSettled::Share(error) => error.into(),
                    NotSettled::TooMuch => TogetherError::TooMuch,
                    NotSettled::Refused(error) => {
                        TogetherError::Publish(state_refusal(error).into())
                    }
                })
            }
        }
    }
}
