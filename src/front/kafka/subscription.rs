//! Which topics a consumer's subscription names. The bytes are the client's own format (Kafka's
//! `ConsumerProtocolSubscription`); every version begins with version 0's fields, so only those are read:
//! version i16, then an array of topics (count i32, each a string with an i16 length). Source: Kafka's message schema.
//! Callers: the groups, which are given it at the start: their members' subscriptions are opaque to them, and stored.

use std::collections::BTreeSet;

/// The topics in a subscription; None if the bytes are not one.
pub fn subscribed_topics(mut bytes: &[u8]) -> Option<BTreeSet<String>> {
    let version = i16::from_be_bytes(take(&mut bytes)?);
    if version < 0 {
        return None;
    }
    let count = usize::try_from(i32::from_be_bytes(take(&mut bytes)?)).ok()?;
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let length = usize::try_from(i16::from_be_bytes(take(&mut bytes)?)).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
    }
    Some(topics)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_topics_and_ignores_what_later_versions_append() {
        let bytes = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xffowned and more";
        let topics = subscribed_topics(bytes).expect("a subscription");
        assert_eq!(topics.into_iter().collect::<Vec<_>>(), ["a", "bc"]);
    }

    #[test]
    fn refuses_every_cut_and_a_count_beyond_the_bytes() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc";
        for end in 0..bytes.len() {
            assert_eq!(subscribed_topics(&bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(subscribed_topics(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(subscribed_topics(b"\xff\xff\0\0\0\0"), None);
    }
}
