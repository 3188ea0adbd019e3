use super::*;

fn flags(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let flags = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Config::load(&Sources {
        flags,
        ..Sources::default()
    })
}

#[test]
fn an_unknown_setting_is_refused_with_a_suggestion() {
    let error = flags(&[("num.partition", "3")])
        .expect_err("there is no such setting")
        .to_string();
    assert_eq!(
        error,
        "flag: unknown setting `num.partition`; did you mean `num.partitions`?"
    );
}

#[test]
fn a_value_outside_its_range_is_refused() {
    for (key, value) in [
        ("num.partitions", "0"),
        ("num.partitions", "many"),
        ("auto.create.topics.enable", "yes"),
        ("wal.file.bytes", "300001"),
        ("kafka.listen", "9092"),
        ("advertised.listeners", "PLAINTEXT://0.0.0.0:9092"),
        ("advertised.listeners", "PLAINTEXT://[::]:9092"),
        ("advertised.listeners", "PLAINTEXT://:::9092"),
        ("data.dir", ""),
        ("store.bytes.max", "1000"),
        ("wal.profile", "tiny"),
        ("log.retention.ms", "soon"),
        ("message.max.bytes", "40000000"),
    ] {
        assert!(flags(&[(key, value)]).is_err(), "{key}={value}");
    }
}

#[test]
fn errors_name_the_variable_or_the_file_and_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.toml");
    std::fs::write(&path, "[num]\npartition = 2\n").unwrap();
    let error = Config::load(&Sources {
        file: Some(path),
        ..Sources::default()
    });
    let error = error.expect_err("there is no such setting").to_string();
    assert!(
        error.contains("server.toml, line 2: unknown setting `num.partition`"),
        "{error}"
    );
    let error = Config::load(&Sources {
        environment: vec![("ALLUVIUM_PORT".into(), "9092".into())],
        ..Sources::default()
    });
    let error = error.expect_err("there is no such setting").to_string();
    assert!(
        error.contains("ALLUVIUM_PORT: unknown setting `port`"),
        "{error}"
    );
}

/// Access is controlled, so that every address may be listened on.
const AUTHORIZER: (&str, &str) = (
    "authorizer.class.name",
    "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
);

#[test]
fn listening_on_every_address_without_a_name_for_clients_warns() {
    for (listen, warned) in [
        ("0.0.0.0:9092", 1),
        ("[::]:0", 1),
        ("127.0.0.1:9092", 0),
        ("store.example:9092", 0),
    ] {
        let alone = flags(&[("kafka.listen", listen), AUTHORIZER]).unwrap();
        assert_eq!(alone.warnings().len(), warned, "{listen}");
        let name = ("advertised.listeners", "PLAINTEXT://store.example:9092");
        let named = flags(&[("kafka.listen", listen), name, AUTHORIZER]).unwrap();
        assert_eq!(named.warnings(), [""; 0], "{listen}");
    }
    assert_eq!(flags(&[]).unwrap().warnings(), [""; 0]);
}

#[test]
fn a_profile_sets_what_nobody_set_and_is_shown_as_the_reason() {
    let config = flags(&[("wal.files.max", "32"), ("wal.profile", "small")]).unwrap();
    let storage = &config.storage;
    assert_eq!(
        (
            storage.wal_file_bytes,
            storage.wal_files_min,
            storage.wal_files_max
        ),
        (4 << 20, 2, 32)
    );
    let shown = config.show();
    let origin = |key: &str| &shown.iter().find(|shown| shown.key == key).unwrap().origin;
    assert_eq!(origin("wal.file.bytes"), "wal.profile");
    assert_eq!(origin("wal.files.max"), "flag");
    // The default of message.max.bytes has to fit.
    assert!(storage.batch_bytes_max() > 1_048_588);
}

#[test]
fn an_advertised_ipv6_address_is_given_without_its_brackets() {
    let config = flags(&[("advertised.listeners", "PLAINTEXT://[fd00::7]:9092")]).unwrap();
    let listeners = config.kafka.all_listeners().unwrap();
    let advertised = Some(("fd00::7".to_owned(), 9092));
    assert_eq!(listeners[0].advertised, advertised);
}

#[test]
fn each_listener_has_its_own_protection_and_its_own_name_for_clients() {
    let config = flags(&[
        ("listeners", "inside://127.0.0.1:9092,SSL://:9093"),
        ("listener.security.protocol.map", "INSIDE:PLAINTEXT,ssl:ssl"),
        ("advertised.listeners", "SSL://store.example:19093"),
        AUTHORIZER,
    ]);
    let listeners = config.unwrap().kafka.all_listeners().unwrap();
    let told: Vec<_> = listeners
        .iter()
        .map(|it| (it.name.as_str(), it.address.as_str(), it.protocol.name()))
        .collect();
    assert_eq!(
        told,
        [
            ("INSIDE", "127.0.0.1:9092", "PLAINTEXT"),
            ("SSL", "0.0.0.0:9093", "SSL")
        ]
    );
    assert_eq!(listeners[0].advertised, None);
    let advertised = Some(("store.example".to_owned(), 19093));
    assert_eq!(listeners[1].advertised, advertised);
}

#[test]
fn listeners_that_do_not_go_together_are_refused() {
    for (settings, said) in [
        (
            vec![("listeners", "A://:1")],
            "must say how the listener A is protected",
        ),
        (
            vec![("listeners", "A://:1"), ("kafka.listen", "127.0.0.1:2")],
            "kafka.listen is set too",
        ),
        (
            vec![("advertised.listeners", "SSL://a:1")],
            "no listener SSL",
        ),
        (
            vec![("listeners", "SSL://:1,ssl://:2")],
            "SSL is named twice",
        ),
        (
            vec![("listener.security.protocol.map", "A:TLS")],
            "is no security protocol",
        ),
        (vec![("ssl.client.auth", "maybe")], "required"),
        (vec![("ssl.enabled.protocols", "TLSv1.1")], "TLSv1.3"),
        (vec![("ssl.enabled.protocols", "")], "TLSv1.3"),
        (vec![("ssl.keystore.type", "JKS")], "must be PEM"),
        (vec![("ssl.principal.mapping.rules", "default")], "DEFAULT"),
        (vec![("http.listen", "ftp://a:1")], "must be host:port"),
    ] {
        let error = flags(&settings).expect_err("a conflict").to_string();
        assert!(error.contains(said), "{settings:?}: {error}");
    }
}

#[test]
fn listeners_that_ask_for_a_login_and_mechanisms_come_together() {
    for listeners in ["SASL_PLAINTEXT://127.0.0.1:1", "SASL_SSL://127.0.0.1:1"] {
        let asking = ("listeners", listeners);
        let error = flags(&[asking]).expect_err("no mechanism").to_string();
        assert!(error.contains("sasl.enabled.mechanisms"), "{error}");
        let config = flags(&[asking, ("sasl.enabled.mechanisms", "PLAIN")]).unwrap();
        assert_eq!(config.warnings(), [""; 0]);
    }
    let unused = flags(&[("sasl.enabled.mechanisms", "PLAIN")]).unwrap();
    assert_eq!(unused.warnings().len(), 1);
}

#[test]
fn files_of_certificates_that_nothing_uses_are_warned_of() {
    let file = ("ssl.keystore.location", "server.pem");
    assert_eq!(flags(&[file]).unwrap().warnings().len(), 1);
    let encrypted = ("http.listen", "https://127.0.0.1:0");
    let used = flags(&[file, encrypted]).unwrap();
    assert_eq!(used.warnings(), [""; 0]);
}

#[test]
fn every_setting_reaches_what_the_parts_are_started_with() {
    // What cannot be derived from the default.
    let others = [
        ("advertised.listeners", "PLAINTEXT://example.org:9092"),
        ("audit.file", "audit.jsonl"),
        (
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        ),
        ("broker.rack", "cellar"),
        ("cleaner.io.max.bytes.per.second", "1048576"),
        ("data.dir", "elsewhere"),
        ("http.cors.allow.origins", "https://example.org"),
        ("http.hosts", "store.example.org"),
        ("http.listen", "127.0.0.1:1"),
        ("kafka.listen", "127.0.0.1:1"),
        (
            "listener.security.protocol.map",
            "PLAINTEXT:PLAINTEXT,INSIDE:SSL",
        ),
        ("listeners", "PLAINTEXT://127.0.0.1:1"),
        ("mqtt.listen", "127.0.0.1:1"),
        ("mqtt.route", r#"[{"filter": "a/#", "topic": "a"}]"#),
        ("amqp.listen", "127.0.0.1:1"),
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-512"),
        ("sasl.oauthbearer.expected.audience", "kafka"),
        ("sasl.oauthbearer.expected.issuer", "https://id.example.org"),
        ("sasl.oauthbearer.expected.scope", "kafka"),
        (
            "sasl.oauthbearer.jwks.endpoint.url",
            "https://id.example.org/keys",
        ),
        ("sasl.oauthbearer.scope.claim.name", "scp"),
        ("sasl.oauthbearer.sub.claim.name", "upn"),
        ("sasl.users.file", "users"),
        ("scrub.bytes.per.second", "0"),
        ("ssl.client.auth", "required"),
        ("ssl.enabled.protocols", "TLSv1.3"),
        ("ssl.key.location", "key.pem"),
        ("ssl.keystore.location", "server.pem"),
        ("ssl.principal.mapping.rules", "RULE:^CN=(.*)$/$1/"),
        ("ssl.truststore.location", "clients.pem"),
        ("store.bytes.max", "1073741824"),
        ("super.users", "User:root"),
        ("wal.file.bytes", "1048576"),
        ("wal.profile", "small"),
    ];
    let without_origins = |mut config: Config| {
        config.origins.clear();
        format!("{config:?}")
    };
    let before = without_origins(Config::defaults());
    // They have one value, which says what is so.
    let fixed = ["ssl.keystore.type", "ssl.truststore.type"];
    for row in table::rows()
        .iter()
        .filter(|row| !fixed.contains(&row.name))
    {
        let other = others.iter().find(|(key, _)| *key == row.name);
        let value = match (other, row.default) {
            (Some((_, value)), _) => (*value).to_owned(),
            (_, "true") => "false".to_owned(),
            (_, "false") => "true".to_owned(),
            (_, number) => {
                let number: u64 = number
                    .parse()
                    .unwrap_or_else(|_| panic!("{}: no number", row.name));
                // One of the two neighbours lies in the range.
                let more = (number + 1).to_string();
                let fits = flags(&[(row.name, &more)]).is_ok();
                if fits { more } else { (number - 1).to_string() }
            }
        };
        let config = flags(&[(row.name, &value)]).expect("a valid value");
        assert!(
            without_origins(config) != before,
            "{}={value} changes nothing",
            row.name
        );
    }
}

#[test]
fn the_last_source_that_speaks_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.toml");
    std::fs::write(&path, "num.partitions = 2\n[log.retention]\nms = 1000\n").unwrap();
    let sources = Sources {
        file: Some(path),
        environment: vec![
            ("ALLUVIUM_NODE_ID".into(), "7".into()),
            ("PATH".into(), "/bin".into()),
        ],
        flags: vec![("num.partitions".into(), "5".into())],
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!(
        (config.broker.default_partitions, config.broker.node_id),
        (5, 7)
    );
    let origin = |key: &str| {
        config
            .show()
            .into_iter()
            .find(|shown| shown.key == key)
            .unwrap()
            .origin
    };
    assert_eq!(origin("num.partitions"), "flag");
    assert_eq!(origin("node.id"), "environment");
    assert_eq!(origin("log.retention.ms"), "file");
    assert_eq!(origin("wal.files.max"), "default");
}
