//! Which filters a topic is for, found by its levels and not filter by filter; what was found is remembered by topic.
//! Callers: `live`. Pure.

use std::collections::HashMap;
use std::str::Split;
use std::sync::Arc;

use super::topic::TopicFilter;

/// Topics of which it is remembered whom they are for.
const REMEMBERED_MAX: usize = 10_000;

/// Filters, each with who holds it. A holder has each filter once.
#[derive(Debug, Default)]
pub(super) struct Matching {
    root: Node,
    remembered: HashMap<Box<str>, Arc<[u32]>>,
}

#[derive(Debug, Default)]
struct Node {
    levels: Levels,
    /// Behind a `+`.
    any: Option<Box<Node>>,
    /// Of filters that end here.
    here: Vec<u32>,
    /// Of filters that end in a `#` below here: it stands for this level too.
    below: Vec<u32>,
}

/// What lies below a node, by level. Below most nodes there is one: what a filter of one device ends in.
#[derive(Debug, Default)]
enum Levels {
    #[default]
    None,
    One(Box<str>, Box<Node>),
    Many(Box<Table>),
}

/// In a box, as a table would make each of the others larger.
#[derive(Debug)]
struct Table(HashMap<Box<str>, Box<Node>>);

impl Levels {
    fn get(&self, level: &str) -> Option<&Node> {
        match self {
            Levels::None => None,
            Levels::One(only, node) => (**only == *level).then_some(&**node),
            Levels::Many(all) => all.0.get(level).map(|node| &**node),
        }
    }

    fn get_mut(&mut self, level: &str) -> Option<&mut Node> {
        match self {
            Levels::None => None,
            Levels::One(only, node) => (**only == *level).then_some(&mut **node),
            Levels::Many(all) => all.0.get_mut(level).map(|node| &mut **node),
        }
    }

    /// That of a level, which is made if it is not there.
    fn get_or_insert(&mut self, level: &str) -> &mut Node {
        *self = match std::mem::take(self) {
            Levels::None => Levels::One(level.into(), Box::default()),
            Levels::One(only, node) if *only != *level => {
                let both = [(only, node), (level.into(), Box::default())];
                Levels::Many(Box::new(Table(HashMap::from(both))))
            }
            Levels::Many(mut all) => {
                if !all.0.contains_key(level) {
                    all.0.insert(level.into(), Box::default());
                }
                Levels::Many(all)
            }
            one @ Levels::One(..) => one,
        };
        self.get_mut(level).expect("it was put there")
    }

    fn remove(&mut self, level: &str) {
        match self {
            Levels::One(only, _) if **only == *level => *self = Levels::None,
            Levels::Many(all) => {
                all.0.remove(level);
                if all.0.is_empty() {
                    *self = Levels::None;
                }
            }
            Levels::None | Levels::One(..) => {}
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Levels::None)
    }
}

impl Matching {
    /// Adds a filter of this holder.
    pub(super) fn insert(&mut self, filter: &TopicFilter, holder: u32) {
        self.remembered.clear();
        let mut node = &mut self.root;
        for level in filter.as_str().split('/') {
            match level {
                // It is the last one.
                "#" => return node.below.push(holder),
                "+" => node = node.any.get_or_insert_default(),
                level => node = node.levels.get_or_insert(level),
            }
        }
        node.here.push(holder);
    }

    /// Takes a filter of this holder out.
    pub(super) fn remove(&mut self, filter: &TopicFilter, holder: u32) {
        self.remembered.clear();
        self.root.remove(filter.as_str().split('/'), holder);
    }

    /// Whether there are filters whose first level is this one.
    pub(super) fn has_first(&self, level: &str) -> bool {
        self.root.levels.get(level).is_some()
    }

    /// All whose filters match a topic, each once.
    pub(super) fn holders(&mut self, topic: &str) -> Arc<[u32]> {
        if let Some(known) = self.remembered.get(topic) {
            return Arc::clone(known);
        }
        let mut found = Vec::new();
        self.root
            .find(topic.split('/'), topic.starts_with('$'), &mut found);
        found.sort_unstable();
        found.dedup();
        let found: Arc<[u32]> = found.into();
        if self.remembered.len() >= REMEMBERED_MAX {
            self.remembered.clear();
        }
        self.remembered.insert(topic.into(), Arc::clone(&found));
        found
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.levels.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }

    fn remove(&mut self, mut levels: Split<'_, char>, holder: u32) {
        let without = |holders: &mut Vec<u32>| holders.retain(|it| *it != holder);
        match levels.next() {
            None => without(&mut self.here),
            Some("#") => without(&mut self.below),
            Some("+") => {
                if let Some(node) = &mut self.any {
                    node.remove(levels, holder);
                }
                self.any.take_if(|node| node.is_empty());
            }
            Some(level) => {
                if let Some(node) = self.levels.get_mut(level) {
                    node.remove(levels, holder);
                    if node.is_empty() {
                        self.levels.remove(level);
                    }
                }
            }
        }
    }

    /// Goes no deeper than the deepest filter. In the first level wildcards leave out names that begin with `$`.
    fn find(&self, mut levels: Split<'_, char>, is_special: bool, found: &mut Vec<u32>) {
        if !is_special {
            found.extend(&self.below);
        }
        let Some(level) = levels.next() else {
            found.extend(&self.here);
            return;
        };
        if let Some(node) = self.any.as_ref().filter(|_| !is_special) {
            node.find(levels.clone(), false, found);
        }
        if let Some(node) = self.levels.get(level) {
            node.find(levels, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn levels(of: &'static str) -> impl Strategy<Value = String> {
        proptest::collection::vec(
            proptest::sample::select(of.split(' ').collect::<Vec<_>>()),
            1..4,
        )
        .prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn the_holders_of_a_topic_are_those_whose_filters_match_it(
            filters in proptest::collection::vec((levels("a b + $x"), any::<bool>(), 0..4u32), 0..12),
            removed in 0..12usize,
            topics in proptest::collection::vec(levels("a b $x"), 1..8),
        ) {
            let mut matching = Matching::default();
            let mut all: Vec<(TopicFilter, u32)> = Vec::new();
            for (filter, is_open, holder) in filters {
                let filter = if is_open { format!("{filter}/#") } else { filter };
                let filter = TopicFilter::parse(&filter).expect("a filter");
                if !all.contains(&(filter.clone(), holder)) {
                    matching.insert(&filter, holder);
                    all.push((filter, holder));
                }
            }
            // Twice: the second answer is a remembered one, unless a filter went.
            for round in 0..2 {
                for topic in &topics {
                    for _ in 0..2 {
                        let mut expected: Vec<u32> = all
                            .iter()
                            .filter(|(filter, _)| filter.matches(topic))
                            .map(|(_, holder)| *holder)
                            .collect();
                        expected.sort_unstable();
                        expected.dedup();
                        prop_assert_eq!(&matching.holders(topic)[..], &expected[..]);
                    }
                }
                if round == 0 && removed < all.len() {
                    let (filter, holder) = all.remove(removed);
                    matching.remove(&filter, holder);
                }
            }
            for (filter, holder) in all {
                matching.remove(&filter, holder);
            }
            prop_assert!(matching.root.is_empty(), "what is gone leaves nothing behind");
        }
    }

    #[test]
    fn a_filter_for_everything_has_its_holder_and_not_special_topics() {
        let mut matching = Matching::default();
        matching.insert(&TopicFilter::parse("#").expect("a filter"), 7);
        assert_eq!(matching.holders("a")[..], [7]);
        assert!(matching.holders("$SYS").is_empty());
    }
}
