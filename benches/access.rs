//! What a question of access costs among 100,000 rules of 10,000 users: `cargo bench -p alluvium --bench access`.
//! Each question is about another user and another topic, so that none is answered from what the one before has read.

#![allow(missing_docs, reason = "criterion_group makes a public function")]

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

use alluvium::broker::access::{Principal, Rules};
use criterion::{Criterion, criterion_group, criterion_main};
use model::acl::{Acl, Operation, PatternType, Permission, ResourceType};

const RULES: usize = 100_000;
const USERS: usize = 10_000;

fn acl(number: usize) -> Acl {
    Acl {
        resource_type: ResourceType::Topic,
        name: format!("site-{:04}.{}", number % 5_000, number % 7),
        pattern: PatternType::ALL[number % 2],
        principal: format!("User:user-{}", number % USERS),
        host: "*".to_owned(),
        operation: Operation::ALL[1 + number % 4],
        permission: Permission::ALL[usize::from(!number.is_multiple_of(10))],
    }
}

fn questions(criterion: &mut Criterion) {
    let mut rules = Rules::new(HashSet::new(), false);
    for number in 0..RULES {
        rules.add(Arc::new(acl(number)));
    }
    let host = [10, 0, 0, 1].into();
    let asked: Vec<(Principal, String)> = (0..RULES)
        .map(|number| {
            let acl = acl(number * 7919 % RULES);
            let user = acl.user().expect("a rule for a user");
            (
                Principal::User(user.into()),
                format!("{}.readings", acl.name),
            )
        })
        .collect();
    let mut turn = asked.iter().cycle();
    criterion.bench_function("a question among 100,000 rules", |bencher| {
        bencher.iter(|| {
            let (who, name) = turn.next().expect("they go round");
            let topic = (ResourceType::Topic, name.as_str());
            black_box(rules.allow(who, host, Operation::Read, topic))
        });
    });
}

criterion_group!(benches, questions);
criterion_main!(benches);
