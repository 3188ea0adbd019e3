//! Addresses: which topic a link is about, and as what kind of node. Pure.
//! Callers: `connection` for links, `producing` for the `to` of messages.
//! A name is percent-decoded once, after its prefix was taken off. The kind of a source is the first that matches.

use super::bounds::GROUP_BYTES_MAX;

/// A node that messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceNode {
    /// A cursor in the log.
    Cursor {
        /// The topic.
        topic: String,
        /// The one partition; None for all.
        partition: Option<u32>,
        /// The consumer group that it is read for, if the address names one.
        group: Option<String>,
    },
    /// A queue: its consumers share the topic.
    Queue(String),
    /// A subscription of a topic: its consumer has all that comes from now on.
    Subscription(String),
}

impl SourceNode {
    /// Its topic.
    pub(super) fn topic(&self) -> &str {
        match self {
            SourceNode::Queue(topic)
            | SourceNode::Subscription(topic)
            | SourceNode::Cursor { topic, .. } => topic,
        }
    }

    /// The consumer group that it is read for, if it is said.
    pub(super) fn group(&self) -> Option<&str> {
        match self {
            SourceNode::Cursor { group, .. } => group.as_deref(),
            SourceNode::Queue(_) | SourceNode::Subscription(_) => None,
        }
    }
}

/// A node that messages go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetNode {
    /// The topic.
    pub(super) topic: String,
    /// The one partition, if it is named.
    pub(super) partition: Option<u32>,
    /// The key of messages that name none.
    pub(super) publisher: Option<String>,
}

/// What else says which kind a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints {
    /// What a capability names.
    pub(super) kind: Option<Kind>,
    /// An offset is asked for, or copies.
    pub(super) is_cursor: bool,
}

/// What JMS knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Queue,
    Topic,
}

/// An address that names nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such node")]
pub(super) struct NoNode;

/// A name without what stands before it, and the kind that this says.
fn named(address: &str) -> Result<(&str, Option<Kind>), NoNode> {
    for (prefix, kind) in [
        ("queue://", Kind::Queue),
        ("topic://", Kind::Topic),
        ("/queues/", Kind::Queue),
        ("/queue/", Kind::Queue),
        ("/topics/", Kind::Topic),
        ("/topic/", Kind::Topic),
    ] {
        if let Some(name) = address.strip_prefix(prefix) {
            return Ok((name, Some(kind)));
        }
    }
    // As Azure's clients have it: the host stands before the path.
    for scheme in ["amqps://", "amqp://", "sb://"] {
        if let Some(rest) = address.strip_prefix(scheme) {
            let (_, name) = rest.split_once('/').ok_or(NoNode)?;
            return Ok((name, None));
        }
    }
    match address.starts_with(['/', '$']) || address.is_empty() {
        true => Err(NoNode),
        false => Ok((address, None)),
    }
}

/// The node of a source.
pub(super) fn source(address: &str, hints: Hints) -> Result<SourceNode, NoNode> {
    let (name, kind) = named(address)?;
    if hints.kind.or(kind) == Some(Kind::Topic) {
        return Ok(SourceNode::Subscription(decoded(name)?));
    }
    let parts: Vec<&str> = name.split('/').collect();
    let (topic, group, partition) = match parts[..] {
        [topic, "ConsumerGroups", group, "Partitions", partition] => {
            let group = decoded(group)?;
            if group.len() > GROUP_BYTES_MAX {
                return Err(NoNode);
            }
            (topic, Some(group), Some(partition))
        }
        [topic, "Partitions", partition] => (topic, None, Some(partition)),
        _ if hints.is_cursor && hints.kind.is_none() => (name, None, None),
        _ => return Ok(SourceNode::Queue(decoded(name)?)),
    };
    let partition = partition.map(str::parse::<u32>).transpose();
    Ok(SourceNode::Cursor {
        topic: decoded(topic)?,
        partition: partition.map_err(|_| NoNode)?,
        group,
    })
}

/// The node of a target.
pub(super) fn target(address: &str) -> Result<TargetNode, NoNode> {
    let (name, _) = named(address)?;
    let parts: Vec<&str> = name.split('/').collect();
    let (topic, partition, publisher) = match parts[..] {
        [topic, "Publishers", id] => (topic, None, Some(decoded(id)?)),
        [topic, "Partitions", partition] => {
            let partition = partition.parse().map_err(|_| NoNode)?;
            (topic, Some(partition), None)
        }
        _ => (name, None, None),
    };
    Ok(TargetNode {
        topic: decoded(topic)?,
        partition,
        publisher,
    })
}

/// Percent-decoded.
fn decoded(text: &str) -> Result<String, NoNode> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit(), digit());
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(NoNode);
                };
                u8::try_from(high * 16 + low).map_err(|_| NoNode)?
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| NoNode)?;
    if text.is_empty() {
        Err(NoNode)
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_topics_whatever_stands_around_their_names() {
        for (address, topic, partition, publisher) in [
            ("t", "t", None, None),
            ("queue://t", "t", None, None),
            ("/queues/a%20b", "a b", None, None),
            ("/topic/t", "t", None, None),
            ("t/Publishers/d%2f1", "t", None, Some("d/1")),
            ("t/Partitions/3", "t", Some(3), None),
            ("amqps://h.example/t", "t", None, None),
            ("sb://h.example:5672/t/Partitions/1", "t", Some(1), None),
        ] {
            let found = target(address).expect(address);
            let found = (&*found.topic, found.partition, found.publisher.as_deref());
            assert_eq!(found, (topic, partition, publisher), "{address}");
        }
        for none in [
            "",
            "/exchanges/x",
            "$cbs",
            "/amq/queue/x",
            "a%2",
            "a%zz",
            "queue://",
            "%ff",
        ] {
            assert_eq!(target(none), Err(NoNode), "{none}");
        }
    }

    #[test]
    fn the_kind_of_a_source_is_the_first_that_matches() {
        let of = |topic: &str, partition, group: Option<&str>| SourceNode::Cursor {
            topic: topic.to_owned(),
            partition,
            group: group.map(str::to_owned),
        };
        let cursor = |topic, partition| of(topic, partition, None);
        let queue = || SourceNode::Queue("t".to_owned());
        let subscription = || SourceNode::Subscription("t".to_owned());
        let hints = |kind, is_cursor| Hints { kind, is_cursor };
        let none = hints(None, false);
        let offset = hints(None, true);
        for (address, hints, expected) in [
            ("t", none, queue()),
            ("t", hints(Some(Kind::Queue), true), queue()),
            ("t", hints(Some(Kind::Topic), false), subscription()),
            ("topic://t", none, subscription()),
            ("t", offset, cursor("t", None)),
            ("/queues/t", offset, cursor("t", None)),
            ("/queues/t", none, queue()),
            ("t/Partitions/1", none, cursor("t", Some(1))),
            (
                "t/ConsumerGroups/$Default/Partitions/0",
                none,
                of("t", Some(0), Some("$Default")),
            ),
            (
                "amqps://h/t/ConsumerGroups/g/Partitions/2",
                offset,
                of("t", Some(2), Some("g")),
            ),
        ] {
            assert_eq!(source(address, hints), Ok(expected), "{address}");
        }
        assert_eq!(source("t/Partitions/x", none), Err(NoNode));
        let long = format!("t/ConsumerGroups/{}/Partitions/0", "g".repeat(257));
        assert_eq!(source(&long, none), Err(NoNode));
        assert_eq!(source("$management", none), Err(NoNode));
    }
}
