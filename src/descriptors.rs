//! Descriptors: how many the process may open, and who gets them.
//! Callers: `serve`, once, before anything is opened. Invariant: connections can never take what the storage needs: without a
//! descriptor it could not settle what was acknowledged, and would have to stop.

/// What is neither a connection nor a segment that is kept open: the write-ahead log's files, a segment that is being written, one
/// that is being checked, listeners, and what the runtime itself needs.
const RESERVE: usize = 64;
/// The least number of segments that are kept open.
const SEGMENTS_MIN: usize = 16;
/// The least limit with which all of this leaves room for clients.
const LIMIT_MIN: usize = 128;

/// What one front asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Connections that it could have at most.
    pub connections: usize,
    /// Its part beside the other fronts' where not all can have what they ask for.
    pub weight: usize,
}

/// Who gets how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Segments that are kept open.
    pub segments: usize,
    /// Connections of each front, in the order in which they asked.
    pub fronts: Vec<usize>,
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

/// Shares `limit` descriptors out to segments that are kept open and to fronts. Segments get no more than half, fronts the
/// rest: each what it asks for, or its part of what those leave that ask for less.
pub fn share(limit: usize, segments: usize, fronts: &[Ask]) -> Result<Shares, TooFew> {
    if limit < LIMIT_MIN {
        return Err(TooFew(limit));
    }
    let free = limit - RESERVE;
    let segments = segments.min((free / 2).max(SEGMENTS_MIN));
    Ok(Shares {
        segments,
        fronts: by_weight(free - segments, fronts),
    })
}

/// Gives each at most what it asks for, and those that cannot have it a part by their weight of what is left.
fn by_weight(total: usize, asks: &[Ask]) -> Vec<usize> {
    let mut given = vec![0; asks.len()];
    // Those that need the smallest part for their weight are satisfied first, so that what they leave goes to the others.
    let mut order: Vec<usize> = (0..asks.len()).collect();
    order.sort_by_key(|index| asks[*index].connections / asks[*index].weight.max(1));
    let mut left = total;
    let mut weights: usize = asks.iter().map(|ask| ask.weight).sum();
    for index in order {
        let ask = asks[index];
        let part = match weights {
            0 => 0,
            _ => (left as u128 * ask.weight as u128 / weights as u128) as usize,
        };
        given[index] = ask.connections.min(part);
        left -= given[index];
        weights -= ask.weight;
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(kafka: usize) -> [Ask; 2] {
        [
            Ask {
                connections: kafka,
                weight: 3,
            },
            Ask {
                connections: 256,
                weight: 1,
            },
        ]
    }

    #[test]
    fn all_shares_fit_into_the_limit_and_nobody_gets_more_than_asked_for() {
        for limit in [
            128,
            129,
            200,
            256,
            1_000,
            1_024,
            4_096,
            65_536,
            1_048_576,
            usize::MAX,
        ] {
            for segments in [16, 1_024, 100_000] {
                for connections in [1, 50, 50_000] {
                    let shares = share(limit, segments, &asks(connections)).unwrap();
                    let sum = shares.segments + shares.fronts.iter().sum::<usize>();
                    assert!(sum <= limit - RESERVE, "{limit}: {shares:?}");
                    assert!(shares.segments <= segments && shares.segments >= SEGMENTS_MIN);
                    assert!(shares.fronts[0] <= connections && shares.fronts[0] >= 1);
                    assert!(shares.fronts[1] <= 256 && shares.fronts[1] >= 4);
                }
            }
        }
    }

    #[test]
    fn with_enough_everybody_gets_what_was_asked_for() {
        let shares = share(1_048_576, 1_024, &asks(50_000)).unwrap();
        assert_eq!((shares.segments, shares.fronts), (1_024, vec![50_000, 256]));
    }

    #[test]
    fn fronts_that_ask_for_too_much_share_by_weight_what_the_others_leave() {
        let ask = |connections, weight| Ask {
            connections,
            weight,
        };
        let asks = [ask(50_000, 3), ask(10, 1), ask(50_000, 1)];
        assert_eq!(by_weight(410, &asks), [300, 10, 100]);
        assert_eq!(by_weight(400, &[ask(50_000, 3), ask(256, 1)]), [300, 100]);
        assert_eq!(by_weight(0, &asks), [0, 0, 0]);
        assert_eq!(by_weight(5, &[]), [0; 0]);
    }

    #[test]
    fn too_few_are_an_error_that_says_what_to_do() {
        let error = share(100, 16, &asks(10)).unwrap_err().to_string();
        assert!(
            error.contains("may open 100") && error.contains("ulimit -n"),
            "{error}"
        );
    }
}
