//! The control channel: a real guard, and the operator's end of it in the world outside.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use remit::policy::channel::{OTHER, Usage};
use serde_json::{Value, json};

use super::{EVIL, HELP, OPERATORS, ORDERS, Outcome, World, connect, hello, in_namespace, policy};
use crate::channel::{Operator, Running};

/// Of both ends: see `signer`.
const SEED: [u8; 32] = [7; 32];

fn with_channel(generation: i64, serial: u64, change: impl FnOnce(&mut Value)) -> Value {
    let mut policy = policy();
    policy["channel"] = json!({"name": "remit-guards.remit-system.svc.cluster.local", "port": 9444});
    (policy["generation"], policy["serial"]) = (json!(generation), json!(serial));
    change(&mut policy);
    policy
}

fn without_orders(policy: &mut Value) {
    policy["destinations"].as_array_mut().unwrap().retain(|d| d["source"] != "orders");
}

fn serve(world: &World, operator: &Operator, replica: usize) -> Running {
    let listener = in_namespace(&world.world, || TcpListener::bind((OPERATORS[replica], 9444)).expect("the operator's port"));
    operator.serve(listener)
}

/// A pod with this policy in its file, and its token.
fn guarded(operator: &Operator, policy: &Value) -> World {
    let world = World::new();
    world.redirect();
    std::fs::write(world.path("token"), operator.pod("support", "bot-1", "bot", Some(0))).expect("a token");
    world.policy(policy);
    world.start();
    world.ready();
    world
}

fn open(world: &World) -> TcpStream {
    world.in_pod(|| {
        let mut stream = connect(ORDERS, 5432).expect("connected");
        goes_on(&mut stream).expect("an echo");
        stream
    })
}

fn goes_on(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"ping")?;
    stream.read_exact(&mut [0; 4])
}

fn enforces(world: &World, operator: &Operator, serial: u64) {
    world.eventually("the operator hears of it", || {
        let enforced = operator.collected.get("uid-bot-1").and_then(|guarded| guarded.enforced);
        if enforced.as_ref().is_some_and(|e| e.serial == serial) { Ok(()) } else { Err(format!("{enforced:?}; {}", world.log())) }
    });
}

#[test]
fn a_policy_over_the_channel_cuts_at_once_and_the_file_does_not_undo_it() {
    let operator = Operator::new(SEED);
    let first = with_channel(1, 10, |_| {});
    let world = guarded(&operator, &first);
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "with the operator away, the file alone");
    operator.publish(&first);
    let running = [serve(&world, &operator, 0), serve(&world, &operator, 1)];
    enforces(&world, &operator, 10);

    let mut orders = open(&world);
    let began = Instant::now();
    operator.publish(&with_channel(1, 20, without_orders));
    while goes_on(&mut orders).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(1), "not cut: {}", world.log());
    }
    println!("a policy over the channel cuts an open connection after {:?}", began.elapsed());
    assert_ne!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo);
    enforces(&world, &operator, 20);

    // The file is written anew, and still the older one.
    world.policy(&with_channel(1, 11, |_| {}));
    std::thread::sleep(Duration::from_millis(1200));
    assert_ne!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "a file that lags behind");
    assert_eq!(world.records("event", "trouble").iter().filter(|r| r["what"] == "policy").count(), 0, "{}", world.log());

    // Without the operator all goes on as it is, and the file may bring what is newer.
    drop(running);
    let help = || world.tcp(HELP[0], 443, &hello("help.example.com"));
    assert_eq!(help(), Outcome::Echo);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(help(), Outcome::Echo);
    world.policy(&with_channel(2, 30, |_| {}));
    world.eventually("the file's turn", || match world.tcp(ORDERS, 5432, b"ping") {
        Outcome::Echo => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // It comes back, behind what the file said: that stays; then the kill switch.
    let _running = serve(&world, &operator, 1);
    enforces(&world, &operator, 30);
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "a replica that is behind");
    operator.publish(&with_channel(3, 40, |p| p["suspended"] = json!(true)));
    world.eventually("suspended", || match help() {
        Outcome::Echo => Err(world.log()),
        _ => Ok(()),
    });
}

/// Counts arrive with the next report: when the answer before was held back for its time, or a policy came.
#[test]
fn what_passed_and_what_was_refused_is_reported_exactly() {
    const LONG: usize = 300_000;
    let operator = Operator::new(SEED);
    let world = guarded(&operator, &with_channel(1, 10, |_| {}));
    operator.publish(&with_channel(1, 10, |_| {}));
    let mut running = vec![serve(&world, &operator, 0)];
    enforces(&world, &operator, 10);

    let say = hello("help.example.com");
    for _ in 0..3 {
        assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo);
    }
    assert_eq!(world.tcp(HELP[0], 443, &say), Outcome::Echo);
    for _ in 0..2 {
        assert_ne!(world.tcp(EVIL[0], 443, &hello("evil.example")), Outcome::Echo);
    }
    // One that goes on, and says more than any buffer holds.
    let mut open = open(&world);
    let mut talk = || {
        let mut writer = open.try_clone().unwrap();
        let writes = std::thread::spawn(move || writer.write_all(&vec![7; LONG]).unwrap());
        open.read_exact(&mut vec![0; LONG]).unwrap();
        writes.join().unwrap();
    };
    talk();
    let counted = || operator.collected.get("uid-bot-1").map(|guarded| guarded.totals()).unwrap_or_default();
    let usage = |connections, bytes| Usage { connections, sent: bytes, received: bytes, ..Usage::default() };
    let long = LONG as u64;
    let expected = |orders: Usage, other: Option<Usage>| {
        let named = [("orders".to_owned(), orders), ("help".to_owned(), usage(1, say.len() as u64))];
        named.into_iter().chain(other.map(|other| (OTHER.to_owned(), other))).collect::<BTreeMap<_, _>>()
    };
    let reports =
        |serial, orders, other| {
            enforces(&world, &operator, serial);
            world.eventually("the counts", || {
                if counted().usage == expected(orders, other) { Ok(()) } else { Err(format!("{:?}", counted())) }
            });
        };
    operator.publish(&with_channel(1, 20, |_| {}));
    reports(20, usage(4, 16 + long), None);
    assert_eq!(counted().denials, [("server_name_not_declared", 2)].into());
    assert!(counted().would_deny.is_empty());

    // While it goes on, and with another replica, which hears all of it from the beginning; the first one is lost and comes back.
    talk();
    drop(running.pop());
    running.push(serve(&world, &operator, 1));
    operator.publish(&with_channel(1, 30, |_| {}));
    reports(30, usage(4, 16 + 2 * long), None);
    running.push(serve(&world, &operator, 0));

    // Observe lets pass, and says what would have been refused.
    operator.publish(&with_channel(2, 40, |p| p["mode"] = json!("Observe")));
    enforces(&world, &operator, 40);
    let evil = hello("evil.example");
    assert_eq!(world.tcp(EVIL[0], 443, &evil), Outcome::Echo);
    operator.publish(&with_channel(2, 50, |p| p["mode"] = json!("Observe")));
    reports(50, usage(4, 16 + 2 * long), Some(usage(1, evil.len() as u64)));
    assert_eq!(counted().denials, [("server_name_not_declared", 2)].into());
    assert_eq!(counted().would_deny, [("server_name_not_declared", 1)].into());
    let sums = operator.collected.sums();
    assert_eq!(sums.values().collect::<Vec<_>>(), [&counted()], "two replicas, one guard, one count");
}

#[test]
fn an_operator_with_another_key_is_not_believed() {
    let impostor = Operator::new([8; 32]);
    let world = guarded(&impostor, &with_channel(1, 10, |_| {}));
    impostor.publish(&with_channel(9, 99, |p| {
        p["destinations"] = json!([{"source": "evil", "target": {"type": "Host", "name": "evil.example", "port": 443}}]);
    }));
    let _running = [serve(&world, &impostor, 0), serve(&world, &impostor, 1)];
    world.eventually("it is said", || {
        let said = world.records("what", "channel");
        if said.iter().any(|r| r["message"].as_str().is_some_and(|m| m.contains("TLS"))) { Ok(()) } else { Err(world.log()) }
    });
    assert!(impostor.collected.get("uid-bot-1").is_none(), "it is told nothing");
    assert_ne!(world.tcp(EVIL[0], 443, &hello("evil.example")), Outcome::Echo);
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "the file's policy holds");
}
