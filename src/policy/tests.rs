use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::scope::DomainName;

/// A workload of namespace `support` with a Service elsewhere, one at home, two hosts and the API server.
fn document() -> Document {
    serde_json::from_value(json!({
        "format": 1,
        "workload": {"namespace": "support", "name": "bot", "uid": "u-1"},
        "generation": 3, "digest": "d", "mode": "Enforce", "suspended": false,
        "network": {
            "domain": "cluster.local", "dns": ["10.96.0.10:53", "[fd00:10:96::a]:53"],
            "services": ["10.244.0.0/16", "10.96.0.0/16", "2001:db8:10:244::/64", "fd00:10:96::/112"],
            "own": ["10.244.0.0/16", "10.96.0.0/16", "2001:db8:10:244::/64", "fd00:10:96::/112", "192.0.2.1/32"]
        },
        "destinations": [
            {"source": "orders", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [5432, 15432]}},
            {"source": "cache", "target": {"type": "Service", "name": "cache", "namespace": "support", "ports": [6379]}},
            {"source": "legacy", "target": {"type": "Service", "name": "legacy", "namespace": "support", "ports": [1521], "addresses": ["192.168.7.0/24"]}},
            {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 443}},
            {"source": "odd", "target": {"type": "Host", "name": "odd.example.com", "port": 8443}},
            {"source": "api", "target": {"type": "Kubernetes", "addresses": ["10.96.0.1:443", "192.0.2.1:6443"]}}
        ]
    }))
    .unwrap()
}

fn policy() -> GuardPolicy {
    document().try_into().unwrap()
}

fn with(change: impl FnOnce(&mut Document)) -> GuardPolicy {
    let mut document = document();
    change(&mut document);
    document.try_into().unwrap()
}

fn name(text: &str) -> DomainName {
    text.parse().unwrap()
}

fn search() -> Vec<DomainName> {
    ["support.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example.com"].map(name).into()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn names() {
    let policy = policy();
    let refused = Lookup::Refuse(Reason::NameNotDeclared);
    let cases = [
        ("orders.shop.svc.cluster.local", Lookup::Resolve),
        ("ORDERS.shop.SVC.cluster.local.", Lookup::Resolve),
        ("cache.support.svc.cluster.local", Lookup::Resolve),
        ("orders-0.orders.shop.svc.cluster.local", Lookup::Resolve), // a pod of a headless Service
        ("help.example.com", Lookup::Resolve),
        ("kubernetes.default.svc.cluster.local", Lookup::Resolve),
        // What a resolver tries on the way there.
        ("orders.shop.support.svc.cluster.local", Lookup::NotThere),
        ("orders.shop.svc.support.svc.cluster.local", Lookup::NotThere),
        ("help.example.com.support.svc.cluster.local", Lookup::NotThere),
        ("help.example.com.corp.example.com", Lookup::NotThere),
        ("orders.shop", Lookup::NotThere),
        ("cache", Lookup::NotThere),
        ("cache.svc.cluster.local", Lookup::NotThere),
        ("kubernetes.default", Lookup::NotThere),
        // Everything else.
        ("ledger.finance.svc.cluster.local", refused.clone()),
        ("orders.finance.svc.cluster.local", refused.clone()),
        ("orders.support.svc.cluster.local", refused.clone()), // another Service: `orders` alone is not a name for shop's
        ("a.b.orders.shop.svc.cluster.local", refused.clone()),
        ("secret.help.example.com", refused.clone()),
        ("example.com", refused.clone()),
        ("evilhelp.example.com", refused.clone()),
        ("payload.evil.example", refused.clone()),
        ("payload.evil.example.support.svc.cluster.local", refused.clone()),
        ("orders", refused),
    ];
    for (text, expected) in cases {
        assert_eq!(policy.lookup(&name(text), Record::A, &search()), expected, "{text}");
    }
    assert_eq!(policy.lookup(&name("help.example.com"), Record::Other, &search()), Lookup::Empty);
    let suspended = with(|d| d.suspended = true);
    assert_eq!(suspended.lookup(&name("help.example.com"), Record::A, &search()), Lookup::Refuse(Reason::Suspended));
    let observed = with(|d| d.mode = Mode::Observe);
    assert_eq!(observed.lookup(&name("evil.example"), Record::Other, &search()), Lookup::Observed(Reason::NameNotDeclared));
    assert_eq!(observed.lookup(&name("help.example.com"), Record::A, &search()), Lookup::Resolve);
}

#[test]
fn what_names_may_resolve_to() {
    let policy = with(|d| {
        let addresses = [at("127.0.0.1:443")].into();
        d.destinations.push(Destination { source: "loopback".into(), target: Target::Kubernetes { addresses } });
    });
    let cases = [
        ("orders.shop.svc.cluster.local", "10.96.7.7", true),
        ("orders.shop.svc.cluster.local", "10.244.3.4", true),
        ("orders.shop.svc.cluster.local", "::ffff:10.244.3.4", true),
        ("orders.shop.svc.cluster.local", "2001:db8:10:244::9", true),
        ("orders.shop.svc.cluster.local", "203.0.113.7", false), // ExternalName or hand-made endpoints
        ("orders.shop.svc.cluster.local", "169.254.169.254", false),
        ("orders.shop.svc.cluster.local", "192.0.2.1", false), // the node
        ("orders.shop.svc.cluster.local", "192.168.7.9", false),
        ("orders.shop.svc.cluster.local", "10.96.0.10", false), // the cluster's DNS
        ("orders.shop.svc.cluster.local", "fd00:10:96::a", false),
        ("orders.shop.svc.cluster.local", "10.96.0.1", false),     // the API server
        ("legacy.support.svc.cluster.local", "192.168.7.9", true), // a ceiling names them
        ("help.example.com", "203.0.113.7", true),
        ("help.example.com", "2001:db8:ffff::7", true),
        ("help.example.com", "10.244.3.4", false), // rebinding
        ("help.example.com", "2001:db8:10:244::9", false),
        ("help.example.com", "127.0.0.1", false),
        ("help.example.com", "::ffff:169.254.169.254", false),
        ("help.example.com", "64:ff9b::a9fe:a9fe", false),
        ("help.example.com", "fd00::1", false),
        ("help.example.com", "100.64.0.1", false),
        ("kubernetes.default.svc.cluster.local", "10.96.0.1", true),
        ("kubernetes.default.svc.cluster.local", "10.96.7.7", false),
        ("kubernetes.default.svc.cluster.local", "127.0.0.1", false), // not even if the document says so
    ];
    for (host, address, allowed) in cases {
        let address: IpAddr = address.parse().unwrap();
        let answer = policy.addresses(&name(host), &[address]);
        let expected = if allowed { Ok(vec![address.to_canonical()]) } else { Err(Reason::ResolvesToForbiddenAddress) };
        assert_eq!(answer, expected, "{host} {address}");
    }
    let (good, bad) = ("203.0.113.7".parse().unwrap(), "10.0.0.1".parse().unwrap());
    assert_eq!(policy.addresses(&name("help.example.com"), &[bad, good]), Ok(vec![good]), "what is allowed of several");
    assert_eq!(policy.addresses(&name("help.example.com"), &[]), Ok(vec![]));
}

#[test]
fn connections() {
    let policy = policy();
    let orders = name("orders.shop.svc.cluster.local");
    let help = name("help.example.com");
    let cases: &[(&str, &[&DomainName], Result<Option<&str>, Reason>)] = &[
        ("10.96.7.7:5432", &[&orders], Ok(Some("orders"))),
        ("[::ffff:10.96.7.7]:5432", &[&orders], Ok(Some("orders"))),
        ("10.244.3.4:15432", &[&orders], Ok(Some("orders"))),
        ("10.96.7.7:22", &[&orders], Err(Reason::PortNotDeclared)),
        ("10.96.7.7:5432", &[], Err(Reason::DestinationNotDeclared)), // nobody resolved it
        ("10.96.7.7:5432", &[&help], Err(Reason::DestinationNotDeclared)),
        ("203.0.113.7:5432", &[&orders], Err(Reason::PortNotDeclared)), // it may not lie there
        ("192.0.2.1:5432", &[&orders], Err(Reason::DestinationNotDeclared)),
        ("10.96.0.10:5432", &[&orders], Err(Reason::DestinationNotDeclared)), // the cluster's DNS
        ("[fd00:10:96::a]:5432", &[&orders], Err(Reason::DestinationNotDeclared)),
        ("10.96.0.1:5432", &[&orders], Err(Reason::DestinationNotDeclared)), // the API server, on another port
        ("10.96.0.1:443", &[&orders], Ok(Some("api"))),
        ("10.96.0.1:443", &[], Ok(Some("api"))),
        ("192.0.2.1:6443", &[], Ok(Some("api"))),
        ("192.0.2.1:10250", &[], Err(Reason::DestinationNotDeclared)),
        ("203.0.113.7:443", &[&help], Ok(None)),
        ("203.0.113.7:443", &[], Ok(None)), // the server's name decides, not the address
        ("203.0.113.7:8443", &[], Ok(None)),
        ("203.0.113.7:80", &[&help], Err(Reason::PortNotDeclared)),
        ("10.0.0.7:443", &[&help], Err(Reason::DestinationNotDeclared)),
        ("169.254.169.254:443", &[], Err(Reason::AddressForbidden)),
        ("127.0.0.1:443", &[], Err(Reason::AddressForbidden)),
        ("[::1]:443", &[], Err(Reason::AddressForbidden)),
        ("0.0.0.0:443", &[], Err(Reason::AddressForbidden)),
        ("[fe80::1]:443", &[], Err(Reason::AddressForbidden)),
        ("224.0.0.1:443", &[], Err(Reason::AddressForbidden)),
        ("255.255.255.255:443", &[], Err(Reason::AddressForbidden)),
        ("[::ffff:169.254.169.254]:443", &[], Err(Reason::AddressForbidden)),
    ];
    for (to, names, expected) in cases {
        let found = match policy.connect(at(to), names.iter().copied()) {
            Connect::Permitted(permit) => Ok(Some(permit.source().to_owned())),
            Connect::ReadHello => Ok(None),
            Connect::Denied(reason) => Err(reason),
        };
        assert_eq!(found, expected.map(|source| source.map(str::to_owned)), "{to} {names:?}");
    }
}

#[test]
fn server_names() {
    let policy = policy();
    let hello = |to: &str, server: Result<&str, Reason>| match policy.hello(at(to), server.map(name)) {
        Connect::Permitted(permit) => Ok((permit.source().to_owned(), permit.upstream().clone())),
        Connect::ReadHello => panic!("asks again"),
        Connect::Denied(reason) => Err(reason),
    };
    let to_help = Upstream::Host { name: name("help.example.com"), port: 443 };
    assert_eq!(hello("203.0.113.99:443", Ok("help.example.com")), Ok(("help".into(), to_help)));
    for (to, server, reason) in [
        ("203.0.113.7:443", Ok("evil.example"), Reason::ServerNameNotDeclared),
        ("203.0.113.7:443", Ok("odd.example.com"), Reason::ServerNameNotDeclared), // on another port
        ("203.0.113.7:443", Ok("sub.help.example.com"), Reason::ServerNameNotDeclared),
        ("203.0.113.7:443", Ok("orders.shop.svc.cluster.local"), Reason::ServerNameNotDeclared),
        ("203.0.113.7:443", Err(Reason::EncryptedHello), Reason::EncryptedHello),
        ("203.0.113.7:443", Err(Reason::TlsRequired), Reason::TlsRequired),
    ] {
        assert_eq!(hello(to, server), Err(reason), "{to} {server:?}");
    }
}

#[test]
fn observe_lets_pass_and_says_what_enforce_would_do() {
    let policy = with(|d| d.mode = Mode::Observe);
    let Connect::Permitted(permit) = policy.connect(at("203.0.113.7:22"), []) else { panic!() };
    assert_eq!((permit.observed(), permit.upstream()), (Some(Reason::PortNotDeclared), &Upstream::Anywhere(at("203.0.113.7:22"))));
    let Connect::Permitted(permit) = policy.hello(at("203.0.113.7:443"), Err(Reason::TlsRequired)) else { panic!() };
    assert_eq!(permit.observed(), Some(Reason::TlsRequired));
    assert_eq!(policy.still(&permit, None), Ok(()));
    for never in ["127.0.0.1:15001", "169.254.169.254:80"] {
        assert_eq!(policy.connect(at(never), []), Connect::Denied(Reason::AddressForbidden));
    }
}

#[test]
fn suspended_is_suspended_in_either_mode() {
    let help = name("help.example.com");
    for mode in [Mode::Observe, Mode::Enforce] {
        let before = with(|d| d.mode = mode);
        let suspended = with(|d| (d.mode, d.suspended) = (mode, true));
        let denied = Connect::Denied(Reason::Suspended);
        // Declared, undeclared, and the guard's own ports.
        for to in ["10.96.0.1:443", "203.0.113.7:443", "203.0.113.7:22", "127.0.0.1:15001"] {
            assert_eq!(suspended.connect(at(to), []), denied, "{mode:?} {to}");
        }
        assert_eq!(suspended.hello(at("203.0.113.7:443"), Ok(help.clone())), denied, "{mode:?}: suspended while the hello was read");
        for asked in ["help.example.com", "evil.example"] {
            assert_eq!(suspended.lookup(&name(asked), Record::A, &search()), Lookup::Refuse(Reason::Suspended), "{mode:?} {asked}");
        }
        let Connect::Permitted(open) = before.hello(at("203.0.113.7:443"), Ok(help.clone())) else { panic!("{mode:?}") };
        assert_eq!(suspended.still(&open, None), Err(Reason::Suspended), "{mode:?}: open connections are cut");
        assert!(before.observes() == (mode == Mode::Observe) && !suspended.observes());
    }
}

#[test]
fn what_is_narrowed_is_cut() {
    let orders = name("orders.shop.svc.cluster.local");
    let permits: Vec<Permit> = [
        policy().connect(at("10.96.7.7:5432"), [&orders]),
        policy().connect(at("10.96.0.1:443"), []),
        policy().hello(at("203.0.113.7:443"), Ok(name("help.example.com"))),
    ]
    .into_iter()
    .map(|connect| if let Connect::Permitted(permit) = connect { permit } else { panic!("{connect:?}") })
    .collect();
    let kept = |policy: &GuardPolicy| permits.iter().map(|p| policy.still(p, None).is_ok()).collect::<Vec<_>>();
    assert_eq!(kept(&policy()), [true, true, true]);
    assert_eq!(kept(&with(|d| d.suspended = true)), [false, false, false]);
    assert_eq!(kept(&with(|d| d.destinations.retain(|d| d.source != "orders"))), [false, true, true]);
    assert_eq!(kept(&with(|d| d.destinations.retain(|d| d.source != "api"))), [true, false, true]);
    assert_eq!(kept(&with(|d| d.destinations.retain(|d| d.source != "help"))), [true, true, false]);
    // The same name of a source for something else.
    let renamed = with(|d| {
        d.destinations.retain(|d| d.source != "orders" && d.source != "cache");
        let ports = [5432].into();
        let target = Target::Service { name: "cache".into(), namespace: "support".into(), ports, addresses: Vec::new() };
        d.destinations.push(Destination { source: "orders".into(), target });
    });
    assert_eq!(kept(&renamed), [false, true, true]);
    // What Observe let pass ends when Enforce begins.
    let Connect::Permitted(observed) = with(|d| d.mode = Mode::Observe).connect(at("203.0.113.7:22"), []) else { panic!() };
    assert_eq!(policy().still(&observed, None), Err(Reason::DestinationNotDeclared));
}

#[test]
fn an_address_that_may_not_be_any_more_is_cut() {
    let permitted = |connect| if let Connect::Permitted(permit) = connect { permit } else { panic!("{connect:?}") };
    let (orders, host) = (name("orders.shop.svc.cluster.local"), name("help.example.com"));
    let service = permitted(policy().connect(at("10.96.7.7:5432"), [&orders]));
    let host = permitted(policy().hello(at("203.0.113.7:443"), Ok(host)));
    let own = with(|d| d.network.own.push("203.0.113.0/24".parse().unwrap()));
    let elsewhere = with(|d| d.network.services = vec!["10.97.0.0/16".parse().unwrap()]);
    let dns = with(|d| d.network.dns.push(at("10.96.7.7:53")));
    let forbidden = Err(Reason::ResolvesToForbiddenAddress);
    let cases = [
        ("as it was", policy(), &host, "203.0.113.7", Ok(())),
        ("the cluster's own now", own.clone(), &host, "203.0.113.7", forbidden),
        ("the same, mapped", own.clone(), &host, "::ffff:203.0.113.7", forbidden),
        ("another address of the host", own.clone(), &host, "2001:db8:ffff::7", Ok(())),
        ("suspended and its own", with(|d| d.suspended = true), &host, "203.0.113.7", Err(Reason::Suspended)),
        ("a Service, where hosts are not", own, &service, "10.96.7.7", Ok(())),
        ("no address of Services", elsewhere, &service, "10.96.7.7", Err(Reason::DestinationNotDeclared)),
        ("a DNS server now", dns, &service, "10.96.7.7", Err(Reason::DestinationNotDeclared)),
    ];
    for (what, policy, permit, reached, expected) in cases {
        assert_eq!(policy.still(permit, Some(reached.parse().unwrap())), expected, "{what}");
    }
}

#[test]
fn documents_that_are_refused() {
    let text = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(document()).unwrap();
        change(&mut value);
        let read = Document::read(&serde_json::to_vec(&value).unwrap()).and_then(GuardPolicy::try_from);
        read.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(text(&|_| {}), "");
    let cases: &[(&str, &dyn Fn(&mut serde_json::Value))] = &[
        ("has format 2, and this guard reads format 1", &|v| {
            v["format"] = json!(2);
            v["more"] = json!("unknown");
        }),
        ("unknown field `more`", &|v| v["more"] = json!(1)),
        ("unknown field `paths`", &|v| v["destinations"][0]["target"]["paths"] = json!(["/"])),
        ("unknown variant `Cookie`", &|v| v["destinations"][0]["target"]["type"] = json!("Cookie")),
        ("::ffff:10.0.0.0/104 is an IPv4 block in IPv6 clothes", &|v| v["network"]["own"][0] = json!("::ffff:10.0.0.0/104")),
        ("unknown variant `Off`", &|v| v["mode"] = json!("Off")),
        ("missing field `suspended`", &|v| drop(v.as_object_mut().unwrap().remove("suspended"))),
        ("an address is not a name", &|v| v["destinations"][3]["target"]["name"] = json!("10.0.0.1")),
        ("data source orders: \"or/ders.shop.svc.cluster.local\" is not a name", &|v| {
            v["destinations"][0]["target"]["name"] = json!("or/ders")
        }),
        ("domain a.a.a", &|v| v["network"]["domain"] = json!(["a"; 120].join("."))),
        ("has 1025 destinations", &|v| {
            let one = v["destinations"][0].clone();
            v["destinations"] = json!(vec![one; MOST_DESTINATIONS + 1]);
        }),
    ];
    for (expected, change) in cases {
        let found = text(*change);
        assert!(found.contains(expected), "`{expected}` in `{found}`");
    }
    assert!(matches!(Document::read(&vec![b' '; 2 << 20]), Err(DocumentError::Large)));
    assert!(Document::read(b"{").is_err());
}

#[test]
fn a_namespace_of_digits_is_one_like_others() {
    let policy = with(|d| {
        let target = Target::Service { name: "db".into(), namespace: "123".into(), ports: [1].into(), addresses: Vec::new() };
        d.destinations = vec![Destination { source: "db".into(), target }];
    });
    assert_eq!(policy.lookup(&name("db.123.svc.cluster.local"), Record::A, &search()), Lookup::Resolve);
}

#[test]
fn never_back() {
    let now = with(|d| d.serial = 50);
    let table = [
        (3, 50, "u-1", "bot", true),
        (3, 51, "u-1", "bot", true),  // the cluster changed, the AIWorkload did not
        (3, 49, "u-1", "bot", false), // a file that lags behind the channel
        (4, 51, "u-1", "bot", true),
        (4, 7, "u-1", "bot", true), // another replica's clock
        (2, 50, "u-1", "bot", false),
        (2, 99, "u-1", "bot", false),
        (1, 51, "u-2", "bot", true),  // deleted and made again
        (1, 49, "u-0", "bot", false), // what was there before it was deleted and made again
        (9, 49, "u-0", "bot", false),
        (9, 51, "u-1", "other", false),
    ];
    for (generation, serial, uid, workload, expected) in table {
        let next = with(|d| {
            d.generation = generation;
            d.serial = serial;
            d.workload.uid = uid.into();
            d.workload.name = workload.into();
        });
        assert_eq!(now.may_become(&next), expected, "{generation} {serial} {uid} {workload}");
    }
}

#[test]
fn serials_grow_with_what_is_said() {
    let numbered = |serial: u64| Document { serial, ..document() };
    let other = |document: Document| Document { digest: "other".to_owned(), ..document };
    let table = [
        (None, document(), 100, 100),
        (Some(numbered(70)), document(), 100, 70), // it says the same
        (Some(numbered(70)), numbered(3), 100, 70),
        (Some(numbered(70)), other(document()), 100, 100),
        (Some(numbered(100)), other(document()), 100, 101), // within a millisecond
        (Some(numbered(500)), other(document()), 100, 501), // a clock that went back
        (Some(numbered(u64::MAX)), other(document()), 100, u64::MAX),
    ];
    for (previous, mut new, now, expected) in table {
        next_serial(previous.as_ref(), &mut new, now);
        assert_eq!(new.serial, expected, "{previous:?}");
        if let Some(previous) = &previous {
            assert!(new.edition().may_follow(&previous.edition()));
        }
    }
}

#[test]
fn where_the_operator_may_be() {
    let channel = Channel { name: name("remit-guards.remit-system.svc.cluster.local"), port: 9444 };
    let policy = with(|d| d.channel = Some(channel));
    let found =
        ["10.244.0.9", "127.0.0.1", "169.254.169.254", "::ffff:10.244.0.9", "fe80::1", "10.244.0.8", "0.0.0.0", "::1", "2001:db8::8"];
    let found: Vec<IpAddr> = found.iter().map(|a| a.parse().unwrap()).collect();
    assert_eq!(policy.operators(&found), [at("10.244.0.8:9444"), at("10.244.0.9:9444"), at("[2001:db8::8]:9444")]);
    let many: Vec<IpAddr> = (1..=9).map(|n| IpAddr::from([10, 244, 0, n])).collect();
    assert_eq!(policy.operators(&many).len(), 4);
    assert_eq!(self::policy().operators(&many), [], "the file alone");
}

proptest! {
    /// Whatever the address and whoever the client claims to talk to: what is let through is a declared destination and port.
    #[test]
    fn only_what_is_declared(v4 in any::<u32>(), v6 in any::<u128>(), six in any::<bool>(), port in any::<u16>(), known in 0usize..5, server in 0usize..4) {
        let policy = policy();
        let ip = if six { IpAddr::V6(v6.into()) } else { IpAddr::V4(v4.into()) };
        let to = SocketAddr::new(ip, port);
        let names = ["orders.shop.svc.cluster.local", "cache.support.svc.cluster.local", "legacy.support.svc.cluster.local", "help.example.com"].map(name);
        let connect = policy.connect(to, names.get(known));
        let servers = ["help.example.com", "odd.example.com", "evil.example", "orders.shop.svc.cluster.local"];
        let verdict = if connect == Connect::ReadHello { policy.hello(to, Ok(name(servers[server]))) } else { connect };
        if let Connect::Permitted(permit) = verdict {
            prop_assert!(policy.still(&permit, None).is_ok());
            match permit.upstream() {
                Upstream::Service { address, .. } => prop_assert!([5432, 15432, 6379, 1521].contains(&address.port()) && !policy.own.is_outside(address.ip())),
                Upstream::Kubernetes(address) => prop_assert!([at("10.96.0.1:443"), at("192.0.2.1:6443")].contains(address)),
                Upstream::Host { name, port } => prop_assert!([("help.example.com", 443), ("odd.example.com", 8443)].contains(&(name.as_str(), *port))),
                Upstream::Anywhere(_) => prop_assert!(false, "Enforce lets nothing else pass"),
            }
        }
    }
}
