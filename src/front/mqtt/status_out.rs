//! Tells gaps to whoever subscribes to `$replay/status`.
//! Callers: `outbound` and `resume`. Invariants: a gap is told when it is found, before the messages behind it; such a message is sent with
//! QoS 0, and is not in the log.

use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;

use super::history::STATUS;
use super::outbound::Outbound;
use super::packet::{Delivery, Qos, publish};
use super::status::{Status, told};

impl Outbound {
    /// Has gaps told from now on.
    pub(super) fn begin_status(&mut self, id: Option<u32>) {
        if self.status.replace(Status { id }).is_none() {
            self.front.stats.subscriptions.fetch_add(1, Relaxed);
        }
    }

    /// No more; whether they were.
    pub(super) fn end_status(&mut self) -> bool {
        let was_there = self.status.take().is_some();
        if was_there {
            self.front.stats.subscriptions.fetch_sub(1, Relaxed);
        }
        was_there
    }

    /// Tells the gaps that were found.
    pub(super) fn fill_status(&mut self, out: &mut BytesMut) {
        let Some(Status { id }) = self.status else {
            return;
        };
        for at in 0..self.feeds.len() {
            while self.has_room(out) {
                let gaps = self.feeds[at].gaps(false);
                if gaps.is_empty() {
                    break;
                }
                self.feeds[at].told_gaps(gaps.len());
                let payload = told(&self.feeds[at].topic.name, &gaps);
                let delivery = Delivery {
                    topic: STATUS,
                    payload: payload.as_bytes(),
                    subscription_ids: id.into_iter().collect(),
                    ..Delivery::default()
                };
                // Who takes no packet of this length is not told.
                let sent = (Qos::AtMostOnce, 0);
                if publish(out, self.version, sent, &delivery, self.packet_bytes_max) {
                    self.front.stats.delivered(Qos::AtMostOnce);
                }
            }
        }
    }
}
