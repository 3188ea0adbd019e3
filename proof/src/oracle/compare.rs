//! Compare: two answers, field by field, without what must differ between two brokers: ports, times, texts of error
//! messages, and ids that each broker draws for itself, which are paired when they are first seen.
//! Callers: `pair`.
//! Invariant: an id of one broker is paired with one id of the other for good, so that a mixed-up id is a difference.

use super::tree::Tree;
use bytes::Bytes;
use model::batch;
use std::collections::HashMap;

/// Fields that hold an id which each broker draws for itself.
const IDS: &[&str] = &[
    "topic_id",
    "member_id",
    "leader",
    "producer_id",
    "replica_directory_id",
    "leader_directory_id",
];

/// Values of id fields that are no ids.
const NO_IDS: &[&str] = &["\"\"", "-1", "null", "00000000-0000-0000-0000-000000000000"];

/// Fields that tell a moment or a measure of the machine: only their sign is compared.
const MOMENTS: &[&str] = &[
    "log_append_time_ms",
    "last_timestamp",
    "last_fetch_timestamp",
    "last_caught_up_timestamp",
    "total_bytes",
    "usable_bytes",
    "finalized_features_epoch",
];

/// Texts for people, which are not compared.
const WORDS: &[&str] = &["error_message", "batch_index_error_message"];

/// What is the machine's or told in other words: only whether it is there is compared.
const TEXTS: &[&str] = &["documentation", "cluster_id", "log_dir", "client_host"];

/// Fields that name an element of an array, by which the elements of both sides are put beside each other.
const NAMES: &[&str] = &[
    "name",
    "topic",
    "topic_name",
    "group_id",
    "resource_name",
    "group_instance_id",
    "partition_index",
    "metadata",
    "member_metadata",
    "partition",
    "partition_id",
    "index",
    "api_key",
    "node_id",
    "broker_id",
    "replica_id",
    "producer_id",
    "base_offset",
    "key",
    "topic_id",
    "member_id",
    "user",
    "mechanism",
];

/// Fields that name an element together, if it has them all: of a rule that was deleted, of a rule, of what rules are about,
/// of a part of a quota's entity, of a quota's entity.
const NAMES_TOGETHER: &[&[&str]] = &[
    &[
        "resource_type",
        "resource_name",
        "pattern_type",
        "principal",
        "host",
        "operation",
        "permission_type",
    ],
    &["principal", "host", "operation", "permission_type"],
    &["resource_type", "resource_name", "pattern_type"],
    &["entity_type", "entity_name"],
    &["entity"],
];

/// A field in which two answers differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Difference {
    /// Where, as `topics[a].partitions[0].error_code`; empty for the answer as a whole.
    pub path: String,
    /// Alluvium's value.
    pub ours: String,
    /// Apache Kafka's value.
    pub theirs: String,
}

/// What is known of one broker.
#[derive(Default)]
pub struct Facts {
    /// Its port.
    pub port: u16,
    /// The leader epoch of a topic that it has just created.
    pub epoch_base: i32,
}

/// Compares the answers of two brokers.
#[derive(Default)]
pub struct Comparison {
    /// Alluvium.
    pub ours: Facts,
    /// Apache Kafka.
    pub theirs: Facts,
    paired: HashMap<String, String>,
    paired_back: HashMap<String, String>,
}

impl Comparison {
    /// The fields in which the answers differ.
    pub fn differences(&mut self, ours: &Tree, theirs: &Tree) -> Vec<Difference> {
        let mut found = Vec::new();
        self.walk("", "", ours, theirs, &mut found);
        found
    }

    /// Notes that these two ids mean the same thing.
    pub fn pair(&mut self, ours: &str, theirs: &str) {
        self.paired.insert(ours.to_owned(), theirs.to_owned());
        self.paired_back.insert(theirs.to_owned(), ours.to_owned());
    }

    fn walk(
        &mut self,
        path: &str,
        name: &str,
        ours: &Tree,
        theirs: &Tree,
        found: &mut Vec<Difference>,
    ) {
        match (ours, theirs) {
            (Tree::Struct(fields), Tree::Struct(_)) if name == "records" => {
                let bytes = (slices(fields), theirs.field("slices").map(slices_of));
                let ours = self.batches(bytes.0, self.ours.epoch_base);
                let theirs = self.batches(bytes.1.unwrap_or_default(), self.theirs.epoch_base);
                self.walk(path, "batches", &ours, &theirs, found);
            }
            (Tree::Struct(fields), Tree::Struct(_)) => {
                for (field, value) in fields {
                    let other = theirs.field(field).expect("both are of one type");
                    let path = if path.is_empty() {
                        field.clone()
                    } else {
                        format!("{path}.{field}")
                    };
                    self.walk(&path, field, value, other, found);
                }
            }
            (Tree::List(ours), Tree::List(theirs)) => self.lists(path, ours, theirs, found),
            _ => {
                let (ours, theirs) = (ours.text(), theirs.text());
                if !self.same(name, &ours, &theirs) {
                    found.push(Difference {
                        path: path.to_owned(),
                        ours,
                        theirs,
                    });
                }
            }
        }
    }

    fn lists(&mut self, path: &str, ours: &[Tree], theirs: &[Tree], found: &mut Vec<Difference>) {
        let ours = keyed(ours, |value| match self.paired.get(value) {
            Some(paired) => paired.clone(),
            None => value.to_owned(),
        });
        let theirs = keyed(theirs, str::to_owned);
        for (key, value) in &ours {
            let path = format!("{path}[{key}]");
            match theirs.iter().find(|(other, _)| other == key) {
                Some((_, other)) => self.walk(&path, "", value, other, found),
                None => found.push(one_sided(path, value.text(), "absent".to_owned())),
            }
        }
        for (key, value) in &theirs {
            if !ours.iter().any(|(other, _)| other == key) {
                let path = format!("{path}[{key}]");
                found.push(one_sided(path, "absent".to_owned(), value.text()));
            }
        }
    }

    fn same(&mut self, name: &str, ours: &str, theirs: &str) -> bool {
        if name == "throttle_time_ms" || WORDS.contains(&name) {
            return true;
        }
        if TEXTS.contains(&name) {
            return (ours == "null") == (theirs == "null");
        }
        if MOMENTS.contains(&name) {
            return ours.starts_with('-') == theirs.starts_with('-');
        }
        if name == "port" {
            return ours == self.ours.port.to_string() && theirs == self.theirs.port.to_string()
                || ours == theirs;
        }
        if name.ends_with("leader_epoch") && name != "committed_leader_epoch" {
            let above = |value: &str, base: i32| value.parse::<i32>().map(|v| v - base);
            let ours_above = above(ours, self.ours.epoch_base);
            return ours == theirs && ours.starts_with('-')
                || !ours.starts_with('-')
                    && !theirs.starts_with('-')
                    && ours_above == above(theirs, self.theirs.epoch_base);
        }
        if IDS.contains(&name) && !NO_IDS.contains(&ours) && !NO_IDS.contains(&theirs) {
            return self.same_id(ours, theirs);
        }
        ours == theirs
    }

    fn same_id(&mut self, ours: &str, theirs: &str) -> bool {
        match (self.paired.get(ours), self.paired_back.get(theirs)) {
            (None, None) => {
                self.pair(ours, theirs);
                true
            }
            (known, _) => known.is_some_and(|known| known == theirs),
        }
    }

    /// Batches as a list of their headers' fields. A batch that was cut off at the end is left out, as clients do.
    fn batches(&self, bytes: Bytes, epoch_base: i32) -> Tree {
        let mut batches = Vec::new();
        for batch in batch::split(bytes) {
            let Ok(batch) = batch else { break };
            let header = batch.header();
            let by_broker = header.timestamp_type() == batch::TimestampType::LogAppendTime;
            let time = |value: i64| match by_broker {
                true => "broker's".to_owned(),
                false => value.to_string(),
            };
            let leaf = |text: String| Tree::Leaf(text);
            let fields = [
                ("base_offset", leaf(header.base_offset.to_string())),
                ("length", leaf(header.length.to_string())),
                (
                    "epoch",
                    leaf((header.leader_epoch - epoch_base).to_string()),
                ),
                ("attributes", leaf(header.attributes.bits().to_string())),
                (
                    "last_offset_delta",
                    leaf(header.last_offset_delta.to_string()),
                ),
                ("base_timestamp", leaf(header.base_timestamp.to_string())),
                ("max_timestamp", leaf(time(header.max_timestamp))),
                ("producer_id", leaf(header.producer_id.to_string())),
                ("producer_epoch", leaf(header.producer_epoch.to_string())),
                ("base_sequence", leaf(header.base_sequence.to_string())),
                ("record_count", leaf(header.record_count.to_string())),
                ("payload", Tree::Bytes(batch.compressed_records())),
            ];
            let fields = fields.map(|(name, value)| (name.to_owned(), value));
            batches.push(Tree::Struct(fields.to_vec()));
        }
        Tree::List(batches)
    }
}

fn one_sided(path: String, ours: String, theirs: String) -> Difference {
    Difference { path, ours, theirs }
}

/// The elements with what names them; where nothing does, or two have one name, their place does.
fn keyed(values: &[Tree], translate: impl Fn(&str) -> String) -> Vec<(String, &Tree)> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut keyed = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let name = name_together(value).or_else(|| {
            NAMES.iter().find_map(|name| match value.field(name)? {
                Tree::Leaf(text) if !matches!(text.as_str(), "null" | "\"\"") => {
                    Some(translate(text).trim_matches('"').to_owned())
                }
                Tree::Bytes(bytes) if !bytes.is_empty() => {
                    Some(String::from_utf8_lossy(bytes).into_owned())
                }
                _ => None,
            })
        });
        let key = match name {
            Some(name) => {
                let times = seen.entry(name.clone()).or_default();
                *times += 1;
                match *times {
                    1 => name,
                    more => format!("{name}#{more}"),
                }
            }
            None => index.to_string(),
        };
        keyed.push((key, value));
    }
    keyed
}

/// What names an element by several fields.
fn name_together(value: &Tree) -> Option<String> {
    NAMES_TOGETHER.iter().find_map(|names| {
        let fields: Option<Vec<String>> = names
            .iter()
            .map(|name| value.field(name).map(in_one_line))
            .collect();
        fields.map(|fields| fields.join(" "))
    })
}

/// All that it holds, whatever the order of its lists.
fn in_one_line(tree: &Tree) -> String {
    let mut texts: Vec<String> = match tree {
        Tree::Leaf(_) | Tree::Bytes(_) => return tree.text().trim_matches('"').to_owned(),
        Tree::Struct(fields) => return fields_in_one_line(fields),
        Tree::List(values) => values.iter().map(in_one_line).collect(),
    };
    texts.sort_unstable();
    texts.join(" and ")
}

fn fields_in_one_line(fields: &[(String, Tree)]) -> String {
    let texts: Vec<String> = fields.iter().map(|(_, value)| in_one_line(value)).collect();
    texts.join(" ")
}

fn slices(fields: &[(String, Tree)]) -> Bytes {
    fields
        .iter()
        .find(|(name, _)| name == "slices")
        .map(|(_, value)| slices_of(value))
        .unwrap_or_default()
}

fn slices_of(tree: &Tree) -> Bytes {
    let Tree::List(slices) = tree else {
        return Bytes::new();
    };
    let parts: Vec<&[u8]> = slices
        .iter()
        .map(|slice| match slice {
            Tree::Bytes(bytes) => bytes.as_ref(),
            _ => &[],
        })
        .collect();
    Bytes::from(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Difference};
    use crate::oracle::tree::Tree;
    use wire::Uuid;
    use wire::messages::describe_acls::{
        AclDescription, DescribeAclsResource, DescribeAclsResponse,
    };
    use wire::messages::metadata::{MetadataResponse, MetadataResponseTopic};

    fn topic(name: &str, id: u128, error_code: i16) -> MetadataResponseTopic {
        MetadataResponseTopic {
            name: Some(name.to_owned()),
            topic_id: Uuid::from_u128(id),
            error_code,
            ..MetadataResponseTopic::default()
        }
    }

    fn answer(topics: Vec<MetadataResponseTopic>) -> Tree {
        let response = MetadataResponse {
            topics,
            ..MetadataResponse::default()
        };
        Tree::of(&response).unwrap()
    }

    #[test]
    fn elements_are_compared_by_name_and_each_field_that_differs_is_told() {
        let ours = answer(vec![topic("a", 1, 0), topic("b", 2, 3)]);
        let theirs = answer(vec![topic("b", 12, 5), topic("a", 11, 0)]);
        let found = Comparison::default().differences(&ours, &theirs);
        let wanted = Difference {
            path: "topics[b].error_code".into(),
            ours: "3".into(),
            theirs: "5".into(),
        };
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn an_id_that_changes_its_partner_is_a_difference() {
        let mut comparison = Comparison::default();
        let first = answer(vec![topic("a", 1, 0)]);
        assert_eq!(
            comparison.differences(&first, &answer(vec![topic("a", 11, 0)])),
            []
        );
        assert_eq!(
            comparison.differences(&first, &answer(vec![topic("a", 11, 0)])),
            []
        );
        let found = comparison.differences(&first, &answer(vec![topic("a", 12, 0)]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, "topics[a].topic_id");
    }

    #[test]
    fn rules_are_put_beside_each_other_by_all_that_they_say() {
        let answer = |rules: &[(&str, i8)]| {
            let acl = |&(principal, operation): &(&str, i8)| AclDescription {
                principal: principal.to_owned(),
                host: "*".to_owned(),
                operation,
                permission_type: 3,
            };
            let response = DescribeAclsResponse {
                resources: vec![DescribeAclsResource {
                    resource_type: 2,
                    resource_name: "a".to_owned(),
                    pattern_type: 3,
                    acls: rules.iter().map(acl).collect(),
                }],
                ..DescribeAclsResponse::default()
            };
            Tree::of(&response).unwrap()
        };
        let ours = answer(&[("User:a", 3), ("User:b", 4)]);
        let same = answer(&[("User:b", 4), ("User:a", 3)]);
        assert_eq!(Comparison::default().differences(&ours, &same), []);
        let theirs = answer(&[("User:b", 4), ("User:a", 5)]);
        let found = Comparison::default().differences(&ours, &theirs);
        let paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
        let wanted = [
            "resources[2 a 3].acls[User:a * 3 3]",
            "resources[2 a 3].acls[User:a * 5 3]",
        ];
        assert_eq!(paths, wanted);
    }

    #[test]
    fn an_element_that_only_one_side_has_is_told_once() {
        let ours = answer(vec![topic("a", 1, 0)]);
        let found = Comparison::default().differences(&ours, &answer(vec![]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, "topics[a]");
        assert_eq!(found[0].theirs, "absent");
    }
}
