//! Credentials of a password.
//! Callers: `credentials` and `users`.

use model::sasl::{Credential, CredentialRecord, ScramMechanism, Unacceptable};
use zeroize::Zeroizing;

use super::random::random;
use crate::broker::on_blocking_pool;

/// The length of the salts that are made here.
const SALT_BYTES: usize = 20;

/// A credential of each mechanism for a password.
pub(super) async fn of_password(
    user: String,
    password: Zeroizing<Vec<u8>>,
    iterations: u32,
) -> Result<Vec<CredentialRecord>, Unacceptable> {
    on_blocking_pool(move || {
        let of = |mechanism| {
            let salt = random::<SALT_BYTES>().to_vec();
            Ok(CredentialRecord::Scram {
                user: user.clone(),
                credential: Credential::of_password(mechanism, &password, salt, iterations)?,
            })
        };
        ScramMechanism::ALL.into_iter().map(of).collect()
    })
    .await
}
