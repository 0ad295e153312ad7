//! Any bytes as a policy document: what is read is written and read again as the same, and whatever is asked of the policy, each Permit
//! leads to something that the document declares.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use remit::policy::{
    Arrived, Connect, Document, First, GuardPolicy, Http, HttpAccess, HttpRule, Lookup, MethodField, Mode, Of, Permit, Record, Request,
    Site, Target, Upstream,
};
use remit::scope::{Authority, DomainName, RequestTarget};

const ADDRESSES: [&str; 16] = [
    "10.96.0.1",
    "10.96.7.7",
    "10.244.3.4",
    "192.0.2.1",
    "192.168.7.9",
    "203.0.113.7",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "224.0.0.1",
    "::ffff:10.96.7.7",
    "::ffff:169.254.169.254",
    "::1",
    "fe80::1",
    "fd00:10:96::a",
    "2001:db8:ffff::7",
];
const PORTS: [u16; 4] = [443, 5432, 6443, 53];
const NAMES: [&str; 5] = [
    "orders.shop.svc.cluster.local",
    "pod-0.orders.shop.svc.cluster.local",
    "help.example.com",
    "kubernetes.default.svc.cluster.local",
    "evil.example",
];
const HOSTS: [&str; 4] = ["help.example.com", "orders.shop", "orders", "evil.example"];
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "DELETE"];
const PATHS: [&str; 4] = ["/", "/articles/7", "/search", "/a%2fb"];

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = Document::read(bytes) else { return };
    let again = Document::read(&serde_json::to_vec(&document).unwrap()).expect("what we write, we read");
    assert_eq!(again, document);
    let Ok(policy) = GuardPolicy::try_from(document.clone()) else { return };
    assert_eq!(GuardPolicy::try_from(again).unwrap(), policy);
    assert!(policy.may_become(&policy));

    let names: Vec<DomainName> = NAMES.iter().map(|name| name.parse().unwrap()).chain(policy.services().take(4).cloned()).collect();
    let addresses: Vec<IpAddr> = ADDRESSES.iter().map(|address| address.parse().unwrap()).collect();
    for name in &names {
        looked_up(&document, &policy, name, &addresses);
    }
    let declared = document
        .destinations
        .iter()
        .filter_map(|d| if let Target::Kubernetes { addresses } = &d.target { addresses.first() } else { None });
    let fixed = addresses.iter().flat_map(|ip| PORTS.map(|port| SocketAddr::new(*ip, port)));
    for to in fixed.chain(declared.take(4).copied()) {
        let arrived = Arrived::At { to, names: &names };
        let connect = match policy.connect(arrived, None) {
            // Whatever it names then.
            Connect::ReadFirst => {
                assert!(!never(to.ip().to_canonical()));
                for name in &names {
                    judged(&document, &policy, to, policy.connect(arrived, Some(&First::Hello(Ok(name.clone())))));
                }
                policy.connect(arrived, Some(&First::Other))
            }
            connect => connect,
        };
        judged(&document, &policy, to, connect);
    }
});

/// Whether what is not declared is let through.
fn observes(document: &Document) -> bool {
    document.mode == Mode::Observe && !document.suspended
}

fn looked_up(document: &Document, policy: &GuardPolicy, name: &DomainName, addresses: &[IpAddr]) {
    let search = [policy.domain.clone()];
    let lookup = policy.lookup(name, Record::A, &search);
    match lookup {
        Lookup::Resolve => assert!(!document.suspended && !document.destinations.is_empty()),
        Lookup::Empty => panic!("an address may be asked for"),
        Lookup::NotThere => assert!(!document.suspended),
        Lookup::Observed(_) => assert!(observes(document)),
        Lookup::Refuse(_) => assert!(!observes(document)),
    }
    if let Ok(allowed) = policy.addresses(name, addresses) {
        assert!(allowed.iter().all(|a| !never(*a) && addresses.iter().any(|found| found.to_canonical() == *a)));
    }
}

fn judged(document: &Document, policy: &GuardPolicy, to: SocketAddr, connect: Connect) {
    if let Connect::Http(site) = &connect {
        assert!(!document.suspended && policy.still_of(site).is_ok());
        return requested(document, policy, to, site);
    }
    let Connect::Permitted(permit) = connect else { return assert_ne!(connect, Connect::ReadFirst, "it was read") };
    assert_eq!(policy.still(&permit, None), Ok(()));
    let by_observe = matches!(permit.upstream(), Upstream::Anywhere(_));
    assert_eq!(permit.observed().is_some(), by_observe);
    if by_observe {
        assert!(observes(document));
        assert_eq!(permit.source(), "");
    } else {
        assert!(!document.suspended);
        assert!(declared(document, to, &permit), "{to}: {permit:?}");
    }
}

/// Requests of a site: what is let through is declared there, with this method on this path, by the document alone.
fn requested(document: &Document, policy: &GuardPolicy, to: SocketAddr, site: &Site) {
    let all = HOSTS.iter().flat_map(|host| METHODS.map(|method| (host, method)));
    for (host, method, path) in all.flat_map(|(host, method)| PATHS.map(|path| (host, method, path))) {
        let authority: Authority = format!("{host}:{}", to.port().max(1)).parse().unwrap();
        let target = RequestTarget::parse(path).unwrap();
        let request = Request { of: Of::Authority(&authority), method, target: &target, upgrade: None, method_field: MethodField::Absent };
        let Ok(permit) = policy.request(site, &request) else { continue };
        if permit.observed().is_some() {
            assert!(observes(document));
            continue;
        }
        assert_eq!(policy.still(&permit, None), Ok(()));
        let allows = |http: &Http| {
            let write = !["GET", "HEAD", "OPTIONS"].contains(&method);
            let of_rule = |rule: &HttpRule| {
                let of_path = rule.paths.is_empty() || rule.paths.iter().any(|pattern| pattern.matches(target.path()));
                let named = rule.methods.contains(method) || method == "HEAD" && rule.methods.contains("GET");
                of_path && (named || rule.methods.is_empty() && (!write || http.access == HttpAccess::ReadWrite))
            };
            if http.rules.is_empty() { !write || http.access == HttpAccess::ReadWrite } else { http.rules.iter().any(of_rule) }
        };
        let found = document.destinations.iter().any(|destination| {
            let (Target::Service { http: Some(http), .. } | Target::Host { http: Some(http), .. }) = &destination.target else {
                return false;
            };
            destination.source == permit.source() && allows(http)
        });
        assert!(found, "{to} {host} {method} {path}: {permit:?}");
    }
}

/// By the document alone.
fn declared(document: &Document, to: SocketAddr, permit: &Permit) -> bool {
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let source = permit.source();
    match permit.upstream() {
        Upstream::Kubernetes(address) => {
            let lists = |target: &Target| matches!(target, Target::Kubernetes { addresses } if addresses.contains(address));
            *address == to && !never(to.ip()) && document.destinations.iter().any(|d| d.source == source && lists(&d.target))
        }
        Upstream::Named { name, port } => {
            let is =
                |target: &Target| matches!(target, Target::Host { name: declared, port: at, http: None } if declared == name && at == port);
            let own = document.network.own.iter().any(|block| block.contains(&to.ip()));
            *port == to.port() && !own && document.destinations.iter().any(|d| d.source == source && is(&d.target))
        }
        Upstream::Service { name, address } => {
            // The Service of this name or, for one of its pods, of this name without its first label.
            let of_name = |target: &Target| match target {
                Target::Service { name: service, namespace, ports, addresses, http: None } => {
                    let full = format!("{service}.{namespace}.svc.{}", document.network.domain).to_lowercase();
                    let full = full.strip_suffix('.').unwrap_or(&full);
                    let it = name.as_str() == full || name.parent().is_some_and(|parent| parent.as_str() == full);
                    it.then(|| (ports.clone(), addresses.clone()))
                }
                _ => None,
            };
            let found: Vec<_> = document.destinations.iter().filter_map(|d| of_name(&d.target).map(|found| (&d.source, found))).collect();
            let port = found.iter().any(|(by, (ports, _))| *by == source && ports.contains(&to.port()));
            let blocks = document.network.services.iter().chain(found.iter().flat_map(|(_, (_, addresses))| addresses));
            *address == to && !never(to.ip()) && port && { blocks }.any(|block| block.contains(&to.ip()))
        }
        Upstream::Anywhere(_) => false,
    }
}

fn never(address: IpAddr) -> bool {
    let metadata = address == IpAddr::from([169, 254, 169, 254]);
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || metadata
        || address == "fe80::1".parse::<IpAddr>().unwrap()
}
