//! Writes the audit log: as a topic, as a file of JSON lines, and, what was denied and how logins ended, in the server's own log.
//! Callers: `Broker::run`. Invariant: one piece is written at a time, in order; what cannot be written is counted, and the count is
//! written later. Changes stand in the server's log already, by whoever makes them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::TopicName;
use tokio::sync::watch;

use super::event::{Event, What};
use super::{AUDIT_TOPIC, file};
use crate::broker::access::{Caller, Granted, right};
use crate::broker::catalog::Topic;
use crate::broker::publish::{Message, Outgoing, PublishRefusal};
use crate::broker::topics::{Layout, NewTopic};
use crate::broker::{Broker, Refusal, on_blocking_pool};
use crate::metrics::{Families, Family, Kind};

/// How often sums are looked at.
const LOOKED: Duration = Duration::from_secs(1);
/// Events that are written together.
const PIECE: usize = 256;
/// The topic keeps its records for a year, and no more than a gibibyte, unless its settings are changed.
const TOPIC_SETTINGS: [(&str, &str); 2] = [
    ("retention.ms", "31536000000"),
    ("retention.bytes", "1073741824"),
];

/// Why events are not where they should be.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("topic {AUDIT_TOPIC}: {0}")]
    Topic(#[from] Refusal),
    #[error("topic {AUDIT_TOPIC}: {0}")]
    Record(#[from] PublishRefusal),
}

impl Broker {
    /// Notes a change that was made: the operation in a word, what it was done to, and what else is worth telling.
    pub fn note_change(&self, caller: &Caller, operation: &'static str, on: &str, detail: &str) {
        self.shared.audit.changed(caller, operation, on, detail);
    }

    /// Writes what is noted until `shutdown` turns true, and then what is left.
    pub(in crate::broker) async fn write_audit(&self, mut shutdown: watch::Receiver<bool>) {
        let audit = &self.shared.audit;
        let mut is_failing = false;
        loop {
            let is_last = *shutdown.borrow();
            let events = audit.take(is_last);
            for piece in events.chunks(PIECE) {
                piece.iter().for_each(log);
                let written = self.write_events(piece).await;
                if let Err(error) = &written {
                    audit.lose(piece);
                    // Said once, until it goes well again.
                    if !is_failing {
                        tracing::error!(%error, "events are not in the audit log");
                    }
                }
                is_failing = written.is_err();
            }
            if is_last {
                return;
            }
            tokio::select! {
                () = audit.wake.notified() => {}
                () = tokio::time::sleep(LOOKED) => {}
                _ = shutdown.wait_for(|stops| *stops) => {}
            }
        }
    }

    async fn write_events(&self, events: &[Event]) -> Result<(), WriteError> {
        let config = &self.shared.audit.config;
        let lines: Vec<String> = events.iter().map(Event::to_json).collect();
        let in_file = match config.file.clone() {
            Some(path) => {
                let bytes_max = config.file_bytes_max;
                let text = lines.join("\n") + "\n";
                let appended = on_blocking_pool(move || {
                    let appended = file::append(&path, bytes_max, text.as_bytes());
                    appended.map_err(|error| WriteError::File { path, error })
                });
                appended.await
            }
            None => Ok(()),
        };
        // One of the two may go well.
        if config.has_topic {
            self.write_to_topic(events, &lines).await?;
        }
        in_file
    }

    async fn write_to_topic(&self, events: &[Event], lines: &[String]) -> Result<(), WriteError> {
        let topic = self.audit_topic().await?;
        let outgoing: Vec<Outgoing<'_>> = events
            .iter()
            .zip(lines)
            .map(|(event, line)| Outgoing {
                partition: None,
                message: Message {
                    value: Some(line.as_bytes()),
                    time: Some(event.at),
                    ..Message::default()
                },
            })
            .collect();
        let mut last = Ok(());
        for published in self.publish_all(&topic, &outgoing).await? {
            if let Err(refusal) = published?.durable().await {
                last = Err(refusal.into());
            }
        }
        last
    }

    /// The topic; made if it is not there.
    async fn audit_topic(&self) -> Result<Granted<Arc<Topic>, right::Write>, Refusal> {
        if let Ok(topic) = self.topic(AUDIT_TOPIC) {
            return Ok(Granted::<Arc<Topic>, right::Write>::on(topic));
        }
        let name = TopicName::parse(AUDIT_TOPIC)?;
        let settings = TOPIC_SETTINGS.iter();
        let new = NewTopic {
            name: Granted::<TopicName, right::Create>::on(name),
            layout: Layout::Counted {
                partitions: Some(1),
                replicas: None,
            },
            settings: settings
                .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
                .collect(),
        };
        let mut created = self.create_topics(vec![new], false).await;
        let topic = created.pop().expect("one answer for one topic")?;
        Ok(Granted::<Arc<Topic>, right::Write>::on(topic.into_inner()))
    }

    /// Adds what was noted.
    pub(in crate::broker) fn add_audit(&self, families: &mut Families<'_>) {
        let totals = self.shared.audit.totals();
        let mut family = Family::new(
            Kind::Counter,
            "alluvium_audit_events_total",
            "Events of the audit log: changes, denials and logins, and those that are in no log as they were too many.",
            &["event"],
        );
        family.sample(&["changed"], totals.changed);
        family.sample(&["denied"], totals.denied);
        family.sample(&["login"], totals.logins);
        family.sample(&["lost"], totals.lost);
        families.add(family);
    }
}

/// What stands nowhere else in the server's log.
fn log(event: &Event) {
    let (count, who) = (event.count, &event.who);
    let principal = who.principal.as_deref().unwrap_or("somebody");
    let address = who.address.map(|it| it.to_string()).unwrap_or_default();
    let client = event.client.as_deref().unwrap_or_default();
    match &event.what {
        What::Changed { .. } => {}
        What::Denied {
            operation,
            resource,
        } => {
            let resource = resource.as_deref().unwrap_or("many resources");
            tracing::info!(
                principal,
                address,
                client,
                count,
                "denied: {operation} on {resource}"
            );
        }
        What::Login { mechanism, outcome } => {
            tracing::info!(principal, address, mechanism, count, "login: {outcome:?}");
        }
        What::Lost => tracing::warn!(
            count,
            "events that the audit log does not have: they were too many"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use model::PartitionId;
    use serde_json::Value;

    use super::*;
    use crate::broker::access::{AccessConfig, Authorizer, Protocol};
    use crate::broker::audit::AuditConfig;
    use crate::broker::config::BrokerConfig;
    use crate::broker::credentials::LoginKind;
    use crate::broker::scratch::Scratch;

    fn with(audit: AuditConfig) -> Scratch {
        Scratch::with(BrokerConfig {
            access: AccessConfig {
                authorizer: Authorizer::Standard,
                super_users: vec!["root".to_owned()],
                everyone_if_none: false,
            },
            audit,
            ..BrokerConfig::default()
        })
    }

    fn lines(path: &std::path::Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("the file");
        let line = |line: &str| serde_json::from_str(line).expect("a JSON object");
        text.lines().map(line).collect()
    }

    #[tokio::test]
    async fn what_was_denied_changed_and_logged_in_is_in_the_file_and_in_the_topic() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let broker = with(AuditConfig {
            has_topic: true,
            file: Some(path.clone()),
            file_bytes_max: None,
        });
        let eve = broker.door_of_user("eve", Protocol::Mqtt);
        for _ in 0..5 {
            assert!(eve.topic("secret", right::Write).is_err());
        }
        // What is left out of a list is no denial.
        assert!(eve.topics(right::Describe).is_empty() && eve.groups().is_empty());
        assert!(eve.topic_if_allowed("secret", right::Read).is_none());
        let root = broker.door_of_user("root", Protocol::Http);
        broker.note_change(root.caller(), "create", "topic:a", "topic a created");
        let here: SocketAddr = ([10, 0, 0, 7], 1).into();
        let password = b"hunter2".to_vec().into();
        let tried = broker.log_in(LoginKind::Basic, "hunter2", password, here.ip());
        assert!(tried.await.is_err());

        let (stop, stopped) = watch::channel(true);
        broker.write_audit(stopped).await;
        drop(stop);
        let lines = lines(&path);
        let said = |line: &Value, names: &[&str]| {
            let values = names.iter().map(|name| line[name].to_string());
            values.collect::<Vec<String>>().join(" ")
        };
        let denied = [
            "event",
            "operation",
            "resource",
            "principal",
            "protocol",
            "count",
        ];
        let expected =
            |count| format!("\"denied\" \"write\" \"topic:secret\" \"User:eve\" \"mqtt\" {count}");
        assert_eq!(said(&lines[0], &denied), expected(1));
        assert_eq!(said(&lines[3], &denied), expected(4));
        let changed = ["event", "operation", "resource", "principal", "detail"];
        let wanted = r#""changed" "create" "topic:a" "User:root" "topic a created""#;
        assert_eq!(said(&lines[1], &changed), wanted);
        let login = ["event", "mechanism", "outcome", "principal", "address"];
        let wanted = r#""login" "Basic" "failed" null "10.0.0.7""#;
        assert_eq!(said(&lines[2], &login), wanted);
        assert_eq!(lines.len(), 4);
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(!text.contains("hunter2"));

        let topic = broker.topic(AUDIT_TOPIC).expect("it was made");
        let log = topic.log(PartitionId::new(0)).expect("its partition");
        assert_eq!(log.bounds().durable_end.to_wire(), 4);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_counted_and_told_when_it_can_be() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("no folder").join("audit.jsonl");
        let broker = with(AuditConfig {
            file: Some(path.clone()),
            ..AuditConfig::default()
        });
        let write = || async {
            let (_stop, stopped) = watch::channel(true);
            broker.write_audit(stopped).await;
        };
        let root = broker.door_of_user("root", Protocol::Http);
        for number in 0..3 {
            broker.note_change(root.caller(), "create", "topic:a", &number.to_string());
            write().await;
        }
        assert_eq!(broker.shared.audit.totals().lost, 3);
        std::fs::create_dir(path.parent().expect("a folder")).expect("it is made");
        write().await;
        let lines = lines(&path);
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (&lines[0]["event"], &lines[0]["count"]),
            (&"lost".into(), &3.into())
        );
    }
}
