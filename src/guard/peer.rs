//! Who asks: a process of this pod, or somebody else.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Mutex;

/// Addresses of the pod that are remembered.
const MOST: usize = 16;

/// The pod's own addresses, as they are met.
#[derive(Default)]
pub struct Own(Mutex<Vec<IpAddr>>);

impl Own {
    /// Whether this address is the pod's own, or loopback. Only those can be bound; what a process puts into its packets does not count.
    pub fn has(&self, mut peer: SocketAddr) -> bool {
        if peer.ip().to_canonical() != peer.ip() {
            peer.set_ip(peer.ip().to_canonical());
        }
        let ip = peer.ip();
        // These can be bound and are nobody's.
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255; 4]) {
            return false;
        }
        let known = || self.0.lock().unwrap_or_else(|e| e.into_inner());
        if ip.is_loopback() || known().contains(&ip) {
            return true;
        }
        peer.set_port(0);
        let own = UdpSocket::bind(peer).is_ok();
        let mut known = known();
        if own && known.len() < MOST {
            known.push(ip);
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_of_this_pod() {
        let own = Own::default();
        for (peer, expected) in [
            ("127.0.0.1:9", true),
            ("127.8.8.8:9", true),
            ("[::1]:9", true),
            ("[::ffff:127.0.0.1]:9", true),
            ("203.0.113.7:9", false),
            ("[2001:db8::7]:9", false),
            ("[::ffff:203.0.113.7]:9", false),
            ("0.0.0.0:9", false),
            ("[::]:9", false),
            ("224.0.0.1:9", false),
            ("[ff02::1]:9", false),
            ("255.255.255.255:9", false),
        ] {
            assert_eq!(own.has(peer.parse().unwrap()), expected, "{peer}");
        }
    }
}
