//! Gaps told in messages of their own: a subscription to `$replay/status`, for clients that have no user properties.
//! Callers: `outbound`, `resume` and `status_out`. Pure.

use super::history::STATUS;
use crate::broker::sessions::{KeptSubscription, Positions};

/// A subscription to it, and what its messages carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    pub(super) id: Option<u32>,
}

impl Status {
    /// As it is kept.
    pub(super) fn kept(self) -> KeptSubscription {
        KeptSubscription {
            filter: STATUS.into(),
            options: 0,
            id: self.id.unwrap_or(0),
            since: Positions::default(),
            retained: None,
        }
    }
}

/// What a message says: the topic, and the partition and offsets of each gap.
pub(super) fn told(topic: &str, gaps: &[String]) -> String {
    serde_json::json!({ "log-gap": gaps, "topic": topic }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_of_which_topic_and_which_offsets_there_is_nothing() {
        let gaps = ["3:17..42", "0:1..2"].map(str::to_owned);
        let said = told("mqtt", &gaps);
        assert_eq!(said, r#"{"log-gap":["3:17..42","0:1..2"],"topic":"mqtt"}"#);
    }
}
