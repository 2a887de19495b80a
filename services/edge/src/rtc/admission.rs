//! Who may offer how often: an offer costs us a key exchange and a place, and its sender next to nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Addresses and tokens that are remembered, at most; then whoever is new waits until others' minutes are over.
const REMEMBERED_MAX: usize = 16_384;

/// The window of an address or a token.
const MINUTE: Duration = Duration::from_secs(60);

/// The window of all.
const SECOND: Duration = Duration::from_secs(1);

/// Offers in a window, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Of one address, in a minute.
    pub(super) per_address: u32,
    /// With one token, in a minute.
    pub(super) per_token: u32,
    /// Of all, in a second.
    pub(super) all: u32,
}

/// Why an offer is refused, and when to come again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooMany {
    pub(super) of: &'static str,
    pub(super) retry: Duration,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Who {
    Address(IpAddr),
    Token([u8; 32]),
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    count: u32,
}

impl Window {
    /// Takes one; else how long until one can be taken.
    fn take(&mut self, length: Duration, max: u32, now: Instant) -> Result<(), Duration> {
        let age = now.saturating_duration_since(self.since);
        if age >= length {
            *self = Window { since: now, count: 0 };
        } else if self.count >= max {
            return Err(length - age);
        }
        self.count += 1;
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Admission {
    rates: Rates,
    all: Window,
    each: HashMap<Who, Window>,
}

impl Admission {
    pub(super) fn new(rates: Rates, now: Instant) -> Self {
        Self { rates, all: Window { since: now, count: 0 }, each: HashMap::new() }
    }

    /// An offer has come, from that address and with a token of that SHA-256.
    pub(super) fn admit(
        &mut self,
        address: Option<IpAddr>,
        token: Option<[u8; 32]>,
        now: Instant,
    ) -> Result<(), TooMany> {
        let Rates { per_address, per_token, all } = self.rates;
        // Whoever is refused for its own sake takes nothing from the others.
        if let Some(address) = address {
            let who = Who::Address(network(address));
            self.of(who, per_address, now).map_err(|retry| TooMany { of: "of this address in a minute", retry })?;
        }
        if let Some(token) = token {
            let who = Who::Token(token);
            self.of(who, per_token, now).map_err(|retry| TooMany { of: "with this token in a minute", retry })?;
        }
        self.all.take(SECOND, all, now).map_err(|retry| TooMany { of: "in a second", retry })
    }

    fn of(&mut self, who: Who, max: u32, now: Instant) -> Result<(), Duration> {
        if self.each.len() >= REMEMBERED_MAX && !self.each.contains_key(&who) {
            self.each.retain(|_, w| now.saturating_duration_since(w.since) < MINUTE);
            if self.each.len() >= REMEMBERED_MAX {
                return Err(MINUTE);
            }
        }
        self.each.entry(who).or_insert(Window { since: now, count: 0 }).take(MINUTE, max, now)
    }
}

/// Of IPv6 a customer has a /64 at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_stopped_where_it_comes_from() {
        let now = Instant::now();
        let mut admission = Admission::new(Rates { per_address: 2, per_token: 3, all: 100 }, now);
        let (here, there): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let mut ask = |address, token, now| admission.admit(Some(address), token, now).map_err(|e| e.of);
        assert_eq!(ask(here, None, now), Ok(()));
        assert_eq!(ask(here, None, now), Ok(()));
        assert_eq!(ask(here, None, now), Err("of this address in a minute"));
        assert_eq!(ask(there, Some([1; 32]), now), Ok(()));
        let later = now + MINUTE;
        assert_eq!(ask(here, None, later), Ok(()));
        // One token from many addresses.
        for last in 10..12 {
            assert_eq!(ask([192, 0, 2, last].into(), Some([1; 32]), now), Ok(()));
        }
        assert_eq!(ask([192, 0, 2, 99].into(), Some([1; 32]), now), Err("with this token in a minute"));
    }

    #[test]
    fn a_flood_from_everywhere_is_stopped() {
        let now = Instant::now();
        let mut admission = Admission::new(Rates { per_address: 100, per_token: 100, all: 3 }, now);
        let mut ask = |n: u16, now| admission.admit(Some(Ipv6Addr::new(0x2001, n, 0, 0, 0, 0, 0, n).into()), None, now);
        (0..3).for_each(|n| assert_eq!(ask(n, now), Ok(())));
        assert_eq!(ask(3, now), Err(TooMany { of: "in a second", retry: SECOND }));
        assert_eq!(ask(4, now + SECOND), Ok(()));
    }

    #[test]
    fn neighbours_of_one_64_count_as_one() {
        let now = Instant::now();
        let mut admission = Admission::new(Rates { per_address: 1, per_token: 1, all: 100 }, now);
        let of = |last| Some(IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, last)));
        assert!(admission.admit(of(1), None, now).is_ok() && admission.admit(of(2), None, now).is_err());
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let now = Instant::now();
        let mut admission = Admission::new(Rates { per_address: 9, per_token: 9, all: u32::MAX }, now);
        for n in 0..REMEMBERED_MAX as u32 + 10 {
            let _ = admission.admit(Some(std::net::Ipv4Addr::from(n).into()), None, now);
        }
        assert_eq!(admission.each.len(), REMEMBERED_MAX);
        assert!(admission.admit(Some([1, 2, 3, 4].into()), None, now + MINUTE).is_ok());
    }
}
