//! A policy that changes under requests that are under way, and between requests.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use super::http_wire::{self, PORTS, Upstream};
use super::{ORDERS, World, connect};

/// A stream of events at this port, of which the first has come.
fn streaming(world: &World, upstream: &Upstream, port: u16, path: &str) -> TcpStream {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n";
    upstream.look(|seen| seen.answer = Some((head.as_bytes().to_vec(), false)));
    world.in_pod(|| {
        let mut stream = connect(ORDERS, port).expect("connected");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: orders.shop:{port}\r\n\r\n").as_bytes()).expect("sent");
        let (mut got, mut buffer) = (Vec::new(), [0; 1024]);
        while !got.windows(7).any(|seven| seven == b"data: 1") {
            let length = stream.read(&mut buffer).expect("the first event");
            assert_ne!(length, 0, "{}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buffer[..length]);
        }
        stream
    })
}

/// Whether it was broken off.
fn is_cut(stream: &mut TcpStream) -> Result<(), String> {
    stream.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("a timeout");
    match stream.read(&mut [0; 64]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_path_that_is_no_longer_declared_ends_its_stream_and_no_other() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    let mut articles = streaming(&world, &upstream, PORTS[1], "/articles/7");
    let mut live = streaming(&world, &upstream, PORTS[1], "/live");
    let mut narrowed = http_wire::policy();
    narrowed["generation"] = json!(2);
    narrowed["destinations"][1]["target"]["http"]["rules"].as_array_mut().unwrap().remove(0);
    world.policy(&narrowed);
    world.eventually("the stream is cut", || is_cut(&mut articles));
    assert!(is_cut(&mut live).is_err(), "what is declared goes on");
    assert_eq!(world.denials("path_not_declared").len(), 1);
    // Between requests it is the connection that ends, once nothing of it is declared.
    let mut gone = http_wire::policy();
    gone["generation"] = json!(3);
    gone["destinations"].as_array_mut().unwrap().retain(|destination| destination["source"] != "ledger");
    world.policy(&gone);
    world.eventually("the other is cut as well", || is_cut(&mut live));
}
