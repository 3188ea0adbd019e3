//! Attempts: how often logins from an address may fail.
//! Callers: `login`. Pure: the time is given. Invariant: it remembers a bounded number of addresses; those beyond share what one has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 10_000;
/// The time over which failures are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// What addresses have left.
#[derive(Debug)]
pub(super) struct Attempts {
    failures_max: f64,
    addresses: HashMap<IpAddr, Left>,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    attempts: f64,
    at: Duration,
}

impl Attempts {
    /// So many failures in a minute, for each address.
    pub(super) fn new(failures_max: u32) -> Attempts {
        Attempts {
            failures_max: failures_max.into(),
            addresses: HashMap::new(),
        }
    }

    /// Takes one attempt; false if none is left.
    pub(super) fn take(&mut self, address: IpAddr, now: Duration) -> bool {
        let mut key = network(address);
        if !self.addresses.contains_key(&key) && self.addresses.len() >= ADDRESSES_MAX {
            let most = self.failures_max;
            self.addresses
                .retain(|_, left| left.renewed(most, now).attempts < most);
            if self.addresses.len() >= ADDRESSES_MAX {
                key = Ipv6Addr::UNSPECIFIED.into();
            }
        }
        let most = self.failures_max;
        let left = self.addresses.entry(key).or_insert(Left {
            attempts: most,
            at: now,
        });
        *left = left.renewed(most, now);
        if left.attempts < 1.0 {
            return false;
        }
        left.attempts -= 1.0;
        true
    }

    /// Gives one back: it did not fail.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        let most = self.failures_max;
        if let Some(left) = self.addresses.get_mut(&network(address)) {
            left.attempts = most.min(left.attempts + 1.0);
        }
    }
}

impl Left {
    fn renewed(self, most: f64, now: Duration) -> Left {
        let passed = now.saturating_sub(self.at).as_secs_f64() / WINDOW.as_secs_f64();
        Left {
            attempts: most.min(self.attempts + passed * most),
            at: now,
        }
    }
}

/// Who has one address of IPv6 has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network | 1).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn an_address_has_its_failures_a_minute_and_others_notice_nothing() {
        let mut attempts = Attempts::new(6);
        let (guesser, honest) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        for _ in 0..6 {
            assert!(attempts.take(guesser, NOW));
        }
        assert!(!attempts.take(guesser, NOW));
        for _ in 0..100 {
            assert!(attempts.take(honest, NOW));
            attempts.give_back(honest);
        }
        let later = NOW + Duration::from_secs(11);
        assert!(attempts.take(guesser, later));
        assert!(!attempts.take(guesser, later));
        let much_later = NOW + Duration::from_secs(600);
        assert_eq!(
            (0..100)
                .filter(|_| attempts.take(guesser, much_later))
                .count(),
            6
        );
    }

    #[test]
    fn addresses_that_one_has_count_as_one() {
        let mut attempts = Attempts::new(1);
        assert!(attempts.take("2001:db8::1".parse().unwrap(), NOW));
        assert!(!attempts.take("2001:db8::2:0:0:2".parse().unwrap(), NOW));
        assert!(attempts.take("2001:db8:0:1::1".parse().unwrap(), NOW));
        assert!(attempts.take([192, 0, 2, 1].into(), NOW));
        assert!(!attempts.take("::ffff:192.0.2.1".parse().unwrap(), NOW));
    }

    #[test]
    fn no_more_addresses_are_remembered_than_may_be() {
        let mut attempts = Attempts::new(1);
        for number in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            attempts.take(std::net::Ipv4Addr::from_bits(number).into(), NOW);
        }
        assert!(attempts.addresses.len() <= ADDRESSES_MAX + 1);
        // Those that are whole again are forgotten.
        let later = NOW + WINDOW;
        assert!(attempts.take([250, 0, 0, 1].into(), later));
        assert_eq!(attempts.addresses.len(), 1);
    }
}
