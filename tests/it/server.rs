//! A broker in this process, on a port of its own, over a store in a temporary directory.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use alluvium::broker::Broker;
use alluvium::broker::config::{BrokerConfig, GroupConfig};
use alluvium::config::{Config, Sources};
use alluvium::front::kafka;
use alluvium::front::listener::Socket;
use storage::{Env, LiveSettings, Storage, StorageConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

const WAL_FILE_BYTES: u64 = 1 << 20;

pub struct Server {
    pub address: SocketAddr,
    pub broker: Broker,
    dir: Option<TempDir>,
    stop: watch::Sender<bool>,
    storage: Storage,
}

impl Server {
    pub async fn start() -> Server {
        Server::with_wal_files_of(WAL_FILE_BYTES).await
    }

    /// Half of such a file is the largest batch.
    pub async fn with_wal_files_of(wal_file_bytes: u64) -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Server::over(dir, wal_file_bytes).await
    }

    /// What a killed process leaves, opened anew: the files as they are now, copied while the old broker still runs.
    pub async fn cut(self) -> Server {
        let copy = moment_of(self.dir.as_ref().expect("until dropped").path());
        Server::over(copy, WAL_FILE_BYTES).await
    }

    async fn over(dir: TempDir, wal_file_bytes: u64) -> Server {
        let mut config = StorageConfig::new(dir.path());
        config.wal_file_bytes = wal_file_bytes;
        config.wal_files_min = 2;
        let (storage, _) = Storage::recover(config, Env::real()).expect("a store");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let groups = GroupConfig {
            initial_rebalance_delay: Duration::ZERO,
            ..GroupConfig::default()
        };
        let config = BrokerConfig {
            advertised_port: address.port(),
            data_dir: dir.path().into(),
            groups,
            ..BrokerConfig::default()
        };
        let settings = Config::load(&Sources::default()).expect("the defaults");
        let places = kafka::places(settings.kafka.limits);
        let server_settings = settings.server_settings({
            let (storage, places) = (storage.clone(), places.clone());
            move |changed| {
                storage.set_live(LiveSettings::from(&changed.storage));
                places.limit(changed.kafka.limits);
            }
        });
        let broker = Broker::open(
            config,
            server_settings,
            kafka::subscribed_topics,
            storage.clone(),
        )
        .expect("a readable store");
        let (stop, shutdown) = watch::channel(false);
        let running = (broker.clone(), shutdown.clone());
        tokio::spawn(async move { running.0.run(running.1).await });
        let front = kafka::Front::new(broker.clone(), settings.front, settings.kafka, places);
        let socket = Socket::plain(listener).expect("it is bound");
        tokio::spawn(front.serve(vec![socket], shutdown));
        Server {
            address,
            broker,
            dir: Some(dir),
            stop,
            storage,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.storage.shutdown();
        self.dir.take();
    }
}

/// A copy of a store that is in use. A kill leaves the files of one moment, and a copy takes longer: what a checkpoint names stays as
/// it is until the next one, so that a copy with no checkpoint in between is what a kill could have left.
fn moment_of(store: &Path) -> TempDir {
    let checkpoints =
        || ["A", "B"].map(|slot| std::fs::read(store.join("checkpoint").join(slot)).ok());
    loop {
        let before = checkpoints();
        let copy = tempfile::tempdir().expect("a temporary directory");
        match copy_all(store, copy.path()) {
            Ok(()) if checkpoints() == before => return copy,
            // A file went away meanwhile.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("a copy: {error}"),
            _ => {}
        }
    }
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy_all(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
