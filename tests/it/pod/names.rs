//! Names, and what an app does to be answered more than others, or to keep the guard from writing down what it refuses.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use remit::policy::pod::{DNS_PORT, HEALTH_PORT};
use remit::wire::dns::{self, Answer, Query, ResponseCode};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use super::{DNS, EVIL, GATEWAY, HELP, ORDERS, Outcome, POD, World, connect, hello, in_namespace, note, policy};

const RESET: Outcome = Outcome::Error(ErrorKind::ConnectionReset);
const SERVICE: &str = "orders.shop.svc.cluster.local";
/// A name server of our own, beside the one of the world.
const SERVER: (&str, u16) = (GATEWAY[0], 5_301);
/// Of the questions that it answers so, none was answered by the guard itself.
const PASSED_ON: ResponseCode = ResponseCode::NotImplemented;

type Asked = Arc<Mutex<BTreeMap<String, usize>>>;

/// What it was asked is counted, by way and name. `silent` are the names that it never answers.
fn name_server(world: &World, silent: &'static str) -> Asked {
    let asked: Asked = Arc::default();
    let answer = |query: &Query, over_tcp: bool| match query.name().map(|name| name.as_str()) {
        Some(SERVICE) if query.kind() == 1 => query.answer(ResponseCode::Ok, &[ORDERS.parse().unwrap()], 1, None, over_tcp),
        Some(name) if name.contains("orders") => query.answer(ResponseCode::NoSuchName, &[], 0, None, over_tcp),
        _ => query.answer(PASSED_ON, &[], 0, None, over_tcp),
    };
    in_namespace(&world.world, || {
        let (socket, listener) = (UdpSocket::bind(SERVER).unwrap(), TcpListener::bind(SERVER).unwrap());
        let (of_udp, of_tcp) = (asked.clone(), asked.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Ok(query) = Query::read(&buffer[..length]) else { continue };
                let name = query.text();
                note(&of_udp, &format!("udp {name}"));
                if !name.starts_with(silent) {
                    let _ = socket.send_to(&answer(&query, false), from);
                }
            }
        });
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(query) = framed(&mut stream).and_then(|bytes| Query::read(&bytes).ok()) else { continue };
                note(&of_tcp, &format!("tcp {}", query.text()));
                let _ = send_framed(&mut stream, &answer(&query, true));
            }
        });
    });
    asked
}

fn framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).ok().map(|()| message)
}

fn send_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[&(message.len() as u16).to_be_bytes()[..], message].concat())
}

/// The policy, with our own name server.
fn asks_ours(change: impl FnOnce(&mut Value)) -> Value {
    let mut policy = policy();
    policy["network"]["dns"] = json!([format!("{}:{}", SERVER.0, SERVER.1)]);
    change(&mut policy);
    policy
}

fn question(name: &str) -> Vec<u8> {
    dns::question(7, &name.parse().unwrap(), false)
}

/// A question of this many bytes: the rest is padding, as EDNS has it.
fn padded(name: &str, length: usize) -> Vec<u8> {
    let mut bytes = question(name);
    let padding = length - bytes.len() - 4;
    let at = bytes.len() - 2;
    bytes[at..].copy_from_slice(&(padding as u16 + 4).to_be_bytes());
    bytes.extend([0, 12]);
    bytes.extend((padding as u16).to_be_bytes());
    bytes.resize(length, 0);
    bytes
}

/// A question for another type, in another class.
fn odd(name: &str, kind: u8, class: u8) -> Vec<u8> {
    let mut bytes = question(name);
    let at = bytes.len() - 11 - 4;
    bytes[at..at + 4].copy_from_slice(&[0, kind, 0, class]);
    bytes
}

/// A client of the pod's DNS.
fn client() -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    socket.connect((DNS, 53)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut got = [0; 2048];
    let length = socket.recv(&mut got).expect("an answer");
    got[..length].to_vec()
}

fn code(answer: &[u8]) -> u8 {
    answer[3] & 15
}

fn address() -> Answer {
    Answer::Addresses(vec![ORDERS.parse().unwrap()], 5)
}

#[test]
fn a_service_that_dns_does_not_answer_for_holds_up_no_other() {
    let world = World::new();
    let asked = name_server(&world, "a-silent");
    world.redirect();
    world.policy(&asks_ours(|p| {
        p["destinations"]
            .as_array_mut()
            .unwrap()
            .push(json!({"source": "a-silent", "target": {"type": "Service", "name": "a-silent", "namespace": "shop", "ports": [5432]}}));
    }));
    world.start();
    world.ready();
    let began = Instant::now();
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), Outcome::Echo, "{}", world.log());
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
    // An address of nobody may be the silent one's.
    world.in_pod(|| {
        let all: Vec<TcpStream> = (0..8).map(|_| connect("10.96.66.66", 8443).unwrap()).collect();
        for mut stream in all {
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
    let denied = world.denials("resolution_failed");
    assert!(denied.len() == 8 && denied.iter().all(|r| r["retryable"] == true), "{}", world.log());
    assert!(world.denials("destination_not_declared").is_empty());
    let times = asked.lock().unwrap()["udp a-silent.shop.svc.cluster.local"];
    assert!(times <= 4, "one question, in two families, twice at most: {times}");
}

#[test]
fn other_ranges_act_at_once_though_the_digest_is_the_same() {
    let world = World::guarded(&policy());
    assert!(matches!(world.lookup("help.example.com").0, Answer::Addresses(..)));
    let mut next = policy();
    next["network"]["own"].as_array_mut().unwrap().push(json!("203.0.113.0/24"));
    next["network"]["own"].as_array_mut().unwrap().push(json!("2001:db8:ffff::/64"));
    world.policy(&next);
    world.eventually("it holds", || if world.records("event", "policy").len() == 2 { Ok(()) } else { Err(world.log()) });
    assert_eq!(world.lookup("help.example.com").0, Answer::Failed);
    assert_eq!(world.tcp(HELP[0], 443, &hello("help.example.com")), RESET);
}

#[test]
fn only_the_pod_is_answered() {
    // Without the rules, which let no such packet pass: the guard does not rely on them.
    let world = World::new();
    world.policy(&policy());
    world.start();
    world.ready();
    world.in_pod(|| {
        for (from, name) in [(EVIL[1], "payload.evil.example"), (POD[1], "own.example"), ("::1", "loopback.example")] {
            let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).unwrap();
            socket.set_freebind_v6(true).unwrap();
            socket.bind(&SocketAddr::new(from.parse().unwrap(), 9999).into()).unwrap();
            socket.send_to(&question(name), &SocketAddr::new("::1".parse().unwrap(), DNS_PORT).into()).unwrap();
            if from != EVIL[1] {
                socket.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
                Read::read(&mut &socket, &mut [0; 2048]).expect("an answer");
            }
        }
    });
    let denied: Vec<String> = world.denials("name_not_declared").iter().map(|r| r["attempted"]["name"].to_string()).collect();
    assert_eq!(denied, ["\"own.example\"", "\"loopback.example\""]);
    assert_eq!(world.arrived(), Default::default());
}

#[test]
fn what_is_known_is_answered_however_much_else_is_asked() {
    let world = World::new();
    name_server(&world, "never");
    world.redirect();
    world.policy(&asks_ours(|_| {}));
    world.start();
    world.ready();
    world.in_pod(|| {
        let socket = client();
        let mut refused = false;
        for batch in 0..200 {
            socket.send(&question(SERVICE)).unwrap();
            assert_eq!(dns::answer(&receive(&socket), 7, &SERVICE.parse().unwrap(), false), Ok(address()), "{batch}");
            if refused {
                return;
            }
            for n in 0..50 {
                socket.send(&question(&format!("{batch}-{n}.{SERVICE}"))).unwrap();
            }
            for _ in 0..50 {
                refused |= code(&receive(&socket)) == 5;
            }
            // Nothing of the budget is left, whatever time has passed since.
            for n in 0..if refused { 50 } else { 0 } {
                socket.send(&question(&format!("more-{n}.{SERVICE}"))).unwrap();
                receive(&socket);
            }
        }
        panic!("a budget without end");
    });
    assert!(!world.denials("too_many_queries").is_empty());
}

#[test]
fn clients_that_wait_keep_nobody_out() {
    let world = World::guarded(&policy());
    world.in_pod(|| {
        let waiting: Vec<TcpStream> = (0..40).map(|_| connect(DNS, 53).unwrap()).collect();
        let began = Instant::now();
        let mut stream = connect(DNS, 53).unwrap();
        for n in 0..64 {
            send_framed(&mut stream, &question(SERVICE)).unwrap();
            let answer = framed(&mut stream).unwrap_or_else(|| panic!("answer {n}"));
            assert_eq!(dns::answer(&answer, 7, &SERVICE.parse().unwrap(), false), Ok(address()));
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let _ = send_framed(&mut stream, &question(SERVICE));
        assert_eq!(framed(&mut stream), None, "one stream is not for ever");
        drop(waiting);
    });
}

#[test]
fn no_flood_hides_another_denial() {
    let world = World::guarded(&policy());
    const FLOOD: usize = 200;
    world.in_pod(|| {
        let socket = client();
        for n in 0..FLOOD {
            socket.send(&question(&format!("junk-{n}.example"))).unwrap();
            receive(&socket);
        }
    });
    assert_eq!(world.tcp("10.96.66.66", 8443, b"ping"), RESET);
    world.eventually("the connection is written down", || match world.denials("destination_not_declared").len() {
        1 => Ok(()),
        _ => Err(world.log()),
    });
    // With nothing else going on.
    world.eventually("what was left out is counted", || {
        let left_out: u64 = world.records("event", "left_out").iter().filter_map(|r| r["count"].as_u64()).sum();
        let written = world.records("event", "denied").iter().filter(|r| r["reason"] == "name_not_declared").count();
        let of = world.records("of", "names");
        if left_out > 0 && !of.is_empty() && written + left_out as usize == FLOOD { Ok(()) } else { Err(format!("{written} {left_out}")) }
    });
}

#[test]
fn what_is_no_name_is_written_down() {
    let world = World::guarded(&policy());
    world.in_pod(|| {
        let socket = client();
        for (query, expected) in [(odd("secret.version.bind", 16, 3), 5), ([&question("a.example")[..], b"more\n"].concat(), 1)] {
            socket.send(&query).unwrap();
            assert_eq!(code(&receive(&socket)), expected);
        }
    });
    let said = |reason: &str| world.denials(reason).iter().map(|r| r["attempted"]["question"].to_string()).collect::<String>();
    assert_eq!(said("name_not_declared"), "\"secret.version.bind class 3\"");
    assert!(said("query_malformed").contains("example") && said("query_malformed").contains("more\\\\n"), "{}", world.log());
}

#[test]
fn a_query_has_a_length_that_questions_need() {
    const LARGEST: usize = 1024;
    let world = World::guarded(&policy());
    world.in_pod(|| {
        let answered = |bytes: &[u8]| dns::answer(bytes, 7, &SERVICE.parse().unwrap(), false);
        let socket = client();
        socket.send(&padded(SERVICE, LARGEST)).unwrap();
        assert_eq!(answered(&receive(&socket)), Ok(address()), "control, over UDP");
        socket.send(&padded(SERVICE, LARGEST + 1)).unwrap();
        assert_eq!(code(&receive(&socket)), 1, "what does not fit is cut off, and malformed");
        let mut stream = connect(DNS, 53).unwrap();
        send_framed(&mut stream, &padded(SERVICE, LARGEST)).unwrap();
        assert_eq!(answered(&framed(&mut stream).expect("an answer")), Ok(address()), "control, over TCP");
        send_framed(&mut stream, &padded(SERVICE, LARGEST + 1)).unwrap();
        assert_eq!(framed(&mut stream), None, "the stream is ended");
    });
    world.eventually("it is written down", || match world.denials("query_malformed").len() {
        1 => Ok(()),
        _ => Err(world.log()),
    });
}

#[test]
fn an_app_does_not_hold_the_kubelets_places() {
    let world = World::guarded(&policy());
    for own in ["127.0.0.1", "::1", POD[0], POD[1]] {
        let outcome = world.tcp(own, HEALTH_PORT, b"GET /readyz HTTP/1.1\r\n\r\n");
        assert!(matches!(outcome, Outcome::Other(0) | Outcome::Error(ErrorKind::ConnectionReset)), "{own}: {outcome:?}");
    }
    let idle: Vec<TcpStream> = in_namespace(&world.world, || (0..32).map(|_| connect(POD[0], HEALTH_PORT).unwrap()).collect());
    let began = Instant::now();
    assert!(world.health().unwrap().starts_with("HTTP/1.1 200"));
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    drop(idle);
}

#[test]
fn observe_passes_on_what_enforce_would_not() {
    let world = World::new();
    let asked = name_server(&world, "never");
    world.redirect();
    world.policy(&asks_ours(|p| p["mode"] = json!("Observe")));
    world.start();
    world.ready();
    world.in_pod(|| {
        let socket = client();
        for (what, query) in [
            ("an undeclared name", question("other.example")),
            ("another class", odd("version.bind", 16, 3)),
            ("another type", odd("help.example.com", 65, 1)),
            ("a resolver's try", question("help.example.com.support.svc.cluster.local")),
        ] {
            socket.send(&query).unwrap();
            assert_eq!(code(&receive(&socket)), PASSED_ON as u8, "{what}");
        }
        let mut stream = connect(DNS, 53).unwrap();
        send_framed(&mut stream, &question("over-tcp.example")).unwrap();
        assert_eq!(code(&framed(&mut stream).expect("an answer")), PASSED_ON as u8);
    });
    assert_eq!(asked.lock().unwrap().get("tcp over-tcp.example"), Some(&1));
    let denied: Vec<Value> = world.denials("name_not_declared");
    assert!(denied.len() == 3 && denied.iter().all(|r| r["event"] == "would_deny"), "{}", world.log());
}

#[test]
fn an_app_that_uses_up_the_descriptors_does_not_stop_a_narrowing() {
    let world = World::guarded(&policy());
    let connection = || {
        let mut orders = world.in_pod(|| connect(ORDERS, 5432).unwrap());
        let mut talk = move |say: &[u8]| orders.write_all(say).and_then(|()| orders.read_exact(&mut [0; 4]));
        talk(b"ping").unwrap();
        talk
    };
    let mut first = connection();
    // A new one takes the lowest number that is free.
    let free = || (0u32..).find(|n| !std::path::Path::new(&format!("/proc/{}/fd/{n}", world.pid())).is_symlink()).unwrap();
    let most = free() + 8;
    // As the guard's own user, who may.
    let limited = Command::new("setpriv")
        .args(["--clear-groups", "--reuid", &world.uid.to_string(), "--regid", &world.gid.to_string()])
        .args(["prlimit", "--pid", &world.pid().to_string(), &format!("--nofile={most}:{most}")])
        .status();
    assert!(limited.unwrap().success());
    // Each has two.
    let taken: Vec<_> = (0..4).map(|_| connection()).collect();
    world.eventually("none is left", || if free() >= most { Ok(()) } else { Err(free().to_string()) });
    let mut next = policy();
    next["generation"] = json!(2);
    next["destinations"] = json!([]);
    world.policy(&next);
    world.eventually("the connection is cut", || first(b"more").err().ok_or("it goes on".to_owned()));
    drop(taken);
}
