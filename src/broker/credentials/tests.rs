use std::net::IpAddr;

use super::*;
use crate::broker::scratch::Scratch;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

async fn with_alice() -> Scratch {
    let broker = Scratch::new();
    let alice = || FirstUser {
        name: "alice".to_owned(),
        password: Zeroizing::new(b"secret".to_vec()),
    };
    assert_eq!(broker.add_first_users(vec![alice()]).await.unwrap(), 1);
    assert_eq!(broker.add_first_users(vec![alice()]).await.unwrap(), 0);
    broker
}

async fn log_in(broker: &Broker, user: &str, password: &str) -> bool {
    let password = Zeroizing::new(password.as_bytes().to_vec());
    let done = broker.log_in(LoginKind::Plain, user, password, HERE).await;
    let done = done.map(Proven::accept);
    done.is_ok_and(|name| &*name == user)
}

#[tokio::test]
async fn a_user_logs_in_by_its_password_only() {
    let broker = with_alice().await;
    for _ in 0..2 {
        assert!(log_in(&broker, "alice", "secret").await);
        assert!(!log_in(&broker, "alice", "secrets").await);
        assert!(!log_in(&broker, "bob", "secret").await);
        assert!(!log_in(&broker, "", "").await);
    }
    let (credential, is_known) = broker.scram_credential(ScramMechanism::Sha512, "alice");
    assert!(is_known && credential.is_password(b"secret"));
    let (_, is_known) = broker.scram_credential(ScramMechanism::Sha512, "bob");
    assert!(!is_known);
}

#[tokio::test]
async fn a_login_that_was_remembered_ends_with_its_credential() {
    let broker = with_alice().await;
    assert!(log_in(&broker, "alice", "secret").await);
    let credentials = &broker.shared.credentials;
    let other = Zeroizing::new(b"other".to_vec());
    let records = of_password("alice".to_owned(), other, ITERATIONS_DEFAULT).await;
    credentials.write(records.unwrap()).await.unwrap();
    assert!(!log_in(&broker, "alice", "secret").await);
    assert!(log_in(&broker, "alice", "other").await);
    for mechanism in ScramMechanism::ALL {
        let user = "alice".to_owned();
        let removed = CredentialRecord::Removed { user, mechanism };
        credentials.write(vec![removed]).await.unwrap();
    }
    assert!(!log_in(&broker, "alice", "other").await);
    assert_eq!(credentials.read().count, 0);
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_refused_even_with_the_right_password() {
    let broker = with_alice().await;
    let max = broker.config().failed_logins_max;
    for _ in 0..max {
        assert!(broker.attempt_login(LoginKind::Plain, None, HERE).is_ok());
    }
    assert!(!log_in(&broker, "alice", "secret").await);
    let password = Zeroizing::new(b"secret".to_vec());
    let elsewhere = [192, 0, 2, 1].into();
    let done = broker.log_in(LoginKind::Plain, "alice", password, elsewhere);
    assert!(done.await.is_ok());
}
