//! What operators see of this front, and how they end a client's connection.
//! Callers: the HTTP front, by way of `serve`.

use std::sync::Arc;

use super::state::Front;
use crate::front::Administered;

impl Front {
    /// See the module.
    pub fn administered(self: &Arc<Front>) -> Administered {
        let (listed, ended) = (Arc::clone(self), Arc::clone(self));
        Administered {
            clients: Box::new(move |count_max| listed.clients.list(count_max)),
            end: Box::new(move |client_id| ended.clients.end(client_id)),
        }
    }
}
