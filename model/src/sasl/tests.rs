//! The exchanges by the examples of their specifications, and credentials by a golden file that other programs' arithmetic made.

use super::*;

const USER: &str = "user";
const PASSWORD: &[u8] = b"pencil";

fn credential(mechanism: ScramMechanism) -> Credential {
    let salt = b"0123456789".to_vec();
    Credential::of_password(mechanism, PASSWORD, salt, ITERATIONS_MIN).unwrap()
}

/// The example of RFC 7677 §3.
#[test]
fn the_example_of_the_specification_is_reproduced_by_both_sides() {
    let salt = message::base64_of("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let mechanism = ScramMechanism::Sha256;
    let kept = Credential::of_password(mechanism, PASSWORD, salt, 4096).unwrap();
    let client = Client::new(mechanism, USER, PASSWORD, "rOprNGfwEbeRWgbNEkqO");
    let first = client.first();
    assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let read = ClientFirst::parse(first.as_bytes()).unwrap();
    assert_eq!(read.user, USER);
    let nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let (exchange, server_first) = Exchange::begin(read, kept, true, nonce);
    assert_eq!(
        server_first,
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let (last, check) = client.finish(server_first.as_bytes()).unwrap();
    assert_eq!(
        last,
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    let server_final = exchange.finish(last.as_bytes()).unwrap();
    assert_eq!(
        server_final,
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
    assert_eq!(check.check(server_final.as_bytes()), Ok(()));
}

/// The proofs are those of the specification's example with other nonces, by Python's arithmetic.
#[test]
fn a_client_may_say_its_half_of_the_nonce_twice_and_nothing_else() {
    let half = "rOprNGfwEbeRWgbNEkqO";
    let server = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let finish = |nonce: String, proof: &str| {
        let salt = message::base64_of("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let kept = Credential::of_password(ScramMechanism::Sha256, PASSWORD, salt, 4096).unwrap();
        let first = ClientFirst::parse(format!("n,,n=user,r={half}").as_bytes()).unwrap();
        let (exchange, _) = Exchange::begin(first, kept, true, server);
        let last = format!("c=biws,r={nonce},p={proof}");
        exchange.finish(last.as_bytes()).is_ok()
    };
    let (twice, alone, other) = (
        "1Y75+q7XaCGJj/r6vyQWwoNxSzV5ksS8xhp5Lqyriec=",
        "DDs6EleEU2fQG3UinzT3Cz/6xFftfZLYMjtah5w9aJA=",
        "D5/yDWypKZZm5PtUX5Sp2liYskLPrXxTbd5REtAnAsQ=",
    );
    assert!(finish(format!("{half}{half}{server}"), twice));
    assert!(!finish(server.to_owned(), alone));
    assert!(!finish(
        format!("xxxxxxxxxxxxxxxxxxxx{half}{server}"),
        other
    ));
}

/// Logs in by `password` where the server has `kept`.
fn login(kept: Credential, is_known: bool, user: &str, password: &[u8]) -> Result<(), WrongProof> {
    let client = Client::new(kept.mechanism(), user, password, "client");
    let first = ClientFirst::parse(client.first().as_bytes()).unwrap();
    assert_eq!(first.user, user);
    let (exchange, server_first) = Exchange::begin(first, kept, is_known, "server");
    let (last, check) = client.finish(server_first.as_bytes()).unwrap();
    let server_final = exchange.finish(last.as_bytes())?;
    assert_eq!(check.check(server_final.as_bytes()), Ok(()));
    let forged = server_final.replacen("v=", "v=AAAA", 1);
    assert_eq!(check.check(forged.as_bytes()), Err(LoginError::Server));
    Ok(())
}

#[test]
fn the_right_password_logs_in_and_nothing_else_does() {
    for mechanism in ScramMechanism::ALL {
        for user in ["user", "a=b,c", "m\u{fc}ller"] {
            assert_eq!(login(credential(mechanism), true, user, PASSWORD), Ok(()));
        }
        let wrong = login(credential(mechanism), true, USER, b"pencils");
        assert_eq!(wrong, Err(WrongProof::Proof));
        let decoy = Credential::decoy(mechanism, b"secret", USER);
        assert_eq!(login(decoy, false, USER, PASSWORD), Err(WrongProof::Proof));
        // Nobody is let in for the right proof of a user that is not there.
        let unknown = login(credential(mechanism), false, USER, PASSWORD);
        assert_eq!(unknown, Err(WrongProof::Proof));
        assert!(credential(mechanism).is_password(PASSWORD));
        assert!(!credential(mechanism).is_password(b"pencils"));
    }
}

#[test]
fn a_user_that_is_not_there_seems_the_same_each_time_and_like_any_other() {
    for mechanism in ScramMechanism::ALL {
        let decoy = |secret: &[u8], user| Credential::decoy(mechanism, secret, user);
        assert_eq!(decoy(b"s", "a"), decoy(b"s", "a"));
        assert_ne!(decoy(b"s", "a").salt(), decoy(b"s", "b").salt());
        assert_ne!(decoy(b"s", "a").salt(), decoy(b"t", "a").salt());
        assert_eq!(decoy(b"s", "a").iterations(), ITERATIONS_DEFAULT);
        assert_eq!(decoy(b"s", "a").salt().len(), 20);
    }
}

#[test]
fn an_exchange_takes_its_own_last_message_only() {
    let begin = || {
        let client = Client::new(ScramMechanism::Sha256, USER, PASSWORD, "client");
        let first = ClientFirst::parse(client.first().as_bytes()).unwrap();
        let kept = credential(ScramMechanism::Sha256);
        let (exchange, server_first) = Exchange::begin(first, kept, true, "server");
        let (last, _) = client.finish(server_first.as_bytes()).unwrap();
        (exchange, last)
    };
    let (exchange, last) = begin();
    assert!(exchange.finish(last.as_bytes()).is_ok());
    for (from, to) in [
        ("clientserver", "clientserves"),
        ("c=biws", "c=eSws"),
        (",p=", ",x=1,p="),
        (",p=", ",p=AAAA"),
        (",p=", ",q="),
    ] {
        let (exchange, last) = begin();
        let changed = last.replacen(from, to, 1);
        assert_ne!(changed, last);
        assert!(exchange.finish(changed.as_bytes()).is_err(), "{changed}");
    }
}

#[test]
fn a_client_is_not_talked_into_giving_its_password_away() {
    let client = || Client::new(ScramMechanism::Sha256, USER, PASSWORD, "client");
    for (message, is_good) in [
        ("r=clientserver,s=c2FsdA==,i=4096", true),
        ("r=clientserver,s=c2FsdA==,i=4095", false),
        ("r=clientserver,s=c2FsdA==,i=1000001", false),
        ("r=clientserver,s=c2FsdA==,i=+4096", false),
        ("r=clientserver,s=,i=4096", false),
        ("r=client,s=c2FsdA==,i=4096", false),
        ("r=other,s=c2FsdA==,i=4096", false),
        ("e=no", false),
        ("", false),
    ] {
        assert_eq!(
            client().finish(message.as_bytes()).is_ok(),
            is_good,
            "{message}"
        );
    }
}

#[test]
fn messages_that_are_none_are_refused() {
    for good in ["n,,n=a,r=x", "y,,n=a,r=x", "n,a=b,n=a,r=x,tokenauth=true"] {
        assert!(ClientFirst::parse(good.as_bytes()).is_ok(), "{good}");
    }
    for bad in [
        "",
        "n",
        "n,",
        "n,,",
        "p=tls-unique,,n=a,r=x",
        "n,b,n=a,r=x",
        "n,,n=,r=x",
        "n,,n=a",
        "n,,r=x,n=a",
        "n,,n=a=b,r=x",
        "n,,n=a,r=",
        "n,,n=a,r=\u{e4}",
        "n,,n=a,r=x,",
        "n,,n=a,r=x,1=2",
        "n,,m=1,n=a,r=x",
    ] {
        assert!(ClientFirst::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let plain = |bytes: &[u8]| Plain::parse(bytes).map(|it| (it.authorization, it.user));
    assert_eq!(plain(b"\0a\0b"), Ok((None, "a".to_owned())));
    assert_eq!(
        plain(b"c\0a\0b"),
        Ok((Some("c".to_owned()), "a".to_owned()))
    );
    for bad in [
        b"".as_slice(),
        b"a\0b",
        b"\0a\0b\0",
        b"\0\0b",
        b"\0a\0",
        b"\0\xff\0b",
    ] {
        assert!(plain(bad).is_err(), "{bad:?}");
    }
    let written = Plain::message("a", b"b");
    assert_eq!(plain(&written), Ok((None, "a".to_owned())));
}

#[test]
fn credentials_are_refused_that_are_not_safe() {
    let of = |iterations, salt: &[u8]| {
        let mechanism = ScramMechanism::Sha512;
        Credential::of_password(mechanism, PASSWORD, salt.to_vec(), iterations).map(drop)
    };
    assert_eq!(of(4095, b"s"), Err(Unacceptable::TooFewIterations));
    assert_eq!(of(16_385, b"s"), Err(Unacceptable::TooManyIterations));
    assert_eq!(of(4096, b""), Err(Unacceptable::Salt));
    assert_eq!(of(4096, &[0; 257]), Err(Unacceptable::Salt));
    assert_eq!(of(4096, &[0; 256]), Ok(()));
    let empty = Credential::of_password(ScramMechanism::Sha256, b"", b"s".to_vec(), 4096);
    assert_eq!(empty.unwrap_err(), Unacceptable::EmptyPassword);
}

/// Its keys were computed by Python's `hashlib` and `hmac`.
#[test]
fn records_are_those_of_the_golden_file() {
    let golden = include_str!("../../tests/golden/credentials-v1.tsv");
    let lines: Vec<(&str, &str)> = golden
        .lines()
        .filter_map(|it| it.split_once('\t'))
        .collect();
    let salt: Vec<u8> = (1..=20).collect();
    let scram = |mechanism, user: &str, password: &[u8], iterations| CredentialRecord::Scram {
        user: user.to_owned(),
        credential: Credential::of_password(mechanism, password, salt.clone(), iterations).unwrap(),
    };
    let secret: Vec<u8> = (0..32).collect();
    let (id, secret_of_token) = (
        [0, 1, 2, 3, 4, 5, 6, 7],
        secret.as_slice().try_into().unwrap(),
    );
    let (token, _) = ApiToken::new(
        (&id, &secret_of_token),
        "grafana",
        "dashboards, 2",
        1_700_000_000_000,
        None,
    );
    let records = [
        scram(ScramMechanism::Sha256, "alice", b"correct horse", 4096),
        scram(ScramMechanism::Sha512, "m\u{fc}ller, =", b"battery", 8192),
        CredentialRecord::Decoy(secret.clone().into()),
        CredentialRecord::Token(token),
    ];
    assert_eq!(lines.len(), records.len());
    for ((key, value), record) in lines.iter().zip(&records) {
        let (encoded_key, encoded) = record.encode();
        assert_eq!(encoded_key, key.as_bytes());
        assert_eq!(encoded.as_deref(), Some(value.as_bytes()));
        let read = CredentialRecord::decode(key.as_bytes(), value.as_bytes());
        assert_eq!(read.as_ref(), Ok(record));
        assert!(!format!("{:?}", records[0]).contains("stored_key"));
        for wrong in [
            value.replacen("1", "2", 1),
            value.replace("hex", "base64"),
            // One digit more than its bytes have.
            value.replacen("hex\":\"", "hex\":\"0", 1),
            value.replace("{", "{\"x\":1,"),
        ] {
            if wrong != *value {
                let read = CredentialRecord::decode(key.as_bytes(), wrong.as_bytes());
                assert!(read.is_err(), "{wrong}");
            }
        }
    }
    let value = lines[0].1.as_bytes();
    for key in [
        "scram/",
        "scram/SCRAM-SHA-1/a",
        "scram/SCRAM-SHA-256/",
        "scram/SCRAM-SHA-512/a",
        "decoys",
    ] {
        assert!(
            CredentialRecord::decode(key.as_bytes(), value).is_err(),
            "{key}"
        );
    }
}
