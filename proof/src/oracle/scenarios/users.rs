//! Users: SCRAM credentials, told and changed.
//! Callers: `scenarios`.

use crate::oracle::pair::{Pair, Side};
use anyhow::Result;
use bytes::Bytes;
use wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialDeletion, ScramCredentialUpsertion,
};
use wire::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, UserName,
};

const SHA_256: i8 = 1;
const SHA_512: i8 = 2;

/// See the table.
pub fn run(pair: &mut Pair) -> Result<()> {
    pair.scene = "users when there are none".into();
    describe(pair, None);
    describe(pair, Some(&[]));
    describe(pair, Some(&["alice"]));
    alter(pair, &[("alice", SHA_256)], &[]);
    wrong(pair)?;
    pair.scene = "credentials are set".into();
    alter(
        pair,
        &[],
        &[
            set("alice", SHA_256, 4096),
            set("bob", SHA_512, 16_384),
            set("name with spaces, = and é", SHA_256, 5000),
        ],
    );
    alter(pair, &[], &[set("alice", SHA_512, 8192)]);
    pair.settle()?;
    look(pair);
    pair.scene = "credentials change".into();
    alter(pair, &[], &[set("alice", SHA_256, 9000)]);
    alter(pair, &[("alice", SHA_512)], &[]);
    pair.settle()?;
    look(pair);
    pair.scene = "credentials go".into();
    alter(pair, &[("alice", SHA_512)], &[]);
    alter(pair, &[("bob", SHA_256), ("nobody", SHA_256)], &[]);
    alter(pair, &[("alice", SHA_256)], &[set("bob", SHA_256, 4096)]);
    pair.settle()?;
    look(pair);
    for side in [Side::Ours, Side::Theirs] {
        for deletion in [
            ("bob", SHA_256),
            ("bob", SHA_512),
            ("name with spaces, = and é", SHA_256),
        ] {
            pair.ask_one(side, 0, &request(&[deletion], &[]))?;
        }
    }
    pair.settle()?;
    pair.scene = "all users are gone".into();
    describe(pair, None);
    Ok(())
}

fn set(user: &str, mechanism: i8, iterations: i32) -> ScramCredentialUpsertion {
    let key_bytes = if mechanism == SHA_512 { 64 } else { 32 };
    ScramCredentialUpsertion {
        name: user.to_owned(),
        mechanism,
        iterations,
        salt: Bytes::from_static(b"a salt of twenty six bytes"),
        salted_password: Bytes::from(vec![7; key_bytes]),
    }
}

fn request(
    deletions: &[(&str, i8)],
    upsertions: &[ScramCredentialUpsertion],
) -> AlterUserScramCredentialsRequest {
    let deletion = |&(name, mechanism): &(&str, i8)| ScramCredentialDeletion {
        name: name.to_owned(),
        mechanism,
    };
    AlterUserScramCredentialsRequest {
        deletions: deletions.iter().map(deletion).collect(),
        upsertions: upsertions.to_vec(),
    }
}

fn alter(pair: &mut Pair, deletions: &[(&str, i8)], upsertions: &[ScramCredentialUpsertion]) {
    pair.ask_each(|_, _| request(deletions, upsertions));
}

fn describe(pair: &mut Pair, users: Option<&[&str]>) {
    let named = |user: &&str| UserName {
        name: (*user).to_owned(),
    };
    pair.ask_each(|_, _| DescribeUserScramCredentialsRequest {
        users: users.map(|users| users.iter().map(named).collect()),
    });
}

fn look(pair: &mut Pair) {
    describe(pair, None);
    for users in [
        &[][..],
        &["alice"],
        &["alice", "bob"],
        &["alice", "nobody"],
        &["alice", "alice"],
        &["nobody", "nobody", "bob"],
        &[""],
        &["*"],
        &["Alice"],
    ] {
        describe(pair, Some(users));
    }
}

fn wrong(pair: &mut Pair) -> Result<()> {
    let good = || set("carol", SHA_256, 4096);
    let cases: Vec<(&str, Vec<ScramCredentialUpsertion>)> = vec![
        ("nothing", vec![]),
        ("no name", vec![set("", SHA_256, 4096)]),
        ("mechanism 0", vec![set("carol", 0, 4096)]),
        ("mechanism 3", vec![set("carol", 3, 4096)]),
        ("mechanism -1", vec![set("carol", -1, 4096)]),
        ("few iterations", vec![set("carol", SHA_256, 4095)]),
        ("many iterations", vec![set("carol", SHA_256, 16_385)]),
        ("no iterations", vec![set("carol", SHA_256, 0)]),
        ("negative iterations", vec![set("carol", SHA_512, -1)]),
        (
            "no salt",
            vec![ScramCredentialUpsertion {
                salt: Bytes::new(),
                ..good()
            }],
        ),
        (
            "no password",
            vec![ScramCredentialUpsertion {
                salted_password: Bytes::new(),
                ..good()
            }],
        ),
        ("twice", vec![good(), good()]),
        ("both mechanisms", vec![good(), set("carol", SHA_512, 4095)]),
        ("one of two users", vec![set("dan", SHA_256, 1), good()]),
    ];
    for (what, upsertions) in cases {
        pair.scene = format!("credentials with {what}");
        alter(pair, &[], &upsertions);
        pair.settle()?;
        describe(pair, None);
        describe(pair, Some(&["carol", "dan"]));
        for side in [Side::Ours, Side::Theirs] {
            let both = [("carol", SHA_256), ("carol", SHA_512), ("dan", SHA_256)];
            for one in both {
                pair.ask_one(side, 0, &request(&[one], &[]))?;
            }
        }
        pair.settle()?;
    }
    pair.scene = "removals that are refused".into();
    for deletions in [
        &[("", SHA_256)][..],
        &[("carol", 0)],
        &[("carol", 3)],
        &[("carol", SHA_256)],
        &[("carol", SHA_256), ("carol", SHA_256)],
        &[("carol", SHA_256), ("carol", SHA_512)],
    ] {
        alter(pair, deletions, &[]);
    }
    pair.scene = "set and removed at once".into();
    alter(pair, &[("carol", SHA_256)], &[good()]);
    pair.settle()?;
    describe(pair, None);
    Ok(())
}
