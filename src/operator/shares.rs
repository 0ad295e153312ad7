//! How many connections each peer holds.
//!
//! Promise: none holds more than its share of them, so that one pod cannot keep the API server out. In: addresses. Out: a [`Share`], for
//! as long as the connection lasts.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

type Held<K> = Arc<Mutex<HashMap<K, usize>>>;

pub struct Shares<K = IpAddr> {
    most: usize,
    held: Held<K>,
}

/// One connection of a peer.
pub struct Share<K: Eq + Hash = IpAddr> {
    peer: K,
    held: Held<K>,
}

impl Shares {
    /// None if the peer has its share already.
    pub fn take(&self, address: IpAddr) -> Option<Share> {
        self.take_for(peer(address))
    }
}

impl<K: Eq + Hash + Clone> Shares<K> {
    pub fn new(most: usize) -> Self {
        Self { most, held: Held::default() }
    }

    /// The same for peers that are known by something else than their address.
    pub fn take_for(&self, peer: K) -> Option<Share<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(peer.clone()).or_default();
        (*count < self.most).then(|| {
            *count += 1;
            Share { peer, held: self.held.clone() }
        })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.peer)),
        }
    }
}

/// Whom an address counts for: an IPv4 address, however it is written, or the /64 of an IPv6 one, all of which one machine may use.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_an_address_counts_for() {
        for (address, counts_for) in [
            ("10.1.2.3", "10.1.2.3"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
            ("::1", "::"),
        ] {
            assert_eq!(peer(address.parse().unwrap()), counts_for.parse::<IpAddr>().unwrap(), "{address}");
        }
    }

    #[test]
    fn one_peer_takes_its_share_and_no_more() {
        let shares = Shares::new(2);
        let take = |address: &str| shares.take(address.parse().unwrap());
        let (first, second) = (take("10.0.0.1"), take("::ffff:10.0.0.1"));
        assert!(first.is_some() && second.is_some());
        assert!(take("10.0.0.1").is_none() && take("::ffff:10.0.0.1").is_none());
        let other = take("10.0.0.2");
        assert!(other.is_some());
        drop(first);
        let third = take("10.0.0.1");
        assert!(third.is_some() && take("10.0.0.1").is_none());
        drop((second, other, third));
        assert!(shares.held.lock().unwrap().is_empty(), "nobody is remembered who holds nothing");
    }
}
