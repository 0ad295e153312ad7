//! What connections may cost, and how long: buffers, places, and the moment between a judgement and the first byte.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{HELP, ORDERS, Outcome, World, changed, connect, hello, ip, policy};

/// Where the hosts are is the cluster's own now.
fn hosts_are_own(policy: &mut Value) {
    policy["network"]["own"].as_array_mut().unwrap().extend([json!("203.0.113.0/24"), json!("2001:db8:ffff::/48")]);
}

/// The guard's connections, one line each.
fn sockets(world: &World) -> Vec<String> {
    let output = Command::new("ip").args(["netns", "exec", &world.pod, "ss", "-HOtnmeo", "state", "established"]).output().expect("`ss`");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter(|line| line.contains(&format!("uid:{} ", world.uid))).map(str::to_owned).collect()
}

#[test]
fn what_waits_for_its_upstream_is_cut_before_a_byte_goes_out() {
    let world = World::guarded(&policy());
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo);
    world.forget();
    // Nobody answers there: the guard's SYNs are dropped.
    ip(&format!("-n {} addr del {ORDERS}/32 dev lo", world.world));
    let mut waiting: Vec<TcpStream> = world.in_pod(|| {
        let open = || {
            let mut stream = connect(ORDERS, 5432).expect("by the guard");
            stream.write_all(&[7; 20_000]).expect("it waits");
            stream
        };
        (0..20).map(|_| open()).collect()
    });
    world.policy(&changed(|p| p["suspended"] = json!(true)));
    for stream in &mut waiting {
        assert_eq!(stream.read(&mut [0]).expect_err("it is cut").kind(), ErrorKind::ConnectionReset);
    }
    world.eventually("each is recorded", || match world.denials("suspended").len() {
        20 => Ok(()),
        other => Err(format!("{other}: {}", world.log())),
    });
    // A SYN that was sent again would arrive now.
    ip(&format!("-n {} addr add {ORDERS}/32 dev lo", world.world));
    world.policy(&changed(|p| p["generation"] = json!(3)));
    world.eventually("what is permitted passes again", || match world.tcp(ORDERS, 5432, b"ping") {
        Outcome::Echo => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(world.arrived().values().sum::<usize>(), 1, "{:?}", world.arrived());
}

#[test]
fn a_hello_is_judged_by_the_policy_that_holds_when_it_comes() {
    let world = World::guarded(&policy());
    assert_eq!(world.tcp(HELP[0], 443, &hello("help.example.com")), Outcome::Echo);
    world.forget();
    let mut silent = world.in_pod(|| connect(HELP[0], 443).unwrap());
    world.policy(&changed(hosts_are_own));
    world.eventually("the policy holds", || {
        let digests = world.records("event", "policy");
        if digests.len() == 2 { Ok(()) } else { Err(world.log()) }
    });
    silent.write_all(&hello("help.example.com")).unwrap();
    assert_eq!(silent.read(&mut [0]).expect_err("it is refused").kind(), ErrorKind::ConnectionReset);
    assert_eq!(world.denials("destination_not_declared").len(), 1, "{}", world.log());
    assert!(world.arrived().is_empty(), "{:?}", world.arrived());
}

#[test]
fn a_host_at_an_address_that_is_the_clusters_own_now_is_cut() {
    let world = World::guarded(&policy());
    let say = hello("help.example.com");
    let mut goes_on = world.in_pod(|| connect(HELP[0], 443).unwrap());
    let mut talk = || -> std::io::Result<()> {
        goes_on.write_all(&say)?;
        goes_on.read_exact(&mut vec![0; say.len()])
    };
    talk().unwrap();
    world.policy(&changed(hosts_are_own));
    world.eventually("it is cut", || talk().err().ok_or("it goes on".to_owned()));
    assert_eq!(world.denials("resolves_to_forbidden_address").len(), 1, "{}", world.log());
}

#[test]
fn stalled_transfers_fill_bounded_buffers_and_the_silent_are_asked() {
    const CONNECTIONS: usize = 8;
    // Twice the guard's `BUFFER`: what the kernel makes of it.
    const MOST: u64 = 512 * 1024;
    let world = World::guarded(&policy());
    let _stalled: Vec<TcpStream> = world.in_pod(|| {
        let fill = || {
            let mut stream = connect(ORDERS, 5432).unwrap();
            // What comes back is not read: at last nothing can be sent any more.
            stream.set_write_timeout(Some(Duration::from_millis(400))).unwrap();
            while stream.write_all(&[7; 64 * 1024]).is_ok() {}
            stream
        };
        (0..CONNECTIONS).map(|_| fill()).collect()
    });
    let sockets = sockets(&world);
    assert_eq!(sockets.len(), 2 * CONNECTIONS, "{sockets:#?}");
    let mut kept = 0;
    for line in &sockets {
        let memory = line.split_once("skmem:(").and_then(|(_, rest)| rest.split_once(')')).expect("memory").0;
        let figure = |name: &str| -> u64 {
            let found = memory.split(',').find_map(|part| part.strip_prefix(name)?.parse().ok());
            found.unwrap_or_else(|| panic!("{name} in {memory}"))
        };
        assert!(figure("rb") <= MOST && figure("tb") <= MOST, "{line}");
        kept += figure("r") + figure("w");
    }
    println!("{CONNECTIONS} stalled connections keep {} KiB each", kept / 1024 / CONNECTIONS as u64);
    // Four queues each; what is under way when one is full is taken as well.
    assert!(kept / CONNECTIONS as u64 <= 5 * MOST, "{kept}");

    let idle = world.in_pod(|| connect(ORDERS, 5432).unwrap());
    let port = format!(":{} ", idle.local_addr().unwrap().port());
    world.eventually("its peer is asked whether it is there", || {
        let sockets = self::sockets(&world);
        // `ss` says less than a minute exactly.
        let asked = |line: &String| {
            line.contains(&port) && (line.contains("(keepalive,1min,") || line.contains("sec,") && line.contains("(keepalive,"))
        };
        if sockets.iter().any(asked) { Ok(()) } else { Err(format!("{sockets:#?}")) }
    });
}

#[test]
fn who_says_nothing_keeps_nobody_out() {
    let world = World::new();
    world.redirect();
    world.policy(&policy());
    // 146 connections, of which 36 may wait.
    world.start_with(&["prlimit", "--nofile=1024:1024"], &["--reuid", &world.uid.to_string()]);
    world.ready();
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "its address is known from now on");
    // More than there is room for, each half of them settled before the next: they are taken in turn.
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut opened: Vec<_> = world.in_pod(|| (0..90).map(|_| connect(HELP[0], 443)).collect());
        // It may be refused as early as while it is connected.
        let last = opened.pop().expect("one of many").and_then(|mut stream| stream.read(&mut [0]));
        assert_eq!(last.expect_err("it is refused").kind(), ErrorKind::ConnectionReset);
        silent.extend(opened);
    }
    assert!(!world.denials("too_many_connections").is_empty(), "{}", world.log());
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "who is judged at once has room");
    drop(silent);
}
