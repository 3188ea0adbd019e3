//! Stall: whether the disk stood still while a suite's tests ran. Their own deadlines are of a second and less, and a disk that many share
//! can take longer to sync; a broker that confirms before the sync, which those tests were written beside, does not show it.
//! Caller: `round`. It is judged by the broker's own histogram of syncs, so that a broker that is slow by itself is no reason.

use crate::compat::peer::Peer;
use crate::http::Http;
use anyhow::{Context, Result};

/// The longest sync of a disk that goes on, in seconds: a bound of the histogram's.
const SYNC_MAX: &str = "0.25";

/// Syncs of a broker's write-ahead log that took longer than [`SYNC_MAX`], or that are under way for as long.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct LongSyncs(u64);

impl LongSyncs {
    /// Those so far. Of a broker that tells nothing of its syncs there are none.
    pub fn of(peer: &Peer) -> Result<LongSyncs> {
        let Some(address) = peer.http() else {
            return Ok(LongSyncs::default());
        };
        LongSyncs::told(&Http::connect(address)?.get("/metrics")?)
    }

    fn told(page: &str) -> Result<LongSyncs> {
        let value = |name: &str| -> Result<f64> {
            let mut lines = page.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Ok(value
                .with_context(|| format!("/metrics has no {name}"))?
                .parse()?)
        };
        let all = value("alluvium_wal_sync_duration_seconds_count")?;
        let short = format!("alluvium_wal_sync_duration_seconds_bucket{{le=\"{SYNC_MAX}\"}}");
        let waiting = value("alluvium_append_oldest_unsynced_seconds")?;
        let under_way = u64::from(waiting > SYNC_MAX.parse()?);
        Ok(LongSyncs((all - value(&short)?) as u64 + under_way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(short: u32, all: u32, waiting: &str) -> String {
        format!(
            "# HELP a b\nalluvium_append_oldest_unsynced_seconds {waiting}\n\
             alluvium_wal_sync_duration_seconds_bucket{{le=\"0.25\"}} {short}\n\
             alluvium_wal_sync_duration_seconds_bucket{{le=\"+Inf\"}} {all}\n\
             alluvium_wal_sync_duration_seconds_count {all}\n"
        )
    }

    #[test]
    fn long_syncs_are_those_above_the_bound_and_the_one_under_way() {
        let told = |page: &str| LongSyncs::told(page).expect("a page");
        assert_eq!(told(&page(40, 40, "0")), LongSyncs(0));
        assert_eq!(told(&page(40, 40, "0.2")), LongSyncs(0));
        assert_eq!(told(&page(40, 40, "0.3")), LongSyncs(1));
        assert_eq!(told(&page(40, 42, "0")), LongSyncs(2));
        assert!(LongSyncs::told("alluvium_wal_syncs_total 1\n").is_err());
    }
}
