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

/// Redirected, before anything was read.
fn connect(policy: &GuardPolicy, to: SocketAddr, names: &[&DomainName]) -> Connect {
    let names: Vec<DomainName> = names.iter().map(|name| (*name).clone()).collect();
    policy.connect(Arrived::At { to, names: &names }, None)
}

/// The same, after the ClientHello.
fn hello(policy: &GuardPolicy, to: SocketAddr, server: Result<DomainName, Reason>) -> Connect {
    policy.connect(Arrived::At { to, names: &[] }, Some(&First::Hello(server)))
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
        let found = match connect(&policy, at(to), names) {
            Connect::Permitted(permit) => Ok(Some(permit.source().to_owned())),
            Connect::ReadFirst => Ok(None),
            Connect::Http(site) => panic!("{site:?}"),
            Connect::Denied(reason) => Err(reason),
        };
        assert_eq!(found, expected.map(|source| source.map(str::to_owned)), "{to} {names:?}");
    }
}

#[test]
fn server_names() {
    let policy = policy();
    let said = |to: &str, server: Result<&str, Reason>| match hello(&policy, at(to), server.map(name)) {
        Connect::Permitted(permit) => Ok((permit.source().to_owned(), permit.upstream().clone())),
        other @ (Connect::ReadFirst | Connect::Http(_)) => panic!("{other:?}"),
        Connect::Denied(reason) => Err(reason),
    };
    let to_help = Upstream::Named { name: name("help.example.com"), port: 443 };
    assert_eq!(said("203.0.113.99:443", Ok("help.example.com")), Ok(("help".into(), to_help)));
    for (to, server, reason) in [
        ("203.0.113.7:443", Ok("evil.example"), Reason::ServerNameNotDeclared),
        ("203.0.113.7:443", Ok("odd.example.com"), Reason::ServerNameNotDeclared), // on another port
        ("203.0.113.7:443", Ok("sub.help.example.com"), Reason::ServerNameNotDeclared),
        ("203.0.113.7:443", Ok("orders.shop.svc.cluster.local"), Reason::ServerNameNotDeclared),
        ("203.0.113.7:443", Err(Reason::EncryptedHello), Reason::EncryptedHello),
        ("203.0.113.7:443", Err(Reason::TlsRequired), Reason::TlsRequired),
    ] {
        assert_eq!(said(to, server), Err(reason), "{to} {server:?}");
    }
}

#[test]
fn observe_lets_pass_and_says_what_enforce_would_do() {
    let policy = with(|d| d.mode = Mode::Observe);
    let Connect::Permitted(permit) = connect(&policy, at("203.0.113.7:22"), &[]) else { panic!() };
    assert_eq!((permit.observed(), permit.upstream()), (Some(Reason::PortNotDeclared), &Upstream::Anywhere(at("203.0.113.7:22"))));
    let Connect::Permitted(permit) = hello(&policy, at("203.0.113.7:443"), Err(Reason::TlsRequired)) else { panic!() };
    assert_eq!(permit.observed(), Some(Reason::TlsRequired));
    assert_eq!(policy.still(&permit, None), Ok(()));
    for never in ["127.0.0.1:15001", "169.254.169.254:80"] {
        assert_eq!(connect(&policy, at(never), &[]), Connect::Denied(Reason::AddressForbidden));
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
            assert_eq!(connect(&suspended, at(to), &[]), denied, "{mode:?} {to}");
        }
        assert_eq!(hello(&suspended, at("203.0.113.7:443"), Ok(help.clone())), denied, "{mode:?}: suspended while the hello was read");
        for asked in ["help.example.com", "evil.example"] {
            assert_eq!(suspended.lookup(&name(asked), Record::A, &search()), Lookup::Refuse(Reason::Suspended), "{mode:?} {asked}");
        }
        let Connect::Permitted(open) = hello(&before, at("203.0.113.7:443"), Ok(help.clone())) else { panic!("{mode:?}") };
        assert_eq!(suspended.still(&open, None), Err(Reason::Suspended), "{mode:?}: open connections are cut");
        assert!(before.observes() == (mode == Mode::Observe) && !suspended.observes());
    }
}

#[test]
fn what_is_narrowed_is_cut() {
    let orders = name("orders.shop.svc.cluster.local");
    let permits: Vec<Permit> = [
        connect(&policy(), at("10.96.7.7:5432"), &[&orders]),
        connect(&policy(), at("10.96.0.1:443"), &[]),
        hello(&policy(), at("203.0.113.7:443"), Ok(name("help.example.com"))),
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
        let target = Target::Service { name: "cache".into(), namespace: "support".into(), ports, addresses: Vec::new(), http: None };
        d.destinations.push(Destination { source: "orders".into(), target });
    });
    assert_eq!(kept(&renamed), [false, true, true]);
    // What Observe let pass ends when Enforce begins.
    let Connect::Permitted(observed) = connect(&with(|d| d.mode = Mode::Observe), at("203.0.113.7:22"), &[]) else { panic!() };
    assert_eq!(policy().still(&observed, None), Err(Reason::DestinationNotDeclared));
}

#[test]
fn an_address_that_may_not_be_any_more_is_cut() {
    let permitted = |connect| if let Connect::Permitted(permit) = connect { permit } else { panic!("{connect:?}") };
    let (orders, host) = (name("orders.shop.svc.cluster.local"), name("help.example.com"));
    let service = permitted(connect(&policy(), at("10.96.7.7:5432"), &[&orders]));
    let host = permitted(hello(&policy(), at("203.0.113.7:443"), Ok(host)));
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
        ("has format 3, and this guard reads formats 1 to 2", &|v| {
            v["format"] = json!(3);
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
        let target = Target::Service { name: "db".into(), namespace: "123".into(), ports: [1].into(), addresses: Vec::new(), http: None };
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

/// A workload of which requests are judged.
fn http_policy(change: impl FnOnce(&mut serde_json::Value)) -> GuardPolicy {
    let mut value = serde_json::to_value(document()).unwrap();
    value["format"] = json!(2);
    value["destinations"] = json!([
        {"source": "orders", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [80, 8080], "http": {
            "scheme": "Http", "port": 80, "access": "Read", "rules": [
                {"paths": [{"type": "PathPrefix", "value": "/orders"}]},
                {"methods": ["POST"], "paths": [{"type": "Exact", "value": "/search"}]},
                {"methods": ["GET"], "paths": [{"type": "Exact", "value": "/live"}], "upgrades": ["websocket"]}
            ]}}},
        {"source": "cache", "target": {"type": "Service", "name": "cache", "namespace": "support", "ports": [8080], "http": {
            "scheme": "Http", "port": 8080, "access": "ReadWrite"}}},
        {"source": "raw", "target": {"type": "Service", "name": "cache", "namespace": "support", "ports": [6379]}},
        {"source": "vault", "target": {"type": "Service", "name": "vault", "namespace": "support", "ports": [443], "http": {
            "scheme": "Https", "port": 443, "access": "Read", "inspect": "Intercept"}}},
        {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 443, "http": {
            "scheme": "Https", "port": 443, "access": "Read", "inspect": "Intercept"}}},
        {"source": "model", "target": {"type": "Host", "name": "model.example.com", "port": 443, "http": {
            "scheme": "Https", "port": 443, "access": "ReadWrite", "rules": [{"methods": ["POST"], "paths": [{"type": "PathPrefix", "value": "/v1"}]}]}}},
        {"source": "tunnel", "target": {"type": "Host", "name": "tunnel.example.com", "port": 443}},
        {"source": "plain", "target": {"type": "Host", "name": "plain.example.com", "port": 80, "http": {
            "scheme": "Http", "port": 80, "access": "Read"}}},
        {"source": "odd", "target": {"type": "Host", "name": "odd.example.com", "port": 8080, "http": {
            "scheme": "Http", "port": 8080, "access": "Read"}}}
    ]);
    change(&mut value);
    Document::read(&serde_json::to_vec(&value).unwrap()).unwrap().try_into().unwrap()
}

/// One line: how a connection goes on.
fn how(policy: &GuardPolicy, arrived: Arrived<'_>, first: Option<First>) -> String {
    match policy.connect(arrived, first.as_ref()) {
        Connect::Permitted(permit) => format!("bytes of {}", permit.source()),
        Connect::Http(site) => format!("requests in {}", site.scheme().as_str()),
        Connect::ReadFirst => "read first".to_owned(),
        Connect::Denied(reason) => reason.code().to_owned(),
    }
}

#[test]
fn connections_of_which_requests_are_judged() {
    let policy = http_policy(|_| {});
    let (orders, cache, vault) =
        (name("orders.shop.svc.cluster.local"), name("cache.support.svc.cluster.local"), name("vault.support.svc.cluster.local"));
    let tls = |text: &str| Some(First::Hello(Ok(name(text))));
    let at = |to: &'static str, names: &'static [DomainName]| Arrived::At { to: at(to), names };
    let leak = |name: &DomainName| -> &'static [DomainName] { Box::leak(Box::new([name.clone()])) };
    let (orders, cache, vault) = (leak(&orders), leak(&cache), leak(&vault));
    for (arrived, first, expected) in [
        (at("10.96.7.7:80", orders), None, "requests in http"),
        (at("10.96.7.7:5432", orders), None, "port_not_declared"),
        (at("10.96.7.8:6379", cache), None, "bytes of raw"),
        (at("10.96.7.8:8080", cache), None, "requests in http"),
        (at("10.96.7.9:443", vault), None, "read first"),
        (at("10.96.7.9:443", vault), tls("vault"), "requests in https"),
        (at("10.96.7.9:443", vault), tls("vault.support.svc"), "requests in https"),
        (at("10.96.7.9:443", vault), tls("orders.shop"), "server_name_not_declared"),
        (at("10.96.7.9:443", vault), Some(First::Other), "tls_required"),
        (at("10.96.7.9:443", vault), Some(First::Hello(Err(Reason::ServerNameMissing))), "server_name_missing"),
        (at("203.0.113.7:443", &[]), None, "read first"),
        (at("203.0.113.7:443", &[]), tls("help.example.com"), "requests in https"),
        (at("203.0.113.7:443", &[]), tls("model.example.com"), "not_inspected"),
        (at("203.0.113.7:443", &[]), tls("tunnel.example.com"), "bytes of tunnel"),
        (at("203.0.113.7:443", &[]), tls("plain.example.com"), "server_name_not_declared"),
        (at("203.0.113.7:443", &[]), Some(First::Other), "tls_required"),
        (at("203.0.113.7:80", &[]), Some(First::Other), "requests in http"),
        (at("203.0.113.7:80", &[]), tls("plain.example.com"), "not_inspected"),
    ] {
        assert_eq!(how(&policy, arrived, first.clone()), expected, "{arrived:?} {first:?}");
    }
    let asked = |text: &str, port, first: Option<First>| how(&policy, Arrived::For { name: &name(text), port }, first);
    for (host, port, first, expected) in [
        ("tunnel.example.com", 443, None, "read first"),
        ("tunnel.example.com", 443, tls("tunnel.example.com"), "bytes of tunnel"),
        ("tunnel.example.com", 443, tls("help.example.com"), "server_name_not_declared"),
        ("tunnel.example.com", 443, Some(First::Other), "tls_required"),
        ("tunnel.example.com", 22, None, "port_not_declared"),
        ("help.example.com", 443, tls("help.example.com"), "requests in https"),
        ("model.example.com", 443, tls("model.example.com"), "not_inspected"),
        ("plain.example.com", 80, Some(First::Other), "requests in http"),
        ("evil.example", 443, None, "name_not_declared"),
        ("orders.shop.svc.cluster.local", 80, None, "name_not_declared"),
    ] {
        assert_eq!(asked(host, port, first.clone()), expected, "{host}:{port} {first:?}");
    }
    // Who is only observed may not know the guard's certificate.
    let observed = http_policy(|v| v["mode"] = json!("Observe"));
    assert_eq!(how(&observed, at("203.0.113.7:443", &[]), tls("help.example.com")), "bytes of ");
}

fn site(policy: &GuardPolicy, arrived: Arrived<'_>, first: Option<First>) -> Site {
    match policy.connect(arrived, first.as_ref()) {
        Connect::Http(site) => site,
        other => panic!("{other:?}"),
    }
}

/// `METHOD authority /path`, or `METHOD =source /path`.
fn asked(policy: &GuardPolicy, site: &Site, line: &str) -> Result<Permit, Reason> {
    let [method, of, target] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let authority;
    let of = match of.strip_prefix('=') {
        Some(source) => Of::Source(source),
        None => {
            authority = of.parse().unwrap();
            Of::Authority(&authority)
        }
    };
    let target = crate::scope::RequestTarget::parse(target).unwrap();
    let upgrade = method.strip_suffix('+').map(|_| "websocket");
    let method_field = if method.ends_with('!') { MethodField::Present } else { MethodField::Absent };
    policy.request(site, &Request { of, method: method.trim_end_matches(['+', '!']), target: &target, upgrade, method_field })
}

#[test]
fn requests() {
    use Reason::*;
    let policy = http_policy(|_| {});
    let names = [name("orders.shop.svc.cluster.local"), name("orders-0.orders.shop.svc.cluster.local")];
    let orders = site(&policy, Arrived::At { to: at("10.96.7.7:80"), names: &names[..1] }, None);
    let pod = site(&policy, Arrived::At { to: at("10.244.3.4:8080"), names: &names[1..] }, None);
    let cache = [name("cache.support.svc.cluster.local")];
    let cache = site(&policy, Arrived::At { to: at("10.96.7.8:8080"), names: &cache }, None);
    let public = site(&policy, Arrived::At { to: at("203.0.113.7:80"), names: &[] }, Some(First::Other));
    let help = site(&policy, Arrived::At { to: at("203.0.113.7:443"), names: &[] }, Some(First::Hello(Ok(name("help.example.com")))));
    let cases: &[(&Site, &str, Result<&str, Reason>)] = &[
        (&orders, "GET orders.shop /orders/7", Ok("orders")),
        (&orders, "GET ORDERS.shop.svc:80 /orders/7?x=1", Ok("orders")),
        (&orders, "GET orders.shop.svc.cluster.local. /orders", Ok("orders")),
        (&orders, "GET 10.96.7.7 /orders", Ok("orders")),
        (&orders, "HEAD orders.shop /orders", Ok("orders")),
        (&orders, "OPTIONS orders.shop /orders", Ok("orders")),
        (&orders, "POST orders.shop /search", Ok("orders")),
        (&orders, "GET+ orders.shop /live", Ok("orders")),
        (&orders, "HEAD orders.shop /live", Ok("orders")),
        (&orders, "GET orders /orders", Err(HostMismatch)), // another namespace's short name
        (&orders, "GET orders.shop:8080 /orders", Err(HostMismatch)),
        (&orders, "GET 10.96.7.8 /orders", Err(HostMismatch)),
        (&orders, "GET evil.example /orders", Err(HostMismatch)),
        (&orders, "GET help.example.com /orders", Err(HostMismatch)),
        (&orders, "GET order.shop /orders", Err(HostMismatch)),
        (&orders, "GET shop.svc.cluster.local /orders", Err(HostMismatch)),
        (&orders, "POST orders.shop /orders", Err(MethodNotDeclared)),
        (&orders, "DELETE orders.shop /search", Err(MethodNotDeclared)),
        (&orders, "GET orders.shop /search", Err(MethodNotDeclared)),
        (&orders, "TRACE orders.shop /orders", Err(MethodNotDeclared)),
        (&orders, "CONNECT orders.shop /orders", Err(MethodNotDeclared)),
        (&orders, "get orders.shop /orders", Err(MethodNotDeclared)),
        (&orders, "GET orders.shop /admin", Err(PathNotDeclared)),
        (&orders, "GET orders.shop /ordersx", Err(PathNotDeclared)),
        (&orders, "GET orders.shop /orders%2f7", Err(PathAmbiguous)),
        (&orders, "GET+ orders.shop /orders", Err(UpgradeNotDeclared)),
        (&orders, "GET! orders.shop /orders", Err(MethodOverride)),
        (&orders, "POST orders.shop /search?_method=DELETE", Err(MethodOverride)),
        (&orders, "GET =orders /orders", Err(NameNotDeclared)),
        (&pod, "GET orders-0.orders.shop:8080 /orders", Ok("orders")),
        (&pod, "GET orders.shop:8080 /orders", Ok("orders")),
        (&pod, "GET orders-1.orders.shop:8080 /orders", Err(HostMismatch)),
        (&pod, "GET orders.shop /orders", Err(HostMismatch)),
        (&cache, "DELETE cache:8080 /a%2fb?_method=PUT", Ok("cache")),
        (&cache, "PROPFIND! cache:8080 /", Ok("cache")),
        (&cache, "TRACE cache:8080 /", Err(MethodNotDeclared)),
        (&cache, "GET+ cache:8080 /", Err(UpgradeNotDeclared)),
        (&public, "GET plain.example.com /", Ok("plain")),
        (&public, "POST plain.example.com /", Err(MethodNotDeclared)),
        (&public, "GET help.example.com /", Err(PortNotDeclared)),
        (&public, "GET evil.example /", Err(NameNotDeclared)),
        (&public, "GET odd.example.com:8080 /", Err(HostMismatch)),
        (&public, "GET 203.0.113.7 /", Err(HostMismatch)),
        (&help, "GET help.example.com /", Ok("help")),
        (&help, "GET help.example.com:443 /", Ok("help")),
        (&help, "GET help.example.com:80 /", Err(HostMismatch)),
        (&help, "GET model.example.com /v1", Err(HostMismatch)), // another host on a connection of this one
        (&Site::OWN, "POST =model /v1/chat", Ok("model")),
        (&Site::OWN, "POST =model /v2", Err(PathNotDeclared)),
        (&Site::OWN, "GET =orders /orders", Ok("orders")),
        (&Site::OWN, "GET =raw /", Err(SourceNotDeclared)),
        (&Site::OWN, "GET =tunnel /", Err(SourceNotDeclared)),
        (&Site::OWN, "GET =evil /", Err(SourceNotDeclared)),
        (&Site::OWN, "GET plain.example.com /", Ok("plain")),
        (&Site::OWN, "GET odd.example.com:8080 /", Ok("odd")),
        (&Site::OWN, "GET help.example.com:443 /", Err(PortNotDeclared)), // it speaks TLS
        (&Site::OWN, "GET help.example.com /", Err(PortNotDeclared)),
        (&Site::OWN, "GET orders.shop /orders", Err(NameNotDeclared)),
        (&Site::OWN, "GET 203.0.113.7 /", Err(NameNotDeclared)),
    ];
    for (site, line, expected) in cases {
        let found = asked(&policy, site, line).map(|permit| permit.source().to_owned());
        assert_eq!(found.as_deref().map_err(|reason| *reason), *expected, "{line} at {site:?}");
    }
    let observed = http_policy(|v| v["mode"] = json!("Observe"));
    for (site, line, expected) in cases.iter().filter(|(_, line, _)| !line.contains("=")) {
        let found = asked(&observed, site, line).map(|permit| permit.observed());
        match found {
            Ok(observed) => assert_eq!(observed, expected.err(), "{line} in Observe"),
            Err(reason) => assert!(line.contains("203.0.113.7") && Err(reason) == expected.map(|_| ()), "{line}: {reason}"),
        }
    }
    let unread = |policy: &GuardPolicy, site: &Site| policy.unread(site, RequestMalformed).map(|permit| permit.upstream().clone());
    assert_eq!(unread(&observed, &orders), Some(Upstream::Anywhere(at("10.96.7.7:80"))));
    assert_eq!([unread(&policy, &orders), unread(&observed, &Site::OWN), unread(&observed, &help)], [None, None, None]);
    let suspended = http_policy(|v| v["suspended"] = json!(true));
    assert!(cases.iter().all(|(site, line, _)| asked(&suspended, site, line) == Err(Suspended)));
}

#[test]
fn where_requests_go_and_as_whom() {
    let policy = http_policy(|_| {});
    let based = asked(&policy, &Site::OWN, "POST =model /v1").unwrap();
    assert_eq!(based.upstream(), &Upstream::Named { name: name("model.example.com"), port: 443 });
    assert_eq!((based.leg(), based.authority().unwrap().to_string().as_str()), (Leg::Http(Scheme::Https), "model.example.com"));
    let service = asked(&policy, &Site::OWN, "GET =cache /").unwrap();
    assert_eq!(service.upstream(), &Upstream::Named { name: name("cache.support.svc.cluster.local"), port: 8080 });
    assert_eq!((service.leg(), service.authority().unwrap().to_string().as_str()), (Leg::Http(Scheme::Http), "cache.support.svc:8080"));
    let names = [name("orders.shop.svc.cluster.local")];
    let arrived = Arrived::At { to: at("10.96.7.7:80"), names: &names };
    let orders = site(&policy, arrived, None);
    let permit = asked(&policy, &orders, "GET orders.shop /orders").unwrap();
    assert_eq!(permit.upstream(), &Upstream::Service { name: names[0].clone(), address: at("10.96.7.7:80") });
    assert_eq!(permit.authority(), None, "the client said it");
    // What is narrowed is cut, between requests as well.
    let without = |source: &str| http_policy(|v| v["destinations"].as_array_mut().unwrap().retain(|d| d["source"] != source));
    assert_eq!((policy.still(&permit, None), policy.still_of(&orders)), (Ok(()), Ok(())));
    let gone = Err(Reason::DestinationNotDeclared);
    assert_eq!((without("orders").still(&permit, None), without("orders").still_of(&orders)), (gone, gone));
    assert_eq!(without("model").still(&based, None), gone);
    // What was told request by request is not let through as bytes, and the other way round.
    let raw = http_policy(|v| drop(v["destinations"][0]["target"].as_object_mut().unwrap().remove("http")));
    assert_eq!((raw.still(&permit, None), raw.still_of(&orders)), (gone, gone));
    let own = http_policy(|v| v["network"]["own"].as_array_mut().unwrap().push(json!("203.0.113.0/24")));
    let reached = Some("203.0.113.7".parse().unwrap());
    assert_eq!(own.still(&based, reached), Err(Reason::ResolvesToForbiddenAddress));
}

#[test]
fn http_that_no_guard_could_hold() {
    let fault = |rule: serde_json::Value| {
        let mut value = serde_json::to_value(document()).unwrap();
        value["format"] = json!(2);
        value["destinations"][0]["target"]["http"] = rule;
        let read = Document::read(&serde_json::to_vec(&value).unwrap()).and_then(GuardPolicy::try_from);
        read.err().map(|e| e.to_string()).unwrap_or_default()
    };
    let of = |rules: serde_json::Value| json!({"scheme": "Http", "port": 80, "access": "Read", "rules": rules});
    assert_eq!(fault(of(json!([]))), "");
    for (http, expected) in [
        (of(json!([{"methods": ["DELETE"]}])), "data source orders: http.rules[0]: methods: DELETE is no reading"),
        (of(json!([{"methods": ["POST"]}])), "rules[0]: paths: with access Read, POST needs the paths"),
        (of(json!([{"methods": ["get"]}])), "\"get\" is no method"),
        (of(json!([{"methods": ["CONNECT"]}])), "\"CONNECT\" is no method"),
        (of(json!([{"upgrades": ["h2c"]}])), "\"h2c\" cannot be let through"),
        (of(json!([{"methods": ["POST"], "paths": [{"type": "Exact", "value": "/a"}], "upgrades": ["websocket"]}])), "begins with GET"),
        (of(json!([{"paths": [{"type": "Exact", "value": "a"}]}])), "a path begins with one slash"),
        (of(json!([{"paths": [{"type": "Exact", "value": "/a/../b"}]}])), "no `.` or `..` segments"),
        (of(json!([{"paths": [{"type": "Regex", "value": "/a"}]}])), "unknown variant `Regex`"),
        (of(json!(vec![json!({}); MOST_RULES + 1])), "65 of them"),
        (json!({"scheme": "Http", "port": 0, "access": "Read"}), "port: 1 to 65535"),
        (json!({"scheme": "Http", "port": 80, "access": "Read", "inspect": "Intercept"}), "no TLS to intercept"),
    ] {
        let found = fault(http);
        assert!(found.contains(expected), "`{expected}` in `{found}`");
    }
    let older = {
        let mut value = serde_json::to_value(http_policy_document()).unwrap();
        value["format"] = json!(1);
        Document::read(&serde_json::to_vec(&value).unwrap()).and_then(GuardPolicy::try_from).err().unwrap().to_string()
    };
    assert!(older.contains("format 1 says nothing of HTTP"), "{older}");
    assert_eq!((document().oldest_format(), http_policy_document().oldest_format()), (1, 2));
}

fn http_policy_document() -> Document {
    let mut document = document();
    let http = Http { scheme: Scheme::Https, inspect: Inspect::BaseUrl, port: None, access: HttpAccess::Read, rules: Vec::new() };
    document.destinations.push(Destination {
        source: "judged".into(),
        target: Target::Host { name: name("judged.example.com"), port: 443, http: Some(http) },
    });
    document.format = 2;
    document
}

proptest! {
    /// Whatever the address and whoever the client claims to talk to: what is let through is a declared destination and port.
    #[test]
    fn only_what_is_declared(v4 in any::<u32>(), v6 in any::<u128>(), six in any::<bool>(), port in any::<u16>(), known in 0usize..5, server in 0usize..4) {
        let policy = policy();
        let ip = if six { IpAddr::V6(v6.into()) } else { IpAddr::V4(v4.into()) };
        let to = SocketAddr::new(ip, port);
        let names = ["orders.shop.svc.cluster.local", "cache.support.svc.cluster.local", "legacy.support.svc.cluster.local", "help.example.com"].map(name);
        let known: Vec<&DomainName> = names.get(known).into_iter().collect();
        let connect = connect(&policy, to, &known);
        let servers = ["help.example.com", "odd.example.com", "evil.example", "orders.shop.svc.cluster.local"];
        let verdict = if connect == Connect::ReadFirst { hello(&policy, to, Ok(name(servers[server]))) } else { connect };
        if let Connect::Permitted(permit) = verdict {
            prop_assert!(policy.still(&permit, None).is_ok());
            match permit.upstream() {
                Upstream::Service { address, .. } => prop_assert!([5432, 15432, 6379, 1521].contains(&address.port()) && !policy.own.is_outside(address.ip())),
                Upstream::Kubernetes(address) => prop_assert!([at("10.96.0.1:443"), at("192.0.2.1:6443")].contains(address)),
                Upstream::Named { name, port } => prop_assert!([("help.example.com", 443), ("odd.example.com", 8443)].contains(&(name.as_str(), *port))),
                Upstream::Anywhere(_) => prop_assert!(false, "Enforce lets nothing else pass"),
            }
        }
    }
}

#[test]
fn whose_tls_is_ended_and_who_may_be_greeted() {
    let policy = http_policy(|_| {});
    let names: Vec<String> = policy.inspected().iter().map(ToString::to_string).collect();
    let expected = ["help.example.com", "vault", "vault.support", "vault.support.svc", "vault.support.svc.cluster.local"];
    assert_eq!(names, expected, "each as a client may say it");
    let other = http_policy(|d| d["workload"]["namespace"] = json!("elsewhere"));
    assert!(!other.inspected().contains(&name("vault")) && other.inspected().contains(&name("vault.support")));

    let site = |policy: &GuardPolicy, server: &str| match policy
        .connect(Arrived::At { to: at("203.0.113.7:443"), names: &[] }, Some(&First::Hello(Ok(name(server)))))
    {
        Connect::Http(site) => site,
        other => panic!("{other:?}"),
    };
    let help = site(&policy, "help.example.com");
    let permit = policy.greet(&help, &name("help.example.com")).unwrap();
    assert_eq!((permit.leg(), permit.source(), help.port()), (Leg::Http(Scheme::Https), "help", Some(443)));
    assert_eq!(permit.upstream(), &Upstream::Named { name: name("help.example.com"), port: 443 });
    assert_eq!(policy.greet(&help, &name("model.example.com")), Err(Reason::NotInspected));
    assert_eq!(policy.greet(&Site::OWN, &name("help.example.com")), Err(Reason::NotInspected));
    let vault = name("vault.support.svc.cluster.local");
    let arrived = Arrived::At { to: at("10.96.0.1:443"), names: std::slice::from_ref(&vault) };
    let Connect::Http(service) = policy.connect(arrived, Some(&First::Hello(Ok(name("vault.support"))))) else { panic!() };
    let permit = policy.greet(&service, &name("vault.support")).unwrap();
    assert_eq!(permit.upstream(), &Upstream::Service { name: vault, address: at("10.96.0.1:443") });
    for (change, reason) in [
        (json!({"suspended": true}), Reason::Suspended),
        (json!({"mode": "Observe"}), Reason::NotInspected),
        (json!({"destinations": []}), Reason::NotInspected),
    ] {
        let changed = http_policy(|d| d.as_object_mut().unwrap().extend(change.as_object().unwrap().clone()));
        for (site, server) in [(&help, "help.example.com"), (&service, "vault.support")] {
            assert_eq!(changed.greet(site, &name(server)), Err(reason), "{change}");
        }
    }
}
