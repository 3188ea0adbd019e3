//! Messages that a session publishes with what is known of it: in one frame.
//! Callers: fronts.

use std::sync::Arc;

use model::Offset;
use storage::LogAppend;

use super::{HeldSession, SessionRecord};
use crate::broker::access::{Granted, right};
use crate::broker::catalog::Topic;
use crate::broker::publish::{Message, PublishRefusal, Publishing, Ready};
use crate::broker::retained::Retain;
use crate::broker::{Broker, state_refusal};

impl HeldSession {
    /// The record that an identifier is taken.
    pub fn received(&self, packet_id: u16) -> SessionRecord {
        SessionRecord::Received(self.own_key(), packet_id, true)
    }

    /// Publishes a message, keeps it if it is to be retained, and changes the session: all of it in one frame, or nothing.
    pub async fn publish(
        &self,
        topic: &Granted<Arc<Topic>, right::Write>,
        message: Message<'_>,
        retain: Option<Retain<'_>>,
        changes: Vec<SessionRecord>,
    ) -> Result<Publishing, PublishRefusal> {
        let broker: &Broker = &self.broker;
        let sessions = &broker.shared.sessions;
        let mut state = Vec::new();
        if !changes.is_empty() {
            let batches = sessions.log.batches(&changes).map_err(state_refusal)?;
            state.push(LogAppend {
                log: Arc::clone(sessions.log.log()),
                batches,
            });
        }
        let append = |ready: Ready| -> Result<(Publishing, Offset), PublishRefusal> {
            let mut book = sessions.book();
            let appended = ready.append(broker)?;
            changes.iter().for_each(|record| book.apply(record));
            Ok(appended)
        };
        match retain {
            Some(retain) => {
                let published = broker.publish_retained_with(topic, message, retain, state, append);
                published.await
            }
            None => {
                let ready = broker.ready_beside(topic, &message, state).await?;
                append(ready).map(|(publishing, _)| publishing)
            }
        }
    }
}
