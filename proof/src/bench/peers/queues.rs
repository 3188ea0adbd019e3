//! Brokers that have queues and speak AMQP 1.0.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Peer, bound, free_address};
use crate::bench::amqp::client::Client;
use crate::bench::broker;
use crate::compat::install::{self, Places};
use xtask::run;

const ARTEMIS: &str = "2.40.0";

/// Artemis as its own command makes an instance: its journal is synced, by Java's files, and waits as long for others as that
/// command has found to be good for this disk.
pub fn artemis(directory: &Path) -> Result<Peer> {
    let home = artemis_home(&Places::find()).context("Artemis, a peer")?;
    let instance = directory.join("artemis");
    let address = free_address()?;
    let (_, port) = address.rsplit_once(':').context("a port")?;
    let mut create = Command::new(home.join("bin/artemis"));
    create
        .arg("create")
        .arg(&instance)
        .args(["--silent", "--user", "bench", "--password", "bench"])
        .args([
            "--allow-anonymous",
            "--nio",
            "--no-web",
            "--host",
            "127.0.0.1",
        ])
        .args(["--no-amqp-acceptor", "--no-mqtt-acceptor"])
        .args(["--no-stomp-acceptor", "--no-hornetq-acceptor"])
        .args(["--default-port", port]);
    run::quiet(&mut create)?;
    let file = instance.join("etc/broker.xml");
    let settings = fs::read_to_string(&file)?;
    ensure!(
        settings.contains("<journal-datasync>true</journal-datasync>"),
        "the journal of Artemis is not synced"
    );
    // It would let nobody send on a disk that others have filled by nine tenths.
    let (full, any) = (
        "<max-disk-usage>90</max-disk-usage>",
        "<max-disk-usage>-1</max-disk-usage>",
    );
    ensure!(settings.contains(full), "no {full} in {}", file.display());
    fs::write(&file, settings.replace(full, any))?;
    let mut command = bound(&instance.join("bin/artemis"));
    command.arg("run");
    Peer::start(command, &instance, address)?.ready_for(lets_in)
}

/// The folder of the release, out of Maven's repository.
fn artemis_home(places: &Places) -> Result<PathBuf> {
    let home = places.cache.join(format!("apache-artemis-{ARTEMIS}"));
    let stamp = home.join("stamp");
    if stamp.exists() {
        return Ok(home);
    }
    install::need("javac", "default-jdk-headless")?;
    install::need("mvn", "maven")?;
    fs::create_dir_all(&places.cache)?;
    let artifact = format!("org.apache.activemq:apache-artemis:{ARTEMIS}:zip:bin");
    let mut copy = Command::new("mvn");
    copy.args(["-q", "-B", "dependency:copy"])
        .arg(format!("-Dartifact={artifact}"))
        .arg(format!("-DoutputDirectory={}", places.cache.display()));
    run::quiet(&mut copy).context("Maven needs the network, or a filled ~/.m2")?;
    let archive = places
        .cache
        .join(format!("apache-artemis-{ARTEMIS}-bin.zip"));
    let mut unpack = Command::new("jar");
    unpack.current_dir(&places.cache).arg("xf").arg(&archive);
    run::quiet(&mut unpack)?;
    let mut runs = Command::new("chmod");
    runs.arg("+x").arg(home.join("bin/artemis"));
    run::quiet(&mut runs)?;
    fs::remove_file(archive)?;
    fs::write(stamp, artifact)?;
    Ok(home)
}

/// Debian's RabbitMQ with its plugin for AMQP 1.0.
pub fn rabbitmq(directory: &Path) -> Result<Peer> {
    const PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
    install::need_file(Path::new(PROGRAM), "rabbitmq-server").context("RabbitMQ, a peer")?;
    let data = directory.join("rabbitmq");
    fs::create_dir_all(&data)?;
    let (address, own) = (free_address()?, free_address()?);
    let (_, port) = address.rsplit_once(':').context("a port")?;
    let (_, own_port) = own.rsplit_once(':').context("a port")?;
    fs::write(data.join("plugins"), "[rabbitmq_amqp1_0].\n")?;
    // Names of nodes are known to a process of Erlang's own, which would be started, and stay.
    let names = free_address()?;
    let (_, names_port) = names.rsplit_once(':').context("a port")?;
    let mut epmd = bound(&run::on_path("epmd").context("there is no epmd on the PATH")?);
    epmd.args(["-address", "127.0.0.1", "-port", names_port]);
    let names = Peer::start(epmd, &data, names.clone())?;
    let mut settings = fs::File::create(data.join("rabbitmq.conf"))?;
    writeln!(settings, "listeners.tcp.1 = 127.0.0.1:{port}")?;
    let mut command = bound(Path::new(PROGRAM));
    command
        .env("HOME", &data)
        .env("ERL_EPMD_PORT", names_port)
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-start_epmd false")
        // So its script becomes the server, and does not wait for it.
        .env("RUNNING_UNDER_SYSTEMD", "yes")
        .env("RABBITMQ_NODENAME", "bench@localhost")
        .env("RABBITMQ_DIST_PORT", own_port)
        .env("RABBITMQ_MNESIA_BASE", data.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", data.join("logs"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", data.join("plugins"))
        .env("RABBITMQ_CONFIG_FILE", data.join("rabbitmq.conf"));
    let mut peer = Peer::start(command, &data, address)?;
    peer.helper = Some(Box::new(names));
    peer.ready_for(lets_in)
}

/// Whether a client of AMQP is let in.
fn lets_in(address: &str) -> Result<()> {
    broker::runtime()?.block_on(async {
        let opened = Client::open(address, "ready");
        tokio::time::timeout(Duration::from_secs(5), opened).await?
    })?;
    Ok(())
}
