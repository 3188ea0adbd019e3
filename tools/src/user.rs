//! Who runs a command, as far as the environment says: for the record, and checked by nobody.

/// The name of the user of this machine.
pub(crate) fn user_name() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .unwrap_or_else(|| "unknown".to_owned())
}
