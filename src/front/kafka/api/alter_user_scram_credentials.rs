//! AlterUserScramCredentials (51): sets and removes credentials. A client salts the password itself: it does not come here.

use std::collections::{BTreeMap, BTreeSet};

use model::sasl::{Credential, CredentialRecord, ScramMechanism, check_user_name};
use wire::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult, ScramCredentialUpsertion,
};

use super::Call;
use crate::broker::access::right;
use crate::broker::credentials::CredentialError;
use crate::front::kafka::errors::{self, Failure, Misuse};

/// A change, or its error's code and text.
type Read = Result<CredentialRecord, (i16, String)>;

pub(super) async fn answer(
    request: AlterUserScramCredentialsRequest,
    call: Call,
) -> AlterUserScramCredentialsResponse {
    let mut changes: Vec<(String, Read)> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    let mut note = |user: &str, mechanism: i8| {
        if !seen.insert((user.to_owned(), mechanism)) {
            twice.insert(user.to_owned());
        }
    };
    for deletion in request.deletions {
        note(&deletion.name, deletion.mechanism);
        let user = deletion.name.clone();
        let read = named(&user).and_then(|()| mechanism(deletion.mechanism));
        let read = read.map(|mechanism| CredentialRecord::Removed { user, mechanism });
        changes.push((deletion.name, read));
    }
    for upsertion in request.upsertions {
        note(&upsertion.name, upsertion.mechanism);
        let read = upserted(&upsertion);
        changes.push((upsertion.name, read));
    }
    // Of a user, nothing is changed if one of the changes cannot be.
    let mut results: BTreeMap<String, AlterUserScramCredentialsResult> = BTreeMap::new();
    for (user, read) in &changes {
        let misuse = twice
            .contains(user)
            .then(|| of(&Misuse::UserAlteredTwice.into()));
        note_failure(&mut results, user, misuse.or(read.clone().err()));
    }
    for (user, read) in changes {
        let result = results.get(&user);
        let is_refused = result.is_some_and(|result| result.error_code != errors::NONE);
        if let Ok(change) = read
            && !is_refused
        {
            let failure = changed(&call, change).await.err();
            note_failure(&mut results, &user, failure);
        }
    }
    AlterUserScramCredentialsResponse {
        results: results.into_values().collect(),
        ..AlterUserScramCredentialsResponse::default()
    }
}

/// A user's result, with the first thing that failed.
fn note_failure(
    results: &mut BTreeMap<String, AlterUserScramCredentialsResult>,
    user: &str,
    failure: Option<(i16, String)>,
) {
    let result = results.entry(user.to_owned()).or_default();
    result.user = user.to_owned();
    if let Some((code, text)) = failure
        && result.error_code == errors::NONE
    {
        (result.error_code, result.error_message) = (code, Some(text));
    }
}

async fn changed(call: &Call, change: CredentialRecord) -> Result<(), (i16, String)> {
    let cluster = call
        .door
        .cluster(right::Alter)
        .map_err(|refusal| of(&refusal.into()))?;
    let caller = call.door.caller();
    let changed = call
        .broker()
        .change_credential(&cluster, change, caller)
        .await;
    changed.map_err(|error| (errors::credential(&error), error.to_string()))
}

fn of(failure: &Failure) -> (i16, String) {
    (failure.code(), failure.to_string())
}

fn named(user: &str) -> Result<(), (i16, String)> {
    let refused = |why| {
        let error = CredentialError::User(why);
        (errors::credential(&error), error.to_string())
    };
    check_user_name(user).map_err(refused)
}

fn mechanism(code: i8) -> Result<ScramMechanism, (i16, String)> {
    ScramMechanism::of_code(code).ok_or_else(|| of(&Misuse::UnknownScramMechanism.into()))
}

fn upserted(upsertion: &ScramCredentialUpsertion) -> Read {
    let credential = Credential::of_salted(
        mechanism(upsertion.mechanism)?,
        &upsertion.salted_password,
        upsertion.salt.to_vec(),
        u32::try_from(upsertion.iterations).unwrap_or(0),
    );
    match credential {
        Ok(credential) => Ok(CredentialRecord::Scram {
            user: upsertion.name.clone(),
            credential,
        }),
        Err(error) => Err((errors::credential(&error.clone().into()), error.to_string())),
    }
}
