//! Logs go to stderr, as text or as JSON lines. `ALLUVIUM_LOG` filters them as `RUST_LOG` does elsewhere.

use tracing_subscriber::EnvFilter;

/// The variable that says what is logged.
const VARIABLE: &str = "ALLUVIUM_LOG";

/// `ALLUVIUM_LOG` is no filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "environment variable {VARIABLE}: {reason}; write `debug`, or `info,alluvium::front=debug`"
)]
pub struct NoFilter {
    reason: String,
}

/// Starts logging, once, for the process. A filter that cannot be read is refused, not replaced.
pub fn start(json: bool) -> Result<(), NoFilter> {
    let refuse = |reason: String| NoFilter { reason };
    let filter = match std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
        None => EnvFilter::new("info"),
        Some(text) => {
            let text = text
                .to_str()
                .ok_or_else(|| refuse("its value is not UTF-8".to_owned()))?;
            EnvFilter::builder()
                .parse(text)
                .map_err(|error| refuse(error.to_string()))?
        }
    };
    let color = std::env::var_os("NO_COLOR").is_none()
        && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        // Where standard error has no reader, the complaint about that would panic.
        .log_internal_errors(false);
    if json {
        log.json().init()
    } else {
        log.init()
    }
    Ok(())
}
