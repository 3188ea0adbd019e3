//! Descriptors: how many the process may open, and who gets them.
//! Callers: `serve`, once, before anything is opened. Invariant: connections can never take what the storage needs: without a
//! descriptor it could not lay down what was acknowledged, and would have to stop.

/// What is neither a connection nor a segment that is kept open: the write-ahead log's files, a segment that is being written, one
/// that is being checked, listeners, and what the runtime itself needs.
const RESERVE: usize = 64;
/// The least number of segments that are kept open.
const SEGMENTS_MIN: usize = 16;
/// Connections that ask for health and metrics.
const HTTP_CONNECTIONS_MAX: usize = 256;
/// The least limit with which all of this leaves room for clients.
const LIMIT_MIN: usize = 128;

/// Who gets how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Segments that are kept open.
    pub segments: usize,
    /// Connections to the Kafka port.
    pub connections: usize,
    /// Connections to the HTTP port.
    pub http_connections: usize,
}

/// The limit does not let a server run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may open {0} descriptors, and needs {LIMIT_MIN} at least: raise the limit (`ulimit -n`, LimitNOFILE=)"
)]
pub struct TooFew(usize);

/// Raises the limit as far as this user may, and tells it.
pub fn raise_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    let now = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.current,
        Err(_) => before,
    };
    now.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// Shares `limit` descriptors out to what the settings ask for.
pub fn share(limit: usize, segments: usize, connections: usize) -> Result<Shares, TooFew> {
    if limit < LIMIT_MIN {
        return Err(TooFew(limit));
    }
    let free = limit - RESERVE;
    let segments = segments.min((free / 2).max(SEGMENTS_MIN));
    let free = free - segments;
    let http_connections = HTTP_CONNECTIONS_MAX.min(free / 4);
    Ok(Shares {
        segments,
        connections: connections.min(free - http_connections),
        http_connections,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_fit_into_the_limit_and_nobody_gets_more_than_asked_for() {
        for limit in [128, 129, 200, 256, 1_000, 1_024, 4_096, 65_536, 1_048_576] {
            for segments in [16, 1_024, 100_000] {
                for connections in [1, 50, 50_000] {
                    let shares = share(limit, segments, connections).unwrap();
                    let sum = shares.segments + shares.connections + shares.http_connections;
                    assert!(sum + RESERVE <= limit, "{limit}: {shares:?}");
                    assert!(shares.segments <= segments && shares.segments >= SEGMENTS_MIN);
                    assert!(shares.connections <= connections && shares.connections >= 1);
                    assert!(shares.http_connections >= 4);
                }
            }
        }
    }

    #[test]
    fn with_enough_everybody_gets_what_was_asked_for() {
        let shares = share(1_048_576, 1_024, 50_000).unwrap();
        assert_eq!((shares.segments, shares.connections), (1_024, 50_000));
    }

    #[test]
    fn too_few_are_an_error_that_says_what_to_do() {
        let error = share(100, 16, 10).unwrap_err().to_string();
        assert!(
            error.contains("may open 100") && error.contains("ulimit -n"),
            "{error}"
        );
    }
}
