//! Holds the keys that are in force, and renews them.
//! Callers: logins, which have tokens checked; `Broker::run`, which has the keys renewed for as long as it runs.
//! Invariants: a check never waits for the keys' source; a token of an unknown key has the source asked sooner, and no sooner than
//! [`ASKED_AGAIN_MIN`] after the last time, whoever shows how many.

use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::check::{Shown, Unfit, check};
use super::config::{JwksSource, JwtConfig};
pub use super::fetch::JwksError;
use super::fetch::{get, read};
use super::keys::Keys;
use crate::broker::on_blocking_pool;

/// How often a file is looked at.
pub(super) const FILE_LOOKED: Duration = Duration::from_secs(2);
/// The source is asked for a key that is not known no sooner than this after the last time.
const ASKED_AGAIN_MIN: Duration = Duration::from_secs(10);

/// Checks tokens.
pub struct Jwt {
    config: JwtConfig,
    keys: RwLock<Arc<Keys>>,
    missing: Notify,
}

/// What a file is known by.
type Version = Option<(SystemTime, u64)>;

impl Jwt {
    /// With the keys of a file, if it is one; those of an address come later. Blocks on the disk.
    pub(in crate::broker) fn open(config: &JwtConfig) -> Result<Jwt, JwksError> {
        let keys = match &config.jwks {
            Some(JwksSource::File(path)) => read(path)?,
            Some(JwksSource::Url { .. }) | None => Keys::default(),
        };
        Ok(Jwt {
            config: config.clone(),
            keys: RwLock::new(Arc::new(keys)),
            missing: Notify::new(),
        })
    }

    /// Whether any token is taken.
    pub(in crate::broker) fn is_on(&self) -> bool {
        self.config.jwks.is_some()
    }

    /// Checks a token.
    pub(in crate::broker) fn check(&self, token: &[u8], now_ms: i64) -> Result<Shown, Unfit> {
        let keys = self.keys();
        let shown = check(token, &keys, &self.config, now_ms);
        if shown == Err(Unfit::UnknownKey) {
            self.missing.notify_one();
        }
        shown
    }

    /// Renews the keys until `shutdown` turns true.
    pub(in crate::broker) async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let renewed = async {
            match &self.config.jwks {
                None => {}
                Some(JwksSource::File(path)) => self.watch(path).await,
                Some(source) => self.ask_again(source).await,
            }
        };
        tokio::select! {
            () = renewed => {}
            _ = shutdown.wait_for(|stops| *stops) => {}
        }
    }

    async fn watch(&self, path: &Path) {
        // The first look reads it again: it may have changed since the start.
        let mut known: Version = None;
        loop {
            let (owned, before) = (path.to_owned(), known);
            let looked = on_blocking_pool(move || {
                let found = version(&owned);
                let has_changed = found != before;
                (found, has_changed.then(|| read(&owned)))
            });
            let (found, keys) = looked.await;
            known = found;
            self.take(path.display().to_string(), keys);
            tokio::time::sleep(FILE_LOOKED).await;
        }
    }

    async fn ask_again(&self, source: &JwksSource) {
        let mut retry = self.config.retry;
        loop {
            let at = Instant::now();
            let keys = get(source).await;
            let is_good = keys.is_ok();
            self.take(source.text(), Some(keys));
            if !is_good {
                tokio::time::sleep(retry).await;
                retry = retry.saturating_mul(2).min(self.config.retry_max);
                continue;
            }
            retry = self.config.retry;
            tokio::select! {
                () = tokio::time::sleep(self.config.refresh) => {}
                () = self.missing.notified() => tokio::time::sleep_until(at + ASKED_AGAIN_MIN).await,
            }
        }
    }

    /// Puts keys in force; where there are none, those before stay.
    fn take(&self, from: String, keys: Option<Result<Keys, JwksError>>) {
        match keys {
            None => {}
            Some(Ok(keys)) => {
                let (before, count) = (self.keys().count(), keys.count());
                *self
                    .keys
                    .write()
                    .expect("nothing panics while it holds the keys") = Arc::new(keys);
                if before != count {
                    tracing::info!(from, count, "the keys of tokens were read");
                }
            }
            Some(Err(error)) => {
                let count = self.keys().count();
                tracing::warn!(%error, from, count, "the keys of tokens cannot be read: those before stay in force");
            }
        }
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.read();
        Arc::clone(&keys.expect("nothing panics while it holds the keys"))
    }
}

fn version(path: &Path) -> Version {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
