//! Logs go to stderr, as text or as JSON lines. `ALLUVIUM_LOG` filters them as `RUST_LOG` does elsewhere.

use tracing_subscriber::EnvFilter;

/// Starts logging, once, for the process.
pub fn start(json: bool) {
    let filter = EnvFilter::try_from_env("ALLUVIUM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let color = std::env::var_os("NO_COLOR").is_none()
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color);
    if json { log.json().init() } else { log.init() }
}
