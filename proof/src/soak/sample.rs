//! One look at the broker: what it holds, and how long acknowledgements took since the last look.
//! Caller: `soak::run`. Source: /proc of the process, and the files of the data directory.

use crate::exam::victim::Victim;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was measured at one time.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Since the begin.
    pub at: Duration,
    /// Resident memory, mapped files included.
    pub resident_bytes: u64,
    /// Resident memory that belongs to no file.
    pub anonymous_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Entries in the table of maps.
    pub maps: u64,
    /// Threads.
    pub threads: u64,
    /// Length of all files of the data directory.
    pub data_bytes: u64,
    /// None where a restart lies between this sample and the last.
    pub latency: Option<Latency>,
    /// How long the machine itself took in the same time, for a write and a sync without a broker.
    pub bare: Option<Latency>,
}

/// Acknowledgements between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Half of them came within this.
    pub p50: Duration,
    /// And all but one in a hundred within this.
    pub p99: Duration,
}

/// A restart of the broker.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// When it was brought down.
    pub at: Duration,
    /// By SIGKILL; otherwise by SIGTERM.
    pub killed: bool,
    /// Until it was ready again.
    pub down: Duration,
}

/// Takes samples.
pub struct Sampler {
    data: PathBuf,
    skip: bool,
}

impl Sampler {
    /// Of a broker with this data directory.
    pub fn new(data: &Path) -> Sampler {
        Sampler {
            data: data.to_owned(),
            skip: true,
        }
    }

    /// The next latencies are of requests that a restart held up.
    pub fn skip_latency(&mut self) {
        self.skip = true;
    }

    /// Takes one.
    pub fn take(
        &mut self,
        at: Duration,
        broker: &Victim,
        latencies: Vec<Duration>,
        bare: Vec<Duration>,
    ) -> Result<Sample> {
        let skip = std::mem::take(&mut self.skip);
        Ok(Sample {
            at,
            resident_bytes: broker.resident_bytes()?,
            anonymous_bytes: broker.anonymous_bytes()?,
            descriptors: broker.descriptors()? as u64,
            maps: broker.maps()? as u64,
            threads: broker.threads()?,
            data_bytes: length_of(&self.data)?,
            latency: if skip { None } else { percentiles(latencies) },
            bare: percentiles(bare),
        })
    }
}

fn percentiles(mut latencies: Vec<Duration>) -> Option<Latency> {
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len() as f64 * part).ceil() as usize;
        latencies.get(index.saturating_sub(1)).copied()
    };
    Some(Latency {
        p50: at(0.50)?,
        p99: at(0.99)?,
    })
}

/// Files come and go meanwhile; those that have gone count for nothing.
fn length_of(directory: &Path) -> Result<u64> {
    let mut total = 0;
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Ok(0);
    };
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(found) if found.is_dir() => total += length_of(&entry.path())?,
            Ok(found) => total += found.len(),
            Err(_) => {}
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_values_themselves() {
        let millis = |n| Duration::from_millis(n);
        let latencies = (1..=200).rev().map(millis).collect();
        assert_eq!(
            percentiles(latencies),
            Some(Latency {
                p50: millis(100),
                p99: millis(198)
            })
        );
        assert_eq!(
            percentiles(vec![millis(7)]),
            Some(Latency {
                p50: millis(7),
                p99: millis(7)
            })
        );
        assert_eq!(percentiles(Vec::new()), None);
    }
}
