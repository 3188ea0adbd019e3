//! Brokers that control access, for the tests of suites that make rules or log in.
//! Callers: the files of the suites.

use anyhow::{Context as _, Result};
use std::process::Command;
use xtask::run;

use crate::compat::{self, install::Places};

/// The setting that switches access control on, by Kafka's name for it.
pub const AUTHORIZER: (&str, &str) = (
    "authorizer.class.name",
    "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
);
/// Everybody may use what no rule is about: so the suites' own clusters are set up.
pub const OPEN: (&str, &str) = ("allow.everyone.if.no.acl.found", "true");
/// A listener that asks for no login, and one that does.
pub const LISTENERS: (&str, &str) = (
    "listeners",
    "PLAINTEXT://{address},SASL_PLAINTEXT://127.0.0.1:0",
);
/// How clients log in.
pub const MECHANISMS: (&str, &str) = ("sasl.enabled.mechanisms", "PLAIN");

/// The addresses of a broker's two listeners, out of what a suite is told: see [`super::Target::Kafka`]. Without a listener for
/// logins there is the first only.
pub fn addresses(told: &str) -> (&str, Option<&str>) {
    match told.split_once(' ') {
        Some((plain, login)) => (plain, Some(login)),
        None => (told, None),
    }
}

/// Adds a user by Kafka's own tool, at a listener that asks for no login.
pub fn add_user(address: &str, (user, password): (&str, &str)) -> Result<()> {
    let classpath = compat::kafka_classpath(&Places::find())?;
    let mut command = Command::new("java");
    command
        .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", &classpath])
        .args(["kafka.admin.ConfigCommand", "--bootstrap-server", address])
        .args(["--alter", "--entity-type", "users", "--entity-name", user])
        .arg("--add-config")
        .arg(format!("SCRAM-SHA-256=[password={password}]"));
    run::quiet(&mut command).context("the suite's user could not be added")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_address_or_two_are_told() {
        assert_eq!(super::addresses("h:1"), ("h:1", None));
        assert_eq!(super::addresses("h:1 h:2"), ("h:1", Some("h:2")));
    }
}
