//! Encrypted listeners as their clients see them: who is let in, what they are told, and what becomes of files that change.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use client::admin::{Admin, NewTopic};
use client::consumer::Start;
use client::producer::{Producer, ProducerConfig, ProducerRecord};
use client::{Client, ClientConfig, Consumer, ConsumerConfig, Error, Tls, TlsFiles};
use model::TopicName;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::binary::{Running, Said, alluvium};

/// An authority, and what it has certified.
pub struct Authority {
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Certificate and key of somebody, in PEM.
pub struct Certified {
    certificate: String,
    key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Authority {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// Certifies a name, and the hosts that it is reached by.
    pub fn certify(&self, name: &str, hosts: &[&str]) -> Certified {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Plant");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// The server that the tests talk to.
    pub fn server(&self) -> Certified {
        self.certify("store", &["127.0.0.1", "localhost"])
    }
}

impl Certified {
    pub fn both(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

/// A directory of certificates, keys and data.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().expect("a directory"))
    }

    /// Puts a file in place as a whole, with this mode.
    pub fn put(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        let fresh = self.path("fresh");
        std::fs::write(&fresh, text).expect("written");
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode)).expect("a mode");
        std::fs::rename(&fresh, &path).expect("renamed");
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A server with these listeners and settings, whose certificate is `server.pem`.
    pub fn serve(&self, listeners: &str, settings: &[&str]) -> Command {
        let mut command = alluvium();
        command
            .args(["serve", "--http", "127.0.0.1:0", "--data"])
            .arg(self.path("data"))
            .args(["-X", "wal.file.bytes=4194304", "-X", "wal.files.min=2"])
            .args(["-X", "mqtt.listen=off"])
            .args(["-X", &format!("listeners={listeners}")])
            .arg("-X")
            .arg(format!(
                "ssl.keystore.location={}",
                self.path("server.pem").display()
            ));
        for setting in settings {
            command.args(["-X", setting]);
        }
        command
    }

    /// What a client trusts and shows, of files here.
    pub fn tls(&self, truststore: &str, keystore: Option<&str>) -> Tls {
        let files = TlsFiles {
            truststore: Some(self.path(truststore)),
            keystore: keystore.map(|name| self.path(name)),
            key: None,
        };
        Tls::open(&files).expect("good files")
    }
}

const TLS_LISTENER: &str = "SSL://127.0.0.1:0";
const TOPIC: &str = "readings";

async fn connect(address: &str, tls: Option<Tls>) -> client::Result<Client> {
    let mut config = ClientConfig::new(address);
    config.tls = tls;
    config.retry_timeout = Duration::from_secs(20);
    Client::connect(config).await
}

async fn create_topic(client: &Client) {
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: Some(1),
        ..NewTopic::default()
    };
    Admin::new(client)
        .create_topic(topic)
        .await
        .expect("a topic");
}

async fn produce(client: &Client, values: &[String]) {
    let producer = Producer::new(client, ProducerConfig::default()).expect("a producer");
    let mut deliveries = Vec::new();
    for value in values {
        let name = TopicName::parse(TOPIC).expect("a name");
        let record = ProducerRecord::new(name, value.clone());
        deliveries.push(producer.send(record).await.expect("sent"));
    }
    for delivery in deliveries {
        delivery.wait().await.expect("acknowledged");
    }
    producer.close().await.expect("closed");
}

/// So many values from the start of the topic.
async fn consume(client: &Client, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    let mut consumer = Consumer::new(client, ConsumerConfig::default());
    let name = TopicName::parse(TOPIC).expect("a name");
    consumer
        .assign_topic(&name, Start::Earliest)
        .await
        .expect("a topic");
    while values.len() < count {
        for fetched in consumer
            .poll(Duration::from_secs(10))
            .await
            .expect("records")
        {
            for record in fetched.records().expect("good records") {
                let value = record.value.expect("a value").to_vec();
                values.push(String::from_utf8(value).expect("text"));
            }
        }
    }
    values
}

/// The server's answer to one request over HTTP that is encrypted.
async fn get(address: &str, tls: &Tls, path: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = tls.connect(stream, address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn refused(command: &mut Command) -> Said {
    Said::of(command.output().expect("it runs"))
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..1_200 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come");
}

/// The answer to a request of the Kafka protocol, behind its header: these bytes, with version and key before them.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    key: i16,
    body: &[u8],
) -> Option<Vec<u8>> {
    let version: i16 = 1;
    let mut frame = [key.to_be_bytes(), version.to_be_bytes()].concat();
    // A number, and no name of the client.
    frame.extend([0, 0, 0, 7, 255, 255]);
    frame.extend(body);
    let length = u32::try_from(frame.len()).expect("short");
    stream.write_all(&length.to_be_bytes()).await.ok()?;
    stream.write_all(&frame).await.ok()?;
    stream.flush().await.ok()?;
    let length = stream.read_u32().await.ok()?;
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer.split_off(4))
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_login_is_asked_for_no_certificate_is_and_the_other_way_round() {
    const SASL_HANDSHAKE: i16 = 17;
    const SASL_AUTHENTICATE: i16 = 36;
    const METADATA: i16 = 3;
    let (place, authority) = (Place::new(), Authority::new("authority"));
    place.put("server.pem", &authority.server().both(), 0o600);
    place.put("ca.pem", &authority.certificate, 0o644);
    place.put("users", "alice:secret\n", 0o600);
    let (users, truststore) = (place.path("users"), place.path("ca.pem"));
    let mut command = place.serve(
        "SSL://127.0.0.1:0,SASL_SSL://127.0.0.1:0,PLAINTEXT://127.0.0.1:0",
        &[
            "ssl.client.auth=required",
            &format!("ssl.truststore.location={}", truststore.display()),
            "sasl.enabled.mechanisms=PLAIN",
            &format!("sasl.users.file={}", users.display()),
        ],
    );
    let running = Running::start(&mut command);
    let tls = place.tls("ca.pem", None);
    let no_topics = [0, 0, 0, 0];
    let (asking, plain) = (running.other("SASL_SSL"), running.other("PLAINTEXT"));
    let mut stream = TcpStream::connect(plain).await.expect("it listens");
    assert!(ask(&mut stream, METADATA, &no_topics).await.is_some());
    let reach = async |address: &str| {
        let stream = TcpStream::connect(address).await.expect("it listens");
        tls.connect(stream, address).await.expect("a handshake")
    };
    let mut without_certificate = reach(&running.kafka).await;
    assert!(
        ask(&mut without_certificate, METADATA, &no_topics)
            .await
            .is_none()
    );
    assert!(
        ask(&mut reach(asking).await, METADATA, &no_topics)
            .await
            .is_none()
    );
    let mut stream = reach(asking).await;
    let chosen = ask(&mut stream, SASL_HANDSHAKE, b"\0\x05PLAIN").await;
    assert_eq!(chosen.expect("an answer"), b"\0\0\0\0\0\x01\0\x05PLAIN");
    let said = b"\0\0\0\x0d\0alice\0secret";
    let answer = ask(&mut stream, SASL_AUTHENTICATE, said).await;
    assert_eq!(&answer.expect("an answer")[..2], [0, 0], "no error");
    assert!(ask(&mut stream, METADATA, &no_topics).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_pass_encrypted_and_each_listener_tells_its_own_address() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    place.put("server.pem", &authority.server().both(), 0o600);
    place.put("ca.pem", &authority.certificate, 0o644);
    let advertised = "advertised.listeners=SSL://localhost:9093";
    let listeners = format!("PLAINTEXT://127.0.0.1:0,{TLS_LISTENER}");
    let named = Running::start(&mut place.serve(&listeners, &[advertised]));
    let plain = connect(&named.kafka, None).await.expect("a client");
    let tls = place.tls("ca.pem", None);
    let encrypted = connect(named.other("SSL"), Some(tls.clone())).await;
    let encrypted = encrypted.expect("a client");
    for (client, address) in [
        (&plain, named.kafka.as_str()),
        (&encrypted, "localhost:9093"),
    ] {
        let known = client.refresh(None).await.expect("metadata");
        let brokers: Vec<String> = known
            .brokers
            .values()
            .map(|broker| format!("{}:{}", broker.host, broker.port))
            .collect();
        assert_eq!(brokers, [address]);
    }
    assert_eq!(named.end(Signal::TERM).0, Some(0));

    for versions in ["TLSv1.2,TLSv1.3", "TLSv1.2", "TLSv1.3"] {
        let versions = format!("ssl.enabled.protocols={versions}");
        let running = Running::start(&mut place.serve(TLS_LISTENER, &[&versions]));
        let client = connect(&running.kafka, Some(tls.clone())).await;
        let client = client.expect("a client");
        let known = client.refresh(None).await.expect("metadata");
        if known.topics.is_empty() {
            create_topic(&client).await;
            // Answers that are many records of TLS, and requests too.
            let values: Vec<String> = (0..40u8)
                .map(|number| format!("{number}{}", "x".repeat(60_000)))
                .collect();
            produce(&client, &values).await;
        }
        let got = consume(&client, 40).await;
        for (number, value) in got.iter().enumerate() {
            assert_eq!(*value, format!("{number}{}", "x".repeat(60_000)));
        }
        assert_eq!(got.len(), 40);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_only_if_its_certificate_is_trusted_and_names_it() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    place.put("ca.pem", &authority.certificate, 0o644);
    place.put("other.pem", &Authority::new("other").certificate, 0o644);
    let elsewhere = authority.certify("store", &["store.example"]).both();
    place.put("server.pem", &elsewhere, 0o600);
    let running = Running::start(&mut place.serve(TLS_LISTENER, &[]));
    for truststore in ["ca.pem", "other.pem"] {
        let refused = connect(&running.kafka, Some(place.tls(truststore, None))).await;
        let error = refused.expect_err("it is somebody else");
        assert!(
            matches!(error, Error::Tls { .. }) && !error.is_retriable(),
            "{truststore}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_known_by_their_certificates() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let clients = Authority::new("clients");
    place.put("server.pem", &authority.server().both(), 0o600);
    place.put("ca.pem", &authority.certificate, 0o644);
    place.put("clients.pem", &clients.certificate, 0o644);
    place.put("press.pem", &clients.certify("Press4", &[]).both(), 0o600);
    place.put("foreign.pem", &authority.certify("x", &[]).both(), 0o600);
    let truststore = format!(
        "ssl.truststore.location={}",
        place.path("clients.pem").display()
    );
    let listeners = format!("PLAINTEXT://127.0.0.1:0,{TLS_LISTENER}");
    for (auth, rules, principal) in [
        ("required", "DEFAULT", "User:CN=Press4,O=Plant"),
        ("requested", "RULE:^CN=(.*?),.*$/$1/L", "User:press4"),
    ] {
        let (auth, rules) = (
            format!("ssl.client.auth={auth}"),
            format!("ssl.principal.mapping.rules={rules}"),
        );
        let settings = [truststore.as_str(), &auth, &rules];
        let running = Running::start(&mut place.serve(&listeners, &settings));
        let address = running.other("SSL");
        let with = |keystore| connect(address, Some(place.tls("ca.pem", keystore)));
        let press = with(Some("press.pem")).await.expect("a client");
        press.refresh(None).await.expect("an answer");
        let (_, connections) = running.ask_json("GET /connections", "");
        let found = &connections["connections"][0];
        assert_eq!(found["principal"], principal);
        assert_eq!(found["security_protocol"], "SSL");
        drop(press);
        let foreign = with(Some("foreign.pem")).await;
        assert!(matches!(foreign, Err(Error::Tls { .. })), "{foreign:?}");
        let nobody = with(None).await;
        match auth.as_str() {
            "ssl.client.auth=required" => {
                assert!(matches!(nobody, Err(Error::Tls { .. })), "{nobody:?}");
            }
            _ => {
                nobody
                    .expect("a client")
                    .refresh(None)
                    .await
                    .expect("an answer");
            }
        }
        assert_eq!(running.end(Signal::TERM).0, Some(0));
    }
    // No rule is for this one.
    let rule = "ssl.principal.mapping.rules=RULE:^CN=([a-z]+),.*$/$1/";
    let settings = [truststore.as_str(), "ssl.client.auth=required", rule];
    let running = Running::start(&mut place.serve(TLS_LISTENER, &settings));
    let tls = place.tls("ca.pem", Some("press.pem"));
    let mut config = ClientConfig::new(&running.kafka);
    (config.tls, config.retry_timeout) = (Some(tls), Duration::ZERO);
    assert!(Client::connect(config).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_served_encrypted_beside_plain() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    place.put("server.pem", &authority.server().both(), 0o600);
    place.put("ca.pem", &authority.certificate, 0o644);
    let listen = "http.listen=http://127.0.0.1:0,https://127.0.0.1:0";
    let mut command = alluvium();
    let keystore = place.path("server.pem");
    command
        .args(["serve", "--kafka", "127.0.0.1:0", "--data"])
        .arg(place.path("data"))
        .args(["-X", "wal.file.bytes=262144", "-X", "wal.files.min=2"])
        .args(["-X", listen, "-X"])
        .arg(format!("ssl.keystore.location={}", keystore.display()));
    let running = Running::start(&mut command);
    assert_eq!(running.get("/healthz").0, 200);
    let tls = place.tls("ca.pem", None);
    let https = running.other("HTTPS");
    let answer = get(https, &tls, "/healthz").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // A long answer, which is many records of TLS, is whole.
    let document = get(https, &tls, "/api/v1/openapi.json")
        .await
        .expect("an answer");
    let (_, body) = document.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    // Plain bytes get no answer of HTTP's, and harm nobody.
    let mut stream = std::net::TcpStream::connect(https).expect("it listens");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(get(https, &tls, "/healthz").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load_and_no_connection_breaks() {
    let (place, old, new) = (Place::new(), Authority::new("old"), Authority::new("new"));
    place.put("server.pem", &old.server().both(), 0o600);
    place.put("old.pem", &old.certificate, 0o644);
    place.put("new.pem", &new.certificate, 0o644);
    let log = place.path("log");
    let to_log = std::fs::File::create(&log).expect("a file").into();
    let running = Running::start_logged(&mut place.serve(TLS_LISTENER, &[]), to_log);
    let client = connect(&running.kafka, Some(place.tls("old.pem", None))).await;
    let client = client.expect("a client");
    create_topic(&client).await;
    let connection = client::Connection::open(&running.kafka, client.config()).await;
    let connection = connection.expect("a connection");
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let load = tokio::spawn({
        let (stop, asked, connection) = (stop.clone(), asked.clone(), connection.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let request = wire::messages::metadata::MetadataRequest::default();
                connection
                    .call(&request)
                    .await
                    .expect("the connection stands");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let trusting = async |truststore: &str| {
        let tls = place.tls(truststore, None);
        let stream = TcpStream::connect(&running.kafka).await;
        let stream = stream.expect("it listens");
        tls.connect(stream, &running.kafka).await.is_ok()
    };
    assert!(trusting("old.pem").await && !trusting("new.pem").await);
    place.put("server.pem", &new.server().both(), 0o600);
    until(async || trusting("new.pem").await).await;
    assert!(!trusting("old.pem").await);
    // What cannot be used, or is not kept well, is told and changes nothing.
    let logged =
        async |what: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(what));
    place.put("server.pem", "nothing", 0o600);
    until(async || logged("no certificate in PEM").await).await;
    assert!(trusting("new.pem").await);
    place.put("server.pem", &old.server().both(), 0o604);
    until(async || logged("mode 0604").await).await;
    assert!(trusting("new.pem").await);
    place.put("server.pem", &old.server().both(), 0o600);
    until(async || trusting("old.pem").await).await;
    let before = asked.load(Ordering::Relaxed);
    until(async || asked.load(Ordering::Relaxed) > before).await;
    stop.store(true, Ordering::Relaxed);
    load.await.expect("no request failed");
    assert!(!connection.is_closed());
}

#[test]
fn files_that_cannot_be_used_are_named_at_the_start_with_the_reason() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let good = authority.server();
    place.put("server.pem", &good.both(), 0o600);
    place.put("certificate.pem", &good.certificate, 0o644);
    place.put("key.pem", &good.key, 0o600);
    place.put("open.pem", &good.key, 0o604);
    place.put("written.pem", &good.key, 0o620);
    place.put("other.pem", &authority.server().key, 0o600);
    place.put("text.pem", "no certificate", 0o600);
    place.put(
        "broken.pem",
        &good.both().replace("BEGIN CERT", "BEGIN CART"),
        0o600,
    );
    place.put(
        "locked.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        0o600,
    );
    let setting = |key: &str, file: &str| format!("{key}={}", place.path(file).display());
    let keystore = |file| setting("ssl.keystore.location", file);
    let key = |file| setting("ssl.key.location", file);
    let required = "ssl.client.auth=required".to_owned();
    for (settings, file, said) in [
        (vec![keystore("missing.pem")], "missing.pem", "No such file"),
        (vec![keystore("text.pem")], "text.pem", "no certificate"),
        (
            vec![keystore("certificate.pem")],
            "certificate.pem",
            "no private key",
        ),
        (
            vec![keystore("certificate.pem"), key("open.pem")],
            "open.pem",
            "read or changed by others (mode 0604)",
        ),
        (
            vec![keystore("certificate.pem"), key("written.pem")],
            "written.pem",
            "read or changed by others (mode 0620)",
        ),
        (
            vec![keystore("certificate.pem"), key("other.pem")],
            "other.pem",
            "not that of the certificate",
        ),
        (
            vec![keystore("certificate.pem"), key("locked.pem")],
            "locked.pem",
            "is encrypted",
        ),
        (vec![keystore("broken.pem")], "broken.pem", "PEM"),
        (
            vec![keystore("server.pem"), required.clone()],
            "ssl.truststore.location",
            "does not say",
        ),
        (
            vec![
                keystore("server.pem"),
                required.clone(),
                setting("ssl.truststore.location", "text.pem"),
            ],
            "text.pem",
            "no certificate",
        ),
        (
            vec!["ssl.keystore.location=".to_owned()],
            "ssl.keystore.location",
            "does not say",
        ),
    ] {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let said_of = refused(&mut place.serve(TLS_LISTENER, &settings));
        assert_ne!(said_of.code, Some(0), "{settings:?}");
        let stderr = &said_of.stderr;
        assert!(
            stderr.contains(file) && stderr.contains(said),
            "{settings:?}: {stderr}"
        );
        assert_eq!(
            said_of.stdout, "",
            "a server that does not start is not ready"
        );
    }
    // The two in files of their own, and a group that may read the key.
    place.put("key.pem", &good.key, 0o640);
    let settings = [keystore("certificate.pem"), key("key.pem")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let running = Running::start(&mut place.serve(TLS_LISTENER, &settings));
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_handshakes_or_speaks_no_tls_keeps_nobody_out() {
    const STALLED: usize = 1_500;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit is raised");
    let (place, authority) = (Place::new(), Authority::new("authority"));
    place.put("server.pem", &authority.server().both(), 0o600);
    place.put("ca.pem", &authority.certificate, 0o644);
    let running = Running::start(&mut place.serve(TLS_LISTENER, &[]));
    let plain = connect(&running.kafka, None).await;
    assert!(
        matches!(
            plain,
            Err(Error::NotKafka {
                protocol: "TLS",
                ..
            })
        ),
        "{plain:?}"
    );
    // The head of a ClientHello, and no more.
    let mut stalled = Vec::new();
    let tls = place.tls("ca.pem", None);
    for number in 0..STALLED {
        let mut stream = std::net::TcpStream::connect(&running.kafka).expect("it listens");
        let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]);
        stalled.push(stream);
        if number % 500 == 499 {
            let client = connect(&running.kafka, Some(tls.clone())).await;
            client
                .expect("a client")
                .refresh(None)
                .await
                .expect("an answer");
        }
    }
    // There were too many: the oldest were closed.
    let first = stalled.first_mut().expect("a connection");
    first
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout");
    let mut rest = Vec::new();
    let ended = first.read_to_end(&mut rest);
    assert!(
        !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "{ended:?}"
    );
    let client = connect(&running.kafka, Some(tls)).await.expect("a client");
    client.refresh(None).await.expect("an answer");
    drop(stalled);
    assert_eq!(running.end(Signal::TERM).0, Some(0));
}
