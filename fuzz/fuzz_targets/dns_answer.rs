//! Any bytes as an answer to our question for `a.example`: only addresses that stand in it, of the family that was asked for, not too many.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use remit::scope::DomainName;
use remit::wire::dns::{self, Answer};

fuzz_target!(|bytes: &[u8]| {
    let name: DomainName = "a.example".parse().unwrap();
    let other: DomainName = "b.example".parse().unwrap();
    // As if we had asked with its id: else nearly every one would be refused for that alone.
    let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    for six in [false, true] {
        let Ok(answer) = dns::answer(bytes, id, &name, six) else { continue };
        if let Answer::Addresses(addresses, _) = &answer {
            assert!(addresses.len() <= 32);
            for address in addresses {
                assert_eq!(address.is_ipv6(), six);
                let stands_in_it = match address {
                    IpAddr::V4(a) => bytes.windows(4).any(|window| window == a.octets()),
                    IpAddr::V6(a) => bytes.windows(16).any(|window| window == a.octets()),
                };
                assert!(stands_in_it, "{address} came from nowhere");
            }
        }
        assert_eq!(dns::answer(&[bytes, &[0, 1, 2]].concat(), id, &name, six), Ok(answer), "what follows the records counts for nothing");
        assert!(dns::answer(bytes, !id, &name, six).is_err(), "another id");
        assert!(dns::answer(bytes, id, &other, six).is_err(), "another name");
        assert!(dns::answer(bytes, id, &name, !six).is_err(), "another family");
    }
});
