//! What whoever has not logged in may send, the messages of SASL's mechanisms on both sides, API tokens, and credentials as they are
//! kept.

use model::sasl::{
    ApiToken, Bearer, Client, ClientFinal, ClientFirst, Credential, CredentialRecord, Exchange,
    Plain, ScramMechanism, ServerFirst, ShownToken,
};

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let decoy = || Credential::decoy(ScramMechanism::Sha256, b"secret", "user");
    match kind % 7 {
        0 => {
            let _ = Plain::parse(rest);
        }
        1 => {
            let Ok(first) = ClientFirst::parse(rest) else {
                return;
            };
            assert!(!first.user.is_empty() && !first.nonce.contains(','));
            let (exchange, answer) = Exchange::begin(first, decoy(), true, "server");
            assert!(ServerFirst::parse(answer.as_bytes()).is_ok(), "{answer}");
            assert!(exchange.finish(rest).is_err());
        }
        2 => {
            let _ = ClientFinal::parse(rest);
            let client = Client::new(ScramMechanism::Sha256, "user", b"password", "nonce");
            let first = ClientFirst::parse(client.first().as_bytes()).expect("its own message");
            // Nobody knows the password of a user that is made up.
            let (exchange, _) = Exchange::begin(first, decoy(), true, "server");
            assert!(exchange.finish(rest).is_err());
        }
        3 => {
            // What a server asks a client to compute is bounded, but long for a fuzzer.
            if ServerFirst::parse(rest).is_ok_and(|first| first.iterations <= 5_000) {
                let client = Client::new(ScramMechanism::Sha256, "user", b"password", "nonce");
                let _ = client.finish(rest).map(|(_, check)| check.check(rest));
            }
        }
        5 => {
            if let Ok(bearer) = Bearer::parse(rest) {
                let message = Bearer::message(bearer.token);
                let again = Bearer::parse(&message).expect("its own message");
                assert_eq!(again.token, bearer.token);
            }
        }
        4 => {
            if let Some(shown) = ShownToken::parse(rest) {
                let (other, _) = ApiToken::new((&[1; 8], &[2; 32]), "user", "", 0, None);
                assert!(!other.is_shown_by(&shown, 0) || rest.ends_with(b"02"));
            }
        }
        _ => {
            let cut = rest.iter().position(|byte| *byte == b'\t');
            let (key, value) = rest.split_at(cut.unwrap_or(0));
            let value = value.strip_prefix(b"\t").unwrap_or(value);
            if let Ok(record) = CredentialRecord::decode(key, value) {
                let (written_key, written) = record.encode();
                assert_eq!(written_key, key);
                let again = CredentialRecord::decode(&written_key, &written.expect("a value"));
                assert_eq!(again, Ok(record));
            }
        }
    }
}

/// The examples of the specifications, and the golden file.
pub fn seeds() -> Vec<Vec<u8>> {
    let token =
        b"alv_0001020304050607_000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let messages: [(u8, &[u8]); 7] = [
        (5, b"n,a=user,\x01host=a\x01auth=Bearer a.b.c\x01\x01"),
        (4, token),
        (0, b"\0user\0pencil"),
        (1, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"),
        (1, b"n,a=u=2Cr,n=u=2Cr,r=x,tokenauth=true"),
        (
            2,
            b"c=biws,r=nonceserver,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        ),
        (3, b"r=nonceserver,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
    ];
    let golden = include_str!("../../../model/tests/golden/credentials-v1.tsv");
    let records = golden.lines().map(|line| (6, line.as_bytes()));
    let all = messages.into_iter().chain(records);
    all.map(|(kind, rest)| [&[kind], rest].concat()).collect()
}
