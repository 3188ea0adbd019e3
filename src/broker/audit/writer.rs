//! Writes the audit log: as a topic, as a file of JSON lines, and, what was denied and how logins ended, in the server's own log.
//! Callers: `Broker::run`. Invariant: one piece is written at a time, in order; what cannot be written is counted, and the count is
//! written later. Changes stand in the server's log already, by whoever makes them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::TopicName;
use tokio::sync::watch;

use super::event::{Event, On, What};
use super::sinks::{Sink, Sinks, Written};
use super::{AUDIT_TOPIC, file};
use crate::broker::access::{Caller, Granted, NewName, right};
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
#[derive(Debug, Clone, thiserror::Error)]
enum WriteError {
    #[error("{}: {error}", path.display())]
    File {
        path: PathBuf,
        error: Arc<io::Error>,
    },
    #[error("topic {AUDIT_TOPIC}: {0}")]
    Topic(#[from] Refusal),
    #[error("topic {AUDIT_TOPIC}: {0}")]
    Record(#[from] PublishRefusal),
}

impl Broker {
    /// Notes a change that was made: the operation in a word, what it was done to, and what else is worth telling.
    pub fn note_change(&self, caller: &Caller, operation: &'static str, on: On<'_>, detail: &str) {
        self.shared.audit.changed(caller, operation, on, detail);
    }

    /// Writes what is noted until `shutdown` turns true, and then what is left.
    pub(in crate::broker) async fn write_audit(&self, mut shutdown: watch::Receiver<bool>) {
        let audit = &self.shared.audit;
        let mut sinks = audit.sinks.lock().await;
        loop {
            let is_last = *shutdown.borrow();
            let taken = audit.take(is_last);
            sinks.lose(taken.lost);
            taken.events.iter().for_each(log);
            let time = audit.now();
            if let Some(lost) = sinks.log.owed(time, false, is_last) {
                log(&lost);
                let written = Written::<WriteError> {
                    is_told: true,
                    ..Written::default()
                };
                sinks.log.ended(&written, time.1);
            }
            // Without any event those that were lost may be told.
            let mut pieces = taken.events.chunks(PIECE);
            let mut piece = pieces.next().unwrap_or_default();
            loop {
                self.write_piece(&mut sinks, piece, is_last).await;
                match pieces.next() {
                    Some(next) => piece = next,
                    None => break,
                }
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

    /// Writes events to each place that there is, and what it lacks before them.
    async fn write_piece(&self, sinks: &mut Sinks, events: &[Event], is_last: bool) {
        if !sinks.is_any() {
            return;
        }
        let (audit, is_alone) = (&self.shared.audit, events.is_empty());
        let time = audit.now();
        let lines: Vec<String> = events.iter().map(Event::to_json).collect();
        let mut lost = 0;
        let ended = |sink: &mut Sink, written: &Written<WriteError>| {
            // Said once, until it goes well again.
            if sink.ended(written, time.1)
                && let Some(error) = &written.error
            {
                tracing::error!(%error, "events are not in the audit log");
            }
            written.lost
        };
        if let (Some(sink), Some(path)) = (&mut sinks.file, &audit.config.file) {
            let owed = sink.owed(time, is_alone, is_last);
            if owed.is_some() || !is_alone {
                let written = self.write_to_file(path, owed.as_ref(), events, &lines);
                lost = lost.max(ended(sink, &written.await));
            }
        }
        if let Some(sink) = &mut sinks.topic {
            let owed = sink.owed(time, is_alone, is_last);
            if owed.is_some() || !is_alone {
                let written = self.write_to_topic(owed.as_ref(), events, &lines).await;
                lost = lost.max(ended(sink, &written));
            }
        }
        if lost > 0 {
            audit.note_unwritten(lost);
        }
    }

    async fn write_to_file(
        &self,
        path: &Path,
        owed: Option<&Event>,
        events: &[Event],
        lines: &[String],
    ) -> Written<WriteError> {
        let bytes_max = self.shared.audit.config.file_bytes_max;
        let owed = owed.map(Event::to_json);
        let is_told = owed.is_some();
        let all = owed.iter().chain(lines);
        let text: String = all.flat_map(|line| [line.as_str(), "\n"]).collect();
        let path = path.to_owned();
        let appended = on_blocking_pool(move || {
            let appended = file::append(&path, bytes_max, text.as_bytes());
            appended.map_err(|error| WriteError::File {
                path,
                error: Arc::new(error),
            })
        });
        match appended.await {
            Ok(()) => Written {
                lost: 0,
                is_told,
                error: None,
            },
            Err(error) => Written {
                lost: events.iter().map(|event| event.count).sum(),
                is_told: false,
                error: Some(error),
            },
        }
    }

    async fn write_to_topic(
        &self,
        owed: Option<&Event>,
        events: &[Event],
        lines: &[String],
    ) -> Written<WriteError> {
        let owed = owed.map(|event| (event, event.to_json()));
        let owed = owed.iter().map(|(event, line)| (*event, line));
        let all: Vec<(&Event, &String)> = owed.chain(events.iter().zip(lines)).collect();
        let stored = match self.store_lines(&all).await {
            Ok(stored) => stored,
            Err(error) => all.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut written = Written::default();
        for ((event, _), stored) in all.into_iter().zip(stored) {
            match stored {
                Ok(()) => written.is_told |= event.what == What::Lost,
                Err(error) => {
                    if event.what != What::Lost {
                        written.lost += event.count;
                    }
                    written.error = Some(error);
                }
            }
        }
        written
    }

    /// Stores lines in the topic, each for itself.
    async fn store_lines(
        &self,
        lines: &[(&Event, &String)],
    ) -> Result<Vec<Result<(), WriteError>>, WriteError> {
        let topic = self.audit_topic().await?;
        let outgoing: Vec<Outgoing<'_>> = lines
            .iter()
            .map(|(event, line)| Outgoing {
                partition: None,
                message: Message {
                    value: Some(line.as_bytes()),
                    time: Some(event.at),
                    ..Message::default()
                },
            })
            .collect();
        let mut stored = Vec::with_capacity(lines.len());
        for published in self.publish_all(&topic, &outgoing).await? {
            stored.push(match published {
                Ok(published) => published.durable().await.map(drop).map_err(Into::into),
                Err(refusal) => Err(refusal.into()),
            });
        }
        Ok(stored)
    }

    /// The topic; made if it is not there.
    async fn audit_topic(&self) -> Result<Granted<Arc<Topic>, right::Write>, Refusal> {
        if let Ok(topic) = self.topic(AUDIT_TOPIC) {
            return Ok(Granted::<Arc<Topic>, right::Write>::on(topic));
        }
        let name = TopicName::parse(AUDIT_TOPIC)?;
        let settings = TOPIC_SETTINGS.iter();
        let new = NewTopic {
            name: Granted::<NewName, right::Create>::on(NewName::of_nobody(name)),
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

    /// How many denials were noted.
    #[cfg(test)]
    pub(crate) fn denials(&self) -> u64 {
        self.shared.audit.totals().denied
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
        broker.note_change(root.caller(), "create", On::Topic("a"), "topic a created");
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

    async fn write(broker: &Broker) {
        let (_stop, stopped) = watch::channel(true);
        broker.write_audit(stopped).await;
    }

    fn end_of_topic(broker: &Broker) -> i64 {
        let topic = broker.topic(AUDIT_TOPIC).expect("it is there");
        let log = topic.log(PartitionId::new(0)).expect("its partition");
        log.bounds().durable_end.to_wire()
    }

    #[tokio::test]
    async fn a_place_that_fails_is_no_reason_to_tell_the_other_anything() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("no folder").join("audit.jsonl");
        let broker = with(AuditConfig {
            has_topic: true,
            file: Some(path.clone()),
            ..AuditConfig::default()
        });
        let root = broker.door_of_user("root", Protocol::Http);
        for number in 0..3 {
            broker.note_change(root.caller(), "create", On::Topic("a"), &number.to_string());
            write(&broker).await;
            // Nothing is new to the topic, however often the file is tried.
            write(&broker).await;
            assert_eq!(end_of_topic(&broker), number + 1);
        }
        assert_eq!(broker.shared.audit.totals().lost, 3);
        std::fs::create_dir(path.parent().expect("a folder")).expect("it is made");
        write(&broker).await;
        assert_eq!(lines(&path).len(), 1);
        assert_eq!(end_of_topic(&broker), 3);
    }

    #[tokio::test]
    async fn who_deletes_the_audit_topic_stands_in_the_new_one() {
        let broker = with(AuditConfig {
            has_topic: true,
            ..AuditConfig::default()
        });
        let root = broker.door_of_user("root", Protocol::Kafka);
        for name in ["a", "b"] {
            broker.note_change(root.caller(), "create", On::Topic(name), "");
        }
        write(&broker).await;
        let before = broker.topic(AUDIT_TOPIC).expect("it is there").id;
        assert_eq!(end_of_topic(&broker), 2);
        let topic = root.topic(AUDIT_TOPIC, right::Delete).expect("a right");
        assert!(broker.delete_topics(vec![topic]).await[0].is_ok());
        broker.note_change(root.caller(), "delete", On::Topic(AUDIT_TOPIC), "");
        write(&broker).await;
        assert_ne!(broker.topic(AUDIT_TOPIC).expect("it is made").id, before);
        assert_eq!(end_of_topic(&broker), 1);
    }

    #[tokio::test]
    async fn topics_that_come_by_use_and_cleanups_that_are_cancelled_are_told_of() {
        use crate::broker::cleanup::{Selection, Way};
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.jsonl");
        let broker = with(AuditConfig {
            file: Some(path.clone()),
            ..AuditConfig::default()
        });
        let root = broker.door_of_user("root", Protocol::Amqp);
        let name = root.new_topic("readings").expect("a free name");
        let made = broker.auto_create_topic(name, root.caller()).await;
        made.expect("topics come by use");
        let topic = root.topic("readings", right::Clean).expect("a right");
        let selection = Selection {
            policy: crate::broker::cleanup::Policy::Retention,
            partition: None,
            now: true,
        };
        let way = Way {
            dry_run: false,
            bytes_per_second: None,
        };
        let job = broker.start_cleanup(&topic, selection, way, root.caller());
        let job = job.expect("it is taken").id;
        let cluster = root.cluster(right::Clean).expect("a right");
        let cancelled = broker.cancel_cleanup(&cluster, job, root.caller());
        cancelled.expect("it waits");
        write(&broker).await;
        let told: Vec<String> = lines(&path)
            .iter()
            .map(|line| format!("{} {}", line["operation"], line["resource"]))
            .collect();
        let wanted = ["create", "clean", "cancel_clean"];
        let wanted = wanted.map(|operation| format!("\"{operation}\" \"topic:readings\""));
        assert_eq!(told, wanted);
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
            broker.note_change(root.caller(), "create", On::Topic("a"), &number.to_string());
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
