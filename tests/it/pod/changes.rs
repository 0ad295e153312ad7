//! A policy that changes under open connections.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use remit::policy::WorkloadId;
use remit::policy::signed::Signer;

use super::{EVIL, HELP, ORDERS, Outcome, World, changed, connect, hello, policy, signer};

fn without(source: &str) -> Value {
    changed(|p| p["destinations"].as_array_mut().unwrap().retain(|d| d["source"] != source))
}

/// A connection that has been used.
fn open(world: &World, to: &str, port: u16, say: &[u8]) -> TcpStream {
    world.in_pod(|| {
        let mut stream = connect(to, port).expect("connected");
        goes_on(&mut stream, say).expect("an echo");
        stream
    })
}

fn goes_on(stream: &mut TcpStream, say: &[u8]) -> std::io::Result<()> {
    stream.write_all(say)?;
    let mut got = vec![0; say.len()];
    stream.read_exact(&mut got)
}

#[test]
fn a_narrowed_scope_cuts_what_it_forbids_and_nothing_else() {
    let world = World::guarded(&policy());
    let mut orders = open(&world, ORDERS, 5432, b"ping");
    let mut help = open(&world, HELP[0], 443, &hello("help.example.com"));
    world.policy(&without("orders"));
    let began = Instant::now();
    let (error, _) = world.eventually("the connection is cut", || goes_on(&mut orders, b"more").err().ok_or("it goes on".to_owned()));
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    goes_on(&mut help, b"still here").expect("what is declared goes on");
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Error(ErrorKind::ConnectionReset));
    assert_eq!(world.denials("destination_not_declared").len(), 2, "the one that was cut, and the new one");

    world.policy(&changed(|p| {
        p["generation"] = json!(3);
        p["digest"] = json!("three");
        p["suspended"] = json!(true);
    }));
    world.eventually("suspend cuts everything", || goes_on(&mut help, b"more").err().ok_or("it goes on".to_owned()));
    assert_eq!(world.tcp(HELP[0], 443, &hello("help.example.com")), Outcome::Error(ErrorKind::ConnectionReset));
    assert!(!world.denials("suspended").is_empty());
}

/// Somebody was faster than the operator, with a note that the operator signed for another.
#[test]
fn a_foreign_policy_that_was_there_first_lets_nothing_pass() {
    for foreign in ["elsewhere/bot/u", "support/other/u", "support/bot/earlier"] {
        let world = World::new();
        world.redirect();
        world.policy(&changed(|p| {
            p["mode"] = json!("Observe");
            p["workload"] = json!(foreign.parse::<WorkloadId>().unwrap());
        }));
        world.start();
        let said = format!("the policy is of AIWorkload {foreign}, and this guard was made for support/bot/u");
        world.eventually("it is said", || if world.log().contains(&said) { Ok(()) } else { Err(world.log()) });
        assert!(!world.health().unwrap_or_default().starts_with("HTTP/1.1 200"), "{foreign}: not ready");
        for (to, port) in [(EVIL[0], 443), (EVIL[1], 443), (ORDERS, 5432), (ORDERS, 22)] {
            assert_ne!(world.tcp(to, port, b"ping"), Outcome::Echo, "{foreign}: {to}");
        }
        assert_eq!(world.arrived(), Default::default(), "{foreign}");
        world.policy(&policy());
        world.ready();
        assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "{foreign}: its own is taken all the same");
        assert_ne!(world.tcp(EVIL[0], 443, b"ping"), Outcome::Echo);
    }
}

#[test]
fn a_bad_an_older_and_a_missing_policy_leave_the_last_good_one() {
    let world = World::guarded(&without("rebind"));
    let holds = |when: &str| {
        assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "{when}");
        assert_eq!(world.tcp(EVIL[0], 443, &hello("evil.example")), Outcome::Error(ErrorKind::ConnectionReset), "{when}");
    };
    let says = |words: &str| {
        world.eventually(words, || if world.log().contains(words) { Ok(()) } else { Err(world.log()) });
    };
    let evil =
        |p: &mut Value| p["destinations"] = json!([{"source": "evil", "target": {"type": "Host", "name": "evil.example", "port": 443}}]);
    world.policy(&changed(|p| {
        evil(p);
        p["generation"] = json!(1);
    }));
    says("generation 1 of support/bot is older than the one that holds (2)");
    holds("an older one");
    world.policy(&changed(|p| {
        evil(p);
        p["workload"]["name"] = json!("other");
    }));
    says("generation 2, serial 0 of support/other is older than the one that holds (2, serial 0), or of another AIWorkload");
    holds("another AIWorkload's");
    world.policy(&changed(|p| {
        evil(p);
        p["allowEverything"] = json!(true);
    }));
    says("unknown field `allowEverything`");
    holds("one that cannot be read");
    let mut mine = changed(evil);
    mine["generation"] = json!(9);
    let (mine, other) = (mine.to_string(), Signer::from_seed(&[8; 32]));
    world.note(&other.sign(&mine));
    says("no signature is of the trusted key");
    holds("one that somebody else signed");
    world.note(&mine);
    says("it is no signed note");
    holds("one that nobody signed");
    world.note(&signer().sign(&policy().to_string()).replace("orders", "ledger"));
    says("the signature does not fit the text");
    holds("one that was changed after it was signed");
    std::fs::remove_file(world.path("policy.note")).unwrap();
    says("No such file");
    holds("none");
}

#[test]
fn observe_lets_everything_pass_and_writes_down_what_enforce_would_refuse() {
    let world = World::guarded(&changed(|p| p["mode"] = json!("Observe")));
    assert_eq!(world.tcp(EVIL[0], 443, b"ping"), Outcome::Echo, "{}", world.log());
    assert_eq!(world.tcp(EVIL[1], 443, &hello("evil.example")), Outcome::Echo);
    assert_eq!(world.tcp(ORDERS, 22, b"ping"), Outcome::Echo);
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo);
    let records: Vec<Value> =
        ["server_name_not_declared", "port_not_declared", "tls_required"].iter().flat_map(|r| world.denials(r)).collect();
    assert!(records.len() >= 2 && records.iter().all(|r| r["event"] == "would_deny"), "{}", world.log());
    // But for what is never reached, and that is written down as what it is.
    assert_eq!(world.tcp("169.254.169.254", 80, b"ping"), Outcome::Error(ErrorKind::ConnectionReset));
    let never = world.denials("address_forbidden");
    assert!(never.len() == 1 && never[0]["event"] == "denied", "{}", world.log());
    // Suspended is suspended: nothing passes, and what was open is cut.
    let mut kept = open(&world, ORDERS, 5432, b"ping");
    world.policy(&changed(|p| (p["mode"], p["suspended"], p["serial"]) = (json!("Observe"), json!(true), json!(1))));
    world.eventually("the connection is cut", || goes_on(&mut kept, b"more").err().ok_or("it goes on".to_owned()));
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Error(ErrorKind::ConnectionReset));
    assert!(world.denials("suspended").iter().all(|r| r["event"] == "denied"), "{}", world.log());
    world.policy(&changed(|p| (p["mode"], p["serial"]) = (json!("Observe"), json!(2))));
    world.eventually("it passes again", || match world.tcp(ORDERS, 22, b"ping") {
        Outcome::Echo => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Enforce ends what Observe let pass.
    let mut stray = open(&world, ORDERS, 22, b"ping");
    world.policy(&changed(|p| p["generation"] = json!(3)));
    world.eventually("the connection is cut", || goes_on(&mut stray, b"more").err().ok_or("it goes on".to_owned()));
}

#[test]
fn many_idle_and_slow_connections_are_bounded() {
    let world = World::guarded(&policy());
    world.in_pod(|| {
        // Says nothing where a ClientHello is needed: ended after some seconds.
        let began = Instant::now();
        let mut slow = connect(HELP[0], 443).unwrap();
        slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut got = [0; 1];
        let ended = slow.read(&mut got).expect_err("it is reset");
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
        assert!(began.elapsed() < Duration::from_secs(10));
        // Many that wait for their server's name do not keep others out.
        let waiting: Vec<TcpStream> = (0..400).filter_map(|_| connect(HELP[0], 443).ok()).collect();
        assert_eq!(waiting.len(), 400);
        let mut good = connect(ORDERS, 5432).unwrap();
        goes_on(&mut good, b"ping").unwrap();
    });
}

#[test]
fn a_termination_lets_open_connections_end() {
    let world = World::guarded(&policy());
    let mut orders = open(&world, ORDERS, 5432, b"ping");
    world.signal("-TERM");
    goes_on(&mut orders, b"the last words").expect("within the grace");
    let ended = world.guard.lock().unwrap().take().unwrap().wait().unwrap();
    assert!(ended.success(), "{ended}");
    assert!(goes_on(&mut orders, b"later").is_err());
}
