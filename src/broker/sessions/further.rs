//! Has kept sessions go on in further topics: what they subscribe to may be in others than when they were kept.
//! Callers: fronts, before they serve anybody.

use std::sync::Arc;

use super::record::{Cursor, KeptSession, SessionKey, SessionRecord};
use super::{LOOKED_AT_ONCE, SessionRefusal};
use crate::broker::Broker;
use crate::broker::state_log::{StateRecord as _, change_bytes};

impl Broker {
    /// Looks at each session that is kept: what its client subscribes to, and its place.
    pub fn look_at_sessions(&self, mut look: impl FnMut(&KeptSession, &Cursor)) {
        let book = self.shared.sessions.book();
        for entry in book.entries.values() {
            if let Some(session) = &entry.state.session {
                look(session, &entry.state.cursor);
            }
        }
    }

    /// Changes sessions that nobody holds: `change` says how each goes on, or nothing where it stays as it is. Since when nobody has been
    /// connected stays as it was. Durable when it returns; gives how many were changed.
    pub async fn change_sessions(
        &self,
        change: impl Fn(&KeptSession, &Cursor) -> Option<(KeptSession, Cursor)>,
    ) -> Result<usize, SessionRefusal> {
        let keys: Vec<Arc<SessionKey>> = {
            let book = self.shared.sessions.book();
            let changes = book.entries.iter().filter(|(_, entry)| {
                let session = entry.state.session.as_ref();
                session.is_some_and(|it| change(it, &entry.state.cursor).is_some())
            });
            changes.map(|(key, _)| key.clone()).collect()
        };
        let mut count = 0;
        for some in keys.chunks(LOOKED_AT_ONCE) {
            count += self.change_some(some, &change).await?;
        }
        Ok(count)
    }

    async fn change_some(
        &self,
        keys: &[Arc<SessionKey>],
        change: &impl Fn(&KeptSession, &Cursor) -> Option<(KeptSession, Cursor)>,
    ) -> Result<usize, SessionRefusal> {
        let sessions = &self.shared.sessions;
        let held = { keys.iter() }.filter_map(|key| self.try_hold_session(key.clone()));
        let held: Vec<_> = held.collect();
        let (mut records, mut cut) = (Vec::new(), Vec::new());
        for one in &held {
            let state = one.state();
            let Some(session) = &state.session else {
                continue;
            };
            let Some((session, cursor)) = change(session, &state.cursor) else {
                continue;
            };
            let key = one.key();
            if state.was_cut {
                cut.push(SessionKey::clone(key));
            }
            let cursor = Cursor {
                keeps_up: false,
                ..cursor
            };
            records.push(SessionRecord::Cursor(key.clone(), Some(Arc::new(cursor))));
            records.push(SessionRecord::Session(key.clone(), Some(Arc::new(session))));
        }
        let count = records.len() / 2;
        while !records.is_empty() {
            let bytes = records.iter().map(|it| change_bytes(&it.encode()));
            let later = records.split_off(sessions.log.count_for_one_append(bytes));
            sessions.append(&records).await?;
            records = later;
            // Their clients have not come back since.
            let mut book = sessions.book();
            for key in &cut {
                if let Some(entry) = book.entries.get_mut(key) {
                    entry.state.was_cut = true;
                }
            }
        }
        Ok(count)
    }
}
