//! Addresses: which are public, and which blocks say so.
//!
//! "Public" is what remains of all addresses after everything that is private, special or the cluster's own is taken out,
//! whatever numbers the cluster bears: a cluster numbered from a global block is not the outside.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

/// A set of addresses: blocks, aggregated and sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ranges(Vec<IpNet>);

/// A block of addresses with holes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressBlock {
    pub cidr: IpNet,
    /// Sorted, aggregated, each strictly inside `cidr`.
    pub except: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a block of addresses such as 192.0.2.0/24 or 2001:db8::/64")]
pub struct RangesError(String);

/// Blocks of addresses that are never the outside: private, special, or able to carry such an address inside.
const NOT_PUBLIC: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "168.63.129.16/32", // a cloud's services for its virtual machines
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/32",    // Teredo
    "2001:2::/48",  // benchmarking
    "2001:10::/28", // ORCHID
    "2001:20::/28", // ORCHIDv2
    "2002::/16",    // 6to4
];

/// All addresses that could be public. Outside of 2000::/3 lie loopback, mapped, NAT64, unique local, link-local and multicast.
const UNIVERSE: [&str; 2] = ["0.0.0.0/0", "2000::/3"];

impl Ranges {
    pub fn new(blocks: impl IntoIterator<Item = IpNet>) -> Self {
        let mut all: Vec<IpNet> = blocks.into_iter().map(|b| b.trunc()).collect();
        all = IpNet::aggregate(&all);
        all.sort();
        Self(all)
    }

    pub fn parse<S: AsRef<str>>(blocks: impl IntoIterator<Item = S>) -> Result<Self, RangesError> {
        blocks.into_iter().map(|b| parse_block(b.as_ref())).collect::<Result<Vec<_>, _>>().map(Self::new)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|b| b.contains(&address))
    }

    pub fn blocks(&self) -> &[IpNet] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The public addresses as blocks, one for each family that has any, with everything private and these, the cluster's own, left out.
    pub fn outside(&self) -> Vec<AddressBlock> {
        let holes = Self::new(self.0.iter().copied().chain(not_public()));
        universe().filter_map(|cidr| holes.cut_from(cidr)).collect()
    }

    /// Whether this address is public and not one of these, the cluster's own.
    pub fn is_outside(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !self.contains(address) && !not_public().any(|b| b.contains(&address)) && universe().any(|b| b.contains(&address))
    }

    fn cut_from(&self, cidr: IpNet) -> Option<AddressBlock> {
        if self.0.iter().any(|hole| hole.contains(&cidr)) {
            return None;
        }
        let except = self.0.iter().filter(|hole| cidr.contains(*hole)).copied().collect();
        Some(AddressBlock { cidr, except })
    }
}

/// A block or a single address. An IPv4 address in IPv6 clothes is taken as what it is; a block of them is refused, as the API server does.
pub fn parse_block(text: &str) -> Result<IpNet, RangesError> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical())));
    net.ok().filter(|net| net.addr().to_canonical() == net.addr()).map(|net| net.trunc()).ok_or_else(|| RangesError(text.to_owned()))
}

fn not_public() -> impl Iterator<Item = IpNet> {
    NOT_PUBLIC.iter().map(|b| b.parse().expect("a constant block"))
}

fn universe() -> impl Iterator<Item = IpNet> {
    UNIVERSE.iter().map(|b| b.parse().expect("a constant block"))
}

impl AddressBlock {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|e| e.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn outside_table() {
        // A cluster numbered from public ranges, in both families.
        let own = Ranges::parse(["198.51.100.0/24", "2001:db8:10:244::/64", "10.96.0.0/16", "fd00:10:96::/112"]).unwrap();
        let cases = [
            ("203.0.113.10", true),
            ("8.8.8.8", true),
            ("2001:db8:ffff::10", true),
            ("198.51.100.7", false),       // a pod
            ("2001:db8:10:244::7", false), // a pod
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("168.63.129.16", false),
            ("172.31.255.255", false),
            ("192.168.1.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("::", false),
            ("::1", false),
            ("::ffff:169.254.169.254", false), // mapped
            ("::ffff:8.8.8.8", true),          // the same as 8.8.8.8
            ("64:ff9b::a9fe:a9fe", false),     // NAT64
            ("2002:a9fe:a9fe::1", false),      // 6to4
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
        ];
        let blocks = own.outside();
        for (address, expected) in cases {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(own.is_outside(address), expected, "{address}");
            assert_eq!(blocks.iter().any(|b| b.contains(address.to_canonical())), expected, "blocks: {address}");
        }
    }

    #[test]
    fn a_cluster_that_is_everything_leaves_no_outside() {
        let own = Ranges::parse(["0.0.0.0/0", "::/0"]).unwrap();
        assert_eq!(own.outside(), vec![]);
    }

    #[test]
    fn refuses_what_is_no_block() {
        for text in ["", "10.0.0.0/33", "help.example.com", "10.0.0", "::/129", "::ffff:10.0.0.0/104"] {
            assert!(Ranges::parse([text]).is_err(), "{text}");
        }
        assert_eq!(Ranges::parse(["10.1.2.3/8"]).unwrap().blocks(), Ranges::parse(["10.0.0.0/8"]).unwrap().blocks());
    }

    proptest! {
        /// Blocks and the judgement of single addresses never disagree, and every hole is strictly inside its block
        /// (the API server refuses others).
        #[test]
        fn blocks_say_what_the_judgement_says(own in proptest::collection::vec((any::<u32>(), 1u8..=32), 0..6), own6 in proptest::collection::vec((any::<u128>(), 1u8..=128), 0..6), v4 in any::<u32>(), v6 in any::<u128>()) {
            let nets = own.iter().map(|(a, p)| IpNet::new(IpAddr::V4((*a).into()), *p).unwrap())
                .chain(own6.iter().map(|(a, p)| IpNet::new(IpAddr::V6((*a).into()), *p).unwrap()));
            let own = Ranges::new(nets);
            let blocks = own.outside();
            for address in [IpAddr::V4(v4.into()), IpAddr::V6((v6 >> 3 | 1 << 125).into())] {
                let address = address.to_canonical();
                prop_assert_eq!(own.is_outside(address), blocks.iter().any(|b| b.contains(address)));
            }
            for block in &blocks {
                for hole in &block.except {
                    prop_assert!(block.cidr.contains(hole) && block.cidr != *hole);
                }
            }
        }
    }
}
