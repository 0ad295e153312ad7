//! Tricks below TCP and DNS: forged sources, connections of others, ways round the loopback device, the guard's own ports and questions.
//!
//! Each was a way out, or a way to lock others out, before the rule that stops it (see `guard/redirect/table.rs`).

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use remit::policy::pod::{DNS_PORT, HTTP_PORT, TCP_PORT};
use remit::wire::dns::{self, Answer};
use socket2::{Domain, Protocol, Socket, Type};

use super::{EVIL, GATEWAY, HELP, ORDERS, POD, World, connect, hello, policy};

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// An IPv6 socket that bears any source address: no right is needed for it.
fn forged(kind: Type, source: &str, port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV6, kind, None).expect("a socket");
    socket.set_freebind_v6(true).expect("anybody may");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&at(source, port).into()).expect("a foreign address");
    socket
}

/// What held the port before may need a moment to let go.
fn bound(source: &str, port: u16) -> Socket {
    let to = at(source, port);
    let began = Instant::now();
    loop {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        match socket.bind(&to.into()) {
            Ok(()) => return socket,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(5), "{to}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Connects and talks; what came back.
fn talk(socket: Socket, to: SocketAddr, say: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.connect_timeout(&to.into(), Duration::from_secs(2))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(say)?;
    let mut got = vec![0; say.len()];
    stream.read_exact(&mut got)?;
    Ok(got)
}

#[test]
fn a_forged_source_leaves_no_socket() {
    let attack = |world: &World| {
        world.in_pod(|| {
            // The DNS server answers with the question in it, to whoever seems to have asked.
            let socket = UdpSocket::from(forged(Type::DGRAM, EVIL[1], 9999));
            let question = dns::question(7, &"secret-of-the-app.example".parse().expect("a name"), false);
            let sent = socket.send_to(&question, (EVIL[1], 53)).map_err(|e| e.kind());
            // A datagram to this pod itself.
            let receiver = UdpSocket::bind((POD[1], 0)).expect("a socket");
            receiver.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            let _ = socket.send_to(b"forged", receiver.local_addr().expect("bound"));
            let mut got = [0; 16];
            (sent, receiver.recv_from(&mut got).is_ok())
        })
    };
    let world = World::new();
    assert_eq!(attack(&world), (Ok(54), true), "control: without Remit anybody forges");
    let world = World::guarded(&policy());
    assert_eq!(attack(&world), (Err(ErrorKind::PermissionDenied), false));
    assert_eq!(world.arrived(), Default::default());
}

#[test]
fn an_answer_to_a_forged_connection_is_none() {
    const PORT: u16 = 42_002;
    let world = World::guarded(&policy());
    world.in_pod(|| {
        let (pod, node) = (at(POD[1], PORT), at(GATEWAY[1], 10_250));
        // A listener that takes nobody any more: what comes is dropped in silence.
        let listener = bound(POD[1], PORT);
        listener.listen(0).expect("it listens");
        let full: Vec<TcpStream> = (0..2).filter_map(|_| TcpStream::connect_timeout(&pod, Duration::from_millis(200)).ok()).collect();
        assert!(!full.is_empty());
        // "The node" connects to the pod ...
        let stranger = forged(Type::STREAM, GATEWAY[1], 10_250);
        stranger.set_nonblocking(true).expect("an option");
        let _ = stranger.connect(&pod.into());
        drop((stranger, listener, full));
        // ... and the pod's first packet to the node is its answer.
        assert!(talk(bound(POD[1], PORT), node, b"past the guard").is_err());
    });
    assert_eq!(world.arrived().keys().filter(|what| what.contains("10250")).count(), 0, "{:?}", world.arrived());
}

#[test]
fn a_connection_of_the_guard_is_nobody_elses() {
    let world = World::guarded(&policy());
    world.in_pod(|| {
        let mut stream = connect(HELP[0], 443).expect("connected");
        let hello = hello("help.example.com");
        stream.write_all(&hello).expect("sent");
        stream.read_exact(&mut vec![0; hello.len()]).expect("an echo");
        let port = guards_port(world.uid, at(HELP[0], 443));
        // The server breaks it off: the kernel remembers the connection for a while.
        stream.write_all(b"RESET").expect("sent");
        assert!(stream.read_exact(&mut [0; 5]).is_err());
        world.forget();
        // The same ports, by an app: neither TLS nor a name.
        let mine = bound(POD[0], port);
        assert!(talk(mine, at(HELP[0], 443), b"no TLS, no name").is_err());
    });
    assert_eq!(world.arrived(), Default::default());
}

/// The local port of a connection of this user to this address. (IPv4 only: /proc/net/tcp.)
fn guards_port(uid: u32, to: SocketAddr) -> u16 {
    let IpAddr::V4(address) = to.ip() else { panic!("IPv4") };
    let remote = format!("{:08X}:{:04X}", u32::from_le_bytes(address.octets()), to.port());
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("the table");
    let row = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|row| row.get(2) == Some(&remote.as_str()) && row.get(7) == Some(&uid.to_string().as_str()));
    let local = row.unwrap_or_else(|| panic!("no connection to {to} in\n{table}"))[1];
    u16::from_str_radix(local.split(':').nth(1).expect("a port"), 16).expect("a number")
}

#[test]
fn loopback_is_reached_through_the_loopback_device_only() {
    let attack = |world: &World| {
        world.in_pod(|| {
            let device = std::fs::read_dir("/sys/class/net").map(|_| world.device()).expect("the device");
            ["127.0.0.1", "::1"].map(|address| {
                let to = at(address, 7777);
                let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None).expect("a socket");
                socket.bind_device(Some(device.as_bytes())).expect("anybody may");
                socket.send_to(b"datagram", &to.into()).map_err(|e| e.kind())
            })
        })
    };
    let world = World::new();
    assert_eq!(attack(&world)[0], Ok(8), "control: without Remit it leaves");
    let world = World::guarded(&policy());
    for outcome in attack(&world) {
        assert!(outcome.is_err(), "{outcome:?}");
    }
}

#[test]
fn nobody_lays_a_trap_for_the_guards_questions() {
    let world = World::guarded(&policy());
    world.in_pod(|| {
        // A packet from every port that the guard's next question may have.
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("the range");
        let range: Vec<u16> = range.split_whitespace().map(|n| n.parse().expect("a port")).collect();
        for port in range[0]..=range[1] {
            if let Ok(socket) = UdpSocket::bind((POD[0], port)) {
                let _ = socket.send_to(b"x", (super::DNS, 53));
            }
        }
    });
    let asked = Instant::now();
    let (answer, _) = world.lookup("orders.shop.svc.cluster.local");
    assert!(matches!(&answer, Answer::Addresses(found, _) if *found == [ORDERS.parse::<IpAddr>().expect("an address")]), "{answer:?}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[test]
fn nobody_answers_in_the_guards_place() {
    let world = World::guarded(&policy());
    world.kill();
    world.in_pod(|| {
        let squatters = [TcpListener::bind(("127.0.0.1", TCP_PORT)), TcpListener::bind(("127.0.0.1", DNS_PORT))];
        assert!(squatters.iter().all(Result::is_ok), "anybody may take a port that is free");
        // Base URLs lead here: whoever answered would be taken for the destination.
        for loopback in ["127.0.0.1", "::1"] {
            let _squatter = TcpListener::bind((loopback, HTTP_PORT)).expect("and this one");
            assert!(connect(loopback, HTTP_PORT).is_err(), "nobody answers at {loopback}");
        }
        let questions = UdpSocket::bind(("127.0.0.1", DNS_PORT)).expect("and this one");
        assert!(connect(HELP[0], 443).is_err(), "nobody is connected to the squatter");
        // A question arrives; its answer does not.
        let asking = UdpSocket::bind((POD[0], 0)).expect("a socket");
        asking.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        asking.send_to(b"question", (super::DNS, 53)).expect("sent");
        questions.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        let mut got = [0; 16];
        let (_, from) = questions.recv_from(&mut got).expect("the question");
        assert_eq!(questions.send_to(b"answer", from).map_err(|e| e.kind()), Err(ErrorKind::PermissionDenied));
        assert!(asking.recv_from(&mut got).is_err());
    });
    world.start();
    world.ready();
    assert_eq!(world.tcp(ORDERS, 5432, b"ping"), super::Outcome::Echo);
}
