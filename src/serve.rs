//! Runs the server: opens the store, starts the fronts, says when it is ready, and ends in order.
//!
//! Callers: `main`, which brings the runtime and what asks for the end. Order: storage, broker, listeners bound, ready; at the
//! end listeners, connections, broker, storage.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use storage::{Env, LiveSettings, RecoveryReport, Storage};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::config::Config;
use crate::data_dir::{self, Found};
use crate::descriptors;
use crate::front::listener::{Endpoint, SecurityProtocol, Socket, Tls};
use crate::front::{Limits, Places, amqp, http, kafka, mqtt, sasl};

/// Threads beside the runtime's workers: the store's own, and those that wait for the disk.
pub const OTHER_THREADS: usize = 8;

/// Serves until `stop` ends. It is made when the store is open, before anybody can learn that there is someone to be asked:
/// until then a signal ends the process at once, and later in order. `commit` is what the process was built from, if that is
/// known; it is shown.
pub async fn serve<Stop: Future<Output = ()>>(
    mut config: Config,
    commit: Option<&'static str>,
    json: bool,
    stop: impl FnOnce() -> Result<Stop>,
) -> Result<()> {
    let tls = config.open_tls().context("TLS")?;
    let sockets = Sockets::bind(&config, tls.as_ref()).await?;
    config.check_bound(sockets.addresses()?)?;
    let mut warnings = config.warnings();
    if sockets.mqtt.is_empty() && !config.mqtt.listen.is_empty() {
        let taken = mqtt::joined_listens(&config.mqtt);
        warnings.push(format!(
            "MQTT is not served: another server listens on {taken}, the default of mqtt.listen"
        ));
        config.mqtt.listen.clear();
    }
    // Who asks by another way than a listener is told of the first.
    let first = &sockets.kafka[0].endpoint;
    config.broker.advertised_host = first.advertised_host.clone();
    config.broker.advertised_port = first.advertised_port;
    let shares = share_descriptors(&config)?;
    say_begin(&config, commit, &sockets, &shares);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    say_fewer(&config, &shares);
    config.storage.open_segments_max = shares.segments;
    let limits = &mut config.kafka.limits;
    limits.connections_max = limits.connections_max.min(shares.kafka_connections);
    let places = kafka::places(config.kafka.limits);
    let (storage, broker, report) = open(&config, &places, shares.kafka_connections).await?;

    add_first_users(&config, &broker).await?;

    let asked_to_stop = stop()?;
    let ready = Ready::of(&sockets)?;
    let fronts = Fronts::start(&config, commit, &broker, sockets, places, &shares);
    let (stop_groups, groups_stopped) = watch::channel(false);
    let groups = tokio::spawn({
        let broker = broker.clone();
        async move { broker.run(groups_stopped).await }
    });
    let wakeups = tokio::spawn({
        let storage = storage.clone();
        async move { storage.wake_readers().await }
    });
    say_ready(&ready, &report, json)?;
    let watch = tls.map(|tls| tokio::spawn(tls.watch(fronts.stop.subscribe())));
    asked_to_stop.await;
    tracing::info!("asked to stop: finishing what is under way");
    notify(sd_notify::NotifyState::Stopping);
    fronts.stop().await?;
    if let Some(watch) = watch {
        watch.await.context("the watch of certificates")?;
    }
    stop_groups.send_replace(true);
    groups.await.context("the groups")?;
    drop(broker);
    wakeups.abort();
    tokio::task::spawn_blocking(move || storage.shutdown())
        .await
        .context("close the store")?;
    tracing::info!("stopped");
    Ok(())
}

/// Who may have how many of the descriptors.
struct Shares {
    /// How many there are.
    limit: usize,
    /// Segments that are kept open.
    segments: usize,
    /// Connections to the Kafka port at most, whatever `max.connections` says.
    kafka_connections: usize,
    http_connections: usize,
    mqtt_connections: usize,
    amqp_connections: usize,
}

/// Raises the limit of descriptors, and shares them out to the store and the fronts.
fn share_descriptors(config: &Config) -> Result<Shares> {
    let limit = descriptors::raise_limit();
    let asks = [
        kafka::descriptors(),
        http::descriptors(&config.http),
        mqtt::descriptors(&config.mqtt),
        amqp::descriptors(&config.amqp),
    ];
    let shares = descriptors::share(limit, config.storage.open_segments_max, &asks)?;
    let [
        kafka_connections,
        http_connections,
        mqtt_connections,
        amqp_connections,
    ] = shares.fronts[..]
    else {
        unreachable!("four fronts asked");
    };
    Ok(Shares {
        limit,
        segments: shares.segments,
        kafka_connections,
        http_connections,
        mqtt_connections,
        amqp_connections,
    })
}

/// The fronts as they serve.
struct Fronts {
    stop: watch::Sender<bool>,
    kafka: JoinHandle<()>,
    http: JoinHandle<()>,
    /// None where it listens nowhere.
    mqtt: Option<JoinHandle<()>>,
    /// The same.
    amqp: Option<JoinHandle<()>>,
}

impl Fronts {
    fn start(
        config: &Config,
        commit: Option<&'static str>,
        broker: &Broker,
        sockets: Sockets,
        places: Arc<Places>,
        shares: &Shares,
    ) -> Fronts {
        let (stop, stopped) = watch::channel(false);
        let (front, settings) = (config.front.clone(), config.kafka.clone());
        let kafka = kafka::Front::new(broker.clone(), front, settings, places);
        let mut add_metrics: Vec<http::AddMetrics> = vec![Box::new({
            let kafka = kafka.clone();
            move |families| kafka.add_metrics(families)
        })];
        let mqtt = (!sockets.mqtt.is_empty()).then(|| {
            let (front, settings) = (config.front.clone(), config.mqtt.clone());
            mqtt::Front::new(broker.clone(), front, settings, shares.mqtt_connections)
        });
        if let Some(mqtt) = mqtt.clone() {
            add_metrics.push(Box::new(move |families| mqtt.add_metrics(families)));
        }
        let amqp = (!sockets.amqp.is_empty()).then(|| {
            let (front, settings) = (config.front.clone(), config.amqp.clone());
            amqp::Front::new(broker.clone(), front, settings, shares.amqp_connections)
        });
        if let Some(amqp) = amqp.clone() {
            add_metrics.push(Box::new(move |families| amqp.add_metrics(families)));
        }
        let over_mqtt = mqtt.as_ref().map(|mqtt| mqtt.web_sockets(&stopped));
        let over_amqp = amqp.as_ref().map(|amqp| amqp.web_sockets(&stopped));
        let others = http::Others {
            web_sockets: over_mqtt.into_iter().chain(over_amqp).collect(),
            mqtt: mqtt.as_ref().map(mqtt::Front::administered),
            peers: kafka.peers().clone(),
            add_metrics,
            files_directory: config.storage.data_dir.join("cache").join("columns"),
            commit,
        };
        let (front, settings) = (config.front.clone(), config.http.clone());
        let bounds = http::Bounds {
            connections_max: shares.http_connections,
            listens: sockets.http_listens(),
        };
        let http = http::front(broker.clone(), front, settings, bounds, others);
        Fronts {
            kafka: tokio::spawn(kafka.serve(sockets.kafka, stopped.clone())),
            http: tokio::spawn(http.serve(sockets.http, stopped.clone())),
            mqtt: mqtt.map(|mqtt| tokio::spawn(mqtt.serve(sockets.mqtt, stopped.clone()))),
            amqp: amqp.map(|amqp| tokio::spawn(amqp.serve(sockets.amqp, stopped))),
            stop,
        }
    }

    /// Takes no further connections, and waits until those that are open have finished what they were doing.
    async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        self.kafka.await.context("the Kafka front")?;
        self.http.await.context("the HTTP front")?;
        if let Some(mqtt) = self.mqtt {
            mqtt.await.context("the MQTT front")?;
        }
        if let Some(amqp) = self.amqp {
            amqp.await.context("the AMQP front")?;
        }
        Ok(())
    }
}

/// The bound sockets of all fronts, one at least of Kafka's and HTTP's.
struct Sockets {
    kafka: Vec<Socket>,
    http: Vec<Socket>,
    mqtt: Vec<Socket>,
    amqp: Vec<Socket>,
}

impl Sockets {
    async fn bind(config: &Config, tls: Option<&Arc<Tls>>) -> Result<Sockets> {
        let mut kafka = Vec::new();
        let listeners = config.kafka.all_listeners();
        for listener in listeners.map_err(|(key, reason)| anyhow!("{key}: {reason}"))? {
            let kafka::Listen {
                name,
                address,
                protocol,
                advertised,
            } = listener;
            kafka.push(bind(name, &address, protocol, advertised, tls).await?);
        }
        let mut http = Vec::new();
        for listener in &config.http.listen {
            let (name, protocol) = match listener.is_encrypted {
                true => ("HTTPS", SecurityProtocol::Ssl),
                false => ("HTTP", SecurityProtocol::Plaintext),
            };
            http.push(bind(name.to_owned(), &listener.address, protocol, None, tls).await?);
        }
        let mut mqtt = Vec::new();
        for listener in &config.mqtt.listen {
            let (name, protocol) = match listener.is_encrypted {
                true => ("MQTTS", SecurityProtocol::Ssl),
                false => ("MQTT", SecurityProtocol::Plaintext),
            };
            match bind(name.to_owned(), &listener.address, protocol, None, tls).await {
                // What nobody asked for is no reason not to start.
                Err(error) if is_taken(&error) && !config.is_set("mqtt.listen") => {}
                bound => mqtt.push(bound?),
            }
        }
        let mut amqp = Vec::new();
        for listener in &config.amqp.listen {
            let (name, protocol) = match listener.is_encrypted {
                true => ("AMQPS", SecurityProtocol::Ssl),
                false => ("AMQP", SecurityProtocol::Plaintext),
            };
            amqp.push(bind(name.to_owned(), &listener.address, protocol, None, tls).await?);
        }
        Ok(Sockets {
            kafka,
            http,
            mqtt,
            amqp,
        })
    }

    /// Where all of them listen.
    fn addresses(&self) -> Result<Vec<IpAddr>> {
        let all = self.kafka.iter().chain(&self.http);
        let all = all.chain(&self.mqtt).chain(&self.amqp);
        all.map(|socket| Ok(socket.socket.local_addr()?.ip()))
            .collect()
    }

    /// An address of HTTP that others than this machine can reach, if there is one, or else the first.
    fn http_listens(&self) -> Option<IpAddr> {
        let all = self.http.iter();
        let all = all.filter_map(|socket| Some(socket.socket.local_addr().ok()?.ip()));
        all.min_by_key(|address| address.to_canonical().is_loopback())
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

async fn bind(
    name: String,
    address: &str,
    protocol: SecurityProtocol,
    advertised: Option<(String, u16)>,
    tls: Option<&Arc<Tls>>,
) -> Result<Socket> {
    let socket = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: is another server running? Choose another address, or port 0")
    })?;
    let listens = socket.local_addr()?;
    // Where the settings say, or where it listens.
    let (advertised_host, advertised_port) =
        advertised.unwrap_or_else(|| (reachable(listens), listens.port()));
    Ok(Socket {
        socket,
        endpoint: Arc::new(Endpoint {
            name,
            protocol,
            advertised_host,
            advertised_port,
        }),
        tls: tls.filter(|_| protocol.is_encrypted()).cloned(),
    })
}

/// Opens the store and the broker over it. Settings that change while it runs reach the store and `places` at once.
async fn open(
    config: &Config,
    places: &Arc<Places>,
    connections_allowed: usize,
) -> Result<(Storage, Broker, RecoveryReport)> {
    let (config, places) = (config.clone(), places.clone());
    let storage_config = config.storage.clone();
    let broker_config = config.broker.clone();
    let store_create = config.store_create;
    let opened = tokio::task::spawn_blocking(move || -> Result<_> {
        let data_dir = storage_config.data_dir.clone();
        if data_dir::prepare(&data_dir, store_create)? == Found::Empty {
            let directory = std::path::absolute(&data_dir).unwrap_or(data_dir);
            let directory = directory.display();
            tracing::warn!(%directory, "no store was here: creating a new, empty one");
        }
        let (storage, report) = Storage::recover(storage_config, Env::real())?;
        say_recovered(&report);
        let server_settings = config.server_settings({
            let storage = storage.clone();
            move |changed| {
                storage.set_live(LiveSettings::from(&changed.storage));
                places.limit(within(changed.kafka.limits, connections_allowed));
            }
        });
        let broker = Broker::open(
            broker_config,
            server_settings,
            kafka::subscribed_topics,
            storage.clone(),
        )?;
        Ok((storage, broker, report))
    });
    opened.await.context("open the store")?
}

/// Adds the users of `sasl.users.file` that do not exist.
async fn add_first_users(config: &Config, broker: &Broker) -> Result<()> {
    let Some(path) = config.front.sasl.users_file.clone() else {
        return Ok(());
    };
    let context = format!("sasl.users.file={}", path.display());
    let read = tokio::task::spawn_blocking(move || sasl::read_users(&path)).await?;
    let users = read.context(context.clone())?;
    broker.add_first_users(users).await.context(context)?;
    Ok(())
}

/// Limits of connections, and never more than the descriptors allow.
fn within(limits: Limits, connections_max: usize) -> Limits {
    if limits.connections_max <= connections_max {
        return limits;
    }
    tracing::warn!(
        max.connections = limits.connections_max,
        allowed = connections_max,
        "the limit of open files (`ulimit -n`, LimitNOFILE=) allows fewer connections than are set"
    );
    Limits {
        connections_max,
        ..limits
    }
}

/// The first line of a log: what runs, where, and with which limits in force.
fn say_begin(config: &Config, commit: Option<&'static str>, sockets: &Sockets, shares: &Shares) {
    let data_dir = &config.storage.data_dir;
    let data = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.clone());
    let listens = |all: &[Socket]| {
        let all = all.iter().map(|it| it.socket.local_addr().ok());
        let all: Vec<String> = all.flatten().map(|it| it.to_string()).collect();
        all.join(",")
    };
    let advertised = sockets.kafka.iter().map(|it| {
        let Endpoint {
            advertised_host: host,
            advertised_port: port,
            ..
        } = &*it.endpoint;
        format!("{host}:{port}")
    });
    let advertised = advertised.collect::<Vec<_>>().join(",");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        commit,
        data = %data.display(),
        kafka = listens(&sockets.kafka),
        http = listens(&sockets.http),
        mqtt = listens(&sockets.mqtt),
        amqp = listens(&sockets.amqp),
        advertised,
        descriptors = shares.limit,
        max.connections = config.kafka.limits.connections_max.min(shares.kafka_connections),
        segments.open.max = shares.segments,
        "alluvium starts"
    );
    if !config.ignored_variables.is_empty() {
        let variables = config.ignored_variables.join(" ");
        tracing::info!(
            variables,
            "ignored environment variables that a container platform sets"
        );
    }
}

/// Says so where the limit of descriptors allows fewer segments or connections than the settings ask for.
fn say_fewer(config: &Config, shares: &Shares) {
    let limit = shares.limit;
    let (segments, asked_connections) = (shares.segments, config.kafka.limits.connections_max);
    let connections = asked_connections.min(shares.kafka_connections);
    let fewer_segments = segments < config.storage.open_segments_max;
    let fewer_connections = connections < asked_connections;
    if !fewer_segments && !fewer_connections {
        return;
    }
    // What nobody asked for is no reason to warn.
    let asked = fewer_segments && config.is_set("segments.open.max")
        || fewer_connections && config.is_set("max.connections");
    if asked {
        tracing::warn!(
            limit,
            segments.open.max = segments,
            max.connections = connections,
            "the limit of open files (`ulimit -n`, LimitNOFILE=) allows fewer than the settings ask for"
        );
    } else {
        tracing::info!(
            limit,
            segments.open.max = segments,
            max.connections = connections,
            "the limit of open files (`ulimit -n`, LimitNOFILE=) sets these"
        );
    }
}

/// What clients on this machine connect to; for a listener on all addresses that is loopback.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        "127.0.0.1".to_owned()
    } else {
        address.ip().to_string()
    }
}

/// Logs what the start found.
fn say_recovered(report: &RecoveryReport) {
    tracing::info!(
        frames = report.frames,
        batches = report.batches,
        bytes = report.bytes,
        leader_epoch = report.leader_epoch,
        created = report.created,
        "the store is open"
    );
    if let Some(torn) = &report.torn {
        tracing::warn!(
            file = torn.file,
            position = torn.position,
            frames = torn.frames,
            "dropped an incomplete last write of the write-ahead log, which was never acknowledged"
        );
    }
    for trouble in &report.checkpoint_trouble {
        tracing::warn!(
            trouble,
            "a checkpoint could not be read; the other one stands in"
        );
    }
    for damage in &report.damage {
        let log = damage.log.map(|log| log.to_string()).unwrap_or_default();
        let (from, to) = (damage.range.start.get(), damage.range.end.get());
        tracing::error!(
            log,
            from,
            to,
            reason = damage.reason,
            "acknowledged records are damaged"
        );
    }
}

/// Where everything listens, by the names of listeners; the first one of each front by the front's name.
struct Ready {
    kafka: SocketAddr,
    http: SocketAddr,
    /// Those behind the first ones.
    others: Vec<(String, SocketAddr)>,
}

impl Ready {
    fn of(sockets: &Sockets) -> Result<Ready> {
        let address = |socket: &Socket| socket.socket.local_addr();
        let mut others = Vec::new();
        for socket in sockets
            .kafka
            .iter()
            .skip(1)
            .chain(sockets.http.iter().skip(1))
            .chain(&sockets.mqtt)
            .chain(&sockets.amqp)
        {
            others.push((socket.endpoint.name.clone(), address(socket)?));
        }
        Ok(Ready {
            kafka: address(&sockets.kafka[0])?,
            http: address(&sockets.http[0])?,
            others,
        })
    }
}

/// The one line on stdout that scripts wait for.
fn say_ready(ready: &Ready, report: &RecoveryReport, json: bool) -> Result<()> {
    let Ready {
        kafka,
        http,
        others,
    } = ready;
    let line = if json {
        let others = others.iter().map(
            |(name, address)| serde_json::json!({ "name": name, "address": address.to_string() }),
        );
        let line = serde_json::json!({
            "ready": true, "kafka": kafka.to_string(), "http": http.to_string(), "leader_epoch": report.leader_epoch,
            "damaged": report.damage.len(), "others": others.collect::<Vec<_>>(),
        });
        line.to_string()
    } else {
        let others = others
            .iter()
            .map(|(name, address)| format!(" {name}={address}"));
        let others: String = others.collect();
        format!("ready kafka={kafka} http={http}{others}")
    };
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // Nobody waits for it any more: that is no reason not to serve.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("standard output")?,
    }
    notify(sd_notify::NotifyState::Ready);
    Ok(())
}

fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::debug!(%error, "systemd was not notified");
    }
}
