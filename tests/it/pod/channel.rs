//! The control channel: a real guard, and the operator's end of it in the world outside.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

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
        if enforced.as_ref().is_some_and(|e| e.edition.serial == serial) { Ok(()) } else { Err(format!("{enforced:?}; {}", world.log())) }
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
