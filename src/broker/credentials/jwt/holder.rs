//! Holds the keys that are in force, and renews them.
//! Callers: logins, which have tokens checked; `Broker::run`, which has the keys renewed for as long as it runs.
//! Invariants: a check never waits for the keys' source; a token of an unknown key has the source asked sooner, and no sooner than
//! [`ASKED_AGAIN_MIN`] after the last time, whoever shows how many.

use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::check::{Shown, Unfit, check};
use super::config::{JwksSource, JwtConfig};
pub use super::fetch::JwksError;
use super::fetch::{get, read};
use super::keys::Keys;
use crate::broker::on_blocking_pool;
use crate::watched::{LOOK, Looked, Watched};

/// The source is asked for a key that is not known no sooner than this after the last time.
const ASKED_AGAIN_MIN: Duration = Duration::from_secs(10);

/// Checks tokens.
pub struct Jwt {
    config: JwtConfig,
    keys: RwLock<Arc<Keys>>,
    missing: Notify,
    /// The file that they are in, if it is one.
    file: Option<Arc<Mutex<Watched>>>,
    pub(super) asked_again_min: Duration,
}

impl Jwt {
    /// With the keys of a file, if it is one; those of an address come later. Blocks on the disk.
    pub(in crate::broker) fn open(config: &JwtConfig) -> Result<Jwt, JwksError> {
        let (file, keys) = match &config.jwks {
            Some(JwksSource::File(path)) => {
                let file = Watched::new([path.clone()]);
                (Some(Arc::new(Mutex::new(file))), read(path)?)
            }
            Some(JwksSource::Url { .. }) | None => (None, Keys::default()),
        };
        Ok(Jwt {
            file,
            asked_again_min: ASKED_AGAIN_MIN,
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
            match (&self.config.jwks, &self.file) {
                (Some(JwksSource::File(path)), Some(file)) => self.watch(path, file).await,
                (Some(source), _) => self.ask_again(source).await,
                (None, _) => {}
            }
        };
        tokio::select! {
            () = renewed => {}
            _ = shutdown.wait_for(|stops| *stops) => {}
        }
    }

    async fn watch(&self, path: &Path, file: &Arc<Mutex<Watched>>) {
        loop {
            let (owned, file) = (path.to_owned(), file.clone());
            let looked = on_blocking_pool(move || {
                let mut file = file.lock().expect("nothing panics while it looks");
                file.look(|| read(&owned))
            });
            let from = || path.display().to_string();
            match looked.await {
                Looked::Same => {}
                Looked::New(keys) => self.put(&from(), keys),
                Looked::Failed { error, is_news } if is_news => self.not_read(&from(), &error),
                Looked::Failed { .. } => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask_again(&self, source: &JwksSource) {
        let mut retry = self.config.retry;
        loop {
            let at = Instant::now();
            let keys = get(source).await;
            match keys {
                Ok(keys) => self.put(&source.text(), keys),
                Err(error) => {
                    self.not_read(&source.text(), &error);
                    tokio::time::sleep(retry).await;
                    retry = retry.saturating_mul(2).min(self.config.retry_max);
                    continue;
                }
            }
            retry = self.config.retry;
            tokio::select! {
                () = tokio::time::sleep(self.config.refresh) => {}
                () = self.missing.notified() => tokio::time::sleep_until(at + self.asked_again_min).await,
            }
        }
    }

    /// Puts keys in force.
    fn put(&self, from: &str, keys: Keys) {
        let (before, count) = (self.keys().count(), keys.count());
        *self
            .keys
            .write()
            .expect("nothing panics while it holds the keys") = Arc::new(keys);
        if before != count {
            tracing::info!(from, count, "the keys of tokens were read");
        }
    }

    /// Where there are none, those before stay in force.
    fn not_read(&self, from: &str, error: &JwksError) {
        let count = self.keys().count();
        tracing::warn!(%error, from, count, "the keys of tokens cannot be read: those before stay in force");
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.read();
        Arc::clone(&keys.expect("nothing panics while it holds the keys"))
    }
}
