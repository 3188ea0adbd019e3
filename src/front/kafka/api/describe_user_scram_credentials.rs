//! DescribeUserScramCredentials (50): by which mechanisms users log in, and with how many iterations. Never the keys.

use std::collections::BTreeSet;

use model::sasl::ScramMechanism;
use wire::messages::describe_user_scram_credentials::{
    CredentialInfo, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
};

use super::Call;
use crate::broker::access::right;
use crate::broker::credentials::ScramUser;
use crate::front::kafka::errors::{Failure, Misuse};

pub(super) async fn answer(
    request: DescribeUserScramCredentialsRequest,
    call: Call,
) -> DescribeUserScramCredentialsResponse {
    let cluster = match call.door.cluster(right::Describe) {
        Ok(cluster) => cluster,
        Err(refusal) => return refused(&refusal.into()),
    };
    let all = call.broker().scram_users(&cluster);
    let bytes = all.iter().map(|(user, _)| 256 + user.len()).sum();
    if let Err(misuse) = call.answer.hold(bytes).await {
        return refused(&misuse.into());
    }
    let users = request.users.filter(|users| !users.is_empty());
    let results = match users {
        None => all.iter().map(described).collect(),
        Some(users) => {
            let mut asked = BTreeSet::new();
            let mut twice = BTreeSet::new();
            for user in users {
                if !asked.insert(user.name.clone()) {
                    twice.insert(user.name);
                }
            }
            let result = |name: String| {
                let found = all.binary_search_by(|(user, _)| (**user).cmp(&name));
                match found {
                    _ if twice.contains(&name) => failed(name, &Misuse::UserNamedTwice.into()),
                    Ok(index) => described(&all[index]),
                    Err(_) => failed(name, &Misuse::UserWithoutCredentials.into()),
                }
            };
            asked.into_iter().map(result).collect()
        }
    };
    DescribeUserScramCredentialsResponse {
        results,
        ..DescribeUserScramCredentialsResponse::default()
    }
}

fn described((user, credentials): &ScramUser) -> DescribeUserScramCredentialsResult {
    let info = |(mechanism, iterations): &(ScramMechanism, u32)| CredentialInfo {
        mechanism: mechanism.code(),
        iterations: i32::try_from(*iterations).unwrap_or(i32::MAX),
    };
    DescribeUserScramCredentialsResult {
        user: user.to_string(),
        credential_infos: credentials.iter().map(info).collect(),
        ..DescribeUserScramCredentialsResult::default()
    }
}

fn failed(user: String, failure: &Failure) -> DescribeUserScramCredentialsResult {
    DescribeUserScramCredentialsResult {
        user,
        error_code: failure.code(),
        error_message: Some(failure.to_string()),
        ..DescribeUserScramCredentialsResult::default()
    }
}

fn refused(failure: &Failure) -> DescribeUserScramCredentialsResponse {
    DescribeUserScramCredentialsResponse {
        error_code: failure.code(),
        error_message: Some(failure.to_string()),
        ..DescribeUserScramCredentialsResponse::default()
    }
}
