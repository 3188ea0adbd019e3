//! Apache Kafka to be measured beside: with the Java options of its own start script, which the broker that the oracle
//! compares with does not have, as it shall start fast. Caller: the case of its cleaner.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::compat;
use crate::compat::install::Places;
use crate::compat::peer::{self, Kind};
use crate::exam::probe::Probe;
use xtask::run;

const START_SECONDS_MAX: u64 = 60;
/// Those of `kafka-server-start.sh` and `kafka-run-class.sh`.
const JAVA: [&str; 7] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// A running Kafka. It is killed when this goes out of scope.
pub struct Kafka {
    child: Child,
    /// Its address.
    pub address: String,
    /// Its log directory.
    pub data: PathBuf,
}

impl Kafka {
    /// Starts it on an empty log directory, with these settings beside those that it needs.
    pub fn start(directory: &Path, settings: &[(&str, &str)]) -> Result<Kafka> {
        let Kind::Kafka {
            classpath,
            formatted,
        } = compat::kafka(&Places::find())?
        else {
            bail!("that is not Kafka");
        };
        let data = directory.join("kafka");
        fs::create_dir_all(&data)?;
        for entry in fs::read_dir(formatted)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), data.join(entry.file_name()))?;
            }
        }
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut text = peer::kafka_settings(&address, free_port()?, &data);
        for (key, value) in settings {
            text.push_str(&format!("{key}={value}\n"));
        }
        let properties = directory.join("server.properties");
        fs::write(&properties, text)?;
        let log = File::create(directory.join("kafka.log"))?;
        let child = java()
            .args(JAVA)
            .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
            .args([&classpath, "kafka.Kafka"])
            .arg(properties)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start Kafka")?;
        let mut kafka = Kafka {
            child,
            address,
            data,
        };
        kafka.wait_until_ready()?;
        Ok(kafka)
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// It listens before it takes requests: a topic that it creates shows that it does.
    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        let create = || Probe::connect(&self.address)?.create_topic("ready", 1, &[]);
        loop {
            match create() {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context("Kafka does not get ready"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "Kafka ended: {ended:?}");
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel ends it with us, also where nothing here could: its memory must not stay behind.
fn java() -> Command {
    let Some(setpriv) = run::on_path("setpriv") else {
        return Command::new("java");
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "java"]);
    command
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
